"""A ledger holds sessions to a budget, and shows who is charged for what."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from dp.charge import Charge, epsilon_of
from dp.errors import ParameterError
from dp.ledger import (
    GENESIS,
    BudgetExhaustedError,
    Head,
    Ledger,
    LedgerCorruptError,
    LedgerRolledBackError,
    LedgerStateError,
    LedgerStorageError,
    SessionState,
    reservation_digest,
)
from dp.ledger_store import _SCHEMA
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, Gaussian, Mechanism, NoNoise, Skellam
from dp.sensitivity import Sensitivity

DELTA = Fraction(1, 100000)
SENSITIVITY = Sensitivity.of_squared_norm(10000, 1 << 10)
WORST = DistributedSkellam(Fraction(3000), 60, 10, SENSITIVITY, Fraction(1, 1 << 64))
SETTLED = WORST.with_survivors(90)
CLIENTS = [bytes([number]) * 32 for number in range(100)]


def alone(mechanism: Mechanism, delta: Fraction = DELTA) -> float:
    return epsilon_of(mechanism.charge(), delta).epsilon


def together(*charges: Charge) -> float:
    total = charges[0]
    for charge in charges[1:]:
        total = total + charge
    return epsilon_of(total, DELTA).epsilon


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as opened:
        opened.create("p", Fraction(8), DELTA)
        yield opened


def tamper(path: Path, *statements: str) -> None:
    """Change the database as somebody would who has the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_reservation_is_charged_at_its_worst_and_a_settlement_lowers_it(ledger: Ledger) -> None:
    assert ledger.state("p").spent.epsilon == 0
    ledger.reserve("p", b"a", WORST)
    assert ledger.state("p").spent.epsilon == alone(WORST)
    ledger.settle("p", b"a", SETTLED)
    ledger.reserve("p", b"b", WORST)
    state = ledger.state("p")
    assert state.spent.epsilon == pytest.approx(together(SETTLED.charge(), WORST.charge()), rel=1e-9)
    assert 0 <= Fraction(8) - Fraction(state.spent.epsilon) - Fraction(state.remaining) < Fraction(1, 10**12)
    assert [(session.session, session.state, session.epsilon) for session in state.sessions] == [
        (b"a", SessionState.SETTLED, alone(SETTLED)),
        (b"b", SessionState.RESERVED, alone(WORST)),
    ]
    assert alone(SETTLED) < alone(WORST)


def test_a_cancelled_session_costs_nothing_until_it_is_reserved_again(ledger: Ledger) -> None:
    ledger.reserve("p", b"a", WORST)
    ledger.cancel("p", b"a", "nobody joined")
    ledger.cancel("p", b"a", "nobody joined")
    assert ledger.state("p").spent.epsilon == 0
    assert [(session.state, session.epsilon) for session in ledger.state("p").sessions] == [("cancelled", 0.0)]
    with pytest.raises(LedgerStateError):
        ledger.settle("p", b"a", WORST)
    with pytest.raises(LedgerStateError):
        ledger.cancel("p", b"a", "another reason")
    ledger.reserve("p", b"a", WORST)
    assert ledger.state("p").spent == epsilon_of(WORST.charge(), DELTA)
    assert [session.state for session in ledger.state("p").sessions] == ["reserved"]
    ledger.verify()


def test_what_became_of_one_session_is_said_without_its_price(ledger: Ledger) -> None:
    assert ledger.session_state("p", b"a") is None
    ledger.reserve("p", b"a", WORST)
    assert ledger.session_state("p", b"a") == "reserved"
    ledger.settle("p", b"a", WORST)
    assert ledger.session_state("p", b"a") == "settled"
    ledger.reserve("p", b"b", WORST)
    ledger.cancel("p", b"b", "nobody joined")
    assert ledger.session_state("p", b"b") == "cancelled"
    with pytest.raises(LedgerStateError):
        ledger.session_state("q", b"a")


def test_asking_the_same_once_more_changes_nothing(ledger: Ledger) -> None:
    first = ledger.reserve("p", b"a", WORST)
    other = ledger.reserve("p", b"b", WORST)
    assert ledger.reserve("p", b"a", WORST) == first != other
    ledger.settle("p", b"a", SETTLED, CLIENTS[:90])
    head = ledger.head()
    ledger.settle("p", b"a", SETTLED, reversed(CLIENTS[:90]))
    assert ledger.reserve("p", b"a", WORST) == first
    ledger.create("p", Fraction(16, 2), DELTA)
    assert ledger.head() == head


