"""What a client believes of a session's log: only what the coordinator signed, only what extends what it saw."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    SessionAbort,
    SessionClose,
    SessionEntry,
    SessionOpen,
    SessionResult,
    decode_entry,
)
from secagg.transcript.head import MAX_ENTRIES, MAX_ENTRY_BYTES, LogEvidence, head_over
from secagg.transcript.record import RecordError

EntryT = TypeVar("EntryT", bound=SessionEntry)
_ORDER: tuple[type[SessionEntry], ...] = (
    SessionOpen,
    KeysAdvertised,
    KeysShared,
    SessionClose,
    SessionResult,
)


@dataclass(frozen=True, slots=True)
class LogView:
    """The verified entries of one session, oldest first, as bytes."""

    entries: tuple[bytes, ...]

    @property
    def advertised(self) -> KeysAdvertised | None:
        """The entry that fixes U1, if it is there."""
        return _decoded(self.entries, 1, KeysAdvertised)

    @property
    def shared(self) -> KeysShared | None:
        """The entry that fixes U2, if it is there."""
        return _decoded(self.entries, 2, KeysShared)

    @property
    def close(self) -> SessionClose | None:
        """The entry that fixes U3, if it is there."""
        return _decoded(self.entries, 3, SessionClose)

    @property
    def close_digest(self) -> bytes:
        """SHA-256 of the close entry."""
        return hashlib.sha256(self.entries[3]).digest()

    @property
    def result(self) -> SessionResult | None:
        """The result entry, if it is there."""
        return _decoded(self.entries, 4, SessionResult)

    @property
    def abort(self) -> SessionAbort | None:
        """The abort entry, if the session ended with one."""
        last = decode_entry(self.entries[-1])
        return last if isinstance(last, SessionAbort) else None


def _decoded(entries: tuple[bytes, ...], position: int, kind: type[EntryT]) -> EntryT | None:
    if len(entries) <= position:
        return None
    entry = decode_entry(entries[position])
    return entry if isinstance(entry, kind) else None


def extend(view: LogView, parameters: SessionOpen, evidence: LogEvidence) -> LogView:
    """The view after ``evidence``.

    Rules, in this order: the head is signed by the key in the open entry and covers exactly these entries; the
    entries start with all that was seen before; each decodes, belongs to this session and stands in its only
    place. A second entry of any kind therefore fails, whatever it says.

    Raises:
        RemoteProtocolError: LOG_SIGNATURE, LOG_FORKED, LOG_ORDER or LOG_MISMATCH.
    """
    entries = evidence.entries
    if not 1 <= len(entries) <= MAX_ENTRIES or any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise RemoteProtocolError(RejectReason.LOG_ORDER, "entries too many or too long")
    head = head_over(parameters.coordinator, parameters.session, entries)
    if evidence.head != head.to_bytes():
        raise RemoteProtocolError(RejectReason.LOG_SIGNATURE, "the head is over other entries")
    try:
        verify_statement(parameters.coordinator, evidence.head, evidence.signature)
    except SignatureError:
        raise RemoteProtocolError(RejectReason.LOG_SIGNATURE) from None
    if entries[: len(view.entries)] != view.entries:
        raise RemoteProtocolError(RejectReason.LOG_FORKED)
    for position, data in enumerate(entries):
        _check_entry(position, data, len(entries), parameters)
    extended = LogView(entries)
    if extended.result is not None and extended.close is not None and extended.result.count != extended.close.count:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "the result counts other contributions than the close")
    return extended


def _check_entry(position: int, data: bytes, size: int, parameters: SessionOpen) -> None:
    try:
        entry = decode_entry(data)
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry {position}: {error}") from None
    if entry.session != parameters.session:
        raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry {position} is of another session")
    if isinstance(entry, SessionAbort):
        if not 0 < position < len(_ORDER) or position != size - 1:
            raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry {position}: an abort is the last entry")
    elif position >= len(_ORDER) or not isinstance(entry, _ORDER[position]):
        raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry {position} is {entry.TYPE}")
