"""Which messages the coordinator accepts, and the rows it makes of them.

Each check quotes what it refuses. A message is judged against the phase last, so that a repetition of an
accepted one is recognised in any phase.
"""

from __future__ import annotations

import bisect
import hashlib

from secagg.arith.linear_hash import HASH_BYTES
from secagg.crypto.sealing import SealingError, check_public_key
from secagg.derive import boxes
from secagg.derive.graph import MaskingGraph
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import AdvertiseKeys, ConfirmClose, Contribution, ShareKeys, UnmaskAnswer
from secagg.protocol.pairwise import lists, tables
from secagg.protocol.pairwise.coordinator_states import (
    Aborted,
    AdvertiseRow,
    Advertising,
    AnswerRow,
    Cohort,
    Collecting,
    Confirming,
    ConfirmRow,
    CoordinatorState,
    Finished,
    Recovering,
    Row,
    Rows,
    ShareRow,
    SharesStored,
    Sharing,
    Unmasking,
)
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.published import check_admitted, check_signature, check_statement_session, roster_position
from secagg.protocol.rows import HeaderRow, RowKind, StagedRow, TakenRow, find, require, row_key
from secagg.transcript import merkle
from secagg.transcript.statements import (
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    SelfMaskShare,
    ShareStatement,
    Statement,
    UnmaskStatement,
)

Admissible = AdvertiseKeys | SharesStored | Contribution | ConfirmClose | UnmaskAnswer


def wrong_phase(state: CoordinatorState) -> ProtocolError:
    """The error for a message that comes too early or too late."""
    over = isinstance(state, Finished | Aborted)
    return RemoteProtocolError(RejectReason.SESSION_OVER if over else RejectReason.WRONG_PHASE)


def admit(session: PairwiseSession, rows: Rows, state: CoordinatorState, event: Admissible) -> tuple[int, RowKind, Row]:
    """Roster position, kind and content of the row that an acceptable message becomes.

    Raises:
        RemoteProtocolError: the message is refused.
    """
    signed = event.message.signed if isinstance(event, SharesStored) else event.signed
    statement = signed.statement
    position = roster_position(session, statement.identity)
    check_statement_session(statement, session)
    check_signature(signed, statement.identity)
    kind, row = _row(event, statement)
    known = rows.get(row_key(position, kind))
    if known is not None:
        if known == row:
            return position, kind, known
        raise RemoteProtocolError(RejectReason.EQUIVOCATION, f"phase {kind.name}")
    match event:
        case AdvertiseKeys():
            _check_advertise(session, state, event, statement)
        case SharesStored():
            _check_shares(session, state, event.message, (position, row))
        case Contribution():
            _check_contribution(session, state, statement, position)
            _check_taken(rows, statement, position)
        case ConfirmClose():
            _check_confirmation(state, statement, position)
        case UnmaskAnswer():
            _check_answer(session, rows, state, statement, position)
    return position, kind, row


def _row(event: Admissible, statement: Statement) -> tuple[RowKind, Row]:
    match event, statement:
        case AdvertiseKeys(signed, mask_public, share_public), AdvertiseStatement():
            return RowKind.ADVERTISE, AdvertiseRow(signed, mask_public, share_public)
        case SharesStored(message, blob), ShareStatement():
            hashes = b"".join(boxes.box_hashes(message.boxes))
            commitments = tuple(box.commitments for box in message.boxes)
            return RowKind.SHARE, ShareRow(message.signed, hashes, commitments, blob)
        case Contribution(signed, linear_hash), ContributionHeader():
            _check_linear_hash(statement, linear_hash)
            return RowKind.HEADER, HeaderRow(signed)
        case ConfirmClose(signed), ConfirmStatement():
            return RowKind.CONFIRM, ConfirmRow(signed)
        case UnmaskAnswer(signed), UnmaskStatement():
            return RowKind.ANSWER, AnswerRow(signed.to_bytes())
        case _:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"a {statement.TYPE} statement here")


def _check_linear_hash(header: ContributionHeader, linear_hash: bytes) -> None:
    """Also for a header that was accepted before: whatever passes here is stored under its digest."""
    if len(linear_hash) != HASH_BYTES:
        raise RemoteProtocolError(RejectReason.WRONG_LINEAR_HASH, f"{len(linear_hash)} bytes")
    if hashlib.sha256(linear_hash).digest() != header.linear_hash:
        raise RemoteProtocolError(RejectReason.WRONG_LINEAR_HASH, "digest differs from the header's")


