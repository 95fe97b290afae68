"""Models of how people are connected: latency and bandwidth of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np

from simulations.world.network import Line
from simulations.world.people import Person
from simulations.world.plan import PlanError

MEBIBYTE = float(1 << 20)


class LineModel(Interface):
    """Decides how everybody is connected."""

    def applied(self, people: Sequence[Person], draw: np.random.Generator) -> list[Person]:
        """The same people, connected."""
        ...


@dataclass(frozen=True, slots=True)
class Alike:
    """Everybody has the same line: 50 ms, 2 MiB/s unless said otherwise."""

    latency_s: float = 0.05
    bytes_per_s: float = 2 * MEBIBYTE
    spread: float = 0.0

    def applied(self, people: Sequence[Person], draw: np.random.Generator) -> list[Person]:
        """See ``LineModel``."""
        del draw
        line = Line(self.latency_s, self.spread, self.bytes_per_s)
        return [person.with_line(line) for person in people]


@dataclass(frozen=True, slots=True)
class Mixed:
    """Latency and bandwidth are log-normal: a few are far away and slow.

    Attributes:
        latency_s: median.
        bytes_per_s: median.
        spread: standard deviation of the logarithms of both, between people.
        jitter: the same between calls of one person, of the latency.
    """

    latency_s: float = 0.06
    bytes_per_s: float = MEBIBYTE
    spread: float = 0.8
    jitter: float = 0.3

    def applied(self, people: Sequence[Person], draw: np.random.Generator) -> list[Person]:
        """See ``LineModel``."""
        latencies = self.latency_s * np.exp(self.spread * draw.standard_normal(len(people)))
        rates = self.bytes_per_s * np.exp(self.spread * draw.standard_normal(len(people)))
        return [
            person.with_line(Line(float(latency_s), self.jitter, float(rate)))
            for person, latency_s, rate in zip(people, latencies, rates, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Stragglers:
    """Most have a good line; a ``fraction`` has one that is ``times`` slower."""

    fraction: float = 0.1
    times: float = 1000.0
    latency_s: float = 0.05
    bytes_per_s: float = 2 * MEBIBYTE

    def __post_init__(self) -> None:
        """Raise PlanError for what is no model."""
        if not 0 <= self.fraction <= 1 or self.times < 1:
            raise PlanError("lines", f"fraction {self.fraction}, times {self.times}")

    def applied(self, people: Sequence[Person], draw: np.random.Generator) -> list[Person]:
        """See ``LineModel``."""
        slow = draw.random(len(people)) < self.fraction
        fine = Line(self.latency_s, 0.0, self.bytes_per_s)
        bad = Line(self.latency_s * min(self.times, 20.0), 0.0, self.bytes_per_s / self.times)
        return [person.with_line(bad if is_slow else fine) for person, is_slow in zip(people, slow, strict=True)]
