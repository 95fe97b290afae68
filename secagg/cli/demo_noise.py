"""The noise of a demo: what is asked for, and whether the sum has as much of it as was announced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from dp.errors import ParameterError
from dp.planner import Demand, PlanError, Relaxation, ways_to_lower_the_ratio
from dp.planner import plan as plan_noise
from secagg.arith.quantiser import clip
from secagg.cli.demo_plan import DemoError, DemoFailedError, DemoPlan, clip_norm_for, max_contributors
from secagg.cli.describe_noise import noise_value
from secagg.cli.output import Rows
from secagg.client import Result
from secagg.derive.result import FloatVector
from secagg.transcript.noise import DistributedNoise

_DEVIATIONS = 8
"""A demo fails for chance alone less often than for anything else."""


@dataclass(frozen=True, slots=True)
class DemoNoise:
    """The noise that was asked for; ``accept_ratio`` is how much larger than the signal it may be."""

    epsilon: Fraction
    delta: Fraction
    accept_ratio: Fraction

    def options(self) -> dict[str, object]:
        """Options of ``secagg session open``."""
        return {"--dp-epsilon": self.epsilon, "--dp-delta": self.delta, "--accept-ratio": self.accept_ratio}

    def policy_lines(self) -> list[str]:
        """What an auditor's policy says of it."""
        numbers = {"epsilon": self.epsilon, "delta": self.delta}
        return [
            'mechanism = "skellam"',
            *(f'{name} = "{value.numerator}/{value.denominator}"' for name, value in numbers.items()),
        ]


def check_accepted(noise: DemoNoise, plan: DemoPlan, vectors: dict[int, FloatVector]) -> None:
    """Refuse the demo before anything runs, if its noise would be larger than was accepted. Raises DemoError."""
    try:
        demand = Demand(
            epsilon=noise.epsilon,
            delta=noise.delta,
            sessions=1,
            min_survivors=plan.min_contributors,
            corrupt=plan.max_corrupt,
            dimension=vectors[1].size,
            clip=clip_norm_for(vectors),
            max_contributors=max_contributors(plan),
        )
        planned = plan_noise(demand)
        ratio = planned.signal_ratio
        ways = ways_to_lower_the_ratio(planned, noise.accept_ratio) if ratio > noise.accept_ratio else ()
    except ParameterError as error:
        raise DemoError(f"--dp-epsilon: {error.reason}") from None
    except PlanError as error:
        raise DemoError(f"--dp-epsilon: {error}{_ways(error.relaxations)}") from None
    if ratio > noise.accept_ratio:
        raise DemoError(
            f"--dp-epsilon: with {plan.min_contributors} contributors of {demand.dimension:,} parameters each the "
            f"noise would be {ratio:.3g} times as large as the largest possible signal, and next to nothing of what "
            f"they learnt would be left{_ways(ways)}; --accept-ratio {math.ceil(ratio)} runs it all the same"
        )


def _ways(relaxations: tuple[Relaxation, ...]) -> str:
    """What of that would do which somebody who runs a demo can picture."""
    words = {
        "min_survivors": "{:,} contributors",
        "epsilon": "--dp-epsilon {:.4g}",
        "dimension": "adapters of {:,} parameters",
    }
    found = [
        words[each.field].format(each.needed if isinstance(each.needed, int) else float(each.needed))
        for each in relaxations
        if each.field in words
    ]
    return f"; it would take {' or '.join(found)}" if found else ""


@dataclass(frozen=True, slots=True)
class NoiseFound:
    """The noise in a sum: its deviation a parameter of the mean, as it should be and as it is, and what it costs."""

    declared: dict[str, Any]
    expected: float
    measured: float
    mean_norm: float
    noise_norm: float

    def value(self) -> dict[str, Any]:
        """For programs."""
        return {
            **self.declared,
            "expected_deviation": self.expected,
            "measured_deviation": self.measured,
            "noise_norm": self.noise_norm,
            "mean_norm": self.mean_norm,
        }

    def rows(self) -> Rows:
        """For people."""
        declared = self.declared
        return [
            ("privacy", f"epsilon {declared['epsilon']:.4g} at delta {declared['delta']:g} for each contributor"),
            (
                "noise",
                f"{declared['signal_ratio']:.3g} times as large as the largest possible signal, "
                f"{self.noise_norm / self.mean_norm:.3g} times as large as the mean itself",
            ),
            ("deviation", f"{self.measured:.4g} a parameter, expected {self.expected:.4g}"),
        ]


def noise_found(result: Result, inputs: dict[int, FloatVector]) -> NoiseFound:
    """Compare a merged mean with the plain mean of the inputs.

    Raises:
        DemoFailedError: the difference is not what the declared noise makes.
    """
    parameters = result.details.session.parameters
    noise = parameters.noise
    if not isinstance(noise, DistributedNoise):
        raise DemoFailedError("the session declares no noise")
    plain = np.mean([clip(vector, parameters.encoding.clip_norm)[0] for vector in inputs.values()], axis=0, dtype=float)
    difference = result.mean.astype(np.float64) - plain
    # Rounding at random adds less than 1/4 to the variance of each contributor's noise.
    most = math.sqrt(result.contributors * (noise.local_variance + Fraction(1, 4)))
    expected = math.sqrt(result.contributors * noise.local_variance)
    step = 1 / (float(noise.scale) * result.contributors)
    measured = float(np.sqrt(np.mean(np.square(difference))))
    slack = _DEVIATIONS * math.sqrt((2 + 1 / float(noise.local_variance)) / difference.size)
    if not expected * step * (1 - slack) <= measured <= most * step * (1 + slack):
        raise DemoFailedError(f"the noise deviates by {measured:.4g} a parameter, expected {expected * step:.4g}")
    return NoiseFound(
        noise_value(parameters),
        expected * step,
        measured,
        float(np.linalg.norm(plain)),
        float(np.linalg.norm(difference)),
    )
