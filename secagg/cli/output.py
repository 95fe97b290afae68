"""Where a command's words go: results to stdout, progress to stderr, as text or as JSON.

With ``--format json`` a result is exactly one JSON object on stdout (commands that stream write one a line), and
each line of stderr is one JSON object too: ``{"progress": TEXT or OBJECT}`` or ``{"error": {...}}``. Where stderr is a
terminal, progress is for the person who looks at it, in any format.
"""

from __future__ import annotations

import argparse
import enum
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Rows = Sequence[tuple[str, str]]
"""Labels and values, to be shown as an aligned table."""


class OutputFormat(enum.StrEnum):
    """``--format``."""

    TEXT = "text"
    JSON = "json"


class Reporter:
    """Writes what one command has to say."""

    def __init__(self, output_format: OutputFormat) -> None:
        self.format = output_format

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Reporter:
        """The reporter that ``--format`` asks for."""
        return cls(OutputFormat(arguments.format))

    def result(self, value: Mapping[str, Any], text: str) -> None:
        """Write the result: ``value`` as one JSON object, or ``text``."""
        print(_one_line(value) if self.format is OutputFormat.JSON else printable(text), flush=True)

    def progress(self, text: str) -> None:
        """Say that a step was done."""
        if self._console is not None:
            self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        elif self.format is OutputFormat.JSON:
            print(_one_line({"progress": text}), file=sys.stderr, flush=True)
        else:
            print(printable(text), file=sys.stderr, flush=True)

    def details(self, rows: Rows) -> None:
        """Show a table to whoever follows the progress."""
        if self.format is OutputFormat.JSON and self._console is None:
            print(_one_line({"progress": dict(rows)}), file=sys.stderr, flush=True)
        else:
            self.progress(table(rows))

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show that the block is at work, where somebody looks at a terminal."""
        if self._console is None:
            yield
            return
        with self._console.status(printable(text)):
            yield

    def error(self, kind: str, reason: str, message: str) -> None:
        """Write one error line to stderr."""
        if self.format is OutputFormat.JSON:
            print(_one_line({"error": {"kind": kind, "reason": reason, "message": message}}), file=sys.stderr)
        else:
            print(f"secagg: error: {printable(message)}", file=sys.stderr)

    @cached_property
    def _console(self) -> Console | None:
        if not sys.stderr.isatty():
            return None
        from rich.console import Console

        return Console(stderr=True)


def now_and_then(say: Callable[[str], None], now_s: Callable[[], int], every_s: int = 5) -> Callable[[str], None]:
    """Pass on what is said, but not more often than every so many seconds: nothing of what is done at once."""
    last_s = now_s()

    def heard(text: str) -> None:
        nonlocal last_s
        if now_s() - last_s >= every_s:
            last_s = now_s()
            say(text)

    return heard


def table(rows: Rows) -> str:
    """Rows as text: labels aligned, a line of a value that has several below its first."""
    width = max((len(label) for label, _ in rows), default=0) + 2
    lines = []
    for label, value in rows:
        first, *rest = value.split("\n")
        lines.append(f"{label:<{width}}{first}")
        lines.extend(" " * width + line for line in rest)
    return "\n".join(lines)


def printable(text: str) -> str:
    """``text`` without what could steer a terminal: peers choose parts of what is shown."""
    return "".join(letter if letter == "\n" or letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _one_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
