"""What docs/record.md asks of the files of a session, said once more: each entry names what its files must hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from secagg.transcript import canonical, merkle
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    LogEntry,
    PairwiseOpen,
    SessionAbort,
    SessionClose,
    SessionResult,
    SignedRoster,
)
from secagg.transcript.statements import ContributionHeader, ShareStatement, Signed

FILES_OF: dict[type[LogEntry], tuple[str, ...]] = {
    SignedRoster: (),
    PairwiseOpen: ("roster.jsonl", "layout.json", "adapter.json"),
    KeysAdvertised: ("keys.jsonl",),
    KeysShared: ("u2.jsonl",),
    SessionClose: ("dispositions.jsonl", "contributions.jsonl", "linear-hashes.bin", "masked-limb-sum.bin"),
    SessionResult: (
        "openings.jsonl",
        "pair-boxes.jsonl",
        "integer-sum.bin",
        "aggregate/adapter_model.safetensors",
        "aggregate/adapter_config.json",
    ),
    SessionAbort: (),
}
"""The files that have to be there before an entry is."""

Read = Callable[[str], bytes | None]
"""The content of a file of the session, or None."""


def broken_rules(entry: LogEntry, read: Read) -> list[str]:
    """The files that an entry names and that do not hold what it says; empty where all is well."""
    missing = [name for name in FILES_OF[type(entry)] if read(name) is None]
    return missing or [name for name, holds in _rules(entry, read) if not holds]


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a list: each ended by a newline, none empty, in canonical form."""
    assert data == b"" or data.endswith(b"\n")
    lines = data.split(b"\n")[:-1]
    assert all(canonical.encode(canonical.decode(line)) == line for line in lines)
    return lines


def _rules(entry: LogEntry, read: Read) -> Iterator[tuple[str, bool]]:
    def data(name: str) -> bytes:
        return read(name) or b""

    def digest(name: str) -> bytes:
        return hashlib.sha256(data(name)).digest()

    def root(name: str) -> tuple[bytes, int]:
        lines = lines_of(data(name))
        return merkle.root(lines), len(lines)

    match entry:
        case PairwiseOpen():
            yield "roster.jsonl", root("roster.jsonl") == (entry.roster, entry.roster_size)
            yield "layout.json", digest("layout.json") == entry.layout
            yield "adapter.json", digest("adapter.json") == entry.adapter
        case KeysAdvertised():
            yield "keys.jsonl", root("keys.jsonl") == (entry.root, entry.count)
        case KeysShared():
            present = [line for line in lines_of(data("u2.jsonl")) if ShareStatement.TYPE.encode() in line]
            yield "u2.jsonl", (root("u2.jsonl")[0], len(present)) == (entry.root, entry.count)
        case SessionClose():
            yield "dispositions.jsonl", root("dispositions.jsonl")[0] == entry.dispositions
            yield "contributions.jsonl", root("contributions.jsonl") == (entry.contributions, entry.count)
            yield "masked-limb-sum.bin", digest("masked-limb-sum.bin") == entry.limb_sum
            hashes = data("linear-hashes.bin")
            pieces = [hashes[at : at + 16384] for at in range(0, len(hashes), 16384)]
            headers = [_header(line) for line in lines_of(data("contributions.jsonl"))]
            found = [hashlib.sha256(piece).digest() for piece in pieces]
            yield "linear-hashes.bin", found == [header.linear_hash for header in headers]
        case SessionResult():
            yield "openings.jsonl", root("openings.jsonl")[0] == entry.openings
            yield "integer-sum.bin", digest("integer-sum.bin") == entry.integer_sum
            for file in entry.aggregate:
                yield f"aggregate/{file.name}", digest(f"aggregate/{file.name}") == file.digest


def _header(line: bytes) -> ContributionHeader:
    statement = Signed.from_bytes(line).statement
    assert isinstance(statement, ContributionHeader)
    return statement
