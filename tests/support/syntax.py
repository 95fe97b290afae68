"""Reading source code as a tree."""

from __future__ import annotations

import ast
from pathlib import Path

_ATTEMPTS = 10


def syntax_tree(source: Path | str) -> ast.Module:
    """The tree of a module, given its file or its text.

    CPython 3.11 keeps one depth counter for all threads while it builds a tree (gh-106905): a thread that an earlier
    test left behind, and that imports a module meanwhile, upsets it.
    """
    text = source if isinstance(source, str) else source.read_text(encoding="utf-8")
    for _ in range(_ATTEMPTS - 1):
        try:
            return ast.parse(text)
        except SystemError:
            continue
    return ast.parse(text)
