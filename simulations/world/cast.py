"""Who takes part in a simulated session: keys, roster, committee, witnesses, and the session itself."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from secagg.arith.fields import LANE_BITS
from secagg.arith.ring_mask import usable_bits_for
from secagg.crypto.notes import log_key, witness_key
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.openers import member_of
from secagg.derive.result import FloatVector
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.protocol.rows import SetupRow
from secagg.protocol.session import ClientPolicy
from secagg.protocol.sessions import AnySession, session_of
from secagg.runtime.committee_member import member_sealing_key
from secagg.runtime.ports import BlobStore
from secagg.transcript import canonical
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import Deadlines, OneShotDeadlines, OneShotOpen, PairwiseOpen, SessionOpen
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.openers import Committee
from secagg.transcript.policy import GroupRule, LogPolicy, LogRule, WitnessRule
from secagg.transcript.roster import Roster, RosterMember
from simulations.world.noise import with_noise
from simulations.world.plan import Plan, Protocol
from simulations.world.randomness import SeededRng

ORIGIN = "log.example/secagg"
START_S = 1_800_000_000
"""The wall clock when a simulation begins, in seconds since the epoch."""
VALUE_BITS = 15
CLIP_NORM = Fraction(1)
ONE = 16383
"""What a coordinate of 1 becomes in the integer sum."""


@dataclass(frozen=True)
class Cast:
    """Everybody in one session, by numbers.

    Attributes:
        plan: the numbers.
        clients: identity keys of clients.
        members: keys of the committee.
        witnesses: keys of witnesses.
        coordinator: key of the coordinator.
        registrar: key of the registrar.
        session: parameters and roster.
    """

    plan: Plan
    clients: tuple[SigningKey, ...]
    members: tuple[SigningKey, ...]
    witnesses: tuple[SigningKey, ...]
    coordinator: SigningKey
    registrar: SigningKey
    session: AnySession

    @classmethod
    def of(cls, plan: Plan) -> Cast:
        """The cast of a plan; the same for the same plan."""
        clients = tuple(key_of(plan.seed, client_name(number)) for number in range(plan.clients))
        one_shot = plan.protocol is Protocol.ONE_SHOT
        members = tuple(
            key_of(plan.seed, member_name(place)) for place in range(plan.committee.members if one_shot else 0)
        )
        witnesses = tuple(key_of(plan.seed, witness_name(number)) for number in range(plan.witnesses))
        coordinator, registrar = key_of(plan.seed, "coordinator"), key_of(plan.seed, "registrar")
        roster = Roster.of([RosterMember(key.public_bytes, "") for key in clients])
        parameters = _parameters(plan, roster, coordinator, registrar, members)
        if plan.epsilon is not None:
            parameters = with_noise(parameters, plan.epsilon)
        return cls(plan, clients, members, witnesses, coordinator, registrar, session_of(parameters, roster))

    @functools.cached_property
    def numbers(self) -> dict[bytes, int]:
        """Number of a client by identity."""
        return {key.public_bytes: number for number, key in enumerate(self.clients)}

    @functools.cached_property
    def log_policy(self) -> LogPolicy:
        """Whose checkpoints everybody believes: this log's, cosigned by the quorum of witnesses."""
        rule = LogRule(log_key(ORIGIN, self.coordinator.public_bytes))
        if not self.witnesses:
            return LogPolicy.without_witnesses()
        rules = tuple(
            WitnessRule(f"w{number}", witness_key(witness_name(number), key.public_bytes))
            for number, key in enumerate(self.witnesses)
        )
        group = GroupRule("all", self.plan.quorum, tuple(rule.name for rule in rules))
        return LogPolicy((rule,), rules, (group,), group.name)

    @functools.cached_property
    def client_policy(self) -> ClientPolicy:
        """What clients insist on: what the session itself promises."""
        return ClientPolicy(
            min_contributors=self.plan.minimum,
            tolerated_corrupt=Fraction(0),
            openers=frozenset(key.public_bytes for key in self.members),
        )

    def setup(self, blobs: BlobStore) -> SetupRow:
        """Store what the session is about, at its coordinator; a member's card is its place in ASCII."""
        layout, template = _adapter(self.session.parameters.encoding.dimension)
        names = [blobs.put(canonical.encode(each.to_json_value())) for each in (layout, template)]
        roster = blobs.put(b"".join(leaf + b"\n" for leaf in self.session.roster.leaves()))
        head = self.session.roster.head(self.registrar.public_bytes).to_bytes()
        signature = self.registrar.sign_statement(head)
        cards = tuple(blobs.put(b"%d" % place) for place in range(len(self.members)))
        return SetupRow(roster, head, signature, names[0], names[1], cards)

    def one_hot(self, number: int) -> FloatVector:
        """Client i contributes the unit vector i modulo the dimension: what is wrong with a sum of these shows."""
        vector = np.zeros(self.plan.dimension, dtype=np.float32)
        vector[number % self.plan.dimension] = 1.0
        return vector


