"""Ring products are exact, whatever the public polynomial and however an accepted secret was chosen."""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith import ring_product
from secagg.arith.errors import ArithmeticInputError
from secagg.arith.ring_product import DEGREE, ERROR_UNITS, LIMB_BITS, MAX_BOUND, RingMultiplier, limb_bits_for

N, M = 4096, 2048
# Largest magnitude of a secret all of whose coefficients have it, for each width but the widest.
LARGEST = {22: 1985, 16: 127_100, 13: MAX_BOUND}


def random_words(count: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def packed(coefficients: np.ndarray) -> int:
    """Kronecker substitution at 2^128: products below have coefficients under 4096 * 2^64 * 2^20 = 2^96."""
    wide = np.zeros((coefficients.size, 2), dtype="<u8")
    wide[:, 0] = coefficients
    return int.from_bytes(wide.tobytes(), "little")


def oracle(public: np.ndarray, secret: np.ndarray) -> np.ndarray:
    """`a_j s` mod X^4096 + 1 and 2^64 with Python's integers."""
    out = np.zeros(public.size, dtype=np.uint64)
    for start in range(0, public.size, N):
        for sign in (1, -1):
            part = np.maximum(sign * secret, 0).astype(np.uint64)
            product = (packed(public[start : start + N]) * packed(part)).to_bytes(32 * N, "little")
            low = np.frombuffer(product, dtype="<u8")[::2]
            signed = low[:N] - low[N:]
            out[start : start + N] += signed if sign > 0 else np.uint64(0) - signed
    return out


def words_of_limbs(negative: np.ndarray, bits: int) -> np.ndarray:
    """Words whose limbs are all `-2^(w-1)` where `negative`, else all `2^(w-1) - 1`; the top limb likewise."""
    starts = range(0, 64, bits)
    least = sum(-(1 << min(bits, 64 - start) - 1 + start) for start in starts) % 2**64
    most = sum((1 << min(bits, 64 - start) - 1) - 1 << start for start in starts) % 2**64
    return np.where(negative, np.uint64(least), np.uint64(most))


def largest_secret(wave: np.ndarray, bits: int) -> np.ndarray:
    """The signs of a wave at the largest magnitude that the width is used for."""
    signs = np.where(wave < 0, -1, 1).astype(np.int64)
    if bits in LARGEST:
        return signs * LARGEST[bits]
    # 3851 coefficients of 2, where the wave is largest.
    signs[np.argsort(-np.abs(wave), kind="stable")[3851:]] = 0
    return 2 * signs


def hard_inputs(bits: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A polynomial and a secret of the largest norms, hard in one way each."""
    index = np.arange(N)
    alternating, ones = np.where(index % 2, -1.0, 1.0), np.ones(N)
    rng = np.random.default_rng(3)
    drawn = rng.standard_normal(N)
    waves = {f"aligned with root {r}": np.cos(math.pi * (2 * r + 1) * index / N + 0.3) for r in (0, 1, 683, 1024, 2047)}
    pairs = {
        "all maximal": (-ones, ones),
        "alternating": (alternating, alternating),
        "alternating against all maximal": (alternating, -ones),
        "signs drawn": (rng.standard_normal(N), drawn),
    } | {name: (wave, wave) for name, wave in waves.items()}
    made = {name: (words_of_limbs(a < 0, bits), largest_secret(s, bits)) for name, (a, s) in pairs.items()}
    full = largest_secret(ones, bits)
    return made | {
        "random": (random_words(N), largest_secret(drawn, bits)),
        "all ones": (np.full(N, 2**64 - 1, dtype=np.uint64), full),
        "top bit": (np.full(N, 2**63, dtype=np.uint64), full),
        "zero": (np.zeros(N, dtype=np.uint64), full),
    }


@pytest.mark.parametrize("bits", LIMB_BITS)
@pytest.mark.parametrize("name", hard_inputs(32))
def test_products_of_hard_inputs_equal_those_of_big_integers(bits, name):
    public, secret = hard_inputs(bits)[name]
    multiplier = RingMultiplier(secret, MAX_BOUND)
    assert multiplier.limb_bits == bits
    # Far from 1/2, so the proof has room for what it may have missed.
    inexact = multiplier._inexact(public.reshape(1, 2, M)).view(np.float64)
    assert np.abs(inexact - np.rint(inexact)).max() < 0.02
    lanes = np.zeros(N, dtype=np.uint64)
    multiplier.add_products(public, lanes)
    assert (lanes == oracle(public, secret)).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2, 20, 1985, 30_000, 127_100, MAX_BOUND]))
def test_products_with_secrets_of_any_size_equal_those_of_big_integers(seed, bound):
    rng = np.random.default_rng(seed)
    secret = rng.integers(-bound, bound + 1, N)
    public, lanes = random_words(2 * N, seed), random_words(2 * N, seed + 1)
    changed = lanes.copy()
    RingMultiplier(secret, bound).add_products(public, changed)
    assert (changed == lanes + oracle(public, secret)).all()


@pytest.mark.parametrize("bits", LIMB_BITS)
@pytest.mark.parametrize("polynomials", [0, 1, 7, 8, 9, 19])
def test_any_number_of_polynomials_is_added_and_subtracted_again_by_one_multiplier(polynomials, bits):
    secret = hard_inputs(bits)["signs drawn"][1]
    multiplier = RingMultiplier(secret, int(np.abs(secret).max()))
    public, before = random_words(polynomials * N), random_words(polynomials * N, 8)
    lanes, expected = before.copy(), np.empty(0, dtype=np.uint64)
    multiplier.add_products(public, lanes)
    for start in range(0, public.size, N):
        one = before[start : start + N].copy()
        multiplier.add_products(public[start : start + N], one)
        expected = np.concatenate([expected, one])
    assert (lanes == expected).all()
    multiplier.subtract_products(public, lanes)
    assert (lanes == before).all()


def test_products_are_additive_in_the_secret_across_limb_widths():
    secrets = [np.random.default_rng(k).integers(-2, 3, N) for k in range(1000)]
    public, one_by_one, at_once = random_words(N), np.zeros(N, dtype=np.uint64), np.zeros(N, dtype=np.uint64)
    for secret in secrets:
        RingMultiplier(secret, 2).add_products(public, one_by_one)
    together = sum(secrets[1:], secrets[0])
    RingMultiplier(together, 2000).add_products(public, at_once)
    assert (one_by_one == at_once).all()


def test_lanes_may_be_the_public_polynomials_themselves():
    secret, words = np.eye(1, N, 1, dtype=np.int64)[0], random_words(20 * N)
    lanes = words.copy()
    RingMultiplier(secret, 1).add_products(lanes, lanes)
    assert (lanes == words + oracle(words, secret)).all()


def test_widths_are_chosen_in_exact_integers_at_the_limits_of_the_proof():
    for bits, narrower in zip(LIMB_BITS, (*LIMB_BITS[1:], None), strict=True):
        # 264 2^(w-48) |s| < 1/2, squared.
        limit = Fraction(1, 4) / (Fraction(ERROR_UNITS) ** 2 * Fraction(4) ** (bits - 48))
        largest = math.ceil(limit) - 1
        assert limb_bits_for(largest) == bits
        assert 0.4999 < ring_product.error_bound(bits, largest) < 0.5
        if narrower is None:
            with pytest.raises(ArithmeticInputError, match="secret"):
                limb_bits_for(largest + 1)
            assert N * MAX_BOUND**2 <= largest < N * (MAX_BOUND + 1) ** 2
        else:
            assert limb_bits_for(largest + 1) == narrower
    assert limb_bits_for(0) == 32
    for bits, magnitude in LARGEST.items():
        assert limb_bits_for(N * magnitude**2) == bits
        assert magnitude == MAX_BOUND or limb_bits_for(N * (magnitude + 1) ** 2) < bits


def test_the_limits_in_the_documentation_are_those_of_the_code():
    text = (Path(__file__).parents[3] / "docs" / "parameters.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([2-5]) \| (\d\d) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert [int(row[1]) for row in rows] == list(LIMB_BITS)
    for limbs, bits, squares, magnitude in (map(int, row) for row in rows):
        assert limbs == -(-64 // bits)
        assert limb_bits_for(squares) == bits
        assert squares + 1 == math.ceil(Fraction(1, 4) / (Fraction(ERROR_UNITS) ** 2 * Fraction(4) ** (bits - 48)))
        assert N * magnitude**2 <= squares < N * (magnitude + 1) ** 2


def test_the_constants_of_the_proof_add_up():
    root = math.sqrt(5) + 4
    assert 11 * (1 + root) < 80
    assert 11 + 6 * 3 + 3 * (math.sqrt(5) + 14) < 80
    assert 80 + root < 87
    assert 3 * 87 + math.sqrt(5) < ERROR_UNITS - 0.5
    # Step 5: integers are below 2^44, and the rounder's bits vanish under every shift.
    assert 2**52 / ERROR_UNITS < 2**44
    assert all(int(ring_product._ROUNDER_BITS) << bits * k & 2**64 - 1 == 0 for bits in LIMB_BITS for k in (1, 2, 3, 4))
    assert np.float64(ring_product._ROUNDER).view(np.uint64) == ring_product._ROUNDER_BITS


def test_a_contributors_secret_needs_two_limbs_and_even_the_worst_one_three():
    drawn = np.random.default_rng(1).binomial(4, 0.5, N) - 2
    assert RingMultiplier(drawn, 2).limb_bits == 32
    assert RingMultiplier(np.full(N, 2), 2).limb_bits == 22


@pytest.mark.parametrize(
    ("secret", "bound"),
    [
        (np.full(N, 3), 2),
        (np.full(N, -3), 2),
        (np.where(np.arange(N) == 4095, -(2**63), 0), 2),
        (np.zeros(N - 1, dtype=np.int64), 2),
        (np.zeros((2, M), dtype=np.int64), 2),
        (np.zeros(N, dtype=np.int32), 2),
        (np.zeros(N, dtype=np.uint64), 2),
        (np.zeros(N, dtype=np.int64), MAX_BOUND + 1),
        (np.zeros(N, dtype=np.int64), -1),
    ],
)
def test_secrets_beyond_what_is_proved_are_refused(secret, bound):
    with pytest.raises(ArithmeticInputError) as refused:
        RingMultiplier(secret, bound)
    assert refused.value.field == "secret"


def test_other_arrays_are_refused_and_nothing_is_changed():
    multiplier, good = RingMultiplier(np.ones(N, dtype=np.int64), 2), random_words(2 * N)
    read_only = good.copy()
    read_only.flags.writeable = False
    for bad in (good[:-1], good.view(np.int64), good.reshape(2, N), np.repeat(good, 2)[::2], good[:N]):
        lanes = good.copy()
        with pytest.raises(ArithmeticInputError, match="public"):
            multiplier.add_products(bad, lanes)
        assert (lanes == good).all()
        with pytest.raises(ArithmeticInputError, match=r"lanes|public"):
            multiplier.subtract_products(good, bad)
    with pytest.raises(ArithmeticInputError, match="lanes"):
        multiplier.add_products(good, read_only)
    multiplier.add_products(read_only, good)
    assert DEGREE == N
