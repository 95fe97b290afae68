"""PEFT as an oracle: its exact merges are ours, and what we merge gives its models the dense update's logits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from fractions import Fraction

import numpy as np
import pytest

from secagg.lora.base_model import (
    ALL_LINEAR,
    build_manifest,
    frozen_norms,
    modules_of_adapter,
    modules_of_base,
    stores_transposed,
)
from secagg.lora.fixed import BASIS_FILE, encode_fixed, frozen_tensors
from secagg.lora.manifest import Manifest
from secagg.lora.reader import read_adapter
from secagg.lora.update_merging import UpdateMerging
from secagg.lora.updates import updates_of
from secagg.lora.writer import write_files
from secagg.transcript.merge import (
    BasisMerge,
    DenseMerge,
    FrozenMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SketchMerge,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("default")]

NORM, SEED, SHARE = Fraction(2**10), bytes(32), Fraction(1, 5)
RANK_OUT, COLUMNS = 12, 12
STRATEGIES = ("dense", "sketch", "two-session", "pilot-1", "pilot-2")


class Vision(torch.nn.Module):
    """A convolution, an embedding and linear layers, one of them transposed as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 40, (3, 5), padding=1)
        self.embed = torch.nn.Embedding(60, 40)
        self.linear = torch.nn.Linear(40, 64)

    def forward(self, images, words):
        return self.linear(torch.tanh(self.conv(images).mean((2, 3)) + self.embed(words).mean(1)))


def vision():
    torch.manual_seed(0)
    return Vision()


def llama():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=48,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        )
    )


def gpt2():
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=48, n_positions=32, n_embd=64, n_layer=1, n_head=4)
    )


INPUTS = {
    "vision": (torch.linspace(-1, 1, 2 * 3 * 8 * 9).reshape(2, 3, 8, 9), torch.arange(10).reshape(2, 5)),
    "llama": (torch.arange(12).reshape(1, 12),),
    "gpt2": (torch.arange(12).reshape(1, 12),),
}
MODELS = {"vision": vision, "llama": llama, "gpt2": gpt2}
TARGETS = {
    "vision": ["conv", "embed", "linear"],
    "llama": ["q_proj", "down_proj", "embed_tokens"],
    "gpt2": ["c_attn", "mlp.c_proj"],
}
VARIANTS = (
    {"r": 2, "lora_alpha": 6},
    {"r": 4, "lora_alpha": 8, "use_rslora": True},
    {
        "r": 3,
        "lora_alpha": 3,
        "rank_pattern": {"linear": 5, "q_proj": 5, "c_attn": 5},
        "alpha_pattern": {"embed": 7, "down_proj": 7, "c_proj": 7},
    },
)
"""Ranks of 11 at most in all, which fit the columns and the rank of the merged adapter."""


def output(model, name):
    with torch.no_grad():
        result = model.eval()(*INPUTS[name])
    return result if isinstance(result, torch.Tensor) else result.logits


@pytest.fixture(scope="module", params=list(MODELS))
def cohort(request, tmp_path_factory):
    """Adapters of one base, each of another rank, alpha and scaling, as PEFT saves them."""
    name, adapters, folder = request.param, [], tmp_path_factory.mktemp(request.param)
    for number, variant in enumerate(VARIANTS):
        config = peft.LoraConfig(target_modules=TARGETS[name], fan_in_fan_out=name == "gpt2", **variant)
        model = peft.get_peft_model(MODELS[name](), config)
        torch.manual_seed(number + 1)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.randn_like(parameter) / 4)
        # An adapter says what it is for; these models have no name of their own.
        model.peft_config["default"].base_model_name_or_path = "tiny/model"
        model.save_pretrained(folder / str(number), save_embedding_layers=False)
        adapters.append(folder / str(number))
    return name, adapters


def plan_of(name, adapters):
    modules = {
        module.path: module for adapter in adapters for module in modules_of_adapter(read_adapter(adapter, None))
    }
    ordered = tuple(modules[path] for path in sorted(modules))
    return Manifest("tiny/model", "", "", RANK_OUT, fan_in_fan_out=name == "gpt2", missing="refuse", modules=ordered)


