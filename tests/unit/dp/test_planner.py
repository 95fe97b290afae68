"""Plans: what they cost never exceeds the demand, nothing smaller suffices, and every relaxation is true."""

import math
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.calibration import MOST_INDEX, affordable, grid_of, index_below, mechanism_at, variance_at
from dp.charge import epsilon_of
from dp.errors import ParameterError
from dp.flattening import flatten_block, flattened_bound, flattened_dimension, largest_flattening_to
from dp.planner import Demand, MechanismKind, PlanError, plan, ways_to_lower_the_ratio
from dp.plots import draw_plan
from dp.tails import noise_reach
from dp.weights import draw_distance
from secagg.arith import flatten as secagg_flatten
from secagg.arith.fields import FieldLayout

DEMAND = Demand(
    epsilon=Fraction(8),
    delta=Fraction(1, 10**5),
    sessions=10,
    min_survivors=1000,
    corrupt=50,
    dimension=500_000,
    clip=Fraction(1),
    max_contributors=1024,
)
GAUSSIAN = replace(DEMAND, mechanism=MechanismKind.DISCRETE_GAUSSIAN)
HARD = replace(DEMAND, epsilon=Fraction(1, 10), sessions=1000, min_survivors=100, corrupt=10)


@st.composite
def demands(draw):
    survivors = draw(st.integers(1, 20_000))
    return Demand(
        epsilon=draw(st.fractions(Fraction(1, 4), 20, max_denominator=100)),
        delta=Fraction(1, 10 ** draw(st.integers(3, 9))),
        sessions=draw(st.integers(1, 200)),
        min_survivors=survivors,
        corrupt=draw(st.integers(0, survivors - 1)),
        dimension=draw(st.integers(1, 1 << draw(st.integers(1, 24)))),
        clip=draw(st.fractions(Fraction(1, 100), 50, max_denominator=1000)),
        max_contributors=survivors + draw(st.integers(0, 5000)),
        mechanism=draw(st.sampled_from(MechanismKind)),
    )


def cost_of(planned, local_variance):
    """What the sessions cost, asked of the mechanism alone."""
    mechanism = replace(planned.mechanism, local_variance=local_variance)
    return epsilon_of(mechanism.charge().times(planned.demand.sessions), planned.demand.delta).epsilon


def largest_magnitude(planned, extra_bits=0):
    return (1 << (planned.value_bits + extra_bits - 1)) - 1


@settings(max_examples=15, deadline=None)
@given(demands())
def test_a_plan_keeps_to_the_demand_and_one_percent_less_noise_or_one_bit_less_would_not(demand):
    try:
        planned = plan(demand)
    except PlanError:
        return
    cost = cost_of(planned, planned.local_variance)
    assert cost == planned.epsilon <= demand.epsilon
    less = planned.local_variance * Fraction(99, 100)
    if demand.mechanism is MechanismKind.SKELLAM or less >= 4:
        assert cost_of(planned, less) > demand.epsilon
    assert planned.local_variance.denominator <= 10**10
    kind, probability = demand.mechanism.value, Fraction(1, (1 << 64) * demand.max_contributors * demand.dimension)
    needed = math.ceil(planned.scale * demand.clip) + 1 + noise_reach(kind, planned.local_variance, probability)
    assert largest_magnitude(planned) >= needed > largest_magnitude(planned, -1)
    assert planned.clamp_distance == Fraction(1, 1 << 64) < planned.mechanism.distance


@settings(max_examples=15, deadline=None)
@given(demands())
def test_the_grid_is_a_power_of_two_that_inflates_the_norm_by_at_most_one_percent(demand):
    grid = grid_of(demand)
    length = grid.scale * demand.clip
    assert 1 in (grid.scale.numerator, grid.scale.denominator)
    assert (grid.scale.numerator * grid.scale.denominator).bit_count() == 1
    assert length**2 >= 16 * demand.dimension
    assert length**2 <= grid.squared_norm <= length**2 * Fraction(101, 100) ** 2


def test_the_scale_is_the_smallest_with_four_steps_to_a_share_of_the_clip():
    assert plan(replace(DEMAND, dimension=1 << 20)).scale == 4096
    assert plan(replace(DEMAND, dimension=(1 << 20) + 1)).scale == 8192
    assert plan(replace(DEMAND, clip=Fraction(10_000))).scale == Fraction(1, 2)


