"""The session of the vectors: its seeds and parameters, and records of every kind."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction

from secagg.arith.fields import FieldLayout
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.transcript import canonical, merkle
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import (
    Deadlines,
    KeysAdvertised,
    KeysShared,
    PairwiseOpen,
    SessionAbort,
    SessionClose,
    SessionResult,
    SignedRoster,
)
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.published import PairBox, PairPromise
from secagg.transcript.roster import Roster, RosterHead, RosterMember
from secagg.transcript.statements import (
    Absent,
    Accepted,
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    Dropped,
    Receipt,
    Rejected,
    RootShare,
    SelfMaskShare,
    ShareStatement,
    Signed,
    UnmaskStatement,
)
from tests.support.aggregates import some_adapter
from tests.support.cohort import tiny_template
from tests.support.rng import CountingRng
from tests.vectors.static_operations import OTHER, ROOT, SESSION, raw, secret

# The session: one coordinator and four clients, by the real machines.

NAME = "session.json"
SEEDS = sorted(
    (CountingRng(b"vector identity %d" % i).bytes(32) for i in range(5)),
    key=lambda seed: SigningKey(Secret(seed)).public_bytes,
)
AWAY = 1
"""Position in the roster of the member who never comes, so that positions and indices differ."""
DROPPED = 1
"""Index of the client that falls silent after it shared keys."""
START_S = 1_000_000
LANES = FieldLayout(15, 8, 9)


def parameters_of(seeds):
    layout, template = tiny_template(9)
    keys = [SigningKey(Secret(seed)) for seed in seeds]
    roster = Roster.of([RosterMember(key.public_bytes, "") for key in keys])
    return PairwiseOpen(
        session=CountingRng(b"vector session").bytes(16),
        protocol="pairwise",
        coordinator=SigningKey(secret(ROOT)).public_bytes,
        log="log.example/secagg",
        opened_at_s=START_S,
        base_model="example/base",
        base_model_digest=bytes(32),
        adapter=template.digest,
        layout=layout.digest,
        merge=FactorMerge(),
        encoding=Encoding(9, 15, 8, 64, Fraction(1), NoFlattening()),
        min_contributors=3,
        max_corrupt=0,
        expected_dropout=Fraction(1, 4),
        roster=roster.root(),
        roster_size=len(keys),
        registrar=SigningKey(secret(OTHER)).public_bytes,
        deadlines=Deadlines(60, 60, 60, 60, 60),
        noise=NoDifferentialPrivacy(),
        retention_s=0,
    )


def examples():
    """Records of every kind that is read by itself: (reader, canonical text)."""
    opened, key = parameters_of(SEEDS), SigningKey(Secret(SEEDS[0]))
    digest, who = hashlib.sha256(opened.to_bytes()).digest(), key.public_bytes

    def signed_by_key(statement):
        return Signed(statement, key.sign_statement(statement.to_bytes()))

    header = signed_by_key(ContributionHeader(digest, raw(OTHER), who, raw(ROOT), raw(SESSION), 4, (0, 2, 3)))
    shares = (SelfMaskShare(1, bytes(36)), RootShare(2, bytes(36)))
    made = [
        ("entry", opened),
        ("entry", KeysAdvertised(opened.session, 4, raw(ROOT))),
        ("entry", KeysShared(opened.session, 3, raw(ROOT))),
        ("entry", SessionClose(opened.session, 3, 1, 0, raw(ROOT), raw(OTHER), bytes(32))),
        (
            "entry",
            SessionResult(opened.session, 3, raw(ROOT), raw(OTHER), bytes(32), some_adapter(raw(SESSION), raw(ROOT))),
        ),
        ("entry", SessionAbort(opened.session, "fewer than min_contributors shared keys", 0, merkle.root(()))),
        ("signed", signed_by_key(AdvertiseStatement(digest, who, raw(ROOT), raw(OTHER)))),
        ("signed", signed_by_key(ShareStatement(digest, raw(ROOT), who, raw(OTHER), bytes(32), raw(ROOT)))),
        ("signed", header),
        ("signed", signed_by_key(ConfirmStatement(digest, raw(ROOT), who))),
        ("u2-leaf", Absent(2)),
        ("disposition", Accepted(0, header)),
        ("disposition", Rejected(1, "ASYMMETRIC_EDGE")),
        ("disposition", Dropped(3, "masked-input")),
        ("entry", SignedRoster(RosterHead(raw(OTHER), 5, raw(ROOT)), bytes(64))),
        ("pair", PairBox(0, 3, raw(ROOT), bytes(1168), bytes(96), (raw(OTHER), raw(ROOT)))),
        ("pair", PairPromise(1, 2, raw(ROOT), raw(OTHER), bytes(96), ())),
        ("receipt", Receipt(digest, raw(OTHER))),
        ("member", RosterMember(who, "Übersee")),
        ("roster", RosterHead(raw(OTHER), 5, raw(ROOT))),
        ("signed", signed_by_key(UnmaskStatement(digest, raw(ROOT), who, shares))),
    ]
    return [(reader, record.to_bytes().decode()) for reader, record in made]


def texts_of(texts):
    return tuple(text.encode() for text in texts)


def statement_of(signed_text):
    return canonical.encode(json.loads(signed_text)["statement"]).decode()


def signed_text(key, statement):
    return Signed(statement, key.sign_statement(statement.to_bytes())).to_bytes().decode()


def identity_of(signed):
    return json.loads(signed)["statement"]["identity"]


def root_of(texts):
    return merkle.root(texts_of(texts))