def client_name(number: int) -> str:
    """The name of a client's node."""
    return f"client-{number}"


def member_name(place: int) -> str:
    """The name of a committee member's node."""
    return f"member-{place}"


def witness_name(number: int) -> str:
    """The name of a witness's node, and of its key."""
    return f"witness-{number}"


def key_of(seed: int, name: str) -> SigningKey:
    """A signing key that follows from a seed and a name."""
    return SigningKey(Secret(SeededRng(seed, "key", name).bytes(32)))


def _parameters(
    plan: Plan, roster: Roster, coordinator: SigningKey, registrar: SigningKey, members: tuple[SigningKey, ...]
) -> SessionOpen:
    layout, template = _adapter(plan.dimension)
    most = max(plan.clients, 2)
    one_shot = plan.protocol is Protocol.ONE_SHOT
    usable = usable_bits_for(VALUE_BITS, most, plan.dimension) if one_shot else LANE_BITS
    common = {
        "session": SeededRng(plan.seed, "session").bytes(16),
        "protocol": plan.protocol.value,
        "coordinator": coordinator.public_bytes,
        "log": ORIGIN,
        "opened_at_s": START_S,
        "base_model": "example/base",
        "base_model_digest": bytes(32),
        "adapter": template.digest,
        "layout": layout.digest,
        "merge": FactorMerge(),
        "encoding": Encoding(plan.dimension, VALUE_BITS, most, usable, CLIP_NORM, NoFlattening()),
        "min_contributors": plan.minimum,
        "max_corrupt": plan.corrupt,
        "roster": roster.root(),
        "roster_size": len(roster.members),
        "registrar": registrar.public_bytes,
        "noise": NoDifferentialPrivacy(),
        "retention_s": 0,
    }
    if one_shot:
        rules = plan.committee
        committee = Committee(
            tuple(
                member_of(member_name(place), key, member_sealing_key(key).public_bytes)
                for place, key in enumerate(members)
            ),
            rules.needed,
            rules.max_corrupt,
        )
        deadlines = OneShotDeadlines(*(plan.phase_s,) * 4)
        return OneShotOpen(**common, opening=committee, deadlines=deadlines)  # type: ignore[arg-type]
    return PairwiseOpen(
        **common,  # type: ignore[arg-type]
        expected_dropout=plan.expected_dropout,
        deadlines=Deadlines(*(plan.phase_s,) * 5),
    )


def _adapter(dimension: int) -> tuple[Layout, AdapterTemplate]:
    """Layout and template of an adapter of rank 1 with so many parameters."""
    name = "base_model.model.layer.q_proj"
    layout = Layout.from_shapes({f"{name}.lora_A.weight": (1, dimension - 1), f"{name}.lora_B.weight": (1, 1)})
    return layout, AdapterTemplate("example/base", "", "CAUSAL_LM", 1, 1, use_rslora=False, fan_in_fan_out=False)
