"""The benchmarks run and say what they promise; how fast they are is nobody's business here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_pairwise_benchmark_reports_an_exact_sum_and_what_it_cost(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run("pairwise", "--clients", "6", "--dimension", "1000", "--dropout", "0.2", "--json", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["exact"] is True
    assert (report["clients"], report["dimension"], report["dropout"], report["dropped"]) == (6, 1000, 0.2, 1)
    assert {"wall_s", "load_average", "versions", "workers"} <= report.keys()
    assert "warning" not in report
    coordinator = report["coordinator"]
    assert (coordinator["degree"], coordinator["contributors"]) == (5, 5)
    assert 5 / 2 < coordinator["threshold"] <= 4
    phases = {"advertise", "share", "upload_lists", "upload_ingest", "fold", "close", "confirm", "unmask_answers"}
    phases |= {"unmask_recover", "unmask_masked_sum", "unmask_remove_masks", "unmask_decode", "unmask_merge"}
    phases |= {"limb_sum", "record_files", "total"}
    assert phases <= coordinator["cpu_s"].keys()
    assert coordinator["rss_peak_mib"] >= coordinator["rss_start_mib"] > 0
    client = report["client"]
    assert {"mean", "max"} == client["cpu_s"]["total"].keys()
    steps = {"share", "open_boxes", "encode_and_mask", "linear_hash", "upload", "confirm", "unmask"}
    assert steps <= client["cpu_s"].keys()
    assert client["masked_input_bytes"] == 8 * 501
    assert client["bytes_up"]["WriteChunk"] > client["masked_input_bytes"]
    assert client["bytes_up_total"] > client["masked_input_bytes"]
    assert client["bytes_down_total"] > 0


def test_several_dropout_rates_give_a_list_and_a_fixed_degree_a_warning() -> None:
    done = run(
        "pairwise", "--clients", "8", "--dimension", "10", "--dropout", "0,0.125", "--degree", "4", "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    assert [report["dropped"] for report in reports] == [0, 1]
    for report in reports:
        assert report["exact"] is True
        assert (report["coordinator"]["degree"], report["coordinator"]["threshold"]) == (4, 3)
        assert "not safe" in report["warning"]


@pytest.mark.skipif(importlib.util.find_spec("flwr") is not None, reason="flwr is installed")
def test_the_comparison_with_flower_says_that_flower_is_missing() -> None:
    done = run("peer_flower", "--clients", "6", "--dimension", "1000", "--json", "-")
    assert done.returncode == 2
    assert "Flower is not installed" in done.stderr
    assert done.stdout == ""


ONE_SHOT = ("one_shot", "--dimension", "1000", "--clients", "4")


@pytest.mark.long
def test_the_one_shot_benchmark_reports_exact_sums_a_passed_audit_and_what_everything_cost(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(*ONE_SHOT, "--repeats", "1", "--admitted", "16", "--held", "8", "--json", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    session, larger = report["session"], report["session_of_four_times_as_many"]
    assert [(each["exact"], each["clients"]) for each in (session, larger)] == [(True, 4), (True, 16)]
    phases = {"admit", "upload", "finish_upload", "limb_sum", "fold", "open_certify_and_unmask", "open_decode"}
    assert phases <= session["coordinator"]["cpu_s"].keys()
    assert len(session["coordinator"]["rss_mib_at_quarters_of_uploads"]) == 4
    assert {"encode_and_mask", "linear_hash", "seal", "total"} <= session["client"]["cpu_s"].keys()
    assert session["client"]["bytes_up"]["WriteChunk"] > session["upload_bytes"] == 8 * 4096
    assert (report["audit"]["exit_code"], report["audit"]["checks_not_passed"]) == (0, {})
    contributor = report["contributor"]
    assert contributor["first"].keys() == contributor["later"].keys() >= {"without_sealing", "seal", "sign"}
    assert contributor["bytes"]["boxes"] == 4 * (32 + 1136) + 3 * (16384 + 1136)
    assert {"add_staged", "once_a_session"} <= report["coordinator"].keys()
    assert {"announce_one_by_one", "stage_16_at_once", "machine_step"} <= report["admission"].keys()
    for kind in ("seeded", "whole_share"):
        assert {"hold", "sum_and_answer"} <= report["member"][kind].keys()
    assert {"certify_and_unmask", "decode"} <= report["opening"].keys()
    assert report["pairwise"]["exact"] is True
    assert {"pairwise_client_cpu", "pairwise_coordinator_cpu"} <= report["times_as_much"].keys()
    assert all(len(pair) == 2 for pair in report["targets"].values())
    if importlib.util.find_spec("tenseal") is not None:
        assert report["key_authority"]["ciphertext_bytes"] == 65552
        assert report["ckks"]["ciphertexts"] == 1


def test_uploads_of_one_shot_sessions_are_measured_over_grpc_and_their_sums_are_right(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(*ONE_SHOT, "--ingest", "--uploads", "10", "--uploaders", "4", "--json", str(out))
    assert done.returncode == 0, done.stderr
    ingest = json.loads(out.read_text())["ingest"]
    assert (ingest["exact"], ingest["uploads"], ingest["sessions"], ingest["upload_bytes"]) == (True, 10, 1, 8 * 4096)
    assert ingest["cpu_ms_an_upload"].keys() == {"coordinator", "committee", "uploaders"}
    assert len(ingest["coordinator"]["rss_mib_at_quarters_of_uploads"]) == 5
    assert {"mb_per_s", "disk_mb_per_s", "ratio_to_disk", "p95_ms", "coordinator_mb_a_cpu_s"} <= ingest.keys()


def test_the_simulations_benchmark_measures_a_session_of_each_protocol() -> None:
    done = run("simulations", "--one-shot", "8", "--pairwise", "6", "--dimension", "20")
    assert done.returncode == 0, done.stderr
    one_shot, pairwise = map(json.loads, done.stdout.splitlines())
    assert (one_shot["protocol"], one_shot["clients"]) == ("one-shot", 8)
    assert (pairwise["protocol"], pairwise["clients"]) == ("pairwise", 6)
    assert pairwise["cpu_s"] > 0
    assert pairwise["memory_mib"] > 0
