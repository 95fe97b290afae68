"""DPN: what sessions declare about differential privacy, and what of it shows.

That each client added its noise, nothing here can show: a masked input looks the same with and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from secagg.transcript.noise import DistributedNoise, PrivacyBudget
from verifier.audit import Audit
from verifier.checks import MAX_SHOWN, Check, Findings, Level, Place, Stage
from verifier.families.results import INTEGERS
from verifier.noise_floor import RARITY_BITS, noise_floor, sum_of_squares
from verifier.policy import PrivacyLimit
from verifier.privacy_spent import (
    MAX_TABLES,
    NOISE,
    NoiseOfLog,
    NoisySession,
    at_worst,
    beyond,
    charge_of_final,
    charges_of,
    epsilon_at,
)
from verifier.session_record import SessionRecord

_NO_NOISE = "the session declares that no noise is added"
_UNTRIED = f"not checked: the log declares noise of more than {MAX_TABLES} tables"
_UNKNOWN = "what it costs is not known"
_UNLESS_AS_MANY = "unless as many contributed as close entries say of sessions that were not asked for (--session)"
_TOO_FEW = "closed over fewer contributions than min_contributors"
_TOLERANCE = 1e-9
"""Squares are added in fp64."""


def _mechanism(session: SessionRecord, findings: Findings) -> None:
    """Rule: the declared mechanism is the policy's."""
    declared, demanded = session.parameters.noise.TYPE, session.audit.policy.noise.mechanism
    findings.count()
    if declared != demanded:
        findings.fail(session.entry_place("session-open", "noise"), f"{declared}, the policy asks for {demanded}")


def _parameters(session: SessionRecord, findings: Findings) -> None:
    """Rule: ``secagg.privacy.session_noise.check_noise`` has nothing to say of the open entry."""
    if not isinstance(session.parameters.noise, DistributedNoise):
        findings.not_applicable(_NO_NOISE)
        return
    identifier, noise = session.parameters.session, session.audit.get(NOISE)
    if identifier in noise.untried:
        findings.unavailable(session.entry_place("session-open", "noise"), _UNTRIED)
        return
    findings.count()
    fault = noise.faults.get(identifier)
    if fault is not None:
        findings.fail(session.entry_place("session-open", fault.field), fault.reason)


def _budgets(audit: Audit, findings: Findings) -> None:
    """Rules: a population has one budget and one chain of reservations; no opening went beyond; the policy's holds."""
    noise = audit.get(NOISE)
    if not noise.sessions and not noise.faults and not noise.untried:
        findings.not_applicable("no session of the log declares noise")
        return
    findings.count(len(noise.sessions))
    _say_what_is_unknown(noise, findings)
    populations: dict[str, list[NoisySession]] = {}
    for session in noise.sessions.values():
        populations.setdefault(session.budget.population, []).append(session)
    for number, (name, sessions) in enumerate(populations.items(), start=1):
        audit.progress(f"budget of population {number:,} of {len(populations):,}")
        costly = list(_faults_of_costs(sessions))
        for session, reason in (*_faults_of_chain(sessions), *costly):
            findings.fail(_place_of(session.session), reason)
        if audit.wanted:
            wrong = {session.session for session, _ in costly}
            for session, reason in _faults_of_costs(at_worst(sessions, audit.wanted)):
                if session.session not in wrong:
                    findings.unavailable(_place_of(session.session), f"{reason}, {_UNLESS_AS_MANY}")
        if number <= MAX_SHOWN:
            findings.note(_spent(name, sessions))
    limit = audit.policy.noise.limit
    if limit is None:
        return
    _compare_with(limit, audit, findings)


def _compare_with(limit: PrivacyLimit, audit: Audit, findings: Findings) -> None:
    """Rule: all sessions of the log together cost no more than the policy allows."""
    sessions, place = list(audit.get(NOISE).sessions.values()), Place("policy", None, "[noise] epsilon")
    words = "all sessions of the log together cost epsilon {:.6g}, more than {:.6g}"
    charge = charge_of_final(sessions)
    total = beyond(charge, limit.epsilon, limit.delta)
    if total is not None:
        findings.fail(place, words.format(total, float(limit.epsilon)))
        return
    spent = epsilon_at(charge, limit.delta)
    findings.note(f"all sessions of the log together: at most epsilon {spent:.6g} at delta {float(limit.delta):g}")
    if not audit.wanted:
        return
    total = beyond(charge_of_final(at_worst(sessions, audit.wanted)), limit.epsilon, limit.delta)
    if total is not None:
        findings.unavailable(place, f"{words.format(total, float(limit.epsilon))}, {_UNLESS_AS_MANY}")


def _place_of(session: bytes, field: str = "noise.budget") -> Place:
    return Place(f"log entry session-open of {session.hex()}", None, field)


def _say_what_is_unknown(noise: NoiseOfLog, findings: Findings) -> None:
    """A cost that nobody can compute is not nothing: what is found of the others are lower bounds then."""
    for session in noise.faults:
        findings.unavailable(_place_of(session, "noise"), f"{_UNKNOWN}: what it declares breaks the rule of DPN-2")
    for session in noise.untried:
        findings.unavailable(_place_of(session, "noise"), _UNTRIED)
    for session in noise.short:
        place = Place(f"log entry session-close of {session.hex()}", None, "count")
        findings.unavailable(place, f"{_UNKNOWN}: {_TOO_FEW}")


