from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.runtime.memory import MemoryBlobStore
from secagg.runtime.ports import StaleStoreError, StoreError, UploadError, VersionConflictError
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as rpc
from secagg.wire import status
from secagg.wire.status import from_rpc_error, reject_code, to_status
from tests.support.syntax import syntax_tree

ROOT = Path(__file__).resolve().parents[3]
Code = grpc.StatusCode


def info_of(encoded) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert encoded.details[0].Unpack(info)
    return info


def failed(code, *metadata) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata))


def answered(encoded) -> grpc.aio.AioRpcError:
    return failed(Code.UNKNOWN, (status.DETAILS_KEY, encoded.SerializeToString()))


class Refusing(rpc.AggregationServiceServicer):
    """Raises what it is told to, as the real servicers do."""

    def __init__(self) -> None:
        self.error: RemoteProtocolError | LocalProtocolError | UploadError | StoreError | None = None

    async def GetClose(self, request, context):  # noqa: N802 - the name in the proto
        if self.error is None:
            raise RuntimeError("a handler crashed")
        await context.abort_with_status(rpc_status.to_status(to_status(self.error)))


def over_grpc(*errors) -> list[tuple[grpc.StatusCode, object]]:
    """The codes and the errors that a client sees when a server refuses with each of ``errors``."""

    async def run():
        server, servicer = grpc.aio.server(), Refusing()
        rpc.add_AggregationServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        seen = []
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = rpc.AggregationServiceStub(channel)
                for error in errors:
                    servicer.error = error
                    with pytest.raises(grpc.RpcError) as caught:
                        await stub.GetClose(pb.GetCloseRequest(), timeout=10)
                    seen.append((caught.value.code(), from_rpc_error(caught.value)))
        finally:
            await server.stop(None)
        return seen

    return asyncio.run(run())


EXPECTED = {
    "MALFORMED_MESSAGE": Code.INVALID_ARGUMENT,
    "BAD_KEY": Code.INVALID_ARGUMENT,
    "WRONG_LENGTH": Code.INVALID_ARGUMENT,
    "WRONG_BOX_LENGTH": Code.INVALID_ARGUMENT,
    "WRONG_PHASE": Code.FAILED_PRECONDITION,
    "SESSION_OVER": Code.FAILED_PRECONDITION,
    "UNKNOWN_IDENTITY": Code.PERMISSION_DENIED,
    "UNKNOWN_SESSION": Code.NOT_FOUND,
    "BAD_SIGNATURE": Code.UNAUTHENTICATED,
    "EQUIVOCATION": Code.ALREADY_EXISTS,
    "COHORT_FULL": Code.RESOURCE_EXHAUSTED,
}


def test_the_codes_that_clients_in_other_languages_rely_on():
    assert {name: reject_code(RejectReason[name]) for name in EXPECTED} == EXPECTED


def test_every_reason_crosses_a_real_server():
    errors = [RemoteProtocolError(reason, f"field: \u00e9 {i}") for i, reason in enumerate(RejectReason)]
    for error, (code, back) in zip(errors, over_grpc(*errors), strict=True):
        assert code is reject_code(error.reason) is not Code.OK
        if error.reason is RejectReason.STORE_UNAVAILABLE:
            assert back is None
            continue
        assert type(back) is RemoteProtocolError
        assert (back.reason, back.detail) == (error.reason, error.detail)


def test_details_of_any_length_cross_a_real_server():
    details = ["", "x" * 100_000, "\u20ac" * 100_000, "\U0001f600" * 512, "a\ud800b", "line\nbreak\x00%", "\x7f" * 512]
    errors = [RemoteProtocolError(RejectReason.BAD_KEY, detail) for detail in details]
    for detail, (code, back) in zip(details, over_grpc(*errors), strict=True):
        assert code is Code.INVALID_ARGUMENT
        assert back.reason is RejectReason.BAD_KEY
        assert len(back.detail.encode()) <= status.MAX_DETAIL_BYTES
        clean = detail.encode("utf-8", "replace").decode()
        assert clean.startswith(back.detail)
        assert len(back.detail) >= min(len(detail), 128)


def test_a_fault_of_the_coordinator_is_internal_and_keeps_its_reason():
    [(code, back)] = over_grpc(LocalProtocolError(RejectReason.WRONG_PHASE, "no row"))
    assert code is Code.INTERNAL
    assert (type(back), back.reason, back.detail) == (RemoteProtocolError, RejectReason.WRONG_PHASE, "no row")


UPLOADS = {
    "the chunk leaves a gap": Code.OUT_OF_RANGE,
    "the upload is incomplete": Code.OUT_OF_RANGE,
    "the chunk has another CRC-32": Code.DATA_LOSS,
    "the bytes have another digest": Code.DATA_LOSS,
    "the chunk goes beyond the declared length": Code.INVALID_ARGUMENT,
    "the upload was begun with another length or digest": Code.ALREADY_EXISTS,
    "unknown upload": Code.NOT_FOUND,
    "an upload token is 32 hexadecimal digits": Code.INVALID_ARGUMENT,
    "an upload has a length and 32 bytes of digest": Code.INVALID_ARGUMENT,
    "a text of tomorrow": Code.INVALID_ARGUMENT,
}


def test_upload_errors_cross_a_real_server_with_the_place_to_go_on():
    errors = [UploadError(text, 2**40 + i) for i, text in enumerate(UPLOADS)]
    for error, (code, back) in zip(errors, over_grpc(*errors), strict=True):
        assert code is UPLOADS[error.reason]
        assert type(back) is UploadError
        assert (back.reason, back.committed_bytes) == (error.reason, error.committed_bytes)


