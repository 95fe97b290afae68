"""SES: the entries of each session are in order, agree with each other and with the lists that they commit to."""

from __future__ import annotations

from verifier import one_shot_values
from verifier.audit import Audit
from verifier.checks import PAIRWISE, Check, Findings, Level, Mode, Place, Stage
from verifier.log_view import INDEX, LOG_KEY, SESSIONS, TREE
from verifier.pairwise_values import ADVERTISED, CLOSED, CONTRIBUTORS, COUNTS, GRAPH_PARAMETERS, SHARED
from verifier.session_lists import COMMITMENTS, CONTRIBUTIONS, KEYS, U2
from verifier.session_record import SessionRecord
from verifier.session_values import MERGING


def _canonical(audit: Audit, findings: Findings) -> None:
    audit.get(INDEX)
    findings.count(len(audit.get(TREE)))


def _order(audit: Audit, findings: Findings) -> None:
    findings.count(len(audit.get(SESSIONS).places))


def _parameters(session: SessionRecord, findings: Findings) -> None:
    """Rules: the log's own key and origin; the policy's floors; what the masks need exists."""
    opened, policy = session.parameters, session.audit.policy
    key = session.audit.get(LOG_KEY)
    findings.count()
    if opened.coordinator != key.public_key:
        findings.fail(session.entry_place(opened.TYPE, "coordinator"), "not the key that signs this log")
    if opened.log != key.name:
        findings.fail(session.entry_place(opened.TYPE, "log"), "not the origin of this log")
    if opened.min_contributors < policy.floors.min_contributors:
        reason = f"{opened.min_contributors}, the policy asks for {policy.floors.min_contributors}"
        findings.fail(session.entry_place(opened.TYPE, "min_contributors"), reason)
    if policy.floors.base_models and opened.base_model_digest not in policy.floors.base_models:
        findings.fail(session.entry_place(opened.TYPE, "base_model_digest"), "not one that the policy allows")
    if session.mode is not Mode.PAIRWISE:
        # The coordinator chooses the closed set: whoever of the roster is corrupt may be in it.
        _check_tolerated(session, min(opened.roster_size, opened.encoding.max_contributors), findings)
    elif session.entries.stage is not Stage.OPENED:
        _check_tolerated(session, session.advertised.count, findings)
        session.get(GRAPH_PARAMETERS)


def _check_tolerated(session: SessionRecord, cohort: int, findings: Findings) -> None:
    opened, tolerated = session.parameters, session.audit.policy.floors.tolerated_corrupt
    if opened.max_corrupt < tolerated * cohort:
        reason = f"{opened.max_corrupt} of {cohort}, the policy asks for a fraction of {tolerated}"
        findings.fail(session.entry_place(opened.TYPE, "max_corrupt"), reason)


def _sets(session: SessionRecord, findings: Findings) -> None:
    session.get(COUNTS)
    findings.count(len(session.get(ADVERTISED).statements))
    if session.entries.stage >= Stage.SHARED:
        findings.count(len(session.get(SHARED).present))
    if session.entries.stage >= Stage.CLOSED:
        findings.count(len(session.get(CONTRIBUTORS).indices))


def _bound(session: SessionRecord, findings: Findings) -> None:
    """Rules: each statement names this open entry, that of U2 the root of U1, a contribution the root of U2."""
    if session.mode is not Mode.PAIRWISE:
        _bound_one_shot(session, findings)
        return
    for index, advertised in enumerate(session.get(ADVERTISED).statements):
        _check_session(session, (KEYS, index + 1), advertised.session, findings)
    if session.entries.stage < Stage.SHARED:
        return
    for index, shared in enumerate(session.get(SHARED).statements):
        if shared is None:
            continue
        _check_session(session, (U2, index + 1), shared.session, findings)
        if shared.advertised != session.advertised.root:
            findings.fail(session.files.place(U2, index + 1, "statement.advertised"), "not the root of U1")
    if session.entries.stage < Stage.CLOSED:
        return
    for position, header in enumerate(session.get(CLOSED).headers):
        _check_session(session, (CONTRIBUTIONS, position + 1), header.session, findings)
        if header.shared != session.shared.root:
            place = session.files.place(CONTRIBUTIONS, position + 1, "statement.shared")
            findings.fail(place, "not the root of U2")


def _bound_one_shot(session: SessionRecord, findings: Findings) -> None:
    """Rule: each header names this open entry, and where in the log it stands."""
    lists = [(COMMITMENTS, session.get(one_shot_values.COMMITTED).headers)]
    if session.entries.stage >= Stage.CLOSED:
        lists.append((CONTRIBUTIONS, session.get(one_shot_values.CLOSED).headers))
    (_, opened_at), *_ = session.audit.get(SESSIONS).places[session.parameters.session]
    for file, headers in lists:
        for number, header in enumerate(headers, start=1):
            _check_session(session, (file, number), header.session, findings)
            if header.opened_at != opened_at:
                place = session.files.place(file, number, "statement.opened_at")
                findings.fail(place, f"{header.opened_at}, the open entry is entry {opened_at}")


def _check_session(session: SessionRecord, where: tuple[str, int], named: bytes, findings: Findings) -> None:
    findings.count()
    if named != session.digest:
        file, line = where
        findings.fail(session.files.place(file, line, "statement.session"), "not the digest of the open entry")


