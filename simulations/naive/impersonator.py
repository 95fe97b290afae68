"""A server that stands between one client and all others: it answers to each in the name of the other side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np

from secagg.arith import shamir
from secagg.crypto.rng import Rng
from simulations.naive.masks import Mask, expand, pair_seed, public_key, seal, signed, unseal
from simulations.naive.model import AdvertisedKeys, ByClient, NaiveServer, Opened, UnmaskAnswer
from simulations.naive.setting import Setting


@dataclass(frozen=True, slots=True)
class _Forged:
    """A key pair for masks and one for boxes that the server made."""

    mask_secret: bytes
    share_secret: bytes

    def advertised(self) -> AdvertisedKeys:
        # The server has no client's identity key, and so no signature.
        return AdvertisedKeys(public_key(self.mask_secret), public_key(self.share_secret), bytes(64))


class Impersonator(NaiveServer):
    """A server that gives its victim keys of its own for everybody else, and everybody else one for the victim.

    It opens, seals again and passes on the boxes between them, so that no client sees anything out of order.

    Args:
        setting: of the session.
        victim: index of the client to cut off.
        rng: where the forged keys come from.
    """

    def __init__(self, setting: Setting, victim: int, rng: Rng) -> None:
        super().__init__(setting)
        self._victim = victim
        self._others = [index for index in range(setting.clients) if index != victim]
        # Distinct keys, because clients check that no two are the same. Number `victim` poses as the victim.
        self._forged = [_Forged(rng.bytes(32), rng.bytes(32)) for _ in range(setting.clients)]

    def keys_for(self, recipient: int) -> Mapping[int, AdvertisedKeys]:
        """To the victim forged keys of everybody else; to everybody else a forged key of the victim."""
        changed = self._others if recipient == self._victim else [self._victim]
        return {**self.keys, **{index: self._forged[index].advertised() for index in changed}}

    def boxes_for(self, recipient: int) -> ByClient:
        """As the honest server, with boxes from and to the victim sealed again."""
        boxes = dict(super().boxes_for(recipient))
        for sender in self._others if recipient == self._victim else [self._victim]:
            content = self._intercepted(sender, recipient)
            if content is not None:
                secret = self._forged[sender].share_secret
                boxes[sender] = seal(secret, self.keys[recipient].share_key, (sender, recipient), content)
        return boxes

    def unasked_answers(self) -> list[UnmaskAnswer]:
        """The shares that the victim sealed for everybody else, as if each had answered with them; nobody was asked."""
        answers = []
        for index in self._others:
            content = self._intercepted(self._victim, index)
            if content is not None:
                seed_share, secret_share = content[: shamir.SHARE_BYTES], content[shamir.SHARE_BYTES :]
                answers.append(UnmaskAnswer(index, {self._victim: seed_share}, {self._victim: secret_share}))
        return answers

    def pairwise_masks_of_victim(self) -> Mask:
        """The sum of the pairwise masks that the victim added: each of its partners was the server."""
        total = np.zeros(self.setting.dimension, dtype=np.uint32)
        for index in self._others:
            seed = pair_seed(self._forged[index].mask_secret, self.keys[self._victim].mask_key)
            total += signed(expand(seed, self.setting), self._victim, index)
        return total

    def open(self, alive: Set[int], answers: Iterable[UnmaskAnswer]) -> Opened | None:
        """As the honest server when nobody dropped out, although the victim's masks cancel nobody's.

        Returns:
            The sum, or None if a mask cannot be taken off; also None if somebody dropped out, which this server
            does not go on with.
        """
        opened = super().open(alive, answers)
        if opened is None or len(alive) < self.setting.clients:
            return None
        return Opened(opened.total - self.pairwise_masks_of_victim() - self._masks_towards_victim(), opened.warnings)

    def _masks_towards_victim(self) -> Mask:
        """The sum of the masks that everybody else added towards the server that posed as the victim."""
        total = np.zeros(self.setting.dimension, dtype=np.uint32)
        for index in self._others:
            seed = pair_seed(self._forged[self._victim].mask_secret, self.keys[index].mask_key)
            total += signed(expand(seed, self.setting), index, self._victim)
        return total

    def _intercepted(self, sender: int, recipient: int) -> bytes | None:
        """What a box between the victim and another holds; the sender sealed it to the recipient's forged key."""
        box = self.boxes[sender][recipient]
        return unseal(self._forged[recipient].share_secret, self.keys[sender].share_key, (sender, recipient), box)
