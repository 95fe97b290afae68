"""Poisoned inputs: how far they move the mean, under clipping, and how far they would without.

A client of this project clips what it contributes to norm C, so n contributions of which k are poisoned move the mean
by no more than 2 C k / n from where it had been. A client that is written to skip clipping is bounded by the width of
the fields alone; nobody sees that it did.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.derive.result import mean_of
from secagg.protocol.messages import Contribution, SignedReceipt
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.phases import Phase
from secagg.runtime import vectors
from secagg.runtime.participant import CoordinatorPort
from secagg.runtime.ports import BlobStore
from secagg.transcript.statements import ContributionHeader, OneShotHeader
from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.forgery import signed_by
from simulations.attacks.notebook import Notebook
from simulations.exploring.client_lies import Prepared
from simulations.world.cast import CLIP_NORM, ONE
from simulations.world.clients import ClientNode
from simulations.world.loop import run_virtually
from simulations.world.passing import PassingPort
from simulations.world.plan import CommitteePlan, Plan, Protocol
from simulations.world.randomness import generator
from simulations.world.world import World

Vector = npt.NDArray[np.float32]
CLIENTS = 8
DIMENSION = 64
FACTOR = 1000.0
_MOST_S = 5000.0


class Poison(enum.StrEnum):
    """What is contributed instead of an honest vector."""

    SCALED = "scaled"
    """A thousand times the honest vector."""
    SIGN_FLIPPED = "sign-flipped"
    """Minus the honest vector."""
    SCALED_AND_FLIPPED = "scaled-and-flipped"
    """Minus a thousand times the honest vector."""
    NAN = "nan"
    """The honest vector with one coordinate that is no number."""
    INFINITE = "infinite"
    """The honest vector with one coordinate that is infinite."""
    SKIPS_CLIPPING = "skips-clipping"
    """Every coordinate at the end of its range, by a client that does not clip, and signs what it sends."""


BOUNDED = (Poison.SCALED, Poison.SIGN_FLIPPED, Poison.SCALED_AND_FLIPPED)
"""Poison that goes through an honest encoding."""
REFUSED = (Poison.NAN, Poison.INFINITE)
"""Poison that an honest encoding refuses."""


@dataclass(frozen=True, slots=True)
class Influence:
    """What poison did to a mean.

    Attributes:
        protocol: of the session.
        kind: of poison.
        clients: how many contributed it.
        of: how many contributions the session had, or would have had.
        distance: L2 from the mean with honest vectors in their place to the one that was published; both as
            published, with their rounding. None where there is no poisoned contribution in the sum.
        rounding: how much of the distance rounding may have made, at most.
        bound: that clipping guarantees, 2 C k / n; None where nothing does.
        without_clipping: L2 distance of the means in numpy, had nobody clipped; infinite where it is no number.
        refused: why a client's encoding refused the poison; empty where it did not.
    """

    protocol: str
    kind: str
    clients: int
    of: int
    distance: float | None
    rounding: float
    bound: float | None
    without_clipping: float
    refused: str = ""

    @property
    def is_harmless(self) -> bool:
        """Whether the poison did no more than is promised: within the bound, or refused where it is no number."""
        if self.kind in REFUSED:
            return self.distance is None and self.refused.startswith("vector: coordinate ")
        return self.distance is not None and (self.bound is None or self.distance <= self.bound + self.rounding)


def influence(protocol: Protocol, poison: Poison, liars: int, seed: int = 0) -> Influence:
    """Run a session with poisoned contributions and measure what they did.

    Args:
        protocol: which.
        poison: what the first ``liars`` clients contribute.
        liars: 1 to ``CLIENTS``.
        seed: of the session and of all vectors.

    Raises:
        ValueError: ``liars`` is out of range.
    """
    if not 1 <= liars <= CLIENTS:
        raise ValueError(f"liars: expected 1 to {CLIENTS}, got {liars}")
    truth = _honest(seed)
    published, refused = _played(protocol, poison, liars, seed)
    poisoned = [_poisoned(poison, vector) if number < liars else vector for number, vector in truth.items()]
    with np.errstate(invalid="ignore"):
        moved = np.mean(poisoned, axis=0, dtype=np.float64) - np.mean(list(truth.values()), axis=0, dtype=np.float64)
    unclipped = float(np.linalg.norm(moved))
    distance = None
    if published is not None and not refused:
        distance = float(np.linalg.norm(published.astype(np.float64) - _baseline(protocol, seed).astype(np.float64)))
    return Influence(
        protocol.value,
        poison.value,
        liars,
        CLIENTS,
        distance,
        # Each coordinate of each of the two versions of a contribution was rounded by less than one step.
        rounding=2 * math.sqrt(DIMENSION) * liars / ONE / CLIENTS,
        bound=None if poison is Poison.SKIPS_CLIPPING else float(2 * CLIP_NORM * liars / CLIENTS),
        without_clipping=unclipped if math.isfinite(unclipped) else math.inf,
        refused=refused,
    )


def influences(protocol: Protocol, seed: int = 0) -> tuple[Influence, ...]:
    """Every kind of poison, by one client and by a quarter of all."""
    return tuple(influence(protocol, poison, liars, seed) for poison in Poison for liars in (1, CLIENTS // 4))


def _honest(seed: int) -> Mapping[int, Vector]:
    """Vectors around one direction, of norms from 0.5 to 1: what honest training gives."""
    source = generator(seed, "poisoning")
    common = source.standard_normal(DIMENSION)
    found = {}
    for number in range(CLIENTS):
        vector = common + 0.5 * source.standard_normal(DIMENSION)
        found[number] = (vector / np.linalg.norm(vector) * source.uniform(0.5, 1)).astype(np.float32)
    return found


def _poisoned(poison: Poison, vector: Vector) -> Vector:
    match poison:
        case Poison.SCALED:
            return (vector * np.float32(FACTOR)).astype(np.float32)
        case Poison.SIGN_FLIPPED:
            return -vector
        case Poison.SCALED_AND_FLIPPED:
            return (vector * np.float32(-FACTOR)).astype(np.float32)
        case Poison.SKIPS_CLIPPING:
            return (-np.sign(vector) * float(CLIP_NORM)).astype(np.float32)
        case Poison.NAN | Poison.INFINITE:
            broken = vector.copy()
            broken[0] = np.nan if poison is Poison.NAN else np.inf
            return broken


@functools.lru_cache(maxsize=8)
def _baseline(protocol: Protocol, seed: int) -> Vector:
    published, _ = _played(protocol, None, 0, seed)
    if published is None:
        raise ValueError(f"seed: {seed} gives a session that does not end")
    return published


def _played(protocol: Protocol, poison: Poison | None, liars: int, seed: int) -> tuple[Vector | None, str]:
    """The published mean, and why a client refused to encode."""
    return run_virtually(_play(protocol, poison, liars, seed))


async def _play(protocol: Protocol, poison: Poison | None, liars: int, seed: int) -> tuple[Vector | None, str]:
    plan = Plan(
        protocol,
        CLIENTS,
        DIMENSION,
        seed,
        min_contributors=4,
        max_corrupt=1,
        committee=CommitteePlan(3, 3, 1),
        phase_s=60,
    )
    world = World(plan)
    for number, vector in _honest(seed).items():
        world.clients[number].vector = vector
        if poison is Poison.SKIPS_CLIPPING and number < liars:
            world.wrapped[number] = _Unclipped
        elif poison is not None and number < liars:
            world.clients[number].vector = _poisoned(poison, vector)
    await world.open()
    for number in range(CLIENTS):
        world.join(number)
    await world.until_over(_MOST_S)
    refused = next((each.detail for each in world.happenings if each.what == "cannot encode"), "")
    total = world.integer_sum() if world.phase is Phase.FINISHED else None
    if total is None:
        return None, refused
    parameters = world.cast.session.parameters
    return mean_of(parameters.encoding, parameters.noise, total, len(world.accepted())), refused


class _Unclipped(PassingPort):
    """A client that adds to its masked input what an input at the end of the range would have more than its own.

    Masks stay on: who adds to a masked input adds to what is under the mask. Rounding aside that is the input of a
    client that does not clip.
    """

    def __init__(self, node: ClientNode, port: CoordinatorPort) -> None:
        super().__init__(port)
        self._node = node

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """Upload the other input under the same masks, all signed."""
        header = message.signed.statement
        if not isinstance(header, ContributionHeader | OneShotHeader):
            raise TypeError(f"a contribution with a statement {header.TYPE}")
        lanes = np.frombuffer(blobs.get(header.upload), dtype="<u8").astype(np.uint64)
        more = self._more()
        lanes[: more.size] += more
        data, words = bytes(vectors.as_bytes(lanes)), vectors.linear_hash_of(lanes)
        name = hashlib.sha256(data).digest()
        changed = dataclasses.replace(header, upload=name, linear_hash=hashlib.sha256(words).digest())
        key = self._node.cast.clients[self._node.number]
        altered = dataclasses.replace(message, signed=signed_by(key, changed), linear_hash=words)
        return await super().upload(session, altered, Prepared(name, data))

    def _more(self) -> npt.NDArray[np.uint64]:
        layout, own = self._node.cast.session.field_layout, self._node.vector
        target = -np.sign(own).astype(np.int64) * ONE
        near = np.rint(own.astype(np.float64) * ONE).astype(np.int64)
        packed = [layout.pack(each.astype(np.int32)) for each in (target, near)]
        difference: npt.NDArray[np.uint64] = packed[0] - packed[1]
        session = self._node.cast.session
        # Under a ring mask a vector stands above the bits that the lattice error takes.
        return difference << np.uint64(session.ring_mask.shift) if isinstance(session, OneShotSession) else difference


# As attacks.


def _attack(protocol: Protocol) -> Attack:
    name = "poisoning" if protocol is Protocol.PAIRWISE else f"poisoning-{protocol.value}"
    return Attack(
        name,
        protocol,
        goal="Move the mean far with few contributions: scaled, sign-flipped, with coordinates that are no numbers.",
        adversary=f"One client of {CLIENTS}, then a quarter of them: they choose their vectors.",
        why=f"The client library clips to norm C = {CLIP_NORM} before it encodes, so k of n contributions move the "
        "mean by 2 C k / n at most, and it refuses what is no number by the name of the coordinate. That holds for "
        "whoever runs the library. A client that is written to skip clipping is bounded by the fields alone, and a "
        "chosen input within the bound looks like any other: nothing here recognises it.",
        run=functools.partial(_run, protocol),
    )


def _run(protocol: Protocol, seed: int) -> AttackResult:
    book, harmful = Notebook(), []
    for one in influences(protocol, seed):
        book.step(_words(one))
        if one.refused:
            book.refused("the liar's own client library", f"{one.kind} inputs", one.refused)
        if not one.is_harmless:
            harmful.append(f"nothing, but {one.kind} inputs of {one.clients} of {one.of} did more than they may")
    return book.result("finished", harmful, succeeded=bool(harmful))


def _words(one: Influence) -> str:
    who = f"{one.clients} of {one.of}, {one.kind.replace('-', ' ')}"
    unclipped = f"{one.without_clipping:,.3f}" if math.isfinite(one.without_clipping) else "no number at all"
    if one.distance is None:
        return f"{who}: refused before it is encoded. Without that the mean would be {unclipped}."
    moved = f"the mean moves by {one.distance:.3f}"
    if one.bound is None:
        return f"{who}: {moved}. Nothing bounds that but the width of the fields, {one.without_clipping:.3f} here."
    return f"{who}: {moved}, of at most {one.bound:.3f}. Without clipping: {unclipped}."


ATTACKS = tuple(map(_attack, Protocol))