def test_what_contradicts_the_ledger_is_refused_and_leaves_no_event(ledger: Ledger) -> None:
    ledger.reserve("p", b"a", WORST)
    ledger.reserve("p", b"b", WORST)
    ledger.settle("p", b"b", SETTLED, CLIENTS[:90])
    head = ledger.head()
    for contradiction in (
        lambda: ledger.create("p", Fraction(9), DELTA),
        lambda: ledger.create("p", Fraction(8), DELTA * 2),
        lambda: ledger.reserve("q", b"a", WORST),
        lambda: ledger.reserve("p", b"a", SETTLED),
        lambda: ledger.reserve("p", b"b", SETTLED),
        lambda: ledger.settle("p", b"c", SETTLED),
        lambda: ledger.settle("q", b"a", SETTLED),
        lambda: ledger.settle("p", b"b", WORST.with_survivors(91), CLIENTS[:91]),
        lambda: ledger.settle("p", b"b", SETTLED, CLIENTS[1:91]),
        lambda: ledger.settle("p", b"b", SETTLED),
        lambda: ledger.cancel("p", b"b", "too late"),
        lambda: ledger.cancel("p", b"c", "never reserved"),
        lambda: ledger.state("q"),
        lambda: ledger.fits("q", WORST),
    ):
        with pytest.raises(LedgerStateError):
            contradiction()
    assert ledger.head() == head


OTHER_SENSITIVITY = Sensitivity.of_squared_norm(9999, 1 << 10)
FIRM = DistributedDiscreteGaussian(Fraction(3000), 60, 10, SENSITIVITY)


@pytest.mark.parametrize(
    ("reserved", "settled"),
    [
        (WORST, DistributedSkellam(Fraction(3000), 59, 10, SENSITIVITY)),
        (WORST, DistributedSkellam(Fraction(3000), 60, 10, SENSITIVITY, Fraction(1, 1 << 63))),
        (WORST, DistributedSkellam(Fraction(3001), 60, 10, SENSITIVITY)),
        (WORST, DistributedSkellam(Fraction(3000), 60, 9, SENSITIVITY)),
        (WORST, DistributedSkellam(Fraction(3000), 60, 10, OTHER_SENSITIVITY)),
        (WORST, DistributedDiscreteGaussian(Fraction(3000), 90, 10, SENSITIVITY)),
        (WORST, Gaussian(Fraction(1000))),
        (WORST, NoNoise()),
        (FIRM, DistributedDiscreteGaussian(Fraction(3000), 59, 10, SENSITIVITY)),
        (Gaussian(Fraction(20)), Gaussian(Fraction(19))),
        (Gaussian(Fraction(20)), Gaussian(Fraction(21))),
        (Skellam(Fraction(150000), SENSITIVITY), Skellam(Fraction(149999), SENSITIVITY)),
    ],
    ids=repr,
)
def test_a_settlement_is_the_reserved_mechanism_and_never_dearer(
    ledger: Ledger, reserved: Mechanism, settled: Mechanism
) -> None:
    ledger.reserve("p", b"a", reserved)
    before = ledger.state("p")
    with pytest.raises(ParameterError, match="mechanism"):
        ledger.settle("p", b"a", settled)
    assert ledger.state("p") == before


def test_what_survivors_change_may_be_settled(ledger: Ledger) -> None:
    for session, reserved, settled in (
        (b"a", WORST, DistributedSkellam(Fraction(3000), 61, 10, SENSITIVITY, Fraction(1, 1 << 65))),
        (b"b", FIRM, FIRM.with_survivors(99)),
        (b"c", Skellam(Fraction(150000), SENSITIVITY), Skellam(Fraction(150001), SENSITIVITY)),
        (b"d", Gaussian(Fraction(20)), Gaussian(Fraction(20))),
    ):
        ledger.reserve("p", session, reserved)
        before = ledger.state("p").spent.epsilon
        ledger.settle("p", session, settled)
        assert ledger.state("p").spent.epsilon <= before


