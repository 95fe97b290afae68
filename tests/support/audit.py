"""The verifier's word on a record that a test has made."""

from __future__ import annotations

from pathlib import Path

from secagg.crypto.notes import log_key
from secagg.runtime.clock import SystemClock
from secagg.transcript.policy import LogPolicy, LogRule
from tests.support.cohort import key_of
from tests.support.published import ORIGIN
from verifier.audit import Audit, Brought
from verifier.checks import Level, Status
from verifier.policy import AuditPolicy, NoiseDemand, PinnedOpeners, SessionFloors
from verifier.record_files import RecordFiles
from verifier.run import run_audit

UNWITNESSED = LogPolicy((LogRule(log_key(ORIGIN, key_of("coordinator").public_bytes)),), (), (), "none")
"""The log of the tests, which nobody has to have cosigned."""


def complaints(
    record: Path,
    log: LogPolicy = UNWITNESSED,
    *,
    min_contributors: int = 3,
    receipt: bytes | None = None,
    masked_inputs: Path | None = None,
    openers: PinnedOpeners | None = None,
) -> list[str]:
    """What an auditor of the whole record does not find in order; at level full where masked inputs are given."""
    registrars = frozenset({key_of("registrar").public_bytes})
    floors, pinned = SessionFloors(min_contributors), openers or PinnedOpeners()
    policy = AuditPolicy(log, registrars, floors, NoiseDemand("none"), None, bytes(32), bytes(32), pinned)
    inputs = None if masked_inputs is None else RecordFiles(masked_inputs, "masked-inputs/")
    report = run_audit(
        Audit(
            RecordFiles(record),
            policy,
            Level.SUM if inputs is None else Level.FULL,
            SystemClock().now_s(),
            Brought(inputs, receipt),
        )
    )
    bad = [each for each in report.checks if each.status in {Status.FAIL, Status.UNAVAILABLE}]
    assert bad or report.verdict.exit_code == 0
    return [f"{each.check.identifier} {' '.join(map(str, (*each.failures, *each.missing)))}" for each in bad]
