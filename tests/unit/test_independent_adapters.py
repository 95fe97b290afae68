"""What is shipped in examples/adapters_independent, read without torch and without the project's own reader."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_example_adapters import MAX_BYTES, NUMBERS, dtypes_of, read_tensors

EXAMPLES = Path(__file__).parents[2] / "examples"
ADAPTERS = EXAMPLES / "adapters_independent"
LOSSES = ("base", "adapter", "factors", "exact", "sketch 16", "sketch 24")


@pytest.fixture(scope="module")
def adapters() -> list[dict[str, np.ndarray]]:
    return [read_tensors(ADAPTERS / str(k) / "adapter_model.safetensors") for k in NUMBERS]


@pytest.fixture(scope="module")
def configs() -> list[dict]:
    return [json.loads((ADAPTERS / str(k) / "adapter_config.json").read_text()) for k in NUMBERS]


@pytest.fixture(scope="module")
def training() -> dict:
    return json.loads((ADAPTERS / "training.json").read_text())


def updates(tensors: dict[str, np.ndarray], config: dict) -> dict[str, np.ndarray]:
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    return {
        name: scale * tensors[name.replace(".lora_A.", ".lora_B.")] @ a
        for name, a in tensors.items()
        if ".lora_A." in name
    }


def test_there_are_eight_directories_of_two_files_and_at_most_two_megabytes():
    found = {p.relative_to(ADAPTERS).as_posix() for p in ADAPTERS.rglob("*") if p.is_file()}
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert found == {f"{k}/{name}" for k in NUMBERS for name in names} | {"README.md", "training.json"}
    assert sum((ADAPTERS / name).stat().st_size for name in found) <= MAX_BYTES


def test_ranks_alphas_scales_and_dtypes_are_mixed(configs):
    assert {config["r"] for config in configs} == {2, 4, 8}
    assert len({config["lora_alpha"] for config in configs}) >= 4
    assert {config["use_rslora"] for config in configs} == {True, False}
    dtypes = [dtypes_of(ADAPTERS / str(k) / "adapter_model.safetensors") for k in NUMBERS]
    assert set.union(*dtypes) == {"F32", "F16", "BF16"}


def test_configs_fit_the_tensors_and_name_no_path(adapters, configs):
    for tensors, config in zip(adapters, configs, strict=True):
        assert config["base_model_name_or_path"] == "secagg-example-base"
        assert "/" not in json.dumps(config)
        for name, tensor in tensors.items():
            assert tensor.shape[0 if ".lora_A." in name else 1] == config["r"], name
            assert np.isfinite(tensor).all()


def test_no_two_began_together(adapters):
    for one, other in itertools.combinations(adapters, 2):
        for name, a in one.items():
            if ".lora_A." in name:
                rows = min(len(a), len(other[name]))
                cosines = np.sum(a[:rows] * other[name][:rows]) / np.linalg.norm(a[:rows])
                assert abs(cosines) / np.linalg.norm(other[name][:rows]) < 0.5, name


def test_their_factors_cannot_be_averaged_and_their_updates_can(adapters, configs, training):
    each = [updates(*pair) for pair in zip(adapters, configs, strict=True)]
    off = total = 0.0
    for name in each[0]:
        exact = np.mean([update[name] for update in each], axis=0)
        a, b = [], []
        for tensors, config in zip(adapters, configs, strict=True):
            scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
            a.append(np.pad(tensors[name], ((0, 8 - config["r"]), (0, 0))))
            b_name = name.replace(".lora_A.", ".lora_B.")
            b.append(np.pad(scale * tensors[b_name], ((0, 0), (0, 8 - config["r"]))))
        off += np.sum((np.mean(b, axis=0) @ np.mean(a, axis=0) - exact) ** 2)
        total += np.sum(exact**2)
    assert (off / total) ** 0.5 == pytest.approx(training["merges"]["factors"]["error"], abs=1e-3)
    assert training["merges"]["factors"]["error"] > 2 * training["merges"]["sketch 24"]["error"]


def test_every_adapter_helps_on_its_own_held_out_text_and_so_do_merges_of_updates(training):
    rows = training["contributors"]
    assert [row["contributor"] for row in rows] == list(NUMBERS)
    for row in rows:
        assert row["loss_adapter"] < row["loss_base"] - 0.02
    mean = {name: np.mean([row[f"loss_{name}"] for row in rows]) for name in LOSSES}
    for sketch in ("sketch 16", "sketch 24"):
        assert mean[sketch] < mean["base"]
        assert mean[sketch] < mean["factors"]


def test_both_sets_are_of_the_same_texts(training):
    other = json.loads((EXAMPLES / "adapters" / "training.json").read_text())
    for row, its in zip(training["contributors"], other["contributors"], strict=True):
        assert (row["topic"], row["modules"]) == (its["topic"], its["modules"])


def test_the_readme_states_what_was_measured(training):
    readme = (ADAPTERS / "README.md").read_text()
    lines = readme.splitlines()
    for row in training["contributors"]:
        (line,) = [line for line in lines if line.startswith(f"| {row['contributor']} |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:4] == [str(row["rank"]), f"{row['alpha']}{' rsLoRA' if row['use_rslora'] else ''}", row["dtype"]]
        assert cells[4:] == [f"{row[f'loss_{name}']:.3f}" for name in LOSSES]
    for name, merge in training["merges"].items():
        (line,) = [line for line in lines if line.startswith(f"| {name} |")]
        loss = np.mean([row[f"loss_{name}"] for row in training["contributors"]])
        assert line.startswith(f"| {name} | {merge['rank']} | {merge['error']:.3f} |")
        assert line.endswith(f"| {loss:.3f} |")
