"""A witness over HTTP, against logs that rewrite their past and peers that do not speak HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from secagg.crypto.notes import open_checkpoint
from secagg.runtime.witness import SIZE_TYPE, Witness
from secagg.services import witness as service
from secagg.services.http_exchange import HttpAnswer, HttpError, HttpPrefix
from secagg.services.logs import JsonFormatter
from secagg.services.witness import WitnessLimits
from secagg.store.witness_state import DirectoryWitnessState
from secagg.transcript.note import Note, parse_signatures
from secagg.transcript.witness_request import MAX_REQUEST_BYTES, AddCheckpoint
from tests.support.faults import FaultTime
from tests.support.witness_process import LOG, in_event_loop, serving, witness_of
from tests.support.witnessed_log import ORIGIN, History

ROOT = Path(__file__).resolve().parents[2]
FORK = LOG.fork(2)
MONITOR = f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    DirectoryWitnessState.create(tmp_path / "state")
    return witness_of("w1", DirectoryWitnessState(tmp_path / "state"))


async def post(port: int, body: bytes) -> HttpAnswer:
    return await HttpPrefix.parse(f"http://127.0.0.1:{port}").exchange("POST", "/add-checkpoint", body, 1 << 16)


async def get(port: int, path: str) -> HttpAnswer:
    return await HttpPrefix.parse(f"http://127.0.0.1:{port}").exchange("GET", path, b"", 1 << 16)


async def raw(port: int, *pieces: bytes) -> bytes:
    """What comes back, until the server closes, for bytes that may be no HTTP."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await reader.read()
    finally:
        writer.close()


def vouches(answer: HttpAnswer, history: History, size: int) -> bool:
    """Whether an answer holds the witness's valid cosignature over this checkpoint."""
    if answer.status != 200:
        return False
    note = Note.parse(history.note(size)).with_signatures(parse_signatures(answer.body))
    return bool(open_checkpoint(note.to_bytes(), history.key, [witness_of("w1").verifier_key]).cosigned)


# A log that grows, and what monitors see.


@in_event_loop
async def test_a_log_is_cosigned_as_it_grows_and_monitors_see_the_last_note(witness):
    async with serving(witness) as port:
        assert (await get(port, MONITOR)).status == 404
        for old, new in [(0, 3), (3, 17), (17, 20)]:
            answer = await post(port, LOG.request(old, new))
            assert vouches(answer, LOG, new)
            assert await get(port, MONITOR) == HttpAnswer(200, LOG.note(new) + answer.body)


# Attacks of the log.


@in_event_loop
async def test_a_log_that_goes_back_is_told_the_size_it_had(witness):
    async with serving(witness) as port:
        await post(port, LOG.request(0, 9))
        for body in (LOG.request(0, 5), LOG.request(5, 5), LOG.request(5, 9), FORK.request(0, 5), LOG.request(0, 0)):
            assert await post(port, body) == HttpAnswer(409, b"9\n")
        assert (await post(port, AddCheckpoint(9, (), LOG.note(5)).to_bytes())).status == 400
        assert (await get(port, MONITOR)).body.startswith(LOG.note(9))


@in_event_loop
async def test_a_conflict_has_the_content_type_of_the_text(witness):
    async with serving(witness) as port:
        await post(port, LOG.request(0, 9))
        body = LOG.request(0, 10)
        head = b"POST /add-checkpoint HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        answer = await raw(port, head + body)
    assert answer.startswith(b"HTTP/1.1 409 Conflict\r\n")
    assert f"Content-Type: {SIZE_TYPE}\r\n".encode() in answer


@in_event_loop
async def test_a_fork_of_the_same_size_is_refused(witness):
    async with serving(witness) as port:
        await post(port, LOG.request(0, 9))
        assert (await post(port, FORK.request(9, 9))).status == 422
        assert vouches(await post(port, LOG.request(9, 9)), LOG, 9)


@in_event_loop
async def test_a_fork_with_a_forged_proof_is_refused(witness):
    async with serving(witness) as port:
        await post(port, LOG.request(0, 9))
        for proof in (LOG.proof(9, 12), FORK.proof(9, 12), FORK.proof(9, 12)[::-1], (), (bytes(32),) * 63):
            assert (await post(port, AddCheckpoint(9, proof, FORK.note(12)).to_bytes())).status == 422
        assert vouches(await post(port, LOG.request(9, 12)), LOG, 12)


