"""What is sent of each module: names, shapes and scales of the pieces of a message.

With D the update of a module (m x n), k the columns of a strategy, s its core columns, p its probe columns:

    update      D                    (m, n)    dense, and wherever it is not larger than what it would be replaced by
    scaled-b    scale B              (m, r)    frozen-a
    range       D Omega              (m, k)    sketch, first sessions
    corange     Upsilon^T D          (k, n)    sketch, pilots of two sides
    core        Phi^T D Xi           (s, s)    sketch
    projection  Q^T D                (k, n)    second sessions
    projected   Q^T D V              (k, k)    pilot-basis of two sides
    probe       D Theta              (m, p)    all that estimate
    cross-probe Theta^T D Xi         (p, p)    pilot-basis of two sides

Beside them a message holds ``/clipped``, unless noise is on: whether its contributor's updates were scaled down (0 or
1), and which fraction of its coordinates was clamped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import assert_never

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.layout import Layout, Shape
from secagg.lora.manifest import Manifest, MergedModule
from secagg.transcript.merge import (
    BasisMerge,
    DenseMerge,
    FrozenMerge,
    LinearMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SketchMerge,
)

CLIPPED = "/clipped"
"""Name of the two counts; no module is called so."""
_SPREAD = 16
"""How far a coordinate may lie above the root mean square of those of the largest allowed update, spread evenly."""
_FAR_SPREAD = 64
"""The same for a probe of which the range, with more columns, was within ``_SPREAD``."""

Pieces = dict[str, Shape]


def pieces_of(merge: LinearMerge, module: MergedModule, rank: int) -> Pieces:
    """Shapes by name of what is sent of ``module``; nothing where the session does not need it.

    Args:
        merge: the strategy.
        module: one of the manifest's.
        rank: of the merged adapter, which is that of the frozen A.
    """
    m, n = module.outputs, module.columns
    match merge:
        case DenseMerge():
            return {"update": (m, n)}
        case FrozenMerge():
            return {"scaled-b": (m, rank)}
        case SketchMerge(columns=k, core_columns=s, probe_columns=p):
            return _or_update(m, n, {"range": (m, k), "corange": (k, n), "core": (s, s), "probe": (m, p)})
        case RangeMerge(columns=k):
            return {"range": (m, k)} if m * n > k * (m + n) else {}
        case ProjectionMerge(columns=k, probe_columns=p):
            return {"projection": (k, n), "probe": (m, p)} if m * n > k * (m + n) else {"update": (m, n)}
        case PilotMerge(columns=k, sides=sides):
            if m * n <= k * (n if sides == 1 else k):
                return {}
            one: Pieces = {"range": (m, min(k, m))}
            return one if sides == 1 else {**one, "corange": (min(k, n), n)}
        case BasisMerge(columns=k, sides=1, probe_columns=p):
            return {"projection": (k, n), "probe": (m, p)} if m * n > k * n else {"update": (m, n)}
        case BasisMerge(columns=k, probe_columns=p):
            if m * n <= k * k:
                return {"update": (m, n)}
            return {"projected": (min(k, m), min(k, n)), "cross-probe": (p, p)}
        case _:
            assert_never(merge)


def _or_update(m: int, n: int, pieces: Pieces) -> Pieces:
    return {"update": (m, n)} if m * n <= sum(map(math.prod, pieces.values())) else pieces


def scale_of(piece: str, module: MergedModule, update_norm: Fraction) -> int:
    """The base-2 logarithm of what a piece is multiplied by: the largest with which ``_SPREAD`` keeps it within 1.

    The root mean squares are those of an update of norm ``update_norm`` in this one module, spread evenly over its
    rows and columns. Coordinates of an update that is not are clamped, and counted; no coordinate of what is sent of
    D itself, or of a projection of it, can exceed the norm.

    Args:
        piece: its name; not ``scaled-b``, which depends on the frozen A.
        module: of which it is sent.
        update_norm: the bound on the joint norm.
    """
    m, n = module.outputs, module.columns
    square = update_norm**2
    match piece:
        case "range" | "probe":
            reach = _SPREAD**2 * square / m
        case "corange":
            reach = _SPREAD**2 * square / n
        case "projection":
            reach = min(square, _SPREAD**2 * square / n)
        case "update":
            reach = min(square, _SPREAD**4 * square / (m * n))
        case "core" | "cross-probe":
            reach = _SPREAD**2 * square
        case "projected":
            reach = square
        case _:
            raise ValueError(f"no scale is known for {piece!r}")
    return floor_log2(1 / reach) // 2


def floor_log2(value: Fraction) -> int:
    """The largest integer of which 2 to its power is at most ``value``, a positive rational."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def layout_of(merge: LinearMerge, manifest: Manifest, *, counts_clipping: bool) -> Layout:
    """The layout of the messages of a session.

    Raises:
        AdapterError: BAD_TEMPLATE; what a module sends is not what its scales are for, or the session would send
            nothing: all modules are so small that they go as they are, in another session or strategy.
    """
    shapes: dict[str, Shape] = {CLIPPED: (2,)} if counts_clipping else {}
    for module in manifest:
        pieces = pieces_of(merge, module, manifest.rank)
        if pieces.keys() != module.scales.keys():
            raise AdapterError(
                AdapterRejectReason.BAD_TEMPLATE,
                field=f"scales of {module.path}",
                found=", ".join(sorted(module.scales)) or "none",
                expected=", ".join(sorted(pieces)) or "none",
            )
        shapes.update({piece_name(module, piece): shape for piece, shape in pieces.items()})
    if shapes.keys() <= {CLIPPED}:
        raise AdapterError(
            AdapterRejectReason.BAD_TEMPLATE,
            field="modules",
            found="only modules that are sent as they are",
            expected="one that is larger than what would be sent of it",
            fix="use the strategy dense",
        )
    return Layout.from_shapes(shapes)


def piece_name(module: MergedModule, piece: str) -> str:
    """The name in the layout."""
    return f"{module.path}/{piece}"


def scales_for(merge: LinearMerge, module: MergedModule, rank: int, norms: Mapping[str, Fraction]) -> dict[str, int]:
    """Scales of all that ``module`` sends.

    Args:
        merge: the strategy.
        module: its own scales do not matter.
        rank: of the merged adapter.
        norms: by path, bounds on the norm of ``scale B`` where A is frozen.
    """
    scales = {}
    for piece in pieces_of(merge, module, rank):
        if piece == "scaled-b":
            reach = min(Fraction(1), Fraction(_SPREAD**2, module.outputs)) * norms[module.path] ** 2
            scales[piece] = floor_log2(1 / reach) // 2
        elif isinstance(merge, ProjectionMerge):
            scales[piece] = _second_scale_of(piece, module, merge.update_norm)
        else:
            scales[piece] = scale_of(piece, module, merge.update_norm)
    return scales


def _second_scale_of(piece: str, module: MergedModule, update_norm: Fraction) -> int:
    """As ``scale_of``, where everybody is in an earlier sum: what is clamped in one of the two is their difference.

    Nothing of an update or a projection of it can be; whose probe would be does not get through the first session.
    """
    reach = update_norm**2 * (Fraction(_FAR_SPREAD**2, module.outputs) if piece == "probe" else 1)
    return floor_log2(1 / reach) // 2
