"""What several checks need of a pairwise session, read once: its sets and its graph.

Each ``Derived`` reads a file or computes a value and hands it out only if it is right; its owner is the check that
fails otherwise. Nothing is held that does not belong to this session.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from secagg.derive.graph import GraphParameterError, MaskingGraph, graph_seed, masking_graph
from secagg.derive.opening import ClosedCohort
from secagg.derive.threshold import GraphParameters, graph_parameters, quorum
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
    decode_share_leaf,
)
from verifier.checks import Derived, Place
from verifier.session_lists import (
    CONTRIBUTIONS,
    DISPOSITIONS,
    KEYS,
    MAX_HEADER_BYTES,
    MAX_STATEMENT_BYTES,
    U2,
    Closed,
    check_contributions,
    check_counts,
    check_list,
    disposition_leaf,
    fail_at,
    signed_lines,
    statements_by_identity,
)
from verifier.session_record import SessionRecord

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
            fail_at(place, f"{entry.count}, below min_contributors {least}")
        if entry.count > before:
            fail_at(place, f"{entry.count}, more than the {before} there can be")
        before = entry.count
    if entries.close is not None and entries.close.count < enough:
        # Only contributors confirm a close, and honest clients answer one that a quorum of the cohort confirmed.
        fail_at(session.entry_place("session-close", "count"), f"{entries.close.count}, no quorum of {enough}")
    if entries.result is not None and entries.result.count != before:
        place = session.entry_place("session-result", "count")
        fail_at(place, f"{entries.result.count}, the close entry has {before}")
    answered = entries.close.count if entries.close is not None else 0
    if entries.abort is not None and entries.abort.answers > answered:
        fail_at(session.entry_place("session-abort", "answers"), f"{entries.abort.answers} of {answered}")
    return Counts(session.advertised.count, enough)


COUNTS = Derived("SES-4", _counts)
"""Needs ADVERTISED."""


def _graph_parameters(session: SessionRecord) -> GraphParameters:
    cohort = session.get(COUNTS)
    parameters = session.pairwise
    staying = cohort.advertised - math.floor(parameters.expected_dropout * cohort.advertised)
    if staying < cohort.quorum:
        place = session.entry_place("session-open", "expected_dropout")
        fail_at(place, f"{staying} of {cohort.advertised} clients stay, {cohort.quorum} have to confirm")
    try:
        return graph_parameters(
            cohort.advertised, parameters.max_corrupt, parameters.min_contributors, parameters.expected_dropout
        )
    except GraphParameterError as error:
        fail_at(session.entry_place("session-open", error.field), f"no safe degree and threshold: {error.reason}")


GRAPH_PARAMETERS = Derived("SES-3", _graph_parameters)
"""Degree and threshold. Needs ADVERTISED."""


def _graph(session: SessionRecord) -> MaskingGraph:
    parameters = session.get(GRAPH_PARAMETERS)
    seed = graph_seed(session.digest, session.advertised.root)
    return masking_graph(seed, session.advertised.count, parameters.degree)


GRAPH = Derived("SES-3", _graph)
"""Who masks with whom, by index in U1. Needs ADVERTISED."""


# U1 and U2


@dataclass(frozen=True, slots=True)
class Advertised:
    """U1: the signed statements by index, and what they state."""

    signed: tuple[Signed, ...]
    statements: tuple[AdvertiseStatement, ...]


def _advertised(session: SessionRecord) -> Advertised:
    """Rules: those of ``statements_by_identity``."""
    # A cohort that has a graph is small enough to be held.
    session.get(GRAPH_PARAMETERS)
    return Advertised(
        *statements_by_identity(session, KEYS, MAX_STATEMENT_BYTES, session.advertised, AdvertiseStatement)
    )


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
        fail_at(session.entry_place("keys-shared", "count"), f"{entry.count}, in {U2} {present} are present")
    return Shared(tuple(signed), statements)


def _share_leaf(place: Place, line: bytes, identity: bytes, index: int) -> Signed | None:
    try:
        leaf = decode_share_leaf(line)
    except RecordError as error:
        fail_at(place, str(error))
    if isinstance(leaf, Absent):
        if leaf.index != index:
            fail_at(place, f"absent: index {leaf.index}, expected {index}")
        return None
    if not isinstance(leaf.statement, ShareStatement):
        fail_at(place, f"a statement of type {leaf.statement.TYPE}")
    if leaf.statement.identity != identity:
        fail_at(place, f"not the identity of index {index}")
    return leaf


def _share_statement(leaf: Signed | None) -> ShareStatement | None:
    return leaf.statement if leaf is not None and isinstance(leaf.statement, ShareStatement) else None


SHARED = Derived("SES-4", _shared)
"""U2. Needs SHARED."""


# U3


def _closed(session: SessionRecord) -> Closed[ContributionHeader]:
    """Rules: one disposition for each index, in place; of who is dropped, the phase that U2 shows; counts and roots.

    The accepted ones are the lines of the contributions, byte for byte.
    """
    members, present = session.get(ADVERTISED).statements, session.get(SHARED).present
    tree, found = Frontier(), Counter[type[Disposition]]()
    indices: list[int] = []
    accepted: list[Signed] = []
    for place, line in signed_lines(session, DISPOSITIONS, MAX_HEADER_BYTES, len(members)):
        index = tree.size
        leaf = disposition_leaf(place, line, ContributionHeader)
        if leaf.index != index:
            fail_at(place, f"index {leaf.index}, expected {index}")
        if isinstance(leaf, Accepted):
            if leaf.contribution.statement.identity != members[index].identity:
                fail_at(place, f"not the identity of index {index}")
            indices.append(index)
            accepted.append(leaf.contribution)
        elif isinstance(leaf, Dropped):
            if leaf.phase != ("masked-input" if index in present else "share-keys"):
                fail_at(place, f"dropped in {leaf.phase}, U2 shows otherwise")
        elif index not in present:
            fail_at(place, "rejected, but did not share keys")
        found[type(leaf)] += 1
        tree.append(leaf_hash(line))
    check_list(session.files.place(DISPOSITIONS), tree, len(members), session.close.dispositions)
    check_counts(session, found)
    check_contributions(session, accepted)
    headers = [leaf.statement for leaf in accepted if isinstance(leaf.statement, ContributionHeader)]
    return Closed(tuple(indices), tuple(accepted), tuple(headers))


CLOSED: Derived[SessionRecord, Closed[ContributionHeader]] = Derived("CON-3", _closed)
"""U3. Needs CLOSED."""


def _contributors(session: SessionRecord) -> Closed[ContributionHeader]:
    closed, present = session.get(CLOSED), session.get(SHARED).present
    for index in closed.indices:
        if index not in present:
            fail_at(session.files.place(DISPOSITIONS, index + 1), "accepted, but did not share keys")
    return closed


CONTRIBUTORS: Derived[SessionRecord, Closed[ContributionHeader]] = Derived("SES-4", _contributors)
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
            fail_at(place, f"{min(left_out - neighbours)} is no neighbour that shared keys")
        if len(neighbours) - len(left_out) < threshold:
            fail_at(place, f"masked with {len(neighbours) - len(left_out)}, the threshold is {threshold}")
        for other in sorted(left_out & missing.keys()):
            if index not in missing[other]:
                fail_at(place, f"{other} is missing for {index}, but not the other way round")
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
