"""MRG: who may be in a sum, and sessions that follow another, each rule broken alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from secagg.transcript.merge import ProjectionMerge, contributors_digest, is_pilot, second_session
from tests.support import forged_merges
from tests.support.forge_following import (
    MEMBERS,
    SHARE,
    FollowingForge,
    OneShotFollowingForge,
    Pair,
    basis_of,
    contributors_of,
    pilot_basis,
    two_session,
)
from tests.unit.verifier.session_checks import audit_of, checked, failing, reason, unclean
from verifier.checks import Level, Status
from verifier.run import run_audit

MRG = ("MRG-1", "MRG-2", "MRG-3", "MRG-4")


def found_of(tmp_path, forge, level=Level.SUM):
    return checked(forge.write(tmp_path), level)


def of_pair(tmp_path, pair, **edits):
    return found_of(tmp_path, FollowingForge(pair, edits).run())


def second_merge(**changes):
    """An edit of the second session's open entry: its merge says something else."""
    return lambda entry, _: replace(entry, merge=replace(entry.merge, **changes))


def replaced_second(pair, change):
    """The same pair with another second plan."""
    return Pair(pair.first, lambda first: change(pair.second(first), first))


# Nothing is wrong


@pytest.mark.parametrize("pair", [two_session(), pilot_basis(1), pilot_basis(2)])
@pytest.mark.parametrize("failed_attempts", [0, 2])
def test_honest_sessions_pass(tmp_path, pair, failed_attempts):
    found = found_of(tmp_path, FollowingForge(pair, failed_attempts=failed_attempts).run(), Level.FULL)
    assert unclean(found) == {}
    statuses = [found[identifier].status for identifier in MRG]
    drawn = Status.PASS if pair.second(FollowingForge(pair).run().first).merge.TYPE == "pilot-basis" else None
    assert statuses == [drawn or Status.NOT_APPLICABLE, Status.PASS, Status.PASS, Status.PASS]
    assert found["MRG-2"].examined == failed_attempts + 1


@pytest.mark.parametrize("pair", [two_session(), pilot_basis(1), pilot_basis(2)])
def test_honest_one_shot_sessions_pass(tmp_path, pair):
    found = found_of(tmp_path, OneShotFollowingForge(pair).run(), Level.FULL)
    assert unclean(found) == {}
    assert [found[identifier].status for identifier in MRG[1:]] == [Status.PASS] * 3


def test_a_second_one_shot_sum_over_other_people_is_found(tmp_path):
    pair = replaced_second(two_session(), lambda plan, first: somebody_else(plan, first, says_so=True))
    found = found_of(tmp_path, OneShotFollowingForge(pair).run())
    assert failing(found) == ["MRG-3"]


def test_the_summary_names_the_session_that_one_follows(tmp_path):
    forge = FollowingForge(two_session()).run()
    first, second = run_audit(audit_of(forge.write(tmp_path), Level.SUM)).sessions
    assert (first.merge.strategy, first.merge.kind, first.merge.first) == ("two-session", "two-session-range", "")
    assert (second.merge.kind, second.merge.first) == ("two-session-projection", forge.first.session_id.hex())


# MRG-1


def test_somebody_who_is_no_pilot_does_not_decide_on_the_basis(tmp_path):
    pair = pilot_basis()
    keys = FollowingForge(pair).first.around.identities
    other = next(at for at, key in enumerate(keys) if not is_pilot(forged_merges.SEED, SHARE, key.public_bytes))

    def first(keys):
        plan = pair.first(keys)
        return replace(plan, members=tuple(sorted((*plan.members, other))))

    def second(before):
        plan = pair.second(before)
        members = tuple(member for member in plan.members if member != other)
        return replace(plan, members=members, min_contributors=len(members))

    found = of_pair(tmp_path, Pair(first, second))
    assert failing(found) == ["MRG-1"]
    assert reason(found, "MRG-1").endswith("statement.identity: not drawn as a pilot")
    assert (found["MRG-1"].failed, found["MRG-1"].examined) == (1, 13)


def test_a_pilot_is_not_in_the_second_sum_even_if_the_first_is_without_it(tmp_path):
    pair = pilot_basis()
    drawn = pair.first(FollowingForge(pair).first.around.identities).members
    moved = drawn[0]

    def first(keys):
        return replace(pair.first(keys), members=drawn[1:], min_contributors=len(drawn) - 1)

    def second(before):
        plan = pair.second(before)
        return replace(plan, members=tuple(sorted((*plan.members, moved))))

    found = of_pair(tmp_path, Pair(first, second))
    assert failing(found) == ["MRG-1"]
    assert reason(found, "MRG-1").endswith("statement.identity: drawn as a pilot")


