"""How long everything of a session is: asked of the functions and records that make it, never typed in.

Records have to be made to be measured; what stands in them here is zeros of the right length.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.fields import FieldLayout
from secagg.arith.linear_hash import HASH_BYTES, LIMBS_PER_LANE, shards_needed
from secagg.arith.ring_mask import RING_DEGREE, padded_lanes, usable_bits_for
from secagg.derive import boxes
from secagg.derive.member_boxes import box_bytes
from secagg.derive.threshold import GraphParameters
from secagg.protocol.one_shot.coordinator_states import (
    ONE_SHOT_PERSISTENCE,
    FoldContributions,
    HoldingRow,
    PartsRow,
)
from secagg.protocol.one_shot.member_states import MEMBER_PERSISTENCE, HeldRow
from secagg.protocol.rows import HeaderRow, StagedRow, TakenRow
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import (
    AggregateFile,
    OneShotClose,
    OneShotDeadlines,
    OneShotOpen,
    OneShotResult,
    SignedRoster,
)
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.openers import SEALING_KEY_BYTES, Committee, CommitteeMember, NamedMembers
from secagg.transcript.record import Record
from secagg.transcript.roster import RosterHead, RosterMember
from secagg.transcript.statements import (
    RING_VECTOR_BYTES,
    Accepted,
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    MemberAnswer,
    OneShotHeader,
    Receipt,
    SelfMaskShare,
    ShareStatement,
    Signed,
    Statement,
    UnmaskStatement,
)

WORD_BYTES = 8
FLOAT_BYTES = 4
MOST_VALUE_BITS = 16
"""Coordinates get so many bits where they fit, fewer where they do not."""

_H, _SIGNATURE = bytes(32), bytes(64)
_ADAPTER = tuple(AggregateFile(name, _H) for name in ("adapter_config.json", "adapter_model.safetensors"))
_LISTED = 1000


def _length(record: Record) -> int:
    return len(record.to_bytes())


def _signed(statement: Statement) -> Signed:
    return Signed(statement, _SIGNATURE)


def digits_below(count: int) -> int:
    """Decimal digits of 0, 1, .., count - 1 together."""
    total, start, width = 0, 0, 1
    while start < count:
        end = min(count, 10**width)
        total += (end - start) * width
        start, width = end, width + 1
    return total


def committee_of(members: int, needed: int) -> Committee:
    """A committee that as many may corrupt as is safe.

    Raises:
        RecordError: no such committee is safe.
    """
    each = (
        CommitteeMember(f"member-{place}", bytes([place]) * 32, bytes([place]) * SEALING_KEY_BYTES, _SIGNATURE)
        for place in range(members)
    )
    return Committee(tuple(each), needed, max(0, 2 * needed - members - 1))


def widest_value_bits(contributors: int, dimension: int, most: int = MOST_VALUE_BITS) -> int:
    """The most bits of a coordinate, up to ``most``, with which so many contributions fit one ring-masked lane.

    Raises:
        ArithmeticInputError: not even two bits fit.
    """
    for bits in range(most, 1, -1):
        try:
            usable_bits_for(bits, contributors, dimension)
        except ArithmeticInputError as error:
            if error.field != "usable_bits" or bits == 2:
                raise
        else:
            return bits
    raise ArithmeticInputError("value_bits", "must be at least 2")


@dataclass(frozen=True, slots=True)
class Widths:
    """The fields and lanes of one contribution."""

    layout: FieldLayout
    lanes: int

    @property
    def upload(self) -> int:
        """Bytes of a masked input."""
        return WORD_BYTES * self.lanes

    def limb_sums(self, contributions: int) -> int:
        """Into how many limb sums a session is split."""
        return shards_needed(contributions, self.lanes)

    def closing_files(self, contributions: int, header: int) -> int:
        """Bytes of contributions, dispositions, linear hashes and limb sums; ``header`` is the length of a signed one.

        Nobody dropped out or was rejected.
        """
        accepted = contributions * (_disposition(header) - 1) + digits_below(contributions)
        limbs = self.limb_sums(contributions) * LIMBS_PER_LANE * WORD_BYTES * self.lanes
        return contributions * (header + 1) + accepted + contributions * HASH_BYTES + limbs

    @property
    def sum_files(self) -> int:
        """Bytes of the integer sum and of the merged adapter's numbers."""
        return (WORD_BYTES + FLOAT_BYTES) * self.layout.dimension


