"""What every session store does, on disk or not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from secagg.runtime.memory import MemorySessionStore
from secagg.runtime.ports import Commit, SessionStore, StoredSession, StoreError, VersionConflictError
from secagg.store.sealed import SealedSessionStore
from secagg.store.sqlite import SqliteSessionStore
from tests.support.faults import FaultTime, FaultyStore, InjectedFaultError

A, B, C = (bytes([letter]) * 16 for letter in b"abc")
Check = Callable[[SessionStore], Awaitable[None]]
Run = Callable[[Check], None]


@asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncIterator[SessionStore]:
    if kind == "memory":
        yield MemorySessionStore()
        return
    database = SqliteSessionStore(path)
    try:
        yield database if kind == "sqlite" else SealedSessionStore(database, bytes(range(32)), os.urandom)
    finally:
        await database.close()


@pytest.fixture(params=["memory", "sqlite", "sealed"])
def run(request, tmp_path) -> Run:
    def run_check(check: Check) -> None:
        async def checked() -> None:
            async with opened(request.param, tmp_path / "sessions.db") as store:
                await check(store)

        asyncio.run(checked())

    return run_check


def test_an_unknown_session_is_none(run):
    async def check(store):
        assert await store.load(A) is None
        assert list(await store.sessions()) == []

    run(check)


def test_a_commit_can_be_loaded(run):
    async def check(store):
        identifiers = await store.commit(A, 0, Commit(b"state", {7: b"seven", 0: b""}, [b"one", b"two"]))
        assert len(set(identifiers)) == 2
        effects = list(zip(identifiers, [b"one", b"two"], strict=True))
        assert await store.load(A) == StoredSession(1, b"state", {0: b"", 7: b"seven"}, effects)

    run(check)


def test_later_commits_replace_the_state_and_only_the_rows_they_name(run):
    async def check(store):
        first = await store.commit(A, 0, Commit(b"1", {1: b"x", 2: b"y"}, [b"e"]))
        second = await store.commit(A, 1, Commit(b"2", {2: b"z", 2**63 - 1: b"far"}, [b"f"]))
        stored = await store.load(A)
        assert (stored.version, stored.state) == (2, b"2")
        assert stored.rows == {1: b"x", 2: b"z", 2**63 - 1: b"far"}
        assert list(stored.effects) == [(first[0], b"e"), (second[0], b"f")]

    run(check)


def test_a_conflict_writes_nothing(run):
    async def check(store):
        await store.commit(A, 0, Commit(b"1", {1: b"x"}))
        for wrong in (0, 2, 7, -1):
            with pytest.raises(VersionConflictError):
                await store.commit(A, wrong, Commit(b"2", {1: b"y", 2: b"z"}, [b"e"]))
        with pytest.raises(VersionConflictError):
            await store.commit(B, 1, Commit(b"b"))
        assert await store.load(A) == StoredSession(1, b"1", {1: b"x"}, [])
        assert list(await store.sessions()) == [A]

    run(check)


def test_of_commits_that_race_exactly_one_wins(run):
    async def check(store):
        await store.commit(A, 0, Commit(b""))
        racers = [store.commit(A, 1, Commit(bytes([n]), {n: b"r"}, [bytes([n])])) for n in range(20)]
        others = [store.commit(bytes([n]) * 16, 0, Commit(b"other")) for n in range(20)]
        answers = await asyncio.gather(*racers, *others, return_exceptions=True)
        won = [n for n, answer in enumerate(answers[:20]) if not isinstance(answer, Exception)]
        lost = [answer for answer in answers[:20] if isinstance(answer, VersionConflictError)]
        assert len(won) == 1
        assert len(lost) == 19
        assert all(list(answer) == [] for answer in answers[20:])
        stored = await store.load(A)
        assert (stored.version, stored.state, set(stored.rows)) == (2, bytes(won), set(won))
        assert [effect for _, effect in stored.effects] == [bytes(won)]

    run(check)


def test_sessions_come_in_order_of_creation(run):
    async def check(store):
        for session in (C, A, B):
            await store.commit(session, 0, Commit(b""))
        await store.commit(C, 1, Commit(b"again"))
        assert list(await store.sessions()) == [C, A, B]

    run(check)


def test_a_done_effect_is_gone_and_its_identifier_never_comes_back(run):
    async def check(store):
        first, second = await store.commit(A, 0, Commit(b"", {}, [b"one", b"two"]))
        await store.effect_done(A, second)
        await store.effect_done(A, second)
        (third,) = await store.commit(A, 1, Commit(b"", {}, [b"three"]))
        assert third not in (first, second)
        assert list((await store.load(A)).effects) == [(first, b"one"), (third, b"three")]

    run(check)


def test_an_effect_of_another_session_or_of_none_is_left_alone(run):
    async def check(store):
        (effect,) = await store.commit(A, 0, Commit(b"", {}, [b"one"]))
        await store.commit(B, 0, Commit(b""))
        for session, identifier in ((B, effect), (C, effect), (A, effect + 1), (A, -1), (A, 2**70)):
            await store.effect_done(session, identifier)
        assert list((await store.load(A)).effects) == [(effect, b"one")]

    run(check)


def test_what_does_not_fit_is_refused(run):
    async def check(store):
        await store.commit(A, 0, Commit(b"1"))
        for session, commit in ((b"short", Commit(b"")), (A, Commit(b"", {-1: b""})), (A, Commit(b"", {2**63: b""}))):
            with pytest.raises(StoreError):
                await store.commit(session, 1 if session == A else 0, commit)
        assert await store.load(A) == StoredSession(1, b"1", {}, [])

    run(check)


def test_many_commits_in_parallel_all_arrive(run):
    async def check(store):
        async def grow(session: bytes) -> None:
            for version in range(10):
                await store.commit(session, version, Commit(b"%d" % version, {version: session}, [session]))

        sessions = [n.to_bytes(16, "big") for n in range(50)]
        await asyncio.gather(*map(grow, sessions))
        assert sorted(await store.sessions()) == sessions
        for session in sessions:
            stored = await store.load(session)
            assert (stored.version, stored.state) == (10, b"9")
            assert stored.rows == dict.fromkeys(range(10), session)
            assert [effect for _, effect in stored.effects] == [session] * 10

    run(check)


@pytest.mark.parametrize("when", FaultTime)
@pytest.mark.parametrize("fail_at", range(1, 6))
def test_a_caller_that_asks_again_after_a_fault_loses_and_doubles_nothing(run, fail_at, when):
    async def check(inner):
        store = FaultyStore(inner, fail_at, when)

        async def again(call: Callable[[], Awaitable[object]]) -> None:
            try:
                await call()
            except InjectedFaultError:
                try:
                    await call()
                except VersionConflictError:
                    assert when is FaultTime.AFTER

        await again(lambda: store.commit(A, 0, Commit(b"1", {1: b"x"}, [b"e"])))
        await again(store.sessions)
        await again(lambda: store.load(A))
        await again(lambda: store.commit(A, 1, Commit(b"2", {2: b"y"}, [b"f"])))
        stored = await inner.load(A)
        await again(lambda: store.effect_done(A, stored.effects[0][0]))
        stored = await inner.load(A)
        assert (stored.version, stored.state, stored.rows) == (2, b"2", {1: b"x", 2: b"y"})
        assert [effect for _, effect in stored.effects] == [b"f"]
        assert store.calls == 6

    run(check)
