"""Checks of the published lists U1, U2 and the dispositions: the same for every client.

A client recomputes each list whole, so that an absence is proved and not asserted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secagg.derive.graph import MaskingGraph
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.published import (
    check_root,
    check_signature,
    check_statement_session,
    contributions_root,
    decode_disposition,
)
from secagg.transcript.entries import KeysAdvertised, KeysShared, SessionClose
from secagg.transcript.record import RecordError
from secagg.transcript.statements import (
    Absent,
    Accepted,
    AdvertiseStatement,
    ContributionHeader,
    Rejected,
    ShareStatement,
    Signed,
    decode_share_leaf,
)


def check_advertised(
    session: PairwiseSession, entry: KeysAdvertised, leaves: Sequence[bytes]
) -> tuple[AdvertiseStatement, ...]:
    """The statements of U1, in order of index.

    Rules: as many as the entry says, between ``min_contributors`` and ``max_contributors``; under the entry's
    root; strictly ascending identities, all in the roster; each signed by its identity for this session. Where the
    session follows another, nobody of that one's sum is missing: the set could not become whole any more.
    """
    check_root("keys-advertised", entry.root, leaves)
    if entry.count != len(leaves):
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "keys-advertised: count differs")
    if len(leaves) < session.parameters.min_contributors:
        raise RemoteProtocolError(RejectReason.BELOW_MINIMUM, f"{len(leaves)} advertised keys")
    if len(leaves) > session.parameters.encoding.max_contributors:
        raise RemoteProtocolError(RejectReason.COHORT_FULL, f"{len(leaves)} advertised keys")
    statements: list[AdvertiseStatement] = []
    for leaf in leaves:
        signed = _decode_signed(leaf)
        statement = signed.statement
        if not isinstance(statement, AdvertiseStatement):
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "keys-advertised: a leaf of another kind")
        if statements and statement.identity <= statements[-1].identity:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "keys-advertised: identities out of order")
        if statement.identity not in session.positions:
            raise RemoteProtocolError(RejectReason.OUTSIDE_ROSTER, statement.identity.hex())
        check_statement_session(statement, session)
        check_signature(signed, statement.identity)
        statements.append(statement)
    session.check_contributors(statement.identity for statement in statements)
    return tuple(statements)


def check_shared(
    session: PairwiseSession,
    entry: KeysShared,
    leaves: Sequence[bytes],
    members: Sequence[bytes],
    advertised: bytes,
) -> tuple[ShareStatement | None, ...]:
    """The statements of U2 by index of U1, None where absent.

    Rules: one leaf for each member under the entry's root; each present leaf signed by the member of its index
    over this U1; as many present as the entry says, at least ``min_contributors``, and all that have to be.
    """
    check_root("keys-shared", entry.root, leaves)
    if len(leaves) != len(members):
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "keys-shared: not one leaf for each member")
    statements: list[ShareStatement | None] = []
    for index, (leaf, identity) in enumerate(zip(leaves, members, strict=True)):
        statements.append(_shared_leaf(session, index, leaf, identity, advertised))
    present = sum(statement is not None for statement in statements)
    if present != entry.count:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "keys-shared: count differs")
    session.check_contributors(statement.identity for statement in statements if statement is not None)
    if present < session.parameters.min_contributors:
        raise RemoteProtocolError(RejectReason.BELOW_MINIMUM, f"{present} shared keys")
    return tuple(statements)


def _shared_leaf(
    session: PairwiseSession, index: int, data: bytes, identity: bytes, advertised: bytes
) -> ShareStatement | None:
    try:
        leaf = decode_share_leaf(data)
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"keys-shared: {error}") from None
    if isinstance(leaf, Absent):
        if leaf.index != index:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "keys-shared: absent leaf out of place")
        return None
    statement = leaf.statement
    if not isinstance(statement, ShareStatement) or statement.identity != identity:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"keys-shared: leaf {index} is not its member's")
    if statement.advertised != advertised:
        raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT, f"keys-shared: leaf {index}")
    check_statement_session(statement, session)
    check_signature(leaf, identity)
    return statement


def check_header(
    session: PairwiseSession, header: ContributionHeader, shared: bytes, index: int, neighbours: frozenset[int]
) -> None:
    """Raise RemoteProtocolError unless a header fits its place.

    ``neighbours`` are the graph neighbours of ``index`` in U2. What is missing must be among them.
    """
    check_statement_session(header, session)
    if header.shared != shared:
        raise RemoteProtocolError(RejectReason.WRONG_LOG_ROOT, f"contribution of index {index}")
    if header.lanes != session.field_layout.lanes:
        raise RemoteProtocolError(
            RejectReason.WRONG_LENGTH, f"{header.lanes} lanes, expected {session.field_layout.lanes}"
        )
    if not neighbours.issuperset(header.missing):
        raise RemoteProtocolError(RejectReason.WRONG_MISSING, f"contribution of index {index}")


def check_closed(
    session: PairwiseSession,
    entry: SessionClose,
    leaves: Sequence[bytes],
    members: Sequence[bytes],
) -> Mapping[int, Signed]:
    """The accepted headers by index, in ascending order; all clients in a process share them.

    Rules: one disposition for each member under the entry's root, each in its place; of each kind there are
    as many as the entry says; the accepted headers are at least ``min_contributors``, under the entry's
    contribution root, signed by their members, and by all who have to be in the sum. ``check_header`` checks them
    further, where the graph is known.
    """
    check_root("session-close", entry.dispositions, leaves)
    if len(leaves) != len(members):
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "session-close: not one leaf for each member")
    accepted: dict[int, Signed] = {}
    rejected = 0
    for index, (data, identity) in enumerate(zip(leaves, members, strict=True)):
        leaf = decode_disposition(data)
        if leaf.index != index:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "session-close: a leaf out of place")
        if isinstance(leaf, Accepted):
            statement = leaf.contribution.statement
            if not isinstance(statement, ContributionHeader) or statement.identity != identity:
                raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"session-close: leaf {index} is not its member's")
            check_signature(leaf.contribution, identity)
            accepted[index] = leaf.contribution
        rejected += isinstance(leaf, Rejected)
    counts = len(accepted), rejected, len(leaves) - len(accepted) - rejected
    if counts != (entry.count, entry.rejected, entry.dropped):
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "session-close: count differs")
    if contributions_root(accepted) != entry.contributions:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "session-close: contribution root differs")
    session.check_contributors(members[index] for index in accepted)
    if len(accepted) < session.parameters.min_contributors:
        raise RemoteProtocolError(RejectReason.BELOW_MINIMUM, f"{len(accepted)} contributions")
    return accepted


def asymmetric_edges(graph: MaskingGraph, headers: dict[int, ContributionHeader]) -> list[tuple[int, int]]:
    """Neighbours ``(u, v)`` among ``headers`` of which exactly one lists the other as missing."""
    edges = []
    for index, header in headers.items():
        for other in header.missing:
            if other in headers and index not in headers[other].missing and other in graph.neighbours(index):
                edges.append((index, other))
    return edges


def _decode_signed(leaf: bytes) -> Signed:
    try:
        return Signed.from_bytes(leaf)
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, str(error)) from None
