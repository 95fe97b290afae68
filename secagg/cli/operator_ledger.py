"""An operator's ledger: what its sessions may cost those who take part, and did cost as far as its log shows.

A session is reserved with the fewest honest contributors that it can have, before anybody hears of it. What is settled
follows from the published log and nothing else: a session that was closed cost what it costs with that many
contributions, one that ended before it was closed nothing. One that the log says nothing about keeps its worst case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dp.errors import ParameterError
from dp.ledger import BudgetExhaustedError, Head, Ledger, LedgerError, LedgerRolledBackError, SessionState
from secagg.cli.failures import CommandError
from secagg.cli.opening import Opening
from secagg.identity.config import CoordinatorConfig
from secagg.identity.files import exclusive
from secagg.privacy.session_noise import mechanism_of
from secagg.runtime.log_record import iterate_entries, parse_names
from secagg.store.log_files import RecordFiles
from secagg.transcript.entries import (
    LogEntry,
    SessionAbort,
    SessionClose,
    SessionOpen,
    SessionResult,
    decode_entry,
)
from secagg.transcript.noise import DiscreteGaussianNoise, DistributedNoise, NoDifferentialPrivacy, SkellamNoise
from secagg.transcript.record import RecordError
from secagg.transcript.tiles import TileError

LEDGER_FILE = "budget.db"


@dataclasses.dataclass(frozen=True, slots=True)
class NoisySession:
    """A session with noise as the log shows it: how many contributions it was closed over, and whether it ended."""

    parameters: SessionOpen
    closed_over: int | None = None
    ended: bool = False

    @property
    def noise(self) -> DistributedNoise:
        """What it declares."""
        if not isinstance(self.parameters.noise, DistributedNoise):
            raise TypeError("a session without noise")
        return self.parameters.noise


@contextmanager
def operator_ledger(config: CoordinatorConfig) -> Iterator[Ledger]:
    """The ledger of a coordinator, which holds everything that its log shows, settled as far as the log goes.

    Raises:
        CommandError: it is an older copy, or cannot be read or written.
    """
    with ledger_errors(), Ledger.open(config.state_directory / LEDGER_FILE) as ledger:
        for session in noisy_sessions(config.record_directory):
            budget = session.noise.budget
            ledger.require(Head(budget.sequence, budget.reserved))
            _settle(ledger, session)
        yield ledger


@contextmanager
def in_turn(opening: Opening, config: CoordinatorConfig) -> Iterator[Opening]:
    """A session with its reservation, which is durable before anybody hears of the session, to be opened in the block.

    Sessions with noise are opened one at a time, so that the log shows reservations in their order. Whatever becomes of
    one, its reservation stands: only the log says that nothing was opened.

    Raises:
        CommandError: the budget does not allow it.
        IdentityFileError: there is no state directory.
    """
    noise = opening.session.parameters.noise
    if isinstance(noise, NoDifferentialPrivacy):
        yield opening
        return
    with exclusive(config.state_directory):
        yield _reserved(opening, config, noise)


def _reserved(opening: Opening, config: CoordinatorConfig, noise: SkellamNoise | DiscreteGaussianNoise) -> Opening:
    parameters, budget = opening.session.parameters, noise.budget
    with operator_ledger(config) as ledger:
        ledger.create(budget.population, budget.epsilon, budget.delta)
        made = ledger.reserve(budget.population, parameters.session, mechanism_of(parameters))
    named = dataclasses.replace(budget, sequence=made.sequence, previous=made.previous, reserved=made.digest)
    return opening.with_parameters(dataclasses.replace(parameters, noise=dataclasses.replace(noise, budget=named)))


def accept_restored(config: CoordinatorConfig) -> int:
    """Go on with an older copy of the ledger that holds every reservation the log shows; how many those are.

    Raises:
        CommandError: it does not, or it is no older copy.
    """
    sessions = noisy_sessions(config.record_directory)
    if not sessions:
        raise CommandError("LEDGER", "the log shows no session with noise to compare the ledger with", kind="privacy")
    newest = max((session.noise.budget for session in sessions), key=lambda budget: budget.sequence)
    with ledger_errors():
        Ledger.accept_restored(config.state_directory / LEDGER_FILE, Head(newest.sequence, newest.reserved))
    return len(sessions)


def noisy_sessions(record: Path) -> list[NoisySession]:
    """The sessions with noise in a log, in order.

    Raises:
        CommandError: the log cannot be read.
    """
    found: dict[bytes, NoisySession] = {}
    for entry in _entries(record):
        match entry:
            case SessionOpen(noise=DistributedNoise()):
                found.setdefault(entry.session, NoisySession(entry))
            case SessionClose() if entry.session in found:
                found[entry.session] = dataclasses.replace(found[entry.session], closed_over=entry.count)
            case SessionResult() | SessionAbort() if entry.session in found:
                found[entry.session] = dataclasses.replace(found[entry.session], ended=True)
            case _:
                pass
    return list(found.values())


def _settle(ledger: Ledger, session: NoisySession) -> None:
    """What the log shows of a reserved session, written down once."""
    parameters, population = session.parameters, session.noise.budget.population
    state = ledger.session_state(population, parameters.session)
    if state is not SessionState.RESERVED or not session.ended:
        return
    if session.closed_over is None:
        ledger.cancel(population, parameters.session, "ended before it was closed")
        return
    ledger.settle(population, parameters.session, mechanism_of(parameters, session.closed_over))


def _entries(record: Path) -> Iterator[LogEntry]:
    if not record.is_dir():
        return
    files = RecordFiles(record)
    try:
        for _, bundle in iterate_entries(files, parse_names(files.names())):
            yield from map(decode_entry, bundle)
    except (TileError, RecordError) as error:
        fix = f"`secagg log fsck {record}` says what is wrong"
        raise CommandError("ENTRIES", f"{record}: {error}", fix, kind="log") from None


@contextmanager
def ledger_errors() -> Iterator[None]:
    """Errors of the ledger as errors of a command."""
    try:
        yield
    except BudgetExhaustedError as error:
        fix = "`secagg budget show` says what was spent; sessions that end with more contributors give some of it back"
        raise CommandError("BUDGET_EXHAUSTED", str(error), fix, kind="privacy") from None
    except LedgerRolledBackError as error:
        fix = (
            "put the newest copies of budget.db and budget.db.head back together; if there are none, `secagg budget "
            "accept-restored --config FILE` compares this one with the log"
        )
        raise CommandError("LEDGER", f"the budget's ledger: {error}", fix, kind="privacy") from None
    except (LedgerError, ParameterError) as error:
        raise CommandError("LEDGER", f"the budget's ledger: {error}", "", kind="privacy") from None
