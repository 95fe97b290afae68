"""What a ledger's events amount to: budgets, sessions, what is spent, and which event may come next.

The same rules hold for an event that is about to be written and for one that is read back, so that whatever breaks
them on the disk is found.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import assert_never

from dp.charge import NO_CHARGE, Charge, Spent, epsilon_of
from dp.errors import ParameterError
from dp.ledger_errors import BudgetExhaustedError, LedgerCorruptError, LedgerStateError
from dp.ledger_events import (
    GENESIS,
    Cancelled,
    Created,
    Event,
    Head,
    Reservation,
    Reserved,
    Restored,
    Settled,
    event_digest,
)
from dp.mechanisms import Mechanism

MAX_FITS = 1 << 20
"""Where counting the sessions that fit ends."""

# What may differ between a mechanism as it was reserved and as it is settled: what depends on who stayed.
_KNOWN_AFTERWARDS = frozenset({"survivors", "variance", "distance"})


class SessionState(enum.StrEnum):
    """What the ledger knows about a session."""

    RESERVED = "reserved"
    SETTLED = "settled"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Entry:
    """A session in the ledger.

    Attributes:
        reserved: the worst case that was reserved.
        charged: what counts now; after a cancellation it counts nothing, whatever stands here.
        participants: the digest of who is charged; None when that is everybody.
        settled_by: number of the event that settled it; None when there is none.
    """

    session: bytes
    reservation: Reservation
    reserved: Mechanism
    charged: Mechanism
    state: SessionState = SessionState.RESERVED
    participants: bytes | None = None
    settled_by: int | None = None
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class SessionCharge:
    """What one session costs.

    Attributes:
        epsilon: of this session alone, at the budget's delta; 0 when it was cancelled.
    """

    session: bytes
    state: SessionState
    mechanism: Mechanism
    epsilon: float
    reservation: Reservation


@dataclass(frozen=True, slots=True)
class BudgetState:
    """How a budget stands: the population's view, or that of one client.

    Attributes:
        client: whose view it is; None for the population's, in which everybody takes part in every session.
        spent: by the sessions below together, rounded up.
        remaining: ``epsilon - spent.epsilon``, rounded down, at least 0. Epsilons do not add: how many sessions
            still fit is what ``Ledger.fits`` says.
        sessions: in order of reservation. A client's view leaves out those that it is not charged for.
    """

    population: str
    client: bytes | None
    epsilon: Fraction
    delta: Fraction
    spent: Spent
    remaining: float
    sessions: tuple[SessionCharge, ...]


@dataclass(slots=True)
class Account:
    """The budget of one population and its sessions, in order of reservation."""

    budget: Created
    entries: dict[bytes, Entry]

    def charged(self) -> list[Mechanism]:
        """The mechanisms of all sessions that count."""
        return [entry.charged for entry in self.entries.values() if entry.state is not SessionState.CANCELLED]

    def spent(self, mechanisms: Iterable[Mechanism]) -> Spent:
        """What these cost together, at the budget's delta."""
        return epsilon_of(composed(mechanisms), self.budget.delta)

    def holds(self, spent: Spent) -> bool:
        """Whether so much is within the budget."""
        # Not float(budget), which may be above it. Infinity and NaN are no fractions.
        return math.isfinite(spent.epsilon) and Fraction(spent.epsilon) <= self.budget.epsilon

    def view(self, client: bytes | None, entries: Iterable[Entry]) -> BudgetState:
        """The state that consists of these sessions."""
        chosen = list(entries)
        spent = self.spent(entry.charged for entry in chosen if entry.state is not SessionState.CANCELLED)
        left = self.budget.epsilon - Fraction(spent.epsilon) if math.isfinite(spent.epsilon) else Fraction(0)
        return BudgetState(
            self.budget.population,
            client,
            self.budget.epsilon,
            self.budget.delta,
            spent,
            max(0.0, math.nextafter(float(left), -math.inf)),
            tuple(self._session_charge(entry) for entry in chosen),
        )

    def _session_charge(self, entry: Entry) -> SessionCharge:
        alone = 0.0 if entry.state is SessionState.CANCELLED else self.spent([entry.charged]).epsilon
        return SessionCharge(entry.session, entry.state, entry.charged, alone, entry.reservation)

    def refuse_over_budget(self, mechanism: Mechanism) -> None:
        """Refuse one more session of this mechanism if it does not fit.

        Raises:
            BudgetExhaustedError: with what it would cost, what is left, and how many the whole budget holds.
        """
        before = self.charged()
        total = self.spent([*before, mechanism])
        if not self.holds(total):
            raise BudgetExhaustedError(
                self.budget.population,
                self.budget.epsilon,
                self.spent(before).epsilon,
                self.spent([mechanism]).epsilon,
                total.epsilon,
                self.fits(NO_CHARGE, mechanism),
            )

    def fits(self, before: Charge, mechanism: Mechanism) -> int:
        """How many sessions of this mechanism the budget holds on top of ``before``, at most ``MAX_FITS``."""
        charge = charge_of(mechanism)

        def fit(sessions: int) -> bool:
            return self.holds(epsilon_of(before + charge.times(sessions), self.budget.delta))

        return _last(fit, MAX_FITS)


