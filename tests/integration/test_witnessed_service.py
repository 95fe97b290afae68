"""A coordinator whose log three witnesses cosign over HTTP, clients that ask for them, and a coordinator that lies.

Everything is real and in one process: the coordinator's server with TLS and its disk, the witnesses' servers, the
client library. What a lying coordinator does is done with its own key, and at most with those of witnesses that it has
bought.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from secagg.client import Coordinator, Result, connect
from secagg.crypto.notes import cosign, log_key, open_checkpoint, sign_checkpoint, witness_key
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import (
    AdvertiseKeys,
    ClosedList,
    ConfirmClose,
    Contribution,
    SessionEnded,
    ShareKeys,
    UnmaskAnswer,
)
from secagg.protocol.rows import RowKind, row_position
from secagg.protocol.session import ClientPolicy
from secagg.remote import GrpcCoordinator
from secagg.runtime.clock import SystemClock
from secagg.runtime.log_ports import ConsistencyProof, Cosigners
from secagg.runtime.log_trust import CheckpointMemory, ForgetfulMemory, LogTrust
from secagg.runtime.memory import MemoryWitnessState
from secagg.runtime.ports import StoreError
from secagg.runtime.shown import ShownSession
from secagg.runtime.transparency_log import TransparencyLog
from secagg.runtime.witness import Witness
from secagg.services.cosigners import HttpCosigners
from secagg.services.logs import EventLog
from secagg.services.witness import WitnessServer
from secagg.store.checkpoints import FileCheckpointMemory
from secagg.store.log_files import RecordFiles
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import KeysAdvertised, SessionOpen, decode_entry
from secagg.transcript.note import Note, NoteSignature
from secagg.transcript.policy import GroupRule, LogPolicy, LogRule, WitnessRule
from secagg.transcript.statements import Dropped, decode_disposition
from tests.support.audit import complaints
from tests.support.cohort import key_of
from tests.support.published import ORIGIN
from tests.support.service import RunningService, open_example_session, serving, tiny_adapter
from tests.support.stage import closing

NAMES = ("ada", "bob", "cy", "di", "eve")
WITNESSES = ("w1", "w2", "w3")
KEY = key_of("coordinator")
LOG = log_key(ORIGIN, KEY.public_bytes)
OPENED, ADVERTISED, SHARED, CLOSED, ENDED = 2, 3, 4, 5, 6
"""How many entries the log has when that is in it; the roster's stands first."""


def in_event_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test that is a coroutine, for a minute at most."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await test(**fixtures)

        asyncio.run(bounded())

    return run


class Witnesses:
    """Three witnesses, each with a server that can be stopped and started again where it was."""

    def __init__(self) -> None:
        self.witnesses = [Witness(name, key_of(name), [LOG], MemoryWitnessState(), SystemClock()) for name in WITNESSES]
        self._servers = [WitnessServer(witness, EventLog()) for witness in self.witnesses]
        self._ports = [0] * len(WITNESSES)

    async def start(self, which: Iterable[int] = range(len(WITNESSES))) -> None:
        for number in which:
            self._ports[number] = await self._servers[number].start("127.0.0.1", self._ports[number])

    async def stop(self, which: Iterable[int] = range(len(WITNESSES))) -> None:
        for number in which:
            await self._servers[number].stop()

    def policy(self, threshold: int = len(WITNESSES), extra: Sequence[str] = ()) -> LogPolicy:
        """So many of the witnesses, and of others of whom nobody has heard, have to have cosigned."""
        rules = [
            WitnessRule(name, witness_key(name, key_of(name).public_bytes), f"http://127.0.0.1:{port}")
            for name, port in zip(WITNESSES, self._ports, strict=True)
        ]
        rules += [WitnessRule(name, witness_key(name, key_of(name).public_bytes)) for name in extra]
        group = GroupRule("witnesses", threshold, tuple(rule.name for rule in rules))
        return LogPolicy((LogRule(LOG),), tuple(rules), (group,), "witnesses")

    def cosigners(self) -> HttpCosigners:
        return HttpCosigners(self.policy(), LOG, SystemClock())


