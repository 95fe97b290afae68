"""Plays a game against a session's claim: `python -m benchmarks.privacy_audit --json OUT` (`-`: standard output).

A target's vector, as long as clipping allows, is in the sum, or zeros are in its place; its noise is in either way. The
adversary knows everybody else's vector and sees the integer sum. Each trial runs the contributors' own code, from the
vector to the lanes, adds lanes mod 2^64 and unpacks the sum. Masks are left out: they cancel, and
`tests/adversaries/test_privacy_audit.py` shows on a whole session that the sum is the same. `dp.audit` says what the
bound means, and what not.

Randomness follows from `--seed`, so a run can be repeated. `best_epsilon` is what no number of trials could exceed: the
exact epsilon of these two sums.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from dp.audit import CONFIDENCE, LowerBound, epsilon_lower_bound
from dp.charge import epsilon_of
from dp.demand import MechanismKind
from dp.weights import noise_weights
from secagg.crypto.secret import Secret
from secagg.privacy.session_noise import check_noise, kind_of, mechanism_of, table_of
from secagg.runtime import vectors
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import PairwiseOpen
from secagg.transcript.noise import DistributedNoise
from simulations.world.noise import with_noise
from tests.support.cohort import key_of, one_hot, session_of

Report = dict[str, object]
PRESENT, ABSENT = "present", "absent"
TARGET = 0


@dataclass(frozen=True)
class Game:
    """A session, what its contributors have, and what noise their software adds: that of the session, unless weakened.

    Contributor 0 is the target. The others' vectors are known, and multiples of the grid, so that they are not rounded.
    """

    parameters: PairwiseOpen
    noise: DistributedNoise
    target: np.ndarray

    @property
    def honest(self) -> int:
        """So many contributors add noise if up to `max_corrupt` leave it out and as few as may be are in the sum."""
        return self.parameters.min_contributors - self.parameters.max_corrupt

    def vector(self, contributor: int, side: str) -> np.ndarray:
        if contributor == TARGET:
            return self.target if side is PRESENT else np.zeros_like(self.target)
        return one_hot(self.target.size, contributor % self.target.size) / np.float32(2)

    def on_grid(self, contributor: int) -> np.ndarray:
        """What the contributor's vector is after clipping and rounding, int64[d], as far as it can be known."""
        vector, clip_norm = self.vector(contributor, PRESENT).astype(np.float64), self.parameters.encoding.clip_norm
        shorter = min(1.0, float(clip_norm) / float(np.linalg.norm(vector)))
        return np.rint(vector * shorter * float(self.parameters.noise.scale)).astype(np.int64)

    def claim(self, delta: Fraction) -> float:
        """The epsilon that a session promises before it is known how many come."""
        return epsilon_of(mechanism_of(self.parameters).charge(), delta).epsilon

    def law(self, noisy: int) -> np.ndarray:
        """That of the noise of so many contributors together, as `log_law` gives it."""
        return log_law(kind_of(self.noise), self.noise.local_variance * noisy)

    def weakened(self, share: Fraction) -> "Game":
        """The same session with software that draws from a table of this share of the variance."""
        thinner = dataclasses.replace(self.noise, local_variance=share * self.noise.local_variance)
        return dataclasses.replace(self, noise=dataclasses.replace(thinner, table=table_of(thinner).digest))


@dataclass(frozen=True)
class Among:
    """Whose vectors are in the sum: with noise (the target is one of them), and of those who left it out."""

    noisy: tuple[int, ...]
    silent: tuple[int, ...]


@dataclass(frozen=True)
class Played:
    """What honest contributors uploaded, before masks: uint64[trials, honest, lanes] on each side."""

    game: Game
    lanes: dict[str, np.ndarray]


@dataclass(frozen=True)
class Promise:
    """What a session is planned for: epsilon at delta for so many contributors, of whom so many may be corrupt."""

    epsilon: Fraction
    delta: Fraction
    contributors: int
    corrupt: int
    mechanism: MechanismKind = MechanismKind.SKELLAM


