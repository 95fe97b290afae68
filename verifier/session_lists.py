"""The lists of a session's files, line by line, for sessions of every mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from secagg.transcript.entries import ContributionsCommitted, KeysAdvertised
from secagg.transcript.merkle import Frontier, leaf_hash
from secagg.transcript.record import RecordError
from secagg.transcript.statements import (
    Accepted,
    AdvertiseStatement,
    ContributionHeader,
    Disposition,
    Dropped,
    OneShotHeader,
    Rejected,
    Signed,
    decode_disposition,
)
from verifier.checks import CheckFailedError, Place
from verifier.session_record import SessionRecord

ROSTER = "roster.jsonl"
LAYOUT_FILE = "layout.json"
ADAPTER_FILE = "adapter.json"
KEYS = "keys.jsonl"
U2 = "u2.jsonl"
COMMITMENTS = "commitments.jsonl"
DISPOSITIONS = "dispositions.jsonl"
CONTRIBUTIONS = "contributions.jsonl"
OPENINGS = "openings.jsonl"

MAX_STATEMENT_BYTES = 4096
"""A signed statement that has no list."""
MAX_HEADER_BYTES = 1 << 18
"""A signed header with as many missing neighbours as it may name, in its disposition."""
MAX_ANSWER_BYTES = 1 << 22
"""A signed answer with a share for each of 2^14 neighbours, or with a vector of 16 KiB."""


def fail_at(place: Place, reason: str) -> NoReturn:
    """Raise CheckFailedError with one finding."""
    raise CheckFailedError.at(place, reason)


def signed_lines(session: SessionRecord, file: str, most_bytes: int, most_lines: int) -> Iterator[tuple[Place, bytes]]:
    """Place and content of each line of a list.

    Raises:
        CheckFailedError: there are more lines than ``most_lines``, or a line breaks the rules of all lists.
    """
    for number, line in session.files.lines(file, most_bytes):
        place = session.files.place(file, number)
        if number > most_lines:
            fail_at(place, f"more than {most_lines} lines")
        yield place, line


def check_list(place: Place, tree: Frontier, size: int, root: bytes) -> None:
    """Raise CheckFailedError unless a list that was read has as many lines and the root that the log says."""
    if tree.size != size:
        fail_at(place, f"{tree.size} lines, expected {size}")
    if tree.root != root:
        fail_at(place, "another root than the one in the log")


def signed_leaf(place: Place, line: bytes) -> Signed:
    """A signed statement. Raises CheckFailedError."""
    try:
        return Signed.from_bytes(line)
    except RecordError as error:
        fail_at(place, str(error))


StatementT = TypeVar("StatementT", AdvertiseStatement, OneShotHeader)


def statements_by_identity(
    session: SessionRecord,
    file: str,
    most_bytes: int,
    entry: KeysAdvertised | ContributionsCommitted,
    kind: type[StatementT],
) -> tuple[tuple[Signed, ...], tuple[StatementT, ...]]:
    """The signed statements of a list, and what they state.

    Rules: as many lines as logged, under the logged root, identities ascending (equal ones are for ELG-2).

    Args:
        session: whose list.
        file: the list.
        most_bytes: of a line.
        entry: what the log says of the list.
        kind: of the statements.

    Raises:
        CheckFailedError: a rule does not hold.
    """
    tree = Frontier()
    signed: list[Signed] = []
    statements: list[StatementT] = []
    for place, line in signed_lines(session, file, most_bytes, entry.count):
        leaf = signed_leaf(place, line)
        if not isinstance(leaf.statement, kind):
            fail_at(place, f"a statement of type {leaf.statement.TYPE}")
        if statements and leaf.statement.identity < statements[-1].identity:
            fail_at(place, "identities not in ascending order")
        signed.append(leaf)
        statements.append(leaf.statement)
        tree.append(leaf_hash(line))
    check_list(session.files.place(file), tree, entry.count, entry.root)
    return tuple(signed), tuple(statements)


HeaderT_co = TypeVar("HeaderT_co", bound=ContributionHeader | OneShotHeader, covariant=True)


@dataclass(frozen=True, slots=True)
class Closed(Generic[HeaderT_co]):
    """The closed set, in set order: indices, ascending; signed headers; and what those state."""

    indices: tuple[int, ...]
    signed: tuple[Signed, ...]
    headers: tuple[HeaderT_co, ...]


def disposition_leaf(place: Place, line: bytes, header: type[ContributionHeader | OneShotHeader]) -> Disposition:
    """A disposition, with a header of the session's protocol where it is accepted. Raises CheckFailedError."""
    try:
        leaf = decode_disposition(line)
    except RecordError as error:
        fail_at(place, str(error))
    if isinstance(leaf, Accepted) and not isinstance(leaf.contribution.statement, header):
        fail_at(place, f"a statement of type {leaf.contribution.statement.TYPE}")
    return leaf


def check_counts(session: SessionRecord, leaves: Counter[type[Disposition]]) -> None:
    """Raise CheckFailedError unless the close entry counts as many of each disposition as there are."""
    for field, kind in (("count", Accepted), ("rejected", Rejected), ("dropped", Dropped)):
        if getattr(session.close, field) != leaves[kind]:
            place = session.entry_place(session.close.TYPE, field)
            fail_at(place, f"{getattr(session.close, field)}, dispositions have {leaves[kind]}")


def check_contributions(session: SessionRecord, accepted: Sequence[Signed]) -> None:
    """Raise CheckFailedError unless the list of contributions is that of the accepted, under the logged root."""
    tree = Frontier()
    for place, line in signed_lines(session, CONTRIBUTIONS, MAX_HEADER_BYTES, len(accepted)):
        if line != accepted[tree.size].to_bytes():
            fail_at(place, "not the accepted contribution of the same place")
        tree.append(leaf_hash(line))
    check_list(session.files.place(CONTRIBUTIONS), tree, len(accepted), session.close.contributions)
