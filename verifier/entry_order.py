"""In which order the entries of a session may stand, and exactly once each."""

from __future__ import annotations

import enum

from secagg.transcript.entries import (
    ContributionsCommitted,
    KeysAdvertised,
    KeysShared,
    OneShotClose,
    OneShotOpen,
    OneShotResult,
    PairwiseOpen,
    SessionAbort,
    SessionClose,
    SessionEntry,
    SessionResult,
)
from secagg.transcript.openers import KeyAuthority


class Kind(enum.IntEnum):
    """Kinds of entries of a session; an open entry's says in which order the others follow it."""

    OPEN = 0
    ADVERTISED = 1
    SHARED = 2
    CLOSE = 3
    RESULT = 4
    ABORT = 5
    OPEN_COMMITTEE = 6
    OPEN_AUTHORITY = 7
    COMMITTED = 8
    ONE_SHOT_CLOSE = 9
    ONE_SHOT_RESULT = 10


_KINDS: dict[type[SessionEntry], Kind] = {
    PairwiseOpen: Kind.OPEN,
    KeysAdvertised: Kind.ADVERTISED,
    KeysShared: Kind.SHARED,
    SessionClose: Kind.CLOSE,
    SessionResult: Kind.RESULT,
    SessionAbort: Kind.ABORT,
    OneShotOpen: Kind.OPEN_COMMITTEE,
    ContributionsCommitted: Kind.COMMITTED,
    OneShotClose: Kind.ONE_SHOT_CLOSE,
    OneShotResult: Kind.ONE_SHOT_RESULT,
}

_ORDERS = (
    (Kind.OPEN, Kind.ADVERTISED, Kind.SHARED, Kind.CLOSE, Kind.RESULT),
    (Kind.OPEN_COMMITTEE, Kind.ONE_SHOT_CLOSE, Kind.ONE_SHOT_RESULT),
    (Kind.OPEN_AUTHORITY, Kind.COMMITTED, Kind.ONE_SHOT_CLOSE, Kind.ONE_SHOT_RESULT),
)

TELLING_ENTRIES = 8
"""More than a session could ever have."""


def kind_of(entry: SessionEntry) -> Kind:
    """The kind of an entry, by exactly its type: a one-shot close is no close of a pairwise session."""
    if isinstance(entry, OneShotOpen) and isinstance(entry.opening, KeyAuthority):
        return Kind.OPEN_AUTHORITY
    return _KINDS[type(entry)]


def is_legal(kinds: tuple[Kind, ...]) -> bool:
    """Whether a session may have these entries: each once, in order, an abort after any but the result."""
    steps = kinds[:-1] if kinds and kinds[-1] is Kind.ABORT else kinds
    order = next((order for order in _ORDERS if steps and steps == order[: len(steps)]), None)
    if order is None:
        return False
    return steps == kinds or steps != order
