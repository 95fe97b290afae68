"""All sessions of one coordinator: opening, finding, resuming after a restart, and forgetting in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from secagg.privacy.session_noise import NoiseError, check_noise
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.persist import Persistence
from secagg.protocol.rows import LogRow, PublishEntry, RowKind, SetupRow, row_key
from secagg.protocol.sessions import AnySession, session_of
from secagg.runtime.hosts import host_for, kind_of
from secagg.runtime.ports import SessionKey, StoredSession, StoreError, VersionConflictError
from secagg.runtime.session_host import AnyHost, CoordinatorPorts
from secagg.transcript.entries import SessionOpen
from secagg.transcript.roster import Roster

_SWEEP_INTERVAL_S = 60.0
_IDENTITY_BYTES = 32

_BEGINNING = Persistence(SetupRow, LogRow, PublishEntry)
"""What a session begins with, in every protocol: enough to know which protocol it is."""


class Registry:
    """The sessions of a coordinator. Those that have ended are read from the store when somebody asks."""

    def __init__(self, ports: CoordinatorPorts) -> None:
        self.ports = ports
        self._hosts: dict[SessionKey, AnyHost] = {}
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
            if stored is not None and _ended_at_s(stored) is None:
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

    async def open(self, session: AnySession, setup: SetupRow) -> AnyHost:
        """Open a new session; opening the same one again gives the same host.

        Raises:
            RemoteProtocolError: another session has this identifier, its protocol is none that is run here, or its
                parameters are none that it could be run with.
        """
        parameters = session.parameters
        kind_of(parameters).check_parameters(session)
        await asyncio.to_thread(_check_noise, parameters)
        # Under the lock: whoever asks for the session meanwhile must not resume it a second time.
        async with self._loading:
            host = self._hosts.get(parameters.session) or await self._open(session, setup)
        if host.session.entry != session.entry:
            raise RemoteProtocolError(RejectReason.EQUIVOCATION, "session identifier in use")
        await host.opened()
        return host

    async def find(self, key: SessionKey) -> AnyHost:
        """The host of a session.

        Raises:
            RemoteProtocolError: UNKNOWN_SESSION.
        """
        host = self._hosts.get(key)
        if host is not None:
            return host
        async with self._loading:
            return self._hosts.get(key) or await self._load(key)

    def hosts(self) -> list[AnyHost]:
        """The sessions in memory: all that have not ended, and those that somebody asked for."""
        return list(self._hosts.values())

    async def keys(self) -> list[SessionKey]:
        """All sessions, newest first."""
        return list(reversed(await self.ports.store.sessions()))

    async def _open(self, session: AnySession, setup: SetupRow) -> AnyHost:
        host = host_for(session, self.ports)
        try:
            await host.create(setup)
        except VersionConflictError:
            return await self._load(session.parameters.session)
        except BaseException:
            await host.close()  # it may be in the store all the same: then it is not for this host to go on with it
            raise
        self._hosts[session.parameters.session] = host
        return host

    async def _load(self, key: SessionKey) -> AnyHost:
        stored = await self.ports.store.load(key)
        if stored is None:
            raise RemoteProtocolError(RejectReason.UNKNOWN_SESSION)
        return await self._resume(key, stored)

    async def _resume(self, key: SessionKey, stored: StoredSession) -> AnyHost:
        host = host_for(self._session_of(stored), self.ports)
        await host.resume()
        # Only now: a host that could not read its session is tried again, not handed out.
        self._hosts[key] = host
        return host

    def _session_of(self, stored: StoredSession) -> AnySession:
        setup = _BEGINNING.decode(stored.rows[row_key(0, RowKind.SETUP)])
        roster = Roster.from_leaves(self.ports.blobs.get(setup.roster).splitlines())
        only = contributors_from_bytes(self.ports.blobs.get(setup.contributors)) if setup.contributors else None
        return session_of(_parameters(stored), roster, only)

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
                        due[key] = kind_of(_parameters(stored)).private_blobs(_rows(stored))
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
        seen: list[tuple[AnyHost, int]] = []
        live: set[bytes] = set()
        for blob in doomed:
            hosts = [(host, host.driver.version) for host in self._hosts.values() if not host.is_over]
            if hosts != seen:
                seen, live = hosts, set().union(*(host.private_blobs(host.rows.values()) for host, _ in hosts))
            if blob not in live:
                await asyncio.to_thread(self.ports.blobs.delete, blob)

    async def _kept(self, key: SessionKey) -> set[bytes]:
        """The blobs that a session still needs."""
        stored = await self.ports.store.load(key)
        if stored is None:
            return set()
        kind, rows = kind_of(_parameters(stored)), _rows(stored)
        state = kind.persistence.decode(stored.state)
        return kind.lasting_blobs(state, rows) | (set() if self._is_over(stored) else kind.private_blobs(rows))

    def _is_over(self, stored: StoredSession) -> bool:
        """Whether a session has ended, and its retention after that."""
        ended_at_s = _ended_at_s(stored)
        return ended_at_s is not None and self.ports.clock.now_s() >= ended_at_s + _parameters(stored).retention_s


def contributors_to_bytes(contributors: Iterable[bytes]) -> bytes:
    """The blob of ``SetupRow.contributors``; its SHA-256 is what a merge names (``contributors_digest``)."""
    return b"".join(sorted(contributors))


def contributors_from_bytes(data: bytes) -> frozenset[bytes]:
    """The identities in such a blob."""
    return frozenset(data[at : at + _IDENTITY_BYTES] for at in range(0, len(data), _IDENTITY_BYTES))


def _check_noise(parameters: SessionOpen) -> None:
    """Refuse noise of which contributors would not believe what it costs."""
    try:
        check_noise(parameters)
    except NoiseError as error:
        raise RemoteProtocolError(RejectReason.UNSAFE_NOISE, f"{error}") from None


def _rows(stored: StoredSession) -> list[object]:
    persistence = kind_of(_parameters(stored)).persistence
    return [persistence.decode(data) for data in stored.rows.values()]


def _ended_at_s(stored: StoredSession) -> int | None:
    kind = kind_of(_parameters(stored))
    return kind.ended_at_s(kind.persistence.decode(stored.state))


def _parameters(stored: StoredSession) -> SessionOpen:
    """The parameters, from the open entry: it is in the log, or still being published."""
    data = stored.rows.get(row_key(0, RowKind.LOG))
    if data is None and stored.effects:
        _, data = stored.effects[0]
    first = None if data is None else _BEGINNING.decode(data)
    if not isinstance(first, LogRow | PublishEntry):
        raise StoreError("the session has no open entry")
    return SessionOpen.from_bytes(first.entry)
