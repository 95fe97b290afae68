"""RCP: the contribution of whoever holds the receipt is where the receipt says."""

from __future__ import annotations

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.transcript.merkle import ProofError, leaf_hash, verify_inclusion
from secagg.transcript.proof import LogProof
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.record import RecordError
from verifier.audit import Audit
from verifier.checks import Check, CheckFailedError, Findings, Level, Place
from verifier.families.log import check_prefix, open_foreign
from verifier.log_view import SESSIONS, TREE, session_entries
from verifier.session_lists import CONTRIBUTIONS
from verifier.session_record import SessionRecord
from verifier.session_values import CLOSED


def _receipt(audit: Audit, findings: Findings) -> None:
    """Rules: a checkpoint that the record continues; the close entry is in its log, the header in that entry's set."""
    data = audit.brought.receipt
    if data is None:
        findings.not_applicable("no receipt was given (--receipt)")
        return
    findings.count()
    proof, contribution = _parse(data)
    checkpoint = open_foreign(audit, proof.checkpoint, Place("receipt", None, "checkpoint"))
    check_prefix(audit.get(TREE), checkpoint, Place("receipt", None, "checkpoint"))
    close = contribution.close.encode("utf-8")
    try:
        verify_inclusion(leaf_hash(close), proof.index, checkpoint.size, proof.path, checkpoint.root)
    except ProofError as error:
        raise CheckFailedError.at(Place("receipt", None, "close"), f"not in the log: {error}") from None
    try:
        contribution.verify()
    except ProofError as error:
        raise CheckFailedError.at(Place("receipt", None, "contribution"), f"not in the closed set: {error}") from None
    signed = contribution.contribution
    try:
        verify_statement(signed.statement.identity, signed.statement.to_bytes(), signed.signature)
    except SignatureError:
        raise CheckFailedError.at(Place("receipt", None, "contribution"), "its identity did not sign it") from None
    _check_published(audit, contribution)
    findings.note(
        f"the contribution of {contribution.contribution.statement.identity.hex()} in session "
        f"{contribution.closing().session.hex()}, at position {contribution.position} (from 0) of "
        f"{contribution.closing().count}"
    )


def _parse(data: bytes) -> tuple[LogProof, ContributionProof]:
    try:
        proof = LogProof.parse(data)
        return proof, ContributionProof.from_bytes(proof.extra)
    except (ProofError, RecordError) as error:
        raise CheckFailedError.at(Place("receipt"), str(error)) from None


def _check_published(audit: Audit, contribution: ContributionProof) -> None:
    """The list that everybody reads has the same header in the same place."""
    session = contribution.closing().session
    if session not in audit.get(SESSIONS).places:
        raise CheckFailedError.at(Place("receipt", None, "close.session"), "of no session of this log")
    record = SessionRecord(audit, session_entries(audit, session))
    signed = record.get(CLOSED).signed
    if contribution.position >= len(signed) or signed[contribution.position] != contribution.contribution:
        place = record.files.place(CONTRIBUTIONS, contribution.position + 1)
        raise CheckFailedError.at(place, "not the contribution of the receipt")


CHECKS = (
    Check(
        "RCP-1",
        "The contribution of the receipt is included, unaltered, in the stated place",
        Level.META,
        "Whoever holds the receipt is in the closed set with exactly what it signed.",
        "a coordinator that gives a contributor other proofs than it publishes",
        ("receipt (--receipt)", "tile/entries/*", "contributions.jsonl"),
        _receipt,
    ),
)
