"""Seeded shares are Shamir shares, hide what they must, and add up to shares of the sum."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.prime_field import PRIME, extrapolation_matrix, matrix_product
from secagg.arith.seeded_shamir import (
    LARGEST_LIFT,
    MAX_CONTRIBUTORS,
    SHARE_BYTES,
    add_share,
    agree,
    dealt_shares,
    reconstruct_sum,
    share_of_seed,
    shares_from_bytes,
    shares_to_bytes,
)

N = 4096


def seed_of(*names: object) -> bytes:
    return hashlib.sha256(repr(names).encode()).digest()


def small_secret(seed: int, largest: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(-largest, largest + 1, N)


def seeded_rows(seed: object, count: int) -> np.ndarray:
    rows = [share_of_seed(seed_of(seed, row)) for row in range(count)]
    return np.array(rows, dtype=np.uint64).reshape(count, N)


def all_shares(secret: np.ndarray, seed: object, needed: int, members: int) -> np.ndarray:
    seeded = seeded_rows(seed, needed - 1)
    return np.concatenate([seeded, dealt_shares(secret, seeded, members)])


def points_of(members: list[int]) -> np.ndarray:
    return np.array(members, dtype=np.uint64) + np.uint64(1)


def evaluated(values: dict[int, int], at: int) -> int:
    """Lagrange interpolation with Python's integers."""
    total = 0
    for x, y in values.items():
        term = y
        for other in values:
            if other != x:
                term = term * (at - other) * pow(x - other, -1, PRIME) % PRIME
        total += term
    return total % PRIME


committees = st.integers(1, 7).flatmap(lambda needed: st.tuples(st.just(needed), st.integers(needed, 9)))


