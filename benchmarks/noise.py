"""Measures exact noise: `python -m benchmarks.noise --json OUT` (`-`: standard output).

Rates are millions of draws a CPU second of one thread; what the sampler is compared with runs next to it, in turns, and
is given as a ratio too. OpenDP appears when it is installed; it is no dependency.
"""

import argparse
import importlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from dp.alias import build_table, noise_table
from dp.sampler import BLOCK_DRAWS, KeystreamWords, NoiseSampler
from dp.weights import DISCRETE_GAUSSIAN, KINDS, MAX_VARIANCE, SKELLAM, noise_weights

Figure = dict[str, float]
SIGMAS = (3, 266, 4000)
OPENDP_DRAWS = 20_000


def rates(actions: dict[str, tuple[Callable[[], object], int]], repeats: int) -> Figure:
    """Million draws a CPU second of each action, best of `repeats`; the actions take turns."""
    best = dict.fromkeys(actions, float("inf"))
    for _ in range(repeats):
        for name, (action, _) in actions.items():
            started = time.thread_time()
            action()
            best[name] = min(best[name], time.thread_time() - started)
    return {name: round(draws / best[name] / 1e6, 3) for name, (_, draws) in actions.items()}


def with_ratios(figures: Figure) -> Figure:
    """The figures, and how many times each rival's rate the sampler reaches."""
    rivals = [name for name in figures if name in ("numpy_poisson_difference", "opendp")]
    return figures | {f"times_{name}": round(figures["add_int32"] / figures[name], 1) for name in rivals}


def opendp_gaussian(sigma: int) -> Callable[[], object] | None:
    """OpenDP's discrete Gaussian on a vector of integers, if that package is installed."""
    try:
        prelude = importlib.import_module("opendp.prelude")
    except ModuleNotFoundError:
        return None
    prelude.enable_features("contrib")
    space = prelude.vector_domain(prelude.atom_domain(T="i64")), prelude.l2_distance(T=float)
    measurement = prelude.m.make_gaussian(*space, scale=float(sigma))
    zeros = [0] * OPENDP_DRAWS
    return lambda: measurement(zeros)


def one_law(kind: str, sigma: int, draws: int, repeats: int) -> Figure:
    """The sampler and its rivals at one variance."""
    sampler = NoiseSampler(noise_table(kind, Fraction(sigma * sigma)), bytes(32), b"benchmark")
    narrow, wide = np.zeros(draws, dtype=np.int32), np.zeros(draws, dtype=np.int64)
    actions: dict[str, tuple[Callable[[], object], int]] = {
        "add_int32": (lambda: sampler.add_into(narrow), draws),
        "add_int64": (lambda: sampler.add_into(wide), draws),
    }
    few = max(1, draws // 8)
    if kind == SKELLAM:
        generator, rate = np.random.Generator(np.random.Philox(1)), sigma * sigma / 2
        actions["numpy_poisson_difference"] = (
            lambda: generator.poisson(rate, few) - generator.poisson(rate, few),
            few,
        )
    rival = opendp_gaussian(sigma) if kind == DISCRETE_GAUSSIAN else None
    if rival is not None:
        actions["opendp"] = (rival, OPENDP_DRAWS)
    return with_ratios(rates(actions, repeats))


def keystream(draws: int, repeats: int) -> float:
    """What the words alone would allow, in the same unit."""
    words = KeystreamWords(bytes(32))

    def run() -> None:
        for start in range(0, draws, BLOCK_DRAWS):
            words.read(min(BLOCK_DRAWS, draws - start))

    return rates({"words": (run, draws)}, repeats)["words"]


def build(kind: str, variance: Fraction) -> Figure:
    """CPU milliseconds of weights and of the table that is made of them, neither from a cache."""
    # Another denominator for each call, since weights are kept.
    variance = variance - Fraction(1, 2**40 + time.perf_counter_ns() % 2**40)
    started = time.thread_time()
    weights = noise_weights(kind, variance)
    weighed = time.thread_time()
    table = build_table(weights)
    built = time.thread_time()
    return {
        "weights_ms": round(1e3 * (weighed - started), 2),
        "table_ms": round(1e3 * (built - weighed), 2),
        "column_bits": table.column_bits,
        "half_support": table.half_support,
        "distance_in_2^-128": round(float(table.draw_distance * 2**128), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs everything and writes one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="-", metavar="OUT", help="file to write, or - for standard output")
    parser.add_argument("--draws", type=int, default=2**22, help="draws of one run")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the best counts")
    options = parser.parse_args(arguments)
    installed = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    report: dict[str, object] = {
        "machine": {
            "processor": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opendp": importlib.metadata.version("opendp") if "opendp" in installed else None,
        },
        "parameters": {k: v for k, v in vars(options).items() if k != "json"},
        "million_words_per_cpu_s": keystream(options.draws, options.repeats),
        "million_draws_per_cpu_s": {
            kind: {f"sigma_{sigma}": one_law(kind, sigma, options.draws, options.repeats) for sigma in SIGMAS}
            for kind in KINDS
        },
        "build": {
            kind: {
                f"variance_{variance}": build(kind, Fraction(variance))
                for variance in (9, 266**2, 4000**2, MAX_VARIANCE)
            }
            for kind in KINDS
        },
    }
    text = json.dumps(report, indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        Path(options.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
