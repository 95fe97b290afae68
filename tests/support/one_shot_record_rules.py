"""What docs/record.md asks of the files of a one-shot session, said once more: each entry names what they must hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from secagg.transcript import merkle
from secagg.transcript.entries import (
    ContributionsCommitted,
    LogEntry,
    OneShotClose,
    OneShotOpen,
    OneShotResult,
)
from secagg.transcript.openers import KeyAuthority, SummedCiphertext
from secagg.transcript.statements import Accepted, OneShotHeader, Signed, decode_disposition
from tests.support.record_rules import Read, lines_of

MODEL, CONFIG = "aggregate/adapter_model.safetensors", "aggregate/adapter_config.json"


def files_of(entry: LogEntry, parameters: OneShotOpen, read: Read) -> tuple[str, ...]:
    """The files that have to be there before an entry of this session is, but for those of another entry."""
    with_authority = isinstance(parameters.opening, KeyAuthority)
    match entry:
        case OneShotOpen():
            return ("roster.jsonl", "layout.json", "adapter.json", *(["context.bin"] if with_authority else []))
        case ContributionsCommitted():
            return ("commitments.jsonl",)
        case OneShotClose():
            names = ("dispositions.jsonl", "contributions.jsonl", "linear-hashes.bin", "masked-limb-sum.bin")
            if not with_authority:
                return names
            parts = (part for header in _headers(read) for part in header.parts)
            return (*names, "ciphertext-sum.bin", *(f"ciphertexts/{part.hex()}.bin" for part in parts))
        case OneShotResult():
            names = ("openings.jsonl", "secret-sum.bin", "integer-sum.bin", MODEL, CONFIG)
            return (*names, "attestations.jsonl") if with_authority else names
        case _:
            return ()


def broken_rules(entry: LogEntry, parameters: OneShotOpen, read: Read) -> list[str]:
    """The files that an entry names and that do not hold what it says; empty where all is well."""
    missing = [name for name in files_of(entry, parameters, read) if read(name) is None]
    return missing or [name for name, holds in _rules(entry, parameters, read) if not holds]


def _rules(entry: LogEntry, parameters: OneShotOpen, read: Read) -> Iterator[tuple[str, bool]]:
    def digest(name: str) -> bytes:
        return hashlib.sha256(read(name) or b"").digest()

    def root(name: str) -> tuple[bytes, int]:
        lines = lines_of(read(name) or b"")
        return merkle.root(lines), len(lines)

    match entry:
        case OneShotOpen():
            yield "roster.jsonl", root("roster.jsonl") == (entry.roster, entry.roster_size)
            yield "layout.json", digest("layout.json") == entry.layout
            yield "adapter.json", digest("adapter.json") == entry.adapter
            if isinstance(entry.opening, KeyAuthority):
                yield "context.bin", digest("context.bin") == entry.opening.context
        case ContributionsCommitted():
            yield "commitments.jsonl", root("commitments.jsonl") == (entry.root, entry.count)
        case OneShotClose():
            yield from _closing(entry, read)
            yield "dispositions.jsonl", root("dispositions.jsonl")[0] == entry.dispositions
            yield "contributions.jsonl", root("contributions.jsonl") == (entry.contributions, entry.count)
            yield "masked-limb-sum.bin", digest("masked-limb-sum.bin") == entry.limb_sum
            if isinstance(entry.opener, SummedCiphertext):
                yield "ciphertext-sum.bin", digest("ciphertext-sum.bin") == entry.opener.digest
        case OneShotResult():
            yield "openings.jsonl", root("openings.jsonl")[0] == entry.openings
            yield "secret-sum.bin", digest("secret-sum.bin") == entry.secret_sum
            yield "integer-sum.bin", digest("integer-sum.bin") == entry.integer_sum
            for file in entry.aggregate:
                yield f"aggregate/{file.name}", digest(f"aggregate/{file.name}") == file.digest
            if isinstance(parameters.opening, KeyAuthority):
                lines = lines_of(read("attestations.jsonl") or b"")
                yield "attestations.jsonl", len(lines) >= parameters.opening.attestations


def _closing(entry: OneShotClose, read: Read) -> Iterator[tuple[str, bool]]:
    """Rules about more than one file."""
    leaves = [decode_disposition(line) for line in lines_of(read("dispositions.jsonl") or b"")]
    indices = [leaf.index for leaf in leaves]
    yield "dispositions.jsonl", indices == sorted(set(indices))
    accepted = [leaf.contribution.to_bytes() for leaf in leaves if isinstance(leaf, Accepted)]
    yield "contributions.jsonl", accepted == lines_of(read("contributions.jsonl") or b"")
    hashes = read("linear-hashes.bin") or b""
    found = [hashlib.sha256(hashes[at : at + 16384]).digest() for at in range(0, len(hashes), 16384)]
    yield "linear-hashes.bin", found == [header.linear_hash for header in _headers(read)]
    if isinstance(entry.opener, SummedCiphertext):
        for part in (part for header in _headers(read) for part in header.parts):
            name = f"ciphertexts/{part.hex()}.bin"
            yield name, hashlib.sha256(read(name) or b"").digest() == part


def _headers(read: Read) -> list[OneShotHeader]:
    statements = [Signed.from_bytes(line).statement for line in lines_of(read("contributions.jsonl") or b"")]
    return [statement for statement in statements if isinstance(statement, OneShotHeader)]
