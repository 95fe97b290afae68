"""The log of a record: its checkpoint, its tree, and which sessions stand in it.

The tree is built from the entries and compared with the checkpoint once. Whatever is read from a bundle later is
compared with the tree again, so a file that changes meanwhile is noticed. Held are 64 bytes for each entry and
about 300 for each session; entries are read when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from secagg.crypto.notes import Witnessed, open_checkpoint
from secagg.transcript import tiles
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import (
    ContributionsCommitted,
    KeysAdvertised,
    KeysShared,
    LogEntry,
    SessionAbort,
    SessionClose,
    SessionOpen,
    SessionResult,
    SignedRoster,
    decode_entry,
)
from secagg.transcript.growing_tree import GrowingTree
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.noise import DistributedNoise
from secagg.transcript.note import MAX_NOTE_BYTES, Note, NoteError, VerifierKey
from secagg.transcript.record import VERSION, RecordError, decode_value
from verifier.audit import Audit
from verifier.checks import NOWHERE, CheckFailedError, Derived, Findings, InputMissingError, Place
from verifier.entry_order import TELLING_ENTRIES, Kind, is_legal, kind_of
from verifier.session_record import SessionEntries

CHECKPOINT = "checkpoint"
MAX_BUNDLE_BYTES = tiles.TILE_WIDTH * (2 + tiles.MAX_ENTRY_BYTES)
_SHOWN_EVERY = 1 << 16
_SHOWN_KINDS = 8

EntryT = TypeVar("EntryT", bound=LogEntry)


# Checkpoint, keys, cosignatures


@dataclass(frozen=True, slots=True)
class LogHead:
    """The note of the checkpoint, verbatim and taken apart."""

    data: bytes
    note: Note
    checkpoint: Checkpoint


def _head(audit: Audit) -> LogHead:
    data = audit.record.read(CHECKPOINT, MAX_NOTE_BYTES)
    try:
        note = Note.parse(data)
        return LogHead(data, note, Checkpoint.parse(note.text))
    except NoteError as error:
        raise _note_failure(audit, error) from None


def _note_failure(audit: Audit, error: NoteError) -> CheckFailedError:
    return CheckFailedError.at(audit.record.place(CHECKPOINT, None, error.field), error.reason)


HEAD = Derived("LOG-1", _head)
"""What the record's checkpoint says, signed or not."""


def pinned_key(audit: Audit, head: LogHead, place: Place) -> VerifierKey:
    """The key that the policy has for the origin of a checkpoint.

    Raises:
        CheckFailedError: it has none, or the note has no line of this key.
    """
    origin = head.checkpoint.origin
    key = next((rule.key for rule in audit.policy.log.logs if rule.key.name == origin), None)
    if key is None:
        raise CheckFailedError.at(place, f"the policy names no log with origin {origin}")
    if not any((line.name, line.key_id) == (key.name, key.key_id) for line in head.note.signatures):
        raise CheckFailedError.at(place, "no signature by the key that the policy names for this origin")
    return key


def _log_key(audit: Audit) -> VerifierKey:
    return pinned_key(audit, audit.get(HEAD), audit.record.place(CHECKPOINT, None, "origin"))


LOG_KEY = Derived("LOG-2", _log_key)
"""The key of this log, from the policy."""


def _signed(audit: Audit) -> Checkpoint:
    try:
        return open_checkpoint(audit.get(HEAD).data, audit.get(LOG_KEY), ()).checkpoint
    except NoteError as error:
        raise _note_failure(audit, error) from None


SIGNED = Derived("LOG-3", _signed)
"""The checkpoint, signed by its log."""


def _cosigned(audit: Audit) -> Witnessed:
    audit.get(SIGNED)
    try:
        witnessed = open_checkpoint(audit.get(HEAD).data, audit.get(LOG_KEY), audit.policy.log.witness_keys)
    except NoteError as error:
        raise _note_failure(audit, error) from None
    check_quorum(audit, witnessed, audit.record.place(CHECKPOINT, None, "signatures"))
    return witnessed


