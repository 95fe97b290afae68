"""A coordinator and its clients joined in memory, every message passing through the wire codec.

Machines are the real ones; the harness only carries bytes. Tests steer it phase by phase, leave clients out, and
put altered messages in the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.protocol import log
from secagg.protocol.messages import ClientMessage, Contribution, ShareKeys
from secagg.protocol.pairwise import client
from secagg.protocol.pairwise.client_states import (
    ClientEvent,
    ClientState,
    Confirmed,
    InputMasked,
    MaskInput,
    Send,
)
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import DeadlinePassed, SetupRow, UploadStaged
from secagg.protocol.session import ClientPolicy
from secagg.runtime import vectors
from secagg.runtime.memory import MemoryBlobStore, MemoryRecord, MemorySessionStore
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.ports import BlobStore
from secagg.runtime.session_host import CoordinatorPorts
from secagg.transcript import canonical
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import Deadlines, PairwiseOpen, SignedRoster
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.roster import Roster, RosterMember
from secagg.transcript.statements import ContributionHeader
from tests.support.published import NO_WITNESSES, memory_log
from tests.support.rng import CountingRng


class VirtualClock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.time_s = 1_000_000

    def now_s(self) -> int:
        return self.time_s


def key_of(name: str) -> SigningKey:
    """A signing key that follows from a name."""
    return SigningKey(Secret(CountingRng(name.encode()).bytes(32)))


def tiny_template(dimension: int) -> tuple[Layout, AdapterTemplate]:
    """Layout and template of an adapter of rank 1 with so many parameters, at least 2."""
    name = "base_model.model.layer.q_proj"
    layout = Layout.from_shapes({f"{name}.lora_A.weight": (1, dimension - 1), f"{name}.lora_B.weight": (1, 1)})
    return layout, AdapterTemplate("example/base", "", "CAUSAL_LM", 1, 1, use_rslora=False, fan_in_fan_out=False)


def setup_of(session: PairwiseSession, blobs: BlobStore) -> SetupRow:
    """Store what the session is about; its roster is signed by the registrar."""
    layout, template = tiny_template(session.parameters.encoding.dimension)
    names = [blobs.put(canonical.encode(each.to_json_value())) for each in (layout, template)]
    roster = blobs.put(b"".join(leaf + b"\n" for leaf in session.roster.leaves()))
    signed = signed_roster(session)
    return SetupRow(roster, signed.head.to_bytes(), signed.signature, *names)


def signed_roster(session: PairwiseSession) -> SignedRoster:
    """The log entry of the session's roster."""
    registrar = key_of("registrar")
    head = session.roster.head(registrar.public_bytes)
    return SignedRoster(head, registrar.sign_statement(head.to_bytes()))


def session_of(
    identities: Sequence[SigningKey],
    *,
    dimension: int = 20,
    min_contributors: int = 3,
    max_corrupt: int = 1,
    expected_dropout: Fraction = Fraction(0),
    coordinator: SigningKey | None = None,
    encoding: Encoding | None = None,
) -> PairwiseSession:
    """A session for these identities."""
    roster = Roster.of([RosterMember(key.public_bytes, "") for key in identities])
    encoding = encoding or Encoding(dimension, 15, 1024, 64, Fraction(1), NoFlattening())
    layout, template = tiny_template(encoding.dimension)
    parameters = PairwiseOpen(
        session=CountingRng(b"session").bytes(16),
        protocol="pairwise",
        coordinator=(coordinator or key_of("coordinator")).public_bytes,
        log="log.example/secagg",
        opened_at_s=1_000_000,
        base_model="example/base",
        base_model_digest=bytes(32),
        adapter=template.digest,
        layout=layout.digest,
        merge=FactorMerge(),
        encoding=encoding,
        min_contributors=min_contributors,
        max_corrupt=max_corrupt,
        expected_dropout=expected_dropout,
        roster=roster.root(),
        roster_size=len(roster.members),
        registrar=key_of("registrar").public_bytes,
        deadlines=Deadlines(60, 60, 60, 60, 60),
        noise=NoDifferentialPrivacy(),
        retention_s=0,
    )
    return PairwiseSession(parameters, roster)


@dataclass
class Client:
    """One client machine and what it wants carried out."""

    context: client.ClientContext
    rng: CountingRng
    vector: np.ndarray
    state: ClientState | None = None
    outbox: list[ClientMessage] = field(default_factory=list)
    upload: bytes = b""
    masks: MaskInput | None = None

    @property
    def identity(self) -> bytes:
        return self.context.identity.public_bytes

    def start(self, view: log.LogView) -> None:
        self._take(client.start(self.context, view, self.rng))

    def feed(self, event: ClientEvent) -> None:
        assert self.state is not None
        self._take(client.step(self.context, self.state, event, self.rng))

    def _take(self, transition: client.ClientTransition) -> None:
        self.state = transition.state
        for effect in transition.effects:
            if isinstance(effect, Send):
                self.outbox.append(effect.message)
            else:
                self.masks = effect
                lanes, _ = vectors.masked_input(self.context.session, self.vector, effect)
                self.upload = bytes(vectors.as_bytes(lanes))
                self.feed(InputMasked(vectors.digest_of(lanes), lanes.size, vectors.linear_hash_of(lanes)))


