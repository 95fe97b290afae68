"""From an adapter to the vector that is added up, and from the mean back to tensors.

A merge strategy is a linear map of what is to be averaged (design 10-lora.md): the sum of the messages
has to be the message of the sum, because nothing but the sum is ever seen.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from secagg.lora.adapter import Adapter
from secagg.lora.errors import AdapterError
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.lora.values import require_float32


class MergeStrategy(Protocol):
    """How adapters become vectors and a mean vector becomes an adapter.

    What a strategy needs besides, such as the seed of its test matrices, it gets when it is made. The
    caller has compared the adapter with the session's template (``AdapterTemplate.matches``) before it
    asks for a vector.
    """

    @property
    def name(self) -> str:
        """The name in the session record."""

    def layout_of(self, adapter: Adapter) -> Layout:
        """The layout of the vector that ``to_vector`` makes of ``adapter``."""

    def to_vector(self, adapter: Adapter, layout: Layout) -> npt.NDArray[np.float32]:
        """The vector to add up: ``layout.dimension`` coordinates, float32.

        Raises:
            AdapterError: the adapter does not fit ``layout``; names the first difference.
        """

    def to_adapter(
        self, mean: npt.NDArray[np.float32], layout: Layout, template: AdapterTemplate
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The tensors of the merged adapter, float32, by PEFT name.

        Raises:
            AdapterError: the mean does not fit ``layout``, or the result would not fit ``template``.
        """


class FactorMean:
    """Average A and B as they are (McMahan et al. 2017 on the factors; strategy ``factors``).

    The mean of products is not the product of means: this is right only if all adapters started from the
    same A, with one rank and one scale, and drifted little. Among adapters trained from independent
    starts it is worthless.
    """

    @property
    def name(self) -> str:
        """The name in the session record."""
        return "factors"

    def layout_of(self, adapter: Adapter) -> Layout:
        """All tensors of the adapter as they are."""
        return adapter.layout

    def to_vector(self, adapter: Adapter, layout: Layout) -> npt.NDArray[np.float32]:
        """All tensors, concatenated in layout order; see ``adapter_to_vector``."""
        return adapter_to_vector(adapter, layout)

    def to_adapter(
        self, mean: npt.NDArray[np.float32], layout: Layout, template: AdapterTemplate
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Copies of the pieces of ``mean``; see ``MergeStrategy.to_adapter``."""
        template.check_tensors(dict(layout.tensors))
        tensors = {name: piece.copy() for name, piece in layout.split(mean).items()}
        for name, values in tensors.items():
            require_float32(name, values)
        return tensors


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
