"""DPN: every way to break one check of declared noise alone, and what hostile numbers do to a verifier."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from dp.ledger_book import composed
from dp.mechanisms import DistributedSkellam
from dp.planner import MechanismKind
from dp.sensitivity import Sensitivity
from secagg.privacy.session_noise import mechanism_of
from secagg.transcript.entries import SessionAbort
from secagg.transcript.noise import NoDifferentialPrivacy, PrivacyBudget
from simulations.world.noise import reserved
from tests.support.forge import MAIN, write_record
from tests.support.forge_closing import rounded_vector
from tests.support.forge_noise import NoisyForge, NoisyOneShotRecord, noise_policy
from tests.unit.verifier.session_checks import audit_of, checked, failing, reason, unclean
from verifier import privacy_spent
from verifier.checks import Level, Status
from verifier.privacy_spent import NoisySession, beyond, charges_of, epsilon_at, fault_of
from verifier.run import run_audit
from verifier.session_record import SessionEntries

UNKNOWN = {"DPN-3": Status.UNAVAILABLE}
"""What a session costs that breaks the rule of DPN-2, nobody knows."""


def found_of(directory, level=Level.SUM, **edits):
    """What became of the checks of a record with noise; a name's first ``_`` stands for a dot."""
    edits = {name.replace("_open", ".open"): edit for name, edit in edits.items()}
    return checked(NoisyForge(edits).run().write(directory), level)


def noise(**fields):
    """An edit that declares other noise, reserved as it then is."""
    return lambda parameters, _: reserved(replace(parameters, noise=replace(parameters.noise, **fields)))


def budget(**fields):
    """An edit that names another budget, with the digest of that reservation."""

    def edit(parameters, _):
        declared = replace(parameters.noise.budget, **fields)
        return reserved(replace(parameters, noise=replace(parameters.noise, budget=declared)))

    return edit


def encoding(**fields):
    """An edit of the encoding, reserved as it then is."""
    return lambda parameters, _: reserved(replace(parameters, encoding=replace(parameters.encoding, **fields)))


def everywhere(edit):
    """One edit for all sessions."""
    return {"main_open": edit, "second_open": edit, "aborted_open": edit}


class TestHonestRecords:
    @pytest.mark.parametrize("mechanism", MechanismKind)
    def test_of_pairwise_sessions_pass_every_check(self, tmp_path, mechanism):
        found = checked(NoisyForge(mechanism=mechanism).run().write(tmp_path))
        assert unclean(found) == {}
        assert [found[f"DPN-{number}"].examined for number in (1, 2, 3, 4)] == [3, 3, 3, 1024]
        assert "whoever took part in all of its sessions (3) spent at most" in found["DPN-3"].notes[0]

    def test_of_one_shot_sessions_pass_every_check(self, tmp_path):
        found = checked(NoisyOneShotRecord().run().write(tmp_path))
        assert unclean(found) == {}
        assert found["DPN-3"].status is Status.PASS

    def test_without_noise_have_nothing_to_check_and_do_not_pass_for_it(self, tmp_path):
        found = checked(write_record(tmp_path))
        assert found["DPN-1"].status is Status.PASS
        for identifier in ("DPN-2", "DPN-3", "DPN-4"):
            assert found[identifier].status is Status.NOT_APPLICABLE, identifier


class TestTheMechanism:
    def test_none_where_the_policy_asks_for_noise_is_refused(self, tmp_path):
        found = found_of(tmp_path, main_open=lambda one, _: replace(one, noise=NoDifferentialPrivacy()))
        assert unclean(found) == {"DPN-1": Status.FAIL}
        assert "none, the policy asks for skellam" in reason(found, "DPN-1")

    def test_noise_where_the_policy_asks_for_none_or_another_is_refused(self, tmp_path):
        forge = NoisyForge()
        forge.policy_text = noise_policy("discrete-gaussian")
        assert unclean(checked(forge.run().write(tmp_path / "other"))) == {"DPN-1": Status.FAIL}
        forge = NoisyForge()
        forge.policy_text = write_record(tmp_path / "none").forge.policy_text
        assert unclean(checked(forge.run().write(tmp_path / "with"))) == {"DPN-1": Status.FAIL}


