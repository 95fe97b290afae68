"""Central noise: the law of the whole variance, in parts where no single table reaches."""

from fractions import Fraction

import numpy as np
import pytest

from dp.alias import noise_table
from dp.central import MAX_PARTS, CentralNoise
from dp.errors import ParameterError
from dp.sampler import NoiseSampler
from dp.weights import DISCRETE_GAUSSIAN, MAX_VARIANCE, SKELLAM, draw_distance

SECRET, CONTEXT = bytes(range(32)), b"release 1"


def test_a_variance_of_one_table_is_one_draw_a_coordinate():
    noise = CentralNoise(SKELLAM, Fraction(MAX_VARIANCE))
    assert noise.parts == 1
    assert noise.distance == draw_distance(SKELLAM, Fraction(MAX_VARIANCE))
    total = np.arange(1000)
    noise.add_into(total, SECRET, CONTEXT)
    sampler = NoiseSampler(noise_table(SKELLAM, Fraction(MAX_VARIANCE)), SECRET, bytes(4) + CONTEXT)
    assert (total - np.arange(1000) == sampler.draw(1000)).all()


@pytest.mark.parametrize("variance", [Fraction(9), Fraction(11 * MAX_VARIANCE, 5) - Fraction(1, 7)], ids=str)
def test_the_noise_has_the_whole_variance_and_its_parts_are_independent(variance):
    noise = CentralNoise(SKELLAM, variance)
    size = 2**20
    total = np.zeros(size, dtype=np.int64)
    noise.add_into(total, SECRET, CONTEXT)
    assert noise.parts == (1 if variance == 9 else 3)
    # Were the parts equal instead of independent, the variance would be three times as much.
    assert abs(np.var(total) / float(variance) - 1) < 5 * (2 / size) ** 0.5
    assert abs(np.mean(total)) < 5 * (float(variance) / size) ** 0.5


def test_the_distances_of_the_parts_add():
    noise = CentralNoise(SKELLAM, Fraction(2 * MAX_VARIANCE))
    assert noise.distance == 2 * draw_distance(SKELLAM, Fraction(MAX_VARIANCE))


def test_parts_and_contexts_do_not_meet():
    variance = Fraction(2 * MAX_VARIANCE)
    totals = [np.zeros(64, dtype=np.int64) for _ in range(2)]
    for total, context in zip(totals, (CONTEXT, bytes(4) + CONTEXT), strict=True):
        CentralNoise(SKELLAM, variance).add_into(total, SECRET, context)
    assert (totals[0] != totals[1]).sum() > 60


@pytest.mark.parametrize(
    ("kind", "variance", "field"),
    [
        (SKELLAM, Fraction(0), "variance"),
        (SKELLAM, Fraction(-3), "variance"),
        (SKELLAM, 9, "variance"),
        (SKELLAM, Fraction(MAX_PARTS * MAX_VARIANCE + 1), "variance"),
        (DISCRETE_GAUSSIAN, Fraction(MAX_VARIANCE + 1), "variance"),
        ("gaussian", Fraction(9), "kind"),
    ],
)
def test_laws_that_cannot_be_drawn_are_refused_by_name(kind, variance, field):
    with pytest.raises(ParameterError) as refused:
        CentralNoise(kind, variance)
    assert refused.value.field == field


@pytest.mark.parametrize("total", [np.zeros(3, dtype=np.int32), np.zeros(3), [0]], ids=repr)
def test_noise_is_added_to_int64_only(total):
    with pytest.raises(ParameterError) as refused:
        CentralNoise(SKELLAM, Fraction(9)).add_into(total, SECRET, CONTEXT)
    assert refused.value.field == "total"


@pytest.mark.parametrize("side", [-1, 1])
def test_a_sum_near_the_end_of_int64_is_refused_before_any_part_is_added(side):
    noise = CentralNoise(SKELLAM, Fraction(2 * MAX_VARIANCE))
    reach = 2 * noise_table(SKELLAM, Fraction(MAX_VARIANCE)).half_support
    total = np.array([0, side * (2**63 - 1 - reach + 1)])
    before = total.copy()
    with pytest.raises(ParameterError) as refused:
        noise.add_into(total, SECRET, CONTEXT)
    assert refused.value.field == "total"
    assert (total == before).all()
    total[1] -= side
    noise.add_into(total, SECRET, CONTEXT)