def test_a_session_that_does_not_fit_is_refused_with_numbers(ledger: Ledger) -> None:
    room = ledger.fits("p", WORST)
    assert room > 1
    for number in range(room):
        assert ledger.fits("p", WORST) == room - number
        ledger.reserve("p", b"%d" % number, WORST)
    head, state = ledger.head(), ledger.state("p")
    with pytest.raises(BudgetExhaustedError) as refused:
        ledger.reserve("p", b"more", WORST)
    assert refused.value.population == "p"
    assert refused.value.budget == 8
    assert refused.value.spent == state.spent.epsilon <= 8
    assert refused.value.cost == alone(WORST)
    assert refused.value.total == epsilon_of(WORST.charge().times(room + 1), DELTA).epsilon > 8
    assert refused.value.fits == room
    for number in (refused.value.cost, refused.value.total, state.remaining, room):
        assert f"{number:.4g}" in str(refused.value)
    assert ledger.head() == head
    # One that was reserved is not asked to fit a second time, and a cheaper one fits still.
    ledger.reserve("p", b"0", WORST)
    ledger.cancel("p", b"0", "nobody joined")
    ledger.reserve("p", b"more", WORST)


def test_a_session_without_noise_is_more_than_any_budget(ledger: Ledger) -> None:
    ledger.create("vast", Fraction(1 << 100), DELTA)
    for population in ("p", "vast"):
        with pytest.raises(BudgetExhaustedError) as refused:
            ledger.reserve(population, b"a", NoNoise())
        assert (refused.value.cost, refused.value.total, refused.value.fits) == (math.inf, math.inf, 0)
        assert ledger.state(population).sessions == ()


def test_a_budget_is_compared_exactly(ledger: Ledger) -> None:
    cost = Fraction(alone(WORST))
    ledger.create("exact", cost, DELTA)
    ledger.create("short", cost - Fraction(1, 1 << 90), DELTA)
    ledger.reserve("exact", b"a", WORST)
    assert ledger.state("exact").remaining == 0
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve("short", b"a", WORST)


def test_the_delta_is_that_of_the_budget(ledger: Ledger) -> None:
    small = Fraction(1, 10**9)
    ledger.create("strict", Fraction(8), small)
    for population in ("p", "strict"):
        ledger.reserve(population, b"a", WORST)
    assert ledger.state("p").spent.epsilon == alone(WORST)
    assert ledger.state("strict").spent.epsilon == alone(WORST, small) > alone(WORST)
    assert ledger.fits("strict", WORST) < ledger.fits("p", WORST)
    # Its distance alone is more than this delta.
    ledger.create("hopeless", Fraction(8), Fraction(1, 1 << 65))
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve("hopeless", b"a", WORST)


def test_only_participants_are_charged_and_everybody_for_what_is_not_settled(ledger: Ledger) -> None:
    noisier = WORST.with_survivors(70)
    for session in (b"a", b"b", b"c", b"d", b"e"):
        ledger.reserve("p", session, WORST)
    ledger.settle("p", b"a", SETTLED, CLIENTS[:90])
    ledger.settle("p", b"b", noisier, CLIENTS[30:])
    ledger.settle("p", b"c", SETTLED)
    ledger.cancel("p", b"d", "nobody joined")
    expected = {
        None: ([b"a", b"b", b"c", b"d", b"e"], [SETTLED, noisier, SETTLED, WORST]),
        CLIENTS[0]: ([b"a", b"c", b"e"], [SETTLED, SETTLED, WORST]),
        CLIENTS[50]: ([b"a", b"b", b"c", b"e"], [SETTLED, noisier, SETTLED, WORST]),
        CLIENTS[99]: ([b"b", b"c", b"e"], [noisier, SETTLED, WORST]),
        b"\xff" * 32: ([b"c", b"e"], [SETTLED, WORST]),
    }
    for client, (sessions, charged) in expected.items():
        state = ledger.state("p", client)
        assert state.client == client
        assert [session.session for session in state.sessions] == sessions
        assert state.spent.epsilon == pytest.approx(together(*(each.charge() for each in charged)), rel=1e-9)
    with pytest.raises(ParameterError, match="client"):
        ledger.state("p", b"short")
    ledger.verify()


def test_populations_do_not_share_a_budget(ledger: Ledger) -> None:
    ledger.create("q", Fraction(3), DELTA)
    ledger.reserve("p", b"a", WORST)
    ledger.reserve("q", b"a", SETTLED)
    assert ledger.state("p").spent.epsilon == alone(WORST)
    assert ledger.state("q").spent.epsilon == alone(SETTLED)
    ledger.settle("p", b"a", SETTLED)
    assert ledger.state("q").sessions[0].state is SessionState.RESERVED


