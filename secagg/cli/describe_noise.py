"""A session's noise, and what it costs, in words and as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dp.charge import epsilon_of
from secagg.cli.output import Rows
from secagg.privacy.session_noise import mechanism_of, signal_ratio
from secagg.transcript.entries import SessionOpen
from secagg.transcript.noise import DistributedNoise, NoDifferentialPrivacy

if TYPE_CHECKING:
    from secagg.spending import Spending

_NAMES = {"skellam": "Skellam", "discrete-gaussian": "discrete Gaussian"}


def noise_value(parameters: SessionOpen) -> dict[str, Any]:
    """The noise for programs; ``mechanism`` is none where there is none."""
    noise = parameters.noise
    if isinstance(noise, NoDifferentialPrivacy):
        return {"mechanism": noise.TYPE}
    honest = parameters.min_contributors - parameters.max_corrupt
    spent = epsilon_of(mechanism_of(parameters).charge(), noise.budget.delta)
    return {
        "mechanism": noise.TYPE,
        "epsilon": spent.epsilon,
        "delta": float(noise.budget.delta),
        "local_sigma": math.sqrt(noise.local_variance) / float(noise.scale),
        "total_sigma": math.sqrt(honest * noise.local_variance) / float(noise.scale),
        "signal_ratio": signal_ratio(parameters),
        "accepted_ratio": float(noise.accepted_ratio),
        "population": noise.budget.population,
        "budget_epsilon": float(noise.budget.epsilon),
        "ledger_event": noise.budget.sequence,
    }


def noise_rows(parameters: SessionOpen) -> Rows:
    """The noise for people."""
    noise = parameters.noise
    if isinstance(noise, NoDifferentialPrivacy):
        return [("noise", "none: the sum is exact, and not differentially private")]
    value = noise_value(parameters)
    return [
        (
            "noise",
            f"{_NAMES[noise.TYPE]}: each contributor adds a share, of deviation {value['local_sigma']:.3g} "
            f"a parameter; up to {parameters.max_corrupt} may leave theirs out\n"
            f"this session costs whoever takes part epsilon {value['epsilon']:.4g} at delta {value['delta']:g}\n"
            f"the sum's noise is {value['signal_ratio']:.3g} times as large as the largest possible signal"
            + (f" (accepted: {value['accepted_ratio']:g})" if value["signal_ratio"] > 1 else ""),
        ),
        ("budget", _budget_words(noise)),
    ]


def _budget_words(noise: DistributedNoise) -> str:
    budget = noise.budget
    return (
        f"{budget.population}: epsilon {float(budget.epsilon):g} at delta {float(budget.delta):g} for all its "
        f"sessions; this one was reserved as event {budget.sequence} of the operator's ledger"
    )


def spending_words(parameters: SessionOpen, spending: Spending | None) -> Rows:
    """What taking part costs a contributor, against its own budget."""
    noise = parameters.noise
    if spending is not None:
        limit, delta = float(spending.allowance.epsilon), float(spending.allowance.delta)
        return [
            (
                "your budget",
                f"this session costs you up to epsilon {spending.session:.4g} at delta {delta:g}; together with "
                f"earlier ones {spending.after:.4g} (before: {spending.before:.4g}) of {limit:g}",
            )
        ]
    if isinstance(noise, NoDifferentialPrivacy):
        return []
    return [("your budget", "none is set: nobody counts what you spend over all sessions ([budget] of client.toml)")]


def spent_words(spending: Spending) -> str:
    """What a session did cost a contributor, now that it is over."""
    limit, delta = float(spending.allowance.epsilon), float(spending.allowance.delta)
    return (
        f"this session cost you epsilon {spending.session:.4g} at delta {delta:g}; together with earlier ones "
        f"{spending.after:.4g} of {limit:g}"
    )


def spending_value(spending: Spending | None) -> dict[str, Any] | None:
    """The same for programs."""
    if spending is None:
        return None
    limit = float(spending.allowance.epsilon)
    return {
        "epsilon": spending.session,
        "delta": float(spending.allowance.delta),
        "spent_before": spending.before,
        "spent": spending.after,
        "budget": limit,
        "left": max(0.0, limit - spending.after),
    }
