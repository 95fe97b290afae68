"""Scenarios by name and from files, the models in them, and what the command says and writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secagg.protocol.phases import Phase
from simulations.commands import cli
from simulations.scenarios.dropouts import Adversarial, ByPhase, Diurnal, FlashCrowd, Independent, Nobody, Regions
from simulations.scenarios.files import load_scenario, scenario_of
from simulations.scenarios.lines import Alike, Mixed, Stragglers
from simulations.scenarios.named import SCENARIOS, named
from simulations.scenarios.run import play
from simulations.scenarios.scenario import Crash, Scenario
from simulations.world.people import Moment, Person
from simulations.world.plan import CommitteePlan, Plan, PlanError, Protocol
from simulations.world.randomness import generator

PAIRWISE = Plan(Protocol.PAIRWISE, 1000)
CROWD = [Person()] * 1000


def _applied(model, plan=PAIRWISE):
    return model.applied(CROWD, plan, generator(1))


def test_independent_dropouts_come_at_their_rate_in_all_phases_and_moments():
    drops = [person.drop for person in _applied(Independent(0.3)) if person.drop]
    assert len(drops) == pytest.approx(300, abs=60)
    assert {(drop.phase, drop.moment) for drop in drops} == {
        (phase, moment)
        for phase in (
            Phase.ADVERTISE_KEYS,
            Phase.SHARE_KEYS,
            Phase.MASKED_INPUT,
            Phase.CONSISTENCY_CHECK,
            Phase.UNMASK,
        )
        for moment in Moment
    }


def test_dropouts_by_phase_are_among_those_who_reach_it():
    model = ByPhase({Phase.SHARE_KEYS: 0.5, Phase.UNMASK: 1.0})
    drops = [person.drop.phase for person in _applied(model) if person.drop]
    assert len(drops) == 1000
    assert drops.count(Phase.SHARE_KEYS) == pytest.approx(500, abs=70)
    with pytest.raises(PlanError, match="share-keys"):
        _applied(model, Plan(Protocol.ONE_SHOT, 1000))


def test_a_region_goes_dark_as_a_whole():
    people = _applied(Regions(count=10, rate=0.5))
    windows: dict[str, set] = {}
    for person in people:
        windows.setdefault(person.region, set()).add(person.offline)
    assert len(windows) == 10
    assert all(len(each) == 1 for each in windows.values())
    assert 0 < sum(each != {()} for each in windows.values()) < 10


def test_people_of_a_day_are_awake_for_their_part_of_it_at_any_hour():
    people = _applied(Diurnal(online=0.25))
    for hour in range(24):
        at_s = 86_400 + hour * 3600
        awake = sum(not any(w.start_s <= at_s < w.end_s for w in person.offline) for person in people)
        assert awake == pytest.approx(250, abs=60)


def test_a_flash_crowd_comes_at_once_and_stragglers_are_slow():
    times = [person.arrives_s for person in _applied(FlashCrowd(60, 2))]
    assert np.std(times) < 3
    people = Stragglers(0.2, 100.0).applied(CROWD, generator(1))
    rates = [person.line.bytes_per_s for person in people]
    assert len(set(rates)) == 2
    assert rates.count(min(rates)) == pytest.approx(200, abs=50)
    assert len({person.line for person in Mixed().applied(CROWD, generator(1))}) == 1000
    assert len({person.line for person in Alike().applied(CROWD, generator(1))}) == 1


def test_an_adversary_silences_exactly_its_share_where_it_costs_most():
    drops = [person.drop for person in _applied(Adversarial(0.25)) if person.drop]
    assert len(drops) == 250
    assert {drop.phase for drop in drops} == {Phase.SHARE_KEYS}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"clients": 2}, "clients"),
        ({"dimension": 1}, "dimension"),
        ({"phase_s": 0}, "phase_s"),
        ({"witnesses": -1}, "witnesses"),
        ({"max_corrupt": -1}, "max_corrupt"),
        ({"min_contributors": 9}, "min_contributors"),
        ({"min_contributors": 3, "max_corrupt": 2}, "min_contributors"),
        ({"expected_dropout": 1}, "expected_dropout"),
    ],
)
def test_a_plan_that_makes_no_session_says_which_number_is_wrong(values, field):
    with pytest.raises(PlanError) as caught:
        Plan(**{"protocol": Protocol.PAIRWISE, "clients": 8} | values)
    assert caught.value.field == field


def test_a_committee_of_which_two_sets_could_open_is_none():
    with pytest.raises(PlanError, match="more than half"):
        CommitteePlan(7, 4, 1)


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("name", sorted(set(SCENARIOS) - {"diurnal", "malicious-coordinator", "poisoning"}))
def test_every_scenario_ends_and_publishes_nothing_wrong(protocol, name):
    outcome = play(named(name, Plan(protocol, 10, seed=4, witnesses=3), 0.1))
    assert outcome.ended in {"finished", "aborted"}
    assert (outcome.sum_is_right is True) == (outcome.ended == "finished")
    assert outcome.is_good
    assert len(outcome.clients) == 10
    assert sum(client.fate == "counted" for client in outcome.clients) == outcome.counted


def test_an_unknown_scenario_is_refused_with_the_nearest_name():
    with pytest.raises(PlanError, match="did you mean dropouts"):
        named("dropout", PAIRWISE, 0.1)


OWN = """
about = "Two regions, a coordinator that dies at its ninth write"
spread_s = 5
capacity = 1e6

