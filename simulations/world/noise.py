"""Sessions with noise: the parameters of another session, planned again so that contributors add some."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import TypeVar

from dp.ledger_events import GENESIS, reservation_digest
from dp.planner import Demand, MechanismKind, Plan, plan
from secagg.arith.fields import LANE_BITS
from secagg.arith.flatten import flattened_bound, flattened_dimension
from secagg.arith.ring_mask import usable_bits_for
from secagg.privacy.session_noise import mechanism_of, table_of
from secagg.transcript.encoding import Encoding, Flattening
from secagg.transcript.entries import OneShotOpen, SessionOpen
from secagg.transcript.noise import DiscreteGaussianNoise, PrivacyBudget, SkellamNoise

OpenT = TypeVar("OpenT", bound=SessionOpen)


def with_noise(
    parameters: OpenT,
    epsilon: Fraction = Fraction(8),
    *,
    delta: Fraction = Fraction(1, 100_000),
    mechanism: MechanismKind = MechanismKind.SKELLAM,
    population: str = "people",
) -> OpenT:
    """The same session, in which the noise costs ``epsilon`` once; reserved in a ledger that holds nothing else."""
    encoding = parameters.encoding
    planned = noise_plan(parameters, epsilon, delta=delta, mechanism=mechanism)
    packed = planned.demand.dimension
    usable = LANE_BITS
    if isinstance(parameters, OneShotOpen):
        usable = usable_bits_for(planned.value_bits, encoding.max_contributors, packed)
    kind = SkellamNoise if mechanism is MechanismKind.SKELLAM else DiscreteGaussianNoise
    noise = kind(
        scale=planned.scale,
        squared_norm=planned.squared_norm,
        local_variance=planned.local_variance,
        table=bytes(32),
        accepted_ratio=Fraction(1000),
        budget=PrivacyBudget(population, epsilon, delta, 1, GENESIS, bytes(32)),
    )
    noise = dataclasses.replace(noise, table=table_of(noise).digest)
    wider = Encoding(
        encoding.dimension,
        planned.value_bits,
        encoding.max_contributors,
        usable,
        encoding.clip_norm,
        encoding.flatten,
    )
    return reserved(dataclasses.replace(parameters, encoding=wider, noise=noise))


def noise_plan(
    parameters: SessionOpen,
    epsilon: Fraction,
    *,
    delta: Fraction = Fraction(1, 100_000),
    mechanism: MechanismKind = MechanismKind.SKELLAM,
) -> Plan:
    """The plan of noise that ``with_noise`` gives a session.

    Raises:
        ParameterError: a number that is no demand; ``field`` names it.
        PlanError: nothing meets the demand (``dp.planner``).
    """
    encoding = parameters.encoding
    packed, bound = encoding.dimension, encoding.clip_norm
    if isinstance(encoding.flatten, Flattening):
        packed, bound = flattened_dimension(packed), flattened_bound(bound, packed)
    demand = Demand(
        epsilon=epsilon,
        delta=delta,
        sessions=1,
        min_survivors=parameters.min_contributors,
        corrupt=parameters.max_corrupt,
        dimension=packed,
        clip=encoding.clip_norm,
        max_contributors=encoding.max_contributors,
        mechanism=mechanism,
        coordinate_bound=bound,
    )
    return plan(demand)


def reserved(parameters: OpenT) -> OpenT:
    """The same with the reservation that its own budget's ledger would have made for it."""
    noise = parameters.noise
    if not isinstance(noise, SkellamNoise | DiscreteGaussianNoise):
        return parameters
    budget = noise.budget
    head = reservation_digest(
        budget.previous, budget.sequence, budget.population, parameters.session, mechanism_of(parameters)
    )
    return dataclasses.replace(
        parameters, noise=dataclasses.replace(noise, budget=dataclasses.replace(budget, reserved=head))
    )