@dataclass
class Cohort:
    """A session host with memory ports, and its clients by name ``0 .. n-1``."""

    host: PairwiseHost
    clients: list[Client]
    clock: VirtualClock
    blobs: MemoryBlobStore
    reports: list[tuple[str, bytes, str]]

    @property
    def session(self) -> PairwiseSession:
        return self.host.session

    async def deliver(self, sender: Client) -> None:
        """Carry everything in a client's outbox to the coordinator."""
        while sender.outbox:
            await self.send(sender, sender.outbox.pop(0))

    async def send(self, sender: Client, message: ClientMessage) -> None:
        """Carry one message to the coordinator, an upload with its header."""
        if isinstance(message, ShareKeys):
            await self.host.share_keys(message)
            return
        await self.host.submit(message)
        if isinstance(message, Contribution):
            header = message.signed.statement
            assert isinstance(header, ContributionHeader)
            digest = self.blobs.put(sender.upload)
            await self.host.submit(UploadStaged(header.identity, digest))
            sender.feed(self.host.receipt(message.signed))

    async def reach(self, phase: Phase) -> None:
        """Let the coordinator's background work run until the session is in ``phase``."""
        for _ in range(2000):
            if self.host.status().phase is phase:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"phase is {self.host.status().phase}, expected {phase}: {self.reports}")

    async def end_phase(self, after: Phase) -> None:
        """Pass the current deadline, then reach the phase after it."""
        self.clock.time_s += 61
        await self.host.driver.feed(DeadlinePassed())
        await self.reach(after)

    def start_all(self) -> None:
        view = log.join(self.host.session.parameters, NO_WITNESSES, self.host.evidence())
        for one in self.clients:
            one.start(view)

    async def advertise(self, among: Iterable[Client]) -> None:
        for one in among:
            await self.deliver(one)

    async def share(self, among: Iterable[Client]) -> None:
        for one in among:
            one.feed(self.host.advertised_list(one.identity))
            await self.deliver(one)

    async def upload(self, among: Iterable[Client]) -> None:
        for one in among:
            one.feed(await self.host.shared_list(one.identity))
            await self.deliver(one)

    async def confirm(self, among: Iterable[Client]) -> None:
        for one in among:
            one.feed(self.host.closed_list())
            await self.deliver(one)

    async def answer(self, among: Iterable[Client]) -> None:
        for one in among:
            if isinstance(one.state, Confirmed) and self.host.status().phase is Phase.UNMASK:
                one.feed(self.host.confirmations(one.identity))
                await self.deliver(one)

    def integer_sum(self) -> np.ndarray:
        return np.frombuffer(self.blobs.get(self.host.integer_sum()), dtype="<i8")


def one_hot(dimension: int, position: int) -> np.ndarray:
    """The unit vector with a 1 at ``position``, which clipping to 1 leaves alone."""
    vector = np.zeros(dimension, dtype=np.float32)
    vector[position] = 1.0
    return vector


async def open_cohort(
    session: PairwiseSession,
    identities: Sequence[SigningKey],
    vector_of: Callable[[int], np.ndarray],
    policy: ClientPolicy | None = None,
) -> Cohort:
    """Open a session in memory for these clients; client i contributes ``vector_of(i)``."""
    clock, blobs, reports = VirtualClock(), MemoryBlobStore(), []
    key = key_of("coordinator")
    ports = CoordinatorPorts(
        MemorySessionStore(), blobs, memory_log(key), MemoryRecord(), clock, key, lambda *event: reports.append(event)
    )
    host = PairwiseHost(session, ports)
    await host.open(setup_of(session, blobs))
    clients = [
        Client(
            client.ClientContext(identity, session, policy or ClientPolicy(), NO_WITNESSES),
            CountingRng(b"client%d" % number),
            vector_of(number),
        )
        for number, identity in enumerate(identities)
    ]
    return Cohort(host, clients, clock, blobs, reports)


async def run_session(cohort: Cohort, dropped: dict[int, Phase]) -> None:
    """Run all phases; client i falls silent at the start of phase ``dropped[i]``."""
    order = [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT, Phase.CONSISTENCY_CHECK, Phase.UNMASK]
    steps = [cohort.advertise, cohort.share, cohort.upload, cohort.confirm, cohort.answer]
    cohort.start_all()
    for phase, step in zip(order, steps, strict=True):
        alive = [
            one
            for number, one in enumerate(cohort.clients)
            if number not in dropped or order.index(dropped[number]) > order.index(phase)
        ]
        await step(alive)
        after = [*order, Phase.FINISHED][order.index(phase) + 1]
        for _ in range(200):
            if cohort.host.status().phase is not phase:
                break
            await asyncio.sleep(0.001)
        if cohort.host.status().phase is phase:
            await cohort.end_phase(after)
        elif phase is not Phase.UNMASK:
            await cohort.reach(after)
    await cohort.reach(Phase.FINISHED)