@pytest.mark.parametrize(("sessions", "sigma"), [(1, 0.643), (100, 6.43)])
def test_the_worked_example_of_the_design_comes_out(sessions, sigma):
    planned = plan(replace(DEMAND, sessions=sessions, min_survivors=100, corrupt=0, dimension=1 << 20))
    assert (planned.scale, planned.squared_norm) == (4096, 17_043_968)
    assert planned.total_sigma == pytest.approx(sigma, rel=1e-3)
    assert planned.epsilon == pytest.approx(8, rel=1e-3)


def test_the_ratio_of_the_design_comes_out():
    planned = plan(replace(DEMAND, sessions=1, min_survivors=100, corrupt=0, dimension=10**6))
    assert planned.signal_ratio == pytest.approx(6.4, abs=0.05)
    padded = plan(replace(DEMAND, sessions=1, min_survivors=100, corrupt=0, dimension=1 << 20))
    assert padded.signal_ratio == pytest.approx(6.6, abs=0.05)
    assert padded.signal_ratio == pytest.approx(padded.total_sigma * 1024 / 100)


def test_colluders_are_paid_for_with_the_noise_of_the_others():
    alone, with_colluders = plan(replace(DEMAND, corrupt=0)), plan(replace(DEMAND, corrupt=500))
    assert with_colluders.local_variance == pytest.approx(2 * alone.local_variance, rel=2e-3)
    assert with_colluders.honest_sigma == pytest.approx(alone.total_sigma, rel=1e-3)
    assert with_colluders.mechanism.corrupt == 500


def test_more_survivors_than_the_fewest_cost_less():
    planned = plan(DEMAND)
    more = planned.mechanism.with_survivors(1024)
    assert epsilon_of(more.charge().times(10), DEMAND.delta).epsilon < planned.epsilon


def test_one_session_costs_less_than_all_of_them_and_as_much_when_there_is_one():
    planned = plan(DEMAND)
    assert planned.single_session.epsilon < planned.epsilon / 3
    one = plan(replace(DEMAND, sessions=1))
    assert one.single_session.epsilon == one.epsilon


@pytest.mark.parametrize("most", [1024, 1025, 3000])
@pytest.mark.parametrize("dimension", [1, 2, 1000, 500_000])
def test_lanes_and_bytes_are_those_of_the_layout_that_packs_contributions(most, dimension):
    planned = plan(replace(DEMAND, max_contributors=most, dimension=dimension))
    layout = FieldLayout(planned.value_bits, most, dimension)
    assert (planned.field_bits, planned.fields_per_lane, planned.lanes) == (
        layout.field_bits,
        layout.fields_per_lane,
        layout.lanes,
    )
    assert planned.upload_bytes == 8 * layout.lanes


def test_a_smaller_coordinate_bound_narrows_the_field_and_changes_no_noise():
    plain = plan(replace(DEMAND, dimension=1 << 20, sessions=1))
    flat = plan(replace(plain.demand, coordinate_bound=flattened_bound(Fraction(1), 1 << 20)))
    assert flat.local_variance == plain.local_variance
    assert flat.value_bits < plain.value_bits


def test_a_discrete_gaussian_gets_a_finer_grid_where_its_share_would_be_too_small():
    crowd = replace(GAUSSIAN, min_survivors=100_000, max_contributors=1 << 17, dimension=1000)
    planned, coarse = plan(crowd), plan(replace(crowd, mechanism=MechanismKind.SKELLAM))
    assert planned.local_variance >= 4 > coarse.local_variance
    assert planned.scale > coarse.scale
    assert planned.total_sigma == pytest.approx(coarse.total_sigma, rel=0.02)


