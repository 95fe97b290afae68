"""Degree and threshold of pairwise masking, computed from published values and never typed in.

The adversary is a coordinator that deviates. It sees the graph, chooses which honest clients to leave out, as
many as it likes, and colludes with ``max_corrupt`` clients; where those stand on the circle is random, because
the order follows from a hash. It can try other values under the hash until an order suits it, so what must not
happen gets probability 2^-128 for each order. Below, k is the degree, t the threshold, and an answer is one
neighbour's share. An honest client answers for one close entry only, once t neighbours confirmed the same, and
only if the entry counts it in: **who is left out never answers** (``_closed`` of the client machine).

**Private.** Let w be the smallest count such that no two windows of k / 2 positions with somebody between them on
either side hold more than w corrupt clients together, but with probability below 2^-128. Anybody's neighbours
are two such windows. ``2 * t > k + w`` is enough:

- *Nobody's two secrets are both opened.* An honest neighbour answers one kind, a corrupt one both: 2 t answers
  are more than the k + w there can be.
- *No sum over a part shows.* The sum of a part of the clients shows if the self-mask seed of each member is
  opened and no pair mask leads out of it. Then the circle has k / 2 corrupt or left-out clients in a row
  beyond either end of the part, and its end clients get at most k / 2 answers from their other side. The rest,
  t - k / 2 or more, must come from the corrupt in the window: 2 t - k or more in the pair of windows.
- The same holds if a forked log shows different close entries to different clients: a client whose root is
  opened for one entry is not among those that answer for another.

**Correct.** If ``expected_dropout`` of the cohort drop out at random, every client keeps ``threshold``
neighbours except with probability below 2^-20.

Every decision is one between integers: ratios of binomial coefficients, never a float. docs/parameters.md has
the proof, formulas, a table and the limits. Bell et al. 2020 (ePrint 2020/704), Bonawitz et al. 2017 (ePrint
2017/281).
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from secagg.derive.graph import MAX_COHORT, MIN_COHORT, GraphParameterError, require_integer

PRIVACY_BITS = 128
CORRECTNESS_BITS = 20

COMPLETE_UP_TO = 100
"""Cohorts of at most this many use the complete graph."""


@dataclass(frozen=True, slots=True)
class GraphParameters:
    """Degree (symbol k) and threshold (symbol t) of a session.

    Attributes:
        degree: neighbours of every client, itself not counted.
        threshold: how many neighbours' shares reconstruct a secret; always more than half of ``degree``.

    Raises:
        GraphParameterError: the threshold is not above half of the degree, or above the degree.
    """

    degree: int
    threshold: int

    def __post_init__(self) -> None:
        require_integer("degree", self.degree, 2, MAX_COHORT - 1)
        # Two disjoint halves of the neighbours must never hold both secrets of a client.
        require_integer("threshold", self.threshold, self.degree // 2 + 1, self.degree)


@dataclass(frozen=True, slots=True)
class _Threat:
    """What the search is against; the two levels are arguments so that tests can watch weak ones fail."""

    cohort: int
    max_corrupt: int
    dropping: int
    privacy_bits: int = PRIVACY_BITS
    correctness_bits: int = CORRECTNESS_BITS


def graph_parameters(
    cohort: int, max_corrupt: int, min_contributors: int, expected_dropout: Fraction
) -> GraphParameters:
    """The smallest safe degree for a cohort, with the smallest threshold that is safe for it.

    "Smallest" is exact among even degrees: no smaller even degree meets both conditions of this module. The
    complete graph is taken for cohorts of up to 100 and where no smaller degree meets them.

    Args:
        cohort: number of clients that advertised keys (U1, symbol n).
        max_corrupt: how many of them may collude with the coordinator, an absolute number.
        min_contributors: the smallest final set for which honest clients answer. It bounds how few inputs
            the sum can show and does not change degree or threshold.
        expected_dropout: fraction of the cohort that drops out by itself between advertising and unmasking.

    Raises:
        GraphParameterError: naming the parameter to change.
    """
    require_integer("max_corrupt", max_corrupt, 0, MAX_COHORT)
    require_integer("min_contributors", min_contributors, 1, MAX_COHORT)
    require_integer("cohort", cohort, MIN_COHORT, MAX_COHORT)
    if type(expected_dropout) is not Fraction:
        raise GraphParameterError("expected_dropout", "must be a Fraction")
    if not 0 <= expected_dropout < 1:
        raise GraphParameterError("expected_dropout", f"must be at least 0 and below 1, is {expected_dropout}")
    if min_contributors - max_corrupt < 2:
        reason = (
            f"must exceed max_corrupt by at least 2, or a sum shows one input: raise it to {max_corrupt + 2} "
            "or lower max_corrupt"
        )
        raise GraphParameterError("min_contributors", reason)
    if cohort < min_contributors:
        reason = f"is {cohort}, below min_contributors: wait for {min_contributors} clients or lower the minimum"
        raise GraphParameterError("cohort", reason)
    dropping = math.floor(expected_dropout * cohort)
    return _parameters(_Threat(cohort, max_corrupt, dropping))


@lru_cache(maxsize=256)
def _parameters(threat: _Threat) -> GraphParameters:
    sparse = _sparse_parameters(threat) if threat.cohort > COMPLETE_UP_TO else None
    return sparse or _complete_parameters(threat)


def _complete_parameters(threat: _Threat) -> GraphParameters:
    degree = threat.cohort - 1
    threshold = _smallest_threshold(degree, min(threat.max_corrupt, degree))
    # A client that stays has `degree` neighbours, and all who drop out are among them.
    if degree - threat.dropping < threshold:
        reason = (
            f"{threat.dropping} of {threat.cohort} clients are expected to drop out, but with max_corrupt "
            f"{threat.max_corrupt} not more than {degree - threshold} may, even in the complete graph: lower "
            "expected_dropout or max_corrupt"
        )
        raise GraphParameterError("expected_dropout", reason)
    return GraphParameters(degree, threshold)


def _sparse_parameters(threat: _Threat) -> GraphParameters | None:
    """The smallest even degree below ``cohort - 1`` that meets both conditions, with its threshold.

    No degree is tested that cannot be the answer, and none that can be is passed over. With two neighbours
    more, both tail counts can only grow (their numbers of events do not depend on the degree), so the
    threshold grows by one or more and ``shortage`` falls by one at most: with ``s`` answers too few, the next
    candidate is ``2 * s`` neighbours further.
    """
    degree = _smallest_hopeful_degree(threat)
    while degree <= threat.cohort - 2:
        threshold = _smallest_threshold(degree, _corrupt_in_windows(threat, degree))
        shortage = threshold + _dropped_neighbours(threat, degree) - degree
        if shortage <= 0:
            return GraphParameters(degree, threshold)
        degree += 2 * shortage
    return None


def _smallest_hopeful_degree(threat: _Threat) -> int:
    """The smallest even degree of whose two windows some client is honest, but with the privacy level's probability.

    Below it ``_corrupt_in_windows`` is the degree itself, and no threshold is small enough. Found by bisection, because
    ``C(corrupt, k) / C(cohort, k)`` falls as k grows: with very many corrupt clients the search would pass over
    thousands of degrees one by one, at a cost that whoever publishes the numbers could impose on everybody.
    """
    events = threat.cohort * (threat.cohort - 3) // 2 << threat.privacy_bits

    def is_hopeful(half: int) -> bool:
        corrupt = math.comb(threat.max_corrupt, 2 * half)
        return corrupt * events < math.comb(threat.cohort, 2 * half)

    return 2 * bisect.bisect_left(range(threat.cohort // 2), 1, lo=1, key=lambda half: int(is_hopeful(half)))


def _smallest_threshold(degree: int, corrupt: int) -> int:
    """The smallest t with ``2 t > degree + corrupt``, hence above ``corrupt`` too."""
    return (degree + corrupt) // 2 + 1


def _corrupt_in_windows(threat: _Threat, degree: int) -> int:
    """What the corrupt in a pair of windows do not exceed, but with the privacy level's probability (symbol w).

    There are ``cohort * (cohort - degree - 1) / 2`` pairs. Counting those of degree 2 at any degree keeps the
    count from ever falling as the degree grows.
    """
    pairs = threat.cohort * (threat.cohort - 3) // 2
    return _tail_count(threat.cohort, threat.max_corrupt, degree, pairs, threat.privacy_bits)


def _dropped_neighbours(threat: _Threat, degree: int) -> int:
    """What no client's dropped neighbours exceed, but with the correctness level's probability.

    A client that stays is the worse case: all who drop out are among the others.
    """
    return _tail_count(threat.cohort - 1, threat.dropping, degree, threat.cohort, threat.correctness_bits)


def _tail_count(population: int, marked: int, drawn: int, events: int, bits: int) -> int:
    """The smallest x with ``events * P[X > x] < 2^-bits`` for a hypergeometric X, exactly.

    X counts the marked among ``drawn`` out of ``population``, of which ``marked`` are marked; ``P[X = j] =
    C(marked, j) C(population - marked, drawn - j) / C(population, drawn)``. The tail is summed from the
    top, in units of the denominator.
    """
    unmarked = population - marked
    # events * tail / total < 2^-bits, with everything an integer:
    allowed = (math.comb(population, drawn) - 1) // (events << bits)
    count = min(marked, drawn)
    term = math.comb(marked, count) * math.comb(unmarked, drawn - count)
    tail = 0
    while (tail := tail + term) <= allowed:
        # The quotient of neighbouring terms; both are integers, so the division leaves no rest.
        term = term * count * (unmarked - drawn + count) // ((marked - count + 1) * (drawn - count + 1))
        count -= 1
    return count


def quorum(cohort: int, max_corrupt: int) -> int:
    """How many of a cohort must have confirmed one close entry before anybody answers it.

    Honest clients confirm one close entry, corrupt ones perhaps every one: two entries with a quorum each would
    need ``2 quorum <= cohort + max_corrupt``. So of all forks of a log at most one is ever answered.
    """
    return (cohort + max_corrupt) // 2 + 1
