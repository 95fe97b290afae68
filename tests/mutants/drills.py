"""Weakenings that show when real processes are killed or held up."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_T = "tests/drills/test_drills.py"
_COORDINATOR = f"{_T}::test_a_coordinator_that_is_killed_loses_nothing_that_it_acknowledged"
_MEMBER = f"{_T}::test_members_that_are_killed_answer_once_and_remember_it"
_WITNESS = f"{_T}::test_witnesses_that_are_killed_remember_what_they_cosigned"
_CLIENT = f"{_T}::test_contributors_that_are_killed_go_on_and_say_nothing_twice"
_UPLOADERS = f"{_T}::test_honest_uploaders_are_served_beside_slow_stalled_and_broken_ones"
_WATCHERS = f"{_T}::test_watchers_hear_the_end_and_leave_their_places_to_others"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "a coordinator gives a receipt a moment before it has counted the upload",
        "secagg/services/uploads.py",
        "        await host.submit(UploadStaged(header.identity, header.upload))\n        self._announced_s.pop(token, None)\n        await self._discard(token)",
        "        asyncio.get_running_loop().call_later(1.0, lambda: asyncio.ensure_future(host.submit(UploadStaged(header.identity, header.upload))))\n        self._announced_s.pop(token, None)\n        await self._discard(token)",
        _COORDINATOR,
    ),
    mutant(
        "a member's journal hears of an answer a moment after it is out",
        "secagg/runtime/member_session.py",
        "await asyncio.to_thread(self._ports.journal.add, line)",
        "asyncio.get_running_loop().call_later(5.0, self._ports.journal.add, line)",
        _MEMBER,
    ),
    mutant(
        "a witness answers a moment before its state is on the disk",
        "secagg/runtime/witness.py",
        "self._state.advance(log.name, stored, kept)",
        '__import__("threading").Timer(1.0, self._state.advance, (log.name, stored, kept)).start()',
        _WITNESS,
    ),
    mutant(
        "a witness keeps no state",
        "secagg/store/witness_state.py",
        "            self._write(origin, new)",
        "            self._durable.add(origin)",
        _WITNESS,
    ),
    mutant(
        "a contributor that is started again does not find what it did",
        "secagg/participation.py",
        'SqliteSessionStore(own / "sessions.db")',
        'SqliteSessionStore(own / f"{id(self)}.db")',
        _CLIENT,
    ),
    mutant(
        "streams that stall keep the places of the others",
        "secagg/services/upload_calls.py",
        "_STREAM_S = 1.0",
        "_STREAM_S = 3600.0",
        _UPLOADERS,
    ),
    mutant(
        "an upload counts whatever its bytes are",
        "secagg/store/uploads.py",
        "if committed > declared.length_bytes or self._hash.digest() != declared.digest:",
        "if committed > declared.length_bytes:",
        _UPLOADERS,
    ),
    mutant(
        "a damaged chunk is taken",
        "secagg/store/blobs.py",
        "if zlib.crc32(view) != crc32:",
        "if not view:",
        _UPLOADERS,
    ),
    mutant(
        "a watcher that has gone keeps its place",
        "secagg/services/aggregation.py",
        "            self._watchers -= 1",
        "            pass",
        _WATCHERS,
    ),
    mutant(
        "there is a place for every watcher",
        "secagg/services/aggregation.py",
        "if self._watchers >= self._max_watchers:",
        "if self._watchers < 0:",
        _WATCHERS,
    ),
)
