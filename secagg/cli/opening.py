"""What `secagg session open` makes of its options: the open entry of a session, refused here if it cannot work."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from secagg.arith.flatten import FlattenBlocks, plan_encoding
from secagg.cli.describe import full_cohort
from secagg.cli.failures import CommandError
from secagg.crypto.rng import SystemRng
from secagg.identity.config import CoordinatorConfig
from secagg.identity.keys import KeyKind, load_public_key, public_path
from secagg.identity.roster_file import SignedRoster, load_roster
from secagg.lora.adapter import Adapter
from secagg.lora.layout import Layout
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.vector import FactorMean, adapter_to_vector
from secagg.protocol.errors import LocalProtocolError
from secagg.protocol.session import Session
from secagg.runtime.clock import SystemClock
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

_USABLE_BITS = 64
_DEFAULT_CORRUPT = Fraction(1, 10)
"""What a client's policy asks for by default."""


@dataclass(frozen=True)
class Opening:
    """A session that can be opened, and what there is to say about it."""

    session: Session
    roster: SignedRoster
    layout: Layout
    template: AdapterTemplate
    notes: tuple[str, ...]

    def request(self) -> pb.OpenSessionRequest:
        """What the operator's service is asked."""
        return pb.OpenSessionRequest(
            parameters=self.session.entry,
            roster=self.roster.roster.leaves(),
            roster_head=self.roster.head,
            roster_signature=self.roster.signature,
            layout=canonical.encode(self.layout.to_json_value()),
            adapter=canonical.encode(self.template.to_json_value()),
        )


def plan_opening(arguments: argparse.Namespace, config: CoordinatorConfig) -> Opening:
    """The session that the options describe.

    Raises:
        RosterError, AdapterError, IdentityFileError: what they name cannot be used.
        RecordError, ArithmeticInputError: parameters out of range or against each other.
        LocalProtocolError: no safe degree and threshold exist for the cohort that may come.
        CommandError: anything else that cannot work.
    """
    roster = load_roster(arguments.roster)
    adapter = read_adapter(arguments.adapter, None)
    template, layout = AdapterTemplate.from_adapter(adapter), FactorMean().layout_of(adapter)
    notes: list[str] = []
    encoding = _encoding(arguments, adapter, layout, notes)
    most = min(encoding.max_contributors, len(roster.roster.members))
    parameters = SessionOpen(
        session=SystemRng().bytes(16),
        protocol="pairwise",
        coordinator=load_public_key(public_path(config.key_file), KeyKind.COORDINATOR),
        log=config.log.origin,
        opened_at_s=SystemClock().now_s(),
        base_model=template.base_model,
        base_model_digest=arguments.base_digest or bytes(32),
        adapter=template.digest,
        layout=layout.digest,
        merge=FactorMean().name,
        encoding=encoding,
        min_contributors=arguments.min_contributors,
        max_corrupt=_max_corrupt(arguments, most),
        expected_dropout=arguments.expected_dropout,
        roster=roster.roster.root(),
        roster_size=len(roster.roster.members),
        registrar=RosterHead.from_bytes(roster.head).registrar,
        deadlines=read_deadlines(arguments.deadlines),
        noise=NoDifferentialPrivacy(),
        retention_s=config.retention_s if arguments.retention is None else arguments.retention,
    )
    session = Session(parameters, roster.roster)
    _check(session, config, notes)
    return Opening(session, roster, layout, template, tuple(notes))


def _encoding(arguments: argparse.Namespace, adapter: Adapter, layout: Layout, notes: list[str]) -> Encoding:
    clip_norm = arguments.clip_norm
    if clip_norm is None:
        clip_norm = _suggested_clip_norm(adapter, layout, arguments.adapter)
        notes.append(
            f"clip norm {float(clip_norm):.6g}: twice the example adapter's norm, rounded up "
            "(--clip-norm chooses another; smaller is more precise, but scales larger adapters down)"
        )
    value_bits, flatten = arguments.value_bits, NoFlattening()
    encoding = Encoding(layout.dimension, value_bits, arguments.max_contributors, _USABLE_BITS, clip_norm, flatten)
    if arguments.flatten == "off":
        return encoding
    plan = plan_encoding(layout.dimension, clip_norm, value_bits, arguments.max_contributors, _USABLE_BITS)
    if not isinstance(plan.flatten, FlattenBlocks):
        notes.append("not flattened: it would not make uploads smaller")
        return encoding
    seed = Flattening(SystemRng().bytes(32))
    return Encoding(layout.dimension, plan.layout.value_bits, arguments.max_contributors, _USABLE_BITS, clip_norm, seed)


def _suggested_clip_norm(adapter: Adapter, layout: Layout, directory: Path) -> Fraction:
    """Twice the example's L2 norm, rounded up to two digits."""
    norm = float(np.sqrt(np.square(adapter_to_vector(adapter, layout), dtype=np.float64).sum()))
    if norm == 0:
        raise CommandError("CLIP_NORM", f"all values of {directory} are zero", "give --clip-norm")
    unit = Fraction(10) ** (math.floor(math.log10(2 * norm)) - 1)
    return math.ceil(Fraction(2 * norm) / unit) * unit


def _max_corrupt(arguments: argparse.Namespace, cohort: int) -> int:
    """The given number; otherwise a tenth of the largest cohort, as far as the minimum allows."""
    if arguments.max_corrupt is not None:
        return int(arguments.max_corrupt)
    allowed: int = arguments.min_contributors - 2
    return max(0, min(math.ceil(_DEFAULT_CORRUPT * cohort), allowed))


def _check(session: Session, config: CoordinatorConfig, notes: list[str]) -> None:
    """Refuse what cannot work; note what may disappoint."""
    parameters = session.parameters
    most = full_cohort(parameters)
    session.graph_parameters(most)
    try:
        session.graph_parameters(parameters.min_contributors)
    except LocalProtocolError as error:
        notes.append(
            f"with only {parameters.min_contributors} contributors the session would be aborted: {error.detail}"
        )
    if session.upload_bytes > config.limits.max_upload_bytes:
        raise CommandError(
            "UPLOAD_BYTES",
            f"an upload has {session.upload_bytes} bytes, limits.max_upload_bytes is {config.limits.max_upload_bytes}",
            "raise the limit, lower --value-bits or --max-contributors, or try --flatten auto",
        )
    accepted = math.floor(parameters.max_corrupt / _DEFAULT_CORRUPT)
    if accepted < most:
        notes.append(
            f"contributors with the default policy leave if more than {accepted} take part: max_corrupt is below a "
            f"tenth of them"
        )
    if parameters.registrar == parameters.coordinator:
        notes.append("the coordinator is its own registrar: contributors are told that it can invent people")


def read_deadlines(text: str) -> Deadlines:
    """``advertise=600,share=600``: seconds by phase; what is not named keeps its default. Raises CommandError."""
    seconds = {"advertise": 600, "share": 600, "upload": 3600, "confirm": 600, "unmask": 600}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        if name not in seconds or not value.isascii() or not value.isdigit() or len(value) > 9:
            raise CommandError(
                "DEADLINES", f"--deadlines: {item!r} is not one of {', '.join(f'{each}=SECONDS' for each in seconds)}"
            )
        seconds[name] = int(value)
    return Deadlines(*seconds.values())
