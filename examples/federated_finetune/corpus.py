"""The text: four kinds that lie on every machine which can run this, and parts of them that one contributor alone has.

The base learns docstrings and comments of Python's standard library (``train_adapters``). The kinds are its code, its
language reference, and the C++ headers and CMake scripts of torch. Nothing is downloaded.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from private_adapters.corpus import functions
from torch import Tensor
from train_adapters import HELD_OUT_EVERY, to_tokens

PIECE_CHARS = 1000
"""No piece that is not the last of its file is shorter."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of text: a name, and its files or entries, each as one string, in a fixed order."""

    name: str
    texts: Callable[[], Iterator[str]]


@dataclass(frozen=True, slots=True)
class KindText:
    """Tokens of one kind: 1-d int64, of each contributor's own part, and held out from everybody."""

    name: str
    parts: tuple[Tensor, ...]
    held_out: Tensor


def _torch_files(below: str, pattern: str) -> Iterator[str]:
    for path in sorted((Path(torch.__file__).parent / below).rglob(pattern)):
        yield path.read_text(encoding="utf-8", errors="replace")


KINDS = (
    Kind("Python code", functions),
    Kind("C++ headers", lambda: _torch_files("include/c10", "*.h")),
    Kind("language reference", lambda: (topics[name] for name in sorted(topics))),
    Kind("CMake scripts", lambda: _torch_files("share/cmake", "*.cmake")),
)


def pieces(texts: Iterator[str]) -> Iterator[str]:
    """Runs of paragraphs of some length, each once: no licence header is in two parts."""
    seen: set[str] = set()
    for text in texts:
        run: list[str] = []
        for paragraph in [*re.split(r"\n\s*\n", text), ""]:
            run.append(paragraph)
            piece = "\n\n".join(run).strip()
            if len(piece) >= PIECE_CHARS or not paragraph:
                if piece and piece not in seen:
                    seen.add(piece)
                    yield piece
                run = []


def read_kind(kind: Kind, parts: int, part_bytes: int) -> KindText:
    """So many parts of one size, one after the other in the kind's order; every eighth piece is held out.

    Raises:
        ValueError: this Python or torch brings too little of the kind.
    """
    trained: list[Tensor] = []
    held_out: list[Tensor] = []
    missing = parts * part_bytes
    for number, piece in enumerate(pieces(kind.texts()), 1):
        tokens = to_tokens([piece])
        if number % HELD_OUT_EVERY == 0:
            held_out.append(tokens)
            continue
        trained.append(tokens)
        missing -= len(tokens)
        if missing <= 0:
            whole = torch.cat(trained)[: parts * part_bytes]
            return KindText(kind.name, tuple(whole.view(parts, part_bytes)), torch.cat(held_out))
    raise ValueError(f"{kind.name}: {missing} bytes too few for {parts} contributors; install torch with its headers")
