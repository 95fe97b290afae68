"""The benchmark over gRPC runs and says what it promises; how fast it is is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.service", "--workers", "2", *arguments, "--json", "-"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_session_over_grpc_gives_every_client_the_exact_sum_and_reports_what_it_cost() -> None:
    report = run("--clients", "8", "--dimension", "2000", "--dropout", "0.125")
    assert report["exact"] is True
    assert (report["clients"], report["dimension"], report["dropped"]) == (8, 2000, 1)
    assert report["client_stores"] == "in memory, sealed as on disk"
    assert {"wall_s", "load_average", "disk_mb_per_s", "versions", "cores"} <= report.keys()
    coordinator = report["coordinator"]
    assert (coordinator["degree"], coordinator["contributors"], coordinator["failures"]) == (7, 7, [])
    phases = {"advertise", "share", "upload"}
    assert phases <= coordinator["wall_s"].keys()
    assert phases | {"total"} <= coordinator["cpu_s"].keys()
    assert coordinator["rss_peak_mib"] >= coordinator["rss_start_mib"] > 0
    ingest = report["ingest"]
    assert (ingest["uploads"], ingest["upload_bytes"]) == (7, 8 * 1001)
    assert {"uploads_per_s", "mb_per_s_in_phase", "mb_per_s_from_first_to_last", "p50_ms", "p95_ms"} <= ingest.keys()
    client = report["client"]
    assert client["sums_downloaded"] == 7
    assert {"GetAdvertisedKeys", "GetSharedKeys", "GetClose", "GetSum"} <= client["bytes_down_mean"].keys()
    assert client["bytes_up_all"] > 7 * 8 * 1001


def test_uploads_alone_are_measured_in_both_ways_against_the_disk() -> None:
    report = run("--clients", "4", "--dimension", "2000", "--ingest-only", "--uploaders", "1,2")
    assert [(case["uploaders"], case["way"]) for case in report["cases"]] == [
        (1, "stream"),
        (1, "unary"),
        (2, "stream"),
        (2, "unary"),
    ]
    for case in report["cases"]:
        assert {"mb_per_s", "disk_mb_per_s", "ratio_to_disk", "coordinator_cpu_s_per_gb", "load_average"} <= case.keys()
    assert report["coordinator"]["failures"] == 0
