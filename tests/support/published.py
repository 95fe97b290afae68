"""A coordinator's log and record in memory, and evidence that a lying one could make up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from secagg.crypto.notes import sign_checkpoint
from secagg.crypto.signing import SigningKey
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.memory_log import MemoryLogFiles
from secagg.runtime.transparency_log import NoCosigners, TransparencyLog
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.policy import LogPolicy

ORIGIN = "log.example/secagg"
NO_WITNESSES = LogPolicy.without_witnesses()


class MemoryRecord:
    """A ``RecordPort`` in a dictionary: content by session and name."""

    def __init__(self) -> None:
        self.files: dict[tuple[bytes, str], bytes] = {}

    def write(self, session: bytes, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        self.files[session, name] = b"".join(pieces)


def memory_log(key: SigningKey) -> TransparencyLog:
    """A log that nobody cosigns and that forgets everything with the process."""
    return TransparencyLog(MemoryLogFiles(), NoCosigners(), key, ORIGIN, lambda *_: None)


def trusting() -> LogTrust:
    """A client's trust that asks for no witness."""
    return LogTrust.nobody()


def evidence_of(key: SigningKey, entries: Sequence[bytes], before: Sequence[bytes] = ()) -> LogEvidence:
    """Any entries, after any others, under a checkpoint that this key signs."""
    frontier = merkle.Frontier()
    for entry in before:
        frontier.append(merkle.leaf_hash(entry))
    root = merkle.root([*before, *entries])
    note = sign_checkpoint(key, Checkpoint(ORIGIN, len(before) + len(entries), root))
    return LogEvidence(len(before), frontier.hashes, tuple(entries), note.to_bytes())
