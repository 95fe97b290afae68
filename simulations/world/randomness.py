"""Randomness of simulations: all of it follows from one seed and the names of what it is for."""

from __future__ import annotations

import hashlib

import numpy as np

_BLOCK_BYTES = 64


class SeededRng:
    """An ``Rng`` for machines: SHA-512 in counter mode. Reproducible, so for simulations only."""

    def __init__(self, seed: int, *names: str | int) -> None:
        self._prefix = _prefix(seed, names)
        self._counter = 0

    def bytes(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        blocks = []
        for _ in range(-(-count // _BLOCK_BYTES)):
            blocks.append(hashlib.sha512(self._prefix + self._counter.to_bytes(8, "big")).digest())
            self._counter += 1
        return b"".join(blocks)[:count]


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Numpy's generator (Philox) for models of networks, people and faults."""
    return np.random.Generator(np.random.Philox(int.from_bytes(_prefix(seed, names)[:16], "big")))


def _prefix(seed: int, names: tuple[str | int, ...]) -> bytes:
    # Each name with its length, so that no two lists of names give the same bytes.
    parts = [b"%d:" % len(part) + part for part in (str(each).encode() for each in (seed, *names))]
    return hashlib.sha512(b"".join(parts)).digest()
