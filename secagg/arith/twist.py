"""The twist that turns a complex transform of half the length into a product modulo `x^N + 1`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def twist_tables(degree: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """`exp(i pi k / N)` for k below N / 2, from angles of at most pi / 4, and the conjugates.

    Args:
        degree: N, a multiple of 4.

    Returns:
        Two arrays complex128[N / 2] that cannot be written to.
    """
    folded = degree // 2
    angles = math.pi * np.arange(folded // 2 + 1) / degree
    cosine, sine = np.cos(angles), np.sin(angles)
    twist = np.empty(folded, dtype=np.complex128)
    twist.real = np.concatenate((cosine, sine[-2:0:-1]))
    twist.imag = np.concatenate((sine, cosine[-2:0:-1]))
    untwist = twist.conj()
    for table in (twist, untwist):
        table.flags.writeable = False
    return twist, untwist
