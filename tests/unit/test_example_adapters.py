"""What is shipped in examples/adapters, read without torch and without the project's own reader."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
NUMBERS = range(1, 9)
MAX_BYTES = 2_000_000


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as float64; the bits of bfloat16, unknown to numpy, are widened."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        raw = data[start + first : start + last]
        match entry["dtype"]:
            case "F32":
                values = np.frombuffer(raw, "<f4")
            case "F16":
                values = np.frombuffer(raw, "<f2")
            case "BF16":
                values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
            case other:
                raise AssertionError(other)
        tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


def dtypes_of(path: Path) -> set[str]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}


def factor(tensors: dict[str, np.ndarray], mark: str) -> np.ndarray:
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors) if mark in name])


@pytest.fixture(scope="module")
def adapters() -> list[dict[str, np.ndarray]]:
    return [read_tensors(ADAPTERS / str(k) / "adapter_model.safetensors") for k in NUMBERS]


@pytest.fixture(scope="module")
def training() -> dict:
    return json.loads((ADAPTERS / "training.json").read_text())


def test_there_are_eight_directories_of_two_files_and_at_most_two_megabytes():
    found = {p.relative_to(ADAPTERS).as_posix() for p in ADAPTERS.rglob("*") if p.is_file()}
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert found == {f"{k}/{name}" for k in NUMBERS for name in names} | {"README.md", "training.json"}
    assert sum((ADAPTERS / name).stat().st_size for name in found) <= MAX_BYTES


def test_all_have_the_same_tensor_names_and_shapes(adapters):
    layouts = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in adapters]
    assert layouts[0]
    assert all(layout == layouts[0] for layout in layouts)


def test_all_values_are_finite_and_no_tensor_is_zero(adapters):
    for tensors in adapters:
        for name, tensor in tensors.items():
            assert np.isfinite(tensor).all(), name
            assert np.sqrt(np.mean(tensor**2)) > 1e-3, name


def test_the_three_dtypes_that_a_reader_must_know_occur_one_in_each_file():
    dtypes = [dtypes_of(ADAPTERS / str(k) / "adapter_model.safetensors") for k in NUMBERS]
    assert all(len(found) == 1 for found in dtypes)
    assert set.union(*dtypes) == {"F32", "F16", "BF16"}


def test_every_a_differs_but_all_stay_near_their_common_start(adapters):
    factors = np.stack([factor(tensors, ".lora_A.") for tensors in adapters])
    unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    assert cosines.min() > 0.9
    assert cosines.max() < 0.999


def test_every_b_went_its_own_way(adapters):
    factors = np.stack([factor(tensors, ".lora_B.") for tensors in adapters])
    unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    assert cosines.max() < 0.9


def test_all_have_one_config_that_fits_the_tensors_and_names_no_path(adapters):
    texts = {(ADAPTERS / str(k) / "adapter_config.json").read_text() for k in NUMBERS}
    assert len(texts) == 1
    text = texts.pop()
    assert "/" not in text
    assert "\\" not in text
    config = json.loads(text)
    assert config["peft_type"] == "LORA"
    assert config["base_model_name_or_path"] == "secagg-example-base"
    assert config["target_modules"] == sorted(config["target_modules"])
    for name, tensor in adapters[0].items():
        assert tensor.shape[0 if ".lora_A." in name else 1] == config["r"], name
        assert name.split(".")[-3] in config["target_modules"], name


def test_every_adapter_helps_on_its_own_held_out_text(training):
    assert [row["contributor"] for row in training["contributors"]] == list(NUMBERS)
    for row in training["contributors"]:
        assert row["loss_adapter"] < row["loss_base"] - 0.05
        assert row["loss_mean_adapter"] < row["loss_base"]


def test_training_json_describes_the_files_shipped(training, adapters):
    written = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    assert len({row["initial_a_sha256"] for row in training["contributors"]}) == 1
    assert training["adapter_parameters"] == sum(tensor.size for tensor in adapters[0].values())
    for row, tensors in zip(training["contributors"], adapters, strict=True):
        path = ADAPTERS / str(row["contributor"]) / "adapter_model.safetensors"
        assert dtypes_of(path) == {written[row["dtype"]]}
        norm = np.linalg.norm(factor(tensors, ".lora_"))
        assert math.isclose(norm, row["l2_norm"], abs_tol=1e-3)


def test_the_readme_states_what_was_measured(training):
    lines = (ADAPTERS / "README.md").read_text().splitlines()
    for row in training["contributors"]:
        (line,) = [line for line in lines if line.startswith(f"| {row['contributor']} |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1] == f"{row['topic']}: `{' '.join(row['modules'])}`"
        assert cells[2] == row["dtype"]
        losses = [row["loss_base"], row["loss_adapter"], row["loss_mean_adapter"]]
        assert cells[3:] == [f"{loss:.3f}" for loss in losses]