class TestWhatFitsTogether:
    @pytest.mark.parametrize(
        ("edit", "field"),
        [
            (noise(squared_norm=66065), "noise.squared_norm"),
            (noise(squared_norm=66063), "noise.squared_norm"),
            (encoding(value_bits=11), "encoding.value_bits"),
            (encoding(clip_norm=Fraction(2)), "noise.squared_norm"),
            (noise(table=bytes(32)), "noise.table"),
            (noise(local_variance=Fraction(13449)), "noise.table"),
            (noise(accepted_ratio=Fraction(1)), "noise.accepted_ratio"),
        ],
    )
    def test_each_number_that_does_not_is_found(self, tmp_path, edit, field):
        found = found_of(tmp_path, main_open=edit)
        assert unclean(found) == {"DPN-2": Status.FAIL} | UNKNOWN
        assert field in reason(found, "DPN-2")

    @pytest.mark.parametrize("field", ["reserved", "previous"])
    def test_a_reservation_of_something_else_is_found(self, tmp_path, field):
        def edit(parameters, _):
            other = replace(parameters.noise.budget, **{field: b"\x07" * 32})
            return replace(parameters, noise=replace(parameters.noise, budget=other))

        found = found_of(tmp_path, main_open=edit)
        assert unclean(found) == {"DPN-2": Status.FAIL} | UNKNOWN
        assert "noise.budget.reserved" in reason(found, "DPN-2")

    def test_a_reservation_for_a_cheaper_session_is_found(self, tmp_path):
        def edit(parameters, _):
            noisier = replace(parameters.noise, local_variance=2 * parameters.noise.local_variance)
            cheaper = reserved(replace(parameters, noise=noisier)).noise.budget
            return replace(parameters, noise=replace(parameters.noise, budget=cheaper))

        found = found_of(tmp_path, main_open=edit)
        assert unclean(found) == {"DPN-2": Status.FAIL} | UNKNOWN

    @pytest.mark.parametrize(
        "fields",
        [
            {"local_variance": Fraction(2**67 + 1, 2**65)},
            {"local_variance": Fraction(1, 10**39)},
            {"local_variance": Fraction(2**26)},
            {"scale": Fraction(2**100)},
            {"scale": Fraction(1, 2**100)},
            {"accepted_ratio": Fraction(0)},
        ],
    )
    def test_no_number_that_a_record_takes_raises(self, tmp_path, fields):
        def edit(parameters, _):
            return replace(parameters, noise=replace(parameters.noise, **fields))

        found = found_of(tmp_path, Level.META, aborted_open=edit)
        assert unclean(found) == {"DPN-2": Status.FAIL} | UNKNOWN

    @pytest.mark.parametrize("clip_norm", [Fraction(10**40 - 1), Fraction(1, 10**40 - 1)])
    def test_no_clip_norm_raises(self, tmp_path, clip_norm):
        def edit(parameters, _):
            return replace(parameters, encoding=replace(parameters.encoding, clip_norm=clip_norm))

        found = found_of(tmp_path, Level.META, aborted_open=edit)
        assert unclean(found) == {"DPN-2": Status.FAIL} | UNKNOWN
        assert "clip: must be between" in reason(found, "DPN-2")

    @pytest.mark.parametrize("population", ["\x00", "people\n", "\u202e"])
    def test_a_name_that_no_ledger_takes_is_refused_and_does_not_raise(self, tmp_path, population):
        def edit(parameters, _):
            other = replace(parameters.noise.budget, population=population)
            return replace(parameters, noise=replace(parameters.noise, budget=other))

        found = found_of(tmp_path, Level.META, aborted_open=edit)
        assert unclean(found) == {"DPN-2": Status.FAIL} | UNKNOWN

    def test_more_contributors_than_accounting_has_numbers_for_do_not_raise(self):
        record = NoisyOneShotRecord()
        record.append(record.roster_entry())
        parameters = record.main.open()
        wide = replace(parameters.encoding, value_bits=8, max_contributors=2**28, usable_bits=36)
        many = replace(parameters, roster_size=2**30, min_contributors=2**28, encoding=wide)
        fitting = replace(many.noise, local_variance=Fraction(1, 16), scale=Fraction(8), squared_norm=84)
        fault = fault_of(SessionEntries(replace(many, noise=fitting)))
        assert fault is not None


