"""Checks of the fields of what a session publishes of adapters: its template, or its manifest."""

from __future__ import annotations

from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted

MAX_TEXT_BYTES = 1024


def refusal(where: str, found: object, expected: str) -> AdapterError:
    """A field that is refused: BAD_TEMPLATE."""
    return AdapterError(AdapterRejectReason.BAD_TEMPLATE, field=where, found=quoted(found), expected=expected)


def check_text(where: str, value: object, shortest: int, longest: int = MAX_TEXT_BYTES) -> None:
    """Do nothing if a value is Unicode text of so many bytes of UTF-8. Raises AdapterError."""
    if not isinstance(value, str):
        raise refusal(where, value, "a string")
    try:
        length_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise refusal(where, value, "Unicode text") from None
    if not shortest <= length_bytes <= longest:
        raise refusal(where, f"{length_bytes} bytes", f"{shortest} to {longest} bytes")


def check_integer(where: str, value: object, least: int, most: int) -> None:
    """Do nothing if a value is an integer within inclusive bounds. Raises AdapterError."""
    # bool is an int for Python, not for the record.
    if type(value) is not int or not least <= value <= most:
        raise refusal(where, value, f"an integer from {least} to {most}")
