from __future__ import annotations

import hashlib
import json

import pytest

from tests.vectors import generate_graph

OPERATIONS = json.loads(generate_graph.PATH.read_text(encoding="utf-8"))["operations"]
OUTCOME = {"neighbours", "degree", "threshold", "success", "error"}


def given(operation: dict) -> dict:
    """An operation without its outcome; the degree is an input of a graph and an outcome of parameters."""
    outcome = OUTCOME - {"degree"} if operation["op"] == "graph" else OUTCOME
    return {name: value for name, value in operation.items() if name not in outcome}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation["op"])
def test_every_vector_replays_to_its_outcome(operation):
    inputs = given(operation)
    assert inputs | generate_graph.replay(inputs) == operation


def test_the_generator_reproduces_the_file():
    assert generate_graph.PATH.read_text(encoding="utf-8") == generate_graph.text()


def test_the_graphs_follow_from_the_description_alone():
    for vector in OPERATIONS:
        if vector["op"] != "graph" or not vector["success"]:
            continue
        seed, cohort, degree = bytes.fromhex(vector["seed"]), vector["cohort"], vector["degree"]
        circle = sorted(range(cohort), key=lambda i: hashlib.sha256(seed + i.to_bytes(4, "big")).digest())
        for place, index in enumerate(circle):
            steps = (step for step in range(cohort) if 0 < min(step, cohort - step) <= (degree + 1) // 2)
            expected = sorted(circle[(place + step) % cohort] for step in steps)
            assert vector["neighbours"][index] == expected


def test_there_are_vectors_of_both_kinds_that_succeed_and_that_name_every_field():
    kinds = {(operation["op"], operation["success"]) for operation in OPERATIONS}
    assert kinds == {(op, success) for op in ("graph", "parameters") for success in (True, False)}
    named = {operation["error"] for operation in OPERATIONS if not operation["success"]}
    assert named == {"seed", "cohort", "degree", "max_corrupt", "min_contributors", "expected_dropout"}
