"""DPN-3 where only some sessions are checked: what others say of themselves is not believed in their favour."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from secagg.transcript.entries import SessionAbort
from tests.support.forge_noise import NoisyForge
from tests.unit.verifier.session_checks import audit_of
from tests.unit.verifier.test_noise import budget
from verifier.checks import Level, Status
from verifier.run import run_audit


def status_of_budgets(tmp_path: Path, epsilon: Fraction, count: int | None) -> Status:
    """A log whose first session was closed over ``count``, and aborted; only the second one is checked."""
    forge = NoisyForge({f"{name}.open": budget(epsilon=epsilon) for name in ("main", "second")})
    forge.append(forge.roster_entry())
    for step in ("open", "advertise", "share"):
        forge.append(getattr(forge.main, step)())
    close = forge.main.close()
    if count is not None:
        close = forge.main.closing = replace(close, count=count)
    forge.append(close)
    forge.append(SessionAbort(forge.main.session_id, "too few", 0, bytes(32)))
    for step in ("open", "advertise", "share", "close", "result"):
        forge.append(getattr(forge.second, step)())
    audit = audit_of(forge.write(tmp_path), Level.SUM)
    audit = dataclasses.replace(audit, brought=dataclasses.replace(audit.brought, receipt=None))
    report = run_audit(audit, frozenset({forge.second.session_id}))
    return next(each.status for each in report.checks if each.check.identifier == "DPN-3")


@pytest.mark.parametrize("count", [None, 2**28])
def test_a_count_that_nobody_checked_makes_no_room_in_a_budget(tmp_path, count):
    assert status_of_budgets(tmp_path, Fraction(10), count) is Status.UNAVAILABLE


def test_a_budget_that_holds_with_the_fewest_everywhere_needs_no_count(tmp_path):
    assert status_of_budgets(tmp_path, Fraction(40), None) is Status.PASS
