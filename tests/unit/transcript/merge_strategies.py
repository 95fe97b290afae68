"""Hypothesis strategies for what sessions say about how they merge."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from secagg.transcript import merge
from secagg.transcript.record import Record

digests = st.binary(min_size=32, max_size=32)
sessions = st.binary(min_size=16, max_size=16)
norms = st.builds(Fraction, st.integers(1, 2**40), st.integers(1, 2**40))
columns = st.integers(1, merge.MAX_COLUMNS)
shares = st.fractions(Fraction(1, 10**6), Fraction(10**6 - 1, 10**6), max_denominator=10**6)


@st.composite
def sketches(draw: st.DrawFn) -> merge.SketchMerge:
    few, many = sorted((draw(columns), draw(columns)))
    return merge.SketchMerge(draw(norms), draw(digests), few, many, draw(columns))


MERGES: dict[type[Record], st.SearchStrategy[Record]] = {
    merge.FactorMerge: st.builds(merge.FactorMerge),
    merge.DenseMerge: st.builds(merge.DenseMerge, norms),
    merge.FrozenMerge: st.builds(merge.FrozenMerge, norms, digests),
    merge.SketchMerge: sketches(),
    merge.RangeMerge: st.builds(merge.RangeMerge, norms, digests, columns),
    merge.ProjectionMerge: st.builds(
        merge.ProjectionMerge, norms, digests, columns, columns, sessions, digests, digests
    ),
    merge.PilotMerge: st.builds(merge.PilotMerge, norms, digests, columns, st.integers(1, 2), shares),
    merge.BasisMerge: st.builds(
        merge.BasisMerge, norms, digests, columns, st.integers(1, 2), columns, shares, sessions, digests
    ),
}
any_merge = st.one_of(*MERGES.values())
