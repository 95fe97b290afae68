"""Reading adapters: what is accepted, and each refusal with its reason, tensor and fix."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.reader import read_adapter
from tests.unit.lora.adapter_files import QA, QB, VA, VB, Q, config, container, save, tensors


def refusal(folder: Path, base_model: str | None = None) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        read_adapter(folder, base_model)
    assert str(caught.value).isprintable()
    return caught.value


def test_an_adapter_of_peft_is_read(tmp_path):
    adapter = read_adapter(save(tmp_path), "tiny/model")
    assert list(adapter.tensors) == [QA, QB, VA, VB]
    assert all(np.array_equal(adapter.tensors[name], values) for name, values in tensors().items())
    assert adapter.layout.tensors == ((QA, (2, 3)), (QB, (4, 2)), (VA, (2, 3)), (VB, (4, 2)))
    assert [(module.path, module.rank) for module in adapter.modules] == [
        ("layers.0.q_proj", 2),
        ("layers.1.v_proj", 2),
    ]
    assert adapter.config.target_modules == ("q_proj", "v_proj")
    assert adapter.config.lora_alpha == 4
    assert not adapter.config.use_rslora
    assert adapter.config.task_type == "CAUSAL_LM"


def test_a_config_with_the_three_fields_that_matter_is_enough(tmp_path):
    adapter = read_adapter(save(tmp_path, fields={"peft_type": "LORA", "r": 2, "lora_alpha": 2}), None)
    assert adapter.config.base_model_name_or_path is None


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_an_adapter_of_each_dtype_gives_the_same_numbers(tmp_path, dtype):
    # Multiples of 1/4 below 4 are exact in all three types.
    exact = {name: np.round(values * 4).clip(-15, 15) / 4 for name, values in tensors().items()}
    stored = exact
    if dtype == "BF16":
        stored = {name: (values.astype("<f4").view(np.uint32) >> 16) for name, values in exact.items()}
    adapter = read_adapter(save(tmp_path, container(stored, dtype)), None)
    assert all(adapter.tensors[name].dtype == np.float32 for name in exact)
    assert all(np.array_equal(adapter.tensors[name], exact[name]) for name in exact)


def test_tensors_are_read_only_and_not_in_the_repr(tmp_path):
    adapter = read_adapter(save(tmp_path), None)
    with pytest.raises(ValueError, match="read-only"):
        adapter.tensors[QA][0, 0] = 0
    assert "tensors" not in repr(adapter)
    assert "array" not in repr(adapter)


def test_embedding_and_convolution_pairs_are_read(tmp_path):
    values = {
        "base_model.model.wte.lora_embedding_A": np.zeros((2, 9)),
        "base_model.model.wte.lora_embedding_B": np.zeros((5, 2)),
        "base_model.model.conv.lora_A.weight": np.zeros((2, 3, 3, 3)),
        "base_model.model.conv.lora_B.weight": np.zeros((6, 2, 1, 1)),
    }
    adapter = read_adapter(save(tmp_path, values), None)
    assert [(module.path, module.rank) for module in adapter.modules] == [("conv", 2), ("wte", 2)]


def test_rank_pattern_and_alpha_pattern_are_regular_expressions_and_the_first_match_wins(tmp_path):
    values = tensors()
    values |= {QA: np.ones((5, 3)), QB: np.ones((4, 5))}
    fields = config(
        rank_pattern={"q_proj": 5, r"layers\.\d.q_proj": 7}, alpha_pattern={r"layers\.[1-9]\..*": 6, "k": 1}
    )
    adapter = read_adapter(save(tmp_path, values, fields), None)
    assert adapter.config.rank_of("layers.0.q_proj") == 5
    assert adapter.config.alpha_of("layers.1.v_proj") == 6
    assert adapter.config.scale_of("layers.0.q_proj") == 4 / 5
    assert adapter.config.scale_of("layers.1.v_proj") == 6 / 2


def test_a_pattern_matches_whole_names_only(tmp_path):
    fields = config(rank_pattern={"proj": 9, "layers": 9, "ayers.0.q_proj": 9})
    assert read_adapter(save(tmp_path, fields=fields), None).config.rank_of("layers.0.q_proj") == 2


def test_rslora_divides_by_the_root_of_the_rank(tmp_path):
    adapter = read_adapter(save(tmp_path, fields=config(use_rslora=True)), None)
    assert adapter.config.scale_of("layers.0.q_proj") == 4 / math.sqrt(2)


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "Gaussian", "orthogonal", "eva", "mica"])
def test_initialisations_that_leave_the_base_alone_are_accepted(tmp_path, init):
    read_adapter(save(tmp_path, fields=config(init_lora_weights=init)), None)


@pytest.mark.parametrize(
    "init", ["pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "loftq", "lora_ga", "of next year", 1, {}]
)
def test_initialisations_that_change_the_base_are_refused_with_the_conversion(tmp_path, init):
    error = refusal(save(tmp_path, fields=config(init_lora_weights=init)))
    assert error.reason is AdapterRejectReason.MUTATED_BASE
    assert "path_initial_model_for_weight_conversion" in str(error)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "ADALORA"),
        ("peft_type", None),
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("bias", None),
        ("lora_bias", True),
        ("trainable_token_indices", [1, 2]),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("kasa_config", {"beta": 0.1}),
        ("arrow_config", {"top_k": 3}),
        ("monteclora_config", {"num_samples": 8}),
        ("megatron_config", {"a": 1}),
        ("layer_replication", [[0, 2], [1, 3]]),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("alora_invocation_tokens", [5]),
        ("ensure_weight_tying", True),
        ("a_variant_of_next_year", {"deep": [[[[[[[[1]]]]]]]]}),
    ],
)
def test_a_variant_that_cannot_be_added_up_is_refused_by_name_of_the_field(tmp_path, field, value):
    error = refusal(save(tmp_path, fields=config(**{field: value})))
    assert error.reason is AdapterRejectReason.UNSUPPORTED_VARIANT
    assert error.field == f"adapter_config.json: {field}"
    assert error.fix


@pytest.mark.parametrize("value", [None, False, {}, [], "", 0])
def test_an_unknown_field_that_is_off_is_accepted(tmp_path, value):
    read_adapter(save(tmp_path, fields=config(a_variant_of_next_year=value)), None)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("r", None, "r"),
        ("r", 0, "r"),
        ("r", True, "r"),
        ("r", 2.0, "r"),
        ("r", 2**17, "r"),
        ("lora_alpha", None, "lora_alpha"),
        ("lora_alpha", 0, "lora_alpha"),
        ("lora_alpha", -4, "lora_alpha"),
        ("lora_alpha", "4", "lora_alpha"),
        ("lora_alpha", 10**400, "lora_alpha"),
        ("use_rslora", 1, "use_rslora"),
        ("use_rslora", None, "use_rslora"),
        ("fan_in_fan_out", "no", "fan_in_fan_out"),
        ("rank_pattern", [1], "rank_pattern"),
        ("rank_pattern", {"q": "2"}, "rank_pattern.q"),
        ("rank_pattern", {"q": 0}, "rank_pattern.q"),
        ("rank_pattern", {"q(": 2}, "rank_pattern"),
        ("rank_pattern", {"a{99999999999}": 2}, "rank_pattern"),
        ("alpha_pattern", {"q": None}, "alpha_pattern.q"),
        ("alpha_pattern", {"q": -1}, "alpha_pattern.q"),
        ("target_modules", 5, "target_modules"),
        ("target_modules", [5], "target_modules"),
        ("base_model_name_or_path", 5, "base_model_name_or_path"),
        ("base_model_name_or_path", "\ud800", "base_model_name_or_path"),
        ("task_type", ["CAUSAL_LM"], "task_type"),
    ],
)
def test_a_config_field_with_a_wrong_value_is_refused_by_name(tmp_path, field, value, named):
    error = refusal(save(tmp_path, fields=config(**{field: value})))
    assert error.reason is AdapterRejectReason.BAD_CONFIG
    assert error.field == f"adapter_config.json: {named}"


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"r":1,"r":2}', b'{"r":Infinity}', b"\xff", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused_as_malformed(tmp_path, text):
    save(tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(text)
    assert refusal(tmp_path).reason is AdapterRejectReason.MALFORMED_FILE


def test_a_config_of_more_than_a_megabyte_is_refused(tmp_path):
    error = refusal(save(tmp_path, fields=config(auto_mapping="x" * 2**20)))
    assert error.reason is AdapterRejectReason.TOO_LARGE


@pytest.mark.parametrize("named", ["other/model", "/home/me/model", None])
def test_another_base_model_is_refused_with_both_names(tmp_path, named):
    save(tmp_path, fields=config(base_model_name_or_path=named))
    error = refusal(tmp_path, "tiny/model")
    assert error.reason is AdapterRejectReason.BASE_MODEL_MISMATCH
    assert error.expected == "'tiny/model'"
    assert error.found == repr(named)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_a_value_that_is_not_finite_is_refused_with_tensor_and_index(tmp_path, value, dtype):
    values = tensors()
    values[VB][3, 1] = value
    values[VB][3, 0] = 7
    error = refusal(save(tmp_path, container(values, dtype)))
    assert (error.reason, error.tensor) == (AdapterRejectReason.NON_FINITE, VB)
    assert "index (3, 1)" in str(error)


def test_a_bfloat16_that_is_not_finite_is_refused(tmp_path):
    values = {name: np.zeros(array.shape, np.uint16) for name, array in tensors().items()}
    values[QA][1, 2] = 0x7F80
    error = refusal(save(tmp_path, container(values, "BF16")))
    assert (error.reason, error.tensor) == (AdapterRejectReason.NON_FINITE, QA)
    assert "index (1, 2)" in str(error)


@pytest.mark.parametrize(("dropped", "partner"), [(QA, QB), (QB, QA), (VA, VB), (VB, VA)])
def test_one_half_of_a_pair_is_refused_with_the_name_of_the_other(tmp_path, dropped, partner):
    values = tensors()
    del values[dropped]
    error = refusal(save(tmp_path, values))
    assert (error.reason, error.tensor) == (AdapterRejectReason.MISSING_TENSOR, dropped)
    assert partner in str(error)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (f"{Q}.lora_magnitude_vector", "DoRA"),
        (f"{Q}.lora_B.bias", "lora_bias"),
        (f"{Q}.lora_E", "AdaLoRA"),
        (f"{Q}.base_layer.bias", "bias"),
        (f"{Q}.lora_A.default.weight", "adapter name"),
        ("base_model.model.embed_tokens.weight", "save_embedding_layers=False"),
        ("base_model.model.lm_head.weight", "save_embedding_layers=False"),
        ("base_model.model.embed_tokens.token_adapter.trainable_tokens_delta", "trainable_token_indices"),
        ("base_model.model.score.weight", "modules_to_save"),
        ("layers.0.q_proj.lora_A.weight", "save_pretrained"),
        ("base_model.model.lora_A.weight", "save_pretrained"),
        ("lora_A.weight", "save_pretrained"),
        ("x", "save_pretrained"),
    ],
)
def test_a_tensor_that_is_no_lora_factor_is_refused_with_the_fix(tmp_path, name, hint):
    error = refusal(save(tmp_path, {**tensors(), name: np.zeros((2, 2))}))
    assert (error.reason, error.tensor) == (AdapterRejectReason.UNEXPECTED_TENSOR, name)
    assert hint in (error.fix or "")


def test_two_pairs_for_one_module_are_refused(tmp_path):
    more = {f"{Q}.lora_embedding_A": np.zeros((2, 3)), f"{Q}.lora_embedding_B": np.zeros((4, 2))}
    error = refusal(save(tmp_path, {**tensors(), **more}))
    assert error.reason is AdapterRejectReason.UNEXPECTED_TENSOR


@pytest.mark.parametrize(
    ("a_shape", "b_shape", "tensor"),
    [((2,), (4, 2), QA), ((2, 3), (4, 2, 1), QB), ((2, 3), (8,), QB), ((2, 3, 3), (4, 2, 3), QB), ((), (4, 2), QA)],
)
def test_factors_that_do_not_multiply_are_refused(tmp_path, a_shape, b_shape, tensor):
    error = refusal(save(tmp_path, {**tensors(), QA: np.zeros(a_shape), QB: np.zeros(b_shape)}))
    assert (error.reason, error.tensor) == (AdapterRejectReason.WRONG_SHAPE, tensor)


def test_factors_of_different_ranks_are_refused(tmp_path):
    error = refusal(save(tmp_path, {**tensors(), QA: np.zeros((3, 3))}))
    assert (error.reason, error.tensor) == (AdapterRejectReason.RANK_MISMATCH, QB)


def test_a_rank_that_the_config_does_not_say_is_refused(tmp_path):
    error = refusal(save(tmp_path, tensors(rank=3)))
    assert (error.reason, error.tensor) == (AdapterRejectReason.RANK_MISMATCH, QA)
    assert error.found == "rank 3"
    assert "rank 2" in (error.expected or "")


def test_a_rank_that_rank_pattern_does_not_say_is_refused(tmp_path):
    error = refusal(save(tmp_path, fields=config(rank_pattern={"v_proj": 8})))
    assert (error.reason, error.tensor) == (AdapterRejectReason.RANK_MISMATCH, VA)


def test_a_wrong_dtype_is_refused_with_the_tensor(tmp_path):
    data = container(tensors()).replace(b'"F32"', b'"I32"', 1)
    error = refusal(save(tmp_path, data))
    assert (error.reason, error.tensor) == (AdapterRejectReason.WRONG_DTYPE, QA)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_refused_by_name(tmp_path, name):
    (save(tmp_path) / name).unlink()
    error = refusal(tmp_path)
    assert (error.reason, error.field) == (AdapterRejectReason.MISSING_FILE, name)


def test_a_missing_directory_is_refused(tmp_path):
    assert refusal(tmp_path / "nowhere").reason is AdapterRejectReason.MISSING_FILE


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_symbolic_link_is_refused_even_if_it_leads_to_a_good_file(tmp_path, name):
    save(tmp_path)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    error = refusal(tmp_path)
    assert (error.reason, error.field) == (AdapterRejectReason.UNSAFE_FILE, name)
    assert "cp -L" in (error.fix or "")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_directory_in_place_of_a_file_is_refused_without_waiting(tmp_path, make):
    (save(tmp_path) / "adapter_model.safetensors").unlink()
    make(tmp_path / "adapter_model.safetensors")
    assert refusal(tmp_path).reason is AdapterRejectReason.UNSAFE_FILE


def test_a_pickle_in_place_of_the_tensors_is_refused_unopened(tmp_path):
    (save(tmp_path) / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter_model.bin").symlink_to("/nowhere")
    error = refusal(tmp_path)
    assert (error.reason, error.field) == (AdapterRejectReason.UNSAFE_FILE, "adapter_model.bin")
    assert "safe_serialization=True" in (error.fix or "")


def test_a_sharded_adapter_is_refused_with_the_fix(tmp_path):
    (save(tmp_path) / "adapter_model.safetensors").rename(tmp_path / "adapter_model.safetensors.index.json")
    error = refusal(tmp_path)
    assert error.reason is AdapterRejectReason.UNSUPPORTED_VARIANT
    assert error.fix


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(config())), JSON_VALUES, max_size=4))
def test_arbitrary_config_fields_are_read_or_refused(changes):
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), fields=config(**changes))
        try:
            adapter = read_adapter(folder, None)
        except AdapterError as error:
            message = str(error)
        else:
            message = repr(adapter)
    assert message.isprintable()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutated_config_files_are_read_or_refused(data):
    text = bytearray(json.dumps(config()).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(text) - 1))
        text[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        (Path(folder) / "adapter_config.json").write_bytes(text)
        try:
            read_adapter(folder, None)
        except AdapterError as error:
            assert error.reason in AdapterRejectReason  # noqa: PT017 (either outcome is right)


def test_control_characters_of_a_foreign_file_do_not_reach_the_terminal(tmp_path):
    error = refusal(save(tmp_path / "config", fields=config(rank_pattern={"\x1b[2J": "8"})))
    assert "\\x1b" in str(error)
    assert refusal(save(tmp_path / "name", {"\x1b[2J": np.zeros((2, 2))})).tensor == "\x1b[2J"
