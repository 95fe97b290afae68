"""Whether published tensors are those that a mean gives.

Singular vectors are the same on all machines only up to rounding, so updates and bases are compared as what they do,
not byte by byte: ``TOLERANCE`` is relative, in Frobenius norm. Everything before the decomposition is compared to the
last bit elsewhere: the mean has a digest in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from secagg.lora.container import decode_tensors, encode_tensors
from secagg.lora.errors import AdapterError
from secagg.lora.layout import Layout, Shape
from secagg.lora.linearity import distance_from_orthonormal
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.maps import fixed_name
from secagg.lora.reconstruction import spanned_by
from secagg.lora.updates import Wide
from secagg.lora.values import require_float32

TOLERANCE = 1e-4

Tensors = Mapping[str, npt.NDArray[np.float32]]


def read_published(expected: Mapping[str, Shape], data: bytes) -> Tensors:
    """The tensors of a published file, which must have the names and shapes of ``expected`` and nothing else.

    Raises:
        AdapterError: malformed, other tensors, or values that are not finite.
    """
    tensors = decode_tensors(data)
    found = Layout.from_shapes({name: values.shape for name, values in tensors.items()})
    difference = Layout.from_shapes(expected).difference(found)
    if difference is not None:
        raise AdapterError(difference.reason, tensor=difference.tensor, expected=f"{difference.expected}")
    for name, values in tensors.items():
        require_float32(name, values)
    return tensors


def is_canonical(tensors: Tensors, data: bytes) -> bool:
    """Whether ``data`` is the one file of these tensors."""
    position = 0
    for piece in encode_tensors(tensors):
        length = memoryview(piece).nbytes
        if data[position : position + length] != bytes(piece):
            return False
        position += length
    return position == len(data)


def update_faults(manifest: Manifest, expected: Tensors, published: Tensors) -> Iterator[str]:
    """Modules whose published update is not the expected one."""
    for module in manifest:
        own, theirs = (_factors(module, each) for each in (expected, published))
        if _distance(own, theirs) > TOLERANCE * _norm(own):
            yield f"the update of {module.path} is not what the mean gives, within {TOLERANCE:g}"
            continue
        # Singular vectors may be turned, which changes neither norm; a huge A and a tiny B would overflow for some.
        for name, ours, other in zip("BA", own, theirs, strict=True):
            if abs(np.linalg.norm(ours) - np.linalg.norm(other)) > TOLERANCE * np.linalg.norm(ours):
                yield f"{name} of {module.path} is not as large as the mean gives, within {TOLERANCE:g}"


def basis_faults(means: Iterable[tuple[MergedModule, Mapping[str, Wide]]], published: Tensors) -> Iterator[str]:
    """Bases that are not orthonormal, or do not span what was summed."""
    for module, pieces in means:
        for side, spanned in spanned_by(pieces).items():
            basis = published[fixed_name(module, side)].astype(np.float64)
            columns = basis.shape[1]
            if distance_from_orthonormal(basis) > TOLERANCE * np.sqrt(columns):
                yield f"the {side} basis of {module.path} is not orthonormal, within {TOLERANCE:g}"
            elif np.linalg.norm(spanned - basis @ (basis.T @ spanned)) > TOLERANCE * np.linalg.norm(spanned):
                yield f"the {side} basis of {module.path} does not span the sum, within {TOLERANCE:g}"


def _factors(module: MergedModule, tensors: Tensors) -> tuple[Wide, Wide]:
    b, a = tensors[module.b_name].astype(np.float64), tensors[module.a_name].astype(np.float64)
    return b.reshape(module.outputs, -1), a.reshape(-1, module.columns)


def _norm(factors: tuple[Wide, Wide]) -> float:
    # Of the small triangles: through Gram matrices, a difference of equals would be off by the root of the precision.
    left, right = np.linalg.qr(factors[0]).R, np.linalg.qr(factors[1].T).R
    return float(np.linalg.norm(left @ right.T))


def _distance(own: tuple[Wide, Wide], theirs: tuple[Wide, Wide]) -> float:
    return _norm((np.hstack([own[0], -theirs[0]]), np.vstack([own[1], theirs[1]])))