def ring_widths(value_bits: int, contributors: int, dimension: int) -> Widths:
    """Of a one-shot session with so many contributions.

    Raises:
        ArithmeticInputError: they do not fit.
    """
    usable = usable_bits_for(value_bits, contributors, dimension)
    layout = FieldLayout(value_bits, contributors, dimension, usable)
    return Widths(layout, padded_lanes(layout.lanes))


def pairwise_widths(value_bits: int, contributors: int, dimension: int) -> Widths:
    """Of a pairwise session with so many contributions. Raises ArithmeticInputError."""
    layout = FieldLayout(value_bits, contributors, dimension)
    return Widths(layout, layout.lanes)


@functools.cache
def _disposition(header: int) -> int:
    """A line of ``accepted`` with an index of one digit, around a signed header of this length."""
    sample = _signed(OneShotHeader(_H, _H, _H, _H, 1, (_H,), 0))
    return _length(Accepted(0, sample)) - _length(sample) + header + 1


def roster_line() -> int:
    """A line of the roster, with its newline; no stratum."""
    return _length(RosterMember(_H, "")) + 1


@dataclass(frozen=True, slots=True)
class OneShotSizes:
    """A one-shot session with a committee in which ``contributions`` are all of the roster."""

    contributions: int
    widths: Widths
    committee: Committee

    @property
    def _header(self) -> OneShotHeader:
        return OneShotHeader(_H, _H, _H, _H, self.widths.lanes, (_H,) * len(self.committee.members), 1)

    @property
    def header(self) -> int:
        """A signed header."""
        return _length(_signed(self._header))

    @property
    def boxes(self) -> int:
        """All boxes of one contribution."""
        return sum(self.box(place) for place in range(len(self.committee.members)))

    def box(self, member: int) -> int:
        """The box for this member."""
        return box_bytes(self.committee, member)

    @property
    def receipt(self) -> int:
        """What a contributor gets for its upload."""
        return _length(Receipt(_H, _H)) + len(_SIGNATURE)

    @property
    def roster(self) -> int:
        """The roster's lines."""
        return self.contributions * roster_line()

    @property
    def open_entry(self) -> int:
        """The open entry."""
        layout = self.widths.layout
        encoding = Encoding(
            layout.dimension,
            layout.value_bits,
            layout.max_contributors,
            layout.usable_bits,
            Fraction(1),
            NoFlattening(),
        )
        entry = OneShotOpen(
            session=bytes(16),
            protocol="one-shot",
            coordinator=_H,
            log="log.example/secagg",
            opened_at_s=1_800_000_000,
            base_model="example/base",
            base_model_digest=_H,
            adapter=_H,
            layout=_H,
            merge=FactorMerge(),
            encoding=encoding,
            min_contributors=layout.max_contributors,
            max_corrupt=layout.max_contributors - 2,
            roster=_H,
            roster_size=self.contributions,
            registrar=_H,
            noise=NoDifferentialPrivacy(),
            retention_s=0,
            opening=self.committee,
            deadlines=OneShotDeadlines(10**6, 10**6, 10**6, 10**6),
        )
        return _length(entry)

    @property
    def log(self) -> int:
        """The session's entries, the roster's among them, each with its length and leaf hash."""
        named = tuple(range(len(self.committee.members)))
        entries = (
            SignedRoster(RosterHead(_H, self.contributions, _H), _SIGNATURE),
            OneShotClose(bytes(16), self.contributions, 0, 0, _H, _H, _H, NamedMembers(named)),
            OneShotResult(bytes(16), self.contributions, _H, _H, _H, _ADAPTER, _H, named[: self.committee.needed], ()),
        )
        return sum(map(_length, entries)) + self.open_entry + 4 * (2 + len(_H))

    @property
    def dispositions(self) -> int:
        """The list of what became of everybody."""
        return self.contributions * (_disposition(self.header) - 1) + digits_below(self.contributions)

    @property
    def answer(self) -> int:
        """A member's signed answer."""
        return _length(_signed(MemberAnswer(_H, _H, _H, bytes(RING_VECTOR_BYTES))))

    @property
    def openings(self) -> int:
        """All members' answers, and the secret sum. Fewer answers are published if fewer had come by the opening."""
        return len(self.committee.members) * (self.answer + 1) + WORD_BYTES * RING_DEGREE

    @property
    def record(self) -> int:
        """The published files of the session, without layout, adapter template and the heads of the adapter's files."""
        closing = self.widths.closing_files(self.contributions, self.header)
        return self.roster + closing + self.openings + self.widths.sum_files

    @property
    def rows(self) -> int:
        """The coordinator's rows of one contribution, as stored: content only."""
        signed, members = _signed(self._header), len(self.committee.members)
        taken = 2 + members  # what no other header may sign: upload, linear hash, boxes
        position = self.contributions - 1
        kept = (
            HeaderRow(signed),
            PartsRow(_H, tuple(self.box(place) for place in range(members))),
            StagedRow(_H),
            HoldingRow((1 << members) - 1, 0),
        )
        marks = taken * len(ONE_SHOT_PERSISTENCE.encode(TakenRow(position)))
        return marks + sum(len(ONE_SHOT_PERSISTENCE.encode(row)) for row in kept)

    @property
    def member_row(self) -> int:
        """A member's row of one contribution, as stored: content only."""
        return len(MEMBER_PERSISTENCE.encode(HeldRow(_H, self.contributions - 1)))

    @property
    def state(self) -> int:
        """The closed set in the coordinator's state, which is one cell of its store; at most."""
        return self.contributions * listed_position(self.contributions)


