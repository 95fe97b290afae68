"""The updates of an adapter, module by module, in the orientation of its factors, and their joint norm.

``scale * B A`` does not change when B and A are changed to B G and G^-1 A, so neither does anything that is computed
here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secagg.lora.adapter import Adapter
from secagg.lora.config import CONFIG_FILE
from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.modules import LoraModule

Matrix = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The update of one module, ``left @ right``; the scale is in ``left``.

    ``left`` is float32[m, r], ``right`` float32[r, n].
    """

    left: Matrix = field(repr=False)
    right: Matrix = field(repr=False)

    @property
    def square(self) -> float:
        """The squared Frobenius norm of the update: tr((B^T B)(A A^T))."""
        left, right = self.left.astype(np.float64), self.right.astype(np.float64)
        with np.errstate(invalid="ignore"):
            square = float(np.sum((left.T @ left) * (right @ right.T)))
        # Not max(): what is not a number stays so, and is refused where it is used.
        return 0.0 if square < 0 else square


def updates_of(adapter: Adapter, manifest: Manifest) -> Iterator[tuple[MergedModule, Factors | None]]:
    """Each module of the manifest with its update, which is None where the adapter has none and need not.

    ``check_modules`` has accepted the adapter.
    """
    own = {module.path: module for module in adapter.modules}
    for module in manifest:
        found = own.get(module.path)
        if found is None:
            yield module, None
            continue
        yield module, update_of(adapter, found)


def update_of(adapter: Adapter, module: LoraModule) -> Factors:
    """The update of one of the adapter's own modules."""
    a, b = adapter.tensors[module.a_name], adapter.tensors[module.b_name]
    scale = np.float32(adapter.config.scale_of(module.path))
    with np.errstate(over="ignore"):
        left = b.reshape(-1, module.rank) * scale
    return Factors(left, a.reshape(module.rank, -1))


def joint_norm(adapter: Adapter, manifest: Manifest) -> float:
    """The Frobenius norm of all updates together, in fp64."""
    return math.sqrt(sum(factors.square for _, factors in updates_of(adapter, manifest) if factors is not None))


def check_modules(adapter: Adapter, manifest: Manifest) -> None:
    """Do nothing if the updates of ``adapter`` are those of the manifest's modules, whatever their ranks.

    Raises:
        AdapterError: BASE_MODEL_MISMATCH, CONFIG_MISMATCH, MISSING_TENSOR, UNEXPECTED_TENSOR or WRONG_SHAPE, for the
            first difference.
    """
    _check_config(adapter, manifest)
    own = {module.path: module for module in adapter.modules}
    for module in manifest:
        found = own.pop(module.path, None)
        if found is None:
            if manifest.missing == "zero":
                continue
            raise AdapterError(
                AdapterRejectReason.MISSING_TENSOR,
                tensor=module.a_name,
                found=f"no update of {module.path}",
                expected="all modules of the session",
                fix=f"train with these target modules: {_endings(manifest)}",
            )
        expected = {module.a_name: module.a_shape(found.rank), module.b_name: module.b_shape(found.rank)}
        for name, shape in expected.items():
            if name not in adapter.tensors:
                raise AdapterError(
                    AdapterRejectReason.UNEXPECTED_TENSOR,
                    tensor=found.a_name,
                    found=f"an update of {module.path} of another kind",
                    expected=f"{name}: it is of kind {module.kind} in the session",
                    fix="train on the base model of the session",
                )
            if adapter.tensors[name].shape != shape:
                raise AdapterError(
                    AdapterRejectReason.WRONG_SHAPE,
                    tensor=name,
                    found=adapter.tensors[name].shape,
                    expected=f"{shape}, for this rank",
                    fix="train on the base model of the session",
                )
    for path in sorted(own):
        raise AdapterError(
            AdapterRejectReason.UNEXPECTED_TENSOR,
            tensor=own[path].a_name,
            found=f"an update of {path}",
            expected="only modules of the session",
            fix=f"train with these target modules: {_endings(manifest)}",
        )


def _check_config(adapter: Adapter, manifest: Manifest) -> None:
    config = adapter.config
    for name, found, expected, reason in (
        ("base_model_name_or_path", config.base_model_name_or_path or "", manifest.base_model, _BASE),
        ("revision", config.revision or "", manifest.revision, _BASE),
        ("task_type", config.task_type or "", manifest.task_type, _CONFIG),
        ("fan_in_fan_out", config.fan_in_fan_out, manifest.fan_in_fan_out, _CONFIG),
    ):
        # What one side does not know is not compared.
        if found != expected and "" not in (found, expected):
            raise AdapterError(
                reason,
                field=f"{CONFIG_FILE}: {name}",
                found=quoted(found),
                expected=quoted(expected),
                fix="train on the base model of the session; if it is the same model under another name, write the "
                f"expected name into {CONFIG_FILE}",
            )


_BASE, _CONFIG = AdapterRejectReason.BASE_MODEL_MISMATCH, AdapterRejectReason.CONFIG_MISMATCH


def _endings(manifest: Manifest) -> str:
    """The last parts of all paths, each once: what a person writes as target modules."""
    return ", ".join(sorted({module.path.rpartition(".")[2] for module in manifest}))
