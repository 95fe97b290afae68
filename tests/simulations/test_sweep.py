"""Sweeps: seeds, theory, files, plots, the command, and the example that draws a figure."""

import argparse
import csv
import dataclasses
import io
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from examples.simulated_dropouts import reproduce
from secagg.derive.graph import masking_graph
from secagg.protocol.phases import Phase
from simulations.commands import sweep as cli_sweep
from simulations.estimates.theory import PairwiseTerms, pairwise_opens
from simulations.estimates.theory_privacy import corrupt_excess
from simulations.scenarios.dropouts import ByPhase
from simulations.sweeping import runs as sweep_run
from simulations.sweeping.expected import epsilon_over, expected
from simulations.sweeping.files import COLUMNS, to_csv, to_json, to_text
from simulations.sweeping.grid import Cell, Sweep, SweepError, noise_of, rates_of, trial_seed
from simulations.sweeping.plot import check_panels, draw_sweep
from simulations.sweeping.runs import DefectError, Ended, run_sweep, wilson
from simulations.world.people import PHASES
from simulations.world.plan import CommitteePlan, Plan, Protocol
from simulations.world.world import World

_REFUSING = sweep_run._Refusing
ZERO, ONE, HALF = Fraction(0), Fraction(1), Fraction(1, 2)
SMALL = Plan(Protocol.PAIRWISE, clients=4, dimension=2, committee=CommitteePlan(4, 3, 1))


def command(*words):
    parser = argparse.ArgumentParser()
    cli_sweep.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["sweep", *words])
    return arguments.run(arguments)


SMALL_WORDS = ("--clients", "4", "--dimension", "2", "--members", "4", "--needed", "3", "--jobs", "1")


def agrees(successes, runs, bounds):
    """Whether so few or so many successes are as likely as 1e-4 for some probability within the bounds."""
    few = stats.binom.cdf(successes, runs, bounds.lower)
    many = stats.binom.sf(successes - 1, runs, bounds.upper)
    return min(few, many) > 1e-4


# Rates and seeds.


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0:0.5:0.25", (0, Fraction(1, 4), HALF)),
        ("0:0.3:0.1", (0, Fraction(1, 10), Fraction(1, 5), Fraction(3, 10))),
        ("0:0.35:0.1", (0, Fraction(1, 10), Fraction(1, 5), Fraction(3, 10))),
        ("0.2:0.2:1", (Fraction(1, 5),)),
        ("1/3, 0,1", (Fraction(1, 3), 0, 1)),
    ],
)
def test_rates_are_exact_and_reach_the_stop_where_a_step_meets_it(text, values):
    assert rates_of(text) == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0:0.5:0", "STEP must be above 0"),
        ("0.5:0.1:0.1", "below START"),
        ("0:2:0.5", "0 to 1, got 2"),
        ("-0.1", "0 to 1, got -0.1"),
        ("0:0.5", "START:STOP:STEP"),
        ("a", "expected a number"),
        ("1/0", "expected a number"),
        ("nan", "expected a number"),
        ("", "expected a number"),
        ("0.1,0.10", "twice"),
        ("0:1:0.0001", "at most"),
        ("1e99999999", "0 to 1|expected a number"),
    ],
)
def test_rates_that_are_none_are_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        rates_of(text)


