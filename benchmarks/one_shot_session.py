"""One whole one-shot session over the real machines: what ``benchmarks.one_shot`` plays and audits.

Coordinator, committee and clients are processes of their own. Between clients and coordinator pass the bytes of the
real protobuf messages through pipes, as in ``benchmarks.pairwise``, so that figures of both compare: carrying them is
left out, building and parsing them is not. Between coordinator and committee members it is gRPC on the loopback, which
counts for both. The coordinator runs on the stores of the service: SQLite, blobs, log and record on disk.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import connection
from pathlib import Path
from typing import Any

from benchmarks.pairwise import (
    NO_WITNESSES,
    NOT_COUNTED,
    ORIGIN,
    SPAWN,
    VALUE_BITS,
    Meter,
    Pipe,
    Report,
    adapter_of,
    memory_mib,
)
from benchmarks.pairwise import _key as identity_key
from benchmarks.pairwise import _rounded as rounded
from secagg.arith.ring_mask import usable_bits_for
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.openers import member_of
from secagg.identity.cards import MemberCard
from secagg.institutions import Institutions
from secagg.protocol.one_shot.member import MemberRules
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import SetupRow
from secagg.runtime import one_shot_host, opened_sum
from secagg.runtime.adapters import AdapterMerge
from secagg.runtime.clock import SystemClock
from secagg.runtime.committee_member import CommitteeMemberHost, member_sealing_key
from secagg.runtime.limb_sums import SessionSum
from secagg.runtime.member_ports import MemberPorts
from secagg.runtime.one_shot_host import OneShotHost
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.transparency_log import NoCosigners, TransparencyLog
from secagg.services.committee import CommitteeServer
from secagg.services.logs import EventLog
from secagg.services.server import ServerSocket, keep_freed_memory
from secagg.services.uploads import Chunk, UploadDesk
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.log_files import LogDirectory
from secagg.store.member_state import MemberState
from secagg.store.session_files import SessionDirectory
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript import canonical
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import OneShotDeadlines, OneShotOpen
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.openers import Committee
from secagg.transcript.roster import Roster, RosterMember
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import convert

DEADLINE_S = 10**6
RESULT_S = 300.0
"""How long a session may take from its last upload to its result before the benchmark gives up."""

QUARTERS = 4

OPENED_AT = 1
"""Index of a session's open entry, where it is the first of its log: after the entry of the roster."""


