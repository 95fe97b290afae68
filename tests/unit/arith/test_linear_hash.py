"""The linear hash is what its definition says, exactly, for the worst inputs; and it is linear."""

import hashlib
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.fft
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith import linear_hash, negacyclic
from secagg.arith.errors import ArithmeticInputError
from secagg.arith.linear_hash import (
    MAX_LANES,
    LimbSum,
    LinearHasher,
    hash_lanes,
    hash_limb_sum,
    lanes_of_limb_sum,
    limbs,
    max_contributors,
    shard_ranges,
    shards_needed,
    sum_of_hashes,
)
from secagg.arith.negacyclic import ERROR_BOUND, ProductSum, new_spectra, spectra_of
from tests.vectors import generate_linear_hash as vectors

N, M, U = 2048, 1024, 2.0**-53
FULL = 2**16 - 1
HALVES = sum(2**15 << 16 * i for i in range(4))


def random_lanes(count: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def packed(coefficients: np.ndarray) -> int:
    """Kronecker substitution at 2^128: products below have coefficients under 2048 * 2^64 * 2^49 = 2^124."""
    wide = np.zeros((coefficients.size, 2), dtype="<u8")
    wide[:, 0] = coefficients
    return int.from_bytes(wide.tobytes(), "little")


def oracle_sum(b: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`sum_j b_j y_j` mod X^2048 + 1 and 2^64 with Python's integers; uint64[P, 2048] each."""
    out = np.zeros(N, dtype=np.uint64)
    for b_j, y_j in zip(b, y, strict=True):
        product = (packed(b_j) * packed(y_j)).to_bytes(32 * N, "little")
        low = np.frombuffer(product, dtype="<u8")[::2]
        out += low[:N] - low[N:]
    return out


def public_polynomials(count: int) -> np.ndarray:
    """From the definition, with nothing of ours: AES-256-CTR, first counter 2, key SHA-256 of the label."""
    key = hashlib.sha256(b"secagg/v1/linear-hash").digest()
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\x02")).encryptor().update(bytes(8 * N * count))
    return np.frombuffer(stream, dtype="<u8").reshape(count, N)


def oracle_hash(entries: np.ndarray) -> np.ndarray:
    rows = np.zeros((-(-entries.size // N), N), dtype=np.uint64)
    rows.reshape(-1)[: entries.size] = entries
    return oracle_sum(public_polynomials(len(rows)), rows)


def words_of_digits(digits: np.ndarray) -> np.ndarray:
    """Words all four of whose centred digits are `digits`."""
    unsigned = digits.astype(np.int64).view(np.uint64)
    return sum((unsigned << np.uint64(16 * i) for i in range(4)), np.zeros_like(unsigned))


def aligned_with(root: int, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the largest norms whose transforms pile up at one root of X^2048 + 1."""
    wave = np.cos(math.pi * (2 * root + 1) * np.arange(N) / N + phase)
    b = words_of_digits(np.where(wave > 0, 2**15 - 1, -(2**15)))
    return np.tile(b, (8, 1)), np.tile(np.where(wave > 0, FULL, 0).astype(np.uint16), (8, 1))


def hard_inputs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Eight polynomials b and eight y, each pair hard in another way."""
    rng = np.random.default_rng(5)
    sign = np.where(np.arange(N) % 2, -1, 1)
    full = np.full((8, N), FULL, dtype=np.uint16)
    least = np.tile(words_of_digits(np.full(N, -(2**15))), (8, 1))
    alternating = np.tile(words_of_digits(np.where(sign > 0, 2**15 - 1, -(2**15))), (8, 1))
    every_other = np.tile(np.where(sign > 0, FULL, 0).astype(np.uint16), (8, 1))
    drawn = rng.integers(0, 2**64, (8, N), dtype=np.uint64)
    spike = np.zeros((8, N), dtype=np.uint16)
    spike[:, -1] = FULL
    return {
        "all maximal": (least, full),
        "all ones": (np.full((8, N), 2**64 - 1, dtype=np.uint64), full),
        "alternating": (alternating, every_other),
        "alternating against all maximal": (alternating, full),
        "least against every other": (least, every_other),
        "signs drawn": (words_of_digits(np.where(rng.random((8, N)) < 0.5, -(2**15), 2**15 - 1)), full),
        "random": (drawn, rng.integers(0, 2**16, (8, N), dtype=np.uint16)),
        "random against all maximal": (drawn, full),
        "top bit": (np.full((8, N), 2**63, dtype=np.uint64), full),
        "last coefficient": (drawn, spike),
        "zero": (drawn, np.zeros((8, N), dtype=np.uint16)),
    } | {f"aligned with root {r}": aligned_with(r, 0.3) for r in (0, 1, 341, 512, 1023)}


def spectra(b: np.ndarray) -> np.ndarray:
    return spectra_of(b.reshape(-1).copy(), new_spectra())


@pytest.mark.parametrize("name", hard_inputs())
def test_products_of_hard_inputs_equal_those_of_big_integers(name):
    b, y = hard_inputs()[name]
    product = ProductSum()
    product.add(spectra(b), y.reshape(-1), 0)
    assert (product.result() == oracle_sum(b, y)).all()


@pytest.mark.parametrize("plane", [0, 1, 2, 3])
def test_a_higher_plane_shifts_the_product_and_blocks_add_up(plane):
    product, expected = ProductSum(), np.zeros(N, dtype=np.uint64)
    for name in ("all maximal", "random", "alternating"):
        b, y = hard_inputs()[name]
        product.add(spectra(b), y.reshape(-1), plane)
        expected += oracle_sum(b, y) << np.uint64(16 * plane)
    assert (product.result() == expected).all()


def test_the_digits_of_words_are_centred_as_the_proof_assumes():
    words = np.zeros((8, N), dtype=np.uint64)
    words[:, 0] = [0, 2**64 - 1, HALVES, HALVES - 1, 2**63, 2**64 - HALVES, 0x7FFF_8000_7FFF_8000, 2**15]
    # A polynomial that is constant transforms to its constant everywhere.
    found = spectra(words).reshape(8, 4, M)
    digits = np.rint(found[:, :, 0].real).astype(int)
    assert np.abs(found - digits[:, :, None]).max() < 1e-6
    assert digits.min() == -(2**15)
    assert digits.max() < 2**15
    assert [sum(int(d) << 16 * i for i, d in enumerate(row)) % 2**64 for row in digits] == words[:, 0].tolist()


def distance_from_integers(b: np.ndarray, y: np.ndarray) -> float:
    sums = ProductSum()._inexact(spectra(b), y.reshape(-1), 4).view(np.float64)
    return float(np.abs(sums - np.rint(sums)).max())


def test_the_error_before_rounding_stays_far_below_the_proved_bound():
    worst = max(distance_from_integers(b, y) for b, y in hard_inputs().values())
    for root in range(0, M, 73):
        for phase in (0.0, 0.8, 1.5):
            b, y = aligned_with(root, phase)
            worst = max(worst, distance_from_integers(b, y), distance_from_integers(b, np.full_like(y, FULL)))
    print(f"worst distance from an integer {worst:.6f}, proved bound {ERROR_BOUND}")
    assert ERROR_BOUND == 0.48828125
    assert worst < ERROR_BOUND / 20


def extended(array: np.ndarray) -> np.ndarray:
    return array.astype(np.clongdouble)


def exact_roots(order: int, count: int) -> np.ndarray:
    """`exp(2 pi i k / order)` with the 64-bit mantissas of x87, from angles of at most pi / 4."""
    pi = np.longdouble("3.14159265358979323846264338327950288")
    eighths, rest = np.divmod(np.arange(count) * 8, order)
    angle = np.where(eighths % 2, order - rest, rest).astype(np.longdouble) * (pi / (4 * order))
    cosine, sine = np.cos(angle), np.sin(angle)
    swapped = np.isin(eighths % 4, (1, 2))
    x, y = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    x = np.where(np.isin(eighths % 8, (2, 3, 4, 5)), -x, x)
    return x + 1j * np.where(eighths % 8 >= 4, -y, y)


needs_long_doubles = pytest.mark.skipif(np.finfo(np.longdouble).eps > 2.0**-62, reason="no longer floats here")


@needs_long_doubles
def test_the_twist_is_within_four_roundoffs_as_the_proof_assumes():
    assert np.abs(extended(negacyclic._TWIST) - exact_roots(2 * N, M)).max() < 2 * U
    assert (negacyclic._TWIST.conj() == negacyclic._UNTWIST).all()


@needs_long_doubles
def test_every_path_through_the_fft_multiplies_by_the_right_root_as_the_proof_assumes():
    # Unit vectors meet no rounding of additions: what remains are the tabulated roots and their products.
    unit = np.eye(M, dtype=np.complex128)
    powers = exact_roots(M, M)[np.outer(np.arange(M), np.arange(M)) % M]
    assert np.abs(extended(scipy.fft.fft(unit, axis=-1, workers=1)) - powers.conj()).max() < 10 * U
    assert np.abs(extended(scipy.fft.ifft(unit, axis=-1, workers=1) * M) - powers).max() < 10 * U


@needs_long_doubles
def test_transforms_of_hard_inputs_err_within_what_the_proof_allows():
    for b, y in hard_inputs().values():
        folded = y[:, :M] + 1j * y[:, M:]
        for values in (folded, (b[:, :M] >> np.uint64(48)) - 2.0**15 + 0j):
            exact = scipy.fft.fft(extended(values) * exact_roots(2 * N, M), axis=-1, workers=1)
            error = np.linalg.norm(extended(negacyclic._transform(values + 0j)) - exact, axis=-1)
            assert (error <= 10 * U * np.linalg.norm(exact, axis=-1)).all()


@pytest.mark.parametrize("count", [1, 511, 512, 513, 4095, 4096, 4097, 9000])
def test_the_hash_is_what_its_definition_says(count):
    lanes = random_lanes(count)
    assert (hash_lanes(lanes) == oracle_hash(limbs(lanes))).all()
    full = np.full(count, 2**64 - 1, dtype=np.uint64)
    assert (hash_lanes(full) == oracle_hash(limbs(full))).all()


def test_nothing_hashes_to_zero_and_a_unit_lane_to_the_first_public_polynomial():
    assert not hash_lanes(np.empty(0, dtype=np.uint64)).any()
    assert not hash_lanes(np.zeros(5000, dtype=np.uint64)).any()
    one = np.zeros(600, dtype=np.uint64)
    one[512] = 1
    assert (hash_lanes(one) == public_polynomials(2)[1]).all()
    one[512] = 1 << 16  # times X: coefficients move up, the top one comes back negative
    assert (hash_lanes(one)[1:] == public_polynomials(2)[1][:-1]).all()
    assert hash_lanes(one)[0] == -public_polynomials(2)[1][-1:]


@pytest.mark.parametrize(
    "contributors", [1, 2, 65_537, 65_538, max_contributors(1100) - 1, max_contributors(1100)], ids=str
)
def test_the_hash_of_a_limb_sum_is_exact_up_to_the_most_contributors(contributors):
    rng = np.random.default_rng(contributors)
    most = contributors * FULL
    for entries in (
        np.full(4400, most, dtype=np.uint64),
        np.where(np.arange(4400) % 2, most, 0).astype(np.uint64),
        rng.integers(0, most, 4400, dtype=np.uint64, endpoint=True),
    ):
        assert (hash_limb_sum(LimbSum.from_entries(entries, contributors)) == oracle_hash(entries)).all()


def test_the_largest_entries_of_all_are_exact():
    entries = np.array([2**33 * FULL, 0, 1, 2**33 * FULL], dtype=np.uint64)
    assert (hash_limb_sum(LimbSum.from_entries(entries, 2**33)) == oracle_hash(entries)).all()


def test_hashing_adds_up_as_long_as_limbs_do_not_carry():
    a, b = random_lanes(5000, 1), random_lanes(5000, 2)
    low = np.uint64(0x7FFF_7FFF_7FFF_7FFF)
    assert (hash_lanes((a & low) + (b & low)) == hash_lanes(a & low) + hash_lanes(b & low)).all()
    assert (hash_lanes(a + b) != hash_lanes(a) + hash_lanes(b)).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9000), st.integers(1, 6), st.integers(0, 2**32))
def test_the_hash_of_the_limb_sum_is_the_sum_of_the_hashes(count, contributors, seed):
    parts = [random_lanes(count, seed + i) for i in range(contributors)]
    parts[0][:] = 2**64 - 1
    total = LimbSum(count)
    for part in parts:
        total.add_lanes(part)
    assert total.contributors == contributors
    assert (total.entries == np.sum([limbs(part) for part in parts], axis=0, dtype=np.uint64)).all()
    assert (lanes_of_limb_sum(total) == np.sum(parts, axis=0, dtype=np.uint64)).all()
    assert (hash_limb_sum(total) == sum_of_hashes(hash_lanes(part) for part in parts)).all()


def test_partial_limb_sums_merge_in_any_order():
    parts = [random_lanes(700, i) for i in range(5)]
    whole, left, right = LimbSum(700), LimbSum(700), LimbSum(700)
    for index, part in enumerate(parts):
        whole.add_lanes(part)
        (left if index % 2 else right).add_lanes(part)
    left.merge(right)
    assert left.contributors == 5
    assert (left.entries == whole.entries).all()
    assert right.contributors == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9000), st.lists(st.booleans(), min_size=1, max_size=6))
def test_taking_contributions_out_again_leaves_the_sum_of_the_others(count, stays):
    parts = [random_lanes(count, seed) for seed in range(len(stays))]
    parts[-1][:] = 2**64 - 1
    total, rest = LimbSum(count), LimbSum(count)
    for part in parts:
        total.add_lanes(part)
    for part, stay in zip(parts, stays, strict=True):
        (rest.add_lanes if stay else total.subtract_lanes)(part)
    assert total.contributors == rest.contributors == sum(stays)
    assert (total.entries == rest.entries).all()


@pytest.mark.parametrize("place", [0, 1, 4095, 4096, 8999])
def test_what_was_not_added_cannot_be_taken_out_and_nothing_changes(place):
    total, part = LimbSum(9000), random_lanes(9000)
    total.add_lanes(part)
    before = total.entries.copy()
    more = part & ~np.uint64(0xFFFF)
    more[place] |= np.uint64(int(part[place]) + 1 & 0xFFFF or 0xFFFF)
    part[place] &= ~np.uint64(0xFFFF)
    for wrong in (more, np.full(9000, 2**64 - 1, dtype=np.uint64)):
        with pytest.raises(ArithmeticInputError) as error:
            total.subtract_lanes(wrong)
        assert error.value.field == "lanes"
        assert total.contributors == 1
        assert (total.entries == before).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 9))
