"""One-shot sessions: ``python -m benchmarks.one_shot --clients N --dimension D --json OUT``.

Measured in one run, because machines differ and this one may be shared: a contributor, the coordinator, a committee
member, the opening and a key authority by themselves; two whole sessions, of N and of four times as many clients; an
audit of the record that the first has published, by the verifier's command; and what they are compared with, a pairwise
session of N clients (``benchmarks.pairwise``) and the whole vector under CKKS (TenSEAL). Figures of parts are the best
of ``--repeats`` runs, each part in a process of its own; ``targets`` are those of design 06-one-shot, for 10^6
parameters.

``--ingest`` measures uploads over gRPC and TLS by themselves, see ``benchmarks.one_shot_ingest``. 2000 of 10^6
parameters need 8 GB of disk.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks import pairwise
from benchmarks.one_shot_ingest import ingest
from benchmarks.one_shot_openers import encrypting, holding, unmasking, whole_vectors
from benchmarks.one_shot_parts import admitting, contributor, summing
from benchmarks.one_shot_play import play
from benchmarks.one_shot_session import Plan
from benchmarks.pairwise import ORIGIN, Report, write_json
from benchmarks.pairwise import _key as identity_key
from benchmarks.service import processes
from secagg.crypto.notes import log_key
from secagg.runtime.vectors import worker_threads

ROOT = Path(__file__).parents[1]
PACKAGES = ("numpy", "scipy", "cryptography", "grpcio", "protobuf", "tenseal")
Section = Callable[..., Coroutine[Any, Any, None]]


def alone(section: Section, plan: Plan, count: int) -> Report:
    """One part in a process of its own, after which its memory is gone."""
    print(section.__name__, file=sys.stderr)
    with processes() as start:
        report: Report = start(section, plan, count).recv()
    return report


def audit(plan: Plan, directory: Path) -> Report:
    """What the verifier's command takes for level sum, as a process; checks that did not pass are named."""
    own = identity_key(-1).public_bytes
    (directory / "log-policy").write_text(f"log {log_key(ORIGIN, own).to_text()}\nquorum none\n")
    pinned = ", ".join(f'"{member.identity.hex()}"' for member in plan.committee().members)
    (directory / "policy.toml").write_text(
        f'log_policy = "log-policy"\n[registrar]\nkeys = ["{own.hex()}"]\n[session]\nmin_contributors = 2\n'
        f'[noise]\nmechanism = "none"\n[openers]\nkeys = [{pinned}]\n'
    )
    out = directory / "audit.json"
    command = [sys.executable, "-m", "verifier", "check", str(directory / "record"), "--policy"]
    command += [str(directory / "policy.toml"), "--level", "sum", "--json", str(out)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    elapsed, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    report: Report = {
        "exit_code": done.returncode,
        "wall_s": round(elapsed, 3),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
        "record_mib": round(_size(directory / "record") / 2**20, 1),
    }
    if not out.exists():
        return {**report, "error": done.stderr[-500:]}
    checks = json.loads(out.read_text())["checks"]
    passed = [check["id"] for check in checks if check["status"] == "pass"]
    others = {
        check["id"]: check["status"]
        for check in checks
        if check["status"] not in {"pass", "not-applicable", "not-at-this-level"}
    }
    return {**report, "checks_passed": len(passed), "checks_not_passed": others}


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def sessions(plan: Plan, repeats: int) -> Report:
    """Whole sessions of two sizes, with an audit of the smaller one's record."""
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name:
        print(f"a session of {plan.clients}", file=sys.stderr)
        small = play(plan, Path(name))
        audits = [audit(plan, Path(name)) for _ in range(min(3, repeats))]
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name:
        larger = Plan(4 * plan.clients, plan.dimension, plan.members, plan.needed, plan.workers)
        print(f"a session of {larger.clients}", file=sys.stderr)
        large = play(larger, Path(name))
    return {"session": small, "session_of_four_times_as_many": large, "audit": min(audits, key=_cpu)}


def _cpu(report: Report) -> float:
    spent: float = report["cpu_s"]
    return spent


def pairwise_session(plan: Plan) -> Report:
    """The same number of clients and parameters, pairwise, without dropouts."""
    print("a pairwise session", file=sys.stderr)
    return pairwise.play(pairwise.Plan(plan.clients, plan.dimension, 0, 0, plan.workers, None))


def ratios(report: Report) -> Report:
    """How much more the alternatives take, by CPU and by bytes."""
    session, other, vector = report["session"], report["pairwise"], report.get("ckks")
    parts, client = report["contributor"], session["client"]["cpu_s"]["total"]
    pairwise_client = other["client"]["cpu_s"]
    found = {
        "pairwise_client_cpu": _ratio(pairwise_client["total"]["mean"], client),
        "pairwise_coordinator_cpu": _ratio(
            other["coordinator"]["cpu_s"]["total"], session["coordinator"]["cpu_s"]["total"]
        ),
        "pairwise_bytes_up": _ratio(
            other["client"]["bytes_up_per_parameter"], session["client"]["bytes_up_per_parameter"]
        ),
    }
    if vector is not None:
        once = parts["later"]["without_sealing"]["cpu_ms"] + parts["later"]["seal"]["cpu_ms"]
        found["ckks_client_cpu"] = _ratio(vector["encrypt_and_serialise"]["cpu_ms"], once)
        found["ckks_coordinator_cpu_an_upload"] = _ratio(
            vector["parse_and_add"]["cpu_ms"], report["coordinator"]["add_staged"]["cpu_ms"]
        )
        found["ckks_opening_cpu"] = _ratio(
            vector["decrypt"]["cpu_ms"], report["opening"]["with_reconstruction"]["cpu_ms"]
        )
        found["ckks_bytes_up"] = _ratio(vector["bytes_a_parameter"], parts["bytes"]["a_parameter"])
    return found


def _ratio(other: float, own: float) -> float:
    return round(other / own, 2) if own else 0.0


def targets(report: Report) -> Report:
    """What design 06-one-shot asks for, at 10^6 parameters, and what was measured: [target, measured]."""
    parts, coordinator, members = report["contributor"], report["coordinator"], report["member"]
    held = max(members[kind]["hold"]["cpu_ms"] for kind in ("seeded", "whole_share"))
    summed = max(members[kind]["sum_and_answer"]["cpu_ms"] for kind in ("seeded", "whole_share"))
    return {
        "client_without_sealing_ms": [60, parts["later"]["without_sealing"]["wall_ms"]],
        "client_bytes_a_parameter": [4.2, parts["bytes"]["a_parameter"]],
        "coordinator_an_upload_ms": [6, coordinator["add_staged"]["wall_ms"]],
        "member_hold_ms": [0.2, held],
        "member_sum_ms": [0.2, summed],
        "certify_and_unmask_ms": [40, report["opening"]["certify_and_unmask"]["wall_ms"]],
    }


def measured(options: argparse.Namespace) -> Report:
    """Everything but ``--ingest``."""
    plan = Plan(options.clients, options.dimension, options.members, options.needed, options.workers)
    report: Report = {
        "contributor": alone(contributor, plan, options.repeats),
        "coordinator": alone(summing, plan, options.repeats),
        "admission": alone(admitting, plan, options.admitted),
        "member": alone(holding, plan, options.held),
        "opening": alone(unmasking, plan, options.repeats),
    }
    if importlib.util.find_spec("tenseal") is not None:
        report["key_authority"] = alone(encrypting, plan, options.repeats)
        report["ckks"] = alone(whole_vectors, plan, options.repeats)
    report |= sessions(plan, options.repeats)
    report["pairwise"] = pairwise_session(plan)
    return {"targets": targets(report), "times_as_much": ratios(report), **report}


def run(options: argparse.Namespace) -> Report:
    """The report, with what it was measured on."""
    before = os.getloadavg()[0]
    report = {"ingest": ingest(options)} if options.ingest else measured(options)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if importlib.util.find_spec(_module(name))}
    return {
        **{name: value for name, value in vars(options).items() if name not in {"json", "ingest"}},
        **report,
        "load_average": [round(before, 2), round(os.getloadavg()[0], 2)],
        "cores": worker_threads(),
        "versions": {"python": platform.python_version(), **versions},
    }


