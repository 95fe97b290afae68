"""Protobuf messages to the types of the protocol and back.

Decoding trusts nothing: whatever bytes a peer sends, the outcome is a message whose fields have the right
lengths and counts, or ``RemoteProtocolError(MALFORMED_MESSAGE)`` whose detail starts with the proto field. What
only a machine can judge (lengths of keys and boxes, which index belongs where) stays its business, because its
reasons say more. Encoding checks nothing: it is given values that were checked when they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, assert_never

from secagg.arith.linear_hash import HASH_BYTES
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    ClosedList,
    Confirmations,
    ConfirmClose,
    Contribution,
    IncomingBoxes,
    NeighbourKeys,
    OutgoingBoxes,
    SessionEnded,
    SharedList,
    ShareKeys,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.pairwise.coordinator_states import Phase
from secagg.transcript.entries import MAX_COHORT, SESSION_ID_BYTES
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merkle import DIGEST_BYTES
from secagg.transcript.record import RecordError
from secagg.transcript.statements import MAX_NEIGHBOURS, Signed
from secagg.v1 import aggregation_pb2 as pb

IDENTITY_BYTES = 32
SIGNATURE_BYTES = 64
MAX_PROOF = 64
"""A consistency proof has at most a hash or two for each level of a tree of 2^63 leaves."""

MAX_PATH = 32
"""An audit path is as long as the tree is high; no tree here has more than 2^32 leaves."""


class HasSession(Protocol):
    """Any request: it names a session."""

    @property
    def session(self) -> bytes:
        """Session identifier."""
        ...


class _HasIdentity(Protocol):
    @property
    def identity(self) -> bytes: ...


class _HasEvidence(Protocol):
    @property
    def evidence(self) -> pb.LogEvidence: ...


def session_from_pb(request: HasSession) -> bytes:
    """The session that any request names, 16 bytes."""
    return _exactly("session", request.session, SESSION_ID_BYTES)


def identity_from_pb(request: _HasIdentity) -> bytes:
    """The caller's identity key in any request that has one, 32 bytes."""
    return _exactly("identity", request.identity, IDENTITY_BYTES)


# Client to coordinator.


def advertise_keys_to_pb(session: bytes, message: AdvertiseKeys) -> pb.AdvertiseKeysRequest:
    """Phase 1, encoded."""
    return pb.AdvertiseKeysRequest(
        session=session,
        signed=message.signed.to_bytes(),
        mask_public=message.mask_public,
        share_public=message.share_public,
    )


def advertise_keys_from_pb(request: pb.AdvertiseKeysRequest) -> AdvertiseKeys:
    """Phase 1, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    return AdvertiseKeys(_signed("signed", request.signed), request.mask_public, request.share_public)


def share_keys_to_pb(session: bytes, message: ShareKeys) -> pb.ShareKeysRequest:
    """Phase 2, encoded."""
    return pb.ShareKeysRequest(
        session=session,
        signed=message.signed.to_bytes(),
        boxes=[
            pb.ShareKeysRequest.Boxes(
                recipient=boxes.recipient,
                share_box=boxes.share_box,
                pair_box=boxes.pair_box,
                commitments=boxes.commitments,
            )
            for boxes in message.boxes
        ],
    )


def share_keys_from_pb(request: pb.ShareKeysRequest) -> ShareKeys:
    """Phase 2, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    _at_most("boxes", request.boxes, MAX_NEIGHBOURS)
    boxes = tuple(
        OutgoingBoxes(_index(f"boxes[{i}].recipient", each.recipient), each.share_box, each.pair_box, each.commitments)
        for i, each in enumerate(request.boxes)
    )
    return ShareKeys(_signed("signed", request.signed), boxes)


def contribution_to_pb(session: bytes, message: Contribution) -> pb.StartUploadRequest:
    """Phase 3, the header and the linear hash, encoded."""
    return pb.StartUploadRequest(session=session, signed=message.signed.to_bytes(), linear_hash=message.linear_hash)


