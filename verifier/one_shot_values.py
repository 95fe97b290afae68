"""What several checks need of a one-shot session, read once: what was committed to, and what was closed.

Indices are positions in the roster. A session with a committee has no list of commitments: the log fixes who may
contribute when it opens, and who did when it closes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from secagg.transcript.merkle import Frontier, leaf_hash
from secagg.transcript.openers import NamedMembers
from secagg.transcript.statements import Accepted, Disposition, Dropped, OneShotHeader, Signed
from verifier.checks import Derived, Mode
from verifier.session_lists import (
    COMMITMENTS,
    CONTRIBUTIONS,
    DISPOSITIONS,
    MAX_HEADER_BYTES,
    Closed,
    check_contributions,
    check_counts,
    check_list,
    disposition_leaf,
    fail_at,
    signed_lines,
    statements_by_identity,
)
from verifier.session_record import SessionRecord

# What the entries say of each other


@dataclass(frozen=True, slots=True)
class Named:
    """The members of the committee, by place, that the close entry names; empty where an authority opens."""

    members: frozenset[int]


def _named(session: SessionRecord) -> Named:
    """Rules: a committee's close names members of it, as many as are needed; an authority's names a ciphertext sum."""
    opener = session.one_shot_close.opener
    place = session.entry_place(session.close.TYPE, "opener")
    if session.mode is Mode.AUTHORITY:
        if isinstance(opener, NamedMembers):
            fail_at(place, "names members, and an authority opens")
        return Named(frozenset())
    if not isinstance(opener, NamedMembers):
        fail_at(place, "names a ciphertext, and a committee opens")
    committee = session.committee
    if opener.members and opener.members[-1] >= len(committee.members):
        fail_at(place, f"member {opener.members[-1]} of {len(committee.members)}, counted from 0")
    if len(opener.members) < committee.needed:
        fail_at(place, f"{len(opener.members)} members, {committee.needed} are needed")
    return Named(frozenset(opener.members))


NAMED = Derived("SES-9", _named)
"""Who may answer. Needs CLOSED."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many committed, as the entries say; 0 without such an entry. Each number is possible beside the others."""

    committed: int


def _counts(session: SessionRecord) -> Counts:
    """Rules: every set holds the minimum and is no larger than the one before it; no more answers than openers."""
    least, before = session.parameters.min_contributors, session.parameters.encoding.max_contributors
    entries = session.entries
    for entry in (entries.committed, entries.close):
        if entry is None:
            continue
        place = session.entry_place(entry.TYPE, "count")
        if entry.count < least:
            fail_at(place, f"{entry.count}, below min_contributors {least}")
        if entry.count > before:
            fail_at(place, f"{entry.count}, more than the {before} there can be")
        before = entry.count
    if entries.result is not None and entries.result.count != session.close.count:
        place = session.entry_place(entries.result.TYPE, "count")
        fail_at(place, f"{entries.result.count}, the close entry has {session.close.count}")
    openers = 0
    if entries.close is not None:
        named = session.get(NAMED).members
        openers = len(named) if session.mode is Mode.COMMITTEE else 1
    if entries.abort is not None and entries.abort.answers > openers:
        fail_at(session.entry_place("session-abort", "answers"), f"{entries.abort.answers} of {openers}")
    return Counts(entries.committed.count if entries.committed is not None else 0)


COUNTS = Derived("SES-9", _counts)
"""Needs OPENED."""


# Who committed to what


@dataclass(frozen=True, slots=True)
class Committed:
    """The signed headers that were committed to, in order; none where the log has no such entry."""

    signed: tuple[Signed, ...]
    headers: tuple[OneShotHeader, ...]


def _committed(session: SessionRecord) -> Committed:
    """Rules: those of ``statements_by_identity``."""
    session.get(COUNTS)
    if session.entries.committed is None:
        return Committed((), ())
    return Committed(*statements_by_identity(session, COMMITMENTS, MAX_HEADER_BYTES, session.committed, OneShotHeader))


COMMITTED = Derived("SES-9", _committed)
"""The contributions that were committed to. Needs OPENED."""


# Who contributed


@dataclass(frozen=True, slots=True)
class Dispositions:
    """Of everybody who signed a header, the index; and the closed set, whose indices are some of these."""

    indices: tuple[int, ...]
    closed: Closed[OneShotHeader]


def _dispositions(session: SessionRecord) -> Dispositions:
    """Rules: indices of the roster, ascending; who is dropped sent nothing; counts and roots.

    The accepted ones are the lines of the contributions, byte for byte.
    """
    close, tree, found = session.close, Frontier(), Counter[type[Disposition]]()
    indices: list[int] = []
    accepted: dict[int, Signed] = {}
    most = close.count + close.rejected + close.dropped
    for place, line in signed_lines(session, DISPOSITIONS, MAX_HEADER_BYTES, most):
        leaf = disposition_leaf(place, line, OneShotHeader)
        if indices and leaf.index <= indices[-1]:
            fail_at(place, f"index {leaf.index} after {indices[-1]}")
        if leaf.index >= session.parameters.roster_size:
            fail_at(place, f"index {leaf.index}, the roster has {session.parameters.roster_size} members")
        if isinstance(leaf, Accepted):
            accepted[leaf.index] = leaf.contribution
        elif isinstance(leaf, Dropped) and leaf.phase != "masked-input":
            fail_at(place, f"dropped in {leaf.phase}, of which a one-shot session has none")
        indices.append(leaf.index)
        found[type(leaf)] += 1
        tree.append(leaf_hash(line))
    check_list(session.files.place(DISPOSITIONS), tree, len(indices), close.dispositions)
    check_counts(session, found)
    check_contributions(session, tuple(accepted.values()))
    headers = [leaf.statement for leaf in accepted.values() if isinstance(leaf.statement, OneShotHeader)]
    return Dispositions(tuple(indices), Closed(tuple(accepted), tuple(accepted.values()), tuple(headers)))


DISPOSITIONS_READ = Derived("CON-3", _dispositions)
"""What became of everybody. Needs CLOSED."""


def _closed(session: SessionRecord) -> Closed[OneShotHeader]:
    return session.get(DISPOSITIONS_READ).closed


CLOSED: Derived[SessionRecord, Closed[OneShotHeader]] = Derived("CON-3", _closed)
"""The closed set. Needs CLOSED."""


def _contributors(session: SessionRecord) -> Closed[OneShotHeader]:
    """Rule: with an authority, every contribution is one that was committed to, byte for byte."""
    session.get(COUNTS)
    closed = session.get(CLOSED)
    if session.mode is Mode.AUTHORITY:
        committed: Mapping[bytes, Signed] = {leaf.statement.identity: leaf for leaf in session.get(COMMITTED).signed}
        for number, leaf in enumerate(closed.signed, start=1):
            if committed.get(leaf.statement.identity) != leaf:
                fail_at(session.files.place(CONTRIBUTIONS, number), "not what its identity had committed to")
    return closed


CONTRIBUTORS: Derived[SessionRecord, Closed[OneShotHeader]] = Derived("SES-9", _contributors)
"""The closed set, all of it as committed to. Needs CLOSED."""
