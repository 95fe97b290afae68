"""Messages are linear in the updates, the same in every gauge, bounded, and clamped only where that is counted."""

from __future__ import annotations

import dataclasses
import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.sampler import NoiseSampler
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.derive.result import decode
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.manifest import MergedModule
from secagg.lora.maps import fixed_name
from secagg.lora.pieces import CLIPPED, piece_name, pieces_of
from secagg.lora.updates import joint_norm
from secagg.privacy.session_noise import table_of
from secagg.runtime import vectors
from secagg.transcript.encoding import CoordinateRange, Encoding, NoFlattening
from secagg.transcript.noise import NoDifferentialPrivacy
from simulations.world.noise import with_noise
from tests.support.cohort import key_of, session_of
from tests.unit.lora.merging_stage import (
    CONVOLUTION,
    EMBEDDING,
    FREE,
    LINEAR,
    MODULES,
    STRATEGIES,
    Shape,
    adapter_of,
    dense,
    factors,
    frozen_factors,
    session,
    sum_of,
)

seeds = st.integers(0, 2**32 - 1)
ranks = st.integers(1, 6)


def close(one, two, tolerance=1e-5):
    return np.linalg.norm(one - two) <= tolerance * max(np.linalg.norm(one), np.linalg.norm(two))


@pytest.mark.parametrize("strategy", FREE)
@settings(max_examples=8, deadline=None)
@given(seed=seeds, rank=ranks, other=ranks)
def test_the_message_of_a_sum_is_the_sum_of_the_messages(strategy, seed, rank, other):
    merging = session(strategy, counts_clipping=False)
    one, two = factors(seed, rank), factors(seed + 1, other)
    first, second, both = (merging.message(adapter_of(each)) for each in (one, two, sum_of(one, two)))
    assert both.factor == 1
    assert close(first.vector + second.vector, both.vector)


@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_with_frozen_a_the_message_of_a_sum_is_the_sum_of_the_messages(seed):
    merging = session("frozen-a", counts_clipping=False, norm=Fraction(2**10))
    one, two = frozen_factors(merging, seed), frozen_factors(merging, seed + 1)
    both = {path: (b + two[path][0], a) for path, (b, a) in one.items()}
    vectors_ = [merging.message(adapter_of(each)).vector for each in (one, two, both)]
    assert close(vectors_[0] + vectors_[1], vectors_[2])


@pytest.mark.parametrize("strategy", FREE)
def test_every_piece_is_the_update_between_its_two_matrices(strategy):
    merging, given_factors = session(strategy), factors(5, 4)
    places = merging.layout.split(merging.message(adapter_of(given_factors)).vector)
    updates = dense(given_factors)
    for module in merging.manifest:
        for piece, shape in pieces_of(merging.merge, module, merging.rank).items():
            left, right = merging.maps.sides(module, piece, shape)
            expected = updates[module.path]
            expected = expected if left is None else left.astype(np.float64).T @ expected
            expected = expected if right is None else expected @ right.astype(np.float64)
            assert expected.shape == shape
            assert close(places[piece_name(module, piece)] / 2.0 ** module.scales[piece], expected)


@pytest.mark.parametrize("strategy", FREE)
@settings(max_examples=6, deadline=None)
@given(seed=seeds, rank=ranks)
def test_other_factors_of_the_same_update_give_the_same_message_and_norm(strategy, seed, rank):
    merging, plain = session(strategy), factors(seed, rank)
    generator = np.random.default_rng(seed)
    turned = {}
    for path, (b, a) in plain.items():
        gauge = generator.standard_normal((rank, rank)) + 3 * np.eye(rank)
        turned[path] = (b @ gauge).astype(np.float32), np.linalg.solve(gauge, a).astype(np.float32)
    one, two = adapter_of(plain), adapter_of(turned)
    assert close(merging.message(one).vector, merging.message(two).vector, 1e-3)
    assert joint_norm(two, merging.manifest) == pytest.approx(joint_norm(one, merging.manifest), rel=1e-4)


@pytest.mark.parametrize("strategy", FREE)
@pytest.mark.parametrize("rslora", [False, True])
def test_rank_alpha_and_stabilisation_do_not_matter_when_the_update_is_the_same(strategy, rslora):
    merging, plain = session(strategy), factors(3, 4)
    alpha, rank = 12.0, 6
    scale = alpha / (rank**0.5 if rslora else rank)
    padded = {
        path: (np.pad(b, ((0, 0), (0, 2))) / np.float32(scale), np.pad(a, ((0, 2), (0, 0))))
        for path, (b, a) in plain.items()
    }
    one, two = adapter_of(plain), adapter_of(padded, alpha, rslora=rslora)
    assert close(merging.message(one).vector, merging.message(two).vector)
    assert joint_norm(two, merging.manifest) == pytest.approx(joint_norm(one, merging.manifest), rel=1e-6)


