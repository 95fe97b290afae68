"""An adapter in memory: a config, and tensors that are what the config says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from secagg.lora.config import CONFIG_FILE, AdapterConfig
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.layout import Layout
from secagg.lora.modules import LoraModule, pair_tensors
from secagg.lora.values import require_float32


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter that passed every check; its repr shows no tensor.

    Attributes:
        config: the meaning of the tensors.
        tensors: PEFT name to values, float32, finite, sorted by name; the arrays are read-only views.
        modules: the pairs the tensors make up, sorted by path.
        layout: names and shapes of ``tensors``.

    Raises:
        AdapterError: BAD_LAYOUT, WRONG_DTYPE, NON_FINITE, RANK_MISMATCH with the config; as ``pair_tensors``.
    """

    config: AdapterConfig
    tensors: Mapping[str, npt.NDArray[np.float32]] = field(repr=False)
    modules: tuple[LoraModule, ...] = field(init=False, repr=False)
    layout: Layout = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shapes = {name: values.shape for name, values in self.tensors.items()}
        modules = pair_tensors(shapes)
        for module in modules:
            expected = self.config.rank_of(module.path)
            if module.rank != expected:
                raise AdapterError(
                    AdapterRejectReason.RANK_MISMATCH,
                    tensor=module.a_name,
                    found=f"rank {module.rank}",
                    expected=f"rank {expected}, from r and rank_pattern in {CONFIG_FILE}",
                    fix="config and tensors are from different adapters; save them again together",
                )
        layout = Layout.from_shapes(shapes)
        views = {}
        for name, _ in layout.tensors:
            require_float32(name, self.tensors[name])
            views[name] = self.tensors[name].view()
            views[name].flags.writeable = False
        object.__setattr__(self, "tensors", MappingProxyType(views))
        object.__setattr__(self, "modules", modules)
        object.__setattr__(self, "layout", layout)
