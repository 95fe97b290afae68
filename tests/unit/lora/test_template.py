"""The template: what adapters of a session must have in common, and its strict JSON form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.transcript import canonical
from tests.unit.lora.adapter_files import QA, QB, config, save, tensors

PLAIN = AdapterTemplate("tiny/model", "", "CAUSAL_LM", 2, 4, use_rslora=False, fan_in_fan_out=False)
MIXED = dataclasses.replace(
    PLAIN, rank_exceptions=(("layers.0.q_proj", 5),), alpha_exceptions=(("a", 1), ("b", 2)), use_rslora=True
)


def adapter(folder, values=None, **changes):
    return read_adapter(save(folder, values, config(**changes)), None)


def test_the_template_of_an_adapter_says_what_its_config_says(tmp_path):
    assert AdapterTemplate.from_adapter(adapter(tmp_path)) == PLAIN


def test_patterns_are_resolved_to_the_modules_that_deviate(tmp_path):
    values = tensors() | {QA: np.ones((5, 3)), QB: np.ones((4, 5))}
    fields = {"rank_pattern": {"q_.*": 5, "v_proj": 2}, "alpha_pattern": {r".*\.1\.v_proj": 9, "k_proj": 3}}
    template = AdapterTemplate.from_adapter(adapter(tmp_path, values, **fields))
    assert template.rank_exceptions == (("layers.0.q_proj", 5),)
    assert template.alpha_exceptions == (("layers.1.v_proj", 9),)


@pytest.mark.parametrize("template", [PLAIN, MIXED])
def test_json_form_through_the_canonical_codec_and_back_is_the_identity(template):
    value = canonical.decode(canonical.encode(template.to_json_value()))
    assert AdapterTemplate.from_json_value(value) == template


def test_an_alpha_with_an_integer_value_may_be_written_as_a_float(tmp_path):
    assert AdapterTemplate.from_adapter(adapter(tmp_path, lora_alpha=16.0)).lora_alpha == 16


@pytest.mark.parametrize("changes", [{"lora_alpha": 22.6}, {"alpha_pattern": {"q_proj": 0.5}}])
def test_an_alpha_that_is_not_an_integer_is_refused(tmp_path, changes):
    with pytest.raises(AdapterError) as caught:
        AdapterTemplate.from_adapter(adapter(tmp_path, **changes))
    assert caught.value.reason is AdapterRejectReason.BAD_CONFIG
    assert "alpha" in (caught.value.field or "")


def test_an_adapter_without_base_model_makes_no_template(tmp_path):
    with pytest.raises(AdapterError) as caught:
        AdapterTemplate.from_adapter(adapter(tmp_path, base_model_name_or_path=None))
    assert caught.value.reason is AdapterRejectReason.BASE_MODEL_MISMATCH


def test_an_adapter_matches_its_own_template_whatever_notation_its_config_uses(tmp_path):
    PLAIN.matches(adapter(tmp_path / "a"))
    PLAIN.matches(adapter(tmp_path / "b", rank_pattern={".*": 2}, r=2, target_modules=".*_proj", lora_dropout=0.5))
    PLAIN.matches(adapter(tmp_path / "c", task_type=None, revision="main"))


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"base_model_name_or_path": "other"}, AdapterRejectReason.BASE_MODEL_MISMATCH, "base_model"),
        ({"lora_alpha": 8}, AdapterRejectReason.SCALING_MISMATCH, "lora_alpha"),
        ({"use_rslora": True}, AdapterRejectReason.SCALING_MISMATCH, "use_rslora"),
        ({"alpha_pattern": {"v_proj": 5}}, AdapterRejectReason.SCALING_MISMATCH, "alpha of layers.1.v_proj"),
        ({"fan_in_fan_out": True}, AdapterRejectReason.CONFIG_MISMATCH, "fan_in_fan_out"),
        ({"task_type": "SEQ_CLS"}, AdapterRejectReason.CONFIG_MISMATCH, "task_type"),
    ],
)
def test_an_adapter_with_another_meaning_is_refused_with_the_first_difference(tmp_path, changes, reason, field):
    with pytest.raises(AdapterError) as caught:
        PLAIN.matches(adapter(tmp_path, **changes))
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert caught.value.fix


def test_an_adapter_of_another_rank_is_refused(tmp_path):
    with pytest.raises(AdapterError) as caught:
        PLAIN.matches(adapter(tmp_path / "all", tensors(rank=3), r=3))
    assert (caught.value.reason, caught.value.field) == (AdapterRejectReason.RANK_MISMATCH, "r")
    one = tensors() | {QA: np.ones((5, 3)), QB: np.ones((4, 5))}
    with pytest.raises(AdapterError) as caught:
        PLAIN.matches(adapter(tmp_path / "one", one, rank_pattern={"q_proj": 5}))
    assert caught.value.field == "rank of layers.0.q_proj"
    assert caught.value.found == "5"


def test_another_revision_is_refused_when_both_are_known(tmp_path):
    template = dataclasses.replace(PLAIN, revision="abc")
    template.matches(adapter(tmp_path / "silent"))
    with pytest.raises(AdapterError) as caught:
        template.matches(adapter(tmp_path / "other", revision="def"))
    assert caught.value.reason is AdapterRejectReason.BASE_MODEL_MISMATCH


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base_model": ""}, "base_model"),
        ({"base_model": 1}, "base_model"),
        ({"base_model": "\ud800"}, "base_model"),
        ({"base_model": "m" * 1025}, "base_model"),
        ({"revision": None}, "revision"),
        ({"task_type": 3}, "task_type"),
        ({"r": 0}, "r"),
        ({"r": "2"}, "r"),
        ({"r": True}, "r"),
        ({"r": 2**17}, "r"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"lora_alpha": 4.0}, "lora_alpha"),
        ({"lora_alpha": 2**21}, "lora_alpha"),
        ({"use_rslora": 2}, "use_rslora"),
        ({"use_rslora": False}, "use_rslora"),
        ({"fan_in_fan_out": "0"}, "fan_in_fan_out"),
        ({"rank_exceptions": {}}, "rank_exceptions"),
        ({"rank_exceptions": [["q", 5]]}, "rank_exceptions[0]"),
        ({"rank_exceptions": [{"module": "q"}]}, "rank_exceptions[0]"),
        ({"rank_exceptions": [{"module": "", "value": 5}]}, "rank_exceptions[0].module"),
        ({"rank_exceptions": [{"module": 5, "value": 5}]}, "rank_exceptions[0].module"),
        ({"rank_exceptions": [{"module": "q", "value": 0}]}, "rank_exceptions[0].value"),
        ({"rank_exceptions": [{"module": "q", "value": 2}]}, "rank_exceptions[0].value"),
        ({"alpha_exceptions": [{"module": "q", "value": 5}] * 2}, "alpha_exceptions[1].module"),
        (
            {"alpha_exceptions": [{"module": "q", "value": 5}, {"module": "a", "value": 5}]},
            "alpha_exceptions[1].module",
        ),
        ({"more": 1}, "template"),
    ],
)
def test_a_json_form_with_a_wrong_value_is_refused_by_name(changes, field):
    with pytest.raises(AdapterError) as caught:
        AdapterTemplate.from_json_value({**PLAIN.to_json_value(), **changes})
    assert (caught.value.reason, caught.value.field) == (AdapterRejectReason.BAD_TEMPLATE, field)


@pytest.mark.parametrize("value", [None, [], {}, "template"])
def test_a_json_form_that_is_no_template_is_refused(value):
    with pytest.raises(AdapterError) as caught:
        AdapterTemplate.from_json_value(value)
    assert caught.value.reason is AdapterRejectReason.BAD_TEMPLATE


@pytest.mark.parametrize("field", sorted(PLAIN.to_json_value()))
def test_a_json_form_without_a_field_is_refused(field):
    value = PLAIN.to_json_value()
    del value[field]
    with pytest.raises(AdapterError):
        AdapterTemplate.from_json_value(value)
