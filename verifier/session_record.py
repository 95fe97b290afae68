"""One session of a record: its log entries and its files.

What several checks need of them is in ``session_values``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

from secagg.transcript.entries import (
    ContributionsCommitted,
    KeysAdvertised,
    KeysShared,
    OneShotClose,
    OneShotOpen,
    OneShotResult,
    PairwiseOpen,
    SessionAbort,
    SessionClose,
    SessionOpen,
    SessionResult,
)
from secagg.transcript.openers import Committee, KeyAuthority
from verifier.audit import Audit
from verifier.checks import Derived, Inputs, Mode, Place, Stage
from verifier.record_files import RecordFiles

ValueT = TypeVar("ValueT")
KindT = TypeVar("KindT")


@dataclass(frozen=True, slots=True)
class SessionEntries:
    """The log entries of one session, in legal order; None for those that it has not.

    ``digest`` and ``close_digest`` are the SHA-256 of the open and the close entry, as statements name them (empty
    where there is no close).
    """

    open: SessionOpen
    advertised: KeysAdvertised | None = None
    shared: KeysShared | None = None
    close: SessionClose | None = None
    result: SessionResult | None = None
    abort: SessionAbort | None = None
    committed: ContributionsCommitted | None = None

    @property
    def mode(self) -> Mode:
        """Of which protocol the session is, and who opens its sum."""
        if not isinstance(self.open, OneShotOpen):
            return Mode.PAIRWISE
        return Mode.AUTHORITY if isinstance(self.open.opening, KeyAuthority) else Mode.COMMITTEE

    @property
    def stage(self) -> Stage:
        """How far the session came."""
        later = (self.result, self.close, self.committed, self.shared, self.advertised)
        stages = (Stage.FINISHED, Stage.CLOSED, Stage.COMMITTED, Stage.SHARED, Stage.ADVERTISED)
        return next((stage for stage, entry in zip(stages, later, strict=True) if entry is not None), Stage.OPENED)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more may follow."""
        return self.result is not None or self.abort is not None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the open entry."""
        return hashlib.sha256(self.open.to_bytes()).digest()

    @property
    def close_digest(self) -> bytes:
        """SHA-256 of the close entry."""
        return hashlib.sha256(self.close.to_bytes()).digest() if self.close else b""


class SessionRecord:
    """The subject of the checks that look at one session.

    Attributes:
        audit: the run it is part of.
        entries: its log entries.
        files: its directory in the record.
        digest: SHA-256 of the open entry.
    """

    __slots__ = ("_inputs", "audit", "digest", "entries", "files")

    def __init__(self, audit: Audit, entries: SessionEntries) -> None:
        self.audit = audit
        self.entries = entries
        self.digest = entries.digest
        self.files: RecordFiles = audit.record.below(f"sessions/{self.name}")
        self._inputs: Inputs[SessionRecord] = Inputs(self)

    @property
    def name(self) -> str:
        """The session id in hex."""
        return self.entries.open.session.hex()

    @property
    def parameters(self) -> SessionOpen:
        """The open entry."""
        return self.entries.open

    @property
    def mode(self) -> Mode:
        """Of which protocol the session is, and who opens its sum."""
        return self.entries.mode

    @property
    def pairwise(self) -> PairwiseOpen:
        """The open entry of a pairwise session."""
        return _of(self.entries.open, PairwiseOpen)

    @property
    def one_shot(self) -> OneShotOpen:
        """The open entry of a one-shot session."""
        return _of(self.entries.open, OneShotOpen)

    @property
    def committee(self) -> Committee:
        """Who opens the sum of a one-shot session with a committee."""
        return _of(self.one_shot.opening, Committee)

    @property
    def authority(self) -> KeyAuthority:
        """Who opens the sum of a one-shot session with a key authority."""
        return _of(self.one_shot.opening, KeyAuthority)

    @property
    def lanes(self) -> int:
        """Lanes of every masked input."""
        if isinstance(self.entries.open, OneShotOpen):
            return self.entries.open.upload_lanes
        return self.entries.open.encoding.field_layout().lanes

    @property
    def advertised(self) -> KeysAdvertised:
        """The entry of U1, of a session that came so far."""
        return _present(self.entries.advertised)

    @property
    def shared(self) -> KeysShared:
        """The entry of U2, of a session that came so far."""
        return _present(self.entries.shared)

    @property
    def committed(self) -> ContributionsCommitted:
        """The entry of who committed to what, of a session that came so far."""
        return _present(self.entries.committed)

    @property
    def close(self) -> SessionClose:
        """The close entry, of a session that came so far."""
        return _present(self.entries.close)

    @property
    def one_shot_close(self) -> OneShotClose:
        """The close entry of a one-shot session that came so far."""
        return _of(self.entries.close, OneShotClose)

    @property
    def result(self) -> SessionResult:
        """The result entry, of a session that came so far."""
        return _present(self.entries.result)

    @property
    def one_shot_result(self) -> OneShotResult:
        """The result entry of a one-shot session that came so far."""
        return _of(self.entries.result, OneShotResult)

    def get(self, derived: Derived[SessionRecord, ValueT]) -> ValueT:
        """A value of this session; raises as ``Inputs.get``."""
        return self._inputs.get(derived)

    def entry_place(self, kind: str, field: str = "") -> Place:
        """A place in one of its log entries."""
        return Place(f"log entry {kind} of {self.name}", None, field)


def _present(entry: ValueT | None) -> ValueT:
    if entry is None:
        raise LookupError("a check was run on a session that did not come so far")
    return entry


def _of(value: object, kind: type[KindT]) -> KindT:
    if not isinstance(value, kind):
        raise LookupError("a check was run on a session of another mode, or one that did not come so far")
    return value
