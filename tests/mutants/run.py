"""Weaken one line at a time in a copy of the tree, and run the tests that must notice.

``python -m tests.mutants [--only NAME]``. A mutant that survives is a promise that no test holds anybody to.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants import (
    drills,
    linear_hash,
    log,
    merging,
    one_shot_authority,
    one_shot_client,
    one_shot_coordinator,
    one_shot_member,
    one_shot_verifier,
    privacy,
    session,
    transparency,
    verifier,
    witness,
)
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "secagg",
    "verifier",
    "dp",
    "simulations",
    "benchmarks",
    "docs",
    "examples",
    "tests",
    "pyproject.toml",
    "README.md",
)
MUTANTS: tuple[Mutant, ...] = (
    *session.MUTANTS,
    *linear_hash.MUTANTS,
    *log.MUTANTS,
    *merging.MUTANTS,
    *transparency.MUTANTS,
    *witness.MUTANTS,
    *verifier.MUTANTS,
    *one_shot_authority.MUTANTS,
    *one_shot_client.MUTANTS,
    *one_shot_coordinator.MUTANTS,
    *one_shot_member.MUTANTS,
    *one_shot_verifier.MUTANTS,
    *privacy.MUTANTS,
    *drills.MUTANTS,
)


def copied(destination: Path) -> Path:
    """The tree under test, in ``destination``."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, destination / name, ignore=ignored)
        else:
            shutil.copy2(source, destination / name)
    return destination


def run(tree: Path, tests: Sequence[str]) -> int:
    """Exit status of pytest over some tests of a tree: 0 if all pass, 1 if one fails, else the run is broken."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    # No marker is left out: some of these tests are too long for every day.
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "", *tests]
    finished = subprocess.run(command, cwd=tree, env=environment, capture_output=True, check=False, timeout=600)
    return finished.returncode


def judged(mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Each mutant with ``killed``, ``survived`` or ``broken``.

    Raises:
        RuntimeError: the tests fail without any mutant, or a mutant does not apply.
    """
    with tempfile.TemporaryDirectory() as directory:
        tree = copied(Path(directory))
        if run(tree, sorted({test for mutant in mutants for test in mutant.tests})) != 0:
            raise RuntimeError("the tests fail although nothing was weakened")
        for mutant in mutants:
            file = tree / mutant.file
            before = file.read_text(encoding="utf-8")
            if before.count(mutant.old) != 1:
                raise RuntimeError(f"{mutant.name}: its text does not stand exactly once in {mutant.file}")
            file.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
            status = run(tree, mutant.tests)
            file.write_text(before, encoding="utf-8")
            yield mutant, {0: "survived", 1: "killed"}.get(status, "broken")


def main() -> int:
    """Run all mutants or one; 1 if any is not killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", help="the one mutant of this name")
    only = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if only in {None, mutant.name}]
    if not chosen:
        parser.error(f"no mutant is named {only!r}")
    alive = 0
    for mutant, verdict in judged(chosen):
        print(f"{verdict}: {mutant.name}", flush=True)
        alive += verdict != "killed"
    return 1 if alive else 0
