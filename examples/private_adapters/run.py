"""Adapters trained with DP-SGD, added up in a session with noise: two kinds of privacy, two epsilons.

    python examples/private_adapters/run.py --out DIR

A small byte-level Llama is built from a seed and pre-trained on docstrings. Each contributor trains a LoRA adapter on
functions of the standard library that nobody else has, with Opacus' DP-SGD (example-level privacy), and contributes it
over gRPC to a session of a coordinator that this script starts (client-level privacy). Nothing is downloaded.
Writes results.json, loss.png, the adapters, the merged one and the record below DIR. README.md says what it means.

Needs the extras `dp`, `train` and `plots`.
"""

import argparse
import asyncio
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Not from the checkout's root: Opacus installs a package called examples.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: spinning threads starve the others

import numpy as np
import numpy.typing as npt
import own_coordinator
import torch
import train_adapters
from private_adapters import plot, service, statements
from private_adapters.corpus import ShareSize, read_shares
from private_adapters.training import Job, Settings, Spent, build_base, losses, train_all, with_tensors
from safetensors.torch import save_model
from transformers import LlamaForCausalLM

from secagg.lora.factor_merging import FactorMerging, adapter_to_vector
from secagg.lora.reader import read_adapter

QUICK = Settings(
    hidden=32,
    intermediate=64,
    context=32,
    base_steps=30,
    contributors=10,
    examples=64,
    steps=8,
    batch=16,
    min_contributors=10,
    max_corrupt=1,
)
"""Everything once, in seconds; its figures mean nothing, but that all of it runs."""

FILES = ("results.json", "loss.png", "verified.txt", "policy", "policy.toml")
DIRECTORIES = ("adapters", "pilot", "merged", "record")
REDRAWS = 60
"""Of the noise, drawn by numpy: how the loss could have come out with other noise of the same size."""

