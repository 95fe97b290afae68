"""A contributor in one session: its driver, its messages, the masking of its input.

Everything is durable before it is sent, and is sent until it is acknowledged; after a crash the participant goes on
where it was. What was masked once is sent as it is: encoding again would draw new rounding under the same masks.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from secagg.crypto.rng import Rng
from secagg.derive.result import FloatVector
from secagg.protocol.errors import LocalProtocolError, ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.messages import (
    AdvertisedList,
    ClientMessage,
    ClosedList,
    Confirmations,
    ConfirmClose,
    Contribution,
    SessionEnded,
    SharedList,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.pairwise import client
from secagg.protocol.pairwise.client_states import (
    CLIENT_PERSISTENCE,
    Abandoned,
    Aborted,
    Advertised,
    Answered,
    ClientEffect,
    ClientEvent,
    ClientState,
    Completed,
    Confirmed,
    Contributed,
    InputMasked,
    Masking,
    MaskInput,
    Send,
    SharedKeys,
)
from secagg.protocol.pairwise.coordinator_states import Phase
from secagg.protocol.transition import Transition
from secagg.runtime import vectors
from secagg.runtime.driver import Driver
from secagg.runtime.log_trust import LogTrust, Seen
from secagg.runtime.ports import BlobStore, SessionStore, StoreError, UploadError
from secagg.runtime.shown import Status
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import ContributionHeader

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0
_TOO_LATE = frozenset({RejectReason.WRONG_PHASE, RejectReason.SESSION_OVER})


@enum.unique
class Milestone(enum.StrEnum):
    """What a participant has done, in words for people."""

    JOINED = "joined: keys advertised"
    SHARED = "keys shared with neighbours"
    MASKING = "masking the input"
    CONTRIBUTED = "uploading the masked input"
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

    async def send(self, session: bytes, message: ClientMessage) -> None:
        """Deliver a message that is not a contribution."""
        ...

    async def upload(self, session: bytes, message: Contribution, blobs: BlobStore) -> SignedReceipt:
        """Deliver a header and the masked input that it names; returns the receipt."""
        ...

    async def advertised_list(self, session: bytes, identity: bytes) -> AdvertisedList:
        """U1."""
        ...

    async def shared_list(self, session: bytes, identity: bytes) -> SharedList:
        """U2."""
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


class Participant:
    """One identity in one session. ``vector`` is encoded once, when the session is ready for it."""

    def __init__(
        self, context: client.ClientContext, vector: FloatVector, ports: ParticipantPorts, trust: LogTrust
    ) -> None:
        self._context = context
        self._trust = trust
        self._vector = vector
        self._ports = ports
        self._session = context.session.parameters.session
        self._identity = context.identity.public_bytes
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._masked: InputMasked | None = None
        self.report: vectors.EncodingReport | None = None
        self.receipt: SignedReceipt | None = None
        self._driver: Driver[ClientState, ClientEvent, ClientEffect] = Driver(
            self._session, ports.store, CLIENT_PERSISTENCE, self._step, self._dispatch
        )

    @property
    def state(self) -> ClientState:
        """The last durable state."""
        return self._driver.state

    async def join(self, view: LogView) -> None:
        """Advertise keys, or go on where an earlier process of this identity stopped.

        Raises:
            LocalProtocolError: the session is below the policy.
        """
        await self._check_stored()
        if not await self._driver.resume():
            await self._driver.create(client.start(self._context, view, self._ports.rng))
        self._announce()

    async def _check_stored(self) -> None:
        """What an earlier process left must be of this very session, before any of it is carried out.

        A second open entry with the same identifier would otherwise bring its own quorum and threshold.
        """
        stored = await self._ports.store.load(self._session)
        if stored is None:
            return
        state: ClientState = CLIENT_PERSISTENCE.decode(stored.state)
        if state.view.entries[0] != self._context.session.entry:
            raise RemoteProtocolError(RejectReason.LOG_FORKED, "the session was opened with other parameters before")

    async def run(self) -> ClientState:
        """Take part until the session has ended for this client.

        Returns:
            ``Completed``, or ``Aborted`` where the session was aborted.

        Raises:
            RemoteProtocolError: the coordinator broke a rule or refused; this client will not answer any more.
        """
        follower = asyncio.ensure_future(self._follow())
        try:
            await asyncio.wait({follower, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
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
        self._failed.cancel()
        if not self._failed.cancelled():
            self._failed.exception()  # nobody else may be left to take it

    async def _follow(self) -> None:
        delay_s = _FIRST_DELAY_S
        while not self._is_over():
            try:
                async for status in self._ports.coordinator.watch(self._session):
                    delay_s = _FIRST_DELAY_S
                    if await self._advance(status):
                        break
            except TransportError:
                pass
            except RemoteProtocolError as error:
                if error.reason is not RejectReason.TOO_MANY_WATCHERS:
                    raise
            if not self._is_over():
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def _advance(self, status: Status) -> bool:
        """Do what the session's progress makes possible; True when this watch has served its purpose."""
        # Before anything is asked: an answer must contain what was verified by then.
        seen = await asyncio.to_thread(self._trust.seen)
        if status.phase in {Phase.FINISHED, Phase.ABORTED}:
            await self._feed(await self._ports.coordinator.outcome(self._session), seen)
            return True
        try:
            event = await self._next_event(status)
        except RemoteProtocolError as error:
            if error.reason not in _TOO_LATE:
                raise
            # The session went on between the status and this call: what it is about now, the next watch says.
            return True
        if event is not None:
            try:
                await self._feed(event, seen)
            except RemoteProtocolError as error:
                if error.reason is not RejectReason.TOO_FEW_CONFIRMATIONS:
                    raise
                # Neighbours are still signing, of which no watcher hears: look again after a pause.
                return True
        return self._is_over()

    async def _next_event(self, status: Status) -> ClientEvent | None:
        port = self._ports.coordinator
        match self.state:
            case Advertised() if status.log_size >= 2:
                return await port.advertised_list(self._session, self._identity)
            case SharedKeys() if status.log_size >= 3:
                return await port.shared_list(self._session, self._identity)
            case Contributed() if status.log_size >= 4:
                return await port.closed_list(self._session)
            case Confirmed() if status.phase is Phase.UNMASK:
                return await port.confirmations(self._session, self._identity)
            case _:
                return None

    def _is_over(self) -> bool:
        return isinstance(self.state, Completed | Aborted)

    async def _feed(self, event: ClientEvent, seen: Seen | None = None) -> None:
        before = self.state
        evidence = _evidence_in(event)
        if evidence is not None and seen is not None:
            await asyncio.to_thread(self._trust.check, seen, evidence)
        await self._driver.feed(event)
        if evidence is not None:
            await asyncio.to_thread(self._trust.remember, evidence)
        if type(self.state) is not type(before):
            self._announce()

    def _announce(self) -> None:
        self._ports.progress(_MILESTONES[type(self.state)])

    def _step(
        self, state: ClientState, _rows: Mapping[int, object], event: ClientEvent
    ) -> Transition[ClientState, ClientEffect]:
        return client.step(self._context, state, event, self._ports.rng)

    def _dispatch(self, identifier: int, effect: ClientEffect) -> None:
        if identifier in self._tasks:
            return
        task = asyncio.ensure_future(self._carry_out(identifier, effect))
        self._tasks[identifier] = task
        task.add_done_callback(lambda _: self._tasks.pop(identifier, None))

    async def _carry_out(self, identifier: int, effect: ClientEffect) -> None:
        perform: Callable[[], Awaitable[None]]
        match effect:
            case MaskInput():
                perform = lambda: self._mask(effect)  # noqa: E731
            case Send(message):
                perform = lambda: self._send(message)  # noqa: E731
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                await perform()
                await self._driver.done(identifier)
                return
            except (TransportError, UploadError, StoreError, OSError):
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            except (ProtocolError, ValueError) as error:
                # Retrying would be refused again: the participation is over, and whoever runs it is told why.
                if not self._failed.done():
                    self._failed.set_exception(error)
                return

    async def _mask(self, plan: MaskInput) -> None:
        # After a failed commit: was the input masked, and only the answer lost?
        await self._driver.restore()
        if not isinstance(self.state, Masking):
            return
        if self._masked is None:
            self._masked = await asyncio.to_thread(self._encode_and_mask, plan)
        await self._feed(self._masked)

    def _encode_and_mask(self, plan: MaskInput) -> InputMasked:
        lanes, self.report = vectors.masked_input(self._context.session, self._vector, plan)
        linear_hash = vectors.linear_hash_of(lanes)
        return InputMasked(self._ports.blobs.put(vectors.as_bytes(lanes)), lanes.size, linear_hash)

    async def _send(self, message: ClientMessage) -> None:
        if isinstance(message, Contribution):
            receipt = await self._ports.coordinator.upload(self._session, message, self._ports.blobs)
            if isinstance(self.state, Contributed):
                await self._driver.feed(receipt)
            self.receipt = receipt
            await self._forget_upload(message)
            return
        try:
            await self._ports.coordinator.send(self._session, message)
        except RemoteProtocolError as error:
            # The sum can be complete without this signature or answer: then it comes too late, and no harm is done.
            if not (error.reason in _TOO_LATE and isinstance(message, ConfirmClose | UnmaskAnswer)):
                raise

    async def _forget_upload(self, message: Contribution) -> None:
        """The coordinator holds it durably and has said so: here it is not needed again."""
        header = message.signed.statement
        if isinstance(header, ContributionHeader):
            await asyncio.to_thread(self._ports.blobs.delete, header.upload)

    async def _abandon(self, reason: RejectReason) -> None:
        try:
            await self._driver.feed(Abandoned(reason))
        except (LocalProtocolError, StoreError):
            return


_MILESTONES: dict[type[ClientState], Milestone] = {
    Advertised: Milestone.JOINED,
    SharedKeys: Milestone.SHARED,
    Masking: Milestone.MASKING,
    Contributed: Milestone.CONTRIBUTED,
    Confirmed: Milestone.CONFIRMED,
    Answered: Milestone.ANSWERED,
    Completed: Milestone.COMPLETED,
    Aborted: Milestone.ABORTED,
}


def _evidence_in(event: ClientEvent) -> LogEvidence | None:
    match event:
        case AdvertisedList() | SharedList() | ClosedList() | SessionEnded():
            return event.evidence
        case _:
            return None
