"""Plays a whole one-shot session in processes of its own; see ``benchmarks.one_shot_session``."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.one_shot_session import Plan, coordinate, serve_committee
from benchmarks.pairwise import NO_WITNESSES, NOT_COUNTED, SPAWN, Meter, Pipe, Report, memory_mib
from benchmarks.pairwise import _key as identity_key
from benchmarks.pairwise import _rounded as rounded
from benchmarks.service import processes
from secagg.arith.keystream import Keystream
from secagg.arith.quantiser import clip
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.rng import SystemRng
from secagg.derive import member_boxes
from secagg.derive.result import Lanes
from secagg.protocol import log
from secagg.protocol.one_shot import client
from secagg.protocol.one_shot.client_states import InputMasked, MaskInput, Send
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.session import ClientPolicy
from secagg.runtime import vectors
from secagg.services.uploads import PREFERRED_CHUNK_BYTES
from secagg.transcript.entries import OneShotOpen
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.roster import Roster
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import convert

# The clients' processes.


class Worker:
    """Plays some of the clients, one after the other."""

    def __init__(self, plan: Plan, pipe: Pipe) -> None:
        self.plan, self.pipe = plan, pipe
        self.session = plan.session()
        self.committee = plan.committee()
        self.policy = ClientPolicy(openers=frozenset(each.identity for each in self.committee.members))
        self.cpu: defaultdict[str, list[float]] = defaultdict(list)
        self.up: Counter[str] = Counter()
        self.down: Counter[str] = Counter()
        self.integers = np.zeros(plan.dimension, dtype=np.int64)
        self.meter = Meter()

    def run(self, numbers: Sequence[int]) -> Report:
        """Everything that these clients do; what they cost."""
        for number in numbers:
            self.meter = Meter()
            self._play(number)
            for part, seconds in self.meter.total().items():
                if part not in (NOT_COUNTED, "other"):
                    self.cpu[part].append(seconds)
        self.pipe.send_bytes(b"")
        sent = {"cpu": dict(self.cpu), "up": dict(self.up), "down": dict(self.down), "rss": memory_mib("VmHWM")}
        return {**sent, "integers": self.integers.astype("<i8").tobytes()}

    def _play(self, number: int) -> None:
        with self.meter.measure("join"):
            name = self.session.parameters.session
            response = self._call(b"GetSession", pb.GetSessionRequest(session=name), pb.GetSessionResponse)
            evidence = convert.log_evidence_from_pb(response.evidence)
            OneShotOpen.from_bytes(evidence.entries[0])
            Roster.from_leaves(response.roster)
            view = log.join(self.session.parameters, NO_WITNESSES, evidence)
            context = client.OneShotClientContext(identity_key(number), self.session, self.policy, NO_WITNESSES)
            transition = client.start(context, view, SystemRng())
        (effect,) = transition.effects
        assert isinstance(effect, MaskInput)  # noqa: S101
        lanes, masked = self._masked(number, context, effect)
        with self.meter.measure("sign"):
            transition = client.step(context, transition.state, masked)
        (send,) = transition.effects
        assert isinstance(send, Send)  # noqa: S101
        assert isinstance(send.message, OneShotContribution)  # noqa: S101
        with self.meter.measure("upload"):
            receipt = self._upload(send.message, lanes)
            client.step(context, transition.state, convert.receipt_from_pb(receipt))

    def _masked(self, number: int, context: client.OneShotClientContext, plan: MaskInput) -> tuple[Lanes, InputMasked]:
        encoding = self.session.parameters.encoding
        with self.meter.measure(NOT_COUNTED):
            values = np.random.default_rng(number).random(self.plan.dimension, dtype=np.float32) - np.float32(0.5)
        with self.meter.measure("encode_and_mask"):
            made = vectors.ring_masked_input(self.session, values, plan)
        with self.meter.measure(NOT_COUNTED):
            clipped, _ = clip(values, encoding.clip_norm)
            stream = Keystream(derive(plan.rounding, Label.QUANTISER_STREAM).expose())
            self.integers += encoding.quantiser(NoDifferentialPrivacy()).quantise(clipped, stream)[0]
        with self.meter.measure("linear_hash"):
            linear_hash = vectors.linear_hash_of(made.lanes)
        with self.meter.measure("digest"):
            digest = vectors.digest_of(made.lanes)
        with self.meter.measure("seal"):
            identity = context.identity.public_bytes
            parts = member_boxes.deal(self.committee, made.secret, plan.shares, self.session.digest, identity)
        return made.lanes, InputMasked(digest, made.lanes.size, linear_hash, parts)

    def _upload(self, message: OneShotContribution, lanes: Lanes) -> Any:  # noqa: ANN401
        data, name = vectors.as_bytes(lanes), self.session.parameters.session
        announced = self._call(b"StartUpload", convert.contribution_to_pb(name, message), pb.StartUploadResponse)
        for chunk in chunks_of(announced.token, data):
            self._call(b"WriteChunk", chunk, pb.WriteChunkResponse)
        request = pb.FinishUploadRequest(token=announced.token)
        return self._call(b"FinishUpload", request, pb.FinishUploadResponse).receipt

    def _call(self, method: bytes, request: Any, kind: type[Any]) -> Any:  # noqa: ANN401
        data = request.SerializeToString()
        with self.meter.measure(NOT_COUNTED):
            self.pipe.send_bytes(method)
            self.pipe.send_bytes(data)
            answer = self.pipe.recv_bytes()
            self.up[method.decode()] += len(data)
            self.down[method.decode()] += len(answer)
        return kind.FromString(answer)


def chunks_of(token: str, data: memoryview) -> list[pb.WriteChunkRequest]:
    """An upload in unary pieces."""
    pieces = [
        (start, bytes(data[start : start + PREFERRED_CHUNK_BYTES]))
        for start in range(0, len(data), PREFERRED_CHUNK_BYTES)
    ]
    return [
        pb.WriteChunkRequest(token=token, offset_bytes=start, data=piece, crc32=zlib.crc32(piece))
        for start, piece in pieces
    ]


async def work(plan: Plan, line: Pipe, numbers: Sequence[int], pipe: Pipe) -> None:
    """A process that plays these clients."""
    pipe.send(await asyncio.to_thread(Worker(plan, line).run, numbers))


# The parent's process.


def play(plan: Plan, directory: Path) -> Report:
    """Play one session in processes of its own; its record is in ``directory / "record"`` afterwards."""
    started = time.perf_counter()
    lines = [SPAWN.Pipe() for _ in range(plan.workers)]
    with processes() as start:
        committee = start(serve_committee, plan, directory)
        cards, _ = committee.recv()
        coordinator = start(coordinate, plan, directory, cards, [here for here, _ in lines])
        numbers = range(plan.clients)
        workers = [start(work, plan, there, numbers[place :: plan.workers]) for place, (_, there) in enumerate(lines)]
        for here, there in lines:
            here.close()
            there.close()
        played = [worker.recv() for worker in workers]
        served = coordinator.recv()
        opened = np.frombuffer(coordinator.recv_bytes(), dtype="<i8")
        committee.send("stop")
        members = committee.recv()
    expected = np.sum([np.frombuffer(each["integers"], dtype="<i8") for each in played], axis=0)
    lanes = plan.session().upload_lanes
    return {
        "clients": plan.clients,
        "dimension": plan.dimension,
        "exact": bool(np.array_equal(opened, expected)),
        "coordinator": served,
        "client": _client_report(plan, played),
        "members": {**members, "cpu_ms_a_member_and_contribution": _each(members["cpu_s"], plan)},
        "upload_bytes": 8 * lanes,
        "wall_s": round(time.perf_counter() - started, 1),
    }


def _each(cpu_s: float, plan: Plan) -> float:
    return round(1e3 * cpu_s / plan.members / plan.clients, 3)


def _client_report(plan: Plan, played: Sequence[Report]) -> Report:
    parts = {name for each in played for name in each["cpu"]}
    means = {name: sum(sum(each["cpu"][name]) for each in played) / plan.clients for name in sorted(parts)}
    up: Counter[str] = Counter()
    down: Counter[str] = Counter()
    for each in played:
        up.update(each["up"])
        down.update(each["down"])
    return {
        "cpu_s": rounded(means),
        "bytes_up": {name: round(count / plan.clients) for name, count in up.items()},
        "bytes_down": {name: round(count / plan.clients) for name, count in down.items()},
        "bytes_up_per_parameter": round(sum(up.values()) / plan.clients / plan.dimension, 5),
        "worker_rss_peak_mib": max(each["rss"] for each in played),
    }
