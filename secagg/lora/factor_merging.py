"""Average A and B as they are (McMahan et al. 2017 on the factors; strategy ``factors``).

The mean of products is not the product of means: this is right only if all adapters started from the same A, with one
rank and one scale, and drifted little. Among adapters trained from independent starts it is worthless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.arith.quantiser import l2_norm
from secagg.lora.adapter import Adapter
from secagg.lora.config import CONFIG_FILE
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.layout import Layout
from secagg.lora.messages import Message
from secagg.lora.reader import TENSOR_FILE
from secagg.lora.template import AdapterTemplate
from secagg.lora.values import require_float32
from secagg.lora.writer import encode_adapter
from secagg.transcript.canonical import JsonValue


@dataclass(frozen=True, slots=True)
class FactorMerging:
    """See the module; the public methods are those of ``merging.Merging``.

    Raises:
        AdapterError: the layout's tensors are not those of an adapter of the template.
    """

    template: AdapterTemplate
    layout: Layout

    def __post_init__(self) -> None:
        self.template.check_tensors(dict(self.layout.tensors))

    @property
    def digest(self) -> bytes:
        """SHA-256 of the template."""
        return self.template.digest

    def to_json_value(self) -> dict[str, JsonValue]:
        """That of the template."""
        return self.template.to_json_value()

    @property
    def base_model(self) -> str:
        """What all adapters are for."""
        return self.template.base_model

    @property
    def rank(self) -> int:
        """Of all adapters, where no pattern says otherwise."""
        return self.template.r

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files of the aggregate, ascending."""
        return CONFIG_FILE, TENSOR_FILE

    def with_fixed(self, data: bytes) -> FactorMerging:
        """Factors need no fixed tensors."""
        if data:
            raise AdapterError(AdapterRejectReason.BAD_FIXED_TENSORS, field="fixed tensors", expected="none")
        return self

    def start(self) -> dict[str, npt.NDArray[np.float32]]:
        """Nothing is handed out: raises AdapterError."""
        raise AdapterError(
            AdapterRejectReason.BAD_FIXED_TENSORS,
            field="merge",
            found="factors",
            expected="frozen-a: only there does the session hand out a start",
            fix="ask its operator for the adapter that everybody started from",
        )

    def message(self, adapter: Adapter) -> Message:
        """All tensors, concatenated in layout order; the encoding clips their norm."""
        self.template.matches(adapter)
        vector = adapter_to_vector(adapter, self.layout)
        return Message(vector, l2_norm(vector), 1.0, 0)

    def tensors(self, mean: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Copies of the pieces of ``mean``, by PEFT name.

        Raises:
            AdapterError: BAD_VECTOR, NON_FINITE.
        """
        tensors = {name: piece.copy() for name, piece in self.layout.split(mean).items()}
        for name, values in tensors.items():
            require_float32(name, values)
        return tensors

    def aggregate(
        self, mean: npt.NDArray[np.float32], _contributors: int, _progress: Callable[[str], None]
    ) -> dict[str, list[bytes | memoryview]]:
        """The two files of the adapter."""
        return encode_adapter(self.template, self.tensors(mean))

    def faults(
        self,
        mean: npt.NDArray[np.float32],
        contributors: int,
        published: Mapping[str, bytes],
        progress: Callable[[str], None],
    ) -> Iterator[tuple[str, str]]:
        """Files that are not, byte for byte, what the mean gives."""
        for name, pieces in self.aggregate(mean, contributors, progress).items():
            state = hashlib.sha256()
            for piece in pieces:
                state.update(piece)
            if hashlib.sha256(published[name]).digest() != state.digest():
                yield name, "not what the mean gives"


def adapter_to_vector(adapter: Adapter, layout: Layout) -> npt.NDArray[np.float32]:
    """All tensors of the adapter in layout order, C order inside: a new float32 array.

    Raises:
        AdapterError: MISSING_TENSOR, UNEXPECTED_TENSOR or WRONG_SHAPE for the first difference.
    """
    difference = layout.difference(adapter.layout)
    if difference is not None:
        raise AdapterError(
            difference.reason,
            tensor=difference.tensor,
            found="no such tensor" if difference.found is None else f"shape {difference.found}",
            expected="no such tensor" if difference.expected is None else f"shape {difference.expected}",
            fix="train with rank and target modules of the session",
        )
    vector = np.empty(layout.dimension, np.float32)
    for name, piece in layout.split(vector).items():
        piece[...] = adapter.tensors[name]
    return vector