def game_of(target: np.ndarray, promise: Promise) -> Game:
    """A session that keeps the promise, as far as contributors check it before they take part."""
    contributors = promise.contributors
    identities = [key_of(f"client {number}") for number in range(contributors)]
    encoding = Encoding(target.size, 15, contributors, 64, Fraction(1), NoFlattening())
    plain = session_of(identities, min_contributors=contributors, max_corrupt=promise.corrupt, encoding=encoding)
    parameters = with_noise(plain.parameters, promise.epsilon, delta=promise.delta, mechanism=promise.mechanism)
    check_noise(parameters)
    return Game(parameters, parameters.noise, target)


def play(game: Game, trials: int, seed: str) -> Played:
    """Encode every honest contributor's vector, for each trial and side anew: 0.15 ms each."""
    encoding = game.parameters.encoding
    shape = trials, game.honest, encoding.field_layout().lanes
    lanes = {side: np.empty(shape, dtype=np.uint64) for side in (PRESENT, ABSENT)}
    for side, uploads in lanes.items():
        own = [game.vector(contributor, side) for contributor in range(game.honest)]
        for trial in range(trials):
            for contributor, vector in enumerate(own):
                name = f"{seed}/{side}/{trial}/{contributor}".encode()
                secret = Secret(hashlib.sha256(name).digest())
                uploads[trial, contributor], _ = vectors.encode(encoding, game.noise, vector, secret)
    return Played(game, lanes)


def differences(played: Played, side: str, among: Among) -> np.ndarray:
    """What the adversary is left with: the decoded sums less what is known of the others, int64[trials, d]."""
    game = played.game
    layout = game.parameters.encoding.field_layout()
    total = played.lanes[side][:, among.noisy].sum(axis=1, dtype=np.uint64)
    for contributor in among.silent:
        total += layout.pack(game.on_grid(contributor))
    contributors = len(among.noisy) + len(among.silent)
    sums = np.array([layout.unpack_sum(each, contributors) for each in total])
    others = [each for each in (*among.noisy, *among.silent) if each != TARGET]
    return sums - sum((game.on_grid(each) for each in others), np.zeros(layout.dimension, dtype=np.int64))


@lru_cache(maxsize=16)
def log_law(kind: MechanismKind, variance: Fraction) -> np.ndarray:
    """Logarithms of the probabilities of 0, 1, .., K under noise of this variance."""
    return np.array([math.log(weight) for weight in noise_weights(kind, variance).half]) - 128 * math.log(2)


def log_probability(values: np.ndarray, law: np.ndarray) -> np.ndarray:
    """The same at any integers; beyond K, where probabilities are below 2^-128, that of K."""
    return law[np.minimum(np.abs(values), law.size - 1)]


def scores(played: Played, side: str, among: Among) -> np.ndarray:
    """The logarithm of how much likelier a sum is with the target's vector than with zeros: the best score there is.

    Sums of Skellam noise have a known law, and those of discrete Gaussians are very close to one. Where the target's
    own vector is rounded at random, it is taken at its nearest integers, which is close to the best score.
    """
    game = played.game
    law = game.law(len(among.noisy))
    left = differences(played, side, among)
    likelier = log_probability(left - game.on_grid(TARGET), law) - log_probability(left, law)
    return likelier.sum(axis=1)


def audit(played: Played, among: Among, delta: Fraction, confidence: Fraction = CONFIDENCE) -> LowerBound:
    """The lower bound that these trials give if those are in the sum."""
    there, away = (scores(played, side, among) for side in (PRESENT, ABSENT))
    return epsilon_lower_bound(there, away, delta, confidence)


def best_epsilon(game: Game, noisy: int, delta: Fraction) -> float | None:
    """The exact epsilon of the two sums, for a target with one coordinate; else None.

    Smallest epsilon at which `sum_k max(0, p(k - x) - e^epsilon p(k))` is at most delta.
    """
    shift = game.on_grid(TARGET)
    if np.count_nonzero(shift) != 1:
        return None
    law = game.law(noisy)
    points = np.arange(-law.size, law.size + 1)
    away = np.exp(log_probability(points, law))
    there = np.exp(log_probability(points - int(np.abs(shift).max()), law))
    low, high = 0.0, 64.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        beyond = float(np.maximum(there - math.exp(middle) * away, 0).sum())
        low, high = (middle, high) if beyond > delta else (low, middle)
    return high


