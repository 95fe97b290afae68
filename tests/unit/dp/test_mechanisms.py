"""Mechanisms as values: what they cost beside each other, and their one spelling."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.charge import epsilon_of
from dp.errors import ParameterError
from dp.mechanisms import (
    DistributedDiscreteGaussian,
    DistributedSkellam,
    Gaussian,
    NoNoise,
    Skellam,
    mechanism_from_json,
)
from dp.rdp import discrete_gaussian_rdp, gaussian_rdp, skellam_rdp
from dp.sensitivity import Sensitivity

SENSITIVITY = Sensitivity.of_squared_norm(10**6, 1000)
DISTRIBUTED = [DistributedSkellam, DistributedDiscreteGaussian]

sensitivities = st.builds(Sensitivity.of_squared_norm, st.integers(0, 2**48 - 1), st.integers(1, 2**32))
variances = st.fractions(4, 10**9, max_denominator=10**9)
distances = st.just(Fraction(0)) | st.fractions(0, 1, max_denominator=2**128)


@st.composite
def distributed(draw, most=60):
    survivors = draw(st.integers(1, most))
    corrupt = draw(st.integers(0, survivors - 1))
    kind = draw(st.sampled_from(DISTRIBUTED))
    return kind(draw(variances), survivors, corrupt, draw(sensitivities), draw(distances))


mechanisms = st.one_of(
    distributed(),
    st.builds(Skellam, variances, sensitivities, distances),
    st.builds(Gaussian, st.fractions(Fraction(1, 1000), 1000)),
    st.just(NoNoise()),
)


@settings(max_examples=300, deadline=None)
@given(mechanisms)
def test_a_mechanism_comes_back_from_its_spelling(mechanism):
    spelled = json.loads(json.dumps(mechanism.to_json()))
    back = mechanism_from_json(spelled)
    assert back == mechanism
    assert type(back) is type(mechanism)
    assert back.to_json() == mechanism.to_json()
    assert (back.charge().rdp == mechanism.charge().rdp).all()
    assert back.charge().distance == mechanism.charge().distance


def test_the_spelling_is_what_records_hold():
    distributed_skellam = DistributedSkellam(Fraction(5), 70, 10, SENSITIVITY, Fraction(1, 2**64))
    assert list(distributed_skellam.to_json().items()) == [
        ("mechanism", "distributed-skellam"),
        ("local_variance", "5/1"),
        ("survivors", 70),
        ("corrupt", 10),
        ("squared_l2", 1_000_000),
        ("l1", 31_623),
        ("dimension", 1000),
        ("distance", "1/18446744073709551616"),
    ]
    assert DistributedDiscreteGaussian(Fraction(9, 2), 2, 0, SENSITIVITY).to_json() == {
        "mechanism": "distributed-discrete-gaussian",
        "local_variance": "9/2",
        "survivors": 2,
        "corrupt": 0,
        "squared_l2": 1_000_000,
        "l1": 31_623,
        "dimension": 1000,
        "distance": "0/1",
    }
    assert Skellam(Fraction(7, 3), Sensitivity(0, 0, 1)).to_json() == {
        "mechanism": "skellam",
        "variance": "7/3",
        "squared_l2": 0,
        "l1": 0,
        "dimension": 1,
        "distance": "0/1",
    }
    assert Gaussian(Fraction(3, 2)).to_json() == {"mechanism": "gaussian", "noise_multiplier": "3/2"}
    assert NoNoise().to_json() == {"mechanism": "no-noise"}


SPELLED = [
    Skellam(Fraction(7, 3), SENSITIVITY, Fraction(1, 9)).to_json(),
    DistributedSkellam(Fraction(5), 70, 10, SENSITIVITY).to_json(),
    DistributedDiscreteGaussian(Fraction(5), 70, 10, SENSITIVITY).to_json(),
    Gaussian(Fraction(3, 2)).to_json(),
    NoNoise().to_json(),
]
NOT_CANONICAL = [
    "2/4", "0/2", "5", "05/1", "5/01", "5/0", "1/0", "-5/1", "+5/1", " 5/1", "5/1 ", "5/1\n", "5 / 1", "1_0/1", "5.0/1",
    "1e3/1", "\u0665/1", "7/1\u0665", "", "/", "5/", "/1", "nan", "inf/1", "5/1/1", "9" * 5000 + "/1",
    5, 5.0, float("nan"), True, None, [5, 1], {"n": 5},
]  # fmt: skip
NOT_INTEGERS = [True, False, 5.0, float("nan"), float("inf"), "5", "5/1", None, [5], -1, 10**5000]


@pytest.mark.parametrize("spelled", SPELLED, ids=lambda spelled: spelled["mechanism"])
def test_each_missing_unknown_or_mistyped_member_is_refused_by_its_name(spelled):
    with pytest.raises(ParameterError, match=r"^more: is unknown"):
        mechanism_from_json({**spelled, "more": 1})
    with pytest.raises(ParameterError, match="is unknown"):
        mechanism_from_json({**spelled, 7: 1})
    for name in spelled:
        with pytest.raises(ParameterError) as refused:
            mechanism_from_json({key: value for key, value in spelled.items() if key != name})
        assert refused.value.field == name
        wrong = ["no such", True, None, 1] if name == "mechanism" else NOT_CANONICAL
        for value in NOT_INTEGERS if isinstance(spelled[name], int) else wrong:
            with pytest.raises(ParameterError) as refused:
                mechanism_from_json({**spelled, name: value})
            assert refused.value.field == name, value


def test_members_of_another_mechanism_are_refused():
    for spelled in SPELLED:
        for other in SPELLED:
            if set(spelled) != set(other):
                with pytest.raises(ParameterError):
                    mechanism_from_json({**spelled, "mechanism": other["mechanism"]})


@pytest.mark.parametrize("value", [None, 5, "skellam", ["mechanism", "skellam"], {}, [], {"mechanism": ["skellam"]}])
def test_what_is_no_object_with_a_name_is_refused(value):
    with pytest.raises(ParameterError, match=r"^mechanism: "):
        mechanism_from_json(value)


@settings(max_examples=150, deadline=None)
@given(distributed(), st.integers(0, 60))
def test_more_survivors_never_cost_more(mechanism, more):
    settled = mechanism.with_survivors(mechanism.survivors + more)
    assert settled.survivors == mechanism.survivors + more
    assert type(settled) is type(mechanism)
    assert mechanism.charge().covers(settled.charge())
    if more and mechanism.sensitivity.squared_l2:
        assert not settled.charge().covers(mechanism.charge())


@pytest.mark.parametrize("l1", [1, 2**47])
@pytest.mark.parametrize("dimension", [1, 2**32])
def test_more_survivors_never_cost_more_where_the_discrete_gaussian_strays_most(l1, dimension):
    # The narrowest noise and the least sensitivity: what a further client adds to tau weighs most.
    charges = [
        DistributedDiscreteGaussian(Fraction(4), survivors, 0, Sensitivity(1, l1, dimension)).charge()
        for survivors in (*range(1, 40), 1000, 1001, 2**20 - 1, 2**20)
    ]
    for before, after in itertools.pairwise(charges):
        assert before.covers(after)


@pytest.mark.parametrize("kind", DISTRIBUTED)
def test_fewer_survivors_than_promised_are_refused(kind):
    mechanism = kind(Fraction(5), 70, 10, SENSITIVITY)
    for fewer in (69, 0, -1, True, 70.0, None, 2**28 + 1):
        with pytest.raises(ParameterError, match=r"^survivors: "):
            mechanism.with_survivors(fewer)
    assert mechanism.with_survivors(70) == mechanism


def test_the_noise_of_colluders_counts_for_nothing():
    together = DistributedSkellam(Fraction(5), 70, 10, SENSITIVITY)
    assert (together.charge().rdp == Skellam(Fraction(300), SENSITIVITY).charge().rdp).all()
    assert (together.charge().rdp == skellam_rdp(Fraction(300), SENSITIVITY)).all()
    lattice = DistributedDiscreteGaussian(Fraction(5), 70, 10, SENSITIVITY)
    assert (lattice.charge().rdp == discrete_gaussian_rdp(Fraction(5), 60, SENSITIVITY)).all()
    assert (Gaussian(Fraction(3)).charge().rdp == gaussian_rdp(Fraction(3))).all()


@settings(max_examples=60, deadline=None)
@given(distributed(), distances)
def test_the_distance_is_part_of_the_charge(mechanism, distance):
    assert mechanism.charge().distance == mechanism.distance
    assert Skellam(Fraction(9), SENSITIVITY, distance).charge().distance == distance


def test_no_noise_costs_more_than_any_budget():
    assert np.isinf(NoNoise().charge().rdp).all()
    assert epsilon_of(NoNoise().charge(), Fraction(999, 1000)).epsilon == float("inf")


BAD_VARIANCES = [float("nan"), float("inf"), 5, 5.0, True, "5/1", None, Fraction(0), Fraction(-5), Fraction(2**129)]
BAD_DISTANCES = [float("nan"), 0, 0.0, None, "0/1", Fraction(-1, 2**64), Fraction(2**64 + 1, 2**64)]


@pytest.mark.parametrize("kind", DISTRIBUTED)
def test_a_distributed_mechanism_that_cannot_be_is_refused_by_its_field(kind):
    cases = [
        *(("local_variance", (bad, 70, 10, SENSITIVITY)) for bad in BAD_VARIANCES),
        *(
            ("survivors", (Fraction(5), bad, 0, SENSITIVITY))
            for bad in (0, -1, 2**28 + 1, True, 70.0, None, np.int64(9))
        ),
        *(("corrupt", (Fraction(5), 70, bad, SENSITIVITY)) for bad in (70, 71, -1, True, 1.0, None, float("nan"))),
        *(("sensitivity", (Fraction(5), 70, 10, bad)) for bad in (None, 5, (1, 1, 1))),
        *(("distance", (Fraction(5), 70, 10, SENSITIVITY, bad)) for bad in BAD_DISTANCES),
    ]
    for field, values in cases:
        with pytest.raises(ParameterError) as refused:
            kind(*values)
        assert refused.value.field == field, values


def test_a_central_mechanism_that_cannot_be_is_refused_by_its_field():
    cases = [
        *(("variance", Skellam, (bad, SENSITIVITY)) for bad in BAD_VARIANCES),
        ("sensitivity", Skellam, (Fraction(5), None)),
        *(("distance", Skellam, (Fraction(5), SENSITIVITY, bad)) for bad in BAD_DISTANCES),
        *(("noise_multiplier", Gaussian, (bad,)) for bad in BAD_VARIANCES),
    ]
    for field, kind, values in cases:
        with pytest.raises(ParameterError) as refused:
            kind(*values)
        assert refused.value.field == field, values


def test_a_discrete_gaussian_narrower_than_two_is_refused():
    with pytest.raises(ParameterError, match=r"^local_variance: must be at least 4"):
        DistributedDiscreteGaussian(Fraction(399, 100), 70, 10, SENSITIVITY)
    assert DistributedSkellam(Fraction(399, 100), 70, 10, SENSITIVITY).charge().rdp.all()
