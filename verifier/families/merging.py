"""MRG: who is in the sum may be in it, and a second session follows the first one whose bases it uses.

The sums of two sessions over different people would show what those sent who are in one only. So in ``two-session``
everybody is in both sums; in ``pilot-basis`` nobody is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import assert_never

from secagg.lora.fixed import BASIS_FILE
from secagg.transcript.entries import SessionOpen
from secagg.transcript.merge import (
    MAX_ATTEMPTS,
    BasisMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SecondMerge,
    admits,
    attempt_number,
    contributors_digest,
    second_session,
)
from verifier.checks import Check, Derived, Findings, InputMissingError, Level, Place, Stage
from verifier.entry_order import Kind
from verifier.log_view import SESSIONS, session_entries
from verifier.session_lists import CONTRIBUTIONS, fail_at
from verifier.session_record import SessionRecord
from verifier.session_values import CONTRIBUTORS

_SAME = ("coordinator", "log", "registrar", "roster", "base_model", "base_model_digest")
_SAME_OF_MERGE = {
    ProjectionMerge: ("update_norm", "seed", "columns"),
    BasisMerge: ("update_norm", "seed", "columns", "sides", "share"),
}
_FIRSTS = {ProjectionMerge: RangeMerge, BasisMerge: PilotMerge}


def _second_merge(session: SessionRecord) -> SecondMerge | None:
    merge = session.parameters.merge
    return merge if isinstance(merge, SecondMerge) else None


def _follows_none(findings: Findings) -> None:
    findings.not_applicable("a session whose merge follows no other")


# Who may be in the sum


def _admitted(session: SessionRecord, findings: Findings) -> None:
    """Rule: pilots contribute to a session of pilots, others to the one that follows it."""
    merge = session.parameters.merge
    if not isinstance(merge, PilotMerge | BasisMerge):
        findings.not_applicable("a session whose merge admits everybody")
        return
    for number, header in enumerate(session.get(CONTRIBUTORS).headers, start=1):
        findings.count()
        if not admits(merge, header.identity):
            place = session.files.place(CONTRIBUTIONS, number, "statement.identity")
            findings.fail(place, "drawn as a pilot" if isinstance(merge, BasisMerge) else "not drawn as a pilot")


# The first session


def _first(session: SessionRecord) -> SessionRecord:
    """Rules: the open entry names a session of this log that had ended with a sum, and is what follows it."""
    parameters, merge = session.parameters, _second_merge(session)
    if merge is None:
        raise LookupError("a session that follows no other was asked for its first")
    place = session.entry_place(parameters.TYPE, "merge.first")
    known = session.audit.get(SESSIONS).places
    if merge.first not in known:
        fail_at(place, "no session of this log")
    last, ended_at = known[merge.first][-1]
    if last not in {Kind.RESULT, Kind.ONE_SHOT_RESULT} or ended_at > _opened_at(session):
        fail_at(place, "the session had no result before this one was opened")
    first = SessionRecord(session.audit, session_entries(session.audit, merge.first))
    if _attempt_of(parameters) is None:
        fail_at(session.entry_place(parameters.TYPE, "session"), "not the identifier of an attempt after merge.first")
    if not isinstance(first.parameters.merge, _FIRSTS[type(merge)]):
        fail_at(place, f"a session of the merge {first.parameters.merge.TYPE}")
    for name in _SAME:
        if getattr(parameters, name) != getattr(first.parameters, name):
            fail_at(session.entry_place(parameters.TYPE, name), "another than the first session's")
    for name in _SAME_OF_MERGE[type(merge)]:
        if getattr(merge, name) != getattr(first.parameters.merge, name):
            fail_at(session.entry_place(parameters.TYPE, f"merge.{name}"), "another than the first session's")
    if merge.fixed != first.result.digest_of(BASIS_FILE):
        fail_at(session.entry_place(parameters.TYPE, "merge.fixed"), "not the bases that the first session published")
    if isinstance(merge, ProjectionMerge) and parameters.min_contributors != first.close.count:
        reason = f"{parameters.min_contributors}, the first session has {first.close.count} contributors"
        fail_at(session.entry_place(parameters.TYPE, "min_contributors"), reason)
    return first


FIRST = Derived("MRG-2", _first)
"""The session that one follows. Of sessions that follow one only."""


def _opened_at(session: SessionRecord) -> int:
    return session.audit.get(SESSIONS).places[session.parameters.session][0][1]


def _attempt_of(parameters: SessionOpen) -> int | None:
    """Which attempt at a second session this is, from 0; None if its identifier is that of none."""
    merge = parameters.merge
    return attempt_number(parameters.session, merge.first) if isinstance(merge, SecondMerge) else None


def _follows(session: SessionRecord, findings: Findings) -> None:
    if _second_merge(session) is None:
        _follows_none(findings)
        return
    session.get(FIRST)
    findings.count()


def _same_people(session: SessionRecord, findings: Findings) -> None:
    """Rules: of ``two-session``, the first sum's identities are in the digest and in this sum, and no others.

    Of ``pilot-basis`` nobody in this sum is in the first, or in one that another attempt was closed over.
    """
    merge = _second_merge(session)
    if merge is None:
        _follows_none(findings)
        return
    first = session.get(FIRST)
    own = [header.identity for header in session.get(CONTRIBUTORS).headers]
    match merge:
        case ProjectionMerge():
            if contributors_digest(own) != merge.contributors:
                fail_at(session.files.place(CONTRIBUTIONS), "not the contributors that the open entry names")
            if contributors_digest(_checked_identities(first)) != merge.contributors:
                place = session.entry_place(session.parameters.TYPE, "merge.contributors")
                fail_at(place, "not the contributors of the first session")
        case BasisMerge():
            for other in (first, *_other_closed_attempts(session, merge.first)):
                before = _checked_identities(other)
                for number, identity in enumerate(own, start=1):
                    if identity in before:
                        line = session.files.place(CONTRIBUTIONS, number, "statement.identity")
                        findings.fail(line, f"in the sum of session {other.name} already")
        case _:
            assert_never(merge)
    findings.count(len(own))


def _other_closed_attempts(session: SessionRecord, first: bytes) -> Iterator[SessionRecord]:
    """Attempts of which a sum may have been opened, whatever the log says of their end."""
    known = session.audit.get(SESSIONS).places
    for attempt in range(MAX_ATTEMPTS):
        identifier = second_session(first, attempt)
        if identifier in known and identifier != session.parameters.session:
            other = SessionRecord(session.audit, session_entries(session.audit, identifier))
            if other.entries.close is not None:
                yield other


def _checked_identities(session: SessionRecord) -> frozenset[bytes]:
    """Who is in the closed set of a session that is among those that are checked."""
    wanted = session.audit.wanted
    if wanted and session.parameters.session not in wanted:
        # Its list may be anything: whether those in it signed was not checked.
        raise InputMissingError(Place(), f"session {session.name} was not asked for")
    return frozenset(header.identity for header in session.get(CONTRIBUTORS).headers)


def _one_after_the_other(session: SessionRecord, findings: Findings) -> None:
    """Rule: every earlier attempt was aborted before the next one was opened, and this one before the one after it."""
    merge = _second_merge(session)
    if merge is None:
        _follows_none(findings)
        return
    session.get(FIRST)
    own = _attempt_of(session.parameters)
    if own is None:
        raise LookupError("an identifier of no attempt has passed")
    known = session.audit.get(SESSIONS).places
    attempts = [known.get(second_session(merge.first, attempt)) for attempt in range(own + 2)]
    place = session.entry_place(session.parameters.TYPE, "session")
    findings.count()
    for attempt, (before, after) in enumerate(itertools.pairwise(attempts)):
        if before is None:
            findings.fail(place, f"attempt {own}, and attempt {attempt} is not in the log")
        elif after is not None and (before[-1][0] is not Kind.ABORT or before[-1][1] > after[0][1]):
            findings.fail(place, f"attempt {attempt} was not aborted before attempt {attempt + 1} was opened")


_OPENED = "session-open (merge, session) of both sessions"
CHECKS = (
    Check(
        "MRG-1",
        "The merge admits everybody in the sum",
        Level.META,
        "In a session of pilots nobody else is in the sum, and in the session after it no pilot: who is one was fixed "
        "when the session opened, by a hash of seed and identity.",
        "a coordinator that sees who comes and then decides whose updates make the bases, or has somebody in both sums",
        ("contributions.jsonl (identity)", "session-open (merge)"),
        _admitted,
        Stage.CLOSED,
    ),
    Check(
        "MRG-2",
        "A second session follows the first one whose bases it uses",
        Level.META,
        "What everybody projects on are the bases that an ended session of the same people, model and test matrices "
        "published.",
        "a coordinator that makes up bases, in which only what it looks for is left",
        (_OPENED, "session-result (aggregate) of the first"),
        _follows,
    ),
    Check(
        "MRG-3",
        "A second sum is over the people of the first one, or over none of them",
        Level.META,
        "No difference of the two sums shows what somebody sent who is in one of them only.",
        "a coordinator that leaves somebody out of the second sum",
        ("contributions.jsonl of both sessions", "session-open (merge)"),
        _same_people,
        Stage.CLOSED,
    ),
    Check(
        "MRG-4",
        "Attempts at a second session were made one after the other",
        Level.META,
        "Each attempt before this one had been aborted when the next was opened, so that two of them never stand side "
        "by side.",
        "a coordinator that opens second sessions until their sums differ in one contribution",
        (_OPENED, "which entries other attempts have"),
        _one_after_the_other,
    ),
)
"""All checks of the family."""
