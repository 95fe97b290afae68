"""Constants for ``python -m simulations estimate``: ``python -m benchmarks.constants --json FILE``, about a minute.

Each is CPU time, user and system, of the process that does the work, as other benchmarks measure it in more detail;
fixed and growing parts are told apart by two sizes. ``simulations/estimates/constants.py`` says what each of them is.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arith import measure
from benchmarks.one_shot import alone
from benchmarks.one_shot_ingest import ingest
from benchmarks.one_shot_openers import holding, unmasking
from benchmarks.one_shot_parts import _message, contributor, summing
from benchmarks.one_shot_play import play
from benchmarks.one_shot_session import Plan
from benchmarks.pairwise import Pipe, Report
from benchmarks.service import processes
from secagg.arith.keystream import Keystream, add_masks
from secagg.arith.linear_hash import HASH_BYTES
from secagg.arith.quantiser import clip
from secagg.crypto.sealing import seal
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.member_boxes import SEED_BYTES, mask_secret
from secagg.protocol.one_shot import admission, coordinator
from secagg.protocol.one_shot.coordinator_states import Collecting
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.pairwise import lists
from secagg.protocol.phases import Phase
from secagg.protocol.rows import LogRow, RowKind, UploadStaged, row_key
from secagg.runtime.vectors import worker_threads
from secagg.services import server
from secagg.services.uploads import PREFERRED_CHUNK_BYTES
from secagg.store import sqlite
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.statements import OneShotHeader
from simulations.estimates.constants import Constants
from tests.support.cohort import Cohort, key_of, one_hot, open_cohort, run_session, session_of
from tests.support.forge import COSIGNED_AT_S, Forge
from tests.support.forge_one_shot import OneShotPlan, ring_encoding
from tests.support.forge_one_shot_record import OneShotRecord
from verifier.audit import Audit, Brought
from verifier.checks import Level
from verifier.policy import load_policy
from verifier.record_files import RecordFiles
from verifier.run import run_audit

DIMENSION = 500_000
SMALL = 4_000
MEMBERS, NEEDED = 7, 5
COMMAND = "python -m benchmarks.constants"
Values = dict[str, float]


def _alone(part: Any, size: int) -> Any:  # noqa: ANN401
    """What a part sends, in a process of its own."""
    with processes() as start:
        return start(part, size).recv()


def _positive(value: float) -> float:
    """A difference of two measurements, which other work on the machine can make negative."""
    if value <= 0:
        raise SystemExit("more work took less time: the machine is too busy, measure again")
    return value


def _seconds(figure: Report) -> float:
    milliseconds: float = figure["cpu_ms"]
    return milliseconds / 1e3


# One-shot.


def client_values() -> Values:
    """A contributor by itself."""
    plan = Plan(8, DIMENSION, MEMBERS, NEEDED)
    session, committee = plan.session(), plan.committee()
    lanes = session.upload_lanes
    report = alone(contributor, plan, 5)
    once, sent = report["later"], report["bytes"]
    vector, key = np.zeros(lanes, dtype=np.uint64), hashlib.sha256(b"errors").digest()
    secret = mask_secret(Secret(bytes(32)), session.digest)
    masking = _seconds(measure(lambda: _masked(session.ring_mask, vector, (session.public_key, key), secret), 5))
    public = committee.members[0].sealing_key
    seed_box = _seconds(measure(lambda: [seal(public, b"info", Secret(bytes(SEED_BYTES))) for _ in range(50)], 3)) / 50
    whole = MEMBERS - NEEDED + 1
    header = len(_message(session, 0)[0].signed.to_bytes())
    chunks = -(-sent["upload"] // PREFERRED_CHUNK_BYTES)
    return {
        "encode_s_a_coordinate": _encoding_s(session) / DIMENSION,
        "mask_s_a_lane": masking / lanes,
        "linear_hash_s_a_lane": _seconds(once["linear_hash"]) / lanes,
        "digest_s_a_byte": _seconds(once["digest"]) / sent["upload"],
        "seal_s_a_seed_box": seed_box,
        "seal_s_a_share_box": max(seed_box, (_seconds(once["seal"]) - (NEEDED - 1) * seed_box) / whole),
        "sign_s_a_contribution": _seconds(once["sign"]),
        "announcement_overhead_bytes": sent["announcement"] - sent["boxes"] - HASH_BYTES - header,
        "chunk_overhead_bytes": max(1.0, (sent["all"] - sent["announcement"] - sent["upload"]) / chunks),
        "chunk_bytes": PREFERRED_CHUNK_BYTES,
    }


def _encoding_s(session: OneShotSession) -> float:
    """Clip, round and pack one vector."""
    encoding, layout = session.parameters.encoding, session.field_layout
    vector = np.random.default_rng(1).random(DIMENSION, dtype=np.float32) - np.float32(0.5)
    quantiser, lanes = encoding.quantiser(NoDifferentialPrivacy()), np.zeros(layout.lanes, dtype=np.uint64)

    def encode() -> None:
        clipped, _ = clip(vector, encoding.clip_norm)
        layout.pack_into(quantiser.quantise(clipped, Keystream(bytes(32)))[0], lanes)

    return _seconds(measure(encode, 5))


def _masked(mask: Any, vector: np.ndarray, keys: tuple[bytes, bytes], secret: np.ndarray) -> None:  # noqa: ANN401
    vector[:] = 0
    mask.apply_mask(vector, keys[0], secret, keys[1])


def transfer_values() -> Values:
    """Uploads over gRPC and TLS, of two lengths: what a call costs, and what a byte."""
    reports = []
    for uploads, dimension in ((48, SMALL), (16, 2 * DIMENSION)):
        options = argparse.Namespace(
            uploads=uploads, dimension=dimension, members=MEMBERS, needed=NEEDED, workers=1, uploaders=8
        )
        reports.append(ingest(options))
    small, large = reports
    more = large["upload_bytes"] - small["upload_bytes"]
    found: Values = {}
    for who, verb in (("coordinator", "receive"), ("uploaders", "send")):
        few, many = (report["cpu_ms_an_upload"][who] / 1e3 for report in (small, large))
        a_byte = _positive((many - few) / more)
        found[f"{verb}_s_a_byte"] = a_byte
        found[f"{verb}_s_an_upload"] = _positive(few - a_byte * small["upload_bytes"])
    return found


def closing_values() -> Values:
    """The coordinator after the last upload: two sessions of small vectors."""
    spent = []
    sizes = (8, 72)
    for clients in sizes:
        with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name:
            cpu = play(Plan(clients, SMALL, MEMBERS, NEEDED, 1), Path(name))["coordinator"]["cpu_s"]
        # What is done as uploads come is in the figures of transfer; opening the sum is measured by itself.
        spent.append(cpu["close_and_publish"] + cpu.get("fold", 0.0) + cpu.get("record_files", 0.0))
    return {"close_s_a_contribution": _positive((spent[1] - spent[0]) / (sizes[1] - sizes[0]))}


def opening_values() -> Values:
    """Members, the opening, the sum's own hash."""
    plan = Plan(8, DIMENSION, MEMBERS, NEEDED)
    lanes = plan.session().upload_lanes
    members, opened = alone(holding, plan, 128), alone(unmasking, plan, 3)
    summed = alone(summing, plan, 3)
    found = {
        f"{verb}_s_a_{box}_box": _seconds(members[kind][what])
        for box, kind in (("seed", "seeded"), ("share", "whole_share"))
        for verb, what in (("take", "hold"), ("sum", "sum_and_answer"))
    }
    added = _seconds(summed["add_staged"]) + _seconds(summed["sha_256_at_upload"])
    return {
        **found,
        "hash_sum_s_a_lane": _seconds(summed["once_a_session"]["of_which_hash_limb_sum"]) / lanes,
        "open_s_a_lane": _seconds(opened["with_reconstruction"]) / lanes,
        "decode_s_a_coordinate": _seconds(opened["decode"]) / DIMENSION,
        "add_s_a_lane": added / lanes,
    }


