"""Which messages the coordinator of a one-shot session accepts, and the rows it makes of them.

Each check quotes what it refuses. A message is judged against the phase last, so that a repetition of an accepted one
is recognised in any phase.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.linear_hash import HASH_BYTES
from secagg.arith.seeded_shamir import shares_from_bytes
from secagg.derive.member_boxes import box_bytes
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.coordinator_states import (
    Aborted,
    AttestationRow,
    Collecting,
    CommitmentRow,
    Committing,
    ContributionStored,
    Finished,
    OneShotState,
    OpenerAnswered,
    OpenerRow,
    Opening,
    PartsRow,
    Recovering,
    Row,
    Rows,
)
from secagg.protocol.one_shot.messages import Attested, CommitContribution, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.published import check_admitted, check_signature, check_statement_session, roster_position
from secagg.protocol.rows import HeaderRow, LogRow, RowKind, StagedRow, TakenRow, find, row_key
from secagg.transcript.entries import OneShotClose
from secagg.transcript.openers import Committee, KeyAuthority, SummedCiphertext
from secagg.transcript.statements import (
    Attestation,
    AuthorityAnswer,
    MemberAnswer,
    OneShotHeader,
    Signed,
    Statement,
)

Admissible: TypeAlias = CommitContribution | ContributionStored | OpenerAnswered | Attested
Admitted: TypeAlias = Mapping[int, Row]
"""Rows by name; the first is the message's own."""

MAX_CIPHERTEXT_BYTES = 1 << 18


def wrong_phase(state: OneShotState) -> ProtocolError:
    """The error for a message that comes too early or too late."""
    over = isinstance(state, Finished | Aborted)
    return RemoteProtocolError(RejectReason.SESSION_OVER if over else RejectReason.WRONG_PHASE)


def admit(session: OneShotSession, rows: Rows, state: OneShotState, event: Admissible) -> Admitted:
    """The rows that an acceptable message becomes.

    Raises:
        RemoteProtocolError: the message is refused.
    """
    signed = event.message.signed if isinstance(event, ContributionStored) else event.signed
    check_statement_session(signed.statement, session)
    position, kind, row = _own_row(session, rows, event, signed)
    known = rows.get(row_key(position, kind))
    if known is not None:
        if known == row:
            return {row_key(position, kind): row}
        raise RemoteProtocolError(RejectReason.EQUIVOCATION, f"another {signed.statement.TYPE} was accepted before")
    return {row_key(position, kind): row, **_more_rows(session, rows, state, (event, position))}


def _own_row(session: OneShotSession, rows: Rows, event: Admissible, signed: Signed) -> tuple[int, RowKind, Row]:
    """Whose message it is, and its own row; its signature is checked, and what it brings against its digests."""
    match event, signed.statement:
        case CommitContribution(), OneShotHeader():
            return _contributor(session, rows, signed), RowKind.COMMITMENT, CommitmentRow(signed)
        case ContributionStored(message), OneShotHeader() as header:
            position = _contributor(session, rows, signed)
            _check_linear_hash(header, message.linear_hash)
            _check_parts(session, header, message.parts)
            return position, RowKind.HEADER, HeaderRow(signed)
        case OpenerAnswered(), MemberAnswer() | AuthorityAnswer():
            return _opener(session, signed), RowKind.OPENER, OpenerRow(signed)
        case Attested(), Attestation():
            return _attestor(session, signed), RowKind.ATTESTATION, AttestationRow(signed)
        case _:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"a {signed.statement.TYPE} statement here")


def _more_rows(
    session: OneShotSession, rows: Rows, state: OneShotState, sent: tuple[Admissible, int]
) -> dict[int, Row]:
    """What a message that is new brings beside its own row. Raises RemoteProtocolError if it is not due."""
    event, position = sent
    match event:
        case CommitContribution(signed):
            if not isinstance(state, Committing):
                raise wrong_phase(state)
            check_admitted(session, signed.statement.identity)
            return _taken(rows, signed.statement, position)
        case ContributionStored(message, blob):
            _check_collecting(session, rows, state, (message.signed, position))
            parts = PartsRow(blob, tuple(len(part) for part in message.parts))
            return {row_key(position, RowKind.PARTS): parts, **_taken(rows, message.signed.statement, position)}
        case OpenerAnswered(signed):
            _check_answer(state, signed.statement, position)
        case Attested(signed):
            _check_attestation(rows, state, signed.statement)
    return {}


def _contributor(session: OneShotSession, rows: Rows, signed: Signed) -> int:
    header = signed.statement
    position = roster_position(session, header.identity)
    check_signature(signed, header.identity)
    if not isinstance(header, OneShotHeader):
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE)
    if header.lanes != session.upload_lanes:
        raise RemoteProtocolError(RejectReason.WRONG_LENGTH, f"{header.lanes} lanes, expected {session.upload_lanes}")
    if len(header.parts) != session.parts:
        raise RemoteProtocolError(RejectReason.WRONG_PARTS, f"{len(header.parts)} digests, expected {session.parts}")
    opened = find(rows, 0, RowKind.LOG, LogRow)
    if opened is None or header.opened_at != opened.index:
        raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT, f"opened_at: {header.opened_at} is not where it stands")
    return position


def _opener(session: OneShotSession, signed: Signed) -> int:
    """The place of whoever answers: a member's in the committee, 0 for the authority."""
    identity, opening = signed.statement.identity, session.opening
    kind = MemberAnswer if isinstance(opening, Committee) else AuthorityAnswer
    openers = [each.identity for each in opening.members] if isinstance(opening, Committee) else [opening.identity]
    if not isinstance(signed.statement, kind):
        raise RemoteProtocolError(RejectReason.WRONG_OPENING, f"a {signed.statement.TYPE} statement here")
    if identity not in openers:
        raise RemoteProtocolError(RejectReason.NOT_IN_COHORT, "not one of those who open this session")
    check_signature(signed, identity)
    return openers.index(identity)


