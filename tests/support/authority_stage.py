"""Sessions that a key authority opens, put together by hand with every key at hand.

Everything a corrupt coordinator or client could make can be made here: uploads, lists, entries, attestations.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from secagg.arith.keystream import Keystream
from secagg.arith.linear_hash import LimbSum, hash_lanes, shard_ranges
from secagg.arith.ring_mask import draw_secret, usable_bits_for
from secagg.crypto.rng import Rng
from secagg.crypto.signing import SigningKey
from secagg.he.bfv import DecryptionKey, EncryptionContext
from secagg.he.ciphertext_sum import CiphertextSum
from secagg.protocol.one_shot import authority
from secagg.protocol.one_shot.authority_states import Authority, AuthorityPolicy, Prepared, SumRequest
from secagg.protocol.one_shot.messages import ShownSessionFiles
from secagg.protocol.one_shot.session import OneShotSession
from secagg.runtime.institutions import DecryptPiece, DecryptRequest
from secagg.runtime.key_authority import AuthorityPorts, KeyAuthorityHost
from secagg.runtime.log_trust import CheckpointMemory, ForgetfulMemory
from secagg.runtime.memory_boxes import MemoryJournal
from secagg.runtime.ports import SessionStore
from secagg.transcript import merkle
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import ContributionsCommitted, OneShotClose, OneShotDeadlines, OneShotOpen, SessionEntry
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.openers import KeyAuthority, PreparedKey, SummedCiphertext
from secagg.transcript.roster import Roster, RosterMember
from secagg.transcript.statements import Attestation, OneShotHeader, Signed, Statement
from tests.support.cohort import VirtualClock, key_of, tiny_template
from tests.support.one_shot import OPENED_AT
from tests.support.published import NO_WITNESSES, ORIGIN, evidence_of
from tests.support.rng import CountingRng

COORDINATOR = key_of("coordinator")
REGISTRAR = key_of("registrar")
ATTESTORS = tuple(key_of(f"attestor {number}") for number in range(3))
SESSION = CountingRng(b"session").bytes(16)
MAX_CONTRIBUTORS = 64
CLIENTS = tuple(sorted((key_of(f"client {number}") for number in range(6)), key=lambda key: key.public_bytes))
"""In the order of their roster positions."""

POLICY = AuthorityPolicy(
    min_contributors=3,
    coordinators=frozenset({COORDINATOR.public_bytes}),
    registrars=frozenset({REGISTRAR.public_bytes}),
    log=NO_WITNESSES,
    attestors=frozenset(each.public_bytes for each in ATTESTORS),
    attestations=2,
)
AUTHORITY = Authority(key_of("authority"), POLICY)


def signed_by(key: SigningKey, statement: Statement) -> Signed:
    """A statement with this key's signature, whatever it says."""
    return Signed(statement, key.sign_statement(statement.to_bytes()))


def prepared(own: Authority = AUTHORITY, session: bytes = SESSION, rng: Rng | None = None) -> Prepared:
    """The key of a session, made by the real machine."""
    state = authority.prepare(own, session, COORDINATOR.public_bytes, rng or CountingRng(b"authority")).state
    assert isinstance(state, Prepared)
    return state


def authority_on(
    store: SessionStore,
    own: Authority = AUTHORITY,
    memory: CheckpointMemory | None = None,
    journal: MemoryJournal | None = None,
) -> KeyAuthorityHost:
    """The real runtime of an authority; the first key that it makes is the one that ``prepared`` makes."""
    kept = memory or ForgetfulMemory()
    ports = AuthorityPorts(
        store, journal or MemoryJournal(), VirtualClock(), CountingRng(b"authority"), lambda *_: kept
    )
    return KeyAuthorityHost(own, ports)


def encryption_of(state: Prepared) -> EncryptionContext:
    """What contributors encrypt with."""
    return EncryptionContext.from_bytes(DecryptionKey.from_bytes(state.key).public_context())