def test_the_seed_of_a_session_depends_on_all_that_tells_it_from_others_and_on_nothing_else():
    cell = Cell(Protocol.PAIRWISE, HALF, ZERO)
    cells = [cell, *(dataclasses.replace(cell, **{name: ONE}) for name in ("dropout", "corruption"))]
    cells.append(dataclasses.replace(cell, protocol=Protocol.ONE_SHOT))
    seeds = [trial_seed(seed, each, repetition) for seed in (0, 1) for each in cells for repetition in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    alone = Sweep(SMALL, (Protocol.ONE_SHOT,), (HALF,), repeat=2)
    among = Sweep(SMALL, tuple(Protocol), (ZERO, HALF, ONE), (ZERO, HALF), repeat=3)
    assert {trial.plan.seed for trial in alone.trials()} < {trial.plan.seed for trial in among.trials()}


def test_trials_come_cell_after_cell():
    sweep = Sweep(SMALL, tuple(Protocol), (ZERO, HALF), (ZERO, ONE), repeat=2)
    assert [trial.cell for trial in sweep.trials()] == [cell for cell in sweep.cells() for _ in range(2)]
    assert len(set(sweep.cells())) == 8


# Sessions.


@pytest.mark.long
def test_the_same_sweep_gives_the_same_bytes_with_any_number_of_processes():
    sweep = Sweep(SMALL, tuple(Protocol), (ZERO, HALF), repeat=1, seed=3)
    told = []
    first = run_sweep(sweep, 1, lambda done, total: told.append((done, total)))
    second = run_sweep(sweep, 2)
    assert told == [(done, 4) for done in range(1, 5)]
    for write in (to_csv, to_json, to_text):
        assert write(first) == write(second)
    assert [run.seed for run in first.runs] == [trial.plan.seed for trial in sweep.trials()]
    assert all(run.cpu_s > 0 for run in first.runs)


def test_nobody_drops_and_all_succeed_everybody_drops_and_none_does():
    result = run_sweep(Sweep(SMALL, tuple(Protocol), (ZERO, ONE), repeat=1))
    assert [point.successes for point in result.points] == [1, 0, 1, 0]
    assert [point.theory.success.lower for point in result.points] == pytest.approx([1, 0, 1, 0])
    stayed, left, *_ = result.points
    assert (stayed.counted, left.counted) == (4, None)
    assert stayed.up_bytes > left.up_bytes > 0
    assert result.points[2].committee_bytes > result.points[3].committee_bytes
    assert stayed.committee_bytes is None


@pytest.mark.parametrize("phase", [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.CONSISTENCY_CHECK, Phase.UNMASK])
def test_clients_drop_in_the_phase_that_is_asked_for(phase):
    (point,) = run_sweep(Sweep(SMALL, (Protocol.PAIRWISE,), (ONE,), repeat=1, drop_phase=phase)).points
    assert point.successes == 0
    assert point.theory.success.upper == pytest.approx(0, abs=1e-9)


def test_who_is_corrupt_refuses_to_help_in_the_end():
    result = run_sweep(Sweep(SMALL, tuple(Protocol), (ZERO,), (ONE,), repeat=1))
    pairwise, one_shot = result.runs
    assert (pairwise.ended, one_shot.ended) == (Ended.ABORTED, Ended.ABORTED)
    assert "open the sum" in one_shot.reason
    assert [point.theory.success.upper for point in result.points] == pytest.approx([0, 0])
    # Everybody uploaded all the same.
    (honest,) = run_sweep(Sweep(SMALL, (Protocol.ONE_SHOT,), (ZERO,), repeat=1)).runs
    assert one_shot.up_bytes == honest.up_bytes


def test_a_wrong_sum_stops_the_sweep_and_its_seed_is_said(monkeypatch, capsys):
    true_sum = World.integer_sum

    def one_off(world):
        total = true_sum(world)
        total[-1] += 1
        return total

    monkeypatch.setattr(World, "integer_sum", one_off)
    sweep = Sweep(SMALL, (Protocol.ONE_SHOT,), (ZERO,), repeat=2)
    with pytest.raises(DefectError, match="wrong sum") as raised:
        run_sweep(sweep)
    assert raised.value.run.ended is Ended.WRONG
    assert command("--dropout", "0", "--protocol", "one-shot", "--repeat", "1", *SMALL_WORDS) == 1
    seed = next(sweep.trials()).plan.seed
    assert f"seed {seed}" in capsys.readouterr().err


def test_a_session_that_does_not_end_stops_the_sweep(monkeypatch):
    async def give_up(world, most_s):
        return False

    monkeypatch.setattr(World, "until_over", give_up)
    with pytest.raises(DefectError, match="did not end"):
        run_sweep(Sweep(SMALL, (Protocol.PAIRWISE,), (ZERO,), repeat=1))


NOISY = dataclasses.replace(SMALL, clients=5, dimension=1024, epsilon=Fraction(8))


def test_noise_costs_and_errs_as_theory_says():
    result = run_sweep(Sweep(NOISY, tuple(Protocol), (ZERO,), repeat=1))
    planned = noise_of(NOISY)
    for point in result.points:
        assert point.epsilon == point.worst_epsilon == epsilon_over(planned, 5)
        assert point.theory.epsilon == pytest.approx(point.epsilon)
        # The mean square of 1024 draws deviates by a factor of sqrt(2 / 1024): five of those.
        assert point.error == pytest.approx(point.theory.error, rel=2.5 * math.sqrt(2 / 1024))
    assert result.points[0].epsilon < planned.epsilon <= 8


def test_noise_that_is_too_large_is_a_wrong_sum(monkeypatch):
    true_sum = World.integer_sum
    away = int(13 * math.sqrt(5 * noise_of(NOISY).local_variance)) + 1

    def far_off(world):
        total = true_sum(world)
        return total + away

    monkeypatch.setattr(World, "integer_sum", far_off)
    with pytest.raises(DefectError, match="wrong sum"):
        run_sweep(Sweep(NOISY, (Protocol.ONE_SHOT,), (ZERO,), repeat=1))


# Theory.


def test_theory_of_noise_is_the_mean_over_the_sizes_that_open():
    plan = dataclasses.replace(NOISY, clients=8, protocol=Protocol.ONE_SHOT)
    rng, planned = np.random.default_rng(1), noise_of(plan)
    stay = rng.binomial(8, 0.6, 100_000)
    opened = stay[stay >= plan.minimum]
    found = expected(plan, Cell(Protocol.ONE_SHOT, Fraction(2, 5), ZERO), Phase.MASKED_INPUT)
    costs = {size: epsilon_over(planned, size) for size in range(plan.minimum, 9)}
    assert found.epsilon == pytest.approx(np.mean([costs[size] for size in opened]), rel=0.005)
    variance = float(planned.local_variance / planned.scale**2)
    assert found.error == pytest.approx(math.sqrt(np.mean(variance / opened)), rel=0.005)


def test_theory_of_noise_in_pairwise_sessions_counts_who_refuses():
    plan = dataclasses.replace(NOISY, clients=8, max_corrupt=1)
    rng, planned = np.random.default_rng(2), noise_of(plan)
    # Complete graph of 8: threshold and quorum are 5; V3 and V4 need 6, and so does V5.
    uploaded = rng.binomial(8, 0.8, 200_000)
    answered = rng.binomial(uploaded, 0.9)
    opened = uploaded[(uploaded >= 6) & (answered >= 6)]
    found = expected(plan, Cell(Protocol.PAIRWISE, Fraction(1, 5), Fraction(1, 10)), Phase.MASKED_INPUT)
    assert found.success.lower == pytest.approx(opened.size / 200_000, abs=0.005)
    variance = float(planned.local_variance / planned.scale**2)
    assert found.error == pytest.approx(math.sqrt(np.mean(variance / opened)), rel=0.001)
    without = expected(plan, Cell(Protocol.PAIRWISE, Fraction(1, 5), ZERO), Phase.MASKED_INPUT)
    assert without.error > found.error * 1.001


def test_theory_knows_how_often_more_are_corrupt_than_tolerated():
    plan = Plan(Protocol.ONE_SHOT, clients=20, max_corrupt=3)
    found = expected(plan, Cell(Protocol.ONE_SHOT, ZERO, Fraction(1, 10)), Phase.MASKED_INPUT)
    assert found.corrupt_clients == corrupt_excess(20, 3, 0.1)
    assert found.corrupt_members == corrupt_excess(7, 2, 0.1)
    assert (found.epsilon, found.error) == (None, None)


def test_wilson_s_interval_is_the_known_one():
    assert wilson(0, 20).lower == 0
    assert wilson(0, 20).upper == pytest.approx(0.16113, abs=1e-5)
    assert wilson(20, 20).upper == 1
    assert (wilson(10, 20).lower, wilson(10, 20).upper) == pytest.approx((0.29930, 0.70070), abs=1e-5)


@pytest.mark.parametrize("corrupt", [ZERO, Fraction(1, 4)])
def test_simulated_sessions_succeed_as_often_as_theory_says(corrupt):
    result = run_sweep(Sweep(SMALL, tuple(Protocol), (Fraction(3, 10),), (corrupt,), repeat=8, seed=2))
    for point in result.points:
        assert agrees(point.successes, point.runs, point.theory.success), point
    assert 0 < sum(point.successes for point in result.points) < len(result.runs), "says little"


def test_each_simulated_session_ends_as_the_rules_of_its_theory_say(monkeypatch):
    people, refusing = [], []
    applied = ByPhase.applied
    monkeypatch.setattr(ByPhase, "applied", lambda *words: people.append(applied(*words)) or people[-1])
    monkeypatch.setattr(sweep_run, "_Refusing", lambda port: refusing.append(len(people)) or _REFUSING(port))
    plan = dataclasses.replace(SMALL, clients=6)
    runs = run_sweep(Sweep(plan, tuple(Protocol), (Fraction(1, 5),), (Fraction(1, 5),), repeat=8, seed=9)).runs
    terms, phases = PairwiseTerms(3, 1, plan.expected_dropout), PHASES[Protocol.PAIRWISE]
    graph = masking_graph(bytes(32), 6, 5)
    for place, (run, there) in enumerate(zip(runs, people, strict=True)):
        if run.cell.protocol is Protocol.PAIRWISE:
            done = [5 if person.drop is None else phases.index(person.drop.phase) for person in there]
            opens = pairwise_opens(terms, graph, done)
        else:
            opens = sum(person.drop is None for person in there) >= 3 and refusing.count(place) <= 1
        assert (run.ended is Ended.FINISHED) == opens, run
    assert {run.ended for run in runs} == {Ended.FINISHED, Ended.ABORTED}
    assert refusing


@pytest.mark.long
@pytest.mark.parametrize("phase", [Phase.MASKED_INPUT, Phase.SHARE_KEYS, Phase.UNMASK, Phase.ADVERTISE_KEYS])
def test_many_simulated_sessions_succeed_as_often_as_theory_says(phase):
    protocols = tuple(Protocol) if phase is Phase.MASKED_INPUT else (Protocol.PAIRWISE,)
    plan = Plan(Protocol.PAIRWISE, clients=7, dimension=2)
    rates, corrupt = rates_of("0.1:0.5:0.2"), (ZERO, Fraction(1, 5))
    result = run_sweep(Sweep(plan, protocols, rates, corrupt, repeat=40, seed=11, drop_phase=phase), 2)
    for point in result.points:
        assert agrees(point.successes, point.runs, point.theory.success), point


@pytest.mark.long
def test_sessions_over_a_sparse_graph_succeed_within_the_bounds_of_theory():
    plan = Plan(Protocol.PAIRWISE, clients=101, dimension=2, max_corrupt=2, expected_dropout=Fraction(1, 20))
    result = run_sweep(Sweep(plan, (Protocol.PAIRWISE,), rates_of("0.15,0.25"), repeat=8, seed=4), 2)
    for point in result.points:
        assert agrees(point.successes, point.runs, point.theory.success), point


# Files.


@pytest.fixture(scope="module")
def result():
    return run_sweep(Sweep(SMALL, tuple(Protocol), (ZERO, Fraction(1, 4), HALF), repeat=2, seed=1))


@pytest.fixture(scope="module")
def noisy():
    plan = dataclasses.replace(NOISY, dimension=4)
    return run_sweep(Sweep(plan, tuple(Protocol), (ZERO,), (ZERO, HALF), repeat=1))


def test_measured_columns_come_last_and_only_if_asked_for(result):
    plain = list(csv.DictReader(io.StringIO(to_csv(result))))
    measured = list(csv.DictReader(io.StringIO(to_csv(result, with_cpu=True))))
    assert list(plain[0]) == list(COLUMNS)
    assert list(measured[0]) == [*COLUMNS, "cpu_s"]
    assert all(float(row["cpu_s"]) > 0 for row in measured)
    assert [{name: row[name] for name in COLUMNS} for row in measured] == plain
    assert "cpu" not in to_json(result)
    assert "CPU" not in to_text(result)


def test_rows_say_what_came_of_each_cell(result):
    rows = list(csv.DictReader(io.StringIO(to_csv(result))))
    assert [(row["protocol"], float(row["dropout"])) for row in rows] == [
        (protocol.value, rate) for protocol in Protocol for rate in (0, 0.25, 0.5)
    ]
    for row, point in zip(rows, result.points, strict=True):
        assert float(row["success"]) == int(row["successes"]) / int(row["runs"]) == point.successes / 2
        assert float(row["success_low"]) <= float(row["success"]) <= float(row["success_high"])
        assert float(row["theory_low"]) <= float(row["theory_high"])
        assert row["epsilon"] == row["error"] == row["error_theory"] == ""
        assert (row["committee_bytes"] == "") == (row["protocol"] == "pairwise")
    first = rows[0]
    clients = result.sweep.plan.clients
    assert float(first["up_bytes"]) * clients * 2 == pytest.approx(sum(run.up_bytes for run in result.runs[:2]))
    assert float(first["down_bytes"]) * clients * 2 == pytest.approx(sum(run.down_bytes for run in result.runs[:2]))


def test_json_has_every_session_with_its_seed(result):
    value = json.loads(to_json(result))
    assert value["format"] == "secagg-sweep/1"
    assert [run["seed"] for run in value["runs"]] == [run.seed for run in result.runs]
    assert len(value["cells"]) == 6
    assert value["settings"]["clients"] == 4
    assert value["settings"]["committee"] == "4/3/1"


# Plots.


def test_a_plot_is_the_same_bytes_each_time_and_has_no_date(result, tmp_path):
    for suffix in ("svg", "png"):
        first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        draw_sweep(result, first)
        draw_sweep(result, second)
        assert first.read_bytes() == second.read_bytes()
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "dc:date" not in drawn
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_noise_corruption_and_cpu_have_panels_of_their_own(result, noisy, tmp_path):
    sizes = []
    for each, with_cpu in ((result, False), (result, True), (noisy, False)):
        path = tmp_path / f"{len(sizes)}.svg"
        draw_sweep(each, path, with_cpu=with_cpu)
        sizes.append(path.read_text(encoding="utf-8").count('id="axes_'))
    # Success and bytes; CPU; and with noise along corruption: excess, epsilon, error.
    assert sizes == [2, 3, 5]


def test_too_many_columns_of_panels_are_refused():
    rates = rates_of("0:0.6:0.1")
    check_panels(Sweep(SMALL, (Protocol.PAIRWISE,), (ZERO,), rates))
    with pytest.raises(SweepError, match="plot: has a column"):
        check_panels(Sweep(SMALL, (Protocol.PAIRWISE,), rates, rates))


# The command.


def test_the_command_writes_all_it_is_asked_for_and_says_what_it_did(tmp_path, capsys):
    files = [tmp_path / name for name in ("a.csv", "a.json", "a.svg")]
    options = [
        word for path in files for word in (f"--{'plot' if path.suffix == '.svg' else path.suffix[1:]}", str(path))
    ]
    assert command("--dropout", "0,0.5", "--repeat", "1", "--protocol", "one-shot", *SMALL_WORDS, *options) == 0
    said = capsys.readouterr()
    assert "2 sessions in" in said.out
    assert "1 process," in said.out
    assert said.err == ""
    assert files[0].read_text(encoding="utf-8").count("\n") == 3
    assert json.loads(files[1].read_text(encoding="utf-8"))["settings"]["repeat"] == 1
    assert files[2].read_text(encoding="utf-8").startswith("<?xml")


def test_a_dash_sends_the_table_to_standard_output_alone(capsys):
    assert command("--dropout", "0", "--repeat", "1", "--protocol", "pairwise", "--csv", "-", *SMALL_WORDS) == 0
    out = capsys.readouterr().out
    assert out.startswith("protocol,dropout,")
    assert out.count("\n") == 2


def test_dropouts_are_left_out_where_only_corruption_is_swept(monkeypatch):
    seen = []

    def stop(sweep, jobs, progress):
        seen.append(sweep)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_sweep, "run_sweep", stop)
    assert command("--corruption", "0,0.5") == 130
    assert command() == 130
    assert [len(sweep.dropouts) for sweep in seen] == [1, 11]
    assert seen[1].repeat == 20


