"""Hypothesis strategies for every published record."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from secagg.transcript import entries, published, receipt, roster, statements
from secagg.transcript.encoding import MAX_DIMENSION, CoordinateRange, Encoding, Flattening, NoFlattening
from secagg.transcript.noise import DiscreteGaussianNoise, NoDifferentialPrivacy, PrivacyBudget, SkellamNoise
from secagg.transcript.record import Record
from tests.unit.transcript.merge_strategies import MERGES, any_merge
from tests.unit.transcript.noise_strategies import any_noise, budgets, gaussian_noises, skellam_noises
from tests.unit.transcript.one_shot_strategies import ONE_SHOT, aggregates

MAX_INDEX = entries.MAX_COHORT - 1

digests = st.binary(min_size=32, max_size=32)
sessions = st.binary(min_size=16, max_size=16)
signatures = st.binary(min_size=64, max_size=64)
indices = st.integers(0, MAX_INDEX)
counts = st.integers(2, entries.MAX_COHORT)


def text(most_bytes: int) -> st.SearchStrategy[str]:
    return st.text(max_size=most_bytes // 4)


@st.composite
def ascending(draw, most=6):
    return tuple(sorted(draw(st.sets(indices, max_size=most))))


@st.composite
def released_shares(draw):
    kinds = st.sampled_from((statements.SelfMaskShare, statements.RootShare))
    share = st.binary(min_size=statements.SHARE_BYTES, max_size=statements.SHARE_BYTES)
    return tuple(draw(kinds)(index, draw(share)) for index in draw(ascending()))


advertise_statements = st.builds(statements.AdvertiseStatement, digests, digests, digests, digests)
share_statements = st.builds(statements.ShareStatement, digests, digests, digests, digests, digests, digests)
contribution_headers = st.builds(statements.ContributionHeader, *[digests] * 5, st.integers(1, 2**53 - 1), ascending())
confirm_statements = st.builds(statements.ConfirmStatement, digests, digests, digests)
unmask_statements = st.builds(statements.UnmaskStatement, digests, digests, digests, released_shares())
any_statement = st.one_of(
    advertise_statements, share_statements, contribution_headers, confirm_statements, unmask_statements
)


def signed(statement: st.SearchStrategy[statements.Statement] = any_statement) -> st.SearchStrategy[statements.Signed]:
    return st.builds(statements.Signed, statement, signatures)


fractions = st.builds(Fraction, st.integers(1, 10**20), st.integers(1, 10**20))
years = st.integers(1, 366 * 24 * 3600)
deadlines = st.builds(entries.Deadlines, years, years, years, years, years)


def blob(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


commitments = blob(published.COMMITMENTS_BYTES)
paths = st.lists(digests, max_size=20).map(tuple)
left_out = st.integers(0, entries.MAX_COHORT)
session_closes = st.builds(entries.SessionClose, sessions, counts, left_out, left_out, digests, digests, digests)
roster_heads = st.builds(roster.RosterHead, digests, st.integers(1, 2**40), digests)


@st.composite
def encodings(draw):
    value_bits = draw(st.integers(2, 32))
    contributors = draw(st.integers(2, entries.MAX_COHORT))
    width = value_bits + (contributors - 1).bit_length()
    clip_norm = draw(fractions)
    bounds = st.integers(1, 1000).map(lambda part: clip_norm / part)
    return Encoding(
        draw(st.integers(1, MAX_DIMENSION)),
        value_bits,
        contributors,
        draw(st.integers(width, 64)),
        clip_norm,
        draw(st.one_of(st.builds(NoFlattening), st.builds(Flattening, digests), st.builds(CoordinateRange, bounds))),
    )


@st.composite
def session_opens(draw):
    encoding = draw(encodings())
    minimum = draw(st.integers(2, encoding.max_contributors))
    return entries.PairwiseOpen(
        session=draw(sessions),
        protocol="pairwise",
        coordinator=draw(digests),
        log=draw(st.from_regex(r"[a-z0-9./-]{1,255}", fullmatch=True)),
        opened_at_s=draw(st.integers(0, 2**53 - 1)),
        base_model=draw(text(256)),
        base_model_digest=draw(digests),
        adapter=draw(digests),
        layout=draw(digests),
        merge=draw(any_merge),
        encoding=encoding,
        min_contributors=minimum,
        max_corrupt=draw(st.integers(0, minimum - 2)),
        expected_dropout=draw(st.fractions(0, Fraction(99, 100), max_denominator=10**9)),
        roster=draw(digests),
        roster_size=draw(st.integers(minimum, 2**40)),
        registrar=draw(digests),
        deadlines=draw(deadlines),
        noise=draw(st.builds(NoDifferentialPrivacy) if isinstance(encoding.flatten, CoordinateRange) else any_noise),
        retention_s=draw(st.integers(0, 3600)),
    )


RECORDS: dict[type[Record], st.SearchStrategy[Record]] = {
    NoFlattening: st.builds(NoFlattening),
    Flattening: st.builds(Flattening, digests),
    CoordinateRange: st.builds(CoordinateRange, fractions),
    Encoding: encodings(),
    NoDifferentialPrivacy: st.builds(NoDifferentialPrivacy),
    PrivacyBudget: budgets,
    SkellamNoise: skellam_noises,
    DiscreteGaussianNoise: gaussian_noises,
    entries.Deadlines: deadlines,
    entries.PairwiseOpen: session_opens(),
    entries.KeysAdvertised: st.builds(entries.KeysAdvertised, sessions, counts, digests),
    entries.KeysShared: st.builds(entries.KeysShared, sessions, counts, digests),
    entries.SessionClose: session_closes,
    entries.SessionResult: st.builds(entries.SessionResult, sessions, counts, *[digests] * 3, aggregates),
    entries.AggregateFile: st.builds(entries.AggregateFile, st.sampled_from(entries.AGGREGATE_FILES), digests),
    entries.SessionAbort: st.builds(
        entries.SessionAbort, sessions, text(64), st.integers(0, entries.MAX_COHORT), digests
    ),
    entries.SignedRoster: st.builds(entries.SignedRoster, roster_heads, signatures),
    published.PairBox: st.builds(
        published.PairBox, indices, indices, digests, blob(published.PAIR_BOX_BYTES), commitments, paths
    ),
    published.PairPromise: st.builds(published.PairPromise, indices, indices, digests, digests, commitments, paths),
    receipt.ContributionProof: st.builds(
        receipt.ContributionProof,
        session_closes.map(lambda close: close.to_bytes().decode()),
        signed(contribution_headers),
        indices,
        paths,
    ),
    roster.RosterMember: st.builds(roster.RosterMember, digests, text(64)),
    roster.RosterHead: roster_heads,
    statements.AdvertiseStatement: advertise_statements,
    statements.ShareStatement: share_statements,
    statements.ContributionHeader: contribution_headers,
    statements.ConfirmStatement: confirm_statements,
    statements.SelfMaskShare: st.builds(statements.SelfMaskShare, indices, st.binary(min_size=36, max_size=36)),
    statements.RootShare: st.builds(statements.RootShare, indices, st.binary(min_size=36, max_size=36)),
    statements.UnmaskStatement: unmask_statements,
    statements.Signed: signed(),
    statements.Absent: st.builds(statements.Absent, indices),
    statements.Accepted: st.builds(statements.Accepted, indices, signed(contribution_headers)),
    statements.Rejected: st.builds(statements.Rejected, indices, text(64)),
    statements.Dropped: st.builds(statements.Dropped, indices, st.sampled_from(("share-keys", "masked-input"))),
    statements.Receipt: st.builds(statements.Receipt, digests, digests),
    **MERGES,
    **ONE_SHOT,
}
"""A strategy for each class; a test asserts that no subclass of Record is left out."""
