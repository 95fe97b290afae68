"""The two epsilons in words: what is protected, in what unit, against whom. They are different and never added."""

import math
import textwrap
from fractions import Fraction
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from private_adapters.service import Outcome, Terms
from private_adapters.training import ORDERS, Settings, Spent

from dp.charge import epsilon_of
from secagg.arith.quantiser import clip
from secagg.privacy.session_noise import mechanism_of
from secagg.transcript.noise import SkellamNoise

NEVER_ADDED = (
    "The two epsilons are about different things, one window of text and one whole contributor, against different "
    "people. Their sum means nothing."
)


def example_level(settings: Settings, spent: list[Spent]) -> dict[str, Any]:
    """What DP-SGD promises of one example in one contributor's adapter."""
    worst = max(spent, key=lambda each: each.epsilon)
    return {
        "epsilon": worst.epsilon,
        "delta": float(settings.example_delta),
        "unit": f"one example: a window of {settings.context + 1} bytes in the text of one contributor",
        "neighbours": "texts of one contributor of which one has one example more; what stands in several examples is "
        "protected less, the more there are",
        "adversary": "anybody who sees that contributor's adapter itself, and so anybody who sees the sum; it may know "
        "every other example, but not the state of the generator that the noise came from",
        "mechanism": "DP-SGD (Abadi et al. 2016): Poisson sampling, gradients clipped one by one, Gaussian noise",
        "noise_multiplier": settings.noise_multiplier,
        "max_gradient_norm": settings.max_gradient_norm,
        "sampling_rate": settings.batch / settings.examples,
        "steps": settings.steps,
        "examples_per_contributor": settings.examples,
        "accountant": f"Opacus {version('opacus')}, RDP at integer orders {ORDERS[0]} to {ORDERS[-1]}",
        "best_order": worst.order,
        "randomness": "torch's Mersenne twister, seeded by the system: not a cryptographic generator, and of at most "
        "2^32 starting states; Opacus' secure_mode needs torchcsprng, which cannot be installed today",
    }


def client_level(outcome: Outcome, terms: Terms, plain: npt.NDArray[np.float64]) -> dict[str, Any]:
    """What the noise of the session promises of one contributor; ``plain`` is the mean of the clipped vectors."""
    result, noise = outcome.result, outcome.described["noise"]
    parameters = result.details.session.parameters
    declared = parameters.noise
    if not isinstance(declared, SkellamNoise):
        raise TypeError("the session has no Skellam noise")
    honest = terms.min_contributors - terms.max_corrupt
    deviation = math.sqrt(declared.local_variance / result.contributors) / float(declared.scale)
    found = epsilon_of(mechanism_of(parameters, result.contributors).charge(), Fraction(terms.delta))
    difference = result.mean.astype(np.float64) - plain
    return {
        "epsilon": noise["epsilon"],
        "delta": noise["delta"],
        "unit": "one contributor: all that it contributed to the session, its whole text included",
        "neighbours": "cohorts of which one has zeros in place of one contributor's adapter; who took part is public",
        "adversary": f"whoever sees the published sum, the coordinator and up to {terms.max_corrupt} contributors who "
        f"collude with it included, as long as {honest} others add their noise",
        "mechanism": "Skellam, a share from every contributor before masking; nobody sees the sum without",
        "epsilon_of_this_sum": found.epsilon,
        "contributions": result.contributors,
        "min_contributors": terms.min_contributors,
        "max_corrupt": terms.max_corrupt,
        "dimension": result.mean.size,
        "clip_norm": float(terms.clip_norm),
        "clip_norm_from": "an adapter trained in the same way on text of the operator's, rounded up to a tenth",
        "norms": {"smallest": min(outcome.norms), "largest": max(outcome.norms)},
        "clipped": sum(norm > terms.clip_norm for norm in outcome.norms),
        "noise_to_largest_signal": noise["signal_ratio"],
        "expected_deviation": deviation,
        "measured_deviation": float(np.sqrt(np.mean(np.square(difference)))),
        "noise_norm": float(np.linalg.norm(difference)),
        "mean_norm": float(np.linalg.norm(plain)),
        "randomness": "AES-256 keystreams under keys of the system's generator, one for each contributor",
    }


def clipped_mean(vectors: npt.NDArray[np.float32], clip_norm: Fraction) -> npt.NDArray[np.float64]:
    """What the sum would be without noise: vectors, (contributors, dimension), scaled down to the clip norm."""
    return np.mean([clip(vector, clip_norm)[0] for vector in vectors], axis=0, dtype=np.float64)


def in_words(example: dict[str, Any], client: dict[str, Any]) -> str:
    """Both, for people."""
    paragraphs = [
        f"Example-level: epsilon {example['epsilon']:.2f} at delta {example['delta']:g}, from DP-SGD, for "
        f"{example['unit']}. Against {example['adversary']}. The noise comes from {example['randomness']}.",
        f"Client-level: epsilon {client['epsilon']:.2f} at delta {client['delta']:g}, from the noise of the session, "
        f"for {client['unit']}. Against {client['adversary']}. With the {client['contributions']} who came it is "
        f"{client['epsilon_of_this_sum']:.2f}. The noise deviates by {client['measured_deviation']:.4f} a parameter "
        f"(expected {client['expected_deviation']:.4f}) and is {client['noise_norm'] / client['mean_norm']:.2f} times "
        f"as long as the mean itself.",
        NEVER_ADDED,
    ]
    return "\n\n".join(textwrap.fill(paragraph, 100) for paragraph in paragraphs)


def caption(example: dict[str, Any], client: dict[str, Any]) -> str:
    """Under the plot."""
    return (
        f"Example-level (one window of text, DP-SGD): epsilon {example['epsilon']:.2f} at delta {example['delta']:g}. "
        f"Client-level (one contributor, noise of the session): epsilon {client['epsilon']:.2f} at delta "
        f"{client['delta']:g}. Never added.\n"
        f"{client['contributions']} contributors, {client['dimension']} parameters. Bars: 95 % intervals over their "
        "held-out texts. Small dots: single adapters, and the merged one with other noise of the same size."
    )
