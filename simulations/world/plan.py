"""What is simulated: the numbers of one session."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from fractions import Fraction


class PlanError(ValueError):
    """A plan that makes no session; ``field`` names what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Protocol(enum.StrEnum):
    """Which protocol."""

    PAIRWISE = "pairwise"
    ONE_SHOT = "one-shot"


@dataclass(frozen=True, slots=True)
class CommitteePlan:
    """Who opens a one-shot sum: of ``members`` any ``needed``; ``max_corrupt`` may be corrupt."""

    members: int = 7
    needed: int = 5
    max_corrupt: int = 2

    def __post_init__(self) -> None:
        """Raise PlanError for a committee in which two sets could be opened."""
        if not (1 <= self.needed <= self.members and 1 <= self.max_corrupt < self.needed):
            raise PlanError(
                "committee",
                f"{self.needed} of {self.members} members open and {self.max_corrupt} may be corrupt: expected 1 "
                "corrupt or more, as clients do, and fewer than open",
            )
        if 2 * self.needed <= self.members + self.max_corrupt:
            raise PlanError(
                "committee",
                f"needs more than half of {self.members} + {self.max_corrupt} to open, so that one set is opened",
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """One session.

    Attributes:
        protocol: pairwise, or one-shot with a committee.
        clients: how many are in the roster.
        dimension: coordinates of a vector, 2 or more.
        seed: everything random follows from it.
        min_contributors: below so many nothing is opened; None for half of the clients, at least 3.
        max_corrupt: clients that may collude with the coordinator; None for a twentieth, at least 1.
        expected_dropout: fraction of the cohort that the pairwise graph is made for.
        committee: who opens a one-shot sum.
        witnesses: how many cosign the log; more than two thirds of them must, so that one third may lie or be away.
        phase_s: how long each phase lasts at most, in seconds.
        epsilon: what the noise costs at delta 10^-5; None for no noise.
    """

    protocol: Protocol
    clients: int
    dimension: int = 16
    seed: int = 0
    min_contributors: int | None = None
    max_corrupt: int | None = None
    expected_dropout: Fraction = Fraction(1, 10)
    committee: CommitteePlan = CommitteePlan()
    witnesses: int = 0
    phase_s: int = 600
    epsilon: Fraction | None = None

    def __post_init__(self) -> None:
        """Raise PlanError for what makes no session."""
        if self.clients < 3:
            raise PlanError("clients", f"expected 3 or more, got {self.clients}")
        if self.dimension < 2:
            raise PlanError("dimension", f"expected 2 or more, got {self.dimension}")
        if self.phase_s < 1:
            raise PlanError("phase_s", f"expected 1 second or more, got {self.phase_s}")
        if not 0 <= self.witnesses <= 100:
            raise PlanError("witnesses", f"expected 0 to 100, got {self.witnesses}")
        if not 0 <= self.expected_dropout < 1:
            raise PlanError("expected_dropout", f"expected a fraction below 1, got {self.expected_dropout}")
        if self.corrupt < 0:
            raise PlanError("max_corrupt", f"expected 0 or more, got {self.corrupt}")
        if not self.corrupt + 2 <= self.minimum <= self.clients:
            raise PlanError(
                "min_contributors",
                f"expected at least max_corrupt + 2 = {self.corrupt + 2} and at most {self.clients} clients, "
                f"got {self.minimum}",
            )

    @property
    def minimum(self) -> int:
        """``min_contributors``, decided."""
        return max(3, self.clients // 2) if self.min_contributors is None else self.min_contributors

    @property
    def corrupt(self) -> int:
        """``max_corrupt``, decided."""
        return max(1, self.clients // 20) if self.max_corrupt is None else self.max_corrupt

    @property
    def quorum(self) -> int:
        """How many witnesses have to cosign a checkpoint."""
        return 2 * self.witnesses // 3 + 1 if self.witnesses else 0
