"""Hypothesis strategies for what sessions declare about noise."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from secagg.transcript.noise import (
    LEAST_GAUSSIAN_VARIANCE,
    MAX_LOCAL_VARIANCE,
    MAX_SQUARED_NORM,
    DiscreteGaussianNoise,
    NoDifferentialPrivacy,
    PrivacyBudget,
    SkellamNoise,
)
from secagg.transcript.record import Record

digests = st.binary(min_size=32, max_size=32)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16)
positive = st.builds(Fraction, st.integers(1, 10**12), st.integers(1, 10**12))
budgets = st.builds(
    PrivacyBudget,
    names,
    positive,
    st.builds(Fraction, st.just(1), st.integers(2, 10**12)),
    st.integers(1, 2**53 - 1),
    digests,
    digests,
)


def noises(kind: type[SkellamNoise | DiscreteGaussianNoise], least: int) -> st.SearchStrategy[Record]:
    variances = st.builds(Fraction, st.integers(least, MAX_LOCAL_VARIANCE))
    return st.builds(kind, positive, st.integers(1, MAX_SQUARED_NORM), variances, digests, positive, budgets)


skellam_noises = noises(SkellamNoise, 1)
gaussian_noises = noises(DiscreteGaussianNoise, LEAST_GAUSSIAN_VARIANCE)
any_noise = st.one_of(st.builds(NoDifferentialPrivacy), skellam_noises, gaussian_noises)
