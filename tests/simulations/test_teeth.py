"""The simulator's teeth: the mutants can be applied, and are found."""

from __future__ import annotations

import argparse

import pytest

from simulations.commands import teeth as cli_teeth
from simulations.exploring import teeth
from simulations.exploring.mutants import MUTANTS, Mutant
from simulations.exploring.teeth import (
    Bite,
    TeethError,
    bite,
    check_mutant,
    false_alarms,
    mutated,
    named,
    packages_directory,
)
from simulations.world.plan import Protocol


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mutant_replaces_stands_exactly_once_and_the_rest_still_parses(mutant):
    compile(check_mutant(mutant, packages_directory()), mutant.file, "exec")


def test_mutants_have_names_of_their_own_and_are_many():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15
    assert {mutant.protocol for mutant in MUTANTS} == set(Protocol)


def test_a_mutant_of_what_is_not_there_cannot_be_applied():
    gone = Mutant("gone", MUTANTS[0].file, "no such line", "", Protocol.PAIRWISE, ("sessions-end",))
    with pytest.raises(TeethError, match="stands 0 times"):
        check_mutant(gone, packages_directory())


def test_a_mutant_stands_in_a_copy_alone():
    mutant = MUTANTS[0]
    with mutated(mutant) as copy:
        assert mutant.new in (copy / mutant.file).read_text(encoding="utf-8")
        assert (copy / "simulations" / "exploring" / "teeth.py").exists()
    assert mutant.old in (packages_directory() / mutant.file).read_text(encoding="utf-8")
    assert not copy.exists()


def test_a_mutant_that_shows_in_every_session_is_found_at_once():
    (mutant,) = named("shares of contributors and of dropouts change places")
    found = bite(mutant, 8, shrink=0)
    assert found.is_expected, found


def test_an_invariant_that_does_not_see_a_mutant_is_not_taken_for_one_that_does():
    by_another = Bite(MUTANTS[0], 3, "some-other", "because", "")
    assert not by_another.is_expected
    assert not Bite(MUTANTS[0], None).is_expected
    assert Bite(MUTANTS[0], 3, MUTANTS[0].invariants[0], "", "").is_expected


class TestCommand:
    def run(self, *arguments: str) -> int:
        parser = argparse.ArgumentParser()
        cli_teeth.add_parser(parser.add_subparsers())
        parsed = parser.parse_args(["teeth", *arguments])
        return parsed.run(parsed)

    def test_says_what_was_found_and_what_was_not(self, monkeypatch, capsys):
        monkeypatch.setattr(cli_teeth, "false_alarms", lambda *_: [])
        found = {MUTANTS[0].name: Bite(MUTANTS[0], 3, MUTANTS[0].invariants[0], "gone", "plan pairwise\njoin 1\n")}
        monkeypatch.setattr(teeth, "bite", lambda mutant, _seeds: found.get(mutant.name, Bite(mutant, None)))
        assert self.run() == 1
        out = capsys.readouterr().out
        assert f"found      {MUTANTS[0].name}: seed 3" in out
        assert f"NOT FOUND  {MUTANTS[1].name}" in out
        assert out.endswith(f"1 of {len(MUTANTS)} mutants found\n")
        assert self.run("--only", MUTANTS[0].name) == 0

    def test_what_is_found_without_a_mutant_is_told_first(self, monkeypatch, capsys):
        monkeypatch.setattr(cli_teeth, "false_alarms", lambda *_: ["seed 1: one-hot-sums"])
        assert self.run("--only", MUTANTS[0].name) == 1
        assert "seed 1: one-hot-sums" in capsys.readouterr().out

    def test_a_name_that_no_mutant_has_is_unusable(self):
        assert self.run("--only", "no mutant is named like that") == 2


@pytest.mark.long
@pytest.mark.parametrize("protocol", list(Protocol))
def test_without_a_mutant_the_same_seeds_find_nothing(protocol):
    seeds = max(mutant.seeds for mutant in MUTANTS if mutant.protocol is protocol)
    assert false_alarms(protocol, seeds, 2) == []


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_is_found(mutant):
    found = bite(mutant)
    assert found.is_expected, found