def test_distances_of_unlike_denominators_go_on_adding_up(ledger: Ledger) -> None:
    for odd in range(1, 12, 2):
        session = b"%d" % odd
        ledger.reserve("p", session, WORST)
        before = ledger.state("p").spent.epsilon
        unlike = DistributedSkellam(Fraction(3000), 60, 10, SENSITIVITY, Fraction(1, (1 << 1000) + odd))
        ledger.settle("p", session, unlike)
        assert alone(unlike) <= ledger.state("p").spent.epsilon <= before
    ledger.verify()


def test_others_recompute_the_digest_of_a_reservation(ledger: Ledger) -> None:
    created = ledger.head()
    assert created.sequence == 1
    first = ledger.reserve("p", b"a", WORST)
    second = ledger.reserve("p", b"b", SETTLED)
    assert first.digest == reservation_digest(first.previous, first.sequence, "p", b"a", WORST)
    assert (first.previous, second.previous) == (created.digest, first.digest)
    assert Head(second.sequence, second.digest) == ledger.head()
    assert ledger.contains(Head(first.sequence, first.digest))
    assert ledger.contains(Head(0, GENESIS))
    assert not ledger.contains(Head(first.sequence, second.digest))
    assert not ledger.contains(Head(3 + 1, second.digest))


def test_everything_is_there_after_opening_again(path: Path, ledger: Ledger) -> None:
    ledger.reserve("p", b"a", WORST)
    ledger.settle("p", b"a", SETTLED, CLIENTS[:90])
    ledger.reserve("p", b"b", WORST)
    ledger.cancel("p", b"b", "nobody joined")
    with Ledger.open(path) as again:
        assert again.head() == ledger.head()
        for client in (None, CLIENTS[0], CLIENTS[99]):
            assert again.state("p", client) == ledger.state("p", client)
        again.verify()
        again.reserve("p", b"c", WORST)
        # The other one sees what was appended behind its back.
        assert ledger.state("p") == again.state("p")


