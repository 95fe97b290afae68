"""What has to hold of every session, after every operation, whoever crashes, drops out or lies.

Each invariant has a name, a reason, and a check that says what is wrong. It also says what it rests on: where that is
not given, because somebody lets more clients be corrupt than the session says, it is no promise and is not checked;
``Watch.not_promised`` names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from secagg.protocol.rows import RowKind, row_key
from secagg.runtime.ports import StoreError
from secagg.transcript.statements import Accepted, Rejected, SelfMaskShare
from simulations.judging.record_check import check_record
from simulations.judging.seen_inputs import KnowledgeError
from simulations.judging.watched import Assumption, Honesty, Watched
from simulations.world.cast import ONE
from simulations.world.clients import ClientNode
from verifier.report import ENDED, Verdict

__all__ = ["END_INVARIANTS", "INVARIANTS", "Assumption", "Honesty", "Invariant", "Violation", "Watch", "Watched"]


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that always holds.

    Attributes:
        name: as reports name it.
        reason: why it has to hold.
        check: what is wrong, in words; None if nothing is.
        rests_on: what must be given for it to be a promise.
    """

    name: str
    reason: str
    check: Callable[[Watched], str | None]
    rests_on: frozenset[Assumption] = frozenset()


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold: its name, and what is wrong."""

    invariant: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


class Watch(Watched):
    """A world under watch."""

    def check(self) -> tuple[Violation, ...]:
        """What does not hold now, but for the record: to be called after every operation."""
        return self._violations(INVARIANTS)

    def check_end(self) -> tuple[Violation, ...]:
        """What does not hold at the end of a run, the record included."""
        return self._violations((*INVARIANTS, *END_INVARIANTS))

    def not_promised(self) -> tuple[Invariant, ...]:
        """The invariants that are not checked, because what they rest on is not given."""
        return tuple(each for each in (*INVARIANTS, *END_INVARIANTS) if not self._is_promised(each))

    def _violations(self, invariants: tuple[Invariant, ...]) -> tuple[Violation, ...]:
        found = []
        for invariant in invariants:
            wrong = invariant.check(self) if self._is_promised(invariant) else None
            if wrong is not None:
                found.append(Violation(invariant.name, wrong))
        return tuple(found)

    def _is_promised(self, invariant: Invariant) -> bool:
        return all(map(self.holds, invariant.rests_on))


def _no_small_sum(watched: Watched) -> str | None:
    least = watched.world.plan.minimum - len(watched.corrupt_clients)
    try:
        # Of what is in the basis one look is enough; how small other combinations are is a longer question.
        smallest = min((each.clients for each in watched.view.determined()), key=len, default=None)
        if smallest is not None and len(smallest) >= least:
            smallest = watched.view.smallest_sum()
        if smallest is None or len(smallest) >= least:
            return None
        return f"{len(smallest)} honest clients of at least {least}; known: {'; '.join(watched.view.explain())}"
    except KnowledgeError as error:
        return f"what was seen cannot be accounted for: {error}"


def _one_kind_of_share(watched: Watched) -> str | None:
    for number in watched.answers:
        kinds: dict[int, bool] = {}
        for statement in watched.answers_of(number):
            for share in statement.shares:
                is_self_mask = isinstance(share, SelfMaskShare)
                if kinds.setdefault(share.index, is_self_mask) is not is_self_mask:
                    return f"client {number} released both shares of index {share.index}"
    try:
        both = watched.view.doubly_opened() if watched.holds(Assumption.FEW_CORRUPT) else ()
    except KnowledgeError as error:
        return f"what was seen cannot be accounted for: {error}"
    return f"both secrets of client {both[0]} are known" if both else None


def _one_set_opened(watched: Watched) -> str | None:
    for number in watched.answers:
        closes = {statement.close for statement in watched.answers_of(number)}
        if len(closes) > 1:
            return f"client {number} answered {len(closes)} close entries"
    for place, answers in watched.member_answers.items():
        sums = {(each.statement.close, each.statement.share_sum) for each in answers}
        if len(sums) > 1:
            return f"member {place} gave {len(sums)} answers"
    if not watched.holds(Assumption.FEW_CORRUPT):
        return None
    try:
        known = watched.view.determined() if watched.holds(Assumption.ONE_LOG) else watched.view.of_one_cohort()
    except KnowledgeError as error:
        return f"what was seen cannot be accounted for: {error}"
    return f"{len(known)} sums are known: {'; '.join(each.words() for each in known)}" if len(known) > 1 else None


def _upload_once(watched: Watched) -> str | None:
    for number in sorted({*watched.uploads, *watched.headers}):
        uploads, headers = len(watched.uploads.get(number, {})), len(watched.headers.get(number, {}))
        if uploads > 1 or headers > 1:
            return f"client {number} sent {uploads} masked inputs and signed {headers} headers"
    return None


def _nothing_acknowledged_lost(watched: Watched) -> str | None:
    world = watched.world
    if world.coordinator.is_up:
        rows, session = world.coordinator.host.rows, world.cast.session
        for (number, kind), said in watched.acknowledged.items():
            row = rows.get(row_key(session.positions[world.cast.clients[number].public_bytes], kind))
            if row is None or said not in (None, _said(row, kind)):
                return f"client {number}: what was acknowledged of {kind.name} is gone"
    for place in watched.held:
        lost = watched.lost_shares(place)
        if lost:
            return f"member {place}: the share of client {lost[0]}, which it said it holds, is gone"
    dispositions = watched.dispositions()
    for number, receipts in watched.receipts.items():
        disposition = dispositions.get(number)
        if not dispositions or isinstance(disposition, Rejected):
            continue
        if not isinstance(disposition, Accepted):
            return f"client {number} has a receipt, the record says {'nothing' if disposition is None else 'dropped'}"
        if watched.digest_of(disposition.contribution) not in receipts:
            return f"client {number} has a receipt for another contribution than the one that counts"
    return None


def _said(row: object, kind: RowKind) -> object:
    """What a row holds of what a client sent."""
    return getattr(row, {RowKind.STAGED: "digest", RowKind.ANSWER: "leaf"}.get(kind, "signed"))


def _states_agree(watched: Watched) -> str | None:
    entries = watched.log_entries()
    if not entries:
        return None
    for client in watched.world.clients:
        if client.number in watched.corrupt_clients:
            continue
        seen = _entries_seen(client)
        if seen != entries[: len(seen)]:
            return f"client {client.number} saw another log of the session than the coordinator's"
    return None


def _entries_seen(client: ClientNode) -> tuple[bytes, ...]:
    """What a client's machine knows of the session's log; nothing while it has no state."""
    if client.participant is None:
        return ()
    try:
        return client.participant.state.view.entries
    except StoreError:
        return ()


def _one_hot_sums(watched: Watched) -> str | None:
    data, world = watched.published("integer-sum.bin"), watched.world
    if data is None or world.plan.epsilon is not None:
        return None
    accepted = frozenset(number for number, each in watched.dispositions().items() if isinstance(each, Accepted))
    if accepted & watched.corrupt_clients:
        return None  # Whoever is corrupt and accepted may have contributed anything.
    total = np.frombuffer(data, dtype="<i8").astype(np.int64)
    if world.plan.dimension >= world.plan.clients and not np.isin(total, (0, ONE)).all():
        return "a coordinate of the sum is neither 0 nor 1"
    if not np.array_equal(total, world.expected_sum(accepted)):
        return f"the sum is not that of the {len(accepted)} accepted clients"
    return None


def _record_verifiable(watched: Watched) -> str | None:
    if watched.world.coordinator.disk.log.checkpoint() is None:
        return None  # Nothing was ever published.
    found = check_record(watched.world)
    if found.verdict is Verdict.PASSED:
        return None
    if not watched.world.is_over and not found.failed and set(found.unavailable) <= {ENDED}:
        return None
    return f"{found.verdict}: {'; '.join(found.findings)}"


_PRIVATE = frozenset({Assumption.FEW_CORRUPT})
_HONEST = frozenset({Assumption.HONEST_COORDINATOR})

INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        "no-small-sum",
        "no combination of fewer honest inputs than the minimum less the corrupt clients follows from what the "
        "coordinator and those it colludes with have seen, or it would show about few what only a crowd may show",
        _no_small_sum,
        _PRIVATE,
    ),
    Invariant(
        "one-kind-of-share",
        "whoever has both secrets of a client has its mask: an honest client gives one kind of share of each "
        "neighbour, however often its process was restarted, and so never enough of both are known",
        _one_kind_of_share,
    ),
    Invariant(
        "one-set-opened",
        "sums over two sets that overlap show their difference: honest clients and members answer for one set, and of "
        "one cohort one sum is known at most",
        _one_set_opened,
    ),
    Invariant(
        "upload-once",
        "two masked inputs under the same masks show their difference: a client sends the same bytes again, or none",
        _upload_once,
    ),
    Invariant(
        "nothing-acknowledged-lost",
        "who was told that something is held need not keep it: it is there after every crash, and what has a receipt "
        "is accepted, or rejected with a reason that is published",
        _nothing_acknowledged_lost,
        _HONEST,
    ),
    Invariant(
        "states-agree",
        "a client acts on what it saw of the log: that is how the coordinator's log begins",
        _states_agree,
        frozenset({Assumption.ONE_LOG}),
    ),
    Invariant(
        "one-hot-sums",
        "client i contributes the unit vector i: the published sum has a one for each accepted client, or somebody's "
        "input was lost, counted twice or altered",
        _one_hot_sums,
        _HONEST,
    ),
)
"""Checked after every operation."""

END_INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        "record-verifiable",
        "everybody can check the published record without asking anyone: the verifier passes it, whether the session "
        "has a result or was aborted",
        _record_verifiable,
        _HONEST,
    ),
)
"""Checked at the end, because the verifier reads the whole record."""