def session(merge, plan, adapters, fixed=b"", norms=None):
    """The merging of a session, and the mean of its messages."""
    merging = UpdateMerging.of(merge, build_manifest(merge, plan, norms or {}), counts_clipping=True).with_fixed(fixed)
    messages = [merging.message(read_adapter(adapter, "tiny/model")) for adapter in adapters]
    assert all((message.factor, message.clamped) == (1, 0) for message in messages)
    return merging, np.mean([message.vector for message in messages], axis=0, dtype=np.float64).astype(np.float32)


def merge_adapters(strategy, plan, adapters):
    """The merging of the last session, and its mean; everybody is in both sessions of those that take two."""
    k = COLUMNS
    match strategy:
        case "dense":
            return session(DenseMerge(NORM), plan, adapters)
        case "sketch":
            return session(SketchMerge(NORM, SEED, k, 2 * k, 4), plan, adapters)
        case "two-session":
            first = RangeMerge(NORM, SEED, k)
        case _:
            first = PilotMerge(NORM, SEED, k, int(strategy[-1]), SHARE)
    merging, mean = session(first, plan, adapters)
    basis = b"".join(merging.aggregate(mean, len(adapters), lambda _: None)[BASIS_FILE])
    digest = hashlib.sha256(basis).digest()
    if strategy == "two-session":
        return session(ProjectionMerge(NORM, SEED, k, 4, bytes(16), digest, bytes(32)), plan, adapters, basis)
    return session(BasisMerge(NORM, SEED, k, int(strategy[-1]), 4, SHARE, bytes(16), digest), plan, adapters, basis)


def dense_model(name, adapters):
    """The base with the mean of what PEFT itself says are the updates added to its weights."""
    model = MODELS[name]()
    for adapter in adapters:
        wrapped = peft.PeftModel.from_pretrained(MODELS[name](), adapter)
        for path, module in wrapped.base_model.model.named_modules():
            if hasattr(module, "get_delta_weight"):
                with torch.no_grad():
                    weight = model.get_submodule(path).weight
                    weight += module.get_delta_weight("default") / len(adapters)
    return model


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_merged_adapter_gives_the_logits_of_the_dense_update(cohort, strategy, tmp_path):
    name, adapters = cohort
    merging, mean = merge_adapters(strategy, plan_of(name, adapters), adapters)
    write_files(tmp_path, merging.aggregate(mean, len(adapters), lambda _: None))
    loaded = output(peft.PeftModel.from_pretrained(MODELS[name](), tmp_path), name)
    expected, before = output(dense_model(name, adapters), name), output(MODELS[name](), name)
    moved = (expected - before).abs().max()
    assert moved > 0.05
    assert (loaded - expected).abs().max() < 1e-3 * moved
    report = json.loads((tmp_path / "merge.json").read_bytes())
    assert all(module["error_ppm"] < 1000 for module in report["modules"])


def test_our_updates_are_those_that_peft_adds_to_weights(cohort):
    name, adapters = cohort
    plan = plan_of(name, adapters)
    for adapter in adapters:
        wrapped = peft.PeftModel.from_pretrained(MODELS[name](), adapter).base_model.model
        for module, update in updates_of(read_adapter(adapter, None), plan):
            delta = wrapped.get_submodule(module.path).get_delta_weight("default").detach().numpy()
            if module.kind == "embedding" or name == "gpt2":
                delta = delta.T
            assert np.allclose(update.left @ update.right, delta.reshape(module.outputs, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["cat", "svd"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_exact_merges_of_peft_are_ours_where_ranks_fit(tmp_path, strategy, kind):
    """Neither embeddings nor rsLoRA: there PEFT's own merges are another factor too large (its issue 3761)."""
    adapters = []
    for number, (rank, alpha) in enumerate(((2, 6), (4, 4), (5, 15))):
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "down_proj"])
        model = peft.get_peft_model(llama(), config)
        torch.manual_seed(number + 1)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.randn_like(parameter) / 4)
        model.peft_config["default"].base_model_name_or_path = "tiny/model"
        model.save_pretrained(tmp_path / str(number), save_embedding_layers=False)
        adapters.append(tmp_path / str(number))
    model = peft.PeftModel.from_pretrained(llama(), adapters[0], adapter_name="0")
    for number, adapter in enumerate(adapters[1:], start=1):
        model.load_adapter(adapter, adapter_name=str(number))
    options = {"svd_rank": RANK_OUT} if kind == "svd" else {}
    model.add_weighted_adapter(["0", "1", "2"], [1 / 3] * 3, "merged", combination_type=kind, **options)
    merging, mean = merge_adapters(strategy, plan_of("llama", adapters), adapters)
    tensors, _ = merging.merged(mean, 3, lambda _: None)
    for module in merging.manifest:
        layer = model.base_model.model.get_submodule(module.path)
        theirs = layer.get_delta_weight("merged").detach().numpy()
        ours = tensors[module.b_name] @ tensors[module.a_name]
        assert np.linalg.norm(ours - theirs) < 2e-4 * np.linalg.norm(theirs)


