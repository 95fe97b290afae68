"""Federated fine-tuning over the real service, with every way of merging: held-out loss, round by round.

    python examples/federated_finetune/run.py --out DIR [--seeds N]

A small byte-level Llama is built from a seed and pre-trained on docstrings. Twelve contributors have text of four other
kinds. In every round each trains a LoRA adapter with PEFT and contributes it over gRPC to a session of a coordinator
that this script starts; everybody folds the merged adapter into the weights and goes on. Nothing is downloaded.
Writes losses.json, figure.svg, figure.png, the merged adapters and the records below DIR. README.md says what it means.

Needs the extras `train` and `plots`.
"""

import argparse
import asyncio
import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Not from the checkout's root: other packages are called examples, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: spinning threads starve the others

import own_coordinator
from federated_finetune import plot
from federated_finetune.corpus import KINDS, KindText, read_kind
from federated_finetune.report import report_of, table
from federated_finetune.rounds import Losses, Play, Round
from federated_finetune.sessions import federation
from federated_finetune.strategies import STRATEGIES
from federated_finetune.training import Settings, build_base

QUICK = Settings(
    hidden=48,
    intermediate=96,
    context=32,
    base_steps=120,
    parts=2,
    rounds=1,
    part_bytes=8_000,
    steps=30,
    ranks=(1, 2, 3),
    rank=2,
    rank_out=6,
    update_norm=4,
    held_out_windows=64,
)
"""Everything once, in a minute; the order of the losses means something, their size nothing."""

FILES = ("losses.json", "figure.svg", "figure.png")
DIRECTORIES = ("seeds",)


@dataclasses.dataclass(frozen=True, slots=True)
class Played:
    """What one seed came to."""

    settings: Settings
    base: Losses
    alone: list[list[Losses]]
    strategies: dict[str, list[Round]]
    verified: str
    seconds: dict[str, float]


class Watch:
    """How long the parts took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def part(self, name: str) -> None:
        """The part that ends here."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now
        print(f"{name}: {self.seconds[name]} s", flush=True)


async def play(settings: Settings, texts: list[KindText], out: Path, workers: int) -> Played:
    """One seed; the merged adapters, the record and its auditor's policy go to ``out``."""
    watch = Watch()
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="secagg-example-") as name,
        ProcessPoolExecutor(workers, mp_context=spawn) as pool,
    ):
        private = Path(name)
        await asyncio.get_running_loop().run_in_executor(pool, build_base, settings, private / "base")
        watch.part("pre-training the base")
        async with federation(settings.contributors, private, out) as service:
            stage = Play(settings, texts, private, pool, service)
            found, alone, base = await asyncio.gather(
                asyncio.gather(*(stage.strategy(strategy, out / "merged") for strategy in STRATEGIES)),
                asyncio.gather(*(stage.alone(contributor) for contributor in range(settings.contributors))),
                stage.measure(stage.base),
            )
        shutil.copytree(service.record, out / "record")
        watch.part("training, sessions and measuring")
    strategies = {strategy.key: rounds for strategy, rounds in zip(STRATEGIES, found, strict=True)}
    sessions = [session for rounds in found for each in rounds for session in each.merged.sessions]
    options = [word for session in sessions for word in ("--session", session)]
    verified = await own_coordinator.verify(out / "record", out / "policy.toml", *options)
    (out / "verified.txt").write_text(verified, encoding="utf-8")
    watch.part("verifying the record")
    return Played(settings, base, alone, strategies, verified.splitlines()[0], watch.seconds)


def run(out: Path, settings: Settings, seeds: int, workers: int) -> dict[str, Any]:
    """So many seeds, from that of the settings on; what losses.json holds. Written again after every seed."""
    texts = [read_kind(kind, settings.parts, settings.part_bytes) for kind in KINDS]
    played: list[Played] = []
    report: dict[str, Any] = {}
    for seed in range(settings.seed, settings.seed + seeds):
        print(f"seed {seed}", flush=True)
        own, to = dataclasses.replace(settings, seed=seed), out / "seeds" / str(seed)
        to.mkdir(parents=True)
        played.append(asyncio.run(play(own, texts, to, workers)))
        report = report_of(played)
        report["versions"] = {name: version(name) for name in ("torch", "peft", "transformers", "secagg-lora")}
        (out / "losses.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        plot.draw(report, out)
    return report


def clear(out: Path) -> None:
    """Make ``out``; what an earlier run wrote into it is removed."""
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    for name in DIRECTORIES:
        shutil.rmtree(out / name, ignore_errors=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Federated fine-tuning with every way of merging adapters.")
    parser.add_argument("--out", type=Path, required=True, help="where to write; an earlier run there is replaced")
    parser.add_argument("--seeds", type=int, default=1, help="how many times, each from another seed (default: 1)")
    parser.add_argument("--quick", action="store_true", help="one round with a tiny model")
    parser.add_argument("--workers", type=int, default=2, help="processes that train (default: 2)")
    arguments = parser.parse_args()
    clear(arguments.out)
    report = run(arguments.out, QUICK if arguments.quick else Settings(), arguments.seeds, arguments.workers)
    print(f"\n{table(report)}\n")
    print(f"wrote losses.json, figure.svg, figure.png, merged adapters and records to {arguments.out}")


if __name__ == "__main__":
    main()
