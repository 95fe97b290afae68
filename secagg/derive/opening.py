"""What the answers of phase UNMASK determine: the keystreams that are still in a masked sum.

The coordinator opens a sum with this, and whoever checks the record follows the same steps from the published answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from secagg.arith.shamir import (
    SECRET_LIMBS,
    ReconstructionError,
    ReconstructionPlan,
    limbs_to_secret,
    reconstruct_with_errors,
    share_from_bytes,
)
from secagg.crypto.sealing import SealingError, SealingKey
from secagg.crypto.secret import Secret
from secagg.derive import boxes
from secagg.derive.graph import MaskingGraph
from secagg.transcript.statements import SelfMaskShare, ShareStatement, UnmaskStatement

_Shares = list[tuple[int, bytes]]
_Accept = Callable[[npt.NDArray[np.uint64]], bool]


class OpeningError(Exception):
    """The answers do not open the sum. ``index`` is the client whose secret or box is at fault, if one is."""

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index


@dataclass(frozen=True, slots=True)
class ClosedCohort:
    """What is fixed before anything is opened. Lists and mappings go by index in U1.

    Attributes:
        session: digest of the open entry.
        advertised: root of U1.
        graph: who are neighbours.
        threshold: shares that determine a secret.
        mask_keys: SHA-256 of each mask key, as signed.
        shared: what each signed in phase SHARE_KEYS; None who did not share.
        missing: of each contribution in the sum, the neighbours it is not masked with.
    """

    session: bytes
    advertised: bytes
    graph: MaskingGraph
    threshold: int
    mask_keys: Sequence[bytes]
    shared: Sequence[ShareStatement | None]
    missing: Mapping[int, frozenset[int]]

    def users(self, dropped: int) -> list[int]:
        """Contributors that masked with a client that is not in the sum, ascending."""
        around = self.graph.neighbours(dropped)
        return [index for index in around if index in self.missing and dropped not in self.missing[index]]

    def dropped(self) -> list[int]:
        """Clients that shared keys and are not in the sum, ascending."""
        return [index for index, shared in enumerate(self.shared) if shared is not None and index not in self.missing]


class DealtPairs(Protocol):
    """Pair boxes and the commitments to what they hold."""

    def pair_box(self, sender: int, recipient: int) -> bytes:
        """The pair box that ``sender``, the lower index, dealt to ``recipient``."""
        ...

    def pair_commitment(self, sender: int, recipient: int) -> bytes:
        """What ``sender``, the lower index, signed of that box's content: 32 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Removal:
    """Keystream keys to add to and subtract from the masked sum.

    ``disagreed`` lists (answerer, owner) pairs of shares that do not lie on the owner's polynomial.
    """

    add: tuple[Secret, ...]
    subtract: tuple[Secret, ...]
    disagreed: tuple[tuple[int, int], ...]


def what_masks(cohort: ClosedCohort, answers: Mapping[int, UnmaskStatement], pairs: DealtPairs) -> Removal:
    """What still masks the sum of the contributions in ``cohort.missing``.

    For every contributor ``G(b_u)`` is subtracted; for every client ``w`` that shared keys and is not in the sum,
    the masks that contributors applied for it, seeds from its root ``rho_w`` or from the boxes sent to it.

    Args:
        cohort: the closed set.
        answers: signed answers by the index of who gave them; their signatures were checked.
        pairs: boxes and commitments, checked against what their senders signed.

    Raises:
        OpeningError: too few shares of a secret, no subset that fits its commitment, or a bad pair box.
    """
    self_masks, roots = _collect(answers)
    disagreed: list[tuple[int, int]] = []
    add: list[Secret] = []
    subtract: list[Secret] = []
    for index in sorted(cohort.missing):
        seed = _reconstruct(cohort, index, self_masks.get(index, []), _self_mask_check(cohort, index), disagreed)
        subtract.append(boxes.self_mask_keystream(seed, cohort.session))
    for index in cohort.dropped():
        users = cohort.users(index)
        if users:
            root = _reconstruct(cohort, index, roots.get(index, []), _root_check(cohort, index), disagreed)
            more_to_add, more_to_subtract = _pair_masks(cohort, index, root, users, pairs)
            add.extend(more_to_add)
            subtract.extend(more_to_subtract)
    return Removal(tuple(add), tuple(subtract), tuple(disagreed))


