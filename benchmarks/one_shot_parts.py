"""A contributor and the coordinator of a one-shot session by themselves, each in a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arith import Figure, measure
from benchmarks.one_shot_play import chunks_of
from benchmarks.one_shot_session import OPENED_AT, Plan
from benchmarks.pairwise import NO_WITNESSES, ORIGIN, Pipe, Report, memory_mib
from benchmarks.pairwise import _key as identity_key
from secagg.arith.linear_hash import HASH_BYTES, LimbSum, hash_limb_sum
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.derive import member_boxes
from secagg.protocol.log import LogView
from secagg.protocol.one_shot import admission, client, coordinator
from secagg.protocol.one_shot.client_states import InputMasked, Masking, MaskInput
from secagg.protocol.one_shot.coordinator_states import Collecting, ContributionStored
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.rows import LogRow, RowKind, SetupRow, UploadStaged, row_key
from secagg.protocol.session import ClientPolicy
from secagg.runtime import vectors
from secagg.runtime.clock import SystemClock
from secagg.runtime.limb_sums import SessionSum, added_up, masked_sum
from secagg.runtime.one_shot_host import OneShotHost
from secagg.runtime.partial_sum import HashedUpload
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import BlobStore, SessionStore
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.transparency_log import NoCosigners, TransparencyLog
from secagg.services.server import keep_freed_memory
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.log_files import LogDirectory
from secagg.store.session_files import SessionDirectory
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript.statements import OneShotHeader, Signed
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import convert

BATCH = 64
AT_ONCE = 16
STAGED = 8


# A client.


async def contributor(plan: Plan, repeats: int, pipe: Pipe) -> None:
    """All work of one contributor but the network's, the first time in a process and later."""
    session, committee, rng = plan.session(), plan.committee(), SystemRng()
    values = np.random.default_rng(1).random(plan.dimension, dtype=np.float32) - np.float32(0.5)
    identity = identity_key(0)
    before = memory_mib("VmRSS")
    steps: defaultdict[str, list[Figure]] = defaultdict(list)
    for _ in range(1 + repeats):
        seeds = tuple(Secret(rng.bytes(32)) for _ in range(committee.needed + 1))
        effect = MaskInput(seeds[0], seeds[1], seeds[2:])
        made, linear_hash, parts, digest = await asyncio.to_thread(
            _contribute, session, values, effect, (identity.public_bytes, steps)
        )
    masked = InputMasked(digest, made.lanes.size, linear_hash, parts)
    context = client.OneShotClientContext(identity, session, ClientPolicy(), NO_WITNESSES)
    entry = session.entry
    masking = Masking(LogView(OPENED_AT, (), (entry,), (entry,)))
    signing = measure(lambda: client.step(context, masking, masked), repeats)
    (send,) = client.step(context, masking, masked).effects
    peak = memory_mib("VmHWM")
    announced = convert.contribution_to_pb(bytes(16), send.message).ByteSize()  # type: ignore[arg-type, union-attr]
    chunks = chunks_of("", vectors.as_bytes(made.lanes))
    for place, chunk in enumerate(chunks):
        chunk.token, chunk.offset_bytes = ("0" * 32, 0) if not place else ("", 0)
    sent = announced + sum(pb.StreamChunksRequest.FromString(each.SerializeToString()).ByteSize() for each in chunks)
    pipe.send(
        {
            "fields_a_lane": session.field_layout.fields_per_lane,
            "lanes": session.upload_lanes,
            **{when: _steps(steps, signing, part) for when, part in (("first", slice(1)), ("later", slice(1, None)))},
            "bytes": {
                "upload": 8 * session.upload_lanes,
                "boxes": sum(map(len, parts)),
                "linear_hash": HASH_BYTES,
                "announcement": announced,
                "all": sent,
                "a_parameter": round(sent / plan.dimension, 5),
            },
            "rss_start_mib": before,
            "rss_peak_mib": peak,
        }
    )


def _contribute(
    session: OneShotSession, values: np.ndarray, effect: MaskInput, told: tuple[bytes, dict[str, list[Figure]]]
) -> tuple[vectors.RingMaskedInput, bytes, tuple[bytes, ...], bytes]:
    identity, steps = told
    found: list[Any] = []

    def step(name: str, action: Callable[[], object]) -> None:
        steps[name].append(measure(lambda: found.append(action()), 1))

    step("encode_and_mask", lambda: vectors.ring_masked_input(session, values, effect))
    made: vectors.RingMaskedInput = found[0]
    step("linear_hash", lambda: vectors.linear_hash_of(made.lanes))
    step("digest", lambda: vectors.digest_of(made.lanes))
    opening: Any = session.opening
    step("seal", lambda: member_boxes.deal(opening, made.secret, effect.shares, session.digest, identity))
    return made, found[1], found[3], found[2]


