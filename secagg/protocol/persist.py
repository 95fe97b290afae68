"""States and rows as bytes, for the store.

A private format of this program (MessagePack; dataclasses as maps with their class name), not a published one.
Stores of secrets are encrypted below this.
"""

from __future__ import annotations

import dataclasses
import enum
from fractions import Fraction
from typing import Any

import msgspec

from secagg.crypto.secret import Secret

_CLASS = "$"
_VALUE = "v"


class PersistError(ValueError):
    """Stored bytes do not decode: another version of the program, or damage."""


class Persistence:
    """Encodes and decodes values built of the given dataclasses, enums, tuples, bytes, text and integers."""

    def __init__(self, *kinds: type[Any]) -> None:
        self._kinds: dict[str, type[Any]] = {kind.__name__: kind for kind in kinds}
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder()

    def encode(self, value: object) -> bytes:
        """The stored form. Raises PersistError for a class that was not declared."""
        return self._encoder.encode(self._lower(value))

    def decode(self, data: bytes) -> Any:  # noqa: ANN401 - the caller knows which class it stored
        """The value that ``encode`` was given. Raises PersistError."""
        try:
            return self._raise(self._decoder.decode(data))
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise PersistError(f"stored state does not decode: {type(error).__name__}") from None

    def _lower(self, value: Any) -> Any:  # noqa: ANN401
        match value:
            case None | bool() | int() | str() | bytes():
                return value
            case tuple():
                return [self._lower(item) for item in value]
            case Secret():
                return {_CLASS: "Secret", _VALUE: value.expose()}
            case Fraction():
                return {_CLASS: "Fraction", _VALUE: f"{value}"}
            case enum.Enum():
                return {_CLASS: self._name(value), _VALUE: value.name}
            case _:
                lowered = {field.name: self._lower(getattr(value, field.name)) for field in dataclasses.fields(value)}
                return {_CLASS: self._name(value), **lowered}

    def _name(self, value: object) -> str:
        name = type(value).__name__
        if self._kinds.get(name) is not type(value):
            raise PersistError(f"class {name} is not declared for storage")
        return name

    def _raise(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return tuple(self._raise(item) for item in value)
        if not isinstance(value, dict):
            return value
        name = value.pop(_CLASS)
        if name == "Secret":
            return Secret(value[_VALUE])
        if name == "Fraction":
            return Fraction(value[_VALUE])
        kind = self._kinds[name]
        if issubclass(kind, enum.Enum):
            return kind[value[_VALUE]]
        return kind(**{field: self._raise(item) for field, item in value.items()})
