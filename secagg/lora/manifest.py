"""The manifest: which modules a session merges, and what is sent of each (published as ``adapter.json``).

Integers only; what is sent is multiplied by powers of two, so that one bound holds for all coordinates. Contributors
choose rank, alpha and start of their adapters themselves.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from secagg.lora.config import MAX_RANK
from secagg.lora.layout import MAX_AXES, MAX_DIMENSION, MAX_NAME_BYTES, Shape
from secagg.lora.modules import PREFIX
from secagg.lora.published_fields import check_integer, check_text, refusal
from secagg.transcript import canonical
from secagg.transcript.canonical import JsonValue

MAX_SCALE_LOG2 = 100
KINDS = ("linear", "embedding", "convolution")
MISSING = ("refuse", "zero")


@dataclass(frozen=True, slots=True)
class MergedModule:
    """One module whose update is merged.

    The update ``scale * B A`` is a matrix of ``outputs`` rows and ``columns`` columns, in the orientation of the
    factors: for embeddings rows are the width and columns the vocabulary; a convolution's kernel is flattened.

    Attributes:
        path: the module's path in the base model.
        kind: one of ``KINDS``; it decides the names and shapes of PEFT's tensors.
        outputs: rows of B.
        inputs: columns of A, without the kernel.
        kernel: sizes of a convolution's kernel; empty otherwise.
        scales: by name of what is sent: the base-2 logarithm of what it is multiplied by.
    """

    path: str
    kind: str
    outputs: int
    inputs: int
    kernel: Shape = ()
    scales: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_text(f"{self.path}.path", self.path, 1, MAX_NAME_BYTES - 64)
        if self.kind not in KINDS:
            raise refusal(f"{self.path}.kind", self.kind, f"one of {', '.join(KINDS)}")
        if (self.kind == "convolution") != bool(self.kernel) or len(self.kernel) > MAX_AXES - 2:
            raise refusal(f"{self.path}.kernel", self.kernel, "the sizes of a convolution's kernel, nothing otherwise")
        for name, size in (("outputs", self.outputs), ("inputs", self.inputs), *(("kernel", k) for k in self.kernel)):
            check_integer(f"{self.path}.{name}", size, 1, MAX_DIMENSION)
        for piece, scale in self.scales.items():
            check_integer(f"{self.path}.scales.{piece}", scale, -MAX_SCALE_LOG2, MAX_SCALE_LOG2)

    @property
    def columns(self) -> int:
        """Columns of the update as a matrix."""
        return self.inputs * math.prod(self.kernel)

    @property
    def a_name(self) -> str:
        """PEFT's name of A."""
        return PREFIX + self.path + (".lora_embedding_A" if self.kind == "embedding" else ".lora_A.weight")

    @property
    def b_name(self) -> str:
        """PEFT's name of B."""
        return PREFIX + self.path + (".lora_embedding_B" if self.kind == "embedding" else ".lora_B.weight")

    def a_shape(self, rank: int) -> Shape:
        """PEFT's shape of A."""
        return rank, self.inputs, *self.kernel

    def b_shape(self, rank: int) -> Shape:
        """PEFT's shape of B."""
        return self.outputs, rank, *(1 for _ in self.kernel)

    def to_json_value(self) -> dict[str, JsonValue]:
        """Objects, lists, strings and integers only."""
        return {
            "path": self.path,
            "kind": self.kind,
            "outputs": self.outputs,
            "inputs": self.inputs,
            "kernel": list[JsonValue](self.kernel),
            "scales": dict[str, JsonValue](self.scales),
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a session merges; texts that are not known are empty.

    Attributes:
        base_model: ``base_model_name_or_path`` of every adapter; not empty.
        revision: of the base model.
        task_type: PEFT's name of the task.
        rank: of the merged adapter, whose alpha is the same number.
        fan_in_fan_out: the base stores its weights transposed.
        missing: whether an adapter without one of the modules is refused, or counts as zero there.
        modules: sorted by path.

    Raises:
        AdapterError: BAD_TEMPLATE; names the field.
    """

    base_model: str
    revision: str
    task_type: str
    rank: int
    fan_in_fan_out: bool
    missing: str
    modules: tuple[MergedModule, ...]

    def __post_init__(self) -> None:
        check_text("base_model", self.base_model, 1)
        check_text("revision", self.revision, 0)
        check_text("task_type", self.task_type, 0)
        check_integer("rank", self.rank, 1, MAX_RANK)
        if type(self.fan_in_fan_out) is not bool:
            raise refusal("fan_in_fan_out", self.fan_in_fan_out, "true or false")
        if self.missing not in MISSING:
            raise refusal("missing", self.missing, f"one of {', '.join(MISSING)}")
        if type(self.modules) is not tuple or not self.modules:
            raise refusal("modules", self.modules, "at least one module")
        paths = [module.path.encode("utf-8") for module in self.modules]
        for position, (before, path) in enumerate(itertools.pairwise(paths), start=1):
            if before >= path:
                raise refusal(f"modules[{position}].path", path, "paths in ascending order, each once")

    def __iter__(self) -> Iterator[MergedModule]:
        return iter(self.modules)

    @classmethod
    def from_json_value(cls, value: object) -> Manifest:
        """The manifest that ``to_json_value`` describes.

        Raises:
            AdapterError: BAD_TEMPLATE; another type, a missing or additional key, or an invalid manifest.
        """
        names = {"base_model", "revision", "task_type", "rank", "fan_in_fan_out", "missing", "modules"}
        given = _object("manifest", value, names)
        if type(given["fan_in_fan_out"]) is not int or given["fan_in_fan_out"] not in (0, 1):
            raise refusal("fan_in_fan_out", given["fan_in_fan_out"], "0 or 1")
        if not isinstance(given["modules"], list):
            raise refusal("modules", given["modules"], "a list")
        modules = tuple(_module(f"modules[{i}]", module) for i, module in enumerate(given["modules"]))
        return cls(**{**given, "fan_in_fan_out": given["fan_in_fan_out"] == 1, "modules": modules})

    def to_json_value(self) -> dict[str, JsonValue]:
        """Objects, lists, strings and integers only, ready for the canonical codec."""
        return {
            "base_model": self.base_model,
            "revision": self.revision,
            "task_type": self.task_type,
            "rank": self.rank,
            "fan_in_fan_out": int(self.fan_in_fan_out),
            "missing": self.missing,
            "modules": [module.to_json_value() for module in self.modules],
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 over the canonical JSON of ``to_json_value()``, 32 bytes."""
        return hashlib.sha256(canonical.encode(self.to_json_value())).digest()


def _module(where: str, value: object) -> MergedModule:
    given = _object(where, value, {"path", "kind", "outputs", "inputs", "kernel", "scales"})
    if not isinstance(given["path"], str) or not isinstance(given["kind"], str):
        raise refusal(where, value, "path and kind as strings")
    if not isinstance(given["kernel"], list) or not isinstance(given["scales"], dict):
        raise refusal(where, value, "kernel as a list, scales as an object")
    return MergedModule(**{**given, "kernel": tuple(given["kernel"])})


def _object(where: str, value: object, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise refusal(where, value, f"an object with the keys {sorted(keys)}")
    return value
