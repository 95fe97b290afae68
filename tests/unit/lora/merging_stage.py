"""Adapters in memory, sessions of every strategy over three kinds of modules, and the dense matrices they are about."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from secagg.lora.adapter import Adapter
from secagg.lora.base_model import build_manifest, frozen_norms
from secagg.lora.config import AdapterConfig
from secagg.lora.fixed import encode_fixed, fixed_shapes
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.reconstruction import basis_of
from secagg.lora.update_merging import UpdateMerging
from secagg.transcript.merge import (
    BasisMerge,
    DenseMerge,
    FrozenMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SketchMerge,
)

LINEAR = MergedModule("layers.0.q_proj", "linear", 40, 32)
EMBEDDING = MergedModule("embed_tokens", "embedding", 12, 50)
CONVOLUTION = MergedModule("features.0", "convolution", 16, 8, (3, 3))
MODULES = (EMBEDDING, CONVOLUTION, LINEAR)
SEED = bytes(range(32))
ONES = bytes([1]) * 32
RANK_OUT = 3
FACTORS = dict[str, tuple[np.ndarray, np.ndarray]]

STRATEGIES = ("dense", "frozen-a", "sketch", "range", "projection", "pilot-1", "pilot-2", "basis-1", "basis-2")
FREE = tuple(name for name in STRATEGIES if name != "frozen-a")
"""Strategies that take any A."""


def silent(_line: str) -> None:
    """Nobody hears which module is merged."""


def factors(seed: int, rank: int, modules: tuple[MergedModule, ...] = MODULES) -> FACTORS:
    """B and A of each module by path, as matrices."""
    generator = np.random.default_rng(seed)
    return {
        module.path: (
            generator.standard_normal((module.outputs, rank)).astype(np.float32) / 8,
            generator.standard_normal((rank, module.columns)).astype(np.float32) / 8,
        )
        for module in modules
    }


def adapter_of(given: FACTORS, alpha: float | None = None, *, rslora: bool = False, **changes) -> Adapter:
    """An adapter with these factors; its scale is 1 unless alpha says otherwise."""
    kinds = {module.path: module for module in changes.pop("modules", MODULES)}
    rank = next(iter(given.values()))[1].shape[0]
    arguments = {
        "peft_type": "LORA",
        "base_model_name_or_path": "tiny/model",
        "revision": None,
        "task_type": None,
        "r": rank,
        "lora_alpha": float(rank if alpha is None else alpha),
        "use_rslora": rslora,
        "rank_pattern": (),
        "alpha_pattern": (),
        "target_modules": None,
        "fan_in_fan_out": False,
        "bias": "none",
    }
    tensors = {}
    for path, (b, a) in given.items():
        module = kinds[path]
        tensors[module.a_name] = a.reshape(module.a_shape(a.shape[0]))
        tensors[module.b_name] = b.reshape(module.b_shape(b.shape[1]))
    return Adapter(AdapterConfig(**{**arguments, **changes}), tensors)


def dense(given: FACTORS, scale: float = 1.0) -> dict[str, np.ndarray]:
    """The updates, fp64, by path."""
    return {path: scale * b.astype(np.float64) @ a.astype(np.float64) for path, (b, a) in given.items()}


def sum_of(one: FACTORS, two: FACTORS) -> FACTORS:
    """Factors of the sum of the updates."""
    return {path: (np.hstack([one[path][0], two[path][0]]), np.vstack([one[path][1], two[path][1]])) for path in one}


@dataclass(frozen=True)
class Shape:
    """Sizes of a strategy."""

    columns: int = 4
    core_columns: int = 8
    probe_columns: int = 2
    rank: int = RANK_OUT


def session(
    strategy: str,
    *,
    modules: tuple[MergedModule, ...] = MODULES,
    norm: Fraction = Fraction(64),
    shape: Shape = Shape(),
    counts_clipping: bool = True,
    fixed: bytes | None = None,
    seed: bytes = SEED,
    missing: str = "refuse",
) -> UpdateMerging:
    """The merging of a session; fixed tensors that are not given are drawn."""
    plan = Manifest("tiny/model", "", "", shape.rank, fan_in_fan_out=False, missing=missing, modules=modules)
    data = fixed
    if fixed is None:
        drawn = drawn_fixed(_merge(strategy, norm, shape, seed, b""), plan)
        data = encode_fixed(drawn) if drawn else b""
    merge = _merge(strategy, norm, shape, seed, hashlib.sha256(data).digest())
    norms = {}
    if strategy == "frozen-a":
        norms = frozen_norms(drawn, plan, norm)
    manifest = build_manifest(merge, plan, norms)
    return UpdateMerging.of(merge, manifest, counts_clipping=counts_clipping).with_fixed(data)


def drawn_fixed(merge, plan: Manifest) -> dict[str, np.ndarray]:
    """A frozen A at random, or orthonormal bases."""
    generator = np.random.default_rng(1)
    return {
        name: (
            generator.standard_normal(size).astype(np.float32)
            if name.endswith("/a")
            else basis_of(generator.standard_normal(size)).astype(np.float32)
        )
        for name, size in fixed_shapes(merge, plan).items()
    }


def frozen_factors(merging: UpdateMerging, seed: int) -> FACTORS:
    """Factors with the session's A."""
    given = factors(seed, merging.manifest.rank, merging.manifest.modules)
    return {path: (b, merging.maps.fixed[f"{path}/a"]) for path, (b, _) in given.items()}


def mean_of(merging: UpdateMerging, adapters) -> np.ndarray:
    """The mean of the messages, without rounding."""
    return np.mean([merging.message(one).vector for one in adapters], axis=0, dtype=np.float64).astype(np.float32)


def updates_in(merging: UpdateMerging, tensors) -> dict[str, np.ndarray]:
    """The dense updates of merged tensors, by path."""
    return {
        module.path: tensors[module.b_name].astype(np.float64).reshape(module.outputs, -1)
        @ tensors[module.a_name].astype(np.float64).reshape(-1, module.columns)
        for module in merging.manifest
    }


def with_bases(strategy: str, first: UpdateMerging, adapters, **changes) -> UpdateMerging:
    """The second session over what the first one publishes."""
    (data,) = first.aggregate(mean_of(first, adapters), len(adapters), silent).values()
    return session(strategy, fixed=b"".join(data), **changes)


def without_scales(merging: UpdateMerging) -> tuple[MergedModule, ...]:
    """The modules of a session as they were planned."""
    return tuple(replace(module, scales={}) for module in merging.manifest)


def _merge(strategy: str, norm: Fraction, shape: Shape, seed: bytes, fixed: bytes):
    k, s, p = shape.columns, shape.core_columns, shape.probe_columns
    fixed, share, first = fixed or bytes(32), Fraction(1, 5), bytes(16)
    match strategy:
        case "dense":
            return DenseMerge(norm)
        case "frozen-a":
            return FrozenMerge(norm, fixed)
        case "sketch":
            return SketchMerge(norm, seed, k, s, p)
        case "range":
            return RangeMerge(norm, seed, k)
        case "projection":
            return ProjectionMerge(norm, seed, k, p, first, fixed, ONES)
        case "pilot-1" | "pilot-2":
            return PilotMerge(norm, seed, k, int(strategy[-1]), share)
        case _:
            return BasisMerge(norm, seed, k, int(strategy[-1]), p, share, first, fixed)
