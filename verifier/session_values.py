"""What several checks need of a session, read once: its lists, its graph, its adapters.

Each ``Derived`` reads a file or computes a value and hands it out only if it is right; its owner is the check that
fails otherwise. Nothing is held that does not belong to this session.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from secagg.derive.graph import GraphParameterError, MaskingGraph, graph_seed, masking_graph
from secagg.derive.opening import ClosedCohort
from secagg.derive.threshold import GraphParameters, graph_parameters, quorum
from secagg.lora.errors import AdapterError
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.transcript import canonical
from secagg.transcript.merkle import Frontier, leaf_hash
from secagg.transcript.record import RecordError
from secagg.transcript.statements import (
    Absent,
    Accepted,
    AdvertiseStatement,
    ContributionHeader,
    Disposition,
    Dropped,
    ShareStatement,
    Signed,
    decode_disposition,
    decode_share_leaf,
)
from verifier.checks import CheckFailedError, Derived, Place
from verifier.session_record import SessionRecord

ROSTER = "roster.jsonl"
LAYOUT_FILE = "layout.json"
ADAPTER_FILE = "adapter.json"
KEYS = "keys.jsonl"
U2 = "u2.jsonl"
DISPOSITIONS = "dispositions.jsonl"
CONTRIBUTIONS = "contributions.jsonl"

MAX_STATEMENT_BYTES = 4096
"""A signed statement of the first two phases; they have no lists."""
MAX_HEADER_BYTES = 1 << 18
"""A signed header with as many missing neighbours as it may name, in its disposition."""
MAX_DESCRIPTION_BYTES = 1 << 26
"""A layout or a template."""


def _fail(place: Place, reason: str) -> NoReturn:
    raise CheckFailedError.at(place, reason)


# What the entries say of each other


@dataclass(frozen=True, slots=True)
class Counts:
    """How many took part in what, as the entries say; each number is possible beside the others."""

    advertised: int
    quorum: int


def _counts(session: SessionRecord) -> Counts:
    """Rules: every set holds the minimum, is no larger than the one before it, and U3 has a quorum of U1."""
    least = session.parameters.min_contributors
    before = session.parameters.encoding.max_contributors
    enough = quorum(session.advertised.count, session.parameters.max_corrupt)
    entries = session.entries
    for entry in (entries.advertised, entries.shared, entries.close):
        if entry is None:
            break
        place = session.entry_place(entry.TYPE, "count")
        if entry.count < least:
            _fail(place, f"{entry.count}, below min_contributors {least}")
        if entry.count > before:
            _fail(place, f"{entry.count}, more than the {before} there can be")
        before = entry.count
    if entries.close is not None and entries.close.count < enough:
        # Only contributors confirm a close, and honest clients answer one that a quorum of the cohort confirmed.
        _fail(session.entry_place("session-close", "count"), f"{entries.close.count}, no quorum of {enough}")
    if entries.result is not None and entries.result.count != before:
        place = session.entry_place("session-result", "count")
        _fail(place, f"{entries.result.count}, the close entry has {before}")
    answered = entries.close.count if entries.close is not None else 0
    if entries.abort is not None and entries.abort.answers > answered:
        _fail(session.entry_place("session-abort", "answers"), f"{entries.abort.answers} of {answered}")
    return Counts(session.advertised.count, enough)


COUNTS = Derived("SES-4", _counts)
"""Needs ADVERTISED."""


def _graph_parameters(session: SessionRecord) -> GraphParameters:
    cohort = session.get(COUNTS)
    parameters = session.parameters
    staying = cohort.advertised - math.floor(parameters.expected_dropout * cohort.advertised)
    if staying < cohort.quorum:
        place = session.entry_place("session-open", "expected_dropout")
        _fail(place, f"{staying} of {cohort.advertised} clients stay, {cohort.quorum} have to confirm")
    try:
        return graph_parameters(
            cohort.advertised, parameters.max_corrupt, parameters.min_contributors, parameters.expected_dropout
        )
    except GraphParameterError as error:
        _fail(session.entry_place("session-open", error.field), f"no safe degree and threshold: {error.reason}")


GRAPH_PARAMETERS = Derived("SES-3", _graph_parameters)
"""Degree and threshold. Needs ADVERTISED."""


def _graph(session: SessionRecord) -> MaskingGraph:
    parameters = session.get(GRAPH_PARAMETERS)
    seed = graph_seed(session.digest, session.advertised.root)
    return masking_graph(seed, session.advertised.count, parameters.degree)


GRAPH = Derived("SES-3", _graph)
"""Who masks with whom, by index in U1. Needs ADVERTISED."""


# U1 and U2


def signed_lines(session: SessionRecord, file: str, most_bytes: int, most_lines: int) -> Iterator[tuple[Place, bytes]]:
    """Place and content of each line of a list.

    Raises:
        CheckFailedError: there are more lines than ``most_lines``, or a line breaks the rules of all lists.
    """
    for number, line in session.files.lines(file, most_bytes):
        place = session.files.place(file, number)
        if number > most_lines:
            _fail(place, f"more than {most_lines} lines")
        yield place, line


def check_list(place: Place, tree: Frontier, size: int, root: bytes) -> None:
    """Raise CheckFailedError unless a list that was read has as many lines and the root that the log says."""
    if tree.size != size:
        _fail(place, f"{tree.size} lines, expected {size}")
    if tree.root != root:
        _fail(place, "another root than the one in the log")


@dataclass(frozen=True, slots=True)
class Advertised:
    """U1: the signed statements by index, and what they state."""

    signed: tuple[Signed, ...]
    statements: tuple[AdvertiseStatement, ...]


def _advertised(session: SessionRecord) -> Advertised:
    """Rules: as many lines as logged, under the logged root, identities ascending (equal ones are for ELG-2)."""
    # A cohort that has a graph is small enough to be held.
    session.get(GRAPH_PARAMETERS)
    entry, tree = session.advertised, Frontier()
    signed: list[Signed] = []
    statements: list[AdvertiseStatement] = []
    for place, line in signed_lines(session, KEYS, MAX_STATEMENT_BYTES, entry.count):
        leaf = _signed(place, line)
        if not isinstance(leaf.statement, AdvertiseStatement):
            _fail(place, f"a statement of type {leaf.statement.TYPE}")
        if statements and leaf.statement.identity < statements[-1].identity:
            _fail(place, "identities not in ascending order")
        signed.append(leaf)
        statements.append(leaf.statement)
        tree.append(leaf_hash(line))
    check_list(session.files.place(KEYS), tree, entry.count, entry.root)
    return Advertised(tuple(signed), tuple(statements))


def _signed(place: Place, line: bytes) -> Signed:
    try:
        return Signed.from_bytes(line)
    except RecordError as error:
        _fail(place, str(error))


ADVERTISED = Derived("SES-4", _advertised)
"""U1. Needs ADVERTISED."""


@dataclass(frozen=True, slots=True)
class Shared:
    """U2 by index of U1: signed statements, and what they state; None who is absent."""

    signed: tuple[Signed | None, ...]
    statements: tuple[ShareStatement | None, ...]

    @property
    def present(self) -> frozenset[int]:
        """The indices of those who shared keys."""
        return frozenset(index for index, statement in enumerate(self.statements) if statement is not None)


def _shared(session: SessionRecord) -> Shared:
    """Rules: a leaf for each index of U1, its member's or absent; as many present as logged; under the logged root."""
    members, entry, tree = session.get(ADVERTISED).statements, session.shared, Frontier()
    signed: list[Signed | None] = []
    for place, line in signed_lines(session, U2, MAX_STATEMENT_BYTES, len(members)):
        signed.append(_share_leaf(place, line, members[tree.size].identity, tree.size))
        tree.append(leaf_hash(line))
    check_list(session.files.place(U2), tree, len(members), entry.root)
    statements = tuple(_share_statement(leaf) for leaf in signed)
    present = sum(statement is not None for statement in statements)
    if present != entry.count:
        _fail(session.entry_place("keys-shared", "count"), f"{entry.count}, in {U2} {present} are present")
    return Shared(tuple(signed), statements)


