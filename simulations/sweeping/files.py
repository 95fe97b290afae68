"""What came of a sweep, as CSV, as JSON, and as a table for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from simulations.sweeping.grid import Sweep
from simulations.sweeping.runs import Point, Run, SweepResult

FORMAT = "secagg-sweep/1"

COLUMNS: Mapping[str, str] = {
    "protocol": "pairwise or one-shot",
    "dropout": "probability that a client falls silent in the drop phase",
    "corruption": "probability that a client (pairwise) or a member (one-shot) refuses to help in the end",
    "runs": "sessions simulated",
    "successes": "of those, how many ended with a sum; each of these was right",
    "success": "successes / runs",
    "success_low": "Wilson's 95 % interval, lower end",
    "success_high": "Wilson's 95 % interval, upper end",
    "theory_low": "probability of success by theory, lower bound",
    "theory_high": "probability of success by theory, upper bound; equal where theory is exact",
    "corrupt_clients_excess": "theory: probability that more clients are corrupt than max_corrupt",
    "corrupt_members_excess": "theory: the same of the committee; empty for pairwise",
    "up_bytes": "sent by one client, mean over all runs and clients",
    "down_bytes": "received by one client, mean over all runs and clients",
    "committee_bytes": "between coordinator and committee, mean over all runs; empty for pairwise",
    "counted": "contributions in the sum, mean over the successes",
    "epsilon": "cost of a session, mean over the successes; empty without noise",
    "epsilon_worst": "the most that a success cost",
    "epsilon_theory": "mean by theory, given that a session opens",
    "error": "root of the mean square error of a coordinate of the mean, over the successes; empty without noise",
    "error_theory": "the same by theory, given that a session opens",
}
"""Columns of the CSV, in order, and what they mean."""

MEASURED = {"cpu_s": "CPU seconds of one session, all its machines together, mean; differs from run to run"}
"""Columns that are written only where they are asked for: the same seed does not give the same."""


def row_of(point: Point, *, with_cpu: bool = False) -> dict[str, str | int | float | None]:
    """A row of the CSV, by column; None where there is nothing to say."""
    theory = point.theory
    row: dict[str, str | int | float | None] = {
        "protocol": point.cell.protocol.value,
        "dropout": float(point.cell.dropout),
        "corruption": float(point.cell.corruption),
        "runs": point.runs,
        "successes": point.successes,
        "success": point.successes / point.runs,
        "success_low": point.interval.lower,
        "success_high": point.interval.upper,
        "theory_low": theory.success.lower,
        "theory_high": theory.success.upper,
        "corrupt_clients_excess": theory.corrupt_clients,
        "corrupt_members_excess": theory.corrupt_members,
        "up_bytes": point.up_bytes,
        "down_bytes": point.down_bytes,
        "committee_bytes": point.committee_bytes,
        "counted": point.counted,
        "epsilon": point.epsilon,
        "epsilon_worst": point.worst_epsilon,
        "epsilon_theory": theory.epsilon,
        "error": point.error,
        "error_theory": theory.error,
    }
    if with_cpu:
        row["cpu_s"] = point.cpu_s
    return {name: _rounded(value) for name, value in row.items()}


def to_csv(result: SweepResult, *, with_cpu: bool = False) -> str:
    """A header and one row for each cell. The same sweep gives the same bytes, unless CPU time is asked for."""
    written = io.StringIO()
    rows = [row_of(point, with_cpu=with_cpu) for point in result.points]
    writer = csv.DictWriter(written, list(COLUMNS) + (list(MEASURED) if with_cpu else []), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)
    return written.getvalue()


def to_json(result: SweepResult, *, with_cpu: bool = False) -> str:
    """Settings, meanings of columns, a row for each cell, and every session with its seed."""
    sweep = result.sweep
    value = {
        "format": FORMAT,
        "settings": settings_of(sweep),
        "columns": {**COLUMNS, **(MEASURED if with_cpu else {})},
        "cells": [row_of(point, with_cpu=with_cpu) for point in result.points],
        "runs": [_run(run, with_cpu=with_cpu) for run in result.runs],
    }
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def settings_of(sweep: Sweep) -> dict[str, Any]:
    """Every number that a sweep follows from, by the names of its options."""
    plan = sweep.plan
    committee = plan.committee
    return {
        "protocol": [protocol.value for protocol in sweep.protocols],
        "dropout": [str(rate) for rate in sweep.dropouts],
        "corruption": [str(rate) for rate in sweep.corruptions],
        "drop_phase": sweep.drop_phase.value,
        "repeat": sweep.repeat,
        "seed": sweep.seed,
        "clients": plan.clients,
        "dimension": plan.dimension,
        "min_contributors": plan.minimum,
        "max_corrupt": plan.corrupt,
        "expected_dropout": str(plan.expected_dropout),
        "committee": f"{committee.members}/{committee.needed}/{committee.max_corrupt}",
        "epsilon": None if plan.epsilon is None else str(plan.epsilon),
    }


def to_text(result: SweepResult, *, with_cpu: bool = False) -> str:
    """A table for people."""
    has_noise = result.sweep.plan.epsilon is not None
    head = ["protocol", "dropout", "corrupt", "sums", "95 % interval", "theory", "KiB up", "KiB down"]
    head += ["epsilon", "theory", "error", "theory"] if has_noise else []
    head += ["CPU s"] if with_cpu else []
    lines = [head]
    for point in result.points:
        theory = point.theory
        line = [
            point.cell.protocol.value,
            f"{float(point.cell.dropout):.4g}",
            f"{float(point.cell.corruption):.4g}",
            f"{point.successes}/{point.runs}",
            f"{point.interval.lower:.3f} to {point.interval.upper:.3f}",
            f"{theory.success.lower:.3f}" + ("" if theory.success.is_exact else f" to {theory.success.upper:.3f}"),
            f"{point.up_bytes / 1024:.1f}",
            f"{point.down_bytes / 1024:.1f}",
        ]
        if has_noise:
            line += [_short(value) for value in (point.epsilon, theory.epsilon, point.error, theory.error)]
        if with_cpu:
            line.append(f"{point.cpu_s:.2f}")
        lines.append(line)
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    text = []
    for first, *rest in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        text.append("  ".join(cells))
    return "\n".join(text) + "\n"


def _run(run: Run, *, with_cpu: bool) -> dict[str, Any]:
    value: dict[str, Any] = {
        "protocol": run.cell.protocol.value,
        "dropout": str(run.cell.dropout),
        "corruption": str(run.cell.corruption),
        "repetition": run.repetition,
        "seed": run.seed,
        "ended": run.ended.value,
        "reason": run.reason,
        "counted": run.counted,
        "seconds": run.seconds,
        "up_bytes": run.up_bytes,
        "down_bytes": run.down_bytes,
        "committee_bytes": run.committee_bytes,
        "square_error": _rounded(run.square_error),
    }
    if with_cpu:
        value["cpu_s"] = _rounded(run.cpu_s)
    return value


def _rounded(value: str | int | float | None) -> str | int | float | None:
    # What is left of a sum after ten digits is how it was added up.
    return float(f"{value:.10g}") if isinstance(value, float) else value


def _text(value: str | int | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
