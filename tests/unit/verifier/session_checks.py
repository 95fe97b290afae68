"""Runs the checks of families on the session ``main`` of a forged record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.support.forge import COSIGNED_AT_S, Written, write_record
from tests.support.forge_session import Edit, SessionForge
from verifier.audit import Audit, Brought
from verifier.checks import Check, CheckResult, Level, Status, run_check
from verifier.families import openings, results, sums
from verifier.policy import load_policy
from verifier.record_files import RecordFiles
from verifier.session_record import SessionEntries, SessionRecord

FAMILIES = (sums, openings, results)
CHECKS: tuple[Check[SessionRecord], ...] = tuple(check for family in FAMILIES for check in family.CHECKS)


def entries_of(session: SessionForge) -> SessionEntries:
    """The entries that the session has logged."""
    names = ("advertised", "shared", "closing", "finished", "aborted")
    return SessionEntries(session.parameters, *(getattr(session, name, None) for name in names))


def session_of(written: Written, session: SessionForge, level: Level, masked_inputs: Path | None) -> SessionRecord:
    """A session of a record as the checks see it."""
    brought = Brought(None if masked_inputs is None else RecordFiles(masked_inputs, "masked-inputs/"))
    audit = Audit(RecordFiles(written.record), load_policy(written.policy), level, COSIGNED_AT_S + 60, brought)
    return SessionRecord(audit, entries_of(session))


def checked(
    written: Written, level: Level = Level.FULL, session: SessionForge | None = None, given: Path | None = None
) -> dict[str, CheckResult]:
    """What each check of the level found that applies to a session as far as it came."""
    subject = session_of(written, session or written.forge.main, level, given or written.masked_inputs)
    found = {}
    for check in CHECKS:
        if check.level <= level and check.needs <= subject.entries.stage:
            found[check.identifier] = CheckResult()
            found[check.identifier].add(run_check(check, subject))
    return found


def failing(found: Mapping[str, CheckResult]) -> list[str]:
    """The checks that fail."""
    return [identifier for identifier, result in found.items() if result.status is Status.FAIL]


def found_of(directory: Path, **edits: Edit) -> dict[str, CheckResult]:
    """What the checks of level sum find of a record that was edited on the way."""
    return checked(write_record(directory, edits), Level.SUM)


def failing_after(directory: Path, **edits: Edit) -> list[str]:
    """The checks of level sum that fail of a record that was edited on the way."""
    return failing(found_of(directory, **edits))


def reason(found: Mapping[str, CheckResult], identifier: str) -> str:
    """The first failure of a check, in words."""
    return str(found[identifier].failures[0])