def _share_leaf(place: Place, line: bytes, identity: bytes, index: int) -> Signed | None:
    try:
        leaf = decode_share_leaf(line)
    except RecordError as error:
        _fail(place, str(error))
    if isinstance(leaf, Absent):
        if leaf.index != index:
            _fail(place, f"absent: index {leaf.index}, expected {index}")
        return None
    if not isinstance(leaf.statement, ShareStatement):
        _fail(place, f"a statement of type {leaf.statement.TYPE}")
    if leaf.statement.identity != identity:
        _fail(place, f"not the identity of index {index}")
    return leaf


def _share_statement(leaf: Signed | None) -> ShareStatement | None:
    return leaf.statement if leaf is not None and isinstance(leaf.statement, ShareStatement) else None


SHARED = Derived("SES-4", _shared)
"""U2. Needs SHARED."""


# U3


@dataclass(frozen=True, slots=True)
class Closed:
    """U3, in set order: indices in U1, ascending; signed headers; and what those state."""

    indices: tuple[int, ...]
    signed: tuple[Signed, ...]
    headers: tuple[ContributionHeader, ...]


def _closed(session: SessionRecord) -> Closed:
    """Rules: one disposition for each index, in place; of who is dropped, the phase that U2 shows; counts and roots.

    The accepted ones are the lines of the contributions, byte for byte.
    """
    members, present = session.get(ADVERTISED).statements, session.get(SHARED).present
    entry, tree = session.close, Frontier()
    counts = {"count": 0, "rejected": 0, "dropped": 0}
    indices: list[int] = []
    accepted: list[Signed] = []
    for place, line in signed_lines(session, DISPOSITIONS, MAX_HEADER_BYTES, len(members)):
        index = tree.size
        leaf = _disposition(place, line, index)
        if isinstance(leaf, Accepted):
            if leaf.contribution.statement.identity != members[index].identity:
                _fail(place, f"not the identity of index {index}")
            indices.append(index)
            accepted.append(leaf.contribution)
            counts["count"] += 1
        elif isinstance(leaf, Dropped):
            if leaf.phase != ("masked-input" if index in present else "share-keys"):
                _fail(place, f"dropped in {leaf.phase}, U2 shows otherwise")
            counts["dropped"] += 1
        else:
            if index not in present:
                _fail(place, "rejected, but did not share keys")
            counts["rejected"] += 1
        tree.append(leaf_hash(line))
    check_list(session.files.place(DISPOSITIONS), tree, len(members), entry.dispositions)
    for field, found in counts.items():
        if getattr(entry, field) != found:
            _fail(session.entry_place("session-close", field), f"{getattr(entry, field)}, dispositions have {found}")
    _check_contributions(session, accepted)
    headers = [leaf.statement for leaf in accepted if isinstance(leaf.statement, ContributionHeader)]
    return Closed(tuple(indices), tuple(accepted), tuple(headers))


