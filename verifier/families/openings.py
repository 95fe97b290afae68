"""OPN: the published answers are those of contributors, to this close entry, and open what the masks were made of.

Everything is followed from the shares: seeds, roots, mask keys and pair seeds are computed and compared with what
their owners signed before the masked inputs came.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.derive import boxes
from secagg.derive.opening import ClosedCohort, OpeningError, Removal, what_masks
from secagg.transcript.merkle import Frontier, ProofError, leaf_hash, verify_inclusion
from secagg.transcript.published import PairBox, PairPromise, PublishedPair, decode_published_pair
from secagg.transcript.record import RecordError
from secagg.transcript.statements import SelfMaskShare, ShareStatement, Signed, UnmaskStatement
from verifier.checks import (
    PAIRWISE,
    Check,
    CheckFailedError,
    Derived,
    Findings,
    InputRefusedError,
    Level,
    Mode,
    Place,
    Stage,
)
from verifier.families import one_shot_openings
from verifier.pairwise_values import ADVERTISED, CLOSED_COHORT, CONTRIBUTORS
from verifier.session_lists import MAX_ANSWER_BYTES, OPENINGS, check_list, fail_at, signed_leaf, signed_lines
from verifier.session_record import SessionRecord

PAIR_BOXES = "pair-boxes.jsonl"

MAX_PAIR_BYTES = 8192
"""A pair box with its path."""

_PAIR_SEED = slice(2 * boxes.COMMITMENT_BYTES, 3 * boxes.COMMITMENT_BYTES)


# The answers


def _published(session: SessionRecord) -> Mapping[int, Signed]:
    """Rules: answers only, of members of U1, ascending by index, under the root in the result entry."""
    indices = {member.identity: index for index, member in enumerate(session.get(ADVERTISED).statements)}
    tree = Frontier()
    answers: dict[int, Signed] = {}
    last = -1
    for place, line in signed_lines(session, OPENINGS, MAX_ANSWER_BYTES, session.close.count):
        signed = signed_leaf(place, line)
        if not isinstance(signed.statement, UnmaskStatement):
            fail_at(place, f"a statement of type {signed.statement.TYPE}")
        index = indices.get(signed.statement.identity)
        if index is None:
            fail_at(place, "not of a member of U1")
        if index <= last:
            fail_at(place, f"index {index} after {last}")
        last = index
        answers[index] = signed
        tree.append(leaf_hash(line))
    check_list(session.files.place(OPENINGS), tree, len(answers), session.result.openings)
    return answers


PUBLISHED: Derived[SessionRecord, Mapping[int, Signed]] = Derived("OPN-3", _published)
"""The answers under the root in the result entry, by index; nobody's signature is checked. Needs FINISHED."""


def _answers(session: SessionRecord) -> Mapping[int, UnmaskStatement]:
    """Rules: of a contributor, over this session and this close entry, and signed by its key."""
    contributors = frozenset(session.get(CONTRIBUTORS).indices)
    answers: dict[int, UnmaskStatement] = {}
    for number, (index, signed) in enumerate(session.get(PUBLISHED).items(), start=1):
        place = session.files.place(OPENINGS, number)
        statement = signed.statement
        if not isinstance(statement, UnmaskStatement):
            fail_at(place, f"a statement of type {statement.TYPE}")
        if index not in contributors:
            fail_at(place, f"index {index} is not in the closed set")
        if statement.session != session.digest:
            fail_at(place, "of another session")
        if statement.close != session.entries.close_digest:
            fail_at(place, "to another close entry")
        try:
            verify_statement(statement.identity, statement.to_bytes(), signed.signature)
        except SignatureError as error:
            fail_at(place, str(error))
        answers[index] = statement
    return answers


ANSWERS: Derived[SessionRecord, Mapping[int, UnmaskStatement]] = Derived("OPN-1", _answers)
"""The answers, each signed by a contributor over this close entry. Needs FINISHED."""


def _mask_neighbours(cohort: ClosedCohort, index: int) -> list[int]:
    """Whom a contributor masked with: its neighbours in U2 but for those it missed."""
    missing = cohort.missing[index]
    around = cohort.graph.neighbours(index)
    return [other for other in around if cohort.shared[other] is not None and other not in missing]


def _right_kinds(session: SessionRecord) -> Mapping[int, UnmaskStatement]:
    """Rules: a share of each mask neighbour and of nobody else; of a contributor its self-mask, else its root."""
    answers, cohort = session.get(ANSWERS), session.get(CLOSED_COHORT)
    for number, (index, statement) in enumerate(answers.items(), start=1):
        place = session.files.place(OPENINGS, number, "statement.shares")
        expected = _mask_neighbours(cohort, index)
        if [share.index for share in statement.shares] != expected:
            fail_at(place, "not one share of each client that it masked with")
        for share in statement.shares:
            if isinstance(share, SelfMaskShare) != (share.index in cohort.missing):
                kind = "in the sum" if share.index in cohort.missing else "not in the sum"
                fail_at(place, f"a share of type {share.TYPE} of index {share.index}, which is {kind}")
    return answers


