"""Taking part in a session that follows another: what a contributor checks before it sends anything.

The sums of two sessions over different people would show what those sent who are in one only. So in ``two-session``
everybody is in both sums, with the same adapter; in ``pilot-basis`` nobody is. Nothing of this is believed because the
coordinator says it: the first session's log and list are fetched and recomputed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from secagg.lora.adapter import Adapter
from secagg.lora.errors import AdapterError
from secagg.lora.fixed import BASIS_FILE, most_fixed_bytes
from secagg.lora.update_merging import UpdateMerging
from secagg.lora.updates import updates_of
from secagg.participation import StateKeeper
from secagg.protocol import log, published
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.second import (
    FirstSession,
    attempt_of,
    check_follows,
    first_merge,
    second_merge,
)
from secagg.remote import GrpcCoordinator
from secagg.runtime.participant import FIRST_DELAY_S, LONGEST_DELAY_S, TransportError
from secagg.runtime.ports import StaleStoreError
from secagg.session_details import SessionAbortedError, SessionDetails
from secagg.store.contributed import digest_of
from secagg.transcript.entries import OneShotOpen
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merge import MAX_ATTEMPTS, Merge, ProjectionMerge, RangeMerge, fixed_digest, second_session
from secagg.transcript.policy import LogPolicy


class Source(Protocol):
    """Where sessions are read: the coordinator's own client."""

    @property
    def port(self) -> GrpcCoordinator:
        """The connection."""
        ...

    @property
    def log_policy(self) -> LogPolicy:
        """Whose checkpoints count."""
        ...

    async def details(self, session: bytes) -> SessionDetails:
        """What the coordinator published of a session, checked."""
        ...


@dataclass(frozen=True, slots=True)
class Followed:
    """The first session of a second one: what it ended with, and the log that says so."""

    first: FirstSession
    evidence: LogEvidence


async def followed(source: Source, details: SessionDetails, identity: bytes) -> Followed | None:
    """The first session that a session follows, if ``identity`` may take part; None if it follows none.

    Raises:
        RemoteProtocolError: as ``check_follows``: OTHER_CONTRIBUTORS, MALFORMED_MESSAGE; or what the coordinator shows
            of the first session does not fit together.
        LocalProtocolError: NOT_ADMITTED; ``identity`` had to be in the first sum, or must not be. LOG_UNWITNESSED.
    """
    parameters = details.session.parameters
    merge = second_merge(parameters)
    if merge is None:
        return None
    follows = await ended_first(source, await source.details(merge.first))
    first = follows.first
    check_follows(parameters, first)
    if isinstance(merge, ProjectionMerge):
        if identity not in first.contributors:
            raise LocalProtocolError(RejectReason.NOT_ADMITTED, "not in the sum of the first session")
        if isinstance(first.parameters, OneShotOpen) and source.log_policy.is_met_by(()):
            # Its contributors left before the close: in a fork the first sum could seem to be over others.
            raise LocalProtocolError(
                RejectReason.LOG_UNWITNESSED,
                "the log policy asks for no witness; after a one-shot session it has to",
            )
    elif identity in first.contributors:
        raise LocalProtocolError(RejectReason.NOT_ADMITTED, "in the sum of the pilots already")
    return follows


async def ended_first(source: Source, before: SessionDetails) -> Followed:
    """A first session that has ended, and the log that says so.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE, it has no sum; or what the coordinator shows does not fit together.
    """
    closed = await source.port.closed_list(before.session.parameters.session)
    view = log.extend(before.view, before.session.parameters, source.log_policy, closed.evidence)
    return Followed(_first_session(before, view, closed.leaves), closed.evidence)


def _first_session(before: SessionDetails, view: LogView, leaves: tuple[bytes, ...]) -> FirstSession:
    if view.close is None or view.result is None:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "merge.first: the session has no sum")
    accepted = published.published_contributions(view.close, leaves)
    identities = frozenset(signed.statement.identity for signed in accepted)
    return FirstSession(before.session.parameters, identities, view.result.digest_of(BASIS_FILE))


async def check_own(source: Source, keeper: StateKeeper, details: SessionDetails, follows: Followed) -> None:
    """Do nothing if a second session fits what this identity knows itself of the first, and of other attempts.

    Raises:
        RemoteProtocolError: LOG_FORKED; the first session, or an attempt, went on otherwise than this identity saw.
        LocalProtocolError: WRONG_PHASE; it took part in another attempt, which has not ended without a sum, or for
            ``pilot-basis`` was closed.
        StaleStoreError: its store knows nothing of the first session, whose sum it is in.
    """
    parameters, first = details.session.parameters, follows.first.parameters
    if isinstance(parameters.merge, ProjectionMerge):
        seen = await keeper.view_of(first.session)
        if seen is None:
            raise StaleStoreError("the store of sessions knows nothing of the first session, whose sum this is in")
        log.extend(seen, first, source.log_policy, follows.evidence)
    known = set(await keeper.sealed.sessions())
    own = attempt_of(parameters.session, first.session)
    for attempt in range(MAX_ATTEMPTS):
        session = second_session(first.session, attempt)
        if attempt != own and session in known:
            view = (await source.details(session)).view
            _check_continues(await keeper.view_of(session), view)
            _check_failed(parameters.merge, view, session)