def test_nobody_is_in_both_sums(tmp_path):
    """Whoever may be in neither place by lot, and is in both, shows in both checks."""
    pair = pilot_basis()
    keys = FollowingForge(pair).first.around.identities
    other = next(at for at, key in enumerate(keys) if not is_pilot(forged_merges.SEED, SHARE, key.public_bytes))

    def first(keys):
        plan = pair.first(keys)
        return replace(plan, members=tuple(sorted((*plan.members, other))))

    found = of_pair(tmp_path, Pair(first, pair.second))
    assert failing(found) == ["MRG-1", "MRG-3"]
    assert "in the sum of session c47ae3afe38a1c8cbf29b9bdced65704 already" in reason(found, "MRG-3")
    assert found["MRG-3"].failed == 1


# MRG-2


@pytest.mark.parametrize(
    ("pair", "changes", "field"),
    [
        (two_session(), {"seed": b"x" * 32}, "merge.seed"),
        (two_session(), {"update_norm": Fraction(1, 16)}, "merge.update_norm"),
        (pilot_basis(), {"update_norm": Fraction(1, 16)}, "merge.update_norm"),
        (two_session(), {"first": b"nothing of it is"}, "merge.first"),
    ],
)
def test_a_second_merge_that_differs_from_the_first_is_found(tmp_path, pair, changes, field):
    found = of_pair(tmp_path, pair, open=second_merge(**changes))
    assert failing(found) == ["MRG-2"]
    assert f"{field}: " in reason(found, "MRG-2")
    assert {found["MRG-3"].status, found["MRG-4"].status} == {Status.UNAVAILABLE}


@pytest.mark.parametrize(
    ("changes", "field"), [({"seed": b"x" * 32}, "merge.seed"), ({"share": Fraction(1, 3)}, "merge.share")]
)
def test_another_draw_for_the_second_session_is_found(tmp_path, changes, field):
    found = of_pair(tmp_path, pilot_basis(), open=second_merge(**changes))
    assert "MRG-2" in failing(found)
    assert f"{field}: another than the first session's" in reason(found, "MRG-2")


def test_bases_of_fewer_columns_are_found(tmp_path):
    def narrower(plan, first):
        fixed = {name: values[:, :2].copy() for name, values in plan.fixed.items()}
        merge = replace(plan.merge, columns=2, fixed=forged_merges.digest_of(fixed))
        return replace(plan, **forged_merges.plan_of(merge, fixed))

    found = of_pair(tmp_path, replaced_second(two_session(), narrower))
    assert failing(found) == ["MRG-2"]
    assert "merge.columns: another than the first session's" in reason(found, "MRG-2")


def test_other_sides_are_found(tmp_path):
    def one_side(plan, first):
        fixed = {name: values for name, values in plan.fixed.items() if name.endswith("/left")}
        merge = replace(plan.merge, sides=1, fixed=forged_merges.digest_of(fixed))
        return replace(plan, **forged_merges.plan_of(merge, fixed))

    found = of_pair(tmp_path, replaced_second(pilot_basis(2), one_side))
    assert failing(found) == ["MRG-2"]
    assert "merge.sides: another than the first session's" in reason(found, "MRG-2")


def test_bases_that_a_coordinator_made_up_are_found(tmp_path):
    """It looks for one direction: everybody's part in it would be in the sum, and little else."""

    def chosen(plan, first):
        rng = np.random.default_rng(3)
        fixed = {
            name: np.linalg.qr(rng.standard_normal(values.shape)).Q.astype(np.float32)
            for name, values in plan.fixed.items()
        }
        return replace(plan, **forged_merges.plan_of(replace(plan.merge, fixed=forged_merges.digest_of(fixed)), fixed))

    found = of_pair(tmp_path, replaced_second(two_session(), chosen))
    assert failing(found) == ["MRG-2"]
    assert "merge.fixed: not the bases that the first session published" in reason(found, "MRG-2")


def test_a_second_session_that_would_go_on_without_somebody_is_found(tmp_path):
    found = of_pair(tmp_path, two_session(), open=lambda entry, _: replace(entry, min_contributors=4))
    assert failing(found) == ["MRG-2"]
    assert "min_contributors: 4, the first session has 5 contributors" in reason(found, "MRG-2")


def test_an_identifier_that_anybody_could_choose_is_found(tmp_path):
    forge = FollowingForge(two_session())
    after = forge.session_after

    def chosen(name, attempt):
        session = after(name, attempt)
        session.session_id = b"chosen by itself"
        return session

    forge.session_after = chosen
    found = found_of(tmp_path, forge.run())
    assert failing(found) == ["MRG-2"]
    assert "not the identifier of an attempt" in reason(found, "MRG-2")


