from __future__ import annotations

import contextlib
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secagg.transcript import merkle, tiles
from secagg.transcript.tiles import TileError

SIZES = (0, 1, 255, 256, 257, 65_535, 65_536, 70_000)
levels = st.integers(0, 63)
indices = st.one_of(st.integers(0, 2000), st.integers(0, 2**63 - 1), st.sampled_from((999, 1000, 10**6, 2**63 - 1)))
widths = st.integers(1, 256)


def refused(call, *arguments) -> TileError:
    with pytest.raises(TileError) as caught:
        call(*arguments)
    assert str(caught.value) == f"{caught.value.field}: {caught.value.reason}"
    return caught.value


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        ((0, 0, 256), "tile/0/000"),
        ((0, 0, 1), "tile/0/000.p/1"),
        ((0, 67, 255), "tile/0/067.p/255"),
        ((0, 999, 256), "tile/0/999"),
        ((0, 1000, 256), "tile/0/x001/000"),
        ((3, 1_234_067, 256), "tile/3/x001/x234/067"),
        ((0, 1067, 5), "tile/0/x001/067.p/5"),
        ((63, 10**9, 10), "tile/63/x001/x000/x000/000.p/10"),
        ((1, 2**63 - 1, 256), "tile/1/x009/x223/x372/x036/x854/x775/807"),
    ],
)
def test_a_tile_lies_where_the_specification_says(tile, path):
    level, index, width = tile
    assert tiles.tile_path(*tile) == path
    assert tiles.parse_tile_path(path) == tile
    bundle = path.replace(f"tile/{level}/", "tile/entries/")
    assert tiles.bundle_path(index, width) == bundle
    assert tiles.parse_bundle_path(bundle) == (index, width)


@given(levels, indices, widths)
def test_paths_are_read_back(level, index, width):
    assert tiles.parse_tile_path(tiles.tile_path(level, index, width)) == (level, index, width)
    assert tiles.parse_bundle_path(tiles.bundle_path(index, width)) == (index, width)


@given(st.from_regex(r"tile/([0-9]{1,3}|entries)/(x?[0-9]{2,4}/){0,2}x?[0-9]{3}(\.p/[0-9]{1,3})?\n?", fullmatch=True))
@example("tile/0/x000/001")
@example("tile/0/000.p/256")
@example("tile/0/000\n")
def test_whatever_is_read_as_a_path_is_written_as_it_was(path):
    with contextlib.suppress(TileError):
        assert tiles.tile_path(*tiles.parse_tile_path(path)) == path
    with contextlib.suppress(TileError):
        assert tiles.bundle_path(*tiles.parse_bundle_path(path)) == path


NUMBERS = [
    "", "0", "00", "0000", "x000", "000/", "/000", "x001", "001/000", "x001/x000", "x000/001", "x000/x000/001",
    "x1/000", "x0001/000", "X001/000", "x001//000", "000.p", "000.p/", "000.p/0", "000.p/00", "000.p/05", "000.p/256",
    "000.p/257", "000.p/1000", "000.p/-1", "000.p/1/", "000.P/1", "000,p/1", "000\n", "000.p/1\n", " 000",
    "\u0660\u0660\u0660",
    "-01", "+01", "0_0", "x009/x223/x372/x036/x854/x775/808", "x001/x000/x000/x000/x000/x000/x000/000",
    "../000", "000/..",
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_has_one_form(number):
    refused(tiles.parse_tile_path, f"tile/0/{number}")
    refused(tiles.parse_bundle_path, f"tile/entries/{number}")


@pytest.mark.parametrize("path", [
    "", "/tile/0/000", "tile/00/000", "tile/01/000", "tile/64/000", "tile/100/000", "tile/-1/000", "tile//000",
    "tile/\u0661/000",
    "tile/x/000", "tile/0/000/", "tiles/0/000", "tile/entries/000", "tile/0", "checkpoint",
])  # fmt: skip
def test_what_is_no_path_of_a_tile_is_refused(path):
    refused(tiles.parse_tile_path, path)


@pytest.mark.parametrize(
    "path", ["tile/0/000", "tile/entries", "/tile/entries/000", "tile/Entries/000", "tile/data/000"]
)
def test_what_is_no_path_of_a_bundle_is_refused(path):
    refused(tiles.parse_bundle_path, path)


@pytest.mark.parametrize(
    ("level", "index", "width", "field"),
    [
        (-1, 0, 1, "level"),
        (64, 0, 1, "level"),
        (0, -1, 1, "index"),
        (0, 2**63, 1, "index"),
        (0, 0, 0, "width"),
        (0, 0, 257, "width"),
    ],
)
def test_a_tile_that_cannot_be_has_no_path(level, index, width, field):
    assert refused(tiles.tile_path, level, index, width).field == field
    if field != "level":
        assert refused(tiles.bundle_path, index, width).field == field


def test_the_tiles_of_70_000_entries_are_the_published_ones():
    found = list(tiles.tiles_of(70_000))
    assert Counter(level for level, _, width in found if width == 256) == {0: 273, 1: 1}
    assert [tiles.tile_path(*tile) for tile in found if tile[2] < 256] == [
        "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "paths"),
    [
        (0, []),
        (1, ["tile/0/000.p/1"]),
        (255, ["tile/0/000.p/255"]),
        (256, ["tile/0/000", "tile/1/000.p/1"]),
        (257, ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]),
    ],
)
def test_the_tiles_of_small_logs(size, paths):
    assert [tiles.tile_path(*tile) for tile in tiles.tiles_of(size)] == paths


