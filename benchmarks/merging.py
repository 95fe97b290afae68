"""How good merged adapters are: `python -m benchmarks.merging --json OUT` (`-`: standard output).

Contributors train LoRA adapters on their own, of ranks 4, 8 and 16 and from independent starts: 200 steps of Adam on
the regression `|S + N - 2 B A|^2`, where `S` is shared and `N` everybody's own, both of rank 32 with singular values
1/j. What they send goes through the code of a session: messages, 15 bits, lanes, integer sums, decoding, merging. Masks
are left out: they cancel. With `--flat` nothing is shared and `N` is Gaussian, so that no low rank helps.

Errors are relative, in Frobenius norm, to the mean of all updates; `best` is its truncated SVD.
"""

import argparse
import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from secagg.crypto.secret import Secret
from secagg.derive.result import decode
from secagg.lora.adapter import Adapter
from secagg.lora.base_model import build_manifest
from secagg.lora.config import AdapterConfig
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.fixed import BASIS_FILE
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.merge_report import MergeReport
from secagg.lora.template import AdapterTemplate
from secagg.lora.update_merging import UpdateMerging
from secagg.runtime import vectors
from secagg.transcript.encoding import CoordinateRange, Encoding, NoFlattening
from secagg.transcript.merge import (
    BasisMerge,
    DenseMerge,
    LinearMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SketchMerge,
    contributors_digest,
    is_pilot,
)
from secagg.transcript.noise import NoDifferentialPrivacy

RANKS = (4, 8, 16)
RANK_OUT = 16
TARGET_RANK = 32
SCALE = 2
STEPS, RATE = 200, 2e-4
VALUE_BITS = 15
PATH = "layer"
MODEL = "regression"
SHARE = Fraction(1, 5)
TARGETS = {
    "sketch k=32 s=128": ("ratio", 1.6, "at most"),
    "two-session k=24": ("ratio", 1.42, "at most"),
    "factors": ("error", 0.9, "at least"),
}

Matrix = np.ndarray
Row = dict[str, object]


@dataclass(frozen=True)
class Bed:
    """Adapters of contributors, and the mean of their updates."""

    size: int
    adapters: tuple[Adapter, ...]
    mean: Matrix
    seed: bytes

    @property
    def norm(self) -> float:
        """Of the mean."""
        return float(np.linalg.norm(self.mean))

    def error(self, update: Matrix) -> float:
        """Of a merged update."""
        return float(np.linalg.norm(update - self.mean)) / self.norm

    @property
    def best(self) -> float:
        """The error that no update of the rank goes below."""
        values = np.linalg.svd(self.mean, compute_uv=False)
        return math.sqrt(float(np.sum(values[RANK_OUT:] ** 2) / np.sum(values**2)))


def low_rank(generator: np.random.Generator, size: int) -> Matrix:
    """A matrix with singular values 1/j and directions at random: float32[size, size]."""
    rank = min(TARGET_RANK, size)
    left, right = (np.linalg.qr(generator.standard_normal((size, rank)))[0] for _ in range(2))
    return ((left / np.arange(1, rank + 1)) @ right.T).astype(np.float32)


def private_target(generator: np.random.Generator, size: int, norm: float, *, flat: bool) -> Matrix:
    """What one contributor alone has to learn, float32[size, size] of this norm."""
    own = generator.standard_normal((size, size), dtype=np.float32) if flat else low_rank(generator, size)
    return own * np.float32(norm / np.linalg.norm(own))


def train(target: Matrix, rank: int, generator: np.random.Generator) -> tuple[Matrix, Matrix]:
    """B and A after some steps of Adam (Kingma, Ba 2015) on `|target - SCALE B A|^2`, from PEFT's usual start."""
    rows, columns = target.shape
    a = generator.uniform(-1, 1, (rank, columns)).astype(np.float32) / np.float32(math.sqrt(columns))
    b = np.zeros((rows, rank), np.float32)
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in (a, b)]
    for step in range(1, STEPS + 1):
        slopes = (
            -SCALE * (b.T @ target - SCALE * (b.T @ b) @ a),
            -SCALE * (target @ a.T - SCALE * b @ (a @ a.T)),
        )
        for parameter, slope, (mean, square) in zip((a, b), slopes, moments, strict=True):
            mean[...] = 0.9 * mean + 0.1 * slope
            square[...] = 0.999 * square + 0.001 * slope * slope
            root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
            parameter[...] -= RATE / (1 - 0.9**step) * mean / root
    return b, a


