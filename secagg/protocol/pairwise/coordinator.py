"""The coordinator machine of pairwise sessions.

It decides who is in which set and what the log says; vectors never pass through it. Every set is fixed by an
entry that the log must take before any client can see its consequences.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import ChainMap
from dataclasses import dataclass
from typing import assert_never, cast

from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.messages import AdvertiseKeys, ConfirmClose, Contribution, UnmaskAnswer
from secagg.protocol.pairwise import admission, tables
from secagg.protocol.pairwise.coordinator_states import (
    Aborted,
    Advertising,
    Cohort,
    Collecting,
    Confirming,
    CoordinatorEffect,
    CoordinatorEvent,
    CoordinatorState,
    Finished,
    Folding,
    Lasting,
    Publishing,
    Recovering,
    RecoverSum,
    RecoveryFailed,
    Row,
    Rows,
    SharesStored,
    Sharing,
    SumRecovered,
    Unmasking,
    deadline_of,
    phase_of,
)
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.published import roster_position
from secagg.protocol.rows import (
    OTHER_CONTRIBUTORS,
    DeadlinePassed,
    EntryPublished,
    FoldUploads,
    HeaderRow,
    LogRow,
    PhaseEnded,
    PublishEntry,
    RejectedRow,
    RowKind,
    SetupRow,
    SumFolded,
    TakenRow,
    UploadsRefuted,
    UploadStaged,
    log_size,
    row_key,
)
from secagg.protocol.transition import Transition
from secagg.transcript import merkle
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    SessionAbort,
    SessionClose,
    SessionEntry,
    SessionResult,
)
from secagg.transcript.statements import ContributionHeader, Rejected

CoordinatorTransition = Transition[CoordinatorState, CoordinatorEffect]


@dataclass(frozen=True, slots=True)
class Moment:
    """A step's surroundings: the session, the rows as they are, and the time."""

    session: PairwiseSession
    rows: Rows
    now_s: int


def start(session: PairwiseSession, setup: SetupRow) -> CoordinatorTransition:
    """Open the session: its parameters are the first entry of its log."""
    return _publish(session.parameters, 0, Advertising(0, 0), {row_key(0, RowKind.SETUP): setup})


def step(moment: Moment, state: CoordinatorState, event: CoordinatorEvent) -> CoordinatorTransition:
    """The state after ``event``.

    A message that was accepted before is accepted again without effect; another one of the same sender and
    phase is refused.

    Raises:
        RemoteProtocolError: the message is refused, with its reason; the state stands as it was.
        LocalProtocolError: the runtime reported something that is not due.
    """
    match event:
        case AdvertiseKeys() | SharesStored() | Contribution() | ConfirmClose() | UnmaskAnswer():
            return _message(moment, state, event)
        case UploadStaged():
            return _staged(moment, state, event)
        case DeadlinePassed():
            deadline_s = deadline_of(state)
            passed = deadline_s is not None and moment.now_s >= deadline_s
            return _end_phase(moment, state) if passed else Transition(state)
        case PhaseEnded(phase):
            return _end_phase(moment, state) if phase_of(state) is phase else Transition(state)
        case EntryPublished():
            return _published(moment, state, event)
        case SumFolded():
            return _folded(moment, state, event)
        case UploadsRefuted():
            return _refuted(moment, state, event)
        case SumRecovered():
            return _recovered(moment, state, event)
        case RecoveryFailed():
            return _failed(moment, state, event)
        case _:
            assert_never(event)


