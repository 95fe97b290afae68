"""Secret sharing against textbook Lagrange interpolation in Python integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import Keystream
from secagg.arith.prime_field import extrapolation_matrix, inverse, matrix_product, powers
from secagg.arith.reed_solomon import GaoDecoder, decode_columns, subsets_to_try
from secagg.arith.shamir import (
    MAX_SUBSETS,
    PRIME,
    SECRET_LIMBS,
    ReconstructionError,
    ReconstructionPlan,
    lagrange_at_zero,
    limbs_to_secret,
    reconstruct,
    reconstruct_with_errors,
    secret_to_limbs,
    share,
    share_from_bytes,
    share_to_bytes,
    uniform_elements,
)

elements = st.one_of(st.integers(0, PRIME - 1), st.sampled_from([0, 1, PRIME - 1]))


def u64(values):
    return np.array(values, dtype=np.uint64)


def evaluate(coefficients, x):
    return sum(int(c) * pow(int(x), k, PRIME) for k, c in enumerate(coefficients)) % PRIME


def interpolate(points, values, at):
    total = 0
    for i, x in enumerate(points):
        term = int(values[i])
        for j, other in enumerate(points):
            if i != j:
                term = term * (at - int(other)) * pow(int(x) - int(other), -1, PRIME) % PRIME
        total += term
    return total % PRIME


def random_elements(shape, seed=0):
    return np.random.default_rng(seed).integers(0, PRIME, shape, dtype=np.uint64)


def deal(count, threshold, width=SECRET_LIMBS, seed=0):
    rng = np.random.default_rng(seed)
    points = u64(rng.choice(np.arange(1, 1000), count, replace=False))
    secrets = random_elements(width, seed + 1)
    return points, secrets, share(secrets, random_elements((threshold - 1, width), seed + 2), points)


def accepting(secrets):
    return lambda limbs: bool((limbs == secrets).all())


def never(limbs):
    return False


@given(st.binary(min_size=32, max_size=32))
def test_a_secret_survives_its_limbs(secret):
    limbs = secret_to_limbs(secret)
    assert limbs.shape == (9,)
    assert sum(int(v) << (30 * i) for i, v in enumerate(limbs)) == int.from_bytes(secret, "little")
    assert limbs_to_secret(limbs) == secret


@given(st.lists(elements, min_size=9, max_size=9))
def test_limbs_are_a_secret_exactly_when_canonical(values):
    canonical = all(v < 2**30 for v in values) and values[8] < 2**16
    if canonical:
        assert secret_to_limbs(limbs_to_secret(u64(values))).tolist() == values
    else:
        with pytest.raises(ArithmeticInputError, match="limbs"):
            limbs_to_secret(u64(values))
    encoded = share_to_bytes(u64(values))
    assert encoded == b"".join(v.to_bytes(4, "little") for v in values)
    assert share_from_bytes(encoded).tolist() == values


def test_the_top_limb_has_sixteen_bits():
    assert limbs_to_secret(u64([0] * 8 + [2**16 - 1])) == bytes(30) + b"\xff\xff"
    for top in (2**16, 2**30 - 1):
        with pytest.raises(ArithmeticInputError, match="limbs"):
            limbs_to_secret(u64([0] * 8 + [top]))
    for position in range(9):
        with pytest.raises(ArithmeticInputError, match="limbs"):
            limbs_to_secret(u64([2**30 if i == position else 0 for i in range(9)]))


@pytest.mark.parametrize("value", [PRIME, PRIME + 1, 2**32 - 1])
def test_shares_at_or_above_the_prime_are_refused(value):
    for position in range(9):
        encoded = bytes(4 * position) + value.to_bytes(4, "little") + bytes(4 * (8 - position))
        with pytest.raises(ArithmeticInputError) as refused:
            share_from_bytes(encoded)
        assert refused.value.field == "share"


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_sharing_and_reconstruction_equal_the_textbook(data):
    count = data.draw(st.integers(1, 12))
    threshold, width = data.draw(st.integers(1, count)), data.draw(st.integers(1, 5))
    points = data.draw(st.lists(st.integers(1, PRIME - 1), min_size=count, max_size=count, unique=True))
    rows = data.draw(
        st.lists(st.lists(elements, min_size=width, max_size=width), min_size=threshold, max_size=threshold)
    )
    secrets, coefficients = u64(rows[0]), u64(rows[1:]).reshape(threshold - 1, width)
    shares = share(secrets, coefficients, u64(points))
    assert shares.tolist() == [[evaluate(column, x) for column in zip(*rows, strict=True)] for x in points]
    chosen = data.draw(st.permutations(range(count)))[:threshold]
    assert (reconstruct(u64(points)[chosen], shares[chosen]) == secrets).all()
    weights = lagrange_at_zero(u64(points)[chosen])
    for i, weight in enumerate(weights):
        unit = [int(i == j) for j in range(threshold)]
        assert int(weight) == interpolate([points[k] for k in chosen], unit, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, PRIME - 1), min_size=1, max_size=70))
def test_all_inverses_cost_one_inversion_and_are_right(values):
    assert inverse(u64(values)).tolist() == [pow(v, -1, PRIME) for v in values]


def test_products_of_maximal_elements_are_exact():
    worst = np.full((3, 2048), PRIME - 1, dtype=np.uint64)
    assert (matrix_product(worst, worst.T.copy()) == 2048 % PRIME).all()
    left, right = random_elements((5, 300)), random_elements((300, 4), 1)
    exact = [[sum(int(a) * int(b) for a, b in zip(r, c, strict=True)) % PRIME for c in right.T] for r in left]
    assert matrix_product(left, right).tolist() == exact
    points = u64([1, 2, PRIME - 1, 12345])
    assert powers(points, 7).tolist() == [[pow(int(x), k, PRIME) for k in range(7)] for x in points]


def test_extrapolation_equals_the_textbook():
    known, wanted = u64([5, 9, 2, 77]), u64([1, 3, PRIME - 4])
    values = random_elements(4)
    got = matrix_product(extrapolation_matrix(known, wanted), values[:, None])[:, 0]
    assert got.tolist() == [interpolate(known, values, int(z)) for z in wanted]


def test_fewer_shares_than_the_threshold_fit_every_secret():
    points, secrets, shares = deal(5, 3, width=1)
    for guess in (0, 1, int(secrets[0]), PRIME - 1):
        value = interpolate([0, int(points[0]), int(points[1])], [guess, shares[0, 0], shares[1, 0]], int(points[2]))
        completed = u64([[shares[0, 0]], [shares[1, 0]], [value]])
        assert int(reconstruct(points[:3], completed)[0]) == guess


def test_a_plan_reconstructs_many_secrets_and_shows_every_disagreement():
    points, secrets, shares = deal(20, 13, width=90)
    plan = ReconstructionPlan(points, 13)
    assert (plan.reconstruct(shares) == secrets).all()
    assert not plan.disagreements(shares).any()
    bad = shares.copy()
    bad[17, 40] = (bad[17, 40] + np.uint64(1)) % np.uint64(PRIME)
    assert np.argwhere(plan.disagreements(bad)).tolist() == [[17, 40]]
    bad = shares.copy()
    bad[2, 5] = (bad[2, 5] + np.uint64(1)) % np.uint64(PRIME)
    assert plan.disagreements(bad)[13:, 5].all()
    assert not np.delete(plan.disagreements(bad), 5, axis=1).any()
    assert not ReconstructionPlan(points[:13], 13).disagreements(shares[:13]).any()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exactly_the_wrong_shares_are_named_up_to_half_of_the_surplus(data):
    count = data.draw(st.integers(1, 16))
    threshold = data.draw(st.integers(1, count))
    points, secrets, shares = deal(count, threshold, width=3, seed=data.draw(st.integers(0, 1000)))
    capacity = (count - threshold) // 2
    wrong = sorted(data.draw(st.permutations(range(count)))[: data.draw(st.integers(0, capacity))])
    for row in wrong:
        limbs = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
        shares[row, limbs] = (shares[row, limbs] + np.uint64(data.draw(st.integers(1, 9)))) % np.uint64(PRIME)
    got, named = reconstruct_with_errors(points, shares, threshold, accepting(secrets))
    assert (got == secrets).all()
    assert named == wrong


def test_a_hundred_shares_with_the_most_errors_decode_and_name_everybody():
    points, secrets, shares = deal(100, 67)
    wrong = list(range(3, 100, 6))[:16]
    shares[wrong] = random_elements((16, 9), 9)
    got, named = reconstruct_with_errors(points, shares, 67, accepting(secrets))
    assert (got == secrets).all()
    assert named == wrong


def test_wrong_shares_that_cancel_at_zero_cannot_put_the_blame_on_honest_ones():
    points, secrets, shares = deal(9, 5)
    weights = [int(w) for w in lagrange_at_zero(points[:5])]
    # The first two lie so that the first five still give the right secret.
    shares[0, 0] = (int(shares[0, 0]) + weights[1]) % PRIME
    shares[1, 0] = (int(shares[1, 0]) - weights[0]) % PRIME
    assert (reconstruct(points[:5], shares[:5]) == secrets).all()
    got, named = reconstruct_with_errors(points, shares, 5, accepting(secrets))
    assert (got == secrets).all()
    assert named == [0, 1]


def test_errors_in_different_limbs_may_exceed_half_of_the_surplus_together():
    points, secrets, shares = deal(9, 5)
    for row, limb in enumerate(range(4)):
        shares[row, limb] ^= np.uint64(1)
    got, named = reconstruct_with_errors(points, shares, 5, accepting(secrets))
    assert (got == secrets).all()
    assert named == [0, 1, 2, 3]


def test_positions_found_wrong_in_one_limb_help_to_decode_another():
    points, secrets, shares = deal(9, 5)
    bump = np.uint64(1)
    shares[0, 0] ^= bump
    shares[1, 0] ^= bump
    shares[[0, 1, 2], 1] ^= bump  # three errors of a capacity of two, but 0 and 1 are known
    secret, missed = decode_columns(points, shares, 5)
    assert (secret == secrets).all()
    assert missed == [0, 1, 2]
    got, named = reconstruct_with_errors(points, shares, 5, accepting(secrets))
    assert (got == secrets).all()
    assert named == [0, 1, 2]


def test_more_errors_than_decoding_corrects_are_found_by_trying_subsets():
    points, secrets, shares = deal(6, 3)
    wrong = [0, 2, 4]
    shares[wrong] = random_elements((3, 9), 5)
    got, named = reconstruct_with_errors(points, shares, 3, accepting(secrets))
    assert (got == secrets).all()
    assert named == wrong
    points, secrets, shares = deal(40, 20)
    shares[:19] = random_elements((19, 9), 6)
    got, named = reconstruct_with_errors(points, shares, 20, accepting(secrets))
    assert (got == secrets).all()
    assert named == list(range(19))


def test_nothing_accepted_is_an_error_after_a_bounded_number_of_candidates():
    points, _, shares = deal(6, 3)
    with pytest.raises(ReconstructionError) as failed:
        reconstruct_with_errors(points, shares, 3, never)
    assert failed.value.candidates == 1
    points, secrets, shares = deal(60, 30)
    shares[:] = random_elements((60, 9), 6)
    with pytest.raises(ReconstructionError) as failed:
        reconstruct_with_errors(points, shares, 30, accepting(secrets))
    assert failed.value.candidates == 1 + 60 * 8  # nothing decodes; 8 strides up to 30 are coprime to 60


@pytest.mark.parametrize(("count", "size"), [(1, 1), (5, 2), (12, 6), (40, 20), (100, 67), (97, 96)])
def test_subsets_are_distinct_rows_and_bounded(count, size):
    seen = [subset.tolist() for subset in subsets_to_try(count, size)]
    assert 0 < len(seen) <= MAX_SUBSETS
    assert all(len(set(s)) == size and max(s) < count for s in seen)
    assert len({frozenset(s) for s in seen}) == len(seen)


def test_the_decoder_finds_nothing_where_nothing_is_near():
    decoder = GaoDecoder(np.arange(1, 30, dtype=np.uint64), 5)
    assert decoder.decode(random_elements(29)) is None
    assert decoder.decode(np.zeros(29, dtype=np.uint64)).tolist() == [0] * 5
    few = np.zeros(29, dtype=np.uint64)
    few[[3, 28]] = 7
    assert decoder.decode(few).tolist() == [0] * 5


def test_uniform_elements_are_the_stream_without_the_top_bit_and_the_prime():
    words = [PRIME, 5, 2**32 - 1, 2**31 + 6, 0, PRIME - 1, 2**31 | PRIME, 9]
    stream = iter(b"".join(w.to_bytes(4, "little") for w in words))

    def read(length):
        return bytes(next(stream) for _ in range(length))

    assert uniform_elements(read, (1, 5)).tolist() == [[5, 6, 0, PRIME - 1, 9]]
    assert next(stream, None) is None
    assert uniform_elements(read, (0, 4)).shape == (0, 4)
    with pytest.raises(ArithmeticInputError, match="read"):
        uniform_elements(lambda length: bytes(length - 1), 3)


def test_uniform_elements_are_spread_over_the_field():
    keystream = Keystream(bytes(32))

    def read(length):
        raw = np.empty(length, dtype=np.uint8)
        keystream.read_into(raw)
        return raw.tobytes()

    drawn = uniform_elements(read, 100_000)
    counts = np.bincount((drawn >> np.uint64(27)).astype(np.intp), minlength=16)
    assert counts.size == 16
    assert (np.abs(counts - 6250) < 8 * 6250**0.5).all()  # a fixed stream: cannot flake


GOOD = u64([1, 2, 3])
ROWS = random_elements((3, 2))


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (lambda: secret_to_limbs(bytes(31)), "secret"),
        (lambda: limbs_to_secret(u64([0] * 8)), "limbs"),
        (lambda: share_to_bytes(u64([0] * 8)), "limbs"),
        (lambda: share_to_bytes(u64([0] * 8 + [PRIME])), "limbs"),
        (lambda: share_from_bytes(bytes(35)), "share"),
        (lambda: share_from_bytes(bytes(37)), "share"),
        (lambda: lagrange_at_zero(u64([1, 2, 1])), "points"),
        (lambda: lagrange_at_zero(u64([1, 0])), "points"),
        (lambda: lagrange_at_zero(u64([1, PRIME])), "points"),
        (lambda: lagrange_at_zero(u64([])), "points"),
        (lambda: lagrange_at_zero(np.array([1, 2])), "points"),
        (lambda: lagrange_at_zero(np.arange(1, 2050, dtype=np.uint64)), "points"),
        (lambda: reconstruct(GOOD, ROWS[:2]), "shares"),
        (lambda: reconstruct(GOOD, ROWS + np.uint64(PRIME)), "shares"),
        (lambda: ReconstructionPlan(GOOD, 4), "threshold"),
        (lambda: ReconstructionPlan(GOOD, 0), "threshold"),
        (lambda: reconstruct_with_errors(GOOD, ROWS, 0, never), "threshold"),
        (lambda: reconstruct_with_errors(u64([1, 1, 2]), ROWS, 2, never), "points"),
        (lambda: share(ROWS[0], ROWS, GOOD), "coefficients"),
        (lambda: share(ROWS[0], ROWS[:, :1], GOOD), "coefficients"),
        (lambda: share(u64([PRIME, 0]), ROWS[:1], GOOD), "secrets"),
        (lambda: share(ROWS[0], u64([[PRIME, 0]]), GOOD), "coefficients"),
        (lambda: share(ROWS[0], ROWS[:1], u64([1, 0])), "points"),
    ],
)
def test_undefined_inputs_are_refused(action, field):
    with pytest.raises(ArithmeticInputError) as refused:
        action()
    assert refused.value.field == field
