"""Sessions of either protocol."""

from __future__ import annotations

from typing import TypeAlias

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.transcript.entries import OneShotOpen, PairwiseOpen, SessionOpen
from secagg.transcript.roster import Roster

AnySession: TypeAlias = PairwiseSession | OneShotSession


def session_of(parameters: SessionOpen, roster: Roster, contributors: frozenset[bytes] | None = None) -> AnySession:
    """The session with these parameters; see ``Session``.

    Raises:
        RemoteProtocolError: roster or contributors are not those that the open entry froze.
    """
    match parameters:
        case PairwiseOpen():
            return PairwiseSession(parameters, roster, contributors)
        case OneShotOpen():
            return OneShotSession(parameters, roster, contributors)
        case _:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "protocol: unknown")
