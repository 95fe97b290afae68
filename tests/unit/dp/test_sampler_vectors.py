"""Replays the published vectors of exact noise and holds them to their generator."""

import json

import pytest

from tests.vectors.generate_noise import OPERATIONS, PATH, render, replay


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


def test_every_operation_occurs_and_the_file_holds_refusals_and_ties_decided_both_ways():
    recorded = entries()
    assert {entry["op"] for entry in recorded if entry["success"]} == set(OPERATIONS)
    refused = {entry["error"] for entry in recorded if not entry["success"]}
    assert refused == {"kind", "variance", "secret", "size", "values", "total"}
    decided = 0
    for entry in (entry for entry in recorded if entry["op"] == "draws_of_words"):
        words, outcome = entry["words"], entry["expected"]
        drawn: dict[str, set[int]] = {}
        for index in outcome["asked"]:
            drawn.setdefault(words[index], set()).add(outcome["draws"][index])
        decided += sum(len(values) == 2 for values in drawn.values())
    assert decided >= 6


def test_unknown_operations_and_inputs_fail_the_runner():
    for entry in ({"op": "unheard_of"}, {"op": "weights"}, {"op": "weights", "kind": "", "variance": "", "more": 2}):
        with pytest.raises(KeyError):
            replay(entry | {"success": True, "expected": 4096})
