"""The driver: step, commit under compare-and-set, then dispatch. One for every machine.

Commits are pipelined: the next event steps from the state that the previous one is still writing, so that many
events of one session share a disk flush. Nothing of an event is visible before its own commit is durable: its
caller waits, its effects wait, and ``state`` is the last durable one. If a commit fails, what was built on it fails
with it, and the session is read back from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

from secagg.protocol.persist import Persistence
from secagg.protocol.transition import Transition
from secagg.runtime.ports import Commit, SessionKey, SessionStore, StoreError, VersionConflictError

StateT = TypeVar("StateT")
EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")

Step = Callable[[StateT, Mapping[int, object], EventT], Transition[StateT, EffectT]]
Dispatch = Callable[[int, EffectT], None]
"""Carries an effect out, some time later; called with the identifier to pass to ``done``."""


class Driver(Generic[StateT, EventT, EffectT]):
    """Runs one session of one machine."""

    def __init__(
        self,
        session: SessionKey,
        store: SessionStore,
        persistence: Persistence,
        step: Step[StateT, EventT, EffectT],
        dispatch: Dispatch[EffectT],
    ) -> None:
        self._session = session
        self._store = store
        self._persistence = persistence
        self._step = step
        self._dispatch = dispatch
        self._live: StateT | None = None
        self._durable: StateT | None = None
        self._version = 0
        self._durable_version = 0
        self._rows: dict[int, object] = {}
        self._durable_rows: dict[int, object] = {}
        self._in_flight: set[asyncio.Task[None]] = set()
        self._broken = False
        self._closed = False
        self._reloading = asyncio.Lock()
        self.changed = asyncio.Condition()

    @property
    def state(self) -> StateT:
        """The last durable state."""
        if self._durable is None:
            raise StoreError("the session was neither created nor resumed")
        return self._durable

    @property
    def version(self) -> int:
        """Grows with every durable change."""
        return self._durable_version

    @property
    def rows(self) -> Mapping[int, object]:
        """The rows that belong to ``state``: the last durable ones."""
        return self._durable_rows

    async def create(self, transition: Transition[StateT, EffectT]) -> None:
        """Store a new session and carry out its first effects.

        Raises:
            VersionConflictError: it exists.
        """
        await self._apply(transition)

    async def resume(self) -> bool:
        """Read the session back and carry out the effects that are not done; False if there is none."""
        stored = await self._store.load(self._session)
        if stored is None:
            return False
        state = self._persistence.decode(stored.state)
        # A new mapping: threads may be reading the old one, and must not find it empty meanwhile.
        self._rows = {key: self._persistence.decode(row) for key, row in stored.rows.items()}
        self._durable_rows = dict(self._rows)
        self._live = self._durable = state
        self._version = self._durable_version = stored.version
        self._broken = False
        for identifier, effect in stored.effects:
            self._carry_out(identifier, self._persistence.decode(effect))
        await self._notify()
        return True

    async def restore(self) -> None:
        """After a commit that failed, know again what is durable; ``feed`` does so by itself.

        Raises:
            StoreError: the store does not answer.
        """
        if self._broken:
            await self._reload()

    async def feed(self, event: EventT) -> StateT:
        """Step on ``event``; returns the state that followed once it is durable.

        Raises:
            ProtocolError: the machine refused; nothing changed.
            StoreError: the commit failed; whether the event was taken is unknown until it is fed again.
        """
        await self.restore()
        if self._live is None:
            raise StoreError("the session was neither created nor resumed")
        transition = self._step(self._live, self._rows, event)
        if transition.state is self._live and not transition.rows and not transition.effects:
            # A repetition is acknowledged only when what it repeats is durable.
            await self._flushed()
            return transition.state
        await self._apply(transition)
        return transition.state

    async def check(self, judge: Callable[[StateT, Mapping[int, object]], object]) -> None:
        """Let ``judge`` refuse an event before anything is done for it: it raises as ``feed`` would.

        Raises:
            ProtocolError: ``judge`` refuses.
            StoreError: the store does not answer.
        """
        await self.restore()
        if self._live is None:
            raise StoreError("the session was neither created nor resumed")
        judge(self._live, self._rows)

    async def done(self, effect: int) -> None:
        """Forget a delivered effect."""
        await self._store.effect_done(self._session, effect)

    async def wait_for_change(self, version: int) -> None:
        """Return as soon as ``self.version`` differs from ``version``."""
        async with self.changed:
            await self.changed.wait_for(lambda: self._durable_version != version)

    async def close(self, tasks: Collection[asyncio.Task[None]]) -> None:
        """Dispatch nothing more, cancel ``tasks`` (those that carry effects out), let commits under way land."""
        self._closed = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def _apply(self, transition: Transition[StateT, EffectT]) -> None:
        commit = Commit(
            self._persistence.encode(transition.state),
            {key: self._persistence.encode(row) for key, row in transition.rows.items()},
            [self._persistence.encode(effect) for effect in transition.effects],
        )
        expected = self._version
        self._version += 1
        self._live = transition.state
        self._rows.update(transition.rows)
        # A task of its own: a caller that goes away must not leave the outcome unknown to the driver.
        task = asyncio.ensure_future(self._commit(expected, commit, transition))
        self._in_flight.add(task)
        task.add_done_callback(self._landed)
        await asyncio.shield(task)

    async def _commit(self, expected: int, commit: Commit, transition: Transition[StateT, EffectT]) -> None:
        if self._broken:
            raise VersionConflictError("an earlier commit of this session failed")
        try:
            identifiers = await self._store.commit(self._session, expected, commit)
        except BaseException:
            self._broken = True
            raise
        if self._broken:
            # What it builds on may be in the store or not: both are read back together.
            raise VersionConflictError("an earlier commit of this session failed")
        self._durable = transition.state
        self._durable_version = expected + 1
        self._durable_rows.update(transition.rows)
        for identifier, effect in zip(identifiers, transition.effects, strict=True):
            self._carry_out(identifier, effect)
        await self._notify()

    def _carry_out(self, identifier: int, effect: EffectT) -> None:
        if not self._closed:
            self._dispatch(identifier, effect)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # it is the caller's; if the caller has gone away, nobody else wants it

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _flushed(self) -> None:
        pending = list(self._in_flight)
        if pending:
            await asyncio.gather(*(asyncio.shield(task) for task in pending))

    async def _reload(self) -> None:
        async with self._reloading:
            if not self._broken:
                return
            await asyncio.gather(*self._in_flight, return_exceptions=True)
            if not await self.resume():
                raise StoreError("the session is not in the store")
