"""The wall clock: the only place that reads it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since the epoch."""

    def now_s(self) -> int:
        """The time, rounded down."""
        ...


class SystemClock:
    """The operating system's clock."""

    def now_s(self) -> int:
        """The time, rounded down."""
        return int(time.time())
