"""The game of `benchmarks.privacy_audit` against what sessions claim, and `dp.audit` against laws that are known.

Everything follows from fixed seeds. The session claims epsilon 2 at delta 1/100 for 12 contributors, 8 of them corrupt;
the exact epsilon of the two sums that are played is 1.64, so what is below the claim is below it for a reason.
Dimensions are small: the audit is about what contributors' code does to one vector, not about speed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from benchmarks.privacy_audit import ABSENT, PRESENT, Among, Game, Promise, audit, best_epsilon, game_of, play, scores
from dp.audit import Frequency, Guess, Rule, epsilon_lower_bound
from dp.demand import MechanismKind
from dp.errors import ParameterError
from secagg.arith.quantiser import Clip, Quantiser
from secagg.crypto.secret import Secret
from secagg.privacy import noise_share
from secagg.protocol.phases import Phase
from secagg.runtime import vectors
from secagg.transcript.encoding import Encoding, NoFlattening
from simulations.world.noise import with_noise
from tests.support.cohort import key_of, one_hot, open_cohort, run_session, session_of

DELTA = Fraction(1, 100)
PROMISE = Promise(Fraction(2), DELTA, contributors=12, corrupt=8)
SMALL = Promise(Fraction(2), DELTA, contributors=3, corrupt=1)
TRIALS = 4000
# With Gaussian scores, 98 of 100 seeds give bounds between 0.7 and 1.5 as claimed, and above 2.2 with half the noise.
MARGIN = 0.2


def everybody(game: Game) -> Among:
    """The honest ones with their noise, and as many without as the claim allows for."""
    return Among(tuple(range(game.honest)), tuple(range(game.honest, game.parameters.min_contributors)))


def audited(game: Game, trials: int, seed: str = "test") -> float:
    return audit(play(game, trials, seed), everybody(game), DELTA).epsilon


def spread(dimension: int, norm: float = 1.0) -> np.ndarray:
    """A vector of this norm, the same everywhere; one of norm 1 is not lengthened by fp32 rounding."""
    value = np.float32(norm / math.sqrt(dimension))
    return np.full(dimension, np.nextafter(value, np.float32(0)), dtype=np.float32)


# What a session claims, and what it does.


def test_the_game_stays_below_the_claim_until_more_leave_their_noise_out_than_may():
    game = game_of(one_hot(4, 0), PROMISE)
    claim = game.claim(DELTA)
    assert claim == pytest.approx(2, abs=1e-3)
    played = play(game, TRIALS, "honest")
    honest, corrupt = tuple(range(4)), tuple(range(4, 12))
    as_claimed = audit(played, Among(honest, corrupt), DELTA)
    # It finds something, too: a game that is played badly would always stay below.
    assert claim / 3 < as_claimed.epsilon < claim - 3 * MARGIN
    assert as_claimed.epsilon < best_epsilon(game, 4, DELTA) < claim
    three_more = audit(played, Among(honest[:1], honest[1:] + corrupt), DELTA)
    assert three_more.epsilon > claim + MARGIN
    # The same is left to hide behind if a sum is opened over three fewer than min_contributors: so nobody does.
    opened_too_early = audit(played, Among(honest[:1], corrupt), DELTA)
    assert opened_too_early.epsilon > claim + MARGIN


def test_the_game_exceeds_the_claim_when_the_deviation_of_the_noise_is_halved():
    game = game_of(one_hot(4, 0), PROMISE)
    assert audited(game.weakened(Fraction(1, 4)), TRIALS, "halved") > game.claim(DELTA) + MARGIN


@pytest.mark.long
def test_many_trials_come_closer_and_find_half_the_variance():
    game = game_of(one_hot(4, 0), PROMISE)
    claim = game.claim(DELTA)
    played = play(game, 10 * TRIALS, "many")
    honest, corrupt = tuple(range(4)), tuple(range(4, 12))
    assert claim / 2 < audit(played, Among(honest, corrupt), DELTA).epsilon < best_epsilon(game, 4, DELTA)
    assert audit(played, Among(honest[:2], honest[2:] + corrupt), DELTA).epsilon > claim + MARGIN / 2
    assert audited(game.weakened(Fraction(1, 2)), 10 * TRIALS, "many, thin") > claim + MARGIN / 2


TARGETS = {
    "all on the first of two": one_hot(2, 0),
    "all on the last of seven": -one_hot(7, 6),
    "sixteen alike": spread(16),
    "rounded at random in every coordinate": spread(7),
    "far too long": 1000 * spread(5),
}


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_the_vector_the_game_stays_below_the_claim(name):
    game = game_of(TARGETS[name], SMALL)
    assert 0.2 < audited(game, TRIALS // 4) < game.claim(DELTA) - 3 * MARGIN


def test_discrete_gaussian_noise_stays_below_its_claim_and_exceeds_it_when_halved():
    game = game_of(one_hot(2, 1), dataclasses.replace(SMALL, mechanism=MechanismKind.DISCRETE_GAUSSIAN))
    claim = game.claim(DELTA)
    assert 0.2 < audited(game, TRIALS // 4) < claim - 3 * MARGIN
    assert audited(game.weakened(Fraction(1, 4)), TRIALS) > claim + MARGIN


# What the game notices, and what the checks hold.


class _NoNoise(noise_share.NoiseSampler):
    def add_into(self, values):
        pass


class _FirstForgotten(noise_share.NoiseSampler):
    def add_into(self, values):
        super().add_into(values[1:])


def _patch(module: object, name: str, value: object) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(module, name, value)


def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_share, "round_within", lambda draw, _: (draw(), 0))


def _unclipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "Clip", type("Unclipped", (Clip,), {"of": classmethod(lambda cls, *_: Clip(None))}))


def _finer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many steps to the unit as the session says."""
    true = Encoding.quantiser
    monkeypatch.setattr(Encoding, "quantiser", lambda *of: Quantiser(true(*of).value_bits, true(*of).bound / 2))


