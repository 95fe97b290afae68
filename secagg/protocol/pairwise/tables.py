"""Sets and published lists, as they follow from the coordinator's rows.

All functions are pure; the lists are recomputed when they are needed and cached by whoever serves them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.pairwise.coordinator_states import AdvertiseRow, AnswerRow, Cohort, ConfirmRow, Rows, ShareRow
from secagg.protocol.rows import (
    HeaderRow,
    LogRow,
    RejectedRow,
    RowKind,
    StagedRow,
    find,
    require,
    row_key,
    row_position,
)
from secagg.transcript.entries import SessionClose
from secagg.transcript.statements import (
    Absent,
    Accepted,
    AdvertiseStatement,
    ContributionHeader,
    Disposition,
    Dropped,
    Rejected,
    Signed,
)


def advertised_positions(rows: Rows) -> tuple[int, ...]:
    """Roster positions of everybody who advertised keys, ascending: the order of identities.

    Without those whose sealing key is another's as well: public keys are seen by nobody before U1 is fixed, so they
    colluded, and a verifier would refuse the record.
    """
    positions = sorted(position for key in rows if (position := row_position(key, RowKind.ADVERTISE)) is not None)
    statements = [require(rows, position, RowKind.ADVERTISE, AdvertiseRow).signed.statement for position in positions]
    keys = [
        (each.mask_key, each.share_key) if isinstance(each, AdvertiseStatement) else (b"", b"") for each in statements
    ]
    counts = Counter(key for pair in keys for key in pair)
    return tuple(
        position for position, pair in zip(positions, keys, strict=True) if all(counts[key] == 1 for key in pair)
    )


def advertised_leaves(rows: Rows, positions: Sequence[int]) -> tuple[bytes, ...]:
    """Leaves of U1."""
    return tuple(require(rows, position, RowKind.ADVERTISE, AdvertiseRow).signed.to_bytes() for position in positions)


def present_indices(rows: Rows, cohort: Cohort) -> tuple[int, ...]:
    """U2: the indices that shared keys."""
    return tuple(index for index, position in enumerate(cohort.positions) if row_key(position, RowKind.SHARE) in rows)


def shared_leaves(rows: Rows, cohort: Cohort) -> tuple[bytes, ...]:
    """Leaves of U2, one for each index of U1."""
    leaves = []
    for index, position in enumerate(cohort.positions):
        row = find(rows, position, RowKind.SHARE, ShareRow)
        leaves.append(Absent(index).to_bytes() if row is None else row.signed.to_bytes())
    return tuple(leaves)


def header_at(rows: Rows, cohort: Cohort, index: int) -> tuple[Signed, ContributionHeader] | None:
    """The accepted header of an index, if there is one."""
    row = find(rows, cohort.positions[index], RowKind.HEADER, HeaderRow)
    if row is None or not isinstance(row.signed.statement, ContributionHeader):
        return None
    return row.signed, row.signed.statement


def staged_headers(rows: Rows, cohort: Cohort, present: Sequence[int]) -> dict[int, ContributionHeader]:
    """Headers whose upload is durable, by index."""
    headers = {}
    for index in present:
        found = header_at(rows, cohort, index)
        if found and find(rows, cohort.positions[index], RowKind.STAGED, StagedRow):
            headers[index] = found[1]
    return headers


def contribution_leaves(rows: Rows, cohort: Cohort, accepted: Sequence[int]) -> tuple[bytes, ...]:
    """Signed headers of U3, in order of index."""
    return tuple(
        require(rows, cohort.positions[index], RowKind.HEADER, HeaderRow).signed.to_bytes() for index in accepted
    )


def dispositions(
    rows: Rows, cohort: Cohort, present: Sequence[int], accepted: Sequence[int]
) -> tuple[Disposition, ...]:
    """What became of each index of U1."""
    present_set, accepted_set = frozenset(present), frozenset(accepted)
    found: list[Disposition] = []
    for index, position in enumerate(cohort.positions):
        rejected = find(rows, position, RowKind.REJECTED, RejectedRow)
        if index in accepted_set:
            signed = require(rows, position, RowKind.HEADER, HeaderRow).signed
            found.append(Accepted(index, signed))
        elif rejected is not None:
            found.append(Rejected(index, rejected.reason))
        else:
            found.append(Dropped(index, "masked-input" if index in present_set else "share-keys"))
    return tuple(found)


def disposition_leaves(
    rows: Rows, cohort: Cohort, present: Sequence[int], accepted: Sequence[int]
) -> tuple[bytes, ...]:
    """The dispositions as leaves, in order of index."""
    return tuple(each.to_bytes() for each in dispositions(rows, cohort, present, accepted))


def confirmations(rows: Rows, cohort: Cohort, indices: Sequence[int]) -> tuple[Signed, ...]:
    """What these indices signed over the close entry, as far as they did."""
    found = (find(rows, cohort.positions[index], RowKind.CONFIRM, ConfirmRow) for index in indices)
    return tuple(row.signed for row in found if row is not None)


def answer_leaves(rows: Rows, cohort: Cohort, accepted: Sequence[int]) -> dict[int, bytes]:
    """Signed answers by index."""
    found = {index: find(rows, cohort.positions[index], RowKind.ANSWER, AnswerRow) for index in accepted}
    return {index: row.leaf for index, row in found.items() if row is not None}


def close_entry(rows: Rows) -> SessionClose:
    """The close entry, which the log must have.

    Raises:
        LocalProtocolError: it does not have it.
    """
    row = find(rows, 3, RowKind.LOG, LogRow)
    if row is None:
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "no session-close entry")
    return SessionClose.from_bytes(row.entry)