@pytest.mark.parametrize(
    ("words", "option", "reason"),
    [
        (["--dropout", "0:1.5:0.1"], "--dropout", "0 to 1"),
        (["--dropout", "0:0.5:0"], "--dropout", "STEP"),
        (["--dropout", "0.5:0:0.1"], "--dropout", "below START"),
        (["--corruption", "x"], "--corruption", "expected a number"),
        (["--protocol", "pairwize"], "--protocol", "did you mean pairwise"),
        (["--drop-phase", "unmsk"], "--drop-phase", "did you mean unmask"),
        (["--drop-phase", "unmask"], "--drop-phase", "one-shot clients say nothing in unmask"),
        (["--repeat", "0"], "--repeat", "1 or more"),
        (["--jobs", "0"], "--jobs", "1 or more"),
        (["--clients", "2"], "--clients", "3 or more"),
        (["--dimension", "1"], "--dimension", "2 or more"),
        (["--min-contributors", "11"], "--min-contributors", "at most 10"),
        (["--max-corrupt", "5"], "--min-contributors", "max_corrupt"),
        (["--max-corrupt", "-1"], "--max-corrupt", "0 or more"),
        (["--clients", "20", "--expected-dropout", "0.6"], "--expected-dropout", "have to confirm"),
        (["--clients", "20", "--expected-dropout", "1"], "--expected-dropout", "below 1"),
        (["--expected-dropout", "often"], "--expected-dropout", "expected a number"),
        (["--needed", "8"], "--needed", "8 of 7"),
        (["--needed", "3"], "--needed", "one set"),
        (["--members", "40", "--needed", "30"], "--members", ""),
        (["--corrupt-members", "0"], "--corrupt-members", "clients refuse"),
        (["--epsilon", "0"], "--epsilon", ""),
        (["--epsilon", "-1"], "--epsilon", ""),
        (["--plot", "a.pdf"], "--plot", ".png or .svg"),
        (["--csv", "/nowhere/a.csv"], "--csv", "no such directory"),
        (["--json", "/"], "--json", "directory"),
        (["--csv", "-", "--json", "-"], "--json", "standard output"),
        (["--dropout", "0:1:0.1", "--corruption", "0:0.6:0.1", "--plot", "a.svg"], "--plot", "at most 6"),
    ],
)
def test_what_makes_no_sweep_is_refused_by_option_before_anything_runs(words, option, reason, monkeypatch, capsys):
    monkeypatch.setattr(cli_sweep, "run_sweep", lambda *_: pytest.fail("it ran"))
    try:
        code = command(*words)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert option in error
    assert reason in error


