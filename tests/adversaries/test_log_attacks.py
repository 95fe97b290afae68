"""Attacks on the log, on what clients remember of it, on the record and on those that write it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from secagg.crypto.notes import cosign, log_key, open_checkpoint, witness_key
from secagg.protocol import log
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import AdvertiseKeys, Contribution
from secagg.protocol.pairwise import client, recovery, tables
from secagg.protocol.pairwise.client_states import CLIENT_PERSISTENCE, Confirmed
from secagg.protocol.pairwise.coordinator_states import Recovering
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import DeadlinePassed, RowKind, SetupRow, row_key
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.memory import MemoryBlobStore, MemoryRecord, MemorySessionStore
from secagg.runtime.memory_log import MemoryLogFiles
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.pairwise_participant import PairwiseParticipant
from secagg.runtime.participant import ParticipantPorts
from secagg.runtime.ports import Commit, StoreError
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.transparency_log import TransparencyLog
from secagg.services.cosigners import CosignTimes, HttpCosigners
from secagg.store import files as store_files
from secagg.store.checkpoints import FileCheckpointMemory
from secagg.store.log_files import LogDirectory
from secagg.transcript.entries import KeysAdvertised, KeysShared, SessionClose, SessionResult
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.note import Note
from secagg.transcript.policy import GroupRule, LogPolicy, WitnessRule
from secagg.transcript.statements import AdvertiseStatement, ContributionHeader
from tests.support.aggregates import some_adapter
from tests.support.cohort import (
    Client,
    Cohort,
    VirtualClock,
    key_of,
    one_hot,
    session_of,
    setup_of,
    signed_roster,
)
from tests.support.liars import advance, cohort_of, contribute, settled, stop, uploading
from tests.support.published import NO_WITNESSES, ORIGIN, evidence_of, memory_log
from tests.support.rng import CountingRng
from tests.support.stage import LENIENT, signed_by, sorted_keys, stage_of
from tests.support.witnessed_log import NOW_S, FixedClock

KEY = key_of("coordinator")
ROOT = b"\x01" * 32


def other_session(like: PairwiseSession, **changes: object) -> PairwiseSession:
    """The same roster and parameters but for ``changes``."""
    return PairwiseSession(dataclasses.replace(like.parameters, **changes), like.roster)  # type: ignore[arg-type]


def life_of(session: bytes) -> list[bytes]:
    """All entries of a session after its open entry."""
    entries = (
        KeysAdvertised(session, 5, ROOT),
        KeysShared(session, 5, ROOT),
        SessionClose(session, 5, 0, 0, ROOT, ROOT, ROOT),
        SessionResult(session, 5, ROOT, ROOT, ROOT, some_adapter(ROOT, ROOT)),
    )
    return [entry.to_bytes() for entry in entries]


class TestTheLogThatAClientSees:
    def test_a_second_life_of_a_session_after_the_first_is_not_joined_by_who_saw_the_first(self) -> None:
        session = session_of(sorted_keys(5))
        opened = session.parameters.to_bytes()
        view = log.join(session.parameters, NO_WITNESSES, evidence_of(KEY, [opened]))
        again = evidence_of(KEY, [opened, *life_of(session.parameters.session), opened])
        with pytest.raises(RemoteProtocolError) as caught:
            log.extend(view, session.parameters, NO_WITNESSES, again)
        assert caught.value.reason is RejectReason.LOG_ORDER

    def test_what_stands_before_the_open_entry_is_for_auditors_to_find(self) -> None:
        """A newcomer cannot see it. Whoever saw the first life has no state for the second, so nothing is mixed."""
        session = session_of(sorted_keys(5))
        opened = session.parameters.to_bytes()
        first = [opened, *life_of(session.parameters.session)]
        newcomer = log.join(session.parameters, NO_WITNESSES, evidence_of(KEY, [opened], before=first))
        veteran = log.join(session.parameters, NO_WITNESSES, evidence_of(KEY, first[:1]))
        second = [opened, KeysAdvertised(session.parameters.session, 5, ROOT).to_bytes()]
        evidence = evidence_of(KEY, second, before=first)
        assert log.extend(newcomer, session.parameters, NO_WITNESSES, evidence).advertised is not None
        with pytest.raises(RemoteProtocolError):
            log.extend(veteran, session.parameters, NO_WITNESSES, evidence)

    def test_hashes_of_another_prefix_do_not_lead_to_the_root(self) -> None:
        session = session_of(sorted_keys(5))
        opened = session.parameters.to_bytes()
        honest = evidence_of(KEY, [opened], before=[b"a", b"b", b"c"])
        for prefix in (honest.prefix[::-1], (honest.prefix[0], ROOT)):
            with pytest.raises(RemoteProtocolError) as caught:
                log.join(session.parameters, NO_WITNESSES, dataclasses.replace(honest, prefix=prefix))
            assert caught.value.reason is RejectReason.LOG_SIGNATURE

    def test_a_fork_that_stays_shorter_than_what_was_pinned_is_refused(self) -> None:
        one = session_of(sorted_keys(5))
        two = other_session(one, session=b"B" * 16)
        opened = [one.parameters.to_bytes(), two.parameters.to_bytes()]
        of_one, of_two = life_of(one.parameters.session), life_of(two.parameters.session)
        trust = LogTrust.nobody()

        def joined(session: PairwiseSession, evidence: LogEvidence) -> log.LogView:
            view = log.join(session.parameters, NO_WITNESSES, evidence)
            trust.accept(trust.seen(), view, evidence, ())
            return view

        joined(one, evidence_of(KEY, opened))
        joined(two, evidence_of(KEY, opened[1:], before=opened[:1]))
        trust.remember(evidence_of(KEY, [*opened, *of_one]))
        fork = evidence_of(KEY, [opened[1], *of_two[:2]], before=opened[:1])
        with pytest.raises(RemoteProtocolError):
            trust.check(trust.seen(), fork)

    def test_a_second_open_entry_of_a_session_is_not_gone_on_with(self) -> None:
        stage = stage_of(7, 5, 3)
        confirmed = client.step(stage.contexts[0], stage.contributed[0], stage.closed, CountingRng(b"0")).state
        assert isinstance(confirmed, Confirmed)
        weaker = other_session(stage.session, max_corrupt=0, min_contributors=3)
        before = [signed_roster(stage.session).to_bytes(), *stage.log]
        evidence = evidence_of(KEY, [weaker.parameters.to_bytes()], before=before)

        async def resume() -> None:
            store = MemorySessionStore()
            await store.commit(weaker.parameters.session, 0, Commit(CLIENT_PERSISTENCE.encode(confirmed), {}, []))
            context = dataclasses.replace(stage.contexts[0], session=weaker)
            ports = ParticipantPorts(store, MemoryBlobStore(), None, CountingRng(b"1"), lambda _: None)  # type: ignore[arg-type]
            participant = PairwiseParticipant(context, one_hot(7, 0), ports, LogTrust.nobody())
            try:
                await participant.join(log.join(weaker.parameters, NO_WITNESSES, evidence))
            finally:
                await participant.close()

        with pytest.raises(ProtocolError):
            asyncio.run(resume())


class TestThePinnedCheckpoint:
    def test_two_sessions_of_one_client_keep_what_they_saw_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory, other = (FileCheckpointMemory(tmp_path / "log.checkpoint") for _ in range(2))
        fsync, others = store_files.os.fsync, []

        def interrupted(descriptor: int) -> None:
            fsync(descriptor)
            if not others:
                others.append(threading.Thread(target=other.update, args=(lambda kept: (kept or b"") + b" and more",)))
                others[0].start()

        monkeypatch.setattr(store_files.os, "fsync", interrupted)
        memory.update(lambda _: b"note")
        others[0].join()
        assert memory.load() == b"note and more"

    def test_a_file_that_was_emptied_is_an_error_of_the_store(self, tmp_path: Path) -> None:
        memory = FileCheckpointMemory(tmp_path / "log.checkpoint")
        (tmp_path / "log.checkpoint").touch()
        with pytest.raises(StoreError):
            LogTrust(NO_WITNESSES, memory).seen()


async def masked(cohort: Cohort) -> list[np.ndarray]:
    """Everybody's lanes, as they would upload them."""
    lanes = []
    for one in cohort.clients:
        one.feed(await cohort.host.shared_list(one.identity))
        lanes.append(np.frombuffer(one.upload, dtype=np.uint64))
    return lanes


