"""Typed records over the canonical codec.

A published record is a frozen dataclass whose fields each carry a codec. Decoding checks the ``type`` and
``version`` members, that every field is there and no other, and every range, before the object exists.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, TypeVar

from secagg.transcript import canonical
from secagg.transcript.canonical import CanonicalError, JsonValue

VERSION = 2
_HEX = re.compile(r"[0-9a-f]*")
_FRACTION = re.compile(r"(0|[1-9][0-9]{0,39})/([1-9][0-9]{0,39})\Z")


class RecordError(ValueError):
    """A record is malformed; ``field`` names where, the text says why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Codec:
    """How one field is written as canonical JSON and read back, and what values it may have at all.

    ``check`` looks at one level only: a record within a record was checked when it was made.
    """

    write: Callable[[Any], JsonValue]
    read: Callable[[JsonValue, str], Any]
    check: Callable[[Any, str], None]


_METADATA = "codec"


def _field(codec: Codec) -> Any:  # noqa: ANN401 - dataclasses.field itself is typed as Any
    return dataclasses.field(metadata={_METADATA: codec})


def _unchanged(value: Any) -> JsonValue:  # noqa: ANN401
    """Writes integers and text as they are; ``check`` has seen them."""
    member: JsonValue = value
    return member


def hex_codec(length_bytes: int) -> Codec:
    """Bytes of one length as lowercase hex."""
    expected = f"expected {length_bytes} bytes in lowercase hex"

    def read(value: JsonValue, where: str) -> bytes:
        if not isinstance(value, str) or len(value) != 2 * length_bytes or not _HEX.fullmatch(value):
            raise RecordError(where, expected)
        return bytes.fromhex(value)

    def write(value: bytes) -> JsonValue:
        return value.hex()

    def check(value: object, where: str) -> None:
        if type(value) is not bytes or len(value) != length_bytes:
            raise RecordError(where, expected)

    return Codec(write, read, check)


def integer_codec(least: int, most: int) -> Codec:
    """An integer within inclusive bounds."""

    def check(value: object, where: str) -> None:
        if type(value) is not int or not least <= value <= most:
            raise RecordError(where, f"expected an integer from {least} to {most}")

    return Codec(_unchanged, _checked(check), check)


def text_codec(most_bytes: int, *choices: str) -> Codec:
    """Text of at most ``most_bytes`` in UTF-8, one of ``choices`` where any are given."""

    def check(value: object, where: str) -> None:
        if type(value) is not str or len(value.encode("utf-8", "surrogatepass")) > most_bytes:
            raise RecordError(where, f"expected text of at most {most_bytes} bytes")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise RecordError(where, "text is not Unicode: a lone surrogate")
        if choices and value not in choices:
            raise RecordError(where, f"expected one of {', '.join(choices)}")

    return Codec(_unchanged, _checked(check), check)


def _checked(check: Callable[[Any, str], None]) -> Callable[[JsonValue, str], Any]:
    """A ``read`` for values that JSON has itself."""

    def read(value: JsonValue, where: str) -> JsonValue:
        check(value, where)
        return value

    return read


def fraction_codec() -> Codec:
    """A non-negative fraction in lowest terms as ``numerator/denominator``."""

    def read(value: JsonValue, where: str) -> Fraction:
        match = _FRACTION.match(value) if isinstance(value, str) else None
        if match is None:
            raise RecordError(where, "expected a fraction like 1/10")
        fraction = Fraction(int(match[1]), int(match[2]))
        if write(fraction) != value:
            raise RecordError(where, "fraction not in lowest terms")
        return fraction

    def write(value: Fraction) -> JsonValue:
        return f"{value.numerator}/{value.denominator}"

    def check(value: object, where: str) -> None:
        if type(value) is not Fraction or not _FRACTION.match(f"{value.numerator}/{value.denominator}"):
            raise RecordError(where, "expected a non-negative fraction of at most 40 digits a side")

    return Codec(write, read, check)


