"""The noise that options ask for: planned, and refused where it would drown what it is added to."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from dp.errors import ParameterError
from dp.planner import Demand, MechanismKind, Plan, PlanError, Relaxation, plan, ways_to_lower_the_ratio
from secagg.arith.fields import LANE_BITS
from secagg.arith.flatten import flattened_bound, flattened_dimension
from secagg.arith.ring_mask import usable_bits_for
from secagg.cli.failures import CommandError
from secagg.cli.noise_options import DEFAULT_DELTA, DEFAULT_POPULATION, NOISE_OPTIONS
from secagg.crypto.rng import SystemRng
from secagg.privacy.session_noise import table_of
from secagg.transcript.encoding import Encoding, Flattening, NoFlattening
from secagg.transcript.noise import (
    DiscreteGaussianNoise,
    PrivacyBudget,
    SkellamNoise,
)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Who adds noise: at least ``least`` contributions, ``corrupt`` of them without, at most ``most``."""

    least: int
    corrupt: int
    most: int


@dataclass(frozen=True, slots=True)
class PlannedNoise:
    """An encoding and the noise it has room for; nothing is reserved yet."""

    encoding: Encoding
    noise: SkellamNoise | DiscreteGaussianNoise
    plan: Plan


def check_noise_options(arguments: argparse.Namespace) -> None:
    """Refuse options that would do nothing. Raises CommandError."""
    for name in NOISE_OPTIONS:
        if arguments.dp_epsilon is None and getattr(arguments, name) is not None:
            raise CommandError("ARGUMENTS", f"--{name.replace('_', '-')} needs --dp-epsilon")
    if arguments.accept_ratio is not None:
        check_accept_ratio(arguments.accept_ratio)
    population = arguments.dp_population
    if population is not None and not (population.strip() and population.isprintable() and len(population) <= 64):
        raise CommandError("ARGUMENTS", "--dp-population: expected a name of at most 64 printable characters")
    if arguments.dp_epsilon is not None and arguments.value_bits is not None:
        raise CommandError(
            "ARGUMENTS", "--value-bits and --dp-epsilon exclude each other", "noise decides on the bits of a value"
        )


def check_accept_ratio(ratio: Fraction) -> None:
    """Refuse what is no ratio. Raises CommandError."""
    if ratio <= 0:
        raise CommandError("ARGUMENTS", "--accept-ratio: expected a number above 0")


def plan_noise(arguments: argparse.Namespace, dimension: int, clip_norm: Fraction, cohort: Cohort) -> PlannedNoise:
    """The noise that the options ask for, flattened where that is allowed and makes uploads smaller.

    Raises:
        CommandError: no noise does it; the message says what to relax.
    """
    planned: list[PlannedNoise] = []
    refusals: list[CommandError] = []
    for flatten in _flattenings(arguments):
        try:
            planned.append(_planned(arguments, dimension, clip_norm, cohort, flatten))
        except CommandError as error:
            refusals.append(error)
    if not planned:
        raise refusals[0]
    best = min(planned, key=lambda each: each.encoding.field_layout().lanes)
    _check_ratio(best.plan, best.noise.accepted_ratio)
    return best


def _check_ratio(found: Plan, accepted: Fraction) -> None:
    """Refuse noise that drowns every signal, unless that was accepted. Raises CommandError."""
    ratio = found.signal_ratio
    if ratio <= accepted:
        return
    demand = found.demand
    ways = _ways(demand, ways_to_lower_the_ratio(found, accepted))
    raise CommandError(
        "SIGNAL_RATIO",
        f"the noise in the sum will be {ratio:.3g} times as large as the largest possible signal of "
        f"{demand.min_survivors} contributors, so next to nothing of what they learnt will be left",
        f"{ways}; or --accept-ratio {_rounded_up(ratio)} opens it all the same",
        kind="privacy",
    )


