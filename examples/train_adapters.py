"""Train the eight LoRA adapters that are shipped in examples/adapters.

    python examples/train_adapters.py --out DIR

A small byte-level Llama is built from a seed and pre-trained on text common to all. Then each of eight
contributors trains an adapter with PEFT on text that nobody else has. All start from one A and B = 0, with
one rank, so a plain mean of the factors is meaningful. Nothing is downloaded: the text is the docstrings and
comments of Python's own standard library, read from its sources where the script runs.

The same Python, torch, kind of processor and --threads give the same files. Needs the extra `train`. Where
other programs keep the cores busy, OMP_WAIT_POLICY=PASSIVE in the environment is several times faster.
"""

import argparse
import ast
import hashlib
import json
import os
import platform
import sysconfig
import time
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the imports that read it: no model hub is ever asked

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

BASE_NAME = "secagg-example-base"
BLOCK_TOKEN, PAD_TOKEN, VOCABULARY = 256, 257, 258  # ids below are bytes of UTF-8 text
MIN_BLOCK_CHARS = 40
HELD_OUT_EVERY = 8  # every 8th block of a text is never trained on
TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")

# Modules and packages of the standard library. Packages stand for all their sources but tests.
BASE_MODULES = (
    "_pyio", "ast", "bdb", "codecs", "collections", "contextlib", "dataclasses", "datetime", "difflib",
    "doctest", "enum", "functools", "heapq", "html", "http", "importlib", "inspect", "ipaddress", "locale",
    "mailbox", "os", "pdb", "pickle", "pickletools", "platform", "profile", "pydoc", "re", "shutil",
    "smtplib", "socket", "socketserver", "ssl", "string", "subprocess", "tarfile", "tempfile", "textwrap",
    "traceback", "types", "typing", "urllib", "uuid", "weakref", "wsgiref", "xmlrpc", "zipfile",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contributor:
    """Who trains on what, and the dtype of the tensors on disk."""

    topic: str
    modules: tuple[str, ...]
    dtype: torch.dtype = torch.float32


CONTRIBUTORS = (
    Contributor("asynchronous input and output", ("asyncio",)),
    Contributor("electronic mail", ("email",)),
    Contributor("testing", ("unittest",), torch.float16),
    Contributor("XML", ("xml",)),
    Contributor("logging", ("logging",)),
    Contributor("processes and threads", ("multiprocessing", "concurrent", "threading"), torch.bfloat16),
    Contributor("settings and data", ("json", "csv", "configparser", "argparse", "optparse", "plistlib")),
    Contributor("numbers", ("_pydecimal", "fractions", "statistics", "random")),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes and steps; a step is one batch of `batch` windows of `context` tokens."""

    seed: int = 20
    hidden: int = 128
    intermediate: int = 384
    layers: int = 4
    heads: int = 4
    context: int = 128
    batch: int = 16
    base_steps: int = 1100
    base_rate: float = 3e-3
    rank: int = 4
    alpha: int = 8
    adapter_steps: int = 160
    # B learns faster than A (LoRA+: Hayou, Ghosh and Yu, ICML 2024); this also keeps A near its start.
    rate_a: float = 3e-4
    rate_b: float = 3e-3
    evaluation_windows: int = 96


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens to train on and tokens held out, each a 1-d int64 tensor."""

    train: Tensor
    held_out: Tensor


def source_files(module: str, stdlib: Path) -> list[Path]:
    """The source files of a standard-library module or package, tests left out, sorted by path."""
    single = stdlib / f"{module}.py"
    files = [single] if single.is_file() else []
    for path in sorted((stdlib / module).rglob("*.py")):
        if not {"test", "tests", "__pycache__"} & set(path.relative_to(stdlib).parts):
            files.append(path)
    if not files:
        raise FileNotFoundError(f"this Python has no sources of {module!r} in its standard library")
    return files


def prose(path: Path) -> Iterator[str]:
    """The docstrings of a source file, then its comments, lines that follow each other joined."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    lines: list[str] = []
    last_row = -1
    with path.open("rb") as handle:
        for token in tokenize.tokenize(handle.readline):
            if token.type != tokenize.COMMENT:
                continue
            if token.start[0] != last_row + 1:
                yield "\n".join(lines)
                lines = []
            lines.append(token.string.lstrip("#!").strip())
            last_row = token.start[0]
    yield "\n".join(lines)


def to_tokens(blocks: list[str]) -> Tensor:
    """Blocks as bytes, each after a block token."""
    return torch.tensor([token for block in blocks for token in (BLOCK_TOKEN, *block.encode())])


def read_text(modules: tuple[str, ...], seen: set[str]) -> Text:
    """The text of some modules; blocks in `seen` are left out, and those used are added to it."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    blocks = []
    for module in modules:
        for path in source_files(module, stdlib):
            for block in map(str.strip, prose(path)):
                if len(block) >= MIN_BLOCK_CHARS and block not in seen:
                    seen.add(block)
                    blocks.append(block)
    held_out = blocks[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    train = [block for i, block in enumerate(blocks, 1) if i % HELD_OUT_EVERY]
    return Text(to_tokens(train), to_tokens(held_out))


def base_config(settings: Settings) -> LlamaConfig:
    """The architecture of the base."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=BLOCK_TOKEN,
        eos_token_id=BLOCK_TOKEN,
        pad_token_id=PAD_TOKEN,
        use_cache=False,
        name_or_path=BASE_NAME,
    )


def loss_of(model: nn.Module, windows: Tensor) -> Tensor:
    """Mean cross-entropy in nats per byte over windows of shape (batch, context + 1)."""
    logits = model(input_ids=windows[:, :-1]).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


@torch.no_grad()
def evaluate(model: nn.Module, tokens: Tensor, settings: Settings) -> float:
    """Loss over windows spread evenly over `tokens`, in nats per byte."""
    model.eval()
    width = settings.context + 1
    windows = tokens[: len(tokens) // width * width].view(-1, width)
    count = min(len(windows), settings.evaluation_windows)
    windows = windows[torch.arange(count) * len(windows) // count]
    losses = [loss_of(model, part) * len(part) for part in windows.split(settings.batch)]
    return float(torch.stack(losses).sum() / count)


def fit(
    model: nn.Module, groups: list[dict[str, Any]], tokens: Tensor, settings: Settings, steps: int, seed: int
) -> list[float]:
    """Train on random windows with AdamW, warm-up and cosine decay; the loss of each step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=steps + 1, pct_start=0.1
    )
    offsets = torch.arange(settings.context + 1)
    model.train()
    losses = []
    for step in range(1, steps + 1):
        starts = torch.randint(len(tokens) - settings.context, (settings.batch, 1), generator=generator)
        loss = loss_of(model, tokens[starts + offsets])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimizer.step()
        rates.step()
        losses.append(float(loss.detach()))
        if step % 100 == 0 or step == steps:
            print(f"  step {step}/{steps}, loss {losses[-1]:.3f}", flush=True)
    return losses


def build_base(text: Text, settings: Settings) -> tuple[LlamaForCausalLM, list[float]]:
    """The pre-trained base and the loss of each step."""
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(base_config(settings))
    groups = [{"params": list(model.parameters()), "lr": settings.base_rate}]
    return model, fit(model, groups, text.train, settings, settings.base_steps, settings.seed)


def copy_base(base: LlamaForCausalLM) -> LlamaForCausalLM:
    """A fresh model with the base's weights, because PEFT changes the model it is given."""
    model = LlamaForCausalLM(base.config)
    model.load_state_dict(base.state_dict())
    return model


def new_adapter(base: LlamaForCausalLM, settings: Settings) -> PeftModel:
    """The base with the adapter that everybody starts from: one A from the seed, B = 0."""
    return start_adapter(base, settings.seed + 1, r=settings.rank, lora_alpha=settings.alpha)


def start_adapter(base: LlamaForCausalLM, seed: int, **lora: int) -> PeftModel:
    """The base with an adapter of A from the seed and B = 0; ``lora`` is what its config says beside the targets."""
    model = copy_base(base)
    config = LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path=BASE_NAME, target_modules=list(TARGETS), **lora)
    torch.manual_seed(seed)
    return get_peft_model(model, config)


def tensors_of(model: PeftModel) -> dict[str, Tensor]:
    """A copy of the adapter's tensors under the names they have on disk."""
    # PEFT's default here asks the model hub whether the vocabulary was changed.
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensors[name].detach().clone() for name in sorted(tensors)}


