"""The coordinator machine of one-shot sessions.

It decides whose contributions count and which members are named, and what the log says; vectors, boxes and ciphertexts
never pass through it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import ChainMap
from collections.abc import Collection
from dataclasses import dataclass
from typing import assert_never, cast

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import admission, tables
from secagg.protocol.one_shot.coordinator_states import (
    Aborted,
    AskOpeners,
    CiphertextsRefuted,
    Collecting,
    Committing,
    ContributionsFolded,
    ContributionStored,
    Finished,
    FoldContributions,
    Folding,
    HoldingRow,
    HoldingsReported,
    Lasting,
    OneShotEffect,
    OneShotEvent,
    OneShotState,
    OpenerAnswered,
    Opening,
    Publishing,
    Recovering,
    RecoverSum,
    RecoveryFailed,
    Row,
    Rows,
    Settling,
    SumRecovered,
    deadline_of,
    phase_of,
)
from secagg.protocol.one_shot.messages import Attested, CommitContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.published import roster_position
from secagg.protocol.rows import (
    OTHER_CONTRIBUTORS,
    DeadlinePassed,
    EntryPublished,
    LogRow,
    PhaseEnded,
    PublishEntry,
    RejectedRow,
    RowKind,
    SetupRow,
    UploadsRefuted,
    UploadStaged,
    log_size,
    row_key,
)
from secagg.protocol.transition import Transition
from secagg.transcript import merkle
from secagg.transcript.entries import (
    ContributionsCommitted,
    OneShotClose,
    OneShotResult,
    SessionAbort,
    SessionEntry,
)
from secagg.transcript.openers import Committee, KeyAuthority, NamedMembers, SummedCiphertext
from secagg.transcript.statements import Rejected, Signed

OneShotTransition = Transition[OneShotState, OneShotEffect]


@dataclass(frozen=True, slots=True)
class Moment:
    """A step's surroundings: the session, the rows as they are, and the time."""

    session: OneShotSession
    rows: Rows
    now_s: int


def start(session: OneShotSession, setup: SetupRow) -> OneShotTransition:
    """Open the session: its parameters are the first entry of its log."""
    first: Lasting = Committing(0, 0)
    if isinstance(session.opening, Committee):
        first = Collecting(0, session.most_contributors, 0)
    return _publish(session.parameters, 0, first, {row_key(0, RowKind.SETUP): setup})


def step(moment: Moment, state: OneShotState, event: OneShotEvent) -> OneShotTransition:
    """The state after ``event``.

    A message that was accepted before is accepted again without effect; another one of the same sender and phase is
    refused.

    Raises:
        RemoteProtocolError: the message is refused, with its reason; the state stands as it was.
        LocalProtocolError: the store lost something that was accepted.
    """
    match event:
        case CommitContribution() | ContributionStored() | OpenerAnswered() | Attested():
            return _message(moment, state, event)
        case UploadStaged():
            return _staged(moment, state, event)
        case HoldingsReported():
            return _held(moment, state, event)
        case DeadlinePassed():
            deadline_s = deadline_of(state)
            passed = deadline_s is not None and moment.now_s >= deadline_s
            return _end_phase(moment, state) if passed else Transition(state)
        case PhaseEnded(phase):
            return _end_phase(moment, state) if phase_of(state) is phase else Transition(state)
        case EntryPublished():
            return _published(moment, state, event)
        case ContributionsFolded():
            return _folded(moment, state, event)
        case UploadsRefuted() | CiphertextsRefuted():
            return _refuted(moment, state, event)
        case SumRecovered():
            return _recovered(moment, state, event)
        case RecoveryFailed():
            return _failed(moment, state, event)
        case _:
            assert_never(event)


