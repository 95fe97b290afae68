"""The safetensors container: exact decoding, and nothing but AdapterError for anything else."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.lora import container
from secagg.lora.errors import AdapterError, AdapterRejectReason
from tests.unit.lora.adapter_files import QA, RAW, framed, tensors
from tests.unit.lora.adapter_files import container as container_of


def read(data: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(data)
    return dict(container.read_tensors(file, container.read_header(file, len(data))))


def refusal(data: bytes) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        read(data)
    return caught.value


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_every_value_of_a_float_type_is_decoded_exactly(dtype):
    generator = np.random.default_rng(3)
    bits = generator.integers(0, 2 ** (8 * np.dtype(RAW[dtype]).itemsize), 70_000, dtype=np.uint64)
    values = bits.astype(RAW[dtype].replace("f", "u")).view(RAW[dtype])
    decoded = read(container_of({"x": values.reshape(700, 100)}, dtype))["x"]
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded.reshape(-1), values.astype(np.float32), equal_nan=True)


def test_every_bfloat16_is_the_upper_half_of_its_float32():
    halves = np.arange(2**16, dtype=np.uint16)
    decoded = read(container_of({"x": halves}, "BF16"))["x"]
    expected = np.frombuffer(b"".join(b"\0\0" + int(h).to_bytes(2, "little") for h in halves), "<f4")
    assert np.array_equal(decoded.view(np.uint32), expected.view(np.uint32))


def test_known_bfloat16_values_are_decoded_to_known_numbers():
    decoded = read(container_of({"x": np.array([0x3F80, 0xC000, 0x3DCC, 0x0001], np.uint16)}, "BF16"))["x"]
    assert decoded.tolist() == [1.0, -2.0, 0.099609375, 2.0**-133]


def test_what_we_write_is_what_the_safetensors_library_writes():
    values = {"z.ä": np.ones((2, 3), np.float32), "a": np.arange(5, dtype=np.float32), **tensors()}
    ours = b"".join(bytes(piece) for piece in container.encode_tensors(values))
    assert ours == safetensors.numpy.save(values, metadata={"format": "pt"})


def test_we_read_what_the_safetensors_library_writes():
    values = {"f16": np.ones((2, 3), np.float16), "f32": np.arange(5, dtype=np.float32)}
    decoded = read(safetensors.numpy.save(values))
    assert {name: array.tolist() for name, array in decoded.items()} == {
        "f16": [[1, 1, 1], [1, 1, 1]],
        "f32": [0, 1, 2, 3, 4],
    }


def test_tensors_need_not_lie_in_the_order_of_the_header():
    header = {"b": entry(offsets=[8, 16]), "a": entry(offsets=[0, 8])}
    data = framed(header) + np.array([1, 2, 3, 4], "<f4").tobytes()
    assert read(data)["a"].tolist() == [1, 2]
    assert read(data)["b"].tolist() == [3, 4]


MALFORMED = {
    "empty file": b"",
    "cut in the length": b"\1\0\0",
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "header of 2^64 bytes": b"\xff" * 8 + b"{}",
    "space before the header": framed(b' {"a":1}'),
    "not JSON": framed(b"{nonsense"),
    "not UTF-8": framed(b'{"\xff":1}'),
    "not an object": framed(b"[]"),
    "NaN in the header": framed(b'{"a":NaN}'),
    "integer of 5000 digits": framed(b'{"a":' + b"9" * 5000 + b"}"),
    "nested without end": framed(b'{"a":' + b"[" * 50_000),
    "duplicate tensor": framed(b'{"a":1,"a":1}'),
    "duplicate key in an entry": framed(b'{"a":{"dtype":"F32","dtype":"F32"}}'),
    "metadata that is no object": framed({"__metadata__": [], "a": entry()}) + bytes(8),
    "metadata that is no text": framed({"__metadata__": {"a": 1}, "a": entry()}) + bytes(8),
    "entry that is no object": framed({"a": 7}) + bytes(8),
    "entry with another key": framed({"a": {**entry(), "more": 1}}) + bytes(8),
    "empty name": framed({"": entry()}) + bytes(8),
    "name with a lone surrogate": framed(b'{"\\ud800":' + json.dumps(entry()).encode() + b"}") + bytes(8),
    "name of 2 KB": framed({"n" * 2048: entry()}) + bytes(8),
    "one offset": framed({"a": entry(offsets=[0])}) + bytes(8),
    "negative offset": framed({"a": entry(offsets=[-8, 0])}) + bytes(8),
    "offset beyond the file": framed({"a": entry(offsets=[0, 16])}) + bytes(8),
    "offsets that are true": framed({"a": entry(shape=[1], offsets=[False, 4])}) + bytes(4),
    "offsets that are floats": framed({"a": entry(offsets=[0.0, 8.0])}) + bytes(8),
    "end before begin": framed({"a": entry(offsets=[8, 0])}) + bytes(8),
    "shape smaller than the offsets": framed({"a": entry(shape=[1])}) + bytes(8),
    "shape larger than the offsets": framed({"a": entry(shape=[2**31, 2**31])}) + bytes(8),
    "gap": framed({"a": entry(), "b": entry(offsets=[16, 24])}) + bytes(24),
    "overlap": framed({"a": entry(), "b": entry(offsets=[4, 12])}) + bytes(12),
    "two tensors in one place": framed({"a": entry(), "b": entry()}) + bytes(8),
    "gap at the beginning": framed({"a": entry(offsets=[8, 16])}) + bytes(16),
    "bytes after the last tensor": framed({"a": entry()}) + bytes(9),
    "cut in the data": framed({"a": entry()}) + bytes(7),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_as_malformed(case):
    assert refusal(MALFORMED[case]).reason is AdapterRejectReason.MALFORMED_FILE


def test_a_header_without_tensors_is_refused():
    assert refusal(framed({"__metadata__": {}})).reason is AdapterRejectReason.MISSING_TENSOR


@pytest.mark.parametrize("dtype", ["F64", "I8", "F8_E4M3", "BOOL", "f32", "", None, ["F32"], 1])
def test_another_dtype_is_refused_by_name_of_the_tensor(dtype):
    error = refusal(framed({"a": entry(dtype=dtype)}) + bytes(8))
    assert (error.reason, error.tensor) == (AdapterRejectReason.WRONG_DTYPE, "a")
    assert "F32, F16 or BF16" in str(error)


@pytest.mark.parametrize("shape", [[0], [-1, 2], [2.0], [True], ["2"], [2**40], None, "2", [1] * 9])
def test_a_shape_that_is_not_made_of_positive_sizes_is_refused(shape):
    error = refusal(framed({"a": entry(shape=shape)}) + bytes(8))
    assert (error.reason, error.tensor) == (AdapterRejectReason.WRONG_SHAPE, "a")


def test_a_header_beyond_its_bound_is_refused_before_it_is_read():
    head = (container.MAX_HEADER_BYTES + 1).to_bytes(8, "little")
    with pytest.raises(AdapterError) as caught:
        container.read_header(io.BytesIO(head), 2**30)
    assert caught.value.reason is AdapterRejectReason.TOO_LARGE


def test_a_file_beyond_its_bound_is_refused_before_it_is_read():
    with pytest.raises(AdapterError) as caught:
        container.read_header(io.BytesIO(b""), container.MAX_FILE_BYTES + 1)
    assert caught.value.reason is AdapterRejectReason.TOO_LARGE


def test_more_than_2_to_the_31_coordinates_are_refused_though_the_file_would_hold_them():
    count = 2**31 + 2
    header = {"a": {"dtype": "F16", "shape": [2, count // 2], "data_offsets": [0, 2 * count]}}
    with pytest.raises(AdapterError) as caught:
        container.parse_header(json.dumps(header).encode(), 2 * count)
    assert caught.value.reason is AdapterRejectReason.TOO_LARGE


@pytest.mark.parametrize("begin", [0, 4])
def test_overlapping_tensors_are_refused_by_the_header_alone(begin):
    header = {"a": entry(), "b": entry(offsets=[begin, begin + 8])}
    with pytest.raises(AdapterError) as caught:
        container.parse_header(json.dumps(header).encode(), begin + 8)
    assert (caught.value.reason, caught.value.tensor) == (AdapterRejectReason.MALFORMED_FILE, "b")


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused():
    data = container_of(tensors())
    file = io.BytesIO(data[:-1])
    entries = container.read_header(file, len(data))
    with pytest.raises(AdapterError) as caught:
        dict(container.read_tensors(file, entries))
    assert caught.value.reason is AdapterRejectReason.MALFORMED_FILE


VALID = container_of({**tensors(), "extra": np.zeros((1, 2, 3), np.float32)})
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("F32") | st.just(QA),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def reads_or_refuses(data: bytes) -> None:
    try:
        decoded = read(data)
    except AdapterError:
        return
    assert decoded
    assert all(array.dtype == np.float32 for array in decoded.values())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_read_or_refused(data, has_frame):
    reads_or_refuses(framed(data) if has_frame else data)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=4), st.binary(max_size=40))
def test_arbitrary_json_headers_are_read_or_refused(header, data):
    reads_or_refuses(framed(header) + data)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F16", "BF16", "F64"]),
                "shape": st.lists(st.integers(-1, 4), max_size=3),
                "data_offsets": st.lists(st.integers(-1, 16), min_size=1, max_size=3),
            }
        ),
        max_size=3,
    ),
    st.integers(0, 16),
)
def test_nearly_right_headers_are_read_or_refused(header, data_bytes):
    reads_or_refuses(framed(header) + bytes(data_bytes))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_valid_files_are_read_or_refused(data):
    mutated = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the positions in the header: the rest is tensor data, where every byte is as good as another.
        position = data.draw(st.integers(0, len(mutated) - 1) | st.integers(0, 300))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "digit"])):
            case "flip":
                mutated[position % len(mutated)] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del mutated[position : position + data.draw(st.integers(1, 9))]
            case "insert":
                mutated[position:position] = data.draw(st.binary(min_size=1, max_size=4))
            case "digit":
                mutated[position % len(mutated)] = data.draw(st.sampled_from(b'0123456789[]{},:"'))
        if not mutated:
            break
    reads_or_refuses(bytes(mutated))


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__" and name.isprintable()),
        st.lists(st.integers(1, 4), max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read_again(shapes):
    values = {name: np.full(shape, len(name), np.float32) for name, shape in shapes.items()}
    data = b"".join(bytes(piece) for piece in container.encode_tensors(values))
    again = read(data)
    assert again.keys() == values.keys()
    assert all(np.array_equal(again[name], values[name]) for name in values)
