"""Sealed boxes between neighbours: their contexts, their plaintexts, and the tree a sender signs.

``u`` sends to each neighbour ``v`` a share box (a share of the self-mask seed ``b_u`` and one of the root
``rho_u``) under v's share key, and where ``u < v`` a pair box (the seed ``s_uv``) under v's mask key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from secagg.arith.shamir import share_from_bytes
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label, encode_fields, index_field
from secagg.crypto.sealing import OVERHEAD_BYTES
from secagg.crypto.secret import Secret
from secagg.transcript import merkle
from secagg.transcript.statements import SHARE_BYTES

SEED_BYTES = 32
COMMITMENT_BYTES = 32
SHARE_BOX_BYTES = OVERHEAD_BYTES + 2 * SHARE_BYTES
PAIR_BOX_BYTES = OVERHEAD_BYTES + SEED_BYTES


def share_box_info(session: bytes, advertised: bytes, sender: int, recipient: int) -> bytes:
    """HPKE ``info`` of a share box: session digest, root of U1, both indices."""
    return encode_fields(Label.SHARE_BOX, session, advertised, index_field(sender), index_field(recipient))


def pair_box_info(session: bytes, advertised: bytes, sender: int, recipient: int) -> bytes:
    """HPKE ``info`` of a pair box."""
    return encode_fields(Label.PAIR_BOX, session, advertised, index_field(sender), index_field(recipient))


def pair_box_bytes(sender: int, recipient: int) -> int:
    """Length of the pair box between two neighbours: 0 where the sender has the higher index."""
    return PAIR_BOX_BYTES if sender < recipient else 0


def pair_seed(root: Secret, session: bytes, higher: int) -> Secret:
    """``s_uv = KDF(rho_u, v)``, chosen by the lower index ``u`` for the neighbour with index ``higher``."""
    return derive(root, Label.PAIR_SEED, session, index_field(higher))


def mask_key_seed(root: Secret, session: bytes) -> Secret:
    """Seed of the mask key pair, which whoever knows ``rho`` can derive again."""
    return derive(root, Label.MASK_KEY, session)


def self_mask_keystream(seed: Secret, session: bytes) -> Secret:
    """Keystream key of ``G(b)``."""
    return derive(seed, Label.SELF_MASK_KEYSTREAM, session)


def pair_mask_keystream(seed: Secret, session: bytes) -> Secret:
    """Keystream key of ``G(s_uv)``."""
    return derive(seed, Label.PAIR_MASK_KEYSTREAM, session)


def commit_self_mask(seed: Secret, session: bytes, identity: bytes) -> bytes:
    """SHA-256 commitment to ``b``; hiding because ``b`` is 32 uniform bytes."""
    return _commit(Label.SELF_MASK_COMMITMENT, seed, session, identity)


def commit_root(seed: Secret, session: bytes, identity: bytes) -> bytes:
    """SHA-256 commitment to ``rho``."""
    return _commit(Label.ROOT_COMMITMENT, seed, session, identity)


def _commit(label: Label, seed: Secret, session: bytes, identity: bytes) -> bytes:
    return hashlib.sha256(encode_fields(label, session, identity, seed.expose())).digest()


def commit_self_mask_share(session: bytes, owner: int, holder: int, share: bytes) -> bytes:
    """SHA-256 commitment to the 36-byte share of ``b`` that ``owner`` deals to ``holder``."""
    return _commit_dealt(Label.SELF_MASK_SHARE_COMMITMENT, session, owner, holder, share)


def commit_root_share(session: bytes, owner: int, holder: int, share: bytes) -> bytes:
    """SHA-256 commitment to the 36-byte share of ``rho`` that ``owner`` deals to ``holder``."""
    return _commit_dealt(Label.ROOT_SHARE_COMMITMENT, session, owner, holder, share)


def commit_pair_seed(session: bytes, owner: int, holder: int, seed: Secret) -> bytes:
    """SHA-256 commitment to the pair seed that ``owner`` deals to ``holder``."""
    return _commit_dealt(Label.PAIR_SEED_COMMITMENT, session, owner, holder, seed.expose())


def _commit_dealt(label: Label, session: bytes, owner: int, holder: int, value: bytes) -> bytes:
    return hashlib.sha256(encode_fields(label, session, index_field(owner), index_field(holder), value)).digest()


def commitments_bytes(sender: int, recipient: int) -> int:
    """Length of the commitments between two neighbours: self-mask share, root share, pair seed if there is one."""
    return COMMITMENT_BYTES * (3 if sender < recipient else 2)


class DealtBoxes(Protocol):
    """What a sender has for one recipient."""

    @property
    def recipient(self) -> int:
        """Its index."""
        ...

    @property
    def share_box(self) -> bytes:
        """The sealed shares."""
        ...

    @property
    def pair_box(self) -> bytes:
        """The sealed pair seed; empty where the sender has the higher index."""
        ...

    @property
    def commitments(self) -> bytes:
        """What is promised of the content of both."""
        ...


def box_leaf(recipient: int, share_box: bytes, pair_box: bytes, commitments: bytes) -> bytes:
    """Leaf for one recipient: its index, the SHA-256 of both boxes (of nothing where there is none), commitments."""
    digests = hashlib.sha256(share_box).digest(), hashlib.sha256(pair_box).digest()
    return box_leaf_of_digests(recipient, digests[0], digests[1], commitments)


def box_leaf_of_digests(recipient: int, share_box: bytes, pair_box: bytes, commitments: bytes) -> bytes:
    """As ``box_leaf``, for whoever has the boxes' SHA-256 digests only."""
    return encode_fields(Label.BOX_LEAF, index_field(recipient), share_box, pair_box, commitments)


def box_hashes(boxes: Iterable[DealtBoxes]) -> list[bytes]:
    """RFC 6962 leaf hashes of all boxes of a sender, in order of recipient."""
    return [merkle.leaf_hash(box_leaf(box.recipient, box.share_box, box.pair_box, box.commitments)) for box in boxes]


def box_slots(sender: int, recipients: Sequence[int]) -> list[int]:
    """Where each recipient's boxes start when all boxes of a sender are concatenated in order; the total last."""
    offsets = [0]
    for recipient in recipients:
        offsets.append(offsets[-1] + SHARE_BOX_BYTES + pair_box_bytes(sender, recipient))
    return offsets


def split_share_plaintext(plaintext: Secret) -> tuple[Secret, Secret]:
    """The two shares of a share box.

    Raises:
        ValueError: wrong length, or not field elements.
    """
    data = plaintext.expose()
    if len(data) != 2 * SHARE_BYTES:
        raise ValueError("share box: wrong plaintext length")
    parts = data[:SHARE_BYTES], data[SHARE_BYTES:]
    for part in parts:
        share_from_bytes(part)
    return Secret(parts[0]), Secret(parts[1])
