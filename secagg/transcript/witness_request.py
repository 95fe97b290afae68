"""The body that asks a witness for a cosignature.

Source: c2sp.org/tlog-witness, add-checkpoint. Whether the proof holds and the sizes fit is for the witness to find:
each has an answer of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from secagg.transcript.checkpoint import Checkpoint
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

MAX_REQUEST_BYTES = MAX_NOTE_BYTES + 4096

_OLD = "old "


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The size a witness saw last, a consistency proof from there, and the new checkpoint as a whole note."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes

    def __post_init__(self) -> None:
        check_integer(self.old_size, "request.old_size")
        check_hashes(self.proof, "request.proof")
        if type(self.note) is not bytes:
            raise NoteError("request.note", "not bytes")
        Checkpoint.parse(Note.parse(self.note).text)

    def to_bytes(self) -> bytes:
        """The body."""
        lines = [f"{_OLD}{self.old_size}", *(encode_base64(node) for node in self.proof), "", ""]
        return "\n".join(lines).encode("ascii") + self.note

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        """The request that has these bytes.

        Raises:
            NoteError: they are not a request, or its note is no checkpoint of the profile.
        """
        if len(data) > MAX_REQUEST_BYTES:
            raise NoteError("request", f"longer than {MAX_REQUEST_BYTES} bytes")
        head, divider, note = data.partition(b"\n\n")
        if not divider:
            raise NoteError("request", "no empty line before the checkpoint")
        try:
            old, *hashes = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise NoteError("request", "not ASCII") from None
        if not old.startswith(_OLD):
            raise NoteError("request.old_size", "missing")
        size = parse_decimal(old.removeprefix(_OLD), "request.old_size")
        return cls(size, tuple(decode_base64(line, "request.proof") for line in hashes), note)
