"""One contribution on its way, in a session of either protocol."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from secagg.crypto.labels import Label
from secagg.crypto.rng import SystemRng
from secagg.crypto.signing import SigningKey
from secagg.protocol import log, published
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.messages import SignedReceipt
from secagg.protocol.one_shot.client_states import ONE_SHOT_CLIENT_PERSISTENCE, Delivered, OneShotClientState
from secagg.protocol.pairwise.client_states import (
    CLIENT_PERSISTENCE,
    Aborted,
    Advertised,
    ClientState,
    Completed,
    SharedKeys,
)
from secagg.protocol.persist import PersistError
from secagg.protocol.phases import Phase
from secagg.protocol.session import PrivacyAllowance
from secagg.remote import GrpcCoordinator
from secagg.runtime.one_shot_participant import OneShotParticipant
from secagg.runtime.pairwise_participant import PairwiseParticipant
from secagg.runtime.participant import FIRST_DELAY_S, LONGEST_DELAY_S, TransportError
from secagg.runtime.ports import StaleStoreError
from secagg.runtime.vectors import EncodingReport
from secagg.session_details import Result, SessionAbortedError, SessionDetails
from secagg.spending import OwnBudget
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.contributed import ContributedAdapters
from secagg.store.sealed import SealedSessionStore
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript.entries import SessionOpen
from secagg.transcript.noise import DistributedNoise
from secagg.transcript.policy import LogPolicy

T = TypeVar("T")


class StateKeeper:
    """The stores of one identity: sessions sealed under a key that follows from the identity key, and blobs."""

    def __init__(self, directory: Path, identity: SigningKey, allowance: PrivacyAllowance | None) -> None:
        self.identity = identity.public_bytes
        own = directory / self.identity.hex()
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sqlite = SqliteSessionStore(own / "sessions.db")
        self.sealed = SealedSessionStore(
            self._sqlite, identity.derive_seed(Label.STORE_KEY).expose(), SystemRng().bytes
        )
        self.blobs = DirectoryBlobStore(own / "blobs")
        self.contributed = ContributedAdapters(own / "contributed")
        self.budget = None if allowance is None else OwnBudget(own, allowance)

    async def view_of(self, session: bytes) -> LogView | None:
        """The log as this identity saw it last in a session; None if it knows nothing of that."""
        stored = await self.sealed.load(session)
        return None if stored is None else _client_state(stored.state).view

    async def uncharged(self, budget: OwnBudget) -> list[SessionOpen]:
        """The sessions with noise that this identity has masked an input for, and of which the ledger knows nothing.

        They were joined before there was a budget, or the ledger was lost: the store of sessions knows better.
        """
        found = []
        for key in await self.sealed.sessions():
            stored = None if await asyncio.to_thread(budget.has_entry, key) else await self.sealed.load(key)
            if stored is None:
                continue
            state = _client_state(stored.state)
            parameters = SessionOpen.from_bytes(state.view.entries[0])
            if isinstance(parameters.noise, DistributedNoise) and not _is_unmasked(state):
                found.append(parameters)
        return found

    async def close(self) -> None:
        """Close the stores."""
        await self._sqlite.close()
        if self.budget is not None:
            await asyncio.to_thread(self.budget.close)


def _client_state(data: bytes) -> ClientState | OneShotClientState:
    """The state of a client of either protocol: bytes of one are none of the other."""
    try:
        pairwise: ClientState = CLIENT_PERSISTENCE.decode(data)
        return pairwise
    except PersistError:
        one_shot: OneShotClientState = ONE_SHOT_CLIENT_PERSISTENCE.decode(data)
        return one_shot


def _is_unmasked(state: ClientState | OneShotClientState) -> bool:
    """Whether a client of a pairwise session has masked no input yet, so that it has spent nothing."""
    return isinstance(state, Advertised | SharedKeys) or (isinstance(state, Aborted) and not state.masked)


class Source(Protocol):
    """Where the result comes from: the coordinator's own client."""

    @property
    def port(self) -> GrpcCoordinator:
        """The connection."""
        ...

    @property
    def log_policy(self) -> LogPolicy:
        """Whose checkpoints count."""
        ...

    async def result_of(self, details: SessionDetails) -> Result:
        """The sum of a session that has ended, checked."""
        ...


class Participation(abc.ABC):
    """One contribution on its way."""

    def __init__(
        self,
        source: Source,
        details: SessionDetails,
        participant: PairwiseParticipant | OneShotParticipant,
        keeper: StateKeeper,
    ) -> None:
        self.details = details
        self._source = source
        self._participant = participant
        self._keeper = keeper

    @property
    def receipt(self) -> SignedReceipt | None:
        """The coordinator's signed word that it holds the contribution, once it has given it."""
        return self._participant.receipt

    @property
    def encoding(self) -> EncodingReport | None:
        """The norm before clipping and the number of clamped coordinates, once the input is encoded."""
        return self._participant.report

    async def join(self) -> None:
        """Take the first step, or go on where an earlier process stopped. Raises as ``Participant.join``.

        What the session may cost is written down first, unless the identity is not admitted anyway.
        """
        if self._keeper.budget is not None and self._keeper.identity in self.details.session.positions:
            await self._reserve(self._keeper.budget)
        await self._participant.join(self.details.view)

    async def _reserve(self, budget: OwnBudget) -> None:
        """Charge the session, once; never again for what an earlier process began.

        Raises:
            StaleStoreError: it was charged before, and what this identity did in it is not known any more. Contributing
                again would release a second vector with other noise, which nobody has paid for.
        """
        parameters = self.details.session.parameters
        begun = await self._keeper.sealed.load(parameters.session) is not None
        for forgotten in await self._keeper.uncharged(budget):
            await asyncio.to_thread(budget.reserve, forgotten)
        if not await asyncio.to_thread(budget.knows, parameters):
            await asyncio.to_thread(budget.reserve, parameters)
        elif not begun:
            raise StaleStoreError("the budget's ledger knows this session, and the store of sessions has lost it")

    @abc.abstractmethod
    async def result(self) -> Result:
        """Take part, wait until the session has ended; the checked sum, in which this contribution is.

        Raises:
            SessionAbortedError: the session ended without a sum.
            LocalProtocolError: it ended without this contribution; ``Coordinator.result`` fetches the sum.
            RemoteProtocolError: the coordinator refused or broke a rule; this identity will not answer any more.
        """

    async def close(self) -> None:
        """Stop; what is not done is done by the next process that contributes with this identity."""
        await self._participant.close()
        await self._keeper.close()


