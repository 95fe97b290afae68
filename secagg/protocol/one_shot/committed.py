"""The list of what was committed to, before anything was sent (sessions with a key authority).

The same checks for clients and for the authority: everybody recomputes the list whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.published import check_root, check_signature, check_statement_session
from secagg.transcript.entries import ContributionsCommitted
from secagg.transcript.record import RecordError
from secagg.transcript.statements import OneShotHeader, Signed

_NAME = "contributions-committed"


def check_committed(
    session: OneShotSession, opened_at: int, entry: ContributionsCommitted, leaves: Sequence[bytes]
) -> dict[bytes, Signed]:
    """The signed headers by identity, in order of roster position.

    Rules: as many as the entry says, between ``min_contributors`` and ``max_contributors``; under the entry's root;
    each of another identity of the roster, in order of position there, signed by it for this session, opened at
    this index of the log (a list after a second copy of the open entry could be made to fit the first); each with as
    many lanes and parts as the session has. No two sign one digest: masked inputs and ciphertexts look random, so
    whoever has that of another copied it, and would count the other twice. Where the session follows another, nobody
    of that one's sum is missing.

    Raises:
        RemoteProtocolError: a rule is broken.
    """
    check_root(_NAME, entry.root, leaves)
    if entry.count != len(leaves):
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"{_NAME}: count differs")
    if len(leaves) < session.parameters.min_contributors:
        raise RemoteProtocolError(RejectReason.BELOW_MINIMUM, f"{len(leaves)} committed")
    if len(leaves) > session.parameters.encoding.max_contributors:
        raise RemoteProtocolError(RejectReason.COHORT_FULL, f"{len(leaves)} committed")
    found: dict[bytes, Signed] = {}
    digests: set[bytes] = set()
    before = -1
    for leaf in leaves:
        signed, header = _signed_header(leaf)
        position = session.positions.get(header.identity)
        if position is None:
            raise RemoteProtocolError(RejectReason.OUTSIDE_ROSTER, header.identity.hex())
        if position <= before:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"{_NAME}: roster positions out of order")
        _check_header(session, signed, header)
        if header.opened_at != opened_at:
            raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT, f"opened_at: {header.opened_at}, not {opened_at}")
        own = (header.upload, header.linear_hash, *header.parts)
        if not digests.isdisjoint(own):
            raise RemoteProtocolError(RejectReason.DOUBLED_UPLOAD, header.identity.hex())
        digests.update(own)
        found[header.identity] = signed
        before = position
    session.check_contributors(found)
    return found


def _signed_header(leaf: bytes) -> tuple[Signed, OneShotHeader]:
    try:
        signed = Signed.from_bytes(leaf)
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"{_NAME}: {error}") from None
    if not isinstance(signed.statement, OneShotHeader):
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"{_NAME}: a leaf of another kind")
    return signed, signed.statement


def _check_header(session: OneShotSession, signed: Signed, header: OneShotHeader) -> None:
    check_statement_session(header, session)
    check_signature(signed, header.identity)
    if header.lanes != session.upload_lanes:
        raise RemoteProtocolError(RejectReason.WRONG_LENGTH, f"{header.lanes} lanes, expected {session.upload_lanes}")
    if len(header.parts) != session.parts:
        raise RemoteProtocolError(RejectReason.WRONG_PARTS, f"{len(header.parts)} digests, expected {session.parts}")