class TestBudgets:
    def test_a_population_has_one_budget(self, tmp_path):
        for name, fields in (("epsilon", {"epsilon": Fraction(41)}), ("delta", {"delta": Fraction(1, 10**6)})):
            found = found_of(tmp_path / name, second_open=budget(**fields))
            assert unclean(found) == {"DPN-3": Status.FAIL}
            assert found["DPN-3"].failed == 1
            assert "another budget than that of the population's first session" in reason(found, "DPN-3")

    @pytest.mark.parametrize("sequence", [1, 2])
    def test_reservations_do_not_go_back(self, tmp_path, sequence):
        found = found_of(tmp_path, second_open=budget(sequence=sequence))
        assert unclean(found) == {"DPN-3": Status.FAIL}
        assert f"reservation {sequence} comes after 2" in reason(found, "DPN-3")

    def test_a_reservation_that_is_next_follows_from_the_one_before(self, tmp_path):
        found = found_of(tmp_path, second_open=budget(previous=b"\x07" * 32))
        assert unclean(found) == {"DPN-3": Status.FAIL}
        assert "does not follow from 2" in reason(found, "DPN-3")

    def test_other_events_of_the_ledger_may_lie_between_reservations(self, tmp_path):
        found = found_of(tmp_path, second_open=budget(sequence=9, previous=b"\x07" * 32))
        assert unclean(found) == {}

    def test_populations_have_budgets_and_chains_of_their_own(self, tmp_path):
        other = budget(population="others", sequence=1, epsilon=Fraction(12))
        assert unclean(found_of(tmp_path, second_open=other, aborted_open=budget(sequence=4))) == {}

    def test_no_session_opens_that_could_cost_more_than_is_left(self, tmp_path):
        """Each alone costs 8, and two together do not fit into 10 as long as neither is closed."""
        found = found_of(tmp_path, **everywhere(budget(epsilon=Fraction(10))))
        assert unclean(found) == {"DPN-3": Status.FAIL}
        assert found["DPN-3"].failed == 2
        assert found["DPN-3"].failures[0].place.field == "noise.budget"

    def test_a_session_that_was_closed_before_counts_with_its_contributions(self, tmp_path):
        forge = NoisyForge({f"{name}.open": budget(epsilon=Fraction(10)) for name in ("main", "second")})
        forge.append(forge.roster_entry())
        for session in (forge.main, forge.second):
            for step in (session.open, session.advertise, session.share, session.close, session.result):
                forge.append(step())
        assert unclean(checked(forge.write(tmp_path), Level.SUM)) == {}

    @pytest.mark.parametrize("closed", [False, True])
    def test_a_session_that_was_aborted_before_its_close_counts_nothing(self, tmp_path, closed):
        forge = NoisyForge({f"{name}.open": budget(epsilon=Fraction(17, 2)) for name in ("main", "second")})
        forge.append(forge.roster_entry())
        for step in ("open", "advertise", "share", *(["close"] if closed else [])):
            forge.append(getattr(forge.main, step)())
        forge.append(SessionAbort(forge.main.session_id, "too few", 0, bytes(32)))
        for step in ("open", "advertise", "share", "close", "result"):
            forge.append(getattr(forge.second, step)())
        found = unclean(checked(forge.write(tmp_path), Level.META))
        assert found == ({"DPN-3": Status.FAIL} if closed else {})

    def test_the_policy_limits_all_sessions_whatever_their_populations_are_called(self, tmp_path):
        forge = NoisyForge({"second.open": budget(population="others")})
        forge.policy_text = noise_policy("skellam", epsilon="6/1")
        found = checked(forge.run().write(tmp_path), Level.SUM)
        assert unclean(found) == {"DPN-3": Status.FAIL}
        assert "all sessions of the log together cost epsilon 6.9" in reason(found, "DPN-3")
        assert found["DPN-3"].failures[0].place.file == "policy"

    def test_the_policy_counts_at_its_own_delta(self, tmp_path):
        forge = NoisyForge()
        forge.policy_text = noise_policy("skellam", epsilon="7/1", delta="1/100000000")
        assert failing(checked(forge.run().write(tmp_path), Level.META)) == ["DPN-3"]

    def test_the_policy_counts_sessions_that_are_under_way(self, tmp_path):
        forge = NoisyForge()
        forge.policy_text = noise_policy("skellam", epsilon="7/1")
        forge.append(forge.roster_entry())
        forge.append(forge.main.open())
        assert failing(checked(forge.write(tmp_path), Level.META)) == ["DPN-3"]

    def test_a_close_over_too_few_leaves_open_what_it_cost(self, tmp_path):
        found = found_of(tmp_path, Level.META, close=lambda entry, _: replace(entry, count=2))
        assert found["DPN-3"].status is Status.UNAVAILABLE
        assert "fewer contributions than min_contributors" in found["DPN-3"].missing[0].reason
        assert "DPN-3" not in failing(found)

    def test_of_sessions_that_were_not_asked_for_are_counted_too(self, tmp_path):
        forge = NoisyForge({"second.open": noise(table=bytes(32))})
        audit = audit_of(forge.run().write(tmp_path), Level.SUM)
        report = run_audit(audit, (forge.main.session_id,))
        assert report.verdict.exit_code == 3
        assert [one.check.identifier for one in report.checks if one.status is Status.UNAVAILABLE] == ["DPN-3"]

    def test_more_tables_than_anybody_has_the_time_for_are_not_tried(self, tmp_path, monkeypatch):
        monkeypatch.setattr(privacy_spent, "MAX_TABLES", 1)
        found = found_of(tmp_path)
        assert unclean(found) == {"DPN-2": Status.UNAVAILABLE, "DPN-3": Status.UNAVAILABLE}

    @pytest.mark.parametrize("delta", [Fraction(1, 10**40 - 1), Fraction(1, 3)])
    @pytest.mark.parametrize("epsilon", [Fraction(1, 10**40 - 1), Fraction(10**40 - 1)])
    def test_no_budget_that_a_record_takes_raises(self, tmp_path, epsilon, delta):
        found = found_of(tmp_path, Level.META, **everywhere(budget(epsilon=epsilon, delta=delta)))
        # At the smaller delta the distance between drawn and ideal noise alone is too much for any epsilon.
        fits = epsilon > 1 and delta > Fraction(1, 10)
        assert ("DPN-3" in failing(found)) != fits


