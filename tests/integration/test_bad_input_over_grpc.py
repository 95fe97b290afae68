"""Bad input over gRPC with TLS: each refused with its status and reason, and nobody else notices.

The clients are the real machines, moved by hand phase by phase, so that anything can be sent in between. Every
refusal is checked to have changed nothing that is stored, and every session goes on to the exact sum.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import safetensors.numpy
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secagg.arith.linear_hash import HASH_BYTES
from secagg.client import Coordinator, connect
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.protocol.errors import RejectReason
from secagg.protocol.messages import ClientMessage, Contribution, ShareKeys
from secagg.protocol.pairwise.client import ClientContext
from secagg.protocol.pairwise.client_states import Aborted
from secagg.protocol.phases import Phase
from secagg.protocol.session import ClientPolicy
from secagg.remote_operator import end_phase, open_session
from secagg.runtime.memory import MemoryBlobStore
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StoreError
from secagg.services import uploads
from secagg.transcript.statements import (
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    Rejected,
    RootShare,
    SelfMaskShare,
    ShareStatement,
    Signed,
    UnmaskStatement,
    decode_disposition,
)
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import convert
from tests.support.cohort import Client, key_of, one_hot
from tests.support.coordinator_process import SHAPES, UNIT, one_hot_adapter, one_hot_session
from tests.support.published import NO_WITNESSES
from tests.support.rng import CountingRng
from tests.support.service import RunningService, serving
from tests.support.stage import signed_by

SIZE = 5
Code = grpc.StatusCode
Reason = RejectReason
WIDE = {name: (2, 6000) if "lora_A" in name else (6000, 2) for name in SHAPES}
"""24,000 parameters: an upload of 96 kB."""


@dataclass
class Stage:
    """A served session, its clients, and the raw calls to it. Roster position ``SIZE`` belongs to a late comer."""

    service: RunningService
    coordinator: Coordinator
    stub: Any
    channel: grpc.aio.Channel
    host: PairwiseHost
    clients: list[Client]

    @property
    def session(self) -> bytes:
        return self.host.session.parameters.session

    @property
    def digest(self) -> bytes:
        return self.host.session.digest

    async def refused(self, call: Awaitable[object], code: Code, reason: RejectReason) -> dict[str, str]:
        """The metadata of a refusal, which must be this one and must have changed nothing."""
        before = self.host.driver.version, dict(self.host.rows), blob_names(self.service.state)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        info = error_info(caught.value)
        assert (caught.value.code(), info.reason) == (code, reason.name), caught.value.details()
        assert (self.host.driver.version, dict(self.host.rows), blob_names(self.service.state)) == before
        return dict(info.metadata)

    async def send(self, message: ClientMessage) -> None:
        await call_for(self.stub, self.session, message)

    async def reach(self, phase: Phase) -> None:
        async with asyncio.timeout(30):
            while self.host.status().phase is not phase:
                await self.host.driver.wait_for_change(self.host.driver.version)

    async def advertised(self) -> None:
        """Everybody but the late comer advertises; the operator ends the phase."""
        for one in self.clients:
            await self.send(pop(one))
        await end_phase(self.service.state, self.session, Phase.ADVERTISE_KEYS, 10.0)
        await self.reach(Phase.SHARE_KEYS)
        for one in self.clients:
            one.feed(await self.coordinator.port.advertised_list(self.session, one.identity))

    async def shared(self) -> None:
        for one in self.clients:
            await self.send(pop(one))
        await self.reach(Phase.MASKED_INPUT)
        for one in self.clients:
            one.feed(await self.coordinator.port.shared_list(self.session, one.identity))

    async def upload(self, one: Client) -> None:
        message = pop(one)
        assert isinstance(message, Contribution)
        one.feed(await self.coordinator.port.upload(self.session, message, holding(one.upload)))

    async def uploaded(self) -> None:
        for one in self.clients:
            if one.outbox:
                await self.upload(one)
        await self.reach(Phase.CONSISTENCY_CHECK)
        for one in self.clients:
            one.feed(await self.coordinator.port.closed_list(self.session))

    async def confirmed(self) -> None:
        for one in self.clients:
            await self.send(pop(one))
        await self.reach(Phase.UNMASK)
        for one in self.clients:
            one.feed(await self.coordinator.port.confirmations(self.session, one.identity))

    async def answered(self) -> None:
        for one in self.clients:
            if one.outbox:
                await self.send(pop(one))
        await self.reach(Phase.FINISHED)

    async def finish(self) -> None:
        """Go on from here to the end; the sum is exact, for everybody."""
        steps = {
            Phase.ADVERTISE_KEYS: self.advertised,
            Phase.SHARE_KEYS: self.shared,
            Phase.MASKED_INPUT: self.uploaded,
            Phase.CONSISTENCY_CHECK: self.confirmed,
            Phase.UNMASK: self.answered,
        }
        while (phase := self.host.status().phase) in steps:
            await steps[phase]()
        result = await self.coordinator.result(self.session)
        expected = np.zeros(self.host.session.field_layout.dimension, dtype=np.int64)
        expected[:SIZE] = UNIT
        assert result.contributors == SIZE
        assert np.array_equal(result.integer_sum, expected)


def pop(one: Client) -> Any:
    (message,) = one.outbox
    one.outbox.clear()
    return message


def peek(one: Client) -> Any:
    (message,) = one.outbox
    return message


def holding(data: bytes) -> MemoryBlobStore:
    blobs = MemoryBlobStore()
    blobs.put(data)
    return blobs


def call_for(stub: Any, session: bytes, message: ClientMessage) -> Awaitable[object]:
    method, request = request_for(session, message)
    return getattr(stub, method)(request, timeout=10.0)


def request_for(session: bytes, message: ClientMessage) -> tuple[str, Any]:
    encoders: dict[str, tuple[str, Callable[[bytes, Any], Any]]] = {
        "AdvertiseKeys": ("AdvertiseKeys", convert.advertise_keys_to_pb),
        "ShareKeys": ("ShareKeys", convert.share_keys_to_pb),
        "Contribution": ("StartUpload", convert.contribution_to_pb),
        "ConfirmClose": ("ConfirmClose", convert.confirm_close_to_pb),
        "UnmaskAnswer": ("Unmask", convert.unmask_answer_to_pb),
    }
    method, encode = encoders[type(message).__name__]
    return method, encode(session, message)


def error_info(error: grpc.aio.AioRpcError) -> Any:
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            (detail,) = status_pb2.Status.FromString(value).details
            assert detail.Unpack(info)
            assert info.domain == "secagg.v1"
    return info


def blob_names(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "blobs" / "blobs").rglob("*") if path.is_file())


@asynccontextmanager
async def on_stage(tmp_path: Path, shapes: Any = SHAPES) -> AsyncIterator[Stage]:
    """A new session at a new coordinator; its clients have their keys ready."""
    identities = [key_of(f"client {number}") for number in range(SIZE + 1)]
    async with serving(tmp_path / "coordinator") as service:
        parameters, request = one_hot_session(identities, shapes)
        assert await open_session(service.state, request, 10.0) == parameters.session
        async with attending(service, parameters.session, identities) as stage:
            for one in stage.clients:
                one.start((await stage.coordinator.details(parameters.session)).view)
            yield stage


@asynccontextmanager
async def attending(
    service: RunningService, session: bytes, identities: Sequence[Any], clients: list[Client] | None = None
) -> AsyncIterator[Stage]:
    """Connections to a coordinator that serves a session."""
    credentials = grpc.ssl_channel_credentials(service.tls.pem)
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.max_send_message_length", 64 << 20)]
    async with (
        await connect(service.address, service.key, service.tls) as coordinator,
        grpc.aio.secure_channel(service.address, credentials, options) as channel,
    ):
        details = await coordinator.details(session)
        dimension = details.merging.layout.dimension
        host = await service.registry.find(session)
        clients = clients or [
            Client(
                ClientContext(identity, details.session, ClientPolicy(), NO_WITNESSES),
                CountingRng(b"client %d" % number),
                one_hot(dimension, number),
            )
            for number, identity in enumerate(identities[:SIZE])
        ]
        yield Stage(service, coordinator, pb_grpc.AggregationServiceStub(channel), channel, host, clients)


def staged(test: Callable[[Stage], Awaitable[None]], tmp_path: Path, shapes: Any = SHAPES) -> None:
    """Run a test that does its harm and then lets everybody finish."""

    async def run() -> None:
        async with on_stage(tmp_path, shapes) as stage:
            await test(stage)
            await stage.finish()

    asyncio.run(run())


def altered_signature(signed: Signed) -> Signed:
    return dataclasses.replace(signed, signature=bytes([signed.signature[0] ^ 1]) + signed.signature[1:])


# What the client library refuses by itself.


def _reshaped(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.zeros((2, 17) if "lora_A" in name else (8, 2), np.float32) for name in tensors}


def _renamed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.replace("q_proj", "k_proj"): value for name, value in tensors.items()}


def _one_left_out(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in tensors.items() if "lora_A" in name}


def _as_integers(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.astype(np.int32) for name, value in tensors.items()}


def _with(value: float) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    def alter(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        first, *rest = tensors
        spoiled = tensors[first].copy()
        spoiled.flat[-1] = value
        return {first: spoiled, **{name: tensors[name] for name in rest}}

    return alter


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (_reshaped, AdapterRejectReason.WRONG_SHAPE),
        (_renamed, AdapterRejectReason.UNEXPECTED_TENSOR),
        (_one_left_out, AdapterRejectReason.MISSING_TENSOR),
        (_as_integers, AdapterRejectReason.WRONG_DTYPE),
        (_with(float("nan")), AdapterRejectReason.NON_FINITE),
        (_with(float("-inf")), AdapterRejectReason.NON_FINITE),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_sent(
    tmp_path: Path, alter: Callable[[Any], Any], reason: AdapterRejectReason
) -> None:
    async def harm(stage: Stage) -> None:
        directory = one_hot_adapter(tmp_path / "adapter", 0)
        file = directory / "adapter_model.safetensors"
        safetensors.numpy.save_file(alter(safetensors.numpy.load_file(file)), file, metadata={"format": "pt"})
        late_comer = key_of(f"client {SIZE}")
        version = stage.host.driver.version
        with pytest.raises(AdapterError) as caught:
            await stage.coordinator.contribute(stage.session, directory, late_comer, tmp_path / "state")
        assert caught.value.reason is reason
        assert stage.host.driver.version == version

    staged(harm, tmp_path)


# What the coordinator refuses, phase by phase.


def test_bad_names_of_sessions_and_pages_are_refused_everywhere(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        readers = {
            "GetSession": pb.GetSessionRequest,
            "GetAdvertisedKeys": pb.GetAdvertisedKeysRequest,
            "GetSharedKeys": pb.GetSharedKeysRequest,
            "GetClose": pb.GetCloseRequest,
            "GetConfirmations": pb.GetConfirmationsRequest,
            "GetOutcome": pb.GetOutcomeRequest,
        }
        signed = peek(stage.clients[0]).signed.to_bytes()
        writers = {
            "AdvertiseKeys": pb.AdvertiseKeysRequest(signed=signed),
            "ShareKeys": pb.ShareKeysRequest(signed=signed),
            "StartUpload": pb.StartUploadRequest(signed=signed),
            "ConfirmClose": pb.ConfirmCloseRequest(signed=signed),
            "Unmask": pb.UnmaskRequest(signed=signed),
        }
        requests = {method: request() for method, request in readers.items()} | writers
        for method, request in requests.items():
            for name, code, reason in (
                (bytes(16), Code.NOT_FOUND, Reason.UNKNOWN_SESSION),
                (b"", Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE),
                (bytes(17), Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE),
            ):
                request.session = name
                await stage.refused(getattr(stage.stub, method)(request, timeout=10.0), code, reason)
        for request in (pb.WatchSessionRequest(session=bytes(16)), pb.GetSumRequest(session=bytes(16))):
            method = type(request).__name__.removesuffix("Request")
            stream = getattr(stage.stub, method)(request, timeout=10.0)
            await stage.refused(stream.read(), Code.NOT_FOUND, Reason.UNKNOWN_SESSION)
        for token in ("x", "-1", "2", "999999999999", "1 ", "\u0661"):
            listing = stage.stub.ListSessions(pb.ListSessionsRequest(page_token=token), timeout=10.0)
            detail = await stage.refused(listing, Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE)
            assert detail["detail"].startswith("page_token")
        after_the_first = pb.ListSessionsRequest()
        after_the_first.page_token = str(1)
        last = await stage.stub.ListSessions(after_the_first, timeout=10.0)
        assert not last.sessions

    staged(harm, tmp_path)


def test_bad_keys_are_refused(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        one, other = stage.clients[:2]
        message = peek(one)

        async def refused(message: Any, code: Code, reason: RejectReason) -> None:
            await stage.refused(stage.send(message), code, reason)

        statement = message.signed.statement
        assert isinstance(statement, AdvertiseStatement)
        stranger = key_of("stranger")
        foreign = signed_by(stranger, dataclasses.replace(statement, identity=stranger.public_bytes))
        await refused(dataclasses.replace(message, signed=foreign), Code.PERMISSION_DENIED, Reason.UNKNOWN_IDENTITY)
        await refused(
            dataclasses.replace(message, signed=altered_signature(message.signed)),
            Code.UNAUTHENTICATED,
            Reason.BAD_SIGNATURE,
        )
        # In another's name, under one's own signature.
        stolen = signed_by(other.context.identity, statement)
        await refused(dataclasses.replace(message, signed=stolen), Code.UNAUTHENTICATED, Reason.BAD_SIGNATURE)
        moved = signed_by(one.context.identity, dataclasses.replace(statement, session=bytes(32)))
        await refused(dataclasses.replace(message, signed=moved), Code.INVALID_ARGUMENT, Reason.WRONG_SESSION)
        flipped = bytes([message.mask_public[0] ^ 1]) + message.mask_public[1:]
        await refused(dataclasses.replace(message, mask_public=flipped), Code.INVALID_ARGUMENT, Reason.BAD_KEY)
        await refused(dataclasses.replace(message, share_public=b""), Code.INVALID_ARGUMENT, Reason.BAD_KEY)
        confirmation = signed_by(one.context.identity, ConfirmStatement(stage.digest, bytes(32), one.identity))
        await refused(
            dataclasses.replace(message, signed=confirmation), Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE
        )
        # Accepted, accepted again without effect; another one is not.
        await stage.send(message)
        version = stage.host.driver.version
        await stage.send(message)
        assert stage.host.driver.version == version
        again = Client(one.context, CountingRng(b"other keys"), one.vector)
        again.start((await stage.coordinator.details(stage.session)).view)
        await refused(pop(again), Code.ALREADY_EXISTS, Reason.EQUIVOCATION)

    staged(harm, tmp_path)


def untimely(stage: Stage, one: Client) -> dict[Phase, Signed]:
    """What ``one`` could say in each phase, well-formed and signed, about things that are not there."""
    key, nothing = one.context.identity, bytes(32)
    lanes = stage.host.session.field_layout.lanes
    statements = {
        Phase.ADVERTISE_KEYS: AdvertiseStatement(stage.digest, one.identity, nothing, nothing),
        Phase.SHARE_KEYS: ShareStatement(stage.digest, nothing, one.identity, nothing, nothing, nothing),
        Phase.MASKED_INPUT: ContributionHeader(
            stage.digest, nothing, one.identity, nothing, hashlib.sha256(bytes(HASH_BYTES)).digest(), lanes, ()
        ),
        Phase.CONSISTENCY_CHECK: ConfirmStatement(stage.digest, nothing, one.identity),
        Phase.UNMASK: UnmaskStatement(stage.digest, nothing, one.identity, (SelfMaskShare(0, bytes(36)),)),
    }
    return {phase: signed_by(key, statement) for phase, statement in statements.items()}


def requests_of(stage: Stage, signed: dict[Phase, Signed]) -> dict[Phase, tuple[str, Any]]:
    session = stage.session
    return {
        Phase.ADVERTISE_KEYS: (
            "AdvertiseKeys",
            pb.AdvertiseKeysRequest(session=session, signed=signed[Phase.ADVERTISE_KEYS].to_bytes()),
        ),
        Phase.SHARE_KEYS: (
            "ShareKeys",
            pb.ShareKeysRequest(session=session, signed=signed[Phase.SHARE_KEYS].to_bytes()),
        ),
        Phase.MASKED_INPUT: (
            "StartUpload",
            pb.StartUploadRequest(
                session=session, signed=signed[Phase.MASKED_INPUT].to_bytes(), linear_hash=bytes(HASH_BYTES)
            ),
        ),
        Phase.CONSISTENCY_CHECK: (
            "ConfirmClose",
            pb.ConfirmCloseRequest(session=session, signed=signed[Phase.CONSISTENCY_CHECK].to_bytes()),
        ),
        Phase.UNMASK: ("Unmask", pb.UnmaskRequest(session=session, signed=signed[Phase.UNMASK].to_bytes())),
    }


def test_what_belongs_to_another_phase_is_refused_in_every_phase(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        late_comer = Client(
            ClientContext(key_of(f"client {SIZE}"), stage.host.session, ClientPolicy(), NO_WITNESSES),
            CountingRng(b"late"),
            np.zeros(1),
        )
        requests = requests_of(stage, untimely(stage, late_comer))
        readers: dict[Phase, list[tuple[str, Any]]] = {
            Phase.SHARE_KEYS: [
                ("GetAdvertisedKeys", pb.GetAdvertisedKeysRequest(session=stage.session, identity=late_comer.identity))
            ],
            Phase.MASKED_INPUT: [
                ("GetSharedKeys", pb.GetSharedKeysRequest(session=stage.session, identity=late_comer.identity))
            ],
            Phase.CONSISTENCY_CHECK: [("GetClose", pb.GetCloseRequest(session=stage.session))],
            Phase.UNMASK: [
                ("GetConfirmations", pb.GetConfirmationsRequest(session=stage.session, identity=late_comer.identity))
            ],
            Phase.FINISHED: [("GetOutcome", pb.GetOutcomeRequest(session=stage.session))],
        }
        steps = [stage.advertised, stage.shared, stage.uploaded, stage.confirmed, stage.answered]
        phases = list(requests)
        for now, step in zip(phases, steps, strict=True):
            for phase, (method, request) in requests.items():
                # Confirmations are still taken while answers come in.
                if phase is not now and (phase, now) != (Phase.CONSISTENCY_CHECK, Phase.UNMASK):
                    call = getattr(stage.stub, method)(request, timeout=10.0)
                    await stage.refused(call, Code.FAILED_PRECONDITION, Reason.WRONG_PHASE)
            for phase, calls in readers.items():
                for method, request in calls:
                    if phase is Phase.FINISHED or phases.index(phase) > phases.index(now):
                        call = getattr(stage.stub, method)(request, timeout=10.0)
                        await stage.refused(call, Code.FAILED_PRECONDITION, Reason.WRONG_PHASE)
            await step()
        for method, request in requests.values():
            call = getattr(stage.stub, method)(request, timeout=10.0)
            await stage.refused(call, Code.FAILED_PRECONDITION, Reason.SESSION_OVER)
        beyond = stage.stub.GetSum(pb.GetSumRequest(session=stage.session, offset_bytes=10**6), timeout=10.0)
        await stage.refused(beyond.read(), Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE)

    staged(harm, tmp_path)


def test_who_did_not_advertise_keys_is_told_nothing_of_the_cohort(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        for name, reason in ((f"client {SIZE}", Reason.NOT_IN_COHORT), ("stranger", Reason.UNKNOWN_IDENTITY)):
            request = pb.GetAdvertisedKeysRequest(session=stage.session, identity=key_of(name).public_bytes)
            call = stage.stub.GetAdvertisedKeys(request, timeout=10.0)
            await stage.refused(call, Code.PERMISSION_DENIED, reason)
        short = pb.GetAdvertisedKeysRequest(session=stage.session, identity=bytes(31))
        call = stage.stub.GetAdvertisedKeys(short, timeout=10.0)
        await stage.refused(call, Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE)

    staged(harm, tmp_path)


def test_bad_boxes_are_refused(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        one, other = stage.clients[:2]
        message = peek(one)
        assert isinstance(message, ShareKeys)
        key, statement = one.context.identity, message.signed.statement
        first, *rest = message.boxes

        async def refused(signed: Signed, boxes: Sequence[Any], code: Code, reason: RejectReason) -> None:
            await stage.refused(stage.send(ShareKeys(signed, tuple(boxes))), code, reason)

        invalid = Code.INVALID_ARGUMENT
        flipped = bytes([first.share_box[0] ^ 1]) + first.share_box[1:]
        await refused(
            message.signed, [dataclasses.replace(first, share_box=flipped), *rest], invalid, Reason.WRONG_BOX_ROOT
        )
        await refused(
            message.signed,
            [dataclasses.replace(first, share_box=first.share_box + b"\0"), *rest],
            invalid,
            Reason.WRONG_BOX_LENGTH,
        )
        await refused(message.signed, rest, invalid, Reason.WRONG_RECIPIENTS)
        await refused(message.signed, [*rest, first], invalid, Reason.WRONG_RECIPIENTS)
        await refused(message.signed, [first, *message.boxes], invalid, Reason.WRONG_RECIPIENTS)
        await refused(peek(other).signed, message.boxes, invalid, Reason.WRONG_RECIPIENTS)
        elsewhere = signed_by(key, dataclasses.replace(statement, advertised=bytes(32)))
        await refused(elsewhere, message.boxes, Code.FAILED_PRECONDITION, Reason.WRONG_LOG_ROOT)
        await refused(altered_signature(message.signed), message.boxes, Code.UNAUTHENTICATED, Reason.BAD_SIGNATURE)
        stranger = key_of("stranger")
        foreign = signed_by(stranger, dataclasses.replace(statement, identity=stranger.public_bytes))
        await refused(foreign, message.boxes, Code.PERMISSION_DENIED, Reason.UNKNOWN_IDENTITY)
        await stage.send(message)
        await stage.send(message)
        changed = signed_by(key, dataclasses.replace(statement, root_commitment=bytes(32)))
        await refused(changed, message.boxes, Code.ALREADY_EXISTS, Reason.EQUIVOCATION)

    staged(harm, tmp_path)


def test_bad_headers_are_refused(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        await stage.shared()
        one = stage.clients[0]
        message = peek(one)
        key, header = one.context.identity, message.signed.statement
        assert isinstance(header, ContributionHeader)

        async def refused_header(code: Code, reason: RejectReason, **changes: Any) -> None:
            signed = signed_by(key, dataclasses.replace(header, **changes))
            await stage.refused(stage.send(Contribution(signed, message.linear_hash)), code, reason)

        await refused_header(Code.INVALID_ARGUMENT, Reason.WRONG_LENGTH, lanes=header.lanes + 1)
        await refused_header(Code.INVALID_ARGUMENT, Reason.WRONG_SESSION, session=bytes(32))
        await refused_header(Code.FAILED_PRECONDITION, Reason.WRONG_LOG_ROOT, shared=bytes(32))
        await refused_header(Code.INVALID_ARGUMENT, Reason.WRONG_MISSING, missing=(SIZE,))
        await refused_header(Code.UNAUTHENTICATED, Reason.BAD_SIGNATURE, identity=stage.clients[1].identity)
        await stage.send(message)
        await refused_header(Code.ALREADY_EXISTS, Reason.EQUIVOCATION, upload=bytes(32))
        await stage.upload(one)
        await refused_header(Code.ALREADY_EXISTS, Reason.EQUIVOCATION, upload=bytes(32))

    staged(harm, tmp_path)


def test_bad_linear_hashes_are_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        await stage.shared()
        one = stage.clients[0]
        message = peek(one)
        key, header = one.context.identity, message.signed.statement
        assert isinstance(header, ContributionHeader)
        invalid, other = Code.INVALID_ARGUMENT, bytes(HASH_BYTES)

        async def refused(signed: Signed, linear_hash: bytes, reason: RejectReason) -> None:
            await stage.refused(stage.send(Contribution(signed, linear_hash)), invalid, reason)

        for length in (0, HASH_BYTES - 8, HASH_BYTES + 8, 1 << 20):
            await refused(message.signed, bytes(length), Reason.MALFORMED_MESSAGE)
            signed = dataclasses.replace(header, linear_hash=hashlib.sha256(bytes(length)).digest())
            await refused(signed_by(key, signed), bytes(length), Reason.MALFORMED_MESSAGE)
        await refused(message.signed, other, Reason.WRONG_LINEAR_HASH)
        await refused(
            signed_by(key, dataclasses.replace(header, linear_hash=bytes(32))), other, Reason.WRONG_LINEAR_HASH
        )
        flipped = bytes([message.linear_hash[0] ^ 1]) + message.linear_hash[1:]
        await refused(message.signed, flipped, Reason.WRONG_LINEAR_HASH)
        await stage.send(message)
        assert header.linear_hash.hex() in blob_names(stage.service.state)
        await refused(message.signed, other, Reason.WRONG_LINEAR_HASH)
        await stage.upload(one)
        await refused(message.signed, other, Reason.WRONG_LINEAR_HASH)

    staged(harm, tmp_path)


def test_who_signs_the_hash_of_another_vector_is_left_out_at_close(tmp_path: Path) -> None:
    async def run() -> None:
        async with on_stage(tmp_path) as stage:
            await stage.advertised()
            await stage.shared()
            liar = stage.clients[0]
            lie = hashlib.shake_256(b"another vector").digest(HASH_BYTES)
            header = dataclasses.replace(peek(liar).signed.statement, linear_hash=hashlib.sha256(lie).digest())
            signed = signed_by(liar.context.identity, header)
            liar.outbox[0] = Contribution(signed, lie)
            liar.state = dataclasses.replace(liar.state, sent=signed)
            await stage.uploaded()
            shown = await stage.coordinator.port.closed_list(stage.session)
            leaves = [decode_disposition(leaf) for leaf in shown.leaves]
            assert [leaf.reason for leaf in leaves if isinstance(leaf, Rejected)] == ["WRONG_LINEAR_HASH"]
            assert isinstance(liar.state, Aborted)
            assert liar.state.reason is Reason.LEFT_OUT
            stage.clients.remove(liar)
            await stage.confirmed()
            await stage.answered()
            result = await stage.coordinator.result(stage.session)
            assert result.integer_sum[:SIZE].tolist() == [0] + [UNIT] * (SIZE - 1)

    asyncio.run(run())


def test_bad_chunks_are_refused(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        await stage.shared()
        one = stage.clients[0]
        message, data = peek(one), one.upload
        unknown = "0" * 32
        for token in (unknown, "", "x"):
            write = pb.WriteChunkRequest(token=token, data=data, crc32=zlib.crc32(data))
            await stage.refused(stage.stub.WriteChunk(write, timeout=10.0), Code.NOT_FOUND, Reason.UNKNOWN_UPLOAD)
            finish = pb.FinishUploadRequest(token=token)
            await stage.refused(stage.stub.FinishUpload(finish, timeout=10.0), Code.NOT_FOUND, Reason.UNKNOWN_UPLOAD)

        begun = await stage.stub.StartUpload(convert.contribution_to_pb(stage.session, message), timeout=10.0)

        async def refused_chunk(
            offset: int, piece: bytes, code: Code, reason: RejectReason, crc32: int | None = None
        ) -> dict[str, str]:
            request = pb.WriteChunkRequest(
                token=begun.token, offset_bytes=offset, data=piece, crc32=zlib.crc32(piece) if crc32 is None else crc32
            )
            return await stage.refused(stage.stub.WriteChunk(request, timeout=10.0), code, reason)

        async def write(offset: int, piece: bytes) -> int:
            request = pb.WriteChunkRequest(token=begun.token, offset_bytes=offset, data=piece, crc32=zlib.crc32(piece))
            return (await stage.stub.WriteChunk(request, timeout=10.0)).committed_bytes

        assert await write(0, data[:40]) == 40
        gap = await refused_chunk(48, data[48:], Code.OUT_OF_RANGE, Reason.UPLOAD_OFFSET_MISMATCH)
        assert gap["committed_bytes"] == "40"
        huge = await refused_chunk(2**64 - 1, b"x", Code.OUT_OF_RANGE, Reason.UPLOAD_OFFSET_MISMATCH)
        assert huge["committed_bytes"] == "40"
        await refused_chunk(40, data[40:], Code.DATA_LOSS, Reason.UPLOAD_CHECKSUM_MISMATCH, crc32=1)
        await refused_chunk(40, data[40:] + b"\0", Code.INVALID_ARGUMENT, Reason.WRONG_UPLOAD)
        oversized = bytes((1 << 20) + 1)
        await refused_chunk(0, oversized, Code.INVALID_ARGUMENT, Reason.CHUNK_TOO_LARGE)
        early = stage.stub.FinishUpload(pb.FinishUploadRequest(token=begun.token), timeout=10.0)
        assert (await stage.refused(early, Code.OUT_OF_RANGE, Reason.UPLOAD_OFFSET_MISMATCH))["committed_bytes"] == "40"
        await _refuse_streams(stage, begun.token, data)
        # A message beyond the server's limit does not reach it: gRPC's own refusal, without a reason.
        request = pb.WriteChunkRequest(token=begun.token, data=bytes(5 << 20))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stage.stub.WriteChunk(request, timeout=10.0)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        # A chunk that came before is acknowledged again, also in part; then other bytes than the signed ones.
        assert await write(0, data[:40]) == 48
        assert await write(40, data[40:56]) == 56
        spoiled = bytes([data[56] ^ 1]) + data[57:]
        assert await write(56, spoiled) == len(data)
        wrong = stage.stub.FinishUpload(pb.FinishUploadRequest(token=begun.token), timeout=10.0)
        lost = await stage.refused(wrong, Code.DATA_LOSS, Reason.UPLOAD_CHECKSUM_MISMATCH)
        assert lost["committed_bytes"] == "0"
        again = await stage.stub.StartUpload(convert.contribution_to_pb(stage.session, message), timeout=10.0)
        assert (again.token, again.committed_bytes) == (begun.token, 0)
        await stage.upload(one)
        # Finished: everything may be said again and nothing else.
        receipt = (await stage.stub.FinishUpload(pb.FinishUploadRequest(token=begun.token), timeout=10.0)).receipt
        last = await stage.stub.StartUpload(convert.contribution_to_pb(stage.session, message), timeout=10.0)
        assert last.receipt == receipt
        assert await write(0, data[:40]) == len(data)

    staged(harm, tmp_path)


async def _refuse_streams(stage: Stage, token: str, data: bytes) -> None:
    def stream(*items: pb.StreamChunksRequest) -> Any:
        async def chunks() -> AsyncIterator[pb.StreamChunksRequest]:
            for item in items:
                yield item

        return stage.stub.StreamChunks(chunks(), timeout=10.0)

    good = pb.StreamChunksRequest(token=token, offset_bytes=40, data=data[40:48], crc32=zlib.crc32(data[40:48]))
    bad = pb.StreamChunksRequest(data=data[48:], crc32=1)
    await stage.refused(stream(), Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE)
    await stage.refused(stream(bad), Code.NOT_FOUND, Reason.UNKNOWN_UPLOAD)
    gap = pb.StreamChunksRequest(token=token, offset_bytes=41, data=b"x", crc32=zlib.crc32(b"x"))
    await stage.refused(stream(gap), Code.OUT_OF_RANGE, Reason.UPLOAD_OFFSET_MISMATCH)
    metadata = await stage.refused(stream(good, bad), Code.DATA_LOSS, Reason.UPLOAD_CHECKSUM_MISMATCH)
    assert metadata["committed_bytes"] == "48"
    await stage.refused(stream(good), Code.OUT_OF_RANGE, Reason.UPLOAD_OFFSET_MISMATCH)


def test_an_upload_that_comes_after_its_phase_is_refused_from_the_start(tmp_path: Path) -> None:
    async def run() -> None:
        async with on_stage(tmp_path) as stage:
            await stage.advertised()
            await stage.shared()
            late = stage.clients.pop(0)
            request = convert.contribution_to_pb(stage.session, pop(late))
            begun = await stage.stub.StartUpload(request, timeout=10.0)
            for one in stage.clients:
                await stage.upload(one)
            await end_phase(stage.service.state, stage.session, Phase.MASKED_INPUT, 10.0)
            await stage.reach(Phase.CONSISTENCY_CHECK)
            call = stage.stub.StartUpload(request, timeout=10.0)
            await stage.refused(call, Code.FAILED_PRECONDITION, Reason.WRONG_PHASE)
            chunk = pb.WriteChunkRequest(token=begun.token, data=late.upload, crc32=zlib.crc32(late.upload))
            await stage.stub.WriteChunk(chunk, timeout=10.0)
            before = stage.host.driver.version
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stage.stub.FinishUpload(pb.FinishUploadRequest(token=begun.token), timeout=10.0)
            assert error_info(caught.value).reason == Reason.WRONG_PHASE.name
            assert stage.host.driver.version == before
            await stage.uploaded()
            await stage.confirmed()
            await stage.answered()
            result = await stage.coordinator.result(stage.session)
            assert result.integer_sum.tolist()[:SIZE] == [0] + [UNIT] * (SIZE - 1)
            staging = stage.service.state / "blobs" / "uploads"
            async with asyncio.timeout(10):
                while any(staging.iterdir()):
                    await asyncio.sleep(0.01)  # a poll: what never came to count goes with the session

    asyncio.run(run())


def test_bad_confirmations_and_answers_are_refused(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        await stage.shared()
        await stage.uploaded()
        one, other = stage.clients[:2]
        message = peek(one)
        key, statement = one.context.identity, message.signed.statement

        async def refused(signed: Signed, code: Code, reason: RejectReason) -> None:
            await stage.refused(stage.send(dataclasses.replace(message, signed=signed)), code, reason)

        forked = dataclasses.replace(statement, close=bytes(32))
        await refused(signed_by(key, forked), Code.FAILED_PRECONDITION, Reason.WRONG_LOG_ROOT)
        await refused(altered_signature(message.signed), Code.UNAUTHENTICATED, Reason.BAD_SIGNATURE)
        await refused(signed_by(other.context.identity, statement), Code.UNAUTHENTICATED, Reason.BAD_SIGNATURE)
        late = key_of(f"client {SIZE}")
        outsider = signed_by(late, dataclasses.replace(statement, identity=late.public_bytes))
        await refused(outsider, Code.PERMISSION_DENIED, Reason.NOT_IN_COHORT)
        await stage.confirmed()

        message = peek(one)
        statement = message.signed.statement
        assert isinstance(statement, UnmaskStatement)
        first, *rest = statement.shares
        assert isinstance(first, SelfMaskShare)

        async def refused_shares(shares: Sequence[Any]) -> None:
            signed = signed_by(key, dataclasses.replace(statement, shares=tuple(shares)))
            await refused(signed, Code.INVALID_ARGUMENT, Reason.WRONG_SHARES)

        await refused_shares([RootShare(first.index, first.share), *rest])
        await refused_shares(rest)
        await refused_shares([*statement.shares, SelfMaskShare(SIZE + 1, first.share)])
        await refused_shares([SelfMaskShare(first.index, rest[0].share), *rest])
        await refused(altered_signature(message.signed), Code.UNAUTHENTICATED, Reason.BAD_SIGNATURE)
        forked_answer = dataclasses.replace(statement, close=bytes(32))
        await refused(signed_by(key, forked_answer), Code.FAILED_PRECONDITION, Reason.WRONG_LOG_ROOT)
        await stage.send(message)
        await stage.send(message)
        swapped = dataclasses.replace(statement, shares=(RootShare(first.index, first.share), *rest))
        await refused(signed_by(key, swapped), Code.ALREADY_EXISTS, Reason.EQUIVOCATION)
        one.outbox.clear()

    staged(harm, tmp_path)


# Anything at all.


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Ways to change bytes: half of them small."""
    kind = draw(st.sampled_from(["flip", "flip", "cut", "extend", "replace", "empty", "insert", "repeat"]))
    place, value = draw(st.integers(0, 2**16)), draw(st.binary(min_size=1, max_size=40))

    def mutate(data: bytes) -> bytes:
        at = place % (len(data) or 1)
        match kind:
            case "flip" if data:
                return data[:at] + bytes([data[at] ^ (value[0] or 1)]) + data[at + 1 :]
            case "cut":
                return data[:at]
            case "extend":
                return data + value
            case "insert":
                return data[:at] + value + data[at:]
            case "repeat":
                return data + data
            case "replace":
                return value
            case _:
                return b""

    return mutate