def _message(
    moment: Moment,
    state: CoordinatorState,
    event: AdvertiseKeys | SharesStored | Contribution | ConfirmClose | UnmaskAnswer,
) -> CoordinatorTransition:
    position, kind, row = admission.admit(moment.session, moment.rows, state, event)
    if moment.rows.get(row_key(position, kind)) == row:
        return Transition(state)
    rows: dict[int, Row] = {row_key(position, kind): row}
    if isinstance(row, HeaderRow):
        rows |= {key: TakenRow(position) for key in admission.taken_keys(row.signed.statement)}
    after = _overlaid(moment, rows)
    match state:
        case Advertising() if kind is RowKind.ADVERTISE:
            state = dataclasses.replace(state, received=state.received + 1)
            if state.received == moment.session.most_contributors:
                return _close_advertising(after, rows)
        case Sharing() if kind is RowKind.SHARE:
            state = dataclasses.replace(state, received=state.received + 1)
            if state.received == len(state.cohort.positions):
                return _close_sharing(after, state, rows)
        case Confirming() if kind is RowKind.CONFIRM:
            state = dataclasses.replace(state, confirmed=state.confirmed + 1)
            if _enough_confirmed(state):
                return Transition(_unmasking(after, state), (), rows)
        case Unmasking():
            state = _counted(state, kind)
            if kind is RowKind.ANSWER and _enough_answered(state):
                return Transition(Recovering(state, state.answered), (RecoverSum(state.answered),), rows)
        case Recovering():
            state = dataclasses.replace(state, unmasking=_counted(state.unmasking, kind))
        case _:
            pass
    return Transition(state, (), rows)


def _counted(state: Unmasking, kind: RowKind) -> Unmasking:
    if kind is RowKind.CONFIRM:
        return dataclasses.replace(state, confirmed=state.confirmed + 1)
    return dataclasses.replace(state, answered=state.answered + 1) if kind is RowKind.ANSWER else state


def _overlaid(moment: Moment, rows: dict[int, Row]) -> Moment:
    """The moment after ``rows`` are written, without copying the others."""
    return dataclasses.replace(moment, rows=ChainMap(rows, cast("dict[int, Row]", moment.rows)))


def _staged(moment: Moment, state: CoordinatorState, event: UploadStaged) -> CoordinatorTransition:
    position = roster_position(moment.session, event.identity)
    key = row_key(position, RowKind.STAGED)
    row = admission.staged_row(moment.rows, position, event.digest)
    if moment.rows.get(key) == row:
        return Transition(state)
    if not isinstance(state, Collecting):
        raise admission.wrong_phase(state)
    rows: dict[int, Row] = {key: row}
    state = dataclasses.replace(state, staged=state.staged + 1)
    if state.staged == len(state.present):
        return _close_collecting(_overlaid(moment, rows), state, rows)
    return Transition(state, (), rows)


def _end_phase(moment: Moment, state: CoordinatorState) -> CoordinatorTransition:
    """Go on with whoever has done what the phase asks for."""
    match state:
        case Advertising():
            return _close_advertising(moment, {})
        case Sharing():
            return _close_sharing(moment, state, {})
        case Collecting():
            return _close_collecting(moment, state, {})
        case Confirming():
            return Transition(_unmasking(moment, state))
        case Unmasking() if state.answered > state.tried:
            return Transition(Recovering(state, state.answered), (RecoverSum(state.answered),))
        case Unmasking():
            return _abort(moment, "too few unmasking answers", {}, state)
        case _:
            return Transition(state)


def _close_advertising(moment: Moment, rows: dict[int, Row]) -> CoordinatorTransition:
    session = moment.session
    positions = tables.advertised_positions(moment.rows)
    if not session.is_whole(positions):
        return _abort(moment, OTHER_CONTRIBUTORS, rows)
    if len(positions) < session.parameters.min_contributors:
        return _abort(moment, "fewer than min_contributors advertised keys", rows)
    try:
        parameters = session.graph_parameters(len(positions))
    except LocalProtocolError:
        return _abort(moment, "no safe degree and threshold for this cohort", rows)
    root = merkle.root(tables.advertised_leaves(moment.rows, positions))
    cohort = Cohort(positions, root, parameters.degree, parameters.threshold)
    entry = KeysAdvertised(session.parameters.session, len(positions), root)
    return _publish(entry, 1, Sharing(0, cohort, 0), rows)


