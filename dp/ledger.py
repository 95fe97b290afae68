"""The ledger of a privacy budget: nothing is published that was not reserved, and nothing reserved is forgotten.

For the operator of sessions, and for every contributor, who keeps one of its own and refuses by itself: nobody has to
believe the other's. In order:

1. ``reserve`` charges a session the worst it can cost and is durable when it returns; only then is it published.
2. ``settle`` lowers the charge to what the session did cost; ``cancel`` takes it back where nothing was opened. A crash
   leaves the worst case standing.
3. ``head`` goes into a transparency log. ``require`` compares the ledger with a head that was kept there.

One SQLite file, ``synchronous=FULL``, to which events are only ever appended; everything else is derived from them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from dp.errors import PrivacyError
from dp.ledger_book import Account, Book, BudgetState, Entry, SessionCharge, SessionState, composed
from dp.ledger_disk import Disk, HeadFile
from dp.ledger_errors import (
    BudgetExhaustedError,
    LedgerCorruptError,
    LedgerError,
    LedgerRolledBackError,
    LedgerStateError,
    LedgerStorageError,
)
from dp.ledger_events import (
    GENESIS,
    Cancelled,
    Created,
    Event,
    Head,
    Participants,
    Reservation,
    Reserved,
    Restored,
    Settled,
    check_identity,
    decode_event,
    reservation_digest,
)
from dp.ledger_store import EventStore, Row
from dp.mechanisms import Mechanism

__all__ = [
    "GENESIS",
    "BudgetExhaustedError",
    "BudgetState",
    "Head",
    "Ledger",
    "LedgerCorruptError",
    "LedgerError",
    "LedgerRolledBackError",
    "LedgerStateError",
    "LedgerStorageError",
    "Reservation",
    "SessionCharge",
    "SessionState",
    "reservation_digest",
]

_ADVICE = (
    "Budget that was spent would be spent again. Put the newest copy back; if there is none, let "
    "Ledger.accept_restored check this one against the newest head in the log"
)


class Ledger:
    """The ledger in the file ``path``; several processes may have it open, and threads may share it.

    Beside it stands ``<path>.head``, which belongs to the ledger and is not to be restored with it: it knows how far
    the ledger had come, so an older copy of the database is refused, at opening and before every answer. **What
    that cannot see** is a database and its ``.head`` that are put back together, by a snapshot of the volume or
    of the machine, or a ledger of which both were deleted. Only a head that is kept elsewhere shows that, so put
    ``head()`` into a log and hand the newest one to ``require`` after every opening.

    Raises:
        LedgerRolledBackError: the database is an older copy than the one that was here, or another one.
        LedgerCorruptError: its events are not what was written.
        LedgerStorageError: it is of another schema, or the disk refuses.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._head_file = HeadFile(path, disk)
        self._book = Book()
        self._lock = threading.RLock()
        remembered = self._head_file.read()
        if remembered is not None and remembered.sequence > 0 and not path.exists():
            raise self._rolled_back(f"the database is gone, it had come to event {remembered.sequence}")
        self._store = EventStore(path, disk)
        try:
            self._acknowledge()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the ledger, or begin one where there is none; the directory must exist."""
        return cls(path, Disk())

    @classmethod
    def accept_restored(cls, path: Path, published: Head) -> None:
        """Go on with an older copy of the database, on evidence that no published session is missing from it.

        A reservation is published with its digest, so a ledger that holds the newest published head holds
        everything that was reserved and published up to it. What the copy has lost is then harmless: settlements and
        cancellations, whose sessions count as reserved again, and reservations that were never published, which must
        not be published any more. An event tells whoever follows the chain that this was done, and on what head.

        Args:
            path: of the database, which no process has open.
            published: the newest head that the log shows. An older one would bring budget back that is spent;
                nothing here can tell, but whoever has the log can.

        Raises:
            LedgerRolledBackError: the copy does not hold it, so published sessions are missing.
            LedgerStateError: the ledger is not behind, so there is nothing to accept.
        """
        if not path.exists():
            raise LedgerStateError(f"{path}: there is no database")
        disk, book = Disk(), Book()
        head_file = HeadFile(path, disk)
        with closing(EventStore(path, disk)) as store:
            with store.writing():
                remembered = head_file.read_or_none()
                for row in store.rows(1):
                    _apply(book, row)
                if remembered is not None and book.contains(remembered):
                    raise LedgerStateError(f"{path}: the ledger is not behind; there is nothing to accept")
                if published.sequence == 0 or not book.contains(published):
                    raise LedgerRolledBackError(
                        f"{path}: the copy ends at event {book.head().sequence} and does not hold the published head "
                        f"{published.sequence}: published sessions are missing. {_ADVICE}"
                    )
                store.append(book.head(), Restored(published, remembered))
            # Until the head file follows, opening goes on being refused.
            with store.writing():
                for row in store.rows(book.head().sequence + 1):
                    _apply(book, row)
                head_file.write(book.head())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._store.close()

    def create(self, population: str, epsilon: Fraction, delta: Fraction) -> None:
        """Give a population its budget, for everything it will ever release; the same once more changes nothing.

        Raises:
            ParameterError: epsilon or delta is no Fraction above 0, or delta not below 1.
            LedgerStateError: it has another budget already.
        """
        self._record(Created(population, epsilon, delta))

    def reserve(self, population: str, session: bytes, mechanism: Mechanism) -> Reservation:
        """Charge a session the worst it can cost, before anything about it is published; durable on return.

        The same once more returns the same reservation.

        Args:
            population: created before.
            session: its identifier, 1 to 64 bytes; one that was cancelled is charged anew.
            mechanism: with the fewest survivors that the session may open with.

        Raises:
            BudgetExhaustedError: it does not fit; nothing was reserved.
            LedgerStateError: the population is unknown, or the session reserved otherwise.
        """
        event = Reserved(population, session, mechanism)
        with self._lock:
            self._record(event, lambda account: account.refuse_over_budget(mechanism))
            return self._book.entry(population, session).reservation

    def settle(
        self, population: str, session: bytes, mechanism: Mechanism, participants: Iterable[bytes] | None = None
    ) -> None:
        """Lower the charge of a session to what it did cost; the same once more changes nothing.

        Args:
            population: created before.
            session: reserved before.
            mechanism: as it was reserved but for what survivors change, and no dearer at any order.
            participants: identities, 32 bytes each, of all whose vectors are in the sum: only they are charged in
                the view of a client. None charges everybody.

        Raises:
            ParameterError: the charge would rise, the mechanism is another, or participants are fewer than survivors.
            LedgerStateError: the session is unknown, cancelled, or settled otherwise.
        """
        members = None if participants is None else Participants.of(participants)
        self._record(Settled(population, session, mechanism, members))

    def cancel(self, population: str, session: bytes, evidence: str) -> None:
        """Take back the charge of a session of which nothing was opened; the same once more changes nothing.

        The ledger cannot know that nothing was: whoever calls this vouches for it, and ``evidence`` says why, in 1 to
        1024 printable characters. Reserved again, the session is charged again.

        Raises:
            LedgerStateError: the session is unknown, settled, or cancelled with other evidence.
        """
        self._record(Cancelled(population, session, evidence))

    def state(self, population: str, client: bytes | None = None) -> BudgetState:
        """How the budget stands, for the population or for one client.

        A client, 32 bytes, is charged for the sessions whose participants it is among and for those that are not
        settled. This holds where nobody is selected by looking at data.

        Raises:
            LedgerStateError: the population is unknown.
        """
        if client is not None:
            check_identity("client", client)
        with self._reading():
            account = self._book.account(population)
            entries = account.entries.values()
            return account.view(client, (entry for entry in entries if client is None or self._pays(client, entry)))

    def session_state(self, population: str, session: bytes) -> SessionState | None:
        """What became of one session, without what anything costs; None where it was never reserved.

        Raises:
            LedgerStateError: the population is unknown.
        """
        with self._reading():
            entry = self._book.account(population).entries.get(session)
            return None if entry is None else entry.state

    def populations(self) -> tuple[str, ...]:
        """Whose budgets it holds, in order of creation."""
        with self._reading():
            return tuple(account.budget.population for account in self._book.accounts())

    def fits(self, population: str, mechanism: Mechanism) -> int:
        """How many further sessions of this mechanism the budget holds, counted up to 2^20.

        Raises:
            LedgerStateError: the population is unknown.
        """
        with self._reading():
            account = self._book.account(population)
            return account.fits(composed(account.charged()), mechanism)

    def head(self) -> Head:
        """Number and digest of the last event, to be kept in a log."""
        with self._reading():
            return self._book.head()

    def contains(self, head: Head) -> bool:
        """Whether the ledger holds the event of this number and digest."""
        with self._reading():
            return self._book.contains(head)

    def require(self, head: Head) -> None:
        """Refuse to go on where the ledger does not hold a head that was kept elsewhere.

        Raises:
            LedgerRolledBackError: it does not.
        """
        if not self.contains(head):
            raise self._rolled_back(f"event {head.sequence} is known elsewhere as {head.digest.hex()}, and not here")

    def verify(self) -> None:
        """Read everything again: the chain, every charge from its parameters, and that each fitted when it was made.

        Raises:
            LedgerCorruptError: something is not what this package wrote.
        """
        with self._reading():
            self._store.check_file()
            book = Book()
            for row in self._store.rows(1):
                _apply(book, row, _refuse_over_budget)
            if not book.contains(self._book.head()):
                raise LedgerCorruptError(f"{self._path}: the events are others than when they were read before")

    def _record(
        self, event: Created | Reserved | Settled | Cancelled, check: Callable[[Account], None] | None = None
    ) -> None:
        """Append an event that may come next and passes the check; an event that is there already is acknowledged."""
        with self._lock:
            with self._store.writing():
                self._catch_up()
                if not self._book.is_repeated(event):
                    if check is not None:
                        check(self._book.account(event.population))
                    self._store.append(self._book.head(), event)
            self._acknowledge()

    def _acknowledge(self) -> None:
        """Remember the last event beside the database; only then is anybody told of it.

        In a transaction of its own: whoever comes last writes the last head, whichever process appended it.
        """
        with self._store.writing():
            remembered = self._catch_up()
            if remembered != self._book.head():
                self._head_file.write(self._book.head())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            self._catch_up()
            yield

    def _catch_up(self) -> Head | None:
        """Take in what other processes appended, and refuse a database that went back; returns what is remembered."""
        remembered = self._head_file.read()  # before the events, which may only be further on
        known = self._book.head()
        with closing(self._store.rows(known.sequence)) as rows:
            if known.sequence > 0:
                row = next(rows, None)
                if row is None or row.digest != known.digest:
                    raise self._rolled_back(f"event {known.sequence} was here when it was read before, and is gone")
            for row in rows:
                _apply(self._book, row)
        come_to = self._book.head().sequence
        if remembered is None and come_to > 0:
            raise self._rolled_back(f"{self._head_file.path.name}, which knows how far it had come, is missing")
        if remembered is not None and not self._book.contains(remembered):
            raise self._rolled_back(f"it ends at event {come_to} and does not hold event {remembered.sequence}")
        return remembered

    def _pays(self, client: bytes, entry: Entry) -> bool:
        if entry.state is not SessionState.SETTLED or entry.settled_by is None or entry.participants is None:
            return entry.state is not SessionState.CANCELLED
        with closing(self._store.rows(entry.settled_by)) as rows:
            row = next(rows)
        event = decode_event(row.sequence, row.data, row.identities)
        return not isinstance(event, Settled) or event.participants is None or client in event.participants

    def _rolled_back(self, reason: str) -> LedgerRolledBackError:
        return LedgerRolledBackError(f"{self._path}: {reason}. {_ADVICE}")


def _apply(book: Book, row: Row, check: Callable[[Book, Event], None] | None = None) -> None:
    event = decode_event(row.sequence, row.data, row.identities)
    if check is not None:
        check(book, event)
    book.apply(event, row.data, row.digest)


def _refuse_over_budget(book: Book, event: Event) -> None:
    if isinstance(event, Reserved):
        try:
            book.account(event.population).refuse_over_budget(event.mechanism)
        except PrivacyError as error:
            raise LedgerCorruptError(f"a reservation is stored that was never accepted: {error}") from error
