"""Checkpoints: the text of a note that states the size and root of a log.

Source: c2sp.org/tlog-checkpoint, without extension lines: they are not audited, and implementations disagree on
whether a cosignature covers them.
"""

from __future__ import annotations

from dataclasses import dataclass

from secagg.transcript.note import (
    HASH_BYTES,
    NoteError,
    check_bytes,
    check_integer,
    check_name,
    decode_base64,
    encode_base64,
    parse_decimal,
)

_LINES = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log ``origin`` has ``size`` entries with the RFC 6962 root ``root``.

    The origin is the name of the log's key, so it keeps the rules of a key name.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_name(self.origin, "checkpoint.origin")
        check_integer(self.size, "checkpoint.size")
        check_bytes(self.root, HASH_BYTES, "checkpoint.root")

    def to_text(self) -> str:
        """Three lines: origin, size in decimal, root in base64."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint that has this text.

        Raises:
            NoteError: other than three lines, or one of them is not in its one form.
        """
        # Not splitlines: that also divides at U+2028 and others.
        lines = text.split("\n")
        if len(lines) != _LINES + 1 or lines[-1]:
            raise NoteError("checkpoint", "not exactly three lines")
        origin, size, root, _ = lines
        return cls(origin, parse_decimal(size, "checkpoint.size"), decode_base64(root, "checkpoint.root"))
