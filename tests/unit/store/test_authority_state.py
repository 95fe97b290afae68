"""The state directory of a key authority."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from secagg.runtime.ports import Commit, StaleStoreError, StoreError
from secagg.store.authority_state import JOURNAL_FILE, SESSIONS_FILE, AuthorityState

SESSION = b"s" * 16


def filled(directory: Path) -> None:
    AuthorityState.create(directory)

    async def fill() -> None:
        state = AuthorityState(directory)
        await state.sessions.commit(SESSION, 0, Commit(b"state"))
        await state.close()

    asyncio.run(fill())


def sessions_in(directory: Path) -> list[bytes]:
    async def look() -> list[bytes]:
        state = AuthorityState(directory)
        try:
            return list(await state.sessions.sessions())
        finally:
            await state.close()

    return asyncio.run(look())


def test_what_was_stored_is_there_again(tmp_path: Path) -> None:
    filled(tmp_path / "state")
    assert sessions_in(tmp_path / "state") == [SESSION]
    assert (tmp_path / "state" / SESSIONS_FILE).exists()
    assert not (tmp_path / "state" / JOURNAL_FILE).exists()


def test_it_is_made_once(tmp_path: Path) -> None:
    AuthorityState.create(tmp_path / "state")
    with pytest.raises(StoreError, match="is there already"):
        AuthorityState.create(tmp_path / "state")


def moved_away(directory: Path) -> None:
    directory.rename(directory.with_name("gone"))


def emptied(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


def copied(directory: Path) -> None:
    shutil.copytree(directory, directory.with_name("copy"))
    shutil.rmtree(directory)
    directory.with_name("copy").rename(directory)


@pytest.mark.parametrize("damage", [moved_away, emptied, copied])
def test_a_state_that_is_gone_emptied_or_a_copy_is_refused_until_it_is_accepted_without_its_sessions(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    directory = tmp_path / "state"
    filled(directory)
    damage(directory)
    with pytest.raises(StaleStoreError, match="--restored"):
        AuthorityState(directory)
    abandoned = AuthorityState.accept_restored(directory)
    assert abandoned == (1 if damage is copied else 0)
    assert sessions_in(directory) == []


def test_logs_of_different_coordinators_and_names_are_remembered_apart(tmp_path: Path) -> None:
    filled(tmp_path / "state")

    async def look() -> None:
        state = AuthorityState(tmp_path / "state")
        state.memory_of(bytes(32), "a.example").update(lambda _: b"note")
        assert state.memory_of(bytes(32), "a.example").load() == b"note"
        assert state.memory_of(bytes(32), "b.example").load() is None
        assert state.memory_of(b"k" * 32, "a.example").load() is None
        await state.close()

    asyncio.run(look())
