"""The service for ingest processes, on a Unix socket in the coordinator's state directory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.runtime.registry import Registry
from secagg.services.ingest_processes import Attachment, IngestProcesses
from secagg.services.logs import EventLog
from secagg.services.refusals import Context, refusing
from secagg.services.uploads import UploadDesk
from secagg.v1 import ingest_pb2 as pb
from secagg.v1 import ingest_pb2_grpc as pb_grpc
from secagg.wire import convert

INGEST_SOCKET = "ingest.sock"


class IngestServicer(pb_grpc.IngestServiceServicer):
    """Implements ``secagg.v1.IngestService``."""

    def __init__(self, registry: Registry, desk: UploadDesk, processes: IngestProcesses, log: EventLog) -> None:
        self._registry = registry
        self._desk = desk
        self._processes = processes
        self.log = log

    async def Attach(self, request: pb.AttachRequest, context: Context) -> AsyncIterator[pb.AttachResponse]:
        """See the proto."""
        open_tokens = self._desk.open_tokens(self._registry.hosts())
        attachment = self._processes.attach(request.place, request.port)
        self.log.event("ingest_attached", port=request.port)
        try:
            mine = self._processes.of_place(request.place, open_tokens)
            yield pb.AttachResponse(open_uploads=pb.AttachResponse.OpenUploads(tokens=mine))
            while True:
                yield await attachment.orders.get()
        finally:
            self._processes.detach(attachment)
            for host in self._registry.hosts():
                host.take_back(attachment)
            self.log.event("ingest_detached", port=request.port)

    @refusing
    async def DescribeUpload(self, request: pb.DescribeUploadRequest, context: Context) -> pb.DescribeUploadResponse:
        """See the proto."""
        upload = self._desk.find(request.token)
        host, header = upload.host, upload.header
        session, lanes = host.session.parameters.session, host.session.upload_lanes
        if host.is_staged(header.identity):
            return pb.DescribeUploadResponse(session=session, lanes=lanes, counted=True)
        offer = host.offer_of(header.identity)
        return pb.DescribeUploadResponse(
            session=session,
            lanes=lanes,
            upload=offer.item.upload,
            linear_hash=offer.item.linear_hash,
            index=offer.index,
            most=offer.most,
        )

    @refusing
    async def CountUpload(self, request: pb.CountUploadRequest, context: Context) -> pb.CountUploadResponse:
        """See the proto."""
        receipt, adds = await self._desk.count(request.token, self._attachment(request.place))
        return pb.CountUploadResponse(receipt=convert.receipt_to_pb(receipt), adds=adds)

    @refusing
    async def HandOver(self, request: pb.HandOverRequest, context: Context) -> pb.HandOverResponse:
        """See the proto."""
        self._attachment(request.place).handed_over(request.session)
        return pb.HandOverResponse()

    def _attachment(self, place: int) -> Attachment:
        attachment = self._processes.attached(place)
        if attachment is None:
            raise RemoteProtocolError(RejectReason.UNKNOWN_UPLOAD, "place: attach first")
        return attachment