def listed_position(contributions: int) -> int:
    """Bytes of a position, the last of so many, in a stored list."""
    lengths = [
        len(ONE_SHOT_PERSISTENCE.encode(FoldContributions((contributions - 1,) * n))) for n in (16, 16 + _LISTED)
    ]
    return -(-(lengths[1] - lengths[0]) // _LISTED)


@dataclass(frozen=True, slots=True)
class PairwiseSizes:
    """A pairwise session of ``cohort`` clients, all of whom contribute."""

    cohort: int
    widths: Widths
    graph: GraphParameters

    @property
    def contributions(self) -> int:
        """As many as clients."""
        return self.cohort

    @property
    def header(self) -> int:
        """A signed header that misses nobody."""
        return _length(_signed(ContributionHeader(_H, _H, _H, _H, _H, self.widths.lanes, ())))

    @property
    def advertised(self) -> int:
        """A signed leaf of U1."""
        return _length(_signed(AdvertiseStatement(_H, _H, _H, _H)))

    @property
    def shared(self) -> int:
        """A signed leaf of U2."""
        return _length(_signed(ShareStatement(_H, _H, _H, _H, _H, _H)))

    @property
    def confirmed(self) -> int:
        """A signed confirmation."""
        return _length(_signed(ConfirmStatement(_H, _H, _H)))

    @property
    def answer(self) -> int:
        """A signed answer with a share for each neighbour, of the longest indices that there are."""
        last, degree = self.cohort - 1, self.graph.degree
        share = bytes(36)
        shares = tuple(SelfMaskShare(last - degree + 1 + place, share) for place in range(degree))
        return _length(_signed(UnmaskStatement(_H, _H, _H, shares)))

    @property
    def keys(self) -> int:
        """Both sealing keys of a client."""
        return 2 * SEALING_KEY_BYTES

    @property
    def dealt(self) -> int:
        """All that a client deals to its neighbours on average: half of them have a higher index."""
        pair = boxes.pair_box_bytes(0, 1) + boxes.commitments_bytes(0, 1) + boxes.commitments_bytes(1, 0)
        return self.graph.degree * boxes.SHARE_BOX_BYTES + self.graph.degree * pair // 2

    @property
    def paths(self) -> int:
        """The audit paths that come with what a client's neighbours dealt, at most."""
        return self.graph.degree * math.ceil(math.log2(self.graph.degree)) * len(_H)

    @property
    def dispositions(self) -> int:
        """The list of what became of everybody."""
        return self.cohort * (_disposition(self.header) - 1) + digits_below(self.cohort)

    @property
    def roster(self) -> int:
        """The roster's lines."""
        return self.cohort * roster_line()

    @property
    def record(self) -> int:
        """The published files but layout, template and heads of files. No client dropped out: no pair boxes."""
        lists = self.cohort * (self.advertised + self.shared + self.answer + 3)
        closing = self.widths.closing_files(self.cohort, self.header)
        return self.roster + lists + closing + self.widths.sum_files
