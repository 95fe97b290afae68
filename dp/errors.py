"""What goes wrong in this package: every error names the value and the reason."""

from __future__ import annotations


class PrivacyError(Exception):
    """Base of all errors of this package."""


class ParameterError(PrivacyError, ValueError):
    """A value from which nothing sound can be computed.

    Attributes:
        field: the name of the value.
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
