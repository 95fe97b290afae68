"""ELG: who took part was allowed to, and nobody took part twice."""

from __future__ import annotations

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.transcript.merkle import Frontier, leaf_hash
from secagg.transcript.record import RecordError
from secagg.transcript.roster import RosterMember
from verifier.checks import Check, CheckFailedError, Findings, Level, Place, Stage
from verifier.log_view import roster_entry
from verifier.session_record import SessionRecord
from verifier.session_values import (
    ADVERTISED,
    KEYS,
    MAX_STATEMENT_BYTES,
    ROSTER,
    check_list,
    signed_lines,
)


def _in_roster(session: SessionRecord, findings: Findings) -> None:
    """Rules: the roster has size and root of the open entry; all identities of U1, which ascend, are among its own."""
    opened, tree, previous = session.parameters, Frontier(), b""
    wanted = _identities(session)
    position = 0
    # A roster may be larger than memory; both lists ascend, so one pass over it is enough.
    for place, line in signed_lines(session, ROSTER, MAX_STATEMENT_BYTES, opened.roster_size):
        identity = _member(place, line)
        if identity <= previous:
            raise CheckFailedError.at(place, "identities not in strictly ascending order")
        previous = identity
        position = _skip_strangers(session, wanted, position, identity, findings)
        while position < len(wanted) and wanted[position] == identity:
            position += 1
        tree.append(leaf_hash(line))
    check_list(session.files.place(ROSTER), tree, opened.roster_size, opened.roster)
    _skip_strangers(session, wanted, position, b"\xff" * 33, findings)
    findings.count(tree.size)


def _identities(session: SessionRecord) -> tuple[bytes, ...]:
    if session.entries.stage is Stage.OPENED:
        return ()
    return tuple(statement.identity for statement in session.get(ADVERTISED).statements)


def _member(place: Place, line: bytes) -> bytes:
    try:
        return RosterMember.from_bytes(line).identity
    except RecordError as error:
        raise CheckFailedError.at(place, str(error)) from None


def _skip_strangers(
    session: SessionRecord, wanted: tuple[bytes, ...], position: int, identity: bytes, findings: Findings
) -> int:
    """The first position of ``wanted`` that is not below an identity of the roster; what is below is not in it."""
    while position < len(wanted) and wanted[position] < identity:
        findings.fail(session.files.place(KEYS, position + 1, "statement.identity"), "not in the roster")
        position += 1
    return position


def _once(session: SessionRecord, findings: Findings) -> None:
    """Rules: no identity twice in U1, so none in U3; of all mask and share keys of U1 no two are the same."""
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
        ("roster.jsonl", "session-open (roster, roster_size)", "keys.jsonl (identity)"),
        _in_roster,
    ),
    Check(
        "ELG-2",
        "One contribution for an identity, and no sealing key twice",
        Level.META,
        "Nobody counts twice, and no two places of the cohort belong to whoever holds one key.",
        "a coordinator or client that enters one person several times",
        ("keys.jsonl (identity, mask_key, share_key)",),
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
