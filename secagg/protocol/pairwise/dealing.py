"""Phase SHARE_KEYS at a client: deal shares and seeds to the neighbours, open what they dealt."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secagg.arith.shamir import SECRET_LIMBS, secret_to_limbs, share, share_to_bytes, uniform_elements
from secagg.crypto.rng import Rng
from secagg.crypto.sealing import SealingError, SealingKey, check_public_key, seal
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive import boxes
from secagg.derive.graph import MaskingGraph
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import IncomingBoxes, NeighbourKeys, OutgoingBoxes, ShareKeys
from secagg.protocol.pairwise.client_states import HeldShares, Place
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.transcript import merkle
from secagg.transcript.statements import AdvertiseStatement, ShareStatement, Signed


@dataclass(frozen=True)
class Dealer:
    """A client in its place: what it deals and opens follows from these."""

    session: PairwiseSession
    advertised: bytes
    place: Place
    root: Secret

    @functools.cached_property
    def graph(self) -> MaskingGraph:
        """The masking graph over U1."""
        return self.session.graph(len(self.place.members), self.advertised)

    @functools.cached_property
    def neighbours(self) -> tuple[int, ...]:
        """Own graph neighbours, ascending."""
        return self.graph.neighbours(self.place.index)

    @property
    def threshold(self) -> int:
        """Shares needed to open a secret."""
        return self.session.graph_parameters(len(self.place.members)).threshold


@dataclass(frozen=True, slots=True)
class Received:
    """One neighbour's boxes, opened; ``pair_seed`` only from neighbours with a lower index."""

    shares: HeldShares
    pair_seed: Secret | None


def check_neighbour_keys(
    dealer: Dealer, statements: Sequence[AdvertiseStatement], keys: Sequence[NeighbourKeys]
) -> tuple[NeighbourKeys, ...]:
    """The keys of exactly the neighbours, each checked against the digests its owner signed.

    Raises:
        RemoteProtocolError: BAD_KEY or WRONG_RECIPIENTS.
    """
    if tuple(item.index for item in keys) != dealer.neighbours:
        raise RemoteProtocolError(RejectReason.WRONG_RECIPIENTS, "keys are not those of our neighbours")
    for item in keys:
        statement = statements[item.index]
        digests = hashlib.sha256(item.mask_public).digest(), hashlib.sha256(item.share_public).digest()
        if digests != (statement.mask_key, statement.share_key):
            raise RemoteProtocolError(RejectReason.BAD_KEY, f"key of index {item.index} is not the signed one")
        for public in (item.mask_public, item.share_public):
            try:
                check_public_key(public)
            except SealingError as error:
                raise RemoteProtocolError(RejectReason.BAD_KEY, f"index {item.index}: {error}") from None
    return tuple(keys)


def deal(dealer: Dealer, identity: SigningKey, self_mask: Secret, keys: Sequence[NeighbourKeys], rng: Rng) -> ShareKeys:
    """Shares of ``b`` and ``rho`` for every neighbour, pair seeds for those with a higher index, all signed."""
    session, own = dealer.session.digest, dealer.place.index
    secrets = np.concatenate([secret_to_limbs(self_mask.expose()), secret_to_limbs(dealer.root.expose())])
    coefficients = uniform_elements(rng.bytes, (dealer.threshold - 1, 2 * SECRET_LIMBS))
    points = np.array(dealer.neighbours, dtype=np.uint64) + np.uint64(1)
    dealt = share(secrets, coefficients, points)
    outgoing = []
    for position, item in enumerate(keys):
        self_mask_share = share_to_bytes(dealt[position, :SECRET_LIMBS])
        root_share = share_to_bytes(dealt[position, SECRET_LIMBS:])
        commitments = boxes.commit_self_mask_share(session, own, item.index, self_mask_share)
        commitments += boxes.commit_root_share(session, own, item.index, root_share)
        pair_box = b""
        if item.index > own:
            seed = boxes.pair_seed(dealer.root, session, item.index)
            commitments += boxes.commit_pair_seed(session, own, item.index, seed)
            pair_info = boxes.pair_box_info(session, dealer.advertised, own, item.index)
            pair_box = seal(item.mask_public, pair_info, seed)
        info = boxes.share_box_info(session, dealer.advertised, own, item.index)
        share_box = seal(item.share_public, info, Secret(self_mask_share + root_share))
        outgoing.append(OutgoingBoxes(item.index, share_box, pair_box, commitments))
    statement = ShareStatement(
        session,
        dealer.advertised,
        identity.public_bytes,
        boxes.commit_self_mask(self_mask, session, identity.public_bytes),
        boxes.commit_root(dealer.root, session, identity.public_bytes),
        merkle.root_of_hashes(boxes.box_hashes(outgoing)),
    )
    # HPKE does not authenticate a sender: this signature over all boxes does.
    return ShareKeys(Signed(statement, identity.sign_statement(statement.to_bytes())), tuple(outgoing))


