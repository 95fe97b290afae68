"""A coordinator that surrounds one client with identities of its own: everybody else in its cohort is invented."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import add_masks
from secagg.arith.shamir import limbs_to_secret, reconstruct, share_from_bytes
from secagg.crypto.sealing import SealingKey
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive import boxes
from secagg.derive.result import decode
from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    ClientMessage,
    Contribution,
    IncomingBoxes,
    NeighbourKeys,
    SharedList,
    ShareKeys,
)
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.pairwise import dealing
from secagg.protocol.pairwise.client_states import Place
from secagg.runtime.shown import Status
from secagg.transcript import merkle
from secagg.transcript.statements import AdvertiseStatement
from simulations.attacks import forgery
from simulations.attacks.pairwise_stage import People
from simulations.attacks.storyteller import Storyteller
from simulations.world.cast import key_of
from simulations.world.randomness import SeededRng
from simulations.world.world import World


@dataclass(frozen=True)
class _Invented:
    """Somebody who does not exist, with all keys."""

    identity: SigningKey
    root: Secret
    share_seed: Secret

    def advertised(self, session: bytes) -> AdvertiseKeys:
        """Its keys, signed."""
        mask_public = SealingKey(boxes.mask_key_seed(self.root, session)).public_bytes
        share_public = SealingKey(self.share_seed).public_bytes
        digests = hashlib.sha256(mask_public).digest(), hashlib.sha256(share_public).digest()
        statement = AdvertiseStatement(session, self.identity.public_bytes, *digests)
        return AdvertiseKeys(forgery.signed_by(self.identity, statement), mask_public, share_public)


class Eclipsing(Storyteller):
    """Tells the victim of a cohort in which all others are invented; the others' session goes on without it.

    Attributes:
        both_secrets: the victim's root and self-mask seed, once its boxes opened to them.
        recovered: what the victim contributed, int64, as the coordinator computes it; None before.
    """

    def __init__(self, world: World, people: People) -> None:
        super().__init__(world, people.corrupt, lambda _: [], world.plan.clients)
        self.both_secrets: tuple[Secret, Secret] | None = None
        self.recovered: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
        self._victim = people.victim
        self._rng = SeededRng(world.plan.seed, "invented")
        self._own: dict[bytes, _Invented] = {}
        self._keys: dict[bytes, AdvertiseKeys] = {}
        self._order: list[bytes] = []
        self._u1: AdvertisedList | None = None
        self._dealt: ShareKeys | None = None
        for number in range(world.plan.clients - 1):
            key = key_of(world.plan.seed, f"invented {number}")
            each = _Invented(key, Secret(self._rng.bytes(32)), Secret(self._rng.bytes(32)))
            self._own[key.public_bytes] = each
            self._keys[key.public_bytes] = each.advertised(world.cast.session.digest)

    async def status(self, caller: bytes) -> Status:
        """The victim is told of its own session, which goes as fast as it answers."""
        honest = await super().status(caller)
        if self._number(caller) != self._victim or honest.log_size < 2:
            return honest
        size = 2 if self._dealt is None else 3
        return Status(honest.phase, 0, 0, 0, size)

    async def send(self, caller: bytes, message: ClientMessage) -> None:
        """What the victim deals goes to invented neighbours: it is opened here."""
        if self._number(caller) == self._victim:
            if isinstance(message, AdvertiseKeys):
                self._keys[caller] = message
            elif isinstance(message, ShareKeys) and self._u1 is not None:
                self._dealt = message
                self._open(message)
                return
        await super().send(caller, message)

    async def advertised_list(self, caller: bytes) -> AdvertisedList:
        """To the victim, invented clients only."""
        honest = await super().advertised_list(caller)
        if self._number(caller) != self._victim:
            return honest
        self._order = sorted(self._keys)
        leaves = [self._keys[identity].signed.to_bytes() for identity in self._order]
        shown = forgery.forged_u1(self.world.cast, honest, leaves)
        self._u1 = AdvertisedList(shown.evidence, shown.leaves, self._keys_for(caller))
        return self._u1

    async def shared_list(self, caller: bytes) -> SharedList:
        """To the victim, boxes of the invented clients."""
        if self._number(caller) != self._victim or self._u1 is None or self._dealt is None:
            return await super().shared_list(caller)
        dealt = {identity: self._deal(identity) for identity in self._own} | {caller: self._dealt}
        leaves = [dealt[identity].signed.to_bytes() for identity in self._order]
        inbox = tuple(
            self._box_for(caller, identity, dealt[identity]) for identity in self._order if identity != caller
        )
        return forgery.forged_u2(self.world.cast, SharedList(self._u1.evidence, (), inbox), leaves)

    async def announce(self, caller: bytes, message: Contribution | OneShotContribution) -> bool:
        """The victim's header is kept; the others' are taken as they should be."""
        if self._number(caller) == self._victim:
            self.headers[self._victim] = message.signed
            return False
        return await super().announce(caller, message)

    async def deliver(self, caller: bytes, data: bytes) -> None:
        """Take all masks off the victim's upload."""
        if self._number(caller) != self._victim:
            await super().deliver(caller, data)
            return
        self.recovered = self._unmasked(data)

    def _keys_for(self, identity: bytes) -> tuple[NeighbourKeys, ...]:
        return tuple(
            NeighbourKeys(index, self._keys[other].mask_public, self._keys[other].share_public)
            for index, other in enumerate(self._order)
            if other != identity
        )

    def _dealer(self, identity: bytes, root: Secret) -> dealing.Dealer:
        place = Place(tuple(self._order), self._order.index(identity))
        return dealing.Dealer(self.loot.session, self._root_of_u1(), place, root)

    def _root_of_u1(self) -> bytes:
        return b"" if self._u1 is None else merkle.root(self._u1.leaves)

    def _deal(self, identity: bytes) -> ShareKeys:
        own = self._own[identity]
        dealer = self._dealer(identity, own.root)
        return dealing.deal(dealer, own.identity, Secret(self._rng.bytes(32)), self._keys_for(identity), self._rng)

    def _box_for(self, caller: bytes, sender: bytes, dealt: ShareKeys) -> IncomingBoxes:
        places = [box.recipient for box in dealt.boxes]
        at = places.index(self._order.index(caller))
        box, path = dealt.boxes[at], merkle.inclusion_proof(boxes.box_hashes(dealt.boxes), at)
        return IncomingBoxes(self._order.index(sender), box.share_box, box.pair_box, box.commitments, path)

    def _open(self, message: ShareKeys) -> None:
        digest, place = self.loot.session.digest, self._order.index(self._identity)
        shares: list[tuple[int, bytes, bytes]] = []
        for box in message.boxes:
            key = SealingKey(self._own[self._order[box.recipient]].share_seed)
            info = boxes.share_box_info(digest, self._root_of_u1(), place, box.recipient)
            self_mask, root = boxes.split_share_plaintext(key.open(box.share_box, info))
            shares.append((box.recipient + 1, root.expose(), self_mask.expose()))
        points = np.array([point for point, _, _ in shares], dtype=np.uint64)
        roots = np.stack([share_from_bytes(root) for _, root, _ in shares])
        seeds = np.stack([share_from_bytes(seed) for _, _, seed in shares])
        self.both_secrets = (
            Secret(limbs_to_secret(reconstruct(points, roots))),
            Secret(limbs_to_secret(reconstruct(points, seeds))),
        )

    def _unmasked(self, data: bytes) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
        if self.both_secrets is None:
            return None
        digest, place = self.loot.session.digest, self._order.index(self._identity)
        root, self_mask = self.both_secrets
        subtract, add = [boxes.self_mask_keystream(self_mask, digest).expose()], []
        for index, identity in enumerate(self._order):
            if index > place:
                seed = boxes.pair_seed(root, digest, index)
                subtract.append(boxes.pair_mask_keystream(seed, digest).expose())
            elif index < place:
                seed = boxes.pair_seed(self._own[identity].root, digest, place)
                add.append(boxes.pair_mask_keystream(seed, digest).expose())
        lanes = np.frombuffer(data, dtype="<u8").astype(np.uint64)
        add_masks(lanes, add, subtract, 1)
        parameters = self.loot.session.parameters
        try:
            return decode(parameters.encoding, parameters.noise, lanes, 1).integer_sum
        except ArithmeticInputError:
            return None

    @property
    def _identity(self) -> bytes:
        return self.world.clients[self._victim].identity