def _disposition(place: Place, line: bytes, index: int) -> Disposition:
    try:
        leaf = decode_disposition(line)
    except RecordError as error:
        _fail(place, str(error))
    if leaf.index != index:
        _fail(place, f"index {leaf.index}, expected {index}")
    if isinstance(leaf, Accepted) and not isinstance(leaf.contribution.statement, ContributionHeader):
        _fail(place, f"a statement of type {leaf.contribution.statement.TYPE}")
    return leaf


def _check_contributions(session: SessionRecord, accepted: list[Signed]) -> None:
    tree = Frontier()
    for place, line in signed_lines(session, CONTRIBUTIONS, MAX_HEADER_BYTES, len(accepted)):
        if line != accepted[tree.size].to_bytes():
            _fail(place, "not the accepted contribution of the same place")
        tree.append(leaf_hash(line))
    check_list(session.files.place(CONTRIBUTIONS), tree, len(accepted), session.close.contributions)


CLOSED = Derived("CON-3", _closed)
"""U3. Needs CLOSED."""


def _contributors(session: SessionRecord) -> Closed:
    closed, present = session.get(CLOSED), session.get(SHARED).present
    for index in closed.indices:
        if index not in present:
            _fail(session.files.place(DISPOSITIONS, index + 1), "accepted, but did not share keys")
    return closed