def _steps(steps: dict[str, list[Figure]], signing: Figure, part: slice) -> dict[str, Figure]:
    best = {
        name: {key: min(each[key] for each in figures[part]) for key in figures[0]} for name, figures in steps.items()
    }
    unsealed = [best[name] for name in ("encode_and_mask", "linear_hash", "digest")]
    together = {key: round(sum(each[key] for each in unsealed), 3) for key in signing}
    return {**best, "sign": signing, "without_sealing": together}


# The coordinator.


async def summing(plan: Plan, repeats: int, pipe: Pipe) -> None:
    """From the bytes of uploads on disk to sum, hash and limb sum."""
    keep_freed_memory()
    session = plan.session()
    lanes, draws = session.upload_lanes, np.random.default_rng(1)
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name:
        blobs = DirectoryBlobStore(Path(name))
        base = draws.integers(0, 2**64, lanes, dtype=np.uint64)
        staged: list[HashedUpload] = []
        for number in range(STAGED):
            upload = np.roll(base, number)
            words = vectors.linear_hash_of(upload)
            staged.append(HashedUpload(blobs.put(vectors.as_bytes(upload)), blobs.put(words)))
        buffer, limbs = np.empty(lanes, dtype=np.uint64), LimbSum(lanes)
        total = _Running(blobs, lanes, staged)
        total.add()  # its memory is there then, as that of a session is after the first upload
        pipe.send(
            {
                "add_staged": each_of(measure(total.add, repeats), STAGED),
                "of_which_read": measure(lambda: blobs.read_into(staged[0].upload, 0, buffer), repeats),
                "of_which_read_hash": measure(lambda: blobs.get(staged[0].linear_hash), repeats),
                "of_which_add": measure(lambda: limbs.add_lanes(buffer), repeats),
                "sha_256_at_upload": measure(lambda: hashlib.sha256(buffer.data).digest(), repeats),
                "once_a_session": _folding(blobs, lanes, staged, repeats),
            }
        )


class _Running:
    """A running sum that the same uploads are added to again and again, each time under other positions."""

    def __init__(self, blobs: BlobStore, lanes: int, staged: Sequence[HashedUpload]) -> None:
        self._sum, self._staged, self._positions = SessionSum(blobs, lanes), staged, itertools.count()

    def add(self) -> None:
        for item in self._staged:
            self._sum.offer(next(self._positions), item, len(self._staged))
        self._sum.add_offered()


def _folding(blobs: BlobStore, lanes: int, uploads: Sequence[HashedUpload], repeats: int) -> dict[str, Figure]:
    staged = dict(enumerate(uploads))
    total = SessionSum(blobs, lanes)
    limb_sum = total.fold(staged).limb_sum  # type: ignore[union-attr]
    limbs = added_up(blobs, lanes, staged, range(len(staged))).limb_sum
    return {
        "fold_check_and_store": measure(lambda: total.fold(staged), repeats),
        "of_which_hash_limb_sum": measure(lambda: hash_limb_sum(limbs), repeats),
        "masked_sum_of_limb_sum": measure(lambda: masked_sum(blobs, limb_sum, len(staged), lanes), repeats),
    }


def each_of(figure: Figure, count: int) -> Figure:
    return {key: round(value / count, 4) for key, value in figure.items()}


class _Nobody:
    """Members that are never there."""

    def __init__(self, count: int) -> None:
        self._count = count

    def members(self, cards: Sequence[bytes]) -> Sequence[Any]:
        return [self] * max(self._count, len(cards))

    def authority(self, *_: object) -> Any:  # noqa: ANN401
        raise TransportError

    async def log_size(self, origin: str) -> int:
        await asyncio.Event().wait()
        return len(origin)


class _Timed:
    """A port whose methods named here are timed."""

    def __init__(self, inner: object, spent: dict[str, float], names: frozenset[str]) -> None:
        self._inner, self._spent, self._names = inner, spent, names

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        method = getattr(self._inner, name)
        if name not in self._names:
            return method

        async def later(*arguments: Any) -> Any:  # noqa: ANN401
            started = time.perf_counter()
            answer = await method(*arguments)
            self._spent[name] += time.perf_counter() - started
            return answer

        def now(*arguments: Any) -> Any:  # noqa: ANN401
            started = time.perf_counter()
            answer = method(*arguments)
            self._spent[name] += time.perf_counter() - started
            return answer

        return later if asyncio.iscoroutinefunction(method) else now


