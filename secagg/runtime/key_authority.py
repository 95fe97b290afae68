"""A key authority at work: its sessions in a store that encrypts them, the log it has seen, one decision at a time.

What a coordinator sends is checked as it arrives, the cheap and the decisive first: log, roster and attestations before
any list, whose lengths the log then gives. A session takes 8 bytes a lane while its limb sum arrives and twice as much
while it is certified; of the lists, about 700 bytes a header.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.rng import Rng
from secagg.crypto.secret import Secret
from secagg.derive.ring_opening import MaskedSum
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import authority
from secagg.protocol.one_shot.authority_rules import AskedSum, MadeKey, check_request, check_sets, read_open
from secagg.protocol.one_shot.authority_states import (
    AUTHORITY_PERSISTENCE,
    Authority,
    AuthorityEvent,
    AuthorityState,
    ClosedSum,
    Deciding,
    EndShown,
    Prepared,
    SumRequest,
)
from secagg.protocol.transition import Transition
from secagg.runtime.clock import Clock
from secagg.runtime.driver import Driver
from secagg.runtime.institutions import DecryptPiece, PreparedContext
from secagg.runtime.log_trust import CheckpointMemory, LogTrust
from secagg.runtime.masked_sum import Lanes, MaskedSumReader
from secagg.runtime.member_ports import ANSWERED, OpeningJournal, OpeningLine
from secagg.runtime.ports import SessionStore, StaleStoreError
from secagg.transcript.statements import Signed

_AuthorityDriver = Driver[AuthorityState, AuthorityEvent, None]

_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class AuthorityPorts:
    """What an authority runs on.

    Attributes:
        store: its sessions; it must encrypt what it keeps.
        journal: what it opened and what it refused.
        clock: its own time.
        rng: where keys come from.
        memory_of: where the last checkpoint of a log is kept, by coordinator key and origin.
    """

    store: SessionStore
    journal: OpeningJournal
    clock: Clock
    rng: Rng
    memory_of: Callable[[bytes, str], CheckpointMemory]


class KeyAuthorityHost:
    """Serves every session of one authority."""

    def __init__(self, own: Authority, ports: AuthorityPorts) -> None:
        self.own = own
        self._ports = ports
        self._turns: weakref.WeakValueDictionary[bytes, asyncio.Lock] = weakref.WeakValueDictionary()

    async def log_size(self, origin: str) -> int:
        """Size of the last checkpoint that was verified of the log with this origin; 0 for none."""
        return await asyncio.to_thread(self._log_size, origin)

    async def prepare(self, session: bytes, coordinator: bytes) -> PreparedContext:
        """Make the key of a session, or find the one that was made for this session of this coordinator.

        Raises:
            RemoteProtocolError: NOT_SERVED; SESSION_OVER or OPENED_BEFORE for a session that was answered.
            StoreError: the store refuses.
        """
        name = store_name(session, coordinator)
        async with self._turn(name) as driver:
            if not await _resumed(driver):
                made = await asyncio.to_thread(authority.prepare, self.own, session, coordinator, self._ports.rng)
                await driver.create(made)
            context = await asyncio.to_thread(authority.public_context, driver.state)
            statement, signature = authority.statement_of(self.own, _prepared(driver.state))
            return PreparedContext(statement, signature, context)

    async def decrypt(self, session: bytes, request: SumRequest, pieces: AsyncIterator[DecryptPiece]) -> Signed:
        """The answer for a closed set.

        Raises:
            RemoteProtocolError: the request breaks a rule, which changes nothing; or OPENED_BEFORE or WRONG_OPENING,
                which is the authority's last word for the session.
            StoreError: the store refuses; the same request again goes on.
        """
        parameters = read_open(request.files)
        if parameters.session != session:
            raise RemoteProtocolError(RejectReason.WRONG_SESSION, "session: not that of the open entry")
        name = store_name(session, parameters.coordinator)
        state = (await _known(self._driver(name))).state
        asked: AskedSum | None = None
        try:
            try:
                asked = await asyncio.to_thread(self._check_request, state, request)
            except RemoteProtocolError as error:
                if error.reason is RejectReason.SESSION_OVER:
                    await self._end(name)
                raise
            signed = authority.answer_to(state, asked.close_digest)
            if signed is None:
                closed, lanes = await self._read(asked, pieces)
                async with self._turn(name) as driver:
                    signed = await self._decide(await _known(driver), closed, asked, request.ciphertext_sum, lanes)
        except RemoteProtocolError as error:
            await self._write_down(session, asked, error)
            raise
        # Before the answer leaves: whatever was given away stands in the journal.
        await self._write_down(session, asked, None)
        return signed

    async def _end(self, name: bytes) -> None:
        """The verified log has the session's end: its key goes, whatever is shown of an older log later."""
        async with self._turn(name) as driver:
            await (await _known(driver)).feed(EndShown())

    async def _read(self, asked: AskedSum, pieces: AsyncIterator[DecryptPiece]) -> tuple[ClosedSum, Lanes]:
        """The lists and the masked sum, as the log's entries say; what is too long is not kept."""
        reader = MaskedSumReader(asked.session.upload_lanes, asked.close.count, asked.close.limb_sum)
        committed: list[bytes] = []
        contributions: list[bytes] = []
        async for piece in pieces:
            committed += piece.committed
            contributions += piece.contributions
            if len(committed) > asked.committed.count or len(contributions) > asked.close.count:
                raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "a list is longer than the log says")
            if piece.limb_sum:
                await asyncio.to_thread(reader.update, piece.limb_sum)
        lanes = reader.lanes()
        return await asyncio.to_thread(check_sets, asked, committed, contributions), lanes

    async def _decide(
        self,
        driver: _AuthorityDriver,
        closed: ClosedSum,
        asked: AskedSum,
        ciphertext_sum: bytes,
        lanes: Lanes,
    ) -> Signed:
        # Durable before anything is decrypted.
        deciding = await driver.feed(closed)
        if isinstance(deciding, Deciding):
            session = asked.session
            masked = MaskedSum(session.ring_mask, session.public_key, lanes, asked.close.count)
            key = deciding.prepared.key
            outcome = await asyncio.to_thread(authority.certify, key, ciphertext_sum, masked, closed.close)
            await driver.feed(outcome)
        said = authority.answer_to(driver.state, closed.close)
        if said is None:
            raise RemoteProtocolError(RejectReason.WRONG_PHASE, "nothing was decided")
        return said

    def _check_request(self, state: AuthorityState, request: SumRequest) -> AskedSum:
        prepared = _prepared_or_none(state)
        made = None if prepared is None else MadeKey(prepared.session, prepared.coordinator, prepared.context)
        asked = check_request(self.own, made, request)
        self._remember(asked, request)
        return asked

    def _remember(self, asked: AskedSum, request: SumRequest) -> None:
        """Refuse a log that contradicts what any session showed of it before, and keep its checkpoint. Blocks."""
        parameters = asked.session.parameters
        trust = self._trust(parameters.coordinator, parameters.log)
        evidence, seen = request.files.evidence, trust.seen()
        if seen.size < evidence.start:
            trust.accept(seen, asked.view, evidence, request.files.consistency)
            return
        # The evidence reaches back to what was seen: no proof is needed, and none could be out of date.
        trust.check(seen, evidence)
        trust.remember(evidence)

    def _log_size(self, origin: str) -> int:
        served = self.own.policy.coordinators
        return max((self._trust(coordinator, origin).seen().size for coordinator in served), default=0)

    def _trust(self, coordinator: bytes, origin: str) -> LogTrust:
        return LogTrust(self.own.policy.log, self._ports.memory_of(coordinator, origin))

    async def _write_down(self, session: bytes, asked: AskedSum | None, refusal: RemoteProtocolError | None) -> None:
        close, count = (b"", 0) if asked is None else (asked.close_digest, asked.close.count)
        outcome, words = (ANSWERED, "answered") if refusal is None else (refusal.reason.name, refusal.reason.value)
        if refusal is not None and refusal.reason is RejectReason.WRONG_OPENING:
            words = refusal.detail
        line = OpeningLine(self._ports.clock.now_s(), session, close, count, outcome, words)
        await asyncio.to_thread(self._ports.journal.add, line)

    @asynccontextmanager
    async def _turn(self, name: bytes) -> AsyncGenerator[_AuthorityDriver]:
        """One call at a time changes a session; it leaves when what it wrote has landed, even if it was cut off."""
        async with self._turns.setdefault(name, asyncio.Lock()):
            driver = self._driver(name)
            try:
                yield driver
            finally:
                await driver.close(())

    def _driver(self, name: bytes) -> _AuthorityDriver:
        return Driver(name, self._ports.store, AUTHORITY_PERSISTENCE, self._step, _no_effects)

    def _step(
        self, state: AuthorityState, rows: Mapping[int, object], event: AuthorityEvent
    ) -> Transition[AuthorityState, None]:
        del rows
        return authority.step(self.own, state, event)


