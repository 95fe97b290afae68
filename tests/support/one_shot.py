"""One-shot sessions for tests: a small committee, contributors with their boxes, logs with witnesses, closes.

Every key follows from a name, and every secret is at hand, so that a test can play any part, honest or not.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from secagg.arith.ring_mask import usable_bits_for
from secagg.arith.seeded_shamir import add_share, shares_to_bytes
from secagg.crypto.notes import cosign, log_key, sign_checkpoint, witness_key
from secagg.crypto.sealing import SealingKey
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.member_boxes import deal, lattice_error_keystream, mask_secret, member_box_info, open_box
from secagg.derive.openers import member_of
from secagg.protocol import log
from secagg.protocol.log import LogView
from secagg.protocol.one_shot.member import MemberContext, MemberRules
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.protocol.one_shot.session import OneShotSession
from secagg.runtime import vectors
from secagg.runtime.committee_member import member_sealing_key
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import (
    OneShotClose,
    OneShotDeadlines,
    OneShotOpen,
    OneShotResult,
    SessionAbort,
    SessionEntry,
    SignedRoster,
)
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.openers import Committee, NamedMembers
from secagg.transcript.policy import LogPolicy, LogRule, WitnessRule
from secagg.transcript.roster import Roster, RosterMember
from secagg.transcript.statements import Accepted, OneShotHeader, Signed
from tests.support.aggregates import some_adapter
from tests.support.cohort import key_of, tiny_template
from tests.support.rng import CountingRng

ORIGIN = "log.example/secagg"
NOW_S = 1_000_000
"""When sessions are opened; where clocks of tests start."""
OPENED_AT = 1
"""After the entry of the roster."""
WITNESS_NAME = "witness.example"
WITNESS = key_of("witness")
COORDINATOR = key_of("coordinator")
REGISTRAR = key_of("registrar")
DEADLINES = OneShotDeadlines(60, 60, 60, 60)
WITNESSED = LogPolicy(
    (LogRule(log_key(ORIGIN, COORDINATOR.public_bytes)),),
    (WitnessRule("w", witness_key(WITNESS_NAME, WITNESS.public_bytes)),),
    (),
    "w",
)
"""The policy of honest members: this log, and the one witness."""


# Who takes part.


def member_key(place: int) -> SigningKey:
    """The key of a committee member."""
    return key_of(f"member {place}")


@functools.lru_cache(maxsize=32)
def sealing_key(place: int) -> SealingKey:
    """The key pair that boxes for a member are sealed to."""
    return member_sealing_key(member_key(place))


@functools.lru_cache(maxsize=8)
def committee_of(members: int = 4, needed: int = 3, max_corrupt: int = 1) -> Committee:
    """A committee of institutions A, B and so on."""
    return Committee(
        tuple(
            member_of(f"Institute {place}", member_key(place), sealing_key(place).public_bytes)
            for place in range(members)
        ),
        needed,
        max_corrupt,
    )


def contributor_keys(count: int) -> list[SigningKey]:
    """Identity keys in the order of their roster positions."""
    return sorted((key_of(f"contributor {number}") for number in range(count)), key=lambda key: key.public_bytes)


def session_of(
    identities: Sequence[SigningKey],
    *,
    opening: Committee | None = None,
    dimension: int = 20,
    min_contributors: int = 3,
    max_corrupt: int = 1,
    max_contributors: int = 64,
    session: bytes = CountingRng(b"one-shot session").bytes(16),
    opened_at_s: int = NOW_S,
    retention_s: int = 0,
    coordinator: SigningKey = COORDINATOR,
    registrar: SigningKey = REGISTRAR,
) -> OneShotSession:
    """A session with a committee for these identities."""
    roster = Roster.of([RosterMember(key.public_bytes, "") for key in identities])
    layout, template = tiny_template(dimension)
    usable = usable_bits_for(15, max_contributors, dimension)
    parameters = OneShotOpen(
        session=session,
        protocol="one-shot",
        coordinator=coordinator.public_bytes,
        log=ORIGIN,
        opened_at_s=opened_at_s,
        base_model="example/base",
        base_model_digest=bytes(32),
        adapter=template.digest,
        layout=layout.digest,
        merge=FactorMerge(),
        encoding=Encoding(dimension, 15, max_contributors, usable, Fraction(1), NoFlattening()),
        min_contributors=min_contributors,
        max_corrupt=max_corrupt,
        roster=roster.root(),
        roster_size=len(roster.members),
        registrar=registrar.public_bytes,
        noise=NoDifferentialPrivacy(),
        retention_s=retention_s,
        opening=opening or committee_of(),
        deadlines=DEADLINES,
    )
    return OneShotSession(parameters, roster)


def signed_roster(session: OneShotSession, registrar: SigningKey = REGISTRAR) -> SignedRoster:
    """The log entry of the session's roster."""
    head = session.roster.head(registrar.public_bytes)
    return SignedRoster(head, registrar.sign_statement(head.to_bytes()))