def test_frozen_a_is_exact_beside_peft(tmp_path):
    adapters = []
    for number in range(3):
        torch.manual_seed(7)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])
        model = peft.get_peft_model(llama(), config)
        torch.manual_seed(number)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_B" in key:
                    parameter.copy_(torch.randn_like(parameter) / 4)
        model.peft_config["default"].base_model_name_or_path = "tiny/model"
        model.save_pretrained(tmp_path / str(number), save_embedding_layers=False)
        adapters.append(tmp_path / str(number))
    example = read_adapter(adapters[0], None)
    plan = dataclasses.replace(plan_of("llama", adapters), rank=4)
    fixed = frozen_tensors(example, plan)
    data = encode_fixed(fixed)
    merge = FrozenMerge(NORM, hashlib.sha256(data).digest())
    merging, mean = session(merge, plan, adapters, data, frozen_norms(fixed, plan, NORM))
    write_files(tmp_path / "merged", merging.aggregate(mean, 3, lambda _: None))
    loaded = output(peft.PeftModel.from_pretrained(llama(), tmp_path / "merged"), "llama")
    expected, before = output(dense_model("llama", adapters), "llama"), output(llama(), "llama")
    assert (loaded - expected).abs().max() < 1e-4 * (expected - before).abs().max()


FAMILIES = {
    "gemma": {"head_dim": 10},
    "gemma2": {"head_dim": 10},
    "gemma3_text": {"head_dim": 10},
    "llama": {},
    "mistral": {"head_dim": 12},
    "phi3": {},
    "qwen2": {},
    "qwen3": {"head_dim": 10},
}
TINY = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_shapes_from_a_config_are_those_of_the_model_that_transformers_builds(tmp_path, family):
    if family == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 48, "n_positions": 32}
    else:
        sizes = {**TINY, **FAMILIES[family]}
    config = transformers.AutoConfig.for_model(family, **sizes)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    expected = {}
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding):
            expected[path] = ("embedding", *reversed(module.weight.shape))
        elif isinstance(module, transformers.pytorch_utils.Conv1D):
            expected[path] = ("linear", *reversed(module.weight.shape))
        elif isinstance(module, torch.nn.Linear):
            expected[path] = ("linear", *module.weight.shape)
    targets = sorted({path.rpartition(".")[2] for path in expected})
    found = {m.path: (m.kind, m.outputs, m.inputs) for m in modules_of_base(tmp_path, targets)}
    assert found == expected
    assert stores_transposed(tmp_path) == (family == "gpt2")
    linear = {path for path, (kind, *_) in expected.items() if kind == "linear" and path != "lm_head"}
    assert {module.path for module in modules_of_base(tmp_path, ALL_LINEAR)} == linear


def test_shapes_from_headers_are_those_of_the_config(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path)
    targets = ["q_proj", "k_proj", "down_proj", "embed_tokens", "lm_head"]
    known = modules_of_base(tmp_path, targets)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "unheard of"}))
    assert modules_of_base(tmp_path, targets) == known
