"""From means back to updates: exact where ranks fit, honest about the error where they do not."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.lora.manifest import MergedModule
from secagg.lora.maps import LinearMaps, fixed_name
from secagg.lora.merge_report import MergeReport, ModuleReport
from secagg.lora.pieces import pieces_of
from secagg.lora.reconstruction import basis_of, reconstruct
from secagg.transcript.merge import BasisMerge, DenseMerge, ProjectionMerge, SketchMerge
from tests.unit.lora.merging_stage import (
    FREE,
    MODULES,
    Shape,
    adapter_of,
    dense,
    factors,
    frozen_factors,
    mean_of,
    session,
    silent,
    updates_in,
    with_bases,
)

ENOUGH = Shape(columns=8, core_columns=16, probe_columns=4, rank=6)
"""Two more columns than all contributors of these tests have ranks; the very least may be badly conditioned."""
seeds = st.integers(0, 2**32 - 1)


def mean_updates(contributors):
    """The oracle: the mean of the dense updates, by path."""
    updates = [dense(each) for each in contributors]
    return {path: np.mean([update[path] for update in updates], axis=0) for path in updates[0]}


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def contributors_of(seed):
    """Ranks 1, 2 and 3 and starts of their own."""
    return [factors(seed + rank, rank) for rank in (1, 2, 3)]


@pytest.mark.parametrize("strategy", ["dense", "sketch", "two-session", "pilot-1", "pilot-2"])
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_the_mean_comes_back_exactly_where_columns_and_rank_suffice_for_all_contributors(strategy, seed):
    contributors = contributors_of(seed)
    adapters = [adapter_of(each) for each in contributors]
    if strategy == "two-session":
        merging = with_bases("projection", session("range", shape=ENOUGH), adapters, shape=ENOUGH)
    elif strategy.startswith("pilot"):
        # Pilots and others are the same people here, so that the pilots' bases hold what the others have.
        merging = with_bases(f"basis-{strategy[-1]}", session(strategy, shape=ENOUGH), adapters, shape=ENOUGH)
    else:
        merging = session(strategy, shape=ENOUGH)
    tensors, report = merging.merged(mean_of(merging, adapters), 3, silent)
    expected = mean_updates(contributors)
    for path, update in updates_in(merging, tensors).items():
        assert relative(update, expected[path]) < 5e-4
    assert all(module.error_ppm <= 500 for module in report.modules)
    assert all(abs(module.scalar_ppm - 1e6) <= 500 for module in report.modules)
    assert not report.is_degraded
    squares = {path: np.sum(update**2) for path, update in expected.items()}
    for module in report.modules:
        assert module.energy_ppm == pytest.approx(1e6 * squares[module.path] / sum(squares.values()), rel=1e-2)


def test_as_many_columns_as_ranks_together_suffice_and_one_less_is_far_off_and_says_so():
    contributors = contributors_of(1)
    adapters = [adapter_of(each) for each in contributors]
    expected = mean_updates(contributors)
    merging = session("sketch", shape=Shape(columns=6, core_columns=10, probe_columns=4, rank=6))
    tensors, _ = merging.merged(mean_of(merging, adapters), 3, silent)
    assert all(relative(update, expected[path]) < 1e-4 for path, update in updates_in(merging, tensors).items())
    merging = session("sketch", shape=Shape(columns=5, core_columns=10, probe_columns=8, rank=6))
    tensors, report = merging.merged(mean_of(merging, adapters), 3, silent)
    for module, (path, update) in zip(report.modules, updates_in(merging, tensors).items(), strict=True):
        error = relative(update, expected[path])
        assert error > 0.02
        assert module.error_ppm / 1e6 == pytest.approx(error, rel=0.5)


def test_frozen_a_is_exact_whatever_the_number_of_contributors():
    merging = session("frozen-a")
    contributors = [frozen_factors(merging, seed) for seed in range(7)]
    tensors, report = merging.merged(mean_of(merging, [adapter_of(each) for each in contributors]), 7, silent)
    expected = mean_updates(contributors)
    for path, update in updates_in(merging, tensors).items():
        assert relative(update, expected[path]) < 1e-6
    assert [(module.error_ppm, module.scalar_ppm) for module in report.modules] == [(0, 10**6)] * len(MODULES)
    for module in merging.manifest:
        assert np.array_equal(
            tensors[module.a_name].reshape(-1, module.columns), merging.maps.fixed[fixed_name(module, "a")]
        )


def test_dense_gives_the_best_update_of_the_rank_and_knows_its_error():
    merging = session("dense", shape=Shape(rank=2))
    contributors = contributors_of(4)
    tensors, report = merging.merged(mean_of(merging, [adapter_of(each) for each in contributors]), 3, silent)
    expected = mean_updates(contributors)
    for module, (path, update) in zip(report.modules, updates_in(merging, tensors).items(), strict=True):
        values = np.linalg.svd(expected[path], compute_uv=False)
        best = math.sqrt(np.sum(values[2:] ** 2) / np.sum(values**2))
        assert relative(update, expected[path]) == pytest.approx(best, rel=1e-4)
        assert module.error_ppm == pytest.approx(1e6 * best, abs=50)


@pytest.mark.parametrize("strategy", FREE)
def test_nothing_but_zeros_gives_zeros_and_no_error(strategy):
    merging = session(strategy)
    nothing = np.zeros(merging.layout.dimension, np.float32)
    files = merging.aggregate(nothing, 3, silent)
    if "merge.json" not in files:
        return
    tensors, report = merging.merged(nothing, 3, silent)
    assert all(not (tensors[module.a_name].any() and tensors[module.b_name].any()) for module in merging.manifest)
    assert not report.is_degraded
    assert report.error_ppm == 0


def test_a_merged_adapter_of_more_rank_than_there_is_is_filled_up_with_zeros():
    merging = session("sketch", shape=Shape(columns=4, core_columns=8, rank=7))
    tensors, _ = merging.merged(mean_of(merging, [adapter_of(factors(1, 2))]), 1, silent)
    for module in merging.manifest:
        assert tensors[module.a_name].shape == module.a_shape(7)
        assert tensors[module.b_name].shape == module.b_shape(7)
        assert not tensors[module.a_name][4:].any()


LAYER = MergedModule("layer", "linear", 96, 80)


def maps_of(strategy, seed, update):
    """The maps of a session with these test matrices; bases are those of a first session over the same update."""
    norm, bases = Fraction(64), {}
    if strategy == "sketch":
        return LinearMaps(SketchMerge(norm, seed, 12, 48, 8))
    generator = np.random.default_rng(list(seed))
    bases["layer/left"] = basis_of(update @ generator.standard_normal((80, 12))).astype(np.float32)
    bases["layer/right"] = basis_of(update.T @ generator.standard_normal((96, 12))).astype(np.float32)
    if strategy == "two-session":
        return LinearMaps(ProjectionMerge(norm, seed, 12, 8, bytes(16), bytes(32), bytes(32)), bases)
    return LinearMaps(BasisMerge(norm, seed, 12, 2, 16, Fraction(1, 5), bytes(16), bytes(32)), bases)


def merged(strategy, seed, update):
    """Error and estimate of what a session over ``update`` merges to, and the error without the scalar."""
    maps, pieces = maps_of(strategy, seed, update), {}
    for piece, shape in pieces_of(maps.merge, LAYER, 6).items():
        left, right = maps.sides(LAYER, piece, shape)
        value = update if left is None else left.T.astype(np.float64) @ update
        pieces[piece] = value if right is None else value @ right.astype(np.float64)
    result = reconstruct(LAYER, 6, pieces, maps)
    whole = result.left @ result.right
    unscaled = relative(whole / result.scalar, update) if result.scalar else math.inf
    return relative(whole, update), result, unscaled


def decaying(seed):
    """Singular values 1/j and directions at random, fp64[96, 80]."""
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.standard_normal((size, 80)))[0] for size in (96, 80))
    return left / np.arange(1, 81) @ right.T


@pytest.mark.parametrize(("strategy", "spread"), [("sketch", 0.10), ("two-session", 0.10), ("pilot-2", 0.15)])
def test_the_estimated_error_is_that_of_the_mean_within_its_spread(strategy, spread):
    """docs/merging.md: 1.00 with a deviation of 0.03 to 0.08; here the matrices are smaller."""
    ratios = []
    for trial in range(120):
        error, result, _ = merged(strategy, trial.to_bytes(32, "big"), decaying(trial))
        ratios.append(result.error / error)
        assert result.energy == pytest.approx(np.sum(decaying(trial) ** 2), rel=0.5)
    assert np.mean(ratios) == pytest.approx(1, abs=0.04)
    assert np.std(ratios) < spread
    assert 0.6 < min(ratios) < max(ratios) < 1.6


def test_the_scalar_takes_a_flat_spectrum_back_to_an_error_of_one():
    """Without it, what one sketch makes of nothing in common is worse than no update at all."""
    generator = np.random.default_rng(3)
    worse = 0
    for trial in range(30):
        error, result, unscaled = merged("sketch", trial.to_bytes(32, "big"), generator.standard_normal((96, 80)))
        assert error <= 1.01
        assert result.error == pytest.approx(error, abs=0.06)
        assert 0 <= result.scalar < 1
        worse += unscaled > 1.02
    assert worse >= 25


def test_a_basis_is_orthonormal_spans_its_sum_and_has_one_sign():
    sums = np.random.default_rng(0).standard_normal((30, 5))
    basis = basis_of(sums)
    assert np.allclose(basis.T @ basis, np.eye(5))
    assert np.allclose(basis @ (basis.T @ sums), sums)
    assert (np.diagonal(basis.T @ sums) > 0).all()
    assert np.allclose(basis_of(-sums), -basis)


def test_factors_of_a_merged_adapter_are_balanced_and_their_signs_fixed():
    update = decaying(1)
    maps = LinearMaps(DenseMerge(Fraction(1)))
    one, other = (reconstruct(LAYER, 6, {"update": value}, maps) for value in (update, update[:, ::-1]))
    for column in range(6):
        assert np.linalg.norm(one.left[:, column]) == pytest.approx(np.linalg.norm(one.right[column]))
        assert one.left[np.argmax(np.abs(one.left[:, column])), column] > 0
    assert np.allclose(other.left, one.left)


def report_of(*modules):
    return MergeReport(
        "sketch", 5, 0, 0, tuple(ModuleReport(f"m{i}", "update", *m, 10**6) for i, m in enumerate(modules))
    )


@pytest.mark.parametrize(
    ("modules", "degraded"),
    [
        ([(10**6, 350_000)], 0),
        ([(10**6, 350_001)], 1),
        ([(250_000, 900_000), (750_000, 0)], 0),
        ([(250_001, 900_000), (749_999, 0)], 1),
        ([(130_000, 400_000), (130_000, 400_000), (740_000, 10_000)], 1),
    ],
)
def test_an_adapter_is_degraded_when_a_quarter_of_its_energy_is_poor(modules, degraded):
    report = report_of(*modules)
    assert report.is_degraded == bool(degraded)
    assert f'"degraded":{degraded}'.encode() in report.to_bytes()


def test_the_error_of_the_whole_is_that_of_the_modules_by_energy():
    assert report_of((640_000, 500_000), (360_000, 0)).error_ppm == 400_000
    assert report_of((0, 0)).error_ppm == 0
