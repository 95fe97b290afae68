"""Masked inputs as they arrived: what knowledge of sessions of every protocol begins with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from secagg.transcript.statements import ContributionHeader, OneShotHeader
from simulations.world.cast import Cast
from simulations.world.network import Call

HeaderT = TypeVar("HeaderT", ContributionHeader, OneShotHeader)


class KnowledgeError(RuntimeError):
    """Something was seen that cannot be taken into account, so that no answer would be exact."""


@dataclass(frozen=True, slots=True)
class Adversary:
    """Who colludes with the coordinator: numbers of clients, places of committee members."""

    clients: frozenset[int] = frozenset()
    members: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class Input:
    """What one masked input hides: the input of a client; ``version`` counts its masked inputs that differ, from 0."""

    client: int
    version: int = 0

    def __str__(self) -> str:
        return f"client {self.client}" + (f" (masked input {self.version + 1})" if self.version else "")


@dataclass
class SeenInputs(Generic[HeaderT]):
    """Headers and masked inputs of each client, in the order in which they first arrived, none twice."""

    headers: dict[int, dict[HeaderT, None]] = field(default_factory=dict)
    uploads: dict[int, dict[bytes, None]] = field(default_factory=dict)

    def announced(self, client: int, header: HeaderT) -> None:
        """A header has arrived."""
        self.headers.setdefault(client, {})[header] = None

    def delivered(self, client: int, data: bytes) -> None:
        """A masked input has arrived, whatever became of it."""
        self.uploads.setdefault(client, {})[hashlib.sha256(data).digest()] = None

    def of(self, client: int) -> list[tuple[Input, HeaderT]]:
        """The inputs that arrived masked, each with the header that tells its masks: its own, or else the last."""
        uploads, headers = self.uploads.get(client, {}), list(self.headers.get(client, {}))
        if uploads and not headers:
            raise KnowledgeError(f"client {client}: a masked input without a header")
        found = []
        for version, digest in enumerate(uploads):
            own = [header for header in headers if header.upload == digest]
            found.append((Input(client, version), own[0] if own else headers[-1]))
        return found


def client_number(cast: Cast, call: Call) -> int | None:
    """Which client calls; None for the coordinator."""
    kind, _, number = call.caller.partition("-")
    return int(number) if kind == "client" and int(number) < cast.plan.clients else None
