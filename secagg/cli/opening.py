"""From an operator's choices to the request that opens a session; one place for the command and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from secagg.arith.flatten import FlattenBlocks, plan_encoding
from secagg.crypto.rng import Rng
from secagg.identity.roster_file import SignedRoster
from secagg.lora.adapter import Adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.vector import FactorMean
from secagg.transcript import canonical
from secagg.transcript.entries import (
    Deadlines,
    Encoding,
    Flattening,
    NoDifferentialPrivacy,
    NoFlattening,
    SessionOpen,
)
from secagg.transcript.roster import RosterHead
from secagg.v1 import aggregation_pb2 as pb


@dataclass(frozen=True, slots=True)
class NeverFlatten:
    """Vectors are quantised as they are."""


@dataclass(frozen=True, slots=True)
class FlattenWhereItSaves:
    """Vectors are flattened where that makes uploads smaller at the same quantisation step."""


@dataclass(frozen=True, slots=True)
class SessionChoices:
    """What an operator decides; everything else of a session follows from adapter, roster and keys."""

    min_contributors: int
    max_corrupt: int
    max_contributors: int
    value_bits: int
    clip_norm: Fraction
    flatten: NeverFlatten | FlattenWhereItSaves
    expected_dropout: Fraction
    deadlines: Deadlines
    base_model_digest: bytes
    retention_s: int


def session_parameters(
    choices: SessionChoices, adapter: Adapter, roster: SignedRoster, coordinator: bytes, opening: tuple[int, Rng]
) -> SessionOpen:
    """The open entry of a session for adapters of the shape of ``adapter``.

    ``opening`` is the time in seconds since the epoch, and where the random identifier comes from.

    Raises:
        RecordError, ArithmeticInputError, AdapterError: the choices fit neither together nor the adapter.
    """
    opened_at_s, rng = opening
    template = AdapterTemplate.from_adapter(adapter)
    layout = FactorMean().layout_of(adapter)
    return SessionOpen(
        session=rng.bytes(16),
        protocol="pairwise",
        coordinator=coordinator,
        opened_at_s=opened_at_s,
        base_model=template.base_model,
        base_model_digest=choices.base_model_digest,
        adapter=template.digest,
        layout=layout.digest,
        merge=FactorMean().name,
        encoding=_encoding(choices, layout.dimension, rng),
        min_contributors=choices.min_contributors,
        max_corrupt=choices.max_corrupt,
        expected_dropout=choices.expected_dropout,
        roster=roster.roster.root(),
        roster_size=len(roster.roster.members),
        registrar=RosterHead.from_bytes(roster.head).registrar,
        deadlines=choices.deadlines,
        noise=NoDifferentialPrivacy(),
        retention_s=choices.retention_s,
    )


def open_request(parameters: SessionOpen, adapter: Adapter, roster: SignedRoster) -> pb.OpenSessionRequest:
    """The request that opens the session with these parameters."""
    template = AdapterTemplate.from_adapter(adapter)
    layout = FactorMean().layout_of(adapter)
    return pb.OpenSessionRequest(
        parameters=parameters.to_bytes(),
        roster=roster.roster.leaves(),
        roster_head=roster.head,
        roster_signature=roster.signature,
        layout=canonical.encode(layout.to_json_value()),
        adapter=canonical.encode(template.to_json_value()),
    )


def _encoding(choices: SessionChoices, dimension: int, rng: Rng) -> Encoding:
    value_bits = choices.value_bits
    flatten: NoFlattening | Flattening = NoFlattening()
    if isinstance(choices.flatten, FlattenWhereItSaves):
        plan = plan_encoding(dimension, choices.clip_norm, value_bits, choices.max_contributors)
        if isinstance(plan.flatten, FlattenBlocks):
            value_bits, flatten = plan.layout.value_bits, Flattening(rng.bytes(32))
    return Encoding(dimension, value_bits, choices.max_contributors, 64, choices.clip_norm, flatten)