@pytest.mark.parametrize("size", SIZES)
def test_the_tiles_of_a_log_cover_every_level_once_and_none_is_empty(size):
    """The definition: level l has floor(size / 256^l) hashes, in tiles of 256 and one for the rest."""
    found = list(tiles.tiles_of(size))
    assert all(1 <= width <= 256 for _, _, width in found)
    for level in range(64):
        row = [(index, width) for at, index, width in found if at == level]
        assert [index for index, _ in row] == list(range(len(row)))
        assert all(width == 256 for _, width in row[:-1])
        assert sum(width for _, width in row) == size // 256**level
        if level == 0:
            assert list(tiles.bundles_of(size)) == row
    assert found == sorted(found)


def test_the_largest_log_has_tiles_up_to_level_7():
    largest = iter(tiles.tiles_of(2**63 - 1))
    assert next(largest) == (0, 0, 256)
    tops = [(2**63 - 1) // 256**level for level in (7, 8)]
    assert tops == [127, 0]


@pytest.mark.parametrize("size", [-1, 2**63])
def test_a_size_out_of_range_has_no_tiles(size):
    assert refused(list, tiles.tiles_of(size)).field == "size"
    assert refused(list, tiles.bundles_of(size)).field == "size"


@pytest.mark.parametrize("size", SIZES[:-1])
def test_the_hashes_in_the_tiles_give_the_root_of_the_log(size):
    """Each hash of a tile above level 0 is the root of the full tile below it, and the partial tiles give the root."""
    rows = {0: [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(size)]}
    for level, index, width in tiles.tiles_of(size):
        row = rows[level][index * 256 : index * 256 + width]
        assert len(row) == width
        if width == 256:
            rows.setdefault(level + 1, []).append(merkle.root_of_hashes(row))
    frontier = [
        node
        for level in sorted(rows, reverse=True)
        for node in merkle_frontier(rows[level][len(rows[level]) // 256 * 256 :])
    ]
    assert merkle.Frontier.from_hashes(size, frontier).root == merkle.root_of_hashes(rows[0])


def merkle_frontier(hashes: list[bytes]) -> tuple[bytes, ...]:
    frontier = merkle.Frontier()
    for node in hashes:
        frontier.append(node)
    return frontier.hashes


entries = st.lists(st.binary(max_size=40), min_size=1, max_size=256)


@given(entries)
def test_a_bundle_is_read_back(given_entries):
    assert tiles.decode_bundle(tiles.encode_bundle(given_entries)) == tuple(given_entries)


@given(
    st.one_of(
        st.binary(max_size=40), entries.map(tiles.encode_bundle), st.lists(st.sampled_from((0, 1, 2, 3))).map(bytes)
    )
)
@example(b"")
@example(b"\x00")
@example(b"\x00\x00")
@example(b"\x00\x01")
@example(b"\x00\x00\x00")
def test_whatever_is_read_as_a_bundle_is_written_as_it_was(data):
    try:
        read = tiles.decode_bundle(data)
    except TileError:
        return
    assert tiles.encode_bundle(read) == data


def test_an_entry_has_at_most_65_535_bytes_and_a_bundle_1_to_256_entries():
    largest = [bytes(65_535)] * 256
    assert tiles.decode_bundle(tiles.encode_bundle(largest)) == tuple(largest)
    assert refused(tiles.encode_bundle, [bytes(65_536)]).field == "entry"
    assert refused(tiles.encode_bundle, [b""] * 257).field == "bundle"
    assert refused(tiles.encode_bundle, []).field == "bundle"
    assert refused(tiles.decode_bundle, bytes(2 * 257)).field == "bundle"
    assert tiles.decode_bundle(bytes(2 * 256)) == (b"",) * 256
    assert refused(tiles.decode_bundle, b"").field == "bundle"


def test_every_prefix_of_a_bundle_is_shorter_by_whole_entries_or_refused():
    data = tiles.encode_bundle([b"a", b"", b"bcd"])
    whole = {3: (b"a",), 5: (b"a", b""), 10: (b"a", b"", b"bcd")}
    for end in range(len(data) + 1):
        if end in whole:
            assert tiles.decode_bundle(data[:end]) == whole[end]
        else:
            refused(tiles.decode_bundle, data[:end])
