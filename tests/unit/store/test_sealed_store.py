"""What the disk learns from a sealed store, and what a writer of the disk can do to it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import sqlite3
from pathlib import Path

import pytest

from secagg.runtime.memory import MemorySessionStore
from secagg.runtime.ports import Commit, StoredSession, StoreError, VersionConflictError
from secagg.store.sealed import OVERHEAD_BYTES, SealedSessionStore
from secagg.store.sqlite import SqliteSessionStore

A, B = b"a" * 16, b"b" * 16
KEY = bytes(range(32))
SECRET = b"the seed of somebody's mask, 32."
FIRST = Commit(b"state 1" + SECRET, {1: b"row 1" + SECRET, 2: b"row 2" + SECRET}, [b"e1" + SECRET, b"e2" + SECRET])


async def filled() -> tuple[MemorySessionStore, SealedSessionStore]:
    inner = MemorySessionStore()
    store = SealedSessionStore(inner, KEY, os.urandom)
    for session in (A, B):
        await store.commit(session, 0, FIRST)
        await store.commit(session, 1, Commit(b"state 2", {2: b"row 2 again"}, [b"e3"]))
    return inner, store


def test_secrets_and_the_key_do_not_occur_in_the_files(tmp_path):
    path = tmp_path / "sessions.db"

    async def check() -> None:
        database = SqliteSessionStore(path)
        store = SealedSessionStore(database, KEY, os.urandom)
        await store.commit(A, 0, FIRST)
        assert (await store.load(A)).rows == FIRST.rows
        assert_clean()  # with its write-ahead log
        await database.close()
        assert_clean()

    def assert_clean() -> None:
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert A in content
        for secret in (SECRET, KEY, b"row 1", b"state 1"):
            for shown in (secret, secret.hex().encode(), base64.b64encode(secret), repr(list(secret)).encode()):
                assert shown not in content

    asyncio.run(check())
    # The test has teeth: unsealed, they are there.
    plain = SqliteSessionStore(tmp_path / "plain.db")

    async def unsealed() -> None:
        await plain.commit(A, 0, FIRST)
        await plain.close()

    asyncio.run(unsealed())
    assert SECRET in (tmp_path / "plain.db").read_bytes()


def test_no_cell_opens_in_the_place_of_another():
    async def check() -> None:
        inner, store = await filled()
        original = await inner.load(A)
        other = await inner.load(B)
        cells = {("state", session): stored.state for session, stored in ((A, original), (B, other))} | {
            (kind, session, key): cell
            for session, stored in ((A, original), (B, other))
            for kind, pairs in (("row", stored.rows.items()), ("effect", stored.effects))
            for key, cell in pairs
        }
        places = [place for place in cells if place[1] == A]
        assert len(places) == 6
        for place, source in itertools.product(places, cells):
            if source == place:
                continue
            inner._sessions[A].state = original.state
            inner._sessions[A].rows = dict(original.rows)
            inner._sessions[A].effects = dict(original.effects)
            put(inner, place, cells[source])
            with pytest.raises(StoreError, match=f"session {A.hex()}, {place[0]}") as caught:
                await store.load(A)
            assert SECRET not in str(caught.value).encode()

    def put(inner: MemorySessionStore, place: tuple, cell: bytes) -> None:
        if place[0] == "state":
            inner._sessions[A].state = cell
        elif place[0] == "row":
            inner._sessions[A].rows[place[2]] = cell
        else:
            inner._sessions[A].effects[place[2]] = cell

    asyncio.run(check())


def test_an_older_state_a_later_row_and_a_repeated_effect_are_refused():
    async def check() -> None:
        inner, store = await filled()
        stored = await inner.load(A)
        before = MemorySessionStore()
        await SealedSessionStore(before, KEY, os.urandom).commit(A, 0, FIRST)
        old = await before.load(A)

        inner._sessions[A].state = old.state
        with pytest.raises(StoreError, match="state: from version 1, stored 2"):
            await store.load(A)
        inner._sessions[A].version = 1
        with pytest.raises(StoreError, match="row 2: from version 2, stored 1"):
            await store.load(A)
        inner._sessions[A].rows = dict(old.rows)
        with pytest.raises(StoreError, match="out of order"):
            await store.load(A)
        inner._sessions[A].version, inner._sessions[A].state = 2, stored.state
        inner._sessions[A].effects[99] = stored.effects[0][1]
        with pytest.raises(StoreError, match="effect 99: out of order"):
            await store.load(A)

    asyncio.run(check())


def test_every_flipped_bit_is_noticed():
    async def check() -> None:
        inner, store = await filled()
        good = inner._sessions[A].state
        for position in range(len(good)):
            inner._sessions[A].state = good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
            with pytest.raises(StoreError, match="state"):
                await store.load(A)
        for length in range(len(good)):
            inner._sessions[A].state = good[:length]
            with pytest.raises(StoreError, match="state"):
                await store.load(A)

    asyncio.run(check())


def test_another_key_opens_nothing_and_the_error_shows_no_content():
    async def check() -> None:
        inner, _ = await filled()
        store = SealedSessionStore(inner, bytes(32), os.urandom)
        with pytest.raises(StoreError, match=f"session {A.hex()}, state: does not open under this key"):
            await store.load(A)

    asyncio.run(check())


def test_every_cell_has_its_own_nonce_of_12_fresh_bytes_and_a_known_overhead():
    async def check() -> None:
        nonces: list[bytes] = []

        def read_random(count: int) -> bytes:
            nonces.append(len(nonces).to_bytes(count, "big"))
            return nonces[-1]

        inner = MemorySessionStore()
        await SealedSessionStore(inner, KEY, read_random).commit(A, 0, FIRST)
        assert nonces == [n.to_bytes(12, "big") for n in range(5)]
        stored = await inner.load(A)
        assert len(stored.state) == len(FIRST.state) + OVERHEAD_BYTES

    asyncio.run(check())


def test_equal_contents_look_different_and_sessions_have_keys_of_their_own():
    async def check() -> None:
        inner = MemorySessionStore()
        store = SealedSessionStore(inner, KEY, bytes)  # the worst generator
        for session in (A, B):
            await store.commit(session, 0, Commit(b"same"))
        ciphertexts = [(await inner.load(session)).state[-20:-16] for session in (A, B)]
        assert ciphertexts[0] != ciphertexts[1]

    asyncio.run(check())


def test_a_conflict_passes_through_and_the_key_has_32_bytes():
    async def check() -> None:
        inner, store = await filled()
        with pytest.raises(VersionConflictError):
            await store.commit(A, 0, FIRST)
        with pytest.raises(StoreError, match="expected 32 bytes, got 16"):
            SealedSessionStore(inner, bytes(16), os.urandom)
        assert KEY.hex() not in repr(vars(store))
        assert repr(KEY) not in repr(vars(store))

    asyncio.run(check())


def test_a_session_sealed_by_one_process_opens_in_the_next(tmp_path: Path):
    async def write() -> None:
        database = SqliteSessionStore(tmp_path / "sessions.db")
        await SealedSessionStore(database, KEY, os.urandom).commit(A, 0, FIRST)
        await database.close()

    async def read() -> StoredSession | None:
        database = SqliteSessionStore(tmp_path / "sessions.db")
        stored = await SealedSessionStore(database, KEY, os.urandom).load(A)
        await database.close()
        return stored

    asyncio.run(write())
    stored = asyncio.run(read())
    assert (stored.state, stored.rows) == (FIRST.state, FIRST.rows)
    assert [effect for _, effect in stored.effects] == list(FIRST.effects)
    raw = sqlite3.connect(tmp_path / "sessions.db")
    assert raw.execute("SELECT count(*) FROM cells").fetchone() == (2,)
    raw.close()
