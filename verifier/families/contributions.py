"""CON: every statement is signed, and what became of everybody who came is accounted for."""

from __future__ import annotations

from collections.abc import Iterable

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.transcript.statements import Signed
from verifier.checks import Check, Findings, Level, Stage
from verifier.session_record import SessionRecord
from verifier.session_values import ADVERTISED, CLOSED, CLOSED_COHORT, CONTRIBUTIONS, KEYS, SHARED, U2

_SHOWN_EVERY = 4096


def _signatures(session: SessionRecord, findings: Findings) -> None:
    """Rules: each statement is signed by the identity that it names; a contribution has the session's lanes."""
    _check_signed(session, KEYS, session.get(ADVERTISED).signed, findings)
    if session.entries.stage >= Stage.SHARED:
        _check_signed(session, U2, session.get(SHARED).signed, findings)
    if session.entries.stage < Stage.CLOSED:
        return
    closed = session.get(CLOSED)
    _check_signed(session, CONTRIBUTIONS, closed.signed, findings)
    lanes = session.parameters.encoding.field_layout().lanes
    for position, header in enumerate(closed.headers):
        if header.lanes != lanes:
            place = session.files.place(CONTRIBUTIONS, position + 1, "statement.lanes")
            findings.fail(place, f"{header.lanes}, the session has {lanes}")


def _check_signed(session: SessionRecord, file: str, leaves: Iterable[Signed | None], findings: Findings) -> None:
    for number, leaf in enumerate(leaves, start=1):
        if number % _SHOWN_EVERY == 0:
            session.audit.progress(f"session {session.name}: {number:,} signatures of {file}")
        if leaf is None:
            continue
        findings.count()
        try:
            verify_statement(leaf.statement.identity, leaf.statement.to_bytes(), leaf.signature)
        except SignatureError as error:
            findings.fail(session.files.place(file, number, "signature"), str(error))


def _unique(session: SessionRecord, findings: Findings) -> None:
    """Rule: no two contributions have the digest of their upload, or of its linear hash, in common."""
    uploads: dict[bytes, int] = {}
    hashes: dict[bytes, int] = {}
    for number, header in enumerate(session.get(CLOSED).headers, start=1):
        findings.count()
        for field, digest, seen in (("upload", header.upload, uploads), ("linear_hash", header.linear_hash, hashes)):
            first = seen.setdefault(digest, number)
            if first != number:
                place = session.files.place(CONTRIBUTIONS, number, f"statement.{field}")
                findings.fail(place, f"the same as in line {first}")


def _dispositions(session: SessionRecord, findings: Findings) -> None:
    session.get(CLOSED)
    findings.count(session.advertised.count)


def _missing(session: SessionRecord, findings: Findings) -> None:
    findings.count(len(session.get(CLOSED_COHORT).missing))


CHECKS = (
    Check(
        "CON-1",
        "Every statement is signed by the identity that it names, every contribution has the right length",
        Level.META,
        "Keys, commitments and contributions are those of their clients, unaltered.",
        "a coordinator that speaks for clients",
        ("keys.jsonl", "u2.jsonl", "contributions.jsonl (statement, signature, lanes)"),
        _signatures,
        Stage.ADVERTISED,
    ),
    Check(
        "CON-2",
        "No upload and no linear hash is there twice",
        Level.META,
        "No contribution was copied from another: masked inputs of honest clients never coincide.",
        "a coordinator or client that counts one input several times",
        ("contributions.jsonl (upload, linear_hash)",),
        _unique,
        Stage.CLOSED,
    ),
    Check(
        "CON-3",
        "Everybody who came is accepted, rejected or dropped, and the accepted are the contributions",
        Level.META,
        "Whoever came can see what became of them; nobody was left out of or slipped into the sum between the lists. A "
        "client with a receipt that finds itself dropped can prove it.",
        "a coordinator that loses contributions, or adds some that nobody sees",
        ("dispositions.jsonl", "contributions.jsonl", "session-close (counts and roots)"),
        _dispositions,
        Stage.CLOSED,
    ),
    Check(
        "CON-4",
        "What contributors did not mask with is allowed, and the same from both ends",
        Level.META,
        "Each contribution is masked with at least the threshold of neighbours that shared keys, and of every pair "
        "both ends or neither applied the mask: what is published opens the whole sum and nothing less.",
        "a coordinator and clients that thin out somebody's masks",
        ("contributions.jsonl (missing)", "u2.jsonl", "keys-advertised (root)"),
        _missing,
        Stage.CLOSED,
    ),
)