[session]
protocol = "pairwise"
clients = 8
dimension = 20
seed = 3
expected_dropout = "1/5"
witnesses = 3

[[dropouts]]
model = "regions"
count = 2
rate = 0.0

[[dropouts]]
model = "by-phase"
rates = { share-keys = 0.1 }

[lines]
model = "mixed"
spread = 0.2

[[faults]]
kind = "crash"
node = "coordinator"
write = 9
when = "after"
down_s = 5
"""


def test_a_scenario_from_a_file_is_what_it_says(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(OWN)
    scenario = load_scenario(file)
    assert scenario.name == "mine"
    assert scenario.plan.clients == 8
    assert scenario.dropouts == (Regions(2, 0.0), ByPhase({Phase.SHARE_KEYS: 0.1}))
    assert scenario.lines == Mixed(spread=0.2)
    (fault,) = scenario.faults
    assert isinstance(fault, Crash)
    assert fault.write == 9
    outcome = play(scenario)
    assert outcome.is_good
    assert any(note.what == "dies" for note in outcome.notes)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"sesion": {}}, "scenario"),
        ({"session": {"protocol": "pairwise"}}, "session"),
        ({"session": {"protocol": "pair", "clients": 8}}, "session.protocol"),
        ({"session": {"protocol": "pairwise", "clients": "8"}}, "session.clients"),
        ({"session": {"protocol": "pairwise", "clients": True}}, "session.clients"),
        ({"session": {"protocol": "pairwise", "clients": 8, "epsilon": "much"}}, "session.epsilon"),
        ({"session": {"protocol": "one-shot", "clients": 8, "committee": {"seats": 3}}}, "session.committee"),
        ({"dropouts": [{"model": "chance"}]}, "dropouts.model"),
        ({"dropouts": [{"model": "independent"}]}, "dropouts (independent)"),
        ({"dropouts": [{"model": "independent", "rate": "x"}]}, "dropouts.rate"),
        ({"dropouts": [{"model": "by-phase", "rates": {"lunch": 0.1}}]}, "dropouts.rates"),
        ({"lines": {"model": "mixed", "speed": 1}}, "lines (mixed)"),
        ({"faults": [{"kind": "fire"}]}, "faults.kind"),
        ({"faults": [{"kind": "crash"}]}, "faults"),
        ({"faults": [{"kind": "crash", "node": "coordinator", "when": "never"}]}, "faults.when"),
        ({"spread_s": -1}, "spread_s"),
        ({"capacity": 0}, "capacity"),
    ],
)
def test_what_makes_no_scenario_is_refused_by_its_field(document, field):
    session = {"session": {"protocol": "pairwise", "clients": 8}}
    with pytest.raises(PlanError) as caught:
        scenario_of("mine", session | document)
    assert caught.value.field == field


def test_a_file_that_is_not_there_or_no_toml_is_refused_by_its_name(tmp_path):
    with pytest.raises(PlanError, match=r"missing\.toml"):
        load_scenario(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("about =")
    with pytest.raises(PlanError, match="not TOML"):
        load_scenario(tmp_path / "bad.toml")


def _command(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "simulations", *arguments]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root)


def test_the_same_seed_gives_the_same_bytes_in_another_process_and_another_seed_others():
    arguments = ["run", "crashes", "--clients", "8", "--witnesses", "3", "--json", "-"]
    first = _command(*arguments, "--seed", "5")
    again = _command(*arguments, "--seed", "5", hash_seed="77")
    assert first.returncode == again.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    assert first.stdout != play(named("crashes", Plan(Protocol.PAIRWISE, 8, 1000, 6, witnesses=3), 0.1)).to_json()
    assert json.loads(first.stdout)["format"] == "secagg-simulation/1"


@pytest.mark.parametrize(
    ("arguments", "named_field"),
    [
        (["run", "dropuots"], "did you mean dropouts"),
        (["run", "steady", "--clients", "1"], "clients"),
        (["run", "steady", "--committee", "7-5"], "--committee"),
        (["run", "steady", "--clients", "4", "--json", "/nowhere/x.json"], "--json"),
        (["run", "steady", "--protocol", "both"], "--protocol"),
        (["run", "dropouts", "--dropout", "1.5"], "dropouts"),
        (["run"], "SCENARIO"),
        ([], "COMMAND"),
    ],
)
def test_unusable_arguments_end_with_2_and_one_line_that_names_them(arguments, named_field, capsys):
    try:
        code = cli.run(arguments)
    except SystemExit as ended:
        code = ended.code
    told = capsys.readouterr()
    assert code == 2
    assert named_field in told.err
    assert len(told.err.splitlines()) == 1
    assert not told.out


def test_scenario_models_have_defaults_that_do_nothing():
    scenario = Scenario("mine", "", Plan(Protocol.PAIRWISE, 4))
    assert scenario.dropouts == (Nobody(),)
    assert all(person.drop is None and not person.offline for person in scenario.people())


def test_a_page_without_matplotlib_is_refused_before_anything_is_simulated(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.run(["run", "steady", "--html", str(tmp_path / "page.html")]) == 2
    told = capsys.readouterr()
    assert "secagg-lora[plots]" in told.err
    assert not told.out
