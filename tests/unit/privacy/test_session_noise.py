"""What follows from the noise that a session declares, and what is refused of it."""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction

import pytest

from dp.charge import epsilon_of
from dp.planner import MechanismKind
from secagg.privacy.session_noise import NoiseError, check_noise, mechanism_of, signal_ratio
from secagg.transcript.encoding import Encoding, Flattening, NoFlattening
from secagg.transcript.entries import PairwiseOpen
from secagg.transcript.noise import NoDifferentialPrivacy
from simulations.world.noise import reserved, with_noise
from tests.support.cohort import key_of, session_of

IDENTITIES = [key_of(f"client {number}") for number in range(8)]
DELTA = Fraction(1, 100_000)
KINDS = list(MechanismKind)


@functools.cache
def plain(flattened: bool = False) -> PairwiseOpen:
    flatten = Flattening(b"f" * 32) if flattened else NoFlattening()
    encoding = Encoding(1000, 15, 1024, 64, Fraction(3), flatten)
    return session_of(IDENTITIES, encoding=encoding, min_contributors=6, max_corrupt=2).parameters


@functools.cache
def noisy(kind: MechanismKind = MechanismKind.SKELLAM, flattened: bool = False) -> PairwiseOpen:
    return with_noise(plain(flattened), mechanism=kind)


def changed(where: str, value: object) -> PairwiseOpen:
    """The noisy session with one member of another value, and the reservation that its ledger would have made."""
    parameters = noisy()
    part, _, field = where.partition(".")
    return reserved(
        dataclasses.replace(parameters, **{part: dataclasses.replace(getattr(parameters, part), **{field: value})})
    )


@pytest.mark.parametrize("flattened", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_planned_session_costs_what_was_demanded_and_hardly_less(kind, flattened):
    parameters = noisy(kind, flattened)
    check_noise(parameters)
    spent = epsilon_of(mechanism_of(parameters).charge(), DELTA).epsilon
    assert 7.9 < spent <= 8


def test_more_contributions_than_the_fewest_cost_less():
    costs = [epsilon_of(mechanism_of(noisy(), n).charge(), DELTA).epsilon for n in (6, 7, 8)]
    assert costs[0] > costs[1] > costs[2]


def test_colluders_count_as_adding_nothing():
    parameters = noisy()
    fewer = dataclasses.replace(parameters, max_corrupt=0)
    assert mechanism_of(fewer).charge().rdp[0] < mechanism_of(parameters).charge().rdp[0]


def test_a_session_without_noise_costs_everything_and_has_nothing_to_check():
    check_noise(plain())
    assert epsilon_of(mechanism_of(plain()).charge(), DELTA).epsilon == float("inf")
    assert signal_ratio(plain()) == 0


def test_the_ratio_is_that_of_the_noise_to_the_longest_sum():
    parameters = noisy()
    noise, n, d = parameters.noise, parameters.min_contributors, 1000
    expected = (n * noise.local_variance * d) ** 0.5 / float(n * noise.scale * 3)
    assert signal_ratio(parameters) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("where", "value", "field"),
    [
        ("noise.squared_norm", noisy().noise.squared_norm + 1, "noise.squared_norm"),
        ("noise.squared_norm", noisy().noise.squared_norm - 1, "noise.squared_norm"),
        ("noise.scale", noisy().noise.scale / 2, "noise.squared_norm"),
        ("encoding.clip_norm", Fraction(4), "noise.squared_norm"),
        ("encoding.value_bits", noisy().encoding.value_bits - 1, "encoding.value_bits"),
        ("noise.local_variance", noisy().noise.local_variance / 2, "noise.table"),
        ("noise.table", b"t" * 32, "noise.table"),
        ("noise.accepted_ratio", Fraction(1, 2), "noise.accepted_ratio"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(where, value, field):
    with pytest.raises(NoiseError) as caught:
        check_noise(changed(where, value))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        {"session": b"another session!"},
        {"max_corrupt": 1},
        {"min_contributors": 7},
    ],
    ids=str,
)
def test_a_reservation_is_for_one_session_with_its_honest_minimum(changes):
    with pytest.raises(NoiseError) as caught:
        check_noise(dataclasses.replace(noisy(), **changes))
    assert caught.value.field == "noise.budget.reserved"


@pytest.mark.parametrize(
    "changes", [{"population": "others"}, {"sequence": 2}, {"previous": b"p" * 32}, {"reserved": b"r" * 32}], ids=str
)
def test_a_reservation_is_one_place_in_one_ledger(changes):
    noise = noisy().noise
    budget = dataclasses.replace(noise.budget, **changes)
    with pytest.raises(NoiseError) as caught:
        check_noise(dataclasses.replace(noisy(), noise=dataclasses.replace(noise, budget=budget)))
    assert caught.value.field == "noise.budget.reserved"


def test_a_population_that_no_ledger_would_hold_is_refused():
    noise = noisy().noise
    budget = dataclasses.replace(noise.budget, population="\n")
    with pytest.raises(NoiseError) as caught:
        check_noise(dataclasses.replace(noisy(), noise=dataclasses.replace(noise, budget=budget)))
    assert caught.value.field == "noise"


def test_the_absence_of_noise_is_a_value():
    assert plain().noise == NoDifferentialPrivacy()