def test_a_closed_ledger_says_so(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
    for use in (ledger.head, ledger.verify, lambda: ledger.reserve("p", b"a", WORST)):
        with pytest.raises(LedgerStorageError, match="closed"):
            use()


def test_an_older_copy_is_refused_at_every_age(path: Path, ledger: Ledger, tmp_path: Path) -> None:
    copies = []
    for number in range(4):
        copies.append((tmp_path / f"{number}.db", ledger.head()))
        shutil.copy(path, copies[-1][0])
        ledger.reserve("p", b"%d" % number, WORST)
    newest = path.read_bytes()
    ledger.close()
    for copy, head in copies:
        shutil.copy(copy, path)
        with pytest.raises(LedgerRolledBackError, match="accept_restored") as refused:
            Ledger.open(path)
        assert f"ends at event {head.sequence}" in str(refused.value)
    path.unlink()
    with pytest.raises(LedgerRolledBackError, match="gone"):
        Ledger.open(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(LedgerRolledBackError):
        Ledger.open(path)
    path.write_bytes(newest)
    with Ledger.open(path) as again:
        assert again.head().sequence == 5


def test_an_older_copy_is_noticed_while_the_ledger_is_open(path: Path, ledger: Ledger, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "old.db")
    ledger.reserve("p", b"a", WORST)
    path.write_bytes((tmp_path / "old.db").read_bytes())
    for use in (ledger.head, lambda: ledger.state("p"), lambda: ledger.reserve("p", b"b", WORST)):
        with pytest.raises(LedgerRolledBackError):
            use()


def test_another_ledger_of_the_same_length_is_refused(path: Path, ledger: Ledger, tmp_path: Path) -> None:
    ledger.reserve("p", b"a", WORST)
    with Ledger.open(tmp_path / "other.db") as other:
        other.create("p", Fraction(8), DELTA)
        other.reserve("p", b"b", SETTLED)
        other.reserve("p", b"c", SETTLED)
    ledger.close()
    shutil.copy(tmp_path / "other.db", path)
    with pytest.raises(LedgerRolledBackError):
        Ledger.open(path)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"digest":"00","sequence":1}'])
def test_a_ledger_without_what_it_remembers_is_refused(path: Path, ledger: Ledger, content: bytes | None) -> None:
    head_file = path.with_name("ledger.db.head")
    ledger.close()
    if content is None:
        head_file.unlink()
    else:
        head_file.write_bytes(content)
    with pytest.raises(LedgerRolledBackError):
        Ledger.open(path)


def test_both_files_restored_together_show_only_against_a_head_kept_elsewhere(
    path: Path, ledger: Ledger, tmp_path: Path
) -> None:
    head_file = path.with_name("ledger.db.head")
    shutil.copy(path, tmp_path / "old.db")
    shutil.copy(head_file, tmp_path / "old.head")
    older = ledger.head()
    ledger.reserve("p", b"a", WORST)
    anchored = ledger.head()
    ledger.require(anchored)
    ledger.close()
    shutil.copy(tmp_path / "old.db", path)
    shutil.copy(tmp_path / "old.head", head_file)
    with Ledger.open(path) as restored:
        restored.require(older)
        with pytest.raises(LedgerRolledBackError, match=anchored.digest.hex()):
            restored.require(anchored)
        # A history of the same length that went another way does not hold it either.
        restored.reserve("p", b"b", WORST)
        with pytest.raises(LedgerRolledBackError):
            restored.require(anchored)


def test_an_older_copy_is_accepted_on_the_newest_published_head_and_the_chain_tells(
    path: Path, ledger: Ledger, tmp_path: Path
) -> None:
    published = ledger.reserve("p", b"a", WORST)
    shutil.copy(path, tmp_path / "old.db")
    ledger.settle("p", b"a", SETTLED)
    lost = ledger.head()
    ledger.close()
    with pytest.raises(LedgerStateError, match="not behind"):
        Ledger.accept_restored(path, Head(published.sequence, published.digest))
    shutil.copy(tmp_path / "old.db", path)
    for missing in (lost, Head(0, GENESIS), Head(2, bytes(32))):
        with pytest.raises(LedgerRolledBackError, match="missing"):
            Ledger.accept_restored(path, missing)
    with pytest.raises(LedgerRolledBackError):
        Ledger.open(path)
    Ledger.accept_restored(path, Head(published.sequence, published.digest))
    with Ledger.open(path) as again:
        # The settlement was lost: the worst case stands again.
        assert again.state("p").spent.epsilon == alone(WORST)
        assert again.head().sequence == 3
        assert not again.contains(lost)
        again.verify()
    with closing(sqlite3.connect(path)) as connection:
        (event,) = connection.execute("SELECT event FROM events WHERE sequence = 3").fetchone()
    assert event.startswith(b'{"event":"restore","published":{"digest":"' + published.digest.hex().encode())
    assert b'"remembered":{"digest":"' + lost.digest.hex().encode() in event


def test_there_is_nothing_to_accept_where_there_is_no_database(path: Path) -> None:
    with pytest.raises(LedgerStateError):
        Ledger.accept_restored(path, Head(1, bytes(32)))
    assert not path.exists()


def test_without_its_newest_copy_a_ledger_is_begun_anew_from_what_was_published(ledger: Ledger, tmp_path: Path) -> None:
    for session in (b"a", b"b", b"c"):
        ledger.reserve("p", session, WORST)
    ledger.settle("p", b"a", SETTLED)
    ledger.cancel("p", b"c", "nobody joined")
    with Ledger.open(tmp_path / "new.db") as rebuilt:
        rebuilt.create("p", Fraction(8), DELTA)
        for session in (b"a", b"b", b"c"):
            rebuilt.reserve("p", session, WORST)
        rebuilt.settle("p", b"a", SETTLED)
        assert rebuilt.state("p").spent.epsilon >= ledger.state("p").spent.epsilon


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET event = x'00' WHERE sequence = 1",
        "UPDATE OR REPLACE events SET sequence = 1 WHERE sequence = 2",
        "DELETE FROM events WHERE sequence = 3",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events VALUES (2, x'00', NULL, x'00')",
        "REPLACE INTO events VALUES (3, x'00', NULL, x'00')",
        "INSERT INTO events VALUES (5, x'00', NULL, x'00')",
        "INSERT INTO events VALUES (0, x'00', NULL, x'00')",
        "INSERT INTO events VALUES (-1, x'00', NULL, x'00')",
    ],
)
def test_the_database_itself_refuses_to_change_an_event(path: Path, ledger: Ledger, statement: str) -> None:
    ledger.reserve("p", b"a", WORST)
    ledger.settle("p", b"a", SETTLED)
    with pytest.raises(sqlite3.IntegrityError, match="events are"):
        tamper(path, statement)
    ledger.verify()