def test_the_last_attempt_that_there_can_be_is_one(tmp_path):
    for attempt, expected in ((999, "MRG-4"), (1000, "MRG-2")):
        forge = FollowingForge(two_session())
        after = forge.session_after
        forge.session_after = lambda name, _, after=after, attempt=attempt: after(name, attempt)
        assert failing(found_of(tmp_path / expected, forge.run())) == [expected]


def test_a_first_session_of_another_kind_is_found(tmp_path):
    def projections(before):
        contributors = contributors_digest(contributors_of(before))
        merging = forged_merges.projections(before.session_id, basis_of(before), contributors)
        return replace(before.plan, opened_at_s=before.plan.opened_at_s + 100, **merging)

    pair = pilot_basis(1)
    found = of_pair(tmp_path, Pair(pair.first, projections))
    assert failing(found) == ["MRG-2"]
    assert "merge.first: a session of the merge pilot" in reason(found, "MRG-2")


@pytest.mark.parametrize("name", ["base_model_digest", "registrar"])
def test_a_second_session_of_another_model_or_registrar_is_found(tmp_path, name):
    found = of_pair(tmp_path, two_session(), open=lambda entry, _: replace(entry, **{name: b"x" * 32}))
    if name == "base_model_digest":
        assert "MRG-2" in failing(found)
        assert f"{name}: another than the first session's" in reason(found, "MRG-2")
    else:
        # No roster entry has this registrar, so no session of the log is looked at.
        assert failing(found) == ["SES-2"]


def test_a_basis_is_published_before_anybody_projects_on_it(tmp_path):
    forge = FollowingForge(two_session())
    first = forge.first
    forge.append(forge.roster_entry())
    for step in (first.open, first.advertise, first.share, first.close):
        forge.append(step())
    result = first.result()
    forge.main = forge.session_after("main", 0)
    forge.append(forge.main.open())
    forge.append(result)
    for step in (forge.main.advertise, forge.main.share, forge.main.close, forge.main.result):
        forge.append(step())
    found = found_of(tmp_path, forge)
    assert failing(found) == ["MRG-2"]
    assert "had no result before this one was opened" in reason(found, "MRG-2")


def test_a_first_session_without_a_result_is_followed_by_none(tmp_path):
    forge = FollowingForge(two_session())
    first = forge.first
    forge.append(forge.roster_entry())
    for step in (first.open, first.advertise, first.share, first.close):
        forge.append(step())
    first.result()
    forge.append(first.abort())
    forge.main = forge.session_after("main", 0)
    forge.play(forge.main)
    first.edits = {
        "files": lambda files, _: {
            name: data
            for name, data in files.items()
            if not name.startswith(("aggregate", "openings", "pair-boxes", "integer-sum"))
        }
    }
    found = found_of(tmp_path, forge)
    assert failing(found) == ["MRG-2"]


# MRG-3


def somebody_else(plan, first, *, says_so):
    """The second session over another set, of the same size."""
    members = (*MEMBERS[:-1], 9)
    merge = plan.merge
    if says_so:
        own = [first.around.identities[member].public_bytes for member in members]
        merge = replace(merge, contributors=contributors_digest(own))
    return replace(plan, members=members, merge=merge)


@pytest.mark.parametrize(
    ("says_so", "words"),
    [
        (False, "not the contributors that the open entry names"),
        (True, "merge.contributors: not the contributors of the first session"),
    ],
)
def test_a_second_sum_over_other_people_is_found(tmp_path, says_so, words):
    pair = replaced_second(two_session(), lambda plan, first: somebody_else(plan, first, says_so=says_so))
    found = of_pair(tmp_path, pair)
    assert failing(found) == ["MRG-3"]
    assert words in reason(found, "MRG-3")


@pytest.mark.parametrize("name", ["contributions.jsonl", "dispositions.jsonl"])
def test_a_first_list_that_is_not_there_is_no_pass(tmp_path, name):
    forge = FollowingForge(two_session()).run()
    written = forge.write(tmp_path)
    (written.record / "sessions" / forge.first.session_id.hex() / name).unlink()
    found = checked(written, Level.SUM)
    assert failing(found) == []
    assert found["MRG-3"].status is Status.UNAVAILABLE


