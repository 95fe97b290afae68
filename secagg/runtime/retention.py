"""What a coordinator deletes when a session's retention is over, and what it must keep for others.

Blobs are named by their content and shared by all sessions: a client can name any blob in a header, and two sessions
can hold the same one. So a blob goes only when a session that is over was the last to need it. Here is what sessions
of all protocols hold; what is a protocol's own its host adds.
"""

from __future__ import annotations

from collections.abc import Iterable

from secagg.protocol.rows import HeaderRow, LogRow, SetupRow
from secagg.transcript.entries import OneShotResult, SessionClose, SessionResult, decode_entry
from secagg.transcript.statements import ContributionHeader, OneShotHeader


def private_blobs(rows: Iterable[object]) -> set[bytes]:
    """What is kept for the time of a session's retention: masked inputs and their hashes, the limb sum.

    Also what was only announced: until then it may still be on its way.
    """
    found: set[bytes] = set()
    for row in rows:
        match row:
            case HeaderRow(signed) if isinstance(signed.statement, ContributionHeader | OneShotHeader):
                found |= {signed.statement.upload, signed.statement.linear_hash}
            case LogRow():
                entry = decode_entry(row.entry)
                if isinstance(entry, SessionClose):
                    found.add(entry.limb_sum)
            case _:
                continue
    return found


def lasting_blobs(rows: Iterable[object]) -> set[bytes]:
    """What a session needs for ever: what it was opened with, and what came out of it."""
    found: set[bytes] = set()
    for row in rows:
        match row:
            case SetupRow():
                found |= {row.roster, row.layout, row.adapter, *row.cards}
                found |= {blob for blob in (row.context, row.fixed, row.contributors) if blob}
            case LogRow():
                entry = decode_entry(row.entry)
                if isinstance(entry, SessionResult):
                    found |= {entry.integer_sum, entry.mean, *(file.digest for file in entry.aggregate)}
                if isinstance(entry, OneShotResult):
                    found.add(entry.secret_sum)
            case _:
                continue
    return found
