"""What a committee member runs on: a place for sealed boxes, and a journal of what it opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from secagg.crypto.sealing import SealingKey
from secagg.crypto.signing import SigningKey
from secagg.protocol.one_shot.member import MemberRules
from secagg.runtime.clock import Clock
from secagg.runtime.log_trust import CheckpointMemory
from secagg.runtime.ports import SessionKey, SessionStore
from secagg.transcript.policy import LogPolicy

ANSWERED = "ANSWERED"
"""The outcome of a request that was answered; every other is the name of a reason."""


class BoxStore(Protocol):
    """Sealed boxes of each session, all of one length, in slots from 0; and the session's roster.

    Methods block. Any thread may read; for one session one caller at a time writes.
    """

    def keep_roster(self, session: SessionKey, lines: bytes) -> None:
        """Make ``lines`` the roster of a session, durably. Raises StoreError."""
        ...

    def roster(self, session: SessionKey) -> bytes:
        """The roster that was kept. Raises StoreError: there is none."""
        ...

    def append(self, session: SessionKey, boxes: Sequence[bytes]) -> int:
        """Put boxes of one length into the next slots, durably; returns the first slot.

        Raises:
            StoreError: the disk refuses, or the boxes are not as long as those before. Whether they were stored is
                unknown then; no slot is ever given twice for two boxes that were both acknowledged.
        """
        ...

    def read(self, session: SessionKey, box_bytes: int, first: int, count: int) -> bytes:
        """The boxes in ``count`` slots from ``first`` on. Raises StoreError: they are not all there."""
        ...

    def delete(self, session: SessionKey) -> None:
        """Delete the boxes of a session, if there are any; its roster stays. Raises StoreError."""
        ...

    def sessions(self) -> Sequence[SessionKey]:
        """The sessions of which there are boxes. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True)
class OpeningLine:
    """One line of the journal: a request to open and what became of it.

    ``close`` is the SHA-256 of the close entry, empty where the request came with none that holds; ``outcome`` is
    ``ANSWERED`` or the name of the reason for the refusal, ``words`` the same for people.
    """

    at_s: int
    session: bytes
    close: bytes
    count: int
    outcome: str
    words: str


class OpeningJournal(Protocol):
    """What a member opened and what it refused, for its operator. Methods block."""

    def add(self, line: OpeningLine) -> None:
        """Append a line, durably, unless one with the same session, close and outcome is there. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True)
class MemberPorts:
    """What a committee member runs on.

    Attributes:
        store: its sessions.
        boxes: sealed boxes; no share is ever kept in the clear.
        journal: what it opened.
        clock: its own time.
        key: signs answers; the key that boxes are sealed to follows from it.
        policy: whose cosignatures a checkpoint needs.
        memory_of: where the last checkpoint of a log is kept, by coordinator key and origin.
        report: told of failures of background work (event, session, reason).
    """

    store: SessionStore
    boxes: BoxStore
    journal: OpeningJournal
    clock: Clock
    key: SigningKey
    sealing_key: SealingKey
    rules: MemberRules
    policy: LogPolicy
    memory_of: Callable[[bytes, str], CheckpointMemory]
    report: Callable[[str, bytes, str], None]
