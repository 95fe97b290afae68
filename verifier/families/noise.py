"""DPN: what a session declares about differential privacy. That noise was added, nothing here can show."""

from __future__ import annotations

from verifier.checks import Check, Findings, Level
from verifier.session_record import SessionRecord


def _mechanism(session: SessionRecord, findings: Findings) -> None:
    declared, demanded = session.parameters.noise.TYPE, session.audit.policy.mechanism
    findings.count()
    if declared != demanded:
        findings.fail(session.entry_place("session-open", "noise"), f"{declared}, the policy asks for {demanded}")


CHECKS = (
    Check(
        "DPN-1",
        "The declared noise is what the policy asks for",
        Level.META,
        "The session promised this and nothing else. The one mechanism there is is none: no noise was added, and the "
        "sum shows what a sum shows.",
        "a coordinator that promises other privacy than the auditor asks for",
        ("session-open (noise)", "policy ([noise])"),
        _mechanism,
    ),
)
