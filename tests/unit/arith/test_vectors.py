"""Replays the published vectors of the arithmetic floor and holds them to their generator."""

import json

import pytest

from tests.vectors.generate_arith import DIRECTORY, FILES, OPERATIONS, render, replay


@pytest.mark.parametrize("name", FILES)
def test_every_operation_of_the_file_has_its_recorded_outcome(name):
    content = json.loads((DIRECTORY / name).read_text(encoding="utf-8"))
    assert content.keys() == {"description", "operations"}
    for entry in content["operations"]:
        outcome = replay(entry)
        recorded = {key: entry[key] for key in ("success", "expected", "error") if key in entry}
        assert recorded == outcome, entry


@pytest.mark.parametrize("name", FILES)
def test_the_generator_reproduces_the_file_byte_for_byte(name):
    assert render(name).encode() == (DIRECTORY / name).read_bytes()


def test_every_operation_occurs_and_the_files_hold_refusals_too():
    entries = [e for n in FILES for e in json.loads((DIRECTORY / n).read_text(encoding="utf-8"))["operations"]]
    assert {e["op"] for e in entries if e["success"]} == set(OPERATIONS)
    assert sum(not e["success"] for e in entries) > 40


@pytest.mark.parametrize(
    "entry",
    [
        {"op": "unheard_of", "success": True, "expected": 0},
        {"op": "lagrange_at_zero", "points": [1], "more": 1, "success": True, "expected": [1]},
        {"op": "lagrange_at_zero", "success": True, "expected": [1]},
    ],
)
def test_unknown_operations_and_inputs_fail_the_runner(entry):
    with pytest.raises(KeyError):
        replay(entry)
