"""A plan, or why there is none, in words and as values for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from dp.cli_values import plain, shown, table
from dp.demand import Demand
from dp.flattening import largest_flattening_to
from dp.planner import Plan, PlanError, Relaxation, ways_to_lower_the_ratio

_WAYS = {
    "epsilon": "a larger epsilon, which protects less",
    "min_survivors": "more contributors",
    "sessions": "fewer sessions",
    "corrupt": "fewer colluders",
    "dimension": "fewer parameters",
    "delta": "a larger delta, which protects less",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked on the command line.

    Attributes:
        demand: what to plan for.
        unflattened: coordinates before flattening pads them; None where vectors are not flattened.
    """

    demand: Demand
    unflattened: int | None

    def value(self, field: str, number: Fraction | int) -> Fraction | int:
        """A value of the demand as it is asked for: a dimension is the one before padding."""
        if field != "dimension" or self.unflattened is None:
            return number
        return self.unflattened if number == self.demand.dimension else largest_flattening_to(int(number))


@dataclass(frozen=True, slots=True)
class RatioWarning:
    """The noise outweighs the signal.

    Attributes:
        summary: that, and what it means, in one sentence.
        ways: each brings the ratio to 1.
    """

    summary: str
    ways: tuple[Relaxation, ...]


def warning_of(request: Request, planned: Plan) -> RatioWarning | None:
    """What to warn of; None when the ratio is at most 1."""
    ratio = planned.signal_ratio
    if ratio <= 1:
        return None
    clip, survivors = shown(request.demand.clip), request.demand.min_survivors
    summary = (
        f"the noise in a sum of {survivors} is {ratio:.3g} times as long as the sum could be if all vectors had norm "
        f"{clip} and pointed the same way: such a sum says more about the noise than about the contributors"
    )
    return RatioWarning(summary, ways_to_lower_the_ratio(planned, Fraction(1)))


def plan_text(request: Request, planned: Plan, warning: RatioWarning | None) -> str:
    """The plan as a table, and below it what to be warned of."""
    lines = [table(_rows(request, planned))]
    if warning is not None:
        lines += ["", f"warning: {warning.summary}.", *_ways(request, warning.ways, "bring the ratio to 1")]
    return "\n".join(lines)


def refusal_text(request: Request, error: PlanError) -> str:
    """Why there is no plan, and what to relax, a line each."""
    return "\n".join([f"no plan: {error.reason}.", *_ways(request, error.relaxations, "be enough")])


def plan_value(request: Request, planned: Plan, warning: RatioWarning | None) -> dict[str, Any]:
    """The plan for programs: exact numbers as text, measures as numbers."""
    demand, mechanism, alone = planned.demand, planned.mechanism, planned.single_session
    return {
        "feasible": True,
        "mechanism": demand.mechanism.value,
        "epsilon": planned.epsilon,
        "order": planned.order,
        "epsilon_one_session": alone.epsilon,
        "order_one_session": alone.order,
        "scale": str(planned.scale),
        "squared_norm": planned.squared_norm,
        "l1_norm": planned.sensitivity.l1,
        "squared_norm_inflation_percent": 100 * planned.norm_inflation,
        "local_variance": str(planned.local_variance),
        "local_sigma_grid": planned.local_sigma * float(planned.scale),
        "local_sigma_clip": planned.local_sigma / float(demand.clip),
        "total_sigma_grid": planned.total_sigma * float(planned.scale),
        "total_sigma_clip": planned.total_sigma / float(demand.clip),
        "honest_sigma_clip": planned.honest_sigma / float(demand.clip),
        "dimension": demand.dimension,
        "value_bits": planned.value_bits,
        "field_bits": planned.field_bits,
        "fields_per_lane": planned.fields_per_lane,
        "lanes": planned.lanes,
        "upload_bytes": planned.upload_bytes,
        "clamp_distance": str(planned.clamp_distance),
        "signal_ratio": planned.signal_ratio,
        "session": mechanism.to_json(),
        "demand": _demand_value(request),
        "warnings": [] if warning is None else [_warning_value(request, warning)],
    }


def refusal_value(request: Request, error: PlanError) -> dict[str, Any]:
    """Why there is no plan, for programs."""
    return {
        "feasible": False,
        "reason": error.reason,
        "relaxations": [_relaxation_value(request, each) for each in error.relaxations],
        "demand": _demand_value(request),
    }


