"""All sessions of one coordinator: opening, finding, resuming after a restart, and forgetting in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.pairwise.coordinator_states import (
    COORDINATOR_PERSISTENCE,
    Aborted,
    Finished,
    LogRow,
    Publishing,
    Row,
    RowKind,
    SetupRow,
    row_key,
)
from secagg.protocol.session import Session
from secagg.runtime.host import CoordinatorPorts, SessionHost
from secagg.runtime.ports import SessionKey, StoredSession, StoreError, VersionConflictError
from secagg.runtime.retention import lasting_blobs, private_blobs
from secagg.transcript.entries import SessionOpen
from secagg.transcript.roster import Roster

_SWEEP_INTERVAL_S = 60.0


class Registry:
    """The sessions of a coordinator. Those that have ended are read from the store when somebody asks."""

    def __init__(self, ports: CoordinatorPorts) -> None:
        self.ports = ports
        self._hosts: dict[SessionKey, SessionHost] = {}
        self._loading = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None
        self._swept: set[SessionKey] = set()

    async def start(self) -> None:
        """Resume every session that has not ended, and begin to delete what is past its retention.

        A session whose blobs cannot be read is reported and left alone.

        Raises:
            StoreError: the store does not answer.
        """
        for key in await self.ports.store.sessions():
            stored = await self.ports.store.load(key)
            if stored is not None and not _has_ended(stored):
                try:
                    await self._resume(key, stored)
                except (StoreError, OSError) as error:
                    # The others go on; this one is tried again when somebody asks for it.
                    self.ports.report("session_unreadable", key, type(error).__name__)
        self._sweeper = asyncio.ensure_future(self._sweep_forever())

    async def close(self) -> None:
        """Stop all background work."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await asyncio.gather(*(host.close() for host in self._hosts.values()))

    async def open(self, session: Session, setup: SetupRow) -> SessionHost:
        """Open a new session; opening the same one again gives the same host.

        Raises:
            RemoteProtocolError: another session has this identifier, or no safe degree and threshold exist for the
                cohort that may come.
        """
        parameters = session.parameters
        largest = min(parameters.encoding.max_contributors, parameters.roster_size)
        try:
            session.graph_parameters(largest)
        except LocalProtocolError as error:
            raise RemoteProtocolError(error.reason, error.detail) from None
        # Under the lock: whoever asks for the session meanwhile must not resume it a second time.
        async with self._loading:
            host = self._hosts.get(parameters.session) or await self._open(session, setup)
        if host.session.entry != session.entry:
            raise RemoteProtocolError(RejectReason.EQUIVOCATION, "session identifier in use")
        await host.opened()
        return host

    async def find(self, key: SessionKey) -> SessionHost:
        """The host of a session.

        Raises:
            RemoteProtocolError: UNKNOWN_SESSION.
        """
        host = self._hosts.get(key)
        if host is not None:
            return host
        async with self._loading:
            return self._hosts.get(key) or await self._load(key)

    def hosts(self) -> list[SessionHost]:
        """The sessions in memory: all that have not ended, and those that somebody asked for."""
        return list(self._hosts.values())

    async def keys(self) -> list[SessionKey]:
        """All sessions, newest first."""
        return list(reversed(await self.ports.store.sessions()))

    async def _open(self, session: Session, setup: SetupRow) -> SessionHost:
        host = SessionHost(session, self.ports)
        try:
            await host.create(setup)
        except VersionConflictError:
            return await self._load(session.parameters.session)
        except BaseException:
            await host.close()  # it may be in the store all the same: then it is not for this host to go on with it
            raise
        self._hosts[session.parameters.session] = host
        return host

    async def _load(self, key: SessionKey) -> SessionHost:
        stored = await self.ports.store.load(key)
        if stored is None:
            raise RemoteProtocolError(RejectReason.UNKNOWN_SESSION)
        return await self._resume(key, stored)

    async def _resume(self, key: SessionKey, stored: StoredSession) -> SessionHost:
        host = SessionHost(self._session_of(stored), self.ports)
        await host.resume()
        # Only now: a host that could not read its session is tried again, not handed out.
        self._hosts[key] = host
        return host

    def _session_of(self, stored: StoredSession) -> Session:
        setup = COORDINATOR_PERSISTENCE.decode(stored.rows[row_key(0, RowKind.SETUP)])
        roster = Roster.from_leaves(self.ports.blobs.get(setup.roster).splitlines())
        return Session(SessionOpen.from_bytes(_open_entry(stored)), roster)

    async def _sweep_forever(self) -> None:
        while True:
            await self._sweep_all()
            await asyncio.sleep(_SWEEP_INTERVAL_S)

    async def _sweep_all(self) -> None:
        """Delete the masked inputs, boxes, hashes and limb sums of sessions that are past their retention."""
        try:
            keys = await self.ports.store.sessions()
        except StoreError as error:
            self.ports.report("sweep_failed", b"", type(error).__name__)
            return
        due: dict[SessionKey, set[bytes]] = {}
        for key in keys:
            try:
                if key not in self._swept:
                    stored = await self.ports.store.load(key)
                    if stored is not None and self._is_over(stored):
                        due[key] = private_blobs(_rows(stored))
            except (StoreError, OSError) as error:
                self.ports.report("sweep_failed", key, type(error).__name__)
        if due:
            await self._sweep(keys, due)

    async def _sweep(self, keys: Sequence[SessionKey], due: Mapping[SessionKey, set[bytes]]) -> None:
        """Delete what the sessions ``due`` held and none of ``keys`` needs any more: all are read once for all."""
        kept: set[bytes] = set()
        for key in keys:
            try:
                kept |= await self._kept(key)
            except (StoreError, OSError) as error:
                # What it needs is not known, so nothing goes.
                self.ports.report("sweep_failed", key, type(error).__name__)
                return
        for key, held in due.items():
            try:
                await self._delete(held - kept)
                self._swept.add(key)
            except (StoreError, OSError) as error:
                self.ports.report("sweep_failed", key, type(error).__name__)

    async def _delete(self, doomed: set[bytes]) -> None:
        """Delete blobs but for what live sessions hold by now: a header names its upload before a byte of it comes."""
        seen: list[tuple[SessionHost, int]] = []
        live: set[bytes] = set()
        for blob in doomed:
            hosts = [(host, host.driver.version) for host in self._hosts.values() if not host.is_over]
            if hosts != seen:
                seen, live = hosts, set().union(*(private_blobs(host.rows.values()) for host, _ in hosts))
            if blob not in live:
                await asyncio.to_thread(self.ports.blobs.delete, blob)

    async def _kept(self, key: SessionKey) -> set[bytes]:
        """The blobs that a session still needs."""
        stored = await self.ports.store.load(key)
        if stored is None:
            return set()
        state, rows = COORDINATOR_PERSISTENCE.decode(stored.state), _rows(stored)
        return lasting_blobs(state, rows) | (set() if self._is_over(stored) else private_blobs(rows))

    def _is_over(self, stored: StoredSession) -> bool:
        """Whether a session has ended, and its retention after that."""
        state = COORDINATOR_PERSISTENCE.decode(stored.state)
        if not isinstance(state, Finished | Aborted):
            return False
        parameters = SessionOpen.from_bytes(_open_entry(stored))
        return self.ports.clock.now_s() >= state.ended_at_s + parameters.retention_s


def _rows(stored: StoredSession) -> list[Row]:
    return [COORDINATOR_PERSISTENCE.decode(data) for data in stored.rows.values()]


def _has_ended(stored: StoredSession) -> bool:
    return isinstance(COORDINATOR_PERSISTENCE.decode(stored.state), Finished | Aborted)


def _open_entry(stored: StoredSession) -> bytes:
    """The open entry: in the log, or still being published."""
    data = stored.rows.get(row_key(0, RowKind.LOG))
    if data is not None:
        row = COORDINATOR_PERSISTENCE.decode(data)
        if isinstance(row, LogRow):
            return row.entry
    state = COORDINATOR_PERSISTENCE.decode(stored.state)
    if isinstance(state, Publishing) and state.position == 0:
        return state.entry
    raise StoreError("the session has no open entry")