class PairwiseParticipation(Participation):
    """A contribution to a pairwise session: this process is needed until the sum is published."""

    def __init__(
        self, source: Source, details: SessionDetails, participant: PairwiseParticipant, keeper: StateKeeper
    ) -> None:
        super().__init__(source, details, participant, keeper)
        self._own = participant

    async def result(self) -> Result:
        """See ``Participation.result``."""
        try:
            state = await self._own.run()
        finally:
            await self._settle()
            await self.close()
        if not isinstance(state, Completed):
            raise _ended_without(state.view, getattr(state, "reason", RejectReason.ABORTED))
        return await _patiently(lambda: self._source.result_of(self.details))

    async def _settle(self) -> None:
        """What the session cost so far, when this process has no more to do with it.

        Only what the client itself answered over counts: a close entry that it did not check, or that no quorum
        confirmed, is the coordinator's word. A client that has not masked its input has spent nothing yet; if it goes
        on later it is charged again.
        """
        state, parameters, budget = self._own.state, self.details.session.parameters, self._keeper.budget
        if budget is None:
            return
        if isinstance(state, Completed | Aborted) and state.answered_over:
            await asyncio.to_thread(budget.settle, parameters, state.answered_over)
        elif state is not None and _is_unmasked(state):
            await asyncio.to_thread(budget.cancel, parameters)


class OneShotParticipation(Participation):
    """A contribution to a one-shot session: once it is delivered, this process is not needed any more.

    It leaves before it is known how many contribute, so of its budget it spends what the fewest would cost.
    """

    def __init__(
        self, source: Source, details: SessionDetails, participant: OneShotParticipant, keeper: StateKeeper
    ) -> None:
        super().__init__(source, details, participant, keeper)
        self._run = participant.run
        self._state: OneShotClientState | None = None

    async def delivered(self) -> SignedReceipt:
        """Take part until the coordinator holds the contribution; its receipt.

        Raises:
            SessionAbortedError: the session ended without a sum before that.
            LocalProtocolError: it goes on, or ended, without this contribution.
            RemoteProtocolError: the coordinator refused or broke a rule; this identity will not send any more.
        """
        return (await self._delivered()).receipt

    async def result(self) -> Result:
        """See ``Participation.result``; may be left and called again by another process, after ``contribute``."""
        state = await self._delivered()
        await wait_for_the_end(self._source.port, self.details.session.parameters.session)
        # The log must continue what this contribution rests on, not only what was shown since.
        details = dataclasses.replace(self.details, view=state.view)
        result = await _patiently(lambda: self._source.result_of(details))
        await _patiently(lambda: self._check_counted(state))
        return result

    async def _delivered(self) -> Delivered:
        if self._state is None:
            try:
                self._state = await self._run()
            finally:
                await self.close()
        if not isinstance(self._state, Delivered):
            raise _ended_without(self._state.view, getattr(self._state, "reason", RejectReason.ABORTED))
        return self._state

    async def _check_counted(self, state: Delivered) -> None:
        parameters = self.details.session.parameters
        closed = await self._source.port.closed_list(parameters.session)
        view = log.extend(state.view, parameters, self._source.log_policy, closed.evidence)
        if view.close is None:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "no close entry")
        accepted = published.published_contributions(view.close, closed.leaves)
        self.details.session.check_contributors(signed.statement.identity for signed in accepted)
        if state.sent not in accepted:
            raise LocalProtocolError(RejectReason.LEFT_OUT, "the sum was made without it, although it was received")


def _ended_without(view: LogView, reason: RejectReason) -> Exception:
    if view.abort is not None:
        return SessionAbortedError(view.abort.reason)
    return LocalProtocolError(reason, "this identity takes no further part in the session")


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` gives, however often the coordinator cannot be reached."""
    delay_s = FIRST_DELAY_S
    while True:
        try:
            return await call()
        except TransportError:
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)


async def wait_for_the_end(port: GrpcCoordinator, session: bytes) -> None:
    """Return once the coordinator says that the session has ended."""
    delay_s = FIRST_DELAY_S
    while True:
        try:
            async for status in port.watch(session):
                delay_s = FIRST_DELAY_S
                if status.phase in {Phase.FINISHED, Phase.ABORTED}:
                    return
        except TransportError:
            pass
        except RemoteProtocolError as error:
            if error.reason is not RejectReason.TOO_MANY_WATCHERS:
                raise
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)
