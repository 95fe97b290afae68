"""Coordinators and contributors as processes that die by SIGKILL at a chosen point and are started again.

The complete sweeps, over every point, run with ``-m long``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from secagg.identity.tls import create_certificate
from secagg.protocol.errors import ProtocolError
from secagg.protocol.pairwise.coordinator_states import COORDINATOR_PERSISTENCE, Finished
from secagg.protocol.rows import RowKind, row_key
from secagg.remote_operator import open_session
from secagg.runtime.clock import SystemClock
from secagg.runtime.participant import TransportError
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    PairwiseOpen,
    SessionClose,
    SessionResult,
    SignedRoster,
    decode_entry,
)
from secagg.transcript.roster import Roster
from secagg.v1 import aggregation_pb2 as pb
from tests.support.audit import complaints
from tests.support.cohort import key_of
from tests.support.coordinator_process import UNIT, one_hot_adapter, one_hot_session
from tests.support.faults import FaultTime

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("ada", "bob", "cy", "di")
_RUN_S = 120.0


@dataclass
class Site:
    """State directory, port and session of one run, and how many processes were killed in it."""

    state: Path
    port: int
    parameters: PairwiseOpen
    opening: pb.OpenSessionRequest
    deaths: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    said: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def prepare(cls, state: Path) -> Site:
        state.mkdir(parents=True)
        create_certificate(state, ["localhost", "127.0.0.1"], SystemClock().now_s(), 30)
        for position, name in enumerate(NAMES):
            (state / name).mkdir()
            one_hot_adapter(state / name / "adapter", position)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return cls(state, port, *one_hot_session([key_of(name) for name in NAMES]))


@asynccontextmanager
async def process(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of ours that does not outlive the block."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"tests.support.{module}", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            started.terminate()
        try:
            await asyncio.wait_for(started.communicate(), 10.0)
        except TimeoutError:
            started.kill()
            await started.communicate()


async def keep_serving(site: Site, fate: tuple[str, ...]) -> None:
    """Run the coordinator, again after each death; the operator opens the session as soon as that works."""
    while True:
        async with process("coordinator_process", str(site.state), str(site.port), *fate) as running:
            opening = asyncio.ensure_future(_open(site))
            try:
                code = await running.wait()
            finally:
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
            assert code == -signal.SIGKILL, f"the coordinator ended with {code}"
            site.deaths += 1
            fate = ()


async def _open(site: Site) -> None:
    while True:
        with suppress(TransportError):
            assert await open_session(site.state, site.opening, 10.0) == site.parameters.session
            site.opened.set()
            return
        await asyncio.sleep(0.05)  # a poll: the socket is not there yet


async def keep_contributing(site: Site, names: Iterable[str], fate: tuple[str, ...] = ()) -> None:
    """Run contributors in one process, again after its death, until they are done."""
    session = site.parameters.session.hex()
    await site.opened.wait()
    while True:
        arguments = (str(site.state), str(site.port), session, ",".join(names))
        async with process("contributor_process", *arguments, *fate) as running:
            assert running.stdout is not None
            lines = [json.loads(line) async for line in running.stdout]
            code = await running.wait()
            if code == 0:
                site.said += lines
                return
            assert code == -signal.SIGKILL, f"a contributor ended with {code}"
            site.deaths += 1
            fate = ()


async def run_until_done(
    site: Site, coordinator: tuple[str, ...], *contributors: tuple[Iterable[str], tuple[str, ...]]
):
    """A session with these fates: of the coordinator, and of processes of contributors."""
    serving = asyncio.ensure_future(keep_serving(site, coordinator))
    taking_part = asyncio.ensure_future(
        _all(keep_contributing(site, names, fate) for names, fate in contributors)  # each is a process
    )
    try:
        async with asyncio.timeout(_RUN_S):
            await asyncio.wait({serving, taking_part}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            await taking_part
    finally:
        serving.cancel()
        taking_part.cancel()
        await asyncio.gather(serving, taking_part, return_exceptions=True)


async def _all(runs: Iterable[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(run)


async def judge(site: Site) -> None:
    """Everybody has the same, right sum; nothing was said twice in different ways; all that counts is kept."""
    expected = [UNIT] * len(NAMES) + [0] * (site.parameters.encoding.dimension - len(NAMES))
    said = sorted(site.said, key=lambda one: one["name"])
    assert said == [{"name": name, "count": len(NAMES), "sum": expected} for name in NAMES]
    kinds: dict[int, set[str]] = defaultdict(set)
    for name in NAMES:
        digests: dict[str, set[str]] = defaultdict(set)
        for line in (site.state / name / "sent.jsonl").read_text().splitlines():
            message, digest, released = json.loads(line)
            digests[message].add(digest)
            for index, kind in released:
                kinds[index].add(kind)
        assert all(len(different) == 1 for different in digests.values()), f"{name} said something in two ways"
        assert set(digests) >= {"AdvertiseKeys", "ShareKeys", "Contribution", "ConfirmClose"}
    assert all(len(both) == 1 for both in kinds.values())
    _judge_log(site)
    _judge_record(site)
    await _judge_store(site)


def _judge_log(site: Site) -> None:
    entries: dict[int, set[str]] = defaultdict(set)
    heads: dict[int, set[str]] = defaultdict(set)
    for line in (site.state / "published.jsonl").read_text().splitlines():
        published, checkpoint = json.loads(line)
        heads[len(published)].add(checkpoint)
        for position, entry in enumerate(published):
            entries[position].add(entry)
    assert all(len(different) == 1 for different in (*entries.values(), *heads.values()))
    kinds = [type(decode_entry(bytes.fromhex(*entries[position]))) for position in sorted(entries)]
    assert kinds == [SignedRoster, PairwiseOpen, KeysAdvertised, KeysShared, SessionClose, SessionResult]
    assert sorted(entries) == list(range(len(kinds)))


def _judge_record(site: Site) -> None:
    """Nothing that stands in the published directory is half of something, or of another run."""
    record = site.state / "record"
    assert complaints(record) == []
    assert [path for path in record.rglob("*") if path.name.startswith(".") and path.is_file()] == []


async def _judge_store(site: Site) -> None:
    store = SqliteSessionStore(site.state / "sessions.db")
    try:
        stored = await store.load(site.parameters.session)
    finally:
        await store.close()
    assert stored is not None
    assert isinstance(COORDINATOR_PERSISTENCE.decode(stored.state), Finished)
    roster = Roster.from_leaves(site.opening.roster)
    for position in range(len(roster.members)):
        for kind in (RowKind.ADVERTISE, RowKind.SHARE, RowKind.HEADER, RowKind.STAGED):
            assert row_key(position, kind) in stored.rows
    assert not list((site.state / "blobs" / "uploads").iterdir()), "a counted upload left its staging files"


async def coordinator_dies(state: Path, call: int, when: FaultTime) -> bool:
    """One session whose coordinator dies at its ``call``-th journal call; False if it did not come to that."""
    site = Site.prepare(state)
    await run_until_done(site, (str(call), when.value), (NAMES, ()))
    await judge(site)
    return site.deaths == 1


async def contributor_dies(state: Path, call: int, when: FaultTime) -> bool:
    """One session one of whose contributors dies at its ``call``-th journal call."""
    site = Site.prepare(state)
    await run_until_done(site, (), (NAMES[1:], ()), (NAMES[:1], (str(call), when.value)))
    await judge(site)
    return site.deaths == 1


def test_four_contributors_in_processes_of_their_own_get_the_sum_over_a_coordinator_that_dies(tmp_path: Path) -> None:
    async def run() -> None:
        site = Site.prepare(tmp_path / "site")
        await run_until_done(site, ("25", "after"), *(((name,), ()) for name in NAMES))
        await judge(site)
        assert site.deaths == 1

    asyncio.run(run())


@pytest.mark.parametrize(("call", "when"), [(4, "after"), (9, "before"), (30, "after"), (43, "before")])
def test_a_killed_coordinator_goes_on_from_its_disk(tmp_path: Path, call: int, when: str) -> None:
    assert asyncio.run(coordinator_dies(tmp_path / "site", call, FaultTime(when)))


@pytest.mark.parametrize(("call", "when"), [(1, "after"), (6, "before"), (8, "after")])
def test_a_killed_contributor_goes_on_from_its_disk(tmp_path: Path, call: int, when: str) -> None:
    assert asyncio.run(contributor_dies(tmp_path / "site", call, FaultTime(when)))


async def sweep(directory: Path, one_run: Any, when: FaultTime) -> int:
    """Every call, two runs at a time, until one run passes in which nobody died; how many calls there were."""
    calls = itertools.count(1)
    survived: list[int] = []

    async def work() -> None:
        for call in calls:
            if survived:
                return
            try:
                if not await one_run(directory / str(call), call, when):
                    survived.append(call)
            except (AssertionError, TimeoutError, ProtocolError) as error:
                error.add_note(f"death {when.value} call {call}")
                raise

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(work())
    return min(survived) - 1


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("when", FaultTime)
def test_a_coordinator_killed_at_any_point_goes_on_from_its_disk(tmp_path: Path, when: FaultTime) -> None:
    points = asyncio.run(sweep(tmp_path, coordinator_dies, when))
    print(f"{points} points {when.value}")
    assert points >= 50


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("when", FaultTime)
def test_a_contributor_killed_at_any_point_goes_on_from_its_disk(tmp_path: Path, when: FaultTime) -> None:
    points = asyncio.run(sweep(tmp_path, contributor_dies, when))
    print(f"{points} points {when.value}")
    assert points >= 10