_AT_CLOSE = ("dispositions.jsonl", "contributions.jsonl", "linear-hashes.bin", "masked-limb-sum.bin")
_AT_RESULT = ("openings.jsonl", "integer-sum.bin", "aggregate")
_FILES_FROM: dict[Mode, dict[Stage, tuple[str, ...]]] = {
    Mode.PAIRWISE: {
        Stage.ADVERTISED: ("keys.jsonl",),
        Stage.SHARED: ("u2.jsonl",),
        Stage.CLOSED: _AT_CLOSE,
        Stage.FINISHED: (*_AT_RESULT, "pair-boxes.jsonl"),
    },
    Mode.COMMITTEE: {Stage.CLOSED: _AT_CLOSE, Stage.FINISHED: (*_AT_RESULT, "secret-sum.bin")},
    Mode.AUTHORITY: {
        Stage.COMMITTED: ("commitments.jsonl",),
        Stage.CLOSED: (*_AT_CLOSE, "ciphertexts", "ciphertext-sum.bin"),
        Stage.FINISHED: (*_AT_RESULT, "secret-sum.bin", "attestations.jsonl"),
    },
}
"""The files that a session has from each entry on."""


def _ended(session: SessionRecord, findings: Findings) -> None:
    """Rules: it has ended, and published nothing that its entries do not speak of.

    At a level below ``sum`` that is about the time before an opening, a closed session will do. While a session goes
    on, the files of its next entry may be there before the entry is.
    """
    findings.count()
    entries = session.entries
    if entries.has_ended:
        for stage, names in _FILES_FROM[session.mode].items():
            for name in names:
                if stage > entries.stage and session.files.exists(name):
                    findings.fail(session.files.place(name), "the session ended before the entry that would name it")
        return
    place = Place("the log")
    if session.audit.level is not Level.PREOPEN:
        findings.unavailable(place, "the session has neither a result nor an abort yet")
    elif entries.stage < Stage.CLOSED:
        findings.unavailable(place, "the session is not closed yet")


def _adapters(session: SessionRecord, findings: Findings) -> None:
    findings.count(len(session.get(MERGING).layout.tensors))


_ENTRIES = "tile/entries/*"

LOG_CHECKS = (
    Check(
        "SES-1",
        "Every entry is a canonical record of a known type and version",
        Level.META,
        "Each entry means one thing, and nothing in the log is passed over because it is not understood.",
        "a coordinator that logs what clients and auditors read differently",
        (_ENTRIES,),
        _canonical,
    ),
    Check(
        "SES-2",
        "Every session has its entries once, in legal order, after its roster's entry",
        Level.META,
        "A session has one U1, one U2, one closed set and one end, and its roster was fixed before it opened. (In "
        "place of U1 and U2, one-shot sessions with a key authority have one set of commitments, others none.) "
        "A second entry of a kind fails the whole record.",
        "a coordinator that closes a session twice, or opens two sets of one session",
        (_ENTRIES,),
        _order,
    ),
)

SESSION_CHECKS = (
    Check(
        "SES-3",
        "The parameters meet the policy and are safe",
        Level.META,
        "The session is run by the log's key in this log, keeps the auditor's floors, and for the number of clients of "
        "a pairwise session there are a degree and a threshold at which no part of the sum shows. (Who opens the sum "
        "of a one-shot session is for SES-8.)",
        "a coordinator that opens sessions which protect nobody",
        ("session-open", "keys-advertised (count)", "policy ([session])"),
        _parameters,
    ),
    Check(
        "SES-4",
        "Who came (U1), shared keys (U2), contributed (U3) is as logged, each within the one before, none too few",
        Level.META,
        "Who came, who shared keys and who contributed was fixed in the log, step by step; every set holds "
        "min_contributors, and the closed one a quorum of U1.",
        "a coordinator that changes the sets afterwards or sums over fewer than announced",
        ("keys.jsonl", "u2.jsonl", "keys-advertised, keys-shared, session-close, session-result (counts and roots)"),
        _sets,
        Stage.ADVERTISED,
        PAIRWISE,
    ),
    Check(
        "SES-5",
        "Every statement names this session's open entry and the sets before it",
        Level.META,
        "All statements are younger than the open entry with all its parameters, and none was made for another session "
        "or another cohort.",
        "a coordinator that replays statements",
        (
            "keys.jsonl",
            "u2.jsonl",
            "commitments.jsonl",
            "contributions.jsonl (session, advertised, shared)",
            "session-open",
        ),
        _bound,
        Stage.ADVERTISED,
    ),
    Check(
        "SES-6",
        "The session has come to an end that the level can judge",
        Level.META,
        "There is a result or an abort in the log (at level preopen a close entry is enough), and no file of a step "
        "that the session did not come to.",
        "a verdict on a session of which only the beginning is there; results of a session that has none",
        (_ENTRIES, "which files of the session there are"),
        _ended,
    ),
    Check(
        "SES-7",
        "Layout, adapter template or manifest, and fixed tensors are those of the open entry",
        Level.META,
        "Everybody means the same tensors in the same places of the vector, of the same base model and rank, and the "
        "same public matrices.",
        "a coordinator that gives the sum another meaning afterwards",
        (
            "layout.json",
            "adapter.json",
            "fixed.safetensors",
            "session-open (layout, adapter, merge, encoding.dimension)",
        ),
        _adapters,
    ),
)
