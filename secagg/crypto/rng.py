"""Where randomness comes from. Production code uses the operating system's generator and no other."""

from __future__ import annotations

import os
from typing import Protocol


class Rng(Protocol):
    """A source of uniform bytes."""

    def bytes(self, count: int) -> bytes:
        """``count`` fresh bytes."""
        ...


class SystemRng:
    """The operating system's generator."""

    def bytes(self, count: int) -> bytes:
        """``count`` fresh bytes."""
        return os.urandom(count)
