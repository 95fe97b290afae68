"""Train the eight LoRA adapters that are shipped in examples/adapters_independent.

    python examples/train_independent_adapters.py --out DIR

Base and texts are those of train_adapters.py, but these contributors never met: each draws an A of its own, and
chooses rank, alpha and what its scale is made of. The mean of their factors means nothing; that of their updates
does. The script trains, merges in several ways and measures what each merge keeps.

The same Python, torch, kind of processor and --threads give the same adapters. Needs the extra `train`.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Not from the checkout's root: another installed package may be called examples.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import train_adapters as common
from peft import PeftModel
from transformers import LlamaForCausalLM

from secagg.lora.adapter import Adapter
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.merge_report import REPORT_FILE, MergeReport
from secagg.lora.pieces import scales_for
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.update_merging import UpdateMerging
from secagg.lora.updates import Wide, updates_of
from secagg.lora.writer import write_adapter, write_files
from secagg.transcript.merge import DenseMerge, LinearMerge, SketchMerge

CORE_COLUMNS = {16: 128, 24: 96}
"""By rank of the merged adapter; with the default, 8 ranks, a sketch for rank 24 would be larger than these modules."""
SHOWN = ("base", "adapter", "factors", "exact", "sketch 16", "sketch 24")
"""Whose losses are in the first table of README.md; training.json has them all."""
SEED = b"examples/adapters_independent..."


@dataclass(frozen=True, slots=True)
class Choice:
    """What a contributor chose for itself; ``seed`` draws its A."""

    seed: int
    rank: int
    alpha: int
    use_rslora: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def scale(self) -> float:
        """The factor of B A."""
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)


CHOICES = (
    Choice(101, rank=4, alpha=8),
    Choice(102, rank=2, alpha=4, dtype=torch.float16),
    Choice(103, rank=8, alpha=16, dtype=torch.bfloat16),
    Choice(104, rank=4, alpha=4, use_rslora=True),
    Choice(105, rank=2, alpha=2),
    Choice(106, rank=8, alpha=8, dtype=torch.float16),
    Choice(107, rank=4, alpha=16, dtype=torch.bfloat16),
    Choice(108, rank=8, alpha=4, use_rslora=True, dtype=torch.float16),
)


def train(base: LlamaForCausalLM, text: common.Text, settings: common.Settings, number: int) -> PeftModel:
    """Contributor `number`'s trained adapter."""
    choice = CHOICES[number - 1]
    lora = {"r": choice.rank, "lora_alpha": choice.alpha, "use_rslora": choice.use_rslora}
    model = common.start_adapter(base, choice.seed, **lora)
    common.fit_adapter(model, text, settings, number)
    return model


def manifest_of(adapter: Adapter, merge: LinearMerge, rank: int) -> Manifest:
    """What a session with `merge` would merge: the modules of the adapter, to an adapter of `rank`."""
    config = adapter.config
    modules = []
    for found in adapter.modules:
        outputs, inputs = adapter.tensors[found.b_name].shape[0], adapter.tensors[found.a_name].shape[1]
        module = MergedModule(found.path, "linear", outputs, inputs)
        modules.append(MergedModule(found.path, "linear", outputs, inputs, (), scales_for(merge, module, rank, {})))
    return Manifest(
        config.base_model_name_or_path or "", "", config.task_type or "", rank, config.fan_in_fan_out, "refuse",
        tuple(modules),
    )  # fmt: skip


def merge_updates(adapters: Sequence[Adapter], merge: LinearMerge, rank: int, directory: Path) -> MergeReport:
    """Write what a session with `merge` would publish, but for its rounding; what its report says."""
    merging = UpdateMerging.of(merge, manifest_of(adapters[0], merge, rank), counts_clipping=True)
    messages = [merging.message(adapter).vector for adapter in adapters]
    mean = np.mean(messages, axis=0, dtype=np.float64).astype(np.float32)
    files = merging.aggregate(mean, len(adapters), lambda _: None)
    write_files(directory, files)
    return MergeReport.from_bytes(b"".join(files[REPORT_FILE]))


def merge_factors(adapters: Sequence[Adapter], directory: Path) -> None:
    """Write the mean of the factors: scales into B, then zeros for the ranks that an adapter has not."""
    rank = max(adapter.config.r for adapter in adapters)
    config = adapters[0].config
    tensors: dict[str, np.ndarray] = {}
    for module in adapters[0].modules:
        for name, axis in ((module.a_name, 0), (module.b_name, 1)):
            padded = []
            for adapter in adapters:
                scale = np.float32(adapter.config.scale_of(module.path) if axis else 1)
                padding = [(0, 0), (0, 0)]
                padding[axis] = (0, rank - adapter.config.r)
                padded.append(np.pad(scale * adapter.tensors[name], padding))
            tensors[name] = np.mean(padded, axis=0, dtype=np.float64).astype(np.float32)
    template = AdapterTemplate(
        config.base_model_name_or_path, "", config.task_type or "", rank, rank, use_rslora=False, fan_in_fan_out=False
    )
    write_adapter(directory, template, tensors)


def mean_update(adapters: Sequence[Adapter], manifest: Manifest) -> dict[str, Wide]:
    """The exact mean of the updates by module, fp64."""
    total: dict[str, Wide] = {}
    for adapter in adapters:
        for module, factors in updates_of(adapter, manifest):
            if factors is not None:
                update = factors.left.astype(np.float64) @ factors.right.astype(np.float64) / len(adapters)
                total[module.path] = total.get(module.path, 0) + update
    return total


