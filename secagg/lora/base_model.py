"""From a base model, or from an example adapter, to the modules of a manifest.

No weight is read: shapes follow from ``config.json`` where the architecture is known (``base_families``), else from the
headers of the safetensors files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from secagg.lora.adapter import Adapter
from secagg.lora.base_families import BASE_CONFIG_FILE, Layer, bad_base, family_of, is_transposed
from secagg.lora.config import MAX_CONFIG_BYTES
from secagg.lora.container import LENGTH_BYTES, MAX_HEADER_BYTES
from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted
from secagg.lora.layout import MAX_DIMENSION
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.maps import FixedTensors, fixed_name
from secagg.lora.pieces import scales_for
from secagg.lora.strict_json import parse_object
from secagg.transcript import canonical
from secagg.transcript.merge import LinearMerge

ALL_LINEAR: Literal["all-linear"] = "all-linear"
Targets = Sequence[str] | Literal["all-linear"]
"""Last parts of paths, or whole paths, as PEFT's ``target_modules``; or all linear layers but the output's."""

_EMBEDDINGS = frozenset({
    "embed_in", "embed_positions", "embed_tokens", "position_embeddings", "token_type_embeddings", "tok_embeddings",
    "word_embeddings", "wpe", "wte",
})  # fmt: skip
_OUTPUTS = frozenset({"classifier", "embed_out", "lm_head", "output", "score"})
_WEIGHT = ".weight"
_CACHED = "models--"
"""How the cache of the Hugging Face hub begins the name of a model's directory."""
_BLOCK_BYTES = 1 << 20


def modules_of_base(directory: Path, target_modules: Targets) -> tuple[MergedModule, ...]:
    """The modules of the base model in ``directory`` that adapters shall update, sorted by path, without scales.

    Where the architecture is not known, tensors of two axes are linear layers, unless their names say embedding, and
    tensors of more are convolutions.

    Raises:
        AdapterError: MISSING_FILE, UNREADABLE_FILE, MALFORMED_FILE, TOO_LARGE, BAD_CONFIG; UNSUPPORTED_VARIANT: an
            unknown architecture without weights; UNEXPECTED_TENSOR: a target that no module has.
    """
    if isinstance(target_modules, str) and target_modules != ALL_LINEAR:
        raise ValueError("a single target is a sequence of one")
    fields = _config(directory)
    family = family_of(fields)
    layers = [_module(layer) for layer in family(fields)] if family is not None else list(_headers(directory, fields))
    if target_modules == ALL_LINEAR:
        chosen = [layer for layer in layers if layer.kind == "linear" and _last(layer.path) not in _OUTPUTS]
    else:
        for target in target_modules:
            if not any(_matches(layer.path, target) for layer in layers):
                raise AdapterError(
                    AdapterRejectReason.UNEXPECTED_TENSOR,
                    field=f"target module {quoted(target)}",
                    found="no module of this name in the base model",
                    expected=f"one of {', '.join(sorted({_last(layer.path) for layer in layers}))}",
                    fix=f"name modules by the last part of their path, or {ALL_LINEAR}",
                )
        chosen = [layer for layer in layers if any(_matches(layer.path, target) for target in target_modules)]
    if not chosen:
        raise AdapterError(
            AdapterRejectReason.MISSING_TENSOR, field="target modules", found="none", expected="at least one module"
        )
    return tuple(sorted(chosen, key=lambda module: module.path.encode("utf-8")))


def stores_transposed(directory: Path) -> bool:
    """Whether the base in ``directory`` stores weights transposed, which PEFT calls ``fan_in_fan_out``.

    Raises:
        AdapterError: as ``modules_of_base``, for the config.
    """
    return is_transposed(_config(directory))


def base_name(directory: Path) -> str:
    """What adapters call the base model in ``directory``, as far as that can be told; else empty.

    That is the name in its config, or that of the repository in whose cached snapshot it is.

    Raises:
        AdapterError: as ``modules_of_base``, for the config.
    """
    name = _config(directory).get("_name_or_path")
    if isinstance(name, str) and name:
        return name
    cached = next((part for part in directory.absolute().parts if part.startswith(_CACHED)), "")
    return cached.removeprefix(_CACHED).replace("--", "/")


def base_digest(directory: Path) -> bytes:
    """SHA-256 over the canonical JSON list of ``[name, SHA-256 in hex]`` of ``config.json`` and all ``*.safetensors``.

    Names ascend; files are read block by block.

    Raises:
        AdapterError: MISSING_FILE, UNREADABLE_FILE.
    """
    names = sorted({BASE_CONFIG_FILE, *(path.name for path in directory.glob("*.safetensors"))})
    entries: list[canonical.JsonValue] = []
    for name in names:
        state = hashlib.sha256()
        try:
            with (directory / name).open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    state.update(block)
        except OSError as error:
            raise _unreadable(directory, name, error) from None
        entries.append([name, state.hexdigest()])
    return hashlib.sha256(canonical.encode(entries)).digest()


def modules_of_adapter(adapter: Adapter) -> tuple[MergedModule, ...]:
    """The modules that an example adapter updates, sorted by path, without scales; its ranks do not matter."""
    modules = []
    for module in adapter.modules:
        a, b = adapter.tensors[module.a_name].shape, adapter.tensors[module.b_name].shape
        kind = "convolution" if len(a) > 2 else "linear"
        if module.a_name.endswith(".lora_embedding_A"):
            kind = "embedding"
        modules.append(MergedModule(module.path, kind, b[0], a[1], tuple(a[2:])))
    return tuple(modules)


