"""How values are read from the command line, and how they are written for people and for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any

from dp.errors import ParameterError

STDOUT = "-"

_MOST_DIGITS = 40
_EXPECTED = "expected a number like 8, 0.5, 1e-5 or 17/2"


def number(text: str) -> Fraction:
    """Reads a decimal number or a fraction, exactly.

    Raises:
        argparse.ArgumentTypeError: it is neither, or longer than anybody needs.
    """
    parts = text.split("/")
    if len(parts) > 2:
        raise argparse.ArgumentTypeError(_EXPECTED)
    values = [_decimal(part) for part in parts]
    if len(values) == 2 and values[1] == 0:
        raise argparse.ArgumentTypeError(f"{_EXPECTED}, not a division by zero")
    return values[0] / values[1] if len(values) == 2 else values[0]


def whole(text: str) -> int:
    """Reads an integer, also as `1e6`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    value = number(text)
    if value.denominator != 1:
        raise argparse.ArgumentTypeError("expected an integer like 1000 or 1e6")
    return value.numerator


def _decimal(text: str) -> Fraction:
    try:
        value = Decimal(text) if len(text) <= _MOST_DIGITS and text.isascii() else Decimal("NaN")
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or "_" in text or text != text.strip():
        raise argparse.ArgumentTypeError(_EXPECTED)
    # An exponent makes a number of any length out of a short text.
    if value and abs(value.adjusted()) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{_EXPECTED}, of at most {_MOST_DIGITS} digits")
    return Fraction(value)


def shown(value: Fraction | float) -> str:
    """A number for people: integers as they are, anything else with four significant digits."""
    if isinstance(value, int) or (isinstance(value, Fraction) and value.denominator == 1 and value < 10**15):
        return str(int(value))
    return f"{float(value):.4g}"


def plain(value: Fraction | int) -> float | int:
    """A number for programs: an integer if it is one, else the nearest float."""
    return int(value) if value == int(value) else float(value)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Labels and values, aligned; a line of a value that has several stands below its first."""
    width = max(len(label) for label, _ in rows) + 2
    lines = []
    for label, value in rows:
        first, *rest = value.split("\n")
        lines.append(f"{label:<{width}}{first}")
        lines.extend(" " * width + line for line in rest)
    return "\n".join(lines)


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`."""
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the result as one JSON object to FILE; `-`: to standard output, and nothing else there",
    )


def write(target: str | None, value: Mapping[str, Any], text: str) -> None:
    """Writes a result: the JSON where `--json` asks for it, the text to standard output unless the JSON goes there.

    Raises:
        ParameterError: field `json`: the file cannot be written.
    """
    encoded = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if target == STDOUT:
        sys.stdout.write(encoded)
        return
    if target is not None:
        try:
            Path(target).write_text(encoded, encoding="utf-8")
        except OSError as error:
            raise ParameterError("json", f"{target}: {error.strerror}") from None
    sys.stdout.write(text + "\n")
