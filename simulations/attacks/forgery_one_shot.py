"""What a lying coordinator of a one-shot session can make: any log under its own key, any close, contributions.

And what it then has: the share sums that members gave it, those of members that work for it, and the sums that all of
them open.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.seeded_shamir import SHARE_ELEMENTS, add_share, shares_from_bytes
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.member_boxes import deal, member_box_info, open_box
from secagg.derive.result import decode
from secagg.derive.ring_opening import MaskedSum, RingOpeningError, open_with_shares, without_padding
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.client_states import MaskInput
from secagg.protocol.one_shot.messages import HeldBox
from secagg.protocol.one_shot.session import OneShotSession
from secagg.runtime import vectors
from secagg.runtime.committee_member import member_sealing_key
from secagg.runtime.one_shot_host import OneShotHost
from secagg.transcript import merkle
from secagg.transcript.entries import OneShotClose, SessionEntry
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.openers import Committee, NamedMembers
from secagg.transcript.statements import Accepted, MemberAnswer, OneShotHeader, Signed
from simulations.attacks.forgery import forged_log, signed_by
from simulations.world.cast import Cast
from simulations.world.plan import Protocol
from simulations.world.randomness import SeededRng
from simulations.world.world import World

IntegerSum = npt.NDArray[np.int64]
Shares = npt.NDArray[np.uint64]

INVENTED = -1
"""The number of a contributor whom the coordinator made up: it knows what that one contributed."""


@dataclass(frozen=True, eq=False)
class Taken:
    """What a coordinator holds of one contribution: the client's number, header and boxes, uint64 lanes."""

    number: int
    signed: Signed
    boxes: tuple[bytes, ...]
    lanes: npt.NDArray[np.uint64]

    @property
    def leaf(self) -> bytes:
        """Its leaf in a closed set."""
        return self.signed.to_bytes()

    @property
    def identity(self) -> bytes:
        """Of whoever the header names."""
        return self.signed.statement.identity

    @property
    def upload_name(self) -> bytes:
        """Digest of the masked input that the header signs."""
        return vectors.digest_of(self.lanes)

    def item(self, place: int) -> HeldBox:
        """What a member is brought of it."""
        return HeldBox(self.signed, self.boxes[place])


def one_shot_of(cast: Cast) -> OneShotSession:
    """The session. Raises TypeError for one of another protocol."""
    if not isinstance(cast.session, OneShotSession):
        raise TypeError(f"a session of the protocol {Protocol.ONE_SHOT} is attacked")
    return cast.session


def committee_of(cast: Cast) -> Committee:
    """Its committee. Raises TypeError if there is none."""
    opening = one_shot_of(cast).opening
    if not isinstance(opening, Committee):
        raise TypeError("a session with a committee is attacked")
    return opening


def host_of(world: World) -> OneShotHost:
    """The session at its coordinator. Raises TypeError for one of another protocol, TransportError while it is down."""
    host = world.coordinator.host
    if not isinstance(host, OneShotHost):
        raise TypeError(f"a session of the protocol {Protocol.ONE_SHOT} is attacked")
    return host


def taken(world: World) -> dict[int, Taken]:
    """All contributions that the coordinator holds now, by the client's number, in the order of the roster."""
    host, blobs = host_of(world), world.coordinator.disk.blobs
    found = {}
    for position in tables.staged_positions(host.rows):
        signed, header = tables.require_header(host.rows, position)
        parts = tables.parts_at(host.rows, position)
        data, boxes, start = blobs.get(parts.blob), [], 0
        for length in parts.lengths:
            boxes.append(data[start : start + length])
            start += length
        number = world.cast.numbers[header.identity]
        found[number] = Taken(number, signed, tuple(boxes), np.frombuffer(blobs.get(header.upload), dtype="<u8"))
    return found


def invented(cast: Cast, claimed: bytes, signer: SigningKey, opened_at: int) -> Taken:
    """A contribution of zeros that the coordinator makes, in the name ``claimed``, signed with another key."""
    session = one_shot_of(cast)
    rng = SeededRng(cast.plan.seed, "invented", claimed.hex())
    plan = MaskInput(Secret(rng.bytes(32)), Secret(rng.bytes(32)), ())
    masked = vectors.ring_masked_input(session, np.zeros(cast.plan.dimension, dtype=np.float32), plan)
    committee = committee_of(cast)
    seeds = [Secret(rng.bytes(32)) for _ in range(committee.needed - 1)]
    boxes = deal(committee, masked.secret, seeds, session.digest, claimed)
    header = OneShotHeader(
        session.digest,
        claimed,
        vectors.digest_of(masked.lanes),
        hashlib.sha256(vectors.linear_hash_of(masked.lanes)).digest(),
        masked.lanes.size,
        tuple(hashlib.sha256(box).digest() for box in boxes),
        opened_at,
    )
    return Taken(INVENTED, signed_by(signer, header), boxes, masked.lanes)


