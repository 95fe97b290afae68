"""Counting randomness for tests: reproducible, and different at every call."""

from __future__ import annotations

import hashlib


class CountingRng:
    """SHA-256 in counter mode over a seed."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._counter = 0

    def bytes(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        out = b""
        while len(out) < count:
            out += hashlib.sha256(self._seed + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
        return out[:count]
