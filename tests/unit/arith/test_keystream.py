"""The keystream equals AES-256-CTR, in whatever pieces it is consumed."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith import keystream
from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import STREAM_LIMIT_BYTES, Keystream, add_masks

KEY = bytes(range(32))
BLOCK_LANES = 1 << 15


def ctr_reference(key: bytes, length: int) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\x02")).encryptor().update(bytes(length))


def words(key: bytes, count: int) -> np.ndarray:
    return np.frombuffer(ctr_reference(key, 8 * count), dtype="<u8")


def random_lanes(count: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4096, BLOCK_LANES, BLOCK_LANES + 1, 3 * BLOCK_LANES + 5])
def test_the_stream_is_aes_256_ctr_with_first_counter_block_two(count):
    lanes = random_lanes(count)
    added, subtracted, read = lanes.copy(), lanes.copy(), np.empty(count, dtype=np.uint64)
    Keystream(KEY).add_into(added)
    Keystream(KEY).subtract_into(subtracted)
    Keystream(KEY).read_into(read)
    assert (added == lanes + words(KEY, count)).all()
    assert (subtracted == lanes - words(KEY, count)).all()
    assert (read == words(KEY, count)).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 70_000), max_size=5), st.binary(min_size=32, max_size=32))
def test_consecutive_pieces_of_any_length_continue_one_stream(pieces, key):
    stream, lanes, start = Keystream(key), np.zeros(sum(pieces), dtype=np.uint64), 0
    for piece in pieces:
        stream.add_into(lanes[start : start + piece])
        start += piece
    assert (lanes == words(key, lanes.size)).all()
    assert stream.position_bytes == lanes.nbytes


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 40), st.integers(0, 600_000)), max_size=5))
def test_bytes_are_read_in_pieces_of_any_length(pieces):
    stream, out = Keystream(KEY), np.empty(sum(pieces), dtype=np.uint8)
    start = 0
    for piece in pieces:
        stream.read_into(out[start : start + piece])
        start += piece
    assert out.tobytes() == ctr_reference(KEY, out.size)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
@pytest.mark.parametrize("count", [0, 1, 1000, BLOCK_LANES + 3])
def test_add_masks_equals_the_sum_of_streams_for_any_number_of_threads(threads, count):
    add, subtract = [bytes([i]) * 32 for i in range(5)], [bytes([i]) * 32 for i in range(10, 13)]
    lanes = random_lanes(count)
    expected = lanes.copy()
    for key in add:
        expected += words(key, count)
    for key in subtract:
        expected -= words(key, count)
    add_masks(lanes, add, subtract, threads)
    assert (lanes == expected).all()


def test_masks_of_several_threads_do_not_depend_on_the_segments_they_are_added_in(monkeypatch):
    keys, count = [bytes([i]) * 32 for i in range(5)], 2 * BLOCK_LANES + 3
    expected = random_lanes(count)
    lanes = expected.copy()
    add_masks(expected, keys[:3], keys[3:], 1)
    monkeypatch.setattr(keystream, "_SEGMENT_LANES", BLOCK_LANES)
    add_masks(lanes, keys[:3], keys[3:], 2)
    assert (lanes == expected).all()


def test_masks_added_and_subtracted_cancel():
    lanes = random_lanes(1001)
    before = lanes.copy()
    keys = [bytes([i]) * 32 for i in range(4)]
    add_masks(lanes, keys, keys)
    assert (lanes == before).all()
    add_masks(lanes, [], [])
    assert (lanes == before).all()


def test_a_stream_ends_at_the_limit_and_a_refused_call_consumes_nothing():
    stream = Keystream(KEY)
    stream._position_bytes = STREAM_LIMIT_BYTES - 8
    with pytest.raises(ArithmeticInputError) as refused:
        stream.add_into(np.zeros(2, dtype=np.uint64))
    assert refused.value.field == "length_bytes"
    assert STREAM_LIMIT_BYTES == 2**36 - 32
    stream.add_into(np.zeros(1, dtype=np.uint64))
    with pytest.raises(ArithmeticInputError, match="length_bytes"):
        stream.read_into(np.zeros(1, dtype=np.uint8))


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_keys_of_another_length_are_refused_without_changing_lanes(length):
    with pytest.raises(ArithmeticInputError) as refused:
        Keystream(bytes(length))
    assert refused.value.field == "key"
    lanes = np.zeros(4, dtype=np.uint64)
    with pytest.raises(ArithmeticInputError):
        add_masks(lanes, [KEY, bytes(length)], [])
    assert not lanes.any()


def test_other_arrays_are_refused():
    read_only = np.zeros(3, dtype=np.uint64)
    read_only.flags.writeable = False
    for lanes in (np.zeros(3, dtype=np.int64), np.zeros((3, 3), dtype=np.uint64), read_only):
        with pytest.raises(ArithmeticInputError, match="lanes"):
            Keystream(KEY).add_into(lanes)
    with pytest.raises(ArithmeticInputError, match="lanes"):
        Keystream(KEY).add_into(np.zeros(3, dtype=">u8"))
    with pytest.raises(ArithmeticInputError, match="threads"):
        add_masks(np.zeros(3, dtype=np.uint64), [KEY], [], threads=0)
    for out in (
        np.zeros(3, dtype=np.float32),
        np.zeros((2, 2), dtype=np.uint8),
        np.zeros(6, dtype=np.uint8)[::2],
    ):
        with pytest.raises(ArithmeticInputError, match="out"):
            Keystream(KEY).read_into(out)


def test_strided_lanes_work_too():
    lanes = np.zeros(2002, dtype=np.uint64)
    Keystream(KEY).add_into(lanes[::2])
    assert (lanes[::2] == words(KEY, 1001)).all()
    assert not lanes[1::2].any()


def test_nothing_about_the_key_shows_in_the_repr():
    assert KEY.hex() not in repr(Keystream(KEY))
    assert "key" not in Keystream.__slots__