def _rounded_up(ratio: float) -> str:
    return f"{math.ceil(ratio)}" if ratio >= 10 else f"{math.ceil(10 * ratio) / 10:g}"


def _ways(demand: Demand, relaxations: Sequence[Relaxation]) -> str:
    """What would be enough, in the words of the options."""
    found = [
        f"{_OPTION_OF.get(each.field, each.field)} {_shown(each.now)} -> {_shown(each.needed)}"
        + "".join(f" with {_OPTION_OF[name]} {_shown(value)}" for name, value in each.besides(demand).items())
        for each in relaxations
    ]
    if not found:
        return "no change of one number alone is enough"
    return f"any one of these is enough: {', '.join(found)}"


def _shown(value: Fraction | int) -> str:
    return f"{value}" if isinstance(value, int) else f"{float(value):.6g}"


def _flattenings(arguments: argparse.Namespace) -> Iterator[NoFlattening | Flattening]:
    yield NoFlattening()
    if arguments.flatten == "auto":
        yield Flattening(SystemRng().bytes(32))


def _planned(
    arguments: argparse.Namespace,
    dimension: int,
    clip_norm: Fraction,
    cohort: Cohort,
    flatten: NoFlattening | Flattening,
) -> PlannedNoise:
    packed, bound = dimension, clip_norm
    if isinstance(flatten, Flattening):
        packed, bound = flattened_dimension(dimension), flattened_bound(clip_norm, dimension)
    try:
        demand = Demand(
            epsilon=arguments.dp_epsilon,
            delta=DEFAULT_DELTA if arguments.dp_delta is None else arguments.dp_delta,
            sessions=1 if arguments.dp_sessions is None else arguments.dp_sessions,
            min_survivors=cohort.least,
            corrupt=cohort.corrupt,
            dimension=packed,
            clip=clip_norm,
            max_contributors=cohort.most,
            mechanism=MechanismKind(arguments.dp_mechanism or MechanismKind.SKELLAM.value),
            coordinate_bound=bound,
        )
    except ParameterError as error:
        raise CommandError("NOISE", f"{_OPTION_OF.get(error.field, error.field)}: {error.reason}") from None
    try:
        found = plan(demand)
    except PlanError as error:
        ways = _ways(demand, error.relaxations)
        raise CommandError("NO_PLAN", str(error), ways, kind="privacy") from None
    usable = LANE_BITS
    if arguments.protocol == "one-shot":
        usable = usable_bits_for(found.value_bits, cohort.most, packed)
    encoding = Encoding(dimension, found.value_bits, cohort.most, usable, clip_norm, flatten)
    return PlannedNoise(encoding, _record(arguments, found), found)


def _record(arguments: argparse.Namespace, found: Plan) -> SkellamNoise | DiscreteGaussianNoise:
    """What the open entry will say, but for the reservation."""
    demand = found.demand
    kind = SkellamNoise if demand.mechanism is MechanismKind.SKELLAM else DiscreteGaussianNoise
    population = DEFAULT_POPULATION if arguments.dp_population is None else arguments.dp_population
    noise = kind(
        scale=found.scale,
        squared_norm=found.squared_norm,
        local_variance=found.local_variance,
        table=bytes(32),
        accepted_ratio=Fraction(1) if arguments.accept_ratio is None else arguments.accept_ratio,
        budget=PrivacyBudget(population, demand.epsilon, demand.delta, 1, bytes(32), bytes(32)),
    )
    return dataclasses.replace(noise, table=table_of(noise).digest)


_OPTION_OF = {
    "epsilon": "--dp-epsilon",
    "delta": "--dp-delta",
    "sessions": "--dp-sessions",
    "min_survivors": "--min-contributors",
    "corrupt": "--max-corrupt",
    "clip": "--clip-norm",
    "dimension": "parameters of an adapter (a smaller rank)",
    "max_contributors": "--max-contributors",
}
"""Under which option a person gave what the planner refuses."""
