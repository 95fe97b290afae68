"""What a one-shot contribution seals to a committee member, and the keystreams of its ring mask.

A contributor draws 32 fresh bytes; its mask secret and its lattice errors are keystreams of them. The secret is shared
among the ``m`` members with degree ``r - 1``: the first ``r - 1`` members get 32-byte seeds of their shares, the others
get theirs in full, by interpolation (``secagg.arith.seeded_shamir``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import Keystream
from secagg.arith.ring_mask import draw_secret
from secagg.arith.seeded_shamir import dealt_shares, share_of_seed, shares_from_bytes, shares_to_bytes
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label, encode_fields, index_field
from secagg.crypto.sealing import OVERHEAD_BYTES, SealingError, SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.transcript.openers import Committee
from secagg.transcript.statements import RING_VECTOR_BYTES

SEED_BYTES = 32

Vector = npt.NDArray[np.uint64]
Secrets = npt.NDArray[np.int64]


def mask_secret(mask_seed: Secret, session: bytes) -> Secrets:
    """The mask secret ``s`` of one contribution: int64[4096], centred binomial.

    Args:
        mask_seed: 32 fresh bytes, for this contribution only.
        session: digest of the open entry.
    """
    return draw_secret(Keystream(derive(mask_seed, Label.MASK_SECRET_STREAM, session).expose()))


def lattice_error_keystream(mask_seed: Secret, session: bytes) -> Secret:
    """Keystream key of the lattice errors of one contribution."""
    return derive(mask_seed, Label.LATTICE_ERROR_STREAM, session)


def member_box_info(session: bytes, identity: bytes, member: int) -> bytes:
    """HPKE ``info`` of a box: session digest, the contributor's identity, the member's place in the committee."""
    return encode_fields(Label.MEMBER_BOX, session, identity, index_field(member))


def box_bytes(committee: Committee, member: int) -> int:
    """Length of the box of this member: the first ``needed - 1`` get seeds."""
    return OVERHEAD_BYTES + (SEED_BYTES if member < committee.needed - 1 else RING_VECTOR_BYTES)


def share_from_plaintext(committee: Committee, member: int, plaintext: Secret) -> Vector:
    """The share in an opened box: uint64[4096], field elements.

    Raises:
        ArithmeticInputError: wrong length, or not field elements.
    """
    if len(plaintext) + OVERHEAD_BYTES != box_bytes(committee, member):
        raise ArithmeticInputError("box", f"a plaintext of {len(plaintext)} bytes")
    if member < committee.needed - 1:
        return _seeded(plaintext)
    return shares_from_bytes(plaintext.expose())


def open_box(key: SealingKey, info: bytes, box: bytes, committee: Committee, member: int) -> Vector:
    """The share in a sealed box.

    Raises:
        SealingError: it does not open under this key and context.
        ArithmeticInputError: what is inside is no share.
    """
    if len(box) != box_bytes(committee, member):
        raise SealingError(f"box: {len(box)} bytes, expected {box_bytes(committee, member)}")
    return share_from_plaintext(committee, member, key.open(box, info))


def deal(
    committee: Committee, secret: Secrets, seeds: Sequence[Secret], session: bytes, identity: bytes
) -> tuple[bytes, ...]:
    """A box for each member, in their order.

    Args:
        committee: who gets them.
        secret: int64[4096], the mask secret.
        seeds: ``needed - 1`` times 32 fresh bytes.
        session: digest of the open entry.
        identity: the contributor's.

    Raises:
        SealingError: a member's key is none.
    """
    if len(seeds) != committee.needed - 1:
        raise ValueError(f"{len(seeds)} seeds, expected {committee.needed - 1}")
    seeded = np.stack([_seeded(seed) for seed in seeds])
    others = dealt_shares(secret, seeded, len(committee.members))
    plaintexts = [*seeds, *(Secret(shares_to_bytes(share)) for share in others)]
    return tuple(
        seal(member.sealing_key, member_box_info(session, identity, place), plaintext)
        for place, (member, plaintext) in enumerate(zip(committee.members, plaintexts, strict=True))
    )


def _seeded(seed: Secret) -> Vector:
    return share_of_seed(derive(seed, Label.SEEDED_SHARE_STREAM).expose())
