"""How the answers of a committee, or of an authority, open the masked sum of a one-shot session.

The same for the coordinator, for an authority before it speaks, and for every verifier.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.ring_mask import RingMask
from secagg.arith.seeded_shamir import agree, reconstruct_sum
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.transcript.openers import Committee

Lanes = npt.NDArray[np.uint64]
Shares = npt.NDArray[np.uint64]
Secrets = npt.NDArray[np.int64]


class RingOpeningError(Exception):
    """The answers do not open the sum; the text, a constant, says why."""


def public_polynomials_key(session: bytes) -> bytes:
    """Keystream key of a session's public polynomials, from the digest of its open entry; nothing of it is secret."""
    return derive(Secret(session), Label.PUBLIC_POLYNOMIALS).expose()


@dataclass(frozen=True, slots=True)
class MaskedSum:
    """What is to be opened: the masked sum of ``contributors`` uploads, and the key of the public polynomials."""

    mask: RingMask
    public_key: bytes
    lanes: Lanes
    contributors: int

    def certified(self, secret_sum: Secrets) -> Lanes:
        """The sum without its ring mask, padding included; checked in every lane.

        Raises:
            CertificationError: ``secret_sum`` is not the sum of mask secrets of contributions with small errors.
        """
        lanes = self.lanes.copy()
        self.mask.certify_and_unmask(lanes, secret_sum, self.contributors, self.public_key)
        return lanes


@dataclass(frozen=True, slots=True)
class RingOpening:
    """What opens a sum.

    ``used`` are the members whose share sums gave the secret sum, ``dissenting`` those whose do not fit it.
    """

    secret_sum: Secrets
    used: tuple[int, ...]
    dissenting: tuple[int, ...]


def open_with_shares(
    committee: Committee, answers: Mapping[int, Shares], masked: MaskedSum
) -> tuple[RingOpening, Lanes]:
    """The opening that the members' share sums give, and the sum without its mask.

    Rules: where all answers lie on one polynomial, that is the opening; else the first ``needed`` of them, in ascending
    order of members, whose secret sum certifies. Nobody is blamed: a contributor who dealt inconsistent shares looks
    like a member who lies.

    Args:
        committee: who holds shares, and how many are needed.
        answers: share sums (uint64[4096]) by place in the committee.
        masked: the masked sum.

    Raises:
        RingOpeningError: too few answers, or no subset of them certifies.
    """
    if len(answers) < committee.needed:
        raise RingOpeningError(f"{len(answers)} answers, {committee.needed} are needed")
    for used in itertools.combinations(sorted(answers), committee.needed):
        found = _attempt(committee, answers, masked, used)
        if found is not None:
            return found
    raise RingOpeningError("no set of answers opens the sum")


def _attempt(
    committee: Committee, answers: Mapping[int, Shares], masked: MaskedSum, used: tuple[int, ...]
) -> tuple[RingOpening, Lanes] | None:
    points = np.array([member + 1 for member in used], dtype=np.uint64)
    shares = np.stack([answers[member] for member in used])
    try:
        secret_sum = reconstruct_sum(points, shares, masked.mask.secret_bound(masked.contributors))
        lanes = masked.certified(secret_sum)
    except (CertificationError, ArithmeticInputError):
        return None
    dissenting = tuple(
        member for member in sorted(answers) if member not in used and not _fits(committee, answers, used, member)
    )
    return RingOpening(secret_sum, used, dissenting), lanes


def _fits(committee: Committee, answers: Mapping[int, Shares], used: tuple[int, ...], member: int) -> bool:
    places = (*used, member)
    points = np.array([place + 1 for place in places], dtype=np.uint64)
    return agree(points, np.stack([answers[place] for place in places]), committee.needed)


def without_padding(lanes: Lanes, encoded: int) -> Lanes:
    """The lanes that hold fields: the first ``encoded`` of an opened sum.

    Raises:
        RingOpeningError: the others are not zero.
    """
    if lanes[encoded:].any():
        raise RingOpeningError("the padding of the sum is not zero")
    return lanes[:encoded]
