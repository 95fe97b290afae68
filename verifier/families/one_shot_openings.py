"""OPN of one-shot sessions: who was to open the sum did so, over this close entry, and what they opened is the sum.

The secret sum is certified as the coordinator certifies it: it is small, and leaves an error within the bound of
honest contributions in every lane of the masked sum, padding included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.seeded_shamir import LARGEST_LIFT, agree, reconstruct_sum, shares_from_bytes
from secagg.crypto.signing import SignatureError, verify_statement
from secagg.derive.ring_opening import MaskedSum, public_polynomials_key
from secagg.transcript.merkle import Frontier, leaf_hash
from secagg.transcript.openers import SummedCiphertext
from secagg.transcript.statements import Attestation, AuthorityAnswer, MemberAnswer, Signed
from verifier.checks import AUTHORITY, COMMITTEE, ONE_SHOT, Check, Derived, Findings, Level, Mode, Place, Stage
from verifier.families.sums import MASKED_SUM
from verifier.one_shot_values import CONTRIBUTORS, NAMED
from verifier.session_lists import (
    MAX_ANSWER_BYTES,
    MAX_STATEMENT_BYTES,
    OPENINGS,
    check_list,
    fail_at,
    signed_leaf,
    signed_lines,
)
from verifier.session_record import SessionRecord

SECRET_SUM = "secret-sum.bin"  # noqa: S105 - the name of a file that everybody may read
ATTESTATIONS = "attestations.jsonl"

_SECRET_SUM_BYTES = 8 * 4096

Secrets = npt.NDArray[np.int64]
Shares = npt.NDArray[np.uint64]
Lanes = npt.NDArray[np.uint64]


# The answers


def _published(session: SessionRecord) -> Mapping[int, Signed]:
    """Rules: answers of openers of this session only, ascending by place, under the root in the result entry."""
    kind: type[MemberAnswer | AuthorityAnswer] = AuthorityAnswer
    openers = [session.authority.identity] if session.mode is Mode.AUTHORITY else []
    if session.mode is Mode.COMMITTEE:
        kind, openers = MemberAnswer, [member.identity for member in session.committee.members]
    places = {identity: place for place, identity in enumerate(openers)}
    tree, last = Frontier(), -1
    answers: dict[int, Signed] = {}
    for place, line in signed_lines(session, OPENINGS, MAX_ANSWER_BYTES, len(openers)):
        signed = signed_leaf(place, line)
        if not isinstance(signed.statement, kind):
            fail_at(place, f"a statement of type {signed.statement.TYPE}")
        number = places.get(signed.statement.identity)
        if number is None:
            fail_at(place, "of nobody who opens this session")
        if number <= last:
            fail_at(place, f"member {number} after {last}")
        last = number
        answers[number] = signed
        tree.append(leaf_hash(line))
    check_list(session.files.place(OPENINGS), tree, len(answers), session.result.openings)
    return answers


PUBLISHED: Derived[SessionRecord, Mapping[int, Signed]] = Derived("OPN-3", _published)
"""The answers under the root in the result entry, by place in the committee, an authority's at 0. Needs FINISHED."""


def _check_answer(session: SessionRecord, place: Place, signed: Signed) -> None:
    """Raise CheckFailedError unless a statement is over this session and close entry, and signed by its identity."""
    statement = signed.statement
    if not isinstance(statement, MemberAnswer | AuthorityAnswer | Attestation):
        fail_at(place, f"a statement of type {statement.TYPE}")
    if statement.session != session.digest:
        fail_at(place, "of another session")
    if statement.close != session.entries.close_digest:
        fail_at(place, "to another close entry")
    try:
        verify_statement(statement.identity, statement.to_bytes(), signed.signature)
    except SignatureError as error:
        fail_at(place, str(error))


def _answers(session: SessionRecord) -> Mapping[int, MemberAnswer]:
    """Rules: of members that the close entry names, over this close entry, signed; as many as are needed."""
    named = session.get(NAMED).members
    answers: dict[int, MemberAnswer] = {}
    for number, (member, signed) in enumerate(session.get(PUBLISHED).items(), start=1):
        place = session.files.place(OPENINGS, number)
        if member not in named:
            fail_at(place, f"member {member} is not named in the close entry")
        _check_answer(session, place, signed)
        if isinstance(signed.statement, MemberAnswer):
            answers[member] = signed.statement
    needed = session.committee.needed
    if len(answers) < needed:
        fail_at(session.files.place(OPENINGS), f"{len(answers)} answers, {needed} are needed")
    return answers


