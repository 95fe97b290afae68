"""The machine of a committee member: it holds one share of each contribution and answers for one closed set.

``start`` and ``step`` are pure. A member trusts the coordinator for nothing: log, roster, headers and boxes are checked
here, and the answer is for the first close entry of the session in a log that the member's witnesses cosigned. That it
will answer is durable before a share is touched (state ``Answering``), so no crash lets it answer twice.

Source: design 06-one-shot, "Committee mode".
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from secagg.arith.errors import ArithmeticInputError
from secagg.crypto.sealing import SealingError, SealingKey
from secagg.crypto.signing import SigningKey
from secagg.derive.member_boxes import box_bytes, member_box_info, open_box
from secagg.protocol import log
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.one_shot.member_states import (
    SESSION_ROW,
    Answered,
    Answering,
    BoxesStored,
    HeldRow,
    HeldShare,
    Holding,
    LogShown,
    MemberEffect,
    MemberEvent,
    MemberState,
    OpenAsked,
    Over,
    RetentionPassed,
    Row,
    Rows,
    SessionRow,
    SharesLost,
    SharesSummed,
    SumShares,
    row_key,
)
from secagg.protocol.one_shot.messages import HeldBox
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.published import check_signature, check_statement_session, roster_position
from secagg.protocol.transition import Transition
from secagg.transcript import merkle
from secagg.transcript.entries import OneShotClose, OneShotOpen
from secagg.transcript.merkle import DIGEST_BYTES, leaf_hash
from secagg.transcript.openers import Committee, NamedMembers
from secagg.transcript.policy import LogPolicy
from secagg.transcript.statements import MemberAnswer, OneShotHeader, Signed

MemberTransition = Transition[MemberState, MemberEffect]
CLOCK_TOLERANCE_S = 300
"""How far in the future a session's time of opening may lie: clocks differ."""


@dataclass(frozen=True, slots=True)
class MemberRules:
    """Whom a member serves and what it insists on, whatever a session says.

    Attributes:
        coordinators: keys of the coordinators it serves.
        registrars: keys of the registrars whose rosters it takes; empty takes any.
        min_contributors: it opens no sum of fewer.
        restored_at_s: when it was restored from a backup last, by its own clock, or 0: it opens nothing opened before.
    """

    coordinators: frozenset[bytes]
    registrars: frozenset[bytes]
    min_contributors: int
    restored_at_s: int = 0

    def check(self, parameters: OneShotOpen, now_s: int) -> None:
        """Raise RemoteProtocolError unless a session with these parameters may be joined now."""
        self.check_served(parameters)
        if parameters.min_contributors < self.min_contributors:
            raise RemoteProtocolError(
                RejectReason.NOT_SERVED,
                f"min_contributors is {parameters.min_contributors}, this member asks for {self.min_contributors}",
            )
        # Otherwise a session could be dated so that a restore of today does not count as after it.
        if parameters.opened_at_s > now_s + CLOCK_TOLERANCE_S:
            raise RemoteProtocolError(RejectReason.NOT_SERVED, "opened_at_s is in the future")
        # Twice: one for what could be joined before it though dated into the future, one for clocks that differ.
        if self.restored_at_s and parameters.opened_at_s <= self.restored_at_s + 2 * CLOCK_TOLERANCE_S:
            raise RemoteProtocolError(RejectReason.OPENED_BEFORE, "this member was restored from a backup since")

    def check_served(self, parameters: OneShotOpen) -> None:
        """Raise RemoteProtocolError(NOT_SERVED) unless coordinator and registrar are among those that are served."""
        if parameters.coordinator not in self.coordinators:
            raise RemoteProtocolError(RejectReason.NOT_SERVED, "coordinator is not one that this member serves")
        if self.registrars and parameters.registrar not in self.registrars:
            raise RemoteProtocolError(RejectReason.NOT_SERVED, "registrar is not one that this member takes")


@dataclass(frozen=True, slots=True)
class MemberContext:
    """What the machine is told from outside and never stores.

    ``place`` is the member's in the committee, from 0.
    """

    key: SigningKey
    session: OneShotSession
    place: int
    log: LogPolicy
    rules: MemberRules

    @property
    def committee(self) -> Committee:
        """The session's committee. Raises LocalProtocolError for a session with a key authority."""
        opening = self.session.opening
        if not isinstance(opening, Committee):
            raise LocalProtocolError(RejectReason.WRONG_PROTOCOL, "the session has no committee")
        return opening

    @property
    def box_bytes(self) -> int:
        """Length of every box for this member."""
        return box_bytes(self.committee, self.place)


def place_of(parameters: OneShotOpen, identity: bytes, sealing_key: bytes) -> int:
    """The member's place in a session's committee.

    Raises:
        RemoteProtocolError: WRONG_PROTOCOL without a committee; NOT_SERVED if it does not name this member, with both
            of its keys: boxes sealed to another key would be lost.
    """
    opening = parameters.opening
    if not isinstance(opening, Committee):
        raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "opening: no committee")
    for place, member in enumerate(opening.members):
        if member.identity == identity and member.sealing_key == sealing_key:
            return place
    raise RemoteProtocolError(RejectReason.NOT_SERVED, "opening: the committee does not name this member's two keys")


