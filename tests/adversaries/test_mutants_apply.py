"""The mutants fit the code and name tests that exist; the complete run, which takes minutes, kills them all."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.run import MUTANTS, ROOT, judged
from tests.support.syntax import syntax_tree


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_weakens_one_place_that_is_there(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    syntax_tree(text.replace(mutant.old, mutant.new))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_a_mutant_names_exist(mutant: Mutant) -> None:
    for node in mutant.tests:
        file, *names = node.split("::")
        # A test that a unittest case inherits is not in the source.
        found = [name for name in names if name != "runTest"]
        assert not found or "::".join(found) in defined(ROOT / file)


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_mutant_is_killed() -> None:
    assert [(mutant.name, verdict) for mutant, verdict in judged(MUTANTS) if verdict != "killed"] == []


@functools.cache
def defined(file: Path) -> frozenset[str]:
    """Names of the functions, classes and methods of a test file, as in node ids."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    names = set()
    for node in syntax_tree(file).body:
        if isinstance(node, functions | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}::{item.name}" for item in node.body if isinstance(item, functions))
    return frozenset(names)
