"""The script that made examples/adapters_independent, end to end with a tiny model."""

import json
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.train,
    # transformers 5 warns about an attribute that PEFT still reads.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = {
    "hidden": 32,
    "intermediate": 64,
    "layers": 1,
    "heads": 2,
    "context": 32,
    "batch": 4,
    "base_steps": 20,
    "adapter_steps": 20,
    "evaluation_windows": 8,
}


@pytest.fixture(scope="module")
def script():
    torch = pytest.importorskip("torch")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import train_independent_adapters

        yield train_independent_adapters
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=deterministic)


@pytest.fixture(scope="module")
def made(script, tmp_path_factory):
    out = tmp_path_factory.mktemp("independent")
    return script.run(out, script.common.Settings(**TINY)), out


def adapters_in(script, out):
    return [script.read_adapter(out / str(k), None) for k in range(1, 9)]


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_same_seeds_give_the_same_files_in_which_no_path_of_this_machine_is(script, made, tmp_path):
    report, out = made
    script.run(tmp_path, script.common.Settings(**TINY))
    files = files_below(out)
    assert files == files_below(tmp_path)
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert set(files) == {f"{k}/{name}" for k in range(1, 9) for name in names} | {"training.json"}
    assert json.loads(files["training.json"]) == report
    for name, content in files.items():
        assert str(out).encode() not in content, name
        assert str(EXAMPLES).encode() not in content, name


def test_each_contributor_has_what_it_chose_and_a_start_of_its_own(script, made):
    adapters = adapters_in(script, made[1])
    for choice, adapter, row in zip(script.CHOICES, adapters, made[0]["contributors"], strict=True):
        config = adapter.config
        assert (config.r, config.lora_alpha, config.use_rslora) == (choice.rank, choice.alpha, choice.use_rslora)
        assert (row["rank"], row["alpha"], row["use_rslora"]) == (choice.rank, choice.alpha, choice.use_rslora)
        assert config.scale_of(adapter.modules[0].path) == pytest.approx(choice.scale)
    for name in adapters[0].tensors:
        if ".lora_A." in name:
            rows = [adapter.tensors[name].ravel()[:32] for adapter in adapters]
            assert len({row.tobytes() for row in rows}) == len(rows), name


def test_the_exact_merge_is_exact_and_what_is_merged_loads_in_peft_with_the_mean_of_the_updates(script, made, tmp_path):
    torch = script.torch
    report, out = made
    assert report["merges"]["exact"]["error"] < 1e-4
    adapters = adapters_in(script, out)
    for name, _ in script.merges(adapters, tmp_path):
        if name == "exact":
            break
    settings = script.common.Settings(**TINY)
    base = script.LlamaForCausalLM(script.common.base_config(settings))
    merged = script.common.load_adapter(base, tmp_path / "exact").merge_and_unload()
    singles = [script.common.load_adapter(base, out / str(k)).merge_and_unload() for k in range(1, 9)]
    plain = dict(base.named_parameters())
    for name, weight in merged.named_parameters():
        mean = torch.stack([dict(each.named_parameters())[name] - plain[name] for each in singles]).mean(0)
        torch.testing.assert_close(weight - plain[name], mean, rtol=0.0, atol=1e-5)


def test_the_mean_of_the_factors_is_the_worst_and_no_sketch_is_better_than_the_truncated_mean(script, made):
    merges = made[0]["merges"]
    assert merges["factors"]["error"] > 0.5
    for rank in script.CORE_COLUMNS:
        dense, sketch = merges[f"dense {rank}"], merges[f"sketch {rank}"]
        assert merges["exact"]["error"] < dense["error"] <= sketch["error"] < merges["factors"]["error"]
        for merge in (dense, sketch):
            assert merge["estimated_error"] == pytest.approx(merge["error"], rel=0.3)


def test_the_tables_have_a_row_for_each_contributor_and_text_and_for_each_merge(script, made):
    rows = script.table(made[0]).splitlines()
    assert len(rows) == 9
    assert {row.count("|") for row in rows} == {4 + len(script.SHOWN) + 1}
    merges = script.table_of_merges(made[0]).splitlines()
    assert [row.split(" | ")[0] for row in merges] == [f"| {name}" for name in made[0]["merges"]]
    assert {row.count("|") for row in merges} == {6}
