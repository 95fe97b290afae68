"""Vectors: order of the coordinates, what must be equal, and the factor mean."""

from __future__ import annotations

import numpy as np
import pytest
from secagg.lora.vector import FactorMean, MergeStrategy, adapter_to_vector

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from tests.unit.lora.adapter_files import QA, QB, VA, VB, config, save, tensors

STRATEGY: MergeStrategy = FactorMean()


def adapter(folder, values=None, **changes):
    return read_adapter(save(folder, values, config(**changes)), None)


def test_the_vector_is_all_tensors_in_layout_order(tmp_path):
    one = adapter(tmp_path)
    vector = STRATEGY.to_vector(one, STRATEGY.layout_of(one))
    expected = np.concatenate([tensors()[name].reshape(-1) for name in (QA, QB, VA, VB)])
    assert vector.dtype == np.float32
    assert np.array_equal(vector, expected)


def test_a_one_hot_tensor_lands_on_its_own_coordinate(tmp_path):
    values = {name: np.zeros_like(array) for name, array in tensors().items()}
    values[VA][1, 2] = 1
    one = adapter(tmp_path, values)
    vector = adapter_to_vector(one, one.layout)
    assert np.flatnonzero(vector).tolist() == [6 + 8 + 5]


def test_the_vector_is_a_copy(tmp_path):
    one = adapter(tmp_path)
    adapter_to_vector(one, one.layout)[:] = 0
    assert np.array_equal(one.tensors[QA], tensors()[QA])


def test_the_mean_of_vectors_is_the_mean_of_each_tensor(tmp_path):
    adapters = [adapter(tmp_path / str(seed), tensors(seed=seed)) for seed in range(3)]
    layout = STRATEGY.layout_of(adapters[0])
    mean = np.mean([STRATEGY.to_vector(one, layout) for one in adapters], axis=0, dtype=np.float64)
    merged = STRATEGY.to_adapter(mean.astype(np.float32), layout, AdapterTemplate.from_adapter(adapters[0]))
    for name in (QA, QB, VA, VB):
        expected = np.mean([one.tensors[name] for one in adapters], axis=0, dtype=np.float64)
        assert np.array_equal(merged[name], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "reason", "tensor"),
    [
        ({QA: None, QB: None}, AdapterRejectReason.MISSING_TENSOR, QA),
        ({VB: (5, 2)}, AdapterRejectReason.WRONG_SHAPE, VB),
        (
            {"base_model.model.a.lora_A.weight": (2, 1), "base_model.model.a.lora_B.weight": (1, 2)},
            AdapterRejectReason.UNEXPECTED_TENSOR,
            "base_model.model.a.lora_A.weight",
        ),
    ],
)
def test_an_adapter_that_differs_from_the_layout_is_refused_with_the_first_difference(tmp_path, change, reason, tensor):
    layout = adapter(tmp_path / "session").layout
    values = tensors()
    for name, shape in change.items():
        values[name] = None if shape is None else np.zeros(shape)
    other = adapter(tmp_path / "other", {name: array for name, array in values.items() if array is not None})
    with pytest.raises(AdapterError) as caught:
        STRATEGY.to_vector(other, layout)
    assert (caught.value.reason, caught.value.tensor) == (reason, tensor)
    assert caught.value.fix


def test_a_mean_of_another_length_is_refused(tmp_path):
    one = adapter(tmp_path)
    with pytest.raises(AdapterError) as caught:
        STRATEGY.to_adapter(np.zeros(5, np.float32), one.layout, AdapterTemplate.from_adapter(one))
    assert caught.value.reason is AdapterRejectReason.BAD_VECTOR


def test_a_mean_that_is_not_finite_is_refused_with_its_tensor(tmp_path):
    one = adapter(tmp_path)
    mean = np.zeros(one.layout.dimension, np.float32)
    mean[6] = np.inf
    with pytest.raises(AdapterError) as caught:
        STRATEGY.to_adapter(mean, one.layout, AdapterTemplate.from_adapter(one))
    assert (caught.value.reason, caught.value.tensor) == (AdapterRejectReason.NON_FINITE, QB)


def test_a_layout_of_another_rank_than_the_template_is_refused(tmp_path):
    one = adapter(tmp_path / "one")
    other = adapter(tmp_path / "other", tensors(rank=3), r=3)
    mean = np.zeros(other.layout.dimension, np.float32)
    with pytest.raises(AdapterError) as caught:
        STRATEGY.to_adapter(mean, other.layout, AdapterTemplate.from_adapter(one))
    assert (caught.value.reason, caught.value.tensor) == (AdapterRejectReason.RANK_MISMATCH, QA)
