"""What theory says of a session: the curves that simulated ones are drawn next to.

Here: whether it ends with a sum if clients fall silent. Corruption and noise: ``simulations.estimates.theory_privacy``.

Every client drops out on its own: an assumption, and the one that the session's own parameters are computed under
(docs/parameters.md). What says so is exact: sums of positive terms in double precision, relative error below 1e-9;
failures are summed as failures, not as one minus a success. Otherwise a result is a ``Bounds``, and both ends are
theorems about the model, not fits. Degree, threshold and quorum come from ``secagg.derive.threshold``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from secagg.derive.graph import GraphParameterError, MaskingGraph
from secagg.derive.threshold import GraphParameters, graph_parameters, quorum
from secagg.protocol.pairwise.session import PairwiseSession

_NEGLIGIBLE = 1e-25
"""Sizes of sets that are less likely are not followed further; their mass counts as failure in the upper bound."""

_UNLIKELY_COHORT = 1e-12
"""The same of cohorts (U1): for each of them a degree has to be searched."""

Mass = NDArray[np.float64]


class TheoryError(ValueError):
    """An argument for which there is no such probability. ``field`` names it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Bounds:
    """A probability between two ends, both included; exact where they are the same.

    Raises:
        TheoryError: field ``lower``: not ``0 <= lower <= upper <= 1``.
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not 0 <= self.lower <= self.upper <= 1:
            raise TheoryError("lower", f"{self.lower} to {self.upper} are no bounds of a probability")

    @property
    def is_exact(self) -> bool:
        """Whether nothing is left open but rounding."""
        return self.upper - self.lower <= 1e-9 * self.upper

    @property
    def complement(self) -> Bounds:
        """Of the opposite, to 1e-16: where that matters ask for the failure."""
        return Bounds(1 - self.upper, 1 - self.lower)


def bounded(lower: float, upper: float) -> Bounds:
    """Both ends brought into 0..1, where a union or rounding left it."""
    lower, upper = float(lower), float(upper)
    upper = min(1.0, max(0.0, upper))
    return Bounds(min(max(0.0, lower), upper), upper)


def require_probability(name: str, value: float) -> None:
    """Raise TheoryError naming ``name`` unless this is one."""
    if not 0 <= value <= 1:
        raise TheoryError(name, f"must be 0 to 1, is {value}")


# Pairwise.


@dataclass(frozen=True, slots=True)
class PhaseDropout:
    """With what probability a client that did all before falls silent in a phase, so that its message never comes.

    A client that drops out after the message of a phase was handled drops out in the next one.
    """

    advertise: float = 0.0
    share: float = 0.0
    upload: float = 0.0
    confirm: float = 0.0
    unmask: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            require_probability(field.name, getattr(self, field.name))

    def staying(self) -> tuple[float, ...]:
        """With what probability a client of U1 is in V2, V3, V4 and V5: it never fell silent until then."""
        each = (1 - self.share, 1 - self.upload, 1 - self.confirm, 1 - self.unmask)
        return tuple(math.prod(each[: place + 1]) for place in range(len(each)))


@dataclass(frozen=True, slots=True)
class PairwiseTerms:
    """What the open entry of a pairwise session says about numbers of clients."""

    min_contributors: int
    max_corrupt: int
    expected_dropout: Fraction = Fraction(0)

    @classmethod
    def of(cls, session: PairwiseSession) -> PairwiseTerms:
        """Those of a session."""
        parameters = session.parameters
        return cls(parameters.min_contributors, parameters.max_corrupt, parameters.expected_dropout)

    def graph(self, cohort: int) -> GraphParameters | None:
        """Degree and threshold as ``PairwiseSession.graph_parameters`` finds them; None where it refuses."""
        if cohort - math.floor(self.expected_dropout * cohort) < quorum(cohort, self.max_corrupt):
            return None
        try:
            return graph_parameters(cohort, self.max_corrupt, self.min_contributors, self.expected_dropout)
        except GraphParameterError:
            return None


def pairwise_opens(terms: PairwiseTerms, graph: MaskingGraph, done: Sequence[int]) -> bool:
    """Whether a session ends with a sum, by the rules of coordinator and clients, if all are honest.

    Args:
        terms: of the session.
        graph: of its cohort U1.
        done: of each client of U1, in how many phases it spoke before it fell silent, 1 to 5.

    Rules, in order: |U2| at least the minimum; whoever uploads has t neighbours in U2; |U3| at least the minimum, the
    quorum and t + 1; whoever answers sees t neighbours of U4, and |U4| is a quorum; t neighbours of everybody in U3,
    and of everybody in U2 that somebody in U3 masked with, are in U5.
    """
    cohort = graph.cohort
    parameters = terms.graph(cohort)
    if parameters is None or cohort < terms.min_contributors:
        return False
    threshold, confirming = parameters.threshold, quorum(cohort, terms.max_corrupt)

    def enough(index: int, among: set[int]) -> bool:
        return len(among.intersection(graph.neighbours(index))) >= threshold

    shared = {index for index in range(cohort) if done[index] >= 2}
    if len(shared) < terms.min_contributors:
        return False
    accepted = {index for index in shared if done[index] >= 3 and enough(index, shared)}
    if len(accepted) < max(terms.min_contributors, confirming, threshold + 1):
        return False
    confirmed = {index for index in accepted if done[index] >= 4}
    if len(confirmed) < confirming:
        return False
    answered = {index for index in confirmed if done[index] >= 5 and enough(index, confirmed)}
    masked = (index for index in shared if index in accepted or accepted.intersection(graph.neighbours(index)))
    return all(enough(index, answered) for index in masked)


def pairwise_failure(terms: PairwiseTerms, clients: int, dropout: PhaseDropout) -> Bounds:
    """The probability that a session of ``clients`` clients, all of whom want to take part, ends without a sum.

    V2 to V5 are those who never fell silent until then; nobody is in a set of the session who is not in that.

    - *Complete graph* (cohorts of at most 100, and where no smaller degree is safe): exact. Everybody has the same
      neighbours, so only sizes count: |V3| at least the minimum, the quorum and t + 1, |V4| the quorum, |V5| t + 1.
    - *Sparse graph*: the sizes are necessary, and with them it is enough that everybody in V2 has t neighbours in V5;
      that gives the upper bound: the union over the clients as they stand on the circle, each counted only if the one
      before it has enough. A client in V2 with fewer, somebody in V3 among its
      neighbours, is fatal, unless somebody in V3 gave up for want of t neighbours in V2; clients that stand degree + 1
      apart on the circle share no neighbours, so they are independent: that gives the lower bound.

    Where clients drop out in ``advertise``, this is averaged over |U1|. Cohorts that are less likely than 1e-12 count
    as failures in the upper bound and not in the lower one.

    Raises:
        TheoryError: field ``clients``: below 1.
    """
    if clients < 1:
        raise TheoryError("clients", f"must be at least 1, is {clients}")
    weights = stats.binom.pmf(np.arange(clients + 1), clients, 1 - dropout.advertise)
    lower = upper = 0.0
    for cohort, weight in enumerate(weights):
        if weight < _UNLIKELY_COHORT:
            upper += weight
            continue
        found = _cohort_failure(terms, cohort, dropout)
        lower, upper = lower + weight * found.lower, upper + weight * found.upper
    return bounded(lower, upper)


def _cohort_failure(terms: PairwiseTerms, cohort: int, dropout: PhaseDropout) -> Bounds:
    parameters = terms.graph(cohort) if cohort >= terms.min_contributors else None
    if parameters is None:
        return Bounds(1.0, 1.0)
    degree, threshold = parameters.degree, parameters.threshold
    confirming = quorum(cohort, terms.max_corrupt)
    # What V3 needs V2 has; of V4 no more is asked, since V5 is in it.
    floors = (0, max(terms.min_contributors, confirming, threshold + 1), confirming, threshold + 1)
    steps = (1 - dropout.share, 1 - dropout.upload, 1 - dropout.confirm, 1 - dropout.unmask)
    few, lost = _too_few(cohort, floors, steps)
    if degree == cohort - 1:
        return bounded(few, few + lost)
    shared, uploaded, _, answering = dropout.staying()
    short = float(stats.binom.cdf(threshold - 1, degree, answering))
    stopped = cohort * uploaded * float(stats.binom.cdf(threshold - 1, degree, shared))
    fatal = shared * max(0.0, short - (1 - uploaded) ** degree)
    apart = -math.expm1(cohort // (degree + 1) * math.log1p(-fatal)) if fatal < 1 else 1.0
    union = cohort * shared * short - (cohort - 1) * _both_short(parameters, shared, answering)
    return bounded(max(few, apart - stopped), few + lost + union)


def _both_short(parameters: GraphParameters, shared: float, answering: float) -> float:
    """The probability that two clients next to each other on the circle both are in V2 with too few of V5 around.

    They are neighbours of each other, have degree - 2 neighbours in common and one more each.
    """
    common = stats.binom.pmf(np.arange(parameters.degree - 1), parameters.degree - 2, answering)
    total = 0.0
    for first, second in itertools.product((0, 1), repeat=2):
        weight = math.prod(answering if answers else shared - answering for answers in (first, second))
        few = [_bernoulli_below(parameters.threshold - other, common.size, answering) for other in (first, second)]
        total += weight * float((common * few[0] * few[1]).sum())
    return total


def _bernoulli_below(limit: int, sizes: int, probability: float) -> Mass:
    """For each count from 0: the probability that it stays below ``limit`` with one more draw added."""
    counts = np.arange(sizes)
    return np.where(counts < limit - 1, 1.0, np.where(counts == limit - 1, 1 - probability, 0.0))


def _too_few(cohort: int, floors: Sequence[int], steps: Sequence[float]) -> tuple[float, float]:
    """The probability that one of the sets V2 to V5 is smaller than its floor, and the mass that was not followed."""
    mass: Mass = np.zeros(cohort + 1)
    mass[cohort] = 1.0
    failed = lost = 0.0
    for floor, stays in zip(floors, steps, strict=True):
        if stays < 1:
            after = np.zeros_like(mass)
            for size in np.flatnonzero(mass):
                if mass[size] < _NEGLIGIBLE:
                    lost += float(mass[size])
                    continue
                after[: size + 1] += mass[size] * stats.binom.pmf(np.arange(size + 1), size, stays)
            mass = after
        failed += float(mass[:floor].sum())
        mass[:floor] = 0.0
    return failed, lost


# One-shot with a committee.


@dataclass(frozen=True, slots=True)
class Availability:
    """Of one committee member: ``holds`` while boxes come, all of them or none; ``answers`` at the opening if it held.

    That a member may miss single boxes (``tables.choose_named`` still names it if ``max_corrupt`` contributions or
    fewer are lost by that) is not in this model.
    """

    holds: float = 1.0
    answers: float = 1.0

    def __post_init__(self) -> None:
        require_probability("holds", self.holds)
        require_probability("answers", self.answers)


@dataclass(frozen=True, slots=True)
class OneShotTerms:
    """What the open entry of a session with a committee says about numbers: ``needed`` of ``members`` open."""

    min_contributors: int
    members: int
    needed: int


def one_shot_failure(terms: OneShotTerms, clients: int, upload_dropout: float, members: Availability) -> Bounds:
    """The probability that a one-shot session ends without a sum. Exact.

    The close names all members that held the boxes, if they are ``needed`` or more; ``needed`` of the named have to
    answer. So it fails if too few contribute, or fewer than ``needed`` members both hold and answer.
    """
    require_probability("upload_dropout", upload_dropout)
    few = float(stats.binom.cdf(terms.min_contributors - 1, clients, 1 - upload_dropout))
    unopened = float(stats.binom.cdf(terms.needed - 1, terms.members, members.holds * members.answers))
    # 1 - (1 - few) (1 - unopened), without losing what is below 1e-16
    failing = few + unopened - few * unopened
    return bounded(failing, failing)