def adapter_of(b: Matrix, a: Matrix, alpha: float) -> Adapter:
    """The adapter with these factors."""
    rank = a.shape[0]
    config = AdapterConfig("LORA", MODEL, None, None, rank, alpha, False, (), (), None, False, "none")  # noqa: FBT003
    prefix = f"base_model.model.{PATH}"
    return Adapter(config, {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b})


def bed_of(size: int, clients: int, seed: int, *, flat: bool) -> Bed:
    """Contributors who trained on their own."""
    generator = np.random.default_rng(seed)
    shared = low_rank(generator, size)
    norm = float(np.linalg.norm(shared))
    adapters, mean = [], np.zeros((size, size))
    for client in range(clients):
        target = private_target(generator, size, norm, flat=flat)
        b, a = train(target if flat else shared + target, RANKS[client % len(RANKS)], generator)
        adapters.append(adapter_of(b, a, float(SCALE * a.shape[0])))
        mean += SCALE * b.astype(np.float64) @ a.astype(np.float64) / clients
    return Bed(size, tuple(adapters), mean, hashlib.sha256(f"bed {seed}".encode()).digest())


def mean_of_sum(encoding: Encoding, messages: Sequence[np.ndarray], seed: bytes) -> np.ndarray:
    """The mean that a session of these messages publishes, by way of lanes and integer sums."""
    noise = NoDifferentialPrivacy()
    total = np.zeros(encoding.field_layout().lanes, np.uint64)
    for number, message in enumerate(messages):
        rounding = Secret(hashlib.sha256(seed + number.to_bytes(8, "little")).digest())
        lanes, _ = vectors.encode(encoding, noise, message, rounding)
        total += lanes
    return decode(encoding, noise, total, len(messages)).mean


def encoding_of(dimension: int, clients: int, clip_norm: Fraction, bound: Fraction | None) -> Encoding:
    """The encoding of a session without noise."""
    flatten = NoFlattening() if bound is None else CoordinateRange(bound)
    return Encoding(dimension, VALUE_BITS, max(2, clients), 64, clip_norm, flatten)


@dataclass(frozen=True)
class Session:
    """One session with a linear strategy."""

    merging: UpdateMerging
    means: tuple[np.ndarray, np.ndarray]  # as decoded, and as it were without rounding
    contributors: int

    @classmethod
    def run(cls, bed: Bed, merge: LinearMerge, adapters: Sequence[Adapter], fixed: bytes = b"") -> "Session":
        """Everybody's message, and their mean."""
        modules = (MergedModule(PATH, "linear", bed.size, bed.size),)
        plan = Manifest(MODEL, "", "", RANK_OUT, fan_in_fan_out=False, missing="refuse", modules=modules)
        manifest = build_manifest(merge, plan, {})
        merging = UpdateMerging.of(merge, manifest, counts_clipping=True).with_fixed(fixed)
        dimension = merging.layout.dimension
        encoding = encoding_of(dimension, len(adapters), Fraction(math.isqrt(dimension) + 1), Fraction(1))
        messages = [merging.message(adapter).vector for adapter in adapters]
        exact = np.mean(messages, axis=0, dtype=np.float64).astype(np.float32)
        return cls(merging, (mean_of_sum(encoding, messages, bed.seed), exact), len(adapters))

    @property
    def sent(self) -> int:
        """Coordinates of one contributor."""
        return self.merging.layout.dimension

    @property
    def basis(self) -> bytes:
        """What a first session publishes."""
        return b"".join(self.merging.aggregate(self.means[0], self.contributors, _silent)[BASIS_FILE])

    def row(self, bed: Bed, sent: int, probed: int) -> Row:
        """What came out."""
        (update, report), (unrounded, _) = (self._merged(mean) for mean in self.means)
        (module,) = report.modules
        error = bed.error(update)
        return {
            "uplink": sent / (2 * RANK_OUT * bed.size),
            "uplink_without_probe": (sent - probed) / (2 * RANK_OUT * bed.size),
            "error": error,
            "ratio": error / bed.best,
            "error_without_rounding": bed.error(unrounded),
            "estimated_error": module.error_ppm / 1e6,
            "scalar": module.scalar_ppm / 1e6,
            "degraded": report.is_degraded,
            "scaled_down": report.scaled_down_ppm / 1e6,
            "clamped": report.clamped_ppm / 1e6,
        }

    def _merged(self, mean: np.ndarray) -> tuple[Matrix, MergeReport]:
        tensors, report = self.merging.merged(mean, self.contributors, _silent)
        (module,) = self.merging.manifest.modules
        return tensors[module.b_name].astype(np.float64) @ tensors[module.a_name].astype(np.float64), report


