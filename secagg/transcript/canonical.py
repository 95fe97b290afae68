"""The canonical codec: one JSON text for each value, or an error.

Values are strings, arrays, objects with ASCII keys and integers of magnitude below 2^53. Keys are sorted, there
are no spaces, text is UTF-8 and escaped only where JSON demands it. ``decode`` accepts exactly the bytes that
``encode`` gives for what it returns, so a digest over the bytes is a digest over the meaning.
"""

from __future__ import annotations

import json
from typing import NoReturn, TypeAlias, Union

JsonValue: TypeAlias = Union[int, str, "list[JsonValue]", "dict[str, JsonValue]"]

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 16


class CanonicalError(ValueError):
    """The bytes or the value have no canonical form; the text says what and where."""


def encode(value: JsonValue) -> bytes:
    """The canonical bytes of ``value``.

    Raises:
        CanonicalError: a type, an integer or a string that the format does not have.
    """
    _check(value)
    return _dump(value)


def decode(data: bytes) -> JsonValue:
    """The value whose canonical bytes are ``data``.

    Raises:
        CanonicalError: ``data`` is not the canonical encoding of anything.
    """
    try:
        value: JsonValue = json.loads(data.decode("utf-8"), parse_float=_refuse_number, parse_constant=_refuse_number)
    except (ValueError, RecursionError):
        raise CanonicalError("not JSON") from None
    _check(value)
    # Sorting, spacing, escapes, duplicate keys and number forms are all settled by this one comparison.
    if _dump(value) != data:
        raise CanonicalError("not in canonical form")
    return value


def decode_object(data: bytes) -> dict[str, JsonValue]:
    """As ``decode``, for bytes that must be an object."""
    value = decode(data)
    if not isinstance(value, dict):
        raise CanonicalError("not an object")
    return value


def _dump(value: JsonValue) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise CanonicalError("text is not Unicode: a lone surrogate") from None


def _refuse_number(text: str) -> NoReturn:
    raise CanonicalError(f"not an integer: {text[:20]}")


def _check(value: object) -> None:
    if not _is_representable(value, 0):
        _explain(value, "value", 0)


def _is_representable(value: object, depth: int) -> bool:
    """Exact types: a bool is an int for Python, and the format has no booleans."""
    kind = type(value)
    if kind is str:
        return True
    if kind is int:
        return -MAX_INTEGER <= value <= MAX_INTEGER  # type: ignore[operator]
    if depth > MAX_DEPTH:
        return False
    if kind is dict:
        pairs = value.items()  # type: ignore[attr-defined]
        return all(type(key) is str and key.isascii() and _is_representable(item, depth + 1) for key, item in pairs)
    return kind is list and all(_is_representable(item, depth + 1) for item in value)  # type: ignore[attr-defined]


def _explain(value: object, where: str, depth: int) -> None:
    """Raise CanonicalError for the first place that cannot be represented."""
    # A key can be as long as the whole input: what is repeated for each item below it must not grow with it.
    where = where[-80:]
    if type(value) is int and abs(value) > MAX_INTEGER:
        raise CanonicalError(f"{where}: integer of magnitude 2^53 or more")
    if type(value) in {int, str}:
        return
    if type(value) not in {dict, list}:
        raise CanonicalError(f"{where}: {type(value).__name__} has no canonical form")
    if depth > MAX_DEPTH:
        raise CanonicalError(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        for position, item in enumerate(value):
            _explain(item, f"{where}[{position}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                raise CanonicalError(f"{where}: a key that is not ASCII text")
            _explain(item, f"{where}.{key[:40]}", depth + 1)
