"""``secagg demo`` from the outside: files, JSON, refusals, and nothing left running."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg.arith.fields import FieldLayout
from secagg.arith.quantiser import Quantiser
from secagg.arith.ring_mask import usable_bits_for
from secagg.cli.demo_plan import (
    Departure,
    clip_norm_for,
    masked_value_bits_for,
    max_drop,
    plan_one_shot,
    plan_pairwise,
    read_vectors,
    value_bits_for,
)
from secagg.lora.factor_merging import adapter_to_vector
from secagg.lora.reader import read_adapter
from secagg.transcript.entries import LogEntry, OneShotClose, OneShotOpen, OneShotResult, decode_entry
from secagg.transcript.openers import Committee, NamedMembers
from secagg.transcript.policy import LogPolicy
from secagg.transcript.tiles import decode_bundle

PAIRWISE_REPORT = {
    "session", "contributors", "dropped", "max_abs_diff_steps", "noise", "merged", "record", "policy", "verified",
}  # fmt: skip
LEFT = "contributors have uploaded and left, with their receipts: their processes have ended"


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secagg.cli.main", "demo", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env={**os.environ, **environment}
    )


def command_lines() -> list[bytes]:
    """The command lines of all running processes, where the system shows them as files."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    return lines


def test_the_demo_merges_real_adapters_although_two_contributors_are_killed(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = demo("--merge", "factors", "--out", str(out), "--format", "json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert report["contributors"] == [1, 2, 3, 4, 5, 6, 7]
    assert report["dropped"] == [
        {"client": 7, "phase": "consistency-check"},
        {"client": 8, "phase": "masked-input"},
    ]
    assert 0 < report["max_abs_diff_steps"] < 1
    assert report["noise"] is None
    assert sorted(path.name for path in (out / "contributors").iterdir()) == [str(k) for k in range(1, 9)]
    assert set(report) == PAIRWISE_REPORT
    check_merged(out, report, 8, value_bits_for(8))
    check_record(out)
    assert demo("--out", str(out), "--drop", "0", "--clients", "3").returncode == 0, "an earlier demo is replaced"
    assert not [line for line in command_lines() if b"secagg-demo-" in line], "a process of the demo is left"
    assert verify(out) == 0


def check_merged(out: Path, report: dict[str, Any], clients: int, value_bits: int) -> None:
    """The merged adapter is the plain mean of the contributors' adapters, as near as the report says."""
    assert 0 < report["max_abs_diff_steps"] < 1
    assert Path(report["merged"]) == out / "merged"
    vectors = read_vectors(plan_pairwise(clients, 0), out / "contributors")
    scale = float(Quantiser(value_bits, clip_norm_for(vectors)).scale)
    merged = read_adapter(out / "merged", "secagg-example-base")
    mean = np.mean([vectors[k].astype(np.float64) for k in report["contributors"]], axis=0)
    steps = np.abs(adapter_to_vector(merged, merged.layout) - mean) * scale
    assert abs(steps.max() - report["max_abs_diff_steps"]) < 0.01


def published_entries(out: Path) -> list[LogEntry]:
    """The entries of the published log."""
    bundles = sorted((out / "record" / "tile" / "entries" / "000.p").iterdir(), key=lambda path: int(path.name))
    return [decode_entry(entry) for entry in decode_bundle(bundles[-1].read_bytes())]


def spoken(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The progress that a demo with ``--format json`` reported."""
    return [json.loads(line)["progress"] for line in done.stderr.splitlines()]


def verify(out: Path) -> int:
    command = [sys.executable, "-m", "verifier", "check", str(out / "record"), "--policy", str(out / "policy.toml")]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def check_record(out: Path) -> None:
    """What the demo leaves can be verified by whoever finds it, and not once it was changed."""
    policy = LogPolicy.parse((out / "policy").read_text())
    assert len(policy.witnesses) == 3
    assert not policy.is_met_by([witness.key.public_key for witness in policy.witnesses[:2]])
    assert verify(out) == 0
    (session,) = (out / "record" / "sessions").iterdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (session / "aggregate" / name).read_bytes() == (out / "merged" / name).read_bytes()
    data = (session / "integer-sum.bin").read_bytes()
    (session / "integer-sum.bin").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert verify(out) == 1


def test_a_committee_of_which_two_are_gone_opens_what_contributors_who_are_gone_uploaded_once(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    arguments = ["--merge", "factors", "--protocol", "one-shot", "--clients", "5", "--drop", "1"]
    done = demo(*arguments, "--out", str(out), "--format", "json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert set(report) == PAIRWISE_REPORT | {"opened_by", "gone"}
    assert report["contributors"] == [1, 2, 3, 4]
    assert report["dropped"] == [{"client": 5, "phase": "masked-input"}]
    assert report["opened_by"] == [f"Institute {letter}" for letter in "ABCDE"]
    assert report["gone"] == ["Institute F", "Institute G"]
    check_merged(out, report, 5, masked_value_bits_for(8, 40960))

    said = spoken(done)
    stopped = [said.index(f"committee member {name} is gone: its process was stopped") for name in report["gone"]]
    assert said.index(f"4 {LEFT}") < min(stopped) < max(stopped) < said.index("phase open-sum")

    _, opened, close, result = published_entries(out)
    assert isinstance(opened, OneShotOpen)
    assert isinstance(opened.opening, Committee)
    assert (len(opened.opening.members), opened.opening.needed, opened.opening.max_corrupt) == (7, 5, 2)
    assert isinstance(close, OneShotClose)
    assert close.opener == NamedMembers(tuple(range(7))), "who is gone held the shares of all"
    assert isinstance(result, OneShotResult)
    assert (result.count, result.used, result.dissenting) == (4, (0, 1, 2, 3, 4), ())

    pinned = tomllib.loads((out / "policy.toml").read_text())["openers"]
    assert pinned == {"keys": [member.identity.hex() for member in opened.opening.members]}
    check_record(out)
    assert not [line for line in command_lines() if b"secagg-demo-" in line], "a process of the demo is left"


def test_a_key_authority_opens_what_its_attestors_have_checked(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    arguments = [
        "--merge", "factors", "--protocol", "one-shot", "--opening", "key-authority", "--clients", "5", "--drop", "2",
    ]  # fmt: skip
    done = demo(*arguments, "--out", str(out), "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == PAIRWISE_REPORT | {"opened_by", "attested_by"}
    assert report["contributors"] == [1, 2, 3]
    assert report["dropped"] == [{"client": 4, "phase": "masked-input"}, {"client": 5, "phase": "commit"}]
    assert report["opened_by"] == ["Institute A"]
    check_merged(out, report, 5, masked_value_bits_for(8, 40960))

    said = spoken(done)
    attested = [at for at, line in enumerate(said) if "has checked the published record" in line]
    assert len(attested) == 2
    assert said.index(f"3 {LEFT}") < min(attested) < max(attested) < said.index("phase finished")

    (session,) = (out / "record" / "sessions").iterdir()
    assert len((session / "commitments.jsonl").read_bytes().splitlines()) == 4
    assert len(list((session / "ciphertexts").iterdir())) == 3
    lines = (session / "attestations.jsonl").read_text().splitlines()
    attestors = [json.loads(line)["statement"]["identity"] for line in lines]
    assert report["attested_by"] == attestors
    assert tomllib.loads((out / "policy.toml").read_text())["openers"]["attestors"] == attestors
    check_record(out)
    assert not [line for line in command_lines() if b"secagg-demo-" in line], "a process of the demo is left"


def test_a_demo_with_a_key_authority_says_what_to_install_before_it_starts_anything(tmp_path: Path) -> None:
    (tmp_path / "tenseal").mkdir()
    (tmp_path / "tenseal" / "__init__.py").write_text("raise ImportError")
    out = tmp_path / "demo"
    arguments = ["--protocol", "one-shot", "--opening", "key-authority", "--out", str(out)]
    done = demo(*arguments, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert 'pip install "secagg-lora[he]"' in done.stderr
    assert done.stdout == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clients", "2"], "expected 3 to"),
        (["--clients", "8", "--drop", "8"], "expected 0 to 7"),
        (["--clients", "8", "--drop", "-1"], "expected 0 to 7"),
        (["--clients", "8", "--drop", "6"], "cannot drop out"),
        (["--clients", "many"], "invalid int value"),
        (["--opening", "committee"], "--opening is for one-shot sessions"),
        (["--protocol", "one-shot", "--clients", "6", "--drop", "4"], "3 contributions are needed; try 3"),
        (["--dp-epsilon", "8", "--merge", "sketch"], "--dp-epsilon is not for --merge sketch"),
        (["--merge", "two-session"], "invalid choice"),
    ],
)
def test_impossible_demos_are_refused_with_the_reason(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = demo(*arguments, "--out", str(tmp_path / "demo"))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "demo").exists()


def test_the_demo_does_not_write_into_a_directory_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = demo("--out", str(tmp_path))
    assert done.returncode == 2
    assert "not of an earlier demo" in done.stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("clients", [3, 4, 5, 8, 20, 100, 200])
def test_the_largest_number_of_dropouts_is_the_one_that_is_suggested(clients: int) -> None:
    most = max_drop(clients)
    assert len(plan_pairwise(clients, most).leaving) == most
    with pytest.raises(ValueError, match="cannot drop out"):
        plan_pairwise(clients, most + 1)


@pytest.mark.parametrize("clients", [3, 4, 5, 200])
def test_a_one_shot_demo_loses_whoever_it_can_spare(clients: int) -> None:
    plan = plan_one_shot(clients, clients - 3, Departure.BEFORE_COMMITMENT, Departure.AFTER_COMMITMENT)
    assert plan.contributors == [1, 2, 3]
    assert plan.gone_at(Departure.BEFORE_COMMITMENT) - plan.gone_at(Departure.AFTER_COMMITMENT) in {0, 1}
    assert len(plan_one_shot(clients, None, Departure.BEFORE_UPLOAD).leaving) == min(2, clients - 3)


@pytest.mark.parametrize("clients", [8, 16, 256])
def test_one_shot_demos_put_two_values_into_a_lane_as_precisely_as_they_can(clients: int) -> None:
    bits = masked_value_bits_for(clients, 40960)
    usable = usable_bits_for(bits, clients, 40960)
    assert FieldLayout(bits, clients, 40960, usable).fields_per_lane == 2
    finer = bits + 1
    assert bits == 24 or FieldLayout(finer, clients, 40960, usable_bits_for(finer, clients, 40960)).fields_per_lane == 1


def test_a_demo_with_noise_is_honest_about_it_and_verifies(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = demo("--out", str(out), "--dp-epsilon", "8", "--accept-ratio", "1000", "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    noise = report["noise"]
    assert 7.9 < noise["epsilon"] <= 8
    assert noise["signal_ratio"] > 1
    assert noise["measured_deviation"] == pytest.approx(noise["expected_deviation"], rel=0.05)
    assert noise["noise_norm"] > noise["mean_norm"]
    assert "DPN-4   pass" in report["verified"]
    assert tomllib.loads((out / "policy.toml").read_text())["noise"]["mechanism"] == "skellam"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--dp-epsilon", "8"), 2, ("20 times as large", "--accept-ratio 20", "131 contributors")),
        (("--dp-epsilon", "8", "--accept-ratio", "0"), 2, ("--accept-ratio",)),
        (("--dp-epsilon", "1/10000"), 2, ("--dp-epsilon",)),
        (("--accept-ratio", "8"), 2, ("--accept-ratio needs --dp-epsilon",)),
        (("--dp-epsilon", "0", "--accept-ratio", "8"), 2, ("--dp-epsilon",)),
    ],
)
def test_a_demo_whose_noise_was_not_accepted_runs_nothing(arguments, code, words, tmp_path: Path) -> None:
    done = demo("--out", str(tmp_path / "demo"), *arguments)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "demo").exists()
