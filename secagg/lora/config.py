"""``adapter_config.json``: what of it matters, and what of it is refused.

Field names and defaults are those of peft 0.21.2, ``peft/tuners/lora/config.py``. A field that is not
known here and says anything but "off" is refused: new variants of LoRA arrive as new fields, and adding
up one that means something else would destroy the sum without anybody noticing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted
from secagg.lora.strict_json import parse_object

CONFIG_FILE = "adapter_config.json"
MAX_CONFIG_BYTES = 2**20
MAX_RANK = 2**16

_SAVE_AGAIN = "train and save again without it"
_CONVERT = "save again with save_pretrained(..., path_initial_model_for_weight_conversion=...)"

# Refused when they say anything but "off": the update is not scale * B A on an unchanged base, or is not
# all of it.
_UNSUPPORTED: Mapping[str, str] = {
    "use_dora": "DoRA is not linear and cannot be added up; train with use_dora=False",
    "modules_to_save": "train without modules_to_save; whole modules are not part of a LoRA sum",
    "trainable_token_indices": "train without trainable_token_indices",
    "lora_bias": "train with lora_bias=False",
    "use_qalora": _SAVE_AGAIN,
    "use_bdlora": _SAVE_AGAIN,
    "kasa_config": "KaSA changes the base model; train plain LoRA",
    "arrow_config": "routed adapters cannot be added up; contribute the experts one by one",
    "monteclora_config": _SAVE_AGAIN,
    "megatron_config": "convert the adapter to the transformers format",
    "layer_replication": "the base model has to be the same for everybody; train without layer_replication",
    "target_parameters": "target modules, not parameters",
    "alora_invocation_tokens": "activated LoRA depends on the prompt; train plain LoRA",
    "ensure_weight_tying": "train with ensure_weight_tying=False",
}

# May say anything: they steer training or loading, or are read below.
_KNOWN = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config",
    "target_modules", "task_type", "use_rslora", "velora_config",
})  # fmt: skip

# Initialisations that leave the base model as it is. EVA starts from private data, MiCA freezes B: the saved
# tensors still are the whole update. Not here: pissa*, olora, corda, lora_ga, loftq, which change the base.
_PLAIN_INITS = frozenset({"gaussian", "orthogonal", "eva", "mica"})

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What a PEFT LoRA config says about the meaning of the tensors.

    Attributes:
        peft_type: always "LORA".
        base_model_name_or_path: free text, often a local path; None if not recorded.
        revision: of the base model; None if not recorded.
        task_type: PEFT's name of the task; None if not recorded.
        r: rank of modules that no pattern matches.
        lora_alpha: alpha of modules that no pattern matches; positive and finite.
        use_rslora: the scale is alpha / sqrt(r) instead of alpha / r.
        rank_pattern: (regular expression, rank); the first match wins.
        alpha_pattern: (regular expression, alpha); the first match wins.
        target_modules: sorted names, or one regular expression, or None.
        fan_in_fan_out: the base stores its weights transposed.
        bias: always "none".
    """

    peft_type: str
    base_model_name_or_path: str | None
    revision: str | None
    task_type: str | None
    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: tuple[tuple[str, int], ...]
    alpha_pattern: tuple[tuple[str, float], ...]
    target_modules: tuple[str, ...] | str | None
    fan_in_fan_out: bool
    bias: str

    def __post_init__(self) -> None:
        for field, rank in (
            ("r", self.r),
            *((f"rank_pattern.{key}", rank) for key, rank in self.rank_pattern),
        ):
            if type(rank) is not int or not 1 <= rank <= MAX_RANK:
                raise _bad(field, rank, f"an integer from 1 to {MAX_RANK}")
        alphas = ((f"alpha_pattern.{key}", alpha) for key, alpha in self.alpha_pattern)
        for field, alpha in (("lora_alpha", self.lora_alpha), *alphas):
            if not math.isfinite(alpha) or alpha <= 0:
                raise _bad(field, alpha, "a positive number")
        for field, pattern in (("rank_pattern", self.rank_pattern), ("alpha_pattern", self.alpha_pattern)):
            for key, _ in pattern:
                _compiled(field, key)

    def rank_of(self, module: str) -> int:
        """The rank of the module with this path."""
        return _first_match("rank_pattern", self.rank_pattern, module, self.r)

    def alpha_of(self, module: str) -> float:
        """The alpha of the module with this path."""
        return _first_match("alpha_pattern", self.alpha_pattern, module, self.lora_alpha)

    def scale_of(self, module: str) -> float:
        """The factor of ``B A`` in the module's update."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.use_rslora else rank)


def parse_config(data: bytes) -> AdapterConfig:
    """The config that the bytes of ``adapter_config.json`` hold; the caller bounds their length.

    Raises:
        AdapterError: MALFORMED_FILE, BAD_CONFIG, UNSUPPORTED_VARIANT or MUTATED_BASE; names the field.
    """
    fields = parse_object(data, CONFIG_FILE)
    _require_plain_lora(fields)
    _require_unmutated_base(fields.get("init_lora_weights", True))
    return AdapterConfig(
        peft_type="LORA",
        base_model_name_or_path=_text(fields, "base_model_name_or_path"),
        revision=_text(fields, "revision"),
        task_type=_text(fields, "task_type"),
        r=_integer("r", fields.get("r")),
        lora_alpha=_number("lora_alpha", fields.get("lora_alpha")),
        use_rslora=_flag(fields, "use_rslora"),
        rank_pattern=tuple((key, _integer(f"rank_pattern.{key}", v)) for key, v in _pattern(fields, "rank_pattern")),
        alpha_pattern=tuple((key, _number(f"alpha_pattern.{key}", v)) for key, v in _pattern(fields, "alpha_pattern")),
        target_modules=_target_modules(fields.get("target_modules")),
        fan_in_fan_out=_flag(fields, "fan_in_fan_out"),
        bias="none",
    )


def _require_plain_lora(fields: Mapping[str, object]) -> None:
    if fields.get("peft_type") != "LORA":
        raise AdapterError(
            AdapterRejectReason.UNSUPPORTED_VARIANT,
            field=f"{CONFIG_FILE}: peft_type",
            found=quoted(fields.get("peft_type")),
            expected="'LORA'",
            fix="only LoRA adapters can be added up; AdaLoRA and others have to be converted first",
        )
    if fields.get("bias", "none") != "none":
        raise AdapterError(
            AdapterRejectReason.UNSUPPORTED_VARIANT,
            field=f"{CONFIG_FILE}: bias",
            found=quoted(fields["bias"]),
            expected="'none'",
            fix='train with bias="none"; biases of the base are not part of the layout',
        )
    # In the order of the table above, so that the field people know is named before one that is not known
    # here.
    for field in (*_UNSUPPORTED, *sorted(fields.keys() - _KNOWN - _UNSUPPORTED.keys())):
        # PEFT writes null, false, {} or [] for what is not in use.
        if fields.get(field):
            raise AdapterError(
                AdapterRejectReason.UNSUPPORTED_VARIANT,
                field=f"{CONFIG_FILE}: {field}",
                found=quoted(fields[field]),
                expected="null or false",
                fix=_UNSUPPORTED.get(field, f"this field is not known here; {_SAVE_AGAIN}"),
            )


def _require_unmutated_base(init: object) -> None:
    if init is None or isinstance(init, bool) or (isinstance(init, str) and init.lower() in _PLAIN_INITS):
        return
    raise AdapterError(
        AdapterRejectReason.MUTATED_BASE,
        field=f"{CONFIG_FILE}: init_lora_weights",
        found=quoted(init),
        expected=f"true, false or one of {sorted(_PLAIN_INITS)}",
        fix=f"these tensors fit a base model that the initialisation changed; {_CONVERT}",
    )


def _bad(field: str, found: object, expected: str, fix: str | None = None) -> AdapterError:
    return AdapterError(
        AdapterRejectReason.BAD_CONFIG,
        field=f"{CONFIG_FILE}: {field}",
        found=quoted(found),
        expected=expected,
        fix=fix,
    )


def _text(fields: Mapping[str, object], field: str) -> str | None:
    value = fields.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _is_unicode(value):
        raise _bad(field, value, "a string or null")
    return value


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _flag(fields: Mapping[str, object], field: str) -> bool:
    value = fields.get(field, False)
    if not isinstance(value, bool):
        raise _bad(field, value, "true or false")
    return value


def _integer(field: str, value: object) -> int:
    if type(value) is not int:
        raise _bad(field, value, "an integer")
    return value


def _number(field: str, value: object) -> float:
    if type(value) not in (int, float):
        raise _bad(field, value, "a number")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise _bad(field, value, "a number that fits into a double") from None


def _pattern(fields: Mapping[str, object], field: str) -> tuple[tuple[str, object], ...]:
    value = fields.get(field)
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise _bad(field, value, "an object or null")
    return tuple(value.items())


def _target_modules(value: object) -> tuple[str, ...] | str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(sorted(value))
    raise _bad("target_modules", value, "a list of strings, a string or null")


def _compiled(field: str, key: str) -> re.Pattern[str]:
    # As PEFT matches, ``get_pattern_key`` in peft/utils/other.py.
    try:
        return re.compile(rf"(.*\.)?({key})$")
    except (re.error, OverflowError, RecursionError) as error:
        raise _bad(field, key, "a regular expression", f"correct the expression: {error}") from None


def _first_match(field: str, pattern: tuple[tuple[str, _Number], ...], module: str, default: _Number) -> _Number:
    for key, value in pattern:
        if _compiled(field, key).match(module):
            return value
    return default
