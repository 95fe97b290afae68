"""Which tensors of an adapter belong together: PEFT's names, taken apart and paired.

PEFT saves ``base_model.model.<path>.lora_A.weight`` of shape (r, in, ...) and ``.lora_B.weight`` of shape
(out, r, 1, ...) for linear and convolution layers, ``.lora_embedding_A`` of shape (r, vocabulary) and
``.lora_embedding_B`` of shape (width, r) for embeddings. Everything else is refused: it would be left out
of the sum in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.layout import Shape

PREFIX = "base_model.model."

_SUFFIX_PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
# What is known to stand in adapter files, and what its owner can do about it; first match wins.
_FIXES = (
    ("lora_magnitude_vector", "this is DoRA, which is not linear; train with use_dora=False"),
    ("lora_B.bias", "train with lora_bias=False"),
    ("lora_E", "this is AdaLoRA; convert it to plain LoRA"),
    ("trainable_tokens", "train without trainable_token_indices"),
    (".base_layer.bias", 'train with bias="none"'),
    ("embed_tokens", "save with save_pretrained(..., save_embedding_layers=False)"),
    ("lm_head", "save with save_pretrained(..., save_embedding_layers=False)"),
    (".lora_A.", "the name holds an adapter name; save with PeftModel.save_pretrained"),
    (".lora_B.", "the name holds an adapter name; save with PeftModel.save_pretrained"),
)
_DEFAULT_FIX = "save only the LoRA weights, with PeftModel.save_pretrained and without modules_to_save"


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One adapted module of the base model; the update is ``scale * B A``.

    Attributes:
        path: the module's path in the base model.
        a_name: name of the tensor A, whose first axis has size ``rank``.
        b_name: name of the tensor B, whose second axis has size ``rank``.
        rank: r.
    """

    path: str
    a_name: str
    b_name: str
    rank: int


def pair_tensors(shapes: Mapping[str, Shape]) -> tuple[LoraModule, ...]:
    """The modules these tensors make up, sorted by path.

    Raises:
        AdapterError: UNEXPECTED_TENSOR, MISSING_TENSOR (half a pair), WRONG_SHAPE or RANK_MISMATCH.
    """
    modules: dict[str, LoraModule] = {}
    for name in sorted(shapes):
        stem, a_suffix, b_suffix = _taken_apart(name)
        a_name, b_name = stem + a_suffix, stem + b_suffix
        for wanted in (a_name, b_name):
            if wanted not in shapes:
                raise AdapterError(
                    AdapterRejectReason.MISSING_TENSOR,
                    tensor=wanted,
                    found=f"only {name!r}",
                    expected="A and B of every module",
                    fix="the file is incomplete; save the adapter again",
                )
        path = stem.removeprefix(PREFIX)
        module = LoraModule(path, a_name, b_name, _rank(a_name, b_name, shapes))
        if modules.setdefault(path, module) != module:
            raise AdapterError(AdapterRejectReason.UNEXPECTED_TENSOR, tensor=name, expected="one pair for each module")
    return tuple(modules[path] for path in sorted(modules, key=lambda path: path.encode("utf-8")))


def _taken_apart(name: str) -> tuple[str, str, str]:
    for a_suffix, b_suffix in _SUFFIX_PAIRS:
        for suffix in (a_suffix, b_suffix):
            stem = name.removesuffix(suffix)
            if stem != name and stem.startswith(PREFIX) and stem != PREFIX:
                return stem, a_suffix, b_suffix
    raise AdapterError(
        AdapterRejectReason.UNEXPECTED_TENSOR,
        tensor=name,
        expected=f"names {PREFIX}<module>.lora_A.weight and .lora_B.weight only",
        fix=next((fix for part, fix in _FIXES if part in name), _DEFAULT_FIX),
    )


def _rank(a_name: str, b_name: str, shapes: Mapping[str, Shape]) -> int:
    a_shape, b_shape = shapes[a_name], shapes[b_name]
    if len(a_shape) < 2:
        raise AdapterError(
            AdapterRejectReason.WRONG_SHAPE, tensor=a_name, found=a_shape, expected="(rank, inputs, ...)"
        )
    if len(b_shape) != len(a_shape) or any(size != 1 for size in b_shape[2:]):
        raise AdapterError(
            AdapterRejectReason.WRONG_SHAPE,
            tensor=b_name,
            found=b_shape,
            expected=f"(outputs, rank{', 1' * (len(a_shape) - 2)}) beside A of shape {a_shape}",
        )
    if a_shape[0] != b_shape[1]:
        raise AdapterError(
            AdapterRejectReason.RANK_MISMATCH,
            tensor=b_name,
            found=f"rank {b_shape[1]}",
            expected=f"rank {a_shape[0]} of {a_name!r}",
            fix="A and B are from different adapters, or the convolution has groups, which is not supported",
        )
    return a_shape[0]