def test_the_joint_norm_is_that_of_all_updates_side_by_side():
    given_factors = factors(1, 4)
    expected = np.sqrt(sum(np.sum(update**2) for update in dense(given_factors, 2.0).values()))
    assert joint_norm(adapter_of(given_factors, 8.0), session("dense").manifest) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_updates_beyond_the_norm_are_scaled_down_together(strategy):
    norm = Fraction(1, 4)
    merging, wide = session(strategy, norm=norm), session(strategy, norm=Fraction(2**12), counts_clipping=False)
    given_factors = frozen_factors(merging, 2) if strategy == "frozen-a" else factors(2, 3)
    one = adapter_of(given_factors)
    message = merging.message(one)
    assert message.norm == pytest.approx(joint_norm(one, merging.manifest))
    assert message.norm > float(norm)
    assert message.factor == pytest.approx(float(norm) / message.norm, rel=1e-5)
    places, whole = merging.layout.split(message.vector), wide.layout.split(wide.message(one).vector)
    for module, other in zip(merging.manifest, wide.manifest, strict=True):
        for piece, scale in module.scales.items():
            name = piece_name(module, piece)
            expected = whole[name] * message.factor * 2.0 ** (scale - other.scales[piece])
            assert close(places[name], expected)


def test_what_is_scaled_down_ends_up_within_the_norm_and_fits_are_left_alone():
    norm = Fraction(1, 3)
    merging = session("dense", norm=norm)
    places = merging.layout.split(merging.message(adapter_of(factors(2, 3))).vector)
    total = sum(
        np.sum((places[piece_name(module, "update")].astype(np.float64) / 2.0 ** module.scales["update"]) ** 2)
        for module in merging.manifest
    )
    assert float(norm) * (1 - 1e-5) <= np.sqrt(total) <= float(norm)
    assert places[CLIPPED][0] == 1
    small = {path: (b / 100, a) for path, (b, a) in factors(2, 3).items()}
    message = merging.message(adapter_of(small))
    assert message.factor == 1
    assert merging.layout.split(message.vector)[CLIPPED].tolist() == [0, 0]


SPIKED = MergedModule("spiked", "linear", 1024, 64)


def spiked_adapter():
    """An update with all of its norm in one row: its range is far above the root mean square there."""
    b, a = np.zeros((1024, 1), np.float32), np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    b[7] = 1 / np.linalg.norm(a)
    return adapter_of({"spiked": (b, a)}, modules=(SPIKED,))


def test_coordinates_beyond_the_range_are_clamped_and_counted():
    merging = session("pilot-1", modules=(SPIKED,), norm=Fraction(1))
    message = merging.message(spiked_adapter())
    places = merging.layout.split(message.vector)
    assert 0 < message.clamped <= 4
    assert np.abs(message.vector).max() == 1
    assert np.count_nonzero(np.abs(places["spiked/range"]) == 1) == message.clamped
    assert places[CLIPPED].tolist() == pytest.approx([0, message.clamped / message.vector.size])


def test_where_there_is_noise_nothing_is_clamped_or_counted():
    merging = session("range", modules=(SPIKED,), norm=Fraction(1), counts_clipping=False)
    message = merging.message(spiked_adapter())
    assert [name for name, _ in merging.layout.tensors] == ["spiked/range"]
    assert message.clamped == 0
    assert np.abs(message.vector).max() > 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_coordinate_of_an_adapter_as_large_as_allowed_is_clamped(strategy):
    merging = session(strategy, norm=Fraction(4))
    for seed in range(20):
        given_factors = frozen_factors(merging, seed) if strategy == "frozen-a" else factors(seed, 1 + seed % 6)
        scaled = {path: (b * 100, a) for path, (b, a) in given_factors.items()}
        message = merging.message(adapter_of(scaled))
        assert message.factor < 1
        assert message.clamped == 0
        assert np.abs(message.vector).max() <= 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fifteen_bits_cost_a_thousandth_of_the_mean(strategy):
    merging = session(strategy, norm=Fraction(8))
    total, exact, count = 0, 0, 40
    dimension = merging.layout.dimension
    encoding = Encoding(dimension, 15, 1024, 64, Fraction(dimension), CoordinateRange(Fraction(1)))
    for seed in range(count):
        given_factors = frozen_factors(merging, 0) if strategy == "frozen-a" else factors(0, 4)
        vector = merging.message(adapter_of(given_factors)).vector
        lanes, report = vectors.encode(encoding, NoDifferentialPrivacy(), vector, Secret(bytes([seed]) * 32))
        assert report.clamped == 0
        total, exact = total + lanes, exact + vector
    mean = decode(encoding, NoDifferentialPrivacy(), total, count).mean
    assert np.linalg.norm(mean - exact / count) < 2e-3 * np.linalg.norm(exact / count)


