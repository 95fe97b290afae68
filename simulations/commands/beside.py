"""What is shown beside a simulated session: attacks replayed on others like it, and success against dropout rate."""

from __future__ import annotations

import dataclasses
import difflib
import math
from fractions import Fraction
from typing import Any

from simulations.attacks import poisoning
from simulations.attacks.attack import Attack
from simulations.attacks.catalogue import ATTACKS, record_of
from simulations.report.curve import Curve
from simulations.scenarios.outcome import Outcome
from simulations.scenarios.scenario import Scenario
from simulations.sweeping.grid import Sweep
from simulations.sweeping.runs import run_sweep
from simulations.world.plan import Plan, PlanError
from simulations.world.workers import cores

ALL = "all"
"""Instead of names: every attack of the catalogue on the session's protocol."""

CURVE_CLIENTS = 10
CURVE_REPEAT = 10
_CURVE_RATES = tuple(Fraction(number, 10) for number in range(8))


def check_attacks(scenario: Scenario) -> tuple[Attack, ...]:
    """The attacks that a scenario names. Raises PlanError: there is no such attack."""
    known = {attack.name: attack for attack in ATTACKS}
    found: list[Attack] = []
    for name in scenario.attacks:
        if name == ALL:
            found += [attack for attack in ATTACKS if attack.protocol is scenario.plan.protocol]
        elif name in known:
            found.append(known[name])
        else:
            near = difflib.get_close_matches(name, known, 1)
            raise PlanError("attacks", f"there is no attack {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    return tuple(found)


def with_attacks(outcome: Outcome, scenario: Scenario) -> Outcome:
    """The same with every attack of the scenario replayed, and with what poison does where poisoning is among them.

    Raises:
        PlanError: the scenario names an attack that does not exist.
    """
    attacks, seed = check_attacks(scenario), scenario.plan.seed
    rows = [record_of(attack, attack.run(seed)) for attack in attacks]
    poisoned: tuple[dict[str, Any], ...] = ()
    if any(attack in poisoning.ATTACKS for attack in attacks):
        measured = poisoning.influences(scenario.plan.protocol, seed)
        poisoned = tuple({key: _finite(value) for key, value in dataclasses.asdict(each).items()} for each in measured)
    return dataclasses.replace(outcome, attacks=tuple(rows), influence=poisoned)


def curve_beside(scenario: Scenario, rate: float) -> Curve:
    """Success against dropout rate in sessions like the scenario's, but small: ten clients, ten runs for each rate."""
    plan = Plan(scenario.plan.protocol, CURVE_CLIENTS, dimension=2, committee=scenario.plan.committee)
    sweep = Sweep(plan, (scenario.plan.protocol,), _CURVE_RATES, repeat=CURVE_REPEAT, seed=scenario.plan.seed)
    points = run_sweep(sweep, jobs=cores()).points
    return Curve.of_sweep(plan, points, rate)


def _finite(value: object) -> object:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
