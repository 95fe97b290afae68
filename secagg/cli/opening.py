"""What `secagg session open` makes of its options: the open entry of a session, refused here if it cannot work."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from secagg.arith.fields import LANE_BITS
from secagg.arith.flatten import FlattenBlocks, plan_encoding
from secagg.arith.ring_mask import usable_bits_for
from secagg.cli.describe import full_cohort
from secagg.cli.failures import CommandError
from secagg.cli.merge_plan import PlannedMerge, following_merge, plan_merge, plan_second
from secagg.cli.noise_plan import Cohort, check_noise_options, plan_noise
from secagg.cli.openers import Openers, plan_openers, prepared
from secagg.crypto.rng import SystemRng
from secagg.identity.config import CoordinatorConfig
from secagg.identity.keys import KeyKind, load_public_key, public_path
from secagg.identity.roster_file import SignedRoster, load_roster
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.manifest import Manifest
from secagg.lora.update_merging import UpdateMerging
from secagg.protocol.errors import LocalProtocolError
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.second import FirstSession, first_merge
from secagg.protocol.sessions import AnySession, session_of
from secagg.runtime.clock import SystemClock
from secagg.transcript import canonical
from secagg.transcript.encoding import CoordinateRange, Encoding, Flattening, NoFlattening
from secagg.transcript.entries import Deadlines, OneShotDeadlines, OneShotOpen, PairwiseOpen, SessionOpen
from secagg.transcript.merge import RangeMerge, contributors_digest, second_session, strategy_of
from secagg.transcript.noise import NoDifferentialPrivacy, Noise
from secagg.transcript.openers import Committee
from secagg.transcript.roster import RosterHead
from secagg.v1 import aggregation_pb2 as pb

_DEFAULT_CORRUPT = Fraction(1, 10)
"""What a client's policy asks for by default."""
_DEFAULT_DROPOUT = Fraction(1, 10)
_DEFAULT_VALUE_BITS = 15
_PAIRWISE_SECONDS = {"advertise": 600, "share": 600, "upload": 3600, "confirm": 600, "unmask": 600}
_ONE_SHOT_SECONDS = {"commit": 3600, "upload": 3600, "hold": 600, "open": 3600}


@dataclass(frozen=True)
class Opening:
    """A session that can be opened, and what there is to say about it."""

    session: AnySession
    roster: SignedRoster
    merging: FactorMerging | UpdateMerging
    fixed: bytes
    openers: Openers | None
    notes: tuple[str, ...]

    def with_parameters(self, parameters: SessionOpen) -> Opening:
        """The same with other parameters, for the same roster."""
        return dataclasses.replace(self, session=session_of(parameters, self.roster.roster))

    def request(self) -> pb.OpenSessionRequest:
        """What the operator's service is asked."""
        return pb.OpenSessionRequest(
            parameters=self.session.entry,
            roster=self.roster.roster.leaves(),
            roster_head=self.roster.head,
            roster_signature=self.roster.signature,
            layout=canonical.encode(self.merging.layout.to_json_value()),
            adapter=canonical.encode(self.merging.to_json_value()),
            cards=[] if self.openers is None else [card.to_bytes() for card in self.openers.cards],
            context=b"" if self.openers is None else self.openers.context,
            fixed=self.fixed,
        )


def plan_opening(arguments: argparse.Namespace, config: CoordinatorConfig) -> Opening:
    """The session that the options describe. A key authority is asked for its key, once all the rest is in order.

    Of a strategy that takes two sessions this is the first.

    Raises:
        RosterError, AdapterError, IdentityFileError: what they name cannot be used.
        RecordError, ArithmeticInputError: parameters out of range or against each other.
        LocalProtocolError: no safe degree and threshold exist for the cohort that may come.
        CommandError: anything else that cannot work.
        TransportError, RemoteProtocolError: the key authority does not answer, or refuses.
    """
    _check_options(arguments)
    check_noise_options(arguments)
    return _opening(arguments, config, _Plan(SystemRng().bytes(16), arguments.min_contributors, plan_merge(arguments)))


