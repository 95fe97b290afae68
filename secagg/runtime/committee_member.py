"""All sessions of one committee member: joining, finding, resuming after a restart, forgetting in time."""

from __future__ import annotations

import asyncio

from secagg.crypto.labels import Label
from secagg.crypto.sealing import SealingKey
from secagg.crypto.signing import SigningKey
from secagg.protocol import log
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import member
from secagg.protocol.one_shot.member_states import (
    MEMBER_PERSISTENCE,
    SESSION_ROW,
    Answered,
    Over,
    SessionRow,
    row_key,
)
from secagg.protocol.one_shot.messages import ShownSessionFiles
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.persist import PersistError
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.member_ports import MemberPorts
from secagg.runtime.member_session import MemberSession
from secagg.runtime.ports import SessionKey, StaleStoreError, StoredSession, StoreError
from secagg.transcript.entries import OneShotOpen, SessionOpen
from secagg.transcript.record import RecordError
from secagg.transcript.roster import Roster

_SWEEP_INTERVAL_S = 60.0


def member_sealing_key(key: SigningKey) -> SealingKey:
    """The key pair that boxes are sealed to: it follows from the key that signs answers."""
    return SealingKey(key.derive_seed(Label.MEMBER_SEALING_KEY))


class CommitteeMemberHost:
    """The sessions of a member. All methods run in one event loop."""

    def __init__(self, ports: MemberPorts) -> None:
        self.ports = ports
        self._sessions: dict[SessionKey, MemberSession] = {}
        self._loading = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Resume every session that is not over, and begin to delete what is past its retention.

        A session that cannot be read is reported and left alone.

        Raises:
            StoreError: the store does not answer.
        """
        keys = await self.ports.store.sessions()
        for key in keys:
            try:
                stored = await self.ports.store.load(key)
                if stored is not None and not isinstance(MEMBER_PERSISTENCE.decode(stored.state), Answered | Over):
                    await self._resume(key, stored)
                else:
                    await asyncio.to_thread(self.ports.boxes.delete, key)
            except (StoreError, OSError, PersistError, ProtocolError) as error:
                # The others go on; this one is tried again when somebody asks for it.
                self.ports.report("session_unreadable", key, type(error).__name__)
        # Boxes of sessions that the store does not know: it was restored from a backup, and they will not be opened.
        for key in set(await asyncio.to_thread(self.ports.boxes.sessions)).difference(keys):
            await asyncio.to_thread(self.ports.boxes.delete, key)
        self._sweeper = asyncio.ensure_future(self._sweep_forever())

    async def close(self) -> None:
        """Stop all background work."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await asyncio.gather(*(session.close() for session in self._sessions.values()))

    async def log_size(self, origin: str) -> int:
        """Size of the last verified checkpoint of the log of this name, of whichever coordinator that is served."""
        sizes = [0]
        for coordinator in self.ports.rules.coordinators:
            seen = await asyncio.to_thread(self._trust(coordinator, origin).seen)
            sizes.append(seen.size)
        return max(sizes)

    async def join(self, key: SessionKey, files: ShownSessionFiles, roster: Roster) -> None:
        """Serve a session, or take note of what its log says by now if it is served already.

        Args:
            key: its identifier.
            files: what the coordinator shows.
            roster: the one in ``files``, signed by the registrar that the open entry names.

        Raises:
            RemoteProtocolError: it is none for this member, or what is shown does not hold.
            StoreError: the disk refuses.
        """
        # Under the lock: of two calls for a new session one creates it.
        async with self._loading:
            session = self._sessions.get(key) or await self._load(key)
            if session is None:
                self._sessions[key] = await self._joined(key, files, roster)
                return
        await session.show(files.evidence)

    async def find(self, key: SessionKey) -> MemberSession:
        """A session that was joined.

        Raises:
            RemoteProtocolError: UNKNOWN_SESSION, or OPENED_BEFORE for one of before a restore.
        """
        session = self._sessions.get(key)
        if session is None:
            async with self._loading:
                session = self._sessions.get(key) or await self._load(key)
        if session is None:
            raise RemoteProtocolError(RejectReason.UNKNOWN_SESSION)
        return session

    async def sweep(self) -> None:
        """Delete the boxes of sessions that are over or past their retention, and let go of those sessions."""
        for key, session in list(self._sessions.items()):
            try:
                await session.retire()
                if session.is_over:
                    del self._sessions[key]
                    await session.close()
            except (StoreError, OSError) as error:
                self.ports.report("sweep_failed", key, type(error).__name__)

    async def _joined(self, key: SessionKey, files: ShownSessionFiles, roster: Roster) -> MemberSession:
        parameters = shown_parameters(key, files)
        self.ports.rules.check(parameters, self.ports.clock.now_s())
        # What does not stand in the rules is not looked at any further: whoever reaches the port can send it.
        context = self._context(parameters, roster)
        trust = self._trust(parameters.coordinator, parameters.log)
        seen = await asyncio.to_thread(trust.seen)
        view = log.join(parameters, self.ports.policy, files.evidence)
        if files.evidence.start <= seen.size <= files.evidence.size:
            trust.check(seen, files.evidence)
            await asyncio.to_thread(trust.remember, files.evidence)
        else:
            await asyncio.to_thread(trust.accept, seen, view, files.evidence, files.consistency)
        lines = b"".join(leaf + b"\n" for leaf in roster.leaves())
        await asyncio.to_thread(self.ports.boxes.keep_roster, key, lines)
        session = MemberSession(context, self.ports, trust)
        await session.create(view)
        return session

    async def _load(self, key: SessionKey) -> MemberSession | None:
        try:
            stored = await self.ports.store.load(key)
        except StaleStoreError:
            raise RemoteProtocolError(
                RejectReason.OPENED_BEFORE, "this member was restored from a backup since"
            ) from None
        return None if stored is None else await self._resume(key, stored)

    async def _resume(self, key: SessionKey, stored: StoredSession) -> MemberSession:
        try:
            session = await self._read(key, stored)
        except (KeyError, IndexError, RecordError, PersistError) as error:
            raise StoreError(f"session {key.hex()} does not decode: {type(error).__name__}") from None
        # Only now: a session that could not be read is tried again, not handed out.
        self._sessions[key] = session
        return session

    async def _read(self, key: SessionKey, stored: StoredSession) -> MemberSession:
        row = MEMBER_PERSISTENCE.decode(stored.rows[row_key(SESSION_ROW)])
        if not isinstance(row, SessionRow):
            raise StoreError("the session has no row of its own")
        parameters = OneShotOpen.from_bytes(row.view.entries[0])
        lines = await asyncio.to_thread(self.ports.boxes.roster, key)
        context = self._context(parameters, Roster.from_leaves(lines.splitlines()))
        session = MemberSession(context, self.ports, self._trust(parameters.coordinator, parameters.log))
        await session.resume()
        return session

    def _context(self, parameters: OneShotOpen, roster: Roster) -> member.MemberContext:
        key, sealing_key = self.ports.key, self.ports.sealing_key
        place = member.place_of(parameters, key.public_bytes, sealing_key.public_bytes)
        session = OneShotSession(parameters, roster)
        return member.MemberContext(key, session, place, self.ports.policy, self.ports.rules)

    def _trust(self, coordinator: bytes, origin: str) -> LogTrust:
        return LogTrust(self.ports.policy, self.ports.memory_of(coordinator, origin))

    async def _sweep_forever(self) -> None:
        while True:
            await self.sweep()
            await asyncio.sleep(_SWEEP_INTERVAL_S)


def shown_parameters(key: SessionKey, files: ShownSessionFiles) -> OneShotOpen:
    """The open entry that a coordinator shows, which nothing has vouched for yet. Raises RemoteProtocolError."""
    if not files.evidence.entries:
        raise RemoteProtocolError(RejectReason.LOG_ORDER, "evidence: no entries")
    try:
        parameters = SessionOpen.from_bytes(files.evidence.entries[0])
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry 0: {error}") from None
    if not isinstance(parameters, OneShotOpen):
        raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "the session is no one-shot session")
    if parameters.session != key:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "the evidence is of another session")
    return parameters
