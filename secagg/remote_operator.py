"""An operator's calls to the coordinator on its own machine, through the socket in the state directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio

from secagg.identity.channels import MAX_MESSAGE_BYTES
from secagg.protocol.phases import Phase
from secagg.remote import GrpcCoordinator, meaning_of
from secagg.runtime.participant import TransportError
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import convert


async def reach_operator(state_directory: Path, timeout_s: float) -> None:
    """Raise TransportError unless a coordinator serves in this state directory."""
    async with await _operator_channel(state_directory) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), timeout_s)
        except TimeoutError:
            raise TransportError("UNAVAILABLE") from None


async def at_operator(state_directory: Path, timeout_s: float) -> GrpcCoordinator:
    """What clients are shown, at the operator socket in a coordinator's state directory."""
    return GrpcCoordinator(await _operator_channel(state_directory), timeout_s)


async def open_session(state_directory: Path, request: pb.OpenSessionRequest, timeout_s: float) -> bytes:
    """Open a session through the operator socket in a coordinator's state directory; returns its identifier.

    Raises:
        TransportError: no coordinator serves there.
        RemoteProtocolError: it refuses.
    """
    async with await _operator_channel(state_directory) as channel:
        try:
            response = await pb_grpc.OperatorServiceStub(channel).OpenSession(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise meaning_of(error) from None
        return response.session


async def end_phase(state_directory: Path, session: bytes, phase: Phase, timeout_s: float) -> None:
    """End a session's current phase, if it is ``phase``, through the operator socket; errors as above."""
    request = pb.EndPhaseRequest(session=session, phase=convert.phase_to_pb(phase))
    async with await _operator_channel(state_directory) as channel:
        try:
            await pb_grpc.OperatorServiceStub(channel).EndPhase(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise meaning_of(error) from None


async def _operator_channel(state_directory: Path) -> grpc.aio.Channel:
    path = await asyncio.to_thread(state_directory.resolve)
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    return grpc.aio.insecure_channel(f"unix:{path / 'operator.sock'}", options)