def _collect(answers: Mapping[int, UnmaskStatement]) -> tuple[dict[int, _Shares], dict[int, _Shares]]:
    """Shares by owner: of self-mask seeds, and of roots; each as (answerer, 36 bytes)."""
    self_masks: dict[int, _Shares] = {}
    roots: dict[int, _Shares] = {}
    for answerer, statement in answers.items():
        for released in statement.shares:
            kind = self_masks if isinstance(released, SelfMaskShare) else roots
            kind.setdefault(released.index, []).append((answerer, released.share))
    return self_masks, roots


def _share_statement(cohort: ClosedCohort, index: int) -> ShareStatement:
    statement = cohort.shared[index]
    if statement is None:
        raise OpeningError("no share statement", index)
    return statement


def _self_mask_check(cohort: ClosedCohort, index: int) -> _Accept:
    statement = _share_statement(cohort, index)

    def accept(limbs: npt.NDArray[np.uint64]) -> bool:
        seed = _as_secret(limbs)
        expected = statement.self_mask_commitment
        return seed is not None and expected == boxes.commit_self_mask(seed, cohort.session, statement.identity)

    return accept


def _root_check(cohort: ClosedCohort, index: int) -> _Accept:
    statement = _share_statement(cohort, index)

    def accept(limbs: npt.NDArray[np.uint64]) -> bool:
        seed = _as_secret(limbs)
        expected = statement.root_commitment
        return seed is not None and expected == boxes.commit_root(seed, cohort.session, statement.identity)

    return accept


def _as_secret(limbs: npt.NDArray[np.uint64]) -> Secret | None:
    try:
        return Secret(limbs_to_secret(limbs))
    except ValueError:
        return None


def _reconstruct(
    cohort: ClosedCohort, index: int, shares: _Shares, accept: _Accept, disagreed: list[tuple[int, int]]
) -> Secret:
    threshold = cohort.threshold
    usable = [(answerer, data) for answerer, data in shares if _is_share(data)]
    disagreed.extend((answerer, index) for answerer, data in shares if not _is_share(data))
    if len(usable) < threshold:
        raise OpeningError(f"{len(usable)} shares of index {index}, {threshold} needed", index)
    points = np.array([answerer + 1 for answerer, _ in usable], dtype=np.uint64)
    values = np.frombuffer(b"".join(data for _, data in usable), dtype="<u4").astype(np.uint64)
    matrix = values.reshape(len(usable), SECRET_LIMBS)
    # Every share was checked against its dealer's commitment when it came, so any t will do but for a bad dealer.
    limbs = ReconstructionPlan(points[:threshold], threshold).reconstruct(matrix[:threshold])
    if not accept(limbs):
        try:
            limbs, wrong = reconstruct_with_errors(points, matrix, threshold, accept)
        except ReconstructionError:
            raise OpeningError(f"what index {index} dealt does not fit its commitment", index) from None
        disagreed.extend((usable[position][0], index) for position in wrong)
    return Secret(limbs_to_secret(limbs))


def _is_share(data: bytes) -> bool:
    try:
        share_from_bytes(data)
    except ValueError:
        return False
    return True


def _pair_masks(
    cohort: ClosedCohort, dropped: int, root: Secret, users: Sequence[int], pairs: DealtPairs
) -> tuple[list[Secret], list[Secret]]:
    """Keystreams to add to and to subtract from the sum because ``users`` masked with ``dropped``."""
    add: list[Secret] = []
    subtract: list[Secret] = []
    key = SealingKey(boxes.mask_key_seed(root, cohort.session))
    if hashlib.sha256(key.public_bytes).digest() != cohort.mask_keys[dropped]:
        raise OpeningError(f"mask key of index {dropped} does not follow from its root", dropped)
    for index in users:
        if dropped < index:
            # The contributor, with the higher index, subtracted the stream of the seed that `dropped` chose.
            seed, target, owner, holder = boxes.pair_seed(root, cohort.session, index), add, dropped, index
        else:
            info = boxes.pair_box_info(cohort.session, cohort.advertised, index, dropped)
            try:
                seed = key.open(pairs.pair_box(index, dropped), info)
            except SealingError:
                raise OpeningError(f"pair box from index {index} does not open", index) from None
            target, owner, holder = subtract, index, dropped
        # The seed that a dealer's root or box gives is the one that it promised, and so the one that was used.
        if pairs.pair_commitment(owner, holder) != boxes.commit_pair_seed(cohort.session, owner, holder, seed):
            raise OpeningError(f"index {owner} promised index {holder} another pair seed", owner)
        target.append(boxes.pair_mask_keystream(seed, cohort.session))
    return add, subtract
