"""Exploring: findings are found, shrunk and told; the same seeds give the same."""

from __future__ import annotations

import argparse
import json

import pytest

from simulations.commands import explore as cli_explore
from simulations.exploring.expectations import Finding
from simulations.exploring.generators import draw_script
from simulations.exploring.operations import Advance, Crash, Drop, DropPhase, Join, Kill, Partition, Side
from simulations.exploring.playing import Fine
from simulations.exploring.scripts import Script
from simulations.exploring.search import Explored, Found, Search, explore, play_seed
from simulations.exploring.shrinking import shrink
from simulations.world.plan import Plan, Protocol
from simulations.world.stores import CrashTime

LONG = Script(
    Plan(Protocol.PAIRWISE, 7, dimension=8, seed=9, max_corrupt=1, witnesses=3, phase_s=120),
    (
        *map(Join, range(7)),
        Advance(3),
        Kill("client-4"),
        Partition(40, ("client-1", "client-2", "coordinator")),
        Crash("coordinator", 37, CrashTime.AFTER, 120),
        Advance(120),
        Drop(2, DropPhase.UNMASK, Side.AFTER),
    ),
)


class Fails:
    """Fails where a rule says so, and counts."""

    def __init__(self, rule) -> None:
        self.rule = rule
        self.played = 0

    def __call__(self, script: Script) -> bool:
        self.played += 1
        return self.rule(script.operations)


def has(operations, kind) -> bool:
    return any(isinstance(each, kind) for each in operations)


class TestShrinking:
    def test_what_does_not_matter_goes(self):
        shrunk = shrink(LONG, Fails(lambda operations: has(operations, Kill)))
        assert shrunk.operations == (Kill("client-4"),)
        assert (shrunk.plan.clients, shrunk.plan.minimum, shrunk.plan.witnesses, shrunk.plan.seed) == (5, 3, 0, 0)

    def test_of_two_that_matter_together_both_stay_in_their_order(self):
        rule = Fails(lambda operations: has(operations, Drop) and has(operations, Crash))
        assert [type(each) for each in shrink(LONG, rule).operations] == [Crash, Drop]

    def test_no_single_operation_can_go(self):
        rule = Fails(lambda operations: sum(isinstance(each, Join) for each in operations) >= 3)
        shrunk = shrink(LONG, rule)
        assert len(shrunk.operations) == 3
        assert not any(rule.rule(shrunk.operations[:at] + shrunk.operations[at + 1 :]) for at in range(3))

    def test_numbers_become_small(self):
        rule = Fails(lambda operations: any(isinstance(each, Crash) and each.write > 4 for each in operations))
        (crash,) = shrink(LONG, rule).operations
        assert crash == Crash("coordinator", 5, CrashTime.AFTER, 0)

    def test_nodes_that_do_not_matter_leave_a_partition(self):
        rule = Fails(lambda operations: any(isinstance(e, Partition) and "client-2" in e.nodes for e in operations))
        assert shrink(LONG, rule).operations == (Partition(0, ("client-2",)),)

    def test_it_ends_when_the_budget_does(self):
        rule = Fails(lambda operations: has(operations, Kill))
        shrunk = shrink(LONG, rule, budget=3)
        assert rule.played == 3
        assert rule.rule(shrunk.operations)

    def test_it_is_deterministic(self):
        rule = Fails(lambda operations: has(operations, Drop) and len(operations) > 4)
        assert shrink(LONG, rule).to_text() == shrink(LONG, rule).to_text()


class TestExploring:
    @pytest.mark.long
    def test_the_results_follow_from_the_seeds_and_not_from_the_workers(self):
        seeds = range(40, 46)
        told: list[int] = []
        explored = explore(Search(seeds, Protocol.PAIRWISE, workers=2), told.append)
        alone = [play_seed(seed, Protocol.PAIRWISE) for seed in seeds]
        assert explored.runs == 6
        assert told == [4, 6]
        assert explored.found == ()
        assert sum(explored.endings.values()) == 6
        assert sorted({each.ended for each in alone if isinstance(each, Fine)}) == list(explored.endings)


class TestTelling:
    FOUND = Explored(3, {"finished": 2}, (Found(7, Finding("one-set-opened", "client 3 answered 2"), LONG, LONG),))

    def test_a_finding_is_told_as_a_test_that_can_be_pasted(self):
        words = cli_explore.to_words(self.FOUND)
        assert "seed 7 violates one-set-opened: client 3 answered 2" in words
        test = words[words.index("def test_") :]
        namespace: dict[str, object] = {"Script": Script, "Fine": Fine, "run_script": lambda script: script}
        exec(test, namespace)  # noqa: S102
        assert LONG.to_text() in words
        with pytest.raises(AssertionError):
            namespace["test_one_set_opened_in_the_session_of_seed_7"]()

    def test_json_holds_the_scripts(self):
        found = json.loads(cli_explore.to_json(self.FOUND))["found"]
        assert Script.parse(found[0]["shrunk"]).operations == LONG.operations
        assert found[0]["seed"] == 7

    def test_the_command_says_what_came_of_how_many(self, capsys, tmp_path):
        parser = argparse.ArgumentParser()
        cli_explore.add_parser(parser.add_subparsers())
        out = tmp_path / "out.json"
        arguments = parser.parse_args(["explore", "--runs", "2", "--seed", "3", "--workers", "1", "--json", str(out)])
        assert arguments.run(arguments) == 0
        assert capsys.readouterr().out.startswith("2 sessions, 0 findings")
        assert json.loads(out.read_text())["runs"] == 2

    def test_a_file_that_cannot_be_written_is_an_unusable_argument(self, tmp_path):
        assert cli_explore.main(["--runs", "0", "--json", str(tmp_path / "no" / "out.json")]) == 2


@pytest.mark.long
def test_no_invariant_is_violated_in_some_hundred_sessions():
    assert explore(Search(range(5000, 5400))).found == ()


def test_a_seed_is_a_session():
    assert draw_script(11, Protocol.ONE_SHOT).plan.protocol is Protocol.ONE_SHOT
