"""What README.md and docs/simulations.md say of simulations is what there is."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from simulations.attacks.catalogue import ATTACKS
from simulations.commands import cli
from simulations.judging.invariants import END_INVARIANTS, INVARIANTS
from simulations.scenarios.files import scenario_of
from simulations.scenarios.named import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "simulations.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^ *(python -m simulations [a-z].*)$", PAGE + README, re.MULTILINE)))


def _rows(heading: str) -> list[str]:
    """First cells of the table under a heading of the page, in order."""
    section = PAGE.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_that_is_shown_is_one(line):
    arguments = cli._parser().parse_args(shlex.split(line)[3:])
    assert callable(arguments.run)
    if getattr(arguments, "name", None):
        assert arguments.name in {attack.name for attack in ATTACKS}


def test_every_scenario_and_every_invariant_is_named():
    assert _rows("One session: `run`") == list(SCENARIOS)
    assert _rows("Drawing sessions: `explore`") == [each.name for each in (*INVARIANTS, *END_INVARIANTS)]


def test_the_scenario_file_that_is_shown_is_one():
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    scenario = scenario_of("mine", tomllib.loads(text))
    assert scenario.plan.clients == 50
    assert len(scenario.dropouts) == 2
    assert len(scenario.faults) == 1