def mechanisms(count):
    """That many sessions, each of other noise."""
    sensitivity = Sensitivity.of_squared_norm(10_000, 64)
    return [DistributedSkellam(Fraction(5000 + 7 * number), 10, 1, sensitivity) for number in range(count)]


class TestCharges:
    @pytest.mark.parametrize("seed", range(20))
    def test_at_each_opening_are_those_of_the_sessions_as_they_then_stood(self, seed):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(1, 12))
        places = np.sort(rng.choice(100, count, replace=False)).tolist()
        spent = PrivacyBudget("people", Fraction(1), Fraction(1, 2), 1, bytes(32), bytes(32))
        sessions = []
        for opened_at, worst in zip(places, mechanisms(count), strict=True):
            after = [place for place in range(opened_at + 1, 101) if place not in places]
            settled_at = None if rng.random() < 0.3 else int(rng.choice(after))
            settled = None if settled_at is None or rng.random() < 0.3 else worst.with_survivors(20)
            sessions.append(NoisySession(bytes(16), spent, opened_at, worst, settled_at, settled))
        found = list(charges_of(sessions))
        assert len(found) == count + 1
        for place, charge in zip([*places, 10**6], found, strict=True):
            expected = []
            for session in sessions:
                if session.opened_at <= place:
                    done = session.settled_at is not None and session.settled_at < place
                    cost = session.settled if done else session.worst
                    expected += [] if cost is None else [cost]
            assert charge.rdp == pytest.approx(composed(expected).rdp, rel=1e-12)

    def test_of_thousands_of_sessions_that_are_all_different_and_never_end_take_seconds(self):
        spent = PrivacyBudget("people", Fraction(1), Fraction(1, 2), 1, bytes(32), bytes(32))
        sessions = [NoisySession(bytes(16), spent, at, worst) for at, worst in enumerate(mechanisms(3000))]
        last = list(charges_of(sessions))[-1]
        assert last.rdp == pytest.approx(composed(session.worst for session in sessions).rdp, rel=1e-9)

    @pytest.mark.parametrize("factor", [Fraction(1, 2), Fraction(999_999, 10**6), Fraction(1_000_001, 10**6), 2])
    def test_go_beyond_a_budget_exactly_where_their_epsilon_is_larger(self, factor):
        delta = Fraction(1, 10**5)
        charge = composed(mechanisms(3))
        epsilon = epsilon_at(charge, delta)
        found = beyond(charge, Fraction(epsilon) * factor, delta)
        assert (found is None) == (factor >= 1)
        assert found in {None, epsilon}


