"""Write a merged adapter that PEFT loads as it is; the same input gives the same bytes.

The target modules are written as the full paths that the tensors name, whatever notation the contributors
used: what is derived from the tensors cannot disagree with them. Ranks and alphas that deviate are
written as anchored, escaped expressions, which match one module each.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secagg.lora.config import CONFIG_FILE
from secagg.lora.container import encode_tensors
from secagg.lora.modules import LoraModule
from secagg.lora.reader import TENSOR_FILE
from secagg.lora.template import AdapterTemplate, Exceptions
from secagg.lora.values import require_float32


def write_adapter(
    directory: str | os.PathLike[str],
    template: AdapterTemplate,
    tensors: Mapping[str, npt.NDArray[np.float32]],
) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json`` into ``directory``, made if missing.

    Each file appears whole or not at all; the config comes last, so a directory with a config is complete.

    Args:
        directory: where to; existing files of these names are replaced.
        template: what the adapters have in common.
        tensors: PEFT names to float32 values, finite.

    Raises:
        AdapterError: WRONG_DTYPE, NON_FINITE, or tensors that do not fit ``template``; nothing is written.
        OSError: the files cannot be written.
    """
    write_files(directory, encode_adapter(template, tensors))


def write_files(directory: str | os.PathLike[str], files: Mapping[str, Iterable[bytes | memoryview]]) -> None:
    """Write files into ``directory``, made if missing: each whole or not at all, in the given order.

    Raises:
        OSError: they cannot be written.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for name, pieces in files.items():
        _replace(folder / name, pieces)
    _sync_folder(folder)


def encode_adapter(
    template: AdapterTemplate, tensors: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, list[bytes | memoryview]]:
    """The two files of an adapter by name, the tensors first, each as pieces to be written one after the other.

    Raises:
        AdapterError: WRONG_DTYPE, NON_FINITE, or tensors that do not fit ``template``.
    """
    for name, values in tensors.items():
        require_float32(name, values)
    modules = template.check_tensors({name: values.shape for name, values in tensors.items()})
    return {TENSOR_FILE: list(encode_tensors(tensors)), CONFIG_FILE: [encode_config(template, modules)]}


def encode_config(template: AdapterTemplate, modules: Iterable[LoraModule]) -> bytes:
    """The bytes of ``adapter_config.json`` for an adapter of these modules."""
    paths = {module.path for module in modules}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": template.base_model,
        "revision": template.revision or None,
        "task_type": template.task_type or None,
        "inference_mode": True,
        "r": template.r,
        "lora_alpha": template.lora_alpha,
        "lora_dropout": 0.0,
        "use_rslora": template.use_rslora,
        "rank_pattern": _pattern(template.rank_exceptions, paths),
        "alpha_pattern": _pattern(template.alpha_exceptions, paths),
        "target_modules": sorted(paths),
        "modules_to_save": None,
        "fan_in_fan_out": template.fan_in_fan_out,
        "bias": "none",
        "init_lora_weights": True,
        "use_dora": False,
    }
    return (json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


def _pattern(exceptions: Exceptions, paths: set[str]) -> dict[str, int]:
    # PEFT matches "(.*\.)?(key)$"; the anchor leaves the empty string for the optional part.
    return {f"^{re.escape(path)}": value for path, value in exceptions if path in paths}


def _replace(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
