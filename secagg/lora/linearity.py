"""Whether what contributors send is linear in their updates, whatever an open entry says.

What is clamped is not. Where all contributors but one are beyond the range, the sum of a coordinate is a whole number
plus what that one sent; where one alone is cut, in the second of two sums over the same people, the difference is that
one's. So nothing is cut by what a coordinator chooses, but updates to their joint norm, which is the same in all sums
of a strategy.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from secagg.lora.base_model import frozen_norms
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.manifest import Manifest
from secagg.lora.maps import FixedTensors
from secagg.lora.pieces import scales_for
from secagg.transcript.encoding import CoordinateRange, Encoding
from secagg.transcript.merge import FrozenMerge, LinearMerge

_FIX = "do not take part: whoever opened the session could tell contributors apart in its sum"
BASIS_TOLERANCE = 1e-4
"""How far the columns of a basis may be from orthonormal, for each root of their number."""


def check_encoding(encoding: Encoding, *, counts_clipping: bool) -> None:
    """Do nothing if an encoding cuts no message whose coordinates are within 1, or adds noise to what it cuts.

    Args:
        encoding: of a session that merges updates.
        counts_clipping: there is no noise.

    Raises:
        AdapterError: BAD_LAYOUT; it could cut the messages of some.
    """
    if not counts_clipping:
        return
    if encoding.clip_norm**2 < encoding.dimension:
        raise _refusal("encoding.clip_norm", float(encoding.clip_norm), f"the root of {encoding.dimension}, or more")
    if isinstance(encoding.flatten, CoordinateRange) and encoding.flatten.bound < 1:
        raise _refusal("encoding.flatten.bound", float(encoding.flatten.bound), "1 or more")


def check_factor_encoding(encoding: Encoding) -> None:
    """Do nothing if an encoding does not clamp single coordinates of factors.

    Raises:
        AdapterError: BAD_LAYOUT; it does.
    """
    if isinstance(encoding.flatten, CoordinateRange) and encoding.flatten.bound < encoding.clip_norm:
        raise _refusal("encoding.flatten.bound", float(encoding.flatten.bound), "clip_norm")


def check_scales(merge: LinearMerge, manifest: Manifest) -> None:
    """Do nothing if what is sent is not multiplied by more than ``scales_for`` says; where A is frozen, later.

    Raises:
        AdapterError: BAD_TEMPLATE; names the module and the piece.
    """
    if not isinstance(merge, FrozenMerge):
        _check_scales(merge, manifest, {}, 0)


def check_frozen_scales(merge: LinearMerge, manifest: Manifest, fixed: FixedTensors) -> None:
    """As ``check_scales``, where the scales depend on the frozen A. Raises AdapterError as ``frozen_norms``, too."""
    if isinstance(merge, FrozenMerge):
        # One more: singular values next to a power of two are not the same on all machines.
        _check_scales(merge, manifest, frozen_norms(fixed, manifest, merge.update_norm), 1)


def check_orthonormal(name: str, basis: np.ndarray) -> None:
    """Do nothing if a basis makes nothing larger than it is.

    Raises:
        AdapterError: BAD_FIXED_TENSORS.
    """
    distance = distance_from_orthonormal(basis.astype(np.float64))
    if not distance <= BASIS_TOLERANCE * basis.shape[1] ** 0.5:
        raise AdapterError(
            AdapterRejectReason.BAD_FIXED_TENSORS,
            tensor=name,
            found=f"columns that are {distance:.3g} from orthonormal",
            expected="an orthonormal basis",
            fix=_FIX,
        )


def distance_from_orthonormal(basis: npt.NDArray[np.float64]) -> float:
    """The Frobenius norm of ``Q^T Q - I``."""
    return float(np.linalg.norm(basis.T @ basis - np.eye(basis.shape[1])))


def _check_scales(merge: LinearMerge, manifest: Manifest, norms: dict[str, Fraction], room: int) -> None:
    for module in manifest:
        for piece, most in scales_for(merge, module, manifest.rank, norms).items():
            if module.scales[piece] > most + room:
                raise AdapterError(
                    AdapterRejectReason.BAD_TEMPLATE,
                    field=f"scales.{piece} of {module.path}",
                    found=module.scales[piece],
                    expected=f"at most {most}, which is what update_norm gives",
                    fix=_FIX,
                )


def _refusal(field: str, found: object, expected: str) -> AdapterError:
    return AdapterError(AdapterRejectReason.BAD_LAYOUT, field=field, found=found, expected=expected, fix=_FIX)