def error_of(merged: Path, exact: Mapping[str, Wide], manifest: Manifest) -> float:
    """How far a merged adapter is from the exact mean, all modules together, relative to it."""
    found = mean_update([read_adapter(merged, None)], manifest)
    missing = sum(np.linalg.norm(found[path] - exact[path]) ** 2 for path in exact)
    return float(np.sqrt(missing / sum(np.linalg.norm(update) ** 2 for update in exact.values())))


def merges(adapters: Sequence[Adapter], out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write each merge below `out`; its name, and what is known of it. The rank of `exact` has room for all."""
    all_ranks = sum(adapter.config.r for adapter in adapters)
    manifest = manifest_of(adapters[0], DenseMerge(Fraction(1)), all_ranks)
    exact = mean_update(adapters, manifest)
    square = max(sum(f.square for _, f in updates_of(adapter, manifest) if f) for adapter in adapters)
    norm = Fraction(2) ** int(np.ceil(np.log2(square) / 2))
    merge_factors(adapters, out / "factors")
    rank = max(adapter.config.r for adapter in adapters)
    yield "factors", {"rank": rank, "error": round(error_of(out / "factors", exact, manifest), 4)}
    ways: list[tuple[str, LinearMerge, int]] = [("exact", DenseMerge(norm), all_ranks)]
    for rank, core_columns in CORE_COLUMNS.items():
        ways.append((f"dense {rank}", DenseMerge(norm), rank))
        ways.append((f"sketch {rank}", SketchMerge(norm, SEED, 2 * rank, core_columns, 8), rank))
    for name, merge, rank in ways:
        report = merge_updates(adapters, merge, rank, out / name)
        yield (
            name,
            {
                "rank": rank,
                "error": round(error_of(out / name, exact, manifest), 4),
                "estimated_error": report.error_ppm / 10**6,
            },
        )


def table(report: Mapping[str, Any]) -> str:
    """The rows of the first table in README.md, the common text last; a test holds the two together."""
    rows = []
    for row in report["contributors"]:
        choice = f"{row['rank']} | {row['alpha']}{' rsLoRA' if row['use_rslora'] else ''} | {row['dtype']}"
        rows.append(f"| {row['contributor']} | {choice} | {_losses(row)} |")
    rows.append(f"| | the base's own text | | | {_losses(report['base'])} |")
    return "\n".join(rows).replace("|  |", "| |")


def table_of_merges(report: Mapping[str, Any]) -> str:
    """The rows of the second table in README.md."""
    rows = []
    for name, merge in report["merges"].items():
        estimate = f"{merge['estimated_error']:.3f}" if "estimated_error" in merge else ""
        loss = np.mean([row[f"loss_{name}"] for row in report["contributors"]])
        rows.append(f"| {name} | {merge['rank']} | {merge['error']:.3f} | {estimate} | {loss:.3f} |")
    return "\n".join(rows).replace("|  |", "| |")


def _losses(row: Mapping[str, Any]) -> str:
    return " | ".join(f"{row[f'loss_{name}']:.3f}" if f"loss_{name}" in row else "" for name in SHOWN)


def contribute(
    base: LlamaForCausalLM, text: common.Text, settings: common.Settings, number: int, directory: Path
) -> dict[str, Any]:
    """Train, write, load again and measure contributor `number`'s adapter."""
    contributor, choice = common.CONTRIBUTORS[number - 1], CHOICES[number - 1]
    print(f"contributor {number}: {contributor.topic}, rank {choice.rank}", flush=True)
    common.write_adapter(train(base, text, settings, number), choice.dtype, directory)
    written = common.load_adapter(base, directory)
    return {
        "contributor": number,
        "topic": contributor.topic,
        "modules": list(contributor.modules),
        "seed": choice.seed,
        "rank": choice.rank,
        "alpha": choice.alpha,
        "use_rslora": choice.use_rslora,
        "dtype": str(choice.dtype).removeprefix("torch."),
        "loss_base": round(common.evaluate(base, text.held_out, settings), 4),
        "loss_adapter": round(common.evaluate(written, text.held_out, settings), 4),
    }


def run(out: Path, settings: common.Settings) -> dict[str, Any]:
    """Train everything and write it below `out`; what training.json holds."""
    torch.use_deterministic_algorithms(mode=True)
    seen: set[str] = set()
    own = common.read_text(common.BASE_MODULES, seen)
    texts = [common.read_text(contributor.modules, seen) for contributor in common.CONTRIBUTORS]
    print(f"base: {len(own.train)} tokens", flush=True)
    base, _ = common.build_base(own, settings)
    directories = [out / str(number) for number in range(1, len(CHOICES) + 1)]
    rows = [
        contribute(base, text, settings, number, directory)
        for number, (text, directory) in enumerate(zip(texts, directories, strict=True), 1)
    ]
    of_base: dict[str, Any] = {
        "name": common.BASE_NAME,
        "loss_base": round(common.evaluate(base, own.held_out, settings), 4),
    }
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, facts in merges([read_adapter(directory, None) for directory in directories], Path(scratch)):
            model = common.load_adapter(base, Path(scratch) / name)
            for row, text in zip((*rows, of_base), (*texts, own), strict=True):
                row[f"loss_{name}"] = round(common.evaluate(model, text.held_out, settings), 4)
            found[name] = facts
            print(f"merge {name}: {facts}", flush=True)
    report = {
        "base": of_base,
        "contributors": rows,
        "merges": found,
        "settings": asdict(settings),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "peft", "transformers", "safetensors")},
        },
    }
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the eight independent example adapters (about five minutes).")
    default = Path(__file__).parent / "adapters_independent"
    parser.add_argument("--out", type=Path, default=default, help="where to write")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    report = run(arguments.out, common.Settings())
    print(table(report), table_of_merges(report), sep="\n\n")
    print(f"wrote {arguments.out} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