def fields_of(request: Any) -> Iterator[tuple[Any, str, int | None]]:
    """Every bytes field of a request and of what is in it: the message, its name, its place in a list."""
    for descriptor, value in request.ListFields():
        if descriptor.message_type is not None:
            for item in value if descriptor.is_repeated else [value]:
                yield from fields_of(item)
        elif descriptor.type == descriptor.TYPE_BYTES:
            if descriptor.is_repeated:
                for place in range(len(value)):
                    yield request, descriptor.name, place
            else:
                yield request, descriptor.name, None


REFUSALS = {
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.PERMISSION_DENIED,
    Code.UNAUTHENTICATED,
    Code.ALREADY_EXISTS,
    Code.FAILED_PRECONDITION,
    Code.OUT_OF_RANGE,
    Code.DATA_LOSS,
}


def fuzz(loop: asyncio.AbstractEventLoop, stage: Stage, examples: int) -> None:
    """Mutated messages of the first client in the current phase: refused with a reason, and without effect."""
    method, original = request_for(stage.session, peek(stage.clients[0]))

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(st.integers(0, 2**16), mutations())
    def attack(which: int, mutate: Callable[[bytes], bytes]) -> None:
        request = type(original).FromString(original.SerializeToString())
        fields = list(fields_of(request))
        message, name, place = fields[which % len(fields)]
        if place is None:
            setattr(message, name, mutate(getattr(message, name)))
        else:
            getattr(message, name)[place] = mutate(getattr(message, name)[place])
        if request == original:
            return
        before = stage.host.driver.version, blob_names(stage.service.state)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            loop.run_until_complete(_answer(getattr(stage.stub, method)(request, timeout=10.0)))
        assert caught.value.code() in REFUSALS, (caught.value.code(), caught.value.details())
        assert error_info(caught.value).reason in RejectReason.__members__
        assert (stage.host.driver.version, blob_names(stage.service.state)) == before

    attack()


