"""One session of a forged record, step by step, with every key at hand.

Nothing here is sent, and no state machine runs: each step computes what honest clients and an honest coordinator
would have published. Whatever a step makes passes through the edit of its name, and everything after follows from what
came back and is signed again. So an edit of ``close`` is a coordinator that logs another close, one of ``headers`` a
client that signs another header, and one of ``contributions`` somebody without the client's key.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from secagg.arith import linear_hash
from secagg.arith.keystream import Keystream, add_masks
from secagg.arith.quantiser import Quantiser, clip
from secagg.arith.shamir import SECRET_LIMBS, secret_to_limbs, share, share_to_bytes, uniform_elements
from secagg.crypto.sealing import SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive import boxes
from secagg.derive.graph import MaskingGraph, graph_seed, masking_graph
from secagg.derive.result import flatten_map, mean_of
from secagg.derive.threshold import graph_parameters
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.lora.vector import FactorMean
from secagg.lora.writer import encode_adapter
from secagg.transcript import canonical, merkle
from secagg.transcript.entries import (
    Deadlines,
    Encoding,
    Flattening,
    KeysAdvertised,
    KeysShared,
    NoDifferentialPrivacy,
    SessionAbort,
    SessionClose,
    SessionOpen,
    SessionResult,
)
from secagg.transcript.published import PairBox, PairPromise
from secagg.transcript.record import Record
from secagg.transcript.roster import Roster
from secagg.transcript.statements import (
    Absent,
    Accepted,
    AdvertiseStatement,
    ContributionHeader,
    Disposition,
    Dropped,
    Rejected,
    RootShare,
    SelfMaskShare,
    ShareStatement,
    Signed,
    Statement,
    UnmaskStatement,
)
from tests.support.rng import CountingRng

Edit = Callable[[Any, Any], Any]
"""Gets what a step made and whoever made it; gives what is used from there on."""

SHAPES = {"base_model.model.layer.0.lora_A.weight": (2, 14), "base_model.model.layer.0.lora_B.weight": (16, 2)}
TEMPLATE = AdapterTemplate("example/base", "", "CAUSAL_LM", 2, 4, use_rslora=False, fan_in_fan_out=False)
MODEL_DIGEST = hashlib.sha256(b"the weights of example/base").digest()


def flattened(dimension: int, max_contributors: int = 1024) -> Encoding:
    """15 bits a coordinate, clip norm 1, flattened: two fields a lane up to 131,072 contributors."""
    flatten = Flattening(hashlib.sha256(b"flatten").digest())
    return Encoding(dimension, 15, max_contributors, 64, Fraction(1), flatten)


@dataclass(frozen=True)
class Plan:
    """Who takes part and how far each gets; numbers are indices in U1 but for ``members``.

    ``members`` are the positions in the roster of those who advertise keys. ``answering`` are all contributors
    unless named.
    """

    members: tuple[int, ...]
    absent: frozenset[int] = frozenset()
    dropped: frozenset[int] = frozenset()
    rejected: Mapping[int, str] = field(default_factory=dict)
    missing: Mapping[int, frozenset[int]] = field(default_factory=dict)
    answering: frozenset[int] | None = None
    encoding: Encoding = field(default_factory=lambda: flattened(60))
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: SHAPES)
    min_contributors: int = 3
    max_corrupt: int = 1
    expected_dropout: Fraction = Fraction(0)
    opened_at_s: int = 1_700_000_000

    @property
    def size(self) -> int:
        """How many advertise keys."""
        return len(self.members)

    @property
    def present(self) -> list[int]:
        """U2."""
        return [index for index in range(self.size) if index not in self.absent]

    @property
    def uploading(self) -> list[int]:
        """Who sends a masked input, rejected or not."""
        return [index for index in self.present if index not in self.dropped]

    @property
    def accepted(self) -> list[int]:
        """U3."""
        return [index for index in self.uploading if index not in self.rejected]


@dataclass(frozen=True)
class Surroundings:
    """What sessions of one record share."""

    origin: str
    coordinator: SigningKey
    registrar: SigningKey
    identities: tuple[SigningKey, ...]
    roster: Roster


@dataclass(frozen=True)
class Dealt:
    """What one client dealt to one neighbour; ``pair_box`` is sealed only where the record will show it."""

    self_mask_share: bytes
    root_share: bytes
    share_box: bytes
    pair_box: bytes
    commitments: bytes


class SessionForge:
    """The steps ``open``, ``advertise``, ``share``, ``close`` and ``result`` or ``abort``, each giving its log entry.

    What a step made stands in the attribute of its name, as edited; mappings go by index in U1.
    """

    def __init__(self, around: Surroundings, name: str, plan: Plan, edits: Mapping[str, Edit]) -> None:
        self.around, self.name, self.plan, self.edits = around, name, plan, edits
        self.session_id = hashlib.sha256(f"session {name}".encode()).digest()[:16]
        self.keys = [around.identities[position] for position in plan.members]
        self.roots = [self.secret("root", index) for index in range(plan.size)]
        self.self_masks = [self.secret("self-mask", index) for index in range(plan.size)]
        self.files: dict[str, bytes] = {}
        self.uploads: dict[int, np.ndarray] = {}
        self._pair_streams: dict[tuple[int, int], Secret] = {}

    def secret(self, purpose: str, index: int) -> Secret:
        """32 bytes that follow from the name of the session, a purpose and an index."""
        return Secret(hashlib.sha256(f"{self.name} {purpose} {index}".encode()).digest())

    def open(self) -> SessionOpen:
        """Parameters, roster, layout and template."""
        plan, around = self.plan, self.around
        self.layout_value = self._made("layout", Layout.from_shapes(dict(plan.shapes)))
        self.template = self._made("template", TEMPLATE)
        self.parameters = self._made(
            "open",
            SessionOpen(
                session=self.session_id,
                protocol="pairwise",
                coordinator=around.coordinator.public_bytes,
                log=around.origin,
                opened_at_s=plan.opened_at_s,
                base_model=self.template.base_model,
                base_model_digest=MODEL_DIGEST,
                adapter=self.template.digest,
                layout=self.layout_value.digest,
                merge="factors",
                encoding=plan.encoding,
                min_contributors=plan.min_contributors,
                max_corrupt=plan.max_corrupt,
                expected_dropout=plan.expected_dropout,
                roster=around.roster.root(),
                roster_size=len(around.roster.members),
                registrar=around.registrar.public_bytes,
                deadlines=Deadlines(60, 60, 60, 60, 60),
                noise=NoDifferentialPrivacy(),
                retention_s=0,
            ),
        )
        self.digest = sha256(self.parameters)
        self.files["roster.jsonl"] = lines(around.roster.members)
        self.files["layout.json"] = canonical.encode(self.layout_value.to_json_value())
        self.files["adapter.json"] = canonical.encode(self.template.to_json_value())
        return self.parameters

    def advertise(self) -> KeysAdvertised:
        """U1 and the graph over it."""
        self.mask_keys = {
            index: SealingKey(boxes.mask_key_seed(root, self.digest)) for index, root in enumerate(self.roots)
        }
        share_keys = [hashlib.sha256(b"share key %d" % index).digest() for index in range(self.plan.size)]
        self.advertise_statements = self._made(
            "advertise",
            {
                index: AdvertiseStatement(
                    self.digest, key.public_bytes, sha256(self.mask_keys[index].public_bytes), share_keys[index]
                )
                for index, key in enumerate(self.keys)
            },
        )
        self.u1 = self._made("u1", [self.signed(index, self.advertise_statements[index]) for index in range(self.size)])
        root = merkle.root([leaf.to_bytes() for leaf in self.u1])
        self.advertised = self._made("advertised", KeysAdvertised(self.session_id, len(self.u1), root))
        self.files["keys.jsonl"] = lines(self.u1)
        found = graph_parameters(
            self.size,
            self.parameters.max_corrupt,
            self.parameters.min_contributors,
            self.parameters.expected_dropout,
        )
        self.threshold = found.threshold
        seed = graph_seed(self.digest, self.advertised.root)
        self.graph: MaskingGraph = masking_graph(seed, self.size, found.degree)
        return self.advertised

    def share(self) -> KeysShared:
        """U2: what each deals to its neighbours, and the root it signs over all boxes."""
        self.dealt = self._made("dealt", {index: self._deal(index) for index in self.plan.present})
        self.share_statements = self._made(
            "share", {index: self._share_statement(index) for index in self.plan.present}
        )
        self.u2: list[Record] = self._made(
            "u2",
            [
                self.signed(index, self.share_statements[index]) if index in self.share_statements else Absent(index)
                for index in range(self.size)
            ],
        )
        root = merkle.root([leaf.to_bytes() for leaf in self.u2])
        self.shared = self._made("shared", KeysShared(self.session_id, len(self.plan.present), root))
        self.files["u2.jsonl"] = lines(self.u2)
        return self.shared

    def close(self) -> SessionClose:
        """U3: uploads, headers, dispositions and the limb sum."""
        self._upload()
        self.contributions: dict[int, Signed] = self._made(
            "contributions", {index: self.signed(index, header) for index, header in self.headers.items()}
        )
        self.dispositions: list[Disposition] = self._made(
            "dispositions", [self._disposition(index) for index in range(self.size)]
        )
        self.accepted = [leaf.index for leaf in self.dispositions if isinstance(leaf, Accepted)]
        self.contributed = [leaf.contribution for leaf in self.dispositions if isinstance(leaf, Accepted)]
        self.limb_sum = self._made("limb_sum", self._sum_limbs())
        self.files["dispositions.jsonl"] = lines(self.dispositions)
        self.files["contributions.jsonl"] = lines(self.contributed)
        self.files["linear-hashes.bin"] = b"".join(self.hashes[index].tobytes() for index in self.accepted)
        self.files["masked-limb-sum.bin"] = self.limb_sum.tobytes()
        counts = [sum(isinstance(leaf, kind) for leaf in self.dispositions) for kind in (Accepted, Rejected, Dropped)]
        self.closing = self._made(
            "close",
            SessionClose(
                self.session_id,
                *counts,
                contributions=merkle.root([signed.to_bytes() for signed in self.contributed]),
                dispositions=merkle.root([leaf.to_bytes() for leaf in self.dispositions]),
                limb_sum=sha256(self.files["masked-limb-sum.bin"]),
            ),
        )
        return self.closing

    def result(self) -> SessionResult:
        """The openings and what they open."""
        plan = self.plan
        answering = [index for index in self.accepted if plan.answering is None or index in plan.answering]
        self.answers = self._made("answers", {index: self._answer(index) for index in answering})
        self.openings: list[Signed] = self._made(
            "openings", [self.signed(index, answer) for index, answer in self.answers.items()]
        )
        self.pairs = self._made("pairs", self._published_pairs())
        self.lanes_sum = self._made("lanes_sum", self._unmasked())
        self.integer_sum = self._made("integer_sum", unpacked(self.parameters.encoding, self.lanes_sum, self.count))
        mean = mean_of(self.parameters.encoding, self.integer_sum, self.count)
        self.mean = self._made("mean", mean)
        self.aggregate: dict[str, bytes] = self._made("aggregate", self._adapter())
        self.files["openings.jsonl"] = lines(self.openings)
        self.files["pair-boxes.jsonl"] = lines(self.pairs)
        self.files["integer-sum.bin"] = self.integer_sum.astype("<i8").tobytes()
        self.files |= {f"aggregate/{name}": data for name, data in self.aggregate.items()}
        self.finished = self._made(
            "result",
            SessionResult(
                self.session_id,
                self.count,
                merkle.root([signed.to_bytes() for signed in self.openings]),
                sha256(self.files["integer-sum.bin"]),
                sha256(self.mean.astype("<f4").tobytes()),
                sha256(self.aggregate["adapter_model.safetensors"]),
                sha256(self.aggregate["adapter_config.json"]),
            ),
        )
        return self.finished

    def abort(self) -> SessionAbort:
        """The session ends without a result; nothing was released."""
        entry = SessionAbort(self.session_id, "too few clients", 0, merkle.root([]))
        self.aborted: SessionAbort = self._made("abort", entry)
        return self.aborted

    def final_files(self) -> dict[str, bytes]:
        """The session's files by path, after the edit ``files``."""
        files: dict[str, bytes] = self._made("files", dict(self.files))
        return files

    @property
    def size(self) -> int:
        """Clients in U1."""
        return self.plan.size

    @property
    def count(self) -> int:
        """Contributions in the sum."""
        return len(self.accepted)

    @property
    def lanes(self) -> int:
        """Lanes of a contribution."""
        return self.parameters.encoding.field_layout().lanes

    def signed(self, index: int, statement: Statement) -> Signed:
        """A statement with the client's signature."""
        return Signed(statement, self.keys[index].sign_statement(statement.to_bytes()))

    def mask_neighbours(self, index: int) -> list[int]:
        """Graph neighbours in U2 that the client does not miss."""
        present = frozenset(self.share_statements)
        missing = self.plan.missing.get(index, frozenset[int]())
        return [other for other in self.graph.neighbours(index) if other in present and other not in missing]

    def masked(self, index: int, packed: np.ndarray) -> np.ndarray:
        """A client's lanes under all of its masks."""
        add = [boxes.self_mask_keystream(self.self_masks[index], self.digest)]
        subtract = []
        for other in self.mask_neighbours(index):
            (add if index < other else subtract).append(self.pair_stream(min(index, other), max(index, other)))
        lanes = packed.copy()
        add_masks(lanes, [key.expose() for key in add], [key.expose() for key in subtract], 2)
        return lanes

    def pair_stream(self, lower: int, higher: int) -> Secret:
        """The keystream key of a pair mask."""
        found = self._pair_streams.get((lower, higher))
        if found is None:
            seed = boxes.pair_seed(self.roots[lower], self.digest, higher)
            found = self._pair_streams[lower, higher] = boxes.pair_mask_keystream(seed, self.digest)
        return found

    def removal(self) -> tuple[list[bytes], list[bytes]]:
        """Keystream keys to add to and subtract from the masked sum."""
        add: list[Secret] = []
        subtract = [boxes.self_mask_keystream(self.self_masks[index], self.digest) for index in self.accepted]
        for gone, user in self._applied_for_dropped():
            (add if gone < user else subtract).append(self.pair_stream(min(gone, user), max(gone, user)))
        return [key.expose() for key in add], [key.expose() for key in subtract]

    def _made(self, name: str, value: Any) -> Any:
        edit = self.edits.get(name)
        return value if edit is None else edit(value, self)

    def _shown_pairs(self, sender: int, recipient: int) -> bool:
        """Whether the record shows the sealed pair box: a contributor's to a client that is not in the sum."""
        return sender < recipient and recipient not in self.plan.accepted

    def _deal(self, index: int) -> dict[int, Dealt]:
        neighbours = self.graph.neighbours(index)
        both = (self.self_masks[index].expose(), self.roots[index].expose())
        secrets = np.concatenate([secret_to_limbs(secret) for secret in both])
        rng = CountingRng(f"{self.name} coefficients {index}".encode())
        coefficients = uniform_elements(rng.bytes, (self.threshold - 1, 2 * SECRET_LIMBS))
        shares = share(secrets, coefficients, np.array(neighbours, dtype=np.uint64) + np.uint64(1))
        dealt = {}
        for row, other in zip(shares, neighbours, strict=True):
            own, root = share_to_bytes(row[:SECRET_LIMBS]), share_to_bytes(row[SECRET_LIMBS:])
            promised = boxes.commit_self_mask_share(self.digest, index, other, own)
            promised += boxes.commit_root_share(self.digest, index, other, root)
            pair_box = b""
            if index < other:
                seed = boxes.pair_seed(self.roots[index], self.digest, other)
                promised += boxes.commit_pair_seed(self.digest, index, other, seed)
                pair_box = self._pair_box(index, other, seed)
            # Nobody opens a share box from the record; only its digest is in it.
            share_box = rng.bytes(32)
            dealt[other] = Dealt(own, root, share_box, pair_box, promised)
        return dealt

    def _pair_box(self, index: int, other: int, seed: Secret) -> bytes:
        if not self._shown_pairs(index, other):
            return b"not sealed"
        info = boxes.pair_box_info(self.digest, self.advertised.root, index, other)
        return seal(self.mask_keys[other].public_bytes, info, seed)

    def box_tree(self, index: int) -> merkle.Tree:
        """The tree whose root a client signs over all boxes that it dealt."""
        leaves = (
            boxes.box_leaf(other, one.share_box, one.pair_box, one.commitments)
            for other, one in self.dealt[index].items()
        )
        return merkle.Tree([merkle.leaf_hash(leaf) for leaf in leaves])

    def _share_statement(self, index: int) -> ShareStatement:
        identity = self.keys[index].public_bytes
        return ShareStatement(
            self.digest,
            self.advertised.root,
            identity,
            boxes.commit_self_mask(self.self_masks[index], self.digest, identity),
            boxes.commit_root(self.roots[index], self.digest, identity),
            self.box_tree(index).root,
        )

    def _upload(self) -> None:
        encoding = self.parameters.encoding
        self.packed = self._made(
            "packed", {index: packed_vector(encoding, self.secret("vector", index)) for index in self.plan.uploading}
        )
        self.uploads = self._made("uploads", {index: self.masked(index, one) for index, one in self.packed.items()})
        self.hashes = self._made(
            "hashes", {index: linear_hash.hash_lanes(lanes) for index, lanes in self.uploads.items()}
        )
        self.headers = self._made("headers", {index: self._header(index) for index in self.uploads})

    def _header(self, index: int) -> ContributionHeader:
        lanes = self.uploads[index]
        return ContributionHeader(
            self.digest,
            self.shared.root,
            self.keys[index].public_bytes,
            sha256(lanes.tobytes()),
            sha256(self.hashes[index].tobytes()),
            lanes.size,
            tuple(sorted(self.plan.missing.get(index, ()))),
        )

    def _disposition(self, index: int) -> Disposition:
        if index in self.plan.absent:
            return Dropped(index, "share-keys")
        if index in self.plan.dropped:
            return Dropped(index, "masked-input")
        if index in self.plan.rejected:
            return Rejected(index, self.plan.rejected[index])
        return Accepted(index, self.contributions[index])

    def shards(self) -> list[list[int]]:
        """The contributors of each limb sum."""
        step = linear_hash.max_contributors(self.lanes)
        return [self.accepted[start : start + step] for start in range(0, len(self.accepted), step)]

    def _sum_limbs(self) -> np.ndarray:
        sums = []
        for shard in self.shards():
            total = linear_hash.LimbSum(self.lanes)
            for index in shard:
                total.add_lanes(self.uploads[index])
            sums.append(total.entries)
        return np.concatenate(sums).astype("<u8")

    def _answer(self, index: int) -> UnmaskStatement:
        shares = tuple(
            SelfMaskShare(other, self.dealt[other][index].self_mask_share)
            if other in self._accepted_set
            else RootShare(other, self.dealt[other][index].root_share)
            for other in self.mask_neighbours(index)
        )
        return UnmaskStatement(self.digest, sha256(self.closing), self.keys[index].public_bytes, shares)

    @functools.cached_property
    def _accepted_set(self) -> frozenset[int]:
        return frozenset(self.accepted)

    def _applied_for_dropped(self) -> list[tuple[int, int]]:
        """(client in U2 that is not in the sum, contributor that masked with it)."""
        gone = [index for index in self.plan.present if index not in self._accepted_set]
        return [(other, user) for user in self.accepted for other in self.mask_neighbours(user) if other in gone]

    def _published_pairs(self) -> list[PairBox | PairPromise]:
        pairs: list[PairBox | PairPromise] = []
        for gone, user in self._applied_for_dropped():
            sender, recipient = min(gone, user), max(gone, user)
            dealt = self.dealt[sender][recipient]
            path = self.box_tree(sender).inclusion_proof(self.graph.neighbours(sender).index(recipient))
            share_box = sha256(dealt.share_box)
            if sender == user:
                pairs.append(PairBox(sender, recipient, share_box, dealt.pair_box, dealt.commitments, path))
            else:
                digest = sha256(dealt.pair_box)
                pairs.append(PairPromise(sender, recipient, share_box, digest, dealt.commitments, path))
        return sorted(pairs, key=lambda pair: (pair.sender, pair.recipient))

    def _unmasked(self) -> np.ndarray:
        """The lanes of the sum as the published limb sum gives them, without masks."""
        rows = self.limb_sum.reshape(-1, self.lanes, linear_hash.LIMBS_PER_LANE).sum(axis=0, dtype=np.uint64)
        lanes = np.zeros(self.lanes, dtype=np.uint64)
        for limb in range(linear_hash.LIMBS_PER_LANE):
            lanes += rows[:, limb] << np.uint64(16 * limb)
        add_masks(lanes, *self.removal(), 2)
        return lanes

    def _adapter(self) -> dict[str, bytes]:
        tensors = FactorMean().to_adapter(self.mean, self.layout_value, self.template)
        return {name: b"".join(pieces) for name, pieces in encode_adapter(self.template, tensors).items()}