def test_shards_are_consecutive_and_full_but_for_the_last(contributors, most):
    with mock.patch.object(linear_hash, "max_contributors", return_value=most):
        ranges = shard_ranges(contributors, 1000)
        assert len(ranges) == shards_needed(contributors, 1000)
    assert [place for part in ranges for place in part] == list(range(contributors))
    assert {len(part) for part in ranges[:-1]} <= {most}
    assert 1 <= len(ranges[-1]) <= most


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 40), st.integers(0, 5000), st.just(4096)), max_size=6))
def test_pieces_of_any_number_of_lanes_hash_alike(pieces):
    lanes, hasher, start = random_lanes(sum(pieces)), LinearHasher(), 0
    for piece in pieces:
        hasher.update(lanes[start : start + piece])
        start += piece
        if piece % 3 == 0:
            assert (hasher.digest() == hash_lanes(lanes[:start])).all()
    assert hasher.lanes == lanes.size
    assert (hasher.digest() == hash_lanes(lanes)).all()


def test_trailing_zero_lanes_do_not_change_the_hash():
    lanes = random_lanes(700)
    assert (hash_lanes(np.concatenate((lanes, np.zeros(9000, dtype=np.uint64)))) == hash_lanes(lanes)).all()


def tampered_sums() -> dict[str, np.ndarray]:
    total = LimbSum(1500)
    for seed in range(3):
        total.add_lanes(random_lanes(1500, seed))
    honest = total.entries
    rng = np.random.default_rng(0)
    one, carry, swapped = honest.copy(), honest.copy(), honest.copy()
    one[rng.integers(honest.size)] ^= np.uint64(1)
    # The same sum of lanes, said with another carry.
    low = int(np.flatnonzero((honest[::4] >= 2**16) & (honest[1::4] < 3 * FULL))[0]) * 4
    carry[low], carry[low + 1] = carry[low] - np.uint64(2**16), carry[low + 1] + np.uint64(1)
    swapped[[3, 4]] = swapped[[4, 3]]
    turned = np.roll(honest, 1)
    polynomials = np.concatenate((honest[N : 2 * N], honest[:N], honest[2 * N :]))
    negated = honest.copy()
    negated[:N] = 3 * FULL - negated[:N]
    return {
        "one bit": one,
        "a carry": carry,
        "two entries swapped": swapped,
        "rotated": turned,
        "polynomials swapped": polynomials,
        "a polynomial mirrored": negated,
    }


