"""The mean of the factors: order of the coordinates, what must be equal, and the published files."""

from __future__ import annotations

import numpy as np
import pytest

from secagg.lora.config import CONFIG_FILE
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.factor_merging import FactorMerging, adapter_to_vector
from secagg.lora.reader import TENSOR_FILE, read_adapter
from secagg.lora.template import AdapterTemplate
from tests.unit.lora.adapter_files import QA, QB, VA, VB, config, save, tensors


def adapter(folder, values=None, **changes):
    return read_adapter(save(folder, values, config(**changes)), None)


def merging_of(one):
    return FactorMerging(AdapterTemplate.from_adapter(one), one.layout)


def silent(_):
    """Nobody hears which module is merged."""


def files_of(merging, mean):
    return {name: b"".join(pieces) for name, pieces in merging.aggregate(mean, 3, silent).items()}


def test_the_vector_is_all_tensors_in_layout_order(tmp_path):
    one = adapter(tmp_path)
    message = merging_of(one).message(one)
    expected = np.concatenate([tensors()[name].reshape(-1) for name in (QA, QB, VA, VB)])
    assert message.vector.dtype == np.float32
    assert np.array_equal(message.vector, expected)
    assert message.norm == pytest.approx(np.linalg.norm(expected.astype(np.float64)), rel=1e-12)
    assert (message.factor, message.clamped) == (1.0, 0)


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
    merging = merging_of(adapters[0])
    mean = np.mean([merging.message(one).vector for one in adapters], axis=0, dtype=np.float64)
    merged = merging.tensors(mean.astype(np.float32))
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
        adapter_to_vector(other, layout)
    assert (caught.value.reason, caught.value.tensor) == (reason, tensor)
    assert caught.value.fix


def test_an_adapter_that_does_not_match_the_template_sends_nothing(tmp_path):
    """Another alpha has the same tensors, and another scale: the mean of the factors would mean something else."""
    merging = merging_of(adapter(tmp_path / "session"))
    with pytest.raises(AdapterError) as caught:
        merging.message(adapter(tmp_path / "other", lora_alpha=64))
    assert caught.value.reason is AdapterRejectReason.SCALING_MISMATCH


def test_a_mean_of_another_length_is_refused(tmp_path):
    with pytest.raises(AdapterError) as caught:
        merging_of(adapter(tmp_path)).tensors(np.zeros(5, np.float32))
    assert caught.value.reason is AdapterRejectReason.BAD_VECTOR


def test_a_mean_that_is_not_finite_is_refused_with_its_tensor(tmp_path):
    merging = merging_of(adapter(tmp_path))
    mean = np.zeros(merging.layout.dimension, np.float32)
    mean[6] = np.inf
    with pytest.raises(AdapterError) as caught:
        merging.aggregate(mean, 3, silent)
    assert (caught.value.reason, caught.value.tensor) == (AdapterRejectReason.NON_FINITE, QB)


def test_a_layout_of_another_rank_than_the_template_is_refused(tmp_path):
    one = adapter(tmp_path / "one")
    other = adapter(tmp_path / "other", tensors(rank=3), r=3)
    with pytest.raises(AdapterError) as caught:
        FactorMerging(AdapterTemplate.from_adapter(one), other.layout)
    assert (caught.value.reason, caught.value.tensor) == (AdapterRejectReason.RANK_MISMATCH, QA)


def test_fixed_tensors_are_refused(tmp_path):
    merging = merging_of(adapter(tmp_path))
    assert merging.with_fixed(b"") is merging
    with pytest.raises(AdapterError) as caught:
        merging.with_fixed(b"x")
    assert caught.value.reason is AdapterRejectReason.BAD_FIXED_TENSORS


def test_published_files_are_what_the_mean_gives_to_the_byte(tmp_path):
    merging = merging_of(adapter(tmp_path))
    mean = np.linspace(-1, 1, merging.layout.dimension, dtype=np.float32)
    files = files_of(merging, mean)
    assert tuple(sorted(files)) == merging.files == (CONFIG_FILE, TENSOR_FILE)
    assert list(merging.faults(mean, 3, files, silent)) == []
    for name in files:
        altered = files | {name: files[name][:-1] + bytes([files[name][-1] ^ 1])}
        assert list(merging.faults(mean, 3, altered, silent)) == [(name, "not what the mean gives")]