CHANGES = {
    "an event": 'UPDATE events SET event = replace(event, \'"epsilon":"8/1"\', \'"epsilon":"9/1"\') WHERE sequence = 1',
    "an event that is text": "UPDATE events SET event = CAST(event AS TEXT) WHERE sequence = 1",
    "a digest": "UPDATE events SET digest = x'" + "00" * 32 + "' WHERE sequence = 2",
    "participants": "UPDATE events SET participants = x'" + "ee" * 32 + "' WHERE sequence = 3",
    "no participants": "UPDATE events SET participants = NULL WHERE sequence = 3",
    "a gap": "DELETE FROM events WHERE sequence = 2",
    "an order": "UPDATE events SET sequence = 10 - sequence",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_events_are_found_by_verifying_and_by_opening(path: Path, ledger: Ledger, change: str) -> None:
    ledger.reserve("p", b"a", WORST)
    ledger.settle("p", b"a", SETTLED, CLIENTS[:90])
    ledger.reserve("p", b"b", WORST)
    tamper(path, "DROP TRIGGER events_are_final", "DROP TRIGGER events_stay", CHANGES[change], *_SCHEMA[2:])
    with pytest.raises((LedgerCorruptError, LedgerRolledBackError)):
        ledger.verify()
    with pytest.raises(LedgerCorruptError):
        Ledger.open(path)


def test_missing_triggers_are_found(path: Path, ledger: Ledger) -> None:
    ledger.verify()
    tamper(path, "DROP TRIGGER events_stay")
    with pytest.raises(LedgerCorruptError, match="triggers"):
        ledger.verify()
    with pytest.raises(LedgerCorruptError, match="triggers"):
        Ledger.open(path)


def test_a_reservation_that_never_fitted_is_found_by_verifying(path: Path, ledger: Ledger) -> None:
    """Somebody who writes the file recomputes digests as well; the budget is recomputed from the parameters."""
    from dp.ledger_events import Reserved

    store = ledger._store
    with store.writing():
        store.append(ledger._book.head(), Reserved("p", b"a", NoNoise()))
    with pytest.raises(LedgerCorruptError, match="never accepted"):
        ledger.verify()


def test_events_that_cannot_follow_are_found_though_their_digests_are_right(path: Path, ledger: Ledger) -> None:
    from dp.ledger_events import Cancelled, Created, Reserved, Settled

    ledger.reserve("p", b"a", SETTLED)
    for event in (
        Created("p", Fraction(80), DELTA),
        Created("p", Fraction(8), DELTA),
        Reserved("p", b"a", SETTLED),
        Reserved("q", b"a", SETTLED),
        Settled("p", b"a", WORST, None),
        Cancelled("p", b"b", "never reserved"),
    ):
        shutil.copy(path, path.with_name("forged.db"))
        shutil.copy(path.with_name("ledger.db.head"), path.with_name("forged.db.head"))
        with Ledger.open(path.with_name("forged.db")) as forged:
            with forged._store.writing():
                forged._store.append(forged._book.head(), event)
            with pytest.raises(LedgerCorruptError):
                forged.verify()
        with pytest.raises(LedgerCorruptError):
            Ledger.open(path.with_name("forged.db"))


def test_other_files_are_not_taken_for_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(LedgerCorruptError):
        Ledger.open(path)
    path.unlink()
    tamper(path, "CREATE TABLE t (x)")
    with pytest.raises(LedgerStorageError, match="schema version 0"):
        Ledger.open(path)
    tamper(path, "PRAGMA user_version = 2")
    with pytest.raises(LedgerStorageError, match="schema version 2"):
        Ledger.open(path)
    with pytest.raises(LedgerStorageError):
        Ledger.open(tmp_path / "nowhere" / "ledger.db")


def test_the_files_are_for_their_owner_only(path: Path, ledger: Ledger) -> None:
    ledger.reserve("p", b"a", WORST)
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "ledger.db": 0o600,
        "ledger.db-journal": 0o600,
        "ledger.db.head": 0o600,
    }
