"""Stores that fail on purpose."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from secagg.runtime.ports import Commit, SessionKey, SessionStore, StoredSession, StoreError

_T = TypeVar("_T")


class InjectedFaultError(StoreError):
    """The failure a test asked for."""


class FaultTime(enum.Enum):
    """Whether the failing call still does its work."""

    BEFORE = "before"
    AFTER = "after"


class FaultyStore:
    """``inner``, whose ``fail_at``-th call (counted from 1, over all methods) raises ``InjectedFaultError``.

    With ``FaultTime.AFTER`` the inner call has taken effect and only its answer is lost, as in a crash
    between COMMIT and the acknowledgement. Other calls pass; ``calls`` counts them all.
    """

    def __init__(self, inner: SessionStore, fail_at: int, when: FaultTime) -> None:
        self._inner = inner
        self._fail_at = fail_at
        self._when = when
        self.calls = 0

    async def sessions(self) -> Sequence[SessionKey]:
        return await self._pass(self._inner.sessions)

    async def load(self, session: SessionKey) -> StoredSession | None:
        return await self._pass(lambda: self._inner.load(session))

    async def commit(self, session: SessionKey, expected_version: int, commit: Commit) -> Sequence[int]:
        return await self._pass(lambda: self._inner.commit(session, expected_version, commit))

    async def effect_done(self, session: SessionKey, effect: int) -> None:
        await self._pass(lambda: self._inner.effect_done(session, effect))

    async def _pass(self, call: Callable[[], Awaitable[_T]]) -> _T:
        self.calls += 1
        fails = self.calls == self._fail_at
        if fails and self._when is FaultTime.BEFORE:
            raise InjectedFaultError(f"call {self.calls}, before it did anything")
        answer = await call()
        if fails:
            raise InjectedFaultError(f"call {self.calls}, after it took effect")
        return answer