@in_event_loop
async def test_a_request_that_is_replayed_later_gets_nothing_signed(witness):
    async with serving(witness) as port:
        old_requests = [LOG.request(0, 3), LOG.request(3, 7), LOG.request(7, 9)]
        for body in old_requests:
            assert (await post(port, body)).status == 200
        for body in old_requests:
            assert await post(port, body) == HttpAnswer(409, b"9\n")


class Rendezvous(DirectoryWitnessState):
    """Before any of so many requests goes on, all of them have read the same state."""

    def __init__(self, directory: Path, requests: int) -> None:
        super().__init__(directory)
        self._barrier = threading.Barrier(requests)
        self.to_come = requests
        self._count = threading.Lock()

    def latest(self, origin: str) -> bytes | None:
        note = super().latest(origin)
        with self._count:
            waits = self.to_come > 0
            self.to_come -= waits
        if waits:
            self._barrier.wait()
        return note


@in_event_loop
async def test_of_forks_that_race_one_is_cosigned_for_each_size(tmp_path):
    DirectoryWitnessState.create(tmp_path / "state")
    state = Rendezvous(tmp_path / "state", 4)
    async with serving(witness_of("w1", state)) as port:
        kept = LOG
        for size in range(1, 12):
            state.to_come = 4
            branches = [kept.fork(size - 1, b"branch %d" % number) for number in range(4)]
            answers = await asyncio.gather(*(post(port, each.request(size - 1, size)) for each in branches))
            assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
            (kept,) = (each for each, answer in zip(branches, answers, strict=True) if vouches(answer, each, size))
            assert (await get(port, MONITOR)).body.startswith(kept.note(size))