def factor_row(bed: Bed) -> Row:
    """The mean of A and B, of smaller ranks filled up with zeros, the scale in B."""
    padded = []
    for adapter in bed.adapters:
        (module,) = adapter.modules
        a, b = adapter.tensors[module.a_name], adapter.tensors[module.b_name] * np.float32(SCALE)
        room = RANK_OUT - module.rank
        padded.append(adapter_of(np.pad(b, ((0, 0), (0, room))), np.pad(a, ((0, room), (0, 0))), float(RANK_OUT)))
    merging = FactorMerging(AdapterTemplate.from_adapter(padded[0]), padded[0].layout)
    messages = [merging.message(adapter).vector for adapter in padded]
    reach = Fraction(max(float(np.linalg.norm(message)) for message in messages)).limit_denominator(1000) * 2
    encoding = encoding_of(merging.layout.dimension, len(messages), reach, None)
    tensors = merging.tensors(mean_of_sum(encoding, messages, bed.seed))
    (module,) = padded[0].modules
    error = bed.error(tensors[module.b_name].astype(np.float64) @ tensors[module.a_name].astype(np.float64))
    return {"uplink": 1.0, "uplink_without_probe": 1.0, "error": error, "ratio": error / bed.best}


def sketch_row(bed: Bed, norm: Fraction, columns: int, core: int) -> Row:
    """One session."""
    session = Session.run(bed, SketchMerge(norm, bed.seed, columns, core, 8), bed.adapters)
    return session.row(bed, session.sent, 8 * bed.size)


def two_session_row(bed: Bed, norm: Fraction, columns: int) -> Row:
    """The same contributors twice."""
    first = Session.run(bed, RangeMerge(norm, bed.seed, columns), bed.adapters)
    basis = first.basis
    names = contributors_digest(map(_identity, range(len(bed.adapters))))
    merge = ProjectionMerge(norm, bed.seed, columns, 8, bytes(16), hashlib.sha256(basis).digest(), names)
    second = Session.run(bed, merge, bed.adapters, basis)
    return second.row(bed, first.sent + second.sent, 8 * bed.size)


def pilot_row(bed: Bed, norm: Fraction, columns: int, sides: int) -> Row:
    """Pilots in the first session, all others in the second."""
    drawn = [is_pilot(bed.seed, SHARE, _identity(i)) for i in range(len(bed.adapters))]
    pilots = [adapter for adapter, pilot in zip(bed.adapters, drawn, strict=True) if pilot]
    others = [adapter for adapter, pilot in zip(bed.adapters, drawn, strict=True) if not pilot]
    basis = Session.run(bed, PilotMerge(norm, bed.seed, columns, sides, SHARE), pilots).basis
    probe = 8 if sides == 1 else 16
    merge = BasisMerge(norm, bed.seed, columns, sides, probe, SHARE, bytes(16), hashlib.sha256(basis).digest())
    session = Session.run(bed, merge, others, basis)
    probed = probe * bed.size if sides == 1 else probe * probe
    return {**session.row(bed, session.sent, probed), "pilots": len(pilots)}


