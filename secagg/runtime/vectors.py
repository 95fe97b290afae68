"""Work on vectors, outside the machines: encode, mask and hash, remove masks.

numpy and OpenSSL release the GIL, so blocking calls run in threads.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.arith.keystream import Keystream, add_masks
from secagg.arith.linear_hash import hash_lanes
from secagg.arith.quantiser import Quantiser, clip
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.derive.opening import Removal
from secagg.derive.result import FloatVector, Lanes, flatten_map
from secagg.protocol.pairwise.client_states import MaskInput
from secagg.protocol.session import Session
from secagg.transcript.entries import Encoding, Flattening


@dataclass(frozen=True, slots=True)
class EncodingReport:
    """What encoding did to a vector: its L2 norm before clipping, and how many coordinates were clamped."""

    norm: float
    clamped: int


def worker_threads() -> int:
    """Threads for work on vectors: one for each core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode(encoding: Encoding, vector: FloatVector, rounding: Secret) -> tuple[Lanes, EncodingReport]:
    """Clip, flatten where the session does, round at random, pack.

    Args:
        encoding: the session's.
        vector: float32, shape ``(dimension,)``.
        rounding: 32 fresh bytes, for this vector only.

    Raises:
        ArithmeticInputError: wrong shape or dtype, NaN or infinity.
    """
    clipped, norm = clip(vector, encoding.clip_norm)
    if isinstance(encoding.flatten, Flattening):
        clipped = flatten_map(encoding.flatten, encoding.dimension).forward(clipped)
    stream = Keystream(derive(rounding, Label.QUANTISER_STREAM).expose())
    values, clamped = Quantiser(encoding.value_bits, encoding.bound()).quantise(clipped, stream)
    return encoding.field_layout().pack(values), EncodingReport(norm, clamped)


def mask(lanes: Lanes, plan: MaskInput, threads: int = 1) -> None:
    """Add the keystreams of ``plan`` to ``lanes``, in place."""
    add = [plan.self_mask.expose(), *(key.expose() for key in plan.add)]
    add_masks(lanes, add, [key.expose() for key in plan.subtract], threads)


def linear_hash_of(lanes: Lanes) -> bytes:
    """The linear hash of an upload as it is sent: 16 KiB."""
    return bytes(as_bytes(hash_lanes(lanes)))


def remove_masks(lanes: Lanes, removal: Removal, threads: int) -> None:
    """Take what still masks a sum out of it, in place."""
    add_masks(lanes, [key.expose() for key in removal.add], [key.expose() for key in removal.subtract], threads)


def digest_of(array: npt.NDArray[np.generic]) -> bytes:
    """SHA-256 of an array's little-endian bytes."""
    return hashlib.sha256(as_bytes(array)).digest()


def as_bytes(array: npt.NDArray[np.generic]) -> memoryview:
    """A one-dimensional array's little-endian bytes, without a copy where the machine is little-endian."""
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little_endian.data.cast("B")


def masked_input(session: Session, vector: FloatVector, plan: MaskInput) -> tuple[Lanes, EncodingReport]:
    """A client's upload: ``vector`` encoded and masked; the same bytes for the same plan and vector."""
    lanes, report = encode(session.parameters.encoding, vector, plan.rounding)
    mask(lanes, plan, worker_threads())
    return lanes, report