CONTRIBUTORS = Derived("SES-4", _contributors)
"""U3, all of it in U2. Needs CLOSED."""


def _closed_cohort(session: SessionRecord) -> ClosedCohort:
    """Rules: nobody misses others than neighbours in U2, everybody masked with ``threshold`` of them, no half edges."""
    closed, shared = session.get(CONTRIBUTORS), session.get(SHARED)
    graph, threshold = session.get(GRAPH), session.get(GRAPH_PARAMETERS).threshold
    missing = {index: frozenset(header.missing) for index, header in zip(closed.indices, closed.headers, strict=True)}
    for number, (index, left_out) in enumerate(missing.items(), start=1):
        place = session.files.place(CONTRIBUTIONS, number, "statement.missing")
        neighbours = shared.present.intersection(graph.neighbours(index))
        if not left_out <= neighbours:
            _fail(place, f"{min(left_out - neighbours)} is no neighbour that shared keys")
        if len(neighbours) - len(left_out) < threshold:
            _fail(place, f"masked with {len(neighbours) - len(left_out)}, the threshold is {threshold}")
        for other in sorted(left_out & missing.keys()):
            if index not in missing[other]:
                _fail(place, f"{other} is missing for {index}, but not the other way round")
    advertised = session.get(ADVERTISED).statements
    return ClosedCohort(
        session.digest,
        session.advertised.root,
        graph,
        threshold,
        tuple(statement.mask_key for statement in advertised),
        shared.statements,
        missing,
    )


CLOSED_COHORT = Derived("CON-4", _closed_cohort)
"""What an opening has to follow. Needs CLOSED."""


# What the sum is about


@dataclass(frozen=True, slots=True)
class Adapters:
    """The tensors of the vector and what all adapters have in common."""

    layout: Layout
    template: AdapterTemplate


def _adapters(session: SessionRecord) -> Adapters:
    """Rules: canonical, of the digests in the open entry; layout, encoding and template fit each other."""
    parameters = session.parameters
    layout_place, template_place = session.files.place(LAYOUT_FILE), session.files.place(ADAPTER_FILE)
    layout_data = session.files.read(LAYOUT_FILE, MAX_DESCRIPTION_BYTES)
    template_data = session.files.read(ADAPTER_FILE, MAX_DESCRIPTION_BYTES)
    for place, data, expected in (
        (layout_place, layout_data, parameters.layout),
        (template_place, template_data, parameters.adapter),
    ):
        if hashlib.sha256(data).digest() != expected:
            _fail(place, "another digest than the open entry's")
    place = layout_place
    try:
        layout = Layout.from_json_value(canonical.decode(layout_data))
        place = template_place
        template = AdapterTemplate.from_json_value(canonical.decode(template_data))
        template.check_tensors(dict(layout.tensors))
    except (canonical.CanonicalError, AdapterError) as error:
        _fail(place, str(error))
    if template.base_model != parameters.base_model:
        _fail(template_place, "for another base model than the open entry's")
    if layout.dimension != parameters.encoding.dimension:
        _fail(layout_place, f"{layout.dimension} coordinates, the encoding has {parameters.encoding.dimension}")
    return Adapters(layout, template)


ADAPTERS = Derived("SES-7", _adapters)
"""Layout and template. Needs OPENED."""
