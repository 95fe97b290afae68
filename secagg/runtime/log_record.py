"""What the files of a log say, and whether they say the same: entries, tiles, and which of them are out of place.

The entries are the truth: every tile follows from them. Layout: c2sp.org/tlog-tiles (``transcript.tiles``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from secagg.transcript.growing_tree import GrowingTree
from secagg.transcript.merkle import DIGEST_BYTES, leaf_hash
from secagg.transcript.tiles import (
    TILE_WIDTH,
    TileError,
    bundle_path,
    decode_bundle,
    encode_bundle,
    parse_bundle_path,
    parse_tile_path,
    tile_path,
    tiles_of,
)

_LEVEL_BITS = 8
Tile = tuple[int, int, int]
"""Level, index, width."""


class RecordReader(Protocol):
    """Reads the published files of a log; paths are relative to its prefix, as in ``transcript.tiles``."""

    def names(self) -> Sequence[str]:
        """Every file below ``tile/``."""
        ...

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None if there is none."""
        ...


class FaultKind(enum.StrEnum):
    """What is wrong with a file."""

    MISSING = "missing"
    """It should be there."""
    TORN = "torn"
    """It is cut short or has no such form."""
    WRONG = "wrong"
    """It contradicts the entries."""
    SUPERFLUOUS = "superfluous"
    """Nothing in the log explains it."""
    LEFTOVER = "leftover"
    """A partial tile or bundle whose full one is there: harmless, and may be removed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding about one file."""

    path: str
    kind: FaultKind
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind.value}, {self.detail}"


@dataclass(frozen=True, slots=True)
class RecordEntries:
    """What the bundles hold: the tree over all entries up to the first fault, and those of the last, partial bundle."""

    tree: GrowingTree
    tail: tuple[bytes, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class RecordNames:
    """The files below ``tile/``, read as what they are called."""

    bundles: dict[int, tuple[int, ...]]
    """Widths of the bundles for each index, ascending."""
    tiles: frozenset[Tile]
    unknown: tuple[str, ...]


def parse_names(names: Sequence[str]) -> RecordNames:
    """Sort file names into bundles, tiles and what is neither."""
    bundles: dict[int, list[int]] = {}
    tiles: set[Tile] = set()
    unknown = []
    for name in names:
        try:
            if name.startswith("tile/entries/"):
                index, width = parse_bundle_path(name)
                bundles.setdefault(index, []).append(width)
            else:
                tiles.add(parse_tile_path(name))
        except TileError:
            unknown.append(name)
    widths = {index: tuple(sorted(found)) for index, found in bundles.items()}
    return RecordNames(widths, frozenset(tiles), tuple(sorted(unknown)))


def iterate_entries(record: RecordReader, names: RecordNames) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Index and entries of each bundle in order, the widest one where there are several.

    Raises:
        TileError: a bundle is cut short, or has another number of entries than its name says.
    """
    index = 0
    while index in names.bundles:
        width = names.bundles[index][-1]
        entries = decode_bundle(record.read(bundle_path(index, width)) or b"")
        if len(entries) != width:
            raise TileError("bundle", f"{len(entries)} entries where its name says {width}")
        yield index, entries
        if width < TILE_WIDTH:
            return
        index += 1


def read_entries(record: RecordReader, names: RecordNames) -> RecordEntries:
    """Read all bundles; after a fault in one of them what follows has no number and is not read."""
    tree = GrowingTree()
    tail: tuple[bytes, ...] = ()
    faults: list[Fault] = []
    try:
        for index, entries in iterate_entries(record, names):
            faults += _check_partial_bundles(record, index, names.bundles[index], entries)
            tail = entries if len(entries) < TILE_WIDTH else ()
            for entry in entries:
                tree.append(leaf_hash(entry))
    except TileError as error:
        path = bundle_path(tree.size // TILE_WIDTH, names.bundles[tree.size // TILE_WIDTH][-1])
        return RecordEntries(tree, (), (*faults, Fault(path, FaultKind.TORN, str(error))))
    beyond = max(names.bundles, default=-1)
    if beyond > tree.size // TILE_WIDTH:
        gap = bundle_path(tree.size // TILE_WIDTH, TILE_WIDTH)
        faults.append(Fault(gap, FaultKind.MISSING, f"although there is bundle {beyond}"))
    return RecordEntries(tree, tail, tuple(faults))


def _check_partial_bundles(
    record: RecordReader, index: int, widths: tuple[int, ...], entries: tuple[bytes, ...]
) -> Iterator[Fault]:
    """Narrower bundles of one index hold the first entries of the widest one."""
    for width in widths[:-1]:
        path = bundle_path(index, width)
        if record.read(path) != encode_bundle(entries[:width]):
            yield Fault(path, FaultKind.WRONG, "it does not continue into the wider one")
        elif len(entries) == TILE_WIDTH:
            yield Fault(path, FaultKind.LEFTOVER, "the full one is there")


def check_tiles(record: RecordReader, names: RecordNames, tree: GrowingTree, size: int) -> list[Fault]:
    """Compare every tile that is there with the entries, and look for those that a log of ``size`` has to have.

    A partial tile may have given way to the full one (tlog-tiles, "Partial Tiles").
    """
    faults = []
    for level, index, width in sorted(names.tiles):
        path = tile_path(level, index, width)
        if index * TILE_WIDTH + width > tree.size >> (_LEVEL_BITS * level):
            faults.append(Fault(path, FaultKind.SUPERFLUOUS, "it stands for entries that are not there"))
            continue
        data = record.read(path) or b""
        if len(data) != width * DIGEST_BYTES:
            faults.append(Fault(path, FaultKind.TORN, f"{len(data)} bytes, not {width * DIGEST_BYTES}"))
        elif data != tile_data(tree, (level, index, width)):
            faults.append(Fault(path, FaultKind.WRONG, "the entries have other hashes"))
        elif width < TILE_WIDTH and (level, index, TILE_WIDTH) in names.tiles:
            faults.append(Fault(path, FaultKind.LEFTOVER, "the full one is there"))
    for level, index, width in tiles_of(size):
        if not names.tiles & {(level, index, width), (level, index, TILE_WIDTH)}:
            path = tile_path(level, index, width)
            faults.append(Fault(path, FaultKind.MISSING, f"a log of {size} entries has it"))
    return faults


def tile_data(tree: GrowingTree, tile: Tile) -> bytes:
    """The content of a tile: its hashes, concatenated. Raises IndexError if the tree is smaller."""
    level, index, width = tile
    return tree.nodes(_LEVEL_BITS * level, index * TILE_WIDTH, width)


def tiles_between(old_size: int, size: int) -> Iterator[Tile]:
    """The tiles that a log of ``size`` has and one of ``old_size`` had not, in O(their number)."""
    level = 0
    while (hashes := size >> (_LEVEL_BITS * level)) > 0:
        known = old_size >> (_LEVEL_BITS * level)
        for index in range(known // TILE_WIDTH, -(-hashes // TILE_WIDTH)):
            width = min(TILE_WIDTH, hashes - index * TILE_WIDTH)
            if index * TILE_WIDTH + width > known:
                yield level, index, width
        level += 1


def filled_between(old_size: int, size: int) -> Iterator[str]:
    """Paths of the tiles and bundles that are full at ``size`` and were not at ``old_size``."""
    for level, index, width in tiles_between(old_size, size):
        if width == TILE_WIDTH:
            yield tile_path(level, index, width)
            if level == 0:
                yield bundle_path(index, width)