def list_codec(item: Codec, most: int) -> Codec:
    """A tuple of at most ``most`` items."""

    def read(value: JsonValue, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise RecordError(where, f"expected a list of at most {most}")
        return tuple(item.read(entry, f"{where}[{i}]") for i, entry in enumerate(value))

    def check(value: object, where: str) -> None:
        if type(value) is not tuple or len(value) > most:
            raise RecordError(where, f"expected a tuple of at most {most}")
        for i, entry in enumerate(value):
            item.check(entry, f"{where}[{i}]")

    return Codec(lambda value: [item.write(entry) for entry in value], read, check)


def record_codec(*kinds: type[Record]) -> Codec:
    """One of several records, told apart by their ``type`` member."""
    by_type = {kind.TYPE: kind for kind in kinds}

    def read(value: JsonValue, where: str) -> Record:
        kind = by_type.get(str(value.get("type"))) if isinstance(value, dict) else None
        if kind is None:
            raise RecordError(where, f"expected a record of type {' or '.join(by_type)}")
        return kind.from_value(value, where)

    def check(value: object, where: str) -> None:
        if type(value) not in kinds:
            raise RecordError(where, f"expected a record of type {' or '.join(by_type)}")

    return Codec(lambda value: value.to_value(), read, check)


def hex_field(length_bytes: int) -> Any:  # noqa: ANN401
    """Dataclass field: bytes of one length."""
    return _field(hex_codec(length_bytes))


def integer_field(least: int, most: int = canonical.MAX_INTEGER) -> Any:  # noqa: ANN401
    """Dataclass field: an integer within inclusive bounds."""
    return _field(integer_codec(least, most))


def text_field(most_bytes: int, *choices: str) -> Any:  # noqa: ANN401
    """Dataclass field: bounded text, or one of some words."""
    return _field(text_codec(most_bytes, *choices))


def fraction_field() -> Any:  # noqa: ANN401
    """Dataclass field: a non-negative fraction."""
    return _field(fraction_codec())


def list_field(item: Codec, most: int) -> Any:  # noqa: ANN401
    """Dataclass field: a bounded tuple."""
    return _field(list_codec(item, most))


def record_field(*kinds: type[Record]) -> Any:  # noqa: ANN401
    """Dataclass field: one of some records."""
    return _field(record_codec(*kinds))


RecordT = TypeVar("RecordT", bound="Record")


class _Bytes:
    """A place for the canonical bytes of a record, which is immutable: they are computed once."""

    __slots__ = ("_canonical",)
    _canonical: bytes


_CODECS: dict[type[Record], tuple[tuple[str, Codec], ...]] = {}


def _codecs(kind: type[Record]) -> tuple[tuple[str, Codec], ...]:
    """Name and codec of every field of a class of records, in order: asked for at every record, so kept."""
    known = _CODECS.get(kind)
    if known is None:
        fields = dataclasses.fields(kind)
        known = _CODECS[kind] = tuple((field.name, field.metadata[_METADATA]) for field in fields)
    return known


@dataclass(frozen=True, slots=True)
class Record(_Bytes):
    """Base of everything published; subclasses set ``TYPE`` and declare fields with the helpers above."""

    TYPE: ClassVar[str]
    """The value of the ``type`` member."""

    def __post_init__(self) -> None:
        """Check every field against its codec: what cannot be decoded cannot be built either."""
        for name, codec in _codecs(type(self)):
            codec.check(getattr(self, name), f"{self.TYPE}.{name}")
        self.check()

    def check(self) -> None:
        """Relations between fields; subclasses raise RecordError."""

    def to_value(self) -> dict[str, JsonValue]:
        """The members, ``type`` and ``version`` included."""
        value: dict[str, JsonValue] = {"type": self.TYPE, "version": VERSION}
        for name, codec in _codecs(type(self)):
            value[name] = codec.write(getattr(self, name))
        return value

    def to_bytes(self) -> bytes:
        """The canonical bytes, which are what is hashed and signed."""
        try:
            known: bytes = self._canonical
        except AttributeError:
            known = canonical.encode(self.to_value())
            object.__setattr__(self, "_canonical", known)
        return known

    @classmethod
    def from_value(cls: type[RecordT], value: JsonValue, where: str = "") -> RecordT:
        """The record with these members.

        Raises:
            RecordError: a member is missing, unknown, of the wrong kind or out of range.
        """
        where = where or cls.TYPE
        if not isinstance(value, dict) or value.get("type") != cls.TYPE:
            raise RecordError(where, f"expected a record of type {cls.TYPE}")
        if value.get("version") != VERSION:
            raise RecordError(f"{where}.version", f"expected {VERSION}")
        codecs = _codecs(cls)
        unknown = sorted(set(value) - {name for name, _ in codecs} - {"type", "version"})
        if unknown:
            raise RecordError(f"{where}.{unknown[0][:40]}", "unknown member")
        members = {}
        for name, codec in codecs:
            if name not in value:
                raise RecordError(f"{where}.{name}", "missing")
            members[name] = codec.read(value[name], f"{where}.{name}")
        return cls(**members)

    @classmethod
    def from_bytes(cls: type[RecordT], data: bytes) -> RecordT:
        """The record with these canonical bytes; RecordError otherwise."""
        record = cls.from_value(decode_value(data))
        object.__setattr__(record, "_canonical", bytes(data))
        return record


def decode_value(data: bytes) -> JsonValue:
    """``canonical.decode`` with its error as a RecordError."""
    try:
        return canonical.decode(data)
    except CanonicalError as error:
        raise RecordError("bytes", str(error)) from None
