"""A coordinator as a process that a test starts, kills and starts again; and sessions of one-hot adapters for it.

    python -m tests.support.coordinator_process STATE PORT [CALL before|after]

Serves from STATE on PORT under the key of the tests; with CALL it kills itself with SIGKILL before or after that call
of what makes things durable or public: commits, delivered effects, blobs, finished uploads, the log. Everything the
log publishes is appended to STATE/published.jsonl, outside the stores.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from secagg.crypto.rng import SystemRng
from secagg.crypto.signing import SigningKey
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.lora.writer import write_adapter
from secagg.runtime.clock import SystemClock
from secagg.runtime.ports import Commit, LogPort, SessionKey, SessionStore, StoredSession
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.transparency_log import NoCosigners, TransparencyLog
from secagg.services.logs import EventLog
from secagg.services.server import CoordinatorServer, ServerSocket, server_credentials
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.log_files import LogDirectory
from secagg.store.session_files import SessionDirectory
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript import canonical
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import Deadlines, PairwiseOpen, SessionOpen
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.roster import Roster, RosterMember
from secagg.v1 import aggregation_pb2 as pb
from tests.support.cohort import key_of
from tests.support.faults import FaultTime
from tests.support.published import ORIGIN

T = TypeVar("T")
SHAPES = {
    "base_model.model.layer.q_proj.lora_A.weight": (2, 16),
    "base_model.model.layer.q_proj.lora_B.weight": (8, 2),
}
UNIT = 16383
"""What a coordinate of 1 becomes in a one-hot session: clip norm 1 and 15 bits."""


class Fate:
    """Kills this process with SIGKILL before or after the ``call``-th call (from 1) of anything that asks it."""

    def __init__(self, call: int, when: FaultTime) -> None:
        self._call, self._when = call, when
        self._calls = 0
        self._lock = threading.Lock()

    def begins(self) -> bool:
        """To be asked before a call: dies now, or says whether to die when the call is done."""
        with self._lock:
            self._calls += 1
            due = self._calls == self._call
        if due and self._when is FaultTime.BEFORE:
            self.die()
        return due

    @staticmethod
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def around(self, call: Callable[[], Awaitable[T]]) -> T:
        due = self.begins()
        answer = await call()
        if due:
            self.die()
        return answer


class MortalStore:
    """A SessionStore of a process that dies at one of its writing calls."""

    def __init__(self, inner: SessionStore, fate: Fate) -> None:
        self._inner, self._fate = inner, fate

    async def sessions(self) -> Sequence[SessionKey]:
        return await self._inner.sessions()

    async def load(self, session: SessionKey) -> StoredSession | None:
        return await self._inner.load(session)

    async def commit(self, session: SessionKey, expected_version: int, commit: Commit) -> Sequence[int]:
        return await self._fate.around(lambda: self._inner.commit(session, expected_version, commit))

    async def effect_done(self, session: SessionKey, effect: int) -> None:
        await self._fate.around(lambda: self._inner.effect_done(session, effect))


class MortalBlobs:
    """A BlobStore of a process that dies when it makes bytes durable, or takes some of an upload."""

    _MORTAL = frozenset({"put", "begin_upload", "write_chunk", "finish_upload", "discard_upload", "delete"})

    def __init__(self, inner: DirectoryBlobStore, fate: Fate) -> None:
        self._inner, self._fate = inner, fate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self._MORTAL:
            return method

        def call(*args: Any) -> Any:
            due = self._fate.begins()
            answer = method(*args)
            if due:
                self._fate.die()
            return answer

        return call


class MortalLog:
    """A LogPort of a process that dies when it publishes; what it publishes is written down first."""

    def __init__(self, inner: LogPort, fate: Fate, record: Path) -> None:
        self._inner, self._fate, self._record = inner, fate, record

    @property
    def size(self) -> int:
        return self._inner.size

    def evidence(self, start: int) -> LogEvidence:
        return self._inner.evidence(start)

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        return self._inner.consistency(old_size)

    async def append(self, entries: Sequence[bytes]) -> int:
        async def appended() -> int:
            index = await self._inner.append(entries)
            shown = self._inner.evidence(0)
            line = json.dumps([[entry.hex() for entry in shown.entries], shown.checkpoint.hex()])
            with self._record.open("a") as file:
                file.write(line + "\n")
            return index

        return await self._fate.around(appended)


def one_hot_adapter(directory: Path, position: int, shapes: Mapping[str, tuple[int, int]] = SHAPES) -> Path:
    """An adapter, of 48 parameters, all 0 but the one at ``position`` of its vector, which is 1."""
    layout = Layout.from_shapes(shapes)
    vector = np.zeros(layout.dimension, dtype=np.float32)
    vector[position] = 1.0
    tensors, start = {}, 0
    for name, shape in layout.tensors:
        size = int(np.prod(shape))
        tensors[name] = vector[start : start + size].reshape(shape)
        start += size
    write_adapter(directory, _template(), tensors)
    return directory


def one_hot_session(
    identities: Sequence[SigningKey], shapes: Mapping[str, tuple[int, int]] = SHAPES
) -> tuple[SessionOpen, pb.OpenSessionRequest]:
    """A new session for one-hot adapters of these shapes, and the request that opens it."""
    registrar, template, layout = key_of("registrar"), _template(), Layout.from_shapes(shapes)
    roster = Roster.of([RosterMember(key.public_bytes, "") for key in identities])
    head = roster.head(registrar.public_bytes).to_bytes()
    parameters = PairwiseOpen(
        session=SystemRng().bytes(16),
        protocol="pairwise",
        coordinator=key_of("coordinator").public_bytes,
        log="log.example/secagg",
        opened_at_s=SystemClock().now_s(),
        base_model=template.base_model,
        base_model_digest=bytes(32),
        adapter=template.digest,
        layout=layout.digest,
        merge=FactorMerge(),
        encoding=Encoding(layout.dimension, 15, 1024, 64, Fraction(1), NoFlattening()),
        min_contributors=3,
        max_corrupt=1,
        expected_dropout=Fraction(0),
        roster=roster.root(),
        roster_size=len(roster.members),
        registrar=registrar.public_bytes,
        deadlines=Deadlines(60, 60, 60, 60, 60),
        noise=NoDifferentialPrivacy(),
        retention_s=3600,
    )
    request = pb.OpenSessionRequest(
        parameters=parameters.to_bytes(),
        roster=roster.leaves(),
        roster_head=head,
        roster_signature=registrar.sign_statement(head),
        layout=canonical.encode(layout.to_json_value()),
        adapter=canonical.encode(template.to_json_value()),
    )
    return parameters, request


def _template() -> AdapterTemplate:
    return AdapterTemplate("tiny-base", "", "CAUSAL_LM", 2, 4, use_rslora=False, fan_in_fan_out=False)


async def serve(state: Path, port: int, fate: Fate) -> None:
    """Serve until SIGTERM, or until fate strikes."""
    key = key_of("coordinator")
    store = SqliteSessionStore(state / "sessions.db")
    blobs: Any = MortalBlobs(DirectoryBlobStore(state / "blobs"), fate)
    files = LogDirectory(state / "record", state)
    published = TransparencyLog(files, NoCosigners(), key, ORIGIN, lambda *_: None)
    log = MortalLog(published, fate, state / "published.jsonl")
    record = SessionDirectory(state / "record")
    ports = CoordinatorPorts(MortalStore(store, fate), blobs, log, record, SystemClock(), key, _report)
    server = CoordinatorServer(Registry(ports), state, EventLog())
    credentials = server_credentials((state / "tls.crt").read_bytes(), (state / "tls.key").read_bytes(), None)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await server.start(ServerSocket(f"127.0.0.1:{port}", credentials))
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await ended.wait()
    await server.stop()
    await published.close()
    await files.close()
    await store.close()


def _report(event: str, session: bytes, reason: str) -> None:
    sys.stderr.write(f"{event} {session.hex()} {reason}\n")


def fate_of(arguments: Sequence[str]) -> Fate:
    """From ``[CALL, before|after]``, or nothing."""
    return Fate(int(arguments[0]), FaultTime(arguments[1])) if arguments else Fate(0, FaultTime.BEFORE)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), fate_of(sys.argv[3:])))
