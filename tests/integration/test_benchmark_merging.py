"""The benchmarks of merging run and say what they promise; how fast they are is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def report_of(module: str, *arguments: str) -> dict:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_bed_reports_errors_and_targets_of_every_strategy() -> None:
    report = report_of("merging", "--clients", "12", "--size", "256")
    rows, best = report["strategies"], report["bed"]["best_error"]
    assert len(rows) == 8
    for name, row in rows.items():
        assert row["error"] >= best - 1e-6, name
        assert row["ratio"] == pytest.approx(row["error"] / best, rel=1e-3)
        if name != "factors":
            assert row["clamped"] == 0
            assert row["error"] == pytest.approx(row["error_without_rounding"], rel=0.01)
    assert rows["factors"]["error"] > 0.8
    assert rows["dense"]["ratio"] == pytest.approx(1, abs=0.01)
    assert all(target["reached"] for target in report["targets"].values())


def test_nothing_shared_is_never_worse_than_nothing_at_all() -> None:
    report = report_of("merging", "--clients", "12", "--size", "256", "--flat")
    assert report["targets"] == {}
    for name, row in report["strategies"].items():
        assert row["error"] < 1.05, name
        if name != "factors":
            assert row["degraded"], name
            assert row["estimated_error"] == pytest.approx(row["error"], rel=0.1)


@pytest.mark.long
def test_the_large_model_is_encoded_merged_and_audited_in_processes_of_their_own() -> None:
    report = report_of("merging_8b", "--layers", "1")
    assert report["modules"] == 7
    assert report["client"]["clamped"] == 0
    assert 0 < report["client"]["beyond_adapter_mib"] < 1024
    assert report["merge"]["estimated_error"] < 0.05
    assert report["audit"]["faults"] == []
    assert all(target["reached"] for target in report["targets"].values())