def _close_sharing(moment: Moment, state: Sharing, rows: dict[int, Row]) -> CoordinatorTransition:
    parameters = moment.session.parameters
    present = tables.present_indices(moment.rows, state.cohort)
    if not moment.session.is_whole([state.cohort.positions[index] for index in present]):
        return _abort(moment, OTHER_CONTRIBUTORS, rows)
    if len(present) < parameters.min_contributors:
        return _abort(moment, "fewer than min_contributors shared keys", rows)
    root = merkle.root(tables.shared_leaves(moment.rows, state.cohort))
    entry = KeysShared(parameters.session, len(present), root)
    return _publish(entry, 2, Collecting(0, state.cohort, present, root, 0), rows)


def _close_collecting(moment: Moment, state: Collecting, rows: dict[int, Row]) -> CoordinatorTransition:
    """Fix U3: everybody whose upload is durable, as far as the rules of a close allow."""
    headers = tables.staged_headers(moment.rows, state.cohort, state.present)
    return _close_over(moment, Folding(state.cohort, state.present, state.shared, ()), headers, rows)


def _close_over(
    moment: Moment, state: Folding, headers: dict[int, ContributionHeader], rows: dict[int, Row]
) -> CoordinatorTransition:
    """Fix U3 among the senders of ``headers``: without one end of every asymmetric edge, if they are enough."""
    graph = moment.session.graph(len(state.cohort.positions), state.cohort.root)
    for index in admission.ends_to_reject(graph, headers, moment.session.parameters.max_corrupt):
        del headers[index]
        key = row_key(state.cohort.positions[index], RowKind.REJECTED)
        rows[key] = RejectedRow(RejectReason.ASYMMETRIC_EDGE.name)
    if not moment.session.is_whole([state.cohort.positions[index] for index in headers]):
        return _abort(moment, OTHER_CONTRIBUTORS, rows)
    if len(headers) < moment.session.parameters.min_contributors:
        return _abort(moment, "fewer than min_contributors contributed", rows)
    # A logged close counts as a publication, so none is logged that cannot be opened.
    if len(headers) < max(moment.session.quorum(len(state.cohort.positions)), state.cohort.threshold + 1):
        return _abort(moment, "too few contributed to open a sum", rows)
    accepted = tuple(sorted(headers))
    return Transition(dataclasses.replace(state, accepted=accepted), (FoldUploads(accepted),), rows)


def _refuted(moment: Moment, state: CoordinatorState, event: UploadsRefuted) -> CoordinatorTransition:
    """Whoever signed another hash than its upload's is left out, before any log entry counts it; then close anew."""
    if not isinstance(state, Folding):
        return Transition(state)
    # An effect that was carried out twice, before and after a crash, names indices that are rejected already.
    liars = frozenset(event.indices).intersection(state.accepted)
    if not liars:
        return Transition(state)
    rejected = RejectedRow(RejectReason.WRONG_LINEAR_HASH.name)
    rows: dict[int, Row] = {row_key(state.cohort.positions[index], RowKind.REJECTED): rejected for index in liars}
    rest = [index for index in state.accepted if index not in liars]
    return _close_over(moment, state, tables.staged_headers(moment.rows, state.cohort, rest), rows)


def _folded(moment: Moment, state: CoordinatorState, event: SumFolded) -> CoordinatorTransition:
    if not isinstance(state, Folding):
        return Transition(state)
    dispositions = tables.dispositions(moment.rows, state.cohort, state.present, state.accepted)
    rejected = sum(isinstance(each, Rejected) for each in dispositions)
    entry = SessionClose(
        moment.session.parameters.session,
        count=len(state.accepted),
        rejected=rejected,
        dropped=len(dispositions) - len(state.accepted) - rejected,
        contributions=merkle.root(tables.contribution_leaves(moment.rows, state.cohort, state.accepted)),
        dispositions=merkle.root([each.to_bytes() for each in dispositions]),
        limb_sum=event.limb_sum,
    )
    close = hashlib.sha256(entry.to_bytes()).digest()
    return _publish(entry, 3, Confirming(0, state.cohort, state.present, state.accepted, close, 0))


def _unmasking(moment: Moment, state: Confirming) -> Unmasking:
    deadline_s = moment.now_s + moment.session.parameters.deadlines.unmask_s
    return Unmasking(deadline_s, state.cohort, state.present, state.accepted, state.close, state.confirmed, 0, 0)