def test_a_first_list_that_was_refused_is_no_pass(tmp_path):
    forge = FollowingForge(two_session()).run()
    written = forge.write(tmp_path)
    path = written.record / "sessions" / forge.first.session_id.hex() / "contributions.jsonl"
    path.write_bytes(path.read_bytes()[:-200])
    found = checked(written, Level.SUM)
    assert "MRG-3" not in failing(found)
    assert found["MRG-3"].status is Status.UNAVAILABLE


def test_a_first_session_that_was_not_asked_for_is_no_pass(tmp_path):
    """Whether those in its list signed is checked of sessions that are asked for only."""
    forge = FollowingForge(two_session()).run()
    audit = audit_of(forge.write(tmp_path), Level.SUM)
    report = run_audit(audit, [forge.main.session_id])
    found = {one.check.identifier: one for one in report.checks}
    missing = [identifier for identifier, one in found.items() if one.status is Status.UNAVAILABLE]
    assert (failing(found), missing) == ([], ["MRG-3"])
    assert "was not asked for" in str(found["MRG-3"].missing[0])


# MRG-4


def attempts(*identifiers_and_ends, last=0):
    """A record with attempts that end so, and ``main`` as attempt ``last``."""
    forge = FollowingForge(two_session())
    forge.append(forge.roster_entry())
    forge.play(forge.first)
    for attempt, end in identifiers_and_ends:
        session = forge.session_after(f"attempt {attempt}", attempt)
        forge.attempts.append(session)
        if end == "result":
            forge.play(session)
        else:
            forge.append(session.open())
            if end == "abort":
                forge.append(session.abort())
    forge.main = forge.session_after("main", last)
    forge.play(forge.main)
    return forge


def test_an_attempt_that_is_not_in_the_log_is_found(tmp_path):
    found = found_of(tmp_path, attempts((0, "abort"), last=2))
    assert failing(found) == ["MRG-4"]
    assert "attempt 2, and attempt 1 is not in the log" in reason(found, "MRG-4")


def test_two_sums_of_two_attempts_are_found_from_either_side(tmp_path):
    forge = attempts((0, "result"), last=1)
    written = forge.write(tmp_path)
    found = checked(written, Level.SUM)
    assert failing(found) == ["MRG-4"]
    assert found["MRG-4"].failed == 2
    for session in (forge.attempts[0], forge.main):
        report = run_audit(audit_of(written, Level.SUM), [forge.first.session_id, session.session_id])
        assert [one.check.identifier for one in report.checks if one.failed] == ["MRG-4"]


def test_an_attempt_under_way_beside_another_is_found(tmp_path):
    found = found_of(tmp_path, attempts((0, "nothing"), last=1))
    assert failing(found) == ["MRG-4"]
    assert "attempt 0 was not aborted before attempt 1 was opened" in reason(found, "MRG-4")


def test_an_abort_that_came_too_late_is_found(tmp_path):
    forge = FollowingForge(two_session())
    forge.append(forge.roster_entry())
    forge.play(forge.first)
    early = forge.session_after("attempt 0", 0)
    forge.attempts.append(early)
    forge.append(early.open())
    forge.main = forge.session_after("main", 1)
    forge.append(forge.main.open())
    forge.append(early.abort())
    for step in (forge.main.advertise, forge.main.share, forge.main.close, forge.main.result):
        forge.append(step())
    found = found_of(tmp_path, forge)
    assert failing(found) == ["MRG-4"]


@pytest.mark.parametrize(("pair", "expected"), [(pilot_basis(), ["MRG-3"]), (two_session(), [])])
def test_of_pilot_basis_nobody_is_in_two_attempts_that_were_closed(tmp_path, pair, expected):
    """A sum may have been opened behind an abort; attempts of two-session are all over the same people."""
    forge = FollowingForge(pair)
    forge.append(forge.roster_entry())
    forge.play(forge.first)
    failed = forge.session_after("attempt 0", 0)
    forge.attempts.append(failed)
    for step in (failed.open, failed.advertise, failed.share, failed.close, failed.abort):
        forge.append(step())
    forge.main = forge.session_after("main", 1)
    forge.play(forge.main)
    found = found_of(tmp_path, forge)
    assert failing(found) == expected
    if expected:
        # From either side.
        assert found["MRG-3"].failed == 2 * forge.main.count
    assert found["MRG-4"].status is Status.PASS


def test_attempts_are_counted_from_the_first_session_they_name(tmp_path):
    forge = attempts((0, "abort"), (1, "abort"), last=2)
    assert forge.main.session_id == second_session(forge.first.session_id, 2)
    assert isinstance(forge.main.parameters.merge, ProjectionMerge)
    found = found_of(tmp_path, forge)
    assert unclean(found) == {}
    assert found["MRG-4"].status is Status.PASS