def _attestor(session: OneShotSession, signed: Signed) -> int:
    if not isinstance(session.opening, KeyAuthority):
        raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "a committee opens this session")
    if signed.statement.identity not in session.opening.attestors:
        raise RemoteProtocolError(RejectReason.NOT_IN_COHORT, "not one of this session's attestors")
    check_signature(signed, signed.statement.identity)
    return session.opening.attestors.index(signed.statement.identity)


def _check_linear_hash(header: OneShotHeader, linear_hash: bytes) -> None:
    """Also for a header that was accepted before: whatever passes here is stored under its digest."""
    if len(linear_hash) != HASH_BYTES:
        raise RemoteProtocolError(RejectReason.WRONG_LINEAR_HASH, f"{len(linear_hash)} bytes")
    if hashlib.sha256(linear_hash).digest() != header.linear_hash:
        raise RemoteProtocolError(RejectReason.WRONG_LINEAR_HASH, "digest differs from the header's")


def _check_parts(session: OneShotSession, header: OneShotHeader, parts: tuple[bytes, ...]) -> None:
    """Also for a header that was accepted before, for the same reason."""
    if len(parts) != session.parts:
        raise RemoteProtocolError(RejectReason.WRONG_PARTS, f"{len(parts)} parts, expected {session.parts}")
    for place, (part, digest) in enumerate(zip(parts, header.parts, strict=True)):
        if isinstance(session.opening, Committee):
            if len(part) != box_bytes(session.opening, place):
                raise RemoteProtocolError(RejectReason.WRONG_BOX_LENGTH, f"parts[{place}]")
        elif not 0 < len(part) <= MAX_CIPHERTEXT_BYTES:
            raise RemoteProtocolError(RejectReason.WRONG_CIPHERTEXT, f"{len(part)} bytes")
        if hashlib.sha256(part).digest() != digest:
            raise RemoteProtocolError(RejectReason.WRONG_PARTS, f"parts[{place}]: digest differs from the header's")


def _check_collecting(session: OneShotSession, rows: Rows, state: OneShotState, sent: tuple[Signed, int]) -> None:
    signed, position = sent
    if not isinstance(state, Collecting):
        raise wrong_phase(state)
    check_admitted(session, signed.statement.identity)
    if isinstance(session.opening, KeyAuthority):
        committed = find(rows, position, RowKind.COMMITMENT, CommitmentRow)
        # Commit, then upload: what is sent now must not depend on what others sent.
        if committed is None:
            raise RemoteProtocolError(RejectReason.NOT_COMMITTED)
        if committed.signed != signed:
            raise RemoteProtocolError(RejectReason.EQUIVOCATION, "another header was committed to")


def _taken(rows: Rows, header: Statement, position: int) -> dict[int, Row]:
    """Rows that keep what a header signs from being signed by another.

    Masked inputs, boxes and ciphertexts look random: whoever comes second with the same one copied it.
    """
    if not isinstance(header, OneShotHeader):
        return {}
    row = TakenRow(position)
    digests = (header.upload, header.linear_hash, *header.parts)
    keys = [row_key(int.from_bytes(digest[:7], "big"), RowKind.TAKEN) for digest in digests]
    if len(set(digests)) != len(digests) or any(rows.get(key, row) != row for key in keys):
        raise RemoteProtocolError(RejectReason.DOUBLED_UPLOAD)
    return dict.fromkeys(keys, row)


def _check_answer(state: OneShotState, statement: Statement, place: int) -> None:
    opening = state.opening if isinstance(state, Recovering) else state
    if not isinstance(opening, Opening):
        raise wrong_phase(state)
    if not isinstance(statement, MemberAnswer | AuthorityAnswer) or statement.close != opening.close:
        raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT, "another close entry")
    if not isinstance(statement, MemberAnswer):
        return
    if place not in opening.members:
        raise RemoteProtocolError(RejectReason.NOT_NAMED, f"member {place}")
    try:
        shares_from_bytes(statement.share_sum)
    except ArithmeticInputError as error:
        raise RemoteProtocolError(RejectReason.WRONG_OPENING, f"share_sum: {error}") from None


def _check_attestation(rows: Rows, state: OneShotState, statement: Statement) -> None:
    opening = state.opening if isinstance(state, Recovering) else state
    if not isinstance(opening, Opening):
        raise wrong_phase(state)
    if not isinstance(statement, Attestation) or statement.close != opening.close:
        raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT, "another close entry")
    close: OneShotClose = tables.close_entry(rows)
    if not isinstance(close.opener, SummedCiphertext) or statement.ciphertext_sum != close.opener.digest:
        raise RemoteProtocolError(RejectReason.WRONG_CIPHERTEXT, "ciphertext_sum: not that of the close entry")


def staged_row(rows: Rows, position: int, digest: bytes) -> StagedRow:
    """The row of a durable upload; RemoteProtocolError(WRONG_UPLOAD) if no header announced it."""
    found = tables.header_at(rows, position)
    if found is None:
        raise RemoteProtocolError(RejectReason.WRONG_UPLOAD, "no header was accepted")
    if found[1].upload != digest:
        raise RemoteProtocolError(RejectReason.WRONG_UPLOAD, "digest differs from the header's")
    return StagedRow(digest)


def placeholder(message: OneShotContribution) -> ContributionStored:
    """A contribution whose parts are not stored yet, for ``admit`` to judge before anything is stored for it."""
    return ContributionStored(message, hashlib.sha256(b"".join(message.parts)).digest())
