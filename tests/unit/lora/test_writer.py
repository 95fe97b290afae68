"""Writing: deterministic, whole or not at all, and what the reader accepts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re

import numpy as np
import pytest
import safetensors.numpy

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.writer import write_adapter
from tests.unit.lora.adapter_files import QA, QB, VA, config, save, tensors

PLAIN = AdapterTemplate("tiny/model", "", "CAUSAL_LM", 2, 4, use_rslora=False, fan_in_fan_out=False)
FILES = ["adapter_config.json", "adapter_model.safetensors"]


def test_what_is_written_is_read_with_the_same_template_and_values(tmp_path):
    write_adapter(tmp_path / "merged", PLAIN, tensors())
    adapter = read_adapter(tmp_path / "merged", "tiny/model")
    PLAIN.matches(adapter)
    assert AdapterTemplate.from_adapter(adapter) == PLAIN
    assert all(np.array_equal(adapter.tensors[name], values) for name, values in tensors().items())


def test_an_adapter_with_patterns_survives_reading_and_writing(tmp_path):
    values = tensors() | {QA: np.ones((5, 3), np.float32), QB: np.ones((4, 5), np.float32)}
    fields = config(rank_pattern={"q_.*": 5}, alpha_pattern={"v_.*": 9}, use_rslora=True, revision="abc")
    source = read_adapter(save(tmp_path / "source", values, fields), None)
    template = AdapterTemplate.from_adapter(source)
    write_adapter(tmp_path / "merged", template, source.tensors)
    merged = read_adapter(tmp_path / "merged", None)
    assert AdapterTemplate.from_adapter(merged) == template
    assert [merged.config.scale_of(m.path) for m in merged.modules] == [
        source.config.scale_of(m.path) for m in source.modules
    ]


def test_a_written_pattern_matches_its_module_and_no_other(tmp_path):
    template = dataclasses.replace(PLAIN, alpha_exceptions=(("layers.0.q_proj", 8), ("not.there", 9)))
    write_adapter(tmp_path, template, tensors())
    patterns = json.loads((tmp_path / "adapter_config.json").read_text())["alpha_pattern"]
    assert list(patterns.values()) == [8]
    # The expression PEFT builds, get_pattern_key in peft/utils/other.py.
    expression = re.compile(rf"(.*\.)?({next(iter(patterns))})$")
    assert expression.match("layers.0.q_proj")
    for other in ("decoder.layers.0.q_proj", "layersX0.q_proj", "layers.0.q_proj.x"):
        assert not expression.match(other)


def test_the_same_input_gives_the_same_bytes_in_any_order_and_memory_layout(tmp_path):
    write_adapter(tmp_path / "a", PLAIN, tensors())
    turned = {name: np.asfortranarray(values) for name, values in reversed(tensors().items())}
    write_adapter(tmp_path / "b", PLAIN, turned)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_bytes_never_change(tmp_path):
    values = {name: np.arange(array.size, dtype=np.float32).reshape(array.shape) for name, array in tensors().items()}
    write_adapter(tmp_path, PLAIN, values)
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in FILES]
    assert digests == [
        "7b858255a151416666c40ccab1fccfda4d12a80023855a8af0b912e8b7aeb550",
        "6eeeb13a5c6922c1f3910f48c48246549d11fbc02d3c606f85bc21d98c5fd397",
    ]


def test_the_safetensors_library_reads_what_is_written(tmp_path):
    write_adapter(tmp_path, PLAIN, tensors())
    loaded = safetensors.numpy.load_file(tmp_path / "adapter_model.safetensors")
    assert loaded.keys() == tensors().keys()
    assert all(np.array_equal(loaded[name], values) for name, values in tensors().items())


def test_the_config_is_for_inference_and_names_the_full_paths(tmp_path):
    write_adapter(tmp_path, PLAIN, tensors())
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert fields["inference_mode"] is True
    assert fields["target_modules"] == ["layers.0.q_proj", "layers.1.v_proj"]
    assert (fields["r"], fields["lora_alpha"], fields["use_rslora"]) == (2, 4, False)
    assert (fields["rank_pattern"], fields["alpha_pattern"], fields["bias"]) == ({}, {}, "none")


def test_existing_files_are_replaced_and_nothing_else_is_left(tmp_path):
    write_adapter(tmp_path, PLAIN, tensors(seed=1))
    write_adapter(tmp_path, PLAIN, tensors(seed=2))
    assert sorted(os.listdir(tmp_path)) == FILES
    assert np.array_equal(read_adapter(tmp_path, None).tensors[VA], tensors(seed=2)[VA])


def test_a_symbolic_link_in_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "outside").write_text("kept")
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "adapter_config.json").symlink_to(tmp_path / "outside")
    write_adapter(merged, PLAIN, tensors())
    assert (tmp_path / "outside").read_text() == "kept"
    read_adapter(merged, None)


@pytest.mark.parametrize(
    ("change", "reason", "tensor"),
    [
        ({QA: np.zeros((2, 3))}, AdapterRejectReason.WRONG_DTYPE, QA),
        ({QA: np.full((2, 3), np.nan, np.float32)}, AdapterRejectReason.NON_FINITE, QA),
        ({QA: np.zeros((3, 3), np.float32)}, AdapterRejectReason.RANK_MISMATCH, QB),
        ({"x": np.zeros((3, 3), np.float32)}, AdapterRejectReason.UNEXPECTED_TENSOR, "x"),
        (tensors(rank=3), AdapterRejectReason.RANK_MISMATCH, QA),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, change, reason, tensor):
    with pytest.raises(AdapterError) as caught:
        write_adapter(tmp_path / "merged", PLAIN, {**tensors(), **change})
    assert (caught.value.reason, caught.value.tensor) == (reason, tensor)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("call", [1, 2])
def test_a_disk_that_fails_leaves_the_old_file_and_no_partial_one(tmp_path, monkeypatch, call):
    write_adapter(tmp_path, PLAIN, tensors(seed=1))
    before = [(tmp_path / name).read_bytes() for name in FILES]
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == call:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        write_adapter(tmp_path, dataclasses.replace(PLAIN, lora_alpha=9), tensors(seed=2))
    assert sorted(os.listdir(tmp_path)) == FILES
    after = [(tmp_path / name).read_bytes() for name in FILES]
    assert after[0] == before[0]
    assert (after[1] == before[1]) == (call == 1)