RIGHT_KINDS: Derived[SessionRecord, Mapping[int, UnmaskStatement]] = Derived("OPN-2", _right_kinds)
"""The answers, each with what its contributor has to give and nothing else. Needs FINISHED."""


# Pairs with clients that are not in the sum


class _Pairs:
    """Published pairs by sender and recipient; remembers whose were asked for, so that an error can be placed."""

    def __init__(self, pairs: Mapping[tuple[int, int], PublishedPair]) -> None:
        self._pairs = pairs
        self.asked: set[int] = set()

    def pair_box(self, sender: int, recipient: int) -> bytes:
        """The sealed pair seed."""
        self.asked.add(sender)
        pair = self._pairs[sender, recipient]
        return pair.box if isinstance(pair, PairBox) else b""

    def pair_commitment(self, sender: int, recipient: int) -> bytes:
        """What the sender promised of the seed."""
        self.asked.add(sender)
        return self._pairs[sender, recipient].commitments[_PAIR_SEED]


def _needed_pairs(cohort: ClosedCohort) -> dict[tuple[int, int], type[PublishedPair]]:
    """Sender and recipient of every pair that a mask in the sum was made with, ascending, and how it is published."""
    needed: dict[tuple[int, int], type[PublishedPair]] = {}
    for gone in cohort.dropped():
        for user in cohort.users(gone):
            # Of a dropped sender the seed follows from its root; of a contributor only the box has it.
            needed[min(gone, user), max(gone, user)] = PairPromise if gone < user else PairBox
    return dict(sorted(needed.items()))


def _pairs(session: SessionRecord) -> Mapping[tuple[int, int], PublishedPair]:
    """Rules: exactly the pairs that are needed, in order, each under the root of boxes that its sender signed."""
    cohort = session.get(CLOSED_COHORT)
    needed = _needed_pairs(cohort)
    expected = iter(needed.items())
    pairs: dict[tuple[int, int], PublishedPair] = {}
    for place, line in signed_lines(session, PAIR_BOXES, MAX_PAIR_BYTES, len(needed)):
        try:
            pair = decode_published_pair(line)
        except RecordError as error:
            fail_at(place, str(error))
        ends, kind = next(expected)
        if (pair.sender, pair.recipient) != ends or not isinstance(pair, kind):
            fail_at(place, f"{pair.TYPE} of {pair.sender} and {pair.recipient}, expected {kind.TYPE} of {ends}")
        _check_path(cohort, pair, place)
        pairs[ends] = pair
    if len(pairs) != len(needed):
        fail_at(session.files.place(PAIR_BOXES), f"{len(pairs)} pairs, {len(needed)} are needed")
    return pairs


def _check_path(cohort: ClosedCohort, pair: PublishedPair, place: Place) -> None:
    sender = cohort.shared[pair.sender]
    if not isinstance(sender, ShareStatement):
        fail_at(place, f"index {pair.sender} did not share keys")
    digest = hashlib.sha256(pair.box).digest() if isinstance(pair, PairBox) else pair.pair_box
    leaf = leaf_hash(boxes.box_leaf_of_digests(pair.recipient, pair.share_box, digest, pair.commitments))
    recipients = cohort.graph.neighbours(pair.sender)
    try:
        verify_inclusion(leaf, recipients.index(pair.recipient), len(recipients), pair.path, sender.boxes)
    except ProofError as error:
        fail_at(place, f"not under the root of boxes that index {pair.sender} signed: {error}")


PAIRS: Derived[SessionRecord, Mapping[tuple[int, int], PublishedPair]] = Derived("OPN-5", _pairs)
"""The published pairs by sender and recipient, as their senders signed them. Needs FINISHED."""


# What all of it opens


def _enough(session: SessionRecord) -> Mapping[int, UnmaskStatement]:
    """Rules: as many shares as the threshold of each secret that is needed."""
    answers, cohort = session.get(RIGHT_KINDS), session.get(CLOSED_COHORT)
    counts = Counter(share.index for statement in answers.values() for share in statement.shares)
    for index in (*cohort.missing, *(index for index in cohort.dropped() if cohort.users(index))):
        if counts[index] < cohort.threshold:
            reason = f"{counts[index]} shares of index {index}, {cohort.threshold} are needed"
            fail_at(session.files.place(OPENINGS), reason)
    return answers


