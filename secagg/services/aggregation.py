"""The service that clients call: decode, hand to the session's host, encode the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.phases import Phase
from secagg.runtime.hosts import one_shot, pairwise
from secagg.runtime.ports import BlobStore, StoreError
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import AnyHost
from secagg.runtime.shown import Status
from secagg.services.logs import EventLog
from secagg.services.refusals import REFUSALS, Context, refuse, refusing
from secagg.services.turnstile import Turnstile
from secagg.services.upload_calls import UploadServicer
from secagg.services.uploads import MAX_CHUNK_BYTES, UploadDesk, preferred_chunk_bytes
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import convert
from secagg.wire import one_shot as wire_one_shot

_PIECE_BYTES = 1 << 20
_PAGE_SESSIONS = 100
_LARGE_ANSWERS = 32
_LARGE_ANSWER_S = 2.0
_PROGRESS_INTERVAL_S = 0.5
"""Watchers hear of phases at once and of counts at most this often: n watchers of n messages are n^2 otherwise."""

_PROGRESS_PER_S = 400
"""Counts that go to all watchers together: for 1000 watchers, without it, a tenth of the coordinator's CPU."""


class AggregationServicer(UploadServicer, pb_grpc.AggregationServiceServicer):
    """Implements ``secagg.v1.AggregationService``."""

    def __init__(self, registry: Registry, uploads: UploadDesk, log: EventLog, max_watchers: int) -> None:
        super().__init__(uploads, log)
        self._registry = registry
        self._blobs: BlobStore = registry.ports.blobs
        self._uploads = uploads
        self._max_watchers = max_watchers
        self._watchers = 0
        self._closing = asyncio.Event()
        self._large_answers = Turnstile(_LARGE_ANSWERS, _LARGE_ANSWER_S)

    def end_watches(self) -> None:
        """Let every watch stream end; clients come back to whoever serves next."""
        self._closing.set()

    async def _host(self, request: convert.HasSession) -> AnyHost:
        return await self._registry.find(convert.session_from_pb(request))

    @refusing
    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """See the proto."""
        host = await self._host(request)
        await self._large_answers.enter(context)
        setup, consistency = host.setup(), host.consistency(request.log_size)
        roster, layout, adapter, encryption = await asyncio.to_thread(
            lambda: [
                self._blobs.get(digest) if digest else b""
                for digest in (setup.roster, setup.layout, setup.adapter, setup.context)
            ]
        )
        return pb.GetSessionResponse(
            evidence=convert.log_evidence_to_pb(host.evidence()),
            roster=roster.splitlines(),
            roster_head=setup.roster_head,
            roster_signature=setup.roster_signature,
            layout=layout,
            adapter=adapter,
            consistency=consistency,
            context=encryption,
        )

    @refusing
    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """See the proto."""
        keys = await self._registry.keys()
        start = _page_start(request.page_token, len(keys))
        stop = start + min(request.page_size or _PAGE_SESSIONS, _PAGE_SESSIONS)
        items = []
        for key in keys[start:stop]:
            phase = (await self._registry.find(key)).status().phase
            items.append(pb.ListSessionsResponse.Item(session=key, phase=convert.phase_to_pb(phase)))
        return pb.ListSessionsResponse(sessions=items, next_page_token=str(stop) if stop < len(keys) else "")

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Context
    ) -> AsyncIterator[pb.WatchSessionResponse]:
        """See the proto."""
        if self._watchers >= self._max_watchers:
            await refuse(self, "WatchSession", RemoteProtocolError(RejectReason.TOO_MANY_WATCHERS), context)
        self._watchers += 1
        try:
            host = await self._host(request)
            async for status in self._statuses(host):
                yield _status_to_pb(status)
        except (ProtocolError, StoreError) as error:
            await refuse(self, "WatchSession", error, context)
        finally:
            self._watchers -= 1

    async def _statuses(self, host: AnyHost) -> AsyncIterator[Status]:
        closing: asyncio.Future[Any] = asyncio.ensure_future(self._closing.wait())
        try:
            last: Status | None = None
            while not self._closing.is_set():
                moved_on, status = host.moved_on, host.status()
                if status != last:
                    yield status
                if status.phase in {Phase.FINISHED, Phase.ABORTED}:
                    return
                last = status
                interval_s = max(_PROGRESS_INTERVAL_S, self._watchers / _PROGRESS_PER_S)
                await asyncio.wait({closing, moved_on}, timeout=interval_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()

    @refusing
    async def AdvertiseKeys(self, request: pb.AdvertiseKeysRequest, context: Context) -> pb.AdvertiseKeysResponse:
        """See the proto."""
        await pairwise(await self._host(request)).submit(convert.advertise_keys_from_pb(request))
        return pb.AdvertiseKeysResponse()

    @refusing
    async def GetAdvertisedKeys(
        self, request: pb.GetAdvertisedKeysRequest, context: Context
    ) -> pb.GetAdvertisedKeysResponse:
        """See the proto."""
        host = pairwise(await self._host(request))
        await self._large_answers.enter(context)
        return convert.advertised_list_to_pb(host.advertised_list(convert.identity_from_pb(request)))

    @refusing
    async def ShareKeys(self, request: pb.ShareKeysRequest, context: Context) -> pb.ShareKeysResponse:
        """See the proto."""
        await pairwise(await self._host(request)).share_keys(convert.share_keys_from_pb(request))
        return pb.ShareKeysResponse()

    @refusing
    async def GetSharedKeys(self, request: pb.GetSharedKeysRequest, context: Context) -> pb.GetSharedKeysResponse:
        """See the proto."""
        host = pairwise(await self._host(request))
        await self._large_answers.enter(context)
        return convert.shared_list_to_pb(await host.shared_list(convert.identity_from_pb(request)))

    @refusing
    async def CommitContribution(
        self, request: pb.CommitContributionRequest, context: Context
    ) -> pb.CommitContributionResponse:
        """See the proto."""
        host = one_shot(await self._host(request))
        await host.submit(wire_one_shot.commit_contribution_from_pb(request))
        return pb.CommitContributionResponse()

    @refusing
    async def GetCommitted(self, request: pb.GetCommittedRequest, context: Context) -> pb.GetCommittedResponse:
        """See the proto."""
        host = one_shot(await self._host(request))
        await self._large_answers.enter(context)
        return wire_one_shot.committed_list_to_pb(host.committed_list())

    @refusing
    async def Attest(self, request: pb.AttestRequest, context: Context) -> pb.AttestResponse:
        """See the proto."""
        host = one_shot(await self._host(request))
        await host.submit(wire_one_shot.attestation_from_pb(request))
        return pb.AttestResponse()

    @refusing
    async def StartUpload(self, request: pb.StartUploadRequest, context: Context) -> pb.StartUploadResponse:
        """See the proto."""
        host = await self._host(request)
        token, committed, receipt = await self._uploads.begin(host, convert.contribution_from_pb(request))
        route = self._uploads.route(token) if receipt is None else None
        return pb.StartUploadResponse(
            token=token,
            committed_bytes=committed,
            preferred_chunk_bytes=preferred_chunk_bytes(self._uploads.under_way()),
            max_chunk_bytes=MAX_CHUNK_BYTES,
            receipt=None if receipt is None else convert.receipt_to_pb(receipt),
            ingest_port=route.port if route else 0,
            ingest_committed_bytes=route.committed_bytes if route else 0,
        )

    @refusing
    async def GetClose(self, request: pb.GetCloseRequest, context: Context) -> pb.GetCloseResponse:
        """See the proto."""
        host = await self._host(request)
        await self._large_answers.enter(context)
        return convert.closed_list_to_pb(host.closed_list())

    @refusing
    async def ConfirmClose(self, request: pb.ConfirmCloseRequest, context: Context) -> pb.ConfirmCloseResponse:
        """See the proto."""
        await pairwise(await self._host(request)).submit(convert.confirm_close_from_pb(request))
        return pb.ConfirmCloseResponse()

    @refusing
    async def GetConfirmations(
        self, request: pb.GetConfirmationsRequest, context: Context
    ) -> pb.GetConfirmationsResponse:
        """See the proto."""
        host = pairwise(await self._host(request))
        await self._large_answers.enter(context)
        return convert.confirmations_to_pb(host.confirmations(convert.identity_from_pb(request)))

    @refusing
    async def Unmask(self, request: pb.UnmaskRequest, context: Context) -> pb.UnmaskResponse:
        """See the proto."""
        await pairwise(await self._host(request)).submit(convert.unmask_answer_from_pb(request))
        return pb.UnmaskResponse()

    @refusing
    async def GetOutcome(self, request: pb.GetOutcomeRequest, context: Context) -> pb.GetOutcomeResponse:
        """See the proto."""
        return convert.session_ended_to_pb((await self._host(request)).outcome())

    async def GetSum(self, request: pb.GetSumRequest, context: Context) -> AsyncIterator[pb.GetSumResponse]:
        """See the proto."""
        try:
            host = await self._host(request)
            await self._large_answers.enter(context)
            async for piece in self._pieces(host.integer_sum(), request.offset_bytes, host.sum_bytes):
                yield pb.GetSumResponse(data=piece)
        except REFUSALS as error:
            await refuse(self, "GetSum", error, context)

    async def GetFixedTensors(
        self, request: pb.GetFixedTensorsRequest, context: Context
    ) -> AsyncIterator[pb.GetFixedTensorsResponse]:
        """See the proto."""
        try:
            host = await self._host(request)
            await self._large_answers.enter(context)
            digest = host.fixed_tensors()
            end = await asyncio.to_thread(self._blobs.length_bytes, digest)
            async for piece in self._pieces(digest, request.offset_bytes, end):
                yield pb.GetFixedTensorsResponse(data=piece)
        except REFUSALS as error:
            await refuse(self, "GetFixedTensors", error, context)

    async def _pieces(self, digest: bytes, start: int, end: int) -> AsyncIterator[bytes]:
        if start > end:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "offset_bytes: beyond the end")
        for offset in range(start, end, _PIECE_BYTES):
            yield await asyncio.to_thread(self._blobs.read, digest, offset, min(_PIECE_BYTES, end - offset))


def _status_to_pb(status: Status) -> pb.WatchSessionResponse:
    return pb.WatchSessionResponse(
        phase=convert.phase_to_pb(status.phase),
        deadline_s=status.deadline_s,
        received=status.received,
        expected=status.expected,
        log_size=status.log_size,
    )


def _page_start(token: str, count: int) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) <= count):
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "page_token: not one of ours")
    return int(token)