def _enough_confirmed(state: Confirming) -> bool:
    """All of U3; on the complete graph also as many as let everybody answer.

    Everybody then has ``threshold`` confirmed neighbours, which with its own are the quorum as well.
    """
    complete = state.cohort.degree == len(state.cohort.positions) - 1
    enough = state.cohort.threshold + 1 if complete else len(state.accepted)
    return state.confirmed >= min(enough, len(state.accepted))


def _enough_answered(state: Unmasking) -> bool:
    """Everybody who confirmed has answered, and the answers can be enough for every secret."""
    shares = state.answered * state.cohort.degree
    return state.answered == state.confirmed and shares >= state.cohort.threshold * len(state.present)


def _recovered(moment: Moment, state: CoordinatorState, event: SumRecovered) -> CoordinatorTransition:
    if not isinstance(state, Recovering):
        return Transition(state)
    last = state.unmasking
    entry = SessionResult(
        moment.session.parameters.session,
        len(last.accepted),
        event.openings,
        event.integer_sum,
        event.mean,
        event.aggregate,
    )
    finished = Finished(
        cohort=last.cohort,
        present=last.present,
        accepted=last.accepted,
        integer_sum=event.integer_sum,
        mean=event.mean,
        openings_file=event.openings_file,
        pairs_file=event.pairs_file,
        ended_at_s=moment.now_s,
    )
    return _publish(entry, 4, finished)


def _failed(moment: Moment, state: CoordinatorState, event: RecoveryFailed) -> CoordinatorTransition:
    """Wrong or too few shares: wait for more answers until the deadline, then give up."""
    if isinstance(state, Folding):
        return _abort(moment, event.reason, {})
    if not isinstance(state, Recovering):
        return Transition(state)
    last = state.unmasking
    if last.answered > state.used:
        return Transition(Recovering(last, last.answered), (RecoverSum(last.answered),))
    if moment.now_s >= last.deadline_s or last.answered == len(last.accepted):
        return _abort(moment, event.reason, {}, last)
    return Transition(dataclasses.replace(last, tried=last.answered))


def _abort(
    moment: Moment, reason: str, rows: dict[int, Row], released: Unmasking | None = None
) -> CoordinatorTransition:
    """End without a result; the entry commits to every answer that was ``released`` to us."""
    answers: dict[int, bytes] = {}
    if released is not None:
        answers = tables.answer_leaves(moment.rows, released.cohort, released.accepted)
    position = log_size(moment.rows)
    root = merkle.root(tuple(answers.values()))
    entry = SessionAbort(moment.session.parameters.session, reason, len(answers), root)
    return _publish(entry, position, Aborted(reason, moment.now_s), rows)


def _publish(
    entry: SessionEntry, position: int, then: Lasting, rows: dict[int, Row] | None = None
) -> CoordinatorTransition:
    data = entry.to_bytes()
    return Transition(Publishing(data, position, then), (PublishEntry(position, data),), rows or {})


def _published(moment: Moment, state: CoordinatorState, event: EntryPublished) -> CoordinatorTransition:
    """The log has the entry: the phase it opens begins now, and its clock starts."""
    if not isinstance(state, Publishing) or event.position != state.position:
        return Transition(state)
    row = LogRow(state.entry, event.index)
    return Transition(_with_deadline(moment, state.then), (), {row_key(state.position, RowKind.LOG): row})


def _with_deadline(moment: Moment, state: Lasting) -> Lasting:
    deadlines = moment.session.parameters.deadlines
    match state:
        case Advertising():
            return dataclasses.replace(state, deadline_s=moment.now_s + deadlines.advertise_s)
        case Sharing():
            return dataclasses.replace(state, deadline_s=moment.now_s + deadlines.share_s)
        case Collecting():
            return dataclasses.replace(state, deadline_s=moment.now_s + deadlines.upload_s)
        case Confirming():
            return dataclasses.replace(state, deadline_s=moment.now_s + deadlines.confirm_s)
        case _:
            return state
