"""Secret bytes that do not show by accident.

What Python cannot do: wipe. Copies live in the allocator, in OpenSSL and in big integers until their memory is
used again. Short lifetimes are the protection; nothing more is claimed.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes with a redacted repr, constant-time comparison and one way out, ``expose``."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def expose(self) -> bytes:
        """The bytes themselves; every use is to be found by this name."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return f"Secret({len(self._value)} bytes)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> NoReturn:
        raise TypeError("a Secret has no hash")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")