def memory_values() -> Values:
    """Rows of contributions as the coordinator keeps them."""
    count = 200
    session = Plan(count + 1, 100, MEMBERS, NEEDED).session()
    messages = [_message(session, number)[0] for number in range(count)]
    state = Collecting(0, len(session.positions), 0)
    rows: dict[int, Any] = {row_key(0, RowKind.LOG): LogRow(session.entry, 1)}
    encoded = [message.signed.to_bytes() for message in messages]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for message, data in zip(messages, encoded, strict=True):
        # As it comes: decoded from bytes of its own.
        received = type(message)(type(message.signed).from_bytes(data), message.linear_hash, message.parts)
        header = received.signed.statement
        assert isinstance(header, OneShotHeader)  # noqa: S101
        for event in (admission.placeholder(received), UploadStaged(header.identity, header.upload)):
            rows.update(coordinator.step(coordinator.Moment(session, rows, 0), state, event).rows)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"memory_bytes_a_contribution": grown / count}


class _Record(OneShotRecord):
    """A record with one finished session of so many contributions."""

    def __init__(self, contributions: int) -> None:
        plan = OneShotPlan(
            tuple(range(contributions)),
            encoding=ring_encoding(60, 1024),
            min_contributors=contributions // 2,
            max_corrupt=contributions // 10,
        )
        self._plans = {"main": plan, "second": OneShotPlan((0, 1, 2)), "aborted": OneShotPlan((0, 1, 2))}
        Forge.__init__(self, roster_size=contributions)


async def _audited(contributions: int, pipe: Pipe) -> None:
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name:
        record = _Record(contributions)
        record.play(record.main, "open", "close", "result").write(Path(name))
        policy, spent = load_policy(Path(name) / "policy.toml"), []
        for _ in range(2):
            started = time.process_time()
            audit = Audit(
                RecordFiles(Path(name) / "record"),
                policy,
                Level.SUM,
                COSIGNED_AT_S + 60,
                Brought(RecordFiles(Path(name) / "masked-inputs")),
            )
            report = run_audit(audit)
            spent.append(time.process_time() - started)
    failed = [found.check.identifier for found in report.checks if found.failed]
    if failed:
        raise SystemExit(f"the forged record fails {failed}")
    pipe.send(min(spent))


