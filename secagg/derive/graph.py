"""The masking graph: who shares seeds with whom, from a public seed alone.

Clients, coordinator and verifier all compute it, so it is integers and SHA-256 only, and any language can
reproduce it: sort the indices ``0 .. cohort - 1`` by ``SHA-256(seed || index as 4 bytes big-endian)``, put
them on a circle in that order, and join everybody to the ``degree / 2`` next on either side (a Harary
graph; Bell et al. 2020, ePrint 2020/704). Degree and threshold come from ``secagg.derive.threshold``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

from secagg.crypto.labels import Label, encode_fields

SEED_BYTES = 32

MIN_COHORT = 3
"""Of two clients each would learn the other's input from the sum, and hold its secrets in a single share."""

MAX_COHORT = 1 << 14
"""Bounds the work a published number can cause; pairwise masking is meant for cohorts of some thousands."""


class GraphParameterError(ValueError):
    """A value from which no safe masking graph follows.

    Attributes:
        field: name of the offending parameter.
        reason: what is wrong with it and what to change.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


def require_integer(name: str, value: int, low: int, high: int) -> None:
    """Refuse anything but an ``int`` (no ``bool``) between ``low`` and ``high``, both included.

    Raises:
        GraphParameterError: naming ``name``.
    """
    if type(value) is not int:
        raise GraphParameterError(name, "must be an integer")
    if not low <= value <= high:
        raise GraphParameterError(name, f"must be between {low} and {high}, is {value}")


def _require_degree(cohort: int, degree: int) -> None:
    require_integer("degree", degree, 2, cohort - 1)
    if degree % 2 and degree != cohort - 1:
        reason = f"must be even, or {cohort - 1} for the complete graph; is {degree}"
        raise GraphParameterError("degree", reason)


@dataclass(frozen=True, slots=True)
class MaskingGraph:
    """Clients on a circle, each joined to the ``degree / 2`` next on either side.

    Attributes:
        order: the client indices in the order in which they stand on the circle, a permutation of
            ``0 .. cohort - 1``.
        degree: neighbours of every client (symbol k): even, or ``cohort - 1`` for the complete graph.

    Raises:
        GraphParameterError: ``order`` is no permutation, or there is no such graph.
    """

    order: tuple[int, ...]
    degree: int
    _positions: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _known: dict[int, tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cohort = len(self.order)
        require_integer("cohort", cohort, MIN_COHORT, MAX_COHORT)
        _require_degree(cohort, self.degree)
        positions = [-1] * cohort
        for position, index in enumerate(self.order):
            require_integer("order", index, 0, cohort - 1)
            if positions[index] >= 0:
                raise GraphParameterError("order", f"holds index {index} twice")
            positions[index] = position
        object.__setattr__(self, "_positions", tuple(positions))
        object.__setattr__(self, "_known", {})

    @property
    def cohort(self) -> int:
        """Number of clients (symbol n)."""
        return len(self.order)

    def neighbours(self, index: int) -> tuple[int, ...]:
        """The neighbours of client ``index``, ascending, without itself.

        Raises:
            GraphParameterError: no client has this index.
        """
        known = self._known.get(index)
        if known is None:
            require_integer("index", index, 0, self.cohort - 1)
            known = self._neighbours(index)
            # All but one of thousands, for each of them, would be gigabytes, and are quickly made again.
            if self.degree < self.cohort - 1:
                self._known[index] = known
        return known

    def _neighbours(self, index: int) -> tuple[int, ...]:
        if self.degree == self.cohort - 1:
            return (*range(index), *range(index + 1, self.cohort))
        start = (self._positions[index] - self.degree // 2) % self.cohort
        stop = start + self.degree + 1
        around = sorted(self.order[start:stop] + self.order[: max(0, stop - self.cohort)])
        around.remove(index)
        return tuple(around)


def graph_seed(session: bytes, advertised: bytes) -> bytes:
    """Seed of a session's graph: nobody knows it before U1 is fixed under the root ``advertised``."""
    return hashlib.sha256(encode_fields(Label.GRAPH_SEED, session, advertised)).digest()


def masking_graph(seed: bytes, cohort: int, degree: int) -> MaskingGraph:
    """The masking graph of a session.

    The seed must be a hash with a label of its own over values that are in the public log before anybody
    shares a key. Whoever chooses among logged values chooses among graphs, which is why the probabilities
    in ``secagg.derive.threshold`` are 2^-128 and not 2^-40.

    Args:
        seed: 32 bytes.
        cohort: number of clients, those that advertised keys (U1, symbol n).
        degree: neighbours of every client (symbol k).

    Raises:
        GraphParameterError: naming ``seed``, ``cohort`` or ``degree``.
    """
    if type(seed) is not bytes or len(seed) != SEED_BYTES:
        raise GraphParameterError("seed", f"must be exactly {SEED_BYTES} bytes")
    require_integer("cohort", cohort, MIN_COHORT, MAX_COHORT)
    _require_degree(cohort, degree)
    return _masking_graph(seed, cohort, degree)


@lru_cache(maxsize=16)
def _masking_graph(seed: bytes, cohort: int, degree: int) -> MaskingGraph:
    ranks = [hashlib.sha256(seed + index.to_bytes(4, "big")).digest() for index in range(cohort)]
    # sorted() is stable, so equal hashes (never seen) would stand in the order of their indices.
    return MaskingGraph(tuple(sorted(range(cohort), key=ranks.__getitem__)), degree)
