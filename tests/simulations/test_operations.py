"""Operations and scripts: their text, what is refused, and what playing them does."""

from __future__ import annotations

import pytest

from simulations.exploring.expectations import due_in_the_sum
from simulations.exploring.generators import draw_script, profile_of
from simulations.exploring.operations import KINDS
from simulations.exploring.playing import Fine, run_script
from simulations.exploring.scripts import Script, ScriptError, liars_of, parse_line, to_line, traitors_of
from simulations.world.plan import Protocol

LINES = (
    "join 3",
    "advance 60",
    "drop 2 masked-input after",
    "duplicate client-2 deliver 5",
    "reorder 30",
    "delay client-1 announce 40",
    "lose client-1 receipt reply 2",
    "crash coordinator 5 before 20",
    "kill member-2",
    "restart witness-1",
    "partition 30 client-1 member-0",
    "equivocate 3 unmask",
    "forge fork 2",
    "replay client-2 announce 30",
    "lie 2 wrong-linear-hash",
    "betray 1 wrong-sum",
)
PLAN = (
    "plan one-shot clients=5 dimension=8 seed=7 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=3 committee=4/3/1"
)
JOINS = "\n".join(f"join {number}" for number in range(5))


def played(*lines: str, plan: str = "plan pairwise clients=5 dimension=8 seed=1 phase=120") -> object:
    return run_script(Script.parse("\n".join([plan, *lines])))


class TestText:
    def test_there_is_a_line_for_every_kind_of_operation(self):
        assert {line.split()[0] for line in LINES} == set(KINDS)

    @pytest.mark.parametrize("line", LINES)
    def test_a_line_is_parsed_to_what_gives_the_line_again(self, line):
        assert to_line(parse_line(line)) == line

    def test_a_script_is_its_text(self):
        text = "\n".join([PLAN, *LINES]) + "\n"
        assert Script.parse(text).to_text() == text
        assert Script.parse(text) == Script.parse(Script.parse(text).to_text())

    def test_comments_and_empty_lines_do_not_count(self):
        assert Script.parse(f"\n{PLAN}  # why\n\n# nothing\njoin 1\n") == Script.parse(f"{PLAN}\njoin 1")

    @pytest.mark.long
    def test_scripts_that_are_drawn_survive_their_text(self):
        for seed in range(30):
            script = draw_script(seed)
            parsed = Script.parse(script.to_text())
            assert parsed.operations == script.operations
            assert parsed.to_text() == script.to_text()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "join 1",
            "plan threeway clients=5",
            "plan pairwise clients=two",
            "plan pairwise clients=5 colour=3",
            "plan pairwise clients=2",
            f"{PLAN}\nfly 1",
            f"{PLAN}\njoin",
            f"{PLAN}\njoin 1 2",
            f"{PLAN}\njoin 5",
            f"{PLAN}\njoin -1",
            f"{PLAN}\nadvance x",
            f"{PLAN}\nkill client-5",
            f"{PLAN}\nkill member-4",
            f"{PLAN}\npartition 3 nobody",
            f"{PLAN}\ncrash witness-1 3 before 2",
            f"{PLAN}\ncrash coordinator 0 before 2",
            f"{PLAN}\ndelay client-1 sing 3",
            f"{PLAN}\nbetray 4 silent",
            f"{PLAN}\ndrop 1 masked-input during",
        ],
    )
    def test_what_says_nothing_that_could_be_done_is_refused(self, text):
        with pytest.raises(ScriptError):
            Script.parse(text)


class TestDrawing:
    def test_the_same_seed_gives_the_same_script_and_another_seed_another(self):
        assert draw_script(5).to_text() == draw_script(5).to_text()
        assert len({draw_script(seed).to_text() for seed in range(20)}) == 20

    def test_liars_stay_within_what_the_plan_tolerates(self):
        for seed in range(200):
            script = draw_script(seed)
            assert len(liars_of(script.operations)) <= script.plan.corrupt
            assert len(traitors_of(script.operations)) <= script.plan.committee.max_corrupt

    def test_most_draws_are_plausible_and_of_all_kinds(self):
        scripts = [draw_script(seed) for seed in range(200)]
        many = [sum(to_line(each).startswith("join") for each in script.operations) for script in scripts]
        enough = sum(count >= script.plan.clients - 1 for count, script in zip(many, scripts, strict=True))
        assert enough > 150
        assert {type(each) for script in scripts for each in script.operations} == set(KINDS.values())
        assert {script.plan.protocol for script in scripts} == set(Protocol)
        assert {script.plan.clients for script in scripts} == {4, 5, 6, 7, 8}

    def test_crashes_fall_on_writes_that_a_session_makes(self):
        profile = profile_of(Protocol.PAIRWISE, 4)
        assert profile.writes["coordinator"] > 30
        assert profile.writes["client-0"] > 5
        assert ("client-0", "UnmaskAnswer") in profile.calls

    def test_a_sum_is_owed_where_enough_are_left_and_only_there(self):
        plan = "plan pairwise clients=6 dimension=8 seed=1 minimum=4 phase=120\n"
        everybody = plan + "\n".join(f"join {number}" for number in range(6))
        assert due_in_the_sum(Script.parse(everybody)) == frozenset(range(6))
        assert due_in_the_sum(Script.parse(f"{everybody}\ndrop 2 unmask after")) == frozenset({0, 1, 3, 4, 5})
        two = f"{everybody}\ndrop 2 unmask after\ndrop 3 unmask after"
        assert due_in_the_sum(Script.parse(two)) is None
        for line in ("kill coordinator", "forge fork 2", "partition 100 coordinator", "lie 1 false-missing"):
            assert due_in_the_sum(Script.parse(f"{everybody}\n{line}")) is None


class TestPlaying:
    @pytest.mark.parametrize("protocol", list(Protocol))
    def test_a_session_in_which_nothing_goes_wrong_finishes(self, protocol):
        committee = "" if protocol is Protocol.PAIRWISE else " committee=4/3/1"
        plan = f"plan {protocol} clients=5 dimension=8 seed=1 phase=120{committee}"
        assert played(JOINS, plan=plan) == Fine("finished")

    def test_the_same_script_gives_the_same_verdict(self):
        lines = [JOINS, "reorder 20", "crash coordinator 9 before 5", "drop 1 masked-input before", "advance 30"]
        assert played(*lines) == played(*lines) == Fine("finished")

    def test_too_few_that_join_abort_the_session(self):
        assert played("join 1", "join 2") == Fine("aborted: fewer than min_contributors advertised keys")

    @pytest.mark.parametrize("side", ["before", "after"])
    def test_who_drops_out_stays_away(self, side):
        lines = [f"drop {number} masked-input {side}" for number in range(3)]
        ended = {"before": "aborted: fewer than min_contributors contributed", "after": "aborted: "}[side]
        verdict = played(*lines, JOINS)
        assert isinstance(verdict, Fine)
        assert verdict.ended.startswith(ended)

    def test_who_crashes_comes_back(self):
        lines = [f"crash client-{number} 4 after 10" for number in range(5)]
        assert played(*lines, JOINS) == Fine("finished")

    @pytest.mark.parametrize("forgery", ["fork", "mix", "change", "tiny", "second"])
    def test_no_forged_close_opens_anything(self, forgery):
        assert isinstance(played(f"forge {forgery} 1", JOINS, "advance 5"), Fine)
