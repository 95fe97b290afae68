"""The text: docstrings for the base, and for each contributor functions of the standard library that nobody else has.

The base learns docstrings and comments, contributors Python code without either, so there is something to learn that
they have in common and the base does not. Nothing is downloaded.
"""

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from train_adapters import HELD_OUT_EVERY, to_tokens

SHORTEST_CHARS = 80
LEFT_OUT = frozenset({"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Share:
    """What one party has: windows of tokens, (examples, context + 1), and as many columns held out of training."""

    train: Tensor
    held_out: Tensor


@dataclass(frozen=True, slots=True)
class ShareSize:
    """Windows of ``width`` tokens to train on, and held out."""

    train: int
    held_out: int
    width: int


def code(path: Path) -> Iterator[str]:
    """The functions and methods of a source file, without docstrings and comments."""
    try:
        module = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # lib2to3 and others keep files that no Python 3 reads
        return
    for outer in module.body:
        for node in [outer, *(outer.body if isinstance(outer, ast.ClassDef) else [])]:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if ast.get_docstring(node, clean=False) is not None:
                    node.body = node.body[1:] or [ast.Pass()]
                yield ast.unparse(node)


def functions() -> Iterator[str]:
    """Functions of the standard library, by path, each once."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    for path in sorted(stdlib.rglob("*.py")):
        if LEFT_OUT & set(path.relative_to(stdlib).parts):
            continue
        for text in code(path):
            if len(text) >= SHORTEST_CHARS and text not in seen:
                seen.add(text)
                yield text


def read_shares(count: int, size: ShareSize) -> list[Share]:
    """So many shares of one size; no function is in two of them, or both trained on and held out."""
    source = functions()
    return [_read_share(source, size) for _ in range(count)]


def _read_share(source: Iterator[str], size: ShareSize) -> Share:
    train: list[Tensor] = []
    held_out: list[Tensor] = []
    missing = [size.train * size.width, size.held_out * size.width]
    for number, text in enumerate(source, 1):
        tokens = to_tokens([text])
        held = number % HELD_OUT_EVERY == 0
        (held_out if held else train).append(tokens)
        missing[held] -= len(tokens)
        if max(missing) <= 0:
            return Share(_windows(train, size.train, size.width), _windows(held_out, size.held_out, size.width))
    raise ValueError("this Python's standard library has too little code for so many contributors")


def _windows(parts: list[Tensor], count: int, width: int) -> Tensor:
    return torch.cat(parts)[: count * width].view(count, width)
