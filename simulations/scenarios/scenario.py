"""A scenario: a session, its people, and what befalls them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias

from simulations.scenarios.dropouts import DropoutModel, Nobody
from simulations.scenarios.lines import Alike, LineModel
from simulations.world.people import Person
from simulations.world.plan import Plan, PlanError
from simulations.world.randomness import generator
from simulations.world.stores import CrashTime


@dataclass(frozen=True, slots=True)
class Crash:
    """A machine dies, by time or by one of its writes, and comes back.

    Attributes:
        node: its name, such as ``coordinator`` or ``member-2``.
        at_s: when; with ``write`` the writes are counted from then on.
        down_s: how long it stays down; None for ever.
        write: at which of its writes, from 1; None to die at ``at_s``.
        when: whether that write is durable.
    """

    node: str
    at_s: float = 0.0
    down_s: float | None = 30.0
    write: int | None = None
    when: CrashTime = CrashTime.BEFORE

    def __post_init__(self) -> None:
        """Raise PlanError for what cannot happen."""
        if self.at_s < 0 or (self.down_s is not None and self.down_s <= 0):
            raise PlanError("crash", f"at_s {self.at_s}, down_s {self.down_s}")
        if self.write is not None and self.write < 1:
            raise PlanError("crash.write", f"expected 1 or more, got {self.write}")


@dataclass(frozen=True, slots=True)
class Cut:
    """Nobody in ``nodes`` hears anybody outside for a while.

    ``share`` takes so much of all clients besides, those with the lowest numbers.
    """

    nodes: tuple[str, ...] = ()
    share: float = 0.0
    at_s: float = 0.0
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Raise PlanError for what cannot happen."""
        if self.at_s < 0 or self.seconds <= 0 or not 0 <= self.share <= 1:
            raise PlanError("cut", f"at_s {self.at_s}, seconds {self.seconds}, share {self.share}")


Fault: TypeAlias = Crash | Cut


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated.

    Attributes:
        name: as it is typed, or the name of its file.
        about: one sentence.
        plan: the session.
        dropouts: who drops out, one model after the other.
        lines: how people are connected.
        faults: of machines and networks.
        spread_s: people come at times that are uniform over so many seconds.
        capacity: bytes per second that the coordinator takes from all together; None for any.
        attacks: names of attacks that are replayed beside the session, and explained.
    """

    name: str
    about: str
    plan: Plan
    dropouts: tuple[DropoutModel, ...] = (Nobody(),)
    lines: LineModel = dataclasses.field(default_factory=Alike)
    faults: tuple[Fault, ...] = ()
    spread_s: float = 10.0
    capacity: float | None = None
    attacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise PlanError for what is no scenario."""
        if self.spread_s < 0:
            raise PlanError("spread_s", f"expected 0 or more, got {self.spread_s}")
        if self.capacity is not None and self.capacity <= 0:
            raise PlanError("capacity", f"expected more than 0 bytes per second, got {self.capacity}")

    def people(self) -> list[Person]:
        """Everybody, as the models make them from the plan's seed."""
        draw = generator(self.plan.seed, "people")
        people = [Person(arrives_s=float(at_s)) for at_s in self.spread_s * draw.random(self.plan.clients)]
        people = self.lines.applied(people, draw)
        for model in self.dropouts:
            people = model.applied(people, self.plan, draw)
        return people
