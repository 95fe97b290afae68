"""Noise and budgets on the command line: what is planned, what is refused and how, what is shown."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from secagg.cli.describe_noise import noise_rows, noise_value, spending_value, spending_words
from secagg.identity.client_config import BudgetConfig, ClientConfig
from secagg.privacy.session_noise import NoiseError, check_noise, mechanism_of, signal_ratio
from secagg.protocol.session import PrivacyAllowance
from secagg.spending import Spending
from secagg.transcript.encoding import Flattening, NoFlattening
from secagg.transcript.entries import SessionOpen
from secagg.transcript.noise import DiscreteGaussianNoise, SkellamNoise
from simulations.world.noise import with_noise
from tests.support.cohort import key_of, session_of
from tests.support.service import EXAMPLES
from tests.unit.cli.test_cli import EXPLICIT, OPEN, Shell, operator, plan, shell  # noqa: F401 - fixtures

NOISE = ("--dp-epsilon", "8", "--accept-ratio", "1000")
SESSION = session_of([key_of(f"client {number}") for number in range(5)], dimension=500).parameters


def planned(*more: str) -> SessionOpen:
    return plan(*NOISE, *more).session.parameters


def reservation_alone_is_missing(parameters: SessionOpen) -> bool:
    with pytest.raises(NoiseError) as caught:
        check_noise(parameters)
    return caught.value.field == "noise.budget.reserved"


def test_a_session_is_planned_so_that_everything_but_its_reservation_fits_together(operator):  # noqa: F811
    parameters = planned("--dp-sessions", "5", "--dp-delta", "1e-6", "--dp-population", "people")
    assert isinstance(parameters.noise, SkellamNoise)
    assert reservation_alone_is_missing(parameters)
    budget = parameters.noise.budget
    assert (budget.population, budget.epsilon, budget.delta) == ("people", 8, Fraction(1, 10**6))


def test_the_plan_and_the_session_come_to_the_same_mechanism(operator):  # noqa: F811
    once, often = planned(), planned("--dp-sessions", "10")
    assert mechanism_of(once).charge().rdp[0] > 9 * mechanism_of(often).charge().rdp[0]
    assert isinstance(planned("--dp-mechanism", "discrete-gaussian").noise, DiscreteGaussianNoise)


def test_noise_is_flattened_only_where_that_makes_uploads_smaller(operator):  # noqa: F811
    example = ("--adapter", str(EXAMPLES / "1"))
    plain, flat = plan(*NOISE, *example), plan(*NOISE, *example, "--flatten", "auto")
    assert isinstance(plain.session.parameters.encoding.flatten, NoFlattening)
    flattened = isinstance(flat.session.parameters.encoding.flatten, Flattening)
    assert flattened is (flat.session.upload_bytes < plain.session.upload_bytes)
    assert reservation_alone_is_missing(flat.session.parameters)


@pytest.mark.parametrize(
    ("more", "kind", "word"),
    [
        (("--dp-sessions", "3"), "usage", "--dp-sessions needs --dp-epsilon"),
        (("--dp-population", "x"), "usage", "--dp-population needs --dp-epsilon"),
        (("--accept-ratio", "3"), "usage", "--accept-ratio needs --dp-epsilon"),
        ((*NOISE, "--value-bits", "15"), "usage", "--value-bits"),
        (("--dp-epsilon", "-1"), "usage", "--dp-epsilon"),
        (("--dp-epsilon", "nan"), "usage", "--dp-epsilon"),
        (("--dp-epsilon", "0", "--accept-ratio", "9"), "usage", "--dp-epsilon"),
        ((*NOISE, "--dp-delta", "1"), "usage", "--dp-delta"),
        ((*NOISE, "--dp-sessions", "0"), "usage", "--dp-sessions"),
        ((*NOISE, "--dp-population", ""), "usage", "--dp-population"),
        ((*NOISE, "--dp-population", " "), "usage", "--dp-population"),
        ((*NOISE, "--dp-population", "a\nb"), "usage", "--dp-population"),
        (("--dp-epsilon", "8", "--accept-ratio", "0"), "usage", "--accept-ratio"),
        ((*NOISE, "--dp-mechanism", "laplace"), "usage", "--dp-mechanism"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_about_noise_that_make_no_sense_are_refused_by_name(more, kind, word, operator):  # noqa: F811
    code, found, _, message = operator.refusal(*OPEN, "--min-contributors", "3", *more)
    assert (code, found) == (2, kind), message
    assert word in message


def test_noise_that_drowns_the_signal_is_refused_with_the_ratio_and_what_would_lower_it(operator):  # noqa: F811
    code, kind, reason, message = operator.refusal(*OPEN, "--min-contributors", "3", "--dp-epsilon", "1")
    assert (code, kind, reason) == (2, "privacy", "SIGNAL_RATIO")
    ratio = signal_ratio(plan("--dp-epsilon", "1", "--accept-ratio", "1000").session.parameters)
    assert f"{ratio:.3g} times as large" in message
    for option in ("--min-contributors 3 ->", "--dp-epsilon 1 ->", "--accept-ratio"):
        assert option in message


def test_what_was_accepted_is_recorded_and_a_hair_less_is_not_enough(operator):  # noqa: F811
    ratio = Fraction(signal_ratio(planned())).limit_denominator(10**6)
    enough, less = ratio * Fraction(101, 100), ratio * Fraction(99, 100)
    opened = plan("--dp-epsilon", "8", "--accept-ratio", str(enough))
    assert opened.session.parameters.noise.accepted_ratio == enough
    code, _, reason, _ = operator.refusal(
        *OPEN, "--min-contributors", "3", "--dp-epsilon", "8", "--accept-ratio", str(less)
    )
    assert (code, reason) == (2, "SIGNAL_RATIO")


def test_an_impossible_demand_says_what_to_relax(operator):  # noqa: F811
    code, kind, reason, message = operator.refusal(
        *OPEN, "--min-contributors", "3", "--dp-epsilon", "1/1000", "--dp-sessions", "1000", "--dp-delta", "1e-9"
    )
    assert (code, kind, reason) == (2, "privacy", "NO_PLAN")
    assert "--dp-" in message


def test_a_refused_session_leaves_no_ledger_behind(operator):  # noqa: F811
    operator.refusal(*OPEN, "--min-contributors", "3", "--dp-epsilon", "1")
    assert not list(Path("c").rglob("budget.db*"))
    code, out, _ = operator("budget", "show", "--config", "c/coordinator.toml")
    assert (code, out) == (0, "nothing was spent: no session with noise was joined or opened\n")


# What is shown.


def test_noise_is_described_with_what_it_costs_and_for_whom():
    parameters = with_noise(SESSION)
    value, words = noise_value(parameters), dict(noise_rows(parameters))
    assert value["mechanism"] == "skellam"
    assert 7.9 < value["epsilon"] <= 8
    assert value["signal_ratio"] == pytest.approx(signal_ratio(parameters))
    assert f"epsilon {value['epsilon']:.4g} at delta 1e-05" in words["noise"]
    assert f"up to {parameters.max_corrupt} may leave theirs out" in words["noise"]
    assert "event 1 of the operator's ledger" in words["budget"]


def test_the_absence_of_noise_is_said_in_plain_words():
    assert noise_value(SESSION) == {"mechanism": "none"}
    assert noise_rows(SESSION) == [("noise", "none: the sum is exact, and not differentially private")]


def test_a_contributor_sees_what_it_spends_and_has_left():
    spending = Spending(2.5, 3.0, 4.75, PrivacyAllowance(Fraction(8), Fraction(1, 100_000)))
    ((_, words),) = spending_words(with_noise(SESSION), spending)
    assert "up to epsilon 2.5 at delta 1e-05" in words
    assert "4.75 (before: 3) of 8" in words
    value = spending_value(spending)
    assert (value["left"], value["spent"], value["budget"]) == (3.25, 4.75, 8)
    assert spending_value(None) is None


def test_a_contributor_without_a_budget_is_told_that_nobody_counts():
    ((_, words),) = spending_words(with_noise(SESSION), None)
    assert "nobody counts" in words
    assert list(spending_words(SESSION, None)) == []


# Configuration.


def test_a_contributors_budget_is_written_and_read_back(shell):  # noqa: F811
    shell("client", "init", "client.toml", *EXPLICIT, "--budget-epsilon", "5/2", "--budget-delta", "1e-6")
    assert ClientConfig.load(Path("client.toml")).budget == BudgetConfig(Fraction(5, 2), Fraction(1, 10**6))
    shell("client", "init", "other.toml", *EXPLICIT, "--budget-epsilon", "3")
    assert ClientConfig.load(Path("other.toml")).budget == BudgetConfig(Fraction(3), Fraction(1, 100_000))
    shell("client", "init", "none.toml", *EXPLICIT)
    assert ClientConfig.load(Path("none.toml")).budget is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [("8", 8), ("8.5", Fraction(17, 2)), ('"8"', 8), ('"17/2"', Fraction(17, 2)), ('"1e1"', 10), ("1e1", 10)],
)
def test_a_budget_is_written_by_hand_as_people_write_numbers(written, meant, shell):  # noqa: F811
    shell("client", "init", "client.toml", *EXPLICIT, "--budget-epsilon", "3")
    text = Path("client.toml").read_text()
    Path("client.toml").write_text(text.replace('epsilon = "3"', f"epsilon = {written}"))
    assert ClientConfig.load(Path("client.toml")).budget == BudgetConfig(Fraction(meant), Fraction(1, 100_000))


@pytest.mark.parametrize("written", ["-3", "true", "nan", "inf", '"0"', '"1/0"', '"eight"', '"1e-999"', "[8]"])
def test_a_budget_that_is_no_number_is_refused_by_name(written, shell):  # noqa: F811
    shell("client", "init", "client.toml", *EXPLICIT, "--budget-epsilon", "3")
    text = Path("client.toml").read_text()
    Path("client.toml").write_text(text.replace('epsilon = "3"', f"epsilon = {written}"))
    code, kind, reason, _ = shell.refusal("budget", "show", "--config", "client.toml")
    assert (code, kind, reason) == (2, "config", "budget.epsilon")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--budget-delta", "1e-5"), "--budget-delta needs --budget-epsilon"),
        (("--budget-epsilon", "0"), "budget.epsilon"),
        (("--budget-epsilon", "1", "--budget-delta", "2"), "budget.delta"),
    ],
    ids=str,
)
def test_a_budget_that_is_none_is_refused(more, word, shell):  # noqa: F811
    code, _, _, message = shell.refusal("client", "init", "client.toml", *EXPLICIT, *more)
    assert code == 2
    assert word in message


def test_a_contributor_without_a_budget_has_nothing_to_show(shell: Shell):  # noqa: F811
    shell.json("identity", "new", "identity.key", "--no-passphrase")
    shell("client", "init", "client.toml", *EXPLICIT)
    assert shell.refusal("budget", "show", "--config", "client.toml")[:3] == (2, "privacy", "NO_BUDGET")
    shell("client", "init", "other.toml", *EXPLICIT, "--budget-epsilon", "3")
    code, out, _ = shell("budget", "show", "--config", "other.toml", "--format", "json")
    assert (code, json.loads(out)) == (0, {"budgets": []})
