"""The service for operators, on a Unix socket in the coordinator's state directory."""

from __future__ import annotations

import asyncio

from secagg.identity.roster_file import verify_signed_roster
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.pairwise.coordinator_states import SetupRow
from secagg.protocol.session import Session
from secagg.runtime.adapters import check_layout
from secagg.runtime.registry import Registry
from secagg.services.logs import EventLog
from secagg.services.refusals import Context, refusing
from secagg.transcript.entries import SessionOpen
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import convert


class OperatorServicer(pb_grpc.OperatorServiceServicer):
    """Implements ``secagg.v1.OperatorService``."""

    def __init__(self, registry: Registry, log: EventLog, max_upload_bytes: int) -> None:
        self._registry = registry
        self._max_upload_bytes = max_upload_bytes
        self.log = log

    @refusing
    async def OpenSession(self, request: pb.OpenSessionRequest, context: Context) -> pb.OpenSessionResponse:
        """See the proto."""
        parameters = SessionOpen.from_bytes(request.parameters)
        ports = self._registry.ports
        if parameters.coordinator != ports.key.public_bytes:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "parameters: coordinator is another key")
        roster = verify_signed_roster(
            tuple(request.roster),
            request.roster_head,
            request.roster_signature,
            frozenset({parameters.registrar}),
        )
        session = Session(parameters, roster)
        if session.upload_bytes > self._max_upload_bytes:
            raise RemoteProtocolError(
                RejectReason.WRONG_LENGTH, f"uploads of {session.upload_bytes} bytes, limit {self._max_upload_bytes}"
            )
        check_layout(parameters, request.layout, request.adapter)
        blobs = (b"".join(leaf + b"\n" for leaf in request.roster), request.layout, request.adapter)
        digests = await asyncio.to_thread(lambda: [ports.blobs.put(blob) for blob in blobs])
        setup = SetupRow(digests[0], request.roster_head, request.roster_signature, digests[1], digests[2])
        await self._registry.open(session, setup)
        self.log.event("session_opened", session=parameters.session.hex())
        return pb.OpenSessionResponse(session=parameters.session)

    @refusing
    async def EndPhase(self, request: pb.EndPhaseRequest, context: Context) -> pb.EndPhaseResponse:
        """See the proto."""
        host = await self._registry.find(convert.session_from_pb(request))
        await host.end_phase(convert.phase_from_pb(request.phase))
        self.log.event("phase_ended", session=request.session.hex())
        return pb.EndPhaseResponse()
