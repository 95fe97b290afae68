"""Domain separation: one enum of labels and one injective encoding.

Every hash, signature, derived key and sealed box takes its input from ``encode_fields``, and each label serves
one purpose at one place in the code (a test counts).
"""

from __future__ import annotations

import enum


@enum.unique
class Label(enum.Enum):
    """What a derived value is for."""

    STATEMENT = "secagg/v1/statement"
    """Signatures over canonical records; the record's type is inside what is signed."""
    SEALING_KEY = "secagg/v1/sealing-key"
    """Seed of a sealing key pair to the seeds of its two parts."""
    MASK_KEY = "secagg/v1/mask-key"
    """Root ``rho`` to the seed of the mask key pair."""
    PAIR_SEED = "secagg/v1/pair-seed"
    """Root ``rho`` to the seed shared with one neighbour."""
    SELF_MASK_KEYSTREAM = "secagg/v1/self-mask-keystream"
    """Self-mask seed ``b`` to a keystream key."""
    PAIR_MASK_KEYSTREAM = "secagg/v1/pair-mask-keystream"
    """Pair seed to a keystream key."""
    SELF_MASK_COMMITMENT = "secagg/v1/self-mask-commitment"
    ROOT_COMMITMENT = "secagg/v1/root-commitment"
    SELF_MASK_SHARE_COMMITMENT = "secagg/v1/self-mask-share-commitment"
    ROOT_SHARE_COMMITMENT = "secagg/v1/root-share-commitment"
    PAIR_SEED_COMMITMENT = "secagg/v1/pair-seed-commitment"
    """What a dealer promises each recipient's box to hold."""
    SHARE_BOX = "secagg/v1/share-box"
    """Context of a sealed box with two shares."""
    PAIR_BOX = "secagg/v1/pair-box"
    """Context of a sealed box with a pair seed."""
    BOX_LEAF = "secagg/v1/box-leaf"
    """Leaf of the tree of box digests that a sender signs."""
    GRAPH_SEED = "secagg/v1/graph-seed"
    QUANTISER_STREAM = "secagg/v1/quantiser-stream"
    """Fresh randomness to the keystream that rounds one vector."""
    NOISE = "secagg/v1/noise"
    """The same randomness to the secret that the share of the noise is drawn from."""
    FLATTEN_PERMUTATION = "secagg/v1/flatten-permutation"
    FLATTEN_SIGNS = "secagg/v1/flatten-signs"
    STORE_KEY = "secagg/v1/store-key"
    """A client's identity key to the key that encrypts its session store."""
    AUTHORITY_STORE_KEY = "secagg/v1/authority-store-key"
    """A key authority's signing key to the key that encrypts its session store."""
    STORE_CELL_KEY = "secagg/v1/store-cell-key"
    """A store key to the key of one session's cells."""
    STORE_CELL = "secagg/v1/store-cell"
    """Associated data of an encrypted cell."""
    UPLOAD_TOKEN = "secagg/v1/upload-token"  # noqa: S105 - a label, not a password
    """A coordinator's upload key and a signed header to the token of the upload."""
    UPLOAD_KEY = "secagg/v1/upload-key"
    """A coordinator's signing key to its upload key."""
    PUBLIC_POLYNOMIALS = "secagg/v1/public-polynomials"
    """The digest of an open entry to the public keystream of a one-shot session's ring elements."""
    MASK_SECRET_STREAM = "secagg/v1/mask-secret-stream"  # noqa: S105 - a label, not a password
    """Fresh randomness of one contribution to the keystream that its mask secret is drawn from."""
    LATTICE_ERROR_STREAM = "secagg/v1/lattice-error-stream"
    """The same randomness to the keystream of its lattice errors."""
    SEEDED_SHARE_STREAM = "secagg/v1/seeded-share-stream"
    """A member's 32-byte seed to the keystream of its share."""
    MEMBER_BOX = "secagg/v1/member-box"
    """Context of a sealed box for a committee member."""
    MEMBER_SEALING_KEY = "secagg/v1/member-sealing-key"
    """A committee member's signing key to the seed of the key pair that boxes are sealed to."""
    AUTHORITY_SESSION = "secagg/v1/authority-session"
    """A coordinator's key and a session's identifier to the name under which an authority stores the session."""


def encode_fields(label: Label, *fields: bytes) -> bytes:
    """Label and fields as one byte string, injectively.

    The label and then every field, each preceded by its length as eight bytes big-endian; the number of
    fields stands first in the same form.
    """
    parts = [len(fields).to_bytes(8, "big")]
    for part in (label.value.encode("ascii"), *fields):
        parts.append(len(part).to_bytes(8, "big"))
        parts.append(part)
    return b"".join(parts)


def index_field(index: int) -> bytes:
    """A client's index as a field: four bytes big-endian."""
    return index.to_bytes(4, "big")
