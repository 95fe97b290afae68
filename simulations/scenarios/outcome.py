"""What came of a simulated session, for programs and for people. The same seed gives the same bytes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

FORMAT = "secagg-simulation/1"


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """When a phase began, in seconds since the start, and how long it lasted."""

    phase: str
    began_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class CallTraffic:
    """All calls of one kind: ``caller`` is ``client`` or ``coordinator``, ``phase`` the one they belong to."""

    caller: str
    call: str
    phase: str
    calls: int
    request_bytes: int
    reply_bytes: int


@dataclass(frozen=True, slots=True)
class ClientFate:
    """How it went with one client.

    Attributes:
        number: which.
        arrived_s: when it started; None if it never did.
        fate: "counted", "dropped", "left out", "refused: REASON", "too late" or "never came".
        at_s: when that was decided: when it dropped, or did its last thing.
        phase: the phase that the session was in when it dropped; "" otherwise.
        region: where it is.
    """

    number: int
    arrived_s: float | None
    fate: str
    at_s: float | None
    phase: str
    region: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to the session or to a machine that is no client."""

    at_s: float
    node: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A session that was simulated.

    Attributes:
        scenario: name of the scenario and every number of its plan.
        ended: "finished", "aborted" or "unfinished".
        reason: why it was aborted.
        seconds: virtual time until the session ended.
        counted: clients in the sum.
        sum_is_right: whether the published sum is that of the counted clients' inputs; None where there is none.
        record: verdict of the verifier over the published record, and the checks that failed.
        violations: invariants that did not hold.
        learned: what the coordinator, with ``max_corrupt`` clients on its side, can compute.
        phases, traffic, clients, notes: the course.
        attacks: attacks that were replayed beside it.
        influence: what poisoned inputs did to the mean.
    """

    scenario: dict[str, Any]
    ended: str
    reason: str
    seconds: float
    counted: int
    sum_is_right: bool | None
    record: dict[str, Any]
    violations: tuple[str, ...]
    learned: tuple[str, ...]
    phases: tuple[PhaseTime, ...]
    traffic: tuple[CallTraffic, ...]
    clients: tuple[ClientFate, ...]
    notes: tuple[Note, ...]
    attacks: tuple[dict[str, Any], ...] = field(default=())
    influence: tuple[dict[str, Any], ...] = field(default=())

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept: whatever is published is right, and no invariant is broken."""
        kept = all(attack["as_it_should"] for attack in self.attacks)
        return self.sum_is_right is not False and not self.violations and not self.record.get("failed") and kept

    def to_json(self) -> str:
        """The whole of it, sorted, with a final newline."""
        value = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
