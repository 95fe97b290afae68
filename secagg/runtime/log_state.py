"""Opening a log: what its files hold, checked against each other and against what was signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from secagg.crypto.notes import open_checkpoint
from secagg.runtime.log_ports import LogFiles
from secagg.runtime.log_record import Fault, FaultKind, check_tiles, parse_names, read_entries
from secagg.runtime.ports import StaleLogError, StoreError
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.growing_tree import GrowingTree
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.note import NoteError, VerifierKey
from secagg.transcript.tiles import TILE_WIDTH, TileError, bundle_path, decode_bundle, encode_bundle

_CACHED_BUNDLES = 32
_REBUILD = "`secagg log fsck RECORD --rebuild` writes tiles again from the entries"
_STALE = (
    "To go on would show two histories of one log. Restore the newest copy of the record and of the private state; if "
    "there is none, this log has ended: begin another with another origin and an empty directory"
)


@dataclass(slots=True)
class LogState:
    """An open log in memory: 32 bytes a node, an index of leaf hashes, and the entries of the last bundle."""

    files: LogFiles
    tree: GrowingTree
    tail: list[bytes]
    signed: Checkpoint | None
    signed_note: bytes
    published: bytes
    published_size: int
    leftovers: tuple[str, ...] = ()
    """Full tiles and bundles whose partial ones are still there."""
    index: dict[bytes, int] = field(default_factory=dict)
    _cache: dict[int, tuple[bytes, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for position in range(self.tree.size):
            self.index.setdefault(self.tree.nodes(0, position, 1), position)

    def bundles_with(self, new: Sequence[bytes]) -> list[tuple[str, bytes]]:
        """Paths and contents of the bundles that change when ``new`` entries follow, in order."""
        first = self.tree.size // TILE_WIDTH
        entries = [*self.tail, *new]
        if not new:
            return []
        groups = [entries[at : at + TILE_WIDTH] for at in range(0, len(entries), TILE_WIDTH)]
        return [(bundle_path(first + number, len(group)), encode_bundle(group)) for number, group in enumerate(groups)]

    def extend(self, new: Mapping[bytes, bytes]) -> None:
        """Take in entries by their leaf hashes; their bundles are durable."""
        for digest, entry in new.items():
            self.index[digest] = self.tree.size
            self.tree.append(digest)
            self.tail.append(entry)
            if len(self.tail) == TILE_WIDTH:
                self.tail.clear()

    def entries(self, start: int, end: int) -> tuple[bytes, ...]:
        """The entries from ``start`` to ``end``.

        Raises:
            StoreError: a bundle is no longer what it was.
        """
        found: list[bytes] = []
        for number in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            first = number * TILE_WIDTH
            found += self._bundle(number)[max(start - first, 0) : end - first]
        return tuple(found)

    def _bundle(self, number: int) -> tuple[bytes, ...]:
        if number == self.tree.size // TILE_WIDTH:
            return tuple(self.tail)
        known = self._cache.pop(number, None)
        if known is None:
            known = self._read_bundle(number)
        self._cache[number] = known
        if len(self._cache) > _CACHED_BUNDLES:
            del self._cache[next(iter(self._cache))]
        return known

    def _read_bundle(self, number: int) -> tuple[bytes, ...]:
        path = bundle_path(number, TILE_WIDTH)
        try:
            entries = decode_bundle(self.files.read(path) or b"")
        except TileError as error:
            raise StoreError(f"{path}: {error}") from None
        if b"".join(map(leaf_hash, entries)) != self.tree.nodes(0, number * TILE_WIDTH, TILE_WIDTH):
            raise StoreError(f"{path}: holds other entries than when the log was opened")
        return entries


def open_log(files: LogFiles, key: VerifierKey) -> LogState:
    """Read and check everything.

    Raises:
        StaleLogError: what was signed or published is not what the entries give.
        StoreError: a file is damaged, or does not belong to this log.
    """
    names = parse_names(files.names())
    entries = read_entries(files, names)
    leftovers = _refuse_faults(entries.faults, "restore the entries")
    tree = entries.tree
    signed_note, published = files.last_signed() or b"", files.checkpoint() or b""
    signed = _head("the private note", signed_note, key)
    head = _head("checkpoint", published, key)
    _check_history(tree, signed, head)
    size = head.size if head else 0
    leftovers += _refuse_faults(check_tiles(files, names, tree, size), _REBUILD)
    return LogState(files, tree, list(entries.tail), signed, signed_note, published, size, tuple(set(leftovers)))


def open_head(note: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint of a note that this log signed. Raises NoteError."""
    return open_checkpoint(note, key, ()).checkpoint


def _head(what: str, note: bytes, key: VerifierKey) -> Checkpoint | None:
    try:
        return open_head(note, key) if note else None
    except NoteError as error:
        raise StoreError(
            f"{what}: {error}; it was not signed by {key.to_text()}. Open the log with the key and the origin that it "
            "was begun with"
        ) from None


def _check_history(tree: GrowingTree, signed: Checkpoint | None, published: Checkpoint | None) -> None:
    """What was signed is the largest head there is, and the entries give it; what was published was signed before."""
    if published is not None and (signed is None or signed.size < published.size):
        known = signed.size if signed else 0
        raise StaleLogError(
            f"the record shows {published.size} entries, the private state knows {known}: it is an old copy. {_STALE}"
        )
    for name, head in (("signed", signed), ("published", published)):
        if head is None:
            continue
        if head.size > tree.size:
            raise StaleLogError(
                f"a checkpoint over {head.size} entries was {name}, the record holds {tree.size}: it is an old copy. "
                f"{_STALE}"
            )
        if tree.root(head.size) != head.root:
            raise StaleLogError(
                f"a checkpoint over {head.size} entries was {name} that the entries of the record do not give. {_STALE}"
            )


def _refuse_faults(faults: Sequence[Fault], advice: str) -> list[str]:
    """Raise StoreError unless all there is are leftovers; returns the full tiles and bundles that replaced them."""
    serious = [fault for fault in faults if fault.kind is not FaultKind.LEFTOVER]
    if serious:
        more = f" (and {len(serious) - 1} more)" if len(serious) > 1 else ""
        raise StoreError(f"{serious[0]}{more}; {advice}")
    return [fault.path.rpartition(".p/")[0] for fault in faults]
