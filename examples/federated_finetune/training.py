"""What happens on the machines of the contributors: train, load what was merged, measure. Each call is one process'."""

import contextlib
import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import train_adapters
from federated_finetune.corpus import KINDS
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file
from safetensors.torch import load_model, save_model
from transformers import LlamaForCausalLM

BASE_NAME = "secagg-federated-example-base"

# PEFT reads an attribute that transformers 5 has renamed.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of everything; the defaults are those of the figures in README.md.

    ``ranks`` are those of contributors who choose their own, in turn; ``rank`` that of all where one is prescribed;
    ``rank_out`` that of merged adapters. Alpha is twice the rank. ``rate_b_alone`` is for B where A
    is frozen. ``update_norm`` is the public bound on the joint norm of all updates
    of one contributor in one round. Losses are in nats per byte.
    """

    seed: int = 1
    hidden: int = 128
    intermediate: int = 384
    layers: int = 2
    heads: int = 4
    context: int = 96
    base_steps: int = 800
    parts: int = 3
    part_bytes: int = 60_000
    rounds: int = 3
    steps: int = 25
    batch: int = 8
    ranks: tuple[int, ...] = (2, 4, 8)
    rank: int = 8
    rank_out: int = 16
    update_norm: int = 12
    rate_a: float = 1e-2
    rate_b: float = 3e-3
    rate_b_alone: float = 1e-2
    held_out_windows: int = 96

    def untrained(self) -> "Settings":
        """The same, for adapters as they start."""
        return replace(self, steps=0)

    @property
    def contributors(self) -> int:
        """So many of each kind of text."""
        return self.parts * len(KINDS)

    def of_base(self, steps: int = 0, seed: int = 0) -> train_adapters.Settings:
        """What ``train_adapters`` needs to build the base, or an adapter in so many steps."""
        return train_adapters.Settings(
            seed=seed or self.seed,
            hidden=self.hidden,
            intermediate=self.intermediate,
            layers=self.layers,
            heads=self.heads,
            context=self.context,
            batch=self.batch if steps else 2 * self.batch,
            base_steps=self.base_steps,
            base_rate=4e-3,
            adapter_steps=steps,
        )


@dataclass(frozen=True, slots=True)
class Start:
    """Where an adapter starts: rank, the seed of A, and whether A is trained as well. B is zero."""

    rank: int
    seed: int
    trained: tuple[str, ...] = (".lora_A.", ".lora_B.")


@dataclass(frozen=True, slots=True)
class Job:
    """What one contributor does in one round.

    Attributes:
        model: weights of the model that this round starts from.
        tokens: to train on; int64[bytes].
        start: of the adapter.
        directory: where the adapter goes.
        seed: of the order of the text.
        settings: of the run.
    """

    model: Path
    tokens: npt.NDArray[np.int64] = field(repr=False)
    start: Start
    directory: Path
    seed: int
    settings: Settings


def seed_of(*words: object) -> int:
    """A seed of its own for everything that is named by other words."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:4], "big")


def build_base(settings: Settings, path: Path) -> None:
    """Pre-train a byte-level Llama from the seed on docstrings and comments, and write its weights."""
    common = train_adapters.read_text(train_adapters.BASE_MODULES, set())
    model, _ = train_adapters.build_base(common, settings.of_base())
    save_model(model, str(path))


def read_model(settings: Settings, path: Path) -> LlamaForCausalLM:
    """The model of these weights."""
    config = train_adapters.base_config(settings.of_base())
    config.name_or_path = BASE_NAME
    model = LlamaForCausalLM(config)
    load_model(model, str(path))
    return model.eval()


def new_adapter(model: LlamaForCausalLM, start: Start) -> PeftModel:
    """The model with an adapter on all linear layers of its blocks, as it starts."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=BASE_NAME,
        r=start.rank,
        lora_alpha=2 * start.rank,
        target_modules=list(train_adapters.TARGETS),
    )
    torch.manual_seed(start.seed)
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(any(mark in name for mark in start.trained))
    return adapted


def train(job: Job) -> None:
    """Train one adapter and write it as PEFT does."""
    torch.set_num_threads(1)
    adapted = new_adapter(read_model(job.settings, job.model), job.start)
    named = [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]
    alone = job.start.trained == (".lora_B.",)
    rates = {
        ".lora_A.": job.settings.rate_a,
        ".lora_B.": job.settings.rate_b_alone if alone else job.settings.rate_b,
    }
    groups = [{"params": [p for name, p in named if mark in name], "lr": rates[mark]} for mark in job.start.trained]
    settings = job.settings.of_base(job.settings.steps)
    if job.settings.steps:
        with contextlib.redirect_stdout(io.StringIO()):  # one line a contributor and round is too much
            train_adapters.fit(adapted, groups, torch.from_numpy(job.tokens), settings, job.settings.steps, job.seed)
    train_adapters.write_adapter(adapted, torch.float32, job.directory)


def update_error(adapters: Sequence[Path], merged: Path) -> float:
    """How far the merged update is from the mean of all, over it, in Frobenius norm: what only this script can know."""
    difference = size = 0.0
    wanted = [_updates(each) for each in adapters]
    for name, found in _updates(merged).items():
        mean = np.mean([each[name] for each in wanted], axis=0)
        difference += float(np.sum((found - mean) ** 2))
        size += float(np.sum(mean**2))
    return float(np.sqrt(difference / size))


def _updates(directory: Path) -> dict[str, npt.NDArray[np.float64]]:
    tensors = load_file(directory / "adapter_model.safetensors")
    config = PeftConfig.from_pretrained(str(directory))
    scale = config.lora_alpha / config.r
    return {
        name: scale * tensors[name.replace(".lora_A.", ".lora_B.")].astype(np.float64) @ a.astype(np.float64)
        for name, a in tensors.items()
        if ".lora_A." in name
    }


def fold(settings: Settings, model: Path, adapter: Path, to: Path) -> None:
    """What everybody does with a merged adapter: load it with PEFT and merge it into the weights, written to ``to``."""
    adapted = PeftModel.from_pretrained(read_model(settings, model), str(adapter))
    save_model(adapted.merge_and_unload(), str(to))


@torch.no_grad()
def losses(settings: Settings, model: Path, held_out: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, float]:
    """The loss on each kind of text, in nats per byte."""
    torch.set_num_threads(1)
    found = read_model(settings, model)
    evaluation = train_adapters.Settings(
        context=settings.context, evaluation_windows=settings.held_out_windows, batch=32
    )
    return {
        name: train_adapters.evaluate(found, torch.from_numpy(tokens), evaluation) for name, tokens in held_out.items()
    }