# Contributions.


@dataclass(frozen=True)
class Contribution:
    """One contribution with everything that its contributor knows. ``upload`` is the masked input, uint64 lanes."""

    key: SigningKey
    signed: Signed
    boxes: tuple[bytes, ...]
    secret: np.ndarray
    upload: np.ndarray
    linear_hash: bytes

    @property
    def header(self) -> OneShotHeader:
        statement = self.signed.statement
        assert isinstance(statement, OneShotHeader)
        return statement

    @property
    def leaf(self) -> bytes:
        """The canonical bytes of the signed header, a leaf of the closed set."""
        return self.signed.to_bytes()

    def item(self, place: int) -> HeldBox:
        """What a member is sent."""
        return HeldBox(self.signed, self.boxes[place])


def signed_by(key: SigningKey, header: OneShotHeader) -> Signed:
    """A header with this key's signature, whatever it says."""
    return Signed(header, key.sign_statement(header.to_bytes()))


def contribute(
    session: OneShotSession, key: SigningKey, lanes: np.ndarray | None = None, seed: bytes = b""
) -> Contribution:
    """An honest contribution of these lanes (zeros by default); another ``seed`` gives another one of the same."""
    rng = CountingRng(b"contribution" + key.public_bytes + seed)
    mask_seed = Secret(rng.bytes(32))
    committee = session.opening
    assert isinstance(committee, Committee)
    secret = mask_secret(mask_seed, session.digest)
    upload = np.zeros(session.upload_lanes, dtype=np.uint64)
    if lanes is not None:
        upload[: lanes.size] = lanes
    errors = lattice_error_keystream(mask_seed, session.digest)
    session.ring_mask.apply_mask(upload, session.public_key, secret, errors.expose())
    seeds = [Secret(rng.bytes(32)) for _ in range(committee.needed - 1)]
    boxes = deal(committee, secret, seeds, session.digest, key.public_bytes)
    linear_hash = vectors.linear_hash_of(upload)
    header = OneShotHeader(
        session.digest,
        key.public_bytes,
        vectors.digest_of(upload),
        hashlib.sha256(linear_hash).digest(),
        upload.size,
        tuple(hashlib.sha256(box).digest() for box in boxes),
        OPENED_AT,
    )
    return Contribution(key, signed_by(key, header), boxes, secret, upload, linear_hash)


@functools.lru_cache(maxsize=8)
def honest_session(size: int = 5) -> tuple[OneShotSession, tuple[Contribution, ...]]:
    """A session with an honest contribution of everybody in its roster, in roster order; made once for all tests."""
    keys = contributor_keys(size)
    session = session_of(keys)
    return session, tuple(contribute(session, key) for key in keys)


def share_sum(session: OneShotSession, contributions: Iterable[Contribution], place: int) -> bytes:
    """What a member must answer: the sum of its shares of these, from the boxes themselves."""
    committee = session.opening
    assert isinstance(committee, Committee)
    total = np.zeros(4096, dtype=np.uint64)
    for each in contributions:
        info = member_box_info(session.digest, each.key.public_bytes, place)
        add_share(total, open_box(sealing_key(place), info, each.boxes[place], committee, place))
    return shares_to_bytes(total)


# The log.


