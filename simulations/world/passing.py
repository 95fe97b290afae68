"""A client's port that passes everything on."""

from __future__ import annotations

from collections.abc import AsyncIterator

from secagg.protocol.messages import (
    AdvertisedList,
    ClientMessage,
    ClosedList,
    Confirmations,
    Contribution,
    SessionEnded,
    SharedList,
    SignedReceipt,
)
from secagg.protocol.one_shot.messages import CommitContribution, CommittedList, OneShotContribution
from secagg.runtime.participant import CoordinatorPort
from secagg.runtime.ports import BlobStore
from secagg.runtime.shown import Status


class PassingPort:
    """A ``CoordinatorPort`` that passes everything on; ports of clients that lie are built on it."""

    def __init__(self, port: CoordinatorPort) -> None:
        self._port = port

    def watch(self, session: bytes) -> AsyncIterator[Status]:
        """See ``CoordinatorPort.watch``."""
        return self._port.watch(session)

    async def send(self, session: bytes, message: ClientMessage | CommitContribution) -> None:
        """See ``CoordinatorPort.send``."""
        await self._port.send(session, message)

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """See ``CoordinatorPort.upload``."""
        return await self._port.upload(session, message, blobs)

    async def advertised_list(self, session: bytes, identity: bytes) -> AdvertisedList:
        """See ``CoordinatorPort.advertised_list``."""
        return await self._port.advertised_list(session, identity)

    async def shared_list(self, session: bytes, identity: bytes) -> SharedList:
        """See ``CoordinatorPort.shared_list``."""
        return await self._port.shared_list(session, identity)

    async def committed_list(self, session: bytes) -> CommittedList:
        """See ``CoordinatorPort.committed_list``."""
        return await self._port.committed_list(session)

    async def closed_list(self, session: bytes) -> ClosedList:
        """See ``CoordinatorPort.closed_list``."""
        return await self._port.closed_list(session)

    async def confirmations(self, session: bytes, identity: bytes) -> Confirmations:
        """See ``CoordinatorPort.confirmations``."""
        return await self._port.confirmations(session, identity)

    async def outcome(self, session: bytes) -> SessionEnded:
        """See ``CoordinatorPort.outcome``."""
        return await self._port.outcome(session)
