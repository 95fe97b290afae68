"""Any sequence of steps, crashes and restored copies, against a model that fits on a page."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dp.charge import NO_CHARGE, epsilon_of
from dp.errors import ParameterError
from dp.ledger import BudgetExhaustedError, Head, Ledger, LedgerRolledBackError, LedgerStateError
from dp.mechanisms import DistributedSkellam
from dp.sensitivity import Sensitivity
from tests.unit.dp.test_ledger_crashes import FailingDisk, PowerCut

DELTA = Fraction(1, 100000)
BASE = DistributedSkellam(Fraction(3000), 20, 10, Sensitivity.of_squared_norm(10000, 1 << 10))
CLIENTS = [bytes([number]) * 32 for number in range(64)]

sessions = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
survivors = st.integers(21, 40)


class LedgerMachine(RuleBasedStateMachine):
    """``model``: for every session its state, its survivors and its participants, or None for all."""

    @initialize(epsilon=st.sampled_from([Fraction(5, 2), Fraction(3), Fraction(4)]))
    def begin(self, epsilon: Fraction) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.path = self.directory / "0" / "ledger.db"
        self.path.parent.mkdir()
        self.crashes = 0
        self.epsilon = epsilon
        self.ledger = Ledger.open(self.path)
        self.ledger.create("p", self.epsilon, DELTA)
        self.model: dict[bytes, tuple[str, int, list[bytes] | None]] = {}
        self.worst: dict[bytes, int] = {}
        self.heads: list[Head] = [self.ledger.head()]
        self.copies: list[tuple[Head, Path]] = []

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.directory)

    def reserved(self) -> list[bytes]:
        return [session for session, (state, _, _) in self.model.items() if state == "reserved"]

    def fresh(self) -> bytes:
        return next(session for session in (b"a", b"b", b"c", b"d", b"e") if session not in self.model)

    def spent(self, extra: list[int], client: bytes | None = None) -> float:
        charge = NO_CHARGE
        for state, count, participants in self.model.values():
            if state != "cancelled" and (client is None or participants is None or client in participants):
                charge = charge + BASE.with_survivors(count).charge()
        for count in extra:
            charge = charge + BASE.with_survivors(count).charge()
        return epsilon_of(charge, DELTA).epsilon

    # Steps drawn at random are mostly refused; of these two, all but the dear ones are taken.
    @precondition(lambda self: len(self.model) < 5)
    @rule(count=survivors)
    def reserve_another(self, count: int) -> None:
        self.reserve(self.fresh(), count)

    @precondition(lambda self: self.reserved())
    @rule(data=st.data(), everybody=st.booleans())
    def settle_what_is_reserved(self, data: st.DataObject, everybody: bool) -> None:
        session = data.draw(st.sampled_from(self.reserved()))
        self.settle(session, data.draw(st.integers(self.worst[session] - 1, 40)), everybody)

    @rule(session=sessions, count=survivors)
    def reserve(self, session: bytes, count: int) -> None:
        mechanism = BASE.with_survivors(count)
        # One that was cancelled is charged as if it had never been there.
        known = session in self.model and self.model[session][0] != "cancelled"
        again = known and self.worst[session] == count
        try:
            reservation = self.ledger.reserve("p", session, mechanism)
        except LedgerStateError:
            assert known
            assert not again
            return
        except BudgetExhaustedError:
            assert not known
            assert self.spent([count]) > self.epsilon * (1 - Fraction(1, 10**9))
            return
        assert again or not known
        if not known:
            self.model[session], self.worst[session] = ("reserved", count, None), count
            self.heads.append(Head(reservation.sequence, reservation.digest))

    @rule(session=sessions, count=survivors, everybody=st.booleans())
    def settle(self, session: bytes, count: int, everybody: bool) -> None:
        participants = None if everybody else CLIENTS[64 - count :]
        state, worst, _ = self.model.get(session, ("unknown", 0, None))
        try:
            self.ledger.settle("p", session, BASE.with_survivors(count), participants)
        except LedgerStateError:
            assert state in {"unknown", "cancelled", "settled"}
            return
        except ParameterError:
            assert state == "reserved"
            assert count < worst
            return
        assert state == "reserved" or self.model[session] == ("settled", count, participants)
        assert count >= self.worst[session]
        self.model[session] = ("settled", count, participants)
        self.heads.append(self.ledger.head())

    @rule(session=sessions, evidence=st.sampled_from(["nobody joined", "the power went"]))
    def cancel(self, session: bytes, evidence: str) -> None:
        state = self.model.get(session, ("unknown", 0, None))[0]
        try:
            self.ledger.cancel("p", session, evidence)
        except LedgerStateError:
            assert state != "reserved"
            return
        assert state in {"reserved", "cancelled"}
        self.model[session] = ("cancelled", self.model[session][1], None)
        self.heads.append(self.ledger.head())

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.path)

    @precondition(lambda self: len(self.model) < 5)
    @rule(
        at=st.sampled_from([0, 1, 2, 2, 2, 3, 4, 5, 6]),  # 2 is the commit of the event
        when=st.sampled_from(["before", "midway", "after"]),
        count=survivors,
        what=st.sampled_from(["reserve", "settle", "cancel"]),
    )
    def crash(self, at: int, when: str, count: int, what: str) -> None:
        """The machine goes down in the midst of a step; it may have taken place, or not."""
        self.ledger.close()
        self.crashes += 1
        after = self.directory / str(self.crashes) / "ledger.db"

        def fail() -> None:
            shutil.copytree(self.path.parent, after.parent)
            raise PowerCut

        reserved, fresh = self.reserved(), self.fresh()
        outcomes = [dict(self.model)]
        dying = None
        with suppress(PowerCut, BudgetExhaustedError):
            dying = Ledger(self.path, FailingDisk(at, when, fail))
            if what == "reserve" or not reserved:
                outcomes.append({**self.model, fresh: ("reserved", count, None)})
                dying.reserve("p", fresh, BASE.with_survivors(count))
            elif what == "settle":
                outcomes.append({**self.model, reserved[0]: ("settled", 40, CLIENTS[:40])})
                dying.settle("p", reserved[0], BASE.with_survivors(40), CLIENTS[:40])
            else:
                outcomes.append({**self.model, reserved[0]: ("cancelled", count, None)})
                dying.cancel("p", reserved[0], "nobody joined")
        if dying is not None:
            dying.close()
        if after.exists():
            self.path = after
        self.ledger = Ledger.open(self.path)
        found = {session.session: session.state for session in self.ledger.state("p").sessions}
        (self.model,) = [each for each in outcomes if {k: v[0] for k, v in each.items()} == found]
        if fresh in self.model:
            self.worst[fresh] = count
        self.ledger.verify()

    @rule()
    def copy(self) -> None:
        copy = self.directory / f"copy {len(self.copies)}"
        shutil.copy(self.path, copy)
        self.copies.append((self.ledger.head(), copy))

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def restore_a_copy(self, data: st.DataObject) -> None:
        head, copy = data.draw(st.sampled_from(self.copies))
        newest = self.ledger.head()
        self.ledger.close()
        shutil.copy(self.path, self.directory / "newest")
        shutil.copy(copy, self.path)
        if head == newest:
            Ledger.open(self.path).close()
        else:
            with pytest.raises(LedgerRolledBackError):
                Ledger.open(self.path)
        shutil.copy(self.directory / "newest", self.path)
        self.ledger = Ledger.open(self.path)

    @invariant()
    def what_is_spent_is_what_the_model_says_and_within_the_budget(self) -> None:
        if not hasattr(self, "ledger"):
            return
        state = self.ledger.state("p")
        assert state.spent.epsilon <= self.epsilon
        assert state.spent.epsilon == pytest.approx(self.spent([]), rel=1e-9)
        assert {s.session: s.state for s in state.sessions} == {k: v[0] for k, v in self.model.items()}
        for client in (CLIENTS[0], CLIENTS[63]):
            assert self.ledger.state("p", client).spent.epsilon == pytest.approx(self.spent([], client), rel=1e-9)

    @invariant()
    def everything_acknowledged_is_there(self) -> None:
        if hasattr(self, "ledger"):
            assert all(self.ledger.contains(head) for head in self.heads)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


@pytest.mark.long
def test_many_histories() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=300, stateful_step_count=50, deadline=None))