def without_noise(packed, session):
    """An edit: everybody rounds, and nobody adds anything."""
    layout = session.parameters.encoding.field_layout()
    return {
        index: layout.pack(rounded_vector(session.parameters, session.secret("vector", index), session.vector_of)())
        for index in packed
    }


class TestTheFloor:
    @pytest.mark.parametrize("mechanism", MechanismKind)
    def test_catches_a_session_in_which_nobody_added_noise(self, tmp_path, mechanism):
        written = NoisyForge({"packed": without_noise}, mechanism=mechanism).run().write(tmp_path)
        found = checked(written)
        assert unclean(found) == {"DPN-4": Status.FAIL}
        assert reason(found, "DPN-4").endswith("with a probability of at most 2^-40")

    def test_does_not_see_what_few_leave_out(self, tmp_path):
        def some(packed, session):
            return packed | {0: without_noise(packed, session)[0]}

        assert unclean(checked(NoisyForge({"packed": some}).run().write(tmp_path))) == {}

    def test_does_not_see_noise_missing_under_a_signal_as_large(self, tmp_path):
        def loud(packed, session):
            layout = session.parameters.encoding.field_layout()
            return {index: layout.pack(np.full(layout.dimension, 200, dtype=np.int32)) for index in packed}

        assert unclean(checked(NoisyForge({"packed": loud}).run().write(tmp_path))) == {}

    def test_says_nothing_where_coordinates_are_few(self, tmp_path):
        found = checked(NoisyForge({"packed": without_noise}, main=MAIN).run().write(tmp_path))
        assert unclean(found) == {}
        assert found["DPN-4"].status is Status.NOT_APPLICABLE
        assert "too few coordinates: all that noise may add up to next to nothing" in dict(found["DPN-4"].excuses)

    def test_counts_only_on_those_who_are_not_taken_to_be_corrupt(self, tmp_path):
        """Of eight one may be corrupt: seven parts of noise are above the floor of seven, three are not."""

        def kept(share):
            def edit(packed, session):
                bare = without_noise(packed, session)
                return {index: packed[index] if rank < share else bare[index] for rank, index in enumerate(packed)}

            return edit

        for share, expected in ((8, {}), (3, {"DPN-4": Status.FAIL})):
            written = NoisyForge({"packed": kept(share)}).run().write(tmp_path / str(share))
            assert unclean(checked(written)) == expected

    def test_is_left_open_where_fewer_contributed_than_may(self, tmp_path):
        found = found_of(tmp_path, close=lambda entry, _: replace(entry, count=1 + 1))
        assert found["DPN-4"].status is Status.UNAVAILABLE


def test_what_every_session_costs_is_the_same_for_ledger_and_log():
    """The reservation is at the cost that DPN-3 counts until the session is closed."""
    forge = NoisyForge()
    forge.append(forge.roster_entry())
    parameters = forge.main.open()
    names = itertools.count(parameters.min_contributors)
    costs = [epsilon_at(composed([mechanism_of(parameters, next(names))]), Fraction(1, 10**5)) for _ in range(4)]
    assert costs == sorted(costs, reverse=True)
    assert epsilon_at(composed([mechanism_of(parameters)]), Fraction(1, 10**5)) == costs[0] <= 8