@pytest.mark.parametrize("kind", MechanismKind)
@pytest.mark.parametrize("variance", [4, 5, 900, 72_460, 6_940_000, 67_100_000])
def test_the_search_takes_a_draw_for_at_least_as_far_from_the_ideal_as_the_sampler_says(kind, variance):
    reach = noise_reach(kind.value, Fraction(variance), Fraction(1, 1 << 128))
    assert Fraction(reach // 2 + 8, 1 << 128) >= draw_distance(kind.value, Fraction(variance))


@settings(max_examples=200, deadline=None)
@given(st.integers(-60_000, MOST_INDEX))
def test_local_variances_are_counted_in_order_and_found_again(index):
    variance = variance_at(index)
    assert variance < variance_at(index + 1) <= variance * Fraction(1001, 1000)
    assert index_below(variance) == index == index_below((variance + variance_at(index + 1)) / 2)


@pytest.mark.parametrize(
    "demand",
    [
        HARD,
        replace(HARD, mechanism=MechanismKind.DISCRETE_GAUSSIAN),
        replace(HARD, epsilon=Fraction(2), sessions=2000, min_survivors=100),
        replace(DEMAND, dimension=1 << 32, min_survivors=12, corrupt=9),
        replace(DEMAND, delta=Fraction(1, 10**19)),
        replace(DEMAND, delta=Fraction(1, 10**30), epsilon=Fraction(1, 10), sessions=1000, min_survivors=100),
        replace(DEMAND, epsilon=Fraction(1, 200), sessions=1000, dimension=1 << 32),
        replace(DEMAND, epsilon=Fraction(1, 1000), sessions=10**6, min_survivors=3, corrupt=2, dimension=1 << 32),
    ],
)
def test_every_relaxation_is_enough_and_the_value_before_it_is_not(demand):
    with pytest.raises(PlanError) as caught:
        plan(demand)
    assert caught.value.reason
    assert caught.value.relaxations
    for way in caught.value.relaxations:
        relaxed = plan(way.demand)
        assert relaxed.epsilon <= way.demand.epsilon
        assert getattr(way.demand, way.field) == way.needed != way.now == getattr(demand, way.field)
        with pytest.raises(PlanError):
            plan(replace(way.demand, **{way.field: back_from(way)}))


def back_from(way):
    """One step of a whole number, half a percent of any other."""
    if way.field in {"epsilon", "delta"}:
        return way.needed * Fraction(199, 200)
    return way.needed + (1 if way.needed < way.now else -1)


def test_a_search_that_errs_makes_no_plan_and_no_relaxation_that_breaks_the_demand(monkeypatch):
    def too_hopeful(demand, grid, variance):
        return affordable(demand, grid, variance * Fraction(2001, 2000))

    with monkeypatch.context() as patch:
        patch.setattr("dp.calibration.affordable", too_hopeful)
        patch.setattr("dp.relaxations.affordable", too_hopeful)
        assert plan(DEMAND).epsilon <= 8
        with pytest.raises(PlanError) as caught:
            plan(HARD)
    assert caught.value.relaxations
    for way in caught.value.relaxations:
        assert plan(way.demand).epsilon <= way.demand.epsilon


def test_several_kinds_of_demand_are_offered_to_be_relaxed():
    with pytest.raises(PlanError) as caught:
        plan(replace(HARD, epsilon=Fraction(2)))
    assert {"epsilon", "min_survivors", "sessions", "dimension"} <= {way.field for way in caught.value.relaxations}
    with pytest.raises(PlanError, match="delta is too small") as caught:
        plan(replace(DEMAND, delta=Fraction(1, 10**18)))
    assert {"delta", "sessions"} == {way.field for way in caught.value.relaxations}


def test_a_larger_delta_is_offered_only_where_it_is_below_one_in_all_contributors():
    for most in (1, 1024, 1 << 28):
        demand = replace(DEMAND, min_survivors=1, corrupt=0, max_contributors=most, epsilon=Fraction(1, 4))
        with pytest.raises(PlanError) as caught:
            plan(replace(demand, sessions=1, dimension=26_844))
        assert all(
            way.needed <= Fraction(1, max(most, 1000)) for way in caught.value.relaxations if way.field == "delta"
        )


def test_more_survivors_come_with_room_for_them():
    with pytest.raises(PlanError) as caught:
        plan(HARD)
    way = next(way for way in caught.value.relaxations if way.field == "min_survivors")
    assert way.demand.max_contributors == 1 << (way.needed - 1).bit_length()
    assert way.besides(HARD) == {"max_contributors": way.demand.max_contributors}


@pytest.mark.parametrize("demand", [DEMAND, GAUSSIAN, replace(DEMAND, clip=Fraction(30), corrupt=0, sessions=9)])
def test_each_way_to_lower_the_ratio_brings_it_to_one_and_hardly_below(demand):
    planned = plan(demand)
    assert planned.signal_ratio > 1
    ways = ways_to_lower_the_ratio(planned, Fraction(1))
    assert {"min_survivors", "dimension"} <= {way.field for way in ways}
    for way in ways:
        ratio = plan(way.demand).signal_ratio
        assert ratio <= 1
        if way.field != "sessions":
            assert ratio > 0.98


def test_an_epsilon_that_nothing_costs_is_planned_for_what_clamping_allows():
    planned = plan(replace(DEMAND, epsilon=Fraction(1000)))
    assert planned.epsilon < 40


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", Fraction(0)),
        ("epsilon", Fraction(-1)),
        ("epsilon", Fraction(1001)),
        ("epsilon", float("nan")),
        ("epsilon", 8),
        ("delta", Fraction(0)),
        ("delta", Fraction(1)),
        ("delta", Fraction(-1, 10)),
        ("sessions", 0),
        ("sessions", 10**6 + 1),
        ("sessions", 1.0),
        ("min_survivors", 0),
        ("corrupt", -1),
        ("corrupt", 1000),
        ("dimension", 0),
        ("dimension", (1 << 32) + 1),
        ("clip", Fraction(0)),
        ("clip", Fraction(-1)),
        ("clip", Fraction((1 << 64) + 1)),
        ("clip", Fraction(1, (1 << 64) + 1)),
        ("max_contributors", 999),
        ("max_contributors", (1 << 28) + 1),
        ("mechanism", "skellam"),
        ("coordinate_bound", Fraction(0)),
        ("coordinate_bound", Fraction(2)),
    ],
)
def test_a_demand_that_makes_no_sense_is_refused_by_name(field, value):
    with pytest.raises(ParameterError) as caught:
        replace(DEMAND, **{field: value})
    assert caught.value.field == field


