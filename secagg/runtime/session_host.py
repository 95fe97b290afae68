"""A session at the coordinator, whatever its protocol: its driver, its timers, its running limb sum.

What differs from protocol to protocol (the machine, what its effects are, what it publishes) is in the hosts built on
this.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from secagg.arith.errors import ArithmeticInputError
from secagg.crypto.signing import SigningKey
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import SignedReceipt
from secagg.protocol.persist import Persistence
from secagg.protocol.phases import Phase
from secagg.protocol.published import roster_position
from secagg.protocol.rows import (
    CommonEvent,
    DeadlinePassed,
    EntryPublished,
    HeaderRow,
    PhaseEnded,
    PublishEntry,
    RowKind,
    SetupRow,
    UploadStaged,
    find,
    log_size,
    row_key,
)
from secagg.protocol.transition import Transition
from secagg.runtime.adders import Adders, NoAdders
from secagg.runtime.clock import Clock
from secagg.runtime.driver import Driver
from secagg.runtime.institution_directory import InstitutionDirectory, NoInstitutions
from secagg.runtime.limb_sums import Contributions, Folded, Refuted, SessionSum
from secagg.runtime.partial_sum import HashedUpload
from secagg.runtime.ports import BlobStore, LogPort, RecordPort, SessionStore, StoreError
from secagg.runtime.shown import EffectT, EventT, SessionT, ShownSession, StateT
from secagg.transcript.entries import SignedRoster
from secagg.transcript.roster import RosterHead
from secagg.transcript.statements import Receipt, Signed


@dataclass(frozen=True, slots=True)
class CoordinatorPorts:
    """What a coordinator runs on.

    ``report`` is told of failures of background work (event, session, reason); ``institutions`` finds those who open
    the sums of one-shot sessions; ``adders`` are other processes that take uploads.
    """

    store: SessionStore
    blobs: BlobStore
    log: LogPort
    record: RecordPort
    clock: Clock
    key: SigningKey
    report: Callable[[str, bytes, str], None]
    institutions: InstitutionDirectory = field(default_factory=NoInstitutions)
    adders: Adders = field(default_factory=NoAdders)


@dataclass(frozen=True, slots=True)
class Offer:
    """A durable upload that may come to count: the index it is added under, and how many there may be in all."""

    index: int
    item: HashedUpload
    most: int


class SessionHost(ShownSession[SessionT, StateT, EventT, EffectT]):
    """One session. All methods run in one event loop; work on vectors goes to threads.

    ``persistence`` names the classes of the protocol's states, rows and effects.
    """

    persistence: ClassVar[Persistence]

    def __init__(self, session: SessionT, ports: CoordinatorPorts) -> None:
        driver: Driver[StateT, EventT | CommonEvent, EffectT | PublishEntry] = Driver(
            session.parameters.session, ports.store, self.persistence, self._step, self._dispatch
        )
        super().__init__(session, ports.blobs, ports.log, driver)
        self._ports = ports
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.Task[None] | None = None
        self._moved_on: asyncio.Future[None] | None = None
        self._arriving: dict[bytes, asyncio.Lock] = {}
        self._sum = SessionSum(ports.blobs, session.upload_lanes)
        self._adder: asyncio.Task[None] | None = None
        self._adds: dict[bytes, object] = {}

    async def open(self, setup: SetupRow) -> None:
        """Create the session and wait until its open entry is in the log."""
        await self.create(setup)
        await self.opened()

    async def create(self, setup: SetupRow) -> None:
        """Create the session; nobody is shown it before ``opened``.

        Raises:
            VersionConflictError: it exists.
        """
        await self.driver.create(self._start(setup))
        self._start_timer()

    async def opened(self) -> None:
        """Wait until the open entry is in the log."""
        while not log_size(self.rows):
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

    async def submit(self, event: EventT | CommonEvent) -> None:
        """Feed a message; returns once it is accepted and durable."""
        await self.driver.feed(event)
        if isinstance(event, UploadStaged):
            self._add_staged(event.identity)

    async def end_phase(self, phase: Phase) -> None:
        """End a phase now, if it is the current one."""
        await self.driver.feed(PhaseEnded(phase))

    def setup(self) -> SetupRow:
        """What the session was opened with."""
        row = find(self.rows, 0, RowKind.SETUP, SetupRow)
        if row is None:
            raise StoreError("the session has no setup row")
        return row

    def fixed_tensors(self) -> bytes:
        """SHA-256 name of the blob of the tensors that the merge needs to be the same for everybody.

        Raises:
            RemoteProtocolError: WRONG_PROTOCOL; it needs none.
        """
        digest = self.setup().fixed
        if not digest:
            raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "the session's merge has no fixed tensors")
        return digest

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
        if not self._takes_uploads(self.driver.state):
            raise RemoteProtocolError(RejectReason.SESSION_OVER if self.is_over else RejectReason.WRONG_PHASE)

    def open_uploads(self) -> tuple[Signed, ...]:
        """The accepted headers whose uploads may still come to count."""
        if not self._takes_uploads(self.driver.state):
            return ()
        headers = [row.signed for row in self.rows.values() if isinstance(row, HeaderRow)]
        return tuple(signed for signed in headers if not self.is_staged(signed.statement.identity))

    def offer_of(self, identity: bytes) -> Offer:
        """What is to be added up once this identity's upload, which was accepted, is durable.

        Raises:
            RemoteProtocolError: WRONG_PHASE or SESSION_OVER; it no longer comes to count.
        """
        offer = self._offer_of(identity)
        if offer is None:
            raise RemoteProtocolError(RejectReason.SESSION_OVER if self.is_over else RejectReason.WRONG_PHASE)
        return offer

    def leave_to(self, adder: object, identity: bytes) -> bool:
        """Leave an upload to another process, before it counts; False if this one or another adds it up already."""
        return self._adds.setdefault(identity, adder) is adder

    def take_back(self, adder: object) -> None:
        """Add here what was left to a process that is gone."""
        for identity in [each for each, who in self._adds.items() if who is adder]:
            del self._adds[identity]
            if self.is_staged(identity):
                self._add_staged(identity)

    async def ended(self) -> None:
        """Wait until the session has ended."""
        while not self.is_over:
            await self.driver.wait_for_change(self.driver.version)

    @property
    def moved_on(self) -> asyncio.Future[None]:
        """Done at the next change of the phase or the log. One for all watchers: a commit alone wakes none of them."""
        if self._moved_on is None or self._moved_on.done():
            self._moved_on = asyncio.get_running_loop().create_future()
        return self._moved_on

    # What the registry asks of a protocol, of sessions that need not be in memory.

    @staticmethod
    @abstractmethod
    def check_parameters(session: SessionT) -> None:
        """Refuse a session that could not be run, before anything of it is stored.

        Raises:
            RemoteProtocolError: the reason.
        """

    @staticmethod
    @abstractmethod
    def private_blobs(rows: Iterable[object]) -> set[bytes]:
        """Names of the blobs that are kept for the time of a session's retention; see ``secagg.runtime.retention``."""

    @staticmethod
    @abstractmethod
    def lasting_blobs(state: StateT, rows: Iterable[object]) -> set[bytes]:
        """Names of the blobs that a session needs for ever; see ``secagg.runtime.retention``."""

    # The machine, and what its effects are.

    @abstractmethod
    def _start(self, setup: SetupRow) -> Transition[StateT, EffectT | PublishEntry]:
        """The first state, with the effect that publishes the open entry."""

    @abstractmethod
    def _step(
        self, state: StateT, rows: Mapping[int, object], event: EventT | CommonEvent
    ) -> Transition[StateT, EffectT | PublishEntry]:
        """A step of the machine, now."""

    @abstractmethod
    async def _perform(self, effect: EffectT) -> EventT | CommonEvent | None:
        """Carry an effect of the protocol out; what is to be reported of it.

        It may be carried out twice, before and after a crash, or again after a failure.

        Raises:
            StoreError, OSError: to be tried again, for as long as it takes.
        """

    @abstractmethod
    def _publish_files(self, entry: bytes) -> None:
        """Write the files that an entry names, before the log has it. Blocks; raises as ``_perform`` does."""

    @staticmethod
    @abstractmethod
    def _takes_uploads(state: StateT) -> bool:
        """Whether an upload that becomes durable now counts."""

    @abstractmethod
    def _offer_of(self, identity: bytes) -> Offer | None:
        """What to add to the running limb sum for a staged upload; None where it no longer comes to count."""

    def _one_at_a_time(self, identity: bytes) -> asyncio.Lock:
        """What one identity sends is judged in turn: of many messages at once all but one would leave a blob behind.

        Raises:
            RemoteProtocolError: UNKNOWN_IDENTITY.
        """
        roster_position(self.session, identity)
        return self._arriving.setdefault(identity, asyncio.Lock())

    def _dispatch(self, identifier: int, effect: EffectT | PublishEntry) -> None:
        if identifier in self._tasks:
            return
        task = asyncio.ensure_future(self._carry_out(identifier, effect))
        self._tasks[identifier] = task
        task.add_done_callback(lambda _: self._tasks.pop(identifier, None))

    async def _carry_out(self, identifier: int, effect: EffectT | PublishEntry) -> None:
        delay_s = 0.1
        while True:
            try:
                if isinstance(effect, PublishEntry):
                    event: EventT | CommonEvent | None = await self._publish(effect)
                else:
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

    async def _publish(self, effect: PublishEntry) -> EntryPublished:
        # The files first: whoever sees an entry can fetch what it is about.
        await asyncio.to_thread(self._publish_files, effect.entry)
        index = await self._ports.log.append(self._entries(effect.position, effect.entry))
        return EntryPublished(effect.position, index)

    def _entries(self, position: int, entry: bytes) -> tuple[bytes, ...]:
        """What the log has to take: before the open entry the roster that it names, unless another session had it."""
        if position:
            return (entry,)
        setup = self.setup()
        return SignedRoster(RosterHead.from_bytes(setup.roster_head), setup.roster_signature).to_bytes(), entry

    def _add_staged(self, identity: bytes) -> None:
        """Add a durable upload to the limb sum, in the background: what is missing there at close is added then."""
        offer = self._offer_of(identity)
        if offer is None or self._adds.setdefault(identity, self) is not self:
            return
        self._sum.offer(offer.index, offer.item, offer.most)
        if self._adder is None or self._adder.done():
            self._adder = asyncio.ensure_future(self._add_offered())

    async def _add_offered(self) -> None:
        while self._sum.has_offered:
            try:
                await asyncio.to_thread(self._sum.add_offered)
            except (StoreError, OSError) as error:
                self._ports.report("limb_sum_delayed", self.session.parameters.session, type(error).__name__)

    async def _adopt_partial_sums(self) -> None:
        """Take over what other processes have added up: to be awaited before uploads are folded."""
        for partial in await self._ports.adders.partial_sums(self.session.parameters.session):
            await asyncio.to_thread(self._sum.adopt, partial)

    def _fold_uploads(self, accepted: Contributions) -> Folded | Refuted:
        """Check that the limb sums of ``accepted`` are what was signed, and store them. Blocks.

        Raises:
            StoreError, OSError: to be tried again.
        """
        try:
            folded = self._sum.fold(accepted)
        except ArithmeticInputError as error:
            self._sum.forget()
            raise StoreError(f"the running limb sum is damaged: {error.field}") from None
        if isinstance(folded, Folded):
            self._sum.forget()
        return folded

    def _start_timer(self) -> None:
        self._timer = asyncio.ensure_future(self._watch_deadlines())

    async def _watch_deadlines(self) -> None:
        last: tuple[Phase, int] | None = None
        while not self.is_over:
            version, deadline_s = self.driver.version, self._deadline_of(self.driver.state)
            stands = self._phase_of(self.driver.state), log_size(self.rows)
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


AnyHost: TypeAlias = SessionHost[Any, Any, Any, Any]
"""The host of a session of any protocol."""
