"""Manifest, report and fixed tensors have one form each; test matrices are the same everywhere."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from fractions import Fraction

import numpy as np
import pytest

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.fixed import encode_fixed, frozen_tensors, most_fixed_bytes, read_fixed
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.merge_report import MergeReport, ModuleReport, ppm, shares_of
from secagg.lora.pieces import floor_log2, layout_of
from secagg.lora.signs import MATRICES, sign_matrix
from secagg.transcript import canonical
from secagg.transcript.merge import FrozenMerge
from tests.unit.lora.merging_stage import LINEAR, SEED, adapter_of, drawn_fixed, factors, frozen_factors, session

VALUE = session("sketch").manifest.to_json_value()


def test_a_manifest_comes_back_from_its_json_with_its_digest():
    for strategy in ("sketch", "dense", "range"):
        manifest = session(strategy).manifest
        value = manifest.to_json_value()
        assert canonical.decode(canonical.encode(value)) == value
        again = Manifest.from_json_value(value)
        assert again == manifest
        assert again.digest == hashlib.sha256(canonical.encode(value)).digest()


def module_with(**changes):
    def change(value):
        value["modules"][0].update(changes)

    return change


WRONG = {
    "no object": lambda value: value.clear(),
    "one more key": lambda value: value.update(more=1),
    "base_model of another type": lambda value: value.update(base_model=1),
    "base_model empty": lambda value: value.update(base_model=""),
    "task_type too long": lambda value: value.update(task_type="x" * 1025),
    "rank zero": lambda value: value.update(rank=0),
    "rank true": lambda value: value.update(rank=True),
    "fan_in_fan_out as text": lambda value: value.update(fan_in_fan_out="0"),
    "fan_in_fan_out true": lambda value: value.update(fan_in_fan_out=True),
    "fan_in_fan_out 2": lambda value: value.update(fan_in_fan_out=2),
    "missing": lambda value: value.update(missing="guess"),
    "modules as an object": lambda value: value.update(modules={}),
    "no modules": lambda value: value.update(modules=[]),
    "modules out of order": lambda value: value["modules"].reverse(),
    "a module twice": lambda value: value["modules"].append(value["modules"][-1]),
    "a module that is none": lambda value: value["modules"].append([]),
    "another kind": module_with(kind="other"),
    "a kernel of a linear layer": module_with(kernel=[3]),
    "a convolution without a kernel": module_with(kind="convolution"),
    "a kernel as text": module_with(kernel="3"),
    "outputs zero": module_with(outputs=0),
    "inputs true": module_with(inputs=True),
    "inputs too many": module_with(inputs=2**31 + 1),
    "a path of another type": module_with(path=3),
    "a scale of another type": module_with(scales={"core": "1"}),
    "a scale out of range": module_with(scales={"core": 101}),
    "scales as a list": module_with(scales=[]),
    "one more field of a module": module_with(more=1),
}


@pytest.mark.parametrize("case", WRONG)
def test_anything_else_is_no_manifest(case):
    value = copy.deepcopy(VALUE)
    WRONG[case](value)
    with pytest.raises(AdapterError) as caught:
        Manifest.from_json_value(value)
    assert caught.value.reason is AdapterRejectReason.BAD_TEMPLATE
    assert all((caught.value.field, caught.value.found, caught.value.expected))


@pytest.mark.parametrize("scales", [{}, {"range": 1}, {"range": 1, "corange": 1, "core": 1, "probe": 1, "more": 1}])
def test_scales_of_something_else_than_is_sent_are_refused(scales):
    merging = session("sketch")
    modules = (*merging.manifest.modules[:-1], dataclasses.replace(merging.manifest.modules[-1], scales=scales))
    manifest = dataclasses.replace(merging.manifest, modules=modules)
    with pytest.raises(AdapterError) as caught:
        layout_of(merging.merge, manifest, counts_clipping=True)
    assert LINEAR.path in caught.value.field


def test_paths_with_slashes_do_not_name_pieces_of_other_modules():
    modules = tuple(MergedModule(path, "linear", 40, 32) for path in ("a", "a/range", "a/range/range"))
    layout = session("sketch", modules=modules).layout
    assert len(layout.tensors) == 1 + 4 * len(modules)


@pytest.mark.parametrize("exponent", [-70, -1, 0, 1, 5, 70])
def test_the_logarithm_of_a_fraction_is_exact(exponent):
    power = Fraction(2) ** exponent
    tiny = Fraction(1, 2**100)
    assert floor_log2(power) == exponent
    assert floor_log2(power * (1 + tiny)) == exponent
    assert floor_log2(power * (1 - tiny)) == exponent - 1


REPORT = MergeReport(
    "sketch", 7, 0, 3, (ModuleReport("a", "range+core", 600_000, 1, 2), ModuleReport("b", "", 5, 0, 0))
)


def test_a_report_comes_back_from_its_bytes():
    assert MergeReport.from_bytes(REPORT.to_bytes()) == REPORT
    without = dataclasses.replace(REPORT, scaled_down_ppm=-1, clamped_ppm=-1)
    assert MergeReport.from_bytes(without.to_bytes()) == without


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(type="other"),
        lambda value: value.update(more=1),
        lambda value: value.update(strategy=1),
        lambda value: value.update(contributors=0),
        lambda value: value.update(contributors="7"),
        lambda value: value.update(clamped_ppm=-2),
        lambda value: value.update(degraded=1),
        lambda value: value.update(modules={}),
        lambda value: value["modules"][0].update(error_ppm=-1),
        lambda value: value["modules"][0].update(path=1),
        lambda value: value["modules"][0].pop("sent"),
    ],
)
def test_anything_else_is_no_report(change):
    value = canonical.decode(REPORT.to_bytes())
    change(value)
    with pytest.raises(AdapterError) as caught:
        MergeReport.from_bytes(canonical.encode(value))
    assert caught.value.reason is AdapterRejectReason.MALFORMED_FILE


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", REPORT.to_bytes() + b" ", b"\xff"])
def test_bytes_that_are_not_canonical_are_no_report(data):
    with pytest.raises(AdapterError):
        MergeReport.from_bytes(data)


def test_figures_of_a_report_stay_within_the_integers_of_a_record():
    assert ppm(1e300) == 2**53 - 1
    assert shares_of([3.0, 1.0]) == [750_000, 250_000]
    assert shares_of([0.0, 0.0]) == [0, 0]


@pytest.fixture(scope="module")
def frozen():
    merging = session("frozen-a")
    tensors = drawn_fixed(merging.merge, merging.manifest)
    return merging, tensors


def with_tensors(merging, tensors):
    data = encode_fixed(tensors)
    merge = FrozenMerge(merging.merge.update_norm, hashlib.sha256(data).digest())
    return lambda: read_fixed(merge, merging.manifest, data)


def test_fixed_tensors_are_those_that_the_open_entry_names(frozen):
    merging, tensors = frozen
    data = encode_fixed(tensors)
    again = read_fixed(merging.merge, merging.manifest, data)
    assert again.keys() == tensors.keys()
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)
    assert len(data) <= most_fixed_bytes(merging.merge, merging.manifest)
    for other in (b"", data[:-1], data + b"\0"):
        with pytest.raises(AdapterError) as caught:
            read_fixed(merging.merge, merging.manifest, other)
        assert caught.value.reason is AdapterRejectReason.BAD_FIXED_TENSORS
        assert all((caught.value.found, caught.value.expected, caught.value.fix))
    sketch = session("sketch")
    assert read_fixed(sketch.merge, sketch.manifest, b"") == {}
    with pytest.raises(AdapterError):
        read_fixed(sketch.merge, sketch.manifest, data)


def test_fixed_tensors_of_a_right_digest_still_have_to_fit(frozen):
    merging, tensors = frozen
    name = next(iter(tensors))
    other = {**tensors, name: tensors[name][:, :-1]}
    fewer = {key: values for key, values in tensors.items() if key != name}
    wild = {**tensors, name: tensors[name] * np.float32(np.inf)}
    with np.errstate(invalid="ignore"):
        cases = (
            (other, AdapterRejectReason.WRONG_SHAPE),
            (fewer, AdapterRejectReason.MISSING_TENSOR),
            ({**tensors, "more/a": tensors[name]}, AdapterRejectReason.UNEXPECTED_TENSOR),
            (wild, AdapterRejectReason.NON_FINITE),
        )
    for given, reason in cases:
        with pytest.raises(AdapterError) as caught:
            with_tensors(merging, given)()
        error = caught.value
        assert error.reason is reason
        assert all((error.tensor, error.found, error.expected, error.fix))


def test_the_a_of_an_example_adapter_is_what_is_frozen(frozen):
    merging, tensors = frozen
    example = adapter_of(frozen_factors(merging, 3))
    assert all(
        np.array_equal(values, tensors[name]) for name, values in frozen_tensors(example, merging.manifest).items()
    )
    with pytest.raises(AdapterError) as caught:
        frozen_tensors(adapter_of(factors(1, 2)), merging.manifest)
    assert caught.value.reason is AdapterRejectReason.RANK_MISMATCH


def test_test_matrices_are_the_same_everywhere():
    """Another implementation has to find these digests: SHA-256 over int8 entries, rows before columns."""
    digests = {
        name: hashlib.sha256(sign_matrix(SEED, "layers.0.q_proj", name, 13, 7).astype(np.int8).tobytes()).hexdigest()
        for name in ("omega", "theta-left")
    }
    assert digests == {
        "omega": "b9a8a63ff05d5b09dcf78cdadbce40caf273f1981c0b487a3d9e249069579a96",
        "theta-left": "d4ac098283cf7910bb7020b022762fe0a1d9de73a24158e2b4efd6d15e413acd",
    }


def test_test_matrices_are_signs_balanced_and_independent():
    matrices = {name: sign_matrix(SEED, "a", name, 300, 40) for name in MATRICES}
    matrices["another seed"] = sign_matrix(bytes(32), "a", "omega", 300, 40)
    matrices["another module"] = sign_matrix(SEED, "b", "omega", 300, 40)
    names = list(matrices)
    for name, matrix in matrices.items():
        assert matrix.dtype == np.float32
        assert set(np.unique(matrix)) == {-1.0, 1.0}
        # Five deviations of a fair coin; columns and rows alike.
        assert abs(matrix.sum()) < 5 * np.sqrt(matrix.size)
        assert np.abs(matrix.T @ matrix - 300 * np.eye(40)).max() < 6 * np.sqrt(300)
        for other in names[names.index(name) + 1 :]:
            assert abs(float(np.sum(matrix * matrices[other]))) < 5 * np.sqrt(matrix.size)


def test_a_test_matrix_of_another_name_does_not_exist():
    with pytest.raises(ValueError, match="psi"):
        sign_matrix(SEED, "a", "psi", 1, 1)