def _message(
    moment: Moment, state: OneShotState, event: CommitContribution | ContributionStored | OpenerAnswered | Attested
) -> OneShotTransition:
    rows = dict(admission.admit(moment.session, moment.rows, state, event))
    if moment.rows.get(next(iter(rows))) is not None:
        return Transition(state)
    after = _overlaid(moment, rows)
    match state, event:
        case Committing(), CommitContribution():
            state = dataclasses.replace(state, received=state.received + 1)
            if state.received == moment.session.most_contributors:
                return _close_committing(after, rows)
        case Opening(), OpenerAnswered():
            state = dataclasses.replace(state, answered=state.answered + 1)
            if state.answered >= _needed(moment.session):
                return Transition(Recovering(state, state.answered), (RecoverSum(state.answered),), rows)
        case Recovering(), OpenerAnswered():
            opening = dataclasses.replace(state.opening, answered=state.opening.answered + 1)
            state = dataclasses.replace(state, opening=opening)
        case Opening(), Attested():
            state = dataclasses.replace(state, attested=state.attested + 1)
            effects = (AskOpeners(state.close),) if state.attested == _attestations(moment.session) else ()
            return Transition(state, effects, rows)
        case _:
            pass
    return Transition(state, (), rows)


def _needed(session: OneShotSession) -> int:
    """How many answers a sum is opened with."""
    return session.opening.needed if isinstance(session.opening, Committee) else 1


def _attestations(session: OneShotSession) -> int:
    """How many attestations the opener wants to see."""
    return session.opening.attestations if isinstance(session.opening, KeyAuthority) else 0


def _overlaid(moment: Moment, rows: dict[int, Row]) -> Moment:
    """The moment after ``rows`` are written, without copying the others."""
    return dataclasses.replace(moment, rows=ChainMap(rows, cast("dict[int, Row]", moment.rows)))


def _staged(moment: Moment, state: OneShotState, event: UploadStaged) -> OneShotTransition:
    position = roster_position(moment.session, event.identity)
    key = row_key(position, RowKind.STAGED)
    row = admission.staged_row(moment.rows, position, event.digest)
    if moment.rows.get(key) == row:
        return Transition(state)
    if not isinstance(state, Collecting):
        raise admission.wrong_phase(state)
    rows: dict[int, Row] = {key: row}
    state = dataclasses.replace(state, staged=state.staged + 1)
    if state.staged == state.expected:
        return _close_collecting(_overlaid(moment, rows), rows)
    return Transition(state, (), rows)


def _held(moment: Moment, state: OneShotState, event: HoldingsReported) -> OneShotTransition:
    """What a member says counts until the set is fixed, and the first that it says of a contribution stands."""
    if not isinstance(state, Collecting | Settling):
        return Transition(state)
    opening = moment.session.opening
    if not isinstance(opening, Committee) or not 0 <= event.member < len(opening.members):
        raise RemoteProtocolError(RejectReason.NOT_IN_COHORT, f"member {event.member}")
    bit = 1 << event.member
    rows: dict[int, Row] = {}
    for positions, held in ((event.held, bit), (event.refused, 0)):
        for position in positions:
            before = tables.holdings(moment.rows, position)
            if not (before.held | before.refused) & bit:
                row = HoldingRow(before.held | held, before.refused | (bit ^ held))
                rows[row_key(position, RowKind.HOLDING)] = row
    if isinstance(state, Settling) and rows:
        after, members = _overlaid(moment, rows), len(opening.members)
        # Of those that are news alone, none of which was settled before: with all of them, many reports would cost the
        # square of the contributions.
        told = {at for at in (*event.held, *event.refused) if row_key(at, RowKind.HOLDING) in rows}
        news = tuple(at for at in told if tables.is_counted(after.rows, at))
        state = dataclasses.replace(state, settled=state.settled + tables.settled(after.rows, news, members))
        if state.settled == state.staged:
            return _close_settling(after, rows)
    return Transition(state, (), rows)


def _end_phase(moment: Moment, state: OneShotState) -> OneShotTransition:
    """Go on with whoever has done what the phase asks for."""
    match state:
        case Committing():
            return _close_committing(moment, {})
        case Collecting():
            return _close_collecting(moment, {})
        case Settling():
            return _close_settling(moment, {})
        case Opening() if state.answered > state.tried and state.answered >= _needed(moment.session):
            return Transition(Recovering(state, state.answered), (RecoverSum(state.answered),))
        case Opening():
            return _abort(moment, "too few answers to open the sum", {}, tables.answers(moment.rows).values())
        case _:
            return Transition(state)


