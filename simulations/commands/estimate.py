"""``python -m simulations estimate``: what sessions of any size cost, and from which assumptions."""

from __future__ import annotations

import argparse
import json
import re
import string
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from dp import cli_values
from secagg.derive.graph import MAX_COHORT, MIN_COHORT
from secagg.transcript.record import RecordError
from simulations.estimates.constants import MEANINGS, Constants, ConstantsError, load
from simulations.estimates.estimate import (
    MOST_CONTRIBUTORS,
    MOST_DIMENSION,
    Column,
    Figure,
    Protocol,
    Question,
    Unit,
    estimate,
    most_in_a_cell,
    most_in_a_message,
)
from simulations.estimates.sizes import committee_of, widest_value_bits

USAGE = 2

_DESCRIPTION = """\
Extrapolate what sessions cost: CPU, bytes, storage, the work of committee members and verifiers. Lengths come from the
program's own functions, times from constants that were measured on one machine (python -m benchmarks.constants).
One column for each number of contributors. What is assumed is printed below the table."""

_EPILOG = """\
examples:
  python -m simulations estimate --contributors 1000,10^6,2^28,2^33 --dimension 10^6
  python -m simulations estimate --contributors 2^33 --dimension 10^6 --cohort 100000 --protocol one-shot"""

_WIDTH = 118
_PREFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi", "Ri")
_SMALL = (("ms", 1e3), ("us", 1e6), ("ns", 1e9))
_HOUR_S, _YEAR_S = 3600.0, 365.25 * 24 * 3600
_NUMBER = re.compile(r"(\d{1,12})(?:\^(\d{1,3}))?")


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``estimate``."""
    parser = commands.add_parser(
        "estimate",
        help="what sessions of up to 2^33 contributors cost, from measured constants",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several = _listed(_whole(3, MOST_CONTRIBUTORS))
    parser.add_argument("--contributors", type=several, required=True, metavar="N,..", help="as 1000,10^6,2^33")
    parser.add_argument(
        "--dimension", type=_whole(1, MOST_DIMENSION), required=True, metavar="D", help="parameters of a contribution"
    )
    parser.add_argument(
        "--protocol", type=_protocols, default=list(Protocol), metavar="P,..", help="one-shot, pairwise (default: both)"
    )
    parser.add_argument(
        "--cohort",
        type=_whole(MIN_COHORT, MOST_CONTRIBUTORS),
        metavar="N",
        help="most contributors of one session (default: as many as one opening takes)",
    )
    parser.add_argument("--committee", type=_whole(2, 16), default=7, metavar="M", help="members (default: 7)")
    parser.add_argument("--needed", type=_whole(2, 16), default=5, metavar="R", help="members that open (default: 5)")
    parser.add_argument(
        "--value-bits", type=_whole(2, 32), metavar="B", help="of a coordinate (default: what fits, up to 16)"
    )
    parser.add_argument(
        "--dropout", type=_fraction, default=Fraction(1, 10), metavar="P", help="pairwise: who falls silent (1/10)"
    )
    parser.add_argument(
        "--corrupt", type=_fraction, default=Fraction(1, 10), metavar="F", help="pairwise: who may be corrupt (1/10)"
    )
    parser.add_argument("--constants", type=Path, metavar="FILE", help="of python -m benchmarks.constants")
    parser.add_argument("--json", metavar="OUT", help="write all figures to a file; - for standard output, alone")
    parser.set_defaults(run=_run)


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number, also as a power: 2^33."""

    def number(text: str) -> int:
        found = _NUMBER.fullmatch(text.strip().replace("_", ""))
        if found is None:
            raise argparse.ArgumentTypeError(f"expected a whole number or a power as 2^33, got {text!r}")
        base, exponent = found.groups(default="1")
        value: int = int(base) ** int(exponent)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {least:,} to {most:,}, got {text}")
        return value

    return number


def _listed(number: Callable[[str], int]) -> Callable[[str], list[int]]:
    return lambda text: [number(part) for part in text.split(",")]