class TestClientsAgainstAnHonestOperator:
    """What a verifier refuses, a coordinator must not take: else clients make an honest record fail for good."""

    def test_one_sealing_key_in_two_places_is_not_admitted(self) -> None:
        async def run() -> None:
            cohort = await cohort_of(5)
            try:
                liar = cohort.clients[0]
                (message,) = liar.outbox
                assert isinstance(message, AdvertiseKeys)
                assert isinstance(message.signed.statement, AdvertiseStatement)
                statement = dataclasses.replace(message.signed.statement, share_key=message.signed.statement.mask_key)
                signed = signed_by(liar.context.identity, statement)
                with pytest.raises(RemoteProtocolError):
                    await cohort.host.submit(AdvertiseKeys(signed, message.mask_public, message.mask_public))
            finally:
                await stop(cohort.host)

        asyncio.run(run())

    def test_one_upload_of_two_senders_does_not_count_twice(self) -> None:
        async def run() -> None:
            cohort = await cohort_of(7)
            try:
                await advance(cohort, Phase.MASKED_INPUT)
                lanes = await masked(cohort)
                # The two halves of their sum: the sum stays what it was, or off by one unit.
                half = (lanes[0] + lanes[1]) >> np.uint64(1)
                for index, one in enumerate(cohort.clients):
                    message = one.outbox.pop()
                    if index < 2:
                        message = uploading(one, half)
                    assert isinstance(message, Contribution)
                    with contextlib.suppress(RemoteProtocolError):
                        await contribute(cohort, one, message)
                await settled(cohort, Phase.MASKED_INPUT)
                await cohort.reach(Phase.CONSISTENCY_CHECK)
                headers = tables.staged_headers(cohort.host.rows, cohort.host.driver.state.cohort, range(7))
                accepted = [headers[index].upload for index in cohort.host.driver.state.accepted]
                assert len(accepted) == len(set(accepted))
            finally:
                await stop(cohort.host)

        asyncio.run(run())

    def test_nobody_has_the_blobs_of_another_session_deleted(self) -> None:
        assert asyncio.run(_has_roster_after_retention())

    def test_what_is_refused_is_not_stored(self) -> None:
        async def run() -> int:
            cohort = await cohort_of(5)
            try:
                await advance(cohort, Phase.MASKED_INPUT)
                liar = cohort.clients[0]
                liar.feed(await cohort.host.shared_list(liar.identity))
                lanes = np.frombuffer(liar.upload, dtype=np.uint64)
                hashes = [hashlib.shake_256(b"%d" % number).digest(16384) for number in range(20)]
                messages = [uploading(liar, lanes, data) for data in hashes]
                await asyncio.gather(*(cohort.host.submit(each) for each in messages), return_exceptions=True)
                return sum(cohort.blobs.has(hashlib.sha256(data).digest()) for data in hashes)
            finally:
                await stop(cohort.host)

        assert asyncio.run(run()) == 1


