"""From the mean of the messages back to a low-rank update, module by module, in fp64.

Sources: Tropp, Yurtsever, Udell, Cevher 2019 (sketch); Halko, Martinsson, Tropp 2011 (range finder). The probe's error
estimate and scalar are measured in docs/merging.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from secagg.lora.manifest import MergedModule
from secagg.lora.maps import LinearMaps, fixed_name
from secagg.lora.updates import Wide

MOST_SCALAR = 2.0
"""An honest probe asks for about 1, or less where much is missing; a lying one could ask for anything."""


@dataclass(frozen=True, slots=True, eq=False)
class MergedUpdate:
    """The merged update of one module, ``left @ right``, and how good it is.

    Attributes:
        left: fp64[m, r].
        right: fp64[r, n].
        energy: estimate of the squared Frobenius norm of the exact mean; its own square where it is exact.
        error: estimate of ``|W - D| / |D|`` in Frobenius norm, for D the exact mean and W this.
        scalar: what the reconstruction was multiplied by, which is the best that the probe knows.
    """

    left: Wide = field(repr=False)
    right: Wide = field(repr=False)
    energy: float
    error: float
    scalar: float


def reconstruct(module: MergedModule, rank: int, pieces: Mapping[str, Wide], maps: LinearMaps) -> MergedUpdate:
    """The best update of at most ``rank`` that ``pieces`` know of.

    Args:
        module: of the manifest.
        rank: of the merged adapter; factors are padded with zeros to it.
        pieces: the means of what was sent of the module, without their scales.
        maps: of the session.
    """
    if "scaled-b" in pieces:
        frozen = maps.fixed[fixed_name(module, "a")].astype(np.float64)
        return MergedUpdate(pieces["scaled-b"], frozen, _square(pieces["scaled-b"], frozen), 0.0, 1.0)
    if "update" in pieces:
        left, right, kept, whole = _truncated(None, pieces["update"], None, rank)
        return MergedUpdate(left, right, whole, math.sqrt(max(0.0, 1 - kept / whole)) if whole else 0.0, 1.0)
    left_basis, core, right_basis = _factored(module, pieces, maps)
    left, right, _, _ = _truncated(left_basis, core, right_basis, rank)
    return _calibrated(module, left, right, pieces, maps)


def spanned_by(pieces: Mapping[str, Wide]) -> dict[str, Wide]:
    """What the ``left`` and ``right`` bases of a module span, of the sums of a first session: columns of these."""
    spanned = {}
    if "range" in pieces:
        spanned["left"] = pieces["range"]
    if "corange" in pieces:
        spanned["right"] = pieces["corange"].T
    return spanned


def basis_of(sums: Wide) -> Wide:
    """An orthonormal basis of the columns, fp64 of the same shape: Q of the QR decomposition whose R is positive.

    Args:
        sums: fp64[rows, columns] with rows >= columns.
    """
    q, r = np.linalg.qr(sums)
    signs: Wide = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    basis: Wide = q * signs
    return basis


def _factored(
    module: MergedModule, pieces: Mapping[str, Wide], maps: LinearMaps
) -> tuple[Wide | None, Wide, Wide | None]:
    """The update as ``left core right^T`` with bases of few columns; None stands for the identity."""
    if "projection" in pieces:
        return maps.fixed[fixed_name(module, "left")].astype(np.float64), pieces["projection"], None
    if "projected" in pieces:
        left, right = (maps.fixed[fixed_name(module, side)].astype(np.float64) for side in ("left", "right"))
        return left, pieces["projected"], right
    left, right = basis_of(pieces["range"]), basis_of(pieces["corange"].T)
    phi, xi = maps.sides(module, "core", pieces["core"].shape)
    if phi is None or xi is None:
        raise ValueError("a core has test matrices on both sides")
    # The core that fits the sketch Phi^T D Xi best, in least squares from either side.
    half = np.linalg.lstsq(phi.T @ left, pieces["core"], rcond=None)[0]
    core: Wide = np.linalg.lstsq(xi.T @ right, half.T, rcond=None)[0].T
    return left, core, right


def _truncated(
    left_basis: Wide | None, core: Wide, right_basis: Wide | None, rank: int
) -> tuple[Wide, Wide, float, float]:
    """Factors of the best approximation of ``rank``; the squared norms of what it keeps, and of all there is."""
    u, sigma, vt = np.linalg.svd(core, full_matrices=False)
    kept = min(rank, sigma.size)
    root = np.sqrt(sigma[:kept])
    left, right = u[:, :kept], vt[:kept]
    if left_basis is not None:
        left = left_basis @ left
    if right_basis is not None:
        right = right @ right_basis.T
    # A singular vector's sign is arbitrary: the largest entry on the left is positive.
    rows = np.argmax(np.abs(left), axis=0)
    signs = np.where(left[rows, np.arange(kept)] < 0, -1.0, 1.0)
    squares = sigma**2
    padding = rank - kept
    return (
        np.pad(left * (signs * root), ((0, 0), (0, padding))),
        np.pad((signs * root)[:, None] * right, ((0, padding), (0, 0))),
        float(squares[:kept].sum()),
        float(squares.sum()),
    )


def _calibrated(
    module: MergedModule, left: Wide, right: Wide, pieces: Mapping[str, Wide], maps: LinearMaps
) -> MergedUpdate:
    """The reconstruction W times the scalar that fits the probe best, and what the probe then says of its error.

    What is left of the probe estimates ``|D - W|^2``. The scalar makes that orthogonal to W, so ``|D|^2`` is it plus
    ``|W|^2``, which is known: nearer than the norm of the probe, in which the largest singular value rules.
    """
    name = "probe" if "probe" in pieces else "cross-probe"
    probe = pieces[name]
    on_left, on_right = maps.sides(module, name, probe.shape)
    seen = (left if on_left is None else on_left.T @ left) @ (right if on_right is None else right @ on_right)
    own = float(np.sum(seen**2))
    scalar = min(MOST_SCALAR, max(0.0, float(np.sum(probe * seen)) / own)) if own else 1.0
    # Each pair of columns of the test matrices shows the square once, on average.
    copies = (1 if on_left is None else probe.shape[0]) * probe.shape[1]
    rest = float(np.sum((probe - scalar * seen) ** 2)) / copies
    energy = rest + scalar**2 * _square(left, right)
    return MergedUpdate(left * scalar, right, energy, math.sqrt(rest / energy) if energy else 0.0, scalar)


def _square(left: Wide, right: Wide) -> float:
    """The squared Frobenius norm of ``left @ right``."""
    return max(0.0, float(np.sum((left.T @ left) * (right @ right.T))))
