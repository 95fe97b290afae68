"""What `secagg session open` makes of its options about merging: a merge, its manifest, how large updates may be."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from secagg.cli.failures import CommandError
from secagg.cli.options import hex_bytes
from secagg.crypto.rng import SystemRng
from secagg.lora.adapter import Adapter
from secagg.lora.base_model import (
    ALL_LINEAR,
    base_digest,
    base_name,
    build_manifest,
    frozen_norms,
    modules_of_adapter,
    modules_of_base,
    stores_transposed,
)
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.fixed import encode_fixed, frozen_tensors
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.update_merging import UpdateMerging
from secagg.lora.updates import joint_norm
from secagg.transcript.merge import (
    BasisMerge,
    DenseMerge,
    FactorMerge,
    FirstMerge,
    FrozenMerge,
    LinearMerge,
    Merge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SecondMerge,
    SketchMerge,
)

_DEFAULT_RANK = 16
_EXTRA_COLUMNS = 8
_PROBE_COLUMNS, _CROSS_PROBE_COLUMNS = 8, 16
_PILOT_SHARE = Fraction(1, 5)
_OF_STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "rank_out": ("sketch", "two-session", "pilot-basis", "dense", "frozen-a"),
    "columns": ("sketch", "two-session", "pilot-basis"),
    "core_columns": ("sketch",),
    "probe_columns": ("sketch", "two-session", "pilot-basis"),
    "sides": ("pilot-basis",),
    "pilot_share": ("pilot-basis",),
    "missing": ("sketch", "two-session", "pilot-basis", "dense"),
    "target_modules": ("sketch", "two-session", "pilot-basis", "dense"),
    "base_model": ("sketch", "two-session", "pilot-basis", "dense"),
}
"""Which options belong to which strategies; the others belong to all."""


@dataclass(frozen=True)
class PlannedMerge:
    """What a session merges and how.

    Attributes:
        merge: for the open entry.
        merging: layout, and template or manifest.
        base_digest: SHA-256 of the base model; zeros where nobody named it.
        clip_norm: what the L2 norm of a vector is bounded by: of the factors, of what is sent where there is noise.
        fixed: the file of tensors that the coordinator is handed for everybody; empty where there are none.
        notes: what there is to say about it.
    """

    merge: Merge
    merging: FactorMerging | UpdateMerging
    base_digest: bytes
    clip_norm: Fraction
    fixed: bytes
    notes: tuple[str, ...]


def plan_merge(arguments: argparse.Namespace) -> PlannedMerge:
    """The merge that the options describe; of strategies that take two sessions, that of the first.

    Raises:
        AdapterError: the example adapter or the base model cannot be used.
        RecordError: numbers out of range.
        CommandError: anything else that cannot work.
    """
    _check_options(arguments)
    if arguments.merge == "factors":
        return _factors(arguments)
    return _updates(arguments, _example(arguments))


def plan_second(
    arguments: argparse.Namespace, manifest: Manifest, merge: SecondMerge, base_digest: bytes
) -> PlannedMerge:
    """The merge of the second session: modules and base model of the first, and what it publishes to project on."""
    merging = _merging(arguments, merge, manifest, {})
    notes: list[str] = []
    example = None if arguments.dp_epsilon is None else _example(arguments)
    clip_norm = _message_norm(arguments, merging, example, notes)
    return PlannedMerge(merge, merging, base_digest, clip_norm, b"", tuple(notes))


def following_merge(
    arguments: argparse.Namespace, first: bytes, merge: FirstMerge, basis: bytes, contributors: bytes
) -> SecondMerge:
    """What follows a first session.

    Args:
        arguments: those of the first.
        first: its identifier.
        merge: its merge.
        basis: SHA-256 of the bases that it published.
        contributors: digest of those in its sum.
    """
    common: dict[str, Any] = {"update_norm": merge.update_norm, "seed": merge.seed, "columns": merge.columns}
    if isinstance(merge, RangeMerge):
        probe = arguments.probe_columns or _PROBE_COLUMNS
        return ProjectionMerge(**common, probe_columns=probe, first=first, fixed=basis, contributors=contributors)
    probe = arguments.probe_columns or (_PROBE_COLUMNS if merge.sides == 1 else _CROSS_PROBE_COLUMNS)
    return BasisMerge(**common, sides=merge.sides, probe_columns=probe, share=merge.share, first=first, fixed=basis)


def _check_options(arguments: argparse.Namespace) -> None:
    for name, strategies in _OF_STRATEGIES.items():
        if getattr(arguments, name) is not None and arguments.merge not in strategies:
            option = f"--{name.replace('_', '-')}"
            raise CommandError("ARGUMENTS", f"{option} is not for --merge {arguments.merge}", "leave it out")
    if arguments.adapter is None and arguments.merge in {"factors", "frozen-a"}:
        raise CommandError("ARGUMENTS", f"--merge {arguments.merge} needs --adapter", "give an example adapter")
    if arguments.adapter is None and not _is_directory(arguments.base):
        raise CommandError(
            "ARGUMENTS",
            "which modules are merged is not known",
            "give --adapter DIR, or --base with a model's directory",
        )
    if arguments.adapter is not None and arguments.target_modules is not None:
        raise CommandError(
            "ARGUMENTS", "--target-modules and --adapter exclude each other", "the adapter has the modules"
        )
    if arguments.merge != "factors" and arguments.flatten != "off":
        raise CommandError(
            "ARGUMENTS", f"--flatten is not for --merge {arguments.merge}", "what is sent has a range of its own"
        )


def _example(arguments: argparse.Namespace) -> Adapter | None:
    return None if arguments.adapter is None else read_adapter(arguments.adapter, None)


def _is_directory(base: str | None) -> bool:
    return base is not None and Path(base).is_dir()


def _digest_of_base(arguments: argparse.Namespace) -> bytes:
    if arguments.base is None:
        return bytes(32)
    if _is_directory(arguments.base):
        return base_digest(Path(arguments.base))
    try:
        digest: bytes = hex_bytes(32)(arguments.base)
        return digest
    except argparse.ArgumentTypeError as error:
        raise CommandError(
            "ARGUMENTS", f"--base: {arguments.base} is no directory, and {error}", "see docs/merging.md"
        ) from None


def _factors(arguments: argparse.Namespace) -> PlannedMerge:
    adapter = read_adapter(arguments.adapter, None)
    merging = FactorMerging(AdapterTemplate.from_adapter(adapter), adapter.layout)
    notes: list[str] = []
    clip_norm = arguments.clip_norm
    if clip_norm is None:
        clip_norm = _two_digits_up(2 * _norm_of(merging.message(adapter).norm, arguments.adapter))
        notes.append(
            f"clip norm {float(clip_norm):.6g}: twice the example adapter's norm, rounded up "
            "(--clip-norm chooses another; smaller is more precise, but scales larger adapters down)"
        )
    return PlannedMerge(FactorMerge(), merging, _digest_of_base(arguments), clip_norm, b"", tuple(notes))


def _updates(arguments: argparse.Namespace, example: Adapter | None) -> PlannedMerge:
    notes: list[str] = []
    manifest = _bare_manifest(arguments, example)
    update_norm = _update_norm(arguments, example, manifest, notes)
    fixed, norms = b"", dict[str, Fraction]()
    if arguments.merge == "frozen-a" and example is not None:
        tensors = frozen_tensors(example, manifest)
        fixed, norms = encode_fixed(tensors), frozen_norms(tensors, manifest, update_norm)
    merge = _merge(arguments, manifest.rank, update_norm, fixed)
    merging = _merging(arguments, merge, manifest, norms).with_fixed(fixed)
    clip_norm = _message_norm(arguments, merging, example, notes)
    return PlannedMerge(merge, merging, _digest_of_base(arguments), clip_norm, fixed, tuple(notes))


def _bare_manifest(arguments: argparse.Namespace, example: Adapter | None) -> Manifest:
    """The modules and what is known of the base model, without scales."""
    modules: tuple[MergedModule, ...]
    if example is None:
        directory = Path(arguments.base)
        modules = modules_of_base(directory, arguments.target_modules or ALL_LINEAR)
        revision, task, transposed, rank = "", "", stores_transposed(directory), _DEFAULT_RANK
        name = arguments.base_model or base_name(directory)
    else:
        modules, config = modules_of_adapter(example), example.config
        name = arguments.base_model or config.base_model_name_or_path
        revision, task, transposed = config.revision or "", config.task_type or "", config.fan_in_fan_out
        most = max(module.rank for module in example.modules)
        rank = most if arguments.merge == "frozen-a" else 2 * most
    if not name:
        raise CommandError("ARGUMENTS", "the base model has no name", "give --base-model NAME, as adapters have it")
    rank = rank if arguments.rank_out is None else arguments.rank_out
    return Manifest(name, revision, task, rank, transposed, arguments.missing or "refuse", modules)


def _update_norm(
    arguments: argparse.Namespace, example: Adapter | None, manifest: Manifest, notes: list[str]
) -> Fraction:
    if arguments.clip_norm is not None:
        given: Fraction = arguments.clip_norm
        return given
    if example is None:
        raise CommandError(
            "ARGUMENTS",
            "how large updates may be is not known",
            "give --clip-norm, a bound on the joint Frobenius norm of scale * B A over all modules, or --adapter",
        )
    norm = _norm_of(joint_norm(example, manifest), arguments.adapter)
    update_norm = _two_digits_up(2 * norm)
    notes.append(
        f"clip norm {float(update_norm):.6g}: twice the joint norm of the example adapter's updates, rounded up "
        "(--clip-norm chooses another; smaller is more precise, but scales larger updates down)"
    )
    return update_norm


def _merge(arguments: argparse.Namespace, rank: int, update_norm: Fraction, fixed: bytes) -> LinearMerge:
    columns, seed = arguments.columns, SystemRng().bytes(32)
    match arguments.merge:
        case "dense":
            return DenseMerge(update_norm)
        case "frozen-a":
            return FrozenMerge(update_norm, hashlib.sha256(fixed).digest())
        case "two-session":
            return RangeMerge(update_norm, seed, rank + _EXTRA_COLUMNS if columns is None else columns)
        case "pilot-basis":
            share = _PILOT_SHARE if arguments.pilot_share is None else arguments.pilot_share
            return PilotMerge(update_norm, seed, 2 * rank if columns is None else columns, arguments.sides or 1, share)
        case _:
            core = 8 * rank if arguments.core_columns is None else arguments.core_columns
            probe = _PROBE_COLUMNS if arguments.probe_columns is None else arguments.probe_columns
            return SketchMerge(update_norm, seed, 2 * rank if columns is None else columns, core, probe)


def _merging(
    arguments: argparse.Namespace, merge: LinearMerge, manifest: Manifest, norms: Mapping[str, Fraction]
) -> UpdateMerging:
    scaled = build_manifest(merge, manifest, norms)
    return UpdateMerging.of(merge, scaled, counts_clipping=arguments.dp_epsilon is None)


def _message_norm(
    arguments: argparse.Namespace, merging: UpdateMerging, example: Adapter | None, notes: list[str]
) -> Fraction:
    """What bounds the L2 norm of what is sent.

    Without noise each coordinate is within 1, and nothing else is asked. With noise the norm decides how much of it
    there has to be: twice that of the example's message.
    """
    if arguments.dp_epsilon is None:
        return Fraction(math.isqrt(merging.layout.dimension) + 1)
    if example is None:
        raise CommandError("ARGUMENTS", "how large messages are is not known", "with --dp-epsilon, give --adapter")
    vector = merging.message(example).vector
    clip_norm = _two_digits_up(2 * _norm_of(float(np.linalg.norm(vector.astype(np.float64))), arguments.adapter))
    notes.append(
        f"what is sent is scaled down to norm {float(clip_norm):.6g}, twice that of the example's message: the noise "
        "is planned for that"
    )
    return clip_norm


def _norm_of(norm: float, directory: Path) -> float:
    if norm == 0:
        raise CommandError("CLIP_NORM", f"all values of {directory} are zero", "give --clip-norm")
    return norm


def _two_digits_up(norm: float) -> Fraction:
    unit = Fraction(10) ** (math.floor(math.log10(norm)) - 1)
    return math.ceil(Fraction(norm) / unit) * unit
