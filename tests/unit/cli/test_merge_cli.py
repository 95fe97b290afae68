"""``secagg merge inspect``: what is shown of a merged adapter, with and without a report, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from secagg.cli import main
from secagg.cli.merge_plot import MOST_BARS
from secagg.cli.merged_modules import in_layers
from secagg.lora.merge_report import REPORT_FILE, MergeReport, ModuleReport, ppm, shares_of
from secagg.lora.template import AdapterTemplate
from secagg.lora.writer import write_adapter
from tests.support.service import EXAMPLES

KINDS = ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj",
         "self_attn.v_proj")  # fmt: skip
ERRORS = {"k_proj": 0.42, "q_proj": 0.31, "down_proj": 0.12}


@pytest.fixture
def inspect(capsys):
    def run(*argv: str | Path) -> tuple[int, str, str]:
        code = main.run(["merge", "inspect", *map(str, argv)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def merged(directory: Path, paths: list[str], *, counted: bool = True, strategy: str = "sketch") -> Path:
    """A merged adapter with a report in which k_proj is poor."""
    generator = np.random.default_rng(len(paths))
    tensors, reports, squares = {}, [], []
    for path in paths:
        a, b = generator.normal(size=(4, 6)), generator.normal(size=(8, 4))
        tensors[f"base_model.model.{path}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{path}.lora_B.weight"] = b.astype(np.float32)
        squares.append(float(np.linalg.norm(b @ a) ** 2))
    for path, share in zip(paths, shares_of(squares), strict=True):
        error = ERRORS.get(path.rpartition(".")[2], 0.2) + generator.normal() / 100
        reports.append(ModuleReport(path, "range+corange+core+probe", share, ppm(error), ppm(0.97)))
    template = AdapterTemplate("base", "", "CAUSAL_LM", 4, 4, use_rslora=False, fan_in_fan_out=False)
    write_adapter(directory, template, tensors)
    counts = (125_000, 37) if counted else (-1, -1)
    report = MergeReport(strategy, 24, *counts, tuple(reports))
    (directory / REPORT_FILE).write_bytes(report.to_bytes())
    return directory


def paths_of(layers: int) -> list[str]:
    paths = [f"model.layers.{layer}.{kind}" for layer in range(layers) for kind in KINDS]
    return sorted(paths, key=lambda path: path.encode())


FOUR = ["model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj", "model.layers.10.mlp.down_proj",
        "model.layers.2.mlp.down_proj"]  # fmt: skip
POOR = ["model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.q_proj"]


def test_a_merged_adapter_is_shown_module_by_module_and_summed_up(inspect, tmp_path):
    code, out, err = inspect(merged(tmp_path / "merged", FOUR))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["module", "sent", "norm", "energy", "est.", "error", "scalar"]
    assert [line.split()[0] for line in lines[1:5]] == [FOUR[0], FOUR[1], FOUR[3], FOUR[2]], "layer 2 before layer 10"
    assert all("range+corange+core+probe" in line and line.endswith("0.970") for line in lines[1:5])
    assert lines[6].startswith("sketch, 24 contributors, 4 modules, joint norm ")
    assert "estimated error 0." in lines[7]
    assert lines[8] == "12.5 % of the contributors scaled down to the session's norm, 0.0 % of the coordinates clamped"
    assert len(lines) == 9, "an adapter that is good enough is not said to be degraded"


def test_a_degraded_adapter_is_called_so_with_what_helps(inspect, tmp_path):
    code, out, _ = inspect(merged(tmp_path / "merged", POOR))
    assert code == 0
    assert [line.endswith("above 0.35") for line in out.splitlines()[1:3]] == [True, False]
    assert "DEGRADED: " in out
    assert "Do not deploy it before you have measured it" in out
    assert "--rank-out" in out
    assert "--columns" in out
    report = json.loads(inspect(tmp_path / "merged", "--format", "json")[1])
    assert report["degraded"] is True
    assert report["degraded_share"] == pytest.approx(report["modules"][0]["energy"])


def test_what_helps_an_exact_merge_is_rank_alone(inspect, tmp_path):
    _, out, _ = inspect(merged(tmp_path / "merged", POOR, strategy="dense"))
    assert "--rank-out" in out
    assert "--columns" not in out


def test_what_was_clipped_is_not_known_where_there_is_noise(inspect, tmp_path):
    directory = merged(tmp_path / "merged", FOUR, counted=False)
    assert "not counted in a session with noise" in inspect(directory)[1]
    value = json.loads(inspect(directory, "--format", "json")[1])
    assert (value["scaled_down"], value["clamped"]) == (None, None)


def test_programs_get_all_of_it(inspect, tmp_path):
    code, out, err = inspect(merged(tmp_path / "merged", FOUR), "--format", "json")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    value = json.loads(line)
    assert set(value) == {
        "adapter", "strategy", "contributors", "norm", "error", "degraded", "degraded_share", "scaled_down", "clamped",
        "modules",
    }  # fmt: skip
    assert (value["strategy"], value["contributors"], value["degraded"]) == ("sketch", 24, False)
    assert value["scaled_down"] == 0.125
    assert value["clamped"] == 0.000037
    assert value["norm"] == pytest.approx(sum(module["norm"] ** 2 for module in value["modules"]) ** 0.5)
    assert sum(module["energy"] for module in value["modules"]) == pytest.approx(1, abs=1e-5)
    squares = [module["energy"] * module["error"] ** 2 for module in value["modules"]]
    assert value["error"] == pytest.approx(sum(squares) ** 0.5, abs=1e-5)
    assert value["modules"][0]["sent"] == ["range", "corange", "core", "probe"]


def test_norms_are_those_of_scale_times_b_a(inspect):
    value = json.loads(inspect(EXAMPLES / "1", "--format", "json")[1])
    from secagg.lora.reader import read_adapter

    adapter = read_adapter(EXAMPLES / "1", None)
    for module in value["modules"]:
        name = f"base_model.model.{module['path']}"
        a, b = (adapter.tensors[f"{name}.lora_{side}.weight"].astype(float) for side in "AB")
        assert module["norm"] == pytest.approx(np.linalg.norm(8 / 4 * b @ a), rel=1e-6)
        assert module["energy"] == pytest.approx(module["norm"] ** 2 / value["norm"] ** 2, rel=1e-6)


def test_any_adapter_without_a_report_is_shown_without_an_estimate(inspect):
    code, out, _ = inspect(EXAMPLES / "3")
    assert code == 0
    assert out.splitlines()[0].split() == ["module", "rank", "norm", "energy"]
    assert "no estimate: averaged factors say nothing of their error" in out
    value = json.loads(inspect(EXAMPLES / "3", "--format", "json")[1])
    assert {value[name] for name in ("strategy", "contributors", "error", "degraded")} == {None}
    assert {module["error"] for module in value["modules"]} == {None}
    assert len(value["modules"]) == 28


def test_a_report_about_other_modules_is_refused(inspect, tmp_path):
    directory = merged(tmp_path / "merged", FOUR)
    other = merged(tmp_path / "other", FOUR[:3])
    (directory / REPORT_FILE).write_bytes((other / REPORT_FILE).read_bytes())
    code, out, err = inspect(directory)
    assert (code, out) == (2, "")
    assert "merge.json is about other modules" in err


def test_a_report_that_lies_about_being_degraded_is_refused(inspect, tmp_path):
    directory = merged(tmp_path / "merged", POOR)
    data = (directory / REPORT_FILE).read_bytes()
    assert b'"degraded":1' in data
    (directory / REPORT_FILE).write_bytes(data.replace(b'"degraded":1', b'"degraded":0'))
    code, out, err = inspect(directory, "--format", "json")
    assert (code, out) == (2, "")
    assert json.loads(err)["error"]["kind"] == "adapter"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_directory_without_an_adapter_is_refused(inspect, tmp_path, name):
    directory = merged(tmp_path / "merged", FOUR)
    (directory / name).unlink()
    code, out, err = inspect(directory)
    assert (code, out) == (2, "")
    assert name in err


def test_a_report_that_is_no_file_is_refused(inspect, tmp_path):
    directory = merged(tmp_path / "merged", FOUR)
    (directory / REPORT_FILE).unlink()
    (directory / REPORT_FILE).mkdir()
    code, _, err = inspect(directory)
    assert code == 2
    assert "no regular file" in err


@pytest.mark.parametrize("layers", [1, 32])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_error_and_energy_are_drawn_for_few_modules_and_for_many(inspect, tmp_path, layers, suffix):
    pytest.importorskip("matplotlib")
    paths = paths_of(layers)
    assert (len(paths) > MOST_BARS) is (layers == 32)
    directory, picture = merged(tmp_path / "merged", paths), tmp_path / f"picture{suffix}"
    assert inspect(directory, "--plot", picture)[0] == 0
    drawn = picture.read_bytes()
    assert len(drawn) > 5000
    if suffix == ".svg":
        assert b"<svg" in drawn
        assert b"<dc:date>" not in drawn


def test_without_a_report_energy_alone_is_drawn(inspect, tmp_path):
    pytest.importorskip("matplotlib")
    assert inspect(EXAMPLES / "1", "--plot", tmp_path / "picture.png")[0] == 0
    assert (tmp_path / "picture.png").stat().st_size > 5000


@pytest.mark.parametrize("name", ["picture.pdf", "picture"])
def test_another_kind_of_picture_is_refused_before_anything_is_read(inspect, tmp_path, name):
    code, out, err = inspect(tmp_path / "nothing", "--plot", name)
    assert (code, out) == (2, "")
    assert ".png or .svg" in err


def test_without_matplotlib_a_picture_is_refused_with_what_to_install(inspect, tmp_path, monkeypatch):
    directory = merged(tmp_path / "merged", FOUR)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = inspect(directory, "--plot", tmp_path / "picture.png")
    assert (code, out) == (2, "")
    assert 'pip install "secagg-lora[plots]"' in err
    assert inspect(directory)[0] == 0


def test_a_picture_that_cannot_be_written_is_an_error_of_the_system(inspect, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = inspect(merged(tmp_path / "merged", FOUR), "--plot", tmp_path / "no" / "picture.png")
    assert (code, out) == (3, "")
    assert "picture.png" in err


def test_numbers_in_paths_are_sorted_as_numbers():
    assert sorted(["h.10.a", "h.2.a", "h.2.b", "g.3"], key=in_layers) == ["g.3", "h.2.a", "h.2.b", "h.10.a"]
