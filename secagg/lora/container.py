"""The safetensors container, read and written without trusting a library.

A file is ``length`` (8 bytes, little endian), a JSON header of that length, then the tensors without a
gap. The header is untrusted: every number in it is checked against the file before anything is allocated.
numpy has no bfloat16 and the library's numpy loader refuses it, so it is decoded here. Writing sorts by
name, so that the same tensors give the same bytes whatever library is installed.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted
from secagg.lora.layout import MAX_AXES, MAX_DIMENSION, MAX_NAME_BYTES, Shape
from secagg.lora.strict_json import parse_object

LENGTH_BYTES = 8
# Room for 10^5 tensors: a mixture of experts with an adapter on each expert needs a tenth of that.
MAX_HEADER_BYTES = 16 * 2**20
MAX_FILE_BYTES = LENGTH_BYTES + MAX_HEADER_BYTES + 4 * MAX_DIMENSION

_METADATA = "__metadata__"
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_RAW_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as the header describes it; ``begin`` counts from the end of the header."""

    name: str
    dtype: str
    shape: Shape
    begin: int

    @property
    def length_bytes(self) -> int:
        """Bytes of the tensor in the file."""
        return math.prod(self.shape) * _RAW_DTYPES[self.dtype].itemsize


def read_header(file: io.BufferedIOBase, file_bytes: int) -> tuple[TensorEntry, ...]:
    """The checked header of a file of ``file_bytes`` bytes; ``file`` then stands at the data.

    Entries come in file order.

    Raises:
        AdapterError: MALFORMED_FILE, TOO_LARGE, WRONG_DTYPE, WRONG_SHAPE or MISSING_TENSOR.
    """
    if file_bytes > MAX_FILE_BYTES:
        raise AdapterError(
            AdapterRejectReason.TOO_LARGE,
            field="file",
            found=file_bytes,
            expected=f"at most {MAX_FILE_BYTES} bytes",
        )
    length_field = file.read(LENGTH_BYTES)
    if len(length_field) != LENGTH_BYTES:
        raise _malformed("header length", f"{len(length_field)} bytes", f"{LENGTH_BYTES} bytes")
    header_bytes = int.from_bytes(length_field, "little")
    room = file_bytes - LENGTH_BYTES
    if header_bytes > room:
        raise _malformed("header length", header_bytes, f"at most {room}, the rest of the file")
    if header_bytes > MAX_HEADER_BYTES:
        raise AdapterError(
            AdapterRejectReason.TOO_LARGE,
            field="header length",
            found=header_bytes,
            expected=f"at most {MAX_HEADER_BYTES} bytes",
        )
    text = file.read(header_bytes)
    if len(text) != header_bytes:
        raise _malformed("header", f"{len(text)} bytes", f"{header_bytes} bytes")
    return parse_header(text, room - header_bytes)


def parse_header(text: bytes, data_bytes: int) -> tuple[TensorEntry, ...]:
    """The entries of a header, in file order, that describe ``data_bytes`` bytes without gap or rest.

    Raises:
        AdapterError: as ``read_header``.
    """
    if text[:1] != b"{":
        raise _malformed("header", text[:1], "'{' as the first byte")
    header = parse_object(text, "header")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _malformed(_METADATA, "values that are not strings", "an object of strings")
    if not header:
        raise AdapterError(AdapterRejectReason.MISSING_TENSOR, field="header", found="no tensor")
    parsed = [_parse_entry(name, value, data_bytes) for name, value in header.items()]
    parsed.sort(key=lambda pair: pair[0].begin)
    position = 0
    coordinates = 0
    for entry, end in parsed:
        if entry.begin != position:
            raise _malformed(
                "data_offsets", f"begin {entry.begin}", f"begin {position}: no gap, no overlap", entry.name
            )
        if end != entry.begin + entry.length_bytes:
            raise _malformed("data_offsets", f"end {end}", f"end {entry.begin + entry.length_bytes}", entry.name)
        position = end
        coordinates += math.prod(entry.shape)
    if position != data_bytes:
        raise _malformed("file", f"{data_bytes} bytes of data", f"{position}, where the last tensor ends")
    if coordinates > MAX_DIMENSION:
        raise AdapterError(
            AdapterRejectReason.TOO_LARGE,
            field="header",
            found=f"{coordinates} coordinates",
            expected="at most 2^31",
        )
    return tuple(entry for entry, _ in parsed)


