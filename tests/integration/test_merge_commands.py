"""Merging from the command line, for real: adapters of any start, strategies of one session and of two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from secagg.lora.reader import read_adapter
from tests.integration.test_deployment import NAMES, Deployment, deployment  # noqa: F401 - a fixture
from tests.support.service import EXAMPLES

ADAPTERS = [EXAMPLES / str(number) for number in (1, 2, 3)]


def updates(directory: Path) -> dict[str, np.ndarray]:
    adapter = read_adapter(directory, None)
    return {
        module.path: adapter.config.scale_of(module.path)
        * (adapter.tensors[module.b_name].astype(np.float64) @ adapter.tensors[module.a_name].astype(np.float64))
        for module in adapter.modules
    }


def true_error(merged: Path) -> float:
    """Relative error of a merged adapter, all modules together."""
    found, own = updates(merged), [updates(adapter) for adapter in ADAPTERS]
    mean = {path: np.mean([each[path] for each in own], axis=0) for path in found}
    wrong = sum(float(np.sum((found[path] - mean[path]) ** 2)) for path in found)
    return float(np.sqrt(wrong / sum(float(np.sum(each**2)) for each in mean.values())))


def all_contribute(site: Deployment, session: str) -> list[tuple[list[dict], list[dict]]]:
    contributing = [
        site.contribute(name, adapter, session, *(["--out", "merged"] if name == "alice" else []))
        for name, adapter in zip(NAMES, ADAPTERS, strict=True)
    ]
    return [site.finish(process) for process in contributing]


def test_a_sketch_merges_adapters_and_says_how_well(deployment):  # noqa: F811
    opened = deployment.run(
        "session", "open", "--config", "c/coordinator.toml", "--roster", "roster", "--adapter", str(ADAPTERS[0]),
        "--min-contributors", "3", "--rank-out", "12",
    )  # fmt: skip
    assert (opened["merge"]["strategy"], opened["rank"]) == ("sketch", 12)
    [result], progress = all_contribute(deployment, opened["session"])[0]
    assert "estimated from the sum" in progress[0]["progress"]["merging"]
    # Twelve are as many as three contributors of rank 4 can have: nothing is lost but by rounding.
    error = true_error(deployment.home / "merged")
    assert error < 0.03
    assert result["quality"]["estimated_error"] == pytest.approx(error, rel=0.3)
    assert result["quality"]["degraded"] is False
    inspected = deployment.run("merge", "inspect", "merged")
    assert inspected["strategy"] == "sketch"


def test_two_sessions_are_one_operation(deployment):  # noqa: F811
    argv = (
        "session", "open", "--config", "c/coordinator.toml", "--roster", "roster", "--adapter", str(ADAPTERS[0]),
        "--min-contributors", "3", "--merge", "two-session", "--rank-out", "4",
    )  # fmt: skip
    operator = deployment.start(*argv)
    assert operator.stdout is not None
    first = json.loads(operator.stdout.readline())
    assert first["merge"]["step"] == "two-session-range"
    done = all_contribute(deployment, first["session"])
    [second], notes = deployment.finish(operator)
    assert second["merge"]["step"] == "two-session-projection"
    assert (second["merge"]["first"], second["min_contributors"]) == (first["session"], 3)
    assert any("--follows" in str(line) for line in notes)
    for results, _ in done:
        assert [each["session"] for each in results] == [first["session"], second["session"]]
    estimated = done[0][0][1]["quality"]["estimated_error"]
    assert true_error(deployment.home / "merged") == pytest.approx(estimated, rel=0.3)
    policy = deployment.home / "policy.toml"
    policy.write_text(
        f'log_policy = "policy"\n[registrar]\nkeys = ["{deployment.registrar}"]\n'
        '[session]\nmin_contributors = 3\n[noise]\nmechanism = "none"\n'
    )
    code, report = deployment.verify()
    assert code == 0, report
    again = deployment.refusal(2, *argv, "--follows", first["session"])
    assert (again["reason"], second["session"] in again["message"]) == ("FOLLOWED", True)
    nothing = deployment.refusal(2, *argv, "--follows", second["session"])
    assert nothing["reason"] == "FOLLOWS"