def test_a_plan_that_costs_more_than_the_demand_cannot_be_made():
    planned = plan(DEMAND)
    for field, value in (("epsilon", 8.01), ("epsilon", math.nan), ("value_bits", 33), ("value_bits", 1)):
        with pytest.raises(ParameterError) as caught:
            replace(planned, **{field: value})
        assert caught.value.field == field


def test_flattening_follows_the_formula_that_vectors_are_flattened_by():
    for dimension in (1, 2, 3, 255, 1000, 65_536, 65_537, 500_000, 10**7):
        assert flatten_block(dimension) == secagg_flatten.flatten_block(dimension)
        assert flattened_dimension(dimension) == secagg_flatten.flattened_dimension(dimension)
        theirs = secagg_flatten.flattened_bound(Fraction(3, 2), dimension)
        assert flattened_bound(Fraction(3, 2), dimension) == min(theirs, Fraction(3, 2))
    with pytest.raises(ParameterError, match="clip"):
        flattened_bound(Fraction(0), 5)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 1 << 20))
def test_the_largest_dimension_that_flattens_to_so_many_is_the_largest(padded):
    dimension = largest_flattening_to(padded)
    assert flattened_dimension(dimension) <= padded < flattened_dimension(dimension + 1)


@pytest.mark.parametrize(
    ("demand", "suffix"),
    [
        (DEMAND, "svg"),
        (replace(GAUSSIAN, sessions=1), "png"),
        (replace(DEMAND, min_survivors=3, corrupt=2, dimension=99), "png"),
    ],
)
def test_a_plan_is_drawn_in_1200_by_500_pixels(tmp_path, demand, suffix):
    path = tmp_path / f"plan.{suffix}"
    draw_plan(plan(demand), path)
    data = path.read_bytes()
    if suffix == "png":
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (1200, 500)
    else:
        assert b"<svg" in data
        again = tmp_path / "again.svg"
        draw_plan(plan(demand), again)
        assert again.stat().st_size == path.stat().st_size


def test_the_curves_of_a_picture_go_through_the_plan_and_refused_survivors_are_marked(monkeypatch):
    from matplotlib import figure

    seen = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **_: seen.append(self))
    planned = plan(DEMAND)
    draw_plan(planned, Path("unused.png"))
    noise, survivors = seen[0].axes
    for axes, at in ((noise, planned.total_sigma), (survivors, 1000)):
        x, y = axes.lines[0].get_data()
        assert np.exp(np.interp(math.log(at), np.log(x), np.log(y))) == pytest.approx(planned.epsilon, rel=0.01)
        assert (np.diff(y[np.isfinite(y)]) < 0).all()
        assert "plan" in axes.get_legend().get_texts()[-1].get_text()
        assert axes.get_xlabel()
        assert axes.get_ylabel() == "epsilon"
    assert [text.get_text() for text in survivors.texts] == ["refused: fewer than 1,000"]
    assert survivors.patches[0].get_extents().x1 == pytest.approx(survivors.transData.transform((1000, 1))[0])


def test_matplotlib_is_asked_for_by_name_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ParameterError, match=r'plot: needs matplotlib: pip install "secagg-lora\[plots\]"'):
        draw_plan(plan(DEMAND), tmp_path / "plan.png")


def test_the_mechanism_of_a_plan_is_what_its_parts_say():
    planned = plan(DEMAND)
    draws = 1024 * 500_000 * draw_distance("skellam", planned.local_variance)
    assert planned.mechanism.distance == Fraction(1, 1 << 64) + draws
    assert planned.mechanism == mechanism_at(DEMAND, grid_of(DEMAND), planned.local_variance)
    assert planned.mechanism.survivors == 1000