def test_a_missing_matplotlib_is_said_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(cli_sweep, "run_sweep", lambda *_: pytest.fail("it ran"))
    assert command("--plot", "a.png") == 2
    assert 'pip install "secagg-lora[plots]"' in capsys.readouterr().err


# The example.


def test_the_example_draws_its_figure_from_sessions(tmp_path, capsys):
    assert reproduce.main([str(tmp_path / "out"), "--quick", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.count("sessions") == 3
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "data.csv").read_text(encoding="utf-8"))))
    assert {row["curve"] for row in rows} == {curve.label for curve in reproduce.CURVES}
    assert len(rows) == 15
    drawn = (tmp_path / "out" / "figure.svg").read_text(encoding="utf-8")
    assert "dc:date" not in drawn
    assert (tmp_path / "out" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_example_s_graph_depends_on_what_it_is_made_for():
    curves = [curve for curve in reproduce.CURVES if curve.protocol is Protocol.PAIRWISE]
    setting, rate = reproduce.Setting(), Fraction(1, 4)
    found = [
        expected(
            reproduce.sweep_of(curve, setting).plan_of(Protocol.PAIRWISE),
            Cell(Protocol.PAIRWISE, rate, ZERO),
            Phase.MASKED_INPUT,
        ).success
        for curve in curves
    ]
    assert found[0].upper < found[1].lower
