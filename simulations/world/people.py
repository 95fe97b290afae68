"""How clients behave: when they come, how they are connected, when they fall silent."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field

from secagg.protocol.phases import Phase
from simulations.world.network import Event, Line, Mishap
from simulations.world.plan import Protocol

PHASES = {
    Protocol.PAIRWISE: (
        Phase.ADVERTISE_KEYS,
        Phase.SHARE_KEYS,
        Phase.MASKED_INPUT,
        Phase.CONSISTENCY_CHECK,
        Phase.UNMASK,
    ),
    Protocol.ONE_SHOT: (Phase.MASKED_INPUT,),
}
"""The phases in which a client of a protocol says something, in order."""

_CALLS = {
    Phase.ADVERTISE_KEYS: ("AdvertiseKeys", "AdvertiseKeys"),
    Phase.SHARE_KEYS: ("ShareKeys", "ShareKeys"),
    Phase.MASKED_INPUT: ("announce", "deliver"),
    Phase.CONSISTENCY_CHECK: ("ConfirmClose", "ConfirmClose"),
    Phase.UNMASK: ("UnmaskAnswer", "UnmaskAnswer"),
}
"""The first and the last call of a client in a phase."""


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
        first, last = _CALLS[self.phase]
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