@pytest.mark.parametrize("name", tampered_sums())
def test_another_limb_sum_has_another_hash(name):
    expected = sum_of_hashes(hash_lanes(random_lanes(1500, seed)) for seed in range(3))
    tampered = LimbSum.from_entries(tampered_sums()[name], 3)
    assert (hash_limb_sum(tampered) != expected).any()


def test_the_carried_limb_sum_stands_for_the_same_lanes_so_only_the_hash_tells_them_apart():
    honest = sum((random_lanes(1500, seed) for seed in range(3)), np.zeros(1500, dtype=np.uint64))
    assert (lanes_of_limb_sum(LimbSum.from_entries(tampered_sums()["a carry"], 3)) == honest).all()


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_polynomials_beyond_the_table_are_streamed_with_the_same_result(kept, monkeypatch):
    lanes = random_lanes(3 * 4096 + 100)
    expected = hash_lanes(lanes)
    monkeypatch.setattr(linear_hash, "_CACHED_BLOCKS", kept)
    monkeypatch.setattr(linear_hash, "_cached", {})
    for _ in range(2):
        hasher = LinearHasher()
        for start in range(0, lanes.size, 1000):
            hasher.update(lanes[start : start + 1000])
            hasher.digest()
        assert (hasher.digest() == expected).all()
        assert len(linear_hash._cached) == kept
    total = LimbSum(lanes.size)
    total.add_lanes(lanes)
    assert (hash_limb_sum(total) == expected).all()