def _check_continues(seen: LogView | None, view: LogView) -> None:
    """An attempt that was seen closed is not shown as one that never was."""
    if seen is not None and (view.start, view.segment[: len(seen.segment)]) != (seen.start, seen.segment):
        raise RemoteProtocolError(RejectReason.LOG_FORKED, "another attempt went on otherwise than this identity saw")


def _check_failed(merge: Merge, view: LogView, session: bytes) -> None:
    """Another attempt that this identity joined shows nothing beside this one.

    All attempts of ``two-session`` are over the same people: sums of two show no more than one. Those of
    ``pilot-basis`` are not, and a sum that was closed may have been opened behind an abort.
    """
    may_show = not isinstance(merge, ProjectionMerge) and view.close is not None
    if view.abort is None or may_show:
        raise LocalProtocolError(
            RejectReason.WRONG_PHASE, f"session {session.hex()}, another attempt, may have a sum, or get one"
        )


async def check_adapter(keeper: StateKeeper, details: SessionDetails, adapter: Adapter) -> None:
    """Remember what is contributed to a first session, and refuse to contribute anything else to the second.

    Of ``two-session`` only: who is in one sum of ``pilot-basis`` is not in the other.

    Raises:
        LocalProtocolError: OTHER_ADAPTER; the difference of the two sums would show how this one changed.
        StaleStoreError: what was contributed to the first session is not known any more.
        StoreError: the disk refuses.
    """
    merge, merging = details.session.parameters.merge, details.merging
    if not isinstance(merging, UpdateMerging) or not isinstance(merge, RangeMerge | ProjectionMerge):
        return
    session = merge.first if isinstance(merge, ProjectionMerge) else details.session.parameters.session
    digest = await asyncio.to_thread(lambda: digest_of(_parts(adapter, merging)))
    before = await asyncio.to_thread(keeper.contributed.of, session)
    is_begun = isinstance(merge, ProjectionMerge) or await keeper.sealed.load(session) is not None
    if is_begun and before is None:
        raise StaleStoreError("what was contributed to the first session is not known any more")
    if is_begun and before != digest:
        raise LocalProtocolError(RejectReason.OTHER_ADAPTER)
    if before != digest:
        await asyncio.to_thread(keeper.contributed.keep, session, digest)


def _parts(adapter: Adapter, merging: UpdateMerging) -> Iterator[bytes]:
    """The updates as bytes, whatever files they came from."""
    for module, update in updates_of(adapter, merging.manifest):
        yield module.path.encode("utf-8")
        yield from (b"", b"") if update is None else (update.left.tobytes(), update.right.tobytes())


async def with_fixed(port: GrpcCoordinator, details: SessionDetails) -> SessionDetails:
    """The same with the session's fixed tensors, if its merge needs any: fetched once, and checked.

    Raises:
        RemoteProtocolError: LOG_MISMATCH; they are not those that the open entry names.
    """
    parameters, merging = details.session.parameters, details.merging
    if not isinstance(merging, UpdateMerging) or not fixed_digest(parameters.merge) or merging.maps.fixed:
        return details
    data = await port.fixed_tensors(parameters.session, most_fixed_bytes(merging.merge, merging.manifest))
    try:
        return dataclasses.replace(details, merging=await asyncio.to_thread(merging.with_fixed, data))
    except AdapterError as error:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"fixed tensors: {error}") from None


async def second_session_of(source: Source, first: SessionDetails) -> SessionDetails:
    """Wait until the session that follows ``first`` is open: the first attempt that has not failed.

    Raises:
        ValueError: no session follows one with such a merge.
        SessionAbortedError: the last attempt that there can be has failed.
        RemoteProtocolError: as ``details``.
    """
    parameters = first.session.parameters
    if first_merge(parameters) is None:
        raise ValueError(f"no session follows one whose merge is {parameters.merge.TYPE}")
    delay_s, attempt = FIRST_DELAY_S, 0
    while True:
        details = await _if_open(source, second_session(parameters.session, attempt))
        if details is None:
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        elif details.view.abort is None:
            return details
        elif attempt + 1 < MAX_ATTEMPTS:
            attempt += 1
        else:
            raise SessionAbortedError(details.view.abort.reason)


async def _if_open(source: Source, session: bytes) -> SessionDetails | None:
    try:
        return await source.details(session)
    except TransportError:
        return None
    except RemoteProtocolError as error:
        if error.reason not in {RejectReason.UNKNOWN_SESSION, RejectReason.WRONG_PHASE}:
            raise
        return None
