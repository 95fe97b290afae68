"""Draws are the bits that the definition says, and have the distribution that the bounds assume."""

import math

import numpy as np
import pytest
import scipy.stats
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith import binomial
from secagg.arith.binomial import add_centred_binomial, centred_binomial
from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import STREAM_LIMIT_BYTES, Keystream

KEY = bytes(range(32))
BLOCK = 1 << 15


def stream_bytes(length: int, key: bytes = KEY) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\x02")).encryptor().update(bytes(length))


def width_of(eta: int) -> int:
    return 1 if eta <= 4 else 2 if eta <= 8 else 4 if eta <= 16 else 8


def draws_by_definition(eta: int, count: int) -> list[int]:
    width, raw = width_of(eta), stream_bytes(width_of(eta) * count)
    words = [int.from_bytes(raw[width * i : width * (i + 1)], "little") for i in range(count)]
    return [(word & (1 << 2 * eta) - 1).bit_count() - eta for word in words]


@pytest.mark.parametrize("eta", range(1, 33))
def test_draws_are_ones_among_the_lowest_bits_of_the_narrowest_words(eta):
    stream = Keystream(KEY)
    assert centred_binomial(stream, eta, 500).tolist() == draws_by_definition(eta, 500)
    assert stream.position_bytes == 500 * width_of(eta)


@pytest.mark.parametrize("eta", [1, 2, 5, 8, 16, 21, 32])
def test_draws_have_the_exact_distribution(eta):
    count = 400_000
    found = np.bincount(centred_binomial(Keystream(KEY), eta, count).astype(np.int64) + eta, minlength=2 * eta + 1)
    expected = np.array([math.comb(2 * eta, k) / 4**eta * count for k in range(2 * eta + 1)])
    # Cells with fewer than ten expected draws are taken together.
    rare = expected < 10
    if rare.any():
        found = np.append(found[~rare], found[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-6


@pytest.mark.parametrize("eta", [2, 21])
def test_neighbouring_draws_are_uncorrelated_and_their_variance_is_half_of_eta(eta):
    draws = centred_binomial(Keystream(KEY), eta, 1 << 20).astype(np.float64)
    assert abs(draws.mean()) < 5 * math.sqrt(eta / 2 / draws.size)
    assert abs(draws.var() / (eta / 2) - 1) < 0.01
    assert abs(np.mean(draws[1:] * draws[:-1])) / (eta / 2) < 5 / math.sqrt(draws.size)


def test_the_moment_generating_function_is_below_that_of_the_proxy():
    for eta in (1, 2, 21, 32):
        for x in np.linspace(-3, 3, 61):
            assert math.cosh(x / 2) ** (2 * eta) <= math.exp(eta * x * x / 4) * (1 + 1e-12)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([1, 4, 5, 16, 21, 32]), st.lists(st.sampled_from([0, 1, 3, 1000, BLOCK, BLOCK + 1]), max_size=4))
def test_pieces_are_the_draws_in_one_and_adding_adds_them(eta, pieces):
    stream, adding = Keystream(KEY), Keystream(KEY)
    whole = centred_binomial(Keystream(KEY), eta, sum(pieces))
    parts = [centred_binomial(stream, eta, piece) for piece in pieces]
    assert (np.concatenate([*parts, np.empty(0, dtype=np.int8)]) == whole).all()
    before = np.random.default_rng(4).integers(0, 2**64, sum(pieces), dtype=np.uint64)
    lanes, start = before.copy(), 0
    for piece in pieces:
        add_centred_binomial(adding, eta, lanes[start : start + piece])
        start += piece
    assert (lanes == before + whole.astype(np.int64).view(np.uint64)).all()
    assert adding.position_bytes == stream.position_bytes


@pytest.mark.parametrize("eta", [0, -1, 33])
def test_another_eta_is_refused_before_anything_is_consumed(eta):
    stream, lanes = Keystream(KEY), np.zeros(3, dtype=np.uint64)
    for attempt in (lambda: centred_binomial(stream, eta, 3), lambda: add_centred_binomial(stream, eta, lanes)):
        with pytest.raises(ArithmeticInputError) as refused:
            attempt()
        assert refused.value.field == "eta"
    assert stream.position_bytes == 0
    assert not lanes.any()


def test_other_arguments_are_refused():
    read_only = np.zeros(3, dtype=np.uint64)
    read_only.flags.writeable = False
    for lanes in (np.zeros(3, dtype=np.int64), np.zeros((3, 3), dtype=np.uint64), read_only):
        with pytest.raises(ArithmeticInputError, match="lanes"):
            add_centred_binomial(Keystream(KEY), 2, lanes)
    with pytest.raises(ArithmeticInputError, match="count"):
        centred_binomial(Keystream(KEY), 2, -1)
    stream = Keystream(KEY)
    stream._position_bytes = STREAM_LIMIT_BYTES - 8
    with pytest.raises(ArithmeticInputError, match="length_bytes"):
        centred_binomial(stream, 21, 2)
    assert binomial.MAX_ETA == 32
