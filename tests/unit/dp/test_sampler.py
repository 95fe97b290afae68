"""Streams, keys, ties, additions and refusals of the sampler, against a reference that draws one number at a time."""

import hashlib
import hmac
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.alias import build_table, noise_table
from dp.errors import ParameterError
from dp.sampler import BLOCK_DRAWS, MAX_DRAWS, NoiseSampler, TableDraws
from dp.weights import DISCRETE_GAUSSIAN, SKELLAM, Weights

SECRET, CONTEXT = bytes(range(32)), b"session 7, client 3"
LAWS = [(SKELLAM, Fraction(1, 100)), (SKELLAM, Fraction(9)), (DISCRETE_GAUSSIAN, Fraction(70756))]


def reference_key(secret: bytes, context: bytes, stream: bytes, digest: bytes) -> bytes:
    """HKDF-SHA256 as RFC 5869 writes it, for one block of output."""
    info = b"dp/noise/v1"
    for part in (context, stream, digest):
        info += len(part).to_bytes(8, "big") + part
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\1", hashlib.sha256)


def block(key: bytes, counter: int) -> bytes:
    """AES-256 of a counter: any place of a stream, without what comes before."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(counter.to_bytes(16, "big"))  # noqa: S305


def decide(table, number: int) -> int:
    """What a uniform 128-bit number draws."""
    column = number >> (128 - table.column_bits)
    edge = (int(table.edges[column]) << 64) + int(table.low_edges[column])
    alias, own = table.values[2 * column : 2 * column + 2].tolist()
    return own if number < edge else alias


def reference_draw(table, secret: bytes, context: bytes, index: int) -> int:
    words = block(reference_key(secret, context, b"words", table.digest), 2 + index // 2)
    word = int.from_bytes(words[8 * (index % 2) :][:8], "little")
    tie = int.from_bytes(block(reference_key(secret, context, b"ties", table.digest), index)[:8], "little")
    return decide(table, (word << 64) + tie)


class GivenWords:
    def __init__(self, words):
        self.left = np.array(words, dtype=np.uint64)

    def read(self, count):
        taken, self.left = self.left[:count], self.left[count:]
        return taken


class GivenTies:
    def __init__(self, words):
        self.words, self.asked = words, []

    def word(self, index):
        self.asked.append(index)
        return self.words[index]


class NoTies:
    def word(self, index):
        raise AssertionError("no word equals an edge")


@pytest.mark.parametrize(("kind", "variance"), LAWS, ids=str)
def test_every_draw_is_that_of_a_slow_reference_at_its_place(kind, variance):
    table = noise_table(kind, variance)
    drawn = NoiseSampler(table, SECRET, CONTEXT).draw(3 * BLOCK_DRAWS)
    places = (*range(40), *(BLOCK_DRAWS * n + d for n in (1, 2) for d in (-2, -1, 0, 1)), 3 * BLOCK_DRAWS - 1)
    assert [reference_draw(table, SECRET, CONTEXT, place) for place in places] == drawn[list(places)].tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2 * BLOCK_DRAWS), max_size=6), st.data())
def test_consecutive_calls_of_any_sizes_equal_one_long_call(sizes, data):
    table = noise_table(SKELLAM, Fraction(9))
    whole = NoiseSampler(table, SECRET, CONTEXT).draw(sum(sizes))
    pieces = NoiseSampler(table, SECRET, CONTEXT)
    parts = []
    for size in sizes:
        dtype = data.draw(st.sampled_from([np.int32, np.int64, None]))
        if dtype is None:
            parts.append(pieces.draw(size))
        else:
            parts.append(np.zeros(size, dtype=dtype))
            pieces.add_into(parts[-1])
    assert np.concatenate([np.empty(0, dtype=np.int64), *parts]).tolist() == whole.tolist()


def small_table():
    return build_table(
        Weights(SKELLAM, Fraction(1), (2**128 - 2 * (2**126 + 2**60 + 5), 2**126, 2**60, 5), Fraction(0))
    )


TABLES = [small_table(), *(noise_table(kind, variance) for kind, variance in LAWS)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_words_at_and_around_edges_draw_what_the_128_bit_number_draws(data):
    """Half of the words equal an edge, which no honest stream would do in a lifetime."""
    table = data.draw(st.sampled_from(TABLES))
    last, shift = len(table.edges) - 1, 64 - table.column_bits
    words, ties = [], []
    for _ in range(data.draw(st.integers(1, 12))):
        column = data.draw(st.integers(0, last))
        edge, low = int(table.edges[column]), int(table.low_edges[column])
        words.append(data.draw(st.sampled_from([edge, edge, edge, edge - 1, edge + 1, column << shift])) % 2**64)
        ties.append(
            data.draw(st.sampled_from([0, low - 1, low, low + 1, 2**64 - 1]) | st.integers(0, 2**64 - 1)) % 2**64
        )
    second = GivenTies(ties)
    drawn = TableDraws(table, GivenWords(words), second).read(len(words))
    assert drawn.tolist() == [decide(table, (word << 64) + tie) for word, tie in zip(words, ties, strict=True)]
    assert second.asked == [n for n, word in enumerate(words) if word == int(table.edges[word >> shift])]


def test_a_tie_asks_for_the_word_of_its_own_draw_in_every_block_and_both_ways():
    table = noise_table(SKELLAM, Fraction(9))
    column = table.half_support
    edge, low = int(table.edges[column]), int(table.low_edges[column])
    alias, own = table.values[2 * column : 2 * column + 2].tolist()
    assert alias != own
    assert low > 0
    ties = {5: low - 1, 6: low, 30: 0, 31: 2**64 - 1}
    words = [edge if n in ties else edge - 1 for n in range(40)]
    second = GivenTies(ties)
    draws = TableDraws(table, GivenWords(words), second)
    drawn = [value for size in (6, 0, 1, 24, 9) for value in draws.read(size).tolist()]
    assert second.asked == [5, 6, 30, 31]
    assert [drawn[n] for n in ties] == [own, alias, own, alias]
    assert {value for n, value in enumerate(drawn) if n not in ties} == {own}


def test_ties_of_a_sampler_are_resolved_by_the_second_stream_of_its_secret():
    table = TABLES[1]
    column = int(np.argmax(table.low_edges))
    edge = int(table.edges[column])
    sampler = NoiseSampler(table, SECRET, CONTEXT)
    sampler._draws._words = GivenWords([edge] * 100)
    key = reference_key(SECRET, CONTEXT, b"ties", table.digest)
    ties = [int.from_bytes(block(key, index)[:8], "little") for index in range(100)]
    expected = [decide(table, (edge << 64) + tie) for tie in ties]
    assert [*sampler.draw(37), *sampler.draw(63)] == expected


def test_the_chance_of_a_tie_is_split_as_the_low_half_of_the_edge_says():
    """A low half near the middle, and the second stream of a real key: what a search would need 2^60 draws for."""
    table = TABLES[2]
    low = table.low_edges.astype(np.float64) / 2.0**64
    column = int(np.argmin(abs(low - 0.5)))
    alias, own = table.values[2 * column : 2 * column + 2].tolist()
    assert alias != own
    sampler = NoiseSampler(table, SECRET, CONTEXT)
    sampler._draws._words = GivenWords([int(table.edges[column])] * 4000)
    drawn = sampler.draw(4000)
    assert set(drawn.tolist()) == {alias, own}
    assert abs((drawn == own).sum() - 4000 * low[column]) < 4 * 1000**0.5


@pytest.mark.parametrize("table", TABLES, ids=range(len(TABLES)))
def test_no_word_draws_beyond_the_half_support(table):
    shift = 64 - table.column_bits
    starts = np.arange(len(table.edges), dtype=np.uint64) << np.uint64(shift)
    ends = starts + np.uint64((1 << shift) - 1)
    for words in (starts, ends, table.edges - np.uint64(1), table.edges + np.uint64(1)):
        draws = TableDraws(table, GivenWords(words), GivenTies([2**64 - 1] * len(words)))
        values = np.concatenate(
            [draws.read(min(8192, len(draws._words.left))).copy() for _ in range(0, len(words), 8192)]
        )
        assert len(values) == len(words)
        assert np.abs(values).max() <= table.half_support
    assert np.abs(NoiseSampler(table, SECRET, CONTEXT).draw(10**6)).max() <= table.half_support


def test_both_ends_of_the_support_can_be_drawn():
    table = small_table()
    wanted = {}
    for column, edge in enumerate(table.edges.tolist()):
        alias, own = table.values[2 * column : 2 * column + 2].tolist()
        low = int(table.low_edges[column])
        if edge > column << (64 - table.column_bits):
            wanted[own] = (edge - 1, 0)
        elif low:
            wanted[own] = (edge, low - 1)
        wanted.setdefault(alias, (edge, low))
    assert sorted(wanted) == list(range(-table.half_support, table.half_support + 1))
    words, ties = zip(*wanted.values(), strict=True)
    assert TableDraws(table, GivenWords(words), GivenTies(ties)).read(len(words)).tolist() == list(wanted)


def similarity(a, b) -> float:
    return abs(float(np.corrcoef(a, b)[0, 1])) * len(a) ** 0.5


def test_another_table_context_or_secret_gives_an_unrelated_stream():
    size = 2**20
    nine, ten = noise_table(SKELLAM, Fraction(9)), noise_table(SKELLAM, Fraction(10))
    base = NoiseSampler(nine, SECRET, CONTEXT).draw(size)
    for table, secret, context in (
        *((ten, SECRET, CONTEXT), (noise_table(DISCRETE_GAUSSIAN, Fraction(9)), SECRET, CONTEXT)),
        *((nine, SECRET, CONTEXT + b"\0"), (nine, SECRET, b""), (nine, SECRET + b"\0", CONTEXT)),
    ):
        assert similarity(base, NoiseSampler(table, secret, context).draw(size)) < 4
    # The statistic sees what it is for: two tables over equal words rise and fall together.
    words = np.random.default_rng(1).integers(0, 2**64, 8192, dtype=np.uint64)
    same = [TableDraws(table, GivenWords(words), NoTies()).read(8192).copy() for table in (nine, ten)]
    assert similarity(*same) > 30


def test_contexts_cannot_run_into_what_follows_them():
    table = noise_table(SKELLAM, Fraction(9))
    shifted = CONTEXT + len(b"words").to_bytes(8, "big") + b"words"
    seen = {tuple(NoiseSampler(table, SECRET, context).draw(16)) for context in (CONTEXT, shifted, CONTEXT[:-1], b"")}
    assert len(seen) == 4


def test_the_same_secret_and_context_give_the_same_noise_again():
    table = noise_table(SKELLAM, Fraction(9))
    first, second = (NoiseSampler(table, SECRET, CONTEXT).draw(1000) for _ in range(2))
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_noise_is_added_to_what_is_there_also_to_strided_views(dtype):
    table = noise_table(SKELLAM, Fraction(9))
    drawn = NoiseSampler(table, SECRET, CONTEXT).draw(50_000)
    values = np.arange(100_000, dtype=dtype)
    NoiseSampler(table, SECRET, CONTEXT).add_into(values[::2])
    assert (values[::2] - np.arange(0, 100_000, 2) == drawn).all()
    assert (values[1::2] == np.arange(1, 100_000, 2)).all()
    backwards = np.zeros(50_000, dtype=dtype)
    NoiseSampler(table, SECRET, CONTEXT).add_into(backwards[::-1])
    assert (backwards[::-1] == drawn).all()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("side", [-1, 1])
def test_values_from_which_noise_could_leave_the_dtype_are_refused_before_anything_is_drawn(dtype, side):
    table = noise_table(SKELLAM, Fraction(9))
    limits = np.iinfo(dtype)
    furthest = limits.max - table.half_support if side > 0 else limits.min + table.half_support
    sampler = NoiseSampler(table, SECRET, CONTEXT)
    values = np.full(BLOCK_DRAWS + 5, furthest, dtype=dtype)
    values[-1] += side
    before = values.copy()
    with pytest.raises(ParameterError) as refused:
        sampler.add_into(values)
    assert refused.value.field == "values"
    assert (values == before).all()
    sampler.add_into(values[:-1])
    drawn = NoiseSampler(table, SECRET, CONTEXT).draw(len(values) - 1)
    assert [int(value) - furthest for value in values[:1000]] == drawn[:1000].tolist()


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(4, dtype=np.uint32),
        np.zeros(4, dtype=np.int16),
        np.zeros(4, dtype=np.float64),
        np.zeros(4, dtype=np.dtype(np.int32).newbyteorder()),
        np.zeros((2, 2), dtype=np.int32),
        np.zeros((), dtype=np.int64),
        [0, 0],
    ],
    ids=repr,
)
def test_noise_is_added_to_vectors_of_int32_or_int64_only(values):
    with pytest.raises(ParameterError) as refused:
        NoiseSampler(noise_table(SKELLAM, Fraction(9)), SECRET, CONTEXT).add_into(values)
    assert refused.value.field == "values"


def test_noise_is_not_added_to_a_read_only_vector():
    values = np.zeros(4, dtype=np.int32)
    values.flags.writeable = False
    with pytest.raises(ParameterError, match="writeable"):
        NoiseSampler(noise_table(SKELLAM, Fraction(9)), SECRET, CONTEXT).add_into(values)


@pytest.mark.parametrize(
    ("secret", "context", "field"),
    [
        (SECRET[:31], CONTEXT, "secret"),
        (b"", CONTEXT, "secret"),
        (SECRET.hex(), CONTEXT, "secret"),
        (bytearray(SECRET), CONTEXT, "secret"),
        (None, CONTEXT, "secret"),
        (SECRET, "context", "context"),
        (SECRET, None, "context"),
    ],
)
def test_short_secrets_and_other_types_are_refused_by_name_without_showing_them(secret, context, field):
    with pytest.raises(ParameterError) as refused:
        NoiseSampler(noise_table(SKELLAM, Fraction(9)), secret, context)
    assert refused.value.field == field
    assert SECRET[:8].hex() not in str(refused.value)
    assert repr(SECRET[:31]) not in str(refused.value)


@pytest.mark.parametrize("size", [-1, 1.0, True, None, "3"])
def test_sizes_that_are_no_count_are_refused(size):
    with pytest.raises(ParameterError) as refused:
        NoiseSampler(noise_table(SKELLAM, Fraction(9)), SECRET, CONTEXT).draw(size)
    assert refused.value.field == "size"


def test_a_stream_ends_before_its_counter_wraps_and_a_refused_call_consumes_nothing():
    sampler = NoiseSampler(noise_table(SKELLAM, Fraction(9)), SECRET, CONTEXT)
    assert 8 * MAX_DRAWS == 2**36 - 32
    sampler._draws._drawn = MAX_DRAWS - 3
    values = np.zeros(4, dtype=np.int32)
    with pytest.raises(ParameterError, match="draws under one secret"):
        sampler.add_into(values)
    with pytest.raises(ParameterError, match="draws under one secret"):
        sampler.draw(4)
    assert not values.any()
    assert len(sampler.draw(3)) == 3
    with pytest.raises(ParameterError):
        sampler.draw(1)
