"""``secagg demo`` as it is by default: adapters of different ranks and starts, merged from sums alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from secagg.cli import main
from secagg.lora.reader import read_adapter
from tests.integration.test_demo import LEFT, PAIRWISE_REPORT, check_record, demo, spoken

MODULES = 28


def updates_in(directory: Path) -> dict[str, np.ndarray]:
    """``alpha / r B A`` of each module, in fp64."""
    adapter = read_adapter(directory, "secagg-example-base")
    return {
        module.path: adapter.config.scale_of(module.path)
        * adapter.tensors[module.b_name].astype(float)
        @ adapter.tensors[module.a_name].astype(float)
        for module in adapter.modules
    }


def true_errors(out: Path, contributors: list[int]) -> dict[str, float]:
    """How far the merged adapter is from the mean of the updates, relative to it."""
    merged = updates_in(out / "merged")
    updates = [updates_in(out / "contributors" / str(k)) for k in contributors]
    exact = {path: np.mean([each[path] for each in updates], axis=0) for path in merged}
    return {path: np.linalg.norm(merged[path] - exact[path]) / np.linalg.norm(exact[path]) for path in merged}


def check_merged(out: Path, report: dict, capsys: pytest.CaptureFixture[str]) -> None:
    """What the demo says of its errors is true, and what the files say."""
    merge = report["merge"]
    assert 0 < report["max_abs_diff_steps"] < 1
    truth = true_errors(out, report["contributors"])
    assert len(truth) == len(merge["modules"]) == MODULES
    for module in merge["modules"]:
        assert module["true_error"] == pytest.approx(truth[module["path"]], rel=1e-3)
        assert module["estimated_error"] == pytest.approx(truth[module["path"]], rel=0.5), module["path"]
    assert merge["estimated_error"] == pytest.approx(merge["true_error"], rel=0.15)
    assert merge["true_error"] < merge["true_error_of_factor_mean"] / 2
    assert merge["true_error_of_factor_mean"] > 0.8, "these adapters did not begin together"
    assert main.run(["merge", "inspect", str(out / "merged"), "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [module["path"] for module in shown["modules"]] == [module["path"] for module in merge["modules"]]
    assert shown["error"] == merge["estimated_error"]
    assert shown["contributors"] == len(report["contributors"])


def test_people_who_never_met_merge_their_adapters_although_two_of_them_are_killed(tmp_path, capsys):
    out = tmp_path / "demo"
    done = demo("--out", str(out), "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == PAIRWISE_REPORT | {"merge"}
    assert report["contributors"] == [1, 2, 3, 4, 5, 6, 7]
    assert (report["merge"]["strategy"], report["merge"]["degraded"]) == ("sketch", False)
    ranks = {read_adapter(out / "contributors" / str(k), None).config.r for k in report["contributors"]}
    assert len(ranks) > 2
    assert read_adapter(out / "merged", None).config.r == 24
    check_merged(out, report, capsys)
    check_record(out)


@pytest.mark.long
def test_they_can_upload_once_and_leave(tmp_path, capsys):
    out = tmp_path / "demo"
    done = demo("--protocol", "one-shot", "--out", str(out), "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == PAIRWISE_REPORT | {"merge", "opened_by", "gone"}
    assert f"6 {LEFT}" in spoken(done)
    check_merged(out, report, capsys)
    check_record(out)


@pytest.mark.long
def test_whole_updates_are_as_good_as_an_adapter_of_the_rank_can_be(tmp_path):
    out = tmp_path / "demo"
    done = demo("--merge", "dense", "--drop", "0", "--out", str(out))
    assert done.returncode == 0, done.stderr
    exact: dict[str, np.ndarray] = {}
    contributors = list(range(1, 9))
    for k in contributors:
        for path, update in updates_in(out / "contributors" / str(k)).items():
            exact[path] = exact.get(path, 0) + update / 8
    for path, error in true_errors(out, contributors).items():
        squares = np.linalg.svd(exact[path], compute_uv=False) ** 2
        assert error == pytest.approx(np.sqrt(squares[24:].sum() / squares.sum()), abs=1e-4)
    said = done.stdout
    assert "The contributors never met: ranks 2, 4 and 8, each from an A of its own." in said
    assert "layers.0" in said
    assert "the true error, which only a demo can know" in said
    assert "PASSED" in said
