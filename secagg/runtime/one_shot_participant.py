"""A contributor in one one-shot session: it masks its input, delivers it, and leaves.

Where a key authority opens the sum it waits once, for the list of what was committed to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from secagg.derive import member_boxes
from secagg.derive.result import FloatVector
from secagg.he.bfv import EncryptionContext
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.one_shot import client
from secagg.protocol.one_shot.client_states import (
    ONE_SHOT_CLIENT_PERSISTENCE,
    Abandoned,
    Aborted,
    Committed,
    Contributed,
    Delivered,
    InputMasked,
    Masking,
    MaskInput,
    OneShotClientEffect,
    OneShotClientEvent,
    OneShotClientState,
    Send,
)
from secagg.protocol.one_shot.messages import CommitContribution, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.persist import Persistence
from secagg.protocol.phases import Phase
from secagg.protocol.transition import Transition
from secagg.runtime import vectors
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.participant import TOO_LATE, Milestone, Participant, ParticipantPorts
from secagg.runtime.shown import Status
from secagg.transcript.openers import Committee


class OneShotParticipant(Participant[OneShotClientState, OneShotClientEvent, OneShotClientEffect]):
    """One identity in one one-shot session: it stays until its masked input is held.

    Args:
        context: key, session, policy.
        vector: float32, in layout order.
        ports: what it runs on.
        trust: what is known of the log.
        encryption: the session's public encryption context, whose digest was checked; None with a committee.
    """

    def __init__(
        self,
        context: client.OneShotClientContext,
        vector: FloatVector,
        ports: ParticipantPorts,
        trust: LogTrust,
        encryption: EncryptionContext | None,
    ) -> None:
        self._context = context
        self._encryption = encryption
        self._masked: InputMasked | None = None
        super().__init__(vector, ports, trust)

    @property
    def _joined(self) -> OneShotSession:
        return self._context.session

    @property
    def _persistence(self) -> Persistence:
        return ONE_SHOT_CLIENT_PERSISTENCE

    def _start(self, view: LogView) -> Transition[OneShotClientState, OneShotClientEffect]:
        return client.start(self._context, view, self._ports.rng)

    def _step(
        self, state: OneShotClientState, _rows: Mapping[int, object], event: OneShotClientEvent
    ) -> Transition[OneShotClientState, OneShotClientEffect]:
        return client.step(self._context, state, event)

    def _abandoned(self, reason: RejectReason) -> Abandoned:
        return Abandoned(reason)

    def _comes_first(self, _effect: OneShotClientEffect) -> bool:
        return False

    def _is_over(self) -> bool:
        return isinstance(self.state, Delivered | Aborted)

    def _milestone(self, state: OneShotClientState) -> Milestone:
        return _MILESTONES[type(state)]

    async def join(self, view: LogView) -> None:
        """See ``Participant.join``."""
        await super().join(view)
        if isinstance(self.state, Delivered):
            self.receipt = self.state.receipt

    async def _follow(self) -> None:
        if isinstance(self._joined.opening, Committee):
            # There is nothing to hear of the session before the receipt: nobody watches.
            if not self._is_over():
                await asyncio.wait({self._ended})
            return
        await super()._follow()

    async def _advance(self, status: Status) -> bool:
        if isinstance(self.state, Committed) and status.log_size >= 2:
            seen = await self._seen()
            try:
                listed = await self._ports.coordinator.committed_list(self._session)
            except RemoteProtocolError as error:
                if error.reason not in TOO_LATE:
                    raise
                await self._hear_of_the_end(error)
                return True
            await self._feed(listed, listed.evidence, seen)
        elif isinstance(self.state, Masking | Committed) and status.phase in {Phase.FINISHED, Phase.ABORTED}:
            await self._hear_of_the_end(None)
        return self._is_over()

    async def _hear_of_the_end(self, refusal: RemoteProtocolError | None) -> None:
        """Let the log say how the session ended; if it has not, ``refusal`` stands, where there was one."""
        seen = await self._seen()
        try:
            ended = await self._ports.coordinator.outcome(self._session)
        except RemoteProtocolError as error:
            if error.reason not in TOO_LATE:
                raise
            if refusal is not None:
                raise refusal from None
            return
        await self._feed(ended, ended.evidence, seen)

    async def _carry_out(self, identifier: int, effect: OneShotClientEffect) -> None:
        await super()._carry_out(identifier, effect)
        if isinstance(effect, Send) and isinstance(effect.message, OneShotContribution) and self._is_over():
            self._finish()

    async def _perform(self, effect: OneShotClientEffect) -> None:
        match effect:
            case MaskInput():
                await self._mask(effect)
            case Send(CommitContribution() as message):
                await self._commit(message)
            case Send(OneShotContribution() as message):
                await self._deliver(message)

    async def _mask(self, plan: MaskInput) -> None:
        # After a failed commit: was the input masked, and only the answer lost?
        await self._driver.restore()
        if not isinstance(self.state, Masking):
            return
        if self._masked is None:
            self._masked = await asyncio.to_thread(self._encode_mask_and_seal, plan)
        await self._feed(self._masked)

    def _encode_mask_and_seal(self, plan: MaskInput) -> InputMasked:
        session = self._context.session
        masked = vectors.ring_masked_input(session, self._vector, plan)
        self.report = masked.report
        linear_hash = vectors.linear_hash_of(masked.lanes)
        digest = self._ports.blobs.put(vectors.as_bytes(masked.lanes))
        if isinstance(session.opening, Committee):
            identity = self._context.identity.public_bytes
            parts = member_boxes.deal(session.opening, masked.secret, plan.shares, session.digest, identity)
        elif self._encryption is not None:
            parts = (self._encryption.encrypt(masked.secret, self._ports.rng),)
        else:
            raise RemoteProtocolError(RejectReason.WRONG_CIPHERTEXT, "context: the session's was not shown")
        return InputMasked(digest, masked.lanes.size, linear_hash, parts)

    async def _commit(self, message: CommitContribution) -> None:
        if not isinstance(self.state, Committed):
            return
        try:
            await self._ports.coordinator.send(self._session, message)
        except RemoteProtocolError as error:
            # The list says whether an earlier attempt came in time.
            if error.reason not in TOO_LATE:
                raise

    async def _deliver(self, message: OneShotContribution) -> None:
        await self._driver.restore()
        if isinstance(self.state, Contributed):
            try:
                receipt = await self._ports.coordinator.upload(self._session, message, self._ports.blobs)
            except RemoteProtocolError as error:
                if error.reason not in TOO_LATE:
                    raise
                await self._hear_of_the_end(error)
            else:
                await self._feed(receipt)
        if isinstance(self.state, Delivered):
            self.receipt = self.state.receipt
        await self._forget_upload(message.signed)


_MILESTONES: dict[type[OneShotClientState], Milestone] = {
    Masking: Milestone.MASKING,
    Committed: Milestone.COMMITTED,
    Contributed: Milestone.CONTRIBUTED,
    Delivered: Milestone.DELIVERED,
    Aborted: Milestone.ABORTED,
}
