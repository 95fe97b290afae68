"""A session's modules from a base model's config, from the headers of its weights, or from an example adapter."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from secagg.lora.base_model import (
    ALL_LINEAR,
    base_digest,
    base_name,
    build_manifest,
    frozen_norms,
    modules_of_adapter,
    modules_of_base,
    stores_transposed,
)
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.fixed import frozen_tensors
from secagg.lora.manifest import Manifest
from secagg.transcript import canonical
from secagg.transcript.merge import DenseMerge, SketchMerge
from tests.unit.lora.adapter_files import framed
from tests.unit.lora.merging_stage import MODULES, SEED, adapter_of, factors

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
}
LAYER = "model.layers.31"


def base(folder, fields, **weights):
    """A base model's directory: its config, and weights by file name as shapes by tensor name."""
    (folder / "config.json").write_text(json.dumps(fields))
    for name, shapes in weights.items():
        position, header = 0, {"__metadata__": {"format": "pt"}}
        for tensor, shape in shapes.items():
            end = position + math.prod(shape)
            header[tensor] = {"dtype": "F8_E4M3", "shape": list(shape), "data_offsets": [position, end]}
            position = end
        (folder / f"{name}.safetensors").write_bytes(framed(header) + bytes(position))
    return folder


def sizes(modules):
    return {module.path: (module.kind, module.outputs, module.inputs) for module in modules}


def test_an_8b_model_has_224_linear_layers_of_the_right_shapes(tmp_path):
    modules = modules_of_base(base(tmp_path, LLAMA), ALL_LINEAR)
    assert len(modules) == 224
    assert [module.path for module in modules] == sorted(module.path for module in modules)
    last = {path: size for path, size in sizes(modules).items() if path.startswith(f"{LAYER}.")}
    assert last == {
        f"{LAYER}.self_attn.q_proj": ("linear", 4096, 4096),
        f"{LAYER}.self_attn.k_proj": ("linear", 1024, 4096),
        f"{LAYER}.self_attn.v_proj": ("linear", 1024, 4096),
        f"{LAYER}.self_attn.o_proj": ("linear", 4096, 4096),
        f"{LAYER}.mlp.gate_proj": ("linear", 14336, 4096),
        f"{LAYER}.mlp.up_proj": ("linear", 14336, 4096),
        f"{LAYER}.mlp.down_proj": ("linear", 4096, 14336),
    }
    # A * B of rank 16, as PEFT counts trainable parameters.
    assert sum(16 * (module.outputs + module.inputs) for module in modules) == 41_943_040


def test_targets_are_the_ends_of_paths(tmp_path):
    folder = base(tmp_path, {**LLAMA, "num_hidden_layers": 2})
    assert sizes(modules_of_base(folder, ["embed_tokens", "lm_head"])) == {
        "lm_head": ("linear", 128256, 4096),
        "model.embed_tokens": ("embedding", 4096, 128256),
    }
    assert list(sizes(modules_of_base(folder, ["1.self_attn.q_proj", "model.layers.0.mlp.up_proj"]))) == [
        "model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
    ]
    with pytest.raises(AdapterError) as caught:
        modules_of_base(folder, ["q_proj", "proj"])
    error = caught.value
    assert error.reason is AdapterRejectReason.UNEXPECTED_TENSOR
    assert "'proj'" in error.field
    assert "q_proj" in error.expected
    assert error.fix


def test_heads_may_be_of_any_width(tmp_path):
    fields = {**LLAMA, "model_type": "qwen3", "head_dim": 100}
    shapes = sizes(modules_of_base(base(tmp_path, fields), ["q_proj", "k_proj", "o_proj"]))
    assert shapes[f"{LAYER}.self_attn.q_proj"] == ("linear", 3200, 4096)
    assert shapes[f"{LAYER}.self_attn.k_proj"] == ("linear", 800, 4096)
    assert shapes[f"{LAYER}.self_attn.o_proj"] == ("linear", 4096, 3200)


