"""Clients that lie: a port that sends something else than the client's machine decided on, signed with its own key."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from secagg.derive import boxes
from secagg.protocol.errors import RemoteProtocolError
from secagg.protocol.messages import (
    AdvertiseKeys,
    ClientMessage,
    ConfirmClose,
    Contribution,
    OutgoingBoxes,
    ShareKeys,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.one_shot.messages import CommitContribution, OneShotContribution
from secagg.runtime import vectors
from secagg.runtime.memory import MemoryBlobStore
from secagg.runtime.participant import CoordinatorPort
from secagg.runtime.ports import BlobStore
from secagg.transcript import merkle
from secagg.transcript.statements import (
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    OneShotHeader,
    ReleasedShare,
    RootShare,
    SelfMaskShare,
    ShareStatement,
    Signed,
    Statement,
    UnmaskStatement,
)
from simulations.exploring.operations import ClientLie, DropPhase
from simulations.world.clients import ClientNode
from simulations.world.passing import PassingPort

AnyContribution = Contribution | OneShotContribution
_PHASES: dict[type[Any], DropPhase] = {
    AdvertiseKeys: DropPhase.ADVERTISE_KEYS,
    ShareKeys: DropPhase.SHARE_KEYS,
    ConfirmClose: DropPhase.CONSISTENCY_CHECK,
    UnmaskAnswer: DropPhase.UNMASK,
}


class LyingPort(PassingPort):
    """A ``CoordinatorPort`` between a corrupt client and the network.

    Args:
        client: whose key signs the lies.
        port: the network.
        lies: which.
        equivocates: of which phases a second version is sent as well.
    """

    def __init__(
        self,
        client: ClientNode,
        port: CoordinatorPort,
        lies: frozenset[ClientLie],
        equivocates: frozenset[DropPhase],
    ) -> None:
        super().__init__(port)
        self._client = client
        self._lies = lies
        self._equivocates = equivocates

    async def send(self, session: bytes, message: ClientMessage | CommitContribution) -> None:
        """Send what is said instead; then, where the client equivocates, another version."""
        for lie in sorted(self._lies):
            message = self._altered(lie, message)
        await self._port.send(session, message)
        if _PHASES.get(type(message)) in self._equivocates:
            with contextlib.suppress(RemoteProtocolError):
                await self._port.send(session, self._second(message))

    async def upload(self, session: bytes, message: AnyContribution, blobs: BlobStore) -> SignedReceipt:
        """Upload what is said instead; then, where the client equivocates, another version."""
        name = _upload_of(message)
        data = bytes(blobs.get(name))
        for lie in sorted(self._lies):
            message, data = self._altered_upload(lie, message, data)
        receipt = await self._port.upload(session, message, Prepared(_upload_of(message), data))
        if DropPhase.MASKED_INPUT in self._equivocates:
            again, other = self._other_upload(message, data)
            with contextlib.suppress(RemoteProtocolError):
                await self._port.upload(session, again, Prepared(_upload_of(again), other))
        return receipt

    def _sign(self, statement: Statement) -> Signed:
        key = self._client.cast.clients[self._client.number]
        return Signed(statement, key.sign_statement(statement.to_bytes()))

    def _changed(self, signed: Signed, **changes: Any) -> Signed:  # noqa: ANN401
        return self._sign(dataclasses.replace(signed.statement, **changes))

    def _altered(
        self, lie: ClientLie, message: ClientMessage | CommitContribution
    ) -> ClientMessage | CommitContribution:
        match lie, message:
            case ClientLie.WRONG_SHARE, UnmaskAnswer():
                return self._answering(message, lambda shares: tuple(map(_wrong_share, shares)))
            case ClientLie.OPPOSITE_SHARE, UnmaskAnswer():
                return self._answering(message, lambda shares: tuple(map(_opposite, shares)))
            case ClientLie.FEWER_SHARES, UnmaskAnswer():
                return self._answering(message, lambda shares: shares[1:])
            case ClientLie.OMITTED_BOXES, ShareKeys():
                return self._dealing(message, message.boxes[:-1])
            case ClientLie.GARBLED_BOXES, ShareKeys():
                return self._dealing(message, tuple(map(_garbled, message.boxes)))
            case _:
                return message

    def _second(self, message: ClientMessage | CommitContribution) -> ClientMessage | CommitContribution:
        match message:
            case AdvertiseKeys(signed, mask_public, share_public) if isinstance(signed.statement, AdvertiseStatement):
                keys = {"mask_key": signed.statement.share_key, "share_key": signed.statement.mask_key}
                return AdvertiseKeys(self._changed(signed, **keys), share_public, mask_public)
            case ShareKeys():
                return self._dealing(message, tuple(map(_garbled, message.boxes)))
            case ConfirmClose(signed) if isinstance(signed.statement, ConfirmStatement):
                return ConfirmClose(self._changed(signed, close=hashlib.sha256(b"another close").digest()))
            case UnmaskAnswer():
                return self._answering(message, lambda shares: tuple(map(_opposite, shares)))
            case _:
                return message

    def _answering(
        self, message: UnmaskAnswer, alter: Callable[[tuple[ReleasedShare, ...]], tuple[ReleasedShare, ...]]
    ) -> UnmaskAnswer:
        statement = message.signed.statement
        if not isinstance(statement, UnmaskStatement):
            return message
        return UnmaskAnswer(self._changed(message.signed, shares=alter(statement.shares)))

    def _dealing(self, message: ShareKeys, dealt: tuple[OutgoingBoxes, ...]) -> ShareKeys:
        if not isinstance(message.signed.statement, ShareStatement):
            return message
        root = merkle.root_of_hashes(boxes.box_hashes(dealt))
        return ShareKeys(self._changed(message.signed, boxes=root), dealt)

    def _altered_upload(self, lie: ClientLie, message: AnyContribution, data: bytes) -> tuple[AnyContribution, bytes]:
        header = message.signed.statement
        match lie:
            case ClientLie.WRONG_LENGTH:
                longer = data + bytes(8)
                changes: dict[str, Any] = {"upload": hashlib.sha256(longer).digest(), "lanes": len(longer) // 8}
                return self._contributing(message, **changes), longer
            case ClientLie.OTHER_SESSION:
                return self._contributing(message, session=hashlib.sha256(header.session).digest()), data
            case ClientLie.ALTERED_UPLOAD:
                return message, _flipped(data)
            case ClientLie.WRONG_LINEAR_HASH:
                wrong = _flipped(message.linear_hash)
                message = self._contributing(message, linear_hash=hashlib.sha256(wrong).digest())
                return dataclasses.replace(message, linear_hash=wrong), data
            case ClientLie.FALSE_MISSING if isinstance(header, ContributionHeader):
                return self._contributing(message, missing=(self._first_neighbour(),)), data
            case ClientLie.OMITTED_BOXES if isinstance(message, OneShotContribution):
                return self._with_parts(message, message.parts[:-1]), data
            case ClientLie.GARBLED_BOXES if isinstance(message, OneShotContribution):
                return self._with_parts(message, tuple(map(_flipped, message.parts))), data
            case _:
                return message, data

    def _contributing(self, message: AnyContribution, **changes: Any) -> AnyContribution:  # noqa: ANN401
        return dataclasses.replace(message, signed=self._changed(message.signed, **changes))

    def _with_parts(self, message: OneShotContribution, parts: tuple[bytes, ...]) -> OneShotContribution:
        digests = tuple(hashlib.sha256(part).digest() for part in parts)
        return OneShotContribution(self._changed(message.signed, parts=digests), message.linear_hash, parts)

    def _other_upload(self, message: AnyContribution, data: bytes) -> tuple[AnyContribution, bytes]:
        """Another input under the same masks: the difference of the two would be that of the inputs."""
        lanes = np.frombuffer(data, dtype="<u8").astype(np.uint64) + np.uint64(1)
        other, words = bytes(vectors.as_bytes(lanes)), vectors.linear_hash_of(lanes)
        digests = {"upload": hashlib.sha256(other).digest(), "linear_hash": hashlib.sha256(words).digest()}
        return dataclasses.replace(self._contributing(message, **digests), linear_hash=words), other

    def _first_neighbour(self) -> int:
        place = getattr(getattr(self._client.participant, "state", None), "place", None)
        return 1 if place is not None and place.index == 0 else 0


class Prepared(MemoryBlobStore):
    """Has one upload under the name that its header signs, whatever it is."""

    def __init__(self, name: bytes, data: bytes) -> None:
        super().__init__()
        self._name = name
        self._data = data

    def get(self, digest: bytes) -> bytes:
        """The upload."""
        return self._data if digest == self._name else super().get(digest)


def _upload_of(message: AnyContribution) -> bytes:
    header = message.signed.statement
    if not isinstance(header, ContributionHeader | OneShotHeader):
        raise TypeError(f"a contribution with a statement {header.TYPE}")
    return header.upload


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _garbled(box: OutgoingBoxes) -> OutgoingBoxes:
    return dataclasses.replace(box, share_box=_flipped(box.share_box))


def _wrong_share(share: ReleasedShare) -> ReleasedShare:
    # Nine field elements of 1, 32 bits each.
    return dataclasses.replace(share, share=b"\x01\x00\x00\x00" * 9)


def _opposite(share: ReleasedShare) -> ReleasedShare:
    kind = RootShare if isinstance(share, SelfMaskShare) else SelfMaskShare
    return kind(share.index, share.share)
