"""What sessions of any size cost: lengths from the product's own functions, times from measured constants.

Lengths are exact up to what ``ASSUMPTIONS`` says. Times are one operation's, as ``constants`` has it, times
how often it is done. Nothing here measures anything.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.linear_hash import HASH_BYTES
from secagg.arith.ring_mask import MAX_CONTRIBUTORS as MOST_IN_ONE_RING
from secagg.arith.ring_mask import RingMask
from secagg.derive.graph import MAX_COHORT, MIN_COHORT, GraphParameterError
from secagg.derive.threshold import graph_parameters
from secagg.transcript.openers import Committee
from simulations.estimates.constants import Constants
from simulations.estimates.sizes import (
    OneShotSizes,
    PairwiseSizes,
    Widths,
    committee_of,
    listed_position,
    pairwise_widths,
    ring_widths,
    roster_line,
    widest_value_bits,
)

MOST_CONTRIBUTORS = MOST_IN_ONE_RING
MOST_DIMENSION = 2**29

_LINE_FRAMING = 2
"""What a line of a hundred bytes takes more in a message: tag and length."""


class Unit(enum.Enum):
    """What a figure counts."""

    COUNT = "count"
    BITS = "bits"
    BYTES = "bytes"
    SECONDS = "seconds"
    TEXT = "text"


class Protocol(enum.StrEnum):
    """Which sessions."""

    ONE_SHOT = "one-shot"
    PAIRWISE = "pairwise"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a column; ``group`` and ``name`` are for people and together name it."""

    group: str
    name: str
    unit: Unit
    value: int | float | str


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of any number of contributors.

    Attributes:
        dimension: parameters of one contribution.
        committee: who opens one-shot sums.
        cohort: the most contributors of one session; None: as many as one opening takes.
        value_bits: of a coordinate; None: the most up to 16 that fit.
        dropout: what fraction of a pairwise cohort falls silent after it shared keys, and is planned for.
        corrupt: what fraction of a pairwise cohort may be corrupt.
    """

    dimension: int
    committee: Committee = field(default_factory=lambda: committee_of(7, 5))
    cohort: int | None = None
    value_bits: int | None = None
    dropout: Fraction = Fraction(1, 10)
    corrupt: Fraction = Fraction(1, 10)


@dataclass(frozen=True, slots=True)
class Column:
    """What so many contributors cost; ``why_not`` where they are not feasible, and then there are no figures.

    ``beyond`` are the limits of the program as it is, by letter, that its sessions would break.
    """

    protocol: Protocol
    contributors: int
    figures: tuple[Figure, ...] = ()
    beyond: tuple[str, ...] = ()
    why_not: str = ""

    def __getitem__(self, names: tuple[str, str]) -> int | float | str:
        """A figure by group and name."""
        found = {(figure.group, figure.name): figure.value for figure in self.figures}
        return found[names]


class _Sheet:
    """Collects the figures of one column, group by group."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self._group = ""

    def group(self, name: str) -> None:
        self._group = name

    def add(self, unit: Unit, rows: Iterable[tuple[str, int | float]]) -> None:
        self.figures.extend(Figure(self._group, name, unit, value) for name, value in rows)


def estimate(question: Question, protocol: Protocol, contributors: int, constants: Constants) -> Column:
    """What so many contributors cost."""
    try:
        if protocol is Protocol.ONE_SHOT:
            return _one_shot(question, contributors, constants)
        return _pairwise(question, contributors, constants)
    except ArithmeticInputError as error:
        return Column(protocol, contributors, why_not=f"{error.field}: {error}")