async def _has_roster_after_retention() -> bool:
    """Whether a live session still has its roster after a client of an earlier one named it as its upload."""
    keys, clock, blobs = sorted_keys(5), VirtualClock(), MemoryBlobStore()
    first = session_of(keys, dimension=5)
    second = other_session(first, session=b"B" * 16)
    ports = CoordinatorPorts(MemorySessionStore(), blobs, memory_log(KEY), MemoryRecord(), clock, KEY, lambda *_: None)
    registry, setup = Registry(ports), setup_of(first, blobs)
    try:
        host = await registry.open(first, setup)
        clients = [
            Client(client.ClientContext(key, first, LENIENT, NO_WITNESSES), CountingRng(b"%d" % at), one_hot(5, at))
            for at, key in enumerate(keys)
        ]
        cohort = Cohort(host, clients, clock, blobs, [])
        cohort.start_all()
        await advance(cohort, Phase.MASKED_INPUT)
        liar = clients[0]
        liar.feed(await host.shared_list(liar.identity))
        message = uploading(liar, np.frombuffer(liar.upload, dtype=np.uint64))
        assert isinstance(message.signed.statement, ContributionHeader)
        header = dataclasses.replace(message.signed.statement, upload=setup.roster)
        with contextlib.suppress(RemoteProtocolError):
            await host.submit(Contribution(signed_by(liar.context.identity, header), message.linear_hash))
        await cohort.end_phase(Phase.ABORTED)
        live = await registry.open(second, setup)
        await registry._sweep_all()
        row = live.rows[row_key(0, RowKind.SETUP)]
        assert isinstance(row, SetupRow)
        return blobs.has(row.roster)
    finally:
        for _ in range(50):
            await asyncio.sleep(0)
        await registry.close()


