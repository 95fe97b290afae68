"""A one-shot session at the coordinator: sealed parts, what the log's entries publish, the opening of the sum."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import ClassVar, cast

from secagg.he.errors import CiphertextError
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import entry_order
from secagg.protocol.messages import ClosedList
from secagg.protocol.one_shot import admission, coordinator, tables
from secagg.protocol.one_shot.coordinator_states import (
    ONE_SHOT_PERSISTENCE,
    Aborted,
    AskOpeners,
    Collecting,
    Committing,
    ContributionsFolded,
    ContributionStored,
    Finished,
    FoldContributions,
    Folding,
    OneShotEffect,
    OneShotEvent,
    OneShotState,
    Opening,
    PartsRow,
    Publishing,
    Recovering,
    RecoverSum,
    Rows,
    Settling,
    deadline_of,
    phase_of,
)
from secagg.protocol.one_shot.messages import CommittedList, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.persist import Persistence
from secagg.protocol.phases import Phase
from secagg.protocol.published import roster_position
from secagg.protocol.rows import CommonEvent, PublishEntry, SetupRow, UploadsRefuted, UploadStaged
from secagg.runtime import ciphertexts, retention
from secagg.runtime.limb_sums import Refuted
from secagg.runtime.one_shot_openers import Openers
from secagg.runtime.opened_sum import OpenedSession, recover
from secagg.runtime.partial_sum import HashedUpload
from secagg.runtime.ports import StoreError
from secagg.runtime.publication import SessionFiles
from secagg.runtime.session_host import CoordinatorPorts, Offer, SessionHost
from secagg.runtime.shown import Progress
from secagg.transcript.entries import (
    ContributionsCommitted,
    OneShotClose,
    OneShotResult,
    SessionOpen,
    decode_entry,
)
from secagg.transcript.openers import KeyAuthority, SummedCiphertext

Transition = coordinator.OneShotTransition


class OneShotHost(SessionHost[OneShotSession, OneShotState, OneShotEvent, OneShotEffect]):
    """One one-shot session."""

    persistence: ClassVar[Persistence] = ONE_SHOT_PERSISTENCE

    def __init__(self, session: OneShotSession, ports: CoordinatorPorts) -> None:
        super().__init__(session, ports)
        self._files = SessionFiles(session.parameters.session, ports.record, ports.blobs)
        self._openers = Openers(self, ports)

    @property
    def rows(self) -> Rows:
        """The rows of the machine."""
        return cast("Rows", self.driver.rows)

    @staticmethod
    def check_parameters(session: OneShotSession) -> None:
        """Whatever can be opened can be run; see ``SessionHost``."""

    @staticmethod
    def private_blobs(rows: Iterable[object]) -> set[bytes]:
        """Beside what every protocol has: sealed parts."""
        kept = list(rows)
        return retention.private_blobs(kept) | {row.blob for row in kept if isinstance(row, PartsRow)}

    @staticmethod
    def lasting_blobs(state: OneShotState, rows: Iterable[object]) -> set[bytes]:
        """Beside what every protocol has: what is published of how the sum was opened."""
        outcome = state.then if isinstance(state, Publishing) else state
        opened = set[bytes]()
        if isinstance(outcome, Finished):
            opened = {outcome.openings_file, outcome.attestations_file, outcome.secret_sum}
        return retention.lasting_blobs(rows) | opened

    @staticmethod
    def ended_at_s(state: OneShotState) -> int | None:
        """See ``ShownSession``."""
        return state.ended_at_s if isinstance(state, Finished | Aborted) else None

    async def create(self, setup: SetupRow) -> None:
        """See ``SessionHost``; members are asked to serve the session from its beginning."""
        await super().create(setup)
        self._openers.start()

    async def resume(self) -> None:
        """See ``SessionHost``; what members were not told before is told now."""
        await super().resume()
        if not self.is_over:
            self._openers.start()

    async def close(self) -> None:
        """See ``SessionHost``."""
        await self._openers.close()
        await super().close()

    async def submit(self, event: OneShotEvent | CommonEvent | OneShotContribution) -> None:
        """Feed a message; returns once it is accepted and durable."""
        if isinstance(event, OneShotContribution):
            async with self._one_at_a_time(event.signed.statement.identity):
                await self._store(event)
            return
        await super().submit(event)
        if isinstance(event, UploadStaged):
            self._openers.arrived(roster_position(self.session, event.identity))

    async def _store(self, message: OneShotContribution) -> None:
        # Refused before anything is stored: else whoever reaches the port could fill the disk.
        stored = admission.placeholder(message)
        await self.driver.check(lambda state, rows: admission.admit(self.session, cast("Rows", rows), state, stored))
        authority = isinstance(self.session.opening, KeyAuthority)
        if authority and not await asyncio.to_thread(ciphertexts.is_ciphertext, message.parts[0]):
            raise RemoteProtocolError(RejectReason.WRONG_CIPHERTEXT, "parts[0]")
        # Before the row, so that what a row names is there; and again after it: until then nothing kept the blobs of an
        # ended session, which may be the same, from being deleted.
        await asyncio.to_thread(self._keep, stored)
        await self.driver.feed(stored)
        await asyncio.to_thread(self._keep, stored)

    def _keep(self, stored: ContributionStored) -> None:
        blobs, linear_hash = self._ports.blobs, stored.message.linear_hash
        if not blobs.has(stored.blob):
            blobs.put(b"".join(stored.message.parts))
        if not blobs.has(sha256(linear_hash).digest()):
            blobs.put(linear_hash)

    def committed_list(self) -> CommittedList:
        """Who committed to what, once that is fixed."""
        if not isinstance(self.session.opening, KeyAuthority):
            raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "nobody commits in a session with a committee")
        self._require_log(2, "the commitments are not fixed yet")
        if isinstance(self.driver.state, Committing):
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "the commitments are not fixed yet")
        return CommittedList(self.evidence(), self._cached("committed", lambda: tables.committed_leaves(self.rows)))

    def closed_list(self) -> ClosedList:
        """See ``ShownSession``."""
        self._require_log(len(entry_order(self.session.parameters)) - 1, "the set is not fixed yet")
        accepted = self._accepted()
        if accepted is None:
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "the set is not fixed")
        return ClosedList(
            self.evidence(), self._cached("dispositions", lambda: tables.disposition_leaves(self.rows, accepted))
        )

    def contribution_leaves(self) -> tuple[bytes, ...]:
        """Signed headers of the closed set, in order."""
        return self._cached("contributions", lambda: tables.contribution_leaves(self.rows, self._accepted() or ()))

    def _accepted(self) -> tuple[int, ...] | None:
        state = self.driver.state
        outcome = state.then if isinstance(state, Publishing) else state
        outcome = outcome.opening if isinstance(outcome, Recovering) else outcome
        return outcome.accepted if isinstance(outcome, Opening | Finished) else None

    @staticmethod
    def _phase_of(state: OneShotState) -> Phase:
        return phase_of(state)

    @staticmethod
    def _deadline_of(state: OneShotState) -> int | None:
        return deadline_of(state)

    @staticmethod
    def _sum_of(state: OneShotState) -> bytes | None:
        return state.integer_sum if isinstance(state, Finished) else None

    @staticmethod
    def _takes_uploads(state: OneShotState) -> bool:
        return isinstance(state, Collecting)

    def _progress(self, state: OneShotState) -> Progress:
        match state:
            case Committing(_, received):
                return Progress(received, self.session.most_contributors)
            case Collecting(_, expected, staged):
                return Progress(staged, expected)
            case Settling(_, staged, settled):
                return Progress(settled, staged)
            case Opening():
                return Progress(state.answered, max(1, len(state.members)))
            case Finished():
                return Progress(len(state.accepted), len(state.accepted))
            case _:
                return Progress(0, 0)

    def _start(self, setup: SetupRow) -> Transition:
        return coordinator.start(self.session, setup)

    def _step(self, state: OneShotState, rows: Mapping[int, object], event: OneShotEvent | CommonEvent) -> Transition:
        moment = coordinator.Moment(self.session, cast("Rows", rows), self._ports.clock.now_s())
        return coordinator.step(moment, state, event)

    async def _perform(self, effect: OneShotEffect) -> OneShotEvent | CommonEvent | None:
        match effect:
            case PublishEntry():
                return await self._publish(effect)
            case FoldContributions(accepted):
                await self._adopt_partial_sums()
                return await asyncio.to_thread(self._fold, accepted)
            case AskOpeners(close):
                await self._openers.ask(close)
                return None
            case RecoverSum(used):
                return await asyncio.to_thread(self._recover, used)

    def _publish_files(self, entry: bytes) -> None:
        state, rows = self.driver.state, self.rows
        outcome = state.then if isinstance(state, Publishing) else state
        match decode_entry(entry), outcome:
            case SessionOpen(), _:
                self._files.opened(self.setup())
            case ContributionsCommitted(), _:
                self._files.lines("commitments.jsonl", tables.committed_leaves(rows))
            case OneShotClose() as close, Opening(accepted=accepted):
                headers = [tables.require_header(rows, position)[1] for position in accepted]
                self._files.closed_set(
                    close,
                    tables.disposition_leaves(rows, accepted),
                    tables.contribution_leaves(rows, accepted),
                    (header.linear_hash for header in headers),
                )
                if isinstance(close.opener, SummedCiphertext):
                    for header in headers:
                        self._files.blob(f"ciphertexts/{header.parts[0].hex()}.bin", header.parts[0])
                    self._files.blob("ciphertext-sum.bin", close.opener.digest)
            case OneShotResult() as result, Finished():
                self._files.blob("openings.jsonl", outcome.openings_file)
                if isinstance(self.session.opening, KeyAuthority):
                    self._files.blob("attestations.jsonl", outcome.attestations_file)
                self._files.blob("secret-sum.bin", result.secret_sum)
                self._files.sum_and_adapter(result)
            case _:
                return

    def _offer_of(self, identity: bytes) -> Offer | None:
        state = self.driver.state
        position = roster_position(self.session, identity)
        found = tables.header_at(self.rows, position)
        if not isinstance(state, Collecting) or found is None:
            return None
        return Offer(position, HashedUpload(found[1].upload, found[1].linear_hash), state.expected)

    def _fold(self, accepted: tuple[int, ...]) -> OneShotEvent | None:
        state = self.driver.state
        if not isinstance(state, Folding) or state.accepted != accepted:
            return None  # an effect of before a restart, carried out again: this set is closed, or refuted
        headers = {position: tables.require_header(self.rows, position)[1] for position in accepted}
        folded = self._fold_uploads(
            {position: HashedUpload(header.upload, header.linear_hash) for position, header in headers.items()}
        )
        if isinstance(folded, Refuted):
            return UploadsRefuted(folded.indices)
        if not isinstance(self.session.opening, KeyAuthority):
            return ContributionsFolded(folded.limb_sum, b"")
        try:
            total = ciphertexts.sum_of(self._ports.blobs, (header.parts[0] for header in headers.values()))
        except CiphertextError as error:
            # They were checked when they came, so it is the disk.
            raise StoreError(f"a stored ciphertext is damaged: {error}") from None
        return ContributionsFolded(folded.limb_sum, self._ports.blobs.put(total))

    def _recover(self, used: int) -> OneShotEvent | None:
        state = self.driver.state
        if not isinstance(state, Recovering) or state.used != used:
            return None  # an effect of before a restart, carried out again: this recovery is over
        # Answers go on arriving: what is published is what was used.
        return recover(OpenedSession(self.session, dict(self.rows), self.setup(), self._ports.blobs), state.opening)
