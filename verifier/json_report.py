"""The report for programs. Members are only ever added; whatever changes meaning changes ``schema``."""

from __future__ import annotations

import json
import math
from typing import Any

from dp.parameters import fraction_text
from verifier.checks import Finding
from verifier.outcome import outcome_of
from verifier.report import SCHEMA, CheckReport, NoiseSummary, Report, SessionSummary
from verifier.statement import LEVEL_NAMES, statement_of


def to_json(report: Report) -> str:
    """One JSON object, in ASCII, with a newline at the end; digests and keys in hex, times in seconds since 1970."""
    return json.dumps(_value(report), indent=2, ensure_ascii=True) + "\n"


def _value(report: Report) -> dict[str, Any]:
    statement, outcome = statement_of(report), outcome_of(report)
    return {
        "schema": SCHEMA,
        "verifier": {"name": "secagg-verify", "version": report.version},
        "verdict": report.verdict.value,
        "exit_code": report.verdict.exit_code,
        "outcome": {"sentence": outcome.sentence, "notes": list(outcome.notes)},
        "level": LEVEL_NAMES[report.level],
        "checked_at_s": report.now_s,
        "policy": {
            "sha256": report.policy.digest.hex(),
            "log_policy_sha256": report.policy.log_digest.hex(),
            "witnesses": report.policy.witnesses,
            "asks_for_quorum": report.policy.has_quorum,
            "smallest_quorum": report.policy.quorum,
            "smallest_overlap": report.policy.overlap,
        },
        "checkpoint": _checkpoint(report),
        "compared_with_saved_checkpoint": report.compared,
        "sessions": [_session(session) for session in report.sessions],
        "sessions_left_out": report.left_out,
        "checks": [_check(check) for check in report.checks],
        "statement": {
            "heading": statement.heading,
            "shows": list(statement.shows),
            "against": statement.against,
            "assumptions": list(statement.assumptions),
            "not_covered": list(statement.remarks),
            "no_record_can_show": list(statement.limits),
        },
    }


def _checkpoint(report: Report) -> dict[str, Any] | None:
    if report.checkpoint is None:
        return None
    return {
        "origin": report.checkpoint.origin,
        "size": report.checkpoint.size,
        "root": report.checkpoint.root.hex(),
        "cosigned": [
            {"public_key": cosigned.public_key.hex(), "name": name, "timestamp_s": cosigned.timestamp_s}
            for cosigned, name in zip(report.cosigned, report.cosigned_by, strict=True)
        ],
    }


def _session(session: SessionSummary) -> dict[str, Any]:
    return {
        "session": session.session,
        "opened_at_s": session.opened_at_s,
        "base_model": session.base_model,
        "mode": session.mode.value,
        "end": session.end.value,
        "stage": session.stage.name.lower(),
        "abort_reason": session.reason,
        "contributors": session.contributors,
        "min_contributors": session.min_contributors,
        "max_corrupt": session.max_corrupt,
        "registrar": session.registrar,
        "adapter_model": session.adapter_model,
        "merge": {
            "strategy": session.merge.strategy,
            "kind": session.merge.kind,
            "first_session": session.merge.first,
            "estimated_error_ppm": session.merge.error_ppm,
            "degraded": session.merge.is_degraded,
        },
        "noise": None if session.noise is None else _noise(session.noise),
        "answers_released_before_abort": session.answers_released,
        "failed_checks": list(session.failed),
        "unavailable_checks": list(session.unavailable),
    }


def _noise(noise: NoiseSummary) -> dict[str, Any]:
    epsilon = noise.session_epsilon
    return {
        "mechanism": noise.mechanism,
        # JSON has no infinity.
        "session_epsilon": epsilon if epsilon is not None and math.isfinite(epsilon) else None,
        "delta": fraction_text(noise.delta),
        "population": noise.population,
        "budget_epsilon": fraction_text(noise.epsilon),
        "reservation": noise.sequence,
    }


def _check(report: CheckReport) -> dict[str, Any]:
    return {
        "id": report.check.identifier,
        "family": report.check.family,
        "title": report.check.title,
        "level": LEVEL_NAMES[report.check.level],
        "status": report.status.value,
        "examined": report.examined,
        "failed": report.failed,
        "first_failures": [_finding(finding) for finding in report.failures],
        "unavailable": [_finding(finding) for finding in report.missing],
        "not_applicable": [{"reason": reason, "sessions": count} for reason, count in report.excuses],
        "notes": list(report.notes),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "session": finding.session,
        "file": finding.place.file,
        "line": finding.place.line,
        "field": finding.place.field,
        "reason": finding.reason,
    }
