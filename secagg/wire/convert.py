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
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.phases import Phase
from secagg.transcript.entries import MAX_COHORT, SESSION_ID_BYTES
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.openers import MAX_MEMBERS
from secagg.transcript.statements import MAX_NEIGHBOURS, OneShotHeader
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import fields

IDENTITY_BYTES = 32
SIGNATURE_BYTES = 64
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
    return fields.exactly("session", request.session, SESSION_ID_BYTES)


def identity_from_pb(request: _HasIdentity) -> bytes:
    """The caller's identity key in any request that has one, 32 bytes."""
    return fields.exactly("identity", request.identity, IDENTITY_BYTES)


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
    return AdvertiseKeys(fields.signed("signed", request.signed), request.mask_public, request.share_public)


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
    fields.at_most("boxes", request.boxes, MAX_NEIGHBOURS)
    boxes = tuple(
        OutgoingBoxes(_index(f"boxes[{i}].recipient", each.recipient), each.share_box, each.pair_box, each.commitments)
        for i, each in enumerate(request.boxes)
    )
    return ShareKeys(fields.signed("signed", request.signed), boxes)


def contribution_to_pb(session: bytes, message: Contribution | OneShotContribution) -> pb.StartUploadRequest:
    """The header of an upload, its linear hash, in one-shot sessions the parts; encoded."""
    parts = message.parts if isinstance(message, OneShotContribution) else ()
    return pb.StartUploadRequest(
        session=session, signed=message.signed.to_bytes(), linear_hash=message.linear_hash, parts=parts
    )


def contribution_from_pb(request: pb.StartUploadRequest) -> Contribution | OneShotContribution:
    """The header of an upload and what comes with it, decoded: of the protocol that the header is of.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE.
    """
    session_from_pb(request)
    linear_hash = fields.exactly("linear_hash", request.linear_hash, HASH_BYTES)
    signed = fields.signed("signed", request.signed)
    if isinstance(signed.statement, OneShotHeader):
        fields.at_most("parts", request.parts, MAX_MEMBERS)
        return OneShotContribution(signed, linear_hash, tuple(request.parts))
    fields.at_most("parts", request.parts, 0)
    return Contribution(signed, linear_hash)


def confirm_close_to_pb(session: bytes, message: ConfirmClose) -> pb.ConfirmCloseRequest:
    """Phase 4, encoded."""
    return pb.ConfirmCloseRequest(session=session, signed=message.signed.to_bytes())


def confirm_close_from_pb(request: pb.ConfirmCloseRequest) -> ConfirmClose:
    """Phase 4, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    return ConfirmClose(fields.signed("signed", request.signed))


def unmask_answer_to_pb(session: bytes, message: UnmaskAnswer) -> pb.UnmaskRequest:
    """Phase 5, encoded."""
    return pb.UnmaskRequest(session=session, signed=message.signed.to_bytes())


def unmask_answer_from_pb(request: pb.UnmaskRequest) -> UnmaskAnswer:
    """Phase 5, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    return UnmaskAnswer(fields.signed("signed", request.signed))


# Coordinator to client.


def log_evidence_to_pb(evidence: LogEvidence) -> pb.LogEvidence:
    """The end of the log under a checkpoint, encoded."""
    return pb.LogEvidence(
        entries=evidence.entries, start=evidence.start, prefix=evidence.prefix, checkpoint=evidence.checkpoint
    )


def log_evidence_from_pb(message: pb.LogEvidence) -> LogEvidence:
    """The end of the log under a checkpoint, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return fields.log_evidence(message, "")


def consistency_from_pb(message: pb.GetSessionResponse) -> tuple[bytes, ...]:
    """A consistency proof, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return fields.hashes("consistency", message.consistency, fields.MAX_PROOF)


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
    fields.at_most("keys", response.keys, MAX_NEIGHBOURS)
    keys = tuple(
        NeighbourKeys(_index(f"keys[{i}].index", each.index), each.mask_public, each.share_public)
        for i, each in enumerate(response.keys)
    )
    return AdvertisedList(evidence_of(response), leaves_from_pb(response.leaves), keys)


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
    fields.at_most("inbox", response.inbox, MAX_NEIGHBOURS)
    inbox = tuple(_incoming_boxes(f"inbox[{i}]", each) for i, each in enumerate(response.inbox))
    return SharedList(evidence_of(response), leaves_from_pb(response.leaves), inbox)


def _incoming_boxes(field: str, message: pb.GetSharedKeysResponse.Boxes) -> IncomingBoxes:
    path = fields.hashes(f"{field}.path", message.path, MAX_PATH)
    sender = _index(f"{field}.sender", message.sender)
    return IncomingBoxes(sender, message.share_box, message.pair_box, message.commitments, path)


def closed_list_to_pb(message: ClosedList) -> pb.GetCloseResponse:
    """U3, encoded."""
    return pb.GetCloseResponse(evidence=log_evidence_to_pb(message.evidence), leaves=message.leaves)


def closed_list_from_pb(response: pb.GetCloseResponse) -> ClosedList:
    """U3, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return ClosedList(evidence_of(response), leaves_from_pb(response.leaves))


def confirmations_to_pb(message: Confirmations) -> pb.GetConfirmationsResponse:
    """What neighbours signed in phase 4, encoded."""
    return pb.GetConfirmationsResponse(signed=[signed.to_bytes() for signed in message.signed])


def confirmations_from_pb(response: pb.GetConfirmationsResponse) -> Confirmations:
    """What neighbours signed in phase 4, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    fields.at_most("signed", response.signed, MAX_NEIGHBOURS)
    return Confirmations(tuple(fields.signed(f"signed[{i}]", data) for i, data in enumerate(response.signed)))


def receipt_to_pb(message: SignedReceipt) -> pb.Receipt:
    """A receipt, encoded; it stands in the answers to StartUpload, StreamChunks and FinishUpload."""
    return pb.Receipt(receipt=message.receipt, signature=message.signature)


def receipt_from_pb(message: pb.Receipt) -> SignedReceipt:
    """A receipt, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE), also for one that is not there."""
    return SignedReceipt(message.receipt, fields.exactly("signature", message.signature, SIGNATURE_BYTES))


def session_ended_to_pb(message: SessionEnded) -> pb.GetOutcomeResponse:
    """The end, encoded."""
    return pb.GetOutcomeResponse(evidence=log_evidence_to_pb(message.evidence))


def session_ended_from_pb(response: pb.GetOutcomeResponse) -> SessionEnded:
    """The end, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return SessionEnded(evidence_of(response))


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
        case Phase.COMMIT:
            return pb.PHASE_COMMIT
        case Phase.HOLD_SHARES:
            return pb.PHASE_HOLD_SHARES
        case Phase.OPEN_SUM:
            return pb.PHASE_OPEN_SUM
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
        raise fields.malformed("phase", f"unknown value {value}")
    return phase


_PHASES: dict[int, Phase] = {phase_to_pb(phase): phase for phase in Phase}


def evidence_of(response: _HasEvidence) -> LogEvidence:
    """The evidence in any response that has it, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return fields.log_evidence(response.evidence, "evidence.")


def leaves_from_pb(leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """Leaves of a published list, decoded no further. Raises RemoteProtocolError(MALFORMED_MESSAGE) for too many."""
    fields.at_most("leaves", leaves, MAX_COHORT)
    return tuple(leaves)


def _index(field: str, value: int) -> int:
    if value >= MAX_COHORT:
        raise fields.malformed(field, f"expected an index below {MAX_COHORT}")
    return value