@pytest.mark.parametrize("strategy", ["sketch", "basis-2", "frozen-a"])
def test_with_noise_no_adapter_moves_what_is_sent_further_than_the_clip_norm(strategy):
    """The noise is planned for the clip norm of the message; a contributor's own norm bound has no part in it."""
    merging = session(strategy, norm=Fraction(16), counts_clipping=False)
    given_factors = frozen_factors(merging, 1) if strategy == "frozen-a" else factors(1, 4)
    huge = adapter_of({path: (b * 1000, a) for path, (b, a) in given_factors.items()})
    vector = merging.message(huge).vector
    clip_norm = Fraction(float(np.linalg.norm(vector)) / 20).limit_denominator(10**6)
    encoding = Encoding(vector.size, 15, 64, 64, clip_norm, NoFlattening())
    parameters = with_noise(session_of([key_of(str(i)) for i in range(5)], encoding=encoding).parameters)
    encoding, noise, secret = parameters.encoding, parameters.noise, Secret(bytes([5]) * 32)
    lanes = np.empty(encoding.field_layout().lanes, np.uint64)
    report = vectors.encode_into(encoding, noise, vector, secret, lanes)
    assert report.norm > 10 * float(encoding.clip_norm)
    sent = encoding.field_layout().unpack_sum(lanes, 1)
    drawn = np.zeros(vector.size, np.int32)
    NoiseSampler(table_of(noise), derive(secret, Label.NOISE).expose(), noise.to_bytes()).add_into(drawn)
    signal = sent - drawn
    assert 0 < int(np.sum(signal**2)) <= noise.squared_norm
    assert np.linalg.norm(signal) <= 1.5 * float(encoding.clip_norm * noise.scale)


@pytest.mark.parametrize("strategy", ["dense", "sketch"])
def test_an_adapter_without_a_module_is_refused_or_counts_as_zero(strategy):
    partial = {path: each for path, each in factors(4, 2).items() if path != LINEAR.path}
    with pytest.raises(AdapterError) as caught:
        session(strategy).message(adapter_of(partial))
    assert caught.value.reason is AdapterRejectReason.MISSING_TENSOR
    assert LINEAR.path in caught.value.tensor
    merging = session(strategy, missing="zero")
    places = merging.layout.split(merging.message(adapter_of(partial)).vector)
    whole = merging.layout.split(merging.message(adapter_of(factors(4, 2))).vector)
    for name, values in places.items():
        if name.startswith(LINEAR.path):
            assert not values.any()
        else:
            assert np.array_equal(values, whole[name])


def renamed(path):
    return {(path if key == LINEAR.path else key): each for key, each in factors(1, 2).items()}