def check_quorum(audit: Audit, witnessed: Witnessed, place: Place) -> None:
    """Raise CheckFailedError unless the witnesses that cosigned are a quorum of the policy."""
    if not audit.policy.log.is_met_by(witnessed.public_keys):
        known = len(audit.policy.log.witnesses)
        reason = f"cosigned by {len(witnessed.public_keys)} of {known} known witnesses: no quorum"
        raise CheckFailedError.at(place, reason)


COSIGNED = Derived("LOG-4", _cosigned)
"""The checkpoint with the known witnesses that cosigned it, a quorum."""


# Entries


@dataclass(frozen=True, slots=True)
class LogTree:
    """The tree over all entries of the log, which has the size and the root of the checkpoint."""

    tree: GrowingTree

    def __len__(self) -> int:
        return self.tree.size

    def leaf(self, index: int) -> bytes:
        """The leaf hash of an entry."""
        return self.tree.nodes(0, index, 1)


def read_bundle(audit: Audit, index: int, width: int) -> tuple[bytes, ...]:
    """The entries of a bundle.

    Raises:
        CheckFailedError: it has not ``width`` entries.
    """
    path = tiles.bundle_path(index, width)
    try:
        entries = tiles.decode_bundle(audit.record.read(path, MAX_BUNDLE_BYTES))
    except tiles.TileError as error:
        raise CheckFailedError.at(audit.record.place(path, None, error.field), error.reason) from None
    if len(entries) != width:
        raise CheckFailedError.at(audit.record.place(path), f"{len(entries)} entries, expected {width}")
    return entries


def _tree(audit: Audit) -> LogTree:
    checkpoint = audit.get(HEAD).checkpoint
    tree = GrowingTree()
    # Bundle by bundle, until one is not there: the size is only a claim until then.
    for index, width in tiles.bundles_of(checkpoint.size):
        for entry in read_bundle(audit, index, width):
            tree.append(leaf_hash(entry))
        if tree.size % _SHOWN_EVERY == 0:
            audit.progress(f"log: {tree.size:,} of {checkpoint.size:,} entries")
    if tree.root() != checkpoint.root:
        raise CheckFailedError.at(audit.record.place(CHECKPOINT, None, "root"), "the entries have another root")
    return LogTree(tree)


TREE = Derived("LOG-6", _tree)
"""The tree of the log. That is built from entries says nothing yet of who signed its root."""


def entry_name(index: int) -> Place:
    """Where an entry stands."""
    bundle, position = divmod(index, tiles.TILE_WIDTH)
    return Place(f"tile/entries, bundle {bundle}", None, f"entry {position} (index {index} of the log)")


def log_entries(audit: Audit, indices: range) -> Iterator[tuple[int, bytes]]:
    """Index and bytes of entries in ascending order, each compared with the tree.

    Raises:
        InputMissingError: a bundle is not what it was when the tree was built.
    """
    tree = audit.get(TREE)
    bundle, entries = -1, tuple[bytes, ...]()
    for index in indices:
        number, position = divmod(index, tiles.TILE_WIDTH)
        if number != bundle:
            bundle = number
            entries = _read_again(audit, number, min(tiles.TILE_WIDTH, len(tree) - number * tiles.TILE_WIDTH))
        if leaf_hash(entries[position]) != tree.leaf(index):
            raise InputMissingError(entry_name(index), "changed while the record was read")
        yield index, entries[position]


def _read_again(audit: Audit, bundle: int, width: int) -> tuple[bytes, ...]:
    try:
        return read_bundle(audit, bundle, width)
    except CheckFailedError as error:
        raise InputMissingError(error.findings[0].place, "changed while the record was read") from None


@dataclass(frozen=True, slots=True)
class LogIndex:
    """Where everything stands, by index in the log.

    Attributes:
        sessions: of each session id, kind and index of its entries in the order of the log.
        rosters: of root and registrar, the first roster entry.
        without_roster: open entries before which no roster entry has their root and registrar.
        noisy: the sessions whose open entries declare noise, in the order of the log.
    """

    sessions: dict[bytes, tuple[tuple[Kind, int], ...]] = field(default_factory=dict)
    rosters: dict[bytes, int] = field(default_factory=dict)
    without_roster: list[int] = field(default_factory=list)
    noisy: list[bytes] = field(default_factory=list)

    def add(self, index: int, entry: LogEntry) -> None:
        """Note one more entry."""
        if isinstance(entry, SignedRoster):
            self.rosters.setdefault(entry.head.root + entry.head.registrar, index)
            return
        if isinstance(entry, SessionOpen) and entry.roster + entry.registrar not in self.rosters:
            self.without_roster.append(index)
        if isinstance(entry, SessionOpen) and isinstance(entry.noise, DistributedNoise):
            self.noisy.append(entry.session)
        # Only the place is kept: a log may have any number of sessions. And no more than show that there are too many.
        known = self.sessions.get(entry.session, ())
        if len(known) < TELLING_ENTRIES:
            self.sessions[entry.session] = (*known, (kind_of(entry), index))


