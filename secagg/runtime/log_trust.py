"""What a client trusts of a coordinator's log, and remembers of it from one session to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView, check_pinned, check_seen
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.note import Note
from secagg.transcript.policy import LogPolicy


class CheckpointMemory(Protocol):
    """Where the last verified checkpoint of one coordinator's log is kept, as the cosigned note. Methods block."""

    def load(self) -> bytes | None:
        """The note, or None before the first.

        Raises:
            StoreError: the disk refuses.
        """
        ...

    def store(self, note: bytes) -> None:
        """Replace it, durably. Raises StoreError."""
        ...


class ForgetfulMemory:
    """A CheckpointMemory that lasts as long as the process."""

    def __init__(self) -> None:
        self._note: bytes | None = None

    def load(self) -> bytes | None:
        """The note, or None before the first."""
        return self._note

    def store(self, note: bytes) -> None:
        """Replace it."""
        self._note = note


@dataclass(frozen=True, slots=True)
class Seen:
    """The last verified checkpoint; of size 0 before the first."""

    checkpoint: Checkpoint | None

    @property
    def size(self) -> int:
        """How many entries the log had."""
        return 0 if self.checkpoint is None else self.checkpoint.size


@dataclass(frozen=True, slots=True)
class LogTrust:
    """Which witnesses a checkpoint needs, and what was seen before. Methods block: the memory may be a disk."""

    policy: LogPolicy
    memory: CheckpointMemory

    @classmethod
    def nobody(cls) -> LogTrust:
        """No witness is asked for and nothing remembered beyond the process."""
        return cls(LogPolicy.without_witnesses(), ForgetfulMemory())

    def seen(self) -> Seen:
        """What was verified last."""
        note = self.memory.load()
        return Seen(None if note is None else Checkpoint.parse(Note.parse(note).text))

    def accept(self, seen: Seen, view: LogView, evidence: LogEvidence, consistency: tuple[bytes, ...]) -> None:
        """Check a session's first view against what was seen, and remember its checkpoint.

        Raises:
            RemoteProtocolError: LOG_FORKED; it is another log, shorter, or contradicts what was seen.
        """
        checkpoint = Checkpoint.parse(Note.parse(evidence.checkpoint).text)
        if seen.checkpoint is not None:
            if checkpoint.origin != seen.checkpoint.origin:
                raise RemoteProtocolError(RejectReason.LOG_FORKED, "the coordinator has moved to another log")
            check_pinned(view, seen.checkpoint, consistency)
        self._remember(checkpoint, evidence)

    def check(self, evidence: LogEvidence) -> None:
        """Refuse what contradicts the last checkpoint, which another session may have brought.

        Raises:
            RemoteProtocolError: LOG_FORKED.
        """
        checkpoint = self.seen().checkpoint
        if checkpoint is not None:
            check_seen(evidence, checkpoint)

    def remember(self, evidence: LogEvidence) -> None:
        """Keep the checkpoint of evidence that was verified, if it is newer."""
        self._remember(Checkpoint.parse(Note.parse(evidence.checkpoint).text), evidence)

    def _remember(self, checkpoint: Checkpoint, evidence: LogEvidence) -> None:
        if checkpoint.size > self.seen().size:
            self.memory.store(evidence.checkpoint)