OTHER = dataclasses.replace(LINEAR, path="layers.9.other")
ANOTHER_KIND = dataclasses.replace(LINEAR, kind="embedding")
WIDER = dataclasses.replace(LINEAR, inputs=33)
REFUSED = {
    "a module that the session does not have": (
        lambda: adapter_of({**factors(1, 2), **factors(1, 2, (OTHER,))}, modules=(*MODULES, OTHER)),
        AdapterRejectReason.UNEXPECTED_TENSOR,
        "layers.9.other",
    ),
    "a module that it lacks": (
        lambda: adapter_of(factors(1, 2, (EMBEDDING, CONVOLUTION))),
        AdapterRejectReason.MISSING_TENSOR,
        "layers.0.q_proj",
    ),
    "an embedding where the session has a linear layer": (
        lambda: adapter_of(factors(1, 2), modules=(EMBEDDING, CONVOLUTION, ANOTHER_KIND)),
        AdapterRejectReason.UNEXPECTED_TENSOR,
        "layers.0.q_proj",
    ),
    "another shape": (
        lambda: adapter_of(factors(1, 2, (EMBEDDING, CONVOLUTION, WIDER)), modules=(EMBEDDING, CONVOLUTION, WIDER)),
        AdapterRejectReason.WRONG_SHAPE,
        "layers.0.q_proj",
    ),
    "another base model": (
        lambda: adapter_of(factors(1, 2), base_model_name_or_path="other/model"),
        AdapterRejectReason.BASE_MODEL_MISMATCH,
        "base_model_name_or_path",
    ),
    "a transposed base": (
        lambda: adapter_of(factors(1, 2), fan_in_fan_out=True),
        AdapterRejectReason.CONFIG_MISMATCH,
        "fan_in_fan_out",
    ),
    "factors that overflow": (
        lambda: adapter_of({path: (b * np.float32(1e37), a * 0 + 1) for path, (b, a) in factors(1, 2).items()}, 1e4),
        AdapterRejectReason.NON_FINITE,
        "embed_tokens",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_where_what_was_found_what_is_expected_and_what_to_do(case):
    make, reason, where = REFUSED[case]
    with pytest.raises(AdapterError) as caught:
        session("sketch").message(make())
    error = caught.value
    assert error.reason is reason
    assert where in f"{error.tensor} {error.field}"
    assert all((error.found, error.expected, error.fix))


def test_a_revision_and_a_task_are_compared_only_where_both_sides_know_them():
    merging = session("sketch")
    known = dataclasses.replace(merging, manifest=dataclasses.replace(merging.manifest, revision="a", task_type="T"))
    known.message(adapter_of(factors(1, 2)))
    known.message(adapter_of(factors(1, 2), revision="a", task_type="T"))
    for change in ({"revision": "b"}, {"task_type": "U"}):
        with pytest.raises(AdapterError) as caught:
            known.message(adapter_of(factors(1, 2), **change))
        assert next(iter(change)) in caught.value.field


def test_a_start_that_is_not_the_frozen_one_is_refused_bit_for_bit():
    merging = session("frozen-a")
    right = frozen_factors(merging, 1)
    merging.message(adapter_of(right))
    path = LINEAR.path
    b, a = right[path]
    nearly = a.copy()
    nearly[0, 0] = np.nextafter(nearly[0, 0], np.float32(9))
    for wrong, reason in (
        ((b, nearly), AdapterRejectReason.OTHER_START),
        ((np.pad(b, ((0, 0), (0, 1))), np.pad(a, ((0, 1), (0, 0)))), AdapterRejectReason.RANK_MISMATCH),
    ):
        changed = {**right, path: wrong}
        pattern = ((path.replace(".", r"\."), wrong[1].shape[0]),)
        with pytest.raises(AdapterError) as caught:
            merging.message(adapter_of(changed, r=3, rank_pattern=pattern))
        error = caught.value
        assert error.reason is reason
        assert path in error.tensor
        assert all((error.found, error.expected, error.fix))


def test_frozen_a_sends_the_scale_and_b():
    merging = session("frozen-a")
    right = frozen_factors(merging, 1)
    places = merging.layout.split(merging.message(adapter_of(right, 6.0)).vector)
    for module in merging.manifest:
        assert fixed_name(module, "a") in merging.maps.fixed
        expected = right[module.path][0] * 2.0 * 2.0 ** module.scales["scaled-b"]
        assert np.allclose(places[piece_name(module, "scaled-b")], expected, rtol=1e-6)


def test_small_modules_are_sent_as_they_are_where_that_is_not_more():
    small = MergedModule("small", "linear", 8, 8)
    shape = Shape(columns=4, core_columns=4)
    assert pieces_of(session("sketch", modules=(small,), shape=shape).merge, small, 3) == {"update": (8, 8)}
    with pytest.raises(AdapterError, match="larger"):
        session("range", modules=(small,), shape=shape)
    both = (dataclasses.replace(LINEAR, path="a"), small)
    first, second = (session(name, modules=both, shape=shape) for name in ("range", "projection"))
    assert [name for name, _ in first.layout.tensors] == [CLIPPED, "a/range"]
    assert [name for name, _ in second.layout.tensors] == [CLIPPED, "a/probe", "a/projection", "small/update"]


def test_the_digest_of_a_manifest_changes_with_every_scale():
    merging = session("sketch")
    first = merging.manifest.modules[0]
    other = dataclasses.replace(first, scales={**first.scales, "core": first.scales["core"] + 1})
    changed = dataclasses.replace(merging.manifest, modules=(other, *merging.manifest.modules[1:]))
    assert changed.digest != merging.digest
    assert len(hashlib.sha256(merging.digest).digest()) == len(changed.digest)
