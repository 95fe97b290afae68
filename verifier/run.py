"""One run: the checks of the log, then those of each session, one session after the other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from secagg.transcript.entries import SessionResult
from secagg.transcript.merge import SecondMerge, strategy_of
from secagg.transcript.noise import DistributedNoise
from secagg.transcript.policy import NO_QUORUM
from verifier.audit import Audit
from verifier.catalogue import ALL_CHECKS, LOG_CHECKS, SESSION_CHECKS
from verifier.checks import (
    NOWHERE,
    OF_MODE,
    CheckResult,
    Findings,
    InputMissingError,
    InputRefusedError,
    Level,
    Place,
    Stage,
    Status,
    because_failed,
    run_check,
)
from verifier.families.results import PUBLISHED
from verifier.log_view import COSIGNED, HEAD, SESSIONS, session_entries
from verifier.privacy_spent import NOISE, charge_of_final, epsilon_at
from verifier.quorums import smallest_overlap, smallest_quorum
from verifier.report import (
    ENDED,
    CheckReport,
    MergeSummary,
    NoiseSummary,
    PolicySummary,
    Report,
    SessionEnd,
    SessionSummary,
)
from verifier.session_record import SessionRecord

_NOT_SO_FAR = {
    Stage.OPENED: "the session did not get beyond its opening",
    Stage.ADVERTISED: "the session did not get beyond advertised keys",
    Stage.SHARED: "the session did not get beyond shared keys",
    Stage.COMMITTED: "the session did not get beyond commitments",
    Stage.CLOSED: "the session was closed and has no result",
}


def run_audit(audit: Audit, wanted: Collection[bytes] = ()) -> Report:
    """Check a record; ``wanted`` restricts the checks of sessions to these ids, if there are any."""
    audit = replace(audit, wanted=frozenset(wanted))
    results = {check.identifier: CheckResult() for check in ALL_CHECKS if check.level <= audit.level}
    for check in LOG_CHECKS:
        if check.identifier in results:
            audit.progress(f"{check.identifier}  {check.title}")
            results[check.identifier].add(run_check(check, audit))
    summaries, left_out = _run_sessions(audit, results, wanted)
    try:
        checkpoint = audit.get(HEAD).checkpoint
    except (InputRefusedError, InputMissingError):
        checkpoint = None
    try:
        cosigned = audit.get(COSIGNED).cosigned
    except (InputRefusedError, InputMissingError):
        cosigned = ()
    names = {witness.key.public_key: witness.name for witness in audit.policy.log.witnesses}
    return Report(
        installed_version(),
        audit.level,
        audit.now_s,
        _policy_summary(audit),
        checkpoint,
        cosigned,
        tuple(names[each.public_key] for each in cosigned),
        summaries,
        left_out,
        audit.brought.saved_checkpoint is not None,
        tuple(CheckReport.of(check, results.get(check.identifier)) for check in ALL_CHECKS),
    )


def _run_sessions(
    audit: Audit, results: dict[str, CheckResult], wanted: Collection[bytes]
) -> tuple[tuple[SessionSummary, ...], int]:
    """Summaries of the sessions that were checked, and how many were left out."""
    try:
        known = audit.get(SESSIONS).places
    except InputRefusedError as error:
        _none_can_run(results, Place(), because_failed(error.owner))
        return (), 0
    except InputMissingError as error:
        _none_can_run(results, error.finding.place, error.finding.reason)
        return (), 0
    for session in wanted:
        if session not in known:
            _note(results, f"session {session.hex()} is not in the log")
    if not known:
        _note(results, "the log has no session")
    chosen = [session for session in known if not wanted or session in wanted]
    summaries = []
    for number, session in enumerate(chosen, start=1):
        audit.progress(f"session {number:,} of {len(chosen):,}")
        summaries.append(_run_session(audit, results, session))
    return tuple(summary for summary in summaries if summary is not None), len(known) - len(chosen)


def _run_session(audit: Audit, results: dict[str, CheckResult], session: bytes) -> SessionSummary | None:
    try:
        record = SessionRecord(audit, session_entries(audit, session))
    except InputMissingError as error:
        _none_can_run(results, error.finding.place, error.finding.reason)
        return None
    failed, unavailable = [], []
    for check in SESSION_CHECKS:
        if check.identifier not in results:
            continue
        if record.mode not in check.modes:
            findings = Findings(record.name)
            findings.not_applicable(f"{OF_MODE[record.mode]} has nothing of the kind")
        elif record.entries.stage < check.needs:
            findings = Findings(record.name)
            findings.not_applicable(_NOT_SO_FAR[record.entries.stage])
        else:
            findings = run_check(check, record, record.name)
        alone = CheckResult()
        alone.add(findings)
        if alone.status is Status.FAIL:
            failed.append(check.identifier)
        elif alone.status is Status.UNAVAILABLE:
            unavailable.append(check.identifier)
        results[check.identifier].add(findings)
    return _summary(record, tuple(failed), tuple(unavailable))


def _summary(record: SessionRecord, failed: tuple[str, ...], unavailable: tuple[str, ...]) -> SessionSummary:
    entries = record.entries
    end = SessionEnd.UNDER_WAY
    if entries.result is not None:
        end = SessionEnd.RESULT
    elif entries.abort is not None:
        end = SessionEnd.ABORTED
    return SessionSummary(
        record.name,
        entries.open.opened_at_s,
        entries.open.base_model,
        entries.mode,
        entries.stage,
        end,
        entries.abort.reason if entries.abort is not None else "",
        entries.close.count if entries.close is not None else 0,
        entries.abort.answers if entries.abort is not None else 0,
        entries.open.min_contributors,
        entries.open.max_corrupt,
        entries.open.registrar.hex(),
        _model_digest(entries.result),
        _merge_summary(record),
        _noise_summary(record),
        failed,
        unavailable,
    )


def _model_digest(result: SessionResult | None) -> str:
    digest = None if result is None else result.digest_of("adapter_model.safetensors")
    return "" if digest is None else digest.hex()


def _merge_summary(record: SessionRecord) -> MergeSummary:
    merge = record.parameters.merge
    first = merge.first.hex() if isinstance(merge, SecondMerge) else ""
    summary = MergeSummary(strategy_of(merge), merge.TYPE, first)
    if record.audit.level < Level.SUM or record.entries.stage is not Stage.FINISHED:
        return summary
    try:
        report = record.get(PUBLISHED).report
    except (InputRefusedError, InputMissingError):
        return summary
    return summary if report is None else replace(summary, error_ppm=report.error_ppm, is_degraded=report.is_degraded)


def _noise_summary(record: SessionRecord) -> NoiseSummary | None:
    noise = record.parameters.noise
    if not isinstance(noise, DistributedNoise):
        return None
    budget, epsilon = noise.budget, None
    try:
        known = record.audit.get(NOISE).sessions.get(record.parameters.session)
    except InputMissingError:
        known = None
    if known is not None:
        epsilon = epsilon_at(charge_of_final((known,)), budget.delta)
    return NoiseSummary(noise.TYPE, epsilon, budget.population, budget.epsilon, budget.delta, budget.sequence)


def _none_can_run(results: dict[str, CheckResult], place: Place, reason: str) -> None:
    for check in SESSION_CHECKS:
        if check.identifier in results:
            findings = Findings()
            findings.unavailable(place, reason)
            results[check.identifier].add(findings)


def _note(results: dict[str, CheckResult], reason: str) -> None:
    """Something that was to be checked is not there."""
    findings = Findings()
    findings.unavailable(NOWHERE, reason)
    results[ENDED].add(findings)


def _policy_summary(audit: Audit) -> PolicySummary:
    policy = audit.policy
    return PolicySummary(
        policy.digest,
        policy.log_digest,
        len(policy.log.witnesses),
        policy.log.quorum != NO_QUORUM,
        smallest_quorum(policy.log),
        smallest_overlap(policy.log),
        policy.max_age_s is not None,
    )


def installed_version() -> str:
    """The version of this verifier."""
    try:
        return version("secagg-lora")
    except PackageNotFoundError:
        return "unknown"