class SilentFrom:
    """Cosigners of a coordinator that asks nobody any more from a size of its log on, and publishes all the same."""

    def __init__(self, honest: Cosigners, size: int) -> None:
        self._honest, self._size = honest, size

    async def cosign(self, checkpoint: Note, consistency: ConsistencyProof) -> tuple[NoteSignature, ...]:
        if Checkpoint.parse(checkpoint.text).size >= self._size:
            return ()
        return await self._honest.cosign(checkpoint, consistency)


class Site:
    """A served coordinator, its witnesses and those who take part."""

    def __init__(self, service: RunningService, witnesses: Witnesses, directory: Path) -> None:
        self.service, self.witnesses, self.directory = service, witnesses, directory
        self.record = service.state / "record"
        self.keys = {name: key_of(name) for name in NAMES}
        self.adapters = {name: tiny_adapter(directory / name, number) for number, name in enumerate(NAMES)}

    async def open(self) -> SessionOpen:
        return await open_example_session(self.service, list(self.keys.values()), self.adapters["ada"])

    async def connected(self, policy: LogPolicy | None = None, memory: CheckpointMemory | None = None) -> Coordinator:
        trust = LogTrust(policy or self.witnesses.policy(), memory or ForgetfulMemory())
        return await connect(self.service.address, self.service.key, self.service.tls, trust)

    async def contribute(
        self,
        session: bytes,
        name: str,
        policy: LogPolicy | None = None,
        memory: CheckpointMemory | None = None,
        port: Callable[[GrpcCoordinator], Any] = lambda port: port,
    ) -> Result:
        async with await self.connected(policy, memory) as coordinator:
            coordinator.port = port(coordinator.port)
            participation = await coordinator.contribute(
                session, self.adapters[name], self.keys[name], self.directory / "clients", ClientPolicy()
            )
            return await participation.result()

    def all_contribute(self, session: bytes) -> list[asyncio.Task[Result]]:
        return [asyncio.ensure_future(self.contribute(session, name)) for name in NAMES]

    async def rows(self, session: bytes) -> dict[RowKind, int]:
        """How many rows of each kind the coordinator has of its clients."""
        host = await self.service.registry.find(session)
        kinds = (kind for key in host.rows for kind in RowKind if row_position(key, kind) is not None)
        counts: dict[RowKind, int] = defaultdict(int)
        for kind in kinds:
            counts[kind] += 1
        return counts

    def published(self) -> bytes:
        return RecordFiles(self.record).checkpoint() or b""