def _close_committing(moment: Moment, rows: dict[int, Row]) -> OneShotTransition:
    parameters = moment.session.parameters
    leaves = tables.committed_leaves(moment.rows)
    if not moment.session.is_whole(tables.positions(moment.rows, RowKind.COMMITMENT)):
        return _abort(moment, OTHER_CONTRIBUTORS, rows)
    if len(leaves) < parameters.min_contributors:
        return _abort(moment, "fewer than min_contributors committed", rows)
    entry = ContributionsCommitted(parameters.session, len(leaves), merkle.root(leaves))
    return _publish(entry, log_size(moment.rows), Collecting(0, len(leaves), 0), rows)


def _close_collecting(moment: Moment, rows: dict[int, Row]) -> OneShotTransition:
    """No uploads any more. A committee may still have to say whose shares it holds."""
    opening = moment.session.opening
    staged = tables.staged_positions(moment.rows)
    # Before members are waited for: without somebody's upload they would not answer.
    if isinstance(opening, KeyAuthority) or not moment.session.is_whole(staged):
        return _close_settling(moment, rows)
    settled = tables.settled(moment.rows, staged, len(opening.members))
    if settled == len(staged):
        return _close_settling(moment, rows)
    deadline_s = moment.now_s + moment.session.parameters.deadlines.hold_s
    return Transition(Settling(deadline_s, len(staged), settled), (), rows)


def _close_settling(moment: Moment, rows: dict[int, Row]) -> OneShotTransition:
    """Fix the closed set: what is durable, and held by every member that is named."""
    session = moment.session
    staged = accepted = tables.staged_positions(moment.rows)
    members: tuple[int, ...] = ()
    if isinstance(session.opening, Committee):
        named = tables.choose_named(moment.rows, staged, session, session.opening)
        accepted, members = named.accepted, named.members
    if not session.is_whole(accepted):
        return _abort(moment, OTHER_CONTRIBUTORS, rows)
    if len(accepted) < session.parameters.min_contributors:
        # A logged close counts as a publication, so none is logged that cannot be opened.
        few = len(staged) < session.parameters.min_contributors
        reason = "fewer than min_contributors contributed" if few else "too few shares are held by enough members"
        return _abort(moment, reason, rows)
    return Transition(Folding(accepted, members), (FoldContributions(accepted),), rows)


def _refuted(moment: Moment, state: OneShotState, event: UploadsRefuted | CiphertextsRefuted) -> OneShotTransition:
    """Whoever signed what does not fit what it sent is left out, before any log entry counts it; then close anew."""
    if not isinstance(state, Folding):
        return Transition(state)
    # An effect that was carried out twice, before and after a crash, names some that are rejected already.
    liars = frozenset(event.indices).intersection(state.accepted)
    if not liars:
        return Transition(state)
    is_hash = isinstance(event, UploadsRefuted)
    reason = RejectReason.WRONG_LINEAR_HASH if is_hash else RejectReason.WRONG_CIPHERTEXT
    rows: dict[int, Row] = {row_key(position, RowKind.REJECTED): RejectedRow(reason.name) for position in liars}
    return _close_settling(_overlaid(moment, rows), rows)


