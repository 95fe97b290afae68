"""How large the test matrices of a session are: a few words in an open entry must not ask everybody for all memory."""

from __future__ import annotations

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.manifest import Manifest
from secagg.lora.maps import LEFT_SIGNS, RIGHT_SIGNS
from secagg.lora.pieces import pieces_of
from secagg.transcript.merge import LinearMerge

MAX_MATRIX = 2**28
"""The most entries of a test matrix, 1 GiB as float32: far more than those of an embedding of any model."""


def check_matrices(merge: LinearMerge, manifest: Manifest) -> None:
    """Do nothing if every test matrix of every module has at most ``MAX_MATRIX`` entries.

    Raises:
        AdapterError: TOO_LARGE; names the module and what it sends.
    """
    for module in manifest:
        for piece, (rows, columns) in pieces_of(merge, module, manifest.rank).items():
            left = module.outputs * rows if piece in LEFT_SIGNS else 0
            right = module.columns * columns if piece in RIGHT_SIGNS else 0
            if max(left, right) > MAX_MATRIX:
                raise AdapterError(
                    AdapterRejectReason.TOO_LARGE,
                    field=f"{piece} of {module.path}",
                    found=f"a test matrix of {max(left, right)} entries",
                    expected=f"at most {MAX_MATRIX}",
                    fix="open the session with fewer columns",
                )