def _rows(request: Request, planned: Plan) -> list[tuple[str, str]]:
    demand, clip, scale = planned.demand, float(planned.demand.clip), float(planned.scale)
    vectors = f"{demand.dimension} coordinates"
    if request.unflattened is not None:
        vectors = (
            f"{request.unflattened} parameters, flattened: {vectors} of at most {shown(demand.largest_coordinate)}"
        )
    total = f"sigma {shown(planned.total_sigma * scale)} grid steps = {shown(planned.total_sigma / clip)} clip"
    if demand.corrupt:
        total += f", of which {shown(planned.honest_sigma / clip)} counts: that of {demand.honest}"
    costs = [("epsilon", f"{_up(planned.epsilon)} for {_sessions(demand.sessions)} (order {planned.order})")]
    if demand.sessions > 1:
        alone = planned.single_session
        costs += [("", f"{_up(alone.epsilon)} for who takes part in one session only (order {alone.order})")]
    return [
        (
            "demand",
            f"epsilon {shown(demand.epsilon)} and delta {shown(demand.delta)} over {_sessions(demand.sessions)}",
        ),
        ("vectors", f"{vectors}, norm at most {shown(demand.clip)}"),
        ("contributors", f"{demand.min_survivors} to {demand.max_contributors}, {demand.corrupt} may collude"),
        ("mechanism", f"{demand.mechanism.words} noise, a share from each contributor"),
        ("scale", f"{planned.scale} grid steps a unit, {shown(scale * clip)} to the clip"),
        (
            "squared norm",
            f"at most {planned.squared_norm} grid steps squared: rounding adds {100 * planned.norm_inflation:.2f} %",
        ),
        (
            "noise of each",
            f"sigma {shown(planned.local_sigma * scale)} grid steps = {shown(planned.local_sigma / clip)} clip "
            f"(variance {shown(planned.local_variance)})",
        ),
        (f"noise of {demand.min_survivors}", total),
        (
            "field",
            f"{planned.field_bits} bits: {planned.value_bits} for a coordinate with its noise, the rest for adding up; "
            f"{planned.fields_per_lane} in 64",
        ),
        ("upload", f"{_size(planned.upload_bytes)} from each"),
        *costs,
        ("noise to signal", f"{planned.signal_ratio:.3g}"),
    ]


def _up(epsilon: float) -> str:
    """Four decimals, rounded up: what is shown is never less than what it costs."""
    return f"{math.ceil(epsilon * 10**4) / 10**4:.4f}"


def _size(length_bytes: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if length_bytes >= 10**power:
            return f"{length_bytes} bytes ({length_bytes / 10**power:.3g} {unit})"
    return f"{length_bytes} bytes"


def _sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count} sessions"


def _ways(request: Request, ways: tuple[Relaxation, ...], effect: str) -> list[str]:
    if not ways:
        return [f"No change of one demand would {effect}: relax several."]
    lines = [f"Any one of these would {effect}:"]
    for way in ways:
        now, needed = request.value(way.field, way.now), request.value(way.field, way.needed)
        line = f"  --{way.field.replace('_', '-')} {shown(now)} -> {shown(needed)}"
        also = way.besides(request.demand).items()
        besides = "".join(f"; with --{field.replace('_', '-')} {shown(value)}" for field, value in also)
        lines.append(f"{line:<36}  {_WAYS[way.field]}{besides}")
    return lines


def _relaxation_value(request: Request, way: Relaxation) -> dict[str, Any]:
    return {
        "field": way.field,
        "option": f"--{way.field.replace('_', '-')}",
        "now": plain(request.value(way.field, way.now)),
        "needed": plain(request.value(way.field, way.needed)),
        "also": {field: plain(value) for field, value in way.besides(request.demand).items()},
    }


def _warning_value(request: Request, warning: RatioWarning) -> dict[str, Any]:
    return {
        "kind": "signal-ratio",
        "text": warning.summary,
        "ways_to_one": [_relaxation_value(request, way) for way in warning.ways],
    }


def _demand_value(request: Request) -> dict[str, Any]:
    demand = request.demand
    return {
        "epsilon": plain(demand.epsilon),
        "delta": plain(demand.delta),
        "sessions": demand.sessions,
        "min_survivors": demand.min_survivors,
        "corrupt": demand.corrupt,
        "max_contributors": demand.max_contributors,
        "dimension": demand.dimension if request.unflattened is None else request.unflattened,
        "flatten": request.unflattened is not None,
        "coordinate_bound": str(demand.largest_coordinate),
        "clip": str(demand.clip),
        "mechanism": demand.mechanism.value,
    }
