"""What a sweep simulates: a grid of dropout rates and corrupt fractions, each cell many times, seeds from one seed."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import dp.planner
from dp.cli_values import number
from dp.errors import ParameterError
from secagg.arith.errors import ArithmeticInputError
from secagg.derive.graph import GraphParameterError
from secagg.derive.threshold import graph_parameters, quorum
from secagg.protocol.errors import LocalProtocolError
from secagg.protocol.phases import Phase
from secagg.transcript.record import RecordError
from simulations.world.cast import Cast
from simulations.world.noise import noise_plan
from simulations.world.people import PHASES
from simulations.world.plan import Plan, PlanError, Protocol
from simulations.world.randomness import SeededRng

MOST_RATES = 1001
"""Values in one range."""

_SEED_BYTES = 6  # whole in every reader of JSON


class SweepError(ValueError):
    """A sweep that cannot be run. ``field`` names what is wrong: an attribute of ``Sweep`` or of ``Plan``."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid.

    Attributes:
        protocol: of the session.
        dropout: with what probability each client falls silent in the sweep's drop phase.
        corruption: with what probability each client (pairwise) or committee member (one-shot) refuses to help in the
            end.
    """

    protocol: Protocol
    dropout: Fraction
    corruption: Fraction


@dataclass(frozen=True, slots=True)
class Trial:
    """One session to simulate: the ``repetition``-th of a cell, counted from 0. ``plan`` has its own seed."""

    cell: Cell
    repetition: int
    plan: Plan
    drop_phase: Phase


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is simulated.

    Attributes:
        plan: the session, whose protocol and seed are replaced.
        protocols: each with every pair of rates.
        dropouts: probabilities that a client falls silent in ``drop_phase``, each on its own.
        corruptions: probabilities that a client (pairwise: it falls silent when shares are asked for) or a member
            (one-shot: it does not answer) refuses to help in the end, each on its own.
        repeat: sessions for each cell.
        seed: everything random follows from it.
        drop_phase: before what is said there is handled, clients drop.

    Raises:
        SweepError: there is no such sweep, or no such session.
    """

    plan: Plan
    protocols: tuple[Protocol, ...] = (Protocol.PAIRWISE, Protocol.ONE_SHOT)
    dropouts: tuple[Fraction, ...] = (Fraction(0),)
    corruptions: tuple[Fraction, ...] = (Fraction(0),)
    repeat: int = 20
    seed: int = 0
    drop_phase: Phase = Phase.MASKED_INPUT

    def __post_init__(self) -> None:
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise SweepError("protocol", "expected one or more, each once")
        _check_rates("dropout", self.dropouts)
        _check_rates("corruption", self.corruptions)
        if self.repeat < 1:
            raise SweepError("repeat", f"expected 1 or more, got {self.repeat}")
        for protocol in self.protocols:
            if self.drop_phase not in PHASES[protocol]:
                phases = ", ".join(phase.value for phase in PHASES[protocol])
                raise SweepError(
                    "drop_phase", f"{protocol} clients say nothing in {self.drop_phase.value}, only in {phases}"
                )
            _check_session(self.plan_of(protocol))

    def plan_of(self, protocol: Protocol, seed: int = 0) -> Plan:
        """The session as one protocol has it."""
        return dataclasses.replace(self.plan, protocol=protocol, seed=seed)

    def cells(self) -> Iterator[Cell]:
        """All points, in order: by protocol, then corruption, then dropout."""
        for protocol in self.protocols:
            for corruption in self.corruptions:
                for dropout in self.dropouts:
                    yield Cell(protocol, dropout, corruption)

    def trials(self) -> Iterator[Trial]:
        """All sessions, cell after cell."""
        for cell in self.cells():
            for repetition in range(self.repeat):
                plan = self.plan_of(cell.protocol, trial_seed(self.seed, cell, repetition))
                yield Trial(cell, repetition, plan, self.drop_phase)