@asynccontextmanager
async def site_in(
    directory: Path,
    witnesses: Witnesses | None = None,
    lying: Callable[[Cosigners], Cosigners] = lambda honest: honest,
) -> AsyncIterator[Site]:
    """A coordinator in ``directory`` with its witnesses."""
    witnesses = witnesses or Witnesses()
    await witnesses.start()
    try:
        async with serving(directory / "coordinator", KEY, lying(witnesses.cosigners())) as service:
            yield Site(service, witnesses, directory)
    finally:
        await witnesses.stop()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Every message that leaves a client, by its name."""
    sent: dict[str, list[Any]] = defaultdict(list)
    names = {key_of(name).public_bytes: name for name in NAMES}
    send, upload = GrpcCoordinator.send, GrpcCoordinator.upload

    async def noted_send(port: Any, session: bytes, message: Any) -> None:
        sent[names[message.signed.statement.identity]].append(message)
        await send(port, session, message)

    async def noted_upload(port: Any, session: bytes, message: Any, blobs: Any) -> Any:
        sent[names[message.signed.statement.identity]].append(message)
        return await upload(port, session, message, blobs)

    monkeypatch.setattr(GrpcCoordinator, "send", noted_send)
    monkeypatch.setattr(GrpcCoordinator, "upload", noted_upload)
    return sent


async def reasons(tasks: Iterable[asyncio.Task[Any]]) -> list[RejectReason | None]:
    """Why each refused; None for who did not."""
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException) and not isinstance(each, ProtocolError):
            raise each
    return [each.reason if isinstance(each, ProtocolError) else None for each in ended]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)  # a poll


# An honest coordinator.


@in_event_loop
async def test_a_session_completes_for_clients_who_ask_for_all_three(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        opened = await site.open()
        memories = {name: FileCheckpointMemory.of_coordinator(tmp_path / name, KEY.public_bytes) for name in NAMES}
        results = await asyncio.gather(
            *(site.contribute(opened.session, name, memory=memories[name]) for name in NAMES)
        )
        assert [result.contributors for result in results] == [len(NAMES)] * len(NAMES)
        policy = site.witnesses.policy()
        for note in (site.published(), *(memory.load() for memory in memories.values())):
            assert note is not None
            witnessed = open_checkpoint(note, LOG, policy.witness_keys)
            assert set(witnessed.public_keys) == {key_of(name).public_bytes for name in WITNESSES}
            assert witnessed.checkpoint.size == ENDED
        assert complaints(site.record, policy) == []
        assert complaints(site.record, site.witnesses.policy(4, ["w4"])) != []


@in_event_loop
async def test_who_asks_for_some_of_the_witnesses_is_content_with_more(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        opened = await site.open()
        for policy in (site.witnesses.policy(1), site.witnesses.policy(2), site.witnesses.policy(3, ["w4", "w5"])):
            async with await site.connected(policy) as coordinator:
                assert (await coordinator.details(opened.session)).session.parameters == opened


@in_event_loop
async def test_who_asks_for_a_witness_that_does_not_exist_refuses_before_anything_is_sent(
    tmp_path: Path, sent: dict[str, list[Any]]
) -> None:
    async with site_in(tmp_path) as site:
        opened = await site.open()
        for policy in (site.witnesses.policy(4, ["w4"]), other_log(site.witnesses.policy())):
            memory = ForgetfulMemory()
            with pytest.raises(RemoteProtocolError) as caught:
                await site.contribute(opened.session, "ada", policy, memory)
            expected = RejectReason.LOG_UNWITNESSED if policy.logs[0].key == LOG else RejectReason.LOG_SIGNATURE
            assert caught.value.reason is expected
            assert memory.load() is None, "what nobody vouched for was remembered"
        assert sent == {}
        assert not (tmp_path / "clients").exists(), "a key was drawn for a session that was never to be joined"
        assert (await site.rows(opened.session))[RowKind.ADVERTISE] == 0


def other_log(policy: LogPolicy) -> LogPolicy:
    """The same witnesses for another log."""
    return dataclasses.replace(policy, logs=(LogRule(log_key("log.example/other", key_of("other").public_bytes)),))


@pytest.mark.parametrize("down", [[0], [0, 1, 2]], ids=["one", "all"])
@in_event_loop
async def test_while_a_witness_is_down_nobody_sees_who_advertised_and_then_the_session_goes_on(
    tmp_path: Path, sent: dict[str, list[Any]], down: list[int]
) -> None:
    async with site_in(tmp_path) as site:
        opened = await site.open()
        await site.witnesses.stop(down)
        host = await site.service.registry.find(opened.session)
        tasks = site.all_contribute(opened.session)
        await until(lambda: [report[0] for report in site.service.reports].count("log-not-cosigned") >= 3)
        # Everybody has advertised, the entry waits for its cosignatures, and nothing follows from it.
        assert (await site.rows(opened.session))[RowKind.ADVERTISE] == len(NAMES)
        assert host.status().log_size == 1
        assert Checkpoint.parse(Note.parse(site.published()).text).size == OPENED
        async with await site.connected() as coordinator:
            with pytest.raises(RemoteProtocolError) as caught:
                await coordinator.port.advertised_list(opened.session, site.keys["ada"].public_bytes)
            assert caught.value.reason is RejectReason.WRONG_PHASE
            assert (await coordinator.details(opened.session)).view.advertised is None
        assert {type(message) for messages in sent.values() for message in messages} == {AdvertiseKeys}
        assert not any(task.done() for task in tasks)
        await site.witnesses.start(down)
        results = await asyncio.gather(*tasks)
        assert {result.contributors for result in results} == {len(NAMES)}
        assert complaints(site.record, site.witnesses.policy()) == []


# A coordinator that shows what nobody cosigned.


@pytest.mark.parametrize(
    ("size", "messages"),
    [
        (ADVERTISED, [AdvertiseKeys]),
        (SHARED, [AdvertiseKeys, ShareKeys]),
        (CLOSED, [AdvertiseKeys, ShareKeys, Contribution]),
        (ENDED, [AdvertiseKeys, ShareKeys, Contribution, ConfirmClose, UnmaskAnswer]),
    ],
    ids=["U1", "U2", "close", "result"],
)
@in_event_loop
async def test_nothing_follows_from_an_entry_that_nobody_cosigned(
    tmp_path: Path, sent: dict[str, list[Any]], size: int, messages: list[type]
) -> None:
    async with site_in(tmp_path, lying=lambda honest: SilentFrom(honest, size)) as site:
        opened = await site.open()
        tasks = site.all_contribute(opened.session)
        assert await reasons(tasks) == [RejectReason.LOG_UNWITNESSED] * len(NAMES)
        for name in NAMES:
            said = list(dict.fromkeys(type(message) for message in sent[name]))
            assert said == messages[: len(said)]
            assert size == ENDED or said == messages
        rows = await site.rows(opened.session)
        if size <= CLOSED:
            assert rows[RowKind.CONFIRM] == rows[RowKind.ANSWER] == 0, "something was opened"
        if size <= SHARED:
            assert rows[RowKind.HEADER] == 0
        if size <= ADVERTISED:
            assert rows[RowKind.SHARE] == 0
        assert not (site.record / "sessions" / opened.session.hex() / "openings.jsonl").exists() or size == ENDED


@in_event_loop
async def test_a_session_in_a_log_that_nobody_cosigned_is_not_joined(
    tmp_path: Path, sent: dict[str, list[Any]]
) -> None:
    async with site_in(tmp_path, lying=lambda honest: SilentFrom(honest, 0)) as site:
        opened = await site.open()
        assert await reasons(site.all_contribute(opened.session)) == [RejectReason.LOG_UNWITNESSED] * len(NAMES)
        assert sent == {}


class StrippedPort:
    """Shows the log's newest state without what the witnesses said of it."""

    def __init__(self, port: GrpcCoordinator) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def closed_list(self, session: bytes) -> ClosedList:
        return _stripped(await self._port.closed_list(session))

    async def outcome(self, session: bytes) -> SessionEnded:
        return _stripped(await self._port.outcome(session))


