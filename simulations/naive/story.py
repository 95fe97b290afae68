"""What an attack on the naive model tells: its steps while it runs, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulations.naive.masks import Mask
from simulations.naive.model import RefusedError
from simulations.naive.setting import SettingError


@dataclass(frozen=True, slots=True, eq=False)
class NaiveResult:
    """How an attack on the naive model went.

    Attributes:
        attack: its name.
        tried: the steps, in words.
        learned: what the attacker knows at the end, or what stopped it.
        recovered: uint32[dimension], the vector the attacker ends with, or None.
        truth: uint32[dimension], the victim's vector.
        succeeded: whether the two are the same.
        cost: of the attack, in words; a measured time in it is the one thing that does not follow from the seed.

    Raises:
        SettingError: field `succeeded`, when it does not say whether the two vectors are the same.
    """

    attack: str
    tried: tuple[str, ...]
    learned: str
    recovered: Mask | None
    truth: Mask
    succeeded: bool
    cost: str

    def __post_init__(self) -> None:
        if self.succeeded != (self.recovered is not None and np.array_equal(self.recovered, self.truth)):
            raise SettingError("succeeded", "does not follow from the vectors")


class Story:
    """What an attack tells while it runs."""

    def __init__(self, attack: str, truth: Mask) -> None:
        self._attack = attack
        self._truth = truth
        self._tried: list[str] = []

    def step(self, text: str) -> None:
        """Adds a step."""
        self._tried.append(text)

    def ends(self, recovered: Mask | None, learned: str, cost: str) -> NaiveResult:
        """The result, `learned` as it is if the attacker has the victim's vector, else that it has not."""
        succeeded = recovered is not None and np.array_equal(recovered, self._truth)
        if recovered is not None and not succeeded:
            learned = "nothing: the vector it ends with is not the victim's"
        return NaiveResult(self._attack, tuple(self._tried), learned, recovered, self._truth, succeeded, cost)

    def stops(self, error: RefusedError) -> NaiveResult:
        """The result when a client does not go along."""
        self.step(f"{str(error).capitalize()}.")
        return self.ends(None, f"nothing: {error}", "no answer was given")


def counted(count: int, noun: str) -> str:
    """A number and its noun: `1 seed`, `2 seeds`, `2 boxes`."""
    plural = "es" if noun.endswith("x") else "s"
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def clients_named(clients: Sequence[int]) -> str:
    """Clients by number: `client 0`, `clients 0 and 2`, `clients 0, 2 and 3`."""
    *most, last = map(str, clients)
    return f"clients {', '.join(most)} and {last}" if most else f"client {last}"
