"""What a run found, in one value that the text, JSON and HTML reports are written from."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from secagg.crypto.notes import Cosigned
from secagg.transcript.checkpoint import Checkpoint
from verifier.catalogue import AnyCheck
from verifier.checks import CheckResult, Finding, Level, Mode, Stage, Status

ENDED = "SES-6"
"""The check that a session has come to its end, or that there is a session at all."""
SCHEMA = "secagg-verify-report/1"


class Verdict(enum.StrEnum):
    """The outcome of a run."""

    PASSED = "passed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"

    @property
    def exit_code(self) -> int:
        """The status that the command exits with."""
        return {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.INCOMPLETE: 3}[self]


class SessionEnd(enum.StrEnum):
    """How a session stands."""

    RESULT = "result"
    ABORTED = "aborted"
    UNDER_WAY = "under way"


@dataclass(frozen=True, slots=True)
class NoiseSummary:
    """What a session declares of differential privacy, and what that comes to if the noise was added.

    Attributes:
        mechanism: the word of the record, such as ``skellam``.
        session_epsilon: of this session alone, at ``delta``: with the contributions it was closed over, or the fewest
            it can be; 0 where it ended before it was closed. None where what is declared does not fit together.
        population: whose budget it draws on.
        epsilon: that budget, at ``delta``.
        sequence: of its reservation.
    """

    mechanism: str
    session_epsilon: float | None
    population: str
    epsilon: Fraction
    delta: Fraction
    sequence: int


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """How a session merges, and how good what it published is by its own sums.

    Attributes:
        strategy: as a person names it.
        kind: the type of the record in the open entry, which says which of two sessions this is.
        first: the session that it follows, in hex; empty where it follows none.
        error_ppm: the estimated relative error of the whole adapter, in millionths; None where the merge does not say,
            or it was not checked.
        is_degraded: whether the adapter should not be deployed without another look; None likewise.
    """

    strategy: str
    kind: str
    first: str = ""
    error_ppm: int | None = None
    is_degraded: bool | None = None


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session that was checked.

    Attributes:
        noise: None where it declares that none is added.
        reason: that of an abort.
        contributors: 0 where none was closed.
        registrar: public key in hex, as the session's opening names it.
        adapter_model: digest of the merged adapter's tensors in hex, empty without a result.
    """

    session: str
    opened_at_s: int
    base_model: str
    mode: Mode
    stage: Stage
    end: SessionEnd
    reason: str
    contributors: int
    answers_released: int
    min_contributors: int
    max_corrupt: int
    registrar: str
    adapter_model: str
    merge: MergeSummary
    noise: NoiseSummary | None
    failed: tuple[str, ...]
    unavailable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """One check and what became of it."""

    check: AnyCheck
    status: Status
    examined: int = 0
    failed: int = 0
    failures: tuple[Finding, ...] = ()
    missing: tuple[Finding, ...] = ()
    excuses: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, check: AnyCheck, result: CheckResult | None) -> CheckReport:
        """The report of a check; without a result it is none of this level."""
        if result is None:
            return cls(check, Status.NOT_AT_THIS_LEVEL)
        return cls(
            check,
            result.status,
            result.examined,
            result.failed,
            tuple(result.failures),
            tuple(result.missing),
            tuple(sorted(result.excuses.items())),
            tuple(result.notes),
        )


@dataclass(frozen=True, slots=True)
class PolicySummary:
    """Digests of the two files of the policy, and what it asks of witnesses.

    Attributes:
        witnesses: how many it names.
        has_quorum: whether it asks for any.
        quorum: how many the smallest set has that is enough.
        overlap: how many two such sets share at least; 0 where they need not share any, or none is asked for.
        limits_age: whether it limits the age of cosignatures.
    """

    digest: bytes
    log_digest: bytes
    witnesses: int
    has_quorum: bool
    quorum: int
    overlap: int
    limits_age: bool


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run.

    Attributes:
        checkpoint: what the record's checkpoint says, even if it failed; None if it could not be read.
        cosigned: the known witnesses that cosigned it, if they are a quorum.
        cosigned_by: the names that the policy gives them, in the same order.
        left_out: how many sessions of the log were not asked for.
        compared: whether the log was compared with a saved checkpoint.
    """

    version: str
    level: Level
    now_s: int
    policy: PolicySummary
    checkpoint: Checkpoint | None
    cosigned: tuple[Cosigned, ...]
    cosigned_by: tuple[str, ...]
    sessions: tuple[SessionSummary, ...]
    left_out: int
    compared: bool
    checks: tuple[CheckReport, ...]

    @property
    def verdict(self) -> Verdict:
        """A failure outweighs what could not be checked; nothing but passes, and at least one, is a pass."""
        statuses = {report.status for report in self.checks}
        if Status.FAIL in statuses:
            return Verdict.FAILED
        if Status.UNAVAILABLE in statuses or Status.PASS not in statuses:
            return Verdict.INCOMPLETE
        return Verdict.PASSED

    @property
    def awaited(self) -> tuple[SessionSummary, ...]:
        """The sessions that have not ended, where this is all that keeps the run from a pass; otherwise none."""
        missing = [report for report in self.checks if report.status is Status.UNAVAILABLE]
        if self.verdict is not Verdict.INCOMPLETE or [report.check.identifier for report in missing] != [ENDED]:
            return ()
        # What is said of the whole record, such as that a session is not in the log, names no session.
        if not all(finding.session for finding in missing[0].missing):
            return ()
        return tuple(session for session in self.sessions if session.unavailable)

    @property
    def settled(self) -> tuple[SessionSummary, ...]:
        """The sessions of which nothing remained unchecked."""
        return tuple(session for session in self.sessions if not session.unavailable)

    def count(self, end: SessionEnd) -> int:
        """How many of the sessions that were checked stand so."""
        return sum(session.end is end for session in self.sessions)

    def of_family(self, family: str) -> Sequence[CheckReport]:
        """The checks of one family, in order."""
        return [report for report in self.checks if report.check.family == family]

    @property
    def log_is_sound(self) -> bool:
        """Whether no check of the log failed or could not run."""
        bad = {Status.FAIL, Status.UNAVAILABLE}
        return not any(report.status in bad for report in self.of_family("LOG"))