class Book:
    """State of a ledger after its first ``head().sequence`` events."""

    def __init__(self) -> None:
        self._digests = [GENESIS]
        self._accounts: dict[str, Account] = {}

    def head(self) -> Head:
        """The last event."""
        return Head(len(self._digests) - 1, self._digests[-1])

    def contains(self, head: Head) -> bool:
        """Whether event number ``head.sequence`` has this digest."""
        return head.sequence < len(self._digests) and self._digests[head.sequence] == head.digest

    def account(self, population: str) -> Account:
        """The account of a population.

        Raises:
            LedgerStateError: it was never created.
        """
        account = self._accounts.get(population)
        if account is None:
            raise LedgerStateError(f"population {population!r} has no budget here; create it first")
        return account

    def accounts(self) -> list[Account]:
        """All accounts, in order of creation."""
        return list(self._accounts.values())

    def entry(self, population: str, session: bytes) -> Entry:
        """A session.

        Raises:
            LedgerStateError: it was never reserved, or the population never created.
        """
        entry = self.account(population).entries.get(session)
        if entry is None:
            raise LedgerStateError(f"session {session.hex()} was never reserved for population {population!r}")
        return entry

    def apply(self, event: Event, data: bytes, digest: bytes) -> None:
        """Take the next event, as it is stored.

        Raises:
            LedgerCorruptError: the digest is another, or the event cannot follow the ones before.
        """
        previous = self.head()
        place = Reservation(previous.sequence + 1, previous.digest, event_digest(previous.digest, data))
        if place.digest != digest:
            raise LedgerCorruptError(f"event {place.sequence} does not have the digest that stands beside it")
        try:
            if self.is_repeated(event):
                raise LedgerCorruptError(f"event {place.sequence} says what was said before")
        except (LedgerStateError, ParameterError) as error:
            raise LedgerCorruptError(f"event {place.sequence} cannot follow the ones before: {error}") from error
        self._take(event, place)
        self._digests.append(digest)

    def is_repeated(self, event: Event) -> bool:
        """Whether the ledger says so already, so that nothing is to be written; False when it may come next.

        Raises:
            LedgerStateError: it contradicts what the ledger says.
            ParameterError: it would raise the charge of a session, or settle another mechanism.
        """
        match event:
            case Created(population):
                account = self._accounts.get(population)
                if account is not None and account.budget != event:
                    raise LedgerStateError(
                        f"population {population!r} has budget epsilon {account.budget.epsilon}, delta "
                        f"{account.budget.delta}; a budget is never changed"
                    )
                return account is not None
            case Reserved():
                return self._is_reserved(event)
            case Settled():
                return self._is_settled(event)
            case Cancelled(population, session, evidence):
                entry = self.entry(population, session)
                if entry.state is SessionState.SETTLED or entry.evidence not in {None, evidence}:
                    raise LedgerStateError(f"session {session.hex()} is {entry.state} and cannot be cancelled")
                return entry.state is SessionState.CANCELLED
            case Restored(published):
                if published.sequence == 0 or not self.contains(published):
                    raise LedgerStateError("the published head is none that this ledger holds")
                return False
            case _:
                assert_never(event)

    def _is_reserved(self, event: Reserved) -> bool:
        entry = self.account(event.population).entries.get(event.session)
        if entry is None or entry.state is SessionState.CANCELLED:
            # One that was called off and is on again is charged as if it had never been there.
            return False
        if entry.reserved != event.mechanism:
            raise LedgerStateError(
                f"session {event.session.hex()} is {entry.state} with another mechanism; take another identifier"
            )
        return True

    def _is_settled(self, event: Settled) -> bool:
        entry = self.entry(event.population, event.session)
        participants = None if event.participants is None else event.participants.digest
        if entry.state is SessionState.SETTLED and (entry.charged, entry.participants) == (
            event.mechanism,
            participants,
        ):
            return True
        if entry.state is not SessionState.RESERVED:
            raise LedgerStateError(f"session {event.session.hex()} is {entry.state} and cannot be settled any more")
        if _announced(event.mechanism) != _announced(entry.reserved):
            raise ParameterError("mechanism", "is another than was reserved, beyond what survivors change")
        if not charge_of(entry.reserved).covers(charge_of(event.mechanism)):
            raise ParameterError("mechanism", "costs more than was reserved; a charge is only ever lowered")
        return False

    def _take(self, event: Event, place: Reservation) -> None:
        match event:
            case Created(population):
                self._accounts[population] = Account(event, {})
            case Reserved(population, session, mechanism):
                self._accounts[population].entries[session] = Entry(session, place, mechanism, mechanism)
            case Settled(population, session, mechanism, participants):
                entries = self._accounts[population].entries
                entries[session] = replace(
                    entries[session],
                    charged=mechanism,
                    state=SessionState.SETTLED,
                    participants=None if participants is None else participants.digest,
                    settled_by=place.sequence,
                )
            case Cancelled(population, session, evidence):
                entries = self._accounts[population].entries
                entries[session] = replace(entries[session], state=SessionState.CANCELLED, evidence=evidence)
            case Restored():
                pass
            case _:
                assert_never(event)


@lru_cache(maxsize=1024)
def charge_of(mechanism: Mechanism) -> Charge:
    """What one session costs; remembered, since sessions of a population tend to be alike."""
    return mechanism.charge()


def composed(mechanisms: Iterable[Mechanism]) -> Charge:
    """What these cost together."""
    total = NO_CHARGE
    for mechanism, sessions in Counter(mechanisms).items():
        total = total + charge_of(mechanism).times(sessions)
    return total


def _announced(mechanism: Mechanism) -> dict[str, str | int]:
    members = mechanism.to_json()
    return {name: value for name, value in members.items() if name not in _KNOWN_AFTERWARDS}


def _last(fit: Callable[[int], bool], most: int) -> int:
    """The largest number up to ``most`` that fits, where every smaller one does as well."""
    low, high = 0, 1
    while high <= most and fit(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fit(middle) else (low, middle)
    return low