def session_of(made: Prepared, **changes: object) -> OneShotSession:
    """A session that names this key; ``changes`` are fields of the open entry."""
    roster = Roster.of([RosterMember(key.public_bytes, "") for key in CLIENTS])
    layout, template = tiny_template(20)
    usable = usable_bits_for(15, MAX_CONTRIBUTORS, 20)
    parameters = OneShotOpen(
        session=made.session,
        protocol="one-shot",
        coordinator=made.coordinator,
        log=ORIGIN,
        opened_at_s=1_000_000,
        base_model="example/base",
        base_model_digest=bytes(32),
        adapter=template.digest,
        layout=layout.digest,
        merge=FactorMerge(),
        encoding=Encoding(20, 15, MAX_CONTRIBUTORS, usable, Fraction(1), NoFlattening()),
        min_contributors=3,
        max_corrupt=1,
        roster=roster.root(),
        roster_size=len(roster.members),
        registrar=REGISTRAR.public_bytes,
        noise=NoDifferentialPrivacy(),
        retention_s=0,
        opening=opening_of(made),
        deadlines=OneShotDeadlines(60, 60, 60, 60),
    )
    return OneShotSession(dataclasses.replace(parameters, **changes), roster)


def opening_of(made: Prepared, **changes: object) -> KeyAuthority:
    """What the open entry says of the authority."""
    identity, keys = AUTHORITY.key.public_bytes, tuple(each.public_bytes for each in ATTESTORS)
    prepared = PreparedKey(made.session, made.coordinator, identity, made.context).to_bytes()
    signature = AUTHORITY.key.sign_statement(prepared)
    return dataclasses.replace(KeyAuthority("authority", identity, made.context, signature, keys, 2), **changes)


@dataclass(frozen=True)
class Upload:
    """What one client sends, and the header that it signs over it."""

    key: SigningKey
    session: OneShotSession
    lanes: np.ndarray
    ciphertext: bytes

    @cached_property
    def header(self) -> Signed:
        """The signed header."""
        return signed_by(
            self.key,
            OneShotHeader(
                self.session.digest,
                self.key.public_bytes,
                hashlib.sha256(self.lanes.astype("<u8").tobytes()).digest(),
                hashlib.sha256(hash_lanes(self.lanes).astype("<u8").tobytes()).digest(),
                self.lanes.size,
                (hashlib.sha256(self.ciphertext).digest(),),
                OPENED_AT,
            ),
        )


def plain_of(session: OneShotSession, number: int) -> np.ndarray:
    """The lanes that client ``number`` contributes: 1 in the lane of its number."""
    lanes = np.zeros(session.upload_lanes, dtype=np.uint64)
    lanes[number] = 1
    return lanes


def secret_of(number: int) -> np.ndarray:
    """The mask secret of client ``number``."""
    return draw_secret(Keystream(CountingRng(b"secret %d" % number).bytes(32)))


def masked(session: OneShotSession, plain: np.ndarray, secret: np.ndarray, number: int) -> np.ndarray:
    """The masked input of any lanes under any secret."""
    lanes = plain.copy()
    session.ring_mask.apply_mask(lanes, session.public_key, secret, CountingRng(b"error %d" % number).bytes(32))
    return lanes


def honest_upload(session: OneShotSession, context: EncryptionContext, number: int) -> Upload:
    """What client ``number`` sends."""
    secret = secret_of(number)
    ciphertext = context.encrypt(secret, CountingRng(b"encryption %d" % number))
    return Upload(CLIENTS[number], session, masked(session, plain_of(session, number), secret, number), ciphertext)


def total_ciphertext(ciphertexts: Iterable[bytes]) -> bytes:
    """Their sum, as anybody computes it."""
    total = CiphertextSum()
    for each in ciphertexts:
        total.add(each)
    return total.result()


def limb_sum_of(lanes: Sequence[np.ndarray]) -> bytes:
    """The limb sum of masked inputs as it is stored and sent, one shard after the other."""
    out = b""
    for places in shard_ranges(len(lanes), lanes[0].size):
        shard = LimbSum(lanes[0].size)
        for place in places:
            shard.add_lanes(lanes[place])
        out += shard.entries.astype("<u8").tobytes()
    return out


