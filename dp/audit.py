"""A lower bound of epsilon from a game that is played: statistics only, from scores to a number.

The game: a vector is in a sum, or zeros are in its place. Whoever sees the sum gives it a score, high where the vector
seems to be there, and this is done many times on both sides. Of an (epsilon, delta) differentially private mechanism,
no rule that guesses a side from the score is right with probability above `e^epsilon` times that of its false alarms,
plus delta. So frequencies that were seen give a number that epsilon cannot be below:

    epsilon >= ln((lower bound of hits - delta) / (upper bound of false alarms))

Both bounds are exact (Clopper and Pearson), and each may fail with half of the probability that is allowed, so both
hold with the stated confidence. The rule (which side is guessed, and from which score on) is chosen on the first
quarter of the trials and counted on the others, so choosing costs no confidence.

What such a bound means: where it exceeds what a mechanism claims, the claim is wrong, or something happened that has
probability below 1 - confidence. What it does not mean: a bound below the claim proves nothing. It speaks of one
vector, one number of contributors and one score; epsilon may be larger elsewhere, and only accounting bounds it from
above. No bound from N trials a side exceeds about ln(N / 5), however little privacy there is. Trials have to be
independent, and those of one side alike. Whoever plays several games and reports the largest bound has less confidence
than each of them states.

Source: Kairouz, Oh, Viswanath 2015 for hits and false alarms; Clopper, Pearson 1934; Jagielski, Ullman, Oprea 2020 for
auditing of this kind.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dp.errors import ParameterError
from dp.parameters import check_fraction, check_integer

MAX_TRIALS: Final = 1 << 22
"""Most trials of one side: enough for a bound of 13, and beyond it logarithms of factorials lose digits."""

CONFIDENCE: Final = Fraction(95, 100)
"""The probability, unless told otherwise, with which both bounds hold."""

# Logarithms of factorials are off by a few 1e-9 at most; this much less is allowed to a tail than was asked for.
_SLACK = 1e-6
# fp64 numbers between 0 and 1 have no more bits than that to find.
_HALVINGS = 64
# One part of so many of the trials chooses the rule. Measured with Gaussian scores: of 4000 trials, a quarter gives
# bounds as large as a half does and larger, and hardly ever a bad rule.
_PARTS = 4


class Guess(enum.StrEnum):
    """Which side a rule guesses."""

    PRESENT = "present"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Rule:
    """Guesses one side where the score is far enough on that side, the threshold included.

    Attributes:
        guess: the side.
        threshold: the score that is just far enough.
    """

    guess: Guess
    threshold: float

    def count(self, scores: NDArray[np.float64]) -> int:
        """For how many of these scores this side is guessed."""
        far = scores >= self.threshold if self.guess is Guess.PRESENT else scores <= self.threshold
        return int(np.count_nonzero(far))


@dataclass(frozen=True, slots=True)
class Frequency:
    """How often something happened.

    Attributes:
        count: in so many trials it did.
        trials: of so many, 1 to `MAX_TRIALS`.

    Raises:
        ParameterError: naming the attribute.
    """

    count: int
    trials: int

    def __post_init__(self) -> None:
        check_integer("trials", self.trials, 1, MAX_TRIALS)
        check_integer("count", self.count, 0, self.trials)

    def most(self, failure: float) -> float:
        """An upper bound of the probability: it is too low with probability at most `failure`.

        Source: Clopper, Pearson 1934: where so few or fewer have probability `failure`.
        """
        if self.count == self.trials:
            return 1.0
        chosen = np.arange(self.count + 1, dtype=np.float64)
        left = self.trials - chosen
        ways = math.lgamma(self.trials + 1) - _log_factorials(chosen) - _log_factorials(left)
        allowed = failure * (1 - _SLACK)
        low, high = self.count / self.trials, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if not low < middle < high:
                break
            tail = float(np.exp(ways + chosen * math.log(middle) + left * math.log1p(-middle)).sum())
            low, high = (middle, high) if tail > allowed else (low, middle)
        return high

    def least(self, failure: float) -> float:
        """A lower bound of the probability: it is too high with probability at most `failure`."""
        return 1.0 - Frequency(self.trials - self.count, self.trials).most(failure)


def _log_factorials(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([math.lgamma(number + 1) for number in numbers.tolist()])


@dataclass(frozen=True, slots=True)
class LowerBound:
    """What a game shows.

    Attributes:
        epsilon: at `delta`, epsilon is at least this with probability `confidence`; 0 where nothing was found.
        delta: of the claim.
        confidence: with which both bounds hold.
        rule: by which was guessed.
        hits: how often it guessed rightly, where its side was the true one.
        false_alarms: how often it guessed the same where the other side was the true one.
    """

    epsilon: float
    delta: Fraction
    confidence: Fraction
    rule: Rule
    hits: Frequency
    false_alarms: Frequency


def epsilon_lower_bound(
    present: NDArray[np.float64], absent: NDArray[np.float64], delta: Fraction, confidence: Fraction = CONFIDENCE
) -> LowerBound:
    """The lower bound of epsilon that scores of a game give.

    Args:
        present: float64[n], n at least 4: scores of independent trials with the vector in the sum, in any fixed order.
        absent: float64[m], m at least 4: scores of trials with zeros in its place.
        delta: of the claim, at least 0 and below 1.
        confidence: with which the bound holds, above 0 and below 1.

    Raises:
        ParameterError: naming the argument.
    """
    _check_scores("present", present)
    _check_scores("absent", absent)
    check_fraction("delta", delta)
    check_fraction("confidence", confidence)
    if delta >= 1:
        raise ParameterError("delta", "must be below 1")
    if not 0 < confidence < 1:
        raise ParameterError("confidence", "must be between 0 and 1")
    failure = float((1 - confidence) / 2)
    (choosing, counted), (choosing_away, counted_away) = _parts(present), _parts(absent)
    rule = _best_rule(choosing, choosing_away, float(delta), failure)
    there, away = (Frequency(rule.count(part), part.size) for part in (counted, counted_away))
    hits, false_alarms = (there, away) if rule.guess is Guess.PRESENT else (away, there)
    gain = hits.least(failure) - float(delta)
    epsilon = math.log(gain / false_alarms.most(failure)) if gain > 0 else 0.0
    return LowerBound(max(epsilon, 0.0), delta, confidence, rule, hits, false_alarms)


def _check_scores(field: str, scores: NDArray[np.float64]) -> None:
    if not isinstance(scores, np.ndarray) or scores.dtype != np.float64 or scores.ndim != 1:
        raise ParameterError(field, "must be float64[n]")
    check_integer(field, scores.size, _PARTS, MAX_TRIALS)
    if not np.isfinite(scores).all():
        raise ParameterError(field, "must be finite")


def _parts(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The trials that the rule is chosen on, and those that it is counted on."""
    first = scores.size // _PARTS
    return scores[:first], scores[first:]


