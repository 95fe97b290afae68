"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder: whatever bytes it is given, it returns or raises one of ``refusals``, and nothing else.

    Attributes:
        decode: takes the bytes; the value that it returns is dropped.
        seeds: bytes that it takes, or nearly.
    """

    name: str
    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]

    def run(self, data: bytes) -> None:
        """Decode; a refusal is an answer, anything else is a crash."""
        try:
            self.decode(data)
        except self.refusals:
            return
