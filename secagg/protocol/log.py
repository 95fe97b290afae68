"""What a client believes of a log: only what the coordinator signed and the client's witnesses cosigned.

A client is shown every entry from its session's open entry to the end of the log, of whatever session, and the hashes
that stand for all before. So it computes the checkpoint's root itself, and knows that its session has one entry of
each kind in a log of which nobody is shown another version, as long as the witnesses that its policy asks for do not
lie together.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from secagg.crypto.notes import Witnessed, log_key, open_checkpoint
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import (
    ContributionsCommitted,
    KeysAdvertised,
    KeysShared,
    LogEntry,
    OneShotClose,
    OneShotOpen,
    OneShotResult,
    SessionAbort,
    SessionClose,
    SessionEntry,
    SessionOpen,
    SessionResult,
    SignedRoster,
    decode_entry,
)
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merkle import Frontier, ProofError, leaf_hash, verify_consistency
from secagg.transcript.note import NoteError
from secagg.transcript.openers import KeyAuthority
from secagg.transcript.policy import LogPolicy
from secagg.transcript.record import RecordError

EntryT = TypeVar("EntryT", bound=SessionEntry)
_Order: TypeAlias = tuple[type[SessionEntry], ...]
_PAIRWISE: _Order = (SessionOpen, KeysAdvertised, KeysShared, SessionClose, SessionResult)
_COMMITTEE: _Order = (SessionOpen, OneShotClose, OneShotResult)
_AUTHORITY: _Order = (SessionOpen, ContributionsCommitted, OneShotClose, OneShotResult)


def entry_order(parameters: SessionOpen) -> _Order:
    """The kinds of entries of a session that ends with a result, in their order; exactly one of each."""
    if not isinstance(parameters, OneShotOpen):
        return _PAIRWISE
    return _AUTHORITY if isinstance(parameters.opening, KeyAuthority) else _COMMITTEE


@dataclass(frozen=True, slots=True)
class LogView:
    """A log from the open entry of one session on, verified.

    Attributes:
        start: index of the open entry.
        prefix: hashes of the compact range [0, start).
        segment: every entry from there on, of any session, as bytes.
        entries: those of the session, oldest first.
    """

    start: int
    prefix: tuple[bytes, ...]
    segment: tuple[bytes, ...]
    entries: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """How many entries the log had."""
        return self.start + len(self.segment)

    def root_at(self, size: int) -> bytes:
        """The root that the log had at a size from ``start`` to ``size``. Raises ProofError."""
        if not self.start <= size <= self.size:
            raise ProofError(f"size {size}: known are {self.start} to {self.size}")
        return _root(self.start, self.prefix, self.segment[: size - self.start])

    @property
    def advertised(self) -> KeysAdvertised | None:
        """The entry that fixes U1, if it is there."""
        return self._entry(KeysAdvertised)

    @property
    def shared(self) -> KeysShared | None:
        """The entry that fixes U2, if it is there."""
        return self._entry(KeysShared)

    @property
    def committed(self) -> ContributionsCommitted | None:
        """The entry that fixes who may send what, if it is there (sessions with a key authority)."""
        return self._entry(ContributionsCommitted)

    @property
    def close(self) -> SessionClose | None:
        """The entry that fixes whose contributions are in the sum, if it is there."""
        return self._entry(SessionClose)

    @property
    def close_entry(self) -> bytes:
        """Its bytes. Raises ProofError if it is not there."""
        for data in self.entries:
            if isinstance(decode_entry(data), SessionClose):
                return data
        raise ProofError("no close entry")

    @property
    def close_digest(self) -> bytes:
        """SHA-256 of the close entry. Raises ProofError if it is not there."""
        return hashlib.sha256(self.close_entry).digest()

    @property
    def result(self) -> SessionResult | None:
        """The result entry, if it is there."""
        return self._entry(SessionResult)

    @property
    def abort(self) -> SessionAbort | None:
        """The abort entry, if the session ended with one."""
        return self._entry(SessionAbort)

    def _entry(self, kind: type[EntryT]) -> EntryT | None:
        """The one entry of this kind: there are no two in a view (``extend``)."""
        decoded = map(decode_entry, self.entries)
        return next((entry for entry in decoded if isinstance(entry, kind)), None)


def join(parameters: SessionOpen, policy: LogPolicy, evidence: LogEvidence) -> LogView:
    """The first view of a session's log. Raises RemoteProtocolError as ``extend`` does."""
    return extend(LogView(evidence.start, evidence.prefix, (), ()), parameters, policy, evidence)


