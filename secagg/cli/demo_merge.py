"""What a demo merges and how: factors that began from one A, or updates of people who never met."""

from __future__ import annotations

import abc
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from secagg.cli.demo_plan import DemoFailedError, DemoPlan, clip_norm_for, read_vectors
from secagg.cli.merged_modules import MergedFacts, aligned, degraded_words, read_facts, updates_by_path
from secagg.derive.result import FloatVector
from secagg.lora.adapter import Adapter
from secagg.lora.merging import Merging
from secagg.lora.reader import read_adapter
from secagg.lora.updates import Factors, Wide

STRATEGIES = ("sketch", "dense", "factors")
MERGED_RANK = 24
CORE_COLUMNS = 96
"""Half the default: with that a sketch would be larger than the modules of the example's small model."""
_TEXT_COLUMNS = 100
_INDEPENDENT = "adapters_independent"


class DemoMerge(abc.ABC):
    """How a demo merges; ``examples`` names the directory of the shipped adapters that it takes."""

    examples: ClassVar[str]

    @staticmethod
    def of(strategy: str) -> DemoMerge:
        """The merge of one of ``STRATEGIES``."""
        return FactorDemo() if strategy == "factors" else UpdateDemo(strategy)

    @abc.abstractmethod
    def options(self, plan: DemoPlan, contributors: Path) -> dict[str, object]:
        """Options of ``secagg session open`` about merging; nobody is scaled down."""

    @abc.abstractmethod
    def messages(self, plan: DemoPlan, contributors: Path, merging: Merging) -> dict[int, FloatVector]:
        """What each client sends, if its contribution is in the sum."""

    @abc.abstractmethod
    def errors(self, plan: DemoPlan, contributors: Path, merged: Path) -> MergeErrors | None:
        """How good the merged adapter is, where a session says so."""


class FactorDemo(DemoMerge):
    """The mean of A and of B, of adapters that began from one A."""

    examples = "adapters"

    def options(self, plan: DemoPlan, contributors: Path) -> dict[str, object]:
        """See ``DemoMerge``."""
        clip_norm = clip_norm_for(read_vectors(plan, contributors))
        return {"--merge": "factors", "--adapter": contributors / "1", "--clip-norm": clip_norm}

    def messages(self, plan: DemoPlan, contributors: Path, _merging: Merging) -> dict[int, FloatVector]:
        """See ``DemoMerge``."""
        vectors = read_vectors(plan, contributors)
        return {k: vectors[k] for k in plan.contributors}

    def errors(self, _plan: DemoPlan, _contributors: Path, _merged: Path) -> None:
        """Averaged factors say nothing of their error."""
        return


@dataclass(frozen=True, slots=True)
class UpdateDemo(DemoMerge):
    """The mean of linear maps of the updates, of adapters of any rank and start."""

    examples: ClassVar[str] = _INDEPENDENT
    strategy: str

    def options(self, plan: DemoPlan, contributors: Path) -> dict[str, object]:
        """See ``DemoMerge``."""
        norms = [_joint_norm(read_adapter(contributors / str(k), None)) for k in plan.numbers]
        own = {"--core-columns": CORE_COLUMNS} if self.strategy == "sketch" else {}
        return {
            **own,
            "--merge": self.strategy,
            "--adapter": contributors / "1",
            "--rank-out": MERGED_RANK,
            "--clip-norm": Fraction(math.floor(100 * max(norms)) + 1, 100),
        }

    def messages(self, plan: DemoPlan, contributors: Path, merging: Merging) -> dict[int, FloatVector]:
        """See ``DemoMerge``."""
        return {k: merging.message(read_adapter(contributors / str(k), None)).vector for k in plan.contributors}

    def errors(self, plan: DemoPlan, contributors: Path, merged: Path) -> MergeErrors:
        """Compare with the exact mean of the updates, which nobody but a demo can know."""
        adapters = [read_adapter(contributors / str(k), None) for k in plan.contributors]
        return errors_of(adapters, read_adapter(merged, None), read_facts(merged))


@dataclass(frozen=True, slots=True)
class ModuleError:
    """Errors of one module, relative to the norm of the exact mean: estimated from the sum, and true."""

    path: str
    estimated: float
    true: float