def test_threads_that_make_the_table_at_once_agree(monkeypatch):
    lanes = random_lanes(3 * 4096)
    expected = hash_lanes(lanes)
    monkeypatch.setattr(linear_hash, "_cached", {})
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(hash_lanes, [lanes] * 8):
            assert (found == expected).all()
    assert sorted(linear_hash._cached) == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        linear_hash._cached[0][:] = 0


def test_the_table_holds_a_million_coordinates_and_at_most_64_mib():
    assert linear_hash._CACHED_BLOCKS * new_spectra().nbytes == 64 << 20
    assert linear_hash._CACHED_BLOCKS * 4096 >= 500_001


@settings(deadline=None)
@given(st.one_of(st.integers(1, 2000), st.integers(1, MAX_LANES)))
def test_the_most_contributors_are_the_most_that_keep_the_norm_below_the_bound(lanes):
    most = max_contributors(lanes)

    def squared_norm(n: int) -> int:
        return (n * 2**16) ** 2 * 4 * lanes

    assert squared_norm(most) <= 2**100 < squared_norm(most + 1)
    assert shards_needed(1, lanes) == shards_needed(most, lanes) == 1
    assert shards_needed(most + 1, lanes) == shards_needed(2 * most, lanes) == 2
    assert shards_needed(2 * most + 1, lanes) == 3


