"""A one-shot session in memory: the coordinator's host, committee members' hosts, contributors, all real.

Messages are handed over as they are; the wire has tests of its own. A virtual clock moves when told to.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from secagg.arith.ring_mask import usable_bits_for
from secagg.crypto.signing import SigningKey
from secagg.derive import member_boxes
from secagg.derive.openers import member_of
from secagg.protocol import log
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import client, tables
from secagg.protocol.one_shot.client_states import InputMasked, MaskInput, OneShotClientState, Send
from secagg.protocol.one_shot.coordinator_states import Opening
from secagg.protocol.one_shot.member import MemberRules
from secagg.protocol.one_shot.messages import HeldBox, OneShotContribution, OpenRequest, ShownSessionFiles
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import DeadlinePassed, SetupRow, UploadStaged
from secagg.protocol.session import ClientPolicy
from secagg.runtime import vectors
from secagg.runtime.adders import Adders, NoAdders
from secagg.runtime.clock import Clock
from secagg.runtime.committee_member import CommitteeMemberHost, member_sealing_key
from secagg.runtime.log_trust import ForgetfulMemory
from secagg.runtime.member_ports import MemberPorts
from secagg.runtime.memory import MemoryBlobStore, MemoryRecord, MemorySessionStore
from secagg.runtime.memory_boxes import MemoryBoxStore, MemoryJournal
from secagg.runtime.one_shot_host import OneShotHost
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import BlobStore, SessionStore
from secagg.runtime.session_host import CoordinatorPorts
from secagg.transcript import canonical
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import OneShotDeadlines, OneShotOpen
from secagg.transcript.merge import FactorMerge
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.openers import Committee
from secagg.transcript.roster import Roster, RosterMember
from secagg.transcript.statements import Signed
from tests.support.cohort import VirtualClock, key_of, signed_roster, tiny_template
from tests.support.published import NO_WITNESSES, memory_log
from tests.support.rng import CountingRng

COORDINATOR = "coordinator"
MAX_CONTRIBUTORS = 16


def member_key(place: int) -> SigningKey:
    return key_of(f"member {place}")


def committee_of(members: int = 4, needed: int = 3, max_corrupt: int = 1) -> Committee:
    return Committee(
        tuple(
            member_of(f"member-{place}", member_key(place), member_sealing_key(member_key(place)).public_bytes)
            for place in range(members)
        ),
        needed,
        max_corrupt,
    )


def one_shot_parameters(identities: Sequence[SigningKey], **changes: object) -> tuple[OneShotOpen, Roster]:
    """Parameters of a small session with a committee of four, any three open."""
    roster = Roster.of([RosterMember(key.public_bytes, "") for key in identities])
    dimension = changes.pop("dimension", 20)
    usable = usable_bits_for(15, MAX_CONTRIBUTORS, dimension)
    layout, template = tiny_template(dimension)
    members = {
        "session": CountingRng(b"one-shot session").bytes(16),
        "protocol": "one-shot",
        "coordinator": key_of(COORDINATOR).public_bytes,
        "log": "log.example/secagg",
        "opened_at_s": 1_000_000,
        "base_model": "example/base",
        "base_model_digest": bytes(32),
        "adapter": template.digest,
        "layout": layout.digest,
        "merge": FactorMerge(),
        "encoding": Encoding(dimension, 15, MAX_CONTRIBUTORS, usable, Fraction(1), NoFlattening()),
        "min_contributors": 3,
        "max_corrupt": 1,
        "roster": roster.root(),
        "roster_size": len(roster.members),
        "registrar": key_of("registrar").public_bytes,
        "noise": NoDifferentialPrivacy(),
        "retention_s": 0,
        "opening": committee_of(),
        "deadlines": OneShotDeadlines(60, 60, 60, 60),
    }
    return OneShotOpen(**{**members, **changes}), roster


@dataclass
class LocalMember:
    """A committee member in this process. ``is_up`` says whether it answers; ``answer`` may alter what it says."""

    host: CommitteeMemberHost
    roster: Roster
    is_up: bool = True
    answer: Callable[[Signed], Signed] = lambda signed: signed
    verdict: Callable[[HeldBox, str], str] = lambda _box, verdict: verdict
    refusals: list[RejectReason] = field(default_factory=list)

    async def log_size(self, origin: str) -> int:
        self._reach()
        return await self.host.log_size(origin)

    async def join(self, session: bytes, files: ShownSessionFiles) -> None:
        self._reach()
        await self.host.join(session, files, self.roster)

    async def hold(self, session: bytes, items: Sequence[HeldBox]) -> tuple[str, ...]:
        self._reach()
        found = await (await self.host.find(session)).hold(items)
        return tuple(self.verdict(item, verdict) for item, verdict in zip(items, found, strict=True))

    async def open(self, session: bytes, request: OpenRequest) -> Signed:
        self._reach()
        leaves = b"".join(map(leaf_hash, request.contributions))
        try:
            return self.answer(await (await self.host.find(session)).open(request.evidence, leaves))
        except RemoteProtocolError as error:
            self.refusals.append(error.reason)
            raise

    def _reach(self) -> None:
        if not self.is_up:
            raise TransportError("the member is down")


@dataclass
class LocalInstitutions:
    """Finds members by cards that are their places in ASCII."""

    committee: list[LocalMember]

    def members(self, cards: Sequence[bytes]) -> Sequence[LocalMember]:
        return [self.committee[int(card)] for card in cards]


@dataclass
class Contributor:
    """One client machine with what it has to carry out."""

    context: client.OneShotClientContext
    rng: CountingRng
    vector: np.ndarray
    state: OneShotClientState | None = None
    contribution: OneShotContribution | None = None
    upload: bytes = b""

    @property
    def identity(self) -> bytes:
        return self.context.identity.public_bytes

    def start(self, view: log.LogView) -> None:
        self._take(client.start(self.context, view, self.rng))

    def feed(self, event: object) -> None:
        self._take(client.step(self.context, self.state, event))

    def _take(self, transition: client.OneShotClientTransition) -> None:
        self.state = transition.state
        for effect in transition.effects:
            if isinstance(effect, Send):
                self.contribution = effect.message
            else:
                self.feed(self._masked(effect))

    def _masked(self, plan: MaskInput) -> InputMasked:
        session = self.context.session
        masked = vectors.ring_masked_input(session, self.vector, plan)
        self.upload = bytes(vectors.as_bytes(masked.lanes))
        parts = member_boxes.deal(session.opening, masked.secret, plan.shares, session.digest, self.identity)
        digest = vectors.digest_of(masked.lanes)
        return InputMasked(digest, masked.lanes.size, vectors.linear_hash_of(masked.lanes), parts)


@dataclass
class OneShotCohort:
    """A session's host, its members and contributors."""

    host: OneShotHost
    ports: CoordinatorPorts
    members: list[LocalMember]
    contributors: list[Contributor]
    clock: Clock
    blobs: BlobStore
    record: MemoryRecord
    reports: list[tuple[str, bytes, str]]

    @property
    def session(self) -> OneShotSession:
        return self.host.session

    async def contribute(self, *numbers: int) -> None:
        for number in numbers:
            await self.deliver(self.contributors[number])

    async def deliver(self, one: Contributor) -> None:
        message = one.contribution
        assert message is not None
        await self.host.submit(message)
        digest = self.blobs.put(one.upload)
        await self.host.submit(UploadStaged(one.identity, digest))
        one.feed(self.host.receipt(message.signed))

    async def reach(self, phase: Phase) -> None:
        """Let background work run until the session is in ``phase``."""
        for _ in range(5000):
            if self.host.status().phase is phase:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"phase is {self.host.status().phase}, expected {phase}: {self.reports}")

    async def settle(self) -> None:
        """Let the couriers bring what there is to those members that are up."""
        up = [place for place, member in enumerate(self.members) if member.is_up]
        for _ in range(5000):
            staged = tables.staged_positions(self.host.rows)
            if not any(tables.unsettled(self.host.rows, staged, member) for member in up):
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"members did not answer: {self.reports}")

    async def answered(self, count: int) -> None:
        """Wait until so many members have answered, and the coordinator has tried with their answers."""
        for _ in range(5000):
            state = self.host.driver.state
            if isinstance(state, Opening) and state.tried == count:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"{self.host.driver.state}, expected {count} answers: {self.reports}")

    async def pass_deadline(self) -> None:
        self.clock.time_s += 61
        await self.host.driver.feed(DeadlinePassed())

    def integer_sum(self) -> np.ndarray:
        return np.frombuffer(self.blobs.get(self.host.integer_sum()), dtype="<i8")

    async def restart(self, store: SessionStore) -> None:
        """End the coordinator's process and begin another on the same ports, with this store."""
        await self.host.close()
        self.ports = dataclasses.replace(self.ports, store=store)
        self.host = OneShotHost(self.session, self.ports)
        await self.host.resume()

    async def close(self) -> None:
        await self.host.close()
        for member in self.members:
            await member.host.close()