def dense_row(bed: Bed, norm: Fraction) -> Row:
    """The update itself."""
    session = Session.run(bed, DenseMerge(norm), bed.adapters)
    return session.row(bed, session.sent, 0)


def rows_of(bed: Bed) -> dict[str, Row]:
    """Every strategy on the same adapters; updates may be twice as large as the first contributor's."""
    (module,) = bed.adapters[0].modules
    b, a = (bed.adapters[0].tensors[name] for name in (module.b_name, module.a_name))
    norm = Fraction(2 * SCALE * float(np.linalg.norm(b @ a))).limit_denominator(100)
    rows: dict[str, Callable[[], Row]] = {
        "factors": lambda: factor_row(bed),
        "sketch k=32 s=128": lambda: sketch_row(bed, norm, 32, 128),
        "sketch k=32 s=90": lambda: sketch_row(bed, norm, 32, 90),
        "two-session k=24": lambda: two_session_row(bed, norm, 24),
        "two-session k=20": lambda: two_session_row(bed, norm, 20),
        "pilot-basis k=32, one side": lambda: pilot_row(bed, norm, 32, 1),
        "pilot-basis k=32, two sides": lambda: pilot_row(bed, norm, 32, 2),
        "dense": lambda: dense_row(bed, norm),
    }
    measured = {}
    for name, row in rows.items():
        started = time.process_time()
        measured[name] = {**row(), "cpu_s": time.process_time() - started}
    return measured


def targets_of(rows: dict[str, Row]) -> dict[str, Row]:
    """What the bed is to show, and whether it does."""
    targets = {}
    for name, (figure, limit, relation) in TARGETS.items():
        value = rows[name][figure]
        if not isinstance(value, float):
            raise TypeError(f"{figure} of {name} is no number")
        reached = value <= limit if relation == "at most" else value >= limit
        targets[f"{figure} of {name}"] = {relation: limit, "measured": value, "reached": reached}
    return targets


def table(best: float, rows: dict[str, Row]) -> str:
    """The rows as people read them."""
    lines = [f"best update of rank {RANK_OUT}: error {best:.3f}", ""]
    lines.append(f"{'strategy':<30}{'uplink':>8}{'error':>8}{'/ best':>8}{'estimate':>10}{'scalar':>8}")
    for name, row in rows.items():
        figures = [f"{row['uplink']:>8.3f}{row['error']:>8.3f}{row['ratio']:>8.2f}"]
        if "scalar" in row:
            figures.append(f"{row['estimated_error']:>10.3f}{row['scalar']:>8.3f}")
        lines.append(f"{name:<30}{''.join(figures)}")
    return "\n".join(lines)


def _identity(client: int) -> bytes:
    return hashlib.sha256(f"contributor {client}".encode()).digest()


def _silent(_line: str) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs everything and writes one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="-", metavar="OUT", help="file to write, or - for standard output")
    parser.add_argument("--clients", type=int, default=100, help="contributors, at least 10")
    parser.add_argument("--size", type=int, default=1024, help="rows and columns of the module")
    parser.add_argument("--seed", type=int, default=0, help="of targets, starts and test matrices")
    parser.add_argument("--flat", action="store_true", help="nothing is shared: what the scalar is for")
    options = parser.parse_args(arguments)
    if options.clients < 10 or options.size < 4 * TARGET_RANK:
        parser.error(f"at least 10 contributors, and {4 * TARGET_RANK} rows")
    started = time.process_time()
    bed = bed_of(options.size, options.clients, options.seed, flat=options.flat)
    trained_s = time.process_time() - started
    rows = rows_of(bed)
    report: Row = {
        "machine": {
            "processor": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "bed": {
            "clients": options.clients,
            "size": options.size,
            "seed": options.seed,
            "flat": options.flat,
            "training_cpu_s": trained_s,
            "best_error": bed.best,
        },
        "strategies": rows,
        # They are for the bed as it is described, not for other sizes or for nothing shared.
        "targets": {} if options.flat else targets_of(rows),
    }
    text = json.dumps(_rounded(report), indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        Path(options.json).write_text(text, encoding="utf-8")
        print(table(bed.best, rows))


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
