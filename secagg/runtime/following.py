"""Opening a session that follows another on the same coordinator: what it is opened with comes from the first one.

The operator's request says neither the bases nor who may take part; the coordinator has both.
"""

from __future__ import annotations

from dataclasses import dataclass

from secagg.lora.fixed import BASIS_FILE
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.phases import Phase
from secagg.protocol.published import decode_disposition
from secagg.protocol.rows import LogRow, RowKind, find, log_size
from secagg.protocol.second import FirstSession, attempt_of, check_follows, second_merge
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import AnyHost
from secagg.transcript.entries import SessionOpen, SessionResult, decode_entry
from secagg.transcript.merge import ProjectionMerge, second_session
from secagg.transcript.statements import Accepted


@dataclass(frozen=True, slots=True)
class Following:
    """What a second session is opened with.

    Attributes:
        fixed: SHA-256 name of the blob of the bases.
        contributors: the identities that alone may take part, where the merge says that; otherwise None.
    """

    fixed: bytes
    contributors: frozenset[bytes] | None


async def following(registry: Registry, parameters: SessionOpen) -> Following | None:
    """What a session with these parameters follows; None if it follows none.

    Raises:
        RemoteProtocolError: as ``check_follows``; MALFORMED_MESSAGE also if the first session is not known here or has
            no sum, or an earlier attempt has one or may still get one.
        StoreError: a session cannot be read.
    """
    merge = second_merge(parameters)
    if merge is None:
        return None
    host = await _known(registry, merge.first, "merge.first")
    first = first_session(host)
    check_follows(parameters, first)
    for earlier in range(attempt_of(parameters.session, merge.first)):
        # One after the other: contributors look for the first that did not end without a sum.
        other = await _known(registry, second_session(merge.first, earlier), "session")
        if other.status().phase is not Phase.ABORTED:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"session: attempt {earlier} has not failed")
    only = first.contributors if isinstance(merge, ProjectionMerge) else None
    return Following(merge.fixed, only)


def first_session(host: AnyHost) -> FirstSession:
    """A session that ended, as another can follow it.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE; it has not ended with a sum.
    """
    row = find(host.rows, log_size(host.rows) - 1, RowKind.LOG, LogRow)
    result = None if row is None else decode_entry(row.entry)
    if not isinstance(result, SessionResult):
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "merge.first: the session has no sum")
    leaves = map(decode_disposition, host.closed_list().leaves)
    identities = (leaf.contribution.statement.identity for leaf in leaves if isinstance(leaf, Accepted))
    return FirstSession(host.session.parameters, frozenset(identities), result.digest_of(BASIS_FILE))


async def _known(registry: Registry, session: bytes, name: str) -> AnyHost:
    try:
        return await registry.find(session)
    except RemoteProtocolError as error:
        if error.reason is not RejectReason.UNKNOWN_SESSION:
            raise
        raise RemoteProtocolError(
            RejectReason.MALFORMED_MESSAGE, f"{name}: no session {session.hex()} on this coordinator"
        ) from None
