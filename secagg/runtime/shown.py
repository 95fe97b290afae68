"""What clients are shown of a session: its log, its lists, the boxes addressed to them.

Everything follows from durable rows; nothing is shown before the entry that fixes it is in the log.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from secagg.derive import boxes
from secagg.derive.graph import MaskingGraph
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import (
    AdvertisedList,
    ClosedList,
    Confirmations,
    IncomingBoxes,
    NeighbourKeys,
    SessionEnded,
    SharedList,
)
from secagg.protocol.pairwise import tables
from secagg.protocol.pairwise.admission import cohort_index, roster_position
from secagg.protocol.pairwise.coordinator_states import (
    Aborted,
    AdvertiseRow,
    Advertising,
    Cohort,
    Collecting,
    Confirming,
    CoordinatorEffect,
    CoordinatorEvent,
    CoordinatorState,
    Finished,
    LogRow,
    Phase,
    Publishing,
    Recovering,
    RowKind,
    Rows,
    ShareRow,
    Sharing,
    Unmasking,
    deadline_of,
    phase_of,
    row_key,
)
from secagg.protocol.session import Session
from secagg.runtime.driver import Driver
from secagg.runtime.ports import BlobStore, LogPort, StoreError
from secagg.transcript import merkle
from secagg.transcript.evidence import LogEvidence


@dataclass(frozen=True, slots=True)
class Status:
    """Where a session stands, for watchers. ``deadline_s`` is 0 where no clock runs."""

    phase: Phase
    deadline_s: int
    received: int
    expected: int
    log_size: int


@dataclass(frozen=True, slots=True)
class _Outbox:
    """The boxes of one sender: for whom, where in which blob, what was promised, and the tree over them."""

    recipients: tuple[int, ...]
    offsets: tuple[int, ...]
    blob: bytes
    commitments: tuple[bytes, ...]
    tree: merkle.Tree


class ShownSession:
    """A session as its coordinator shows it; the host that drives it is built on this."""

    def __init__(
        self,
        session: Session,
        blobs: BlobStore,
        log: LogPort,
        driver: Driver[CoordinatorState, CoordinatorEvent, CoordinatorEffect],
    ) -> None:
        self.session = session
        self.driver = driver
        self._blobs = blobs
        self._log = log
        self._lists: dict[str, tuple[bytes, ...]] = {}
        self._outboxes: dict[int, _Outbox] = {}

    @property
    def rows(self) -> Rows:
        """The rows of the machine."""
        return cast("Rows", self.driver.rows)

    def status(self) -> Status:
        """Where the session stands."""
        state = self.driver.state
        received, expected = _progress(self.session, state)
        return Status(phase_of(state), deadline_of(state) or 0, received, expected, tables.log_size(self.rows))

    def evidence(self) -> LogEvidence:
        """The log from the session's open entry on, as it is now."""
        self._require_log(1, "the session is not open yet")
        row = self.rows[row_key(0, RowKind.LOG)]
        if not isinstance(row, LogRow):
            raise StoreError("the session has no open entry")
        return self._log.evidence(row.index)

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """Proof that the log continues the one of ``old_size`` entries that somebody saw before.

        Nothing where it has never had that size: the answer, with its signed checkpoint, is evidence of a log that went
        back.
        """
        return self._log.consistency(old_size) if old_size <= self._log.size else ()

    def advertised_list(self, identity: bytes) -> AdvertisedList:
        """U1 and the keys of the neighbours of ``identity``."""
        cohort = self._cohort()
        leaves = self._cached("u1", lambda: tables.advertised_leaves(self.rows, cohort.positions))
        keys = []
        for index in self._neighbours(cohort, identity):
            row = tables.require(self.rows, cohort.positions[index], RowKind.ADVERTISE, AdvertiseRow)
            keys.append(NeighbourKeys(index, row.mask_public, row.share_public))
        return AdvertisedList(self.evidence(), leaves, tuple(keys))

    async def shared_list(self, identity: bytes) -> SharedList:
        """U2 and the boxes addressed to ``identity``."""
        cohort = self._cohort()
        self._require_log(3, "U2 is not fixed yet")
        leaves = self._cached("u2", lambda: tables.shared_leaves(self.rows, cohort))
        return SharedList(self.evidence(), leaves, await asyncio.to_thread(self._inbox, cohort, identity))

    def closed_list(self) -> ClosedList:
        """U3 and what became of everybody else."""
        self._require_log(4, "U3 is not fixed yet")
        state = showable(self.driver.state)
        if not isinstance(state, Confirming | Unmasking | Finished):
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "U3 is not fixed")
        return ClosedList(
            self.evidence(),
            self._cached(
                "u3",
                lambda: tables.disposition_leaves(self.rows, state.cohort, state.present, state.accepted),
            ),
        )

    def confirmations(self, identity: bytes) -> Confirmations:
        """What everybody in U3 but ``identity`` signed over the close entry, so far."""
        state = showable(self.driver.state)
        if not isinstance(state, Unmasking | Finished):
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "confirmations are not complete yet")
        own = self._index(state.cohort, identity)
        others = [index for index in state.accepted if index != own]
        return Confirmations(tables.confirmations(self.rows, state.cohort, others))

    def outcome(self) -> SessionEnded:
        """The log with its last entry."""
        if not isinstance(self.driver.state, Finished | Aborted):
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "the session has not ended")
        return SessionEnded(self.evidence())

    def integer_sum(self) -> bytes:
        """SHA-256 name of the blob that holds the exact sum."""
        if not isinstance(self.driver.state, Finished):
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "there is no sum")
        return self.driver.state.integer_sum

    @property
    def sum_bytes(self) -> int:
        """Length of that blob."""
        return 8 * self.session.field_layout.dimension

    def _inbox(self, cohort: Cohort, identity: bytes) -> tuple[IncomingBoxes, ...]:
        own = self._index(cohort, identity)
        items = []
        for sender in self._graph(cohort).neighbours(own):
            outbox = self._outbox(cohort, sender)
            if outbox is None:
                continue
            place = bisect.bisect_left(outbox.recipients, own)
            start, end = outbox.offsets[place : place + 2]
            data = self._blobs.read(outbox.blob, start, end - start)
            share_box, pair_box = data[: boxes.SHARE_BOX_BYTES], data[boxes.SHARE_BOX_BYTES :]
            items.append(
                IncomingBoxes(
                    sender, share_box, pair_box, outbox.commitments[place], outbox.tree.inclusion_proof(place)
                )
            )
        return tuple(items)

    def _outbox(self, cohort: Cohort, sender: int) -> _Outbox | None:
        """Kept for all recipients: without it each would cost a tree over all boxes of each of its neighbours."""
        outbox = self._outboxes.get(sender)
        if outbox is None:
            row = tables.find(self.rows, cohort.positions[sender], RowKind.SHARE, ShareRow)
            if row is None:
                return None
            recipients = self._graph(cohort).neighbours(sender)
            tree = merkle.Tree([row.hashes[i : i + 32] for i in range(0, len(row.hashes), 32)])
            offsets = tuple(boxes.box_slots(sender, recipients))
            outbox = _Outbox(recipients, offsets, row.blob, row.commitments, tree)
            self._outboxes[sender] = outbox
        return outbox

    def _cohort(self) -> Cohort:
        state = showable(self.driver.state)
        cohort = getattr(state, "cohort", None)
        if not isinstance(cohort, Cohort):
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "U1 is not fixed")
        self._require_log(2, "U1 is not fixed yet")
        return cohort

    def _require_log(self, size: int, detail: str) -> None:
        """Nothing is shown before the entry that fixes it is in the log."""
        if tables.log_size(self.rows) < size:
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, detail)

    def _graph(self, cohort: Cohort) -> MaskingGraph:
        return self.session.graph(len(cohort.positions), cohort.root)

    def _index(self, cohort: Cohort, identity: bytes) -> int:
        return cohort_index(cohort, roster_position(self.session, identity))

    def _neighbours(self, cohort: Cohort, identity: bytes) -> tuple[int, ...]:
        return self._graph(cohort).neighbours(self._index(cohort, identity))

    def _cached(self, name: str, compute: Callable[[], tuple[bytes, ...]]) -> tuple[bytes, ...]:
        if name not in self._lists:
            self._lists[name] = compute()
        return self._lists[name]


def showable(state: CoordinatorState) -> CoordinatorState:
    """The state whose sets may be shown: while an entry is being published, still the sets of what follows."""
    if isinstance(state, Publishing):
        return state.then
    return state.unmasking if isinstance(state, Recovering) else state


def _progress(session: Session, state: CoordinatorState) -> tuple[int, int]:
    match state:
        case Advertising(_, received):
            return received, len(session.roster.members)
        case Sharing(_, cohort, received):
            return received, len(cohort.positions)
        case Collecting(_, _, present, _, staged):
            return staged, len(present)
        case Confirming():
            return state.confirmed, len(state.accepted)
        case Unmasking():
            return state.answered, len(state.accepted)
        case Finished():
            return len(state.accepted), len(state.accepted)
        case _:
            return 0, 0
