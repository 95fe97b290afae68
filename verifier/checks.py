"""The frame of all checks: what a check is, what it found, and how one builds on the inputs of another.

A check never returns a verdict. It counts what it examined and notes what failed, and ``CheckResult`` draws the
conclusion, so that a check that examined nothing cannot pass.

An input that several checks need is read once, by a ``Derived``, which belongs to one check. Is the input wrong,
that check fails and every other one that asks for it becomes unavailable: one cause, one failure.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

MAX_SHOWN = 10
"""How many failures of a check are kept word for word; the others are counted."""

_IDENTIFIER = re.compile(r"[A-Z]{3}-[1-9][0-9]?")

SubjectT = TypeVar("SubjectT")
ValueT = TypeVar("ValueT")


class Level(enum.IntEnum):
    """How much is checked; each level includes those before it."""

    META = 1
    """Log, signatures, sets, parameters: no vector is read."""
    PREOPEN = 2
    """And what is fixed at the close, before anything is opened."""
    SUM = 3
    """And the openings, the sum and the merged adapter."""
    FULL = 4
    """And every masked input."""


class Stage(enum.IntEnum):
    """How far a session came: the last entry it has, an abort not counted. Each mode has some of these, in order."""

    OPENED = 1
    ADVERTISED = 2
    SHARED = 3
    COMMITTED = 4
    CLOSED = 5
    FINISHED = 6


class Mode(enum.StrEnum):
    """Of which protocol a session is, and who opens its sum."""

    PAIRWISE = "pairwise"
    COMMITTEE = "committee"
    AUTHORITY = "key-authority"


ANY_MODE = frozenset(Mode)
PAIRWISE = frozenset({Mode.PAIRWISE})
COMMITTEE = frozenset({Mode.COMMITTEE})
AUTHORITY = frozenset({Mode.AUTHORITY})
ONE_SHOT = COMMITTEE | AUTHORITY
"""Both ways in which the sum of a one-shot session is opened."""

OF_MODE = {
    Mode.PAIRWISE: "a pairwise session",
    Mode.COMMITTEE: "a one-shot session with a committee",
    Mode.AUTHORITY: "a one-shot session with a key authority",
}
"""In words."""


class Status(enum.StrEnum):
    """What became of a check."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    UNAVAILABLE = "unavailable"
    NOT_APPLICABLE = "not-applicable"
    NOT_AT_THIS_LEVEL = "not-at-this-level"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found: a file of the record, a line of it (from 1), a field; empty where it is none."""

    file: str = ""
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}"
        return ", ".join(part for part in (self.file, line, self.field) if part)


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or could not be read; ``session`` is empty where it belongs to none."""

    place: Place
    reason: str
    session: str = ""

    def __str__(self) -> str:
        where = str(self.place)
        return f"{where}: {self.reason}" if where else self.reason


class CheckFailedError(Exception):
    """What is read is wrong. Raised by a ``Derived``, or by a check that cannot go on after a failure."""

    def __init__(self, findings: Iterable[Finding], failed: int | None = None) -> None:
        self.findings = tuple(findings)[:MAX_SHOWN]
        self.failed = max(len(self.findings), 1) if failed is None else failed
        super().__init__("; ".join(map(str, self.findings)))

    @classmethod
    def at(cls, place: Place, reason: str) -> CheckFailedError:
        """A single failure."""
        return cls((Finding(place, reason),))


