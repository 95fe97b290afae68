"""Charges as values: they add outward, compare order by order, and refuse what they cannot be."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.charge import NO_CHARGE, Charge
from dp.errors import ParameterError
from dp.mechanisms import Gaussian, NoNoise
from dp.rdp import ORDERS

multipliers = st.floats(-3, 12).map(lambda exponent: Fraction(2.0**exponent))


@settings(max_examples=60, deadline=None)
@given(st.lists(multipliers, min_size=2, max_size=6))
def test_charges_add_outward_in_any_order(values):
    charges = [Gaussian(value).charge() for value in values]
    total = sum(charges, NO_CHARGE)
    back = sum(reversed(charges), NO_CHARGE)
    for index in (0, 7, 4000, len(ORDERS) - 1):
        exact = sum(Fraction(float(charge.rdp[index])) for charge in charges)
        for computed in (Fraction(float(total.rdp[index])), Fraction(float(back.rdp[index]))):
            assert exact <= computed <= exact * (1 + Fraction(1, 10**13))


@settings(max_examples=60, deadline=None)
@given(multipliers, st.integers(0, 2**32))
def test_many_sessions_cost_that_many_times_one(multiplier, sessions):
    one = Charge(Gaussian(multiplier).charge().rdp, Fraction(1, 3))
    many = one.times(sessions)
    assert many.distance == Fraction(sessions, 3)
    for index in (0, 7, 4000, len(ORDERS) - 1):
        exact = sessions * Fraction(float(one.rdp[index]))
        assert exact <= Fraction(float(many.rdp[index])) <= exact * (1 + Fraction(1, 10**13))


def test_adding_nothing_changes_nothing():
    charge = Charge(Gaussian(Fraction(2)).charge().rdp, Fraction(1, 7))
    for same in (charge + NO_CHARGE, NO_CHARGE + charge, charge.times(1)):
        assert (same.rdp == charge.rdp).all()
        assert same.distance == charge.distance
    assert not charge.times(0).rdp.any()
    assert not NoNoise().charge().times(0).rdp.any()
    assert charge.times(0).distance == 0
    assert np.isinf((charge + NoNoise().charge()).rdp).all()
    with pytest.raises(TypeError):
        charge + 1


def test_a_charge_covers_another_when_no_order_and_no_distance_is_less():
    charge = Charge(Gaussian(Fraction(2)).charge().rdp, Fraction(1, 7))
    less = charge.rdp.copy()
    less[17] = np.nextafter(less[17], 0)
    assert charge.covers(charge)
    assert charge.covers(NO_CHARGE)
    assert NoNoise().charge().covers(NO_CHARGE)
    assert not Charge(less, Fraction(1, 7)).covers(charge)
    assert charge.covers(Charge(less, Fraction(1, 7)))
    assert not Charge(charge.rdp, Fraction(1, 8)).covers(charge)


@pytest.mark.parametrize("sessions", [-1, 2**32 + 1, True, 1.0, "1", None, float("nan")])
def test_sessions_that_cannot_be_are_refused(sessions):
    with pytest.raises(ParameterError, match=r"^sessions: "):
        NO_CHARGE.times(sessions)


def test_a_charge_that_cannot_be_is_refused_by_its_field():
    good = np.zeros(len(ORDERS))
    bad_values = [good[:-1], good.astype(np.float32), list(good), None, good - 1, good.reshape(1, -1)]
    poisoned = good.copy()
    poisoned[-1] = np.nan
    for bad in (*bad_values, poisoned):
        with pytest.raises(ParameterError, match=r"^rdp: "):
            Charge(bad, Fraction(0))
    for bad in (Fraction(-1, 10**9), 0, 0.0, float("nan"), None):
        with pytest.raises(ParameterError, match=r"^distance: "):
            Charge(good, bad)


def test_a_charge_keeps_a_copy_that_nobody_can_write():
    values = Gaussian(Fraction(1)).charge().rdp.copy()
    charge = Charge(values, Fraction(0))
    values[:] = 0
    assert charge.rdp.all()
    with pytest.raises(ValueError, match="read-only"):
        charge.rdp[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        NO_CHARGE.rdp[0] = 1


def test_distances_with_unlike_denominators_are_added_without_growing_for_ever():
    charge = NO_CHARGE
    exact = Fraction(0)
    for k in range(300):
        distance = Fraction(1, 10**30 + 2 * k + 1)
        charge = charge + Charge(np.zeros(len(ORDERS)), distance)
        exact += distance
    assert exact <= charge.distance <= exact + Fraction(300, 2**512)
    assert charge.distance.denominator.bit_length() <= 513
    assert charge.times(3).distance == 3 * charge.distance