def start(context: MemberContext, view: LogView, now_s: int) -> MemberTransition:
    """Join a session whose log has been verified.

    Raises:
        RemoteProtocolError: the session is none for this member, or is closed or over already.
    """
    context.rules.check(context.session.parameters, now_s)
    if view.entries != (context.session.entry,):
        raise RemoteProtocolError(RejectReason.WRONG_PHASE, "a session is joined before it is closed")
    return Transition(Holding(), (), {row_key(SESSION_ROW): SessionRow(view, now_s)})


def judge(context: MemberContext, sealing_key: SealingKey, rows: Rows, item: HeldBox) -> HeldShare:
    """Check one contribution: its header, and that its box holds a share for this member.

    A refusal is a complaint and says nothing about whose fault it is.

    Raises:
        RemoteProtocolError: the share is not held, for this reason; the other items of a batch are no concern of it.
    """
    signed, session = item.signed, context.session
    header = signed.statement
    if not isinstance(header, OneShotHeader):
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "signed: no header of a one-shot contribution")
    check_statement_session(header, session)
    share = HeldShare(roster_position(session, header.identity), leaf_hash(signed.to_bytes()))
    row = rows.get(row_key(share.position))
    if isinstance(row, HeldRow) and row.leaf == share.leaf:
        return share
    if header.lanes != session.upload_lanes:
        raise RemoteProtocolError(RejectReason.WRONG_LENGTH, f"{header.lanes} lanes, expected {session.upload_lanes}")
    if len(header.parts) != session.parts:
        raise RemoteProtocolError(RejectReason.WRONG_PARTS, f"{len(header.parts)} parts, expected {session.parts}")
    check_signature(signed, header.identity)
    if row is not None:
        raise RemoteProtocolError(RejectReason.EQUIVOCATION, "another header of this identity is held")
    if len(item.box) != context.box_bytes:
        raise RemoteProtocolError(RejectReason.WRONG_BOX_LENGTH, f"{len(item.box)} bytes")
    if hashlib.sha256(item.box).digest() != header.parts[context.place]:
        raise RemoteProtocolError(RejectReason.WRONG_PARTS, "the box is not the one that the header names")
    info = member_box_info(session.digest, header.identity, context.place)
    try:
        open_box(sealing_key, info, item.box, context.committee, context.place)
    except (SealingError, ArithmeticInputError):
        raise RemoteProtocolError(RejectReason.SHARE_NOT_HELD, "the box holds no share for this member") from None
    return share


def check_holding(state: MemberState) -> None:
    """Raise RemoteProtocolError(WRONG_PHASE or the reason of the end) unless boxes are still taken."""
    match state:
        case Holding():
            return
        case Over(reason):
            raise RemoteProtocolError(reason, "the session is over for this member")
        case _:
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "the closed set was answered")


def step(context: MemberContext, rows: Rows, state: MemberState, event: MemberEvent) -> MemberTransition:
    """The state after ``event``.

    Raises:
        RemoteProtocolError: the coordinator broke a rule, or asks for what this member does not give; the state stands
            as it was.
        LocalProtocolError: the runtime reported something that is not due.
    """
    match event:
        case LogShown():
            return _shown(context, rows, state, event)
        case BoxesStored():
            return _stored(rows, state, event)
        case OpenAsked():
            return _asked(context, rows, state, event)
        case SharesSummed():
            return _summed(context, state, event)
        case SharesLost(close):
            if isinstance(state, Answering) and state.close == close:
                return Transition(Over(RejectReason.SHARE_NOT_HELD))
            return Transition(state)
        case RetentionPassed():
            return Transition(_when_time_is_over(state))
        case _:
            assert_never(event)


def _when_time_is_over(state: MemberState) -> MemberState:
    """Nobody waits for an answer any more, and one that was decided on and never came will not come."""
    match state:
        case Holding():
            return Over(RejectReason.SESSION_OVER)
        case Answering():
            return Over(RejectReason.SHARE_NOT_HELD)
        case _:
            return state


def _stored(rows: Rows, state: MemberState, event: BoxesStored) -> MemberTransition:
    check_holding(state)
    new: dict[int, Row] = {}
    for stored in event.shares:
        key = row_key(stored.share.position)
        # One header for an identity: the first that was stored stays, whatever else was judged at the same time.
        if key not in rows and key not in new:
            new[key] = HeldRow(stored.share.leaf, stored.slot)
    return Transition(state, (), new)


def _shown(context: MemberContext, rows: Rows, state: MemberState, event: LogShown) -> MemberTransition:
    """Remember what the log says by now: also of a close that is refused it stays the first."""
    row = _session_row(rows)
    if not isinstance(state, Holding):
        # Judged all the same: its checkpoint becomes what every other log that is shown has to agree with.
        view = log.join(context.session.parameters, context.log, event.evidence)
        if isinstance(state, Answering | Answered):
            _check_close(view, state.close)
        return Transition(state)
    view = log.extend(row.view, context.session.parameters, context.log, event.evidence)
    reason = _why_over(context, view)
    if reason is not None:
        return Transition(Over(reason), (), {row_key(SESSION_ROW): dataclasses.replace(row, view=view)})
    if view == row.view:
        return Transition(state)
    return Transition(state, (), {row_key(SESSION_ROW): dataclasses.replace(row, view=view)})


