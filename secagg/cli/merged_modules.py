"""What is known of a merged adapter, module by module: from its tensors, and from merge.json where there is one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.lora.adapter import Adapter
from secagg.lora.merge_report import DEGRADED_ERROR, REPORT_FILE, MergeReport
from secagg.lora.reader import read_adapter
from secagg.lora.updates import Factors, update_of

MAX_REPORT_BYTES = 2**26
_PPM = 10**6
_MORE_RANK = "a higher rank of the merged adapter (--rank-out)"
_REMEDIES = {
    "dense": (_MORE_RANK,),
    "sketch": (_MORE_RANK, "larger sketches (--columns, --core-columns)", "--merge two-session where all come twice"),
    "two-session": (_MORE_RANK, "more --columns"),
    "pilot-basis": (_MORE_RANK, "more --columns", "a larger pilot (--pilot-share)"),
}


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """One module; what only merge.json knows is None where there is none.

    Attributes:
        path: the module's.
        rank: of its factors.
        norm: the Frobenius norm of its update, from the tensors.
        energy: its share of the energy: as merge.json estimates it for the exact mean, else that of the tensors.
        sent: what was sent of it.
        error: estimated relative error.
        scalar: what the update was multiplied by to fit the probe best.
    """

    path: str
    rank: int
    norm: float
    energy: float
    sent: str | None = None
    error: float | None = None
    scalar: float | None = None

    @property
    def is_poor(self) -> bool:
        """Whether its error is above what an adapter can have in many modules and still be deployed."""
        return self.error is not None and self.error > DEGRADED_ERROR


@dataclass(frozen=True, slots=True)
class MergedFacts:
    """An adapter; ``modules`` in the order of their layers."""

    modules: tuple[ModuleFacts, ...]
    report: MergeReport | None

    @property
    def norm(self) -> float:
        """The joint Frobenius norm of all updates."""
        return math.sqrt(sum(module.norm**2 for module in self.modules))

    def value(self) -> dict[str, Any]:
        """For programs; None where merge.json would know."""
        report = self.report
        return {
            "strategy": report and report.strategy,
            "contributors": report and report.contributors,
            "norm": self.norm,
            "error": report and report.error_ppm / _PPM,
            "degraded": report and report.is_degraded,
            "degraded_share": report and report.degraded_ppm / _PPM,
            "scaled_down": report and _counted(report.scaled_down_ppm),
            "clamped": report and _counted(report.clamped_ppm),
            "modules": [
                {
                    "path": module.path,
                    "rank": module.rank,
                    "norm": module.norm,
                    "energy": module.energy,
                    "sent": module.sent and module.sent.split("+"),
                    "error": module.error,
                    "scalar": module.scalar,
                }
                for module in self.modules
            ],
        }

    def table(self) -> str:
        """One line a module."""
        if self.report is None:
            return aligned(
                ("module", "rank", "norm", "energy"),
                [(m.path, str(m.rank), f"{m.norm:#.4g}", percent(m.energy)) for m in self.modules],
            )
        return aligned(
            ("module", "sent", "norm", "energy", "est. error", "scalar"),
            [
                (m.path, m.sent or "", f"{m.norm:#.4g}", percent(m.energy), f"{m.error:.3f}", f"{m.scalar:.3f}")
                for m in self.modules
            ],
            left=2,
            marks=[f"above {DEGRADED_ERROR}" if module.is_poor else "" for module in self.modules],
        )

    def summary(self) -> list[str]:
        """What it comes to, in a few lines."""
        count = f"{len(self.modules)} module{'s' if len(self.modules) > 1 else ''}, joint norm {self.norm:#.4g}"
        if self.report is None:
            return [f"{count}; no {REPORT_FILE}, so no estimate: averaged factors say nothing of their error"]
        report = self.report
        return [
            f"{report.strategy}, {report.contributors} contributors, {count}",
            f"estimated error {report.error_ppm / _PPM:.3f} of the exact mean, over all modules",
            _clipping(report),
            *degraded_words(report),
        ]


def read_facts(directory: Path) -> MergedFacts:
    """What the files in ``directory`` say.

    Raises:
        AdapterError: the adapter or merge.json is not readable.
        CommandError: merge.json is not about this adapter.
    """
    adapter = read_adapter(directory, None)
    return facts_of(adapter, _read_report(directory))


def facts_of(adapter: Adapter, report: MergeReport | None) -> MergedFacts:
    """What an adapter and its report say. Raises CommandError: they are not about the same modules."""
    squares = {path: factors.square for path, factors in updates_by_path(adapter).items()}
    total = sum(squares.values())
    ranks = {module.path: module.rank for module in adapter.modules}
    if report is None:
        modules = [
            ModuleFacts(path, ranks[path], math.sqrt(square), square / total if total else 0.0)
            for path, square in squares.items()
        ]
    else:
        if {module.path for module in report.modules} != squares.keys():
            raise CommandError(
                "REPORT_MISMATCH",
                f"{REPORT_FILE} is about other modules than the tensors beside it",
                "fetch both again: `secagg session result`",
                kind="adapter",
            )
        modules = [
            ModuleFacts(
                path=module.path,
                rank=ranks[module.path],
                norm=math.sqrt(squares[module.path]),
                energy=module.energy_ppm / _PPM,
                sent=module.sent,
                error=module.error_ppm / _PPM,
                scalar=module.scalar_ppm / _PPM,
            )
            for module in report.modules
        ]
    return MergedFacts(tuple(sorted(modules, key=lambda module: in_layers(module.path))), report)


def updates_by_path(adapter: Adapter) -> dict[str, Factors]:
    """The update of each module, whatever session it is for."""
    return {module.path: update_of(adapter, module) for module in adapter.modules}


def in_layers(path: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in paths as numbers: layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def degraded_words(report: MergeReport) -> list[str]:
    """What it means that an adapter is degraded, and what helps; nothing if it is not."""
    if not report.is_degraded:
        return []
    remedies = _REMEDIES.get(report.strategy, ())
    lines = [
        f"DEGRADED: {percent(report.degraded_ppm / _PPM)} of the energy is in modules with an estimated error above "
        f"{DEGRADED_ERROR}.",
        "Do not deploy it before you have measured it on data of your own.",
    ]
    return [*lines, *([f"What helps in another session: {'; '.join(remedies)}."] if remedies else [])]


def percent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.1f} %"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, marks: Sequence[str] = ()) -> str:
    """A table: the first ``left`` columns to the left, the others to the right; a mark follows its line."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for number, row in enumerate((head, *rows)):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        mark = marks[number - 1] if marks and number else ""
        lines.append("  ".join((*cells, mark)).rstrip())
    return "\n".join(lines)


def _read_report(directory: Path) -> MergeReport | None:
    path = directory / REPORT_FILE
    if not path.exists():
        return None
    if not path.is_file() or path.stat().st_size > MAX_REPORT_BYTES:
        raise CommandError(
            "REPORT",
            f"{path}: no regular file of at most {MAX_REPORT_BYTES} bytes",
            kind="adapter",
            code=ExitCode.UNUSABLE_INPUT,
        )
    return MergeReport.from_bytes(path.read_bytes())


def _counted(ppm: int) -> float | None:
    return None if ppm < 0 else ppm / _PPM


def _clipping(report: MergeReport) -> str:
    if min(report.scaled_down_ppm, report.clamped_ppm) < 0:
        return "how many were scaled down or clamped is not counted in a session with noise"
    return (
        f"{percent(report.scaled_down_ppm / _PPM)} of the contributors scaled down to the session's norm, "
        f"{percent(report.clamped_ppm / _PPM)} of the coordinates clamped"
    )