async def admitting(plan: Plan, count: int, pipe: Pipe) -> None:
    """What the control plane costs for a contribution: machine step and commit, boxes and hash stored, every flush."""
    small = Plan(2 * count + 1, min(plan.dimension, 1000), plan.members, plan.needed)  # one never comes
    session = small.session()
    messages = [_message(session, number) for number in range(2 * count)]
    spent: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name:
        path = Path(name)
        store, files = SqliteSessionStore(path / "sessions.db"), LogDirectory(path / "record", path)
        blobs = DirectoryBlobStore(path)
        key = identity_key(-1)
        record = SessionDirectory(path / "record")
        transparency = TransparencyLog(files, NoCosigners(), key, ORIGIN, lambda *_: None)
        timed: SessionStore = _Timed(store, spent, frozenset({"commit"}))
        kept: BlobStore = _Timed(blobs, spent, frozenset({"put"}))
        nobody: Any = _Nobody(plan.members)
        ports = CoordinatorPorts(timed, kept, transparency, record, SystemClock(), key, lambda *_: None, nobody)
        host = OneShotHost(session, ports)
        request = small.open_request(session, [])
        roster, layout, adapter = map(blobs.put, (b"\n".join(request.roster), request.layout, request.adapter))
        await host.open(SetupRow(roster, request.roster_head, request.roster_signature, layout, adapter))
        for message, upload in messages:
            blobs.put(upload)
            blobs.put(message.linear_hash)
        alone, together = messages[:count], messages[count:]
        report = await _admitted(host, alone, together, spent)
        report["machine_step"] = _stepping(session, [message for message, _ in messages[:count]])
        await host.close()
        await transparency.close()
        await files.close()
        await store.close()
    pipe.send(report)


Prepared = tuple[OneShotContribution, bytes]


async def _admitted(
    host: OneShotHost, alone: Sequence[Prepared], together: Sequence[Prepared], spent: dict[str, float]
) -> Report:
    async def announce(one: Prepared) -> None:
        await host.submit(one[0])

    async def stage(one: Prepared) -> None:
        header = one[0].signed.statement
        assert isinstance(header, OneShotHeader)  # noqa: S101
        await host.submit(UploadStaged(header.identity, header.upload))

    report: Report = {}
    for what, submit in (("announce", announce), ("stage", stage)):
        spent.clear()
        report[f"{what}_one_by_one"] = await _timed(submit, alone, 1)
        report[f"{what}_one_by_one"]["of_which"] = {
            f"{name}_ms": round(1e3 * seconds / len(alone), 3) for name, seconds in spent.items()
        }
        report[f"{what}_{AT_ONCE}_at_once"] = await _timed(submit, together, AT_ONCE)
    return report


async def _timed(submit: Callable[[Prepared], Awaitable[None]], items: Sequence[Prepared], at_once: int) -> Report:
    started, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(items), at_once):
        await asyncio.gather(*(submit(item) for item in items[first : first + at_once]))
    spent = {"wall_ms": time.perf_counter() - started, "cpu_ms": time.process_time() - cpu}
    return {key: round(1e3 * seconds / len(items), 3) for key, seconds in spent.items()}


def _stepping(session: OneShotSession, messages: Sequence[OneShotContribution]) -> Figure:
    """The machine's steps by themselves: admit, and mark as durable."""
    state = Collecting(0, len(session.positions), 0)

    def steps() -> None:
        rows: dict[int, Any] = {row_key(0, RowKind.LOG): LogRow(session.entry, OPENED_AT)}
        for message in messages:
            moment = coordinator.Moment(session, rows, 0)
            header = message.signed.statement
            assert isinstance(header, OneShotHeader)  # noqa: S101
            stored: ContributionStored = admission.placeholder(message)
            rows.update(coordinator.step(moment, state, stored).rows)
            rows.update(coordinator.step(moment, state, UploadStaged(header.identity, header.upload)).rows)

    return each_of(measure(steps, 3), len(messages))


def _message(session: OneShotSession, number: int) -> Prepared:
    """A contribution that is well formed and signed; nobody opens its boxes, and its hash is of nothing."""
    identity, opening, draws = identity_key(number), session.opening, np.random.default_rng(number)
    upload, linear_hash = draws.bytes(8 * session.upload_lanes), draws.bytes(HASH_BYTES)
    places = range(session.parts)
    parts = tuple(draws.bytes(member_boxes.box_bytes(opening, place)) for place in places)  # type: ignore[arg-type]
    header = OneShotHeader(
        session.digest,
        identity.public_bytes,
        hashlib.sha256(upload).digest(),
        hashlib.sha256(linear_hash).digest(),
        session.upload_lanes,
        tuple(hashlib.sha256(part).digest() for part in parts),
        OPENED_AT,
    )
    signed = Signed(header, identity.sign_statement(header.to_bytes()))
    return OneShotContribution(signed, linear_hash, parts), upload