def test_every_text_of_an_upload_error_in_the_code_has_its_reason():
    found = set()
    for path in [*(ROOT / "secagg" / "store").glob("*.py"), *(ROOT / "secagg" / "runtime").glob("*.py")]:
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UploadError":
                text = node.args[0]
                if isinstance(text, ast.JoinedStr):  # The one number in these texts is the length of a digest.
                    found.add(
                        "".join(
                            getattr(part, "value", "32") if isinstance(part, ast.Constant) else "32"
                            for part in text.values
                        )
                    )
                else:
                    found.add(ast.literal_eval(text))
    assert found == set(status._UPLOAD_REASONS)
    assert set(UPLOADS) - found == {"a text of tomorrow"}


def test_a_gap_in_a_real_store_says_where_to_go_on():
    store = MemoryBlobStore()
    store.begin_upload("0" * 32, 100, bytes(32))
    with pytest.raises(UploadError) as caught:
        store.write_chunk("0" * 32, 8, b"", 0)
    encoded = to_status(caught.value)
    assert encoded.code == Code.OUT_OF_RANGE.value[0]
    assert info_of(encoded).reason == "UPLOAD_OFFSET_MISMATCH"
    assert info_of(encoded).metadata["committed_bytes"] == "0"


def test_a_failing_store_is_worth_retrying_and_says_nothing_of_itself():
    errors = [kind("/var/lib/secagg/secret.db") for kind in (StoreError, StaleStoreError, VersionConflictError)]
    assert over_grpc(*errors) == [(Code.UNAVAILABLE, None)] * 3
    for error in errors:
        assert b"secret.db" not in to_status(error).SerializeToString()


def test_a_status_is_what_the_contract_says():
    encoded = to_status(RemoteProtocolError(RejectReason.BAD_KEY, "mask_public: short"))
    assert type(encoded) is status_pb2.Status
    assert len(encoded.details) == 1
    info = info_of(encoded)
    assert (info.reason, info.domain, dict(info.metadata)) == ("BAD_KEY", "secagg.v1", {"detail": "mask_public: short"})
    assert encoded.message == "a public key is malformed or does not match its signed digest (mask_public: short)"
    assert not info_of(to_status(RemoteProtocolError(RejectReason.BAD_KEY))).metadata


def test_a_crashed_handler_and_a_dead_server_are_worth_retrying():
    assert over_grpc(None) == [(Code.UNKNOWN, None)]

    async def call_nobody():
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                await rpc.AggregationServiceStub(channel).GetClose(pb.GetCloseRequest(), timeout=10)
            return caught.value

    error = asyncio.run(call_nobody())
    assert error.code() is Code.UNAVAILABLE
    assert from_rpc_error(error) is None


def test_a_method_that_the_server_does_not_have_is_not_worth_retrying():
    async def run():
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(grpc.RpcError) as caught:
                    await rpc.AggregationServiceStub(channel).GetClose(pb.GetCloseRequest(), timeout=10)
                return from_rpc_error(caught.value)
        finally:
            await server.stop(None)

    back = asyncio.run(run())
    assert (back.reason, back.detail) == (RejectReason.MALFORMED_MESSAGE, "status: UNIMPLEMENTED without a reason")


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_a_failure_without_a_reason_is_retried_only_where_that_can_help(code):
    retried = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"}
    for error in (failed(code), failed(code, (status.DETAILS_KEY, b"\xff\xff")), failed(code, ("other-bin", b"x"))):
        assert (from_rpc_error(error) is None) == (code.name in retried)


def a_status(**members) -> status_pb2.Status:
    encoded = status_pb2.Status(code=3)
    encoded.details.add().Pack(error_details_pb2.ErrorInfo(**{"domain": "secagg.v1", **members}))
    return encoded


def test_a_reason_of_another_domain_is_not_ours():
    assert from_rpc_error(answered(a_status(reason="BAD_KEY", domain="googleapis.com"))) is None


def test_a_reason_of_a_later_version_is_refused_by_name():
    back = from_rpc_error(answered(a_status(reason="TOO_WARM")))
    assert (back.reason, back.detail) == (RejectReason.MALFORMED_MESSAGE, "status: unknown reason TOO_WARM")


@pytest.mark.parametrize("text", ["", "-1", "1e3", "9" * 19, "9" * 5000, " 1", "\u0661", "0x10"])
def test_a_place_to_go_on_that_is_no_number_of_bytes_is_refused(text):
    back = from_rpc_error(answered(a_status(reason="UPLOAD_OFFSET_MISMATCH", metadata={"committed_bytes": text})))
    assert type(back) is RemoteProtocolError
    assert (back.reason, back.detail) == (
        RejectReason.MALFORMED_MESSAGE,
        "committed_bytes: expected a byte count",
    )


@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(
            lambda reason, metadata: a_status(reason=reason, metadata=metadata).SerializeToString(),
            st.one_of(st.text(max_size=9), st.sampled_from([*RejectReason.__members__])),
            st.dictionaries(
                st.one_of(st.text(max_size=5), st.sampled_from(("detail", "committed_bytes"))),
                st.text(max_size=9),
                max_size=3,
            ),
        ),
    )
)
def test_whatever_a_server_says_of_itself_is_an_answer(data):
    back = from_rpc_error(failed(Code.INVALID_ARGUMENT, (status.DETAILS_KEY, data)))
    assert back is None or isinstance(back, RemoteProtocolError | UploadError)