def sha256(value: bytes | Record) -> bytes:
    """Of bytes, or of the canonical bytes of a record."""
    return hashlib.sha256(value.to_bytes() if isinstance(value, Record) else value).digest()


def lines(records: Any) -> bytes:
    """A list as it is published."""
    return b"".join(record.to_bytes() + b"\n" for record in records)


def packed_vector(encoding: Encoding, seed: Secret) -> np.ndarray:
    """The lanes of a vector that follows from ``seed``, not masked yet."""
    rng = np.random.default_rng(list(seed.expose()))
    vector = rng.standard_normal(encoding.dimension, dtype=np.float32)
    vector /= np.float32(np.sqrt(encoding.dimension))
    clipped, _ = clip(vector, encoding.clip_norm)
    if isinstance(encoding.flatten, Flattening):
        clipped = _flatten(encoding).forward(clipped)
    values, _ = Quantiser(encoding.value_bits, encoding.bound()).quantise(clipped, Keystream(seed.expose()))
    return encoding.field_layout().pack(values)


@functools.lru_cache(maxsize=2)
def _flatten(encoding: Encoding) -> Any:
    return flatten_map(encoding.flatten, encoding.dimension)


def unpacked(encoding: Encoding, lanes: np.ndarray, count: int) -> np.ndarray:
    """The sums of coordinates in lanes, whatever counter and padding say: what a liar would publish, too."""
    layout = encoding.field_layout()
    mask = np.uint64((1 << layout.field_bits) - 1)
    shifts = [np.uint64(layout.field_bits * number) for number in range(layout.fields_per_lane)]
    fields = np.stack([(lanes >> shift) & mask for shift in shifts], axis=1).reshape(-1)
    return fields[1 : 1 + layout.dimension].astype(np.int64) - count * layout.offset
