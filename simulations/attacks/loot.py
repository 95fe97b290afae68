"""What a coordinator of a pairwise session can compute: secrets that its shares open, and sums that then show.

Everything is computed as an adversary would: shares are put together and checked against their commitments, masks are
taken off the masked inputs, and what is left is decoded. Indices are those in U1, numbers those of clients.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import add_masks
from secagg.arith.shamir import (
    ReconstructionError,
    limbs_to_secret,
    reconstruct_with_errors,
    share_from_bytes,
)
from secagg.crypto.sealing import SealingError, SealingKey
from secagg.crypto.secret import Secret
from secagg.derive import boxes
from secagg.derive.graph import MaskingGraph
from secagg.derive.result import decode
from secagg.protocol.pairwise import tables
from secagg.protocol.pairwise.client_states import ClientState, Contributed, Masking, SharedKeys
from secagg.protocol.pairwise.coordinator_states import ShareRow
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.rows import RowKind, find
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.transcript import merkle
from secagg.transcript.statements import ContributionHeader, SelfMaskShare, ShareStatement, Signed, UnmaskStatement
from simulations.world.world import World

Lanes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Exposed:
    """A sum that stands open, and no smaller one of these clients does.

    Attributes:
        clients: numbers of those whose contributions are in it.
        integer_sum: int64, what the masked inputs gave, decoded.
        is_true: whether it is the sum of what these clients contributed.
    """

    clients: frozenset[int]
    integer_sum: npt.NDArray[np.int64]
    is_true: bool


@dataclass(frozen=True)
class _Upload:
    header: ContributionHeader
    lanes: Lanes


@dataclass
class _Rest:
    """A masked input without the masks that are known. ``unknown`` are the other ends of masks that are not."""

    lanes: Lanes
    has_self_mask: bool
    unknown: frozenset[int]


class Loot:
    """All that a coordinator and its accomplices hold of one session.

    Attributes:
        corrupt: numbers of the clients that give it everything.
        roots, self_masks: secrets that were given away or found otherwise, by index.
        share_keys: of the corrupt, by index.
        forged: pair seeds that the coordinator made a client mask with, by (index of that client, of the other end).
    """

    def __init__(self, world: World, corrupt: Iterable[int] = ()) -> None:
        self._world = world
        self.corrupt = frozenset(corrupt)
        self.roots: dict[int, Secret] = {}
        self.self_masks: dict[int, Secret] = {}
        self.share_keys: dict[int, SealingKey] = {}
        self.forged: dict[tuple[int, int], Secret] = {}
        self._self_mask_shares: dict[int, dict[int, bytes]] = {}
        self._root_shares: dict[int, dict[int, bytes]] = {}
        self._uploads: dict[int, _Upload] = {}

    # What comes in.

    def uploaded(self, signed: Signed, data: bytes) -> None:
        """A masked input, whether it was accepted or not."""
        header = signed.statement
        if isinstance(header, ContributionHeader):
            number = self._world.cast.numbers[header.identity]
            self._uploads[self.index_of(number)] = _Upload(header, np.frombuffer(data, dtype="<u8").astype(np.uint64))

    def answered(self, signed: Signed) -> None:
        """What a client released."""
        statement = signed.statement
        if not isinstance(statement, UnmaskStatement):
            return
        holder = self.index_of(self._world.cast.numbers[statement.identity])
        for share in statement.shares:
            if isinstance(share, SelfMaskShare):
                self.held_self_mask(share.index, holder, share.share)
            else:
                self.held_root(share.index, holder, share.share)

    def confessed(self, state: ClientState) -> None:
        """The state of a corrupt client: its own secrets, and the shares of others that it keeps."""
        match state:
            case SharedKeys():
                self.roots[state.place.index] = state.root
                self.self_masks[state.place.index] = state.self_mask
                self.share_keys[state.place.index] = SealingKey(state.share_seed)
            case Masking() | Contributed():
                for held in state.shares:
                    self.held_self_mask(held.index, state.place.index, held.self_mask.expose())
                    self.held_root(held.index, state.place.index, held.root.expose())

    def held_self_mask(self, owner: int, holder: int, share: bytes) -> None:
        """A share of a self-mask seed."""
        self._self_mask_shares.setdefault(owner, {})[holder] = share

    def held_root(self, owner: int, holder: int, share: bytes) -> None:
        """A share of a root."""
        self._root_shares.setdefault(owner, {})[holder] = share

    # What it amounts to.

    @property
    def session(self) -> PairwiseSession:
        """The session. Raises TypeError for one of another protocol."""
        session = self._world.cast.session
        if not isinstance(session, PairwiseSession):
            raise TypeError("a pairwise session is attacked")
        return session

    @property
    def host(self) -> PairwiseHost:
        """The session at the coordinator."""
        host = self._world.coordinator.host
        if not isinstance(host, PairwiseHost):
            raise TypeError("a pairwise session is attacked")
        return host

    @functools.cached_property
    def members(self) -> tuple[int, ...]:
        """Numbers of U1, in order of index; to be asked for when U1 is fixed."""
        roster, numbers = self.session.roster.members, self._world.cast.numbers
        positions = tables.advertised_positions(self.host.rows)
        return tuple(numbers[roster[position].identity] for position in positions)

    @functools.cached_property
    def advertised(self) -> bytes:
        """Root of U1."""
        rows = self.host.rows
        return merkle.root(tables.advertised_leaves(rows, tables.advertised_positions(rows)))

    @functools.cached_property
    def graph(self) -> MaskingGraph:
        """Who is whose neighbour."""
        return self.session.graph(len(self.members), self.advertised)

    @property
    def threshold(self) -> int:
        """Shares that open a secret."""
        return self.session.graph_parameters(len(self.members)).threshold

    def index_of(self, number: int) -> int:
        """Index in U1 of a client."""
        return self.members.index(number)

    def shares_of(self, number: int) -> tuple[int, int]:
        """How many shares it holds of a client's self-mask seed, and of its root."""
        index = self.index_of(number)
        return len(self._self_mask_shares.get(index, {})), len(self._root_shares.get(index, {}))

    def has_self_mask(self, number: int) -> bool:
        """Whether it can compute a client's self mask."""
        return self._self_mask(self.index_of(number)) is not None

    def has_root(self, number: int) -> bool:
        """Whether it can compute a client's root, from which all pair masks with it follow."""
        return self._root(self.index_of(number)) is not None

    def boxes_between(self, sender: int, recipient: int) -> tuple[bytes, bytes] | None:
        """The share box and the pair box from one index to another; None if the sender dealt none."""
        row = self._share_row(sender)
        if row is None:
            return None
        recipients = self.graph.neighbours(sender)
        start, end = boxes.box_slots(sender, recipients)[recipients.index(recipient) :][:2]
        data = self._world.coordinator.disk.blobs.read(row.blob, start, end - start)
        return data[: boxes.SHARE_BOX_BYTES], data[boxes.SHARE_BOX_BYTES :]

    def opened_by_accomplices(self) -> tuple[int, int]:
        """How many boxes between honest clients the keys of the corrupt open, and how many were tried.

        Each key is tried for the place that the box was sealed for, and for its own.
        """
        opened, tried = 0, 0
        honest = [index for index, number in enumerate(self.members) if number not in self.corrupt]
        for sender, recipient in itertools.permutations(honest, 2):
            dealt = self.boxes_between(sender, recipient) if recipient in self.graph.neighbours(sender) else None
            if dealt is None:
                continue
            tried += 1
            opened += any(
                self._opens(key, dealt[0], sender, place)
                for own, key in self.share_keys.items()
                for place in (recipient, own)
            )
        return opened, tried

    def _opens(self, key: SealingKey, box: bytes, sender: int, recipient: int) -> bool:
        try:
            key.open(box, boxes.share_box_info(self.session.digest, self.advertised, sender, recipient))
        except SealingError:
            return False
        return True

    def exposed(self) -> tuple[Exposed, ...]:
        """The smallest sums that stand open, those with fewest honest clients first.

        A pair mask that is not known cancels only if both its ends are in a sum. So the sums that stand open are those
        over whole connected parts of the graph of unknown pair masks, where every self mask is known.
        """
        rests = {index: self._rest(index, upload) for index, upload in self._uploads.items()}
        cancelling = {index: _both_used(index, rests) for index in rests}
        found = []
        for part in _parts(cancelling):
            is_open = all(rests[each].unknown == cancelling[each] and not rests[each].has_self_mask for each in part)
            opened = self._decoded(part, rests) if is_open else None
            if opened is not None:
                found.append(opened)
        return tuple(sorted(found, key=lambda each: (len(each.clients - self.corrupt), sorted(each.clients))))

    def smallest(self) -> Exposed | None:
        """Of the sums that stand open and hold an honest input the one with fewest of them."""
        return next((each for each in self.exposed() if each.clients - self.corrupt), None)

    def hidden_by(self, number: int) -> tuple[Lanes, frozenset[int]]:
        """A masked input without the masks that are known, and the other ends of the pair masks that are not."""
        index = self.index_of(number)
        rest = self._rest(index, self._uploads[index])
        return rest.lanes, frozenset(self.members[other] for other in rest.unknown)

    def _decoded(self, part: frozenset[int], rests: Mapping[int, _Rest]) -> Exposed | None:
        total = np.zeros(self.session.field_layout.lanes, dtype=np.uint64)
        for index in part:
            if rests[index].lanes.size != total.size:
                return None
            total += rests[index].lanes
        parameters = self.session.parameters
        try:
            opened = decode(parameters.encoding, parameters.noise, total, len(part)).integer_sum
        except ArithmeticInputError:
            return None
        clients = frozenset(self.members[index] for index in part)
        return Exposed(clients, opened, np.array_equal(opened, self._world.expected_sum(clients)))

    def _rest(self, index: int, upload: _Upload) -> _Rest:
        rest = _Rest(upload.lanes.copy(), has_self_mask=True, unknown=frozenset())
        add: list[bytes] = []
        subtract: list[bytes] = []
        unknown = set()
        seed = self._self_mask(index)
        if seed is not None:
            rest.has_self_mask = False
            subtract.append(boxes.self_mask_keystream(seed, self.session.digest).expose())
        for other in self._masked_with(index, upload.header):
            pair_seed = self.forged.get((index, other)) or self._pair_seed(min(index, other), max(index, other))
            if pair_seed is None:
                unknown.add(other)
                continue
            key = boxes.pair_mask_keystream(pair_seed, self.session.digest).expose()
            (subtract if index < other else add).append(key)
        add_masks(rest.lanes, add, subtract, 1)
        rest.unknown = frozenset(unknown)
        return rest

    def _masked_with(self, index: int, header: ContributionHeader) -> list[int]:
        around = set(self.graph.neighbours(index)) - set(header.missing)
        return sorted(other for other in around if self._share_row(other) is not None)

    def _pair_seed(self, lower: int, higher: int) -> Secret | None:
        """The pair seed of an edge: from the root of its lower end, or out of the box for the higher one."""
        root = self._root(lower)
        if root is not None:
            return boxes.pair_seed(root, self.session.digest, higher)
        root, dealt = self._root(higher), self.boxes_between(lower, higher)
        if root is None or dealt is None:
            return None
        data = dealt[1]
        key = SealingKey(boxes.mask_key_seed(root, self.session.digest))
        try:
            return key.open(data, boxes.pair_box_info(self.session.digest, self.advertised, lower, higher))
        except SealingError:
            return None

    def _self_mask(self, index: int) -> Secret | None:
        if index not in self.self_masks:
            found = self._opened(index, self._self_mask_shares.get(index, {}), boxes.commit_self_mask)
            if found is not None:
                self.self_masks[index] = found
        return self.self_masks.get(index)

    def _root(self, index: int) -> Secret | None:
        if index not in self.roots:
            found = self._opened(index, self._root_shares.get(index, {}), boxes.commit_root)
            if found is not None:
                self.roots[index] = found
        return self.roots.get(index)

    def _opened(
        self, index: int, shares: Mapping[int, bytes], commit: Callable[[Secret, bytes, bytes], bytes]
    ) -> Secret | None:
        """The secret that these shares open, if they are enough and it is the one that its owner committed to."""
        row = self._share_row(index)
        if row is None or len(shares) < self.threshold or not isinstance(row.signed.statement, ShareStatement):
            return None
        statement = row.signed.statement
        kept = {holder: share_from_bytes(share) for holder, share in sorted(shares.items()) if _is_share(share)}
        points = np.array([holder + 1 for holder in kept], dtype=np.uint64)
        promised = statement.self_mask_commitment if commit is boxes.commit_self_mask else statement.root_commitment
        found: list[Secret] = []

        def accept(limbs: npt.NDArray[np.uint64]) -> bool:
            try:
                secret = Secret(limbs_to_secret(limbs))
            except ArithmeticInputError:
                return False
            found.append(secret)
            return commit(secret, self.session.digest, statement.identity) == promised

        try:
            reconstruct_with_errors(points, np.stack(list(kept.values())), self.threshold, accept)
        except (ReconstructionError, ArithmeticInputError):
            return None
        return found[-1]

    def _share_row(self, index: int) -> ShareRow | None:
        position = tables.advertised_positions(self.host.rows)[index]
        return find(self.host.rows, position, RowKind.SHARE, ShareRow)


def _is_share(data: bytes) -> bool:
    try:
        share_from_bytes(data)
    except ArithmeticInputError:
        return False
    return True


def _both_used(index: int, rests: Mapping[int, _Rest]) -> frozenset[int]:
    """The other ends of the unknown pair masks of an index that both ends masked with."""
    return frozenset(other for other in rests[index].unknown if other in rests and index in rests[other].unknown)


def _parts(edges: Mapping[int, frozenset[int]]) -> list[frozenset[int]]:
    """The connected parts of a graph."""
    left, parts = set(edges), []
    while left:
        part: set[int] = set()
        frontier = {min(left)}
        while frontier:
            part |= frontier
            frontier = set().union(*(edges[index] for index in frontier)) - part
        left -= part
        parts.append(frozenset(part))
    return parts
