"""Phase UNMASK at the coordinator: its rows as what ``secagg.derive.opening`` opens a sum from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from secagg.derive import boxes
from secagg.derive.opening import ClosedCohort, Removal, what_masks
from secagg.protocol.pairwise import tables
from secagg.protocol.pairwise.coordinator_states import AdvertiseRow, Rows, ShareRow, Unmasking
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.rows import RowKind, find, require
from secagg.transcript.statements import AdvertiseStatement, ShareStatement, Signed, UnmaskStatement

Read = Callable[[bytes, int, int], bytes]
"""Bytes of a blob: digest, offset, length."""


def recover(session: PairwiseSession, rows: Rows, state: Unmasking, read: Read) -> Removal:
    """What still masks the sum of ``state.accepted``, from the answers in the rows.

    Raises:
        OpeningError: too few shares of a secret, no subset that fits its commitment, or a bad pair box.
    """
    statements, _ = answers(rows, state)
    return what_masks(closed_cohort(session, rows, state), statements, StoredPairs(session, rows, state, read))


def closed_cohort(session: PairwiseSession, rows: Rows, state: Unmasking) -> ClosedCohort:
    """What U1, U2 and U3 fix, as the rows hold it."""
    cohort = state.cohort
    mask_keys: list[bytes] = []
    shared: list[ShareStatement | None] = []
    for position in cohort.positions:
        keys = require(rows, position, RowKind.ADVERTISE, AdvertiseRow).signed.statement
        if isinstance(keys, AdvertiseStatement):
            mask_keys.append(keys.mask_key)
        row = find(rows, position, RowKind.SHARE, ShareRow)
        statement = None if row is None else row.signed.statement
        shared.append(statement if isinstance(statement, ShareStatement) else None)
    missing = {}
    for index in state.accepted:
        found = tables.header_at(rows, cohort, index)
        if found is not None:
            missing[index] = frozenset(found[1].missing)
    graph = session.graph(len(cohort.positions), cohort.root)
    return ClosedCohort(session.digest, cohort.root, graph, cohort.threshold, mask_keys, shared, missing)


def answers(rows: Rows, state: Unmasking) -> tuple[dict[int, UnmaskStatement], tuple[bytes, ...]]:
    """The accepted answers by index, and their leaves in the same order."""
    leaves = tables.answer_leaves(rows, state.cohort, state.accepted)
    statements = {}
    for index, leaf in leaves.items():
        statement = Signed.from_bytes(leaf).statement
        if isinstance(statement, UnmaskStatement):
            statements[index] = statement
    return statements, tuple(leaves.values())


@dataclass(frozen=True, slots=True)
class StoredPairs:
    """Pair boxes out of the blobs in which the boxes of each sender are concatenated."""

    session: PairwiseSession
    rows: Rows
    state: Unmasking
    read: Read

    def pair_box(self, sender: int, recipient: int) -> bytes:
        """See ``DealtPairs.pair_box``."""
        recipients = self._recipients(sender)
        offset = boxes.box_slots(sender, recipients)[recipients.index(recipient)]
        length = boxes.pair_box_bytes(sender, recipient)
        return self.read(self.row(sender).blob, offset + boxes.SHARE_BOX_BYTES, length)

    def pair_commitment(self, sender: int, recipient: int) -> bytes:
        """See ``DealtPairs.pair_commitment``."""
        return self.commitments(sender, recipient)[2 * boxes.COMMITMENT_BYTES :]

    def box_digests(self, sender: int, recipient: int) -> tuple[bytes, bytes]:
        """SHA-256 of the share box and of the pair box from ``sender`` to ``recipient``."""
        recipients = self._recipients(sender)
        place = recipients.index(recipient)
        start, end = boxes.box_slots(sender, recipients)[place : place + 2]
        data = self.read(self.row(sender).blob, start, end - start)
        share_box, pair_box = data[: boxes.SHARE_BOX_BYTES], data[boxes.SHARE_BOX_BYTES :]
        return hashlib.sha256(share_box).digest(), hashlib.sha256(pair_box).digest()

    def commitments(self, sender: int, recipient: int) -> bytes:
        """All that ``sender`` promised ``recipient``."""
        return self.row(sender).commitments[self._recipients(sender).index(recipient)]

    def row(self, sender: int) -> ShareRow:
        """What ``sender`` shared."""
        return require(self.rows, self.state.cohort.positions[sender], RowKind.SHARE, ShareRow)

    def _recipients(self, sender: int) -> tuple[int, ...]:
        cohort = self.state.cohort
        return self.session.graph(len(cohort.positions), cohort.root).neighbours(sender)