def contribution_from_pb(request: pb.StartUploadRequest) -> Contribution:
    """Phase 3, the header and the linear hash, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    linear_hash = _exactly("linear_hash", request.linear_hash, HASH_BYTES)
    return Contribution(_signed("signed", request.signed), linear_hash)


def confirm_close_to_pb(session: bytes, message: ConfirmClose) -> pb.ConfirmCloseRequest:
    """Phase 4, encoded."""
    return pb.ConfirmCloseRequest(session=session, signed=message.signed.to_bytes())


def confirm_close_from_pb(request: pb.ConfirmCloseRequest) -> ConfirmClose:
    """Phase 4, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    return ConfirmClose(_signed("signed", request.signed))


def unmask_answer_to_pb(session: bytes, message: UnmaskAnswer) -> pb.UnmaskRequest:
    """Phase 5, encoded."""
    return pb.UnmaskRequest(session=session, signed=message.signed.to_bytes())


def unmask_answer_from_pb(request: pb.UnmaskRequest) -> UnmaskAnswer:
    """Phase 5, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    return UnmaskAnswer(_signed("signed", request.signed))


# Coordinator to client.


def log_evidence_to_pb(evidence: LogEvidence) -> pb.LogEvidence:
    """The end of the log under a checkpoint, encoded."""
    return pb.LogEvidence(
        entries=evidence.entries, start=evidence.start, prefix=evidence.prefix, checkpoint=evidence.checkpoint
    )


def log_evidence_from_pb(message: pb.LogEvidence) -> LogEvidence:
    """The end of the log under a checkpoint, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return _log_evidence(message, "")


def consistency_from_pb(message: pb.GetSessionResponse) -> tuple[bytes, ...]:
    """A consistency proof, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    _at_most("consistency", message.consistency, MAX_PROOF)
    return tuple(_exactly(f"consistency[{i}]", node, DIGEST_BYTES) for i, node in enumerate(message.consistency))


def advertised_list_to_pb(message: AdvertisedList) -> pb.GetAdvertisedKeysResponse:
    """U1, encoded."""
    return pb.GetAdvertisedKeysResponse(
        evidence=log_evidence_to_pb(message.evidence),
        leaves=message.leaves,
        keys=[
            pb.GetAdvertisedKeysResponse.Keys(
                index=keys.index, mask_public=keys.mask_public, share_public=keys.share_public
            )
            for keys in message.keys
        ],
    )


def advertised_list_from_pb(response: pb.GetAdvertisedKeysResponse) -> AdvertisedList:
    """U1, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    _at_most("keys", response.keys, MAX_NEIGHBOURS)
    keys = tuple(
        NeighbourKeys(_index(f"keys[{i}].index", each.index), each.mask_public, each.share_public)
        for i, each in enumerate(response.keys)
    )
    return AdvertisedList(_evidence_of(response), _leaves(response.leaves), keys)


def shared_list_to_pb(message: SharedList) -> pb.GetSharedKeysResponse:
    """U2, encoded."""
    return pb.GetSharedKeysResponse(
        evidence=log_evidence_to_pb(message.evidence),
        leaves=message.leaves,
        inbox=[
            pb.GetSharedKeysResponse.Boxes(
                sender=boxes.sender,
                share_box=boxes.share_box,
                pair_box=boxes.pair_box,
                commitments=boxes.commitments,
                path=boxes.path,
            )
            for boxes in message.inbox
        ],
    )


def shared_list_from_pb(response: pb.GetSharedKeysResponse) -> SharedList:
    """U2, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    _at_most("inbox", response.inbox, MAX_NEIGHBOURS)
    inbox = tuple(_incoming_boxes(f"inbox[{i}]", each) for i, each in enumerate(response.inbox))
    return SharedList(_evidence_of(response), _leaves(response.leaves), inbox)


def _incoming_boxes(field: str, message: pb.GetSharedKeysResponse.Boxes) -> IncomingBoxes:
    _at_most(f"{field}.path", message.path, MAX_PATH)
    path = tuple(_exactly(f"{field}.path[{i}]", node, DIGEST_BYTES) for i, node in enumerate(message.path))
    sender = _index(f"{field}.sender", message.sender)
    return IncomingBoxes(sender, message.share_box, message.pair_box, message.commitments, path)


def closed_list_to_pb(message: ClosedList) -> pb.GetCloseResponse:
    """U3, encoded."""
    return pb.GetCloseResponse(evidence=log_evidence_to_pb(message.evidence), leaves=message.leaves)


def closed_list_from_pb(response: pb.GetCloseResponse) -> ClosedList:
    """U3, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return ClosedList(_evidence_of(response), _leaves(response.leaves))


