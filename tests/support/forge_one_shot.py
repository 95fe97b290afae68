"""One-shot sessions of a forged record, step by step, with every key and secret at hand (see ``forge_session``).

Nothing is sealed and nothing encrypted: the record shows digests of boxes, and ciphertexts that nobody without the
authority's key can look into. So boxes are any bytes, and ciphertexts any residues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from secagg.arith import linear_hash
from secagg.arith.keystream import Keystream
from secagg.arith.ring_mask import RingMask, draw_secret, padded_lanes, usable_bits_for
from secagg.arith.seeded_shamir import add_share, dealt_shares, share_of_seed, shares_to_bytes
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.openers import member_of
from secagg.derive.result import mean_of
from secagg.derive.ring_opening import public_polynomials_key
from secagg.he.ciphertext_sum import CiphertextSum
from secagg.he.parameters import DEGREE, MODULUS
from secagg.he.residues import encode_ciphertext, encode_context
from secagg.lora.fixed import encode_fixed
from secagg.lora.layout import Layout
from secagg.lora.manifest import Manifest
from secagg.lora.template import AdapterTemplate
from secagg.transcript import canonical, merkle
from secagg.transcript.encoding import Encoding, Flattening
from secagg.transcript.entries import (
    ContributionsCommitted,
    OneShotClose,
    OneShotDeadlines,
    OneShotOpen,
    OneShotResult,
    SessionAbort,
)
from secagg.transcript.merge import FactorMerge, Merge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.openers import (
    SEALING_KEY_BYTES,
    Committee,
    KeyAuthority,
    NamedMembers,
    PreparedKey,
    SummedCiphertext,
)
from secagg.transcript.record import Record
from secagg.transcript.statements import (
    Accepted,
    Attestation,
    AuthorityAnswer,
    Disposition,
    Dropped,
    MemberAnswer,
    OneShotHeader,
    Rejected,
    Signed,
    Statement,
)
from tests.support.aggregates import aggregate_of
from tests.support.forge_closing import packed_vector, unpacked
from tests.support.forge_session import MODEL_DIGEST, SHAPES, TEMPLATE, Edit, Surroundings, lines, sha256
from tests.support.forged_merges import MergingForge

MEMBERS, NEEDED, MAX_CORRUPT_MEMBERS = 4, 3, 1
ATTESTORS, ATTESTATIONS = 3, 2
COEFFICIENTS = 4096


def key_of(name: str) -> SigningKey:
    """A signing key that follows from a name."""
    return SigningKey(Secret(hashlib.sha256(f"forged key of {name}".encode()).digest()))


def member_key(place: int) -> SigningKey:
    """The key of a committee member."""
    return key_of(f"member {place}")


def attestor_keys() -> list[SigningKey]:
    """The keys of the attestors."""
    return [key_of(f"attestor {number}") for number in range(ATTESTORS)]


def committee() -> Committee:
    """Four members, of whom three open and one may be corrupt; each has signed the key that nobody seals to here."""
    members = (
        member_of(f"member {place}", member_key(place), bytes([place]) * SEALING_KEY_BYTES) for place in range(MEMBERS)
    )
    return Committee(tuple(members), NEEDED, MAX_CORRUPT_MEMBERS)


def random_residues(seed: str) -> np.ndarray:
    """Residues of two polynomials that follow from a text: whatever they are, they are a ciphertext, or a key."""
    rng = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
    return rng.integers(0, MODULUS, (2, DEGREE), dtype=np.uint64)


def context_of(name: str) -> bytes:
    """A public encryption context whose key nobody has."""
    return encode_context(random_residues(f"context of {name}"))


def authority_of(session: bytes, coordinator: bytes, context: bytes) -> KeyAuthority:
    """An authority that made this context for that session; it has three attestors, of whom two have to attest."""
    key, attestors = key_of("authority"), tuple(one.public_bytes for one in attestor_keys())
    prepared = PreparedKey(session, coordinator, key.public_bytes, hashlib.sha256(context).digest())
    signature = key.sign_statement(prepared.to_bytes())
    return KeyAuthority("authority", prepared.identity, prepared.context, signature, attestors, ATTESTATIONS)


def ring_encoding(dimension: int = 60, max_contributors: int = 16) -> Encoding:
    """15 bits a coordinate, clip norm 1, flattened, as wide as the lattice error allows."""
    flatten = Flattening(hashlib.sha256(b"flatten").digest())
    return Encoding(
        dimension, 15, max_contributors, usable_bits_for(15, max_contributors, dimension), Fraction(1), flatten
    )


@dataclass(frozen=True)
class OneShotPlan:
    """Who signs a header and what becomes of it, by position in the roster; who answers, by place in the committee."""

    accepted: tuple[int, ...]
    rejected: Mapping[int, str] = field(default_factory=dict)
    dropped: frozenset[int] = frozenset()
    named: tuple[int, ...] = tuple(range(MEMBERS))
    answering: tuple[int, ...] = tuple(range(MEMBERS))
    with_authority: bool = False
    encoding: Encoding = field(default_factory=ring_encoding)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: SHAPES)
    adapter: AdapterTemplate | Manifest = TEMPLATE
    merge: Merge = field(default_factory=FactorMerge)
    fixed: Mapping[str, np.ndarray] = field(default_factory=dict)
    min_contributors: int = 3
    max_corrupt: int = 1
    opened_at_s: int = 1_700_000_100

    @property
    def signing(self) -> tuple[int, ...]:
        """Everybody who signs a header."""
        return tuple(sorted({*self.accepted, *self.rejected, *self.dropped}))


COMMITTEE_PLAN = OneShotPlan((1, 2, 4, 7, 11), {5: "SHARE_NOT_HELD"}, frozenset({9}))
AUTHORITY_PLAN = OneShotPlan((0, 3, 4, 12), {6: "WRONG_UPLOAD"}, frozenset({10}), with_authority=True)


class OneShotForge(MergingForge):
    """The steps ``open``, ``commit`` (with an authority), ``close``, then ``result`` or ``abort``.

    Each gives its log entry; what it made stands in the attribute of its name, as edited; mappings go by position in
    the roster.
    """

    def __init__(self, around: Surroundings, name: str, plan: OneShotPlan, edits: Mapping[str, Edit]) -> None:
        self.around, self.name, self.plan, self.edits = around, name, plan, edits
        self.session_id = hashlib.sha256(f"session {name}".encode()).digest()[:16]
        self.files: dict[str, bytes] = {}
        self.uploads: dict[int, np.ndarray] = {}
        self.opened_at = 1

    def secret(self, purpose: str, *numbers: int) -> Secret:
        """32 bytes that follow from the name of the session, a purpose and numbers."""
        text = " ".join((self.name, purpose, *map(str, numbers)))
        return Secret(hashlib.sha256(text.encode()).digest())

    def open(self) -> OneShotOpen:
        """Parameters, roster, layout, template and the encryption context."""
        plan, around = self.plan, self.around
        self.layout_value = self._made("layout", Layout.from_shapes(dict(plan.shapes)))
        self.template = self._made("template", plan.adapter)
        self.opening = self._made("opening", self.authority() if plan.with_authority else committee())
        self.parameters: OneShotOpen = self._made(
            "open",
            OneShotOpen(
                session=self.session_id,
                protocol="one-shot",
                coordinator=around.coordinator.public_bytes,
                log=around.origin,
                opened_at_s=plan.opened_at_s,
                base_model=self.template.base_model,
                base_model_digest=MODEL_DIGEST,
                adapter=self.template.digest,
                layout=self.layout_value.digest,
                merge=plan.merge,
                encoding=plan.encoding,
                min_contributors=plan.min_contributors,
                max_corrupt=plan.max_corrupt,
                roster=around.roster.root(),
                roster_size=len(around.roster.members),
                registrar=around.registrar.public_bytes,
                noise=NoDifferentialPrivacy(),
                retention_s=0,
                opening=self.opening,
                deadlines=OneShotDeadlines(60, 60, 60, 60),
            ),
        )
        self.digest = sha256(self.parameters)
        self.mask = RingMask(plan.encoding.max_contributors, self.lanes)
        self.files["roster.jsonl"] = lines(around.roster.members)
        self.files["layout.json"] = canonical.encode(self.layout_value.to_json_value())
        self.files["adapter.json"] = canonical.encode(self.template.to_json_value())
        if plan.fixed:
            self.files["fixed.safetensors"] = encode_fixed(plan.fixed)
        if plan.with_authority:
            self.files["context.bin"] = context_of(self.name)
        return self.parameters

    def commit(self) -> ContributionsCommitted:
        """What everybody signs before anything is sent."""
        self._upload()
        self.commitments: list[Signed] = self._made("commitments", list(self.contributions.values()))
        root = merkle.root([signed.to_bytes() for signed in self.commitments])
        self.committed = self._made("committed", ContributionsCommitted(self.session_id, len(self.commitments), root))
        self.files["commitments.jsonl"] = lines(self.commitments)
        return self.committed

    def close(self) -> OneShotClose:
        """The closed set, what became of everybody, the limb sum, and who opens it or what."""
        if not self.plan.with_authority:
            self._upload()
        self.dispositions: list[Disposition] = self._made(
            "dispositions", [self._disposition(index) for index in self.plan.signing]
        )
        self.accepted = [self._source(leaf) for leaf in self.dispositions if isinstance(leaf, Accepted)]
        self.contributed = [leaf.contribution for leaf in self.dispositions if isinstance(leaf, Accepted)]
        self.limb_sum = self._made("limb_sum", self._sum_limbs())
        self.files["dispositions.jsonl"] = lines(self.dispositions)
        self.files["contributions.jsonl"] = lines(self.contributed)
        self.files["linear-hashes.bin"] = b"".join(self.hashes[index].tobytes() for index in self.accepted)
        self.files["masked-limb-sum.bin"] = self.limb_sum.tobytes()
        opener: NamedMembers | SummedCiphertext = NamedMembers(self.plan.named)
        if self.plan.with_authority:
            opener = self._sum_ciphertexts()
        counts = [sum(isinstance(leaf, kind) for leaf in self.dispositions) for kind in (Accepted, Rejected, Dropped)]
        self.closing: OneShotClose = self._made(
            "close",
            OneShotClose(
                self.session_id,
                *counts,
                contributions=merkle.root([signed.to_bytes() for signed in self.contributed]),
                dispositions=merkle.root([leaf.to_bytes() for leaf in self.dispositions]),
                limb_sum=sha256(self.files["masked-limb-sum.bin"]),
                opener=opener,
            ),
        )
        return self.closing

    def result(self) -> OneShotResult:
        """The answers, and what they open."""
        self.share_sums = self._made("share_sums", {place: self._share_sum(place) for place in range(MEMBERS)})
        self.secret_sum = self._made("secret_sum", sum(self.secrets[index] for index in self.accepted))
        self.answers = self._made("answers", self._answer())
        self.openings: list[Signed] = self._made(
            "openings", [Signed(one, self._opener(place).sign_statement(one.to_bytes())) for place, one in self.answers]
        )
        self.files["openings.jsonl"] = lines(self.openings)
        self.files["secret-sum.bin"] = self.secret_sum.astype("<i8").tobytes()
        if self.plan.with_authority:
            self.attestations = self._made("attestations", self.all_attestations(ATTESTATIONS))
            self.files["attestations.jsonl"] = lines(self.attestations)
        encoding = self.parameters.encoding
        self.lanes_sum = self._made("lanes_sum", self._unmasked())
        self.integer_sum = self._made("integer_sum", unpacked(encoding, self.lanes_sum, self.count))
        self.mean = self._made("mean", mean_of(encoding, self.parameters.noise, self.integer_sum, self.count))
        aggregate = self.merged_files(self.mean, self.count)
        self.aggregate: dict[str, bytes] = self._made("aggregate", aggregate)
        self.files["integer-sum.bin"] = self.integer_sum.astype("<i8").tobytes()
        self.files |= {f"aggregate/{name}": data for name, data in self.aggregate.items()}
        self.finished: OneShotResult = self._made(
            "result",
            OneShotResult(
                self.session_id,
                self.count,
                merkle.root([signed.to_bytes() for signed in self.openings]),
                sha256(self.files["integer-sum.bin"]),
                sha256(self.mean.astype("<f4").tobytes()),
                aggregate_of(self.aggregate),
                sha256(self.files["secret-sum.bin"]),
                () if self.plan.with_authority else tuple(place for place, _ in self.answers)[:NEEDED],
                (),
            ),
        )
        return self.finished

    def abort(self) -> SessionAbort:
        """The session ends without a result; nothing was released."""
        entry = SessionAbort(self.session_id, "BELOW_MINIMUM", 0, merkle.root([]))
        self.aborted: SessionAbort = self._made("abort", entry)
        return self.aborted

    def authority(self, context: bytes | None = None) -> KeyAuthority:
        """The authority that made a context for this session, its own unless it is given."""
        coordinator = self.around.coordinator.public_bytes
        return authority_of(self.session_id, coordinator, context or context_of(self.name))

    def final_files(self) -> dict[str, bytes]:
        """The session's files by path, after the edit ``files``."""
        files: dict[str, bytes] = self._made("files", dict(self.files))
        return files

    @property
    def lanes(self) -> int:
        """Lanes of a contribution."""
        return padded_lanes(self.parameters.encoding.field_layout().lanes)

    @property
    def count(self) -> int:
        """Contributions in the sum."""
        return len(self.accepted)

    def signed(self, index: int, statement: Statement) -> Signed:
        """A statement with the client's signature."""
        return Signed(statement, self.around.identities[index].sign_statement(statement.to_bytes()))

    def masked(self, index: int, packed: np.ndarray) -> np.ndarray:
        """A client's lanes, padded, under its ring mask."""
        lanes = np.zeros(self.lanes, dtype=np.uint64)
        lanes[: packed.size] = packed
        error_key = self.secret("lattice error", index).expose()
        self.mask.apply_mask(lanes, public_polynomials_key(self.digest), self.secrets[index], error_key)
        return lanes

    def _upload(self) -> None:
        signing = self.plan.signing
        self.secrets = self._made(
            "secrets",
            {index: draw_secret(Keystream(self.secret("mask", index).expose())) for index in signing},
        )
        self.shares = self._made("shares", {index: self._deal(index) for index in signing})
        self.packed = self._made(
            "packed",
            {index: packed_vector(self.parameters, self.secret("vector", index), self.vector_of) for index in signing},
        )
        self.uploads = self._made("uploads", {index: self.masked(index, one) for index, one in self.packed.items()})
        self.hashes = self._made(
            "hashes", {index: linear_hash.hash_lanes(lanes) for index, lanes in self.uploads.items()}
        )
        self.parts: dict[int, tuple[bytes, ...]] = self._made("parts", {index: self._parts(index) for index in signing})
        self.headers = self._made("headers", {index: self._header(index) for index in self.uploads})
        self.contributions: dict[int, Signed] = self._made(
            "contributions", {index: self.signed(index, header) for index, header in self.headers.items()}
        )

    def _deal(self, index: int) -> np.ndarray:
        """The shares of all members, uint64[members, 4096]."""
        seeded = np.stack([share_of_seed(self.secret("seed", index, place).expose()) for place in range(NEEDED - 1)])
        return np.vstack([seeded, dealt_shares(self.secrets[index], seeded, MEMBERS)])

    def _parts(self, index: int) -> tuple[bytes, ...]:
        """What comes with an upload: boxes that nobody looks into, or a ciphertext."""
        if not self.plan.with_authority:
            return tuple(self.secret("box", index, place).expose() for place in range(MEMBERS))
        return (encode_ciphertext(random_residues(f"{self.name} ciphertext {index}")),)

    def _header(self, index: int) -> OneShotHeader:
        lanes = self.uploads[index]
        return OneShotHeader(
            self.digest,
            self.around.identities[index].public_bytes,
            sha256(lanes.tobytes()),
            sha256(self.hashes[index].tobytes()),
            lanes.size,
            tuple(sha256(part) for part in self.parts[index]),
            self.opened_at,
        )

    def _disposition(self, index: int) -> Disposition:
        if index in self.plan.dropped:
            return Dropped(index, "masked-input")
        if index in self.plan.rejected:
            return Rejected(index, self.plan.rejected[index])
        return Accepted(index, self.contributions[index])

    def _source(self, leaf: Accepted) -> int:
        """Whose upload it is: the one of its index, and of an index that was moved the one of its identity."""
        if leaf.index in self.uploads:
            return leaf.index
        identities = [key.public_bytes for key in self.around.identities]
        return identities.index(leaf.contribution.statement.identity)

    def _sum_limbs(self) -> np.ndarray:
        total = linear_hash.LimbSum(self.lanes)
        for index in self.accepted:
            total.add_lanes(self.uploads[index])
        return total.entries.astype("<u8")

    def _sum_ciphertexts(self) -> SummedCiphertext:
        total = CiphertextSum()
        for index in self.accepted:
            (ciphertext,) = self.parts[index]
            total.add(ciphertext)
            self.files[f"ciphertexts/{sha256(ciphertext).hex()}.bin"] = ciphertext
        self.ciphertext_sum = self._made("ciphertext_sum", total.result())
        self.files["ciphertext-sum.bin"] = self.ciphertext_sum
        return SummedCiphertext(sha256(self.ciphertext_sum))

    def _share_sum(self, place: int) -> np.ndarray:
        total = np.zeros(COEFFICIENTS, dtype=np.uint64)
        for index in self.accepted:
            add_share(total, self.shares[index][place])
        return total

    def _opener(self, place: int) -> SigningKey:
        return key_of("authority") if self.plan.with_authority else member_key(place)

    def _answer(self) -> list[tuple[int, Record]]:
        """Place and statement of everybody who answers."""
        close = sha256(self.closing)
        if self.plan.with_authority:
            secret_sum = self.secret_sum.astype("<i4").tobytes()
            return [(0, AuthorityAnswer(self.digest, close, self._opener(0).public_bytes, secret_sum))]
        return [
            (
                place,
                MemberAnswer(
                    self.digest, close, member_key(place).public_bytes, shares_to_bytes(self.share_sums[place])
                ),
            )
            for place in self.plan.answering
        ]

    def all_attestations(self, count: int = ATTESTORS) -> list[Signed]:
        """Of the first attestors, ascending by identity."""
        keys = sorted(attestor_keys()[:count], key=lambda key: key.public_bytes)
        close, digest = sha256(self.closing), sha256(self.ciphertext_sum)
        found = [Attestation(self.digest, close, key.public_bytes, digest) for key in keys]
        return [Signed(one, key.sign_statement(one.to_bytes())) for key, one in zip(keys, found, strict=True)]

    def _unmasked(self) -> np.ndarray:
        """The lanes of the sum as limb sum and secret sum give them, without padding, whatever they are."""
        rows = self.limb_sum.reshape(self.lanes, linear_hash.LIMBS_PER_LANE)
        lanes = np.zeros(self.lanes, dtype=np.uint64)
        for limb in range(linear_hash.LIMBS_PER_LANE):
            lanes += rows[:, limb] << np.uint64(16 * limb)
        own = self.parameters.encoding.field_layout().lanes
        try:
            self.mask.certify_and_unmask(lanes, self.secret_sum, self.count, public_polynomials_key(self.digest))
        except ValueError:
            # What does not certify opens nothing: a liar would publish any numbers.
            lanes[:] = 0
        return lanes[:own]

    def _made(self, name: str, value: Any) -> Any:
        edit = self.edits.get(name)
        return value if edit is None else edit(value, self)