BAD = {
    "head_dim": {**LLAMA, "model_type": "qwen3"},
    "hidden_size": {**LLAMA, "hidden_size": 4097},
    "vocab_size": {key: value for key, value in LLAMA.items() if key != "vocab_size"},
    "num_hidden_layers": {**LLAMA, "num_hidden_layers": 10**6},
    "intermediate_size": {**LLAMA, "intermediate_size": True},
}


@pytest.mark.parametrize("field", BAD)
def test_a_config_without_what_shapes_follow_from_is_refused(tmp_path, field):
    with pytest.raises(AdapterError) as caught:
        modules_of_base(base(tmp_path, BAD[field]), ALL_LINEAR)
    error = caught.value
    assert error.reason is AdapterRejectReason.BAD_CONFIG
    assert field in error.field
    assert all((error.found, error.expected, error.fix))


WEIGHTS = {
    "one": {
        "body.0.dense.weight": (24, 16),
        "body.0.dense.bias": (24,),
        "body.0.norm.weight": (16,),
        "word_embeddings.weight": (100, 16),
    },
    "two": {"stem.weight": (8, 3, 5, 5), "lm_head.weight": (100, 16), "empty.weight": (0, 3)},
}


def test_headers_of_weights_need_no_known_architecture(tmp_path):
    folder = base(tmp_path, {"model_type": "mine"}, **WEIGHTS)
    assert sizes(modules_of_base(folder, ALL_LINEAR)) == {"body.0.dense": ("linear", 24, 16)}
    assert sizes(modules_of_base(folder, ["dense", "word_embeddings", "stem", "lm_head"])) == {
        "body.0.dense": ("linear", 24, 16),
        "lm_head": ("linear", 100, 16),
        "stem": ("convolution", 8, 3),
        "word_embeddings": ("embedding", 16, 100),
    }
    (stem,) = modules_of_base(folder, ["stem"])
    assert stem.kernel == (5, 5)