def _check_advertise(
    session: PairwiseSession, state: CoordinatorState, event: AdvertiseKeys, statement: Statement
) -> None:
    if not isinstance(state, Advertising):
        raise wrong_phase(state)
    if not isinstance(statement, AdvertiseStatement):
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE)
    check_admitted(session, statement.identity)
    if state.received >= session.parameters.encoding.max_contributors:
        raise RemoteProtocolError(RejectReason.COHORT_FULL)
    # A verifier refuses a key that stands twice, and so the record of whoever let it pass.
    if statement.mask_key == statement.share_key:
        raise RemoteProtocolError(RejectReason.BAD_KEY, "mask_public and share_public are the same")
    for name, public, digest in (
        ("mask_public", event.mask_public, statement.mask_key),
        ("share_public", event.share_public, statement.share_key),
    ):
        if hashlib.sha256(public).digest() != digest:
            raise RemoteProtocolError(RejectReason.BAD_KEY, f"{name} is not the signed one")
        try:
            check_public_key(public)
        except SealingError as error:
            raise RemoteProtocolError(RejectReason.BAD_KEY, f"{name}: {error}") from None


def cohort_index(cohort: Cohort, position: int) -> int:
    """Index in U1 of a roster position; RemoteProtocolError(NOT_IN_COHORT) if it is not there."""
    index = bisect.bisect_left(cohort.positions, position)
    if index == len(cohort.positions) or cohort.positions[index] != position:
        raise RemoteProtocolError(RejectReason.NOT_IN_COHORT, "did not advertise keys")
    return index


def _check_shares(
    session: PairwiseSession, state: CoordinatorState, message: ShareKeys, place: tuple[int, Row]
) -> None:
    if not isinstance(state, Sharing):
        raise wrong_phase(state)
    position, row = place
    index = cohort_index(state.cohort, position)
    statement = message.signed.statement
    if not isinstance(statement, ShareStatement) or statement.advertised != state.cohort.root:
        raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT)
    neighbours = session.graph(len(state.cohort.positions), state.cohort.root).neighbours(index)
    if tuple(box.recipient for box in message.boxes) != neighbours:
        raise RemoteProtocolError(RejectReason.WRONG_RECIPIENTS)
    for box in message.boxes:
        lengths = len(box.share_box), len(box.pair_box), len(box.commitments)
        expected = (
            boxes.SHARE_BOX_BYTES,
            boxes.pair_box_bytes(index, box.recipient),
            boxes.commitments_bytes(index, box.recipient),
        )
        if lengths != expected:
            raise RemoteProtocolError(RejectReason.WRONG_BOX_LENGTH, f"recipient {box.recipient}")
    hashes = row.hashes if isinstance(row, ShareRow) else b""
    if merkle.root_of_hashes([hashes[i : i + 32] for i in range(0, len(hashes), 32)]) != statement.boxes:
        raise RemoteProtocolError(RejectReason.WRONG_BOX_ROOT)


def _check_contribution(session: PairwiseSession, state: CoordinatorState, header: Statement, position: int) -> None:
    if not isinstance(state, Collecting):
        raise wrong_phase(state)
    index = cohort_index(state.cohort, position)
    present = frozenset(state.present)
    if index not in present:
        raise RemoteProtocolError(RejectReason.NOT_IN_COHORT, "did not share keys")
    if not isinstance(header, ContributionHeader):
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE)
    graph = session.graph(len(state.cohort.positions), state.cohort.root)
    neighbours = frozenset(graph.neighbours(index)) & present
    lists.check_header(session, header, state.shared, index, neighbours)
    if len(neighbours) - len(header.missing) < state.cohort.threshold:
        raise RemoteProtocolError(RejectReason.TOO_FEW_NEIGHBOURS)


def taken_keys(statement: Statement) -> tuple[int, ...]:
    """Names of the rows that keep what a header signs from being signed by another."""
    if not isinstance(statement, ContributionHeader):
        return ()
    digests = statement.upload, statement.linear_hash
    return tuple(row_key(int.from_bytes(digest[:7], "big"), RowKind.TAKEN) for digest in digests)