async def _answer(call: Awaitable[object]) -> object:
    return await call


def fuzz_tokens(loop: asyncio.AbstractEventLoop, stage: Stage) -> None:
    """Any chunk for any token, and any request for a list."""

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.text(max_size=40), st.integers(0, 2**64 - 1), st.binary(max_size=64), st.integers(0, 2**32 - 1))
    def attack(token: str, offset: int, data: bytes, crc32: int) -> None:
        session = data[:16]
        calls = [
            stage.stub.WriteChunk(pb.WriteChunkRequest(token=token, offset_bytes=offset, data=data, crc32=crc32)),
            stage.stub.FinishUpload(pb.FinishUploadRequest(token=token)),
            stage.stub.ListSessions(pb.ListSessionsRequest(page_token=token or "x", page_size=crc32)),
            stage.stub.GetSharedKeys(pb.GetSharedKeysRequest(session=session, identity=data)),
            stage.stub.GetConfirmations(pb.GetConfirmationsRequest(session=stage.session, identity=data)),
            stage.stub.GetSum(pb.GetSumRequest(session=session, offset_bytes=offset)).read(),
            stage.stub.WatchSession(pb.WatchSessionRequest(session=session)).read(),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                loop.run_until_complete(_answer(call))
            assert caught.value.code() in REFUSALS, (caught.value.code(), caught.value.details())
            assert error_info(caught.value).reason in RejectReason.__members__

    attack()


def test_mutated_messages_of_every_phase_are_refused_with_a_reason(tmp_path: Path) -> None:
    async def enter() -> tuple[Any, Stage]:
        context = on_stage(tmp_path)
        return context, await context.__aenter__()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        context, stage = runner.run(enter())
        try:
            for step in (stage.advertised, stage.shared, stage.uploaded, stage.confirmed):
                fuzz(loop, stage, 25)
                fuzz_tokens(loop, stage) if step == stage.advertised else None
                runner.run(step())
            fuzz(loop, stage, 25)
            runner.run(stage.finish())
        finally:
            runner.run(_leave(context))


async def _leave(context: Any) -> None:
    await context.__aexit__(None, None, None)


def test_bytes_that_are_no_protobuf_are_refused_and_the_connection_lives_on(tmp_path: Path) -> None:
    async def harm(stage: Stage) -> None:
        for method in ("GetSession", "AdvertiseKeys", "WriteChunk"):
            raw = stage.channel.unary_unary(f"/secagg.v1.AggregationService/{method}")
            call = raw(b"\x0a\xff\xff\xff\xff", timeout=10.0)
            await stage.refused(call, Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE)
        for method in ("WatchSession", "GetSum"):
            streaming = stage.channel.unary_stream(f"/secagg.v1.AggregationService/{method}")
            stream = streaming(b"\x0a\xff\xff\xff\xff", timeout=10.0)
            await stage.refused(stream.read(), Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE)
        uploading = stage.channel.stream_unary("/secagg.v1.AggregationService/StreamChunks")
        call = uploading(iter([b"\x0a\xff\xff\xff\xff"]), timeout=10.0)
        await stage.refused(call, Code.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE)
        unknown = stage.channel.unary_unary("/secagg.v1.AggregationService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unknown(b"", timeout=10.0)
        assert caught.value.code() is Code.UNIMPLEMENTED

    staged(harm, tmp_path)


# Uploads that break off.


class CountingBlobs(MemoryBlobStore):
    """Notes what is read to be sent: offset and length. The ``fail_at``-th time (from 0) the disk fails."""

    def __init__(self, data: bytes, fail_at: int = -1) -> None:
        super().__init__()
        self.put(data)
        self.pieces: list[tuple[int, int]] = []
        self._fail_at = fail_at

    @property
    def read_bytes(self) -> int:
        return sum(length for _, length in self.pieces)

    def read(self, digest: bytes, offset_bytes: int, length_bytes: int) -> bytes:
        if len(self.pieces) == self._fail_at:
            self._fail_at = -1
            raise StoreError("the disk fails")
        self.pieces.append((offset_bytes, length_bytes))
        return super().read(digest, offset_bytes, length_bytes)

    def goes_on_at(self) -> int:
        """Where the last run of pieces that follow each other begins."""
        start = len(self.pieces) - 1
        while start and sum(self.pieces[start - 1]) == self.pieces[start][0]:
            start -= 1
        assert sum(self.pieces[-1]) == len(self.get(next(iter(self._blobs))))
        return self.pieces[start][0]


class Line:
    """A TCP line to a server that goes dead after so many bytes towards it, until it is cut; then it is a good one."""

    def __init__(self, port: int, dead_after_bytes: int) -> None:
        self._port, self._left = port, dead_after_bytes
        self._cut = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        self._cut.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        first = not self._cut.is_set()
        tasks = {
            asyncio.ensure_future(self._carry(reader, up_writer, limited=first)),
            asyncio.ensure_future(self._carry(up_reader, writer, limited=False)),
        }
        if first:
            tasks.add(asyncio.ensure_future(self._wait_for_cut()))
        self._tasks |= tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        writer.close()
        up_writer.close()

    async def _wait_for_cut(self) -> None:
        await self._cut.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, limited: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
                if limited:
                    self._left -= len(data)
                    if self._left <= 0:
                        await self._cut.wait()
                        return


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """The chunk size that the coordinator offers in these tests, in bytes."""
    monkeypatch.setattr(uploads, "PREFERRED_CHUNK_BYTES", 4096)
    return 4096


def test_an_upload_goes_on_where_a_cancelled_stream_stopped(tmp_path: Path, small_chunks: int) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        await stage.shared()
        one = stage.clients[0]
        message, data = pop(one), one.upload
        assert len(data) > 10 * small_chunks
        begun = await stage.stub.StartUpload(convert.contribution_to_pb(stage.session, message), timeout=10.0)
        assert begun.preferred_chunk_bytes == small_chunks
        sent = 7 * small_chunks

        async def chunks() -> AsyncIterator[pb.StreamChunksRequest]:
            for offset in range(0, sent, small_chunks):
                piece = data[offset : offset + small_chunks]
                token = begun.token if offset == 0 else ""
                yield pb.StreamChunksRequest(token=token, data=piece, crc32=zlib.crc32(piece))
            await asyncio.Event().wait()  # the line is dead

        call = stage.stub.StreamChunks(chunks(), timeout=30.0)
        async with asyncio.timeout(30):
            while True:
                request = convert.contribution_to_pb(stage.session, message)
                if (await stage.stub.StartUpload(request, timeout=10.0)).committed_bytes == sent:
                    break
                await asyncio.sleep(0.01)  # a poll
        call.cancel()
        blobs = CountingBlobs(data)
        one.feed(await stage.coordinator.port.upload(stage.session, message, blobs))
        assert blobs.read_bytes == len(data) - sent

    staged(harm, tmp_path, WIDE)


def test_a_stream_whose_connection_breaks_is_continued_in_chunks_where_it_had_come(
    tmp_path: Path, small_chunks: int
) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        await stage.shared()
        one = stage.clients[0]
        message, blobs = pop(one), CountingBlobs(one.upload)
        service = stage.service
        async with (
            Line(service.port, len(one.upload) // 2) as line,
            await connect(f"127.0.0.1:{line.port}", service.key, service.tls) as far_away,
        ):
            uploading = asyncio.ensure_future(far_away.port.upload(stage.session, message, blobs))
            committed = 0
            async with asyncio.timeout(30):
                while committed < 3 * small_chunks:
                    await asyncio.sleep(0.01)  # a poll
                    request = convert.contribution_to_pb(stage.session, message)
                    committed = (await stage.stub.StartUpload(request, timeout=10.0)).committed_bytes
                line.cut()
                while True:
                    with suppress(TransportError):
                        receipt = await uploading
                        break
                    # What a participant does; the line needs a moment.
                    uploading = asyncio.ensure_future(far_away.port.upload(stage.session, message, blobs))
        one.feed(receipt)
        assert committed <= blobs.goes_on_at() < len(one.upload)
        # Sent again is at most what was on the line when it broke.
        assert blobs.read_bytes <= 2 * len(one.upload) - committed

    staged(harm, tmp_path, WIDE)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_an_upload_goes_on_when_the_coordinator_has_forgotten_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    find, calls = uploads.UploadDesk.find, itertools.count(1)

    def forgetful(desk: uploads.UploadDesk, token: str) -> uploads.Upload:
        if next(calls) == call:
            desk._uploads.clear()
        return find(desk, token)

    async def harm(stage: Stage) -> None:
        await stage.advertised()
        await stage.shared()
        monkeypatch.setattr(uploads.UploadDesk, "find", forgetful)
        one = stage.clients[0]
        message, blobs = pop(one), holding(one.upload)
        while True:
            with suppress(TransportError):
                one.feed(await stage.coordinator.port.upload(stage.session, message, blobs))
                break
        monkeypatch.setattr(uploads.UploadDesk, "find", find)

    staged(harm, tmp_path)


def test_an_upload_whose_bytes_cannot_be_read_once_goes_on_when_it_is_tried_again(
    tmp_path: Path, small_chunks: int
) -> None:
    async def harm(stage: Stage) -> None:
        await stage.advertised()
        await stage.shared()
        one = stage.clients[0]
        message, blobs = pop(one), CountingBlobs(one.upload, fail_at=5)
        with pytest.raises(StoreError):
            await stage.coordinator.port.upload(stage.session, message, blobs)
        one.feed(await stage.coordinator.port.upload(stage.session, message, blobs))
        assert blobs.read_bytes <= len(one.upload) + 5 * small_chunks

    staged(harm, tmp_path, WIDE)


def test_an_upload_goes_on_at_the_committed_bytes_after_a_restart(tmp_path: Path, small_chunks: int) -> None:
    async def run() -> None:
        identities = [key_of(f"client {number}") for number in range(SIZE + 1)]
        async with on_stage(tmp_path, WIDE) as stage:
            await stage.advertised()
            await stage.shared()
            one, clients, session = stage.clients[0], stage.clients, stage.session
            message, data = pop(one), one.upload
            begun = await stage.stub.StartUpload(convert.contribution_to_pb(session, message), timeout=10.0)
            committed = 0
            while committed < 6 * small_chunks:
                piece = data[committed : committed + small_chunks]
                request = pb.WriteChunkRequest(
                    token=begun.token, offset_bytes=committed, data=piece, crc32=zlib.crc32(piece)
                )
                committed = (await stage.stub.WriteChunk(request, timeout=10.0)).committed_bytes
        # What nobody will ever finish goes at the start.
        stray = tmp_path / "coordinator" / "blobs" / "uploads" / ("0" * 32)
        stray.write_bytes(b"left over")
        async with (
            serving(tmp_path / "coordinator") as service,
            attending(service, session, identities, clients) as stage,
        ):
            assert not stray.exists()
            # The token of the life before is unknown until the header is announced again.
            write = pb.WriteChunkRequest(token=begun.token, offset_bytes=committed, data=b"", crc32=0)
            await stage.refused(stage.stub.WriteChunk(write, timeout=10.0), Code.NOT_FOUND, Reason.UNKNOWN_UPLOAD)
            again = await stage.stub.StartUpload(convert.contribution_to_pb(session, message), timeout=10.0)
            assert (again.token, again.committed_bytes) == (begun.token, committed)
            blobs = CountingBlobs(data)
            one.feed(await stage.coordinator.port.upload(session, message, blobs))
            assert blobs.read_bytes == len(data) - committed
            await stage.finish()
            assert not any((tmp_path / "coordinator" / "blobs" / "uploads").iterdir())

    asyncio.run(run())