def _folded(moment: Moment, state: OneShotState, event: ContributionsFolded) -> OneShotTransition:
    if not isinstance(state, Folding):
        return Transition(state)
    # Only now: had a liar been found, the set would have been chosen anew among all that is durable.
    lacking = RejectedRow(RejectReason.SHARE_NOT_HELD.name)
    left_out = set(tables.staged_positions(moment.rows)).difference(state.accepted)
    rows: dict[int, Row] = {row_key(position, RowKind.REJECTED): lacking for position in left_out}
    dispositions = tables.dispositions(_overlaid(moment, rows).rows, state.accepted)
    rejected = sum(isinstance(each, Rejected) for each in dispositions)
    opener: NamedMembers | SummedCiphertext = NamedMembers(state.members)
    if isinstance(moment.session.opening, KeyAuthority):
        opener = SummedCiphertext(event.ciphertext_sum)
    entry = OneShotClose(
        moment.session.parameters.session,
        count=len(state.accepted),
        rejected=rejected,
        dropped=len(dispositions) - len(state.accepted) - rejected,
        contributions=merkle.root(tables.contribution_leaves(moment.rows, state.accepted)),
        dispositions=merkle.root([each.to_bytes() for each in dispositions]),
        limb_sum=event.limb_sum,
        opener=opener,
    )
    close = hashlib.sha256(entry.to_bytes()).digest()
    then = Opening(0, state.accepted, state.members, close, 0, 0, 0)
    return _publish(entry, log_size(moment.rows), then, rows)


def _recovered(moment: Moment, state: OneShotState, event: SumRecovered) -> OneShotTransition:
    if not isinstance(state, Recovering):
        return Transition(state)
    entry = OneShotResult(
        moment.session.parameters.session,
        len(state.opening.accepted),
        event.openings,
        event.integer_sum,
        event.mean,
        event.aggregate,
        event.secret_sum,
        event.used,
        event.dissenting,
    )
    finished = Finished(
        accepted=state.opening.accepted,
        integer_sum=event.integer_sum,
        mean=event.mean,
        openings_file=event.openings_file,
        attestations_file=event.attestations_file,
        secret_sum=event.secret_sum,
        ended_at_s=moment.now_s,
    )
    return _publish(entry, log_size(moment.rows), finished)


def _failed(moment: Moment, state: OneShotState, event: RecoveryFailed) -> OneShotTransition:
    """The answers do not open the sum: wait for more until the deadline, then give up."""
    if not isinstance(state, Recovering):
        return Transition(state)
    last = state.opening
    if last.answered > state.used:
        return Transition(Recovering(last, last.answered), (RecoverSum(last.answered),))
    everybody = max(1, len(last.members))
    if moment.now_s >= last.deadline_s or last.answered == everybody:
        return _abort(moment, event.reason, {}, tables.answers(moment.rows).values())
    return Transition(dataclasses.replace(last, tried=last.answered))


def _abort(moment: Moment, reason: str, rows: dict[int, Row], released: Collection[Signed] = ()) -> OneShotTransition:
    """End without a result; the entry commits to every answer that was ``released`` to us."""
    answers = [signed.to_bytes() for signed in released]
    entry = SessionAbort(moment.session.parameters.session, reason, len(answers), merkle.root(answers))
    return _publish(entry, log_size(moment.rows), Aborted(reason, moment.now_s), rows)


def _publish(
    entry: SessionEntry, position: int, then: Lasting, rows: dict[int, Row] | None = None
) -> OneShotTransition:
    data = entry.to_bytes()
    return Transition(Publishing(data, position, then), (PublishEntry(position, data),), rows or {})


def _published(moment: Moment, state: OneShotState, event: EntryPublished) -> OneShotTransition:
    """The log has the entry: the phase it opens begins now, and its clock starts."""
    if not isinstance(state, Publishing) or event.position != state.position:
        return Transition(state)
    row = LogRow(state.entry, event.index)
    rows: dict[int, Row] = {row_key(state.position, RowKind.LOG): row}
    deadlines = moment.session.parameters.deadlines
    match state.then:
        case Committing():
            return Transition(dataclasses.replace(state.then, deadline_s=moment.now_s + deadlines.commit_s), (), rows)
        case Collecting():
            return Transition(dataclasses.replace(state.then, deadline_s=moment.now_s + deadlines.upload_s), (), rows)
        case Opening():
            then = dataclasses.replace(state.then, deadline_s=moment.now_s + deadlines.open_s)
            # An authority is asked once the attestors have spoken.
            effects = () if _attestations(moment.session) else (AskOpeners(then.close),)
            return Transition(then, effects, rows)
        case _:
            return Transition(state.then, (), rows)