def confirmations_to_pb(message: Confirmations) -> pb.GetConfirmationsResponse:
    """What neighbours signed in phase 4, encoded."""
    return pb.GetConfirmationsResponse(signed=[signed.to_bytes() for signed in message.signed])


def confirmations_from_pb(response: pb.GetConfirmationsResponse) -> Confirmations:
    """What neighbours signed in phase 4, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    _at_most("signed", response.signed, MAX_NEIGHBOURS)
    return Confirmations(tuple(_signed(f"signed[{i}]", data) for i, data in enumerate(response.signed)))


def receipt_to_pb(message: SignedReceipt) -> pb.Receipt:
    """A receipt, encoded; it stands in the answers to StartUpload, StreamChunks and FinishUpload."""
    return pb.Receipt(receipt=message.receipt, signature=message.signature)


def receipt_from_pb(message: pb.Receipt) -> SignedReceipt:
    """A receipt, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE), also for one that is not there."""
    return SignedReceipt(message.receipt, _exactly("signature", message.signature, SIGNATURE_BYTES))


def session_ended_to_pb(message: SessionEnded) -> pb.GetOutcomeResponse:
    """The end, encoded."""
    return pb.GetOutcomeResponse(evidence=log_evidence_to_pb(message.evidence))


def session_ended_from_pb(response: pb.GetOutcomeResponse) -> SessionEnded:
    """The end, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return SessionEnded(_evidence_of(response))


def phase_to_pb(phase: Phase) -> pb.Phase:
    """A phase, encoded."""
    match phase:
        case Phase.ADVERTISE_KEYS:
            return pb.PHASE_ADVERTISE_KEYS
        case Phase.SHARE_KEYS:
            return pb.PHASE_SHARE_KEYS
        case Phase.MASKED_INPUT:
            return pb.PHASE_MASKED_INPUT
        case Phase.CONSISTENCY_CHECK:
            return pb.PHASE_CONSISTENCY_CHECK
        case Phase.UNMASK:
            return pb.PHASE_UNMASK
        case Phase.FINISHED:
            return pb.PHASE_FINISHED
        case Phase.ABORTED:
            return pb.PHASE_ABORTED
        case _:
            assert_never(phase)


def phase_from_pb(value: int) -> Phase:
    """A phase, decoded: RemoteProtocolError(MALFORMED_MESSAGE) for none, and for one of a later version."""
    phase = _PHASES.get(value)
    if phase is None:
        raise _malformed("phase", f"unknown value {value}")
    return phase


_PHASES: dict[int, Phase] = {phase_to_pb(phase): phase for phase in Phase}


def _evidence_of(response: _HasEvidence) -> LogEvidence:
    return _log_evidence(response.evidence, "evidence.")


def _log_evidence(message: pb.LogEvidence, prefix: str) -> LogEvidence:
    try:
        return LogEvidence(message.start, tuple(message.prefix), tuple(message.entries), message.checkpoint)
    except ValueError as error:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"{prefix}{error}") from None


def _leaves(leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    _at_most("leaves", leaves, MAX_COHORT)
    return tuple(leaves)


def _signed(field: str, data: bytes) -> Signed:
    try:
        return Signed.from_bytes(data)
    except RecordError as error:
        raise _malformed(field, str(error)) from None


def _index(field: str, value: int) -> int:
    if value >= MAX_COHORT:
        raise _malformed(field, f"expected an index below {MAX_COHORT}")
    return value


def _exactly(field: str, data: bytes, length_bytes: int) -> bytes:
    if len(data) != length_bytes:
        raise _malformed(field, f"expected {length_bytes} bytes, found {len(data)}")
    return data


def _at_most(field: str, items: Sequence[object], most: int) -> None:
    if len(items) > most:
        raise _malformed(field, f"expected at most {most} items, found {len(items)}")


def _malformed(field: str, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"{field}: {reason}")
