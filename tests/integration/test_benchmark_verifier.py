"""The benchmark of the verifier runs and says what it promises; how fast it is is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("level", ["sum", "full"])
def test_an_audit_is_measured_with_its_keystreams_and_its_memory(tmp_path: Path, level: str) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.verifier", "--json", str(out), "--level", level]
    command += ["--scenarios", "9x1000+2", "--repeats", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(out.read_text())["runs"]
    assert run["verdict"] == "passed"
    assert (run["level"], run["contributions"], run["dimension"], run["dropped"]) == (level, 9, 1000, 2)
    assert run["keystreams"] == 9 + 2 * 9
    assert {"wall_s", "cpu_s"} == run["total"].keys() == run["of_keystreams"].keys() == run["rest"].keys()
    assert run["rss_peak_mib"] >= run["rss_start_mib"] > 0
