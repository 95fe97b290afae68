"""Delivering an attestation to a coordinator."""

from __future__ import annotations

import grpc
import grpc.aio

from secagg.identity.channels import open_channel
from secagg.identity.tls import ClientTls
from secagg.protocol.one_shot.messages import Attested
from secagg.runtime.participant import TransportError
from secagg.transcript.statements import Signed
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import one_shot
from secagg.wire.status import from_rpc_error


async def attest(address: str, tls: ClientTls, session: bytes, signed: Signed, timeout_s: float) -> None:
    """Hand a signed attestation to the coordinator at ``address``; the same one again changes nothing.

    Raises:
        TransportError: it does not answer.
        RemoteProtocolError: it refuses.
    """
    channel = await open_channel(address, tls, timeout_s)
    try:
        request = one_shot.attestation_to_pb(session, Attested(signed))
        await pb_grpc.AggregationServiceStub(channel).Attest(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        found = from_rpc_error(error)
        raise (TransportError(error.code().name) if found is None else found) from None
    finally:
        await channel.close()
