"""What the seeds came to: losses.json for programs, a table for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from federated_finetune.rounds import Losses, Round, mean_of
from federated_finetune.strategies import STRATEGIES

if TYPE_CHECKING:
    from federated_finetune.run import Played


def report_of(played: Sequence[Played]) -> dict[str, Any]:
    """All numbers, seed by seed; losses of round 0 are the base's."""
    settings = asdict(played[0].settings)
    seeds = [each.settings.seed for each in played]
    del settings["seed"]
    return {
        "unit": "nats per byte, mean over the kinds of text",
        "seeds": seeds,
        "base": [_losses([each.base]) for each in played],
        "alone": [[_losses([each.base, *one]) for one in each.alone] for each in played],
        "strategies": {
            strategy.key: {
                "name": strategy.name,
                "options": " ".join(strategy.words(played[0].settings)),
                "own_rank_and_start": [strategy.starts.own_rank, strategy.starts.own_a],
                "seeds": [_strategy(each.base, each.strategies[strategy.key]) for each in played],
            }
            for strategy in STRATEGIES
        },
        "verified": [each.verified for each in played],
        "seconds": [each.seconds for each in played],
        "settings": settings,
    }


def _losses(rounds: Sequence[Losses]) -> dict[str, Any]:
    return {
        "mean": [round(mean_of(each), 4) for each in rounds],
        "kinds": {kind: [round(each[kind], 4) for each in rounds] for kind in rounds[0]},
    }


def _strategy(base: Losses, rounds: Sequence[Round]) -> dict[str, Any]:
    return {
        "loss": _losses([base, *(each.losses for each in rounds)]),
        "error": [round(each.error, 4) for each in rounds],
        "estimated_error": [each.merged.estimated_error for each in rounds],
        "scaled_down": [each.merged.scaled_down for each in rounds],
        "contributors": [list(each.merged.contributors) for each in rounds],
        "upload_bytes": [list(each.merged.upload_bytes) for each in rounds],
        "sessions": [list(each.merged.sessions) for each in rounds],
    }


def final(report: dict[str, Any]) -> dict[str, list[float]]:
    """The losses after the last round, seed by seed: of the base, of contributors alone (their mean), of strategies."""
    found = {
        "base": [each["mean"][0] for each in report["base"]],
        "alone": [_mean([one["mean"][-1] for one in each]) for each in report["alone"]],
    }
    for key, strategy in report["strategies"].items():
        found[key] = [each["loss"]["mean"][-1] for each in strategy["seeds"]]
    return found


def table(report: dict[str, Any]) -> str:
    """The losses after the last round, what is kept of the gain of dense, errors of the last round, and uploads."""
    names = {"base": "base", "alone": "alone, mean of all"}
    names |= {key: strategy["name"] for key, strategy in report["strategies"].items()}
    rounds = report["settings"]["rounds"]
    lines = [
        f"{f'after round {rounds}':24}{'loss':>8}{'range':>16}{'of dense gain':>14}"
        f"{'error':>8}{'estimated':>11}{'upload':>10}"
    ]
    losses = final(report)
    base, best = _mean(losses["base"]), _mean(losses["dense"])
    for key, name in names.items():
        found = losses[key]
        spread = f"{min(found):.3f} to {max(found):.3f}" if len(found) > 1 else ""
        line = f"{name:24}{_mean(found):8.3f}{spread:>16}{(base - _mean(found)) / (base - best):14.0%}"
        if key in report["strategies"]:
            strategy = report["strategies"][key]
            line += _of_merge(strategy["seeds"], max if "pilot-basis" in strategy["options"] else sum)
        lines.append(line)
    return "\n".join(lines)


def _of_merge(seeds: Sequence[dict[str, Any]], uploaded: Callable[[list[int]], int]) -> str:
    """Errors, and what one contributor uploads in a round: somebody who is no pilot only to the second session."""
    estimated = [each["estimated_error"][-1] for each in seeds if each["estimated_error"][-1] is not None]
    error = _mean([each["error"][-1] for each in seeds])
    sent = _mean([uploaded(each["upload_bytes"][-1]) for each in seeds])
    return f"{error:8.2f}{f'{_mean(estimated):.2f}' if estimated else '':>11}{sent / 1000:7.0f} kB"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
