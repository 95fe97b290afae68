"""Hypothesis strategies for the records of one-shot sessions."""

from __future__ import annotations

import functools
from fractions import Fraction

from hypothesis import strategies as st

from secagg.arith.ring_mask import usable_bits_for
from secagg.transcript import entries, openers, statements
from secagg.transcript.encoding import MAX_CONTRIBUTORS, Encoding, NoFlattening
from secagg.transcript.record import Record
from tests.unit.transcript.merge_strategies import any_merge
from tests.unit.transcript.noise_strategies import any_noise

digests = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
sealing_keys = st.binary(min_size=8, max_size=8).map(lambda piece: piece * (openers.SEALING_KEY_BYTES // 8))
sessions = st.binary(min_size=16, max_size=16)
counts = st.integers(2, MAX_CONTRIBUTORS)
left_out = st.integers(0, MAX_CONTRIBUTORS)
years = st.integers(1, 366 * 24 * 3600)
one_shot_deadlines = st.builds(entries.OneShotDeadlines, years, years, years, years)


@functools.cache
def _ring_vectors() -> st.SearchStrategy[bytes]:
    """Bytes of a whole vector, of which a few are drawn."""
    length = statements.RING_VECTOR_BYTES
    return st.binary(min_size=8, max_size=8).map(lambda piece: piece * (length // len(piece)))


@st.composite
def committees(draw: st.DrawFn) -> openers.Committee:
    size = draw(st.integers(2, openers.MAX_MEMBERS))
    corrupt = draw(st.integers(0, size - 1))
    needed = draw(st.integers(max(2, (size + corrupt) // 2 + 1), max(2, size)))
    if 2 * needed <= size + corrupt or needed > size:
        corrupt, needed = 0, size
    members = tuple(
        openers.CommitteeMember(
            f"member {place}", bytes([place]) * 32, bytes([place]) * openers.SEALING_KEY_BYTES, bytes([place]) * 64
        )
        for place in range(size)
    )
    return openers.Committee(members, needed, corrupt)


@st.composite
def authorities(draw: st.DrawFn) -> openers.KeyAuthority:
    attestors = draw(st.lists(digests, min_size=1, max_size=openers.MAX_ATTESTORS, unique=True))
    needed = draw(st.integers(1, len(attestors)))
    return openers.KeyAuthority("authority", draw(digests), draw(digests), draw(signatures), tuple(attestors), needed)


@st.composite
def one_shot_opens(draw: st.DrawFn) -> entries.OneShotOpen:
    opening = draw(st.one_of(committees(), authorities()))
    most = draw(st.integers(2, min(2**20, opening.max_contributors)))
    value_bits, dimension = draw(st.integers(2, 16)), draw(st.integers(1, 10**6))
    usable = usable_bits_for(value_bits, most, dimension)
    minimum = draw(st.integers(2, most))
    return entries.OneShotOpen(
        session=draw(sessions),
        protocol="one-shot",
        coordinator=draw(digests),
        log="log.example/secagg",
        opened_at_s=draw(st.integers(0, 2**53 - 1)),
        base_model="base",
        base_model_digest=draw(digests),
        adapter=draw(digests),
        layout=draw(digests),
        merge=draw(any_merge),
        encoding=Encoding(dimension, value_bits, most, usable, Fraction(1), NoFlattening()),
        min_contributors=minimum,
        max_corrupt=draw(st.integers(0, minimum - 2)),
        roster=draw(digests),
        roster_size=draw(st.integers(minimum, entries.MAX_ROSTER)),
        registrar=draw(digests),
        noise=draw(any_noise),
        retention_s=draw(st.integers(0, 3600)),
        opening=opening,
        deadlines=draw(one_shot_deadlines),
    )


aggregates = st.sets(st.sampled_from(entries.AGGREGATE_FILES), min_size=1).flatmap(
    lambda names: st.tuples(*(st.builds(entries.AggregateFile, st.just(name), digests) for name in sorted(names)))
)
places = st.sets(st.integers(0, openers.MAX_MEMBERS - 1)).map(lambda chosen: tuple(sorted(chosen)))
named = st.builds(openers.NamedMembers, places)
summed = st.builds(openers.SummedCiphertext, digests)


@st.composite
def one_shot_results(draw: st.DrawFn) -> entries.OneShotResult:
    used = draw(places)
    dissenting = tuple(place for place in draw(places) if place not in used)
    return entries.OneShotResult(
        draw(sessions),
        draw(counts),
        *(draw(digests) for _ in range(3)),
        draw(aggregates),
        draw(digests),
        used,
        dissenting,
    )


ONE_SHOT: dict[type[Record], st.SearchStrategy[Record]] = {
    entries.OneShotDeadlines: one_shot_deadlines,
    entries.OneShotOpen: one_shot_opens(),
    entries.ContributionsCommitted: st.builds(entries.ContributionsCommitted, sessions, counts, digests),
    entries.OneShotClose: st.builds(
        entries.OneShotClose, sessions, counts, left_out, left_out, digests, digests, digests, st.one_of(named, summed)
    ),
    entries.OneShotResult: one_shot_results(),
    openers.CommitteeMember: st.builds(
        openers.CommitteeMember, st.text(max_size=16), digests, sealing_keys, signatures
    ),
    openers.MemberKeys: st.builds(openers.MemberKeys, digests, sealing_keys),
    openers.Committee: committees(),
    openers.KeyAuthority: authorities(),
    openers.PreparedKey: st.builds(openers.PreparedKey, sessions, digests, digests, digests),
    openers.NamedMembers: named,
    openers.SummedCiphertext: summed,
    statements.OneShotHeader: st.builds(
        statements.OneShotHeader,
        *[digests] * 4,
        st.integers(1, 2**53 - 1),
        st.lists(digests, max_size=openers.MAX_MEMBERS).map(tuple),
        st.integers(0, 2**53 - 1),
    ),
    statements.MemberAnswer: st.builds(statements.MemberAnswer, digests, digests, digests, _ring_vectors()),
    statements.AuthorityAnswer: st.builds(statements.AuthorityAnswer, digests, digests, digests, _ring_vectors()),
    statements.Attestation: st.builds(statements.Attestation, digests, digests, digests, digests),
}
