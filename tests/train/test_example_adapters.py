"""The script that made examples/adapters, end to end with a tiny model."""

import json
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.train,
    # transformers 5 warns about an attribute that PEFT still reads.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TINY = {
    "hidden": 32,
    "intermediate": 64,
    "layers": 1,
    "heads": 2,
    "context": 32,
    "batch": 4,
    "base_steps": 20,
    "rank": 2,
    "adapter_steps": 20,
    "evaluation_windows": 8,
}


@pytest.fixture
def script():
    torch = pytest.importorskip("torch")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    from examples import train_adapters

    yield train_adapters
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=deterministic)


@pytest.fixture
def settings(script):
    return script.Settings(**TINY)


@pytest.fixture
def text(script):
    return script.read_text(("json",), set())


@pytest.fixture
def base(script, settings, text):
    return script.build_base(text, settings)[0]


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_files(script, settings, tmp_path):
    report = script.run(tmp_path / "first", settings)
    script.run(tmp_path / "second", settings)

    files = files_below(tmp_path / "first")
    assert files == files_below(tmp_path / "second")
    numbers = range(1, len(script.CONTRIBUTORS) + 1)
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert set(files) == {f"{k}/{name}" for k in numbers for name in names} | {"training.json"}
    assert json.loads(files["training.json"]) == report
    assert len({row["initial_a_sha256"] for row in report["contributors"]}) == 1
    assert len({files[f"{k}/adapter_model.safetensors"] for k in numbers}) == len(numbers)


def test_no_path_of_this_machine_is_written(script, settings, tmp_path):
    script.run(tmp_path, settings)

    for name, content in files_below(tmp_path).items():
        assert str(tmp_path).encode() not in content, name
        assert str(Path(script.__file__).parent).encode() not in content, name


def test_all_start_from_one_a_and_from_b_zero_and_training_moves_both(script, settings, base, text):
    first = script.tensors_of(script.new_adapter(base, settings))
    second = script.tensors_of(script.new_adapter(base, settings))
    trained = script.tensors_of(script.train_adapter(base, text, settings, 1)[0])

    assert first.keys() == second.keys() == trained.keys()
    for name, start in first.items():
        assert start.equal(second[name])
        assert not start.equal(trained[name])
        assert ".lora_A." in name or not start.any()
        assert ".lora_B." not in name or trained[name].abs().mean() > 1e-3


def test_training_lowers_the_loss_on_the_text_trained_on(script, text):
    # A base that has not learned the common text yet leaves an adapter of rank 2 nothing to specialise.
    settings = script.Settings(**TINY | {"base_steps": 300, "adapter_steps": 100, "evaluation_windows": 64})
    base, base_losses = script.build_base(script.read_text(("logging",), set()), settings)
    model, _ = script.train_adapter(base, text, settings, 1)

    assert base_losses[-1] < base_losses[0] - 1.0
    assert script.evaluate(model, text.train, settings) < script.evaluate(base, text.train, settings) - 0.02


def test_a_contributor_leaves_the_base_as_it_was(script, settings, base, text):
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}

    script.train_adapter(base, text, settings, 1)

    after = base.state_dict()
    assert before.keys() == after.keys()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_written_adapter_loads_in_peft_with_the_same_logits(script, base, text, tmp_path, dtype):
    torch, settings = script.torch, script.Settings(**TINY)
    tolerance = {"float32": 0.0, "float16": 1e-3, "bfloat16": 1e-2}[dtype]  # what rounding the factors moves
    model, _ = script.train_adapter(base, text, settings, 1)
    script.write_adapter(model, getattr(torch, dtype), tmp_path)
    tokens = text.held_out[: settings.context].unsqueeze(0)

    with torch.no_grad():
        plain = base(input_ids=tokens).logits
        expected = model.eval()(input_ids=tokens).logits
        loaded = script.load_adapter(base, tmp_path).eval()(input_ids=tokens).logits

    torch.testing.assert_close(loaded, expected, rtol=0.0, atol=tolerance)
    assert (expected - plain).abs().max() > 10 * tolerance


def test_no_block_of_text_is_used_twice(script):
    seen: set[str] = set()
    first = script.read_text(("json",), seen)
    again = script.read_text(("json",), seen)

    assert len(first.train) > 4 * len(first.held_out) > 0
    assert len(again.train) == len(again.held_out) == 0


def test_a_python_without_sources_is_named(script, tmp_path):
    with pytest.raises(FileNotFoundError, match="no sources of 'asyncio'"):
        script.source_files("asyncio", tmp_path)
