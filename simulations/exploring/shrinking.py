"""Shrinks a script that fails to a minimal one: no operation of it can go, and its numbers are small.

Delta debugging over the list first (halves, quarters, ... single operations), then simpler values: fewer clients, no
witnesses, smaller numbers. Deterministic; what counts as the same failure is for ``fails`` to say.

Source of the first step: A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace

from simulations.exploring.operations import Operation
from simulations.exploring.scripts import Script, ScriptError
from simulations.world.plan import CommitteePlan, Plan, PlanError, Protocol

Fails = Callable[[Script], bool]
"""Whether a script fails in the same way."""
_SMALL = (0, 1, 2, 3, 5, 10, 30, 60)


class _Shrinker:
    def __init__(self, script: Script, fails: Fails, budget: int) -> None:
        self.best = script
        self.left = budget
        self._fails = fails
        self._seen = {script.to_text()}

    def accepts(self, plan: Plan, operations: tuple[Operation, ...]) -> bool:
        """Take a candidate over if it is a script and fails."""
        try:
            candidate = Script(plan, operations)
        except ScriptError:
            return False
        text = candidate.to_text()
        if text in self._seen or not self.left:
            return False
        self._seen.add(text)
        self.left -= 1
        if self._fails(candidate):
            self.best = candidate
            return True
        return False

    def drop_operations(self) -> None:
        """Until no single operation can go."""
        size = max(1, len(self.best.operations) // 2)
        while True:
            removed = self._drop_runs(size)
            if size == 1 and not removed:
                return
            if not removed:
                size = max(1, size // 2)

    def _drop_runs(self, size: int) -> bool:
        removed, at = False, 0
        while at < len(self.best.operations):
            rest = self.best.operations[:at] + self.best.operations[at + size :]
            if self.accepts(self.best.plan, rest):
                removed = True
            else:
                at += size
        return removed

    def simplify(self) -> bool:
        """One pass over plan and operations; whether anything became simpler."""
        before = self.best
        for plan in _simpler_plans(before.plan):
            self.accepts(plan, self.best.operations)
        for at in range(len(self.best.operations)):
            for simpler in _simpler(self.best.operations[at]):
                operations = self.best.operations
                if self.accepts(self.best.plan, (*operations[:at], simpler, *operations[at + 1 :])):
                    break
        return self.best != before


def shrink(script: Script, fails: Fails, budget: int = 400) -> Script:
    """A smaller script that still fails.

    Args:
        script: one that fails.
        fails: plays a script.
        budget: how many may be played at most.

    Returns:
        If the budget lasted, a script of which no single operation can be left out.
    """
    shrinker = _Shrinker(script, fails, budget)
    shrinker.drop_operations()
    while shrinker.left and shrinker.simplify():
        shrinker.drop_operations()
    return shrinker.best


def _simpler_plans(plan: Plan) -> Iterator[Plan]:
    """Plans with one thing less, most rewarding first."""
    changes: list[dict[str, object]] = [{"witnesses": 0}]
    changes += [{"clients": fewer, "min_contributors": min(plan.minimum, fewer)} for fewer in range(3, plan.clients)]
    changes += [{"min_contributors": fewer} for fewer in range(3, plan.minimum)]
    changes += [{"seed": 0}, {"expected_dropout": type(plan.expected_dropout)(1, 10)}]
    if plan.protocol is Protocol.ONE_SHOT:
        changes.append({"committee": CommitteePlan(4, 3, 1)})
    for change in changes:
        try:
            yield replace(plan, **change)  # type: ignore[arg-type]
        except PlanError:
            continue


def _simpler(operation: Operation) -> Iterator[Operation]:
    """The operation with one smaller number, smallest first."""
    for field in dataclasses.fields(operation):
        value = getattr(operation, field.name)
        if isinstance(value, int):
            for smaller in _SMALL:
                if smaller < value:
                    yield _with(operation, field.name, smaller)
        elif isinstance(value, tuple):
            for at in range(len(value) if len(value) > 1 else 0):
                yield _with(operation, field.name, value[:at] + value[at + 1 :])


def _with(operation: Operation, name: str, value: object) -> Operation:
    changed: Operation = replace(operation, **{name: value})  # type: ignore[arg-type]
    return changed
