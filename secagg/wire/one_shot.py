"""What only one-shot sessions say, to protobuf and back; as in ``convert``, decoding trusts nothing."""

from __future__ import annotations

from secagg.protocol.one_shot.messages import Attested, CommitContribution, CommittedList
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import fields
from secagg.wire.convert import evidence_of, leaves_from_pb, log_evidence_to_pb, session_from_pb


def commit_contribution_to_pb(session: bytes, message: CommitContribution) -> pb.CommitContributionRequest:
    """A commitment, encoded."""
    return pb.CommitContributionRequest(session=session, signed=message.signed.to_bytes())


def commit_contribution_from_pb(request: pb.CommitContributionRequest) -> CommitContribution:
    """A commitment, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    return CommitContribution(fields.signed("signed", request.signed))


def committed_list_to_pb(message: CommittedList) -> pb.GetCommittedResponse:
    """What was committed to, encoded."""
    return pb.GetCommittedResponse(evidence=log_evidence_to_pb(message.evidence), leaves=message.leaves)


def committed_list_from_pb(response: pb.GetCommittedResponse) -> CommittedList:
    """What was committed to, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return CommittedList(evidence_of(response), leaves_from_pb(response.leaves))


def attestation_to_pb(session: bytes, message: Attested) -> pb.AttestRequest:
    """An attestation, encoded."""
    return pb.AttestRequest(session=session, signed=message.signed.to_bytes())


def attestation_from_pb(request: pb.AttestRequest) -> Attested:
    """An attestation, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session_from_pb(request)
    return Attested(fields.signed("signed", request.signed))
