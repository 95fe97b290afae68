"""Adapters that PEFT saved are read, averaged and written, and PEFT loads the result as it is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.reader import Adapter, read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.writer import write_files

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("default")]

LAYERS = 4
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "all linear layers, more modules than PEFT's threshold for shortening names": {"target_modules": LINEAR},
    "rank-stabilised": {"target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "some layers only": {"target_modules": ["q_proj"], "layers_to_transform": [1, 3]},
    "a regular expression": {"target_modules": r".*layers\.[02]\.mlp\.(up|down)_proj"},
    "ranks and alphas by pattern": {
        "target_modules": ["q_proj", "v_proj", "up_proj"],
        "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 2, "up_proj": 6},
        "alpha_pattern": {"v_proj": 24},
    },
    "an embedding": {"target_modules": ["embed_tokens", "q_proj"]},
}


def tiny_model():
    """A Llama of some ten thousand weights, the same for every call; nothing is downloaded."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=48,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    model.name_or_path = "tiny/llama"
    return model


def saved_adapter(folder: Path, seed: int, dtype: str = "float32", **changes) -> Path:
    """An adapter with random factors, saved by PEFT."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    arguments = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "lora_dropout": 0.1, **changes}
    model = peft.get_peft_model(tiny_model(), peft.LoraConfig(**arguments))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 4)
    model.to(getattr(torch, dtype))
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def merged(folder: Path, adapters: list[Adapter]) -> dict[str, np.ndarray]:
    """Write the mean of the adapters into ``folder``; returns the mean of every tensor, computed apart."""
    merging = FactorMerging(AdapterTemplate.from_adapter(adapters[0]), adapters[0].layout)
    vectors = [merging.message(adapter).vector for adapter in adapters]
    mean = np.mean(vectors, axis=0, dtype=np.float64).astype(np.float32)
    write_files(folder, merging.aggregate(mean, len(adapters), lambda _: None))
    return {
        name: np.mean([adapter.tensors[name] for adapter in adapters], axis=0, dtype=np.float64).astype(np.float32)
        for name in adapters[0].tensors
    }


@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_two_adapters_loads_in_peft_tensor_by_tensor(tmp_path, case):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    sources = [saved_adapter(tmp_path / str(seed), seed, **CASES[case]) for seed in (1, 2)]
    adapters = [read_adapter(source, "tiny/llama") for source in sources]
    expected = merged(tmp_path / "merged", adapters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = peft.PeftModel.from_pretrained(tiny_model(), tmp_path / "merged")
    # PEFT only warns about tensors that are missing or that have no place in the model.
    assert not [str(warning.message) for warning in caught if "adapter" in str(warning.message).lower()]
    state = peft.get_peft_model_state_dict(loaded, save_embedding_layers=False)
    assert state.keys() == expected.keys()
    assert all(np.array_equal(state[name].numpy(), expected[name]) for name in expected)
    original = peft.PeftModel.from_pretrained(tiny_model(), sources[0])
    assert scalings(loaded) == scalings(original)
    tokens = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        assert torch.isfinite(loaded(tokens).logits).all()
        assert not torch.allclose(loaded(tokens).logits, tiny_model()(tokens).logits)


def scalings(model) -> dict[str, float]:
    """The scale of every adapted module as PEFT computes it."""
    return {
        name: module.scaling["default"]
        for name, module in model.named_modules()
        # Attention has a float of this name.
        if isinstance(getattr(module, "scaling", None), dict) and "default" in module.scaling
    }


@pytest.mark.parametrize("case", CASES)
def test_ranks_and_scales_are_those_that_peft_computes(tmp_path, case):
    peft = pytest.importorskip("peft")
    source = saved_adapter(tmp_path, 1, **CASES[case])
    adapter = read_adapter(source, None)
    ours = {module.path: adapter.config.scale_of(module.path) for module in adapter.modules}
    theirs = scalings(peft.PeftModel.from_pretrained(tiny_model(), source))
    assert ours == {name.removeprefix("base_model.model."): value for name, value in theirs.items()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_files_of_peft_are_decoded_exactly(tmp_path, dtype):
    safetensors_torch = pytest.importorskip("safetensors.torch")
    source = saved_adapter(tmp_path, 3, dtype, target_modules=["q_proj", "v_proj"])
    adapter = read_adapter(source, None)
    stored = safetensors_torch.load_file(source / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in stored.values()} == {f"torch.{dtype}"}
    assert all(np.array_equal(adapter.tensors[name], stored[name].float().numpy()) for name in stored)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_dora": True}, AdapterRejectReason.UNSUPPORTED_VARIANT),
        ({"bias": "lora_only"}, AdapterRejectReason.UNSUPPORTED_VARIANT),
        ({"lora_bias": True}, AdapterRejectReason.UNSUPPORTED_VARIANT),
        ({"modules_to_save": ["lm_head"]}, AdapterRejectReason.UNSUPPORTED_VARIANT),
        ({"trainable_token_indices": [1, 2]}, AdapterRejectReason.UNSUPPORTED_VARIANT),
        ({"init_lora_weights": "pissa"}, AdapterRejectReason.MUTATED_BASE),
        ({"init_lora_weights": "olora"}, AdapterRejectReason.MUTATED_BASE),
    ],
)
def test_what_cannot_be_added_up_is_refused_as_peft_saves_it(tmp_path, changes, reason):
    source = saved_adapter(tmp_path, 1, target_modules=["q_proj", "v_proj"], **changes)
    with pytest.raises(AdapterError) as caught:
        read_adapter(source, None)
    assert caught.value.reason is reason


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base_alone_really_do(tmp_path, init):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=init, task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny_model(), config)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    read_adapter(tmp_path, None)
    before, after = tiny_model().state_dict(), model.get_base_model().state_dict()
    for name, weight in before.items():
        adapted = name.replace("q_proj.weight", "q_proj.base_layer.weight")
        assert torch.equal(after[adapted], weight)


def test_a_converted_pissa_adapter_is_read_with_its_doubled_rank(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    config.init_lora_weights = "pissa"
    model = peft.get_peft_model(tiny_model(), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "initial", save_embedding_layers=False)
    model.peft_config["default"].init_lora_weights = "pissa"
    model.save_pretrained(
        tmp_path / "tuned",
        path_initial_model_for_weight_conversion=str(tmp_path / "initial"),
        save_embedding_layers=False,
    )
    adapter = read_adapter(tmp_path / "tuned", None)
    assert {module.rank for module in adapter.modules} == {8}
    assert adapter.config.r == 8
