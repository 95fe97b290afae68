"""What a privacy parameter may be: checks that name the value they refuse."""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd

from dp.errors import ParameterError

# Far beyond anything a mechanism is run with, and far inside what fp64 squares without overflow.
_LARGEST = Fraction(1 << 128)
_SMALLEST = 1 / _LARGEST
# Exact arithmetic on a parameter stays cheap, and its text short.
_MOST_BITS = 1024
_FRACTION = re.compile(r"(0|[1-9][0-9]*)/([1-9][0-9]*)")
_MOST_CHARACTERS = 640


def check_integer(field: str, value: int, least: int, most: int) -> None:
    """Refuses what is not an integer from `least` to `most`.

    Raises:
        ParameterError: naming `field`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ParameterError(field, f"must be an integer, got {type(value).__name__}")
    if not least <= value <= most:
        raise ParameterError(field, f"must be {least} to {most}, got {value if abs(value) < 1 << 128 else 'far more'}")


def check_fraction(field: str, value: Fraction) -> None:
    """Refuses what is not a Fraction, is negative, or has more than 1024 bits above or below the line.

    Raises:
        ParameterError: naming `field`.
    """
    if not isinstance(value, Fraction):
        raise ParameterError(field, f"must be a Fraction, got {type(value).__name__}")
    if value < 0:
        raise ParameterError(field, "must not be negative")
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise ParameterError(field, f"must have at most {_MOST_BITS} bits above and below the line")


def check_positive(field: str, value: Fraction) -> None:
    """Refuses what is not a Fraction from 2^-128 to 2^128.

    Raises:
        ParameterError: naming `field`.
    """
    check_fraction(field, value)
    if value == 0:
        raise ParameterError(field, "must be positive")
    if not _SMALLEST <= value <= _LARGEST:
        raise ParameterError(field, "must be between 2^-128 and 2^128")


def fraction_text(value: Fraction) -> str:
    """The one text of a fraction: `n/d` in lowest terms, also when `d` is 1."""
    return f"{value.numerator}/{value.denominator}"


def fraction_from_text(field: str, text: object) -> Fraction:
    """Reads what `fraction_text` writes, and nothing else.

    Raises:
        ParameterError: naming `field`.
    """
    found = _FRACTION.fullmatch(text) if isinstance(text, str) and len(text) <= _MOST_CHARACTERS else None
    if found is None:
        raise ParameterError(field, "must be a text like 3/2, in decimal digits without leading zeros")
    numerator, denominator = int(found[1]), int(found[2])
    if gcd(numerator, denominator) != 1:
        raise ParameterError(field, "must be in lowest terms")
    return Fraction(numerator, denominator)