def test_an_unknown_architecture_without_weights_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(AdapterError) as caught:
        modules_of_base(base(tmp_path, {"model_type": "mine"}), ALL_LINEAR)
    assert caught.value.reason is AdapterRejectReason.UNSUPPORTED_VARIANT
    assert "example" in caught.value.fix
    quantised = base(tmp_path, {"model_type": "mine", "quantization_config": {"bits": 4}}, **WEIGHTS)
    with pytest.raises(AdapterError, match="quantization_config"):
        modules_of_base(quantised, ALL_LINEAR)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(8),
        (10**12).to_bytes(8, "little"),
        framed(b"{")[:9],
        framed(b"[]"),
        framed({"a.weight": {"shape": [-1]}}),
    ],
)
def test_damaged_weights_are_refused(tmp_path, data):
    folder = base(tmp_path, {"model_type": "mine"})
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(AdapterError) as caught:
        modules_of_base(folder, ALL_LINEAR)
    assert caught.value.reason is AdapterRejectReason.MALFORMED_FILE
    assert "model.safetensors" in caught.value.field


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"a": 1, "a": 2}', b" " * (2**20 + 1)])
def test_a_config_that_is_none_is_refused(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(AdapterError, match=r"config\.json"):
        modules_of_base(tmp_path, ALL_LINEAR)


def test_a_directory_without_a_config_is_refused(tmp_path):
    for action in (lambda: modules_of_base(tmp_path, ALL_LINEAR), lambda: base_digest(tmp_path)):
        with pytest.raises(AdapterError) as caught:
            action()
        assert caught.value.reason is AdapterRejectReason.MISSING_FILE
        assert caught.value.fix


def test_the_digest_of_a_base_is_that_of_its_config_and_weights(tmp_path):
    folder = base(tmp_path, {"model_type": "mine"}, **WEIGHTS)
    (folder / "README.md").write_text("of no matter")
    entries = [
        [name, hashlib.sha256((folder / name).read_bytes()).hexdigest()]
        for name in ("config.json", "one.safetensors", "two.safetensors")
    ]
    digest = base_digest(folder)
    assert digest == hashlib.sha256(canonical.encode(entries)).digest()
    (folder / "README.md").write_text("still")
    assert base_digest(folder) == digest
    (folder / "two.safetensors").write_bytes((folder / "two.safetensors").read_bytes() + b"\0")
    assert base_digest(folder) != digest


def test_a_base_is_called_what_its_config_or_its_place_in_a_cache_says(tmp_path):
    assert base_name(base(tmp_path, {**LLAMA, "_name_or_path": "org/model"})) == "org/model"
    assert base_name(base(tmp_path, LLAMA)) == ""
    cached = tmp_path / "models--org--some-model" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    assert base_name(base(cached, LLAMA)) == "org/some-model"


def test_only_some_bases_store_their_weights_transposed(tmp_path):
    assert not stores_transposed(base(tmp_path, LLAMA))
    fields = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_positions": 8, "vocab_size": 32}
    folder = base(tmp_path, fields)
    assert stores_transposed(folder)
    assert sizes(modules_of_base(folder, ["c_attn", "mlp.c_proj"])) == {
        "transformer.h.0.attn.c_attn": ("linear", 48, 16),
        "transformer.h.0.mlp.c_proj": ("linear", 16, 64),
    }


def plan_of(modules):
    return Manifest("tiny/model", "", "", 3, fan_in_fan_out=False, missing="refuse", modules=modules)


def test_an_example_adapter_has_the_modules_whatever_its_rank():
    assert modules_of_adapter(adapter_of(factors(1, 2))) == modules_of_adapter(adapter_of(factors(2, 5))) == MODULES


def test_a_manifest_gets_the_scales_of_its_strategy():
    sketch = build_manifest(SketchMerge(Fraction(3), SEED, 4, 8, 2), plan_of(MODULES), {})
    assert {tuple(sorted(module.scales)) for module in sketch} == {("corange", "core", "probe", "range")}
    dense = build_manifest(DenseMerge(Fraction(3)), sketch, {})
    assert {tuple(module.scales) for module in dense} == {("update",)}
    # Twice the norm, half the scale.
    wider = build_manifest(DenseMerge(Fraction(6)), sketch, {})
    assert [m.scales["update"] - w.scales["update"] for m, w in zip(dense, wider, strict=True)] == [1] * len(MODULES)


def test_the_norm_of_b_is_bounded_by_the_smallest_singular_value_of_a():
    example, norm = adapter_of(factors(1, 3)), Fraction(5)
    fixed = frozen_tensors(example, plan_of(MODULES))
    norms = frozen_norms(fixed, plan_of(MODULES), norm)
    generator = np.random.default_rng(0)
    for module in MODULES:
        a = fixed[f"{module.path}/a"].astype(np.float64)
        least = np.linalg.svd(a, compute_uv=False)[-1]
        assert norm / Fraction(least) <= norms[module.path] <= 2 * norm / Fraction(least)
        assert norms[module.path].numerator == 1 or norms[module.path].denominator == 1
        for _ in range(20):
            b = generator.standard_normal((module.outputs, 3))
            b *= float(norm) / np.linalg.norm(b @ a)
            assert np.linalg.norm(b) <= norms[module.path]


def test_an_a_that_starts_at_zero_cannot_be_frozen():
    given = factors(1, 3)
    for wrong in (np.zeros((3, 50), np.float32), np.ones((3, 50), np.float32)):
        given["embed_tokens"] = given["embed_tokens"][0], wrong
        fixed = frozen_tensors(adapter_of(given), plan_of(MODULES))
        with pytest.raises(AdapterError) as caught:
            frozen_norms(fixed, plan_of(MODULES), Fraction(1))
        assert caught.value.reason is AdapterRejectReason.BAD_FIXED_TENSORS
        assert "embed_tokens" in caught.value.tensor
        assert caught.value.fix