ENOUGH: Derived[SessionRecord, Mapping[int, UnmaskStatement]] = Derived("OPN-1", _enough)
"""The answers, which are enough to open every secret that is needed. Needs FINISHED."""


def _opened(session: SessionRecord) -> Removal:
    """Rules: shares of each secret give what its owner committed to; mask keys follow; pairs hold what was promised.

    An error about a client whose pairs were not asked for yet is about its secrets and OPN-4's; any other is OPN-5's:
    pairs of a sender come up only once its own secret, where that is needed, has been found.
    """
    answers, pairs = session.get(ENOUGH), _Pairs(session.get(PAIRS))
    session.audit.progress(f"seeds and roots from {len(answers)} answers")
    try:
        return what_masks(session.get(CLOSED_COHORT), answers, pairs)
    except OpeningError as error:
        if error.index in pairs.asked:
            failure = CheckFailedError.at(session.files.place(PAIR_BOXES), error.reason)
            raise InputRefusedError("OPN-5", failure) from None
        fail_at(session.files.place(OPENINGS), error.reason)


OPENED: Derived[SessionRecord, Removal] = Derived("OPN-4", _opened)
"""The keystreams that are still in the masked sum. Needs FINISHED."""


# The checks


def _check_answers(session: SessionRecord, findings: Findings) -> None:
    findings.count(len(session.get(ANSWERS)))
    session.get(ENOUGH)


def _check_kinds(session: SessionRecord, findings: Findings) -> None:
    findings.count(sum(len(statement.shares) for statement in session.get(RIGHT_KINDS).values()))


def _check_root(session: SessionRecord, findings: Findings) -> None:
    known = PUBLISHED if session.mode is Mode.PAIRWISE else one_shot_openings.PUBLISHED
    findings.count(len(session.get(known)))


def _check_secrets(session: SessionRecord, findings: Findings) -> None:
    session.get(OPENED)
    cohort = session.get(CLOSED_COHORT)
    findings.count(len(cohort.missing) + sum(bool(cohort.users(index)) for index in cohort.dropped()))


def _check_pairs(session: SessionRecord, findings: Findings) -> None:
    pairs = session.get(PAIRS)
    session.get(OPENED)
    findings.count(len(pairs))
    if not pairs:
        findings.not_applicable("nobody masked with a client that is not in the sum")


CHECKS: tuple[Check[SessionRecord], ...] = (
    Check(
        "OPN-1",
        "Enough contributors answered, each over this close entry",
        Level.SUM,
        "Every answer is signed by a contributor in the closed set and names the close entry, so it was made after "
        "the set and the masked sum were fixed; each secret has the threshold of shares.",
        "a coordinator that invents answers, or asks before or about another close",
        (OPENINGS, "session-close"),
        _check_answers,
        Stage.FINISHED,
        PAIRWISE,
    ),
    Check(
        "OPN-2",
        "Each answer has one share, of the right kind, of each mask neighbour",
        Level.SUM,
        "Of who is in the sum only the self-mask was opened, of who is not only the root, as far as was published.",
        "a coordinator that opens both secrets of one client and so its contribution",
        (OPENINGS, "contributions.jsonl (missing)", "u2.jsonl"),
        _check_kinds,
        Stage.FINISHED,
        PAIRWISE,
    ),
    Check(
        "OPN-3",
        "The answers are those of the result entry",
        Level.SUM,
        "The answers in the record, in order, are the ones that the log fixed with the result.",
        "a coordinator that shows different answers to different auditors",
        (OPENINGS, "session-result (openings)"),
        _check_root,
        Stage.FINISHED,
    ),
    Check(
        "OPN-4",
        "Seeds, roots and mask keys are those that were committed to",
        Level.SUM,
        "What the shares give is what each client signed before anybody uploaded, so the masks that are taken off are "
        "those that were put on.",
        "a coordinator that chooses masks which turn the sum into one that it likes",
        (OPENINGS, "u2.jsonl (self_mask_commitment, root_commitment)", "keys.jsonl (mask_key)"),
        _check_secrets,
        Stage.FINISHED,
        PAIRWISE,
    ),
    Check(
        "OPN-5",
        "Pair seeds with clients that are not in the sum are those that were dealt",
        Level.SUM,
        "Every such seed comes out of a box or a root, and both ends stood by it before the close.",
        "a coordinator that exchanges boxes, or leaves out or adds masks of clients that dropped out",
        (PAIR_BOXES, "u2.jsonl (boxes)"),
        _check_pairs,
        Stage.FINISHED,
        PAIRWISE,
    ),
)
"""All checks of the family."""
