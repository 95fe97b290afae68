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
from secagg.derive.result import Lanes, decode
from secagg.protocol.messages import (
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
    deadline_of,
    phase_of,
    row_key,
)
from secagg.protocol.session import Session
from secagg.runtime import vectors
from secagg.runtime.clock import Clock
from secagg.runtime.driver import Driver
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
        self._folded: Lanes | None = None

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
        self._start_timer()

    async def close(self) -> None:
        """Stop timers and background work; what they had not finished is done after the next start."""
        await self.driver.close([*self._tasks.values(), *([self._timer] if self._timer else [])])

    async def submit(self, event: CoordinatorEvent) -> None:
        """Feed a client's message; returns once it is accepted and durable."""
        await self.driver.feed(event)

    async def end_phase(self, phase: Phase) -> None:
        """End a phase now, if it is the current one."""
        await self.driver.feed(PhaseEnded(phase))

    async def share_keys(self, message: ShareKeys) -> None:
        """Store a client's boxes, then feed its message."""
        data = b"".join(box.share_box + box.pair_box for box in message.boxes)
        # Refused before anything is stored: else whoever reaches the port could fill the disk.
        event = SharesStored(message, hashlib.sha256(data).digest())
        await self.driver.check(lambda state, rows: admission.admit(self.session, cast("Rows", rows), state, event))
        blob = await asyncio.to_thread(self._ports.blobs.put, data)
        await self.driver.feed(SharesStored(message, blob))

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
            case FoldUploads(digests):
                self._folded = await asyncio.to_thread(self._fold, digests)
                return SumFolded(vectors.digest_of(self._folded))
            case RecoverSum():
                return await asyncio.to_thread(self._recover)

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
                self._files.result(result)
            case _:
                return

    def _fold(self, digests: tuple[bytes, ...]) -> Lanes:
        lanes = self.session.field_layout.lanes
        return vectors.fold(self._ports.blobs, digests, lanes, vectors.worker_threads())

    def _recover(self) -> CoordinatorEvent | None:
        state = self.driver.state
        if not isinstance(state, Recovering):
            return None  # an effect of before a restart, carried out again: this recovery is over
        last = state.unmasking
        try:
            removal = recovery.recover(self.session, self.rows, last, self._ports.blobs.read)
            if self._folded is None:
                headers = tables.staged_headers(self.rows, last.cohort, last.accepted)
                self._folded = self._fold(tuple(headers[index].upload for index in last.accepted))
            lanes = self._folded.copy()
            vectors.remove_masks(lanes, removal, vectors.worker_threads())
            decoded = decode(self.session.parameters.encoding, lanes, len(last.accepted))
        except OpeningError as error:
            return RecoveryFailed(error.reason)
        except ArithmeticInputError as error:
            # Every mask is out, so some upload was not an encoding: nothing wrong is published.
            return RecoveryFailed(f"the sum does not decode: {error.field}")
        integer_sum = self._ports.blobs.put(vectors.as_bytes(decoded.integer_sum))
        mean = self._ports.blobs.put(vectors.as_bytes(decoded.mean))
        self._folded = None
        _, answers = recovery.answers(self.rows, last)
        return SumRecovered(merkle.root(answers), integer_sum, mean)

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
