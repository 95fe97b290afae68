"""Sums of ring masks open exactly under the sum of the secrets, and under nothing else."""

import copy
import hashlib
import itertools
import math
import re
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith.binomial import centred_binomial
from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.fields import FieldLayout
from secagg.arith.keystream import Keystream
from secagg.arith.ring_mask import (
    ERROR_ETA,
    MAX_CONTRIBUTORS,
    MAX_LANES,
    RING_DEGREE,
    SECRET_ETA,
    RingMask,
    draw_secret,
    padded_lanes,
    usable_bits_for,
)
from secagg.arith.ring_product import MAX_BOUND, RingMultiplier

N = 4096
PUBLIC = bytes(range(32))
U64 = np.uint64


def key_of(*names: object) -> bytes:
    return hashlib.sha256(repr(names).encode()).digest()


def secret_of(*names: object) -> np.ndarray:
    return draw_secret(Keystream(key_of("s", *names)))


def values_of(mask: RingMask, seed: int, largest: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, largest + 1, mask.lanes, dtype=np.uint64)


def masked(mask: RingMask, values: np.ndarray, *names: object) -> np.ndarray:
    lanes = values.copy()
    mask.apply_mask(lanes, PUBLIC, secret_of(*names), key_of("e", *names))
    return lanes