def _index(audit: Audit) -> LogIndex:
    found = LogIndex()
    unknown: Place = NOWHERE
    for index, data in log_entries(audit, range(len(audit.get(TREE)))):
        try:
            found.add(index, decode_entry(data))
        except RecordError as error:
            if not _is_of_another_version(data):
                place = entry_name(index)
                raise CheckFailedError.at(place, str(error)) from None
            unknown = unknown if unknown != NOWHERE else entry_name(index)
        if index % _SHOWN_EVERY == _SHOWN_EVERY - 1:
            audit.progress(f"entries: {index + 1:,} of {len(audit.get(TREE)):,} read")
    if unknown != NOWHERE:
        raise InputMissingError(unknown, f"not of version {VERSION}, the only one that this verifier knows")
    return found


def _is_of_another_version(data: bytes) -> bool:
    """Whether an entry is a canonical record that a later verifier may understand."""
    try:
        value = decode_value(data)
    except RecordError:
        return False
    if not isinstance(value, dict) or type(value.get("type")) is not str:
        return False
    version = value.get("version")
    return type(version) is int and version != VERSION


INDEX = Derived("SES-1", _index)
"""Where everything stands; every entry is canonical and of a known kind and version."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """Of each session id, the places of its entries, which are in legal order."""

    places: dict[bytes, tuple[tuple[Kind, int], ...]]


def _sessions(audit: Audit) -> Sessions:
    index = audit.get(INDEX)
    findings = Findings()
    for at in index.without_roster:
        findings.fail(entry_name(at), "no roster entry with its root and registrar stands before this open entry")
    for session, entries in index.sessions.items():
        kinds = tuple(kind for kind, _ in entries)
        if not is_legal(kinds):
            names = ", ".join(kind.name.lower().replace("_", " ") for kind in kinds[:_SHOWN_KINDS])
            findings.fail(entry_name(entries[-1][1]), f"session {session.hex()} has entries in this order: {names}")
    findings.raise_failures()
    return Sessions(index.sessions)


SESSIONS = Derived("SES-2", _sessions)
"""The sessions of the log. If one is out of order, so may be everything: none is handed out."""


def session_entries(audit: Audit, session: bytes) -> SessionEntries:
    """The entries of one session, read from the log again. Raises as ``log_entries``."""
    found = [_entry(audit, index) for _, index in audit.get(SESSIONS).places[session]]
    # In legal order there is at most one of a kind, and the first is the open entry.
    return SessionEntries(
        _of(found[0], SessionOpen),
        _one(found, KeysAdvertised),
        _one(found, KeysShared),
        _one(found, SessionClose),
        _one(found, SessionResult),
        _one(found, SessionAbort),
        _one(found, ContributionsCommitted),
    )


def roster_entry(audit: Audit, opened: SessionOpen) -> SignedRoster:
    """The roster entry that an open entry names, read from the log again. Raises as ``log_entries``."""
    return _of(_entry(audit, audit.get(INDEX).rosters[opened.roster + opened.registrar]), SignedRoster)


def _entry(audit: Audit, index: int) -> LogEntry:
    # Decoded once before, and the same bytes since: it decodes.
    return next(decode_entry(data) for _, data in log_entries(audit, range(index, index + 1)))


def _of(entry: LogEntry, kind: type[EntryT]) -> EntryT:
    if not isinstance(entry, kind):
        raise TypeError(f"an entry of type {entry.TYPE}, expected {kind.TYPE}")
    return entry


def _one(entries: Sequence[LogEntry], kind: type[EntryT]) -> EntryT | None:
    return next((entry for entry in entries if isinstance(entry, kind)), None)
