"""Phase UNMASK at the coordinator: from released shares to the keystreams that are still in the sum.

Pure but for the reading of pair boxes, which is an argument; a verifier can follow the same steps from the
published answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
from secagg.derive.graph import MaskingGraph
from secagg.protocol.pairwise import boxes, tables
from secagg.protocol.pairwise.coordinator_states import AdvertiseRow, RowKind, Rows, ShareRow, Unmasking
from secagg.protocol.session import Session
from secagg.transcript.statements import (
    SelfMaskShare,
    ShareStatement,
    Signed,
    UnmaskStatement,
)

PairBoxReader = Callable[[int, int], bytes]
"""The pair box that one index sent to another."""

_Shares = list[tuple[int, bytes]]
_Accept = Callable[[npt.NDArray[np.uint64]], bool]


class RecoveryError(Exception):
    """The answers do not open the sum. ``index`` is the client whose secret or box is at fault, if one is."""

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index


@dataclass(frozen=True, slots=True)
class Removal:
    """Keystream keys to add to and subtract from the masked sum, and the answers that gave them.

    ``disagreed`` lists (answerer, owner) pairs of shares that do not lie on the owner's polynomial.
    """

    add: tuple[Secret, ...]
    subtract: tuple[Secret, ...]
    answers: tuple[bytes, ...]
    disagreed: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Opening:
    session: Session
    rows: Rows
    state: Unmasking
    graph: MaskingGraph


def recover(session: Session, rows: Rows, state: Unmasking, read_pair_box: PairBoxReader) -> Removal:
    """What still masks the sum of ``state.accepted``.

    For every contributor ``G(b_u)`` is subtracted; for every client ``w`` that shared keys and is not in the sum,
    the masks that contributors applied for it, seeds from its root ``rho_w`` or from the boxes sent to it.

    Raises:
        RecoveryError: too few shares of a secret, no subset that fits its commitment, or a bad pair box.
    """
    graph = session.graph(len(state.cohort.positions), state.cohort.root)
    opening = _Opening(session, rows, state, graph)
    answers = tables.answer_leaves(rows, state.cohort, state.accepted)
    self_masks, roots = _collect(answers)
    disagreed: list[tuple[int, int]] = []
    add: list[Secret] = []
    subtract: list[Secret] = []
    for index in state.accepted:
        seed = _reconstruct(opening, index, self_masks.get(index, []), _self_mask_check(opening, index), disagreed)
        subtract.append(boxes.self_mask_keystream(seed, session.digest))
    accepted = frozenset(state.accepted)
    for index in state.present:
        users = [] if index in accepted else _users(opening, index)
        if users:
            root = _reconstruct(opening, index, roots.get(index, []), _root_check(opening, index), disagreed)
            more_to_add, more_to_subtract = _pair_masks(opening, index, root, users, read_pair_box)
            add.extend(more_to_add)
            subtract.extend(more_to_subtract)
    return Removal(tuple(add), tuple(subtract), tuple(answers.values()), tuple(disagreed))


def _collect(answers: Mapping[int, bytes]) -> tuple[dict[int, _Shares], dict[int, _Shares]]:
    """Shares by owner: of self-mask seeds, and of roots; each as (answerer, 36 bytes)."""
    self_masks: dict[int, _Shares] = {}
    roots: dict[int, _Shares] = {}
    for answerer, leaf in answers.items():
        statement = Signed.from_bytes(leaf).statement
        if isinstance(statement, UnmaskStatement):
            for released in statement.shares:
                kind = self_masks if isinstance(released, SelfMaskShare) else roots
                kind.setdefault(released.index, []).append((answerer, released.share))
    return self_masks, roots


def _share_statement(opening: _Opening, index: int) -> ShareStatement:
    row = tables.require(opening.rows, opening.state.cohort.positions[index], RowKind.SHARE, ShareRow)
    if not isinstance(row.signed.statement, ShareStatement):
        raise RecoveryError("no share statement", index)
    return row.signed.statement


def _self_mask_check(opening: _Opening, index: int) -> _Accept:
    statement = _share_statement(opening, index)

    def accept(limbs: npt.NDArray[np.uint64]) -> bool:
        seed = _as_secret(limbs)
        expected = statement.self_mask_commitment
        return seed is not None and expected == boxes.commit_self_mask(seed, opening.session.digest, statement.identity)

    return accept


def _root_check(opening: _Opening, index: int) -> _Accept:
    statement = _share_statement(opening, index)

    def accept(limbs: npt.NDArray[np.uint64]) -> bool:
        seed = _as_secret(limbs)
        expected = statement.root_commitment
        return seed is not None and expected == boxes.commit_root(seed, opening.session.digest, statement.identity)

    return accept


def _as_secret(limbs: npt.NDArray[np.uint64]) -> Secret | None:
    try:
        return Secret(limbs_to_secret(limbs))
    except ValueError:
        return None


def _reconstruct(
    opening: _Opening, index: int, shares: _Shares, accept: _Accept, disagreed: list[tuple[int, int]]
) -> Secret:
    threshold = opening.state.cohort.threshold
    usable = [(answerer, data) for answerer, data in shares if _is_share(data)]
    disagreed.extend((answerer, index) for answerer, data in shares if not _is_share(data))
    if len(usable) < threshold:
        raise RecoveryError(f"{len(usable)} shares of index {index}, {threshold} needed", index)
    points = np.array([answerer + 1 for answerer, _ in usable], dtype=np.uint64)
    values = np.frombuffer(b"".join(data for _, data in usable), dtype="<u4").astype(np.uint64)
    matrix = values.reshape(len(usable), SECRET_LIMBS)
    # Every share was checked against its dealer's commitment when it came, so any t will do but for a bad dealer.
    limbs = ReconstructionPlan(points[:threshold], threshold).reconstruct(matrix[:threshold])
    if not accept(limbs):
        try:
            limbs, wrong = reconstruct_with_errors(points, matrix, threshold, accept)
        except ReconstructionError:
            raise RecoveryError(f"what index {index} dealt does not fit its commitment", index) from None
        disagreed.extend((usable[position][0], index) for position in wrong)
    return Secret(limbs_to_secret(limbs))


def _is_share(data: bytes) -> bool:
    try:
        share_from_bytes(data)
    except ValueError:
        return False
    return True


def _users(opening: _Opening, dropped: int) -> list[int]:
    """Contributors that masked with a client that is not in the sum."""
    accepted = frozenset(opening.state.accepted)
    users = []
    for index in opening.graph.neighbours(dropped):
        if index in accepted:
            found = tables.header_at(opening.rows, opening.state.cohort, index)
            if found is not None and dropped not in found[1].missing:
                users.append(index)
    return users


def _pair_masks(
    opening: _Opening, dropped: int, root: Secret, users: Sequence[int], read_pair_box: PairBoxReader
) -> tuple[list[Secret], list[Secret]]:
    """Keystreams to add to and to subtract from the sum because ``users`` masked with ``dropped``."""
    add: list[Secret] = []
    subtract: list[Secret] = []
    session, cohort = opening.session, opening.state.cohort
    key = SealingKey(boxes.mask_key_seed(root, session.digest))
    row = tables.require(opening.rows, cohort.positions[dropped], RowKind.ADVERTISE, AdvertiseRow)
    if key.public_bytes != row.mask_public:
        raise RecoveryError(f"mask key of index {dropped} does not follow from its root", dropped)
    for index in users:
        if dropped < index:
            # The contributor, with the higher index, subtracted the stream of the seed that `dropped` chose.
            seed, target, owner = boxes.pair_seed(root, session.digest, index), add, dropped
        else:
            info = boxes.pair_box_info(session.digest, cohort.root, index, dropped)
            try:
                seed, target, owner = key.open(read_pair_box(index, dropped), info), subtract, index
            except SealingError:
                raise RecoveryError(f"pair box from index {index} does not open", index) from None
        _check_pair_seed(opening, owner, dropped + index - owner, seed)
        target.append(boxes.pair_mask_keystream(seed, session.digest))
    return add, subtract


def _check_pair_seed(opening: _Opening, owner: int, holder: int, seed: Secret) -> None:
    """The seed that a dealer's root or box gives is the one that it promised, and so the one that was used."""
    row = tables.require(opening.rows, opening.state.cohort.positions[owner], RowKind.SHARE, ShareRow)
    promised = row.commitments[opening.graph.neighbours(owner).index(holder)]
    if promised[2 * boxes.COMMITMENT_BYTES :] != boxes.commit_pair_seed(opening.session.digest, owner, holder, seed):
        raise RecoveryError(f"index {owner} promised index {holder} another pair seed", owner)


def slot_reader(
    graph: MaskingGraph, blobs: Callable[[int], bytes], read: Callable[[bytes, int, int], bytes]
) -> PairBoxReader:
    """A reader of pair boxes out of the blobs in which the boxes of each sender are concatenated.

    Args:
        graph: the masking graph.
        blobs: digest of a sender's blob by its index.
        read: bytes of a blob: digest, offset, length.
    """

    def reader(sender: int, recipient: int) -> bytes:
        recipients = graph.neighbours(sender)
        offset = boxes.box_slots(sender, recipients)[recipients.index(recipient)]
        length = boxes.pair_box_bytes(sender, recipient)
        return read(blobs(sender), offset + boxes.SHARE_BOX_BYTES, length)

    return reader
