"""A coordinator with ingest processes as its operator starts it: real processes, TLS, SIGKILL."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from secagg.arith.linear_hash import LimbSum
from secagg.arith.ring_mask import usable_bits_for
from secagg.client import connect
from secagg.identity.tls import PinnedCertificate
from secagg.protocol.session import ClientPolicy
from secagg.remote_operator import open_session
from secagg.runtime.clock import SystemClock
from secagg.transcript.entries import OneShotDeadlines, OneShotOpen, SessionOpen
from secagg.transcript.statements import Signed
from tests.support import one_shot
from tests.support.cohort import key_of
from tests.support.committee_service import serving_member
from tests.support.coordinator_process import UNIT, one_hot_adapter, one_hot_session
from tests.support.published import NO_WITNESSES, ORIGIN

ROOT = Path(__file__).resolve().parents[2]
IDENTITIES = [key_of(f"contributor {number}") for number in range(12)]
OPENING = one_shot.committee_of()
POLICY = ClientPolicy(openers=frozenset(member.identity for member in OPENING.members))
RUN_S = 60.0


@dataclass
class Site:
    """The directory of a coordinator, and its process while it runs."""

    home: Path
    key: bytes = b""
    session: bytes = b""
    process: asyncio.subprocess.Process | None = None
    port: int = 0
    log: list[dict[str, object]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.home / "c" / "state"

    async def init(self) -> None:
        made = await self._command(
            "coordinator", "init", "c", "--listen", "127.0.0.1:0", "--origin", ORIGIN, "--no-passphrase"
        )
        output, _ = await made.communicate()
        self.key = bytes.fromhex(json.loads(output)["coordinator_key"])

    async def serve(self, processes: int) -> None:
        self.process = await self._command(
            "coordinator", "serve", "--config", "c/coordinator.toml", "--ingest", str(processes)
        )
        serving = json.loads(await asyncio.wait_for(self.process.stdout.readline(), RUN_S))
        self.port = serving["port"]

    async def stop(self) -> None:
        """SIGTERM; everything it has started has ended."""
        children = self.ingest_processes()
        self.process.terminate()
        _, errors = await asyncio.wait_for(self.process.communicate(), RUN_S)
        self.log += [json.loads(line) for line in errors.splitlines()]
        assert self.process.returncode == 0
        assert not any(is_running(pid) for pid in children)
        assert not list(self.state.glob("*.sock"))

    def ingest_processes(self) -> list[int]:
        pid = self.process.pid
        children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return [child for child in children if b"secagg.cli.ingest_process" in command_of(child)]

    async def open_session(self, cards: Iterable[bytes]) -> None:
        pairwise, request = one_hot_session(IDENTITIES)
        common = {each.name: getattr(pairwise, each.name) for each in dataclasses.fields(SessionOpen)}
        usable = usable_bits_for(15, 1024, pairwise.encoding.dimension)
        encoding = dataclasses.replace(pairwise.encoding, usable_bits=usable)
        common |= {"protocol": "one-shot", "encoding": encoding, "coordinator": self.key}
        common |= {"log": ORIGIN, "min_contributors": len(IDENTITIES), "max_corrupt": 2}
        parameters = OneShotOpen(**common, opening=OPENING, deadlines=OneShotDeadlines(600, 600, 600, 600))
        request.parameters = parameters.to_bytes()
        request.cards.extend(cards)
        self.session = await open_session(self.state, request, RUN_S)

    async def deliver(self, *numbers: int) -> None:
        """These contributors deliver, all at once."""
        await asyncio.gather(*map(self._deliver, numbers))

    async def _deliver(self, number: int) -> None:
        own = self.home / str(number)
        own.mkdir()
        adapter = one_hot_adapter(own / "adapter", number)
        async with self._connected() as coordinator:
            found = await coordinator.contribute(self.session, adapter, IDENTITIES[number], own / "state", POLICY)
            await asyncio.wait_for(found.delivered(), RUN_S)

    async def check_sum(self) -> None:
        """The sum is that of all contributors, and the published limb sum that of their uploads."""
        async with self._connected() as coordinator, asyncio.timeout(RUN_S):
            async for _ in coordinator.port.watch(self.session):
                pass  # until it has ended
            result = await coordinator.result(self.session)
        assert result.contributors == len(IDENTITIES)
        assert np.flatnonzero(result.integer_sum).tolist() == list(range(len(IDENTITIES)))
        assert set(result.integer_sum.tolist()) == {0, UNIT}
        record = self.home / "c" / "record" / "sessions" / self.session.hex()
        headers = [
            Signed.from_bytes(line).statement for line in (record / "contributions.jsonl").read_bytes().splitlines()
        ]
        total = LimbSum(headers[0].lanes)
        for header in headers:
            name = header.upload.hex()
            data = (self.state / "blobs" / name[:2] / name).read_bytes()
            total.add_lanes(np.frombuffer(data, dtype=np.uint64))
        assert (record / "masked-limb-sum.bin").read_bytes() == total.entries.tobytes()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator:
        tls = PinnedCertificate((self.home / "c" / "tls.crt").read_bytes(), "localhost")
        async with await connect(f"127.0.0.1:{self.port}", self.key, tls) as coordinator:
            yield coordinator

    async def _command(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "secagg.cli.main", *arguments, "--format", "json",
            cwd=self.home, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def is_running(pid: int) -> bool:
    return b"secagg" in command_of(pid)


async def ended(pid: int) -> None:
    async with asyncio.timeout(RUN_S):
        while is_running(pid):
            await asyncio.sleep(0.01)  # a poll: it is no child of ours


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """A coordinator with two ingest processes, an open session, and the committee that opens its sum."""
    # Not tmp_path: the path of the operator's socket has to be short.
    with tempfile.TemporaryDirectory(prefix="secagg-") as name:
        made = Site(Path(name))
        await made.init()
        async with AsyncExitStack() as stack:
            cards = []
            for place in range(len(OPENING.members)):
                own = {"coordinators": frozenset({made.key})}
                serving = serving_member(made.home / f"member-{place}", place, NO_WITNESSES, **own)
                member = await stack.enter_async_context(serving)
                member.clock.time_s = SystemClock().now_s()
                cards.append(member.card.to_bytes())
            try:
                await made.serve(2)
                await made.open_session(cards)
                yield made
            finally:
                if made.process is not None and made.process.returncode is None:
                    with suppress(ProcessLookupError):
                        made.process.kill()
                    await made.process.communicate()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


def test_an_ingest_process_that_is_killed_loses_nothing() -> None:
    async def run() -> None:
        async with site() as one:
            before = one.ingest_processes()
            assert len(before) == 2
            await one.deliver(*range(5))
            delivering = asyncio.ensure_future(one.deliver(*range(5, 12)))
            os.kill(before[0], signal.SIGKILL)
            await delivering
            await one.check_sum()
            assert not list(one.state.glob("ingest-*/sums/*"))
            await one.stop()
            assert {"ingest_attached", "ingest_detached", "ingest_ended"} <= {line["event"] for line in one.log}
            assert {"code -9"} == {line["reason"] for line in one.log if line["event"] == "ingest_ended"}

    asyncio.run(run())


def test_ingest_processes_end_with_a_coordinator_that_is_killed_and_it_goes_on_with_others() -> None:
    async def run() -> None:
        async with site() as one:
            before = one.ingest_processes()
            await one.deliver(*range(5))
            os.kill(one.process.pid, signal.SIGKILL)
            await one.process.communicate()
            for pid in before:
                await ended(pid)
            await one.serve(1)
            assert not (one.state / "ingest-1").exists()
            await one.deliver(*range(5, 12))
            await one.check_sum()
            await one.stop()

    asyncio.run(run())


def test_a_coordinator_whose_ingest_ports_are_taken_does_not_serve() -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory(prefix="secagg-") as name:
            one = Site(Path(name))
            await one.init()
            taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
            port = taken.sockets[0].getsockname()[1]
            config = one.home / "c" / "coordinator.toml"
            config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port - 1}"))
            refused = await one._command("coordinator", "serve", "--config", "c/coordinator.toml", "--ingest", "1")
            output, errors = await asyncio.wait_for(refused.communicate(), RUN_S)
            taken.close()
            assert (refused.returncode, output) == (3, b"")
            assert json.loads(errors.splitlines()[-1])["error"]["reason"] == "INGEST_FAILED"

    asyncio.run(run())