@dataclass(frozen=True)
class Closed:
    """A session up to its close: whoever sent what, and what the coordinator made of it.

    ``edits`` replace fields of the two entries: ``committed_entry`` and ``close_entry``, each a mapping.
    """

    session: OneShotSession
    committed: tuple[bytes, ...]
    contributions: tuple[bytes, ...]
    ciphertext_sum: bytes
    limb_sum: bytes
    edits: dict[str, dict[str, object]] = field(default_factory=dict)

    @classmethod
    def of(cls, uploads: Sequence[Upload], counted: Sequence[int] | None = None) -> Closed:
        """All uploads were committed to, and those in ``counted`` arrived."""
        chosen = [uploads[number] for number in (range(len(uploads)) if counted is None else counted)]
        return cls(
            uploads[0].session,
            tuple(each.header.to_bytes() for each in uploads),
            tuple(each.header.to_bytes() for each in chosen),
            total_ciphertext(each.ciphertext for each in chosen),
            limb_sum_of([each.lanes for each in chosen]),
        )

    @property
    def committed_entry(self) -> ContributionsCommitted:
        """The entry over ``committed``."""
        root = merkle.root(list(self.committed))
        made = ContributionsCommitted(self.session.parameters.session, len(self.committed), root)
        return dataclasses.replace(made, **self.edits.get("committed_entry", {}))

    @property
    def close_entry(self) -> OneShotClose:
        """The entry over ``contributions``."""
        made = OneShotClose(
            self.session.parameters.session,
            count=len(self.contributions),
            rejected=0,
            dropped=max(0, len(self.committed) - len(self.contributions)),
            contributions=merkle.root(list(self.contributions)),
            dispositions=bytes(32),
            limb_sum=hashlib.sha256(self.limb_sum).digest(),
            opener=SummedCiphertext(hashlib.sha256(self.ciphertext_sum).digest()),
        )
        return dataclasses.replace(made, **self.edits.get("close_entry", {}))

    @property
    def close_digest(self) -> bytes:
        """SHA-256 of the close entry."""
        return hashlib.sha256(self.close_entry.to_bytes()).digest()

    def edited(self, entry: str, **changes: object) -> Closed:
        """With other fields in an entry."""
        return dataclasses.replace(self, edits=self.edits | {entry: self.edits.get(entry, {}) | changes})

    def files(self, *more: SessionEntry, entries: Sequence[SessionEntry] | None = None) -> ShownSessionFiles:
        """What an institution is shown; ``more`` entries follow the close, or all are given."""
        shown = [self.session.parameters, self.committed_entry, self.close_entry, *more] if entries is None else entries
        evidence = evidence_of(COORDINATOR, [each.to_bytes() for each in shown], [b"an entry before"])
        head = self.session.roster.head(REGISTRAR.public_bytes).to_bytes()
        return ShownSessionFiles(evidence, (), self.session.roster.leaves(), head, REGISTRAR.sign_statement(head))

    def attestations(self, *keys: SigningKey) -> tuple[Signed, ...]:
        """Of these attestors; of the first two by default."""
        digest = hashlib.sha256(self.ciphertext_sum).digest()
        return tuple(
            signed_by(key, Attestation(self.session.digest, self.close_digest, key.public_bytes, digest))
            for key in keys or ATTESTORS[:2]
        )

    def request(self, **changes: object) -> SumRequest:
        """The head of a request; ``changes`` are fields of it."""
        made = SumRequest(self.files(), self.ciphertext_sum, self.attestations())
        return dataclasses.replace(made, **changes)

    async def pieces(self) -> AsyncIterator[DecryptPiece]:
        """The rest of it, the limb sum in pieces that fit no block."""
        yield DecryptPiece(committed=self.committed)
        yield DecryptPiece(contributions=self.contributions)
        for start in range(0, len(self.limb_sum), 100_003):
            yield DecryptPiece(limb_sum=self.limb_sum[start : start + 100_003])

    def whole_request(self) -> DecryptRequest:
        """What a coordinator hands to an AuthorityPort."""
        head = self.request()
        parts = [self.limb_sum[start : start + 100_003] for start in range(0, len(self.limb_sum), 100_003)]
        return DecryptRequest(
            head.files, head.ciphertext_sum, head.attestations, self.committed, self.contributions, iter(parts)
        )


@dataclass(frozen=True)
class Stage:
    """One honest session, closed."""

    made: Prepared
    session: OneShotSession
    uploads: tuple[Upload, ...]
    closed: Closed

    @property
    def secret_sum(self) -> np.ndarray:
        """What the authority should find."""
        return np.sum([secret_of(number) for number in range(len(self.uploads))], axis=0)


def stage_of(made: Prepared | None = None) -> Stage:
    """All clients contribute to an honest coordinator."""
    state = made or prepared()
    session, context = session_of(state), encryption_of(state)
    uploads = tuple(honest_upload(session, context, number) for number in range(len(CLIENTS)))
    return Stage(state, session, uploads, Closed.of(uploads))
