"""All checks there are, in the order of docs/record.md."""

from __future__ import annotations

from verifier.audit import Audit
from verifier.checks import Check
from verifier.families import (
    ciphertexts,
    contributions,
    eligibility,
    log,
    merging,
    noise,
    one_shot_openings,
    one_shot_session,
    openings,
    receipt,
    results,
    session,
    sums,
)
from verifier.session_record import SessionRecord

FAMILIES = {
    "LOG": "the log",
    "SES": "the sessions in it",
    "ELG": "who may take part",
    "CON": "what was contributed",
    "SUM": "the masked sum",
    "OPN": "the opening",
    "MRG": "how it is merged",
    "RES": "the result",
    "DPN": "differential privacy",
    "RCP": "your receipt",
}
"""What each family is about, in the order of the report."""

LOG_CHECKS: tuple[Check[Audit], ...] = (*log.CHECKS, *session.LOG_CHECKS, *noise.LOG_CHECKS, *receipt.CHECKS)
"""Run once."""

SESSION_CHECKS: tuple[Check[SessionRecord], ...] = (
    *session.SESSION_CHECKS,
    *one_shot_session.CHECKS,
    *eligibility.CHECKS,
    *merging.CHECKS,
    *contributions.CHECKS,
    *sums.CHECKS,
    *ciphertexts.CHECKS,
    *openings.CHECKS,
    *one_shot_openings.CHECKS,
    *results.CHECKS,
    *noise.CHECKS,
)
"""Run for each session of their modes that came far enough."""

AnyCheck = Check[Audit] | Check[SessionRecord]


def _place(check: AnyCheck) -> tuple[int, int]:
    family, number = check.identifier.split("-")
    return list(FAMILIES).index(family), int(number)


ALL_CHECKS: tuple[AnyCheck, ...] = tuple(sorted((*LOG_CHECKS, *SESSION_CHECKS), key=_place))
"""By family and number."""
