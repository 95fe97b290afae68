"""A session at the coordinator: its driver, its timers, the work on vectors."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from secagg.arith.errors import ArithmeticInputError
from secagg.crypto.signing import SigningKey
from secagg.derive.opening import OpeningError
from secagg.derive.result import decode
from secagg.lora.errors import AdapterError
from secagg.protocol.messages import (
    Contribution,
    ShareKeys,
    SignedReceipt,
)
from secagg.protocol.pairwise import admission, coordinator, recovery, tables
from secagg.protocol.pairwise.admission import roster_position
from secagg.protocol.pairwise.coordinator_states import (
    COORDINATOR_PERSISTENCE,
    Aborted,
    Collecting,
    Confirming,
    CoordinatorEffect,
    CoordinatorEvent,
    CoordinatorState,
    DeadlinePassed,
    EntryPublished,
    Finished,
    Folding,
    FoldUploads,
    HeaderRow,
    Phase,
    PhaseEnded,
    PublishEntry,
    Publishing,
    Recovering,
    RecoverSum,
    RecoveryFailed,
    RowKind,
    Rows,
    SetupRow,
    SharesStored,
    Sharing,
    SumFolded,
    SumRecovered,
    UploadsRefuted,
    UploadStaged,
    deadline_of,
    phase_of,
    row_key,
)
from secagg.protocol.session import Session
from secagg.runtime import vectors
from secagg.runtime.adapters import merged_adapter
from secagg.runtime.clock import Clock
from secagg.runtime.driver import Driver
from secagg.runtime.limb_sums import HashedUpload, Refuted, SessionSum, masked_sum
from secagg.runtime.ports import BlobStore, LogPort, RecordPort, SessionStore, StoreError
from secagg.runtime.publication import SessionFiles
from secagg.runtime.shown import ShownSession, showable
from secagg.transcript import merkle
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    SessionClose,
    SessionOpen,
    SessionResult,
    SignedRoster,
    decode_entry,
)
from secagg.transcript.roster import RosterHead
from secagg.transcript.statements import Receipt, Signed


@dataclass(frozen=True, slots=True)
class CoordinatorPorts:
    """What a coordinator runs on. ``report`` is told of failures of background work (event, session, reason)."""

    store: SessionStore
    blobs: BlobStore
    log: LogPort
    record: RecordPort
    clock: Clock
    key: SigningKey
    report: Callable[[str, bytes, str], None]


class SessionHost(ShownSession):
    """One pairwise session. All methods run in one event loop; work on vectors goes to threads."""

    def __init__(self, session: Session, ports: CoordinatorPorts) -> None:
        driver: Driver[CoordinatorState, CoordinatorEvent, CoordinatorEffect] = Driver(
            session.parameters.session, ports.store, COORDINATOR_PERSISTENCE, self._step, self._dispatch
        )
        super().__init__(session, ports.blobs, ports.log, driver)
        self._ports = ports
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.Task[None] | None = None
        self._moved_on: asyncio.Future[None] | None = None
        self._files = SessionFiles(session, ports.record, ports.blobs)
        self._arriving: dict[bytes, asyncio.Lock] = {}
        self._sum = SessionSum(ports.blobs, session.field_layout.lanes)
        self._adder: asyncio.Task[None] | None = None

    async def open(self, setup: SetupRow) -> None:
        """Create the session and wait until its open entry is in the log."""
        await self.create(setup)
        await self.opened()

    async def create(self, setup: SetupRow) -> None:
        """Create the session; nobody is shown it before ``opened``.

        Raises:
            VersionConflictError: it exists.
        """
        await self.driver.create(coordinator.start(self.session, setup))
        self._start_timer()

    async def opened(self) -> None:
        """Wait until the open entry is in the log."""
        while isinstance(state := self.driver.state, Publishing) and state.position == 0:
            await self.driver.wait_for_change(self.driver.version)

    async def resume(self) -> None:
        """Go on after a restart."""
        if not await self.driver.resume():
            raise StoreError("the session is not in the store")
        for row in list(self.rows.values()):
            if isinstance(row, HeaderRow) and self.is_staged(row.signed.statement.identity):
                self._add_staged(row.signed.statement.identity)
        self._start_timer()

    async def close(self) -> None:
        """Stop timers and background work; what they had not finished is done after the next start."""
        self._sum.stop()
        more = [task for task in (self._timer, self._adder) if task is not None]
        await self.driver.close([*self._tasks.values(), *more])

    async def submit(self, event: CoordinatorEvent) -> None:
        """Feed a client's message; returns once it is accepted and durable."""
        if isinstance(event, Contribution):
            async with self._one_at_a_time(event.signed.statement.identity):
                await self._keep_linear_hash(event)
                await self.driver.feed(event)
            return
        await self.driver.feed(event)
        if isinstance(event, UploadStaged):
            self._add_staged(event.identity)

    async def end_phase(self, phase: Phase) -> None:
        """End a phase now, if it is the current one."""
        await self.driver.feed(PhaseEnded(phase))

    async def share_keys(self, message: ShareKeys) -> None:
        """Store a client's boxes, then feed its message."""
        data = b"".join(box.share_box + box.pair_box for box in message.boxes)
        # Refused before anything is stored: else whoever reaches the port could fill the disk.
        event = SharesStored(message, hashlib.sha256(data).digest())
        async with self._one_at_a_time(message.signed.statement.identity):
            await self.driver.check(lambda state, rows: admission.admit(self.session, cast("Rows", rows), state, event))
            blob = await asyncio.to_thread(self._ports.blobs.put, data)
            await self.driver.feed(SharesStored(message, blob))

    def _one_at_a_time(self, identity: bytes) -> asyncio.Lock:
        """What one identity sends is judged in turn: of many messages at once all but one would leave a blob behind.

        Raises:
            RemoteProtocolError: UNKNOWN_IDENTITY.
        """
        roster_position(self.session, identity)
        return self._arriving.setdefault(identity, asyncio.Lock())

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        return isinstance(self.driver.state, Finished | Aborted)

    def setup(self) -> SetupRow:
        """What the session was opened with."""
        row = self.rows[row_key(0, RowKind.SETUP)]
        if not isinstance(row, SetupRow):
            raise StoreError("the session has no setup row")
        return row

    def receipt(self, signed: Signed) -> SignedReceipt:
        """The signed receipt for an accepted contribution."""
        receipt = Receipt(self.session.digest, hashlib.sha256(signed.to_bytes()).digest()).to_bytes()
        return SignedReceipt(receipt, self._ports.key.sign_statement(receipt))

    def is_staged(self, identity: bytes) -> bool:
        """Whether this identity's upload is durable and counted."""
        position = roster_position(self.session, identity)
        return row_key(position, RowKind.STAGED) in self.rows

    def check_collecting(self) -> None:
        """Raise RemoteProtocolError(WRONG_PHASE or SESSION_OVER) unless uploads still count."""
        if not isinstance(self.driver.state, Collecting):
            raise admission.wrong_phase(self.driver.state)

    def open_uploads(self) -> tuple[Signed, ...]:
        """The accepted headers whose uploads may still come to count."""
        if not isinstance(self.driver.state, Collecting):
            return ()
        headers = [row.signed for row in self.rows.values() if isinstance(row, HeaderRow)]
        return tuple(signed for signed in headers if not self.is_staged(signed.statement.identity))

    async def ended(self) -> None:
        """Wait until the session has ended."""
        while not isinstance(self.driver.state, Finished | Aborted):
            await self.driver.wait_for_change(self.driver.version)

    @property
    def moved_on(self) -> asyncio.Future[None]:
        """Done at the next change of the phase or the log. One for all watchers: a commit alone wakes none of them."""
        if self._moved_on is None or self._moved_on.done():
            self._moved_on = asyncio.get_running_loop().create_future()
        return self._moved_on

    def _step(
        self, state: CoordinatorState, rows: Mapping[int, object], event: CoordinatorEvent
    ) -> coordinator.CoordinatorTransition:
        moment = coordinator.Moment(self.session, cast("Rows", rows), self._ports.clock.now_s())
        return coordinator.step(moment, state, event)

    def _dispatch(self, identifier: int, effect: CoordinatorEffect) -> None:
        if identifier in self._tasks:
            return
        task = asyncio.ensure_future(self._carry_out(identifier, effect))
        self._tasks[identifier] = task
        task.add_done_callback(lambda _: self._tasks.pop(identifier, None))

    async def _carry_out(self, identifier: int, effect: CoordinatorEffect) -> None:
        delay_s = 0.1
        while True:
            try:
                event = await self._perform(effect)
                if event is not None:
                    await self.driver.feed(event)
                await self.driver.done(identifier)
                return
            except (StoreError, OSError) as error:
                self._ports.report("effect_failed", self.session.parameters.session, type(error).__name__)
            # The disk may recover; the session waits for it as long as it takes.
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 10.0)

    async def _perform(self, effect: CoordinatorEffect) -> CoordinatorEvent | None:
        match effect:
            case PublishEntry(position, entry):
                # The files first: whoever sees an entry can fetch what it is about.
                await asyncio.to_thread(self._publish_files, entry)
                return EntryPublished(position, await self._ports.log.append(self._entries(position, entry)))
            case FoldUploads(accepted):
                return await asyncio.to_thread(self._fold, accepted)
            case RecoverSum(used):
                return await asyncio.to_thread(self._recover, used)

    def _entries(self, position: int, entry: bytes) -> tuple[bytes, ...]:
        """What the log has to take: before the open entry the roster that it names, unless another session had it."""
        if position:
            return (entry,)
        setup = self.setup()
        return SignedRoster(RosterHead.from_bytes(setup.roster_head), setup.roster_signature).to_bytes(), entry

    def _publish_files(self, data: bytes) -> None:
        state = showable(self.driver.state)
        match decode_entry(data), state:
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

    async def _keep_linear_hash(self, message: Contribution) -> None:
        # Refused before anything is stored, as with boxes; and once a header is accepted, its hash is there.
        await self.driver.check(lambda state, rows: admission.admit(self.session, cast("Rows", rows), state, message))
        position = roster_position(self.session, message.signed.statement.identity)
        if row_key(position, RowKind.HEADER) not in self.rows:
            await asyncio.to_thread(self._ports.blobs.put, message.linear_hash)

    def _add_staged(self, identity: bytes) -> None:
        """Add a durable upload to the limb sum, in the background: what is missing there at close is added then."""
        state = self.driver.state
        if not isinstance(state, Collecting):
            return
        index = admission.cohort_index(state.cohort, roster_position(self.session, identity))
        found = tables.header_at(self.rows, state.cohort, index)
        if found is None:
            return
        self._sum.offer(index, HashedUpload(found[1].upload, found[1].linear_hash), len(state.present))
        if self._adder is None or self._adder.done():
            self._adder = asyncio.ensure_future(self._add_offered())

    async def _add_offered(self) -> None:
        while self._sum.has_offered:
            try:
                await asyncio.to_thread(self._sum.add_offered)
            except (StoreError, OSError) as error:
                self._ports.report("limb_sum_delayed", self.session.parameters.session, type(error).__name__)

    def _fold(self, accepted: tuple[int, ...]) -> CoordinatorEvent | None:
        state = self.driver.state
        if not isinstance(state, Folding) or state.accepted != accepted:
            return None  # an effect of before a restart, carried out again: this set is closed, or refuted
        headers = tables.staged_headers(self.rows, state.cohort, accepted)
        items = {index: HashedUpload(header.upload, header.linear_hash) for index, header in headers.items()}
        try:
            folded = self._sum.fold(items)
        except ArithmeticInputError as error:
            self._sum.forget()
            raise StoreError(f"the running limb sum is damaged: {error.field}") from None
        if isinstance(folded, Refuted):
            return UploadsRefuted(folded.indices)
        self._sum.forget()
        return SumFolded(folded.limb_sum)

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
            decoded = decode(parameters.encoding, lanes, len(last.accepted))
            setup = self.setup()
            files = merged_adapter(parameters, blobs.get(setup.layout), blobs.get(setup.adapter), decoded.mean)
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
            adapter_model=blobs.put(files[0]),
            adapter_config=blobs.put(files[1]),
            openings_file=openings_file,
            pairs_file=pairs_file,
        )

    def _start_timer(self) -> None:
        self._timer = asyncio.ensure_future(self._watch_deadlines())

    async def _watch_deadlines(self) -> None:
        last: tuple[Phase, int] | None = None
        while not isinstance(self.driver.state, Finished | Aborted):
            version, deadline_s = self.driver.version, deadline_of(self.driver.state)
            stands = phase_of(self.driver.state), tables.log_size(self.rows)
            if stands != last:
                last = stands
                self._move_on()
            remaining = None if deadline_s is None else max(0, deadline_s - self._ports.clock.now_s())
            if remaining == 0:
                await self._feed_deadline()
                continue
            # Not wait_for: it can swallow a cancellation that meets a change.
            changed = asyncio.ensure_future(self.driver.wait_for_change(version))
            try:
                await asyncio.wait({changed}, timeout=remaining)
            finally:
                changed.cancel()
        self._move_on()
        await asyncio.to_thread(self._sum.forget)

    def _move_on(self) -> None:
        if self._moved_on is not None and not self._moved_on.done():
            self._moved_on.set_result(None)
            self._moved_on = None

    async def _feed_deadline(self) -> None:
        try:
            await self.driver.feed(DeadlinePassed())
        except StoreError as error:
            self._ports.report("deadline_failed", self.session.parameters.session, type(error).__name__)
            await asyncio.sleep(1.0)
