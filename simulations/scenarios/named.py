"""The scenarios that have names."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from simulations.scenarios.dropouts import Adversarial, Diurnal, FlashCrowd, Independent, Regions
from simulations.scenarios.lines import MEBIBYTE, Mixed, Stragglers
from simulations.scenarios.scenario import Crash, Cut, Scenario
from simulations.world.plan import Plan, PlanError, Protocol
from simulations.world.stores import CrashTime

Maker = Callable[[Plan, float], Scenario]
"""From a plan and a dropout rate."""


def _steady(plan: Plan, _rate: float) -> Scenario:
    return Scenario("steady", "Everybody comes, stays and has a good line.", plan)


def _dropouts(plan: Plan, rate: float) -> Scenario:
    return Scenario(
        "dropouts",
        f"Each client drops out with probability {rate:g}, in any phase.",
        plan,
        (Independent(rate),),
        Mixed(),
    )


def _stragglers(plan: Plan, rate: float) -> Scenario:
    about = f"A fraction of {rate:g} has a line a thousand times slower than the others, and deadlines do not wait."
    return Scenario("stragglers", about, plan, lines=Stragglers(rate, 1000.0))


def _partition(plan: Plan, rate: float) -> Scenario:
    share = max(rate, 0.25)
    about = f"A quarter or more of the clients ({share:g}) is cut off for two minutes in the middle."
    return Scenario("partition", about, plan, lines=Mixed(), faults=(Cut(share=share, at_s=3.0, seconds=120.0),))


def _crashes(plan: Plan, rate: float) -> Scenario:
    faults = [
        Crash("coordinator", write=5, down_s=20.0),
        Crash("coordinator", at_s=60.0, write=3, when=CrashTime.AFTER, down_s=60.0),
        Crash("client-0", write=2, down_s=15.0),
        Crash("client-1", write=3, when=CrashTime.AFTER, down_s=15.0),
    ]
    if plan.protocol is Protocol.ONE_SHOT:
        faults += [
            Crash("member-0", write=2, down_s=40.0),
            Crash("member-1", write=3, when=CrashTime.AFTER, down_s=40.0),
        ]
    faults += [Crash(f"witness-{number}", at_s=1.0, down_s=30.0) for number in range(min(plan.witnesses, 1))]
    about = "Coordinator, members, a witness and clients die at their writes and come back."
    dropouts = (Independent(rate),) if rate else ()
    return Scenario("crashes", about, plan, dropouts, Mixed(), tuple(faults))


def _regions(plan: Plan, rate: float) -> Scenario:
    rate = max(rate, 0.2)
    about = f"People live in five regions; each goes dark with probability {rate:g}, for a quarter of an hour."
    return Scenario("regions", about, plan, (Regions(5, rate),), Mixed(), spread_s=300.0)


def _diurnal(plan: Plan, _rate: float) -> Scenario:
    long_plan = dataclasses.replace(plan, phase_s=86_400)
    about = "Phones are online half of every day, at hours that differ; phases last a day."
    return Scenario("diurnal", about, long_plan, (Diurnal(0.5),), Mixed(), spread_s=3600.0)


def _flash_crowd(plan: Plan, _rate: float) -> Scenario:
    about = "Everybody comes within seconds, and the coordinator takes 16 MiB a second from all together."
    return Scenario("flash-crowd", about, plan, (FlashCrowd(),), Mixed(), capacity=16 * MEBIBYTE)


def _worst_time(plan: Plan, rate: float) -> Scenario:
    about = f"An adversary silences a fraction of {rate:g}, each client at the moment that costs most."
    return Scenario("adversarial-timing", about, plan, (Adversarial(rate),), Mixed())


def _malicious_coordinator(plan: Plan, rate: float) -> Scenario:
    about = "Beside an honest session every attack on one like it is replayed: liars of all kinds, alone and together."
    return Scenario("malicious-coordinator", about, plan, (Independent(rate),), Mixed(), attacks=("all",))


def _poisoning(plan: Plan, rate: float) -> Scenario:
    about = "Clients contribute scaled, flipped and broken inputs; their influence on the mean is measured."
    attack = "poisoning" if plan.protocol is Protocol.PAIRWISE else "poisoning-one-shot"
    return Scenario("poisoning", about, plan, (Independent(rate),), Mixed(), attacks=(attack,))


SCENARIOS: Mapping[str, Maker] = MappingProxyType(
    {
        "steady": _steady,
        "dropouts": _dropouts,
        "stragglers": _stragglers,
        "partition": _partition,
        "crashes": _crashes,
        "regions": _regions,
        "diurnal": _diurnal,
        "flash-crowd": _flash_crowd,
        "adversarial-timing": _worst_time,
        "malicious-coordinator": _malicious_coordinator,
        "poisoning": _poisoning,
    }
)


def named(name: str, plan: Plan, rate: float) -> Scenario:
    """A scenario by its name. Raises PlanError: there is none."""
    maker = SCENARIOS.get(name)
    if maker is None:
        near = difflib.get_close_matches(name, SCENARIOS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise PlanError("scenario", f"{name!r} is none of {', '.join(SCENARIOS)}{hint}")
    return maker(plan, rate)