def trial_seed(seed: int, cell: Cell, repetition: int) -> int:
    """The seed of one session, 48 bits: it does not depend on what else is swept."""
    names = (cell.protocol.value, str(cell.dropout), str(cell.corruption), repetition)
    return int.from_bytes(SeededRng(seed, "sweep", *names).bytes(_SEED_BYTES), "big")


def rates_of(text: str) -> tuple[Fraction, ...]:
    """Reads ``START:STOP:STEP``, STOP included where a step meets it, or ``A,B,C``; exactly, each 0 to 1.

    Raises:
        ValueError: it is neither; the message says why.
    """
    parts = text.split(":")
    if len(parts) == 1:
        values = tuple(_rate(part) for part in text.split(","))
        if len(set(values)) < len(values):
            raise ValueError(f"a rate stands there twice in {text!r}")
        return values
    if len(parts) != 3:
        raise ValueError(f"expected START:STOP:STEP, as 0:0.5:0.05, or A,B,C, got {text!r}")
    start, stop, step = (_rate(part) for part in parts)
    if step <= 0:
        raise ValueError(f"STEP must be above 0, got {parts[2]}")
    if stop < start:
        raise ValueError(f"STOP is {parts[1]}, below START, which is {parts[0]}")
    count = (stop - start) // step + 1
    if count > MOST_RATES:
        raise ValueError(f"{text!r} is {count} rates, at most {MOST_RATES} will do")
    return tuple(start + number * step for number in range(count))


def _rate(text: str) -> Fraction:
    try:
        value = number(text.strip())
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{error}, got {text!r}") from None
    if not 0 <= value <= 1:
        raise ValueError(f"expected rates of 0 to 1, got {text.strip()}")
    return value


def _check_rates(field: str, rates: tuple[Fraction, ...]) -> None:
    if not rates or len(set(rates)) < len(rates):
        raise SweepError(field, "expected one or more rates, each once")
    for rate in rates:
        if not 0 <= rate <= 1:
            raise SweepError(field, f"expected rates of 0 to 1, got {rate}")


def noise_of(plan: Plan) -> dp.planner.Plan | None:
    """How the noise of a session of this plan was planned; None without noise. Seeds do not matter to it.

    Raises:
        ParameterError, dp.planner.PlanError: there is no such noise.
    """
    return _noise_of(dataclasses.replace(plan, seed=0))


@functools.lru_cache(maxsize=64)
def _noise_of(plan: Plan) -> dp.planner.Plan | None:
    if plan.epsilon is None:
        return None
    return noise_plan(Cast.of(dataclasses.replace(plan, epsilon=None)).session.parameters, plan.epsilon)


_OPTIONS = {"cohort": "clients", "committee.members": "members", "committee.needed": "needed", "committee": "needed"}
"""What other modules call attributes of a plan."""


def _check_session(plan: Plan) -> None:
    """Raise SweepError unless the session could be opened, if everybody came."""
    try:
        if plan.protocol is Protocol.PAIRWISE:
            _check_graph(plan)
        noise_of(plan)
        cast = Cast.of(plan)
        cast.client_policy.check_parameters(cast.session.parameters)
    except (PlanError, GraphParameterError, ParameterError, RecordError, ArithmeticInputError) as error:
        raise SweepError(_OPTIONS.get(error.field, error.field), error.reason) from None
    except LocalProtocolError as error:
        # All that is left for clients to object to, who pin every member and tolerate what the session does.
        raise SweepError("corrupt_members", f"clients refuse the session: {error.detail}") from None
    except dp.planner.PlanError as error:
        raise SweepError("epsilon", f"{plan.protocol}: no noise that is this good: {error.reason}") from None


def _check_graph(plan: Plan) -> None:
    expected = plan.expected_dropout
    staying, confirming = plan.clients - math.floor(expected * plan.clients), quorum(plan.clients, plan.corrupt)
    if staying < confirming:
        raise SweepError(
            "expected_dropout",
            f"{expected} of {plan.clients} clients leave {staying}, and {confirming} have to confirm: lower it, or "
            "max_corrupt",
        )
    graph_parameters(plan.clients, plan.corrupt, plan.minimum, expected)
