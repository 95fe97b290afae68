"""What clients are shown of a pairwise session: its lists, and the boxes addressed to them."""

from __future__ import annotations

import asyncio
import bisect
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
    SharedList,
)
from secagg.protocol.pairwise import coordinator_states, tables
from secagg.protocol.pairwise.admission import cohort_index
from secagg.protocol.pairwise.coordinator_states import (
    Aborted,
    AdvertiseRow,
    Advertising,
    Cohort,
    Collecting,
    Confirming,
    CoordinatorEvent,
    CoordinatorState,
    Finished,
    Publishing,
    Recovering,
    Rows,
    ShareRow,
    Sharing,
    Unmasking,
    VectorWork,
)
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.published import roster_position
from secagg.protocol.rows import RowKind, find, require
from secagg.runtime.session_host import CoordinatorPorts, SessionHost
from secagg.runtime.shown import Progress
from secagg.transcript import merkle


@dataclass(frozen=True, slots=True)
class _Outbox:
    """The boxes of one sender: for whom, where in which blob, what was promised, and the tree over them."""

    recipients: tuple[int, ...]
    offsets: tuple[int, ...]
    blob: bytes
    commitments: tuple[bytes, ...]
    tree: merkle.Tree


class ShownPairwise(SessionHost[PairwiseSession, CoordinatorState, CoordinatorEvent, VectorWork]):
    """A pairwise session as its coordinator shows it; the host that drives it is built on this."""

    def __init__(self, session: PairwiseSession, ports: CoordinatorPorts) -> None:
        super().__init__(session, ports)
        self._outboxes: dict[int, _Outbox] = {}

    @property
    def rows(self) -> Rows:
        """The rows of the machine."""
        return cast("Rows", self.driver.rows)

    def advertised_list(self, identity: bytes) -> AdvertisedList:
        """U1 and the keys of the neighbours of ``identity``."""
        cohort = self._cohort()
        leaves = self._cached("u1", lambda: tables.advertised_leaves(self.rows, cohort.positions))
        keys = []
        for index in self._neighbours(cohort, identity):
            row = require(self.rows, cohort.positions[index], RowKind.ADVERTISE, AdvertiseRow)
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

    @staticmethod
    def ended_at_s(state: CoordinatorState) -> int | None:
        """See ``ShownSession.ended_at_s``."""
        return state.ended_at_s if isinstance(state, Finished | Aborted) else None

    @staticmethod
    def _phase_of(state: CoordinatorState) -> Phase:
        return coordinator_states.phase_of(state)

    @staticmethod
    def _deadline_of(state: CoordinatorState) -> int | None:
        return coordinator_states.deadline_of(state)

    @staticmethod
    def _sum_of(state: CoordinatorState) -> bytes | None:
        return state.integer_sum if isinstance(state, Finished) else None

    def _progress(self, state: CoordinatorState) -> Progress:
        match state:
            case Advertising(_, received):
                return Progress(received, self.session.most_contributors)
            case Sharing(_, cohort, received):
                return Progress(received, len(cohort.positions))
            case Collecting(_, _, present, _, staged):
                return Progress(staged, len(present))
            case Confirming():
                return Progress(state.confirmed, len(state.accepted))
            case Unmasking():
                return Progress(state.answered, len(state.accepted))
            case Finished():
                return Progress(len(state.accepted), len(state.accepted))
            case _:
                return Progress(0, 0)

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
            row = find(self.rows, cohort.positions[sender], RowKind.SHARE, ShareRow)
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

    def _graph(self, cohort: Cohort) -> MaskingGraph:
        return self.session.graph(len(cohort.positions), cohort.root)

    def _index(self, cohort: Cohort, identity: bytes) -> int:
        return cohort_index(cohort, roster_position(self.session, identity))

    def _neighbours(self, cohort: Cohort, identity: bytes) -> tuple[int, ...]:
        return self._graph(cohort).neighbours(self._index(cohort, identity))


def showable(state: CoordinatorState) -> CoordinatorState:
    """The state whose sets may be shown: while an entry is being published, still the sets of what follows."""
    if isinstance(state, Publishing):
        return state.then
    return state.unmasking if isinstance(state, Recovering) else state