def sum_of(mask: RingMask, contributors: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masked sum, sum of secrets, sum of values that fill a T-bit lane between them."""
    lanes, total = np.zeros(mask.lanes, dtype=np.uint64), np.zeros(mask.lanes, dtype=np.uint64)
    secrets = np.zeros(N, dtype=np.int64)
    for contributor in range(contributors):
        values = values_of(mask, contributor, (2**mask.usable_bits - 1) // contributors)
        total += values
        lanes += masked(mask, values, contributor)
        secrets += secret_of(contributor)
    return lanes, secrets, total


@pytest.mark.parametrize(("contributors", "usable"), [(1024, 52), (65_536, 49), (2**20, 47), (2**28, 43), (2**33, 41)])
def test_usable_bits_are_those_of_the_design(contributors, usable):
    for lanes in (503_808, 4096, 100 * N):
        assert RingMask(contributors, lanes).usable_bits == usable


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 2**33), st.integers(1, 2**18))
def test_the_numbers_are_what_the_formulas_say(contributors, polynomials):
    mask = RingMask(contributors, polynomials * N)
    beta, shift, bound = mask.error_bound, mask.shift, mask.secret_bound(contributors)

    def root(proxy: int, draws: int) -> Decimal:
        with localcontext() as context:
            context.prec = 80
            return (proxy * Decimal(2 * draws * 2**64).ln()).sqrt()

    for number, proxy, draws in ((beta, 21 * contributors, mask.lanes), (bound, 2 * contributors, N)):
        exact = root(proxy, draws)
        assert number == min(proxy, math.ceil(exact))
    assert (2 * beta + 1) * 100 <= 97 * 2**shift
    assert 2**shift > 2 * bound
    assert (2 * beta + 1) * 200 > 97 * 2**shift or 2**shift <= 4 * bound
    assert beta < 2 ** (shift - 1)
    assert mask.usable_bits == 64 - shift
    assert bound <= MAX_BOUND
    # The union bound: both failures together, with the probability of one lane times their number.
    if beta < 21 * contributors:
        assert math.log(2 * mask.lanes) - beta**2 / (21 * contributors) <= -64 * math.log(2) * (1 - 1e-12)


def test_bounds_grow_with_contributors_and_lanes():
    counts = [2, 3, 5, 10, 100, 1024, 65_536, 2**20, 2**28, 2**33]
    for lanes in (N, 123 * N, MAX_LANES):
        masks = [RingMask(count, lanes) for count in counts]
        for smaller, larger in itertools.pairwise(masks):
            assert smaller.error_bound < larger.error_bound
            assert smaller.usable_bits >= larger.usable_bits
    most = RingMask(2**33, MAX_LANES)
    bounds = [most.secret_bound(count) for count in (1, *counts)]
    assert bounds == sorted(bounds)
    assert bounds[0] == 2
    assert bounds[-1] <= MAX_BOUND


@pytest.mark.parametrize(("contributors", "lanes"), [(2, N), (3, 2 * N), (20, 17 * N), (200, N)])
def test_the_sum_of_masks_opens_exactly(contributors, lanes):
    mask = RingMask(contributors, lanes)
    opened, secrets, total = sum_of(mask, contributors)
    mask.certify_and_unmask(opened, secrets, contributors, PUBLIC)
    assert (opened == total).all()


def test_fewer_contributors_than_the_most_open_too():
    mask = RingMask(1024, 3 * N)
    opened, secrets, total = sum_of(mask, 3)
    mask.certify_and_unmask(opened, secrets, 3, PUBLIC)
    assert (opened == total).all()
    # What three contributions cannot have is refused for three, but not for 1024.
    with pytest.raises(CertificationError):
        mask.certify_and_unmask(opened, np.full(N, 7), 3, PUBLIC)


def test_a_masked_vector_is_the_sum_that_the_definition_names():
    mask = RingMask(1024, 2 * N)
    values = values_of(mask, 1, 2**mask.usable_bits - 1)
    public, errors = np.empty(mask.lanes, dtype=np.uint64), centred_binomial(Keystream(key_of("e", 0)), 21, mask.lanes)
    Keystream(PUBLIC).read_into(public)
    expected = (values << U64(12)) + errors.astype(np.int64).view(np.uint64)
    RingMultiplier(secret_of(0), 2).add_products(public, expected)
    assert (masked(mask, values, 0) == expected).all()
    assert np.abs(secret_of(0)).max() == 2
    assert (SECRET_ETA, ERROR_ETA, RING_DEGREE) == (2, 21, N)


def test_what_is_masked_shows_no_structure():
    # All-zero values, in lanes and in differences of lanes: every byte of the mask is used.
    lanes = masked(RingMask(1024, 20 * N), np.zeros(20 * N, dtype=np.uint64), 0)
    for words in (lanes, lanes[1:] - lanes[:-1], lanes[N:] - lanes[:-N]):
        counts = np.bincount(words.view(np.uint8), minlength=256)
        expected = words.nbytes / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * (2 * 255) ** 0.5


@pytest.fixture(scope="module")
def opened_by_three():
    mask = RingMask(1024, 4 * N)
    return mask, *sum_of(mask, 3)


def refusal(mask, lanes, secrets, contributors=3, public=PUBLIC) -> CertificationError:
    with pytest.raises(CertificationError) as refused:
        mask.certify_and_unmask(lanes.copy(), secrets, contributors, public)
    return refused.value


@pytest.mark.parametrize("contributor", range(3))
def test_a_sum_that_lacks_one_secret_or_has_it_twice_fails_in_about_half_of_the_lanes(opened_by_three, contributor):
    mask, lanes, secrets, _ = opened_by_three
    expected = (1 - (2 * mask.error_bound + 1) / 2**mask.shift) * mask.lanes
    for wrong in (secrets - secret_of(contributor), secrets + secret_of(contributor)):
        if np.abs(wrong).max() > mask.secret_bound(3):
            assert refusal(mask, lanes, wrong).condition == "secret"
        error = refusal(mask, lanes, wrong, contributors=6)
        assert error.condition == "remainder"
        assert 0.9 * expected < error.failing < 1.1 * expected


def test_one_coefficient_wrong_by_one_fails_and_so_does_another_public_key(opened_by_three):
    mask, lanes, secrets, _ = opened_by_three
    for place in (0, 2047, 4095):
        wrong = secrets.copy()
        wrong[place] -= np.sign(wrong[place]) or 1
        assert refusal(mask, lanes, wrong).failing > mask.lanes // 3
    assert refusal(mask, lanes, secrets, public=key_of("other")).condition == "remainder"


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([-(2**50), -2, -1, 1, 2, 3, 2**50]), st.integers(0, N - 1), st.integers(0, 63))
def test_multiples_of_the_step_pass_the_second_condition_and_are_stopped_by_the_first(factor, place, more):
    mask = RingMask(1024, N)
    lanes, secrets, _ = sum_of(mask, 2)
    wrong = secrets.copy()
    wrong[place] += factor << mask.shift
    error = refusal(mask, lanes, wrong, contributors=2 + more)
    assert (error.condition, error.failing) == ("secret", 1)
    # Without the first condition it would pass: the remainders are the same, the sum is wrong.
    if abs(factor) << mask.shift < MAX_BOUND:
        assert mask._unmask(lanes.copy(), RingMultiplier(wrong, MAX_BOUND), PUBLIC) == 0


def test_the_first_condition_comes_first_and_stands_at_the_bound(opened_by_three):
    mask, lanes, secrets, _ = opened_by_three
    bound = mask.secret_bound(1024)
    assert refusal(mask, lanes, np.full(N, -bound), 1024).condition == "remainder"
    for value in (bound + 1, -bound - 1, 2**62, -(2**63)):
        wrong = secrets.copy()
        wrong[[5, 9]] = value
        kept = lanes.copy()
        with pytest.raises(CertificationError) as refused:
            mask.certify_and_unmask(kept, wrong, 1024, PUBLIC)
        assert (refused.value.condition, refused.value.failing, refused.value.limit) == ("secret", 2, bound)
        assert (kept == lanes).all()
        assert refused.value.reason == f"2 coefficients of the secret are beyond {bound} in magnitude"
    # A sum that only n = 2 rules out: coefficients are at most 4 then.
    assert mask.secret_bound(2) == 4
    wrong = secrets.copy()
    wrong[0] = 5
    assert refusal(mask, lanes, wrong, 2).condition == "secret"


def test_a_single_lane_beyond_beta_fails_wherever_it_is_padding_included():
    mask = RingMask(2, 17 * N)
    beta = mask.error_bound
    zero = np.zeros(N, dtype=np.int64)
    for place in (0, N, 16 * N, 17 * N - 1):
        for error in (beta, -beta):
            lanes = np.full(mask.lanes, 7 << mask.shift, dtype=np.uint64)
            lanes[place] = (int(lanes[place]) + error) % 2**64
            mask.certify_and_unmask(lanes, zero, 2, PUBLIC)
            assert (lanes == 7).all()
        for error in (beta + 1, -beta - 1, 1 << mask.shift - 1):
            lanes = np.zeros(mask.lanes, dtype=np.uint64)
            lanes[place] = error % 2**64
            refused = refusal(mask, lanes, zero, 2)
            assert (refused.condition, refused.failing) == ("remainder", 1)
            assert refused.reason == f"1 lanes leave a remainder beyond {beta} in magnitude"


def test_errors_of_certification_survive_copying():
    for condition in ("secret", "remainder"):
        error = copy.copy(CertificationError(condition, 3, 42))
        assert (error.condition, error.failing, error.limit) == (condition, 3, 42)
        assert error.reason in str(error)
        assert isinstance(error, ValueError)


def test_usable_bits_are_consistent_with_the_lanes_to_which_they_lead():
    for value_bits in (2, 8, 15, 16, 20):
        for contributors in (2, 3, 10, 100, 1024, 65_536, 2**20):
            for dimension in (1, 4095, 8191, 100_000, 10**6, 10**8):
                usable = usable_bits_for(value_bits, contributors, dimension)
                consistent = [
                    bits
                    for bits in range(value_bits + (contributors - 1).bit_length(), 65)
                    if RingMask(
                        contributors, padded_lanes(FieldLayout(value_bits, contributors, dimension, bits).lanes)
                    ).usable_bits
                    == bits
                ]
                assert usable == max(consistent)


def test_the_fields_that_the_design_promises_fit():
    def fields(value_bits, contributors):
        usable = usable_bits_for(value_bits, contributors, 10**6)
        return FieldLayout(value_bits, contributors, 10**6, usable).fields_per_lane

    assert fields(15, 1024) == fields(16, 1024) == 2
    assert fields(16, 2**27) == 1
    assert fields(8, 2**33) == 1
    with pytest.raises(ArithmeticInputError, match="usable_bits"):
        usable_bits_for(9, 2**33, 10**6)
    with pytest.raises(ArithmeticInputError, match="lanes"):
        usable_bits_for(15, 1024, 2**32)
    # 4.1 bytes a coordinate at one million of 15 bits.
    layout = FieldLayout(15, 1024, 10**6, 52)
    assert padded_lanes(layout.lanes) == 123 * N == 503_808
    assert 8 * padded_lanes(layout.lanes) / 10**6 < 4.1


def test_the_table_in_the_documentation_is_recomputed():
    text = (Path(__file__).parents[3] / "docs" / "parameters.md").read_text(encoding="utf-8")
    section = text[text.index("## One-shot: ring masks") :]
    row = r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (0\.\d{3}) \| (\d+) \| (\d+) \| (\d) \|$"
    rows = re.findall(row, section, re.MULTILINE)
    assert len(rows) == 8
    for cells in rows:
        most, beta, shift, usable, window, bound, width, fields = (float(cell) for cell in cells)
        mask = RingMask(int(most), 503_808)
        assert (beta, shift, usable) == (mask.error_bound, mask.shift, mask.usable_bits)
        assert window == round((2 * beta + 1) / 2**shift, 3)
        assert bound == mask.secret_bound(int(most))
        assert width == 15 + (int(most) - 1).bit_length()
        assert fields == usable // width
        # As the text says: two remainders are never further apart than certification allows.
        assert 4 * beta + 1 > 2**shift


def worst_chance(mask: RingMask) -> float:
    """The largest probability in the documentation that a lane passes although the secret is wrong."""
    window, chances = 2 * mask.error_bound + 1, []
    for power in range(mask.shift):
        if 2**power <= 2 * mask.secret_bound(mask.max_contributors):
            chances.append(-(-window // 2 ** (power + 1)) / 2 ** (mask.shift - power - 1))
    return max(chances)


def test_the_chances_of_a_wrong_secret_in_the_documentation_are_recomputed():
    assert 0.97**N < 2.0**-179
    chances = {most: worst_chance(RingMask(most, 503_808)) for most in (2, 10, 100, 1024, 65_536, 2**20, 2**28, 2**33)}
    assert chances == {2: 0.75, 10: 1, 100: 0.75, 1024: 0.75, 65_536: 0.75, 2**20: 0.75, 2**28: 0.75, 2**33: 1}
    differences = N * math.log2(4 * RingMask(1024, 26 * N).secret_bound(1024) + 1)
    assert differences - 26 * N * math.log2(4 / 3) < -64 < differences - 25 * N * math.log2(4 / 3)


def test_a_wrong_secret_divisible_by_a_power_of_two_fails_in_as_many_lanes_as_the_bound_says():
    mask = RingMask(1024, 20 * N)
    lanes, secrets, _ = sum_of(mask, 2)
    for power in (0, 1, 4, 8, 9):
        for step in (np.eye(1, N, 7, dtype=np.int64)[0], np.ones(N, dtype=np.int64)):
            # All ones is (X + 1)^4095 mod 2, as far from invertible as can be.
            if (step << power).max() > 331 or np.abs(secrets + (step << power)).max() > 331:
                continue
            error = refusal(mask, lanes, secrets + (step << power), contributors=1024)
            chance = -(-(2 * mask.error_bound + 1) // 2 ** (power + 1)) / 2 ** (mask.shift - power - 1)
            assert error.failing > 0.95 * (1 - chance) * mask.lanes


def test_lanes_are_padded_to_whole_polynomials():
    assert [padded_lanes(count) for count in (1, N - 1, N, N + 1)] == [N, N, N, 2 * N]
    assert padded_lanes(MAX_LANES) == MAX_LANES
    for count in (0, -1, MAX_LANES + 1):
        with pytest.raises(ArithmeticInputError, match="lanes"):
            padded_lanes(count)


@pytest.mark.parametrize(
    ("contributors", "lanes", "field"),
    [
        (1, N, "max_contributors"),
        (MAX_CONTRIBUTORS + 1, N, "max_contributors"),
        (2, N - 1, "lanes"),
        (2, N + 1, "lanes"),
        (2, 0, "lanes"),
        (2, MAX_LANES + N, "lanes"),
    ],
)
def test_masks_out_of_range_cannot_be_constructed(contributors, lanes, field):
    with pytest.raises(ArithmeticInputError) as refused:
        RingMask(contributors, lanes)
    assert refused.value.field == field


def test_bad_arguments_of_masking_are_refused_and_nothing_is_changed():
    mask, secret, error_key = RingMask(1024, 2 * N), secret_of(0), key_of("e")
    lanes = np.zeros(2 * N, dtype=np.uint64)

    def refused_field(lanes=lanes, public=PUBLIC, secret=secret, errors=error_key) -> str:
        with pytest.raises(ArithmeticInputError) as refused:
            mask.apply_mask(lanes, public, secret, errors)
        return refused.value.field

    too_large, read_only = lanes.copy(), lanes.copy()
    too_large[-1] = 2**52
    read_only.flags.writeable = False
    for bad in (lanes[:-1], lanes.view(np.int64), lanes.reshape(2, N), np.zeros(4 * N, dtype=U64)[::2], read_only):
        assert refused_field(lanes=bad) == "lanes"
    assert refused_field(lanes=too_large) == "lanes"
    assert too_large[-1] == 2**52
    assert refused_field(public=PUBLIC[1:]) == "public_key"
    assert refused_field(errors=b"") == "error_key"
    # With the public key the errors would be public.
    assert refused_field(errors=PUBLIC) == "error_key"
    assert refused_field(secret=np.full(N, 3)) == "secret"
    assert refused_field(secret=secret[1:]) == "secret"
    assert not lanes.any()


def test_bad_arguments_of_unmasking_are_refused():
    mask, lanes, zero = RingMask(1024, N), np.zeros(N, dtype=np.uint64), np.zeros(N, dtype=np.int64)
    for arguments, field in (
        ((lanes[1:], zero, 2, PUBLIC), "lanes"),
        ((lanes, zero[1:], 2, PUBLIC), "secret_sum"),
        ((lanes, zero.astype(np.int32), 2, PUBLIC), "secret_sum"),
        ((lanes, zero, 0, PUBLIC), "contributors"),
        ((lanes, zero, 1025, PUBLIC), "contributors"),
        ((lanes, zero, 2, b""), "public_key"),
    ):
        with pytest.raises(ArithmeticInputError) as refused:
            mask.certify_and_unmask(*arguments)
        assert refused.value.field == field


def test_a_drawn_secret_takes_one_byte_a_coefficient():
    stream = Keystream(PUBLIC)
    first, second = draw_secret(stream), draw_secret(stream)
    assert stream.position_bytes == 2 * N
    assert first.dtype == np.int64
    assert (np.concatenate([first, second]) == centred_binomial(Keystream(PUBLIC), 2, 2 * N)).all()