def close_over(cast: Cast, chosen: Sequence[Taken], count: int | None = None) -> OneShotClose:
    """A close over these contributions, in this order, that names every member; it may claim another count."""
    session = one_shot_of(cast)
    accepted = [Accepted(session.positions.get(each.identity, 0), each.signed).to_bytes() for each in chosen]
    return OneShotClose(
        session.parameters.session,
        count=len(chosen) if count is None else count,
        rejected=0,
        dropped=0,
        contributions=merkle.root([each.leaf for each in chosen]),
        dispositions=merkle.root(accepted),
        limb_sum=bytes(32),
        opener=NamedMembers(tuple(range(len(committee_of(cast).members)))),
    )


def log_with(world: World, *entries: SessionEntry, witnesses: Iterable[int] = ()) -> LogEvidence:
    """The session's log with these entries after its open entry, whatever it really has; ``witnesses`` are corrupt."""
    shown = world.coordinator.host.evidence()
    return forged_log(world.cast, shown, (shown.entries[0], *entries), witnesses)


@dataclass(frozen=True)
class Opened:
    """A sum that the adversary can compute: how often each client is in it, and int64 coordinates."""

    weights: Counter[int]
    integer_sum: IntegerSum

    @property
    def clients(self) -> frozenset[int]:
        """Those whose inputs are in it; of invented ones it knows the inputs, and subtracts them."""
        return frozenset(number for number, weight in self.weights.items() if weight and number != INVENTED)

    def minus(self, other: Opened) -> Opened:
        """The difference of two sums."""
        weights = Counter(self.weights)
        weights.subtract(other.weights)
        return Opened(weights, self.integer_sum - other.integer_sum)


@dataclass
class Spoils:
    """Share sums by the set that they are for, and what they open.

    Attributes:
        cast: everybody.
        corrupt: places of members that work for the coordinator: they give any share sum away.
    """

    cast: Cast
    corrupt: frozenset[int]
    answers: dict[tuple[bytes, ...], dict[int, Shares]] = field(default_factory=dict)
    sets: dict[tuple[bytes, ...], tuple[Taken, ...]] = field(default_factory=dict)
    published: list[Opened] = field(default_factory=list)

    def add(self, chosen: Sequence[Taken], place: int, answer: Signed) -> None:
        """A member answered for these contributions."""
        statement = answer.statement
        if isinstance(statement, MemberAnswer):
            self._of(chosen)[place] = shares_from_bytes(statement.share_sum)

    def add_corrupt(self, chosen: Sequence[Taken]) -> None:
        """The corrupt members open the boxes of these contributions and give away the sums of the shares."""
        for place in sorted(self.corrupt):
            self._of(chosen)[place] = share_sum(self.cast, place, chosen)

    def opened(self) -> list[Opened]:
        """The sums that what it has opens: of each set with enough share sums, and those that were published."""
        found = list(self.published)
        for key, shares in self.answers.items():
            chosen = self.sets[key]
            # Share sums of a set with repetitions may be those of the set without.
            once = tuple({each.leaf: each for each in chosen}.values())
            for uploads in dict.fromkeys((chosen, once)):
                one = open_sum(self.cast, uploads, shares)
                if one is not None:
                    found.append(one)
        return found

    def smallest(self) -> Opened | None:
        """Of these sums and of the differences of two of them the one with fewest clients; None if there is none."""
        found = self.opened()
        differences = (one.minus(other) for one in found for other in found if one is not other)
        candidates = [each for each in (*found, *differences) if each.clients]
        return min(candidates, key=lambda each: len(each.clients), default=None)

    def _of(self, chosen: Sequence[Taken]) -> dict[int, Shares]:
        key = tuple(each.leaf for each in chosen)
        self.sets[key] = tuple(chosen)
        return self.answers.setdefault(key, {})


def share_sum(cast: Cast, place: int, chosen: Iterable[Taken]) -> Shares:
    """What a member's boxes of these contributions hold, summed: uint64[4096]."""
    session, committee = one_shot_of(cast), committee_of(cast)
    key = member_sealing_key(cast.members[place])
    total = np.zeros(SHARE_ELEMENTS, dtype=np.uint64)
    for each in chosen:
        info = member_box_info(session.digest, each.identity, place)
        add_share(total, open_box(key, info, each.boxes[place], committee, place))
    return total


def open_sum(cast: Cast, chosen: Sequence[Taken], shares: Mapping[int, Shares]) -> Opened | None:
    """The sum of these contributions, opened as the coordinator does it; None if the shares do not open it."""
    session = one_shot_of(cast)
    lanes = np.zeros(session.upload_lanes, dtype=np.uint64)
    for each in chosen:
        lanes += each.lanes
    masked = MaskedSum(session.ring_mask, session.public_key, lanes, len(chosen))
    parameters = session.parameters
    try:
        _, opened = open_with_shares(committee_of(cast), shares, masked)
        plain = without_padding(opened, session.field_layout.lanes)
        decoded = decode(parameters.encoding, parameters.noise, plain, len(chosen))
    except (RingOpeningError, CertificationError, ArithmeticInputError):
        return None
    return Opened(Counter(each.number for each in chosen), decoded.integer_sum)
