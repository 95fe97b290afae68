"""Models of who drops out, and when: each makes people out of people, from a generator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol as Interface

import numpy as np

from secagg.protocol.phases import Phase
from simulations.world.people import PHASES, Drop, Moment, Person, Window
from simulations.world.plan import Plan, PlanError

DAY_S = 86_400.0


class DropoutModel(Interface):
    """Decides who falls silent and who is offline when."""

    def applied(self, people: Sequence[Person], plan: Plan, draw: np.random.Generator) -> list[Person]:
        """The same people, some of whom drop out."""
        ...


@dataclass(frozen=True, slots=True)
class Nobody:
    """Everybody stays."""

    def applied(self, people: Sequence[Person], plan: Plan, draw: np.random.Generator) -> list[Person]:
        """See ``DropoutModel``."""
        del plan, draw
        return list(people)


@dataclass(frozen=True, slots=True)
class Independent:
    """Each client drops with probability ``rate``, in a phase and at a moment that chance decides."""

    rate: float

    def __post_init__(self) -> None:
        """Raise PlanError for no probability."""
        _check_rate("rate", self.rate)

    def applied(self, people: Sequence[Person], plan: Plan, draw: np.random.Generator) -> list[Person]:
        """See ``DropoutModel``."""
        phases = PHASES[plan.protocol]
        drops = draw.random(len(people)) < self.rate
        places = draw.integers(len(phases), size=len(people))
        moments = draw.integers(len(Moment), size=len(people))
        return [
            dataclasses.replace(person, drop=Drop(phases[place], tuple(Moment)[moment])) if drops_out else person
            for person, drops_out, place, moment in zip(people, drops, places, moments, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class ByPhase:
    """Of those who reach a phase so many drop in it, before what they say there is handled."""

    rates: Mapping[Phase, float]

    def __post_init__(self) -> None:
        """Raise PlanError for no probability."""
        for phase, rate in self.rates.items():
            _check_rate(phase.value, rate)
        object.__setattr__(self, "rates", MappingProxyType(dict(self.rates)))

    def applied(self, people: Sequence[Person], plan: Plan, draw: np.random.Generator) -> list[Person]:
        """See ``DropoutModel``."""
        phases = PHASES[plan.protocol]
        for phase in self.rates:
            if phase not in phases:
                raise PlanError("dropouts", f"{plan.protocol} clients say nothing in phase {phase.value}")
        return [self._person(person, phases, draw) for person in people]

    def _person(self, person: Person, phases: Sequence[Phase], draw: np.random.Generator) -> Person:
        chances = draw.random(len(phases))
        for phase, chance in zip(phases, chances, strict=True):
            if chance < self.rates.get(phase, 0.0):
                return dataclasses.replace(person, drop=Drop(phase, Moment.BEFORE))
        return person


@dataclass(frozen=True, slots=True)
class Regions:
    """People live in ``count`` regions; each region as a whole goes offline with probability ``rate``, for a while.

    An outage begins at a time that is uniform over ``within_s``, and lasts ``outage_s``.
    """

    count: int = 5
    rate: float = 0.3
    outage_s: float = 900.0
    within_s: float = 600.0

    def __post_init__(self) -> None:
        """Raise PlanError for what is no model."""
        _check_rate("rate", self.rate)
        if self.count < 1 or self.outage_s <= 0 or self.within_s < 0:
            raise PlanError("dropouts", f"count {self.count}, outage_s {self.outage_s}, within_s {self.within_s}")

    def applied(self, people: Sequence[Person], plan: Plan, draw: np.random.Generator) -> list[Person]:
        """See ``DropoutModel``."""
        del plan
        outages: list[tuple[Window, ...]] = []
        for _ in range(self.count):
            start_s = float(draw.random()) * self.within_s
            is_out = float(draw.random()) < self.rate
            outages.append((Window(start_s, start_s + self.outage_s),) if is_out else ())
        homes = draw.integers(self.count, size=len(people))
        return [
            dataclasses.replace(person, region=f"region {home}", offline=(*person.offline, *outages[home]))
            for person, home in zip(people, homes, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Diurnal:
    """Devices are online for a part of every day only: ``online`` of ``day_s``, at hours that differ by where they are.

    ``days`` is for how long the windows are laid out.
    """

    online: float = 0.5
    day_s: float = DAY_S
    days: int = 3

    def __post_init__(self) -> None:
        """Raise PlanError for what is no model."""
        if not 0 < self.online <= 1 or self.day_s <= 0 or self.days < 1:
            raise PlanError("dropouts", f"online {self.online}, day_s {self.day_s}, days {self.days}")

    def applied(self, people: Sequence[Person], plan: Plan, draw: np.random.Generator) -> list[Person]:
        """See ``DropoutModel``."""
        del plan
        wakes = draw.random(len(people)) * self.day_s
        return [self._person(person, float(wake_s)) for person, wake_s in zip(people, wakes, strict=True)]

    def _person(self, person: Person, wake_s: float) -> Person:
        sleep_s = self.day_s * (1 - self.online)
        nights = [wake_s - sleep_s + day * self.day_s for day in range(self.days)]
        windows = tuple(Window(max(0.0, start), start + sleep_s) for start in nights if start + sleep_s > 0)
        return dataclasses.replace(person, offline=(*person.offline, *windows))


@dataclass(frozen=True, slots=True)
class FlashCrowd:
    """Everybody comes at almost the same time: normally distributed around ``at_s``, with deviation ``width_s``."""

    at_s: float = 60.0
    width_s: float = 2.0

    def __post_init__(self) -> None:
        """Raise PlanError for no time."""
        if self.at_s < 0 or self.width_s < 0 or not math.isfinite(self.at_s + self.width_s):
            raise PlanError("dropouts", f"at_s {self.at_s}, width_s {self.width_s}")

    def applied(self, people: Sequence[Person], plan: Plan, draw: np.random.Generator) -> list[Person]:
        """See ``DropoutModel``."""
        del plan
        times = draw.normal(self.at_s, self.width_s, len(people))
        return [
            dataclasses.replace(person, arrives_s=max(0.0, float(time_s)))
            for person, time_s in zip(people, times, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Adversarial:
    """Somebody who knows the protocol chooses who drops: ``rate`` of all clients, each at the worst time.

    In pairwise sessions that is right after keys are shared, so that every pair mask with them has to be recovered; in
    one-shot sessions right after the header and the sealed shares are accepted, before the masked input comes. Whom,
    is decided by the seed: identities are what the masking graph is made of, so no choice of theirs is worse.
    """

    rate: float

    def __post_init__(self) -> None:
        """Raise PlanError for no probability."""
        _check_rate("rate", self.rate)

    def applied(self, people: Sequence[Person], plan: Plan, draw: np.random.Generator) -> list[Person]:
        """See ``DropoutModel``."""
        phases = PHASES[plan.protocol]
        worst = Drop(Phase.SHARE_KEYS if len(phases) > 1 else Phase.MASKED_INPUT, Moment.HALFWAY)
        chosen = set(draw.permutation(len(people))[: round(self.rate * len(people))].tolist())
        return [
            dataclasses.replace(person, drop=worst) if number in chosen else person
            for number, person in enumerate(people)
        ]


def _check_rate(field: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise PlanError("dropouts", f"{field}: expected 0 to 1, got {rate}")