def _stripped(shown: Any) -> Any:
    note = Note.parse(shown.evidence.checkpoint)
    bare = dataclasses.replace(note, signatures=tuple(line for line in note.signatures if line.name == ORIGIN))
    return dataclasses.replace(shown, evidence=dataclasses.replace(shown.evidence, checkpoint=bare.to_bytes()))


@in_event_loop
async def test_who_only_reads_a_result_or_a_proof_asks_for_the_witnesses_all_the_same(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        opened = await site.open()
        await asyncio.gather(*site.all_contribute(opened.session))
        identity = site.keys["ada"].public_bytes
        async with await site.connected() as reader:
            assert (await reader.result(opened.session)).contributors == len(NAMES)
            assert (await reader.contribution_proof(opened.session, identity)).index == CLOSED - 1
            reader.port = StrippedPort(reader.port)
            with pytest.raises(RemoteProtocolError) as caught:
                await reader.result(opened.session)
            assert caught.value.reason is RejectReason.LOG_UNWITNESSED
            with pytest.raises(RemoteProtocolError) as caught:
                await reader.contribution_proof(opened.session, identity)
            assert caught.value.reason is RejectReason.LOG_UNWITNESSED


# A coordinator that shows a fork to one client, cosigned by the witnesses that it has bought.


class ForkingPort:
    """Shows the close without one of the contributors, in a fork that ``corrupt`` have cosigned."""

    def __init__(self, port: GrpcCoordinator, corrupt: Sequence[str]) -> None:
        self._port, self._corrupt = port, corrupt
        self.shown = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def closed_list(self, session: bytes) -> ClosedList:
        honest = await self._port.closed_list(session)
        leaves = [decode_disposition(leaf) for leaf in honest.leaves]
        leaves[-1] = Dropped(len(leaves) - 1, "masked-input")
        self.shown = closing(leaves, session).to_bytes()
        evidence = honest.evidence
        entries = (*evidence.entries[:3], self.shown)
        frontier = merkle.Frontier.from_hashes(evidence.start, evidence.prefix)
        for entry in entries:
            frontier.append(merkle.leaf_hash(entry))
        note = sign_checkpoint(KEY, Checkpoint(ORIGIN, evidence.start + len(entries), frontier.root))
        now_s = SystemClock().now_s()
        note = note.with_signatures(tuple(cosign(key_of(name), name, note.text, now_s) for name in self._corrupt))
        forked = dataclasses.replace(evidence, entries=entries, checkpoint=note.to_bytes())
        return ClosedList(forked, tuple(leaf.to_bytes() for leaf in leaves))


@pytest.mark.parametrize(
    ("threshold", "corrupt", "believed"), [(3, 0, False), (3, 2, False), (2, 1, False), (2, 2, True), (3, 3, True)]
)
@in_event_loop
async def test_a_fork_with_too_few_cosignatures_is_refused_and_nothing_is_opened(
    tmp_path: Path, sent: dict[str, list[Any]], threshold: int, corrupt: int, believed: bool
) -> None:
    """With as many corrupt witnesses as the policy asks for nothing can help: then the fork is believed."""
    async with site_in(tmp_path) as site:
        opened = await site.open()
        # Whose index is not the last one, which the fork leaves out.
        victim = min(NAMES, key=lambda name: site.keys[name].public_bytes)
        ports: list[ForkingPort] = []

        def forking(port: GrpcCoordinator) -> ForkingPort:
            ports.append(ForkingPort(port, WITNESSES[:corrupt]))
            return ports[0]

        policy = site.witnesses.policy(threshold)
        others = [asyncio.ensure_future(site.contribute(opened.session, name)) for name in NAMES if name != victim]
        deceived = asyncio.ensure_future(site.contribute(opened.session, victim, policy, port=forking))
        try:
            if believed:
                await until(lambda: any(isinstance(message, ConfirmClose) for message in sent[victim]))
                (confirmed,) = [message for message in sent[victim] if isinstance(message, ConfirmClose)]
                assert confirmed.signed.statement.close == hashlib.sha256(ports[0].shown).digest()
            else:
                assert await reasons([deceived]) == [RejectReason.LOG_UNWITNESSED]
                assert [type(message) for message in sent[victim]] == [AdvertiseKeys, ShareKeys, Contribution]
        finally:
            for task in (*others, deceived):
                task.cancel()
            await asyncio.gather(*others, deceived, return_exceptions=True)


@in_event_loop
async def test_two_entries_of_one_kind_in_one_log_stop_everybody_who_sees_it(
    tmp_path: Path, sent: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Witnesses cosign it: to them it is one log that grows. So clients have to count."""
    append = TransparencyLog.append

    async def twice(log: TransparencyLog, entries: Sequence[bytes]) -> int:
        last = decode_entry(entries[-1])
        if not isinstance(last, KeysAdvertised):
            return await append(log, entries)
        other = KeysAdvertised(last.session, last.count, bytes(32))
        return await append(log, [*entries, other.to_bytes()]) - 1

    monkeypatch.setattr(TransparencyLog, "append", twice)
    async with site_in(tmp_path) as site:
        opened = await site.open()
        assert await reasons(site.all_contribute(opened.session)) == [RejectReason.LOG_ORDER] * len(NAMES)
        assert {type(message) for messages in sent.values() for message in messages} == {AdvertiseKeys}
        assert (await site.rows(opened.session))[RowKind.SHARE] == 0
        async with await site.connected() as newcomer:
            with pytest.raises(RemoteProtocolError) as caught:
                await newcomer.details(opened.session)
            assert caught.value.reason is RejectReason.LOG_ORDER


# A coordinator whose log goes back in time between two sessions of the same client.


def memory_in(directory: Path) -> FileCheckpointMemory:
    return FileCheckpointMemory.of_coordinator(directory / "clients", KEY.public_bytes)


async def first_session(directory: Path, witnesses: Witnesses | None = None) -> None:
    async with site_in(directory, witnesses) as site:
        opened = await site.open()
        await asyncio.gather(*(site.contribute(opened.session, name, memory=memory_in(directory)) for name in NAMES))


@in_event_loop
async def test_a_log_that_only_grew_serves_the_next_session_of_a_client(tmp_path: Path) -> None:
    witnesses = Witnesses()
    await first_session(tmp_path, witnesses)
    await first_session(tmp_path, witnesses)
    kept = memory_in(tmp_path).load()
    assert kept is not None
    assert Checkpoint.parse(Note.parse(kept).text).size == 2 * ENDED - 1  # the roster stands there once


@pytest.mark.parametrize("filler", [0, 4, 20], ids=["shorter", "as long", "longer"])
@pytest.mark.parametrize("lies", [False, True], ids=["plainly", "with a proof of nothing"])
@in_event_loop
async def test_a_log_that_was_rolled_back_is_refused_by_who_remembers_it(
    tmp_path: Path, sent: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch, filler: int, lies: bool
) -> None:
    """Even if all witnesses forgot it as well: they, too, are started with nothing."""
    await first_session(tmp_path)
    sent.clear()
    before = memory_in(tmp_path).load()
    if lies:
        monkeypatch.setattr(ShownSession, "consistency", lambda *_: ())
    (tmp_path / "again").mkdir()
    async with site_in(tmp_path / "again") as site:
        entries = [KeysAdvertised(bytes(16), 2, bytes([number]) * 32).to_bytes() for number in range(filler)]
        if entries:
            await site.service.registry.ports.log.append(entries)
        opened = await site.open()
        assert site.service.registry.ports.log.size == filler + OPENED
        with pytest.raises(RemoteProtocolError) as caught:
            await site.contribute(opened.session, "ada", memory=memory_in(tmp_path))
        assert caught.value.reason is RejectReason.LOG_FORKED
        assert sent == {}
        assert memory_in(tmp_path).load() == before
        async with await site.connected() as newcomer:
            assert (await newcomer.details(opened.session)).session.parameters == opened


@in_event_loop
async def test_witnesses_that_remember_do_not_cosign_a_log_that_was_rolled_back(tmp_path: Path) -> None:
    witnesses = Witnesses()
    await first_session(tmp_path, witnesses)
    (tmp_path / "again").mkdir()
    async with site_in(tmp_path / "again", witnesses) as site:
        opening = asyncio.ensure_future(site.open())
        await until(lambda: ("log-rolled-back", b"", "RollbackShownError") in site.service.reports)
        assert site.published() == b""
        with pytest.raises(StoreError, match="log has stopped"):
            await site.service.registry.ports.log.append([b"anything"])
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
