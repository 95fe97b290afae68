"""What a coordinator deletes when a session's retention is over, and what it must keep for others.

Blobs are named by their content and shared by all sessions: a client can name any blob in a header, and two sessions
can hold the same one. So a blob goes only when a session that is over was the last to need it.
"""

from __future__ import annotations

from collections.abc import Iterable

from secagg.protocol.pairwise.coordinator_states import (
    CoordinatorState,
    Finished,
    HeaderRow,
    LogRow,
    Publishing,
    Row,
    SetupRow,
    ShareRow,
)
from secagg.transcript.entries import SessionClose, SessionResult, decode_entry
from secagg.transcript.statements import ContributionHeader


def private_blobs(rows: Iterable[Row]) -> set[bytes]:
    """What is kept for the time of a session's retention: masked inputs and their hashes, sealed boxes, the limb sum.

    Also what was only announced: until then it may still be on its way.
    """
    found: set[bytes] = set()
    for row in rows:
        match row:
            case HeaderRow(signed) if isinstance(signed.statement, ContributionHeader):
                found |= {signed.statement.upload, signed.statement.linear_hash}
            case ShareRow():
                found.add(row.blob)
            case LogRow():
                entry = decode_entry(row.entry)
                if isinstance(entry, SessionClose):
                    found.add(entry.limb_sum)
            case _:
                continue
    return found


def lasting_blobs(state: CoordinatorState, rows: Iterable[Row]) -> set[bytes]:
    """What a session needs for ever: what it was opened with, and what came out of it."""
    found: set[bytes] = set()
    for row in rows:
        match row:
            case SetupRow():
                found |= {row.roster, row.layout, row.adapter}
            case LogRow():
                entry = decode_entry(row.entry)
                if isinstance(entry, SessionResult):
                    found |= {entry.integer_sum, entry.mean, entry.adapter_model, entry.adapter_config}
            case _:
                continue
    outcome = state.then if isinstance(state, Publishing) else state
    if isinstance(outcome, Finished):
        found |= {outcome.openings_file, outcome.pairs_file}
    return found
