"""`python -m dp` from the outside: what is printed, what is written, and what is refused by name."""

import json
import math
import re
import shlex
import subprocess
import sys
from fractions import Fraction

import pytest

from dp.cli import run
from dp.cli_values import number, whole
from dp.mechanisms import mechanism_from_json

PLAN = "plan --epsilon 8 --delta 1e-5 --sessions 10 --min-survivors 1000 --corrupt 50 --dimension 500000 --clip 1"
HARD = "plan --epsilon 2 --sessions 1000 --min-survivors 100 --corrupt 10 --dimension 500000"
SKELLAM = "epsilon --mechanism skellam --mu 6939532 --l2-squared 17043968 --l1 4227517"


def command(capsys, text):
    code = run(shlex.split(text))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def json_of(capsys, text):
    code, out, _ = command(capsys, f"{text} --json -")
    return code, json.loads(out, parse_constant=pytest.fail)


def test_the_command_runs_as_a_module():
    words = [sys.executable, "-m", "dp", *shlex.split(SKELLAM)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert re.search(r"^epsilon +8\.0000", done.stdout, re.MULTILINE)


def test_a_plan_without_a_plot_imports_no_matplotlib():
    code = f"import sys, dp.cli; dp.cli.run({shlex.split(PLAN)!r}); sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


@pytest.mark.parametrize("flags", ["", "--flatten", "--mechanism discrete-gaussian", "--clip 1/100 --corrupt 0"])
def test_a_plan_costs_what_the_other_command_says_it_costs(capsys, flags):
    code, value = json_of(capsys, f"{PLAN} {flags}")
    assert (code, value["feasible"]) == (0, True)
    assert value["epsilon"] <= 8
    session = value["session"]
    kind, variance, survivors = value["mechanism"], session["local_variance"], session["survivors"]
    noise = {
        "skellam": f"--local-mu {variance} --survivors {survivors}",
        "discrete-gaussian": f"--sigma-squared {variance} --clients {survivors}",
    }[kind]
    again = (
        f"epsilon --mechanism {kind} {noise} --corrupt {session['corrupt']} --l2-squared {session['squared_l2']} "
        f"--l1 {session['l1']} --dimension {session['dimension']} --delta 1e-5"
    )
    for sessions, key, order in ((10, "epsilon", "order"), (1, "epsilon_one_session", "order_one_session")):
        code, cost = json_of(capsys, f"{again} --sessions {sessions}")
        assert code == 0
        assert cost["epsilon"] == pytest.approx(value[key], rel=1e-9)
        assert cost["order"] == value[order]
    assert mechanism_from_json(session).to_json() == session


def test_json_goes_to_a_file_beside_the_table_and_alone_to_standard_output(capsys, tmp_path):
    path = tmp_path / "plan.json"
    code, out, err = command(capsys, f"{PLAN} --json {path}")
    assert (code, err) == (0, "")
    assert re.search(r"^noise to signal +1\.47$", out, re.MULTILINE)
    written = json.loads(path.read_text())
    code, alone = json_of(capsys, PLAN)
    assert written == alone
    assert written["signal_ratio"] == pytest.approx(1.47, abs=0.01)
    assert written["upload_bytes"] == 2_000_008
    ratio = written["total_sigma_clip"] * math.sqrt(500_000) / 1000
    assert written["signal_ratio"] == pytest.approx(ratio)


def test_the_table_says_what_a_plan_is(capsys):
    _, out, _ = command(capsys, PLAN)
    for label in (
        "mechanism",
        "scale",
        "squared norm",
        "noise of each",
        "field",
        "upload",
        "epsilon",
        "noise to signal",
    ):
        assert re.search(rf"^{label} ", out, re.MULTILINE), label
    assert "takes part in one session only" in out


def test_an_epsilon_for_people_is_never_less_than_what_it_costs(capsys):
    for sessions in (2, 3, 5):
        demand = with_option(PLAN, "--sessions", str(sessions))
        _, value = json_of(capsys, demand)
        shown = re.findall(r"([0-9]+\.[0-9]{4}) for ", command(capsys, demand)[1])
        for text, exact in zip(shown, (value["epsilon"], value["epsilon_one_session"]), strict=True):
            assert exact <= float(text) <= exact + 1e-4


def test_a_ratio_above_one_is_warned_of_with_numbers_that_are_true(capsys):
    code, out, _ = command(capsys, PLAN)
    assert code == 0
    assert "1.47 times as long" in out
    ways = relaxed_options(out)
    assert {option for option, _ in ways} >= {"--epsilon", "--min-survivors", "--sessions", "--dimension"}
    for option, value in ways:
        _, planned = json_of(capsys, with_option(PLAN, option, value))
        assert planned["signal_ratio"] <= 1
        assert planned["warnings"] == []
    _, _, err = command(capsys, f"{PLAN} --json -")
    assert err.startswith("dp: warning: the noise ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("flags", ["", "--flatten", "--mechanism discrete-gaussian"])
def test_what_cannot_be_met_comes_with_relaxations_that_are_true(capsys, flags):
    demand = f"{HARD} {flags}"
    code, out, err = command(capsys, demand)
    assert (code, err) == (1, "")
    assert out.startswith("no plan: ")
    ways = relaxed_options(out)
    assert {option for option, _ in ways} >= {"--epsilon", "--min-survivors", "--sessions", "--dimension"}
    for option, value in ways:
        assert command(capsys, with_option(demand, option, value))[0] == 0, option
    code, value = json_of(capsys, demand)
    assert (code, value["feasible"]) == (1, False)
    assert [(way["option"], str(way["needed"])) for way in value["relaxations"]] == ways
    assert all(way["now"] == value["demand"][way["field"]] for way in value["relaxations"])


def test_relaxations_that_come_together_are_said_together(capsys):
    demand = "plan --epsilon 1/200 --sessions 1000 --min-survivors 1000 --dimension 4294967296"
    code, out, _ = command(capsys, demand)
    assert code == 1
    assert "--sessions 1000 -> 2 " in out
    assert "with --epsilon 8" in out
    assert command(capsys, demand.replace("1000 --min", "2 --min").replace("1/200", "8"))[0] == 0
    assert command(capsys, demand.replace("1000 --min", "3 --min").replace("1/200", "8"))[0] == 1


def relaxed_options(out):
    return re.findall(r"^  (--[a-z-]+) \S+ -> (\S+)", out, re.MULTILINE)


def with_option(text, option, value):
    words = text.split()
    words[words.index(option) + 1] = value
    return " ".join(words)


@pytest.mark.parametrize(
    ("text", "epsilon", "order"),
    [
        (SKELLAM, 8.0000, 4),
        ("epsilon --mechanism skellam --mu 6939532 --l2-squared 17043968 --dimension 1048576", 8.0000, 4),
        ("epsilon --mechanism skellam --local-mu 69395.32 --survivors 100 --l2-squared 17043968 --l1 4227517", 8.0, 4),
        (SKELLAM.replace("6939532", "693953200") + " --sessions 100", 8.0, 4),
        ("epsilon --mechanism gaussian --noise-multiplier 0.7", 7.1695, None),
        ("epsilon --mechanism gaussian --noise-multiplier 5 --sessions 100 --delta 1e-5", 10.8017, None),
        ("epsilon --mechanism gaussian --noise-multiplier 8 --sessions 100 --delta 1e-6", 6.7346, None),
    ],
)
def test_the_cost_of_given_parameters_is_the_measured_one(capsys, text, epsilon, order):
    code, value = json_of(capsys, text)
    assert code == 0
    assert value["epsilon"] == pytest.approx(epsilon, abs=2e-4)
    assert order in (None, value["order"])


def test_colluders_and_a_distance_make_a_session_dearer(capsys):
    base = "epsilon --mechanism discrete-gaussian --sigma-squared 70000 --clients 100"
    base += " --l2-squared 17043968 --dimension 1e6"
    costs = [json_of(capsys, base + more)[1]["epsilon"] for more in ("", " --corrupt 10", " --distance 1e-9")]
    assert costs[0] < costs[2] < costs[1]


def test_a_distance_above_delta_has_no_epsilon(capsys):
    code, value = json_of(capsys, f"{SKELLAM} --distance 1e-4")
    assert (code, value["epsilon"], value["order"]) == (1, None, None)
    assert "exceeds delta" in command(capsys, f"{SKELLAM} --distance 1e-4")[1]


GOOD = "plan --epsilon 1 --min-survivors 10 --dimension 100"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("command", ""),
        ("command", "destroy"),
        ("epsilon", "plan --min-survivors 10 --dimension 100"),
        ("min-survivors", "plan --epsilon 1 --dimension 100"),
        ("dimension", "plan --epsilon 1 --min-survivors 100"),
        *(
            ("epsilon", with_option(GOOD, "--epsilon", value))
            for value in ("0", "-1", "nan", "inf", "1001", "x", "1/0")
        ),
        *(
            ("epsilon", with_option(GOOD, "--epsilon", value))
            for value in ("1e999999999", "1/2/3", "1_0", "''", "-1/2")
        ),
        *(("min-survivors", with_option(GOOD, "--min-survivors", value)) for value in ("0", "-3", "1.5", "1e9")),
        *(("dimension", with_option(GOOD, "--dimension", value)) for value in ("0", "-3", "1.5", "4294967297")),
        *(("dimension", with_option(f"{GOOD} --flatten", "--dimension", value)) for value in ("0", "-3", "4294967297")),
        *(("delta", f"{GOOD} --delta {value}") for value in ("0", "1", "2", "-1e-5", "NaN")),
        *(("sessions", f"{GOOD} --sessions {value}") for value in ("0", "-1", "1e30", "0.5")),
        *(("corrupt", f"{GOOD} --corrupt {value}") for value in ("10", "-1", "11")),
        *(("clip", f"{GOOD} --clip {value}") for value in ("0", "-1", "1e30")),
        *(("clip", f"{GOOD} --flatten --clip {value}") for value in ("0", "-1", "1e30")),
        *(("max-contributors", f"{GOOD} --max-contributors {value}") for value in ("9", "0", "1e9")),
        ("mechanism", f"{GOOD} --mechanism laplace"),
        ("plot", f"{GOOD} --plot plan.pdf"),
        ("plot", f"{GOOD} --plot /nowhere/at/all.png"),
        ("json", f"{GOOD} --json /nowhere/at/all.json"),
        ("arguments", f"{GOOD} --eps 3"),
        ("mechanism", "epsilon --mu 3 --l2-squared 4"),
        ("mu", "epsilon --mechanism skellam --l2-squared 4"),
        ("mu", "epsilon --mechanism skellam --l2-squared 4 --mu 0"),
        ("mu", "epsilon --mechanism skellam --l2-squared 4 --mu 3 --local-mu 3 --survivors 3"),
        ("local-mu", "epsilon --mechanism skellam --l2-squared 4 --local-mu 0 --survivors 3"),
        ("survivors", "epsilon --mechanism skellam --l2-squared 4 --local-mu 3"),
        ("survivors", "epsilon --mechanism skellam --l2-squared 4 --mu 3 --survivors 3"),
        ("corrupt", "epsilon --mechanism skellam --l2-squared 4 --mu 3 --corrupt 3"),
        ("corrupt", "epsilon --mechanism skellam --l2-squared 4 --local-mu 3 --survivors 3 --corrupt 3"),
        ("l2-squared", "epsilon --mechanism skellam --mu 4"),
        ("l2-squared", "epsilon --mechanism skellam --mu 4 --l2-squared -1"),
        ("l2-squared", "epsilon --mechanism skellam --mu 4 --l2-squared 1e18 --l1 5"),
        ("l1", "epsilon --mechanism skellam --mu 4 --l2-squared 100 --l1 9"),
        ("distance", "epsilon --mechanism skellam --mu 4 --l2-squared 100 --distance -1"),
        ("dimension", "epsilon --mechanism discrete-gaussian --sigma-squared 4 --clients 3 --l2-squared 5"),
        ("sigma-squared", "epsilon --mechanism discrete-gaussian --clients 3 --l2-squared 5 --dimension 5"),
        (
            "sigma-squared",
            "epsilon --mechanism discrete-gaussian --sigma-squared 3 --clients 3 --l2-squared 5 --dimension 5",
        ),
        ("clients", "epsilon --mechanism discrete-gaussian --sigma-squared 4 --clients 0 --l2-squared 5 --dimension 5"),
        ("noise-multiplier", "epsilon --mechanism gaussian"),
        ("noise-multiplier", "epsilon --mechanism gaussian --noise-multiplier 0"),
        ("mu", "epsilon --mechanism gaussian --noise-multiplier 1 --mu 3"),
        ("sigma-squared", f"{SKELLAM} --sigma-squared 4"),
        ("sessions", f"{SKELLAM} --sessions 0"),
        ("delta", f"{SKELLAM} --delta 1"),
        ("delta", f"{SKELLAM} --delta -1"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_that_names_the_option(capsys, field, text):
    code, out, err = command(capsys, text)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"dp: error: {field}: [^\n]+\n", err), err


def test_a_plot_is_written_and_matplotlib_is_asked_for_where_it_is_missing(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = tmp_path / "plan.png"
    code, out, err = command(capsys, f"{GOOD} --plot {path}")
    assert (code, out, err) == (2, "", 'dp: error: plot: needs matplotlib: pip install "secagg-lora[plots]"\n')
    monkeypatch.undo()
    assert command(capsys, f"{GOOD} --plot {path}")[0] == 0
    assert path.stat().st_size > 10_000


def test_numbers_are_read_exactly():
    cases = {
        "8": 8,
        "0.5": Fraction(1, 2),
        "1e-5": Fraction(1, 10**5),
        "17/2": Fraction(17, 2),
        "1.5/3": Fraction(1, 2),
    }
    assert {text: number(text) for text in cases} == cases
    assert whole("1e6") == 10**6


@pytest.mark.parametrize("text", ["--help", "plan --help", "epsilon --help"])
def test_help_fits_a_terminal_and_exits_with_zero(capsys, text, monkeypatch):
    monkeypatch.setenv("COLUMNS", "112")
    with pytest.raises(SystemExit) as caught:
        run(shlex.split(text))
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 112
    assert "usage: python -m dp" in out
