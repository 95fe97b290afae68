"""What a coordinator shows of its log: the newest entries, and what ties them to a cosigned checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.transcript.merkle import DIGEST_BYTES, MAX_TREE_SIZE
from secagg.transcript.tiles import MAX_ENTRY_BYTES

MAX_SEGMENT_ENTRIES = 2**16


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """All entries of a log from index ``start`` to its end, under one checkpoint.

    ``prefix`` holds the hashes of the compact range [0, start), as ``merkle.Frontier`` gives them: the roots of
    its perfect subtrees, largest first. ``checkpoint`` is the cosigned note (c2sp.org/tlog-checkpoint), verbatim, over
    ``start + len(entries)`` entries; nothing here has been verified.

    Raises:
        ValueError: a field has no possible value.
    """

    start: int
    prefix: tuple[bytes, ...]
    entries: tuple[bytes, ...]
    checkpoint: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.start <= MAX_TREE_SIZE:
            raise ValueError("start: expected a size from 0 to 2^63 - 1")
        if len(self.prefix) != self.start.bit_count():
            raise ValueError(f"prefix: expected {self.start.bit_count()} hashes, got {len(self.prefix)}")
        if any(len(node) != DIGEST_BYTES for node in self.prefix):
            raise ValueError(f"prefix: a hash has {DIGEST_BYTES} bytes")
        if len(self.entries) > MAX_SEGMENT_ENTRIES:
            raise ValueError(f"entries: expected at most {MAX_SEGMENT_ENTRIES}, got {len(self.entries)}")
        if any(len(entry) > MAX_ENTRY_BYTES for entry in self.entries):
            raise ValueError(f"entries: an entry has at most {MAX_ENTRY_BYTES} bytes")
        if self.size > MAX_TREE_SIZE:
            raise ValueError("entries: the log would have 2^63 entries or more")

    @property
    def size(self) -> int:
        """How many entries the log has under ``checkpoint``."""
        return self.start + len(self.entries)