def local_member(place: int, roster: Roster, clock: Clock) -> LocalMember:
    key = member_key(place)
    memories: dict[tuple[bytes, str], ForgetfulMemory] = {}
    ports = MemberPorts(
        store=MemorySessionStore(),
        boxes=MemoryBoxStore(),
        journal=MemoryJournal(),
        clock=clock,
        key=key,
        sealing_key=member_sealing_key(key),
        rules=MemberRules(frozenset({key_of(COORDINATOR).public_bytes}), frozenset(), 2),
        policy=NO_WITNESSES,
        memory_of=lambda *log_of: memories.setdefault(log_of, ForgetfulMemory()),
        report=lambda *_: None,
    )
    return LocalMember(CommitteeMemberHost(ports), roster)


async def open_one_shot(
    count: int,
    vector_of: Callable[[int], np.ndarray],
    store: SessionStore | None = None,
    clock: Clock | None = None,
    blobs: BlobStore | None = None,
    adders: Adders | None = None,
    **changes: object,
) -> OneShotCohort:
    """Open a session in memory; contributor i contributes ``vector_of(i)``, and has masked its input."""
    identities = [key_of(f"contributor {number}") for number in range(count)]
    parameters, roster = one_shot_parameters(identities, **changes)
    session = OneShotSession(parameters, roster)
    clock = clock or VirtualClock()
    blobs, record, reports = blobs or MemoryBlobStore(), MemoryRecord(), []
    members = [local_member(place, roster, clock) for place in range(len(parameters.opening.members))]
    for member in members:
        await member.host.start()
    key = key_of(COORDINATOR)
    ports = CoordinatorPorts(
        store=store or MemorySessionStore(),
        blobs=blobs,
        log=memory_log(key),
        record=record,
        clock=clock,
        key=key,
        report=lambda *event: reports.append(event),
        institutions=LocalInstitutions(members),
        adders=adders or NoAdders(),
    )
    host = OneShotHost(session, ports)
    await host.open(one_shot_setup(session, blobs))
    view = log.join(parameters, NO_WITNESSES, host.evidence())
    policy = ClientPolicy(openers=frozenset(member.identity for member in parameters.opening.members))
    contributors = [
        Contributor(
            client.OneShotClientContext(identity, session, policy, NO_WITNESSES),
            CountingRng(b"contributor%d" % number),
            vector_of(number),
        )
        for number, identity in enumerate(identities)
    ]
    for one in contributors:
        one.start(view)
    return OneShotCohort(host, ports, members, contributors, clock, blobs, record, reports)


def one_shot_setup(session: OneShotSession, blobs: BlobStore) -> SetupRow:
    """Store what the session is about, and cards by which ``LocalInstitutions`` finds the members."""
    layout, template = tiny_template(session.parameters.encoding.dimension)
    names = [blobs.put(canonical.encode(each.to_json_value())) for each in (layout, template)]
    roster = blobs.put(b"".join(leaf + b"\n" for leaf in session.roster.leaves()))
    signed = signed_roster(session)
    cards = tuple(blobs.put(b"%d" % place) for place in range(len(session.opening.members)))
    return SetupRow(roster, signed.head.to_bytes(), signed.signature, *names, cards)
