"""What a session makes of adapters: one object for the coordinator, its clients and its auditors.

``decode_merging`` reads layout and template of a session against its open entry. What it gives turns adapters into
messages, the mean of messages into the files of the aggregate, and says whether published files are those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from secagg.lora.adapter import Adapter
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.layout import Layout
from secagg.lora.linearity import check_encoding, check_factor_encoding, check_scales
from secagg.lora.manifest import Manifest
from secagg.lora.matrix_sizes import check_matrices
from secagg.lora.messages import Message
from secagg.lora.template import AdapterTemplate
from secagg.lora.update_merging import UpdateMerging
from secagg.transcript import canonical
from secagg.transcript.entries import SessionOpen
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy

FloatVector = npt.NDArray[np.float32]
Progress = Callable[[str], None]
Pieces = list[bytes | memoryview]


class Merging(Protocol):
    """How the adapters of one session are merged."""

    @property
    def layout(self) -> Layout:
        """Of the vector that is added up."""
        ...

    @property
    def base_model(self) -> str:
        """What all adapters are for."""
        ...

    @property
    def rank(self) -> int:
        """Of the merged adapter, where no pattern says otherwise."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files of the aggregate, ascending."""
        ...

    @property
    def template(self) -> AdapterTemplate:
        """What the merged adapter says of itself."""
        ...

    def start(self) -> dict[str, npt.NDArray[np.float32]]:
        """The tensors that everybody starts from, where the session hands any out; raises AdapterError elsewhere."""
        ...

    def with_fixed(self, data: bytes) -> Merging:
        """The same with the file of the session's fixed tensors; raises AdapterError unless it is that."""
        ...

    def message(self, adapter: Adapter) -> Message:
        """The vector to add up. Raises AdapterError: the adapter is not one of the session's."""
        ...

    def aggregate(self, mean: FloatVector, contributors: int, progress: Progress) -> dict[str, Pieces]:
        """The files that follow from a mean, by name, as pieces; raises AdapterError: the mean is not finite."""
        ...

    def faults(
        self, mean: FloatVector, contributors: int, published: Mapping[str, bytes], progress: Progress
    ) -> Iterator[tuple[str, str]]:
        """Name and reason for each file of ``published`` that is not what the mean gives, within the tolerance."""
        ...


def decode_merging(parameters: SessionOpen, layout: bytes, adapter: bytes) -> FactorMerging | UpdateMerging:
    """The merging of a session, from the canonical JSON of its layout and its template or manifest.

    Raises:
        CanonicalError: one of them is not canonical.
        AdapterError: malformed; of another digest, base model or dimension than the open entry's; against each other;
            or what contributors sent would not be linear (``linearity``).
    """
    decoded = Layout.from_json_value(canonical.decode(layout))
    value = canonical.decode(adapter)
    _require("layout", decoded.digest == parameters.layout, "another digest", "the open entry's")
    merging: FactorMerging | UpdateMerging
    if isinstance(parameters.merge, FactorMerge):
        check_factor_encoding(parameters.encoding)
        merging = FactorMerging(AdapterTemplate.from_json_value(value), decoded)
    else:
        counts_clipping = isinstance(parameters.noise, NoDifferentialPrivacy)
        check_encoding(parameters.encoding, counts_clipping=counts_clipping)
        merging = UpdateMerging.of(parameters.merge, Manifest.from_json_value(value), counts_clipping=counts_clipping)
        check_scales(parameters.merge, merging.manifest)
        check_matrices(parameters.merge, merging.manifest)
        difference = merging.layout.first_difference(decoded)
        _require("layout", difference is None, f"{difference}", "what the strategy sends of the modules")
    _require("adapter", merging.digest == parameters.adapter, "another digest", "the open entry's")
    _require("base_model", merging.base_model == parameters.base_model, merging.base_model, parameters.base_model)
    dimension = parameters.encoding.dimension
    _require("layout", decoded.dimension == dimension, f"{decoded.dimension} coordinates", f"{dimension}")
    return merging


def _require(field: str, holds: bool, found: str, expected: str) -> None:  # noqa: FBT001 - a condition, not a mode
    if not holds:
        raise AdapterError(AdapterRejectReason.BAD_LAYOUT, field=field, found=found, expected=expected)
