"""How clients behave: when they come, how they are connected, when they fall silent."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field

from secagg.protocol.phases import Phase
from simulations.world.network import Event, Line, Mishap
from simulations.world.plan import Protocol

PHASE_OF = {
    "AdvertiseKeys": Phase.ADVERTISE_KEYS,
    "ShareKeys": Phase.SHARE_KEYS,
    "announce": Phase.MASKED_INPUT,
    "deliver": Phase.MASKED_INPUT,
    "ConfirmClose": Phase.CONSISTENCY_CHECK,
    "UnmaskAnswer": Phase.UNMASK,
}
"""The phase that a client's call belongs to, by the name of the call; calls in order."""

PHASES = {Protocol.PAIRWISE: tuple(dict.fromkeys(PHASE_OF.values())), Protocol.ONE_SHOT: (Phase.MASKED_INPUT,)}
"""The phases in which a client of a protocol says something, in order."""


class Moment(enum.StrEnum):
    """When in a phase somebody falls silent."""

    BEFORE = "before"
    """What it says there is not handled."""
    HALFWAY = "halfway"
    """The first thing is handled: of a contribution the header with what comes with it, and not the masked input."""
    AFTER = "after"
    """All is handled, and it never hears so."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A client that falls silent for good."""

    phase: Phase
    moment: Moment

    def mishap(self, client: str) -> Mishap:
        """What the network has to do to a client of this name."""
        calls = [call for call, phase in PHASE_OF.items() if phase is self.phase]
        first, last = calls[0], calls[-1]
        match self.moment:
            case Moment.BEFORE:
                return Mishap(Event.CALLER_DIES_BEFORE, client, first)
            case Moment.HALFWAY:
                return Mishap(Event.CALLER_DIES_AFTER, client, first)
            case Moment.AFTER:
                return Mishap(Event.CALLER_DIES_AFTER, client, last)


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when, in seconds since the start."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Person:
    """One client.

    Attributes:
        arrives_s: when it hears of the session.
        line: how it is connected.
        region: where it is; "" for nowhere in particular.
        drop: when it falls silent for good; None where it does not.
        offline: when it reaches nobody.
    """

    arrives_s: float = 0.0
    line: Line = field(default_factory=Line)
    region: str = ""
    drop: Drop | None = None
    offline: tuple[Window, ...] = ()

    def with_line(self, line: Line) -> Person:
        """The same, connected otherwise."""
        return dataclasses.replace(self, line=line)