def train_adapter(base: LlamaForCausalLM, text: Text, settings: Settings, number: int) -> tuple[PeftModel, list[float]]:
    """Contributor `number`'s trained adapter and the loss of each step."""
    model = new_adapter(base, settings)
    return model, fit_adapter(model, text, settings, number)


def fit_adapter(model: PeftModel, text: Text, settings: Settings, number: int) -> list[float]:
    """Train the adapter of contributor `number`; the loss of each step."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if ".lora_A." in name], "lr": settings.rate_a},
        {"params": [p for name, p in named if ".lora_B." in name], "lr": settings.rate_b},
    ]
    return fit(model, groups, text.train, settings, settings.adapter_steps, settings.seed + 1 + number)


def write_adapter(model: PeftModel, dtype: torch.dtype, directory: Path) -> None:
    """Write the two files of a PEFT adapter, the same bytes whenever the values are the same."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in tensors_of(model).items()}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.inference_mode = True  # as PEFT does when it saves
    config.save_pretrained(str(directory))
    path = directory / "adapter_config.json"
    values = json.loads(path.read_text())
    values["target_modules"] = sorted(values["target_modules"])  # a set: its order changes from run to run
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def load_adapter(base: LlamaForCausalLM, directory: Path) -> PeftModel:
    """The base with the adapter of a directory, as any reader would load it."""
    return PeftModel.from_pretrained(copy_base(base), str(directory))


