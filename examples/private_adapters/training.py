"""The base, and adapters trained with Opacus' DP-SGD, each in the process of its contributor."""

import itertools
import multiprocessing
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import train_adapters
from opacus import PrivacyEngine
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import LlamaForCausalLM

ORDERS = tuple(range(2, 257))
"""Integer orders for Opacus' accountant: its default ones are fractions and stop at 63."""

BASE_NAME = "secagg-private-example-base"

# That Opacus' generator is not a secure one: README.md says so, and why that cannot be changed.
warnings.filterwarnings("ignore", message="Secure RNG turned off")
# That nothing before the first adapter needs a gradient, which is so.
warnings.filterwarnings("ignore", message="Full backward hook is firing")
# PEFT reads an attribute that transformers 5 has renamed.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of everything; the defaults are those of the figures in README.md.

    Losses are in nats per byte. ``epsilon``, ``delta``, ``min_contributors`` and ``max_corrupt`` are the session's;
    ``example_delta`` and the noise multiplier are those of DP-SGD.
    """

    seed: int = 20
    hidden: int = 64
    intermediate: int = 192
    layers: int = 2
    context: int = 64
    base_steps: int = 1500
    contributors: int = 60
    examples: int = 512
    held_out: int = 6
    alpha: int = 16
    steps: int = 64
    batch: int = 32
    rate: float = 0.2
    max_gradient_norm: float = 1.0
    noise_multiplier: float = 1.0
    example_delta: str = "1e-5"
    epsilon: str = "8"
    delta: str = "1e-5"
    min_contributors: int = 54
    max_corrupt: int = 6

    def of_base(self) -> train_adapters.Settings:
        """What ``train_adapters`` needs to build and measure the base."""
        return train_adapters.Settings(
            seed=self.seed,
            hidden=self.hidden,
            intermediate=self.intermediate,
            layers=self.layers,
            context=self.context,
            base_steps=self.base_steps,
            base_rate=4e-3,
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What training cost each example: epsilon at the delta that was asked for, and the order it was found at."""

    epsilon: float
    order: float


def build_base(settings: Settings) -> LlamaForCausalLM:
    """A byte-level Llama pre-trained from the seed on docstrings and comments."""
    common = train_adapters.read_text(train_adapters.BASE_MODULES, set())
    base, _ = train_adapters.build_base(common, settings.of_base())
    base.config.name_or_path = BASE_NAME
    return base.eval()


def empty_base(settings: Settings) -> LlamaForCausalLM:
    """A model of the base's shape and name that has learnt nothing."""
    base = LlamaForCausalLM(train_adapters.base_config(settings.of_base()))
    base.config.name_or_path = BASE_NAME
    return base.eval()


def new_adapter(base: LlamaForCausalLM, settings: Settings) -> PeftModel:
    """The base with the adapter that everybody starts from: rank 1 on the down projections, one A, B = 0."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=BASE_NAME,
        r=1,
        lora_alpha=settings.alpha,
        target_modules=["down_proj"],
    )
    torch.manual_seed(settings.seed + 1)
    return get_peft_model(train_adapters.copy_base(base), config)


def train_privately(base: LlamaForCausalLM, windows: Tensor, settings: Settings) -> tuple[PeftModel, Spent]:
    """An adapter trained with DP-SGD on windows, (examples, context + 1): one window is one example."""
    model = new_adapter(base, settings).train()
    # The start is everybody's; from here on, who knew the seed would know the noise.
    torch.seed()
    parameters = [p for p in model.parameters() if p.requires_grad]
    engine = PrivacyEngine(accountant="rdp")
    private, optimizer, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(parameters, lr=settings.rate),
        data_loader=DataLoader(TensorDataset(windows), batch_size=settings.batch),
        noise_multiplier=settings.noise_multiplier,
        max_grad_norm=settings.max_gradient_norm,
        poisson_sampling=True,
    )
    batches = (batch for _ in itertools.count() for (batch,) in loader)
    for batch in itertools.islice(batches, settings.steps):
        optimizer.zero_grad()
        train_adapters.loss_of(private, batch).backward()
        optimizer.step()
    epsilon, order = engine.accountant.get_privacy_spent(delta=float(settings.example_delta), alphas=ORDERS)
    return model.eval(), Spent(epsilon, order)


@dataclass(frozen=True, slots=True)
class Job:
    """What the process of one contributor is told: where the base is, what to train on, where to write."""

    base: Path
    windows: npt.NDArray[np.int64]
    directory: Path
    settings: Settings


def work(job: Job) -> Spent:
    """Train one adapter and write it as PEFT does."""
    torch.set_num_threads(1)
    base = empty_base(job.settings)
    load_model(base, job.base)
    model, spent = train_privately(base, torch.from_numpy(job.windows), job.settings)
    train_adapters.write_adapter(model, torch.float32, job.directory)
    return spent


def train_all(jobs: Sequence[Job], workers: int) -> list[Spent]:
    """Train the adapters in so many processes at once; one worker is this process."""
    if workers == 1:
        return [work(job) for job in jobs]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        return list(pool.map(work, jobs))


@torch.no_grad()
def losses(model: nn.Module, held_out: Tensor) -> npt.NDArray[np.float64]:
    """The mean loss over each party's windows: from (parties, windows, context + 1) to (parties,)."""
    found = []
    for windows in held_out.flatten(0, 1).split(256):
        logits = model(input_ids=windows[:, :-1]).logits.float()
        found.append(nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none").mean(1))
    return torch.cat(found).view(held_out.shape[:2]).mean(1).double().numpy()


def with_tensors(base: LlamaForCausalLM, settings: Settings, tensors: Mapping[str, Tensor]) -> PeftModel:
    """The base with an adapter of these tensors."""
    model = new_adapter(base, settings)
    set_peft_model_state_dict(model, dict(tensors))
    return model.eval()
