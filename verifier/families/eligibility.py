"""ELG: who took part was allowed to, and nobody took part twice."""

from __future__ import annotations

from secagg.crypto.signing import SignatureError, verify_statement
from verifier.checks import Check, Findings, Level, Mode, Place, Stage
from verifier.log_view import roster_entry
from verifier.pairwise_values import ADVERTISED
from verifier.roster_places import PLACES_ONCE, ROSTER_PLACES
from verifier.session_lists import KEYS
from verifier.session_record import SessionRecord


def _in_roster(session: SessionRecord, findings: Findings) -> None:
    findings.count(session.get(ROSTER_PLACES).size)


def _once(session: SessionRecord, findings: Findings) -> None:
    """Rules: no identity twice in U1, so none in U3; of all mask and share keys of U1 no two are the same.

    In one-shot sessions everybody who came has one place in the roster.
    """
    if session.mode is not Mode.PAIRWISE:
        findings.count(len(session.get(PLACES_ONCE).positions))
        return
    identities: dict[bytes, int] = {}
    keys: dict[bytes, int] = {}
    for index, statement in enumerate(session.get(ADVERTISED).statements):
        findings.count()
        first = identities.setdefault(statement.identity, index)
        if first != index:
            place = session.files.place(KEYS, index + 1, "statement.identity")
            findings.fail(place, f"the identity of index {first} again")
        for field, key in (("mask_key", statement.mask_key), ("share_key", statement.share_key)):
            if key in keys:
                place = session.files.place(KEYS, index + 1, f"statement.{field}")
                findings.fail(place, f"a sealing key of index {keys[key]} again")
            keys.setdefault(key, index)


def _registrar(session: SessionRecord, findings: Findings) -> None:
    """Rules: the policy pins who signed; the signature is over the root and the size that the session opened with."""
    opened = session.parameters
    entry = roster_entry(session.audit, opened)
    place = Place("log entry roster", None, "signature")
    findings.count()
    if opened.registrar not in session.audit.policy.registrars:
        findings.fail(session.entry_place(opened.TYPE, "registrar"), "not one that the policy pins")
    if entry.head.size != opened.roster_size:
        reason = f"{entry.head.size}, the open entry has {opened.roster_size}"
        findings.fail(Place("log entry roster", None, "head.size"), reason)
    try:
        verify_statement(entry.head.registrar, entry.head.to_bytes(), entry.signature)
    except SignatureError as error:
        findings.fail(place, str(error))


CHECKS = (
    Check(
        "ELG-1",
        "Everybody who came is in the roster that was frozen at the opening",
        Level.META,
        "Nobody joined who was not on the list before anybody knew who would come.",
        "a coordinator that adds clients of its own after the opening",
        (
            "roster.jsonl",
            "session-open (roster, roster_size)",
            "keys.jsonl or commitments.jsonl and contributions.jsonl",
        ),
        _in_roster,
    ),
    Check(
        "ELG-2",
        "One contribution for an identity, and no sealing key twice",
        Level.META,
        "Nobody counts twice, and no two places of the cohort belong to whoever holds one key. In one-shot sessions, "
        "which have no such keys, each contribution is at its identity's place in the roster.",
        "a coordinator or client that enters one person several times",
        ("keys.jsonl (identity, mask_key, share_key)", "one-shot: roster.jsonl, commitments.jsonl, dispositions.jsonl"),
        _once,
        Stage.ADVERTISED,
    ),
    Check(
        "ELG-3",
        "A registrar that the policy pins signed the roster",
        Level.META,
        "Somebody the auditor trusts with it vouches that each identity is one person. Whether that is so, no record "
        "shows: a registrar can invent people.",
        "a coordinator that writes its own roster",
        ("roster entry", "session-open (roster, roster_size, registrar)", "policy ([registrar])"),
        _registrar,
    ),
)
