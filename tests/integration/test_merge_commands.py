"""Merging from the command line, for real: adapters of any start, strategies of one session and of two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.writer import write_adapter
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
    # Of three people's rounding, the estimate sees some that the rank of the result takes out.
    assert 0.7 * error < result["quality"]["estimated_error"] < 0.06
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


def test_where_a_is_frozen_the_session_hands_out_the_start(deployment):  # noqa: F811
    opened = deployment.run(
        "session", "open", "--config", "c/coordinator.toml", "--roster", "roster", "--adapter", str(ADAPTERS[0]),
        "--min-contributors", "3", "--merge", "frozen-a", "--clip-norm", "2",
    )  # fmt: skip
    session = opened["session"]
    deployment.run("session", "start", session, "--out", "start", "--config", "client.toml")
    start = read_adapter(deployment.home / "start", None)
    trained = []
    for number in range(len(NAMES)):
        rng = np.random.default_rng(number)
        tensors = dict(start.tensors)
        for module in start.modules:
            assert not tensors[module.b_name].any()
            tensors[module.b_name] = rng.normal(0, 0.02, tensors[module.b_name].shape).astype(np.float32)
        write_adapter(deployment.home / f"trained{number}", AdapterTemplate.from_adapter(start), tensors)
        trained.append(deployment.home / f"trained{number}")
    other_a = deployment.contribute("alice", ADAPTERS[1], session)
    _, err = deployment.finish(other_a, 2)
    assert err[-1]["error"]["reason"] == "OTHER_START"
    contributing = [
        deployment.contribute(name, adapter, session, *(["--out", "merged"] if name == "alice" else []))
        for name, adapter in zip(NAMES, trained, strict=True)
    ]
    done = [deployment.finish(process) for process in contributing]
    [result], _ = done[0]
    assert result["quality"] == {"estimated_error": 0.0, "degraded": False}
    merged, own = updates(deployment.home / "merged"), [updates(adapter) for adapter in trained]
    for path, found in merged.items():
        mean = np.mean([each[path] for each in own], axis=0)
        assert np.linalg.norm(found - mean) < 0.02 * np.linalg.norm(mean)
    refused = deployment.refusal(
        2, "session", "start", deployment.open_session(ADAPTERS[0])["session"], "--out", "s", "--config", "client.toml"
    )
    assert refused["reason"] == "BAD_FIXED_TENSORS"
