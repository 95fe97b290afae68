"""Proof files: everything that shows offline that an entry is in a log.

Source: c2sp.org/tlog-proof, version 1. A proof file is read here and verified by whoever holds the entry, the
log's key and the policy.
"""

from __future__ import annotations

from dataclasses import dataclass

from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.merkle import ProofError
from secagg.transcript.note import (
    MAX_NOTE_BYTES,
    Note,
    NoteError,
    check_hashes,
    check_integer,
    decode_base64,
    encode_base64,
    parse_decimal,
)

MAX_EXTRA_BYTES = 64 * 1024

_HEADER = "c2sp.org/tlog-proof@v1"
_EXTRA = "extra "
_INDEX = "index "
_MAX_BYTES = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES


class LogProofError(ProofError):
    """``field`` of a proof file breaks a rule; ``reason`` says which."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LogProof:
    """Entry ``index`` is in the log of ``checkpoint`` by the audit path ``path``.

    ``extra`` is authenticated by nothing; empty means there is none. ``checkpoint`` is a whole note, byte for byte.
    """

    extra: bytes
    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes

    def __post_init__(self) -> None:
        if type(self.extra) is not bytes or len(self.extra) > MAX_EXTRA_BYTES:
            raise LogProofError("proof.extra", f"not at most {MAX_EXTRA_BYTES} bytes")
        if type(self.checkpoint) is not bytes:
            raise LogProofError("proof.checkpoint", "not bytes")
        try:
            check_integer(self.index, "proof.index")
            check_hashes(self.path, "proof.path")
            Checkpoint.parse(Note.parse(self.checkpoint).text)
        except NoteError as error:
            raise LogProofError(error.field, error.reason) from None

    def to_bytes(self) -> bytes:
        """The file."""
        lines = [_HEADER]
        if self.extra:
            lines.append(_EXTRA + encode_base64(self.extra))
        lines.append(f"{_INDEX}{self.index}")
        lines += [encode_base64(node) for node in self.path]
        return "\n".join([*lines, "", ""]).encode("ascii") + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> LogProof:
        """The proof that has these bytes.

        Raises:
            LogProofError: they are not a proof file of the profile; it is a ProofError.
        """
        if len(data) > _MAX_BYTES:
            raise LogProofError("proof", "too long")
        head, divider, checkpoint = data.partition(b"\n\n")
        if not divider:
            raise LogProofError("proof", "no empty line before the checkpoint")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise LogProofError("proof", "not ASCII") from None
        try:
            return cls(*_read_lines(lines), checkpoint)
        except NoteError as error:
            raise LogProofError(error.field, error.reason) from None


def _read_lines(lines: list[str]) -> tuple[bytes, int, tuple[bytes, ...]]:
    """Extra data, index and path out of the lines before the checkpoint."""
    if lines.pop(0) != _HEADER:
        raise LogProofError("proof", "not a proof of version 1")
    extra = b""
    if lines and lines[0].startswith(_EXTRA):
        extra = decode_base64(lines.pop(0).removeprefix(_EXTRA), "proof.extra")
        if not extra:
            raise LogProofError("proof.extra", "empty")
    if not lines or not lines[0].startswith(_INDEX):
        raise LogProofError("proof.index", "missing")
    index = parse_decimal(lines.pop(0).removeprefix(_INDEX), "proof.index")
    return extra, index, tuple(decode_base64(line, "proof.path") for line in lines)
