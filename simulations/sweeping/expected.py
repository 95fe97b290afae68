"""What theory says of one cell of a sweep."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import dp.planner
from secagg.derive.threshold import quorum
from secagg.protocol.phases import Phase
from simulations.estimates.theory import (
    Availability,
    Bounds,
    OneShotTerms,
    PairwiseTerms,
    PhaseDropout,
    one_shot_failure,
    pairwise_failure,
)
from simulations.estimates.theory_privacy import corrupt_excess, noise_over
from simulations.sweeping.grid import Cell, noise_of
from simulations.world.plan import Plan, Protocol

_FIELDS = {
    Phase.ADVERTISE_KEYS: "advertise",
    Phase.SHARE_KEYS: "share",
    Phase.MASKED_INPUT: "upload",
    Phase.CONSISTENCY_CHECK: "confirm",
    Phase.UNMASK: "unmask",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What theory says of one cell.

    Attributes:
        success: the probability that a session ends with a sum.
        corrupt_clients: the probability that, if each client is corrupt with the cell's probability, more are than
            ``max_corrupt`` of the session.
        corrupt_members: the same of the committee; None where there is none.
        epsilon: mean of what a session costs, given that it opens; None without noise, or where it hardly ever opens.
        error: root of the mean square of an error of the mean, a coordinate's, given that it opens; None as above.
    """

    success: Bounds
    corrupt_clients: float
    corrupt_members: float | None
    epsilon: float | None
    error: float | None


def expected(plan: Plan, cell: Cell, drop_phase: Phase) -> Expected:
    """Theory for a cell whose sessions have this plan (``Sweep.plan_of``).

    ``success`` is what ``pairwise_failure`` and ``one_shot_failure`` say. ``epsilon`` and ``error`` are exact for
    one-shot sessions and for complete graphs from which nobody drops out before the cohort is fixed; elsewhere they
    leave out that sessions with many contributions end well more often.
    """
    dropout = phase_dropout(cell, drop_phase)
    corruption = float(cell.corruption)
    members = None
    if plan.protocol is Protocol.PAIRWISE:
        failure = pairwise_failure(_terms(plan), plan.clients, dropout)
    else:
        rules = plan.committee
        terms = OneShotTerms(plan.minimum, rules.members, rules.needed)
        failure = one_shot_failure(terms, plan.clients, dropout.upload, Availability(1.0, 1 - corruption))
        members = corrupt_excess(rules.members, rules.max_corrupt, corruption)
    clients = corrupt_excess(plan.clients, plan.corrupt, corruption)
    epsilon, error = _noise(plan, dropout)
    return Expected(failure.complement, clients, members, epsilon, error)


def phase_dropout(cell: Cell, drop_phase: Phase) -> PhaseDropout:
    """With what probability clients of a cell fall silent in which phase: corrupt ones when shares are asked for."""
    rates = dict.fromkeys(_FIELDS.values(), 0.0)
    rates[_FIELDS[drop_phase]] = float(cell.dropout)
    if cell.protocol is Protocol.PAIRWISE:
        rates["unmask"] = 1 - (1 - rates["unmask"]) * (1 - float(cell.corruption))
    return PhaseDropout(**rates)


@functools.lru_cache(maxsize=4096)
def epsilon_over(planned: dp.planner.Plan, contributions: int) -> float:
    """What one session with noise costs whose sum has so many contributions."""
    return noise_over(planned, contributions).epsilon


def _noise(plan: Plan, dropout: PhaseDropout) -> tuple[float | None, float | None]:
    planned = noise_of(plan)
    if planned is None:
        return None, None
    sizes, weights = _sizes(plan, dropout)
    total = float(weights.sum())
    if total < 1e-12:
        return None, None
    weights = weights / total
    variance = float(planned.local_variance / planned.scale**2)
    likely = weights > 1e-9
    costs = (
        weight * epsilon_over(planned, int(size)) for size, weight in zip(sizes[likely], weights[likely], strict=True)
    )
    return float(sum(costs)), math.sqrt(float((weights * variance / sizes).sum()))


def _sizes(plan: Plan, dropout: PhaseDropout) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers of contributions, and the probability that a session opens over so many."""
    counted = (1 - dropout.advertise) * (1 - dropout.share) * (1 - dropout.upload)
    if plan.protocol is Protocol.ONE_SHOT:
        sizes = np.arange(plan.minimum, plan.clients + 1)
        return sizes, stats.binom.pmf(sizes, plan.clients, counted)
    graph = _terms(plan).graph(plan.clients)
    confirming = quorum(plan.clients, plan.corrupt)
    answering = 0 if graph is None else graph.threshold + 1
    sizes = np.arange(max(plan.minimum, confirming, answering), plan.clients + 1)
    weights = stats.binom.pmf(sizes, plan.clients, counted)
    if graph is None or graph.degree < plan.clients - 1:
        return sizes, weights
    for place, size in enumerate(sizes):
        confirmed = np.arange(max(confirming, answering), size + 1)
        helped = stats.binom.pmf(confirmed, size, 1 - dropout.confirm) * stats.binom.sf(
            answering - 1, confirmed, 1 - dropout.unmask
        )
        weights[place] *= helped.sum()
    return sizes, weights


def _terms(plan: Plan) -> PairwiseTerms:
    return PairwiseTerms(plan.minimum, plan.corrupt, Fraction(plan.expected_dropout))
