"""CON: every statement is signed, and what became of everybody who came is accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.transcript.statements import OneShotHeader, Signed
from verifier import one_shot_values
from verifier.checks import PAIRWISE, Check, Findings, Level, Mode, Stage
from verifier.pairwise_values import ADVERTISED, CLOSED_COHORT, SHARED
from verifier.roster_places import PLACES_ONCE
from verifier.session_lists import COMMITMENTS, CONTRIBUTIONS, DISPOSITIONS, KEYS, U2, fail_at
from verifier.session_record import SessionRecord
from verifier.session_values import CLOSED, AnyHeader

_SHOWN_EVERY = 4096


def _signatures(session: SessionRecord, findings: Findings) -> None:
    """Rules: each statement is signed by the identity that it names; a contribution has the session's length."""
    if session.mode is Mode.PAIRWISE:
        _check_signed(session, KEYS, session.get(ADVERTISED).signed, findings)
        if session.entries.stage >= Stage.SHARED:
            _check_signed(session, U2, session.get(SHARED).signed, findings)
    else:
        committed = session.get(one_shot_values.COMMITTED)
        _check_signed(session, COMMITMENTS, committed.signed, findings)
        _check_lengths(session, COMMITMENTS, committed.headers, findings)
    if session.entries.stage >= Stage.CLOSED:
        closed = session.get(CLOSED)
        _check_signed(session, CONTRIBUTIONS, closed.signed, findings)
        _check_lengths(session, CONTRIBUTIONS, closed.headers, findings)


def _check_lengths(session: SessionRecord, file: str, headers: Iterable[AnyHeader], findings: Findings) -> None:
    lanes, parts = session.lanes, 1
    if session.mode is Mode.COMMITTEE:
        parts = len(session.committee.members)
    for number, header in enumerate(headers, start=1):
        if header.lanes != lanes:
            place = session.files.place(file, number, "statement.lanes")
            findings.fail(place, f"{header.lanes}, the session has {lanes}")
        if isinstance(header, OneShotHeader) and len(header.parts) != parts:
            place = session.files.place(file, number, "statement.parts")
            findings.fail(place, f"{len(header.parts)}, the session has {parts}")


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
    """Rule: no two contributions have the digest of their upload, linear hash or a sealed part in common.

    With a key authority no two that were committed to: nobody may have known what another would send.
    """
    file, headers = CONTRIBUTIONS, tuple[AnyHeader, ...]()
    if session.mode is Mode.AUTHORITY:
        file, headers = COMMITMENTS, session.get(one_shot_values.COMMITTED).headers
    else:
        headers = session.get(CLOSED).headers
    seen: dict[str, dict[bytes, int]] = {}
    for number, header in enumerate(headers, start=1):
        findings.count()
        for field, digest in _digests(header):
            first = seen.setdefault(field.split("[")[0], {}).setdefault(digest, number)
            if first != number:
                place = session.files.place(file, number, f"statement.{field}")
                findings.fail(place, f"the same as in line {first}")
        if isinstance(header, OneShotHeader) and len(set(header.parts)) != len(header.parts):
            findings.fail(session.files.place(file, number, "statement.parts"), "the same part twice")


def _digests(header: AnyHeader) -> Iterator[tuple[str, bytes]]:
    yield "upload", header.upload
    yield "linear_hash", header.linear_hash
    if isinstance(header, OneShotHeader):
        yield from ((f"parts[{place}]", part) for place, part in enumerate(header.parts))


def _dispositions(session: SessionRecord, findings: Findings) -> None:
    if session.mode is Mode.PAIRWISE:
        session.get(CLOSED)
        findings.count(session.advertised.count)
        return
    came = session.get(one_shot_values.DISPOSITIONS_READ).indices
    findings.count(len(came))
    if session.mode is Mode.AUTHORITY:
        _check_all_accounted_for(session, came)


def _check_all_accounted_for(session: SessionRecord, came: tuple[int, ...]) -> None:
    """Rule: everybody who committed has a disposition, and nobody else has."""
    places = session.get(PLACES_ONCE).positions
    committed = [places[header.identity] for header in session.get(one_shot_values.COMMITTED).headers]
    if list(came) != committed:
        odd = min(set(came).symmetric_difference(committed))
        reason = f"index {odd} committed and is left out" if odd in committed else f"index {odd} did not commit"
        fail_at(session.files.place(DISPOSITIONS), reason)


def _missing(session: SessionRecord, findings: Findings) -> None:
    findings.count(len(session.get(CLOSED_COHORT).missing))


CHECKS = (
    Check(
        "CON-1",
        "Every statement is signed by the identity that it names, every contribution has the right length",
        Level.META,
        "Keys, commitments and contributions are those of their clients, unaltered.",
        "a coordinator that speaks for clients",
        ("keys.jsonl", "u2.jsonl", "commitments.jsonl", "contributions.jsonl (statement, signature, lanes, parts)"),
        _signatures,
        Stage.ADVERTISED,
    ),
    Check(
        "CON-2",
        "No upload, no linear hash and no sealed part is there twice",
        Level.META,
        "No contribution was copied from another: masked inputs, sealed boxes and ciphertexts of honest clients never "
        "coincide.",
        "a coordinator or client that counts one input several times",
        ("contributions.jsonl or commitments.jsonl (upload, linear_hash, parts)",),
        _unique,
        Stage.COMMITTED,
    ),
    Check(
        "CON-3",
        "Everybody who came is accepted, rejected or dropped, and the accepted are the contributions",
        Level.META,
        "Whoever came can see what became of them; nobody was left out of or slipped into the sum between the lists. A "
        "client with a receipt that finds itself dropped can prove it.",
        "a coordinator that loses contributions, or adds some that nobody sees",
        ("dispositions.jsonl", "contributions.jsonl", "commitments.jsonl", "close entry (counts and roots)"),
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
        PAIRWISE,
    ),
)