def finding(name: str, played: Played, among: Among, options: argparse.Namespace) -> Report:
    """One row of the report."""
    found = audit(played, among, options.delta)
    claim = played.game.claim(options.delta)
    best = best_epsilon(played.game, len(among.noisy), options.delta)
    return {
        "who_and_what": name,
        "contributors_with_noise": len(among.noisy),
        "contributors_without_noise": len(among.silent),
        "variance_of_the_noise_against_the_plan": float(
            played.game.noise.local_variance
            * len(among.noisy)
            / (played.game.parameters.noise.local_variance * played.game.honest)
        ),
        "claimed_epsilon": round(claim, 4),
        "audited_lower_bound": round(found.epsilon, 4),
        "exceeds_the_claim": found.epsilon > claim,
        "best_epsilon": None if best is None else round(best, 4),
        "guessed": f"{found.rule.guess} at {found.rule.threshold:.4f}",
        "hits": f"{found.hits.count} of {found.hits.trials}",
        "false_alarms": f"{found.false_alarms.count} of {found.false_alarms.trials}",
    }


def run(options: argparse.Namespace) -> list[Report]:
    """The session as it is, with contributors who leave their noise out, and with half the noise."""
    corrupt, honest = options.corrupt, options.contributors - options.corrupt
    promise = Promise(options.epsilon, options.delta, options.contributors, corrupt, MechanismKind(options.mechanism))
    game = game_of(one_hot(options.dimension, 0), promise)
    played = play(game, options.trials, f"{options.seed}/honest")
    everybody, corrupted = tuple(range(honest)), tuple(range(honest, options.contributors))
    as_claimed = Among(everybody, corrupted)
    rows = [finding("as claimed: max_corrupt leave their noise out", played, as_claimed, options)]
    for few in range(honest - 1, 0, -1):
        among = Among(everybody[:few], everybody[few:] + corrupted)
        rows.append(finding(f"{honest - few} more than max_corrupt leave their noise out", played, among, options))
    among = Among(everybody[:1], corrupted)
    rows.append(finding(f"opened over {honest - 1} fewer than min_contributors", played, among, options))
    halved = play(game.weakened(Fraction(1, 4)), options.trials, f"{options.seed}/halved")
    rows.append(finding("standard deviation of all noise halved", halved, as_claimed, options))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Plays all games and writes one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="-", metavar="OUT", help="file to write, or - for standard output")
    parser.add_argument("--trials", type=int, default=20_000, help="of each side; a quarter of them choose the rule")
    parser.add_argument("--epsilon", type=Fraction, default=Fraction(2), help="what the session is planned for")
    parser.add_argument("--delta", type=Fraction, default=Fraction(1, 100), help="at this delta")
    parser.add_argument("--contributors", type=int, default=12, help="in the sum: min_contributors")
    parser.add_argument("--corrupt", type=int, default=8, help="of them max_corrupt, who leave their noise out")
    parser.add_argument("--dimension", type=int, default=4, help="coordinates; the target has all its norm on one")
    parser.add_argument(
        "--mechanism", choices=[kind.value for kind in MechanismKind], default="skellam", help="the noise"
    )
    parser.add_argument("--seed", default="1", help="another one gives other randomness")
    options = parser.parse_args(arguments)
    started = time.process_time()
    rows = run(options)
    report: Report = {
        "machine": {
            "processor": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "parameters": {k: str(v) for k, v in vars(options).items() if k != "json"},
        "confidence": float(CONFIDENCE),
        "trials_of_each_side": options.trials,
        "audits": rows,
        "cpu_s": round(time.process_time() - started, 1),
    }
    text = json.dumps(report, indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        Path(options.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