def _protocols(text: str) -> list[Protocol]:
    try:
        return list(dict.fromkeys(Protocol(part.strip()) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {' or '.join(Protocol)}, got {text!r}") from None


def _fraction(text: str) -> Fraction:
    value = cli_values.number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return value


def _run(options: argparse.Namespace) -> int:
    try:
        constants = load(options.constants)
    except ConstantsError as error:
        return _refused("--constants", error)
    try:
        committee = committee_of(options.committee, options.needed)
    except RecordError as error:
        return _refused("--needed", error)
    question = Question(
        options.dimension, committee, options.cohort, options.value_bits, options.dropout, options.corrupt
    )
    columns = [
        estimate(question, protocol, contributors, constants)
        for protocol in options.protocol
        for contributors in options.contributors
    ]
    failed = [column for column in columns if column.why_not and options.value_bits]
    if len(failed) == len(columns) and failed:
        return _refused("--value-bits", failed[0].why_not)
    document = json.dumps(_document(question, columns, constants), indent=2) + "\n"
    if options.json == "-":
        sys.stdout.write(document)
        return 0
    if options.json is not None:
        try:
            Path(options.json).write_text(document, encoding="utf-8")
        except OSError as error:
            return _refused("--json", f"{options.json}: {error.strerror}")
    sys.stdout.write("\n".join(report(question, columns, constants)) + "\n")
    return 0


def _refused(option: str, why: object) -> int:
    sys.stderr.write(f"python -m simulations estimate: error: argument {option}: {why}\n")
    return USAGE


# For people.


def shown_bytes(value: float) -> str:
    """With a binary prefix and three digits."""
    place = 0
    while value >= 999.5 and place < len(_PREFIXES) - 1:
        value, place = value / 1024, place + 1
    return f"{value:.3g} {_PREFIXES[place]}B" if place else f"{value:.0f} B"


def shown_seconds(value: float) -> str:
    """CPU time of one core: in milliseconds, seconds, core-hours, and from a year on in core-years."""
    if value < 1:
        unit, by = next((unit, by) for unit, by in _SMALL if value * by >= 1 or unit == "ns")
        return f"{value * by:.3g} {unit}"
    if value < _HOUR_S / 4:
        return f"{value:.3g} s"
    return f"{_digits(value / _HOUR_S)} core-h" if value < _YEAR_S else f"{_digits(value / _YEAR_S)} core-years"


def _digits(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value >= 1000:
        scale = 10 ** (len(str(int(value))) - 3)
        return f"{round(value / scale) * scale:,}"
    return f"{value:.3g}"


def shown(figure: Figure) -> str:
    """A figure with its unit."""
    value = figure.value
    if isinstance(value, str):
        return value
    match figure.unit:
        case Unit.BYTES:
            return shown_bytes(value)
        case Unit.SECONDS:
            return shown_seconds(value)
        case Unit.BITS:
            return f"{value} bit"
        case _:
            return f"{value:,}"


def shown_contributors(count: int) -> str:
    """A head of a column: powers of two and ten as such."""
    if count >= 1 << 16 and count & (count - 1) == 0:
        return f"2^{count.bit_length() - 1}"
    if count >= 10**5 and str(count).strip("0") == "1":
        return f"10^{len(str(count)) - 1}"
    return f"{count:,}"


def report(question: Question, columns: Sequence[Column], constants: Constants) -> Iterator[str]:
    """The lines that people read: a table for each protocol, limits, assumptions."""
    for protocol in dict.fromkeys(column.protocol for column in columns):
        mine = [column for column in columns if column.protocol is protocol]
        name = f"{protocol}, {question.dimension:,} parameters"
        if protocol is Protocol.ONE_SHOT:
            name += f", {question.committee.needed} of {len(question.committee.members)} members open"
        else:
            name += f", {question.corrupt} may be corrupt, {question.dropout} fall silent"
        yield from _table(name, mine)
        yield ""
    yield "limits"
    for letter, text in zip(string.ascii_uppercase, limits(question, constants), strict=False):
        yield from _wrapped(f"  {letter}. ", text)
    yield ""
    yield "assumptions"
    for number, text in enumerate(assumptions(question, constants), 1):
        yield from _wrapped(f"{number:3}. ", text)


def _table(name: str, columns: Sequence[Column]) -> Iterator[str]:
    rows = [["contributors", *(shown_contributors(column.contributors) for column in columns)]]
    feasible = [column for column in columns if column.figures]
    group = ""
    for index, first in enumerate(feasible[0].figures if feasible else ()):
        if first.group != group:
            group = first.group
            rows.append([group])
        rows.append([f"  {first.name}", *(shown(each.figures[index]) if each.figures else "-" for each in columns)])
    rows.append(["runs as built", *map(_as_built, columns)])
    widths = [max(len(row[place]) for row in rows if len(row) > place) for place in range(len(columns) + 1)]
    yield name
    yield "-" * max(len(name), sum(widths) + 2 * len(columns))
    for row in rows:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False))
        yield "  ".join([row[0].ljust(widths[0]), *numbers]).rstrip()
    for reason in dict.fromkeys(column.why_not for column in columns if column.why_not):
        who = ", ".join(shown_contributors(column.contributors) for column in columns if column.why_not == reason)
        yield from _wrapped("", f"{who}: not feasible: {reason}")


def _as_built(column: Column) -> str:
    if column.why_not:
        return "-"
    return "no: " + ", ".join(column.beyond) if column.beyond else "yes"


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=label, subsequent_indent=" " * len(label))


