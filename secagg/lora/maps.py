"""The linear maps: every piece of a message is ``L^T D R`` for two matrices that are the same for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from secagg.lora.layout import Shape
from secagg.lora.manifest import MergedModule
from secagg.lora.signs import sign_matrix
from secagg.lora.updates import Factors, Matrix
from secagg.transcript.merge import DenseMerge, FrozenMerge, LinearMerge

FixedTensors = Mapping[str, Matrix]
"""By name (``fixed_name``): the frozen A, float32[r, n]; bases ``left`` float32[m, k] and ``right`` float32[n, k]."""

LEFT_SIGNS = {"corange": "upsilon", "core": "phi", "cross-probe": "theta-left"}
RIGHT_SIGNS = {"range": "omega", "core": "xi", "probe": "theta", "cross-probe": "theta"}
"""By piece, the test matrix on each side."""
_LEFT_BASIS = frozenset({"projection", "projected"})


def fixed_name(module: MergedModule, what: str) -> str:
    """The name, in a file of fixed tensors, of a module's ``a``, ``left`` or ``right``."""
    return f"{module.path}/{what}"


@dataclass(frozen=True, slots=True)
class LinearMaps:
    """The matrices of one session.

    Attributes:
        merge: the strategy.
        fixed: what it needs besides the seed.
    """

    merge: LinearMerge
    fixed: FixedTensors = field(default_factory=dict)

    def sides(self, module: MergedModule, piece: str, shape: Shape) -> tuple[Matrix | None, Matrix | None]:
        """L, float32[m, rows of the piece], and R, float32[n, columns of the piece]; None stands for the identity.

        Args:
            module: of the manifest.
            piece: not ``scaled-b``, which is no function of the update alone.
            shape: of the piece.
        """
        if isinstance(self.merge, DenseMerge | FrozenMerge) or piece == "update":
            return None, None
        seed, path = self.merge.seed, module.path
        left = right = None
        if piece in LEFT_SIGNS:
            left = sign_matrix(seed, path, LEFT_SIGNS[piece], module.outputs, shape[0])
        elif piece in _LEFT_BASIS:
            left = self.fixed[fixed_name(module, "left")]
        if piece in RIGHT_SIGNS:
            right = sign_matrix(seed, path, RIGHT_SIGNS[piece], module.columns, shape[1])
        elif piece == "projected":
            right = self.fixed[fixed_name(module, "right")]
        return left, right

    def apply(self, module: MergedModule, piece: str, shape: Shape, update: Factors) -> Matrix:
        """What ``piece`` is of an update: float32 of ``shape``."""
        left, right = self.sides(module, piece, shape)
        a = update.left if left is None else left.T @ update.left
        b = update.right if right is None else update.right @ right
        return np.asarray(a @ b, dtype=np.float32)