def extend(view: LogView, parameters: SessionOpen, policy: LogPolicy, evidence: LogEvidence) -> LogView:
    """The view after ``evidence``.

    Rules, in this order: the checkpoint is of the log that the open entry names, signed by the coordinator's key and
    cosigned by enough witnesses of the policy; it is over exactly what is shown; that starts with all that was seen
    before; every entry decodes; those of this session stand in their order. A second entry of any kind therefore
    fails, whatever it says and to whomever else it was shown.

    Raises:
        RemoteProtocolError: LOG_SIGNATURE, LOG_UNWITNESSED, LOG_FORKED, LOG_ORDER or LOG_MISMATCH.
    """
    checkpoint = open_evidence(parameters, policy, evidence).checkpoint
    if checkpoint.size != evidence.size:
        raise RemoteProtocolError(RejectReason.LOG_SIGNATURE, "the checkpoint has another size")
    if checkpoint.root != _root(evidence.start, evidence.prefix, evidence.entries):
        raise RemoteProtocolError(RejectReason.LOG_SIGNATURE, "the checkpoint is over other entries")
    before = evidence.start, evidence.prefix, evidence.entries[: len(view.segment)]
    if before != (view.start, view.prefix, view.segment):
        raise RemoteProtocolError(RejectReason.LOG_FORKED)
    own = []
    for offset, data in enumerate(evidence.entries):
        entry = _decode(evidence.start + offset, data)
        if not isinstance(entry, SignedRoster) and entry.session == parameters.session:
            own.append((data, entry))
    order = entry_order(parameters)
    for position, (_, entry) in enumerate(own):
        _check_entry(order, position, entry, len(own))
    extended = LogView(evidence.start, evidence.prefix, evidence.entries, tuple(data for data, _ in own))
    if not own or evidence.entries[0] != parameters.to_bytes():
        raise RemoteProtocolError(RejectReason.LOG_ORDER, "the first entry is not the session's open entry")
    if extended.result is not None and extended.close is not None and extended.result.count != extended.close.count:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "the result counts other contributions than the close")
    return extended


def open_evidence(parameters: SessionOpen, policy: LogPolicy, evidence: LogEvidence) -> Witnessed:
    """The checkpoint of ``evidence``, signed and cosigned as the policy asks.

    Raises:
        RemoteProtocolError: LOG_SIGNATURE or LOG_UNWITNESSED.
    """
    try:
        key = log_key(parameters.log, parameters.coordinator)
        witnessed = open_checkpoint(evidence.checkpoint, key, policy.witness_keys)
    except NoteError as error:
        raise RemoteProtocolError(RejectReason.LOG_SIGNATURE, str(error)) from None
    if policy.logs and key not in {rule.key for rule in policy.logs}:
        named = policy.logs[0].key.to_text()
        raise RemoteProtocolError(RejectReason.LOG_SIGNATURE, f"the policy names {named}, this log is {key.to_text()}")
    if not policy.is_met_by(witnessed.public_keys):
        raise RemoteProtocolError(RejectReason.LOG_UNWITNESSED, f"{len(witnessed.cosigned)} known witnesses cosigned")
    return witnessed


def check_pinned(view: LogView, pinned: Checkpoint, proof: tuple[bytes, ...]) -> None:
    """The log still starts with what a checkpoint of an earlier session said.

    Args:
        view: the log now.
        pinned: the last checkpoint that was verified, of the same log.
        proof: consistency proof from ``pinned`` to ``view``; empty where the sizes are equal.

    Raises:
        RemoteProtocolError: LOG_FORKED; it does not, or has become shorter.
    """
    try:
        verify_consistency(pinned.size, pinned.root, view.size, view.root_at(view.size), proof)
    except ProofError as error:
        raise RemoteProtocolError(RejectReason.LOG_FORKED, f"since size {pinned.size}: {error}") from None


def check_seen(evidence: LogEvidence, seen: Checkpoint) -> None:
    """Evidence that is not verified yet contains a checkpoint that was, as far as it reaches.

    Raises:
        RemoteProtocolError: LOG_FORKED; it has another root at that size.
    """
    reach = seen.size - evidence.start
    if 0 <= reach <= len(evidence.entries):
        root = _root(evidence.start, evidence.prefix, evidence.entries[:reach])
        if root != seen.root:
            raise RemoteProtocolError(RejectReason.LOG_FORKED, f"another root at size {seen.size}")


def _root(start: int, prefix: tuple[bytes, ...], entries: tuple[bytes, ...]) -> bytes:
    try:
        frontier = Frontier.from_hashes(start, prefix)
    except ProofError as error:
        raise RemoteProtocolError(RejectReason.LOG_SIGNATURE, str(error)) from None
    for entry in entries:
        frontier.append(leaf_hash(entry))
    return frontier.root


def _decode(index: int, data: bytes) -> LogEntry:
    try:
        return decode_entry(data)
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry {index}: {error}") from None


def _check_entry(order: _Order, position: int, entry: SessionEntry, size: int) -> None:
    if isinstance(entry, SessionAbort):
        if not 0 < position < len(order) or position != size - 1:
            raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry {position}: an abort is the last entry")
    elif position >= len(order) or not _is_of(entry, order[position]):
        raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry {position} is {entry.TYPE}")


def _is_of(entry: SessionEntry, kind: type[SessionEntry]) -> bool:
    """Exactly of this kind: a one-shot close is also a close, and no close of a pairwise session."""
    return isinstance(entry, SessionOpen) if kind is SessionOpen else type(entry) is kind