def limits(question: Question, constants: Constants) -> Iterator[str]:
    """What bounds sessions, a text each; the first two are those that ``Column.beyond`` names A and B."""
    message, cell = shown_bytes(constants["message_limit_bytes"]), shown_bytes(constants["cell_limit_bytes"])
    roster, most = most_in_a_message(constants), question.committee.max_contributors
    fits, cohorts = roster // 1000 * 1000, MOST_CONTRIBUTORS // most
    opening, everybody = shown_contributors(most), shown_contributors(MOST_CONTRIBUTORS)
    yield (
        "Every contributor gets the whole roster of its session, pairwise every list too, each in one message of "
        f"at most {message}: a roster of about {roster:,}. Beyond, the figures are what the protocol costs, not "
        f"what this program does; --cohort {fits} or less runs as built. What all receive grows as contributors "
        "times cohort."
    )
    yield (
        f"The closed set stands in the session's state, one cell of the store, of at most {cell}: about "
        f"{most_in_a_cell(constants):,} contributions."
    )
    yield (
        f"The field of the shares bounds one opening at {opening} contributions: {everybody} are {cohorts} cohorts "
        "or more, whose published sums are added by whoever wants the sum of all. Sums of cohorts show more than "
        "the sum of all does."
    )
    few, many = (widest_value_bits(count, question.dimension, 32) for count in (most, MOST_CONTRIBUTORS))
    yield (
        "A field has the bits of a coordinate and log2 of the contributors, and has to fit what the lattice error "
        f"leaves of a lane: coordinates of up to {few} bits at {opening}, and of {many} at {everybody} if one "
        "opening took them."
    )
    yield (
        "One limb sum holds as many contributions as keep the linear hash collision-resistant; beyond, a cohort "
        "publishes several, 32 bytes a lane each."
    )
    yield (
        f"A pairwise session takes {MAX_COHORT:,} clients. Each talks five times, checks lists of all the others "
        "and deals to its neighbours, so its own work grows with the cohort; a one-shot contributor's does not, "
        "but for the roster."
    )


def assumptions(question: Question, constants: Constants) -> Iterator[str]:
    """What stands behind the figures, a text each; the last are the constants."""
    yield (
        f"Times: {constants.command}, {constants.date}, {constants.machine}. CPU seconds, user and system, of one "
        "core; another machine has others, and the same one, with other work on it, others by a third. Waiting, "
        "disks and networks are not counted: nothing here is a duration."
    )
    yield (
        "Each time is taken to be linear in what its constant names: contributions, boxes, lanes, coordinates, "
        "bytes. It was measured with tens to hundreds of contributions and up to 10^6 coordinates. What is done "
        "once a session whatever its size, as starting processes, is left out. What grows as n log n, as sorting "
        "does, is counted as n; what no longer fits the memory of one machine is counted as if it did."
    )
    yield "Everybody contributes, nobody is rejected, nothing is sent twice; a cohort's roster is its contributors."
    yield (
        "Cohorts are equal, their size rounded up. Each has a roster of its own. One coordinator and the same "
        "members serve all. Stored bytes are those of all cohorts together, though each can be deleted after its "
        "result."
    )
    yield (
        "Lengths come from the program's own records and functions: fields, ring mask, boxes, headers, lists, "
        "rows. Left out: layout, template and names of the adapter, which depend on the model (kilobytes a "
        "session); checkpoints and proofs of the log (some hundred bytes a call); TLS, HTTP/2, retries; what "
        "SQLite and file systems add."
    )
    yield "Coordinates have 16 bits, or what fits (--value-bits). Noise would need room that is not counted."
    yield (
        "The coordinator's time for an upload is that of gRPC over TLS, boxes handed on to a committee of 7 "
        "included; it is taken for other committees too. Serving rosters and lists is not in it, nor members' gRPC "
        "in theirs."
    )
    yield "Members with seeds and members with whole shares have other boxes: both are listed, each serves everybody."
    yield (
        "The verifier's time for a contribution was measured at level sum on one-shot records, and is taken for "
        "pairwise ones too. One verifier checks all cohorts."
    )
    yield (
        f"Pairwise: degree and threshold as sessions compute them, for {question.corrupt} corrupt and "
        f"{question.dropout} silent. Who falls silent does so after sharing keys and costs keystreams at the end; "
        "bytes and records are counted as if all came."
    )
    yield (
        "Pairwise times are a fit to sessions of 8 and 32 clients in one process without a network, and an "
        "upload's over TLS: expect a factor of two."
    )
    for name, meaning in MEANINGS.items():
        value = constants[name]
        text = shown_seconds(value) if "_s_" in name else shown_bytes(value)
        yield f"{text}: {meaning} ({name})"


# For programs.


def _document(question: Question, columns: Sequence[Column], constants: Constants) -> dict[str, Any]:
    return {
        "dimension": question.dimension,
        "committee": {"members": len(question.committee.members), "needed": question.committee.needed},
        "columns": [
            {
                "protocol": column.protocol.value,
                "contributors": column.contributors,
                "runs_as_built": not column.beyond and not column.why_not,
                "not_feasible": column.why_not,
                "beyond": list(column.beyond),
                "figures": [
                    {"group": each.group, "name": each.name.strip(), "unit": each.unit.value, "value": each.value}
                    for each in column.figures
                ],
            }
            for column in columns
        ],
        "limits": list(limits(question, constants)),
        "assumptions": list(assumptions(question, constants)),
        "constants": json.loads(constants.to_json()),
    }