def test_the_table_in_the_documentation_is_what_the_code_computes():
    text = (Path(__file__).parents[3] / "docs/parameters.md").read_text(encoding="utf-8").split("## Linear hash")[1]
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows) >= 4
    for row in rows:
        lanes, most, shards = (int(cell.replace(",", "")) for cell in row)
        assert max_contributors(lanes) == most
        assert shards_needed(2**33, lanes) == shards


def test_a_contribution_more_than_the_bound_allows_is_refused_and_changes_nothing():
    full = LimbSum.from_entries(np.zeros(8, dtype=np.uint64), max_contributors(2))
    one = LimbSum(2)
    one.add_lanes(random_lanes(2))
    for refused in (lambda: full.add_lanes(random_lanes(2)), lambda: full.merge(one)):
        with pytest.raises(ArithmeticInputError) as error:
            refused()
        assert error.value.field == "contributors"
        assert not full.entries.any()
        assert full.contributors == max_contributors(2)
    full.merge(LimbSum(2))


ZEROS = np.zeros(8, dtype=np.uint64)
REFUSALS = {
    "lanes of another type": ("lanes", lambda: hash_lanes(ZEROS.view(np.int64))),
    "lanes of the other byte order": ("lanes", lambda: hash_lanes(ZEROS.astype(">u8"))),
    "a matrix": ("lanes", lambda: hash_lanes(ZEROS.reshape(2, 4))),
    "every other lane": ("lanes", lambda: limbs(ZEROS[::2])),
    "a limb sum of no lanes": ("lanes", lambda: LimbSum(0)),
    "a limb sum of too many lanes": ("lanes", lambda: LimbSum(MAX_LANES + 1)),
    "a contribution of another length": ("lanes", lambda: LimbSum(7).add_lanes(ZEROS)),
    "taking out another length": ("lanes", lambda: LimbSum(7).subtract_lanes(ZEROS)),
    "taking zeros out of nothing": ("lanes", lambda: LimbSum(8).subtract_lanes(ZEROS)),
    "merging another length": ("lanes", lambda: LimbSum(7).merge(LimbSum(8))),
    "entries of another type": ("entries", lambda: LimbSum.from_entries(ZEROS.view(np.int64), 1)),
    "entries of half a lane": ("entries", lambda: LimbSum.from_entries(ZEROS[:6], 1)),
    "no entries": ("entries", lambda: LimbSum.from_entries(ZEROS[:0], 1)),
    "an entry too large": ("entries", lambda: LimbSum.from_entries(ZEROS + np.uint64(3 * FULL + 1), 3)),
    "fewer contributors than none": ("contributors", lambda: LimbSum.from_entries(ZEROS, -1)),
    "too many contributors": ("contributors", lambda: LimbSum.from_entries(ZEROS, max_contributors(2) + 1)),
    "a session of nobody": ("contributors", lambda: shards_needed(0, 1)),
    "a bound for no lanes": ("lanes", lambda: max_contributors(0)),
    "a bound for too many lanes": ("lanes", lambda: shards_needed(1, MAX_LANES + 1)),
    "a short hash": ("hashes", lambda: sum_of_hashes([np.zeros(2047, dtype=np.uint64)])),
    "a hash of another type": ("hashes", lambda: sum_of_hashes([np.zeros(N, dtype=np.float64)])),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_field(name):
    field, action = REFUSALS[name]
    with pytest.raises(ArithmeticInputError) as refused:
        action()
    assert refused.value.field == field


def test_a_vector_beyond_the_longest_is_refused_and_consumes_nothing():
    hasher = LinearHasher()
    hasher._lanes = MAX_LANES - 1
    with pytest.raises(ArithmeticInputError) as refused:
        hasher.update(np.zeros(2, dtype=np.uint64))
    assert refused.value.field == "lanes"
    assert hasher.lanes == MAX_LANES - 1


def test_published_entries_cannot_be_written_to_and_are_copied_on_the_way_in():
    mine = np.ones(4, dtype=np.uint64)
    total = LimbSum.from_entries(mine, 1)
    mine[:] = 9
    assert total.entries.tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        total.entries[:] = 0


def test_no_hashes_add_up_to_zero_and_hashes_wrap():
    assert not sum_of_hashes([]).any()
    assert (sum_of_hashes([np.full(N, 2**64 - 1, dtype=np.uint64)] * 2) == 2**64 - 2).all()


def test_every_vector_has_its_recorded_outcome_and_the_generator_reproduces_the_file():
    recorded = vectors.PATH.read_text(encoding="utf-8")
    content = json.loads(recorded)
    assert content.keys() == {"description", "operations"}
    for entry in content["operations"]:
        outcome = {key: entry[key] for key in ("success", "expected", "error") if key in entry}
        assert vectors.replay(entry) == outcome, entry["op"]
    assert {e["op"] for e in content["operations"] if e["success"]} == set(vectors.OPERATIONS)
    assert sum(not e["success"] for e in content["operations"]) >= 12
    assert vectors.render() == recorded


@pytest.mark.parametrize("entry", [{"op": "unheard_of"}, {"op": "limbs"}, {"op": "limbs", "lanes": "", "more": 1}])
def test_unknown_operations_and_inputs_fail_the_runner(entry):
    with pytest.raises(KeyError):
        vectors.replay(entry)
