"""Writes graph.json: masking graphs and their parameters, for implementations in other languages.

Run from the repository root: ``python -m tests.vectors.generate_graph``.
"""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from secagg.derive.graph import GraphParameterError, masking_graph
from secagg.derive.threshold import graph_parameters

PATH = Path(__file__).with_name("graph.json")

DESCRIPTION = (
    "op graph: neighbours[i] are the neighbours of client i, ascending, in the masking graph of seed (hex), "
    "cohort and degree. op parameters: degree and threshold for a cohort; expected_dropout is [numerator, "
    "denominator]. Where success is false, error names the field that must be refused. Formulas: "
    "docs/parameters.md."
)

ZERO = bytes(32)
COUNTING = bytes(range(32))
HASHED = hashlib.sha256(b"masking graph vector").digest()

GRAPHS = [
    (ZERO, 3, 2),
    (ZERO, 4, 2),
    (ZERO, 4, 3),
    (COUNTING, 7, 4),
    (COUNTING, 7, 6),
    (HASHED, 10, 4),
    (HASHED, 10, 9),
    (HASHED, 31, 8),
    (HASHED[::-1], 40, 38),
    (HASHED[:31], 10, 4),
    (HASHED + ZERO[:1], 10, 4),
    (b"", 10, 4),
    (HASHED, 2, 1),
    (HASHED, 65537, 4),
    (HASHED, 10, 0),
    (HASHED, 10, 5),
    (HASHED, 10, 10),
]

PARAMETERS = [
    (3, 0, 2, (0, 1)),
    (3, 1, 3, (0, 1)),
    (10, 2, 5, (3, 10)),
    (100, 10, 70, (1, 10)),
    (100, 45, 50, (1, 4)),
    (101, 5, 90, (1, 20)),
    (102, 30, 32, (1, 10)),
    (102, 30, 32, (35, 102)),
    (128, 12, 100, (1, 10)),
    (200, 20, 160, (1, 10)),
    (333, 33, 290, (1, 7)),
    (500, 0, 400, (0, 1)),
    (500, 0, 400, (1, 10)),
    (1000, 50, 900, (1, 20)),
    (1000, 70, 990, (11, 50)),
    (1000, 100, 800, (1, 10)),
    (1000, 90, 900, (2, 25)),
    (1000, 130, 990, (1, 25)),
    (1000, 333, 600, (1, 10)),
    (3000, 300, 2700, (3, 10)),
    (2, 0, 2, (0, 1)),
    (65537, 0, 2, (0, 1)),
    (9, 0, 10, (0, 1)),
    (20, -1, 10, (0, 1)),
    (20, 9, 10, (0, 1)),
    (20, 0, 1, (0, 1)),
    (20, 0, 10, (-1, 10)),
    (20, 0, 10, (1, 1)),
    (10, 2, 5, (2, 5)),
    (1000, 100, 300, (1, 2)),
]


def replay(operation: dict[str, Any]) -> dict[str, Any]:
    """The outcome of one operation: what an implementation must find from its inputs."""
    try:
        if operation["op"] == "graph":
            seed = bytes.fromhex(operation["seed"])
            graph = masking_graph(seed, operation["cohort"], operation["degree"])
            neighbours = [list(graph.neighbours(index)) for index in range(graph.cohort)]
            return {"neighbours": neighbours, "success": True}
        found = graph_parameters(
            operation["cohort"],
            operation["max_corrupt"],
            operation["min_contributors"],
            Fraction(*operation["expected_dropout"]),
        )
        return {"degree": found.degree, "threshold": found.threshold, "success": True}
    except GraphParameterError as refused:
        return {"success": False, "error": refused.field}


def document() -> dict[str, Any]:
    """All vectors, as they stand in the file."""
    inputs: list[dict[str, Any]] = [
        {"op": "graph", "seed": seed.hex(), "cohort": cohort, "degree": degree} for seed, cohort, degree in GRAPHS
    ]
    inputs += [
        {
            "op": "parameters",
            "cohort": cohort,
            "max_corrupt": corrupt,
            "min_contributors": minimum,
            "expected_dropout": list(dropout),
        }
        for cohort, corrupt, minimum, dropout in PARAMETERS
    ]
    return {"description": DESCRIPTION, "operations": [given | replay(given) for given in inputs]}


def text() -> str:
    """The file: one operation to a line, so that a change shows as a line."""
    content = document()
    lines = ",\n".join("  " + json.dumps(operation) for operation in content["operations"])
    return f'{{\n"description": {json.dumps(content["description"])},\n"operations": [\n{lines}\n]\n}}\n'


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