def plan_following(
    arguments: argparse.Namespace, config: CoordinatorConfig, first: FirstSession, manifest: Manifest, attempt: int
) -> Opening:
    """The session that follows ``first``, whose modules ``manifest`` has; ``attempt`` counts from 0.

    Raises:
        CommandError: nothing follows such a session; otherwise as ``plan_opening``.
    """
    before = first.parameters
    merge = first_merge(before)
    if merge is None or first.basis is None:
        what = strategy_of(before.merge)
        raise CommandError("FOLLOWS", f"--follows: no session follows one that merges by {what}", "leave it out")
    contributors = contributors_digest(first.contributors)
    following = following_merge(arguments, before.session, merge, first.basis, contributors)
    planned = plan_second(arguments, manifest, following, before.base_model_digest)
    least = len(first.contributors) if isinstance(merge, RangeMerge) else arguments.min_contributors
    return _opening(arguments, config, _Plan(second_session(before.session, attempt), least, planned))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Identifier, minimum and merge of a session."""

    session: bytes
    min_contributors: int
    merge: PlannedMerge


def _opening(arguments: argparse.Namespace, config: CoordinatorConfig, plan: _Plan) -> Opening:
    openers = plan_openers(arguments) if arguments.protocol == "one-shot" else None
    roster = load_roster(arguments.roster)
    merging, notes = plan.merge.merging, list(plan.merge.notes)
    max_corrupt = _max_corrupt(arguments, plan, min(arguments.max_contributors, len(roster.roster.members)))
    encoding, noise = _encoding(arguments, plan, max_corrupt, notes)
    common: dict[str, Any] = {
        "session": plan.session,
        "protocol": arguments.protocol,
        "coordinator": load_public_key(public_path(config.key_file), KeyKind.COORDINATOR),
        "log": config.log.origin,
        "opened_at_s": SystemClock().now_s(),
        "base_model": merging.base_model,
        "base_model_digest": plan.merge.base_digest,
        "adapter": merging.digest,
        "layout": merging.layout.digest,
        "merge": plan.merge.merge,
        "encoding": encoding,
        "min_contributors": plan.min_contributors,
        "max_corrupt": max_corrupt,
        "roster": roster.roster.root(),
        "roster_size": len(roster.roster.members),
        "registrar": RosterHead.from_bytes(roster.head).registrar,
        "noise": noise,
        "retention_s": config.retention_s if arguments.retention is None else arguments.retention,
    }
    session: AnySession
    if openers is None:
        session = PairwiseSession(_pairwise(arguments, common), roster.roster)
        _check_pairwise(session, notes)
    else:
        one_shot = OneShotOpen(
            **common, opening=openers.opening, deadlines=OneShotDeadlines(*_seconds(arguments, _ONE_SHOT_SECONDS))
        )
        session = OneShotSession(one_shot, roster.roster)
        notes.append(_opener_note(session))
    _check(session, config, notes)
    if openers is not None and isinstance(session, OneShotSession):
        openers = asyncio.run(prepared(openers, session.parameters.session, session.parameters.coordinator))
        session = OneShotSession(dataclasses.replace(session.parameters, opening=openers.opening), roster.roster)
    return Opening(session, roster, merging, plan.merge.fixed, openers, tuple(notes))


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options of the other protocol, which would do nothing."""
    of_others = {
        "pairwise": ("committee", "needed", "max_corrupt_members", "authority"),
        "one-shot": ("expected_dropout",),
    }
    for name in of_others[arguments.protocol]:
        if getattr(arguments, name) is not None:
            option = "--" + name.replace("_", "-")
            raise CommandError("ARGUMENTS", f"{option} is not for {arguments.protocol} sessions", "see --protocol")


def _pairwise(arguments: argparse.Namespace, common: dict[str, Any]) -> PairwiseOpen:
    dropout = _DEFAULT_DROPOUT if arguments.expected_dropout is None else arguments.expected_dropout
    deadlines = Deadlines(*_seconds(arguments, _PAIRWISE_SECONDS))
    return PairwiseOpen(**common, expected_dropout=dropout, deadlines=deadlines)


def _encoding(arguments: argparse.Namespace, plan: _Plan, max_corrupt: int, notes: list[str]) -> tuple[Encoding, Noise]:
    """How vectors are encoded, and the noise on them."""
    if arguments.dp_epsilon is None:
        return _exact_encoding(arguments, plan.merge, notes), NoDifferentialPrivacy()
    cohort = Cohort(plan.min_contributors, max_corrupt, arguments.max_contributors)
    noise = plan_noise(arguments, plan.merge.merging.layout.dimension, plan.merge.clip_norm, cohort)
    return noise.encoding, noise.noise


