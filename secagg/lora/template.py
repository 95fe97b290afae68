"""The template: what the session record says about the adapters besides names and shapes.

Regular expressions of a config are resolved to module paths here: a record must mean the same to
everybody, and nobody should have to run an expression that a coordinator wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from secagg.lora.adapter import Adapter
from secagg.lora.config import MAX_RANK
from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted
from secagg.lora.layout import Shape
from secagg.lora.modules import LoraModule, pair_tensors
from secagg.lora.published_fields import check_integer, check_text, refusal
from secagg.transcript import canonical
from secagg.transcript.canonical import JsonValue

MAX_ALPHA = 2**20

Exceptions = tuple[tuple[str, int], ...]
"""(module path, value) for the modules that deviate, in ascending order of the UTF-8 bytes of the path."""


@dataclass(frozen=True, slots=True)
class AdapterTemplate:
    """What all adapters of a session have in common; texts that are not known are empty.

    Attributes:
        base_model: ``base_model_name_or_path`` of every adapter; not empty.
        revision: of the base model.
        task_type: PEFT's name of the task.
        r: rank of modules that are not in ``rank_exceptions``.
        lora_alpha: alpha of modules that are not in ``alpha_exceptions``; the record has integers only.
        use_rslora: the scale is alpha / sqrt(r) instead of alpha / r.
        fan_in_fan_out: the base stores its weights transposed.
        rank_exceptions: modules of another rank.
        alpha_exceptions: modules of another alpha.

    Raises:
        AdapterError: BAD_TEMPLATE; names the field.
    """

    base_model: str
    revision: str
    task_type: str
    r: int
    lora_alpha: int
    use_rslora: bool
    fan_in_fan_out: bool
    rank_exceptions: Exceptions = ()
    alpha_exceptions: Exceptions = ()

    def __post_init__(self) -> None:
        check_text("base_model", self.base_model, shortest=1)
        check_text("revision", self.revision, shortest=0)
        check_text("task_type", self.task_type, shortest=0)
        check_integer("r", self.r, 1, MAX_RANK)
        check_integer("lora_alpha", self.lora_alpha, 1, MAX_ALPHA)
        _check_flag("use_rslora", self.use_rslora)
        _check_flag("fan_in_fan_out", self.fan_in_fan_out)
        _check_exceptions("rank_exceptions", self.rank_exceptions, self.r, MAX_RANK)
        _check_exceptions("alpha_exceptions", self.alpha_exceptions, self.lora_alpha, MAX_ALPHA)

    @classmethod
    def from_adapter(cls, adapter: Adapter) -> AdapterTemplate:
        """The template that ``adapter`` itself fits.

        Raises:
            AdapterError: BAD_CONFIG for a fractional alpha, BASE_MODEL_MISMATCH without a base model.
        """
        config = adapter.config
        if config.base_model_name_or_path is None:
            raise AdapterError(
                AdapterRejectReason.BASE_MODEL_MISMATCH,
                field="base_model_name_or_path",
                found="nothing",
                expected="the name of the base model",
                fix="write the name of the base model into adapter_config.json",
            )
        paths = [module.path for module in adapter.modules]
        alpha = _integral("lora_alpha", config.lora_alpha)
        return cls(
            base_model=config.base_model_name_or_path,
            revision=config.revision or "",
            task_type=config.task_type or "",
            r=config.r,
            lora_alpha=alpha,
            use_rslora=config.use_rslora,
            fan_in_fan_out=config.fan_in_fan_out,
            rank_exceptions=_deviating(paths, config.rank_of, config.r),
            alpha_exceptions=_deviating(
                paths, lambda path: _integral(f"alpha of {path}", config.alpha_of(path)), alpha
            ),
        )

    @classmethod
    def from_json_value(cls, value: object) -> AdapterTemplate:
        """The template that ``to_json_value`` describes.

        Raises:
            AdapterError: BAD_TEMPLATE; another type, a missing or additional key, or an invalid template.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(value, dict) or value.keys() != set(names):
            raise refusal("template", value, f"an object with the keys {sorted(names)}")
        arguments = dict(value)
        for name in ("use_rslora", "fan_in_fan_out"):
            if type(arguments[name]) is not int or arguments[name] not in (0, 1):
                raise refusal(name, arguments[name], "0 or 1")
            arguments[name] = arguments[name] == 1
        for name in ("rank_exceptions", "alpha_exceptions"):
            arguments[name] = _exceptions_from_json(name, arguments[name])
        return cls(**arguments)

    def to_json_value(self) -> dict[str, JsonValue]:
        """Objects, lists, strings and integers only, ready for the canonical codec."""
        return {
            "base_model": self.base_model,
            "revision": self.revision,
            "task_type": self.task_type,
            "r": self.r,
            "lora_alpha": self.lora_alpha,
            "use_rslora": int(self.use_rslora),
            "fan_in_fan_out": int(self.fan_in_fan_out),
            "rank_exceptions": _exceptions_to_json(self.rank_exceptions),
            "alpha_exceptions": _exceptions_to_json(self.alpha_exceptions),
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 over the canonical JSON of ``to_json_value()``, 32 bytes."""
        return hashlib.sha256(canonical.encode(self.to_json_value())).digest()

    def rank_of(self, module: str) -> int:
        """The rank of the module with this path."""
        return dict(self.rank_exceptions).get(module, self.r)

    def matches(self, adapter: Adapter) -> None:
        """Do nothing if ``adapter`` may be added to others that fit this template.

        Revision and task type are compared where both sides know them. Names and shapes are the layout's
        business.

        Raises:
            AdapterError: BASE_MODEL_MISMATCH, RANK_MISMATCH, SCALING_MISMATCH or CONFIG_MISMATCH, for the
                first difference; as ``from_adapter``.
        """
        theirs = AdapterTemplate.from_adapter(adapter)
        for name, reason in _COMPARED:
            expected, found = getattr(self, name), getattr(theirs, name)
            if expected == found or "" in (expected, found):
                continue
            place, found, expected = _first_deviation(name, found, expected)
            raise AdapterError(reason, field=place, found=quoted(found), expected=quoted(expected), fix=_FIXES[reason])

    def check_tensors(self, shapes: Mapping[str, Shape]) -> tuple[LoraModule, ...]:
        """The modules that merged tensors make up, each of the rank that the template says.

        Raises:
            AdapterError: RANK_MISMATCH; as ``pair_tensors``.
        """
        modules = pair_tensors(shapes)
        ranks = dict(self.rank_exceptions)
        for module in modules:
            expected = ranks.get(module.path, self.r)
            if module.rank != expected:
                raise AdapterError(
                    AdapterRejectReason.RANK_MISMATCH,
                    tensor=module.a_name,
                    found=f"rank {module.rank}",
                    expected=f"rank {expected}, from the template",
                )
        return modules


_COMPARED = (
    ("base_model", AdapterRejectReason.BASE_MODEL_MISMATCH),
    ("revision", AdapterRejectReason.BASE_MODEL_MISMATCH),
    ("r", AdapterRejectReason.RANK_MISMATCH),
    ("rank_exceptions", AdapterRejectReason.RANK_MISMATCH),
    ("lora_alpha", AdapterRejectReason.SCALING_MISMATCH),
    ("use_rslora", AdapterRejectReason.SCALING_MISMATCH),
    ("alpha_exceptions", AdapterRejectReason.SCALING_MISMATCH),
    ("fan_in_fan_out", AdapterRejectReason.CONFIG_MISMATCH),
    ("task_type", AdapterRejectReason.CONFIG_MISMATCH),
)
_FIXES = {
    AdapterRejectReason.BASE_MODEL_MISMATCH: "train on the base model of the session; if it is the same "
    "model under another name, write the expected name into adapter_config.json",
    AdapterRejectReason.RANK_MISMATCH: "train with the rank of the session",
    AdapterRejectReason.SCALING_MISMATCH: "train with lora_alpha and use_rslora of the session",
    AdapterRejectReason.CONFIG_MISMATCH: "train with the config of the session",
}


def _first_deviation(name: str, found: object, expected: object) -> tuple[str, object, object]:
    """Place, found and expected of two unequal fields; in exceptions, of the first module that differs."""
    if not isinstance(found, tuple) or not isinstance(expected, tuple):
        return name, found, expected
    theirs, ours = dict(found), dict(expected)
    differing = [path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)]
    first = min(differing, key=lambda path: path.encode("utf-8"))
    return (
        f"{name.removesuffix('_exceptions')} of {first}",
        theirs.get(first, "as in all modules"),
        ours.get(first, "as in all modules"),
    )


def _check_flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise refusal(field, value, "true or false")


def _check_exceptions(field: str, value: object, default: int, highest: int) -> None:
    if not isinstance(value, tuple):
        raise refusal(field, value, "a tuple of (module, value)")
    previous = b""
    for position, (module, number) in enumerate(value):
        where = f"{field}[{position}]"
        check_text(f"{where}.module", module, shortest=1)
        if module.encode("utf-8") <= previous:
            raise refusal(f"{where}.module", module, "modules in ascending order, each once")
        previous = module.encode("utf-8")
        check_integer(f"{where}.value", number, 1, highest)
        if number == default:
            raise refusal(f"{where}.value", number, "another value than that of all modules")


def _integral(field: str, alpha: float) -> int:
    if alpha != int(alpha):
        raise AdapterError(
            AdapterRejectReason.BAD_CONFIG,
            field=field,
            found=alpha,
            expected="an integer: the session record has no other numbers",
            fix="train with an integer lora_alpha, or scale lora_B and set an integer",
        )
    return int(alpha)


def _deviating(paths: list[str], value_of: Callable[[str], int], default: int) -> Exceptions:
    return tuple((path, value) for path in paths if (value := value_of(path)) != default)


def _exceptions_to_json(exceptions: Exceptions) -> JsonValue:
    return [{"module": module, "value": value} for module, value in exceptions]


def _exceptions_from_json(field: str, value: object) -> Exceptions:
    if not isinstance(value, list):
        raise refusal(field, value, "a list")
    for position, item in enumerate(value):
        if not isinstance(item, dict) or item.keys() != {"module", "value"}:
            raise refusal(f"{field}[{position}]", item, "an object with the keys module and value")
    return tuple((item["module"], item["value"]) for item in value)