def open_inbox(
    dealer: Dealer,
    statements: Sequence[ShareStatement | None],
    inbox: Sequence[IncomingBoxes],
    share_key: SealingKey,
) -> dict[int, Received]:
    """What each neighbour in U2 dealt, by index; left out is whose signed box does not open to what it promised.

    Rules: one item for every neighbour that shared keys, no other, or the coordinator is thinning the graph;
    each under its sender's signed root at our place, or it is forged or was meant for somebody else.

    Raises:
        RemoteProtocolError: WITHHELD_BOXES.
    """
    expected = [index for index in dealer.neighbours if statements[index] is not None]
    if [item.sender for item in inbox] != expected:
        raise RemoteProtocolError(RejectReason.WITHHELD_BOXES, "not one item from each neighbour in U2")
    mask_key = SealingKey(boxes.mask_key_seed(dealer.root, dealer.session.digest))
    opened: dict[int, Received] = {}
    for item in inbox:
        statement = statements[item.sender]
        if statement is None:
            continue
        _check_boxes(dealer, statement, item)
        received = _open(dealer, item, share_key, mask_key)
        if received is not None:
            opened[item.sender] = received
    return opened


def _check_boxes(dealer: Dealer, statement: ShareStatement, item: IncomingBoxes) -> None:
    recipients = dealer.graph.neighbours(item.sender)
    leaf = merkle.leaf_hash(boxes.box_leaf(dealer.place.index, item.share_box, item.pair_box, item.commitments))
    position = recipients.index(dealer.place.index)
    try:
        merkle.verify_inclusion(leaf, position, len(recipients), item.path, statement.boxes)
    except merkle.ProofError as error:
        raise RemoteProtocolError(RejectReason.WITHHELD_BOXES, f"boxes of index {item.sender}: {error}") from None


def _open(dealer: Dealer, item: IncomingBoxes, share_key: SealingKey, mask_key: SealingKey) -> Received | None:
    session, own = dealer.session.digest, dealer.place.index
    pair_seed: Secret | None = None
    try:
        info = boxes.share_box_info(session, dealer.advertised, item.sender, own)
        self_mask, root = boxes.split_share_plaintext(share_key.open(item.share_box, info))
        if item.sender < own:
            pair_info = boxes.pair_box_info(session, dealer.advertised, item.sender, own)
            pair_seed = mask_key.open(item.pair_box, pair_info)
            if len(pair_seed) != boxes.SEED_BYTES:
                return None
    except ValueError:
        return None
    promised = boxes.commit_self_mask_share(session, item.sender, own, self_mask.expose())
    promised += boxes.commit_root_share(session, item.sender, own, root.expose())
    if pair_seed is not None:
        promised += boxes.commit_pair_seed(session, item.sender, own, pair_seed)
    if promised != item.commitments:
        return None
    return Received(HeldShares(item.sender, self_mask, root), pair_seed)