class InputMissingError(Exception):
    """What a check needs is not there or cannot be read: nothing is known to be wrong, and nothing passed."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.finding = Finding(place, reason)


class InputRefusedError(Exception):
    """What a check needs was refused by its owner, the check ``owner``."""

    def __init__(self, owner: str, failure: CheckFailedError) -> None:
        super().__init__(f"{owner}: {failure}")
        self.owner = owner
        self.failure = failure


@dataclass(frozen=True)
class Derived(Generic[SubjectT, ValueT]):
    """A value that is read or computed from the record once, and is only handed out if it is right.

    ``owner`` is the check that fails if ``compute`` raises CheckFailedError. Compared by identity.
    """

    owner: str
    compute: Callable[[SubjectT], ValueT]

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Inputs(Generic[SubjectT]):
    """The derived values of one subject (a session, or the whole audit), each computed once."""

    def __init__(self, subject: SubjectT) -> None:
        self._subject = subject
        self._known: dict[int, object] = {}
        self._refused: dict[int, InputRefusedError | InputMissingError] = {}
        # Keeps the keys above alive: an identity must not be used again.
        self._asked: list[object] = []

    def get(self, derived: Derived[SubjectT, ValueT]) -> ValueT:
        """The value.

        Raises:
            InputRefusedError: it is wrong, or what it is made of is.
            InputMissingError: something it is made of is not there.
        """
        key = id(derived)
        if key in self._refused:
            raise self._refused[key]
        if key not in self._known:
            self._asked.append(derived)
            try:
                self._known[key] = derived.compute(self._subject)
            except CheckFailedError as error:
                refused = InputRefusedError(derived.owner, error)
                self._refused[key] = refused
                raise refused from None
            except (InputRefusedError, InputMissingError) as error:
                self._refused[key] = error
                raise
        value: ValueT = self._known[key]  # type: ignore[assignment] # what compute of this very object returned
        return value


@dataclass(slots=True)
class Findings:
    """What one check notes about one subject."""

    session: str = ""
    examined: int = 0
    failed: int = 0
    failures: list[Finding] = field(default_factory=list)
    missing: list[Finding] = field(default_factory=list)
    excuse: str = ""
    notes: list[str] = field(default_factory=list)

    def count(self, items: int = 1) -> None:
        """So many items were examined; a check that examined none does not pass."""
        self.examined += items

    def fail(self, place: Place, reason: str) -> None:
        """Something is wrong."""
        self.failed += 1
        if len(self.failures) < MAX_SHOWN:
            self.failures.append(Finding(place, reason, self.session))

    def fail_with(self, error: CheckFailedError) -> None:
        """Several things are wrong."""
        self.failed += error.failed
        room = MAX_SHOWN - len(self.failures)
        self.failures.extend(replace(finding, session=self.session) for finding in error.findings[:room])

    def raise_failures(self) -> None:
        """Raise what failed so far, if anything did, as a CheckFailedError."""
        if self.failed:
            raise CheckFailedError(self.failures, self.failed)

    def unavailable(self, place: Place, reason: str) -> None:
        """Something could not be checked."""
        if len(self.missing) < MAX_SHOWN:
            self.missing.append(Finding(place, reason, self.session))

    def note(self, text: str) -> None:
        """Say something of what was found in order; nothing follows from it for the verdict."""
        self.notes.append(text)

    def not_applicable(self, reason: str) -> None:
        """There is nothing to check here, and that is in order."""
        self.excuse = reason


@dataclass(frozen=True, slots=True)
class Check(Generic[SubjectT]):
    """One check, with what ``explain`` prints of it.

    Attributes:
        identifier: family and number, such as ``LOG-3``; never given to another check.
        title: what holds if it passes, as a short sentence.
        level: the lowest level at which it runs.
        proves: what follows if it passes.
        against: who could otherwise have done what.
        reads: files and fields.
        run: notes what it finds; may raise the errors of this module.
        needs: how far a session must have come for the check to apply to it; of no meaning for checks of the log.
        modes: of which sessions it is; of no meaning for checks of the log.
    """

    identifier: str
    title: str
    level: Level
    proves: str
    against: str
    reads: tuple[str, ...]
    run: Callable[[SubjectT, Findings], None]
    needs: Stage = Stage.OPENED
    modes: frozenset[Mode] = ANY_MODE

    def __post_init__(self) -> None:
        if _IDENTIFIER.fullmatch(self.identifier) is None:
            raise ValueError(f"identifier: {self.identifier!r} is not a family and a number")
        if not all((self.title, self.proves, self.against, self.reads)):
            raise ValueError(f"{self.identifier}: title, proves, against and reads must not be empty")

    @property
    def family(self) -> str:
        """The three letters before the number."""
        return self.identifier.split("-")[0]


def because_failed(owner: str) -> str:
    """Why something could not be checked that needs what another check refused."""
    return f"not checked, because {owner} failed"


def run_check(check: Check[SubjectT], subject: SubjectT, session: str = "") -> Findings:
    """What a check finds of one subject."""
    findings = Findings(session)
    try:
        check.run(subject, findings)
    except CheckFailedError as error:
        findings.fail_with(error)
    except InputRefusedError as error:
        if error.owner == check.identifier:
            findings.fail_with(error.failure)
        else:
            findings.unavailable(NOWHERE, because_failed(error.owner))
    except InputMissingError as error:
        findings.unavailable(error.finding.place, error.finding.reason)
    return findings


@dataclass(slots=True)
class CheckResult:
    """What a check found of all its subjects together."""

    examined: int = 0
    failed: int = 0
    failures: list[Finding] = field(default_factory=list)
    missing: list[Finding] = field(default_factory=list)
    excuses: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ran: int = 0

    def add(self, findings: Findings) -> None:
        """Count what was found of one more subject."""
        self.ran += 1
        self.examined += findings.examined
        self.failed += findings.failed
        self.notes.extend(findings.notes[: MAX_SHOWN - len(self.notes)])
        self.failures.extend(findings.failures[: MAX_SHOWN - len(self.failures)])
        missing = findings.missing
        if findings.excuse:
            self.excuses[findings.excuse] = self.excuses.get(findings.excuse, 0) + 1
        elif not findings.examined and not findings.failed and not missing:
            # A check that looked at nothing and says nothing must not count as passed.
            missing = [Finding(NOWHERE, "nothing was examined", findings.session)]
        self.missing.extend(missing[: MAX_SHOWN - len(self.missing)])

    @property
    def status(self) -> Status:
        """A failure outweighs what could not be checked, and that outweighs everything that passed."""
        if self.failed:
            return Status.FAIL
        if self.missing or not self.ran:
            return Status.UNAVAILABLE
        return Status.PASS if self.examined else Status.NOT_APPLICABLE
