"""One session of the naive model, phase by phase: what an honest server does, and what an attack bends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np

from simulations.naive.masks import Mask
from simulations.naive.model import NaiveClient, NaiveServer, Opened, UnmaskAnswer, View
from simulations.naive.setting import Setting, Weakness
from simulations.world.randomness import SeededRng


class Session:
    """The clients of a session and their server; everything follows from the seed.

    Args:
        seed: of all vectors and secrets.
        setting: sizes and weaknesses.
        server: the server, if it is another than the honest one.
    """

    def __init__(self, seed: int, setting: Setting, server: NaiveServer | None = None) -> None:
        self.setting = setting
        self.server = server or NaiveServer(setting)
        self.vectors = tuple(
            _vector(SeededRng(seed, "naive vector", index), setting) for index in range(setting.clients)
        )
        self.clients = tuple(
            NaiveClient(index, setting, vector, SeededRng(seed, "naive client", index))
            for index, vector in enumerate(self.vectors)
        )
        self.identities = {client.index: client.identity for client in self.clients}

    @property
    def everybody(self) -> frozenset[int]:
        """All clients' indices."""
        return frozenset(self.identities)

    def collect(self, silent: Set[int] = frozenset()) -> None:
        """Runs the session until every client has masked its vector, except those that drop out before they send it.

        Args:
            silent: who drops out.

        Raises:
            RefusedError: a client does not go on.
        """
        for client in self.clients:
            self.server.keys[client.index] = client.advertise()
        for client in self.clients:
            self.server.boxes[client.index] = client.deal(self.server.keys_for(client.index), self.identities)
        for client in self.clients:
            if client.index not in silent:
                self.server.masked[client.index] = client.mask(self.server.boxes_for(client.index))

    def ask(self, views: Mapping[int, View]) -> list[UnmaskAnswer]:
        """Tells clients who is alive and who dropped, and collects their answers.

        Args:
            views: what each client that is asked is told.

        Returns:
            The answers, in the order of `views`.

        Raises:
            RefusedError: a client does not answer.
        """
        confirmations: dict[int, bytes] = {}
        if not self.setting.has(Weakness.NO_CONSISTENCY):
            confirmations = {index: self.clients[index].confirm(view) for index, view in views.items()}
        return [self.clients[index].unmask(view, confirmations, self.identities) for index, view in views.items()]

    def open_honestly(self) -> tuple[Opened | None, list[UnmaskAnswer]]:
        """What an honest server does once masked vectors are in: one view for all, one sum.

        Returns:
            The sum over all that sent a masked vector, or None if too few answered, and the answers it rests on.

        Raises:
            RefusedError: a client does not answer.
        """
        alive = frozenset(self.server.masked)
        answers = self.ask(dict.fromkeys(sorted(alive), View(alive, self.everybody - alive)))
        return self.server.open(alive, answers), answers

    def sum_of(self, clients: Set[int]) -> Mask:
        """The true sum over some clients, modulo 2^32, uint32[dimension]."""
        return _total([self.vectors[index] for index in clients], self.setting)


def _total(vectors: Sequence[Mask], setting: Setting) -> Mask:
    total = np.zeros(setting.dimension, dtype=np.uint32)
    for vector in vectors:
        total += vector
    return total


def _vector(rng: SeededRng, setting: Setting) -> Mask:
    words = np.frombuffer(rng.bytes(4 * setting.dimension), dtype="<u4")
    return (words & np.uint32((1 << setting.value_bits) - 1)).astype(np.uint32)