def test_the_share_of_a_seed_is_read_from_its_stream_by_rejection():
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = seed_of("stream")
    raw = Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\x02")).encryptor().update(bytes(5 * N))
    words = [int.from_bytes(raw[4 * i : 4 * i + 4], "little") & PRIME for i in range(5 * N // 4)]
    assert share_of_seed(key).tolist() == [word for word in words if word != PRIME][:N]
    for length in (0, 31, 33):
        with pytest.raises(ArithmeticInputError, match="key"):
            share_of_seed(bytes(length))


@settings(max_examples=25, deadline=None)
@given(committees, st.integers(0, 2**32))
def test_every_member_holds_the_value_at_its_point_of_the_polynomial_through_the_secret(committee, seed):
    needed, members = committee
    secret = small_secret(seed, LARGEST_LIFT)
    shares = all_shares(secret, seed, needed, members)
    assert shares.shape == (members, N)
    for column in (0, N - 1):
        known = {0: int(secret[column]) % PRIME} | {row + 1: int(shares[row, column]) for row in range(needed - 1)}
        assert shares[:, column].tolist() == [evaluated(known, member + 1) for member in range(members)]


@settings(max_examples=25, deadline=None)
@given(committees, st.integers(1, 5), st.data())
def test_any_members_that_suffice_find_the_sum_of_what_was_dealt(committee, contributors, data):
    needed, members = committee
    totals = np.zeros((members, N), dtype=np.uint64)
    expected = np.zeros(N, dtype=np.int64)
    for contributor in range(contributors):
        secret = small_secret(contributor)
        expected += secret
        for total, share in zip(totals, all_shares(secret, contributor, needed, members), strict=True):
            add_share(total, shares_from_bytes(shares_to_bytes(share)))
    chosen = data.draw(st.permutations(range(members)))[:needed]
    found = reconstruct_sum(points_of(chosen), totals[chosen], 2 * contributors)
    assert found.dtype == np.int64
    assert (found == expected).all()
    everybody = list(range(members))
    assert agree(points_of(everybody), totals, needed)
    assert agree(points_of(chosen), totals[chosen], needed)


@settings(max_examples=25, deadline=None)
@given(committees.filter(lambda c: c[0] > 1), st.integers(0, 2**32), st.data())
def test_every_view_of_one_member_too_few_is_equally_likely_under_every_secret(committee, seed, data):
    # Exact: for another secret there is exactly one choice of seeded shares with the same view. The choices are
    # uniform, so the view says nothing about the secret.
    needed, members = committee
    watching = sorted(data.draw(st.permutations(range(members)))[: needed - 1])
    shares = all_shares(small_secret(seed), seed, needed, members)
    view, other = shares[watching], small_secret(seed + 1)
    known = np.concatenate([np.zeros(1, dtype=np.uint64), points_of(watching)])
    fixed = np.concatenate([np.mod(other, PRIME).astype(np.uint64)[None, :], view])
    seeded = fixed[1:].copy()
    hidden = [row for row in range(needed - 1) if row not in watching]
    for row in range(needed - 1):
        if row in watching:
            seeded[row] = shares[row]
    if hidden:
        seeded[hidden] = matrix_product(extrapolation_matrix(known, points_of(hidden)), fixed)
    again = np.concatenate([seeded, dealt_shares(other, seeded, members)])
    assert (again[watching] == view).all()
    # One choice only: the map from hidden seeded shares to the view is invertible.
    if hidden:
        bent = seeded.copy()
        bent[hidden[0], 0] = (bent[hidden[0], 0] + np.uint64(1)) % np.uint64(PRIME)
        moved = np.concatenate([bent, dealt_shares(other, bent, members)])
        assert (moved[watching][:, 0] != view[:, 0]).any()


@pytest.mark.parametrize("watching", [[0, 1, 2, 3], [3, 4, 5, 6], [0, 2, 4, 6]])
def test_shares_of_too_few_members_are_uniform_whatever_the_secret(watching):
    for secret in (np.zeros(N, dtype=np.int64), np.full(N, 2), small_secret(1)):
        values = np.concatenate([all_shares(secret, ("u", k), 5, 7)[watching] for k in range(10)], axis=1)
        counts = np.bincount((values.reshape(-1) >> np.uint64(23)).astype(np.int64), minlength=256)
        expected = values.size / 256
        # Chi-square with 255 degrees of freedom: 5 deviations.
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * (2 * 255) ** 0.5
        for first in range(4):
            for second in range(first):
                assert abs(np.corrcoef(values[first], values[second])[0, 1]) < 5 / values.shape[1] ** 0.5


def test_a_wrong_share_disagrees_and_a_sum_far_off_is_refused():
    members, needed, honest = list(range(7)), 5, small_secret(3)
    shares = all_shares(honest, 3, needed, 7)
    for member in members:
        bent = shares.copy()
        bent[member, 17] = (bent[member, 17] + np.uint64(PRIME // 3)) % np.uint64(PRIME)
        assert not agree(points_of(members), bent, needed)
        chosen = [member, *[m for m in members if m != member][: needed - 1]]
        with pytest.raises(CertificationError) as refused:
            reconstruct_sum(points_of(chosen), bent[chosen], 331)
        assert (refused.value.condition, refused.value.failing) == ("secret", 1)
    # Off by one, a share moves a coefficient by a small weight: only what is left of the masked sum can show that.
    for member, weight in enumerate((5, -10, 10, -5, 1)):
        bent = shares.copy()
        bent[member, 17] = (bent[member, 17] + np.uint64(1)) % np.uint64(PRIME)
        assert not agree(points_of(members), bent, needed)
        found = reconstruct_sum(points_of(members[:needed]), bent[:needed], 331)
        assert (found - honest).tolist() == [weight if place == 17 else 0 for place in range(N)]
    swapped = shares[[1, 0, 2, 3, 4, 5, 6]]
    assert not agree(points_of(members), swapped, needed)
    # One share more than the degree is determined by nothing: with six needed, all seven still agree.
    assert agree(points_of(members), shares, needed + 1)
    assert not agree(points_of(members), shares, needed - 1)


def test_the_lift_is_centred_and_bounded():
    secret = np.zeros(N, dtype=np.int64)
    secret[:4] = [LARGEST_LIFT, -LARGEST_LIFT, 1, -1]
    shares = all_shares(secret, "lift", 3, 5)
    points = points_of([1, 3, 4])
    assert (reconstruct_sum(points, shares[[1, 3, 4]], LARGEST_LIFT) == secret).all()
    with pytest.raises(CertificationError) as refused:
        reconstruct_sum(points, shares[[1, 3, 4]], LARGEST_LIFT - 1)
    assert refused.value.failing == 2
    with pytest.raises(CertificationError):
        reconstruct_sum(points, shares[[1, 3, 4]], 0)
    for bound in (-1, LARGEST_LIFT + 1):
        with pytest.raises(ArithmeticInputError, match="bound"):
            reconstruct_sum(points, shares[[1, 3, 4]], bound)
    assert 2 * MAX_CONTRIBUTORS < LARGEST_LIFT


def test_a_sum_stays_reduced_however_many_shares_are_added():
    total, largest = np.zeros(N, dtype=np.uint64), np.full(N, PRIME - 1, dtype=np.uint64)
    for count in range(1, 1000):
        add_share(total, largest)
        assert int(total[0]) == count * (PRIME - 1) % PRIME
    assert int(total.max()) < PRIME
    add_share(total, np.full(N, PRIME - total[0], dtype=np.uint64))
    assert not total.any()


def test_shares_have_exactly_one_encoding():
    share = share_of_seed(seed_of("encoding"))
    encoded = shares_to_bytes(share)
    assert len(encoded) == SHARE_BYTES == 16_384
    assert encoded == b"".join(int(value).to_bytes(4, "little") for value in share)
    assert (shares_from_bytes(encoded) == share).all()
    for bad in (
        encoded[:-1],
        encoded + b"\0",
        b"",
        PRIME.to_bytes(4, "little") + encoded[4:],
        encoded[4:] + b"\xff" * 4,
    ):
        with pytest.raises(ArithmeticInputError) as refused:
            shares_from_bytes(bad)
        assert refused.value.field == "share"
    for array in (share[:-1], share.astype(np.int64), np.full(N, PRIME, dtype=np.uint64), share.reshape(2, -1)):
        with pytest.raises(ArithmeticInputError, match="share"):
            shares_to_bytes(array)


def test_other_arguments_are_refused():
    secret, seeded = small_secret(1), seeded_rows("r", 2)
    for wrong in (secret[:-1], secret.astype(np.int32), secret + LARGEST_LIFT, secret - LARGEST_LIFT - 1):
        with pytest.raises(ArithmeticInputError, match="secret"):
            dealt_shares(wrong, seeded, 5)
    for rows in (seeded[:, :-1], seeded.astype(np.int64), seeded[0], seeded + np.uint64(PRIME)):
        with pytest.raises(ArithmeticInputError, match="seeded"):
            dealt_shares(secret, rows, 5)
    for members in (2, 0, 2049):
        with pytest.raises(ArithmeticInputError, match="members"):
            dealt_shares(secret, seeded, members)
    total, share = np.zeros(N, dtype=np.uint64), seeded[0]
    for bad in (share[:-1], share.view(np.int64), share + np.uint64(PRIME)):
        with pytest.raises(ArithmeticInputError, match="share"):
            add_share(total, bad)
        with pytest.raises(ArithmeticInputError, match="total"):
            add_share(bad, share)
    assert not total.any()
    shares, points = all_shares(secret, "r", 3, 5), points_of(list(range(5)))
    with pytest.raises(ArithmeticInputError, match="points"):
        reconstruct_sum(points_of([1, 1, 2]), shares[:3], 2)
    with pytest.raises(ArithmeticInputError, match="shares"):
        reconstruct_sum(points[:3], shares[:4], 2)
    with pytest.raises(ArithmeticInputError, match="shares"):
        reconstruct_sum(points[:3], shares[:3, :9], 2)
    with pytest.raises(ArithmeticInputError, match="threshold"):
        agree(points, shares, 6)
    with pytest.raises(ArithmeticInputError, match="shares"):
        agree(points, shares[:, :9], 3)