ANSWERS: Derived[SessionRecord, Mapping[int, MemberAnswer]] = Derived("OPN-6", _answers)
"""The members' answers by place, each signed over this close entry. Needs FINISHED."""


# What they open


def _secret_sum(session: SessionRecord) -> Secrets:
    data = session.files.read_exactly(SECRET_SUM, _SECRET_SUM_BYTES)
    if hashlib.sha256(data).digest() != session.one_shot_result.secret_sum:
        fail_at(session.files.place(SECRET_SUM), "another digest than the result entry's")
    return np.frombuffer(data, dtype="<i8").astype(np.int64)


PUBLISHED_SECRET: Derived[SessionRecord, Secrets] = Derived("OPN-10", _secret_sum)
"""The sum of the mask secrets that the result entry names, right or wrong. Needs FINISHED."""


def _from_shares(session: SessionRecord) -> Secrets:
    """Rules: ``needed`` answers were used, and give the published secret sum; exactly those that do not fit dissent."""
    answers, result, needed = session.get(ANSWERS), session.one_shot_result, session.committee.needed
    place = session.entry_place(result.TYPE, "used")
    if len(result.used) != needed:
        fail_at(place, f"{len(result.used)} members, a sum is interpolated from {needed}")
    strangers = set(result.used).difference(answers)
    if strangers:
        fail_at(place, f"member {min(strangers)}, which gave no answer")
    shares = _share_sums(session, answers)
    points = np.array([member + 1 for member in result.used], dtype=np.uint64)
    used = np.stack([shares[member] for member in result.used])
    # Of any size: whether it is small is OPN-10's.
    found = reconstruct_sum(points, used, LARGEST_LIFT)
    if not np.array_equal(found, session.get(PUBLISHED_SECRET)):
        fail_at(session.files.place(SECRET_SUM), "not what the share sums of the used members give")
    dissenting = tuple(
        member
        for member, share in shares.items()
        if member not in result.used
        and not agree(np.append(points, np.uint64(member + 1)), np.vstack([used, share]), needed)
    )
    if dissenting != result.dissenting:
        found_members = ", ".join(map(str, dissenting)) or "none"
        fail_at(session.entry_place(result.TYPE, "dissenting"), f"those that do not fit are {found_members}")
    return found


def _share_sums(session: SessionRecord, answers: Mapping[int, MemberAnswer]) -> dict[int, Shares]:
    shares: dict[int, Shares] = {}
    for number, (member, answer) in enumerate(answers.items(), start=1):
        try:
            shares[member] = shares_from_bytes(answer.share_sum)
        except ArithmeticInputError as error:
            fail_at(session.files.place(OPENINGS, number, "statement.share_sum"), str(error))
    return shares


FROM_SHARES: Derived[SessionRecord, Secrets] = Derived("OPN-7", _from_shares)
"""The secret sum that a committee opened. Needs FINISHED."""


def _from_authority(session: SessionRecord) -> Secrets:
    """Rules: one answer, of the authority, over this close entry, signed; it is the published secret sum."""
    signed = session.get(PUBLISHED).get(0)
    place = session.files.place(OPENINGS, 1)
    if signed is None or not isinstance(signed.statement, AuthorityAnswer):
        fail_at(session.files.place(OPENINGS), "no answer of the authority")
    _check_answer(session, place, signed)
    found = np.frombuffer(signed.statement.secret_sum, dtype="<i4").astype(np.int64)
    if not np.array_equal(found, session.get(PUBLISHED_SECRET)):
        fail_at(session.files.place(SECRET_SUM), "not what the authority answered")
    return found


FROM_AUTHORITY: Derived[SessionRecord, Secrets] = Derived("OPN-8", _from_authority)
"""The secret sum that an authority opened. Needs FINISHED."""


def _certified(session: SessionRecord) -> Lanes:
    """Rules: of the digest in the result entry; small; an error within the bound in every lane, padding included."""
    session.get(PUBLISHED_SECRET)
    secret = session.get(FROM_SHARES if session.mode is Mode.COMMITTEE else FROM_AUTHORITY)
    contributors = len(session.get(CONTRIBUTORS).indices)
    lanes = session.get(MASKED_SUM).lanes
    session.audit.progress("lattice errors of the masked sum")
    masked = MaskedSum(session.one_shot.ring_mask(), public_polynomials_key(session.digest), lanes, contributors)
    try:
        return masked.certified(secret)
    except CertificationError as error:
        fail_at(session.files.place(SECRET_SUM), str(error))


