"""One session of a forged record, step by step, with every key at hand: who takes part, and all up to U2.

Nothing here is sent, and no state machine runs: each step computes what honest clients and an honest coordinator
would have published. Whatever a step makes passes through the edit of its name, and everything after follows from what
came back and is signed again. So an edit of ``close`` is a coordinator that logs another close, one of ``headers`` a
client that signs another header, and one of ``contributions`` somebody without the client's key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from secagg.arith.keystream import add_masks
from secagg.arith.shamir import SECRET_LIMBS, secret_to_limbs, share, share_to_bytes, uniform_elements
from secagg.crypto.sealing import SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive import boxes
from secagg.derive.graph import MaskingGraph, graph_seed, masking_graph
from secagg.derive.threshold import graph_parameters
from secagg.lora.fixed import encode_fixed
from secagg.lora.layout import Layout
from secagg.lora.manifest import Manifest
from secagg.lora.template import AdapterTemplate
from secagg.transcript import canonical, merkle
from secagg.transcript.encoding import Encoding, Flattening
from secagg.transcript.entries import Deadlines, KeysAdvertised, KeysShared, PairwiseOpen, SessionOpen
from secagg.transcript.merge import FactorMerge, Merge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.record import Record
from secagg.transcript.roster import Roster
from secagg.transcript.statements import (
    Absent,
    AdvertiseStatement,
    ShareStatement,
    Signed,
    Statement,
)
from tests.support.forged_merges import MergingForge
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
    unless named. Where ``adapter`` is a manifest, contributors send what ``merge`` makes of updates (see
    ``forged_merges``).
    """

    members: tuple[int, ...]
    absent: frozenset[int] = frozenset()
    dropped: frozenset[int] = frozenset()
    rejected: Mapping[int, str] = field(default_factory=dict)
    missing: Mapping[int, frozenset[int]] = field(default_factory=dict)
    answering: frozenset[int] | None = None
    encoding: Encoding = field(default_factory=lambda: flattened(60))
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: SHAPES)
    adapter: AdapterTemplate | Manifest = TEMPLATE
    merge: Merge = field(default_factory=FactorMerge)
    fixed: Mapping[str, np.ndarray] = field(default_factory=dict)
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


class OpeningForge(MergingForge):
    """The steps ``open``, ``advertise`` and ``share``, each giving its log entry.

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
        self.template = self._made("template", plan.adapter)
        self.parameters = self._made(
            "open",
            PairwiseOpen(
                session=self.session_id,
                protocol="pairwise",
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
        if plan.fixed:
            self.files["fixed.safetensors"] = encode_fixed(plan.fixed)
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

    @property
    def size(self) -> int:
        """Clients in U1."""
        return self.plan.size

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


def sha256(value: bytes | Record) -> bytes:
    """Of bytes, or of the canonical bytes of a record."""
    return hashlib.sha256(value.to_bytes() if isinstance(value, Record) else value).digest()


def lines(records: Any) -> bytes:
    """A list as it is published."""
    return b"".join(record.to_bytes() + b"\n" for record in records)