@dataclass(frozen=True)
class Plan:
    """One session to play, the same in every process."""

    clients: int
    dimension: int
    members: int = 7
    needed: int = 5
    workers: int = 2

    def committee(self) -> Committee:
        """As many may be corrupt as is safe: 2 of 7 where 5 are needed."""
        members = tuple(
            member_of(f"member-{place}", key, member_sealing_key(key).public_bytes)
            for place, key in enumerate(map(member_key, range(self.members)))
        )
        return Committee(members, self.needed, max(0, 2 * self.needed - self.members - 1))

    def session(self, name: bytes = bytes(16), retention_s: int = 0) -> OneShotSession:
        """Everybody is needed, and no clock ends a phase."""
        roster = Roster.of([RosterMember(identity_key(number).public_bytes, "") for number in range(self.clients)])
        layout, template = adapter_of(self.dimension)
        most = max(1024, self.clients)
        usable = usable_bits_for(VALUE_BITS, most, self.dimension)
        parameters = OneShotOpen(
            session=name,
            protocol="one-shot",
            coordinator=identity_key(-1).public_bytes,
            log=ORIGIN,
            opened_at_s=1,
            base_model=template.base_model,
            base_model_digest=bytes(32),
            adapter=template.digest,
            layout=layout.digest,
            merge=FactorMerge(),
            encoding=Encoding(self.dimension, VALUE_BITS, most, usable, Fraction(1), NoFlattening()),
            min_contributors=self.clients,
            max_corrupt=min(-(-self.clients // 10), self.clients - 2),
            roster=roster.root(),
            roster_size=self.clients,
            registrar=identity_key(-1).public_bytes,
            noise=NoDifferentialPrivacy(),
            retention_s=retention_s,
            opening=self.committee(),
            deadlines=OneShotDeadlines(DEADLINE_S, DEADLINE_S, DEADLINE_S, DEADLINE_S),
        )
        return OneShotSession(parameters, roster)

    def open_request(self, session: OneShotSession, cards: Sequence[bytes]) -> pb.OpenSessionRequest:
        """What an operator sends to open it."""
        layout, template = adapter_of(self.dimension)
        head = session.roster.head(identity_key(-1).public_bytes).to_bytes()
        return pb.OpenSessionRequest(
            parameters=session.entry,
            roster=session.roster.leaves(),
            roster_head=head,
            roster_signature=identity_key(-1).sign_statement(head),
            layout=canonical.encode(layout.to_json_value()),
            adapter=canonical.encode(template.to_json_value()),
            cards=cards,
        )


def member_key(place: int) -> SigningKey:
    """Signs a member's answers; the key that boxes are sealed to follows from it."""
    return SigningKey(Secret(hashlib.sha256(b"benchmark member %d" % place).digest()))


# The committee's process.


@asynccontextmanager
async def member_state(directory: Path) -> AsyncIterator[MemberState]:
    """The state of a new member on disk."""
    MemberState.create(directory)
    state = MemberState(directory)
    try:
        yield state
    finally:
        await state.close()


def member_ports(state: MemberState, key: SigningKey, **changes: Any) -> MemberPorts:  # noqa: ANN401
    """What a member runs on; it serves the benchmark's coordinator."""
    own = identity_key(-1).public_bytes
    ports = MemberPorts(
        store=state.sessions,
        boxes=state.boxes,
        journal=state.journal,
        clock=SystemClock(),
        key=key,
        sealing_key=member_sealing_key(key),
        rules=MemberRules(frozenset({own}), frozenset({own}), 2),
        policy=NO_WITNESSES,
        memory_of=state.memory_of,
        report=lambda *_: None,
    )
    return dataclasses.replace(ports, **changes)


async def serve_committee(plan: Plan, directory: Path, pipe: Pipe) -> None:
    """Serve all members on ports of the loopback until the parent says stop; sends their cards, then what they cost."""
    async with AsyncExitStack() as stack:
        cards = []
        for place in range(plan.members):
            key = member_key(place)
            state = await stack.enter_async_context(member_state(directory / f"member-{place}"))
            server = CommitteeServer(CommitteeMemberHost(member_ports(state, key)), f"member-{place}", EventLog())
            port = await server.start(ServerSocket("127.0.0.1:0", None))
            stack.push_async_callback(server.stop)
            member = member_of(f"member-{place}", key, member_sealing_key(key).public_bytes)
            cards.append(MemberCard.of(member, f"127.0.0.1:{port}", "").to_bytes())
        started = time.process_time()
        pipe.send((cards, os.getpid()))
        await asyncio.to_thread(pipe.recv)
        pipe.send({"cpu_s": round(time.process_time() - started, 3), "rss_peak_mib": memory_mib("VmHWM")})


# The coordinator's process.


class Coordinator:
    """Answers the requests of clients one at a time; what it does in the background goes on meanwhile."""

    def __init__(self, plan: Plan, directory: Path, institutions: Institutions) -> None:
        self.meter = Meter()
        self.failures: list[object] = []
        self.session = plan.session()
        self.plan = plan
        self.blobs, self.store = DirectoryBlobStore(directory), SqliteSessionStore(directory / "sessions.db")
        self.files = LogDirectory(directory / "record", directory)
        key = identity_key(-1)
        self.log = TransparencyLog(self.files, NoCosigners(), key, ORIGIN, self._failed)
        record = SessionDirectory(directory / "record")
        ports = CoordinatorPorts(
            self.store, self.blobs, self.log, record, SystemClock(), key, self._failed, institutions
        )
        self.host = OneShotHost(self.session, ports)
        self.desk = UploadDesk(self.blobs, Secret(bytes(32)))
        self.received = 0
        self.rss_mib: list[float] = []

    def _failed(self, *why: object) -> None:
        self.failures.append(why)

    async def run(self, cards: Sequence[bytes], workers: Sequence[Pipe]) -> Report:
        """The whole session; the report of this process."""
        # The host looks these up in their modules: what they cost is told apart, in whichever thread they run.
        self.meter.wrap(SessionSum, "add_offered", "limb_sum")
        self.meter.wrap(SessionSum, "fold", "fold")
        self.meter.wrap(opened_sum, "masked_sum", "open_masked_sum")
        self.meter.wrap(opened_sum, "open_with_shares", "open_certify_and_unmask")
        self.meter.wrap(opened_sum, "decode", "open_decode")
        self.meter.wrap(AdapterMerge, "keep", "open_merge")
        self.meter.wrap(one_shot_host, "recover", "open_rest")
        self.meter.wrap(SessionDirectory, "write", "record_files")
        start_mib = memory_mib("VmRSS")
        self.meter.forget()
        with self.meter.measure("open"):
            await self.host.open(self._setup(cards))
        started = time.perf_counter()
        await self._serve(workers)
        uploaded = time.perf_counter()
        with self.meter.measure("close_and_publish"), suppress(TimeoutError):
            await asyncio.wait_for(self.host.ended(), RESULT_S)
        if self.host.status().phase is not Phase.FINISHED:
            raise SystemExit(f"the session has no result: {self.host.status()} {self.failures[:5]}")
        cpu_s = self.meter.total()
        report = {
            "cpu_s": rounded(cpu_s),
            "cpu_s_in_the_kernel": rounded(self.meter.system),
            "upload_phase_s": round(uploaded - started, 3),
            "close_to_result_s": round(time.perf_counter() - uploaded, 3),
            "rss_start_mib": start_mib,
            "rss_mib_at_quarters_of_uploads": self.rss_mib,
            "rss_peak_mib": memory_mib("VmHWM"),
            "failures": [str(each) for each in self.failures],
        }
        await self.host.close()
        await self.desk.close()
        await self.log.close()
        await self.files.close()
        await self.store.close()
        return report

    def _setup(self, cards: Sequence[bytes]) -> SetupRow:
        request = self.plan.open_request(self.session, cards)
        roster = self.blobs.put(b"".join(leaf + b"\n" for leaf in request.roster))
        layout, adapter = (self.blobs.put(blob) for blob in (request.layout, request.adapter))
        kept = tuple(self.blobs.put(card) for card in cards)
        return SetupRow(roster, request.roster_head, request.roster_signature, layout, adapter, kept)

    async def _serve(self, workers: Sequence[Pipe]) -> None:
        busy, parent = list(workers), SPAWN.parent_process()
        while busy:
            with self.meter.measure("members_and_waiting"):
                ready = await asyncio.to_thread(connection.wait, [*busy, parent.sentinel])  # type: ignore[union-attr]
            for worker in ready:
                if not isinstance(worker, connection.Connection):
                    raise SystemExit("the benchmark was ended")
                with self.meter.measure(NOT_COUNTED):
                    method = worker.recv_bytes()
                    request = worker.recv_bytes() if method else b""
                if not method:
                    busy.remove(worker)
                    continue
                answer = await self._answer(method, request)
                with self.meter.measure(NOT_COUNTED):
                    worker.send_bytes(answer)

    async def _answer(self, method: bytes, data: bytes) -> bytes:
        kind, phase = METHODS[method]
        with self.meter.measure(phase):
            answer: bytes = (await self._respond(kind.FromString(data))).SerializeToString()
        if method == b"FinishUpload":
            self.received += 1
            if self.received * QUARTERS // self.plan.clients > len(self.rss_mib):
                self.rss_mib.append(memory_mib("VmRSS"))
        return answer

    async def _respond(self, request: Any) -> Any:  # noqa: ANN401
        match request:
            case pb.StartUploadRequest():
                token, committed, _ = await self.desk.begin(self.host, convert.contribution_from_pb(request))
                return pb.StartUploadResponse(token=token, committed_bytes=committed)
            case pb.WriteChunkRequest():
                chunk = Chunk(request.offset_bytes, request.data, request.crc32)
                return pb.WriteChunkResponse(committed_bytes=await self.desk.write(request.token, chunk))
            case pb.FinishUploadRequest():
                receipt = await self.desk.finish(request.token)
                return pb.FinishUploadResponse(receipt=convert.receipt_to_pb(receipt))
            case _:
                evidence = convert.log_evidence_to_pb(self.host.evidence())
                return pb.GetSessionResponse(evidence=evidence, roster=self.session.roster.leaves())


METHODS: dict[bytes, tuple[type[Any], str]] = {
    b"GetSession": (pb.GetSessionRequest, "join"),
    b"StartUpload": (pb.StartUploadRequest, "admit"),
    b"WriteChunk": (pb.WriteChunkRequest, "upload"),
    b"FinishUpload": (pb.FinishUploadRequest, "finish_upload"),
}


async def coordinate(plan: Plan, directory: Path, cards: Sequence[bytes], workers: Sequence[Pipe], pipe: Pipe) -> None:
    """The coordinator's process: sends its report and the integer sum."""
    keep_freed_memory()  # as the service does
    async with Institutions() as institutions:
        coordinator = Coordinator(plan, directory, institutions)
        report = await coordinator.run(cards, workers)
        pipe.send(report)
        pipe.send_bytes(coordinator.blobs.get(coordinator.host.integer_sum()))
