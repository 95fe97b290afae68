"""What a session merges and how, in words and as JSON."""

from __future__ import annotations

from typing import Any, assert_never

from secagg.cli.output import Rows
from secagg.lora.merging import Merging
from secagg.lora.update_merging import UpdateMerging
from secagg.transcript.merge import (
    BasisMerge,
    DenseMerge,
    FactorMerge,
    FrozenMerge,
    Merge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SecondMerge,
    SketchMerge,
    strategy_of,
)


def merge_rows(merge: Merge, merging: Merging) -> Rows:
    """What is sent of each adapter, and what becomes of it."""
    layout = merging.layout
    rows: Rows = [("merge", f"{strategy_of(merge)}: {_words(merge)}")]
    if not isinstance(merging, UpdateMerging) or isinstance(merge, FactorMerge):
        return [
            *rows,
            ("adapters", f"{layout.dimension:,} parameters in {len(layout.tensors)} tensors, rank {merging.rank}"),
        ]
    modules = len(merging.manifest.modules)
    ranks = f"rank {merging.rank}, from the frozen A" if isinstance(merge, FrozenMerge) else "any rank and start"
    return [
        *rows,
        ("adapters", f"{modules} modules, {ranks}; {layout.dimension:,} numbers are sent of each adapter"),
        ("clip norm", f"{float(merge.update_norm):.6g}: larger updates are scaled down, all modules together"),
    ]


def merge_value(merge: Merge, merging: Merging) -> dict[str, Any]:
    """The same for programs."""
    value: dict[str, Any] = {"strategy": strategy_of(merge), "step": merge.TYPE, "rank": merging.rank}
    if isinstance(merge, FactorMerge):
        return value
    value["update_norm"] = str(merge.update_norm)
    for name in ("columns", "core_columns", "probe_columns", "sides"):
        if hasattr(merge, name):
            value[name] = getattr(merge, name)
    if isinstance(merge, SecondMerge):
        value["first"] = merge.first.hex()
    if isinstance(merge, PilotMerge | BasisMerge):
        value["share"] = str(merge.share)
    return value


def _words(merge: Merge) -> str:
    match merge:
        case FactorMerge():
            return "the mean of A and of B, right only if everybody started from the same A"
        case DenseMerge():
            return "whole updates scale * B A, exact before the rank is cut"
        case FrozenMerge():
            return "the mean of scale * B, exact"
        case SketchMerge():
            return f"{merge.columns} columns and rows of scale * B A, a core of {merge.core_columns}"
        case RangeMerge():
            return f"first of two sessions, {merge.columns} columns of scale * B A; the same people are needed again"
        case ProjectionMerge():
            return f"second session, after {merge.first.hex()}: {merge.columns} rows in its basis, the same people"
        case PilotMerge():
            return f"first of two sessions, for {float(merge.share):.0%} of the roster, drawn at random"
        case BasisMerge(sides=1):
            return f"second session, after {merge.first.hex()}: {merge.columns} rows in the basis that it published"
        case BasisMerge():
            return (
                f"second session, after {merge.first.hex()}: a core of {merge.columns} in the bases that it published"
            )
        case _:
            assert_never(merge)
