"""What is published is compared as what it does: other singular vectors pass, other updates do not."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from secagg.lora.container import encode_tensors, read_header, read_tensors
from secagg.lora.merge_report import MergeReport
from tests.unit.lora.merging_stage import LINEAR, adapter_of, factors, mean_of, session, silent, with_bases

CONFIG, TENSORS, REPORT, BASIS = "adapter_config.json", "adapter_model.safetensors", "merge.json", "basis.safetensors"


def published(merging, mean):
    return {name: b"".join(pieces) for name, pieces in merging.aggregate(mean, 4, silent).items()}


def faults(merging, mean, files, **changed):
    names = {"config": CONFIG, "tensors": TENSORS, "report": REPORT, "basis": BASIS}
    files = {**files, **{names[name]: data for name, data in changed.items()}}
    return [f"{name}: {reason}" for name, reason in merging.faults(mean, 4, files, silent)]


def tensors_in(data):
    file = io.BytesIO(data)
    return dict(read_tensors(file, read_header(file, len(data))))


def encoded(tensors):
    return b"".join(encode_tensors(tensors))


@pytest.fixture(scope="module")
def merged():
    merging = session("sketch")
    mean = mean_of(merging, [adapter_of(factors(seed, 1 + seed)) for seed in range(4)])
    return merging, mean, published(merging, mean)


@pytest.fixture(scope="module")
def bases():
    merging = session("pilot-2")
    mean = mean_of(merging, [adapter_of(factors(seed, 3)) for seed in range(4)])
    return merging, mean, published(merging, mean)


def changed(data, change):
    tensors = {name: values.copy() for name, values in tensors_in(data).items()}
    change(tensors)
    return encoded(tensors)


def turned(matrix):
    def change(tensors):
        b, a = tensors[LINEAR.b_name].astype(np.float64), tensors[LINEAR.a_name].astype(np.float64)
        tensors[LINEAR.b_name] = (b @ matrix).astype(np.float32)
        tensors[LINEAR.a_name] = np.linalg.solve(matrix, a).astype(np.float32)

    return change


@pytest.mark.parametrize("strategy", ["dense", "frozen-a", "sketch"])
def test_what_a_mean_gives_has_no_fault(strategy):
    merging = session(strategy)
    if strategy == "frozen-a":
        mean = np.random.default_rng(0).standard_normal(merging.layout.dimension).astype(np.float32) / 64
    else:
        mean = mean_of(merging, [adapter_of(factors(seed, 2)) for seed in range(4)])
    files = published(merging, mean)
    assert sorted(files) == list(merging.files)
    assert faults(merging, mean, files) == []


def test_second_sessions_and_bases_have_no_fault(bases):
    merging, mean, files = bases
    assert list(files) == [BASIS] == list(merging.files)
    assert faults(merging, mean, files) == []
    adapters = [adapter_of(factors(seed, 3)) for seed in range(4)]
    second = with_bases("basis-2", merging, adapters)
    own = mean_of(second, adapters)
    assert faults(second, own, published(second, own)) == []


@pytest.mark.parametrize(
    "matrix",
    [np.diag([-1.0, 1, -1]), np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]],
    ids=["other signs", "turned"],
)
def test_other_singular_vectors_of_the_same_update_pass(merged, matrix):
    merging, mean, files = merged
    assert faults(merging, mean, files, tensors=changed(files[TENSORS], turned(matrix))) == []


def test_rounding_in_the_last_places_passes(merged):
    merging, mean, files = merged

    def change(tensors):
        for name, values in tensors.items():
            # A module that the probe says nothing good of is zero, and has to be.
            tensors[name] = np.where(values == 0, values, np.nextafter(values, np.float32(1)))

    assert faults(merging, mean, files, tensors=changed(files[TENSORS], change)) == []


def test_factors_of_very_different_size_do_not_pass(merged):
    merging, mean, files = merged
    found = faults(merging, mean, files, tensors=changed(files[TENSORS], turned(np.eye(3) * 1024)))
    assert len(found) == 2
    assert all("not as large" in fault and LINEAR.path in fault for fault in found)


@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_another_update_does_not_pass(merged, size):
    merging, mean, files = merged

    def change(tensors):
        own = tensors[LINEAR.b_name]
        noise = np.random.default_rng(0).standard_normal(own.shape).astype(np.float32)
        own += noise * np.float32(size * np.linalg.norm(own) / np.linalg.norm(noise))

    (fault,) = faults(merging, mean, files, tensors=changed(files[TENSORS], change))
    assert fault == f"{TENSORS}: the update of {LINEAR.path} is not what the mean gives, within 0.0001"


def test_a_scalar_left_out_does_not_pass(merged):
    merging, mean, files = merged

    def change(tensors):
        tensors[LINEAR.b_name] *= np.float32(1.01)

    assert len(faults(merging, mean, files, tensors=changed(files[TENSORS], change))) == 1


def test_other_files_do_not_pass(merged):
    merging, mean, files = merged
    config = json.dumps({**json.loads(files[CONFIG]), "lora_alpha": 6}).encode()
    assert faults(merging, mean, files, config=config) == [f"{CONFIG}: not what the manifest gives"]

    def one_less(tensors):
        del tensors[LINEAR.a_name]

    def not_finite(tensors):
        tensors[LINEAR.a_name][0, 0] = np.nan

    for change, text in ((one_less, "missing tensor"), (not_finite, "not finite")):
        (fault,) = faults(merging, mean, files, tensors=changed(files[TENSORS], change))
        assert text in fault
    assert len(faults(merging, mean, files, tensors=files[TENSORS][:-4])) == 1
    assert len(faults(merging, mean, files, report=b"{}")) == 1


def test_tensors_in_another_order_or_with_other_spaces_do_not_pass(merged):
    merging, mean, files = merged
    data = files[TENSORS]
    length = int.from_bytes(data[:8], "little")
    spaced = (length + 8).to_bytes(8, "little") + data[8 : 8 + length] + b" " * 8 + data[8 + length :]
    assert faults(merging, mean, files, tensors=spaced) == [f"{TENSORS}: not in the form in which tensors are written"]


@pytest.mark.parametrize("field", ["energy_ppm", "error_ppm", "scalar_ppm"])
def test_a_report_passes_within_a_hundred_millionths_and_no_more(merged, field):
    merging, mean, files = merged
    value = json.loads(files[REPORT])

    def with_more(millionths):
        module = {**value["modules"][0], field: value["modules"][0][field] + millionths}
        text = json.dumps({**value, "modules": [module, *value["modules"][1:]]}, sort_keys=True, separators=(",", ":"))
        return faults(merging, mean, files, report=text.encode())

    assert with_more(99) == []
    (fault,) = with_more(102)
    assert field in fault


@pytest.mark.parametrize(
    ("field", "other"),
    [("strategy", "dense"), ("contributors", 5), ("scaled_down_ppm", 500), ("clamped_ppm", -1)],
)
def test_a_report_of_something_else_does_not_pass(merged, field, other):
    merging, mean, files = merged
    text = json.dumps({**json.loads(files[REPORT]), field: other}, sort_keys=True, separators=(",", ":")).encode()
    (fault,) = faults(merging, mean, files, report=text)
    assert field in fault


def test_a_basis_of_the_same_space_passes(bases):
    merging, mean, files = bases

    def change(tensors):
        name = f"{LINEAR.path}/left"
        rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
        tensors[name] = (tensors[name] @ rotation).astype(np.float32)

    assert faults(merging, mean, files, basis=changed(files[BASIS], change)) == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_basis_that_is_not_orthonormal_or_spans_something_else_does_not_pass(bases, side):
    merging, mean, files = bases
    name = f"{LINEAR.path}/{side}"

    def longer(tensors):
        tensors[name] *= np.float32(1.001)

    def elsewhere(tensors):
        own = tensors[name].astype(np.float64)
        own[:, 0] = np.random.default_rng(0).standard_normal(own.shape[0])
        tensors[name] = np.linalg.qr(own)[0].astype(np.float32)

    for change, text in ((longer, "not orthonormal"), (elsewhere, "does not span")):
        (fault,) = faults(merging, mean, files, basis=changed(files[BASIS], change))
        assert f"the {side} basis of {LINEAR.path}" in fault
        assert text in fault


def test_a_report_says_minus_one_where_noise_forbids_to_count():
    merging = session("sketch", counts_clipping=False)
    mean = mean_of(merging, [adapter_of(factors(seed, 2)) for seed in range(4)])
    report = MergeReport.from_bytes(published(merging, mean)[REPORT])
    assert (report.scaled_down_ppm, report.clamped_ppm) == (-1, -1)
