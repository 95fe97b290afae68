"""A contributor in one session: its driver, its messages, and how it goes on after refusals and crashes.

Everything is durable before it is sent, and is sent until it is acknowledged; after a crash the participant goes on
where it was. What was masked once is sent as it is: encoding again would draw new rounding under the same masks. What
the machine of a protocol asks for is in ``pairwise_participant`` and ``one_shot_participant``.
"""

from __future__ import annotations

import abc
import asyncio
import enum
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from secagg.crypto.rng import Rng
from secagg.derive.result import FloatVector
from secagg.he.errors import HeUnavailableError
from secagg.protocol.errors import LocalProtocolError, ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.messages import (
    AdvertisedList,
    ClientMessage,
    ClosedList,
    Confirmations,
    Contribution,
    SessionEnded,
    SharedList,
    SignedReceipt,
)
from secagg.protocol.one_shot.messages import CommitContribution, CommittedList, OneShotContribution
from secagg.protocol.persist import Persistence
from secagg.protocol.session import Session
from secagg.protocol.transition import Transition
from secagg.runtime.driver import Driver
from secagg.runtime.log_trust import LogTrust, Seen
from secagg.runtime.ports import BlobStore, SessionStore, StoreError, UploadError
from secagg.runtime.shown import Status
from secagg.runtime.vectors import EncodingReport
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import ContributionHeader, OneShotHeader, Signed

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
TOO_LATE = frozenset({RejectReason.WRONG_PHASE, RejectReason.SESSION_OVER})


@enum.unique
class Milestone(enum.StrEnum):
    """What a participant has done, in words for people."""

    JOINED = "joined: keys advertised"
    SHARED = "keys shared with neighbours"
    MASKING = "masking the input"
    COMMITTED = "committed to the masked input; waiting for the others' commitments"
    CONTRIBUTED = "uploading the masked input"
    DELIVERED = "the coordinator holds the masked input: nothing more is asked of you"
    CONFIRMED = "close entry checked and confirmed"
    ANSWERED = "shares released for the closed set"
    COMPLETED = "the sum is published"
    ABORTED = "the session was aborted"


class TransportError(Exception):
    """The coordinator could not be reached, or did not answer in time; the same call may succeed later."""


class CoordinatorPort(Protocol):
    """A coordinator as a participant sees it. Refusals are RemoteProtocolErrors, the rest TransportErrors."""

    def watch(self, session: bytes) -> AsyncIterator[Status]:
        """Where the session stands, now and whenever it changes."""
        ...

    async def send(self, session: bytes, message: ClientMessage | CommitContribution) -> None:
        """Deliver a message that is not a contribution."""
        ...

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """Deliver a header, what comes with it and the masked input that it names; returns the receipt."""
        ...

    async def advertised_list(self, session: bytes, identity: bytes) -> AdvertisedList:
        """U1."""
        ...

    async def shared_list(self, session: bytes, identity: bytes) -> SharedList:
        """U2."""
        ...

    async def committed_list(self, session: bytes) -> CommittedList:
        """What was committed to (one-shot with a key authority)."""
        ...

    async def closed_list(self, session: bytes) -> ClosedList:
        """U3."""
        ...

    async def confirmations(self, session: bytes, identity: bytes) -> Confirmations:
        """What the neighbours signed."""
        ...

    async def outcome(self, session: bytes) -> SessionEnded:
        """How the session ended."""
        ...


@dataclass(frozen=True, slots=True)
class ParticipantPorts:
    """What a participant runs on; ``store`` must encrypt what it keeps. ``progress`` hears of every new state."""

    store: SessionStore
    blobs: BlobStore
    coordinator: CoordinatorPort
    rng: Rng
    progress: Callable[[Milestone], None]


class HasView(Protocol):
    """Any state of a client machine: it knows the log."""

    @property
    def view(self) -> LogView:
        """The log, as it was last verified."""
        ...


StateT = TypeVar("StateT", bound=HasView)
EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")


