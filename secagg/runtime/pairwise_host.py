"""A pairwise session at the coordinator: boxes, what the log's entries publish, the opening of the sum."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from typing import ClassVar, cast

from secagg.arith.errors import ArithmeticInputError
from secagg.derive.opening import OpeningError
from secagg.derive.result import decode
from secagg.lora.errors import AdapterError
from secagg.protocol.errors import LocalProtocolError, RemoteProtocolError
from secagg.protocol.messages import Contribution, ShareKeys
from secagg.protocol.pairwise import admission, coordinator, recovery, tables
from secagg.protocol.pairwise.coordinator_states import (
    COORDINATOR_PERSISTENCE,
    Collecting,
    Confirming,
    CoordinatorEvent,
    CoordinatorState,
    Finished,
    Folding,
    Publishing,
    Recovering,
    RecoverSum,
    RecoveryFailed,
    Rows,
    ShareRow,
    SharesStored,
    Sharing,
    SumRecovered,
    VectorWork,
)
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.persist import Persistence
from secagg.protocol.published import roster_position
from secagg.protocol.rows import (
    FoldUploads,
    SetupRow,
    SumFolded,
    UploadsRefuted,
)
from secagg.runtime import retention, vectors
from secagg.runtime.adapters import AdapterMerge
from secagg.runtime.limb_sums import Refuted, masked_sum
from secagg.runtime.pairwise_publication import PairwiseFiles
from secagg.runtime.pairwise_shown import ShownPairwise, showable
from secagg.runtime.partial_sum import HashedUpload
from secagg.runtime.session_host import CoordinatorPorts, Offer
from secagg.transcript import merkle
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    SessionClose,
    SessionOpen,
    SessionResult,
    decode_entry,
)


class PairwiseHost(ShownPairwise):
    """One pairwise session."""

    persistence: ClassVar[Persistence] = COORDINATOR_PERSISTENCE

    def __init__(self, session: PairwiseSession, ports: CoordinatorPorts) -> None:
        super().__init__(session, ports)
        self._files = PairwiseFiles(session, ports.record, ports.blobs)

    @staticmethod
    def check_parameters(session: PairwiseSession) -> None:
        """A safe degree and threshold exist for the largest cohort that may come; see ``SessionHost``."""
        PairwiseHost.largest_degree(session)

    @staticmethod
    def largest_degree(session: PairwiseSession) -> int:
        """How many neighbours a client has in the largest cohort that may come.

        Raises:
            RemoteProtocolError: UNSAFE_PARAMETERS; no safe degree and threshold exist.
        """
        parameters = session.parameters
        largest = min(parameters.encoding.max_contributors, parameters.roster_size)
        try:
            return session.graph_parameters(largest).degree
        except LocalProtocolError as error:
            raise RemoteProtocolError(error.reason, error.detail) from None

    @staticmethod
    def private_blobs(rows: Iterable[object]) -> set[bytes]:
        """Beside what every protocol has: sealed boxes."""
        kept = list(rows)
        return retention.private_blobs(kept) | {row.blob for row in kept if isinstance(row, ShareRow)}

    @staticmethod
    def lasting_blobs(state: CoordinatorState, rows: Iterable[object]) -> set[bytes]:
        """Beside what every protocol has: what is published of how the sum was opened."""
        outcome = state.then if isinstance(state, Publishing) else state
        opened = {outcome.openings_file, outcome.pairs_file} if isinstance(outcome, Finished) else set[bytes]()
        return retention.lasting_blobs(rows) | opened

    async def submit(self, event: CoordinatorEvent) -> None:
        """Feed a client's message; returns once it is accepted and durable."""
        if not isinstance(event, Contribution):
            await super().submit(event)
            return
        async with self._one_at_a_time(event.signed.statement.identity):
            await self._feed_kept(event, event.linear_hash)

    async def share_keys(self, message: ShareKeys) -> None:
        """Store a client's boxes, then feed its message."""
        data = b"".join(box.share_box + box.pair_box for box in message.boxes)
        event = SharesStored(message, hashlib.sha256(data).digest())
        async with self._one_at_a_time(message.signed.statement.identity):
            await self._feed_kept(event, data)

    def _start(self, setup: SetupRow) -> coordinator.CoordinatorTransition:
        return coordinator.start(self.session, setup)

    def _step(
        self, state: CoordinatorState, rows: Mapping[int, object], event: CoordinatorEvent
    ) -> coordinator.CoordinatorTransition:
        moment = coordinator.Moment(self.session, cast("Rows", rows), self._ports.clock.now_s())
        return coordinator.step(moment, state, event)

    async def _perform(self, effect: VectorWork) -> CoordinatorEvent | None:
        match effect:
            case FoldUploads(accepted):
                await self._adopt_partial_sums()
                return await asyncio.to_thread(self._fold, accepted)
            case RecoverSum(used):
                return await asyncio.to_thread(self._recover, used)

    def _publish_files(self, entry: bytes) -> None:
        state = showable(self.driver.state)
        match decode_entry(entry), state:
            case SessionOpen(), _:
                self._files.opened(self.setup())
            case KeysAdvertised(), Sharing():
                self._files.advertised(self.rows, state.cohort)
            case KeysShared(), Collecting():
                self._files.shared(self.rows, state.cohort)
            case SessionClose() as close, Confirming():
                self._files.closed(close, self.rows, state)
            case SessionResult() as result, Finished():
                self._files.result(result, state)
            case _:
                return

    @staticmethod
    def _takes_uploads(state: CoordinatorState) -> bool:
        return isinstance(state, Collecting)

    async def _feed_kept(self, event: Contribution | SharesStored, data: bytes) -> None:
        """Feed what names a blob, if it is acceptable: the blob is there before, and again after.

        Until there is a row, nothing keeps the blob of an ended session, which may be the same, from being deleted.
        """
        # Refused before anything is stored: else whoever reaches the port could fill the disk.
        await self.driver.check(lambda state, rows: admission.admit(self.session, cast("Rows", rows), state, event))
        name, blobs = hashlib.sha256(data).digest(), self._ports.blobs

        def keep() -> None:
            if not blobs.has(name):
                blobs.put(data)

        await asyncio.to_thread(keep)
        await self.driver.feed(event)
        await asyncio.to_thread(keep)

    def _offer_of(self, identity: bytes) -> Offer | None:
        state = self.driver.state
        if not isinstance(state, Collecting):
            return None
        index = admission.cohort_index(state.cohort, roster_position(self.session, identity))
        found = tables.header_at(self.rows, state.cohort, index)
        if found is None:
            return None
        return Offer(index, HashedUpload(found[1].upload, found[1].linear_hash), len(state.present))

    def _fold(self, accepted: tuple[int, ...]) -> CoordinatorEvent | None:
        state = self.driver.state
        if not isinstance(state, Folding) or state.accepted != accepted:
            return None  # an effect of before a restart, carried out again: this set is closed, or refuted
        headers = tables.staged_headers(self.rows, state.cohort, accepted)
        folded = self._fold_uploads(
            {index: HashedUpload(header.upload, header.linear_hash) for index, header in headers.items()}
        )
        return UploadsRefuted(folded.indices) if isinstance(folded, Refuted) else SumFolded(folded.limb_sum)

    def _recover(self, used: int) -> CoordinatorEvent | None:
        state = self.driver.state
        if not isinstance(state, Recovering) or state.used != used:
            return None  # an effect of before a restart, carried out again: this recovery is over
        last, blobs, parameters = state.unmasking, self._ports.blobs, self.session.parameters
        rows = dict(self.rows)  # answers go on arriving: what is published is what was used
        try:
            removal = recovery.recover(self.session, rows, last, blobs.read)
            lanes = masked_sum(
                blobs, tables.close_entry(rows).limb_sum, len(last.accepted), self.session.field_layout.lanes
            )
            vectors.remove_masks(lanes, removal, vectors.worker_threads())
            decoded = decode(parameters.encoding, parameters.noise, lanes, len(last.accepted))
            aggregate = AdapterMerge(parameters, self.setup(), blobs).keep(decoded.mean, len(last.accepted))
        except OpeningError as error:
            return RecoveryFailed(error.reason)
        except ArithmeticInputError as error:
            # Every mask is out, so some upload was not an encoding: nothing wrong is published.
            return RecoveryFailed(f"the sum does not decode: {error.field}")
        except AdapterError as error:
            return RecoveryFailed(f"the mean is no adapter: {error.reason.name}")
        _, answers = recovery.answers(rows, last)
        openings_file, pairs_file = self._files.keep_openings(rows, last, answers)
        return SumRecovered(
            openings=merkle.root(answers),
            integer_sum=blobs.put(vectors.as_bytes(decoded.integer_sum)),
            mean=blobs.put(vectors.as_bytes(decoded.mean)),
            aggregate=aggregate,
            openings_file=openings_file,
            pairs_file=pairs_file,
        )