def close_of(
    session: OneShotSession,
    chosen: Sequence[Contribution],
    named: Sequence[int] | None = None,
    **changes: object,
) -> OneShotClose:
    """The close over these contributions, in the order given; it names everybody by default."""
    leaves = [each.leaf for each in chosen]
    positions = [session.positions.get(each.key.public_bytes, 0) for each in chosen]
    accepted = [Accepted(at, each.signed).to_bytes() for at, each in zip(positions, chosen, strict=True)]
    values: dict[str, object] = {
        "session": session.parameters.session,
        "count": len(chosen),
        "rejected": 0,
        "dropped": 0,
        "contributions": merkle.root(leaves),
        "dispositions": merkle.root(accepted),
        "limb_sum": bytes(32),
        "opener": NamedMembers(tuple(range(session.parts) if named is None else named)),
    }
    return OneShotClose(**(values | changes))  # type: ignore[arg-type]


def result_of(session: OneShotSession, count: int) -> OneShotResult:
    """Some result."""
    return OneShotResult(
        session.parameters.session, count, *(bytes(32) for _ in range(3)), some_adapter(), bytes(32), (0, 1, 2), ()
    )


def abort_of(session: OneShotSession) -> SessionAbort:
    """An abort."""
    return SessionAbort(session.parameters.session, "too few members answered", 0, merkle.root([]))


def evidence_of(
    session: OneShotSession,
    *entries: bytes | SessionEntry,
    before: Sequence[bytes] | None = None,
    witnesses: Sequence[SigningKey] = (WITNESS,),
    coordinator: SigningKey = COORDINATOR,
) -> LogEvidence:
    """The session's open entry and ``entries`` at the end of a log that begins with ``before`` (the roster's entry).

    Args:
        session: whose.
        entries: what follows the open entry.
        before: what stands before it.
        witnesses: who cosigns the checkpoint, whatever it says.
        coordinator: who signs it.
    """
    first = [signed_roster(session).to_bytes()] if before is None else list(before)
    data = [session.entry, *(entry if isinstance(entry, bytes) else entry.to_bytes() for entry in entries)]
    frontier = merkle.Frontier()
    for entry in first:
        frontier.append(merkle.leaf_hash(entry))
    note = sign_checkpoint(coordinator, Checkpoint(ORIGIN, len(first) + len(data), merkle.root([*first, *data])))
    lines = [cosign(key, WITNESS_NAME, note.text, NOW_S) for key in witnesses]
    signed = note.with_signatures(tuple(lines)) if lines else note
    return LogEvidence(len(first), frontier.hashes, tuple(data), signed.to_bytes())


def shown_files(
    session: OneShotSession, evidence: LogEvidence, consistency: tuple[bytes, ...] = ()
) -> ShownSessionFiles:
    """The session as its coordinator shows it."""
    signed = signed_roster(session)
    return ShownSessionFiles(evidence, consistency, session.roster.leaves(), signed.head.to_bytes(), signed.signature)


def open_request(
    session: OneShotSession, contributions: Sequence[Contribution], *entries: bytes | SessionEntry, **options: object
) -> OpenRequest:
    """A request to open these, with an honest close unless ``entries`` has another end of the log."""
    shown = entries or (close_of(session, contributions),)
    evidence = evidence_of(session, *shown, **options)  # type: ignore[arg-type]
    return OpenRequest(evidence, tuple(each.leaf for each in contributions))


# A member.


def rules_of(**changes: object) -> MemberRules:
    """The rules of an honest member: this coordinator, this registrar, at least three."""
    values: dict[str, object] = {
        "coordinators": frozenset({COORDINATOR.public_bytes}),
        "registrars": frozenset({REGISTRAR.public_bytes}),
        "min_contributors": 3,
    }
    return MemberRules(**(values | changes))  # type: ignore[arg-type]


def member_context(session: OneShotSession, place: int = 0, **changes: object) -> MemberContext:
    """The surroundings of a member's machine; ``changes`` are of its rules."""
    return MemberContext(member_key(place), session, place, WITNESSED, rules_of(**changes))


def joined_view(session: OneShotSession) -> LogView:
    """The log of a session that was just opened."""
    return log.join(session.parameters, WITNESSED, evidence_of(session))
