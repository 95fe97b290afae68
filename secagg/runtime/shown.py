"""What clients are shown of a session, whatever its protocol: where it stands, its log, its sum.

Everything follows from durable rows; nothing is shown before the entry that fixes it is in the log.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import ClosedList, SessionEnded
from secagg.protocol.phases import Phase
from secagg.protocol.rows import CommonEvent, LogRow, PublishEntry, RowKind, find, log_size
from secagg.protocol.session import Session
from secagg.runtime.driver import Driver
from secagg.runtime.ports import BlobStore, LogPort, StoreError
from secagg.transcript.evidence import LogEvidence

SessionT = TypeVar("SessionT", bound=Session)
StateT = TypeVar("StateT")
EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")


@dataclass(frozen=True, slots=True)
class Status:
    """Where a session stands, for watchers. ``deadline_s`` is 0 where no clock runs."""

    phase: Phase
    deadline_s: int
    received: int
    expected: int
    log_size: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How many did what the current phase asks for, and how many may at most."""

    received: int
    expected: int


class ShownSession(ABC, Generic[SessionT, StateT, EventT, EffectT]):
    """A session as its coordinator shows it; the host that drives it is built on this."""

    def __init__(
        self,
        session: SessionT,
        blobs: BlobStore,
        log: LogPort,
        driver: Driver[StateT, EventT | CommonEvent, EffectT | PublishEntry],
    ) -> None:
        self.session = session
        self.driver = driver
        self._blobs = blobs
        self._log = log
        self._lists: dict[str, tuple[bytes, ...]] = {}

    @property
    def rows(self) -> Mapping[int, object]:
        """The rows of the machine."""
        return self.driver.rows

    def status(self) -> Status:
        """Where the session stands."""
        state = self.driver.state
        progress = self._progress(state)
        deadline_s = self._deadline_of(state) or 0
        return Status(self._phase_of(state), deadline_s, progress.received, progress.expected, log_size(self.rows))

    def evidence(self) -> LogEvidence:
        """The log from the session's open entry on, as it is now."""
        self._require_log(1, "the session is not open yet")
        row = find(self.rows, 0, RowKind.LOG, LogRow)
        if row is None:
            raise StoreError("the session has no open entry")
        return self._log.evidence(row.index)

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """Proof that the log continues the one of ``old_size`` entries that somebody saw before.

        Nothing where it has never had that size: the answer, with its signed checkpoint, is evidence of a log that went
        back.
        """
        return self._log.consistency(old_size) if old_size <= self._log.size else ()

    @abstractmethod
    def closed_list(self) -> ClosedList:
        """Whose contributions are in the sum, and what became of everybody else.

        Raises:
            RemoteProtocolError: WRONG_PHASE; the close entry is not in the log.
        """

    def outcome(self) -> SessionEnded:
        """The log with its last entry."""
        if not self.is_over:
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "the session has not ended")
        return SessionEnded(self.evidence())

    def integer_sum(self) -> bytes:
        """SHA-256 name of the blob that holds the exact sum."""
        digest = self._sum_of(self.driver.state)
        if digest is None:
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "there is no sum")
        return digest

    @property
    def sum_bytes(self) -> int:
        """Length of that blob."""
        return 8 * self.session.field_layout.dimension

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self.ended_at_s(self.driver.state) is not None

    @staticmethod
    @abstractmethod
    def ended_at_s(state: StateT) -> int | None:
        """When the session ended, in seconds since the epoch; None while it goes on."""

    @staticmethod
    @abstractmethod
    def _phase_of(state: StateT) -> Phase:
        """The phase that clients are told."""

    @staticmethod
    @abstractmethod
    def _deadline_of(state: StateT) -> int | None:
        """When the current phase ends by itself, in seconds since the epoch; None where no clock runs."""

    @abstractmethod
    def _progress(self, state: StateT) -> Progress:
        """How far the current phase has come."""

    @staticmethod
    @abstractmethod
    def _sum_of(state: StateT) -> bytes | None:
        """SHA-256 name of the blob that holds the exact sum, if the session ended with one."""

    def _require_log(self, size: int, detail: str) -> None:
        """Nothing is shown before the entry that fixes it is in the log."""
        if log_size(self.rows) < size:
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, detail)

    def _cached(self, name: str, compute: Callable[[], tuple[bytes, ...]]) -> tuple[bytes, ...]:
        """A list that is fixed, computed when it is first asked for."""
        if name not in self._lists:
            self._lists[name] = compute()
        return self._lists[name]
