"""What an attack is, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulations.world.plan import Protocol


@dataclass(frozen=True, slots=True)
class AttackResult:
    """One attack as it went.

    Attributes:
        steps: what was tried, in order, in words and with numbers.
        refusals: whose machine refused what, with the name of its reason.
        ended: how the session ended: "finished", or "aborted: " and why, or "open".
        learned: what the adversary can compute in the end, in words; empty where nothing beyond the published sum.
        succeeded: whether it got what it wanted.
    """

    steps: tuple[str, ...]
    refusals: tuple[str, ...]
    ended: str
    learned: tuple[str, ...]
    succeeded: bool


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack that can be replayed.

    Attributes:
        name: as it is typed.
        protocol: of the session that is attacked.
        goal: what the adversary wants, in one sentence.
        adversary: who lies: how many of whom, and what they hold.
        why: why it fails, in words: the rule, and what it rests on.
        run: replays it from a seed, in a loop of its own.
        naive: name of the same attack on the naive model, if there is one (``simulations.naive``).
    """

    name: str
    protocol: Protocol
    goal: str
    adversary: str
    why: str
    run: Callable[[int], AttackResult]
    naive: str | None = None
