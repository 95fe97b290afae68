"""The errors of the arithmetic floor: bad inputs, secrets that cannot be reconstructed, sums not certified."""

from typing import Literal


class ArithmeticInputError(ValueError):
    """An argument or a decoded value is outside what the arithmetic is defined for.

    Attributes:
        field: name of the argument or of the part of a decoded value that is wrong.
        reason: what is wrong with it, for a reader; never contains a secret.
    """

    def __init__(self, field: str, reason: str) -> None:
        """Builds the error; the message is `field: reason`."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type["ArithmeticInputError"], tuple[str, str]]:
        return type(self), (self.field, self.reason)


class ReconstructionError(ValueError):
    """No polynomial of low enough degree through the given shares yields an accepted secret.

    Attributes:
        candidates: how many candidate secrets were shown to the acceptance check.
    """

    def __init__(self, candidates: int) -> None:
        """Builds the error from the number of candidates that were tried."""
        super().__init__(f"shares: none of {candidates} candidate secrets was accepted")
        self.candidates = candidates

    def __reduce__(self) -> tuple[type["ReconstructionError"], tuple[int]]:
        return type(self), (self.candidates,)


class CertificationError(ValueError):
    """A secret does not open the sum it is said to open: one of the two conditions on it fails.

    Attributes:
        condition: `secret` when coefficients of it are too large, `remainder` when what it leaves of the sum is
            not small everywhere.
        failing: how many coefficients, or lanes, fail.
        limit: the largest magnitude that passes.
        reason: the same for a reader; never contains a secret.
    """

    def __init__(self, condition: Literal["secret", "remainder"], failing: int, limit: int) -> None:
        """Builds the error.

        Args:
            condition: which one fails.
            failing: in how many coefficients or lanes.
            limit: the largest magnitude that would have passed.
        """
        where = "coefficients of the secret are" if condition == "secret" else "lanes leave a remainder"
        self.reason = f"{failing} {where} beyond {limit} in magnitude"
        super().__init__(f"{condition}: {self.reason}")
        self.condition = condition
        self.failing = failing
        self.limit = limit

    def __reduce__(self) -> tuple[type["CertificationError"], tuple[Literal["secret", "remainder"], int, int]]:
        return type(self), (self.condition, self.failing, self.limit)