def read_tensors(
    file: io.BufferedIOBase, entries: tuple[TensorEntry, ...]
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Each tensor in file order, decoded exactly to float32; ``file`` stands where ``read_header`` left it.

    Raises:
        AdapterError: MALFORMED_FILE; the file became shorter meanwhile.
    """
    for entry in entries:
        raw = np.empty(entry.shape, _RAW_DTYPES[entry.dtype])
        view = raw.reshape(-1).view(np.uint8).data
        filled = 0
        while filled < len(view):
            count = file.readinto(view[filled:])
            if not count:
                raise _malformed("file", f"{filled} bytes", f"{len(view)} bytes", entry.name)
            filled += count
        yield entry.name, _to_float32(raw, entry.dtype)


def decode_tensors(data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors of a whole file in memory, decoded exactly to float32. Raises AdapterError as ``read_header``."""
    file = io.BytesIO(data)
    return dict(read_tensors(file, read_header(file, len(data))))


def encode_tensors(tensors: Mapping[str, npt.NDArray[np.float32]]) -> Iterator[bytes | memoryview]:
    """The pieces of a safetensors file with these float32 tensors; the same tensors give the same bytes.

    The header says ``format: pt``, which transformers asks for, and is padded to a multiple of 8 bytes.
    """
    names = sorted(tensors, key=lambda name: name.encode("utf-8"))
    header: dict[str, object] = {_METADATA: {"format": "pt"}}
    position = 0
    for name in names:
        end = position + 4 * tensors[name].size
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(LENGTH_BYTES, "little")
    yield text
    for name in names:
        data = np.ascontiguousarray(tensors[name], dtype="<f4")
        yield data.reshape(-1).view(np.uint8).data


def _parse_entry(name: str, value: object, data_bytes: int) -> tuple[TensorEntry, int]:
    """One entry and where it says to end; sizes and offsets are bounded, not yet consistent."""
    try:
        name_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise _malformed("tensor name", name, "Unicode text") from None
    if not 1 <= name_bytes <= MAX_NAME_BYTES:
        raise _malformed("tensor name", f"{name_bytes} bytes", f"1 to {MAX_NAME_BYTES} bytes")
    if not isinstance(value, dict) or value.keys() != _ENTRY_KEYS:
        raise _malformed("header", value, f"keys {sorted(_ENTRY_KEYS)}", name)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _RAW_DTYPES:
        raise AdapterError(
            AdapterRejectReason.WRONG_DTYPE,
            tensor=name,
            found=quoted(dtype),
            expected="F32, F16 or BF16",
            fix="convert the adapter to float32 and save it again; quantised tensors cannot be added up",
        )
    if not isinstance(shape, list) or len(shape) > MAX_AXES:
        raise AdapterError(
            AdapterRejectReason.WRONG_SHAPE,
            tensor=name,
            found=quoted(shape),
            expected=f"at most {MAX_AXES} sizes",
        )
    if not all(type(size) is int and 1 <= size <= MAX_DIMENSION for size in shape):
        raise AdapterError(
            AdapterRejectReason.WRONG_SHAPE,
            tensor=name,
            found=quoted(shape),
            expected="sizes from 1 to 2^31",
            fix="an empty tensor is what sharded training leaves behind; gather the weights before saving",
        )
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise _malformed("data_offsets", offsets, "two integers", name)
    if not all(type(offset) is int and 0 <= offset <= data_bytes for offset in offsets):
        raise _malformed("data_offsets", offsets, f"two integers up to {data_bytes}", name)
    return TensorEntry(name, dtype, tuple(shape), offsets[0]), offsets[1]


def _to_float32(raw: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        return np.left_shift(raw.astype(np.uint32), np.uint32(16)).view(np.float32)
    return raw.astype(np.float32, copy=False)


def _malformed(field: str, found: object, expected: str, tensor: str | None = None) -> AdapterError:
    return AdapterError(
        AdapterRejectReason.MALFORMED_FILE,
        tensor=tensor,
        field=field,
        found=quoted(found) if isinstance(found, bytes | list | dict) else found,
        expected=expected,
        fix="the file is damaged or was cut short; save or download it again",
    )