def build_manifest(merge: LinearMerge, plan: Manifest, norms: Mapping[str, Fraction]) -> Manifest:
    """``plan`` with the scales that belong to a strategy.

    Args:
        merge: the strategy.
        plan: the manifest; whatever scales it has are replaced.
        norms: where A is frozen: ``frozen_norms``; otherwise empty.
    """
    modules = (replace(module, scales=scales_for(merge, module, plan.rank, norms)) for module in plan)
    return replace(plan, modules=tuple(modules))


def frozen_norms(fixed: FixedTensors, plan: Manifest, update_norm: Fraction) -> dict[str, Fraction]:
    """By path, the smallest power of two that bounds the norm of ``scale B`` of updates that ``update_norm`` bounds.

    ``|scale B| s <= |scale B A|``, where s is the smallest singular value of A.

    Args:
        fixed: the tensors of ``frozen_tensors``.
        plan: the manifest; its scales do not matter.
        update_norm: the bound on the joint norm.

    Raises:
        AdapterError: BAD_FIXED_TENSORS; the rows of A depend on each other, as those of an embedding's do at the start.
    """
    norms = {}
    for module in plan:
        a = np.asarray(fixed[fixed_name(module, "a")], dtype=np.float64)
        # Of the small triangle: the square of a small singular value is lost in a Gram matrix.
        values = np.linalg.svd(np.linalg.qr(a.T).R, compute_uv=False)
        least = float(values[-1]) if a.shape[0] <= a.shape[1] else 0.0
        if least <= 2.0**-10 * float(values[0]):
            raise AdapterError(
                AdapterRejectReason.BAD_FIXED_TENSORS,
                tensor=module.a_name,
                found=f"singular values from {least:.3g} to {float(values[0]):.3g}",
                expected="rows that are independent: the smallest at least a thousandth of the largest",
                fix="freeze an A that was drawn at random; leave embeddings out, whose A starts at zero",
            )
        # A bound that lies a little below the singular value in fp64 does not matter: the range has room.
        norms[module.path] = Fraction(2) ** math.ceil(math.log2(float(update_norm) / least))
    return norms


def _module(layer: Layer) -> MergedModule:
    return MergedModule(layer.path, layer.kind, layer.outputs, layer.inputs)


def _matches(path: str, target: str) -> bool:
    return path == target or path.endswith(f".{target}")


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _config(directory: Path) -> dict[str, object]:
    try:
        with (directory / BASE_CONFIG_FILE).open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise _unreadable(directory, BASE_CONFIG_FILE, error) from None
    if len(data) > MAX_CONFIG_BYTES:
        raise AdapterError(
            AdapterRejectReason.TOO_LARGE,
            field=BASE_CONFIG_FILE,
            found="a longer file",
            expected=f"at most {MAX_CONFIG_BYTES} bytes",
        )
    return parse_object(data, BASE_CONFIG_FILE)


def _headers(directory: Path, fields: dict[str, object]) -> Iterator[MergedModule]:
    """Modules of the weights in the safetensors files of a directory."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise AdapterError(
            AdapterRejectReason.UNSUPPORTED_VARIANT,
            field=f"{BASE_CONFIG_FILE}: model_type",
            found=quoted(fields.get("model_type")),
            expected="an architecture that is known, or *.safetensors beside the config",
            fix="give an adapter for this base model as an example",
        )
    if "quantization_config" in fields:
        raise bad_base("quantization_config", fields["quantization_config"], "weights of their full shapes")
    seen: set[str] = set()
    for file in files:
        for name, shape in _shapes(file):
            if name.endswith(_WEIGHT) and len(shape) >= 2 and name not in seen:
                seen.add(name)
                yield _of_weight(name.removesuffix(_WEIGHT), shape)


def _of_weight(path: str, shape: tuple[int, ...]) -> MergedModule:
    if len(shape) > 2:
        return MergedModule(path, "convolution", shape[0], shape[1], shape[2:])
    if _last(path) in _EMBEDDINGS:
        return MergedModule(path, "embedding", shape[1], shape[0])
    return MergedModule(path, "linear", shape[0], shape[1])


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in a safetensors file of any dtypes and size; of its data nothing is read."""
    try:
        with path.open("rb") as file:
            length_bytes = int.from_bytes(file.read(LENGTH_BYTES), "little")
            text = file.read(length_bytes) if length_bytes <= MAX_HEADER_BYTES else b""
    except OSError as error:
        raise _unreadable(path.parent, path.name, error) from None
    if not 1 <= len(text) == length_bytes:
        raise _malformed(path.name, f"a header of {length_bytes} bytes", f"1 to {MAX_HEADER_BYTES} bytes, all there")
    for name, entry in parse_object(text, path.name).items():
        if name == "__metadata__":
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(type(n) is int and 0 <= n <= MAX_DIMENSION for n in shape):
            raise _malformed(f"{path.name}: {quoted(name)}", quoted(shape), "a list of sizes")
        if 0 not in shape:
            yield name, tuple(shape)


def _malformed(where: str, found: str, expected: str) -> AdapterError:
    return AdapterError(
        AdapterRejectReason.MALFORMED_FILE,
        field=where,
        found=found,
        expected=expected,
        fix="the file is damaged or was cut short; download the base model again",
    )


def _unreadable(directory: Path, name: str, error: OSError) -> AdapterError:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return AdapterError(
        AdapterRejectReason.MISSING_FILE if missing else AdapterRejectReason.UNREADABLE_FILE,
        field=name,
        found=f"nothing in {directory}" if missing else error.strerror,
        expected=name,
        fix="give the directory of the base model",
    )