def _check_taken(rows: Rows, statement: Statement, position: int) -> None:
    """One upload counts once. Masked inputs look random: whoever comes second with the same one copied it."""
    for key in taken_keys(statement):
        taken = rows.get(key)
        if taken is not None and taken != TakenRow(position):
            raise RemoteProtocolError(RejectReason.DOUBLED_UPLOAD)


def staged_row(rows: Rows, position: int, digest: bytes) -> StagedRow:
    """The row of a durable upload; RemoteProtocolError(WRONG_UPLOAD) if no header announced it."""
    header = find(rows, position, RowKind.HEADER, HeaderRow)
    if header is None or not isinstance(header.signed.statement, ContributionHeader):
        raise RemoteProtocolError(RejectReason.WRONG_UPLOAD, "no header was accepted")
    if header.signed.statement.upload != digest:
        raise RemoteProtocolError(RejectReason.WRONG_UPLOAD, "digest differs from the header's")
    return StagedRow(digest)


def _check_confirmation(state: CoordinatorState, statement: Statement, position: int) -> None:
    if isinstance(state, Recovering):
        state = state.unmasking
    if not isinstance(state, Confirming | Unmasking):
        raise wrong_phase(state)
    if cohort_index(state.cohort, position) not in frozenset(state.accepted):
        raise RemoteProtocolError(RejectReason.NOT_IN_COHORT, "the contribution is not in the closed set")
    if not isinstance(statement, ConfirmStatement) or statement.close != state.close:
        raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT, "another close entry")


def _check_answer(
    session: PairwiseSession, rows: Rows, state: CoordinatorState, statement: Statement, position: int
) -> None:
    if isinstance(state, Recovering):
        state = state.unmasking
    if not isinstance(state, Unmasking):
        raise wrong_phase(state)
    index = cohort_index(state.cohort, position)
    accepted = frozenset(state.accepted)
    if index not in accepted:
        raise RemoteProtocolError(RejectReason.NOT_IN_COHORT, "the contribution is not in the closed set")
    if row_key(position, RowKind.CONFIRM) not in rows:
        raise RemoteProtocolError(RejectReason.WRONG_PHASE, "answers come after the sender's confirmation")
    if not isinstance(statement, UnmaskStatement) or statement.close != state.close:
        raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT, "another close entry")
    found = tables.header_at(rows, state.cohort, index)
    missing = frozenset(found[1].missing) if found else frozenset[int]()
    graph = session.graph(len(state.cohort.positions), state.cohort.root)
    held = (frozenset(graph.neighbours(index)) & frozenset(state.present)) - missing
    if [share.index for share in statement.shares] != sorted(held):
        raise RemoteProtocolError(RejectReason.WRONG_SHARES, "not one share for each mask neighbour")
    for share in statement.shares:
        if isinstance(share, SelfMaskShare) != (share.index in accepted):
            raise RemoteProtocolError(RejectReason.WRONG_SHARES, f"wrong kind for index {share.index}")
        # Whoever dealt the share promised it by a signed commitment, so a wrong one is the answerer's.
        row = require(rows, state.cohort.positions[share.index], RowKind.SHARE, ShareRow)
        promised = row.commitments[graph.neighbours(share.index).index(index)]
        if isinstance(share, SelfMaskShare):
            fits = promised[:32] == boxes.commit_self_mask_share(session.digest, share.index, index, share.share)
        else:
            fits = promised[32:64] == boxes.commit_root_share(session.digest, share.index, index, share.share)
        if not fits:
            raise RemoteProtocolError(RejectReason.WRONG_SHARES, f"not the share that index {share.index} dealt")


def ends_to_reject(graph: MaskingGraph, headers: dict[int, ContributionHeader], max_corrupt: int) -> tuple[int, ...]:
    """Indices to leave out so that no edge among the rest is applied by one end only.

    Of every such edge at least one end lied, and nobody can tell which. Whoever has more than ``max_corrupt`` of them
    lied for certain and goes first. Of what is left both ends of edges without a common end go, until none is left: so
    every honest client that is lost this way takes a liar with it.
    """
    others: dict[int, set[int]] = {}
    for one, other in lists.asymmetric_edges(graph, headers):
        others.setdefault(one, set()).add(other)
        others.setdefault(other, set()).add(one)
    rejected = {index for index, ends in others.items() if len(ends) > max_corrupt}
    for index in sorted(others):
        if index in rejected:
            continue
        partners = others[index] - rejected
        if partners:
            rejected |= {index, min(partners)}
    return tuple(sorted(rejected))