CERTIFIED: Derived[SessionRecord, Lanes] = Derived("OPN-10", _certified)
"""The sum of the vectors, padding included: the masked sum without its ring mask. Needs FINISHED."""


# The checks


def _attested(session: SessionRecord, findings: Findings) -> None:
    """Rules: of attestors of the open entry, each once, over this close entry and its ciphertext; enough of them."""
    session.get(NAMED)
    opener, authority = session.one_shot_close.opener, session.authority
    last = b""
    for place, line in signed_lines(session, ATTESTATIONS, MAX_STATEMENT_BYTES, len(authority.attestors)):
        signed = signed_leaf(place, line)
        statement = signed.statement
        if not isinstance(statement, Attestation):
            fail_at(place, f"a statement of type {statement.TYPE}")
        if statement.identity not in authority.attestors:
            fail_at(place, "of nobody whom the open entry names")
        if statement.identity <= last:
            fail_at(place, "identities not in strictly ascending order")
        last = statement.identity
        if not isinstance(opener, SummedCiphertext) or statement.ciphertext_sum != opener.digest:
            fail_at(place, "to another ciphertext than the close entry's")
        _check_answer(session, place, signed)
        findings.count()
    if findings.examined < authority.attestations:
        reason = f"{findings.examined} attestations, {authority.attestations} are needed"
        fail_at(session.files.place(ATTESTATIONS), reason)


def _check_answers(session: SessionRecord, findings: Findings) -> None:
    findings.count(len(session.get(ANSWERS)))


def _check_shares(session: SessionRecord, findings: Findings) -> None:
    session.get(FROM_SHARES)
    findings.count(len(session.get(ANSWERS)))


def _check_authority(session: SessionRecord, findings: Findings) -> None:
    session.get(FROM_AUTHORITY)
    findings.count()


def _check_certified(session: SessionRecord, findings: Findings) -> None:
    findings.count(session.get(CERTIFIED).size)


CHECKS: tuple[Check[SessionRecord], ...] = (
    Check(
        "OPN-6",
        "Enough members answered, each named in the close entry and over it",
        Level.SUM,
        "Each share sum is signed by a member that the close entry names, over that entry, so after the set and the "
        "masked sum were fixed. What a member told the coordinator besides, no record shows.",
        "a coordinator that invents answers, or asks before or about another close",
        (OPENINGS, "one-shot-close (opener.members)", "session-open (opening)"),
        _check_answers,
        Stage.FINISHED,
        COMMITTEE,
    ),
    Check(
        "OPN-7",
        "The share sums of the used members give the secret sum, and who dissents is named",
        Level.SUM,
        "The secret sum in the record is what the members opened together. Share sums that do not fit it are named "
        "without blame: a contributor that dealt inconsistent shares looks the same as a member that lies.",
        "a coordinator that publishes another secret sum, or conceals that members disagree",
        (OPENINGS, SECRET_SUM, "one-shot-result (used, dissenting)"),
        _check_shares,
        Stage.FINISHED,
        COMMITTEE,
    ),
    Check(
        "OPN-8",
        "The authority answered over the close entry, with the secret sum",
        Level.SUM,
        "The secret sum in the record is what the authority signed that it decrypted, over the close entry that names "
        "the sum of the ciphertexts. What else it decrypted, no record shows.",
        "a coordinator that publishes another secret sum, or asks about another close",
        (OPENINGS, SECRET_SUM, "one-shot-close", "session-open (opening)"),
        _check_authority,
        Stage.FINISHED,
        AUTHORITY,
    ),
    Check(
        "OPN-9",
        "Enough attestors signed the close entry and its sum of ciphertexts",
        Level.SUM,
        "So many of the attestors in the open entry say that they checked the record of the closed set and its "
        "ciphertexts. That the authority waited for them, no record shows.",
        "a coordinator that has a sum decrypted that nobody recomputed",
        (ATTESTATIONS, "one-shot-close (opener.digest)", "session-open (opening)"),
        _attested,
        Stage.FINISHED,
        AUTHORITY,
    ),
    Check(
        "OPN-10",
        "The secret sum is that of the result entry, small, and leaves a small error in every lane",
        Level.SUM,
        "The secret sum opens this masked sum: what is left beside whole steps of the vectors is within the bound of "
        "honest contributions in every lane, padding included.",
        "contributors, members or authorities that open something that is not the sum",
        (SECRET_SUM, "masked-limb-sum.bin", "one-shot-result (secret_sum)", "session-open"),
        _check_certified,
        Stage.FINISHED,
        ONE_SHOT,
    ),
)
"""All checks of the module."""
