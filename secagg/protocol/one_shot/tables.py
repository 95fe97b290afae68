"""Sets and published lists, as they follow from the rows of a one-shot session. All functions are pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.one_shot.coordinator_states import (
    AttestationRow,
    CommitmentRow,
    HoldingRow,
    OpenerRow,
    PartsRow,
    Rows,
)
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.rows import HeaderRow, LogRow, RejectedRow, RowKind, StagedRow, find, row_key, row_position
from secagg.transcript.entries import OneShotClose, decode_entry
from secagg.transcript.openers import Committee
from secagg.transcript.statements import Accepted, Disposition, Dropped, OneShotHeader, Rejected, Signed


def positions(rows: Rows, kind: RowKind) -> tuple[int, ...]:
    """Roster positions that have a row of this kind, ascending."""
    return tuple(sorted(position for key in rows if (position := row_position(key, kind)) is not None))


def header_at(rows: Rows, position: int) -> tuple[Signed, OneShotHeader] | None:
    """The accepted header of a roster position, if there is one."""
    row = find(rows, position, RowKind.HEADER, HeaderRow)
    if row is None or not isinstance(row.signed.statement, OneShotHeader):
        return None
    return row.signed, row.signed.statement


def require_header(rows: Rows, position: int) -> tuple[Signed, OneShotHeader]:
    """The accepted header of a roster position.

    Raises:
        LocalProtocolError: it is not there; the store lost something that was accepted.
    """
    found = header_at(rows, position)
    if found is None:
        raise LocalProtocolError(RejectReason.WRONG_PHASE, f"no header at position {position}")
    return found


def committed_leaves(rows: Rows) -> tuple[bytes, ...]:
    """The signed headers that were committed to, in order of roster position."""
    found = (find(rows, at, RowKind.COMMITMENT, CommitmentRow) for at in positions(rows, RowKind.COMMITMENT))
    return tuple(row.signed.to_bytes() for row in found if row is not None)


def staged_positions(rows: Rows) -> tuple[int, ...]:
    """Whose upload is durable and was not rejected."""
    return tuple(at for at in positions(rows, RowKind.STAGED) if is_counted(rows, at))


def is_counted(rows: Rows, position: int) -> bool:
    """Whether an upload is durable and was not rejected."""
    staged = find(rows, position, RowKind.STAGED, StagedRow)
    return staged is not None and find(rows, position, RowKind.REJECTED, RejectedRow) is None


def holdings(rows: Rows, position: int) -> HoldingRow:
    """What the members said of a contribution so far."""
    return find(rows, position, RowKind.HOLDING, HoldingRow) or HoldingRow(0, 0)


def unsettled(rows: Rows, staged: Iterable[int], member: int) -> tuple[int, ...]:
    """Of which contributions a member has not said yet whether it holds the share."""
    bit = 1 << member
    return tuple(at for at in staged if not (row := holdings(rows, at)).held & bit and not row.refused & bit)


def settled(rows: Rows, staged: Sequence[int], members: int) -> int:
    """Of how many contributions every member has said it."""
    everybody = (1 << members) - 1
    return sum((row := holdings(rows, at)).held | row.refused == everybody for at in staged)


@dataclass(frozen=True, slots=True)
class NamedSet:
    """Members, and the contributions of which each of them holds a share."""

    members: tuple[int, ...]
    accepted: tuple[int, ...]


def choose_named(rows: Rows, staged: Sequence[int], session: OneShotSession, committee: Committee) -> NamedSet:
    """Who is named in the close, and which contributions count.

    Rule: as many members as possible, as long as what they lack is no more than ``max_corrupt`` contributions, which
    could all be of corrupt clients, and leaves ``min_contributors``: a member without which more would count is at
    fault itself, or cut off. Where nobody can be spared, they may lack nothing. Where even the smallest sets lack more,
    the one with which most contributions count.
    """
    parameters = session.parameters
    masks = Counter(holdings(rows, at).held for at in staged)
    best: tuple[int, ...] = tuple(range(committee.needed))
    most = -1
    for size in range(len(committee.members), committee.needed - 1, -1):
        for members in itertools.combinations(range(len(committee.members)), size):
            together = sum(1 << member for member in members)
            counted = sum(number for mask, number in masks.items() if mask & together == together)
            if counted > most:
                best, most = members, counted
        if len(staged) - most <= session.spared and most >= parameters.min_contributors:
            break
    together = sum(1 << member for member in best)
    return NamedSet(best, tuple(at for at in staged if holdings(rows, at).held & together == together))


def parts_at(rows: Rows, position: int) -> PartsRow:
    """Where the sealed parts of a contribution lie.

    Raises:
        LocalProtocolError: it is not there.
    """
    row = find(rows, position, RowKind.PARTS, PartsRow)
    if row is None:
        raise LocalProtocolError(RejectReason.WRONG_PHASE, f"no parts at position {position}")
    return row


def contribution_leaves(rows: Rows, accepted: Sequence[int]) -> tuple[bytes, ...]:
    """Signed headers of the closed set, in order."""
    return tuple(require_header(rows, position)[0].to_bytes() for position in accepted)


def dispositions(rows: Rows, accepted: Sequence[int]) -> tuple[Disposition, ...]:
    """What became of everybody who signed a header, in order of roster position."""
    accepted_set = frozenset(accepted)
    came = sorted({*positions(rows, RowKind.HEADER), *positions(rows, RowKind.COMMITMENT)})
    found: list[Disposition] = []
    for position in came:
        rejected = find(rows, position, RowKind.REJECTED, RejectedRow)
        if position in accepted_set:
            found.append(Accepted(position, require_header(rows, position)[0]))
        elif rejected is not None:
            found.append(Rejected(position, rejected.reason))
        else:
            found.append(Dropped(position, "masked-input"))
    return tuple(found)


def disposition_leaves(rows: Rows, accepted: Sequence[int]) -> tuple[bytes, ...]:
    """The dispositions as leaves."""
    return tuple(each.to_bytes() for each in dispositions(rows, accepted))


def answers(rows: Rows) -> dict[int, Signed]:
    """The openers' answers by place, ascending."""
    found = {place: find(rows, place, RowKind.OPENER, OpenerRow) for place in positions(rows, RowKind.OPENER)}
    return {place: row.signed for place, row in found.items() if row is not None}


def attestations(rows: Rows) -> tuple[Signed, ...]:
    """The attestations, ascending by identity."""
    found = [find(rows, place, RowKind.ATTESTATION, AttestationRow) for place in positions(rows, RowKind.ATTESTATION)]
    return tuple(sorted((row.signed for row in found if row is not None), key=lambda each: each.statement.identity))


def close_entry(rows: Rows) -> OneShotClose:
    """The close entry, which the log must have.

    Raises:
        LocalProtocolError: it does not have it.
    """
    for position in positions(rows, RowKind.LOG):
        row = rows[row_key(position, RowKind.LOG)]
        entry = decode_entry(row.entry) if isinstance(row, LogRow) else None
        if isinstance(entry, OneShotClose):
            return entry
    raise LocalProtocolError(RejectReason.WRONG_PHASE, "no close entry")
