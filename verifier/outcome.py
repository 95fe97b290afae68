"""The verdict in words, for those who read no further: what the run came to, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from verifier.checks import Level, Mode, Stage
from verifier.report import Report, SessionEnd, SessionSummary, Verdict

_MAX_NAMED = 10

_WORDS = {
    Verdict.PASSED: "every check of this level passed",
    Verdict.FAILED: "at least one check failed",
    Verdict.INCOMPLETE: "no check failed, but not everything could be checked",
}
_AFTER_A_FAILURE = (
    "A failed check means that this copy is not what was signed, or that what was signed is not what your policy asks "
    "for. It may be a damaged download: get another copy and check again. If it fails again, show the operator this "
    "report."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """``sentence`` goes after the verdict and starts with a small letter; ``notes`` are whole sentences."""

    sentence: str
    notes: tuple[str, ...]


def outcome_of(report: Report) -> Outcome:
    """What a run came to."""
    sentence = _WORDS[report.verdict]
    if report.awaited:
        sentence = _awaited(report)
    elif report.verdict is Verdict.PASSED and not report.count(SessionEnd.RESULT):
        sentence += "; no sum was published in what was checked"
    return Outcome(sentence, tuple(_notes(report)))


def after_a_failure(report: Report) -> str:
    """What whoever sees a failed check should do; empty if none failed."""
    return _AFTER_A_FAILURE if report.verdict is Verdict.FAILED else ""


def counted(number: int, thing: str, things: str = "") -> str:
    """``1 session``, ``2 sessions``; ``things`` where the plural is another."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def of_settled(report: Report) -> str:
    """What the checks that passed are about, where some sessions have not ended."""
    ended = len(report.settled)
    if not ended:
        return "the log"
    return f"the log and the {counted(ended, 'session')} that {'has' if ended == 1 else 'have'} {_end_of(report)}"


def _end_of(report: Report) -> str:
    """What the level waits for."""
    return "been closed or ended" if report.level is Level.PREOPEN else "ended"


def _awaited(report: Report) -> str:
    waiting = len(report.awaited)
    have = "has" if waiting == 1 else "have"
    return f"{counted(waiting, 'session')} {have} not {_end_of(report)}; for {of_settled(report)}, every check passed"


def _notes(report: Report) -> Iterator[str]:
    if report.awaited and report.settled:
        named = " ".join(f"--session {session.session}" for session in report.settled[:_MAX_NAMED])
        more = " and so on" if len(report.settled) > _MAX_NAMED else ""
        yield f"To check only what has ended: {named}{more}"
    if report.awaited and not report.settled:
        yield "No session has ended: check again later."
    aborted = [session for session in report.sessions if session.end is SessionEnd.ABORTED]
    # Those first after which a sum may be known.
    aborted.sort(key=lambda session: not session.answers_released)
    yield from (_aborted(session) for session in aborted[:_MAX_NAMED])
    if len(aborted) > _MAX_NAMED:
        yield f"{counted(len(aborted) - _MAX_NAMED, 'more session')} aborted."


def _aborted(session: SessionSummary) -> str:
    start = f"Session {session.session} was aborted ({session.reason})"
    if session.mode is not Mode.PAIRWISE and session.stage >= Stage.CLOSED:
        # Who opens a one-shot session needs nobody after the close: whether it did, only they know.
        return (
            f"{start} after its close, with {counted(session.answers_released, 'answer')}: count its sum as published."
        )
    if not session.answers_released:
        return f"{start}; its abort entry counts no answers: by the coordinator's word, nothing was opened."
    answers = session.answers_released
    released = f"{counted(answers, 'answer')} had been released"
    return f"{start}; {released}: count its sum as published."