def _cohorts(contributors: int, most: int) -> tuple[int, int]:
    """Into how many cohorts of how many, as equal as can be; the number in each is rounded up."""
    cohorts = -(-contributors // most)
    return cohorts, -(-contributors // cohorts)


def _shape(sheet: _Sheet, widths: Widths, cohorts: int, each: int) -> None:
    layout = widths.layout
    sheet.group("shape")
    sheet.add(Unit.COUNT, [("cohorts", cohorts), ("contributors in each", each)])
    sheet.add(
        Unit.BITS,
        [("a coordinate", layout.value_bits), ("a field", layout.field_bits), ("usable of a lane", layout.usable_bits)],
    )
    sheet.add(Unit.COUNT, [("fields in a lane", layout.fields_per_lane), ("lanes", widths.lanes)])
    sheet.add(Unit.COUNT, [("limb sums in a cohort", widths.limb_sums(each))])


# One-shot.


def _one_shot(question: Question, contributors: int, constants: Constants) -> Column:
    committee = question.committee
    most = min(question.cohort or committee.max_contributors, committee.max_contributors)
    cohorts, each = _cohorts(contributors, most)
    bits = question.value_bits or widest_value_bits(each, question.dimension)
    sizes = OneShotSizes(each, ring_widths(bits, each, question.dimension), committee)
    sheet = _Sheet()
    _shape(sheet, sizes.widths, cohorts, each)
    everybody = RingMask(max(2, contributors), sizes.widths.lanes).usable_bits
    sheet.add(Unit.BITS, [("usable, were all in one opening", everybody)])
    total = cohorts * each
    _one_shot_contributor(sheet, sizes, total, constants)
    _one_shot_coordinator(sheet, sizes, cohorts, constants)
    _members(sheet, sizes, total, constants)
    _published(sheet, sizes, cohorts, _opening_s(sizes, constants), constants)
    sheet.add(Unit.BYTES, [("log, all cohorts", cohorts * sizes.log)])
    reached = {"A": each > most_in_a_message(constants), "B": each > most_in_a_cell(constants)}
    beyond = tuple(letter for letter, is_reached in reached.items() if is_reached)
    return Column(Protocol.ONE_SHOT, contributors, tuple(sheet.figures), beyond)


def most_in_a_message(constants: Constants) -> int:
    """The largest roster that one answer to GetSession holds beside the other things in it, about."""
    return int(constants["message_limit_bytes"] - 2**16) // (roster_line() - 1 + _LINE_FRAMING)


def most_in_a_cell(constants: Constants) -> int:
    """The largest closed set that the stored state of a session holds, about."""
    limit = int(constants["cell_limit_bytes"])
    return limit // listed_position(limit)


def _sent_bytes(sizes: OneShotSizes, constants: Constants) -> dict[str, int]:
    chunks = math.ceil(sizes.widths.upload / constants["chunk_bytes"])
    framing = constants["announcement_overhead_bytes"] + chunks * constants["chunk_overhead_bytes"]
    return {
        "masked input": sizes.widths.upload,
        "boxes": sizes.boxes,
        "header, hash, framing": sizes.header + HASH_BYTES + round(framing),
    }


def _vector_s(widths: Widths, constants: Constants) -> float:
    """Seconds a contributor spends on its vector, its masks left out."""
    return (
        constants["encode_s_a_coordinate"] * widths.layout.dimension
        + constants["linear_hash_s_a_lane"] * widths.lanes
        + constants["digest_s_a_byte"] * widths.upload
    )


def _one_shot_contributor(sheet: _Sheet, sizes: OneShotSizes, total: int, constants: Constants) -> None:
    committee, sent = sizes.committee, _sent_bytes(sizes, constants)
    up, seeds = sum(sent.values()), committee.needed - 1
    down = sizes.roster + sizes.open_entry + sizes.receipt
    cpu = (
        _vector_s(sizes.widths, constants)
        + constants["mask_s_a_lane"] * sizes.widths.lanes
        + constants["seal_s_a_seed_box"] * seeds
        + constants["seal_s_a_share_box"] * (len(committee.members) - seeds)
        + constants["sign_s_a_contribution"]
        + constants["send_s_an_upload"]
        + constants["send_s_a_byte"] * up
    )
    sheet.group("a contributor")
    sheet.add(Unit.SECONDS, [("CPU", cpu)])
    sheet.add(Unit.BYTES, [("sends", up), *((f"  of which {name}", value) for name, value in sent.items())])
    sheet.add(Unit.BYTES, [("receives", down), ("  of which roster", sizes.roster)])
    sheet.group("all contributors")
    sheet.add(Unit.SECONDS, [("CPU", total * cpu)])
    sheet.add(Unit.BYTES, [("send", total * up), ("receive", total * down)])


def _summing_s(sizes: OneShotSizes | PairwiseSizes, constants: Constants) -> float:
    """Seconds to hash the limb sums of one cohort and to decode its sum."""
    widths = sizes.widths
    hashing = constants["hash_sum_s_a_lane"] * widths.lanes * widths.limb_sums(sizes.contributions)
    return hashing + constants["decode_s_a_coordinate"] * widths.layout.dimension


def _opening_s(sizes: OneShotSizes, constants: Constants) -> float:
    """The same, and to certify and unmask the sum."""
    return _summing_s(sizes, constants) + constants["open_s_a_lane"] * sizes.widths.lanes


def _one_shot_coordinator(sheet: _Sheet, sizes: OneShotSizes, cohorts: int, constants: Constants) -> None:
    total = cohorts * sizes.contributions
    upload = constants["receive_s_an_upload"] + constants["receive_s_a_byte"] * sizes.widths.upload
    opening = _opening_s(sizes, constants)
    cpu = total * (upload + constants["close_s_a_contribution"]) + cohorts * opening
    sheet.group("coordinator")
    sheet.add(Unit.SECONDS, [("CPU an upload", upload), ("CPU to open a cohort", opening), ("CPU", cpu)])
    sheet.add(
        Unit.BYTES,
        [
            ("stores masked inputs", total * sizes.widths.upload),
            ("stores boxes", total * sizes.boxes),
            ("stores hashes and rows", total * (HASH_BYTES + sizes.rows)),
            ("memory of a cohort's rows", round(sizes.contributions * constants["memory_bytes_a_contribution"])),
        ],
    )


def _members(sheet: _Sheet, sizes: OneShotSizes, total: int, constants: Constants) -> None:
    last = len(sizes.committee.members) - 1
    for what, box, place in (("with whole shares", "share", last), ("with seeds", "seed", 0)):
        each = constants[f"take_s_a_{box}_box"] + constants[f"sum_s_a_{box}_box"]
        length = sizes.box(place)
        sheet.group(f"a member {what}")
        sheet.add(Unit.SECONDS, [("CPU", total * each)])
        sheet.add(
            Unit.BYTES, [("receives", total * (length + sizes.header)), ("stores", total * (length + sizes.member_row))]
        )


def _published(
    sheet: _Sheet, sizes: OneShotSizes | PairwiseSizes, cohorts: int, opening_s: float, constants: Constants
) -> None:
    """Verifier and record of all cohorts; ``opening_s``: seconds for the sum of one."""
    widths, total = sizes.widths, cohorts * sizes.contributions
    by_sum = constants["verify_s_a_contribution"] * total + cohorts * opening_s
    by_full = by_sum + constants["add_s_a_lane"] * widths.lanes * total
    read = cohorts * sizes.record
    sheet.group("verifier")
    sheet.add(Unit.SECONDS, [("CPU, level sum", by_sum), ("CPU, level full", by_full)])
    sheet.add(Unit.BYTES, [("reads, level sum", read), ("reads, level full", read + total * widths.upload)])
    sheet.group("published")
    sheet.add(Unit.BYTES, [("records", read)])
    sheet.add(Unit.BYTES, [("roster of a cohort", sizes.roster), ("dispositions of a cohort", sizes.dispositions)])


# Pairwise.


def _pairwise(question: Question, contributors: int, constants: Constants) -> Column:
    most = min(question.cohort or contributors, contributors)
    if most > MAX_COHORT:
        return Column(
            Protocol.PAIRWISE,
            contributors,
            why_not=f"a session takes at most {MAX_COHORT:,} clients, each of whom checks lists of all of them; "
            f"--cohort {MAX_COHORT} or less estimates many sessions",
        )
    cohorts, each = _cohorts(contributors, most)
    if each < MIN_COHORT:
        return Column(Protocol.PAIRWISE, contributors, why_not=f"a session takes at least {MIN_COHORT} clients")
    corrupt, silent = math.ceil(question.corrupt * each), math.floor(question.dropout * each)
    try:
        graph = graph_parameters(each, corrupt, max(corrupt + 2, -(-each // 2)), question.dropout)
    except GraphParameterError as error:
        return Column(Protocol.PAIRWISE, contributors, why_not=str(error))
    bits = question.value_bits or 16
    sizes = PairwiseSizes(each, pairwise_widths(bits, each, question.dimension), graph)
    sheet = _Sheet()
    _shape(sheet, sizes.widths, cohorts, each)
    sheet.add(Unit.COUNT, [("neighbours (degree)", graph.degree), ("threshold", graph.threshold)])
    sheet.add(Unit.COUNT, [("fall silent in each", silent)])
    _pairwise_contributor(sheet, sizes, cohorts, constants)
    _pairwise_coordinator(sheet, sizes, (cohorts, silent), constants)
    _published(sheet, sizes, cohorts, _unmasking_s(sizes, silent, constants), constants)
    lists = max(sizes.dispositions, sizes.roster, each * max(sizes.advertised, sizes.shared))
    beyond = ("A",) if lists > constants["message_limit_bytes"] else ()
    return Column(Protocol.PAIRWISE, contributors, tuple(sheet.figures), beyond)


def _unmasking_s(sizes: PairwiseSizes, silent: int, constants: Constants) -> float:
    """Seconds for the sum of one cohort: a keystream for each contributor, degree for each that fell silent."""
    streams = sizes.cohort - silent + silent * sizes.graph.degree
    return _summing_s(sizes, constants) + streams * constants["keystream_s_a_lane"] * sizes.widths.lanes


def _pairwise_contributor(sheet: _Sheet, sizes: PairwiseSizes, cohorts: int, constants: Constants) -> None:
    n, widths, degree = sizes.cohort, sizes.widths, sizes.graph.degree
    chunks = math.ceil(widths.upload / constants["chunk_bytes"])
    framing = constants["announcement_overhead_bytes"] + chunks * constants["chunk_overhead_bytes"]
    sent = {
        "masked input": widths.upload,
        "keys, boxes, shares": sizes.advertised + sizes.keys + sizes.shared + sizes.dealt + sizes.answer,
        "header, hash, framing": sizes.header + HASH_BYTES + sizes.confirmed + round(framing),
    }
    received = {
        "published lists": sizes.roster + n * (sizes.advertised + sizes.shared + sizes.confirmed) + sizes.dispositions,
        "keys and boxes": degree * sizes.keys + sizes.dealt + sizes.paths,
        "sum": widths.layout.dimension * 8,
    }
    up, down = sum(sent.values()), sum(received.values())
    cpu = (
        _vector_s(widths, constants)
        + constants["keystream_s_a_lane"] * widths.lanes * (degree + 1)
        + constants["pairwise_client_s_a_neighbour"] * degree
        + constants["pairwise_client_s_a_listed"] * n
        + constants["send_s_an_upload"]
        + constants["send_s_a_byte"] * (up + down)
    )
    sheet.group("a contributor")
    sheet.add(Unit.SECONDS, [("CPU", cpu)])
    sheet.add(Unit.BYTES, [("sends", up), *((f"  of which {name}", value) for name, value in sent.items())])
    sheet.add(Unit.BYTES, [("receives", down), *((f"  of which {name}", value) for name, value in received.items())])
    sheet.group("all contributors")
    total = cohorts * n
    sheet.add(Unit.SECONDS, [("CPU", total * cpu)])
    sheet.add(Unit.BYTES, [("send", total * up), ("receive", total * down)])


def _pairwise_coordinator(sheet: _Sheet, sizes: PairwiseSizes, shape: tuple[int, int], constants: Constants) -> None:
    (cohorts, silent), n, widths = shape, sizes.cohort, sizes.widths
    upload = constants["receive_s_an_upload"] + constants["receive_s_a_byte"] * widths.upload
    client = constants["pairwise_coordinator_s_a_client"]
    client += constants["pairwise_coordinator_s_a_pair"] * sizes.graph.degree
    opening = _unmasking_s(sizes, silent, constants)
    sheet.group("coordinator")
    sheet.add(Unit.SECONDS, [("CPU a client", upload + client), ("CPU to open a cohort", opening)])
    sheet.add(Unit.SECONDS, [("CPU", cohorts * (n * (upload + client) + opening))])
    sheet.add(Unit.BYTES, [("stores masked inputs", cohorts * n * widths.upload)])
    sheet.add(Unit.BYTES, [("stores boxes", cohorts * n * sizes.dealt)])
