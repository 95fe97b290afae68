"""What a run shows, in words: for whom a number of passed checks is not an answer.

Each sentence is about a level or about something that was or was not at hand; none is about single checks, which say
themselves what they prove.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from verifier.checks import Level, Mode, Stage
from verifier.noise_statement import NOISE_ASSUMPTION, noise_shown, noise_unseen
from verifier.outcome import counted, of_settled
from verifier.report import Report, SessionEnd, SessionSummary, Verdict

LEVEL_NAMES = {level: level.name.lower() for level in Level}

_SHOWS_OF_LOG = "The log is the one that the policy means; its entries are exactly those that were signed{cosigned}."
_KEEPS_FLOORS = "The parameters keep the floors of the policy."
_SHOWS_OF_SESSIONS = {
    Mode.PAIRWISE: (
        "In each {kind} that was checked, the log fixed step by step, as far as the session came, who might take part, "
        f"who came, who shared keys and who contributed, by statements that these clients signed. {_KEEPS_FLOORS}"
    ),
    Mode.COMMITTEE: (
        "In each {kind} that was checked, the log fixed, as far as the session came, who might take part and who opens "
        "the sum, and then who contributed, by statements that these clients signed; of the members who open it no "
        "more are unknown to the policy, or did not sign the key that boxes are sealed to, than the session takes to "
        f"be corrupt. {_KEEPS_FLOORS}"
    ),
    Mode.AUTHORITY: (
        "In each {kind} that was checked, the log fixed, as far as the session came, who might take part and to whose "
        "key they encrypt, then what each committed to, and then who contributed: nothing that had not been committed "
        "to, by statements that these clients signed. The policy names the authority, which signed that it made the "
        f"key for this session, and at least one of those who had to attest. {_KEEPS_FLOORS}"
    ),
}
_ADDED_UP = (
    "the masked inputs at hand are those that the contributors signed, and the masked sum is their sum by exact "
    "addition."
)
_FITS = (
    "which leaves in no lane of the masked sum a larger error than honest contributions do, and who opened it signed "
    "that over the close entry"
)
_SHOWS = {
    Mode.PAIRWISE: {
        Level.META: "everybody who came is accounted for.",
        Level.PREOPEN: (
            "the masked sum that was fixed at the close, before anything was opened, is the sum of what the "
            "contributors signed."
        ),
        Level.SUM: (
            "the published sum, its mean and what is merged of it follow from that masked sum and from answers that "
            "contributors signed after the close; for nobody were both kinds of share published."
        ),
        Level.FULL: _ADDED_UP,
    },
    Mode.COMMITTEE: {
        Level.META: (
            "the contributions that were closed over are of different identities of the roster, and enough members "
            "were named to open their sum."
        ),
        Level.PREOPEN: "the masked sum that was fixed at the close is the sum of what the contributors signed.",
        Level.SUM: (
            "the published sum, its mean and what is merged of it follow from that masked sum and a secret sum that "
            f"share sums of as many named members as are needed give, {_FITS}."
        ),
        Level.FULL: _ADDED_UP,
    },
    Mode.AUTHORITY: {
        Level.META: "everybody who committed is accounted for.",
        Level.PREOPEN: (
            "the masked sum that was fixed at the close is the sum of what the contributors signed, and the one "
            "ciphertext that the close entry names is the sum of theirs."
        ),
        Level.SUM: (
            "the published sum, its mean and what is merged of it follow from that masked sum and a secret sum, "
            f"{_FITS}; enough attestors signed the close entry and its ciphertext, too."
        ),
        Level.FULL: _ADDED_UP,
    },
}
_NEEDS = {
    Level.META: Stage.CLOSED,
    Level.PREOPEN: Stage.CLOSED,
    Level.SUM: Stage.FINISHED,
    Level.FULL: Stage.CLOSED,
}
"""How far a session must have come for the sentence to be about it."""
_LEAVES_OPEN = {
    Level.META: "Nothing is said of any sum: no vector was read.",
    Level.PREOPEN: "Nothing is said of openings and results, if there are any.",
    Level.SUM: "",
    Level.FULL: "",
}
_INPUTS_UNREAD = (
    "The masked inputs themselves were not read. A contributor who works for the coordinator can have signed a "
    "hash that fits another input; that is no more than it could do by uploading that input."
)
_AGAINST = (
    "This holds against a coordinator that {acts} as it likes, alone or with up to max_corrupt clients of a session, "
    "and against whoever serves this record."
)
_AGAINST_OPENERS = (
    " Of one-shot sessions it holds also if those who open the sum work for the coordinator, since what they open is "
    "checked against the masked sum. That they open nothing else is another matter: see what no record can show."
)
_NEED_NOT_OVERLAP = (
    "The policy's quorums need not overlap: two histories can each have one, even if every witness is honest."
)
_LIMITS = (
    "That a client was refused, or was not heard, before it got a receipt.",
    "That the roster has no invented people, if the operator is the registrar or has its key: then it can fill a "
    "session with clients of its own, and no minimum means anything.",
    "Which shares somebody sent to the coordinator that it did not publish.",
    "What the sum shows of one contribution to whoever knows many of the others, or other sums of the same people.",
)
_PEOPLE = 2
"""How many of these are about people; what they did with their vectors follows."""
_LIMITS_OF = {
    Mode.PAIRWISE: (),
    Mode.COMMITTEE: (
        "That members of a committee opened no other set in private. As many as are needed can open any sum together "
        "with the coordinator, and the vector of each single contributor; that is what a session's bound on corrupt "
        "members is about, and nothing else stands against it.",
    ),
    Mode.AUTHORITY: (
        "That a key authority decrypted nothing but the sum. Together with the coordinator it can decrypt the "
        "ciphertext of each single contributor and so see its vector, and no attestor would notice.",
        "That an authority made its key for this session only, has destroyed it, and waited for the attestations; and "
        "that an attestor checked what it signed.",
    ),
}
"""What no record shows of those who open a sum."""
_UNSEEN_IN_ONE_SHOT = (
    "That a client was left out of a one-shot session with a committee before its close: who came is the "
    "coordinator's list there, and a client that has a receipt for its upload is the only witness."
)
_ONE_OPENING = (
    "Nobody finds a second small secret sum that fits a masked sum in every lane (one that is drawn at random has a "
    "negligible chance; to search for one is a problem in the lattice of the public polynomials)."
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
    name = LEVEL_NAMES[report.level]
    if report.verdict is Verdict.PASSED:
        heading = f"What this shows (level {name})"
    elif report.awaited:
        heading = f"What this shows of {of_settled(report)} (level {name})"
    else:
        heading = f"What level {name} would show if every check had passed; as it is, it does not"
    acts = "lies, withholds, replays or forks" if report.policy.overlap else "lies, withholds or replays"
    against, modes = _AGAINST.format(acts=acts), _modes(report)
    if modes != (Mode.PAIRWISE,) and modes:
        against += _AGAINST_OPENERS
    limits = [*_LIMITS, *(limit for mode in modes for limit in _LIMITS_OF[mode])]
    limits.insert(_PEOPLE, noise_unseen(_spoken_of(report)))
    if Mode.COMMITTEE in modes:
        limits.append(_UNSEEN_IN_ONE_SHOT)
    return Statement(heading, tuple(_shows(report)), against, _assumptions(report), _remarks(report), tuple(limits))


def _modes(report: Report) -> tuple[Mode, ...]:
    """The modes of the sessions that the sentences are about, in the order of the enum."""
    there = {session.mode for session in _spoken_of(report)}
    return tuple(mode for mode in Mode if mode in there)


def _spoken_of(report: Report) -> tuple[SessionSummary, ...]:
    """The sessions that the sentences are about."""
    return report.settled if report.awaited else report.sessions


def _shows(report: Report) -> Iterator[str]:
    """No sentence without a session that came so far; where only some did, how many."""
    yield _SHOWS_OF_LOG.format(cosigned=" and cosigned" if report.policy.has_quorum else "")
    modes = _modes(report)
    for mode in modes:
        # What holds of every session needs no name for its kind where there is only one kind.
        kind = "session" if modes == (Mode.PAIRWISE,) else _NAMES[mode][0]
        yield _SHOWS_OF_SESSIONS[mode].format(kind=kind)
        yield from _shows_of_levels(report, mode)
    yield from noise_shown(_spoken_of(report))


def _shows_of_levels(report: Report, mode: Mode) -> Iterator[str]:
    sessions = _spoken_of(report)
    same = [session for session in sessions if session.mode is mode]
    names = ("session", "sessions") if len(same) == len(sessions) else _NAMES[mode]
    for level in Level:
        if level > report.level:
            return
        reached = sum(session.stage >= _NEEDS[level] for session in same)
        if reached:
            all_of_them = reached == len(sessions)
            where = "" if all_of_them else _where(_NEEDS[level], counted(reached, *names), reached)
            sentence = where + _SHOWS[mode][level]
            yield sentence[0].upper() + sentence[1:]


def _where(stage: Stage, sessions: str, reached: int) -> str:
    """Of which sessions a sentence speaks."""
    if stage is Stage.FINISHED:
        return f"in the {sessions} with a result, "
    return f"in the {sessions} that {'was' if reached == 1 else 'were'} closed, "


_NAMES = {
    Mode.PAIRWISE: ("pairwise session", "pairwise sessions"),
    Mode.COMMITTEE: ("one-shot session with a committee", "one-shot sessions with a committee"),
    Mode.AUTHORITY: ("one-shot session with a key authority", "one-shot sessions with a key authority"),
}


def _assumptions(report: Report) -> tuple[str, ...]:
    found = ["SHA-256 is collision resistant, and nobody forges Ed25519 signatures (a quantum computer could)."]
    shared, witnesses = report.policy.overlap, report.policy.witnesses
    if shared > 1:
        found.append(
            f"At most {shared - 1} of the {witnesses} witnesses of the policy "
            f"{'is' if shared == 2 else 'are'} dishonest (two quorums share at least {shared})."
        )
    elif shared:
        found.append(f"None of the {witnesses} witnesses of the policy is dishonest (two quorums share at least 1).")
    found.append("The registrars of the policy signed a roster of real people, one identity each.")
    found.append("At most max_corrupt clients of a session work for the coordinator.")
    if any(session.noise is not None for session in _spoken_of(report)):
        found.append(NOISE_ASSUMPTION)
    if report.level in {Level.PREOPEN, Level.SUM} and _any_closed(report):
        found.append("The linear hash is collision resistant (ring-SIS of degree 2048 over 2^64, norm up to 2^50).")
    opened = any(
        session.mode is not Mode.PAIRWISE and session.end is SessionEnd.RESULT for session in _spoken_of(report)
    )
    if report.level >= Level.SUM and opened:
        found.append(_ONE_OPENING)
    return tuple(found)


def _any_closed(report: Report) -> bool:
    return any(session.stage >= Stage.CLOSED for session in _spoken_of(report))


def _remarks(report: Report) -> tuple[str, ...]:
    """What this run in particular left out."""
    found = [_LEAVES_OPEN[report.level]] if _LEAVES_OPEN[report.level] else []
    if report.level in {Level.PREOPEN, Level.SUM} and _any_closed(report):
        found.append(_INPUTS_UNREAD)
    found.extend(_remarks_on_log(report))
    if report.awaited:
        found.append(f"Not ended, and nothing is said of what comes of it: {counted(len(report.awaited), 'session')}.")
    if report.left_out:
        were = "was" if report.left_out == 1 else "were"
        found.append(
            f"{counted(report.left_out, 'session')} of the log {were} not asked for, and nothing is said of "
            f"{'it' if report.left_out == 1 else 'them'}."
        )
    if report.level >= Level.PREOPEN and not _any_closed(report):
        found.append("No session that was checked was ever closed: there is no sum here.")
    elif report.level >= Level.SUM and not report.count(SessionEnd.RESULT):
        found.append("No session that was checked has a result: there is no sum here.")
    released = sum(1 for session in report.sessions if session.answers_released)
    if released:
        found.append(
            f"{counted(released, 'session')} {'was' if released == 1 else 'were'} aborted after answers had been "
            "released: count what they would have summed as published."
        )
    return tuple(found)


def _remarks_on_log(report: Report) -> Iterator[str]:
    if not report.policy.has_quorum:
        yield "The policy asks for no witness: other people may have been shown another history of this log."
    elif not report.policy.overlap:
        yield _NEED_NOT_OVERLAP
    if not report.policy.limits_age:
        yield "The policy sets no max_age_s: the log may have gone on since, and this may be an older state of it."
    if not report.compared:
        who = "coordinator and witnesses rewrote together" if report.policy.overlap else "the coordinator rewrote"
        yield f"The log was not compared with an earlier checkpoint (--since): one that {who} would pass."