def _module(package: str) -> str:
    return {"grpcio": "grpc", "protobuf": "google.protobuf"}.get(package, package)


def options_of() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.one_shot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=50, help="of the smaller whole session, and the pairwise one")
    parser.add_argument("--dimension", type=int, default=1_000_000, help="parameters of one contribution")
    parser.add_argument("--members", type=int, default=7, help="of the committee")
    parser.add_argument("--needed", type=int, default=5, help="members that open the sum")
    parser.add_argument("--workers", type=int, default=2, help="processes that play clients")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the best counts")
    parser.add_argument("--admitted", type=int, default=256, help="contributions whose admission is measured")
    parser.add_argument("--held", type=int, default=512, help="contributions that a member holds and sums")
    parser.add_argument("--ingest", action="store_true", help="measure nothing but uploads over gRPC")
    parser.add_argument("--uploads", type=int, default=2000, help="with --ingest: how many")
    parser.add_argument("--uploaders", type=int, default=16, help="with --ingest: how many at once")
    parser.add_argument("--json", required=True, help="where the figures go; - for standard output")
    return parser


def main() -> None:
    options = options_of().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = run(options)
    write_json(options.json, report)
    if options.json != "-":
        print(
            json.dumps(
                {name: report[name] for name in ("targets", "times_as_much", "ingest") if name in report}, indent=2
            )
        )
    played = [
        report[name] for name in ("session", "session_of_four_times_as_many", "pairwise", "ingest") if name in report
    ]
    if not all(each["exact"] for each in played):
        raise SystemExit("a sum differs from the plain sum of integers")


if __name__ == "__main__":
    main()
