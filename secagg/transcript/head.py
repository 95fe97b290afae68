"""The head of a session's log: what the coordinator signs over all entries so far.

Until witnesses exist, this takes the place of a cosigned checkpoint behind the same port: it shows which history
the coordinator stands for, and two heads that disagree are evidence, but nobody else vouches for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secagg.transcript import merkle
from secagg.transcript.entries import SESSION_ID_BYTES
from secagg.transcript.record import Record, hex_field, integer_field

MAX_ENTRY_BYTES = 65_535
MAX_ENTRIES = 16


@dataclass(frozen=True, slots=True)
class LogHead(Record):
    """``size`` entries of ``session`` have the RFC 6962 root ``root``."""

    TYPE: ClassVar[str] = "log-head"
    log: bytes = hex_field(32)
    session: bytes = hex_field(SESSION_ID_BYTES)
    size: int = integer_field(1, MAX_ENTRIES)
    root: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """Every entry of a session so far and the signed head over them, as bytes; nothing is checked yet."""

    entries: tuple[bytes, ...]
    head: bytes
    signature: bytes


def head_over(log: bytes, session: bytes, entries: tuple[bytes, ...]) -> LogHead:
    """The head that ``entries`` have, by the log with public key ``log``."""
    return LogHead(log, session, len(entries), merkle.root(entries))
