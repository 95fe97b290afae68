"""One contributor's part in the noise, and what a session's sum then holds."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest

from dp.planner import MechanismKind
from secagg.crypto.secret import Secret
from secagg.privacy.noise_share import add_noise
from secagg.privacy.session_noise import signal_limit
from secagg.runtime import vectors
from secagg.transcript.encoding import Encoding, Flattening, NoFlattening
from simulations.world.noise import with_noise
from tests.support.cohort import key_of, open_cohort, run_session, session_of

IDENTITIES = [key_of(f"client {number}") for number in range(5)]
DIMENSION = 4000


def session(flattened: bool = False, kind: MechanismKind = MechanismKind.SKELLAM):
    flatten = Flattening(b"f" * 32) if flattened else NoFlattening()
    plain = session_of(IDENTITIES, encoding=Encoding(DIMENSION, 15, 1024, 64, Fraction(1), flatten))
    return dataclasses.replace(plain, parameters=with_noise(plain.parameters, mechanism=kind))


def vector(seed: int, norm: float = 1.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(DIMENSION)
    return (norm * drawn / np.linalg.norm(drawn)).astype(np.float32)


def encoded(parameters, values, secret=b"s" * 32):
    lanes, report = vectors.encode(parameters.encoding, parameters.noise, values, Secret(secret))
    return parameters.encoding.field_layout().unpack_sum(lanes, 1), report


@pytest.mark.parametrize("kind", list(MechanismKind))
@pytest.mark.parametrize("flattened", [False, True])
def test_what_is_packed_is_the_signal_and_noise_of_the_declared_variance(flattened, kind):
    parameters = session(flattened, kind).parameters
    zero, _ = encoded(parameters, np.zeros(DIMENSION, dtype=np.float32))
    variance = float(parameters.noise.local_variance)
    # Six deviations of the mean of squares.
    assert np.mean(np.square(zero, dtype=float)) == pytest.approx(variance, rel=6 * math.sqrt(2.1 / zero.size))
    assert abs(np.mean(zero)) < 6 * math.sqrt(variance / zero.size)


def test_the_same_secret_gives_the_same_noise_and_another_one_other_noise():
    parameters = session().parameters
    first, again, other = (encoded(parameters, vector(1), secret)[0] for secret in (b"s" * 32, b"s" * 32, b"t" * 32))
    assert np.array_equal(first, again)
    assert np.mean(first == other) < 0.05


def test_sessions_with_one_secret_get_unrelated_noise():
    parameters = session().parameters
    budget = dataclasses.replace(parameters.noise.budget, sequence=2)
    later = dataclasses.replace(parameters, noise=dataclasses.replace(parameters.noise, budget=budget))
    assert np.mean(encoded(parameters, vector(1))[0] == encoded(later, vector(1))[0]) < 0.05


def rounded_too_long(parameters):
    """A rounding whose squares are one more than the bound."""
    values = np.zeros(DIMENSION, dtype=np.int32)
    limit, left = signal_limit(parameters.encoding, parameters.noise), parameters.noise.squared_norm + 1
    for index in range(DIMENSION):
        values[index] = min(limit, math.isqrt(left))
        left -= int(values[index]) ** 2
    assert left == 0
    return values


def test_a_vector_that_is_too_long_after_rounding_never_gets_into_a_sum():
    parameters = session().parameters
    values = rounded_too_long(parameters)
    encoding, noise = parameters.encoding, parameters.noise
    noisy, _ = add_noise(values.copy, noise, encoding, Secret(b"s" * 32))
    nothing, _ = add_noise(lambda: np.zeros(DIMENSION, dtype=np.int32), noise, encoding, Secret(b"s" * 32))
    assert np.array_equal(noisy, nothing)


def test_a_vector_that_just_keeps_the_bound_does():
    parameters = session().parameters
    values = rounded_too_long(parameters)
    values[np.flatnonzero(values == 1)[0]] = 0
    noisy, _ = add_noise(values.copy, parameters.noise, parameters.encoding, Secret(b"s" * 32))
    nothing, _ = add_noise(np.zeros_like(values).copy, parameters.noise, parameters.encoding, Secret(b"s" * 32))
    assert np.array_equal(noisy - nothing, values)


def test_what_would_leave_the_field_is_limited_and_counted():
    parameters = session().parameters
    narrow = dataclasses.replace(parameters.encoding, value_bits=parameters.encoding.value_bits - 4)
    largest = narrow.field_layout().largest
    values, beyond = add_noise(lambda: np.zeros(DIMENSION, dtype=np.int32), parameters.noise, narrow, Secret(b"s" * 32))
    assert beyond > 0
    assert np.abs(values).max() == largest


def test_honest_vectors_are_hardly_ever_rounded_twice_and_never_limited():
    parameters = session().parameters
    for seed in range(20):
        _, report = encoded(parameters, vector(seed, norm=1.7), bytes([seed]) * 32)
        assert report.clamped == 0
        assert report.norm == pytest.approx(1.7, rel=1e-5)


@pytest.mark.parametrize("flattened", [False, True])
def test_a_whole_session_sums_up_signal_and_everybodys_noise(flattened):
    inputs = [vector(seed, 0.9) for seed in range(5)]
    noisy = session(flattened)

    async def run() -> np.ndarray:
        cohort = await open_cohort(noisy, IDENTITIES, lambda k: inputs[k])
        await run_session(cohort, {})
        return cohort.integer_sum().astype(float)

    total = asyncio.run(run())
    noise = noisy.parameters.noise
    # Flattening is a rotation: lengths stay.
    signal = float(noise.scale) * np.linalg.norm(np.sum(inputs, axis=0, dtype=float))
    variance = 5 * float(noise.local_variance)
    expected = total.size * variance + signal**2
    assert np.sum(np.square(total)) == pytest.approx(expected, rel=12 * math.sqrt(2 / total.size))
