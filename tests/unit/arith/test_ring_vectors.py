"""Replays the published vectors of ring masks and holds them to their generator."""

import json

import pytest

from tests.vectors.generate_ring import OPERATIONS, PATH, render, replay


def entries() -> list[dict]:
    content = json.loads(PATH.read_text(encoding="utf-8"))
    assert content.keys() == {"description", "operations"}
    return content["operations"]


def test_every_operation_of_the_file_has_its_recorded_outcome():
    for entry in entries():
        recorded = {key: entry[key] for key in ("success", "expected", "error") if key in entry}
        assert recorded == replay(entry), entry


def test_the_generator_reproduces_the_file_byte_for_byte():
    assert render().encode() == PATH.read_bytes()


def test_every_operation_occurs_and_the_file_holds_refusals_and_failed_certifications_too():
    recorded = entries()
    assert {entry["op"] for entry in recorded if entry["success"]} == set(OPERATIONS)
    refused = [entry["error"] for entry in recorded if not entry["success"]]
    assert len(refused) > 30
    assert {error["condition"] for error in refused if isinstance(error, dict)} == {"secret", "remainder"}


def test_unknown_operations_and_inputs_fail_the_runner():
    for entry in ({"op": "unheard_of"}, {"op": "padded_lanes"}, {"op": "padded_lanes", "lanes": 1, "more": 2}):
        with pytest.raises(KeyError):
            replay(entry | {"success": True, "expected": 4096})
