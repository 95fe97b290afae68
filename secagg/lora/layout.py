"""The layout: which tensor lies where in the vector that is added up (design 02-encoding.md, "Layout").

Names are sorted by their UTF-8 bytes, elements lie in C order, offsets follow. The digest stands in the
session record; an adapter whose names or shapes differ is refused with the first difference named.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted
from secagg.transcript import canonical

MAX_DIMENSION = 2**31
MAX_AXES = 8
MAX_NAME_BYTES = 1024

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayoutDifference:
    """The first tensor in which two layouts differ; None stands for a tensor that is not there."""

    tensor: str
    expected: Shape | None
    found: Shape | None

    @property
    def reason(self) -> AdapterRejectReason:
        """The reason an adapter with this difference is refused for."""
        if self.found is None:
            return AdapterRejectReason.MISSING_TENSOR
        if self.expected is None:
            return AdapterRejectReason.UNEXPECTED_TENSOR
        return AdapterRejectReason.WRONG_SHAPE

    def __str__(self) -> str:
        if self.found is None:
            return f"tensor {self.tensor!r} of shape {self.expected} is missing"
        if self.expected is None:
            return f"tensor {self.tensor!r} of shape {self.found} is not in the layout"
        return f"tensor {self.tensor!r} has shape {self.found}, the layout says {self.expected}"


@dataclass(frozen=True, slots=True)
class Layout:
    """An ordered list of ``(tensor name, shape)``.

    Attributes:
        tensors: names in strictly ascending UTF-8 order, each with a shape of sizes of at least 1.
        dimension: d, the number of coordinates in all, at most 2^31.
        offsets: where each tensor begins, then ``dimension``: one more than there are tensors.
        digest: SHA-256 over the canonical JSON of ``to_json_value()``.

    Raises:
        AdapterError: BAD_LAYOUT; names the position that is wrong.
    """

    tensors: tuple[tuple[str, Shape], ...]
    dimension: int = field(init=False, compare=False)
    offsets: tuple[int, ...] = field(init=False, compare=False, repr=False)
    digest: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if type(self.tensors) is not tuple or not self.tensors:
            raise _refusal("tensors", self.tensors, "at least one tensor")
        offsets = [0]
        previous = b""
        for position, (name, shape) in enumerate(self.tensors):
            where = f"tensors[{position}]"
            encoded = _checked_name(f"{where}.name", name)
            if encoded <= previous:
                twice = "given twice" if encoded == previous else "out of order"
                raise _refusal(f"{where}.name", f"{name!r} {twice}", "names in ascending order of UTF-8 bytes")
            previous = encoded
            offsets.append(offsets[-1] + _checked_size(f"{where}.shape", shape))
            if offsets[-1] > MAX_DIMENSION:
                raise _refusal(f"{where}.shape", f"{offsets[-1]} coordinates up to here", "at most 2^31 in all")
        object.__setattr__(self, "offsets", tuple(offsets))
        object.__setattr__(self, "dimension", offsets[-1])
        object.__setattr__(self, "digest", hashlib.sha256(canonical.encode(self.to_json_value())).digest())

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Shape]) -> Layout:
        """The layout of tensors given in any order."""
        names = sorted(shapes, key=lambda name: name.encode("utf-8", "surrogatepass"))
        return cls(tuple((name, shapes[name]) for name in names))

    @classmethod
    def from_json_value(cls, value: object) -> Layout:
        """The layout that ``to_json_value`` describes.

        Raises:
            AdapterError: BAD_LAYOUT; another type, a missing or additional key, or an invalid layout.
        """
        entries = _checked_keys("layout", value, {"tensors"})["tensors"]
        if not isinstance(entries, list):
            raise _refusal("tensors", entries, "a list")
        tensors: list[tuple[str, Shape]] = []
        for position, entry in enumerate(entries):
            where = f"tensors[{position}]"
            item = _checked_keys(where, entry, {"name", "shape"})
            name, shape = item["name"], item["shape"]
            if not isinstance(name, str):
                raise _refusal(f"{where}.name", name, "a string")
            if not isinstance(shape, list):
                raise _refusal(f"{where}.shape", shape, "a list")
            tensors.append((name, tuple(shape)))
        return cls(tuple(tensors))

    def to_json_value(self) -> dict[str, canonical.JsonValue]:
        """Objects, lists, strings and integers only, ready for the canonical codec."""
        entries: list[canonical.JsonValue] = [
            {"name": name, "shape": list[canonical.JsonValue](shape)} for name, shape in self.tensors
        ]
        return {"tensors": entries}

    def difference(self, other: Layout) -> LayoutDifference | None:
        """The first tensor, in the order of the names, in which ``other`` is not this layout."""
        mine, theirs = dict(self.tensors), dict(other.tensors)
        for name in sorted(mine.keys() | theirs.keys(), key=lambda name: name.encode("utf-8")):
            if mine.get(name) != theirs.get(name):
                return LayoutDifference(name, expected=mine.get(name), found=theirs.get(name))
        return None

    def first_difference(self, other: Layout) -> str | None:
        """``difference`` in words, or None if ``other`` is the same."""
        difference = self.difference(other)
        return None if difference is None else str(difference)

    def split(self, vector: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Views of ``vector``, one for each tensor, in its shape.

        Args:
            vector: ``dimension`` coordinates, float32, contiguous.

        Raises:
            AdapterError: BAD_VECTOR; another shape, dtype or memory order.
        """
        expected = f"float32 of shape ({self.dimension},), contiguous"
        if vector.dtype != np.float32 or vector.shape != (self.dimension,) or not vector.flags.c_contiguous:
            raise AdapterError(
                AdapterRejectReason.BAD_VECTOR,
                field="vector",
                found=f"{vector.dtype} of shape {vector.shape}",
                expected=expected,
            )
        return {
            name: vector[begin:end].reshape(shape)
            for (name, shape), begin, end in zip(self.tensors, self.offsets, self.offsets[1:], strict=False)
        }


def _refusal(where: str, found: object, expected: str) -> AdapterError:
    return AdapterError(AdapterRejectReason.BAD_LAYOUT, field=where, found=quoted(found), expected=expected)


def _checked_keys(where: str, value: object, keys: set[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _refusal(where, value, "an object")
    if value.keys() != keys:
        raise _refusal(where, f"keys {sorted(map(str, value))}", f"keys {sorted(keys)}")
    return value


def _checked_name(where: str, name: object) -> bytes:
    if not isinstance(name, str) or not name:
        raise _refusal(where, name, "a string that is not empty")
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        raise _refusal(where, name, "Unicode text") from None
    if len(encoded) > MAX_NAME_BYTES:
        raise _refusal(where, f"{len(encoded)} bytes", f"at most {MAX_NAME_BYTES}")
    return encoded


def _checked_size(where: str, shape: object) -> int:
    if not isinstance(shape, tuple) or not 1 <= len(shape) <= MAX_AXES:
        raise _refusal(where, shape, f"1 to {MAX_AXES} sizes")
    for axis, size in enumerate(shape):
        # bool is an int for Python, not for the record.
        if type(size) is not int or not 1 <= size <= MAX_DIMENSION:
            raise _refusal(f"{where}[{axis}]", size, "an integer from 1 to 2^31")
    return math.prod(shape)
