"""Files as PEFT writes them, of every kind, rank, scale and dtype, end in the right update."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest

from secagg.lora.base_model import modules_of_adapter
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.pieces import piece_name
from secagg.lora.reader import read_adapter
from tests.unit.lora.adapter_files import QA, QB, VA, VB, config, container, save, tensors
from tests.unit.lora.merging_stage import mean_of, session, silent, updates_in

E = "base_model.model.embed"
C = "base_model.model.conv"


def sent(adapter):
    """What a session of strategy dense sends of an adapter: the update of each module, by path."""
    merging = session("dense", modules=modules_of_adapter(adapter), norm=Fraction(2**12))
    places = merging.layout.split(merging.message(adapter).vector)
    return {
        module.path: places[piece_name(module, "update")] / 2.0 ** module.scales["update"]
        for module in merging.manifest
    }


def test_linear_layers_of_plain_and_stabilised_lora(tmp_path):
    values = tensors()
    for rslora, scale in ((False, 5 / 2), (True, 5 / np.sqrt(2))):
        adapter = read_adapter(save(tmp_path, values, config(lora_alpha=5, use_rslora=rslora)), None)
        updates = sent(adapter)
        assert np.allclose(updates["layers.0.q_proj"], scale * values[QB] @ values[QA], rtol=1e-5)
        assert np.allclose(updates["layers.1.v_proj"], scale * values[VB] @ values[VA], rtol=1e-5)


def test_ranks_and_alphas_by_pattern(tmp_path):
    values = tensors(2)
    generator = np.random.default_rng(9)
    values[VA] = generator.standard_normal((3, 3)).astype(np.float32)
    values[VB] = generator.standard_normal((4, 3)).astype(np.float32)
    fields = config(rank_pattern={"v_proj": 3}, alpha_pattern={r"layers\.0\.q_proj": 7})
    updates = sent(read_adapter(save(tmp_path, values, fields), None))
    assert np.allclose(updates["layers.0.q_proj"], 7 / 2 * values[QB] @ values[QA], rtol=1e-5)
    assert np.allclose(updates["layers.1.v_proj"], 4 / 3 * values[VB] @ values[VA], rtol=1e-5)


def embedding_and_convolution():
    generator = np.random.default_rng(3)
    shapes = {
        f"{C}.lora_A.weight": (2, 3, 2, 5),
        f"{C}.lora_B.weight": (4, 2, 1, 1),
        f"{E}.lora_embedding_A": (2, 9),
        f"{E}.lora_embedding_B": (6, 2),
    }
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_embeddings_and_convolutions(tmp_path):
    values = embedding_and_convolution()
    adapter = read_adapter(save(tmp_path, values, config(lora_alpha=6)), None)
    modules = {module.path: module for module in modules_of_adapter(adapter)}
    assert (modules["conv"].kind, modules["conv"].outputs, modules["conv"].inputs) == ("convolution", 4, 3)
    assert modules["conv"].kernel == (2, 5)
    assert (modules["embed"].kind, modules["embed"].outputs, modules["embed"].inputs) == ("embedding", 6, 9)
    updates = sent(adapter)
    a, b = values[f"{C}.lora_A.weight"].reshape(2, 30), values[f"{C}.lora_B.weight"].reshape(4, 2)
    assert np.allclose(updates["conv"], 3 * b @ a, rtol=1e-5, atol=1e-6)
    a, b = values[f"{E}.lora_embedding_A"], values[f"{E}.lora_embedding_B"]
    assert np.allclose(updates["embed"], 3 * b @ a, rtol=1e-5, atol=1e-6)


def test_merged_tensors_have_the_names_and_shapes_of_their_kinds(tmp_path):
    adapter = read_adapter(save(tmp_path, embedding_and_convolution(), config(lora_alpha=6)), None)
    merging = session("dense", modules=modules_of_adapter(adapter), norm=Fraction(2**12))
    merged, _ = merging.merged(mean_of(merging, [adapter]), 1, silent)
    assert {name: values.shape for name, values in merged.items()} == {
        f"{C}.lora_A.weight": (3, 3, 2, 5),
        f"{C}.lora_B.weight": (4, 3, 1, 1),
        f"{E}.lora_embedding_A": (3, 9),
        f"{E}.lora_embedding_B": (6, 3),
    }
    own = sent(adapter)
    for path, update in updates_in(merging, merged).items():
        assert np.allclose(update, own[path], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "unit"), [("F32", 2.0**-23), ("F16", 2.0**-10), ("BF16", 2.0**-7)])
def test_half_precision_ends_in_the_update_of_what_is_stored(tmp_path, dtype, unit):
    values = tensors()
    if dtype == "BF16":
        stored = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in values.items()}
        exact = {name: (array.astype(np.uint32) << 16).view(np.float32) for name, array in stored.items()}
    else:
        stored = values
        exact = {name: array.astype(np.float16 if dtype == "F16" else np.float32) for name, array in values.items()}
    updates = sent(read_adapter(save(tmp_path, container(stored, dtype), config()), None))
    expected = 2 * exact[QB].astype(np.float64) @ exact[QA].astype(np.float64)
    assert np.allclose(updates["layers.0.q_proj"], expected, rtol=1e-5, atol=1e-6)
    unrounded = 2 * values[QB].astype(np.float64) @ values[QA]
    assert np.allclose(updates["layers.0.q_proj"], unrounded, atol=20 * unit)


def test_a_transposed_base_changes_the_config_of_the_merged_adapter_alone(tmp_path):
    adapter = read_adapter(save(tmp_path, tensors(), config(fan_in_fan_out=True)), None)
    merging = session("dense", modules=modules_of_adapter(adapter))
    with pytest.raises(AdapterError) as caught:
        merging.message(adapter)
    assert caught.value.reason is AdapterRejectReason.CONFIG_MISMATCH
    transposed = dataclasses.replace(merging, manifest=dataclasses.replace(merging.manifest, fan_in_fan_out=True))
    files = transposed.aggregate(mean_of(transposed, [adapter]), 1, silent)
    fields = json.loads(b"".join(files["adapter_config.json"]))
    assert fields["fan_in_fan_out"] is True
    assert (fields["r"], fields["lora_alpha"], fields["use_rslora"]) == (3, 3, False)
    assert (fields["rank_pattern"], fields["alpha_pattern"]) == ({}, {})
