"""``secagg demo`` from the outside: files, JSON, refusals, and nothing left running."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secagg.arith.quantiser import Quantiser
from secagg.cli.demo_plan import clip_norm_for, max_drop, plan_demo, read_vectors, value_bits_for
from secagg.lora.reader import read_adapter
from secagg.lora.vector import adapter_to_vector
from secagg.transcript.policy import LogPolicy


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secagg.cli.main", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def command_lines() -> list[bytes]:
    """The command lines of all running processes, where the system shows them as files."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    return lines


def test_the_demo_merges_real_adapters_although_two_contributors_are_killed(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = demo("--out", str(out), "--format", "json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert report["contributors"] == [1, 2, 3, 4, 5, 6, 7]
    assert report["dropped"] == [
        {"client": 7, "phase": "consistency-check"},
        {"client": 8, "phase": "masked-input"},
    ]
    assert 0 < report["max_abs_diff_steps"] < 1
    assert Path(report["merged"]) == out / "merged"
    assert sorted(path.name for path in (out / "contributors").iterdir()) == [str(k) for k in range(1, 9)]

    vectors = read_vectors(plan_demo(8, 2), out / "contributors")
    bound = clip_norm_for(vectors)
    merged = read_adapter(out / "merged", "secagg-example-base")
    mean = np.mean([vectors[k].astype(np.float64) for k in report["contributors"]], axis=0)
    steps = np.abs(adapter_to_vector(merged, merged.layout) - mean) * float(Quantiser(value_bits_for(8), bound).scale)
    assert abs(steps.max() - report["max_abs_diff_steps"]) < 0.01

    check_record(out)
    assert demo("--out", str(out), "--drop", "0", "--clients", "3").returncode == 0, "an earlier demo is replaced"
    assert not [line for line in command_lines() if b"secagg-demo-" in line], "a process of the demo is left"
    assert verify(out) == 0


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clients", "2"], "expected 3 to"),
        (["--clients", "8", "--drop", "8"], "expected 0 to 7"),
        (["--clients", "8", "--drop", "-1"], "expected 0 to 7"),
        (["--clients", "8", "--drop", "6"], "cannot drop out"),
        (["--clients", "many"], "invalid int value"),
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
    assert len(plan_demo(clients, most).leaving) == most
    with pytest.raises(ValueError, match="cannot drop out"):
        plan_demo(clients, most + 1)
