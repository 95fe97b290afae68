"""The command ``attack``: what it tells, what it refuses, how it ends."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path

import pytest

from simulations.attacks import catalogue
from simulations.attacks.attack import Attack, AttackResult
from simulations.commands import attack as cli_attack
from simulations.naive.attacks import ATTACKS as NAIVE_ATTACKS
from simulations.world.plan import Protocol

WON = AttackResult(("It asks.",), (), "finished", ("the input of client 1, every coordinate",), succeeded=True)
LOST = AttackResult(("It asks.",), ("client-1 refused the list: BAD_KEY",), "open", (), succeeded=False)


def attack(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    cli_attack.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["attack", *argv])
    code: int = arguments.run(arguments)
    return code


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, AttackResult]:
    """Two attacks that end as the test says."""
    ends = {"wanted": LOST, "log-split-view-unwitnessed": WON}
    made = tuple(
        Attack(name, Protocol.PAIRWISE, "Learn it.", "the coordinator", "A rule.", lambda _, name=name: ends[name])
        for name in ends
    )
    monkeypatch.setattr(cli_attack, "ATTACKS", made)
    return ends


def test_names_are_unlike_and_every_attack_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    names = [each.name for each in catalogue.ATTACKS]
    assert len(set(names)) == len(names)
    assert attack("--list") == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^[ *] {name} ", shown, re.MULTILINE) for name in names)
    assert all(len(line) <= 112 for line in shown.splitlines())
    assert catalogue.attack_named("two-closes").name == "two-closes"
    assert set(names) >= catalogue.BEYOND_THEIR_ASSUMPTION


def test_every_attack_on_the_naive_model_has_one_here() -> None:
    assert sorted(each.naive for each in catalogue.ATTACKS if each.naive is not None) == sorted(NAIVE_ATTACKS)
    assert set(cli_attack._NAIVE_WEAKNESS) == set(NAIVE_ATTACKS)


def test_a_story_tells_goal_steps_refusals_and_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert attack("below-minimum", "--seed", "2") == 0
    shown = capsys.readouterr().out
    told = " ".join(shown.split())
    named = catalogue.attack_named("below-minimum")
    for text in (named.goal, named.adversary, named.why):
        assert " ".join(text.split()) in told
    assert re.search(r"refused a close over 6 contributions: BELOW_MINIMUM", told)
    assert "BELOW_MINIMUM: fewer clients than min_contributors" in told
    assert "Outcome failed" in told
    assert "Learned nothing beyond" in told
    assert "--against flower-style shows the same attack" in told
    assert all(len(line) <= 112 for line in shown.splitlines())


def test_the_same_seed_tells_the_same_story(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for _ in range(2):
        assert attack("key-substitution") == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["two-closes", "two-sets"])
def test_the_naive_model_loses_to_the_same_attack(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack(name, "--against", "flower-style") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("two-sets: the attack two-closes on the naive model, seed 1")
    assert "Weakness clients do not compare the lists they are told" in told
    assert "Outcome succeeded, on the naive model" in told
    found = re.search(r"Recovered (.*) Truth (.*) Outcome", told)
    assert found is not None
    assert found.group(1) == found.group(2)
    assert "It is no copy of any framework." in told
    assert "Without --against: it fails." in told


def test_the_record_says_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "attack.json"
    assert attack("forged-pair-seeds", "--json", str(out)) == 0
    assert "What was tried" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["name"] == "forged-pair-seeds"
    assert (record["succeeded"], record["as_it_should"], record["seed"]) == (False, True, 1)
    assert any(each.endswith("WITHHELD_BOXES") for each in record["refusals"])
    assert attack("forged-pair-seeds", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == record


def test_the_record_of_the_naive_model_has_both_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    assert attack("key-substitution", "--against", "flower-style", "--json", "-") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["recovered"] == record["truth"] != []
    assert record["against"] == "flower-style"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("two-close", "did you mean two-closes"),
        ("minimum", "below-minimum"),
        ("xyzzy", "--list names all"),
    ],
)
def test_a_name_that_is_none_is_answered_with_near_ones(
    name: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack(name) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert f"no attack is named {name}; " in streams.err
    assert hint in streams.err


def test_an_attack_without_a_naive_counterpart_says_which_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert attack("drops", "--against", "flower-style") == 2
    shown = capsys.readouterr().err
    assert "drops has no counterpart on the naive model" in shown
    assert "alive-and-dropped, below-minimum, key-substitution, seed-search, two-closes" in shown


def test_no_name_at_all_is_unusable(capsys: pytest.CaptureFixture[str]) -> None:
    assert attack() == 2
    assert "--list" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(
    scripted: dict[str, AttackResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("wanted", "--json", str(tmp_path / "none" / "out.json")) == 2
    assert "out.json: No such file or directory" in capsys.readouterr().err


def test_an_attack_that_succeeds_ends_with_1(
    scripted: dict[str, AttackResult], capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("wanted") == 0
    scripted["wanted"] = WON
    assert attack("wanted") == 1
    shown = capsys.readouterr().out
    assert "SUCCEEDED, which it must not" in shown
    assert "the input of client 1, every coordinate" in shown


def test_an_attack_beyond_its_assumption_has_to_succeed(
    scripted: dict[str, AttackResult], capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("log-split-view-unwitnessed") == 0
    assert "succeeded, as it must: it goes beyond the assumption" in capsys.readouterr().out
    scripted["log-split-view-unwitnessed"] = LOST
    assert attack("log-split-view-unwitnessed") == 1


def test_a_naive_model_that_resists_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    won = NAIVE_ATTACKS["two-sets"](1)
    lost = dataclasses.replace(won, recovered=None, succeeded=False)
    monkeypatch.setattr(cli_attack.naive, "ATTACKS", {"two-sets": lambda _: lost})
    assert attack("two-closes", "--against", "flower-style") == 1
    assert "FAILED, though the model has the weakness" in capsys.readouterr().out
