"""What contributors of a forged session send, what its merge makes of the mean, and plans of each merge.

The modules are tiny: one that sends pieces, and one that is too small for any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np

from secagg.crypto.secret import Secret
from secagg.lora.adapter import Adapter
from secagg.lora.base_model import build_manifest, frozen_norms
from secagg.lora.config import AdapterConfig
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.fixed import encode_fixed
from secagg.lora.layout import Layout
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.maps import FixedTensors, LinearMaps
from secagg.lora.pieces import layout_of
from secagg.lora.template import AdapterTemplate
from secagg.lora.update_merging import UpdateMerging
from secagg.transcript.encoding import CoordinateRange, Encoding
from secagg.transcript.merge import (
    BasisMerge,
    DenseMerge,
    FrozenMerge,
    LinearMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SketchMerge,
)

SEED = hashlib.sha256(b"test matrices").digest()
NORM = Fraction(8)
RANK = 2
COLUMNS, CORE_COLUMNS, PROBE_COLUMNS = 3, 6, 4
MODULES = (MergedModule("layer.0", "linear", 12, 14), MergedModule("layer.1", "linear", 2, 3))
BARE = Manifest("example/base", "", "CAUSAL_LM", RANK, fan_in_fan_out=False, missing="refuse", modules=MODULES)
NO_TENSORS: FixedTensors = MappingProxyType({})


def silent(_text: str) -> None:
    """Nobody hears what is merged."""


class MergingForge:
    """What a forged session makes of adapters, by what its steps made.

    It merges with the fixed tensors of its plan, whatever digest the open entry names.
    """

    plan: Any
    parameters: Any
    template: AdapterTemplate | Manifest
    layout_value: Layout

    @property
    def merging(self) -> FactorMerging | UpdateMerging:
        """How the session merges."""
        if isinstance(self.template, AdapterTemplate):
            return FactorMerging(self.template, self.layout_value)
        return UpdateMerging(self.template, self.layout_value, LinearMaps(self.parameters.merge, self.plan.fixed))

    def merged_files(self, mean: np.ndarray, count: int) -> dict[str, bytes]:
        """The files that the merge makes of a mean, by name."""
        files = self.merging.aggregate(mean, count, silent)
        return {name: b"".join(pieces) for name, pieces in files.items()}

    def vector_of(self, seed: Secret) -> np.ndarray:
        """What a contributor sends that has this secret."""
        if isinstance(self.template, Manifest):
            return self.merging.message(adapter_of(self.template, self.plan.fixed, seed)).vector
        dimension = self.parameters.encoding.dimension
        vector = np.random.default_rng(list(seed.expose())).standard_normal(dimension, dtype=np.float32)
        vector /= np.float32(np.sqrt(dimension))
        return vector


def adapter_of(manifest: Manifest, fixed: FixedTensors, seed: Secret) -> Adapter:
    """An adapter whose updates are the same low rank for everybody and a little of its own.

    Its factors start where they like, unless the A is a fixed one.
    """
    own = np.random.default_rng(list(seed.expose()))
    tensors: dict[str, np.ndarray] = {}
    for number, module in enumerate(manifest):
        common = np.random.default_rng(number)
        frozen = fixed.get(f"{module.path}/a")
        if frozen is None:
            turn = own.standard_normal((RANK, RANK))
            a = np.linalg.inv(turn) @ common.standard_normal((RANK, module.columns))
            b = (common.standard_normal((module.outputs, RANK)) / 16) @ turn
        else:
            a, b = frozen, common.standard_normal((module.outputs, RANK)) / 16
        b = b + own.standard_normal(b.shape) / 256
        tensors[module.a_name] = a.astype(np.float32).reshape(module.a_shape(RANK))
        tensors[module.b_name] = b.astype(np.float32).reshape(module.b_shape(RANK))
    config = AdapterConfig(
        "LORA", manifest.base_model, None, None, RANK, float(RANK), False, (), (), None, False, "none"
    )
    return Adapter(config, tensors)


# Plans


def plan_of(merge: LinearMerge, fixed: FixedTensors = NO_TENSORS) -> dict[str, Any]:
    """What a plan of a session needs to know of its merge: its arguments by name."""
    norms = frozen_norms(fixed, BARE, merge.update_norm) if isinstance(merge, FrozenMerge) else {}
    manifest = build_manifest(merge, BARE, norms)
    layout = layout_of(merge, manifest, counts_clipping=True)
    return {
        "merge": merge,
        "adapter": manifest,
        "fixed": fixed,
        "shapes": dict(layout.tensors),
        "encoding": Encoding(layout.dimension, 20, 1024, 64, Fraction(64), CoordinateRange(Fraction(1))),
    }


def dense() -> dict[str, Any]:
    """Everybody sends its updates as they are."""
    return plan_of(DenseMerge(NORM))


def sketch() -> dict[str, Any]:
    """Everybody sends a sketch."""
    return plan_of(SketchMerge(NORM, SEED, COLUMNS, CORE_COLUMNS, PROBE_COLUMNS))


def frozen() -> dict[str, Any]:
    """Everybody has the same A."""
    rng = np.random.default_rng(7)
    fixed = {f"{module.path}/a": rng.standard_normal((RANK, module.columns), dtype=np.float32) for module in MODULES}
    return plan_of(FrozenMerge(NORM, digest_of(fixed)), fixed)


def ranges() -> dict[str, Any]:
    """The first session of ``two-session``."""
    return plan_of(RangeMerge(NORM, SEED, COLUMNS))


def pilots(sides: int = 1, share: Fraction = Fraction(1, 2)) -> dict[str, Any]:
    """The first session of ``pilot-basis``."""
    return plan_of(PilotMerge(NORM, SEED, COLUMNS, sides, share))


def projections(first: bytes, fixed: FixedTensors, contributors: bytes) -> dict[str, Any]:
    """The second session of ``two-session``."""
    digest = digest_of(fixed)
    return plan_of(ProjectionMerge(NORM, SEED, COLUMNS, PROBE_COLUMNS, first, digest, contributors), fixed)


def others(first: bytes, fixed: FixedTensors, pilot: PilotMerge) -> dict[str, Any]:
    """The second session of ``pilot-basis``."""
    merge = BasisMerge(NORM, SEED, COLUMNS, pilot.sides, PROBE_COLUMNS, pilot.share, first, digest_of(fixed))
    return plan_of(merge, fixed)


def digest_of(fixed: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of the file of fixed tensors."""
    return hashlib.sha256(encode_fixed(fixed)).digest()
