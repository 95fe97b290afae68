"""Random dropouts and a random lying coordinator: one-hot sums are exact, or there is no sum.

Client i contributes the i-th unit vector: the sum is 0 or 1 everywhere; 2 is a replay, anything large is a mask
that did not cancel. Half of the draws are plausible ones: unbiased requests of a coordinator rarely get past the
first check and would test nothing behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from secagg.protocol.errors import ProtocolError
from secagg.protocol.messages import ClosedList, Confirmations
from secagg.protocol.pairwise.client_states import Answered, ClientState, Confirmed
from secagg.protocol.phases import Phase
from secagg.transcript.statements import Signed
from tests.support.cohort import Client, Cohort
from tests.support.liars import cohort_of, settled, stop
from tests.support.stage import (
    UNIT,
    Fork,
    close_with,
    corrupt_confirmation,
    restarted,
    sent,
    shares_of,
    stage_of,
    step,
)

PHASES = [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT, Phase.CONSISTENCY_CHECK, Phase.UNMASK]
NEVER = len(PHASES)


@dataclass(frozen=True)
class Dropouts:
    """When each client falls silent: the number of the first phase it takes no part in, NEVER if in all."""

    leaves_at: tuple[int, ...]
    minimum: int
    max_corrupt: int

    def alive(self, phase: int) -> list[int]:
        return [number for number, leaves in enumerate(self.leaves_at) if leaves > phase]

    def sum_expected(self) -> list[int] | None:
        """The sum that must come out, None where the session must abort."""
        advertised, shared, contributed, confirmed, answered = (len(self.alive(phase)) for phase in range(NEVER))
        if advertised < max(self.minimum, 3):
            return None
        threshold = (advertised - 1 + min(self.max_corrupt, advertised - 1)) // 2 + 1
        # Of everybody in U3 the others must give `threshold` shares, and confirm as often before that.
        enough = min(shared, contributed, confirmed, answered) >= threshold + 1
        if not enough or min(shared, contributed) < self.minimum:
            return None
        return [UNIT * (leaves > 2) for leaves in self.leaves_at]


@st.composite
def dropouts(draw: st.DrawFn) -> Dropouts:
    size = draw(st.integers(4, 9))
    max_corrupt = draw(st.integers(0, min(2, (size - 2) // 2)))
    minimum = draw(st.integers(max(3, max_corrupt + 2), size))
    if draw(st.booleans()):
        # Plausible: one or two fall silent, so that most sessions end with a sum.
        leaves = [NEVER] * size
        for _ in range(draw(st.integers(0, 2))):
            leaves[draw(st.integers(0, size - 1))] = draw(st.integers(0, NEVER))
        return Dropouts(
            tuple(leaves), draw(st.integers(max(3, max_corrupt + 2), max(3, max_corrupt + 2, size - 2))), max_corrupt
        )
    return Dropouts(tuple(draw(st.integers(0, NEVER)) for _ in range(size)), minimum, max_corrupt)


async def outcome(plan: Dropouts) -> list[int] | None:
    """What the real session gives."""
    cohort = await cohort_of(len(plan.leaves_at), min_contributors=plan.minimum, max_corrupt=plan.max_corrupt)
    acts = [cohort.advertise, cohort.share, cohort.upload, cohort.confirm, cohort.answer]
    for number, (phase, act) in enumerate(zip(PHASES, acts, strict=True)):
        if cohort.host.status().phase is phase:
            for one in plan.alive(number):
                await _try(act, cohort, cohort.clients[one], phase)
            await settled(cohort, phase)
    finished = cohort.host.status().phase is Phase.FINISHED
    total = cohort.integer_sum().tolist() if finished else None
    await stop(cohort.host)
    return total


async def _try(act: object, cohort: Cohort, one: Client, phase: Phase) -> None:
    """A client that finds too few neighbours stops by itself; the coordinator sees it drop out."""
    if cohort.host.status().phase is not phase:
        return
    try:
        await act([one])
    except ProtocolError:
        one.outbox.clear()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(dropouts())
def test_masks_cancel_whenever_enough_survive_and_else_there_is_no_sum(plan: Dropouts) -> None:
    assert asyncio.run(outcome(plan)) == plan.sum_expected()


SIZE, CORRUPT = 6, 5
INDICES = st.integers(0, SIZE - 2)


class LyingCoordinator(RuleBasedStateMachine):
    """Shows closes, hands confirmations around, restarts clients, in any order; one client colludes."""

    @initialize()
    def begin(self) -> None:
        self.stage = stage_of(SIZE, 3, 1)
        self.states: dict[int, ClientState] = dict(enumerate(self.stage.contributed[:CORRUPT]))
        self.closes: list[ClosedList] = [close_with(self.stage, range(SIZE))]
        self.signed: dict[tuple[int, int], Signed] = {}
        self.forks: dict[int, Fork] = {}

    @rule(dropped=st.sets(INDICES, max_size=3))
    def write_a_close(self, dropped: set[int]) -> None:
        self.closes.append(close_with(self.stage, set(range(SIZE)) - dropped))

    @rule(index=INDICES, choice=st.integers(0, 3))
    def show_a_close(self, index: int, choice: int) -> None:
        number = choice % len(self.closes)
        transition = self._step(index, self.closes[number])
        if transition is not None and isinstance(transition.state, Confirmed):
            self.signed[number, index] = sent(transition)

    @rule(indices=st.sets(INDICES, min_size=3), choice=st.integers(0, 3))
    def show_many_a_close(self, indices: set[int], choice: int) -> None:
        """The plausible draw: enough see the same close for some to answer."""
        for index in sorted(indices):
            self.show_a_close(index, choice)

    @rule(index=INDICES, choice=st.integers(0, 3))
    def hand_around_confirmations(self, index: int, choice: int) -> None:
        number = choice % len(self.closes)
        shown = self.closes[number]
        signed = [value for (told, by), value in self.signed.items() if told == number and by != index]
        around = Confirmations((*signed, corrupt_confirmation(self.stage, CORRUPT, shown)))
        transition = self._step(index, around)
        if transition is not None:
            answers = self.forks.setdefault(number, Fork(shown, {}, {})).answers
            assert index not in answers
            answers[index] = sent(transition)

    @rule(choice=st.integers(0, 3))
    def hand_everybody_confirmations(self, choice: int) -> None:
        for index in range(CORRUPT):
            self.hand_around_confirmations(index, choice)

    @rule(index=INDICES)
    def restart_a_client(self, index: int) -> None:
        self.states[index] = restarted(self.states[index])

    @invariant()
    def both_secrets_of_nobody_are_out(self) -> None:
        for owner in range(SIZE - 1):
            assert min(shares_of(self.stage, owner, self.forks.values(), {CORRUPT})) < self.stage.threshold

    @invariant()
    def one_set_at_most_is_answered(self) -> None:
        sets = {fork.shown.evidence.entries[3] for fork in self.forks.values() if fork.answers}
        assert len(sets) <= 1

    @invariant()
    def whoever_answered_kept_nothing(self) -> None:
        for fork in self.forks.values():
            for index in fork.answers:
                assert isinstance(self.states[index], Answered)

    def _step(self, index: int, event: ClosedList | Confirmations):
        try:
            transition = step(self.stage, index, self.states[index], event)
        except ProtocolError:
            return None
        self.states[index] = transition.state
        return transition


LyingCoordinator.TestCase.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


class TestNoOrderOfLiesOpensTwoSets(LyingCoordinator.TestCase):
    """Hypothesis plays the coordinator."""
