"""Why an adapter, a layout or a template is refused.

A refusal is local: the reason names ranks, shapes and positions of one person's adapter, so it is shown
to that person and never sent to a coordinator.
"""

from __future__ import annotations

import enum
import reprlib

_SHOWN_CHARACTERS = 300

# Values come out of foreign files: the plain repr of a deeply nested list raises RecursionError.
_BOUNDED = reprlib.Repr()
_BOUNDED.maxlevel = 3
_BOUNDED.maxstring = _BOUNDED.maxother = _BOUNDED.maxlong = 120
_BOUNDED.maxlist = _BOUNDED.maxtuple = _BOUNDED.maxdict = 12


class AdapterRejectReason(enum.Enum):
    """Why something was refused; the value is the text for logs and tests."""

    MISSING_FILE = "missing file"
    UNSAFE_FILE = "unsafe file"
    UNREADABLE_FILE = "unreadable file"
    MALFORMED_FILE = "malformed file"
    TOO_LARGE = "too large"
    BAD_CONFIG = "bad config"
    BAD_LAYOUT = "bad layout"
    BAD_TEMPLATE = "bad template"
    BAD_VECTOR = "bad vector"
    UNSUPPORTED_VARIANT = "unsupported variant"
    MUTATED_BASE = "mutated base"
    UNEXPECTED_TENSOR = "unexpected tensor"
    MISSING_TENSOR = "missing tensor"
    WRONG_DTYPE = "wrong dtype"
    WRONG_SHAPE = "wrong shape"
    NON_FINITE = "value not finite"
    RANK_MISMATCH = "rank mismatch"
    SCALING_MISMATCH = "scaling mismatch"
    CONFIG_MISMATCH = "config mismatch"
    BASE_MODEL_MISMATCH = "base model mismatch"
    OTHER_START = "another start"
    BAD_FIXED_TENSORS = "bad fixed tensors"
    CONCENTRATED = "too concentrated"


class AdapterError(ValueError):
    """Something about an adapter is refused.

    Attributes:
        reason: why.
        tensor: the tensor it is about, or None.
        field: the file, config field or JSON path it is about, or None.
        found: what was there, shortened, or None.
        expected: what is accepted there, or None.
        fix: what the owner of the adapter can do about it, or None.
    """

    def __init__(
        self,
        reason: AdapterRejectReason,
        *,
        tensor: str | None = None,
        field: str | None = None,
        found: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        self.reason = reason
        self.tensor = tensor
        self.field = _shown(field)
        self.found = _shown(found)
        self.expected = _shown(expected)
        self.fix = _shown(fix)
        super().__init__(self._message())

    def _message(self) -> str:
        where = [] if self.field is None else [self.field]
        if self.tensor is not None:
            where.append(f"tensor {quoted(self.tensor)}")
        values = [] if self.found is None else [f"found {self.found}"]
        if self.expected is not None:
            values.append(f"expected {self.expected}")
        parts = [self.reason.value, ", ".join(where), ", ".join(values)]
        text = ": ".join(part for part in parts if part)
        return text if self.fix is None else f"{text}. Fix: {self.fix}"


def quoted(value: object) -> str:
    """The repr of a value from a foreign file, of bounded length and depth."""
    return _BOUNDED.repr(value)


def _shown(value: object) -> str | None:
    """Text of bounded length that is safe to print; a string is taken as it is."""
    if value is None:
        return None
    text = value if isinstance(value, str) else quoted(value)
    if not text.isprintable():
        text = ascii(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