class TestEffectsThatACrashRepeats:
    def test_one_recovery_runs_after_a_restart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two would write the openings twice: the later may hold answers that the logged root does not cover."""
        assert asyncio.run(_recoveries_after_a_restart(monkeypatch)) == 1


async def _recoveries_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> int:
    cohort = await cohort_of(7)
    await advance(cohort, Phase.UNMASK)
    for one in cohort.clients:
        one.feed(cohort.host.confirmations(one.identity))
    for one in cohort.clients[:2]:
        await cohort.deliver(one)
    original, go_on, calls = recovery.recover, threading.Event(), []

    def held(*arguments: object) -> object:
        calls.append(arguments)
        assert go_on.wait(60)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(recovery, "recover", held)
    cohort.clock.time_s += 61
    await cohort.host.driver.feed(DeadlinePassed())
    while not calls:
        await asyncio.sleep(0.001)
    for one in cohort.clients[2:6]:
        await cohort.deliver(one)
    ports = cohort.host._ports
    store = ports.store
    assert isinstance(store, MemorySessionStore)

    async def lost(*_: object) -> None:
        await asyncio.Event().wait()

    # The process dies when the failure is durable, and before it is noted that the effect is done.
    monkeypatch.setattr(store, "effect_done", lost)
    go_on.set()
    while not (isinstance(state := cohort.host.driver.state, Recovering) and state.used == 6):
        await asyncio.sleep(0.001)
    after_crash = MemorySessionStore()
    after_crash._sessions = copy.deepcopy(store._sessions)
    await cohort.host.close()
    calls.clear()
    go_on.clear()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    host = PairwiseHost(cohort.session, dataclasses.replace(ports, store=after_crash))
    await host.resume()
    try:
        for _ in range(200):
            await asyncio.sleep(0.001)
        return len(calls)
    finally:
        go_on.set()
        cohort.host = host
        await cohort.reach(Phase.FINISHED)
        await stop(host)


LOG = key_of("log")
LOG_KEY = log_key(ORIGIN, LOG.public_bytes)
WITNESSES = tuple(key_of(f"witness {number}") for number in range(3))
WITNESS_KEYS = tuple(witness_key(f"w{number}", key.public_bytes) for number, key in enumerate(WITNESSES))
Answer = Callable[[bytes, bytes], bytes]
"""The whole answer to the head and body of a request."""


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def honest(number: int, *times_s: int) -> Answer:
    """A witness that cosigns everything, once for each of ``times_s``."""

    def answer(_: bytes, body: bytes) -> bytes:
        text = Note.parse(body.partition(b"\n\n")[2]).text
        lines = [cosign(WITNESSES[number], f"w{number}", text, at).to_line() for at in times_s or (NOW_S,)]
        return http(200, "".join(lines).encode())

    return answer


@contextlib.asynccontextmanager
async def log_with(answers: Sequence[Answer]) -> AsyncIterator[TransparencyLog]:
    """A log that asks these witnesses, two of which are enough."""

    def serving(answer: Answer) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
            writer.write(answer(head, await reader.readexactly(int(lengths[0]) if lengths else 0)))
            await writer.drain()
            writer.close()

        return serve

    servers = [await asyncio.start_server(serving(answer), "127.0.0.1", 0) for answer in answers]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    rules = tuple(
        WitnessRule(key.name, key, f"http://127.0.0.1:{port}") for key, port in zip(WITNESS_KEYS, ports, strict=True)
    )
    policy = LogPolicy((), rules, (GroupRule("two", 2, tuple(rule.name for rule in rules)),), "two")
    cosigners = HttpCosigners(policy, LOG_KEY, FixedClock(), times=CosignTimes(timeout_s=20.0, grace_s=20.0))

    async def pause(_: float) -> None:
        await asyncio.sleep(0)

    made = TransparencyLog(MemoryLogFiles(), cosigners, LOG, ORIGIN, lambda *_: None, pause)
    try:
        yield made
    finally:
        await made.close()
        for server in servers:
            server.close()


class TestWitnessesAgainstTheLog:
    def test_one_that_answers_with_an_impossible_chunk_does_not_stop_it(self) -> None:
        def bad(_: bytes, __: bytes) -> bytes:
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-" + b"f" * 52 + b"\r\nx\r\n0\r\n\r\n"

        async def run() -> int:
            async with log_with([honest(0), honest(1), bad]) as made:
                await made.append([b"entry"])
                return await made.append([b"another"])

        assert asyncio.run(run()) == 1

    def test_claims_that_nobody_proves_do_not_outlast_those_who_make_them(self) -> None:
        """Whoever sits on the way to two witnesses forges one answer of each, once."""
        forged = [2]

        def once(number: int) -> Answer:
            def answer(head: bytes, body: bytes) -> bytes:
                if head.startswith(b"GET"):
                    return http(404, b"")
                if forged[0]:
                    forged[0] -= 1
                    return http(409, b"1000000\n")
                return honest(number)(head, body)

            return answer

        async def run() -> int:
            async with log_with([honest(0), once(1), once(2)]) as made:
                return await made.append([b"entry"])

        assert asyncio.run(run()) == 0

    def test_the_time_that_is_published_is_the_one_that_was_checked(self) -> None:
        async def run() -> list[int]:
            async with log_with([honest(0, 1, NOW_S), honest(1), honest(2)]) as made:
                await made.append([b"entry"])
                note = made.evidence(0).checkpoint
            return [each.timestamp_s for each in open_checkpoint(note, LOG_KEY, WITNESS_KEYS).cosigned]

        assert min(asyncio.run(run())) > 1


class TestTwoCoordinators:
    def test_one_record_has_one_writer(self, tmp_path: Path) -> None:
        first = LogDirectory(tmp_path / "record", tmp_path / "one")
        try:
            with pytest.raises(StoreError):
                asyncio.run(LogDirectory(tmp_path / "record", tmp_path / "two").close())
        finally:
            asyncio.run(first.close())
