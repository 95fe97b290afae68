"""From an adapter to the vector that is added up.

``D Omega = B (A Omega)``: no update is ever formed as a matrix, unless it is sent as one. Memory beside adapter and
vector is that of one module's test matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secagg.lora.adapter import Adapter
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.layout import Layout
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.maps import LinearMaps, fixed_name
from secagg.lora.pieces import CLIPPED, pieces_of
from secagg.lora.pieces import piece_name as name_of
from secagg.lora.updates import Factors, Matrix, check_modules, joint_norm, updates_of
from secagg.transcript.merge import ProjectionMerge, RangeMerge

_MARGIN = 1.0 - 2.0**-20
"""What is scaled down to a norm ends up below it, whatever fp32 rounding adds."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What a contributor's adapter becomes.

    Attributes:
        vector: float32 of the layout's dimension.
        norm: the joint Frobenius norm of the updates before they were scaled down.
        factor: what they were scaled by: 1 where they fit.
        clamped: coordinates that were larger than the range of the session.
    """

    vector: npt.NDArray[np.float32] = field(repr=False)
    norm: float
    factor: float
    clamped: int


def message_of(adapter: Adapter, manifest: Manifest, layout: Layout, maps: LinearMaps) -> Message:
    """The message of ``adapter``, whose modules are checked first.

    The updates are scaled down together, in B alone, so that their joint norm is at most that of the session. Where the
    layout counts what was clipped, coordinates beyond 1 are clamped; otherwise there is noise, and the encoding bounds
    the norm of the whole vector.

    Args:
        adapter: of any rank.
        manifest: the session's.
        layout: the session's.
        maps: the session's; with the fixed tensors that its strategy needs.

    Raises:
        AdapterError: as ``check_modules``; NON_FINITE where products overflow; RANK_MISMATCH or OTHER_START where A is
            frozen; CONCENTRATED where a coordinate would be clamped in one of two sums over the same people.
    """
    check_modules(adapter, manifest)
    norm, bound = joint_norm(adapter, manifest), float(maps.merge.update_norm)
    factor = 1.0 if norm <= bound else bound / norm * _MARGIN
    vector = np.zeros(layout.dimension, np.float32)
    places = layout.split(vector)
    for module, update in updates_of(adapter, manifest):
        if update is None:
            continue
        scaled = Factors(update.left * np.float32(factor), update.right)
        for piece, shape in pieces_of(maps.merge, module, manifest.rank).items():
            place = places[name_of(module, piece)]
            # Factors of which one is huge and the other tiny may overflow on the way; what then comes out is refused.
            with np.errstate(over="ignore", invalid="ignore"):
                value = (
                    scaled_b(module, scaled, maps) if piece == "scaled-b" else maps.apply(module, piece, shape, scaled)
                )
                np.multiply(value, np.float32(2.0 ** module.scales[piece]), out=place)
            _require_finite(module, place)
    counts = places.get(CLIPPED)
    if counts is None:
        return Message(vector, norm, factor, 0)
    clamped = _clamp(vector)
    if clamped and isinstance(maps.merge, RangeMerge | ProjectionMerge):
        raise _concentrated(clamped)
    counts[:] = factor < 1, clamped / vector.size
    return Message(vector, norm, factor, clamped)


def scaled_b(module: MergedModule, update: Factors, maps: LinearMaps) -> Matrix:
    """B of an update whose A is the frozen one.

    Raises:
        AdapterError: RANK_MISMATCH or OTHER_START.
    """
    frozen = maps.fixed[fixed_name(module, "a")]
    if update.right.shape != frozen.shape:
        raise AdapterError(
            AdapterRejectReason.RANK_MISMATCH,
            tensor=module.a_name,
            found=f"rank {update.right.shape[0]}",
            expected=f"rank {frozen.shape[0]} of the frozen A",
            fix="start from the adapter that the session hands out",
        )
    if not np.array_equal(update.right, frozen):
        raise AdapterError(
            AdapterRejectReason.OTHER_START,
            tensor=module.a_name,
            found=f"another A, different in {np.count_nonzero(update.right != frozen)} of {frozen.size} values",
            expected="the frozen A of the session, bit for bit",
            fix="start from the adapter that the session hands out, and train B alone",
        )
    return update.left


def _require_finite(module: MergedModule, place: Matrix) -> None:
    if not np.isfinite(place).all():
        raise AdapterError(
            AdapterRejectReason.NON_FINITE,
            tensor=module.b_name,
            found="products of A and B beyond the range of fp32",
            expected=f"factors of {module.path} that are about equally large",
            fix="divide A by a power of two and multiply B by it, or train again with a lower learning rate",
        )


def _concentrated(clamped: int) -> AdapterError:
    """What one of two sums over the same people lacks of one of them is their difference."""
    return AdapterError(
        AdapterRejectReason.CONCENTRATED,
        field="updates",
        found=f"{clamped} coordinates beyond the range, which would be clamped",
        expected="updates that are spread over many rows: two sums over the same people would show what is clamped",
        fix="do not take part: ask for a session with a larger update_norm or another strategy",
    )


def _clamp(vector: npt.NDArray[np.float32]) -> int:
    """Clamp to -1 and 1 in place; how many coordinates that changed."""
    clamped = 0
    for start in range(0, vector.size, _BLOCK):
        piece = vector[start : start + _BLOCK]
        clamped += int(np.count_nonzero(np.abs(piece) > 1))
        np.clip(piece, -1, 1, out=piece)
    return clamped
