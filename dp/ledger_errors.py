"""What a ledger refuses, and what can be wrong with it."""

from __future__ import annotations

from fractions import Fraction

from dp.errors import PrivacyError


class LedgerError(PrivacyError):
    """Base of all errors of a ledger."""


class LedgerStateError(LedgerError):
    """What is asked does not fit what the ledger holds: an unknown session, or one that is settled or cancelled."""


class LedgerStorageError(LedgerError):
    """The disk or SQLite refuses; what was asked may have become durable, and asking again is safe."""


class LedgerCorruptError(LedgerError):
    """The stored events are not what this package wrote."""


class LedgerRolledBackError(LedgerError):
    """The database does not hold an event that it had held before: an older copy, or another ledger."""


class BudgetExhaustedError(LedgerError):
    """A session that the budget has no room for; nothing was reserved.

    Attributes:
        population: whose budget it is.
        budget: the epsilon that was agreed.
        spent: epsilon of what is reserved and settled, without this session; rounded up.
        cost: epsilon of this session alone, at the budget's delta; inf when it has no noise.
        total: what would have been spent with it; not ``spent + cost``, since RDP adds up and epsilon does not.
        fits: how many such sessions the whole budget holds, had nothing been spent.
    """

    def __init__(self, population: str, budget: Fraction, spent: float, cost: float, total: float, fits: int) -> None:
        super().__init__(
            f"population {population}: the session costs epsilon {cost:.4g} by itself and would bring what is spent "
            f"from {spent:.4g} to {total:.4g}; the budget is {float(budget):.4g}, so {float(budget) - spent:.4g} is "
            f"left and no further session of this cost fits (the whole budget holds {fits} of them)"
        )
        self.population = population
        self.budget = budget
        self.spent = spent
        self.cost = cost
        self.total = total
        self.fits = fits
