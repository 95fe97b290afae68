"""From an opened sum to the mean, the same for everybody who computes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.arith.flatten import Flatten
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.transcript.encoding import Encoding, Flattening
from secagg.transcript.noise import Noise

FloatVector = npt.NDArray[np.float32]
Lanes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class DecodedSum:
    """The exact sum (int64, in the order of the packed vector) and the float32 mean in layout order."""

    integer_sum: npt.NDArray[np.int64]
    mean: FloatVector


def decode(encoding: Encoding, noise: Noise, lanes: Lanes, contributors: int) -> DecodedSum:
    """The exact sum and the mean of ``contributors`` vectors.

    Raises:
        ArithmeticInputError: the counter field does not show ``contributors``, or padding is not zero; a mask
            is still in the sum, or an upload was not what it claimed to be.
    """
    integer_sum = encoding.field_layout().unpack_sum(lanes, contributors)
    return DecodedSum(integer_sum, mean_of(encoding, noise, integer_sum, contributors))


def mean_of(encoding: Encoding, noise: Noise, integer_sum: npt.NDArray[np.int64], contributors: int) -> FloatVector:
    """The float32 mean that follows from the exact sum, bit for bit the same for everybody."""
    total: npt.NDArray[np.int64] | npt.NDArray[np.float64] = integer_sum
    if isinstance(encoding.flatten, Flattening):
        flatten = flatten_map(encoding.flatten, encoding.dimension)
        total = flatten.inverse(integer_sum.astype(np.float64)).astype(np.float64)
    return encoding.quantiser(noise).dequantise(total, contributors)


def flatten_map(flattening: Flattening, dimension: int) -> Flatten:
    """The public orthonormal map of a session."""
    seed = Secret(flattening.seed)
    return Flatten(
        derive(seed, Label.FLATTEN_PERMUTATION).expose(), derive(seed, Label.FLATTEN_SIGNS).expose(), dimension
    )