@asynccontextmanager
async def process(state: Path, *fate: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A witness as a process, and its port."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.witness_process",
        str(state),
        *fate,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert started.stdout is not None
        yield started, int(await started.stdout.readline())
    finally:
        with suppress(ProcessLookupError):
            started.kill()
        await started.communicate()


@pytest.mark.parametrize("when", FaultTime)
@in_event_loop
async def test_a_witness_that_is_killed_around_its_write_signs_one_history(tmp_path, when):
    state = tmp_path / "state"
    DirectoryWitnessState.create(state)
    async with process(state, when.value) as (killed, port):
        with pytest.raises((HttpError, ConnectionError)):
            await post(port, LOG.request(0, 5))
        assert await killed.wait() == -signal.SIGKILL
    async with process(state) as (_, port):
        if when is FaultTime.BEFORE:  # nothing was kept and nothing was signed: any history may be the first
            assert vouches(await post(port, FORK.request(0, 5)), FORK, 5)
            assert (await post(port, LOG.request(5, 5))).status == 422
        else:  # the answer is lost, the history is not
            assert await post(port, FORK.request(0, 5)) == HttpAnswer(409, b"5\n")
            assert (await post(port, FORK.request(5, 5))).status == 422
            assert (await post(port, FORK.request(5, 6))).status == 422
            assert vouches(await post(port, LOG.request(5, 5)), LOG, 5)


# Peers that do not keep to HTTP.


BODY = LOG.request(0, 5)
HEAD = b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"POST /add-checkpoint HTTP/2.0\r\n\r\n", 400),
        (b"POST add-checkpoint HTTP/1.1\r\n\r\n", 400),
        (b"POST /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (HEAD + b"no colon\r\n\r\n", 400),
        (HEAD + b" folded: x\r\n\r\n", 400),
        (HEAD + b"Content-Length : 5\r\n\r\n", 400),
        (HEAD + b"Content-Length: +5\r\n\r\n12345", 400),
        (HEAD + b"Content-Length: 05\r\n\r\n12345", 400),
        (HEAD + b"Content-Length: 5, 5\r\n\r\n12345", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n12345", 400),
        (HEAD + b"\r\n", 411),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n12345", 411),
        (HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_REQUEST_BYTES + 1) + bytes(MAX_REQUEST_BYTES + 1), 413),
        (HEAD + b"Content-Length: 999999999\r\n\r\n", 413),
        (HEAD + b"X: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\n12345", 400),
        (b"GET /add-checkpoint HTTP/1.1\r\nConnection: close\r\n\r\n", 405),
        (b"DELETE /" + b"0" * 64 + b"/checkpoint HTTP/1.1\r\nConnection: close\r\n\r\n", 405),
        (b"GET /" + b"0" * 64 + b"/checkpoint HTTP/1.0\r\n\r\n", 404),
        (b"GET /" + b"0" * 63 + b"/checkpoint HTTP/1.0\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", 404),
        (b"GET / HTTP/1.0\r\n\r\n", 404),
    ],
    ids=range(26),
)
@in_event_loop
async def test_what_is_no_request_gets_a_status_and_leaves_the_witness_serving(witness, sent, status):
    async with serving(witness) as port:
        answer = await raw(port, sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"Traceback" not in answer
        assert vouches(await post(port, BODY), LOG, 5)


@in_event_loop
async def test_requests_follow_each_other_on_one_connection(witness):
    async with serving(witness) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for old, new in [(0, 3), (3, 5)]:
            body = LOG.request(old, new)
            writer.write(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert vouches(HttpAnswer(200, await reader.readexactly(length)), LOG, new)
        writer.close()


@in_event_loop
async def test_a_peer_that_sends_a_byte_at_a_time_is_cut_off_as_a_whole(witness):
    async with serving(witness, WitnessLimits(request_s=0.2)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ended = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                while not ended.done():
                    writer.write(b"P")
                    await asyncio.wait([ended], timeout=0.02)
        with suppress(ConnectionError):
            assert await ended == b""
        writer.close()


@in_event_loop
async def test_connections_are_bounded_and_a_place_is_free_again(witness):
    async with serving(witness, WitnessLimits(max_connections=3)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in held:  # each of them is being served
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.readuntil(b"not found\n")
        with pytest.raises((ConnectionError, HttpError)):
            await post(port, BODY)
        for reader, writer in held:
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            await reader.read()
            writer.close()
        answer = None
        while answer is None:  # the place is free as soon as the server has seen the end
            with suppress(ConnectionError, HttpError):
                answer = await post(port, BODY)
        assert vouches(answer, LOG, 5)


@in_event_loop
async def test_a_peer_that_never_reads_does_not_keep_its_place(witness, monkeypatch):
    monkeypatch.setattr(service, "_plain", lambda status: service._Answer(status, bytes(64 << 20)))
    server = service.WitnessServer(witness, service.EventLog(), WitnessLimits(request_s=0.2))
    port = await server.start("127.0.0.1", 0)
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        while not server._connections:
            await asyncio.sleep(0)
        await asyncio.gather(*server._connections)
        assert not server._connections
        writer.close()
    finally:
        await server.stop()


@in_event_loop
async def test_a_state_that_fails_is_an_unavailable_witness_and_no_signature(tmp_path):
    DirectoryWitnessState.create(tmp_path / "state")
    witness = witness_of("w1", DirectoryWitnessState(tmp_path / "state"))
    async with serving(witness) as port:
        await post(port, LOG.request(0, 5))
        file = tmp_path / "state" / hashlib.sha256(ORIGIN.encode()).hexdigest()
        file.write_bytes(LOG.note(5))
        for body in (LOG.request(5, 6), LOG.request(0, 5)):
            answer = await post(port, body)
            assert (answer.status, answer.body) == (503, b"service unavailable\n")


@in_event_loop
async def test_events_are_constant_and_hold_nothing_that_was_sent(witness, caplog):
    with caplog.at_level(logging.INFO, "secagg"):
        async with serving(witness) as port:
            await post(port, BODY)
            await post(port, b"canary")
            await raw(port, b"canary\r\n\r\n")
            await get(port, "/canary")
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == "secagg"]
    assert [line["event"] for line in lines] == [
        "witness_serving",
        "witness_answered",
        "witness_answered",
        "witness_bad_request",
    ]
    assert [line.get("reason") for line in lines] == [None, "cosigned", "malformed", "BAD_REQUEST"]
    assert "canary" not in json.dumps(lines)