@dataclass(frozen=True, slots=True)
class MergeErrors:
    """How good a merged adapter is, as the session says and as it is.

    Attributes:
        facts: what the merged adapter and its report say.
        modules: in the order of the layers.
        true: of all modules together.
        factors: what the error of the mean of the factors would be, padded with zeros to one rank.
        ranks: those of the contributors' adapters, each once, ascending.
    """

    facts: MergedFacts
    modules: tuple[ModuleError, ...]
    true: float
    factors: float
    ranks: tuple[int, ...]

    def value(self) -> dict[str, Any]:
        """For programs."""
        known = self.facts.value()
        return {
            "strategy": known["strategy"],
            "estimated_error": known["error"],
            "true_error": self.true,
            "true_error_of_factor_mean": self.factors,
            "degraded": known["degraded"],
            "modules": [
                {"path": each.path, "estimated_error": each.estimated, "true_error": each.true} for each in self.modules
            ],
        }

    def in_words(self) -> list[str]:
        """For people: a table of layers and kinds of modules, then all together."""
        report = self.facts.report
        if report is None:
            raise ValueError("errors are estimated by a report")
        ranks = [str(rank) for rank in self.ranks]
        spoken = f"{', '.join(ranks[:-1])} and {ranks[-1]}" if len(ranks) > 1 else ranks[0]
        introduction = (
            f"The contributors never met: ranks {spoken}, each from an A of its own. From the sum alone follow "
            f"a merged adapter of rank {MERGED_RANK} ({report.strategy}) and estimates of its error, relative to "
            "the exact mean of all updates. In brackets the true error, which only a demo can know: it has all "
            "adapters."
        )
        return [
            *textwrap.wrap(introduction, _TEXT_COLUMNS),
            "",
            *(f"  {line}" for line in _grid(self.modules).split("\n")),
            "",
            f"All modules: {report.error_ppm / 10**6:.2f} ({self.true:.2f}). Averaged factors would be off by "
            f"({self.factors:.2f}).",
            *degraded_words(report),
        ]


def errors_of(adapters: Sequence[Adapter], merged: Adapter, facts: MergedFacts) -> MergeErrors:
    """Compare a merged adapter with the exact mean of the updates of ``adapters``. Raises DemoFailedError."""
    updates = [updates_by_path(adapter) for adapter in adapters]
    found = {path: _wide(factors) for path, factors in updates_by_path(merged).items()}
    exact = {path: sum((_wide(each[path]) for each in updates), np.zeros(1)) / len(updates) for path in found}
    averaged = {path: _mean_of_factors([each[path] for each in updates]) for path in found}
    if facts.report is None:
        raise DemoFailedError("the merged adapter has no report")
    modules = tuple(
        ModuleError(module.path, module.error or 0.0, _distance(found, exact, [module.path]))
        for module in facts.modules
    )
    ranks = {module.rank for adapter in adapters for module in adapter.modules}
    return MergeErrors(
        facts, modules, _distance(found, exact, exact), _distance(averaged, exact, exact), tuple(sorted(ranks))
    )


def _joint_norm(adapter: Adapter) -> float:
    return math.sqrt(sum(factors.square for factors in updates_by_path(adapter).values()))


def _wide(factors: Factors) -> Wide:
    product: Wide = factors.left.astype(np.float64) @ factors.right.astype(np.float64)
    return product


def _mean_of_factors(updates: Sequence[Factors]) -> Wide:
    """What averaging A and B would give, with zeros where an adapter has fewer ranks than the others."""
    rank = max(update.right.shape[0] for update in updates)
    left = [np.pad(update.left, ((0, 0), (0, rank - update.left.shape[1]))) for update in updates]
    right = [np.pad(update.right, ((0, rank - update.right.shape[0]), (0, 0))) for update in updates]
    a: Wide = np.asarray(np.mean(right, axis=0, dtype=np.float64))
    b: Wide = np.asarray(np.mean(left, axis=0, dtype=np.float64))
    product: Wide = b @ a
    return product


def _distance(found: Mapping[str, Wide], exact: Mapping[str, Wide], paths: Sequence[str] | Mapping[str, Wide]) -> float:
    """The norm of the difference over these modules, relative to that of the exact mean."""
    missing = sum(float(np.sum((found[path] - exact[path]) ** 2)) for path in paths)
    return math.sqrt(missing / sum(float(np.sum(exact[path] ** 2)) for path in paths))


def _grid(modules: Sequence[ModuleError]) -> str:
    """Layers down, kinds of modules across."""
    cells: dict[str, dict[str, str]] = {}
    for module in modules:
        where, _, kind = module.path.rpartition(".")
        layer = where.removeprefix("model.").rpartition(".")[0] or where
        cells.setdefault(layer, {})[kind] = f"{module.estimated:.2f} ({module.true:.2f})"
    kinds = list(dict.fromkeys(kind for row in cells.values() for kind in row))
    return aligned(("", *kinds), [(layer, *(row.get(kind, "") for kind in kinds)) for layer, row in cells.items()])
