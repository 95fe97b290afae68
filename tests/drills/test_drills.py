"""Two drills in short; with ``-m long`` all of them, and in full, as ``python -m tests.drills`` runs them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drills import kill_client, kill_coordinator, kill_member, kill_witness, uploaders, watchers
from tests.drills.__main__ import DRILLS
from tests.drills.killing import Rounds
from tests.drills.party import ROOT
from tests.drills.report import DrillReport

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PAIRWISE = Rounds(sessions=1, kills=1, seed=3, protocols=("pairwise",))
ONE_SHOT = Rounds(sessions=1, kills=1, seed=3, protocols=("one-shot",))


def check(report: DrillReport, ending: str) -> None:
    """Every promise held, and the one session has a sum: whoever was killed came back in time."""
    assert report.holds, report.text()
    assert dict(report.endings) == {ending: 1}, report.text()


def test_a_coordinator_that_is_killed_loses_nothing_that_it_acknowledged() -> None:
    report = asyncio.run(kill_coordinator.run(PAIRWISE))
    check(report, "pairwise with a sum")
    assert dict(report.kills) == {"receipt for the upload": 1, "the end of the session": 1}


@pytest.mark.long
def test_members_that_are_killed_answer_once_and_remember_it() -> None:
    report = asyncio.run(kill_member.run(ONE_SHOT))
    check(report, "one-shot with a sum")
    assert report.kills["the end of the session"] == 2


@pytest.mark.long
def test_witnesses_that_are_killed_remember_what_they_cosigned() -> None:
    report = asyncio.run(kill_witness.run(dataclasses.replace(PAIRWISE, kills=3)))
    check(report, "pairwise with a sum")
    assert report.kills["the end of the session"] == 2


@pytest.mark.long
def test_contributors_that_are_killed_go_on_and_say_nothing_twice() -> None:
    report = asyncio.run(kill_client.run(PAIRWISE))
    check(report, "pairwise with a sum")
    assert report.kills.total() >= 1


def test_honest_uploaders_are_served_beside_slow_stalled_and_broken_ones() -> None:
    report = asyncio.run(uploaders.run(uploaders.Crowd(people=20, dimension=20_000)))
    check(report, "one-shot with a sum")


@pytest.mark.long
def test_watchers_hear_the_end_and_leave_their_places_to_others() -> None:
    report = asyncio.run(watchers.run(40))
    check(report, "pairwise with a sum")


def test_a_promise_that_is_broken_shows_in_the_report_and_its_data() -> None:
    report = DrillReport("drill", "It was tried.")
    assert not report.holds, "a drill that checked nothing"
    report.promise("nothing is lost")
    assert report.holds
    report.promise("nothing is lost", "a receipt")
    report.promise("nobody waits")
    assert not report.holds
    assert "BROKEN: nothing is lost: a receipt" in report.text()
    assert "held: nothing is lost" not in report.text()
    assert "held: nobody waits" in report.text()
    assert (report.value()["holds"], report.value()["broken"]) == (False, ["nothing is lost: a receipt"])


def test_the_command_names_its_drills_and_refuses_others() -> None:
    command = [sys.executable, "-m", "tests.drills", "kill-everybody"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert all(name in refused.stderr for name in DRILLS)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", DRILLS)
def test_the_whole_drill(name: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.drills", name, "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    [report] = json.loads(out.read_text())["drills"]
    assert (report["name"], report["holds"]) == (name, True)
    assert not [ending for ending in report["endings"] if "aborted" in ending]
