"""How many bytes a message has: what it says, without framing."""

from __future__ import annotations

import dataclasses
from enum import Enum

from secagg.protocol.messages import Confirmations

_NUMBER_BYTES = 4


def size_of(value: object) -> int:
    """Bytes of all byte strings, texts and numbers in a message; a number counts four."""
    match value:
        case None:
            return 0
        case bytes() | memoryview():
            return len(value)
        case str():
            return len(value)
        case int() | Enum():
            return _NUMBER_BYTES
        case Confirmations(signed):
            # Thousands of one size: signatures over statements with three digests.
            return len(signed) * size_of(signed[0]) if signed else 0
        case tuple() | list() | frozenset():
            return sum(map(size_of, value))
        case _ if dataclasses.is_dataclass(value):
            return sum(size_of(getattr(value, field.name)) for field in dataclasses.fields(value))
        case _:
            raise TypeError(f"a message has no {type(value).__name__}")
