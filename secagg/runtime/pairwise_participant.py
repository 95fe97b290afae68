"""A contributor in one pairwise session: its messages, the masking of its input."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from secagg.derive.result import FloatVector
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.messages import (
    AdvertisedList,
    ClientMessage,
    ClosedList,
    ConfirmClose,
    Contribution,
    SessionEnded,
    SharedList,
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
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.persist import Persistence
from secagg.protocol.phases import Phase
from secagg.protocol.transition import Transition
from secagg.runtime import vectors
from secagg.runtime.log_trust import LogTrust, Seen
from secagg.runtime.participant import TOO_LATE, Milestone, Participant, ParticipantPorts
from secagg.runtime.shown import Status
from secagg.transcript.evidence import LogEvidence


class PairwiseParticipant(Participant[ClientState, ClientEvent, ClientEffect]):
    """One identity in one pairwise session: it stays until the sum is published."""

    def __init__(
        self, context: client.ClientContext, vector: FloatVector, ports: ParticipantPorts, trust: LogTrust
    ) -> None:
        self._context = context
        self._identity = context.identity.public_bytes
        self._masked: InputMasked | None = None
        super().__init__(vector, ports, trust)

    @property
    def _joined(self) -> PairwiseSession:
        return self._context.session

    @property
    def _persistence(self) -> Persistence:
        return CLIENT_PERSISTENCE

    def _start(self, view: LogView) -> Transition[ClientState, ClientEffect]:
        return client.start(self._context, view, self._ports.rng)

    def _step(
        self, state: ClientState, _rows: Mapping[int, object], event: ClientEvent
    ) -> Transition[ClientState, ClientEffect]:
        return client.step(self._context, state, event, self._ports.rng)

    def _abandoned(self, reason: RejectReason) -> Abandoned:
        return Abandoned(reason)

    def _comes_first(self, effect: ClientEffect) -> bool:
        # An answer that overtakes its confirmation is refused for good, and no entry lists confirmations.
        return isinstance(effect, Send) and isinstance(effect.message, ConfirmClose)

    def _is_over(self) -> bool:
        return isinstance(self.state, Completed | Aborted)

    def _milestone(self, state: ClientState) -> Milestone:
        return _MILESTONES[type(state)]

    async def _advance(self, status: Status) -> bool:
        # Before anything is asked: an answer must contain what was verified by then.
        seen = await self._seen()
        if status.phase in {Phase.FINISHED, Phase.ABORTED}:
            await self._feed_shown(await self._ports.coordinator.outcome(self._session), seen)
            return True
        # Whoever comes late finds several steps due at once, and perhaps no further change ever tells it so.
        while True:
            try:
                event = await self._next_event(status)
            except RemoteProtocolError as error:
                if error.reason not in TOO_LATE:
                    raise
                # The session went on between the status and this call: what it is about now, the next watch says.
                return True
            if event is None:
                return self._is_over()
            try:
                await self._feed_shown(event, seen)
            except RemoteProtocolError as error:
                if error.reason is not RejectReason.TOO_FEW_CONFIRMATIONS:
                    raise
                # Neighbours are still signing, of which no watcher hears: look again after a pause.
                return True
            seen = await self._seen()

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

    async def _feed_shown(self, event: ClientEvent, seen: Seen) -> None:
        await self._feed(event, _evidence_in(event), seen)

    async def _perform(self, effect: ClientEffect) -> None:
        match effect:
            case MaskInput():
                await self._mask(effect)
            case Send(message):
                await self._send(message)

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
            await self._forget_upload(message.signed)
            return
        try:
            await self._ports.coordinator.send(self._session, message)
        except RemoteProtocolError as error:
            # The sum can be complete without this signature or answer: then it comes too late, and no harm is done.
            if not (error.reason in TOO_LATE and isinstance(message, ConfirmClose | UnmaskAnswer)):
                raise


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
