"""Runs all checks on a forged record and says what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.support.forge import COSIGNED_AT_S, Written, write_record
from tests.support.forge_session import Edit
from verifier.audit import Audit, Brought
from verifier.checks import Level, Status
from verifier.policy import load_policy
from verifier.record_files import RecordFiles
from verifier.report import CheckReport
from verifier.run import run_audit

IDLE = frozenset({"DPN-2", "DPN-3", "DPN-4", "MRG-1", "MRG-2", "MRG-3", "MRG-4"})
"""The checks of sessions that declare noise or follow another, which have nothing to check of the forge's own."""
CLEAN = frozenset({Status.PASS, Status.NOT_APPLICABLE})


def audit_of(written: Written, level: Level, masked_inputs: Path | None = None) -> Audit:
    """A run over a record, with all that goes with it."""
    uploads = RecordFiles(masked_inputs or written.masked_inputs, "masked-inputs/")
    receipt = written.receipt.read_bytes() if written.receipt.exists() else None
    brought = Brought(uploads, receipt)
    return Audit(RecordFiles(written.record), load_policy(written.policy), level, COSIGNED_AT_S + 60, brought)


def checked(written: Written, level: Level = Level.FULL, masked_inputs: Path | None = None) -> dict[str, CheckReport]:
    """What became of each check of the level."""
    report = run_audit(audit_of(written, level, masked_inputs))
    return {one.check.identifier: one for one in report.checks if one.status is not Status.NOT_AT_THIS_LEVEL}


def failing(found: Mapping[str, CheckReport]) -> list[str]:
    """The checks that fail."""
    return [identifier for identifier, report in found.items() if report.status is Status.FAIL]


def unclean(found: Mapping[str, CheckReport]) -> dict[str, Status]:
    """The checks that neither pass nor have nothing to check."""
    return {identifier: report.status for identifier, report in found.items() if report.status not in CLEAN}


def found_of(directory: Path, **edits: Edit) -> dict[str, CheckReport]:
    """What became of the checks of level sum for a record that was edited on the way."""
    return checked(write_record(directory, edits), Level.SUM)


def failing_after(directory: Path, **edits: Edit) -> list[str]:
    """The checks of level sum that fail of a record that was edited on the way."""
    return failing(found_of(directory, **edits))


def reason(found: Mapping[str, CheckReport], identifier: str) -> str:
    """The first failure of a check, in words."""
    return str(found[identifier].failures[0])