def store_name(session: bytes, coordinator: bytes) -> bytes:
    """Under what a session is stored: whoever knows an identifier cannot take it from another coordinator."""
    return derive(Secret(coordinator), Label.AUTHORITY_SESSION, session, length_bytes=_KEY_BYTES).expose()


async def _known(driver: _AuthorityDriver) -> _AuthorityDriver:
    if not await _resumed(driver):
        raise RemoteProtocolError(RejectReason.UNKNOWN_SESSION, "no key was made for the session")
    return driver


async def _resumed(driver: _AuthorityDriver) -> bool:
    try:
        return await driver.resume()
    except StaleStoreError:
        # It may have been answered since the backup was taken.
        raise RemoteProtocolError(
            RejectReason.OPENED_BEFORE, "the session is from before this authority was restored from a backup"
        ) from None


def _prepared(state: AuthorityState) -> Prepared:
    prepared = _prepared_or_none(state)
    if prepared is None:
        raise RemoteProtocolError(RejectReason.SESSION_OVER, "the session was answered; its key is gone")
    return prepared


def _prepared_or_none(state: AuthorityState) -> Prepared | None:
    match state:
        case Prepared():
            return state
        case Deciding():
            return state.prepared
        case _:
            return None


def _no_effects(identifier: int, effect: None) -> None:
    """The machine has none: what is to be done follows from the request that is asked again."""
