"""Linear algebra over a prime field, exact: which combinations of rows cancel, and how few inputs one needs.

Rows are sparse: a mapping from columns to coefficients. Thousands of rows are handled where most columns have one or
two entries, as masks that pairs of clients share do; what is left after that is eliminated as a dense matrix.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

MERSENNE_61 = 2**61 - 1
MAX_DENSE_CELLS = 4_000_000
"""Rows times columns of what is left for dense elimination; beyond it there is an error and no answer."""
MAX_FLATS = 200_000
"""Sets of columns that are tried for the smallest support of a block; beyond it there is an error and no answer."""

_Column = TypeVar("_Column", bound=Hashable)
_Thing = TypeVar("_Thing", bound=Hashable)
Vector: TypeAlias = dict[_Column, int]
"""Coefficients that are not zero, by column: 1 to ``prime - 1``."""


class LinearLimitError(RuntimeError):
    """A system is larger than this module answers for; ``limit`` names what is exceeded."""

    def __init__(self, limit: str, size: int, most: int) -> None:
        super().__init__(f"{limit}: {size}, at most {most}")
        self.limit = limit


def cancelling(rows: Sequence[Mapping[_Column, int]], prime: int = MERSENNE_61) -> list[Vector[int]]:
    """A basis of the combinations of rows that are zero in every column.

    A column with one entry forces its row's coefficient to zero. A column with two makes one coefficient a multiple of
    the other: the two rows become one. Both are repeated while there is such a column, the smaller row joining the
    larger; what is left is eliminated densely.

    Args:
        rows: coefficients by column; taken modulo ``prime``.
        prime: the field's modulus.

    Returns:
        Vectors whose columns are row numbers.

    Raises:
        LinearLimitError: ``MAX_DENSE_CELLS`` is exceeded.
    """
    contraction = _Contraction(rows, prime)
    contraction.run()
    return contraction.expanded(_dense_null_space(contraction.left(), prime))


class _Contraction:
    """Rows as multiples of classes of rows, and the columns in terms of classes."""

    def __init__(self, rows: Sequence[Mapping[Any, int]], prime: int) -> None:
        self._prime = prime
        self._factors: dict[int, Vector[int]] = {number: {number: 1} for number in range(len(rows))}
        self._rows: dict[int, dict[Hashable, int]] = {}
        self._columns: dict[Hashable, Vector[int]] = {}
        for number, row in enumerate(rows):
            kept = {column: value % prime for column, value in row.items() if value % prime}
            self._rows[number] = dict(kept)
            for column, value in kept.items():
                self._columns.setdefault(column, {})[number] = value

    def run(self) -> None:
        """Until no column has one or two entries."""
        due = [column for column, entries in self._columns.items() if len(entries) <= 2]
        while due:
            column = due.pop()
            entries = self._columns.get(column)
            if entries is None:
                continue
            if not entries:
                del self._columns[column]
            elif len(entries) == 1:
                due.extend(self._drop(next(iter(entries))))
            elif len(entries) == 2:
                due.extend(self._merge(*entries.items()))

    def left(self) -> list[tuple[int, dict[Hashable, int]]]:
        """The classes that may still have a coefficient, with their entries."""
        return list(self._rows.items())

    def expanded(self, vectors: Iterable[Vector[int]]) -> list[Vector[int]]:
        """Vectors over classes as vectors over rows."""
        expanded = []
        for vector in vectors:
            rows: Vector[int] = {}
            for number, value in vector.items():
                for row, factor in self._factors[number].items():
                    rows[row] = value * factor % self._prime
            expanded.append(rows)
        return expanded

    def _drop(self, number: int) -> list[Hashable]:
        del self._factors[number]
        return self._removed(number, self._rows.pop(number))

    def _removed(self, number: int, row: Mapping[Hashable, int]) -> list[Hashable]:
        due = []
        for column in row:
            entries = self._columns[column]
            del entries[number]
            if len(entries) <= 2:
                due.append(column)
        return due

    def _merge(self, one: tuple[int, int], other: tuple[int, int]) -> list[Hashable]:
        """``one[1] * z_one + other[1] * z_other = 0``: the class with fewer entries joins the other."""
        (kept, a), (gone, b) = (one, other) if len(self._rows[one[0]]) >= len(self._rows[other[0]]) else (other, one)
        ratio = -a * pow(b, -1, self._prime) % self._prime
        row = self._rows.pop(gone)
        due = self._removed(gone, row)
        for column, value in row.items():
            due.extend(self._add(kept, column, value * ratio))
        for member, factor in self._factors.pop(gone).items():
            self._factors[kept][member] = factor * ratio % self._prime
        return due

    def _add(self, number: int, column: Hashable, value: int) -> list[Hashable]:
        entries = self._columns[column]
        total = (entries.get(number, 0) + value) % self._prime
        if total:
            entries[number] = self._rows[number][column] = total
        else:
            entries.pop(number, None)
            self._rows[number].pop(column, None)
        return [column] if len(entries) <= 2 else []


def _dense_null_space(rows: Sequence[tuple[int, Mapping[Hashable, int]]], prime: int) -> list[Vector[int]]:
    """Combinations, by the numbers of ``rows``, that are zero: each row carries what it was made from."""
    columns = {column: place for place, column in enumerate(dict.fromkeys(column for _, row in rows for column in row))}
    busy = sum(bool(row) for _, row in rows)
    if busy * len(columns) > MAX_DENSE_CELLS:
        raise LinearLimitError("cells of a dense matrix", busy * len(columns), MAX_DENSE_CELLS)
    found: list[Vector[int]] = []
    pivots: dict[Hashable, tuple[Vector[Hashable], Vector[int]]] = {}
    for number, row in rows:
        values: Vector[Hashable] = dict(row)
        made_of: Vector[int] = {number: 1}
        while values:
            # Leading columns in one order: a pivot then has nothing before its own.
            column = min(values, key=columns.__getitem__)
            pivot = pivots.get(column)
            if pivot is None:
                pivots[column] = values, made_of
                break
            scale = -values[column] * pow(pivot[0][column], -1, prime)
            _add_scaled(values, pivot[0], scale, prime)
            _add_scaled(made_of, pivot[1], scale, prime)
        else:
            found.append(made_of)
    return found


def _add_scaled(target: Vector[_Column], source: Mapping[_Column, int], scale: int, prime: int) -> None:
    for column, value in source.items():
        total = (target.get(column, 0) + scale * value) % prime
        if total:
            target[column] = total
        else:
            target.pop(column, None)


def echelon(
    vectors: Iterable[Mapping[_Column, int]], key: Callable[[_Column], tuple[int, ...]], prime: int = MERSENNE_61
) -> list[Vector[_Column]]:
    """The reduced echelon form of the space of ``vectors``, with columns in the order of ``key``; leading ones."""
    pivots: dict[_Column, Vector[_Column]] = {}
    users: dict[_Column, set[_Column]] = {}
    for vector in vectors:
        rest = {column: value % prime for column, value in vector.items() if value % prime}
        # A pivot has an entry at no other pivot's leading column: one pass is enough.
        for lead in [column for column in rest if column in pivots]:
            _add_scaled(rest, pivots[lead], -rest[lead], prime)
        if not rest:
            continue
        lead = min(rest, key=key)
        scale = pow(rest[lead], -1, prime)
        rest = {column: value * scale % prime for column, value in rest.items()}
        for other in users.pop(lead, ()):
            _add_scaled(pivots[other], rest, -pivots[other].get(lead, 0), prime)
            _note_use(users, other, pivots[other])
        pivots[lead] = rest
        _note_use(users, lead, rest)
    return [pivots[lead] for lead in sorted(pivots, key=key)]


def _note_use(users: dict[_Column, set[_Column]], lead: _Column, vector: Mapping[_Column, int]) -> None:
    """Who has an entry at a column, other than a leading one; who had one and has none any more may stay."""
    for column in vector:
        if column != lead:
            users.setdefault(column, set()).add(lead)


def centred(value: int, prime: int = MERSENNE_61) -> int:
    """The residue of ``value`` nearest to zero."""
    value %= prime
    return value - prime if value > prime // 2 else value


def smallest_support(
    basis: Sequence[Mapping[_Column, int]], weigh: Callable[[_Column], _Thing], prime: int = MERSENNE_61
) -> frozenset[_Thing] | None:
    """The fewest things that a vector of the space which is not zero is about; None for the space of zero.

    Vectors that share a column form a block; the smallest support lies in one block. In a block of dimension k the
    vectors of smallest support vanish on k - 1 independent columns: all choices of them are tried, columns that are
    multiples of each other once.

    Args:
        basis: linearly independent vectors.
        weigh: what a column is about; columns may be about the same thing.
        prime: the field's modulus.

    Raises:
        LinearLimitError: ``MAX_FLATS`` choices are exceeded in a block.
    """
    best: frozenset[_Thing] | None = None
    for block in _blocks(basis):
        for vector in _candidates(block, prime):
            support = frozenset(weigh(column) for column in vector)
            if best is None or len(support) < len(best):
                best = support
    return best


def _blocks(basis: Sequence[Mapping[_Column, int]]) -> list[list[Mapping[_Column, int]]]:
    """Vectors that share a column, or share one with a vector that does."""
    block_of: dict[_Column, int] = {}
    members: dict[int, list[int]] = {}
    for number, vector in enumerate(basis):
        joined = {block_of[column] for column in vector if column in block_of}
        members[number] = [*(each for block in sorted(joined) for each in members.pop(block)), number]
        moved = (basis[each] for each in members[number]) if joined else (vector,)
        block_of.update(dict.fromkeys((column for each in moved for column in each), number))
    return [[basis[each] for each in block] for block in members.values()]


def _candidates(block: Sequence[Mapping[_Column, int]], prime: int) -> Iterable[Vector[_Column]]:
    if len(block) == 1:
        yield dict(block[0])
        return
    directions = _directions(block, prime)
    choices = math.comb(len(directions), len(block) - 1)
    if choices > MAX_FLATS:
        raise LinearLimitError("choices of columns in a block of sums that overlap", choices, MAX_FLATS)
    for chosen in itertools.combinations(directions, len(block) - 1):
        # Vectors in terms of the block: rows are its members, columns the chosen directions.
        rows: list[tuple[int, Vector[Hashable]]] = [
            (number, {place: direction[number] for place, direction in enumerate(chosen) if direction[number]})
            for number in range(len(block))
        ]
        combinations = _dense_null_space(rows, prime)
        if len(combinations) != 1:
            continue
        vector: Vector[_Column] = {}
        for number, scale in combinations[0].items():
            _add_scaled(vector, block[number], scale, prime)
        yield vector


def _directions(block: Sequence[Mapping[_Column, int]], prime: int) -> list[tuple[int, ...]]:
    """The columns of a block, each scaled to a leading one, without repeats."""
    found: dict[tuple[int, ...], None] = {}
    for column in dict.fromkeys(column for vector in block for column in vector):
        values = [vector.get(column, 0) for vector in block]
        scale = pow(next(value for value in values if value), -1, prime)
        found[tuple(value * scale % prime for value in values)] = None
    return list(found)
