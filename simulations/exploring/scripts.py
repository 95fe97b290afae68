"""Scripts: a plan and a list of operations, as text that can be pasted into a test as it is.

Parsing the text gives the same script, and running that the same session.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from simulations.exploring.operations import (
    CLIENT_CALLS,
    COORDINATOR_CALLS,
    KINDS,
    Betray,
    Crash,
    Equivocate,
    Lie,
    Operation,
)
from simulations.world.cast import client_name, member_name, witness_name
from simulations.world.coordinator import COORDINATOR
from simulations.world.plan import CommitteePlan, Plan, PlanError, Protocol

MOST_SECONDS = 100_000
MOST_WRITES = 10_000


class ScriptError(ValueError):
    """No script; ``field`` names what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


_BOUNDS = {
    "seconds": (0, MOST_SECONDS),
    "after_s": (0, MOST_SECONDS),
    "down_s": (0, MOST_SECONDS),
    "times": (1, 100),
    "write": (1, MOST_WRITES),
}


@dataclass(frozen=True, slots=True)
class Script:
    """A session and what is done to it.

    Raises:
        ScriptError: an operation is about somebody or something that the plan does not have.
    """

    plan: Plan
    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        """Check every operation against the plan."""
        for number, operation in enumerate(self.operations):
            reason = _what_is_wrong(self.plan, operation)
            if reason is not None:
                raise ScriptError(f"operations[{number}]", f"{to_line(operation)}: {reason}")

    def to_text(self) -> str:
        """A line for the plan, then one for each operation."""
        return "\n".join([plan_line(self.plan), *map(to_line, self.operations)]) + "\n"

    @classmethod
    def parse(cls, text: str) -> Script:
        """A script from its text; empty lines and what follows a ``#`` do not count.

        Raises:
            ScriptError: a line says nothing that could be done.
        """
        lines = [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]
        if not lines:
            raise ScriptError("plan", "the text is empty")
        return cls(parse_plan(lines[0]), tuple(map(parse_line, lines[1:])))


def nodes_of(plan: Plan) -> tuple[str, ...]:
    """Names of everybody in a session of this plan."""
    members = plan.committee.members if plan.protocol is Protocol.ONE_SHOT else 0
    return (
        COORDINATOR,
        *map(client_name, range(plan.clients)),
        *map(member_name, range(members)),
        *map(witness_name, range(plan.witnesses)),
    )


def liars_of(operations: Sequence[Operation]) -> frozenset[int]:
    """Numbers of the clients that lie or equivocate."""
    return frozenset(each.client for each in operations if isinstance(each, Lie | Equivocate))


def traitors_of(operations: Sequence[Operation]) -> frozenset[int]:
    """Places of the committee members that lie."""
    return frozenset(each.member for each in operations if isinstance(each, Betray))


def _what_is_wrong(plan: Plan, operation: Operation) -> str | None:
    names = nodes_of(plan)
    members = plan.committee.members if plan.protocol is Protocol.ONE_SHOT else 0
    limits = _BOUNDS | {"client": (0, plan.clients - 1), "member": (0, members - 1)}
    for field in dataclasses.fields(operation):
        value = getattr(operation, field.name)
        if isinstance(value, int):
            least, most = limits[field.name]
            if not least <= value <= most:
                return f"{field.name}: expected {least} to {most}"
        named = {"node": (value,), "nodes": value}.get(field.name, ())
        strangers = sorted(set(named) - set(names))
        if strangers:
            return f"{field.name}: the plan has no {', '.join(strangers)}"
    if isinstance(operation, Crash) and operation.node.startswith("witness"):
        return "node: witnesses are killed, not crashed at a write"
    calls = getattr(operation, "call", None)
    if calls is not None and calls not in (*CLIENT_CALLS, *COORDINATOR_CALLS):
        return "call: nobody makes such calls"
    return None


def to_line(operation: Operation) -> str:
    """The operation as one line: its verb and its fields, in order."""
    words = [operation.VERB]
    for field in dataclasses.fields(operation):
        value = getattr(operation, field.name)
        words += value if isinstance(value, tuple) else [str(value)]
    return " ".join(words)


def parse_line(line: str) -> Operation:
    """The operation of a line. Raises ScriptError."""
    verb, *words = line.split()
    kind = KINDS.get(verb)
    if kind is None:
        raise ScriptError("operation", f"{verb!r} is none of {', '.join(KINDS)}")
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    values: list[Any] = []
    for number, field in enumerate(fields):
        if isinstance(hints[field.name], types.GenericAlias):
            values.append(tuple(words[number:]))
            break
        if number >= len(words):
            raise ScriptError("operation", f"{line!r}: {field.name} is missing")
        values.append(_read(hints[field.name], field.name, words[number]))
    else:
        if len(words) > len(fields):
            raise ScriptError("operation", f"{line!r}: too many words")
    return kind(*values)


_ValueT = TypeVar("_ValueT")


def _read(kind: type[_ValueT], name: str, word: str) -> _ValueT:
    try:
        return kind(word)  # type: ignore[call-arg]
    except ValueError as error:
        raise ScriptError(name, str(error)) from None


def plan_line(plan: Plan) -> str:
    """The plan as one line."""
    rules = plan.committee
    words = [f"plan {plan.protocol} clients={plan.clients} dimension={plan.dimension} seed={plan.seed}"]
    words += [f"minimum={plan.minimum} corrupt={plan.corrupt}"]
    words += [f"dropout={plan.expected_dropout} phase={plan.phase_s} witnesses={plan.witnesses}"]
    if plan.protocol is Protocol.ONE_SHOT:
        words += [f"committee={rules.members}/{rules.needed}/{rules.max_corrupt}"]
    return " ".join(words)


def parse_plan(line: str) -> Plan:
    """The plan of a line. Raises ScriptError."""
    verb, *words = line.split()
    if verb != "plan" or not words:
        raise ScriptError("plan", "the first line begins with the word plan and a protocol")
    given = dict(word.partition("=")[::2] for word in words[1:])
    committee = given.pop("committee", "7/5/2")
    try:
        members, needed, corrupt = map(int, committee.split("/"))
        dropout = Fraction(given.pop("dropout", "1/10"))
        numbers = {name: int(value) for name, value in given.items()}
        unknown = sorted(set(numbers) - set(_PLAN_FIELDS))
        if unknown:
            raise ScriptError("plan", f"{', '.join(unknown)}: no such number")
        return Plan(
            Protocol(words[0]),
            expected_dropout=dropout,
            committee=CommitteePlan(members, needed, corrupt),
            **{_PLAN_FIELDS[name]: value for name, value in numbers.items()},  # type: ignore[arg-type]
        )
    except (PlanError, ValueError, TypeError) as error:
        raise ScriptError("plan", str(error)) from None


_PLAN_FIELDS = {
    "clients": "clients",
    "dimension": "dimension",
    "seed": "seed",
    "minimum": "min_contributors",
    "corrupt": "max_corrupt",
    "phase": "phase_s",
    "witnesses": "witnesses",
}