def verifier_values() -> Values:
    """Audits of two sessions that differ in the number of contributions only."""
    spent, sizes = [], (50, 250)
    for size in sizes:
        spent.append(_alone(_audited, size))
    return {"verify_s_a_contribution": _positive((spent[1] - spent[0]) / (sizes[1] - sizes[0]))}


# Pairwise.


async def _opened(keys: Sequence[SigningKey]) -> Cohort:
    """A session in memory; a tenth of its clients may be corrupt."""
    count = len(keys)
    session = session_of(keys, min_contributors=count // 2 + 1, max_corrupt=-(-count // 10))
    return await open_cohort(session, keys, lambda number: one_hot(20, number % 20))


async def _paired(clients: int, pipe: Pipe) -> None:
    """CPU of a client, and of the coordinator for it, in a complete graph without a network; the best of three."""
    keys = [key_of(f"client {number}") for number in range(clients)]
    found = []
    for _ in range(3):
        cohort = await _opened(keys)
        spent = [0.0]
        for one in cohort.clients:
            one.start = _timed(one.start, spent)  # type: ignore[method-assign]
            one.feed = _timed(one.feed, spent)  # type: ignore[method-assign]
        started = time.process_time()
        await run_session(cohort, {})
        total = time.process_time() - started
        found.append((spent[0] / clients, (total - spent[0]) / clients))
    pipe.send(tuple(map(min, zip(*found, strict=True))))


def _timed(method: Any, spent: list[float]) -> Any:  # noqa: ANN401
    depth = [0]

    def timed(*arguments: Any) -> None:  # noqa: ANN401
        # `feed` feeds itself; only the outermost call counts.
        depth[0] += 1
        started = time.process_time()
        method(*arguments)
        depth[0] -= 1
        if not depth[0]:
            spent[0] += time.process_time() - started

    return timed


async def _listed(clients: int, pipe: Pipe) -> None:
    """Checking one leaf of a published list, which each client does of all of the cohort."""
    keys = sorted((key_of(f"client {number}") for number in range(clients)), key=lambda key: key.public_bytes)
    cohort = await _opened(keys)
    cohort.start_all()
    await cohort.advertise(cohort.clients)
    await cohort.reach(Phase.SHARE_KEYS)
    shown = cohort.host.advertised_list(keys[0].public_bytes)
    entry = shown.evidence.entries
    advertised = lists.KeysAdvertised.from_bytes(entry[-1])
    took = _seconds(measure(lambda: lists.check_advertised(cohort.session, advertised, shown.leaves), 3))
    pipe.send(took / clients)


LISTS = 3
"""Lists whose every leaf a client decodes and whose signature it checks: U1, U2, and the confirmations."""


def pairwise_values() -> Values:
    """Two complete graphs: parts that grow with the neighbours, and those that grow with the cohort."""
    sizes = (8, 32)
    few, many, leaf = (_alone(part, size) for part, size in ((_paired, 8), (_paired, 32), (_listed, 32)))
    step = sizes[1] - sizes[0]
    pair = _positive((many[1] - few[1]) / step)
    listed = LISTS * leaf
    lanes = np.zeros(DIMENSION // 2, dtype=np.uint64)
    streams = [bytes([number]) * 32 for number in range(16)]
    masks = _seconds(measure(lambda: add_masks(lanes, streams, []), 3))
    return {
        "pairwise_client_s_a_neighbour": _positive((many[0] - few[0]) / step - listed),
        "pairwise_client_s_a_listed": listed,
        "pairwise_coordinator_s_a_client": _positive(few[1] - pair * (sizes[0] - 1)),
        "pairwise_coordinator_s_a_pair": pair,
        "keystream_s_a_lane": masks / len(streams) / lanes.size,
    }


def limits() -> Values:
    """What the services refuse to go beyond."""
    return {"message_limit_bytes": server._MAX_MESSAGE_BYTES, "cell_limit_bytes": sqlite.MAX_CELL_BYTES}  # noqa: SLF001


def measured() -> Constants:
    """All constants."""
    values: Values = {}
    load = os.getloadavg()[0]
    for part in (
        client_values,
        transfer_values,
        closing_values,
        opening_values,
        memory_values,
        verifier_values,
        pairwise_values,
        limits,
    ):
        started = time.perf_counter()
        values |= part()
        print(f"{part.__name__}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    machine = f"{platform.machine()} {platform.system()}, {worker_threads()} cores, Python {platform.python_version()}"
    machine += f", load {load:.1f} before"
    return Constants(values, today, machine, COMMAND)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", required=True, help="where the constants go; - for standard output")
    options = parser.parse_args(arguments)
    text = measured().to_json()
    if options.json == "-":
        sys.stdout.write(text)
    else:
        Path(options.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