def mean_adapter(base: LlamaForCausalLM, directories: list[Path], settings: Settings) -> PeftModel:
    """The base with the plain mean of the factors, which is what the service computes."""
    model = new_adapter(base, settings)
    loaded = [load_file(directory / "adapter_model.safetensors") for directory in directories]
    mean = {name: torch.stack([t[name].double() for t in loaded]).mean(0).float() for name in loaded[0]}
    set_peft_model_state_dict(model, mean)
    return model


def factors(tensors: Mapping[str, Tensor], mark: str) -> Tensor:
    """All values of the tensors with `mark` in their name, names sorted, as one fp32 vector."""
    return torch.cat([tensors[name].float().flatten() for name in sorted(tensors) if mark in name])


def measures(start: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, Any]:
    """Where an adapter started and how far it has moved."""
    a0, a, b = factors(start, ".lora_A."), factors(trained, ".lora_A."), factors(trained, ".lora_B.")
    return {
        "initial_a_sha256": hashlib.sha256(a0.numpy().tobytes()).hexdigest(),
        "a_cosine_with_start": round(float(nn.functional.cosine_similarity(a, a0, dim=0)), 4),
        "b_root_mean_square": round(float(b.square().mean().sqrt()), 5),
        "l2_norm": round(float(torch.cat([a, b]).norm()), 4),
    }


def table(report: Mapping[str, Any]) -> str:
    """The rows of the table in README.md, the common text last; a test holds the two together."""
    rows = [
        f"| {row['contributor']} | {row['topic']}: `{' '.join(row['modules'])}` | {row['dtype']}"
        f" | {row['loss_base']:.3f} | {row['loss_adapter']:.3f} | {row['loss_mean_adapter']:.3f} |"
        for row in report["contributors"]
    ]
    base = report["base"]
    common = f"| | the base's own text | | {base['loss_base']:.3f} | | {base['loss_mean_adapter']:.3f} |"
    return "\n".join([*rows, common])


def contribute(base: LlamaForCausalLM, text: Text, settings: Settings, number: int, directory: Path) -> dict[str, Any]:
    """Train, write, load again and measure contributor `number`'s adapter."""
    contributor = CONTRIBUTORS[number - 1]
    print(f"contributor {number}: {contributor.topic}, {len(text.train)} tokens", flush=True)
    model, _ = train_adapter(base, text, settings, number)
    write_adapter(model, contributor.dtype, directory)
    written = load_adapter(base, directory)
    row = {
        "contributor": number,
        "topic": contributor.topic,
        "modules": list(contributor.modules),
        "dtype": str(contributor.dtype).removeprefix("torch."),
        "train_tokens": len(text.train),
        "held_out_tokens": len(text.held_out),
        **measures(tensors_of(new_adapter(base, settings)), tensors_of(written)),
        "loss_base": round(evaluate(base, text.held_out, settings), 4),
        "loss_adapter": round(evaluate(written, text.held_out, settings), 4),
    }
    print(f"  held-out loss {row['loss_base']} -> {row['loss_adapter']}", flush=True)
    return row


def run(out: Path, settings: Settings) -> dict[str, Any]:
    """Train everything and write it below `out`; what training.json holds."""
    torch.use_deterministic_algorithms(mode=True)
    seen: set[str] = set()
    common = read_text(BASE_MODULES, seen)
    texts = [read_text(contributor.modules, seen) for contributor in CONTRIBUTORS]
    print(f"base: {len(common.train)} tokens", flush=True)
    base, _ = build_base(common, settings)
    directories = [out / str(number) for number in range(1, len(CONTRIBUTORS) + 1)]
    rows = [
        contribute(base, text, settings, number, directory)
        for number, (text, directory) in enumerate(zip(texts, directories, strict=True), 1)
    ]
    mean = mean_adapter(base, directories, settings)
    for row, text in zip(rows, texts, strict=True):
        row["loss_mean_adapter"] = round(evaluate(mean, text.held_out, settings), 4)
    report = {
        "base": {
            "name": BASE_NAME,
            "parameters": base.num_parameters(),
            "modules": list(BASE_MODULES),
            "train_tokens": len(common.train),
            "held_out_tokens": len(common.held_out),
            "loss_base": round(evaluate(base, common.held_out, settings), 4),
            "loss_mean_adapter": round(evaluate(mean, common.held_out, settings), 4),
        },
        "adapter_parameters": sum(t.numel() for t in tensors_of(mean).values()),
        "contributors": rows,
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
    parser = argparse.ArgumentParser(description="Train the eight example adapters (about five minutes).")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "adapters", help="where to write")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    print(table(run(arguments.out, Settings())))
    print(f"wrote {arguments.out} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
