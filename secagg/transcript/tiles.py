"""Tiles: where the hashes and entries of a log lie as files, and how entries are bundled.

Source: c2sp.org/tlog-tiles. A tile has up to 256 hashes of one level; each hash of the next level is the root of a
full tile. A bundle has the entries under a tile of level 0, each after its length as two bytes big-endian.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from secagg.transcript.merkle import MAX_TREE_SIZE

TILE_WIDTH = 256
MAX_LEVEL = 63
MAX_ENTRY_BYTES = 65_535

_LEVEL_BITS = 8
_GROUP = 1000
_LENGTH_BYTES = 2
_NUMBER = r"(?P<number>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
_TILE = re.compile(r"tile/(?P<level>0|[1-9][0-9]?)/" + _NUMBER)
_BUNDLE = re.compile("tile/entries/" + _NUMBER)


class TileError(ValueError):
    """``field`` is not of a tile or bundle; ``reason`` says why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def tile_path(level: int, index: int, width: int) -> str:
    """Where a tile lies below the log's prefix, such as ``tile/0/x001/067.p/5``. Raises TileError."""
    if not 0 <= level <= MAX_LEVEL:
        raise TileError("level", f"{level} is not 0 to {MAX_LEVEL}")
    return f"tile/{level}/{_number(index, width)}"


def bundle_path(index: int, width: int) -> str:
    """Where an entry bundle lies below the log's prefix, such as ``tile/entries/067``. Raises TileError."""
    return f"tile/entries/{_number(index, width)}"


def parse_tile_path(path: str) -> tuple[int, int, int]:
    """Level, index and width of the tile that lies at ``path``. Raises TileError."""
    match = _TILE.fullmatch(path)
    if match is None:
        raise TileError("path", "not of a tile")
    index, width = _read_number(match)
    level = int(match["level"])
    # Groups of leading zeros and a width of 256 are settled by this comparison.
    if tile_path(level, index, width) != path:
        raise TileError("path", "not in its one form")
    return level, index, width


def parse_bundle_path(path: str) -> tuple[int, int]:
    """Index and width of the entry bundle that lies at ``path``. Raises TileError."""
    match = _BUNDLE.fullmatch(path)
    if match is None:
        raise TileError("path", "not of an entry bundle")
    index, width = _read_number(match)
    if bundle_path(index, width) != path:
        raise TileError("path", "not in its one form")
    return index, width


def tiles_of(size: int) -> Iterator[tuple[int, int, int]]:
    """Level, index and width of every tile of a log of ``size`` entries, level by level; none is empty.

    Raises:
        TileError: the size is negative or not below 2^63.
    """
    _check_size(size)
    level = 0
    while (hashes := size >> (_LEVEL_BITS * level)) > 0:
        for index, width in _row(hashes):
            yield level, index, width
        level += 1


def bundles_of(size: int) -> Iterator[tuple[int, int]]:
    """Index and width of every entry bundle of a log of ``size`` entries. Raises TileError."""
    _check_size(size)
    yield from _row(size)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """One to 256 entries as a bundle. Raises TileError."""
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise TileError("bundle", f"{len(entries)} entries")
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise TileError("entry", f"longer than {MAX_ENTRY_BYTES} bytes")
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry for entry in entries)


def decode_bundle(data: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle, which are all there is in it. Raises TileError."""
    entries: list[bytes] = []
    start = 0
    while start < len(data):
        if len(entries) == TILE_WIDTH:
            raise TileError("bundle", f"more than {TILE_WIDTH} entries")
        body = start + _LENGTH_BYTES
        end = body + int.from_bytes(data[start:body], "big")
        if end > len(data):
            raise TileError("entry", "cut short")
        entries.append(data[body:end])
        start = end
    if not entries:
        raise TileError("bundle", "0 entries")
    return tuple(entries)


def _row(hashes: int) -> Iterator[tuple[int, int]]:
    """Index and width of the tiles that ``hashes`` hashes of one level fill."""
    full, rest = divmod(hashes, TILE_WIDTH)
    for index in range(full):
        yield index, TILE_WIDTH
    if rest:
        yield full, rest


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_TREE_SIZE:
        raise TileError("size", f"{size} is not 0 to 2^63 - 1")


def _number(index: int, width: int) -> str:
    """``x001/x234/067`` for 1234067, and ``.p/<width>`` where it is not full."""
    if not 0 <= index <= MAX_TREE_SIZE:
        raise TileError("index", f"{index} is not 0 to 2^63 - 1")
    if not 1 <= width <= TILE_WIDTH:
        raise TileError("width", f"{width} is not 1 to {TILE_WIDTH}")
    rest, last = divmod(index, _GROUP)
    path = f"{last:03d}"
    while rest:
        rest, group = divmod(rest, _GROUP)
        path = f"x{group:03d}/{path}"
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def _read_number(match: re.Match[str]) -> tuple[int, int]:
    index = int(match["number"].replace("x", "").replace("/", ""))
    return index, int(match["width"] or TILE_WIDTH)