def _best_rule(present: NDArray[np.float64], absent: NDArray[np.float64], delta: float, failure: float) -> Rule:
    """The rule that promises most: by approximate bounds, since any rule is a valid one."""
    best, chosen = -math.inf, Rule(Guess.PRESENT, 0.0)
    # Absence is guessed from scores with the other sign.
    for guess, right, wrong in ((Guess.PRESENT, present, absent), (Guess.ABSENT, -absent, -present)):
        right, wrong = np.sort(right), np.sort(wrong)  # noqa: PLW2901 - the same scores in order
        thresholds = np.unique(np.concatenate((right, wrong)))
        hits = right.size - np.searchsorted(right, thresholds)
        false_alarms = wrong.size - np.searchsorted(wrong, thresholds)
        gain = _wilson(hits, right.size, -failure) - delta
        ratio = np.where(gain > 0, gain, 0.0) / _wilson(false_alarms, wrong.size, failure)
        index = int(np.argmax(ratio))
        if ratio[index] > best:
            best, threshold = float(ratio[index]), float(thresholds[index])
            chosen = Rule(guess, threshold if guess is Guess.PRESENT else -threshold)
    return chosen


def _wilson(counts: NDArray[np.int64], trials: int, failure: float) -> NDArray[np.float64]:
    """Wilson's score bound of probabilities: the lower one where `failure` is negative."""
    deviations = math.copysign(NormalDist().inv_cdf(1 - abs(failure)), failure)
    square = deviations**2
    spread = np.sqrt(counts * (1 - counts / trials) + square / 4)
    bounds: NDArray[np.float64] = (counts + square / 2 + deviations * spread) / (trials + square)
    return bounds
