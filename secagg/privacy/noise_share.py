"""One contributor's part in the noise: round within the bound, add a share, keep to the field."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dp.rounding import round_within
from dp.sampler import NoiseSampler
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.privacy.session_noise import signal_limit, table_of
from secagg.transcript.encoding import Encoding
from secagg.transcript.noise import DiscreteGaussianNoise, SkellamNoise


def add_noise(
    rounded: Callable[[], npt.NDArray[np.int32]],
    noise: SkellamNoise | DiscreteGaussianNoise,
    encoding: Encoding,
    secret: Secret,
) -> tuple[npt.NDArray[np.int32], int]:
    """The integers that a contributor packs: rounded until they keep the bound, and noise on each of them.

    Limiting coordinates before the check only shortens the vector. Limiting them after the noise is in is not what the
    analysis is about; it happens anywhere in a session with probability below 2^-64, which is charged to delta.

    Args:
        rounded: rounds the vector once more: int32[d].
        noise: the session's, checked.
        encoding: the session's.
        secret: 32 fresh bytes, for this vector only: the same bytes give the same noise, which must never be added to
            two vectors.

    Returns:
        int32[d] within the field, and how many coordinates were limited.
    """
    limit, largest = signal_limit(encoding, noise), encoding.field_layout().largest

    def limited() -> npt.NDArray[np.int32]:
        values = rounded()
        return np.clip(values, -limit, limit, out=values)

    values, _ = round_within(limited, noise.squared_norm)
    sampler = NoiseSampler(table_of(noise), derive(secret, Label.NOISE).expose(), noise.to_bytes())
    sampler.add_into(values)
    beyond = int(np.count_nonzero((values > largest) | (values < -largest)))
    return np.clip(values, -largest, largest, out=values), beyond
