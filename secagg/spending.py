"""What a contributor spends of its own budget: a ledger of its own, which no coordinator writes.

The coordinator is the adversary, so its word that a budget is kept is worth nothing to a contributor. What a session
may cost follows from the open entry, with the fewest honest contributors that it can have; that is written down before
the session is joined, and stands if anything goes wrong later.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dp.charge import epsilon_of
from dp.errors import ParameterError
from dp.ledger import (
    BudgetExhaustedError,
    Ledger,
    LedgerError,
    LedgerRolledBackError,
    LedgerStateError,
    SessionState,
)
from dp.ledger_book import composed
from secagg.identity.errors import ConfigError
from secagg.privacy.session_noise import mechanism_of
from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.session import PrivacyAllowance
from secagg.runtime.ports import StaleStoreError, StoreError
from secagg.transcript.entries import SessionOpen

LEDGER_FILE = "budget.db"
POPULATION = "own"


class StaleBudgetError(StaleStoreError):
    """The ledger is an older copy than the one that was here, or lost."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What a session costs a contributor at most, and what that leaves; all epsilons at the allowance's delta.

    ``before`` and ``after`` are what is spent without and with this session: less than the sum of single costs.
    """

    session: float
    before: float
    after: float
    allowance: PrivacyAllowance


class OwnBudget:
    """The ledger of one identity. Close it with ``with``."""

    def __init__(self, directory: Path, allowance: PrivacyAllowance) -> None:
        """Open it in the directory where this identity keeps its state.

        Raises:
            ConfigError: it has another budget, and a budget is never changed.
            StaleBudgetError: it was restored from an old copy, or one of its files was taken away.
            StoreError: it cannot be read or written.
        """
        self.allowance = allowance
        with _store_errors():
            self._ledger = Ledger.open(directory / LEDGER_FILE)
            try:
                self._ledger.create(POPULATION, allowance.epsilon, allowance.delta)
            except LedgerStateError as error:
                fix = "set it to that, or take another state directory, where nothing that was spent is known"
                raise ConfigError("budget", f"{error}: {fix}") from None

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spending(self, parameters: SessionOpen) -> Spending:
        """What ``parameters`` cost, whether or not the budget allows it; what they did cost, where that is settled."""
        with _store_errors():
            sessions = [
                each for each in self._ledger.state(POPULATION).sessions if each.state is not SessionState.CANCELLED
            ]
        known = [each.mechanism for each in sessions if each.session == parameters.session]
        charge = known[0].charge() if known else mechanism_of(parameters).charge()
        others = composed(each.mechanism for each in sessions if each.session != parameters.session)
        delta = self.allowance.delta
        session, before, after = (epsilon_of(each, delta).epsilon for each in (charge, others, others + charge))
        return Spending(session, before, after, self.allowance)

    def knows(self, parameters: SessionOpen) -> bool:
        """Whether the session was written down before and counts."""
        with _store_errors():
            state = self._ledger.session_state(POPULATION, parameters.session)
        return state not in {None, SessionState.CANCELLED}

    def has_entry(self, session: bytes) -> bool:
        """Whether the session was ever written down, whatever became of it."""
        with _store_errors():
            return self._ledger.session_state(POPULATION, session) is not None

    def reserve(self, parameters: SessionOpen) -> None:
        """Write down what the session may cost; again without effect.

        Raises:
            LocalProtocolError: BELOW_POLICY; the budget does not allow it.
            StoreError: it could not be written.
        """
        try:
            with _store_errors():
                self._ledger.reserve(POPULATION, parameters.session, mechanism_of(parameters))
        except BudgetExhaustedError as error:
            raise LocalProtocolError(RejectReason.BELOW_POLICY, f"budget: {error}") from None

    def settle(self, parameters: SessionOpen, survivors: int) -> None:
        """Lower the charge to that of so many contributions, which this client itself answered over."""
        with _store_errors():
            self._ledger.settle(POPULATION, parameters.session, mechanism_of(parameters, survivors))

    def cancel(self, parameters: SessionOpen) -> None:
        """Take the charge back: no masked input left this client."""
        with _store_errors():
            self._ledger.cancel(POPULATION, parameters.session, "left before the input was masked")


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except BudgetExhaustedError:
        raise
    except LedgerRolledBackError as error:
        raise StaleBudgetError(f"the budget's ledger: {error}") from None
    except (LedgerError, ParameterError) as error:
        raise StoreError(f"the budget's ledger: {error}") from None