BROKEN = {
    "no noise": (_patch(noise_share, "NoiseSampler", _NoNoise),),
    "the same noise for everybody, every time": (_patch(noise_share, "derive", lambda *_: Secret(bytes(32))),),
    "noise from the second coordinate on": (_patch(noise_share, "NoiseSampler", _FirstForgotten),),
    "neither clipped nor checked": (_unclipped, _unchecked),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_game_notices_contributors_that_are_broken(monkeypatch, name):
    long = "clipped" in name
    game = game_of(1000 * spread(16) if long else one_hot(16, 0), SMALL)
    for change in BROKEN[name]:
        change(monkeypatch)
    assert audited(game, TRIALS // 8) > game.claim(DELTA) + MARGIN


def test_the_game_notices_a_finer_grid_that_nobody_checks(monkeypatch):
    game = game_of(spread(4), SMALL)
    _finer(monkeypatch)
    _unchecked(monkeypatch)
    assert audited(game, TRIALS) > game.claim(DELTA) + MARGIN


@pytest.mark.parametrize("change", [_unclipped, _finer])
def test_the_check_of_the_norm_alone_holds_when_vectors_get_too_long(monkeypatch, change):
    """A vector that never keeps the bound counts as zeros, so there is nothing to find."""
    target = 1000 * spread(16) if change is _unclipped else spread(4)
    game = game_of(target, SMALL)
    change(monkeypatch)
    assert audited(game, TRIALS // 32) < game.claim(DELTA) / 2


# Why masks may be left out.


def test_a_whole_session_with_masks_opens_the_very_sum_that_the_game_is_played_with():
    """Seven contributors, of whom one falls silent before it uploads: exactly min_contributors are in the sum."""
    identities = [key_of(f"client {number}") for number in range(7)]
    encoding = Encoding(4, 15, 7, 64, Fraction(1), NoFlattening())
    session = session_of(identities, min_contributors=6, encoding=encoding)
    parameters = with_noise(session.parameters, Fraction(2), delta=DELTA)
    session = dataclasses.replace(session, parameters=parameters)

    async def run():
        cohort = await open_cohort(session, identities, lambda number: one_hot(4, number % 4))
        await run_session(cohort, {3: Phase.MASKED_INPUT})
        return cohort

    cohort = asyncio.run(run())
    layout, total = parameters.encoding.field_layout(), np.zeros(parameters.encoding.field_layout().lanes, np.uint64)
    survivors = [one for number, one in enumerate(cohort.clients) if number != 3]
    for one in survivors:
        lanes, _ = vectors.encode(parameters.encoding, parameters.noise, one.vector, one.masks.rounding)
        assert one.upload != bytes(vectors.as_bytes(lanes))
        total += lanes
    assert np.array_equal(cohort.integer_sum(), layout.unpack_sum(total, 6))


def test_a_trial_is_the_same_for_the_same_seed_only():
    game = game_of(one_hot(2, 0), SMALL)
    first, again, other = (scores(play(game, 20, seed), PRESENT, everybody(game)) for seed in ("a", "a", "b"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_both_sides_of_a_trial_have_their_own_noise():
    played = play(game_of(one_hot(2, 0), SMALL), 20, "a")
    assert not np.intersect1d(played.lanes[PRESENT], played.lanes[ABSENT]).size


# The statistics.


@pytest.mark.parametrize(
    ("count", "trials"), [(0, 1), (1, 1), (0, 2000), (7, 2000), (1000, 2000), (2000, 2000), (3, 10)]
)
@pytest.mark.parametrize("failure", [0.025, 0.5, 1e-6])
def test_bounds_are_those_of_clopper_and_pearson(count, trials, failure):
    most = 1.0 if count == trials else stats.beta.ppf(1 - failure, count + 1, trials - count)
    least = 0.0 if count == 0 else stats.beta.ppf(failure, count, trials - count + 1)
    frequency = Frequency(count, trials)
    assert frequency.most(failure) == pytest.approx(most, rel=1e-5)
    assert frequency.least(failure) == pytest.approx(least, rel=1e-5, abs=1e-9)
    # What rounding leaves is on the safe side.
    assert stats.binom.cdf(count, trials, frequency.most(failure)) <= failure or count == trials
    assert stats.binom.sf(count - 1, trials, frequency.least(failure)) <= failure or count == 0


def test_bounds_of_millions_of_trials_are_right_too():
    expected = stats.beta.ppf(0.975, 60_001, 1_940_000)
    assert Frequency(60_000, 2_000_000).most(0.025) == pytest.approx(expected, rel=1e-8)


def gaussian_epsilon(shift: float, delta: float) -> float:
    low, high = 0.0, 50.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        at, law = middle / shift, stats.norm
        excess = law.cdf(shift / 2 - at) - math.exp(middle) * law.cdf(-shift / 2 - at)
        low, high = (middle, high) if excess > delta else (low, middle)
    return high


def test_the_bound_fails_no_oftener_than_it_may_and_comes_close_to_a_known_epsilon():
    exact, generator = gaussian_epsilon(1.0, 0.01), np.random.default_rng(1)
    bounds = [
        epsilon_lower_bound(generator.normal(1, 1, 4000), generator.normal(0, 1, 4000), DELTA).epsilon
        for _ in range(300)
    ]
    # 95 % is for both bounds together, each for itself; 15 of 300 would be allowed.
    assert sum(bound > exact for bound in bounds) <= 15
    assert np.median(bounds) > exact / 2
    many = epsilon_lower_bound(generator.normal(1, 1, 400_000), generator.normal(0, 1, 400_000), DELTA)
    assert 0.9 * exact < many.epsilon < exact


def test_scores_of_one_law_show_nothing():
    generator = np.random.default_rng(2)
    bounds = [
        epsilon_lower_bound(generator.normal(0, 1, 500), generator.normal(0, 1, 500), Fraction(0)).epsilon
        for _ in range(300)
    ]
    assert sum(bound > 0 for bound in bounds) <= 15


def test_randomised_response_is_found():
    """Whoever has the secret says yes with 3/4, whoever has not with 1/4: epsilon is ln 3 at delta 0."""
    generator = np.random.default_rng(3)
    yes, no = (np.where(generator.random(200_000) < p, 1.0, 0.0) for p in (3 / 4, 1 / 4))
    assert 1.05 < epsilon_lower_bound(yes, no, Fraction(0)).epsilon < math.log(3)


def test_a_leak_that_shows_only_when_the_vector_is_absent_is_found():
    generator = np.random.default_rng(4)
    present = generator.normal(0, 1, 10_000)
    absent = np.where(generator.random(10_000) < 0.1, -50.0, generator.normal(0, 1, 10_000))
    found = epsilon_lower_bound(present, absent, Fraction(1, 1000))
    assert found.rule.guess is Guess.ABSENT
    assert found.epsilon > 4
    # Whatever has probability delta may happen.
    assert epsilon_lower_bound(present, absent, Fraction(1, 5)).epsilon < 0.1


def test_no_bound_is_found_on_the_trials_that_chose_the_rule():
    """A score that separates the first quarters only."""
    separated = np.concatenate((np.full(250, 9.0), np.zeros(750)))
    found = epsilon_lower_bound(separated, np.zeros(1000), Fraction(0))
    assert found.rule == Rule(Guess.PRESENT, 9.0)
    assert (found.epsilon, found.hits, found.false_alarms) == (0, Frequency(0, 750), Frequency(0, 750))


def test_certainty_gives_no_more_than_trials_can_show():
    found = epsilon_lower_bound(np.ones(2000), np.zeros(2000), Fraction(0))
    assert found.epsilon == pytest.approx(math.log(2000 / 4.92), abs=0.01)


GOOD = np.zeros(10)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("present", {"present": np.zeros(10, dtype=np.int64)}),
        ("present", {"present": np.zeros((5, 2))}),
        ("absent", {"absent": np.zeros(3)}),
        ("absent", {"absent": np.full(10, math.nan)}),
        ("absent", {"absent": np.full(10, -math.inf)}),
        ("delta", {"delta": Fraction(1)}),
        ("delta", {"delta": Fraction(-1)}),
        ("delta", {"delta": 0.01}),
        ("confidence", {"confidence": Fraction(1)}),
        ("confidence", {"confidence": Fraction(0)}),
    ],
)
def test_what_is_no_game_is_refused_by_name(field, change):
    with pytest.raises(ParameterError) as caught:
        epsilon_lower_bound(**{"present": GOOD, "absent": GOOD, "delta": DELTA} | change)
    assert caught.value.field == field


@pytest.mark.parametrize(("count", "trials"), [(-1, 5), (6, 5), (0, 0), (0, 2**22 + 1)])
def test_what_is_no_frequency_is_refused(count, trials):
    with pytest.raises(ParameterError):
        Frequency(count, trials)
