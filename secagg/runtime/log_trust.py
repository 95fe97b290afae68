"""What a client trusts of a coordinator's log, and remembers of it from one session to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView, check_pinned, check_seen
from secagg.runtime.ports import StoreError
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.note import Note, NoteError
from secagg.transcript.policy import LogPolicy

Change: TypeAlias = Callable[[bytes | None], bytes | None]
"""From the note that is kept to the one to keep; None to leave it."""


class CheckpointMemory(Protocol):
    """Where the last verified checkpoint of one coordinator's log is kept, as the cosigned note. Methods block.

    One memory may serve several sessions and several processes at once.
    """

    def load(self) -> bytes | None:
        """The note, or None before the first.

        Raises:
            StoreError: the disk refuses.
        """
        ...

    def update(self, change: Change) -> None:
        """Replace it by what ``change`` makes of it, durably; nobody else's update comes in between.

        Raises:
            StoreError: the disk refuses.
        """
        ...


class ForgetfulMemory:
    """A CheckpointMemory that lasts as long as the process."""

    def __init__(self) -> None:
        self._note: bytes | None = None
        self._lock = threading.Lock()

    def load(self) -> bytes | None:
        """The note, or None before the first."""
        return self._note

    def update(self, change: Change) -> None:
        """See ``CheckpointMemory.update``."""
        with self._lock:
            self._note = change(self._note) or self._note


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
        """What was verified last.

        Raises:
            StoreError: what is kept cannot be read; it is never taken for nothing.
        """
        note = self.memory.load()
        return Seen(None if note is None else _kept(note))

    def accept(self, seen: Seen, view: LogView, evidence: LogEvidence, consistency: tuple[bytes, ...]) -> None:
        """Check a session's first view against what was seen, and remember its checkpoint.

        Raises:
            RemoteProtocolError: LOG_FORKED; it is another log, shorter, or contradicts what was seen.
        """
        if seen.checkpoint is not None:
            _check_origin(evidence, seen.checkpoint)
            check_pinned(view, seen.checkpoint, consistency)
        self.remember(evidence)

    def check(self, seen: Seen, evidence: LogEvidence) -> None:
        """Refuse what contradicts the last checkpoint, which another session may have brought.

        Args:
            seen: what had been verified before the evidence was asked for: it must contain that.
            evidence: the answer.

        Raises:
            RemoteProtocolError: LOG_FORKED.
        """
        if evidence.size < seen.size:
            raise RemoteProtocolError(RejectReason.LOG_FORKED, f"the log had {seen.size} entries, now {evidence.size}")
        if seen.checkpoint is not None:
            check_seen(evidence, seen.checkpoint)

    def remember(self, evidence: LogEvidence) -> None:
        """Keep the checkpoint of evidence that was verified, if it is newer than what is kept by now.

        Raises:
            RemoteProtocolError: LOG_FORKED; it contradicts that.
        """

        def newer(note: bytes | None) -> bytes | None:
            if note is not None:
                kept = _kept(note)
                _check_origin(evidence, kept)
                check_seen(evidence, kept)
                if evidence.size <= kept.size:
                    return None
            return evidence.checkpoint

        self.memory.update(newer)


def _check_origin(evidence: LogEvidence, seen: Checkpoint) -> None:
    if Checkpoint.parse(Note.parse(evidence.checkpoint).text).origin != seen.origin:
        raise RemoteProtocolError(RejectReason.LOG_FORKED, "the coordinator has moved to another log")


def _kept(note: bytes) -> Checkpoint:
    try:
        return Checkpoint.parse(Note.parse(note).text)
    except NoteError as error:
        raise StoreError(f"the checkpoint that was kept of the log cannot be read: {error}") from None