def _why_over(context: MemberContext, view: LogView) -> RejectReason | None:
    """Why no set of this session will ever be answered, if the log says so."""
    if view.abort is not None:
        return RejectReason.ABORTED
    if view.result is not None:
        return RejectReason.SESSION_OVER
    close = view.close
    if close is None:
        return None
    # What only the first close could have said right is wrong for ever.
    named = close.opener if isinstance(close, OneShotClose) else None
    if not isinstance(named, NamedMembers) or context.place not in named.members:
        return RejectReason.NOT_NAMED
    least = max(context.session.parameters.min_contributors, context.rules.min_contributors)
    if not least <= close.count <= context.session.parameters.encoding.max_contributors:
        return RejectReason.BELOW_MINIMUM if close.count < least else RejectReason.COHORT_FULL
    return None


def _asked(context: MemberContext, rows: Rows, state: MemberState, event: OpenAsked) -> MemberTransition:
    parameters = context.session.parameters
    match state:
        case Over(reason):
            raise RemoteProtocolError(reason, "this member does not answer for the session")
        case Answering() | Answered():
            _check_close(log.join(parameters, context.log, event.evidence), state.close)
            _check_set(event, state.contributions, state.count)
            return Transition(state)
        case Holding():
            context.rules.check_served(parameters)
            view = log.extend(_session_row(rows).view, parameters, context.log, event.evidence)
        case _:
            assert_never(state)
    never = _why_over(context, view)
    if never is not None:
        raise RemoteProtocolError(never, "this member does not answer for the session")
    close = view.close
    if close is None:
        raise RemoteProtocolError(RejectReason.WRONG_PHASE, "the log has no close entry of the session")
    hashes = _check_set(event, close.contributions, close.count)
    positions = _positions(rows, hashes, len(context.session.positions))
    members = context.session.roster.members
    context.session.check_contributors(members[position].identity for position in _in_bitmap(positions))
    return Transition(
        Answering(view.close_digest, close.contributions, close.count), (SumShares(view.close_digest, positions),)
    )


def _check_close(view: LogView, answered: bytes) -> None:
    """The log has the close entry that is answered, by its SHA-256, and no other."""
    if view.close is None or view.close_digest != answered:
        raise RemoteProtocolError(RejectReason.OPENED_BEFORE, "this session was answered for another close")


def _check_set(event: OpenAsked, contributions: bytes, count: int) -> list[bytes]:
    """The leaf hashes, which are exactly those under the close entry."""
    if len(event.leaves) != DIGEST_BYTES * count:
        raise RemoteProtocolError(
            RejectReason.LOG_MISMATCH, f"{len(event.leaves) // DIGEST_BYTES} contributions, the close counts {count}"
        )
    hashes = event.hashes
    if merkle.root_of_hashes(hashes) != contributions:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "contributions: root differs from the close")
    return hashes


def _positions(rows: Rows, hashes: list[bytes], roster_size: int) -> bytes:
    """The roster positions of a set as a bitmap; each contribution is held, with this very header, and none repeats.

    Raises:
        RemoteProtocolError: SHARE_NOT_HELD, LOG_MISMATCH.
    """
    held = {row.leaf: key for key, row in rows.items() if isinstance(row, HeldRow)}
    bitmap = bytearray((roster_size + 7) // 8)
    last = row_key(SESSION_ROW)
    for number, leaf in enumerate(hashes):
        key = held.get(leaf)
        if key is None:
            raise RemoteProtocolError(
                RejectReason.SHARE_NOT_HELD, f"contributions[{number}]: no share is held under this header"
            )
        if key <= last:
            raise RemoteProtocolError(
                RejectReason.LOG_MISMATCH, f"contributions[{number}]: roster positions are not strictly ascending"
            )
        last = key
        position = key - row_key(0)
        bitmap[position // 8] |= 1 << position % 8
    return bytes(bitmap)


def _in_bitmap(bitmap: bytes) -> Iterator[int]:
    """The positions in a bitmap, ascending."""
    return (8 * at + bit for at, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1)


def _summed(context: MemberContext, state: MemberState, event: SharesSummed) -> MemberTransition:
    if not isinstance(state, Answering) or state.close != event.close:
        return Transition(state)
    statement = MemberAnswer(context.session.digest, state.close, context.key.public_bytes, event.share_sum)
    answer = Signed(statement, context.key.sign_statement(statement.to_bytes()))
    return Transition(Answered(state.close, state.contributions, state.count, answer))


def _session_row(rows: Rows) -> SessionRow:
    row = rows.get(row_key(SESSION_ROW))
    if not isinstance(row, SessionRow):
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "the session was not joined")
    return row
