"""The errors of the arithmetic floor: bad inputs, and secrets that cannot be reconstructed."""


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
