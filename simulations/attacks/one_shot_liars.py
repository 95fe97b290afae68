"""Committee members and clients that lie in one-shot sessions: what stands between them and the network."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from secagg.arith.prime_field import PRIME
from secagg.arith.seeded_shamir import shares_from_bytes, shares_to_bytes
from secagg.crypto.secret import Secret
from secagg.derive.member_boxes import deal
from secagg.protocol.errors import RemoteProtocolError
from secagg.protocol.messages import Contribution, SignedReceipt
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.runtime import vectors
from secagg.runtime.participant import CoordinatorPort
from secagg.runtime.ports import BlobStore
from secagg.transcript.statements import MemberAnswer, OneShotHeader, Signed
from simulations.attacks.forgery import signed_by
from simulations.attacks.forgery_one_shot import committee_of, one_shot_of
from simulations.exploring.client_lies import Prepared
from simulations.exploring.member_lies import FalseMember
from simulations.exploring.operations import MemberLie
from simulations.world.clients import ClientNode
from simulations.world.members import Committee
from simulations.world.passing import PassingPort
from simulations.world.randomness import SeededRng
from simulations.world.world import World

Vector = npt.NDArray[np.uint64]


# Members


class WrongSums(FalseMember):
    """A member that adds an error of -1, 0 or 1 to every coefficient of its share sum, and signs that."""

    def _falsified(self, signed: Signed) -> Signed:
        answer = signed.statement
        if not isinstance(answer, MemberAnswer):
            return signed
        shares = (shares_from_bytes(answer.share_sum) + self.error()) % PRIME
        wrong = dataclasses.replace(answer, share_sum=shares_to_bytes(shares))
        return signed_by(self._cast.members[self._place], wrong)

    def error(self) -> Vector:
        """What it adds: uint64[4096], field elements."""
        draws = np.frombuffer(SeededRng(self._cast.plan.seed, "error", self._place).bytes(4096), dtype=np.uint8)
        return (PRIME - 1 + draws.astype(np.uint64) % 3) % PRIME


def let_members_lie(world: World, places: Sequence[int], lie: MemberLie) -> None:
    """Before the session is opened: put liars in the places of honest members."""
    ports = list(world.coordinator.institutions.members([b"%d" % at for at in range(len(world.members))]))
    for place in places:
        ports[place] = WrongSums(world.cast, place, ports[place], {lie}, lambda _, request: (request,))
    world.coordinator.institutions = Committee(ports)


# Clients


class InconsistentDealer(PassingPort):
    """Deals some members the shares of another secret than the one that masks its input.

    Args:
        client: whose key signs it.
        port: the network.
        places: members that get wrong shares.
    """

    def __init__(self, client: ClientNode, port: CoordinatorPort, places: tuple[int, ...]) -> None:
        super().__init__(port)
        self._client = client
        self._places = places

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """Upload the honest masked input with other boxes, all of it signed."""
        if not isinstance(message, OneShotContribution):
            return await super().upload(session, message, blobs)
        wrong = self._dealt()
        parts = tuple(wrong[at] if at in self._places else part for at, part in enumerate(message.parts))
        signed = resigned(self._client, message.signed, parts=tuple(hashlib.sha256(each).digest() for each in parts))
        return await super().upload(session, OneShotContribution(signed, message.linear_hash, parts), blobs)

    def _dealt(self) -> tuple[bytes, ...]:
        cast = self._client.cast
        committee, rng = committee_of(cast), SeededRng(cast.plan.seed, self._client.name, "other secret")
        other = np.zeros(4096, dtype=np.int64)
        other[: cast.plan.dimension] = 1
        seeds = [Secret(rng.bytes(32)) for _ in range(committee.needed - 1)]
        return deal(committee, other, seeds, one_shot_of(cast).digest, self._client.identity)


class AlteringRetrier(PassingPort):
    """Tries an upload several times, with other bytes each time, and only then honestly; ``heard`` gets refusals."""

    def __init__(self, client: ClientNode, port: CoordinatorPort, heard: Callable[[str, str], None]) -> None:
        super().__init__(port)
        self._client = client
        self._heard = heard

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """Other bytes under the header, the honest upload, and then another header with bytes that fit it."""
        if not isinstance(message, OneShotContribution) or not isinstance(message.signed.statement, OneShotHeader):
            return await super().upload(session, message, blobs)
        name = message.signed.statement.upload
        lanes = np.frombuffer(blobs.get(name), dtype="<u8") + np.uint64(1)
        altered = bytes(vectors.as_bytes(lanes))
        await self._try("other bytes under the header that was signed", session, message, Prepared(name, altered))
        receipt = await super().upload(session, message, blobs)
        linear_hash, digest = vectors.linear_hash_of(lanes), hashlib.sha256(altered).digest()
        hashed = hashlib.sha256(linear_hash).digest()
        signed = resigned(self._client, message.signed, upload=digest, linear_hash=hashed)
        other = OneShotContribution(signed, linear_hash, message.parts)
        await self._try("a second header of the same client", session, other, Prepared(digest, altered))
        return receipt

    async def _try(self, what: str, session: bytes, message: OneShotContribution, blobs: BlobStore) -> None:
        try:
            await super().upload(session, message, blobs)
        except RemoteProtocolError as error:
            self._heard(what, error.reason.name)


def resigned(client: ClientNode, signed: Signed, **changes: object) -> Signed:
    """Another header, with the client's signature."""
    statement = signed.statement
    if not isinstance(statement, OneShotHeader):
        raise TypeError(f"a statement of type {statement.TYPE}")
    key = client.cast.clients[client.number]
    return signed_by(key, dataclasses.replace(statement, **changes))  # type: ignore[arg-type]
