"""Scenarios from TOML files: the same numbers as on the command line, and models by name."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from secagg.protocol.phases import Phase
from simulations.scenarios.dropouts import (
    Adversarial,
    ByPhase,
    Diurnal,
    DropoutModel,
    FlashCrowd,
    Independent,
    Nobody,
    Regions,
)
from simulations.scenarios.lines import Alike, LineModel, Mixed, Stragglers
from simulations.scenarios.scenario import Crash, Cut, Fault, Scenario
from simulations.world.plan import CommitteePlan, Plan, PlanError, Protocol
from simulations.world.stores import CrashTime

_DROPOUTS: Mapping[str, type[DropoutModel]] = MappingProxyType(
    {
        "nobody": Nobody,
        "independent": Independent,
        "by-phase": ByPhase,
        "regions": Regions,
        "diurnal": Diurnal,
        "flash-crowd": FlashCrowd,
        "adversarial": Adversarial,
    }
)
_LINES: Mapping[str, type[LineModel]] = MappingProxyType({"alike": Alike, "mixed": Mixed, "stragglers": Stragglers})
_FAULTS: Mapping[str, type[Fault]] = MappingProxyType({"crash": Crash, "cut": Cut})
_SCENARIO_KEYS = {"about", "session", "dropouts", "lines", "faults", "spread_s", "capacity", "attacks"}


def load_scenario(path: Path) -> Scenario:
    """The scenario in a file, named after it.

    Raises:
        PlanError: the file cannot be read, or something in it makes no scenario; ``field`` names what.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(str(path), error.strerror or type(error).__name__) from None
    except ValueError as error:
        raise PlanError(str(path), f"not TOML: {error}") from None
    return scenario_of(path.stem, document)


def scenario_of(name: str, document: Mapping[str, Any]) -> Scenario:
    """The scenario in a document. Raises PlanError."""
    _refuse_unknown("scenario", document, _SCENARIO_KEYS)
    dropouts = document.get("dropouts", [])
    return Scenario(
        name=name,
        about=_typed("about", document.get("about", ""), str),
        plan=_plan(_table("session", document.get("session", {}))),
        dropouts=tuple(_model("dropouts", each, _DROPOUTS) for each in _tables("dropouts", dropouts)) or (Nobody(),),
        lines=_model("lines", _table("lines", document.get("lines", {"model": "alike"})), _LINES),
        faults=tuple(_fault(each) for each in _tables("faults", document.get("faults", []))),
        spread_s=_number("spread_s", document.get("spread_s", 10.0)),
        capacity=None if "capacity" not in document else _number("capacity", document["capacity"]),
        attacks=tuple(_typed("attacks", each, str) for each in _typed("attacks", document.get("attacks", []), list)),
    )


def _plan(table: Mapping[str, Any]) -> Plan:
    values = dict(table)
    committee = values.pop("committee", None)
    _refuse_unknown("session", values, {field.name for field in dataclasses.fields(Plan)} - {"committee"})
    if "protocol" not in values or "clients" not in values:
        raise PlanError("session", "protocol and clients are needed")
    try:
        values["protocol"] = Protocol(values["protocol"])
    except ValueError:
        raise PlanError("session.protocol", f"expected pairwise or one-shot, got {values['protocol']!r}") from None
    for field in ("expected_dropout", "epsilon"):
        if field in values:
            values[field] = _fraction(f"session.{field}", values[field])
    for field in set(values) - {"protocol", "expected_dropout", "epsilon"}:
        values[field] = _typed(f"session.{field}", values[field], int)
    if committee is not None:
        table = _table("session.committee", committee)
        _refuse_unknown("session.committee", table, {field.name for field in dataclasses.fields(CommitteePlan)})
        values["committee"] = CommitteePlan(
            **{key: _typed(f"session.committee.{key}", value, int) for key, value in table.items()}
        )
    return Plan(**values)


def _model(field: str, table: Mapping[str, Any], models: Mapping[str, type[Any]]) -> Any:  # noqa: ANN401
    """One of several dataclasses, by the name in ``model``, with the rest as its fields."""
    values = dict(table)
    name = values.pop("model", None)
    if name not in models:
        raise PlanError(f"{field}.model", f"expected one of {', '.join(models)}, got {name!r}")
    kind = models[name]
    known = {each.name for each in dataclasses.fields(kind)}
    _refuse_unknown(f"{field} ({name})", values, known)
    if kind is ByPhase:
        return ByPhase({_phase(key): _number(field, rate) for key, rate in _table(field, values.get("rates")).items()})
    return _built(f"{field} ({name})", kind, {key: _number(f"{field}.{key}", value) for key, value in values.items()})


def _fault(table: Mapping[str, Any]) -> Fault:
    values = dict(table)
    kind = _FAULTS.get(values.pop("kind", ""))
    if kind is None:
        raise PlanError("faults.kind", f"expected one of {', '.join(_FAULTS)}, got {table.get('kind')!r}")
    _refuse_unknown("faults", values, {each.name for each in dataclasses.fields(kind)})
    if "when" in values:
        values["when"] = _crash_time(values["when"])
    if "nodes" in values:
        values["nodes"] = tuple(_typed("faults.nodes", values["nodes"], list))
    fault: Fault = _built("faults", kind, values)
    return fault


def _built(field: str, kind: type[Any], values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    try:
        return kind(**values)
    except TypeError as error:
        raise PlanError(field, str(error).partition("__init__() ")[2] or str(error)) from None


def _phase(text: str) -> Phase:
    try:
        return Phase(text)
    except ValueError:
        raise PlanError("dropouts.rates", f"{text!r} is no phase") from None


def _crash_time(value: object) -> CrashTime:
    try:
        return CrashTime(_typed("faults.when", value, str))
    except ValueError:
        raise PlanError("faults.when", f"expected before or after, got {value!r}") from None


def _fraction(field: str, value: object) -> Fraction:
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise PlanError(field, f"expected a number such as 1/10 or 0.1, got {value!r}") from None


def _number(field: str, value: object) -> Any:  # noqa: ANN401 - int stays int, float stays float
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlanError(field, f"expected a number, got {value!r}")
    return value


def _typed(field: str, value: object, kind: type[Any]) -> Any:  # noqa: ANN401
    if not isinstance(value, kind) or isinstance(value, bool):
        raise PlanError(field, f"expected {kind.__name__}, got {value!r}")
    return value


def _table(field: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PlanError(field, f"expected a table, got {value!r}")
    return value


def _tables(field: str, value: object) -> list[Mapping[str, Any]]:
    return [_table(field, each) for each in _typed(field, value, list)]


def _refuse_unknown(field: str, table: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise PlanError(field, f"unknown: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
