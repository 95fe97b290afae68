"""The session that attacks on pairwise masking are played in: who lies, who is the victim, what counts as success."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.loot import Loot
from simulations.attacks.notebook import Notebook, how_it_ended, numbered
from simulations.attacks.storyteller import Storyteller, told_out
from simulations.judging.knowledge import KnowledgeError, View
from simulations.world.cast import Cast
from simulations.world.loop import run_virtually
from simulations.world.plan import Plan, Protocol
from simulations.world.world import World

PHASE_S = 60
MOST_S = 400.0


def plan_of(seed: int, **changes: Any) -> Plan:  # noqa: ANN401
    """Eight clients, of whom two work for the coordinator: five shares open a secret, six have to confirm a close."""
    numbers: dict[str, Any] = {
        "clients": 8,
        "dimension": 8,
        "min_contributors": 6,
        "max_corrupt": 2,
        "expected_dropout": Fraction(0),
        "phase_s": PHASE_S,
    }
    return Plan(Protocol.PAIRWISE, seed=seed, **(numbers | changes))


@dataclass(frozen=True)
class People:
    """Numbers of clients, in the order of the indices that they have if all of them advertise keys.

    Attributes:
        order: everybody.
        corrupt: work for the coordinator; the first of all.
        victim: whose input the coordinator is after; in the middle.
    """

    order: tuple[int, ...]
    corrupt: frozenset[int]
    victim: int

    @classmethod
    def of(cls, plan: Plan, corrupt: int | None = None) -> People:
        """The people of a plan; so many are corrupt, or as many as may be."""
        cast = Cast.of(plan)
        order = tuple(sorted(range(plan.clients), key=lambda number: cast.clients[number].public_bytes))
        first = order[: plan.corrupt if corrupt is None else corrupt]
        return cls(order, frozenset(first), order[(len(first) + plan.clients) // 2])

    @property
    def everybody(self) -> frozenset[int]:
        """All of them."""
        return frozenset(self.order)

    @property
    def honest(self) -> tuple[int, ...]:
        """Those who are not corrupt, in order."""
        return tuple(number for number in self.order if number not in self.corrupt)


@dataclass
class Scene:
    """One attacked session.

    Attributes:
        people: who is who.
        liar: the coordinator.
        view: all that reaches it and its accomplices.
        notebook: what is written down.
    """

    people: People
    liar: Storyteller
    view: View
    notebook: Notebook

    @property
    def world(self) -> World:
        """The world."""
        return self.liar.world

    @property
    def loot(self) -> Loot:
        """What the coordinator holds."""
        return self.liar.loot

    @property
    def promised(self) -> int:
        """Honest inputs that every sum which shows must hold: ``min_contributors - max_corrupt``."""
        return self.world.plan.minimum - self.world.plan.corrupt

    async def play(self) -> None:
        """Open the session, let everybody join, and wait until nothing more happens."""
        await self.world.open()
        for number in range(self.world.plan.clients):
            self.world.join(number)
        await told_out(self.liar, MOST_S)

    def fewest(self) -> frozenset[int] | None:
        """Honest clients in the smallest sum that the coordinator can compute, by what it holds and by what it saw.

        What it holds gives the sum itself, and it counts only if it is right. What it saw is judged exactly, but for
        lies that change what honest clients dealt.
        """
        opened = self.loot.smallest()
        found = [opened.clients - self.people.corrupt] if opened is not None and opened.is_true else []
        try:
            determined = self.view.smallest_sum()
        except KnowledgeError:
            determined = None
        return min([*found, *([] if determined is None else [determined])], key=len, default=None)

    def result(self, notebook: Notebook | None = None) -> AttackResult:
        """What came of it: it succeeded if a sum over fewer honest inputs than promised can be computed."""
        kept, fewest = notebook or self.notebook, self.fewest()
        succeeded = fewest is not None and len(fewest) < self.promised
        if fewest is None:
            kept.step("No masked input can be opened, and no sum of any of them.")
        else:
            kept.step(
                f"All that it saw determines {self._determined()}. The smallest sum that it can compute holds "
                f"{len(fewest)} honest inputs; {self.promised} are promised."
            )
        learned = [self._words(fewest)] if fewest is not None and succeeded else []
        return kept.result(how_it_ended(self.world), learned, succeeded=succeeded)

    def _determined(self) -> str:
        """What follows from all that reached the adversary, in words."""
        try:
            return "; ".join(self.view.explain())
        except KnowledgeError:
            return "more than is counted here, for it made honest clients mask with what it chose"

    def _words(self, clients: frozenset[int]) -> str:
        if len(clients) == 1:
            return f"the input of {numbered(clients)}, every coordinate"
        return f"the sum of the inputs of {numbered(clients)}"


Maker = Callable[[World, People], Storyteller]
"""Makes the coordinator that lies."""


def scene_of(plan: Plan, make: Maker, people: People | None = None) -> Scene:
    """A world with a lying coordinator, not yet open."""
    people = people or People.of(plan)
    world = World(plan)
    liar = make(world, people)
    world.front = liar
    view = View(world.cast, people.corrupt)
    world.network.observers.append(view)
    return Scene(people, liar, view, Notebook())


def attack(
    name: str, play: Callable[[int], Coroutine[Any, Any, AttackResult]], naive: str | None = None, **words: str
) -> Attack:
    """An attack on a pairwise session; ``words`` are its goal, its adversary and why it fails."""
    return Attack(name, Protocol.PAIRWISE, run=functools.partial(_run, play), naive=naive, **words)


def _run(play: Callable[[int], Coroutine[Any, Any, AttackResult]], seed: int) -> AttackResult:
    return run_virtually(play(seed))