class Participant(abc.ABC, Generic[StateT, EventT, EffectT]):
    """One identity in one session. ``vector`` is encoded once, when the session is ready for it.

    Attributes:
        report: what encoding did to the vector, once it is done.
        receipt: the coordinator's word that it holds the contribution, once it is given.
    """

    def __init__(self, vector: FloatVector, ports: ParticipantPorts, trust: LogTrust) -> None:
        self._trust = trust
        self._vector = vector
        self._ports = ports
        self._session = self._joined.parameters.session
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._first: dict[int, asyncio.Task[None]] = {}
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.report: EncodingReport | None = None
        self.receipt: SignedReceipt | None = None
        self._driver: Driver[StateT, EventT, EffectT] = Driver(
            self._session, ports.store, self._persistence, self._step, self._dispatch
        )

    @property
    @abc.abstractmethod
    def _joined(self) -> Session:
        """The session."""

    @property
    @abc.abstractmethod
    def _persistence(self) -> Persistence:
        """How states and effects are stored."""

    @abc.abstractmethod
    def _start(self, view: LogView) -> Transition[StateT, EffectT]:
        """The machine's first transition."""

    @abc.abstractmethod
    def _step(self, state: StateT, _rows: Mapping[int, object], event: EventT) -> Transition[StateT, EffectT]:
        """The machine's transition on an event."""

    @abc.abstractmethod
    async def _advance(self, status: Status) -> bool:
        """Do what the session's progress makes possible; True when this watch has served its purpose."""

    @abc.abstractmethod
    async def _perform(self, effect: EffectT) -> None:
        """Carry an effect out; called again after errors that pass."""

    @abc.abstractmethod
    def _comes_first(self, effect: EffectT) -> bool:
        """Whether later effects wait until this one is carried out.

        Only where nothing else shows that it was: what comes after an entry of the log that lists a message need not
        wait for the acknowledgement of the message, which may be lost in silence.
        """

    @abc.abstractmethod
    def _abandoned(self, reason: RejectReason) -> EventT:
        """The event that the session is given up."""

    @abc.abstractmethod
    def _is_over(self) -> bool:
        """Whether nothing more is to be done."""

    @abc.abstractmethod
    def _milestone(self, state: StateT) -> Milestone:
        """What has been done in this state."""

    @property
    def state(self) -> StateT:
        """The last durable state."""
        return self._driver.state

    async def join(self, view: LogView) -> None:
        """Take the first step, or go on where an earlier process of this identity stopped.

        Raises:
            LocalProtocolError: the session is below the policy.
        """
        await self._check_stored()
        if not await self._driver.resume():
            await self._driver.create(self._start(view))
        self._ports.progress(self._milestone(self.state))

    async def _check_stored(self) -> None:
        """What an earlier process left must be of this very session, before any of it is carried out.

        A second open entry with the same identifier would otherwise bring its own quorum and threshold.
        """
        stored = await self._ports.store.load(self._session)
        if stored is None:
            return
        state: StateT = self._persistence.decode(stored.state)
        if state.view.entries[0] != self._joined.entry:
            raise RemoteProtocolError(RejectReason.LOG_FORKED, "the session was opened with other parameters before")

    async def run(self) -> StateT:
        """Take part until nothing more is asked of this client.

        Returns:
            The terminal state of the machine.

        Raises:
            RemoteProtocolError: the coordinator broke a rule or refused; this client will not answer any more.
        """
        follower = asyncio.ensure_future(self._follow())
        try:
            await asyncio.wait({follower, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            if self._ended.done():
                self._ended.result()
            else:
                follower.result()
            return self.state
        except RemoteProtocolError as error:
            await self._abandon(error.reason)
            raise
        finally:
            await self.close(follower)

    async def close(self, *more: asyncio.Task[None]) -> None:
        """Stop background work; what is not delivered is delivered by the next process."""
        await self._driver.close([*self._tasks.values(), *more])
        self._ended.cancel()
        if not self._ended.cancelled():
            self._ended.exception()  # nobody else may be left to take it

    async def _follow(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._is_over():
            try:
                async for status in self._ports.coordinator.watch(self._session):
                    if await self._advance(status):
                        break
                    # Not before it got on: what it lacks may never come, and thousands would ask for it.
                    delay_s = FIRST_DELAY_S
            except TransportError:
                pass
            except RemoteProtocolError as error:
                if error.reason is not RejectReason.TOO_MANY_WATCHERS:
                    raise
            if not self._is_over():
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _seen(self) -> Seen:
        """What was verified of the log: to be asked for before an answer that must contain it."""
        return await asyncio.to_thread(self._trust.seen)

    async def _feed(self, event: EventT, evidence: LogEvidence | None = None, seen: Seen | None = None) -> None:
        """Step on an event; ``evidence`` is what it shows of the log, checked against ``seen`` and then remembered."""
        before = self.state
        if evidence is not None and seen is not None:
            await asyncio.to_thread(self._trust.check, seen, evidence)
        after = await self._driver.feed(event)
        if evidence is not None:
            await asyncio.to_thread(self._trust.remember, evidence)
        if type(after) is not type(before):
            self._ports.progress(self._milestone(after))

    def _finish(self) -> None:
        """End ``run`` from an effect: nothing more is to come."""
        if not self._ended.done():
            self._ended.set_result(None)

    def _dispatch(self, identifier: int, effect: EffectT) -> None:
        if identifier in self._tasks:
            return
        task = asyncio.ensure_future(self._in_turn(tuple(self._first.values()), identifier, effect))
        self._tasks[identifier] = task
        if self._comes_first(effect):
            self._first[identifier] = task
        task.add_done_callback(lambda _: self._forget_task(identifier))

    def _forget_task(self, identifier: int) -> None:
        self._tasks.pop(identifier, None)
        self._first.pop(identifier, None)

    async def _in_turn(self, before: tuple[asyncio.Task[None], ...], identifier: int, effect: EffectT) -> None:
        """Carry out an effect after those that come first."""
        if before:
            await asyncio.wait(before)
        await self._carry_out(identifier, effect)

    async def _carry_out(self, identifier: int, effect: EffectT) -> None:
        delay_s = FIRST_DELAY_S
        while True:
            try:
                await self._perform(effect)
                await self._driver.done(identifier)
                return
            except (TransportError, UploadError, StoreError, OSError):
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)
            except (ProtocolError, ValueError, HeUnavailableError) as error:
                # Retrying would be refused again: the participation is over, and whoever runs it is told why.
                if not self._ended.done():
                    self._ended.set_exception(error)
                return

    async def _forget_upload(self, sent: Signed) -> None:
        """The coordinator holds it durably and has said so: here it is not needed again."""
        header = sent.statement
        if isinstance(header, ContributionHeader | OneShotHeader):
            await asyncio.to_thread(self._ports.blobs.delete, header.upload)

    async def _abandon(self, reason: RejectReason) -> None:
        try:
            await self._driver.feed(self._abandoned(reason))
        except (LocalProtocolError, StoreError):
            return