def _exact_encoding(arguments: argparse.Namespace, planned: PlannedMerge, notes: list[str]) -> Encoding:
    dimension, clip_norm = planned.merging.layout.dimension, planned.clip_norm
    value_bits = _DEFAULT_VALUE_BITS if arguments.value_bits is None else arguments.value_bits
    most, usable = arguments.max_contributors, LANE_BITS
    if arguments.protocol == "one-shot":
        # A value that no encoding allows is refused below, as for other sessions.
        usable = usable_bits_for(min(max(value_bits, 2), 32), max(most, 2), dimension)
    if isinstance(planned.merging, UpdateMerging):
        return Encoding(dimension, value_bits, most, usable, clip_norm, CoordinateRange(Fraction(1)))
    encoding = Encoding(dimension, value_bits, most, usable, clip_norm, NoFlattening())
    if arguments.flatten == "off":
        return encoding
    plan = plan_encoding(dimension, clip_norm, value_bits, most, usable)
    if not isinstance(plan.flatten, FlattenBlocks):
        notes.append("not flattened: it would not make uploads smaller")
        return encoding
    seed = Flattening(SystemRng().bytes(32))
    return Encoding(dimension, plan.layout.value_bits, most, usable, clip_norm, seed)


def _max_corrupt(arguments: argparse.Namespace, plan: _Plan, cohort: int) -> int:
    """The given number; otherwise a tenth of the largest cohort, as far as the minimum allows."""
    if arguments.max_corrupt is not None:
        return int(arguments.max_corrupt)
    allowed = plan.min_contributors - 2
    return max(0, min(math.ceil(_DEFAULT_CORRUPT * cohort), allowed))


def _check_pairwise(session: PairwiseSession, notes: list[str]) -> None:
    """Refuse cohorts without a safe graph; note what may disappoint."""
    parameters = session.parameters
    most = full_cohort(parameters)
    session.graph_parameters(most)
    try:
        session.graph_parameters(parameters.min_contributors)
    except LocalProtocolError as error:
        notes.append(
            f"with only {parameters.min_contributors} contributors the session would be aborted: {error.detail}"
        )
    accepted = math.floor(parameters.max_corrupt / _DEFAULT_CORRUPT)
    if accepted < most:
        notes.append(
            f"contributors with the default policy leave if more than {accepted} take part: max_corrupt is below a "
            f"tenth of them"
        )


def _opener_note(session: OneShotSession) -> str:
    """What contributors must have pinned before they take part."""
    opening = session.opening
    if isinstance(opening, Committee):
        pins = len(opening.members) - opening.max_corrupt
        whom = f"at least {pins} of the {len(opening.members)} committee members"
    else:
        whom = "the key authority"
    return f"contributors take part only if they have pinned {whom} (`secagg client init --opener KEY`)"


def _check(session: AnySession, config: CoordinatorConfig, notes: list[str]) -> None:
    """Refuse what cannot work; note what may disappoint."""
    if session.upload_bytes > config.limits.max_upload_bytes:
        raise CommandError(
            "UPLOAD_BYTES",
            f"an upload has {session.upload_bytes} bytes, limits.max_upload_bytes is {config.limits.max_upload_bytes}",
            "raise the limit, lower --value-bits or --max-contributors, or try --flatten auto",
        )
    if session.parameters.registrar == session.parameters.coordinator:
        notes.append("the coordinator is its own registrar: contributors are told that it can invent people")


def _seconds(arguments: argparse.Namespace, defaults: dict[str, int]) -> list[int]:
    """``upload=600,open=600``: seconds by phase; what is not named keeps its default. Raises CommandError."""
    seconds = dict(defaults)
    for item in filter(None, arguments.deadlines.split(",")):
        name, _, value = item.partition("=")
        if name not in seconds or not value.isascii() or not value.isdigit() or len(value) > 9:
            raise CommandError(
                "DEADLINES", f"--deadlines: {item!r} is not one of {', '.join(f'{each}=SECONDS' for each in seconds)}"
            )
        seconds[name] = int(value)
    return list(seconds.values())