NAMES = {
    "base": "base, no adapter",
    "single": "one contributor's adapter (mean of all)",
    "plain_mean": "plain mean of the adapters",
    "merged": "merged by the session with noise",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """What there is before the session: adapters on disk, what their training cost, and texts to measure with."""

    base: LlamaForCausalLM
    adapters: list[Path]
    pilot: Path
    spent: list[Spent]
    held_out: torch.Tensor


@dataclass(frozen=True, slots=True)
class Session:
    """What came of the session, and what only this script can know: every contributor's vector."""

    outcome: service.Outcome
    vectors: npt.NDArray[np.float32]
    clipped_mean: npt.NDArray[np.float64]
    client: dict[str, Any]

    @classmethod
    def of(cls, outcome: service.Outcome, terms: service.Terms, adapters: list[Path]) -> "Session":
        """Compare the published mean with the mean of the clipped vectors."""
        vectors = np.stack([vector_of(directory) for directory in adapters])
        plain = statements.clipped_mean(vectors, terms.clip_norm)
        return cls(outcome, vectors, plain, statements.client_level(outcome, terms, plain))


class Clock:
    """How long the parts took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Time a part and say so."""
        print(f"{part} ...", flush=True)
        start = time.monotonic()
        yield
        self.seconds[part] = round(time.monotonic() - start, 1)
        print(f"  {self.seconds[part]} s", flush=True)


def train(settings: Settings, out: Path, private: Path, workers: int, clock: Clock) -> Trained:
    """The base, the operator's pilot adapter and the contributors' adapters; all but the base below ``out``."""
    with clock.time("reading text"):
        # One window predicts as many bytes as the context holds, from one byte more.
        size = ShareSize(settings.examples, settings.held_out, settings.context + 1)
        shares = read_shares(settings.contributors + 1, size)
    with clock.time("pre-training the base"):
        base = build_base(settings)
        save_model(base, str(private / "base"))
    directories = [out / "pilot", *(out / "adapters" / str(k) for k in range(1, settings.contributors + 1))]
    jobs = [
        Job(private / "base", share.train.numpy(), directory, settings)
        for share, directory in zip(shares, directories, strict=True)
    ]
    with clock.time(f"training {settings.contributors} adapters and the operator's with DP-SGD"):
        _, *spent = train_all(jobs, workers)
    held_out = torch.stack([share.held_out for share in shares[1:]])
    return Trained(base, directories[1:], directories[0], spent, held_out)


def vector_of(directory: Path) -> npt.NDArray[np.float32]:
    """An adapter as the service adds it up."""
    adapter = read_adapter(directory, None)
    return adapter_to_vector(adapter, adapter.layout)


def terms_of(settings: Settings, pilot: Path) -> service.Terms:
    """What the operator asks for; the clip norm is the norm of its own adapter, rounded up to a tenth: public."""
    clip_norm = Fraction(math.ceil(10 * float(np.linalg.norm(vector_of(pilot).astype(np.float64)))), 10)
    cohort = settings.min_contributors, settings.max_corrupt
    return service.Terms(settings.epsilon, settings.delta, clip_norm, *cohort)


def measure(trained: Trained, settings: Settings, session: Session, out: Path) -> list[plot.Row]:
    """Held-out losses of the base, of single adapters, of their plain mean, and of the merged one as PEFT reads it."""
    merging = session.outcome.result.details.merging
    if not isinstance(merging, FactorMerging):
        raise TypeError("the session merges factors")

    def of_vector(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        tensors = merging.tensors(vector.astype(np.float32))
        named = {name: torch.from_numpy(values) for name, values in tensors.items()}
        return losses(with_tensors(trained.base, settings, named), trained.held_out)

    singles = np.stack([of_vector(vector) for vector in session.vectors])
    plain = of_vector(session.vectors.mean(axis=0, dtype=np.float64))
    generator = np.random.default_rng(settings.seed)
    noise = generator.normal(0.0, session.client["expected_deviation"], (REDRAWS, session.clipped_mean.size))
    redrawn = [float(of_vector(session.clipped_mean + draw).mean()) for draw in noise]
    merged = losses(train_adapters.load_adapter(trained.base, out / "merged").eval(), trained.held_out)
    return [
        plot.Row("base", "the base\nwithout adapter", losses(trained.base, trained.held_out)),
        plot.Row("single", "one contributor's adapter\n(DP-SGD)", singles.mean(axis=0), singles.mean(axis=1).tolist()),
        plot.Row("plain_mean", "plain mean of all\n(DP-SGD)", plain),
        plot.Row("merged", "merged by the session\n(DP-SGD, client-level noise)", merged, redrawn),
    ]


def loss_report(rows: Sequence[plot.Row]) -> dict[str, Any]:
    """Losses and changes for programs, each with half of its 95 % interval."""
    base = rows[0].losses
    report: dict[str, Any] = {"unit": "nats per byte", "texts": base.size}
    for row in rows:
        (mean, half), (change, change_half) = plot.interval(row.losses), plot.interval(row.losses - base)
        report[row.key] = {"mean": mean, "half_interval": half, "change": change, "change_half_interval": change_half}
        if row.others:
            lowest, highest = min(row.others), max(row.others)
            report[row.key]["others"] = {"lowest": lowest, "mean": float(np.mean(row.others)), "highest": highest}
    return report


def table(report: dict[str, Any]) -> str:
    """The losses for people."""
    lines = [f"{'held-out loss, nats per byte':40}{'loss':>7}  change (95 %)"]
    for key, name in NAMES.items():
        row = report[key]
        change = "" if key == "base" else f"  {row['change']:+.3f} +- {row['change_half_interval']:.3f}"
        lines.append(f"{name:40}{row['mean']:7.3f}{change}")
    for key, name in (("single", "single adapters: mean, range"), ("merged", "merged, with other noise: mean, range")):
        others = report[key]["others"]
        lines.append(f"{name:40}{others['mean']:7.3f}  {others['lowest']:.3f} to {others['highest']:.3f}")
    return "\n".join(lines)


def run(out: Path, settings: Settings, workers: int) -> dict[str, Any]:
    """Everything; what results.json holds."""
    clock = Clock()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="secagg-example-") as name:
        private = Path(name)
        trained = train(settings, out, private, workers, clock)
        terms = terms_of(settings, trained.pilot)
        with clock.time(f"a session of {settings.contributors} contributors over gRPC"):
            outcome = asyncio.run(service.run_session(trained.adapters, trained.pilot, terms, out, private))
    with clock.time("verifying the record"):
        verified = asyncio.run(own_coordinator.verify(out / "record", out / "policy.toml"))
        (out / "verified.txt").write_text(verified, encoding="utf-8")
    session = Session.of(outcome, terms, trained.adapters)
    with clock.time("measuring losses"):
        rows = measure(trained, settings, session, out)
    example = statements.example_level(settings, trained.spent)
    plot.draw(rows, statements.caption(example, session.client), out / "loss.png")
    report = {
        "example_level": example,
        "client_level": session.client,
        "never_added": statements.NEVER_ADDED,
        "loss": loss_report(rows),
        "verified": f"secagg-verify: {verified.splitlines()[0]}",
        "base_parameters": trained.base.num_parameters(),
        "settings": asdict(settings),
        "seconds": clock.seconds,
        "versions": {name: version(name) for name in ("torch", "opacus", "peft", "transformers", "secagg-lora")},
    }
    (out / "results.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
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
    parser = argparse.ArgumentParser(description="Example-level and client-level privacy in one session.")
    parser.add_argument("--out", type=Path, required=True, help="where to write; an earlier run there is replaced")
    parser.add_argument("--quick", action="store_true", help="a tiny version in seconds, whose figures mean nothing")
    parser.add_argument("--workers", type=int, default=2, help="processes that train (default: 2; 1: none but this)")
    arguments = parser.parse_args()
    settings = QUICK if arguments.quick else Settings()
    clear(arguments.out)
    report = run(arguments.out, settings, arguments.workers)
    print(f"\n{table(report['loss'])}\n")
    print(statements.in_words(report["example_level"], report["client_level"]))
    print(f"\nThe record of the session, by {report['verified']}")
    print(f"wrote results.json, loss.png, the adapters and the record to {arguments.out}")


if __name__ == "__main__":
    main()
