"""Which host runs which protocol."""

from __future__ import annotations

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.sessions import AnySession
from secagg.runtime.one_shot_host import OneShotHost
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.session_host import AnyHost, CoordinatorPorts
from secagg.transcript.entries import OneShotOpen, PairwiseOpen, SessionOpen


def kind_of(parameters: SessionOpen) -> type[AnyHost]:
    """The class of the hosts of sessions with such parameters.

    Raises:
        RemoteProtocolError: WRONG_PROTOCOL; this coordinator does not run it.
    """
    match parameters:
        case PairwiseOpen():
            return PairwiseHost
        case OneShotOpen():
            return OneShotHost
        case _:
            raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "protocol: not one that is run here")


def host_for(session: AnySession, ports: CoordinatorPorts) -> AnyHost:
    """A host for a session, which is neither created nor resumed yet. Raises as ``kind_of`` does."""
    return kind_of(session.parameters)(session, ports)


def pairwise(host: AnyHost) -> PairwiseHost:
    """The host, for a call that only pairwise sessions have.

    Raises:
        RemoteProtocolError: WRONG_PROTOCOL; the session runs another protocol.
    """
    if not isinstance(host, PairwiseHost):
        raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "only pairwise sessions have this call")
    return host


def one_shot(host: AnyHost) -> OneShotHost:
    """The host, for a call that only one-shot sessions have.

    Raises:
        RemoteProtocolError: WRONG_PROTOCOL; the session runs another protocol.
    """
    if not isinstance(host, OneShotHost):
        raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "only one-shot sessions have this call")
    return host
