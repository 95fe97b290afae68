"""What a run shows, in words: for whom a number of passed checks is not an answer.

Each sentence is about a level or about something that was or was not at hand; none is about single checks, which say
themselves what they prove.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.checks import Level
from verifier.report import Report, SessionEnd, Verdict

LEVEL_NAMES = {level: level.name.lower() for level in Level}

_SHOWS = {
    Level.META: (
        "The log is the one that the policy means; its entries are exactly those that were signed and cosigned.",
        "In each session that was checked, the log fixed step by step who might take part, who came, who shared keys "
        "and who contributed, by statements that these clients signed. Everybody who came is accounted for, and the "
        "parameters keep the floors of the policy.",
    ),
    Level.PREOPEN: (
        "The masked sum that was fixed at the close, before anything was opened, is the sum of what the contributors "
        "signed.",
    ),
    Level.SUM: (
        "The published sum, its mean and the merged adapter follow from that masked sum and from answers that "
        "contributors signed after the close; for nobody were both kinds of share published.",
    ),
    Level.FULL: (
        "The masked inputs at hand are those that the contributors signed, and the masked sum is their sum by exact "
        "addition.",
    ),
}
_LEAVES_OPEN = {
    Level.META: "Nothing is said of any sum: no vector was read.",
    Level.PREOPEN: "Nothing is said of openings and results, if there are any.",
    Level.SUM: (
        "The masked inputs themselves were not read. A contributor who works for the coordinator can have signed a "
        "hash that fits another input; that is no more than it could do by uploading that input."
    ),
    Level.FULL: "",
}
_AGAINST = (
    "This holds against a coordinator that lies, withholds, replays or forks as it likes, alone or with up to "
    "max_corrupt clients of a session, and against whoever serves this record."
)
_LIMITS = (
    "That a client was refused, or was not heard, before it got a receipt.",
    "That the roster has no invented people, if the operator is the registrar or has its key: then it can fill a "
    "session with clients of its own, and no minimum means anything.",
    "That a client added noise, clipped, or trained on anything in particular. The declared mechanism is none: no "
    "noise was added.",
    "Which shares somebody sent to the coordinator that it did not publish.",
    "What the sum shows of one contribution to whoever knows many of the others, or other sums of the same people.",
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What is shown or would be, against whom, on which assumptions, and what remains open."""

    heading: str
    shows: tuple[str, ...]
    against: str
    assumptions: tuple[str, ...]
    remarks: tuple[str, ...]
    limits: tuple[str, ...]


def statement_of(report: Report) -> Statement:
    """The statement of a run."""
    passed = report.verdict is Verdict.PASSED
    name = LEVEL_NAMES[report.level]
    if passed:
        heading = f"What this shows (level {name})"
    else:
        heading = f"What level {name} would show if every check had passed; as it is, it does not"
    shows = tuple(text for level in Level if level <= report.level for text in _SHOWS[level])
    return Statement(heading, shows, _AGAINST, _assumptions(report), _remarks(report), _LIMITS)


def _assumptions(report: Report) -> tuple[str, ...]:
    found = ["SHA-256 is collision resistant, and nobody forges Ed25519 signatures (a quantum computer could)."]
    if report.policy.has_quorum:
        found.append(
            f"So few of the {report.policy.witnesses} witnesses of the policy are dishonest that any two quorums "
            "share an honest one."
        )
    found.append("The registrars of the policy signed a roster of real people, one identity each.")
    found.append("At most max_corrupt clients of a session work for the coordinator.")
    if report.level in {Level.PREOPEN, Level.SUM}:
        found.append("The linear hash is collision resistant (ring-SIS of degree 2048 over 2^64, norm up to 2^50).")
    return tuple(found)


def _remarks(report: Report) -> tuple[str, ...]:
    """What this run in particular left out."""
    found = [_LEAVES_OPEN[report.level]] if _LEAVES_OPEN[report.level] else []
    if not report.policy.has_quorum:
        found.append("The policy asks for no witness: other people may have been shown another history of this log.")
    if not report.compared:
        found.append(
            "The log was not compared with an earlier checkpoint (--since): one that coordinator and witnesses rewrote "
            "together would pass."
        )
    if report.left_out:
        found.append(f"{report.left_out} sessions of the log were not asked for, and nothing is said of them.")
    if report.level >= Level.PREOPEN and not any(session.contributors for session in report.sessions):
        found.append("No session that was checked was ever closed: there is no sum here.")
    elif report.level >= Level.SUM and not report.count(SessionEnd.RESULT):
        found.append("No session that was checked has a result: there is no sum here.")
    released = sum(1 for session in report.sessions if session.answers_released)
    if released:
        found.append(
            f"{released} of the sessions were aborted after answers had been released: count their sums as published."
        )
    return tuple(found)
