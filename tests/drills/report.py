"""What a drill did, what it checked, what it found."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class DrillReport:
    """The report of one drill, filled in as it goes.

    Attributes:
        name: the drill's.
        did: what was done, in a sentence.
        checked: the promises that were checked, each once.
        broken: those that were broken, with what was found.
        kills: how often a process was killed, by the moment: what had been said last.
        endings: how the sessions ended, by protocol and ending.
        figures: numbers beside these, with their units in the names.
        peak_mib: the largest resident set of each kind of process.
        elapsed_s: of the whole drill.
    """

    name: str
    did: str
    checked: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    figures: dict[str, float | int | str] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether something was checked and nothing was broken."""
        return bool(self.checked) and not self.broken

    def promise(self, promise: str, *broken: str) -> None:
        """A promise was checked; ``broken`` says what was found against it."""
        if promise not in self.checked:
            self.checked.append(promise)
        self.broken += [f"{promise}: {each}" for each in broken]

    def weigh(self, kind: str, peak_mib: float) -> None:
        """A process of this kind had so large a resident set at its peak."""
        self.peak_mib[kind] = max(self.peak_mib.get(kind, 0.0), round(peak_mib, 1))

    def value(self) -> dict[str, Any]:
        """For programs."""
        return {
            **dataclasses.asdict(self),
            "kills": dict(self.kills),
            "endings": dict(self.endings),
            "holds": self.holds,
        }

    def text(self) -> str:
        """For people."""
        lines = [f"{self.name}: {'ok' if self.holds else 'BROKEN'} ({self.elapsed_s:.1f} s)", f"  {self.did}"]
        if self.endings:
            lines.append(f"  sessions: {_counted(self.endings)}")
        if self.kills:
            lines.append(f"  killed {self.kills.total()} times, after: {_counted(self.kills)}")
        if self.figures:
            lines.append("  " + ", ".join(f"{name} {value}" for name, value in self.figures.items()))
        if self.peak_mib:
            peaks = ", ".join(f"{kind} {mib:.0f} MiB" for kind, mib in sorted(self.peak_mib.items()))
            lines.append(f"  peak memory: {peaks}")
        lines += [f"  held: {promise}" for promise in self.checked if not self._is_broken(promise)]
        lines += [f"  BROKEN: {each}" for each in self.broken]
        return "\n".join(lines)

    def _is_broken(self, promise: str) -> bool:
        return any(each.startswith(f"{promise}: ") for each in self.broken)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counter.most_common())


def verdict(reports: Sequence[DrillReport]) -> str:
    """All of them in a line."""
    bad = [report.name for report in reports if not report.holds]
    return f"{len(reports)} drills: " + (f"promises were broken in {', '.join(bad)}" if bad else "every promise held")