def _faults_of_chain(sessions: Sequence[NoisySession]) -> Iterator[tuple[NoisySession, str]]:
    """Rules: one budget; later reservations have higher numbers, and one that is next follows from the one before."""
    first = sessions[0].budget
    for before, session in pairwise(sessions):
        last, budget = before.budget, session.budget
        if (budget.epsilon, budget.delta) != (first.epsilon, first.delta):
            yield session, f"another budget than that of the population's first session, {_text(first)}"
        if budget.sequence <= last.sequence:
            yield session, f"reservation {budget.sequence} comes after {last.sequence}: the ledger is an older state"
        elif budget.sequence == last.sequence + 1 and budget.previous != last.reserved:
            yield session, f"reservation {budget.sequence} does not follow from {last.sequence}: another ledger"


def _faults_of_costs(sessions: Sequence[NoisySession]) -> Iterator[tuple[NoisySession, str]]:
    """Rule: when a session is opened, it and those before it cost no more than its budget."""
    for session, charge in zip(sessions, charges_of(sessions), strict=False):
        budget = session.budget
        spent = beyond(charge, budget.epsilon, budget.delta)
        if spent is not None:
            yield session, f"with it the population may have spent epsilon {spent:.6g}, its budget is {_text(budget)}"


def _text(budget: PrivacyBudget) -> str:
    return f"epsilon {float(budget.epsilon):.6g} at delta {float(budget.delta):.6g}"


def _spent(population: str, sessions: Sequence[NoisySession]) -> str:
    budget = sessions[0].budget
    epsilon = epsilon_at(charge_of_final(sessions), budget.delta)
    who = f"population {population}: whoever took part in all of its sessions ({len(sessions)})"
    spent = f"spent at most epsilon {epsilon:.6g} by this log, if the noise was added"
    return f"{who} {spent}; the budget is {_text(budget)}"


def _floor(session: SessionRecord, findings: Findings) -> None:
    """Rule: the squares of the sum add up to no less than ``noise_floor`` for all but ``max_corrupt`` contributors."""
    noise, parameters = session.parameters.noise, session.parameters
    if not isinstance(noise, DistributedNoise):
        findings.not_applicable(_NO_NOISE)
        return
    if session.close.count < parameters.min_contributors:
        findings.unavailable(session.entry_place(session.close.TYPE, "count"), _TOO_FEW)
        return
    total = session.get(INTEGERS)
    variance = float(noise.local_variance * (session.close.count - parameters.max_corrupt))
    floor = noise_floor(total.size, variance)
    if floor <= 0:
        findings.not_applicable("too few coordinates: all that noise may add up to next to nothing")
        return
    findings.count(total.size)
    squares = sum_of_squares(total)
    if squares < floor * (1 - _TOLERANCE):
        reason = (
            f"squares add up to {squares:.6g}; the declared noise alone gives {total.size * variance:.6g}, and less "
            f"than {floor:.6g} with a probability of at most 2^-{RARITY_BITS}"
        )
        findings.fail(session.files.place("integer-sum.bin"), reason)


LOG_CHECKS: tuple[Check[Audit], ...] = (
    Check(
        "DPN-3",
        "Every session with noise was reserved in turn, and stays within its budget",
        Level.META,
        "No session of a population was opened that could have cost more than was left, those before it counted with "
        "the number of contributions that they were closed over, or else the fewest they could be; no reservation of a "
        "population has a number that was used before; and if the policy limits epsilon, all sessions of the log "
        "together cost no more, whatever their populations are called. Epsilon says something only if all but "
        "max_corrupt contributors of each session added their noise, and of this log only.",
        "an operator that opens more sessions than it announced, or puts an old ledger back",
        ("session-open (noise)", "session-close (count)", "policy ([noise] epsilon, delta)"),
        _budgets,
    ),
)

CHECKS = (
    Check(
        "DPN-1",
        "The declared noise is what the policy asks for",
        Level.META,
        "The session promised this mechanism and no other. Mechanism none means that no noise was added: the sum shows "
        "what a sum shows. That promised noise was added does not follow.",
        "a coordinator that promises other privacy than the auditor asks for",
        ("session-open (noise)", "policy ([noise])"),
        _mechanism,
    ),
    Check(
        "DPN-2",
        "What is declared of the noise fits together",
        Level.META,
        "Norm bound, scale, variance, table and field width are such that everybody computes the same epsilon from "
        "them, for the fewest honest contributors that the session can have; the noise is not larger against the "
        "signal than the operator accepted; and the reservation that the open entry names is of this session at this "
        "cost. That a ledger was kept does not follow, nor that noise was added.",
        "a coordinator that has clients add less noise than the epsilon it speaks of needs",
        ("session-open (noise, encoding, min_contributors, max_corrupt)",),
        _parameters,
    ),
    Check(
        "DPN-4",
        "The sum is not smaller than the declared noise alone",
        Level.SUM,
        "Had everybody left the noise out, and were the vectors small beside it, the sum would be smaller than this. "
        "A sum that is large for another reason passes: it may hold that much noise, or that much signal. Noise that a "
        "few left out does not show.",
        "client software that leaves the noise out everywhere; not a client that wants to pass",
        ("integer-sum.bin", "session-open (noise, max_corrupt)", "session-close (count)"),
        _floor,
        Stage.FINISHED,
    ),
)
