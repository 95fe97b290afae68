"""SES of one-shot sessions: who opens the sum is known to the auditor, and the sets are those of the log."""

from __future__ import annotations

import hashlib

from secagg.derive.openers import is_bound, is_prepared
from secagg.he.errors import CiphertextError
from secagg.he.residues import CONTEXT_BYTES, decode_context
from verifier import one_shot_values
from verifier.checks import AUTHORITY, ONE_SHOT, Check, Findings, Level, Mode, Stage
from verifier.session_lists import fail_at
from verifier.session_record import SessionRecord

CONTEXT = "context.bin"


def _openers(session: SessionRecord, findings: Findings) -> None:
    """Rules: of a committee, no more members than may be corrupt are unknown to the policy; an authority is known.

    Whoever is known has signed the keys beside its name: a member its sealing key, an authority its context for this
    session. Of the attestors, fewer are unknown than attestations are asked for: one of them at least is known.
    """
    pinned = session.audit.policy.openers
    place = session.entry_place("session-open", "opening")
    findings.count()
    if session.mode is Mode.COMMITTEE:
        committee = session.committee
        unknown = sum(member.identity not in pinned.keys or not is_bound(member) for member in committee.members)
        if unknown > committee.max_corrupt:
            reason = (
                f"{unknown} of {len(committee.members)} members are not pinned, or did not sign their sealing key, "
            )
            findings.fail(place, f"{reason}at most {committee.max_corrupt} may be corrupt")
        return
    authority = session.authority
    if authority.identity not in pinned.keys:
        findings.fail(place, "the policy does not pin the key authority")
    if not is_prepared(session.one_shot, authority):
        findings.fail(place, "the key authority did not sign that it made this context for this session")
    unknown = sum(attestor not in pinned.attestors for attestor in authority.attestors)
    if unknown >= authority.attestations:
        reason = f"{unknown} of {len(authority.attestors)} attestors are not pinned, "
        findings.fail(place, f"{reason}and {authority.attestations} attestations are enough")


def _sets(session: SessionRecord, findings: Findings) -> None:
    session.get(one_shot_values.COUNTS)
    findings.count()
    findings.count(len(session.get(one_shot_values.COMMITTED).headers))
    if session.entries.stage >= Stage.CLOSED:
        session.get(one_shot_values.NAMED)
        findings.count(len(session.get(one_shot_values.CONTRIBUTORS).headers))


def _context(session: SessionRecord, findings: Findings) -> None:
    """Rules: of the digest in the open entry; a public key of the one set of parameters that there is."""
    data = session.files.read_exactly(CONTEXT, CONTEXT_BYTES)
    place = session.files.place(CONTEXT)
    findings.count()
    if hashlib.sha256(data).digest() != session.authority.context:
        fail_at(place, "another digest than the open entry's")
    try:
        decode_context(data)
    except CiphertextError as error:
        fail_at(place, str(error))


CHECKS: tuple[Check[SessionRecord], ...] = (
    Check(
        "SES-8",
        "Those who open the sum are known to the policy",
        Level.META,
        "Of a committee, no more members are unknown to the auditor, or did not sign the key that boxes were sealed "
        "to, than the session takes to be corrupt. A key authority is known, and signed that it made the context for "
        "this session; at least one of those who attested the sum of ciphertexts is known, too. Whether who is known "
        "behaves, no record shows.",
        "a coordinator that opens sums by itself, under names of members, authorities or attestors that it made up, or "
        "with keys of its own beside names that are known",
        ("session-open (opening)", "policy ([openers])"),
        _openers,
        Stage.OPENED,
        ONE_SHOT,
    ),
    Check(
        "SES-9",
        "Who committed and who contributed is as logged, none too few, and enough members were named",
        Level.META,
        "Who contributed was fixed in the log; with a key authority so was, before, the digest of what each would "
        "send, and honest clients send nothing until they see that. Every set holds min_contributors. A committee's "
        "close names as many members as open a sum.",
        "a coordinator that changes the sets afterwards, sums over fewer than announced, or adds a contribution that "
        "was made after others had been seen",
        ("commitments.jsonl", "contributions.jsonl", "contributions-committed, one-shot-close, one-shot-result"),
        _sets,
        Stage.OPENED,
        ONE_SHOT,
    ),
    Check(
        "SES-10",
        "The encryption context is that of the open entry",
        Level.META,
        "Everybody encrypted to one public key, which the log had fixed, of the one set of parameters that there is. "
        "Who has its secret key, no record shows: only that the authority signed that it made it (SES-8).",
        "a coordinator that hands a key of its own to some clients",
        (CONTEXT, "session-open (opening.context)"),
        _context,
        Stage.OPENED,
        AUTHORITY,
    ),
)
"""All checks of the module."""
