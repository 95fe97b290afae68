"""What an attack writes down as it goes: what was tried, who refused it, and how the session ended."""

from __future__ import annotations

from collections.abc import Sequence

from secagg.runtime.participant import TransportError
from simulations.attacks.attack import AttackResult
from simulations.world.world import World


class Notebook:
    """Steps and refusals of one attack, in order; a refusal of several machines for one reason is one line."""

    def __init__(self) -> None:
        self._steps: list[str] = []
        self._refusals: dict[tuple[str, str], list[str]] = {}

    def step(self, text: str) -> None:
        """Something was tried, or came of it."""
        self._steps.append(text)

    def refused(self, who: str, what: str, reason: str) -> None:
        """Somebody's machine refused ``what`` for a reason, by name."""
        self._refusals.setdefault((what, reason), []).append(who)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Who refused what, and why."""
        return tuple(
            f"{named(sorted(set(who), key=_natural))} refused {what}: {reason}"
            for (what, reason), who in self._refusals.items()
        )

    def result(self, ended: str, learned: Sequence[str], *, succeeded: bool) -> AttackResult:
        """What came of it."""
        return AttackResult(tuple(self._steps), self.refusals, ended, tuple(learned), succeeded)


def how_it_ended(world: World) -> str:
    """How a session ended at its coordinator: "finished", "aborted: " and why, or "open"."""
    try:
        if not world.is_over:
            return "open"
        reason = world.aborted_because()
    except TransportError:
        return "open"
    return "finished" if reason is None else f"aborted: {reason}"


def _natural(name: str) -> tuple[str, int]:
    kind, _, number = name.rpartition("-")
    return (kind, int(number)) if number.isdecimal() else (name, 0)


def named(names: Sequence[str]) -> str:
    """Names of nodes in one phrase: "member-2 to member-6", "client-1 and client-4"."""
    found = list(names)
    kinds = {name.rpartition("-")[0] for name in found}
    numbers = [int(name.rpartition("-")[2]) for name in found] if all("-" in name for name in found) else []
    if len(numbers) > 2 and len(kinds) == 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{found[0]} to {found[-1]}"
    return " and ".join(filter(None, (", ".join(found[:-1]), found[-1])))


def numbered(numbers: Sequence[int] | frozenset[int]) -> str:
    """Numbers of clients in one phrase: "clients 0, 1 and 4", "client 3"."""
    found = sorted(numbers)
    if not found:
        return "nobody"
    words = " and ".join(filter(None, (", ".join(map(str, found[:-1])), str(found[-1]))))
    return f"client{'s' if len(found) > 1 else ''} {words}"
