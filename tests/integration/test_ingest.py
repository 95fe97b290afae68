"""Uploads taken by ingest processes: the same sum as without them, whatever happens to them on the way."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from secagg.arith.linear_hash import LimbSum
from secagg.identity.channels import channel_to
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import tables
from secagg.protocol.phases import Phase
from secagg.runtime import vectors
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StoreError, UploadError
from secagg.services import ingest_processes
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire.status import from_rpc_error
from tests.support.ingest import CALL_S, IngestSite, ingest_site

COUNT = 6


def play(script: Callable[[IngestSite], Awaitable[None]], processes: int = 2, contributors: int = COUNT) -> None:
    async def run() -> None:
        # Not tmp_path: the paths of sockets have to be short.
        with tempfile.TemporaryDirectory(prefix="secagg-") as name:
            async with ingest_site(Path(name), contributors, processes) as site:
                await script(site)

    asyncio.run(run())


async def close_exactly(site: IngestSite) -> None:
    """Everybody has uploaded: the limb sum is that of the uploads, and the sum that of the vectors."""
    await site.cohort.reach(Phase.FINISHED)
    close = tables.close_entry(site.cohort.host.rows)
    uploads = [one.upload for one in site.cohort.contributors]
    total = LimbSum(len(uploads[0]) // 8)
    for upload in uploads:
        total.add_lanes(np.frombuffer(upload, dtype=np.uint64))
    assert close.limb_sum == hashlib.sha256(vectors.as_bytes(total.entries)).digest()
    assert close.count == len(uploads)
    assert list(np.flatnonzero(site.cohort.integer_sum())) == list(range(len(uploads)))


async def refusal(site: IngestSite, port: int, method: str, *requests: Any) -> Any:
    """What a call at a port ends with, as a client understands it."""
    async with channel_to(f"127.0.0.1:{port}", site.tls) as channel:
        call = getattr(pb_grpc.AggregationServiceStub(channel), method)
        argument = iter(requests) if method == "StreamChunks" else requests[0]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(argument, timeout=CALL_S)
    return from_rpc_error(caught.value) or caught.value


def chunk(token: str, data: bytes, offset: int = 0) -> dict[str, Any]:
    return {"token": token, "offset_bytes": offset, "data": data, "crc32": zlib.crc32(data)}


def test_sums_of_ingest_processes_are_adopted_and_no_upload_is_read_again() -> None:
    async def script(site: IngestSite) -> None:
        await site.upload(*range(COUNT - 1))
        await site.added()
        assert [life.server._desk._sums[site.session]._sum.limb_sum.contributors for life in site.lives.values()] == [
            3,
            2,
        ]
        await site.upload(COUNT - 1)
        await close_exactly(site)
        assert site.blobs.reads == 0
        assert not [*site.state.glob("ingest-*/uploads/*"), *site.state.glob("ingest-*/sums/*")]

    play(script)


def test_a_client_that_knows_of_no_ingest_port_uploads_to_the_coordinator() -> None:
    async def script(site: IngestSite) -> None:
        for number in range(COUNT):
            async with site.client() as port:
                if number % 2:
                    port._channel_to_port = None
                await site.upload_by(port, site.cohort.contributors[number])
        await close_exactly(site)
        assert site.blobs.reads == COUNT // 2

    play(script)


def test_a_client_that_cannot_reach_the_ingest_port_uploads_to_the_coordinator() -> None:
    async def script(site: IngestSite) -> None:
        async with site.client() as port:
            port._channel_to_port = lambda _: channel_to("127.0.0.1:1", site.tls)
            port._timeout_s = 1.0
            for one in site.cohort.contributors:
                await site.upload_by(port, one)
        await close_exactly(site)

    play(script)


def test_what_a_killed_process_had_added_up_is_read_from_the_blobs() -> None:
    async def script(site: IngestSite) -> None:
        await site.upload(*range(COUNT - 1))
        await site.added()
        await site.end(0)
        assert (await site.announce(next(n for n in range(COUNT) if site.place_of(n) == 0))).ingest_port == 0
        await site.begin(0)
        await site.upload(COUNT - 1)
        await close_exactly(site)
        assert 0 < site.blobs.reads < COUNT

    play(script)


@pytest.mark.parametrize("reported", [False, True])
def test_a_process_that_dies_before_or_after_its_report_loses_nothing(reported: bool) -> None:
    async def script(site: IngestSite) -> None:
        life = site.lives[0]
        count, died = life.server._office.count, asyncio.Event()

        async def dies(token: str) -> Any:
            if reported:
                await count(token)
            died.set()
            await asyncio.Event().wait()

        life.server._office.count = dies
        async with site.client() as port:
            uploading = asyncio.ensure_future(site.upload_by(port, site.cohort.contributors[0]))
            await asyncio.wait_for(died.wait(), CALL_S)
            identity = site.cohort.contributors[0].identity
            assert site.cohort.host.is_staged(identity) is reported
            await site.end(0)
            await uploading  # the client has gone on by itself
            assert site.cohort.host.is_staged(identity)
        await site.upload(*range(1, COUNT))
        await close_exactly(site)

    play(script, processes=1)


def test_an_upload_goes_on_at_a_process_that_was_started_again() -> None:
    async def script(site: IngestSite) -> None:
        started, upload = await site.announce(0), site.cohort.contributors[0].upload
        half = upload[: len(upload) // 2]
        async with channel_to(f"127.0.0.1:{started.ingest_port}", site.tls) as channel:
            stub = pb_grpc.AggregationServiceStub(channel)
            await stub.WriteChunk(pb.WriteChunkRequest(**chunk(started.token, half)), timeout=CALL_S)
        await site.end(0)
        await site.begin(0)
        again = await site.announce(0)
        assert (again.token, again.committed_bytes, again.ingest_committed_bytes) == (started.token, 0, len(half))
        await site.upload(*range(COUNT))
        await close_exactly(site)

    play(script, processes=1)


def test_an_upload_that_came_in_both_ways_counts_once() -> None:
    async def script(site: IngestSite) -> None:
        started, upload = await site.announce(0), site.cohort.contributors[0].upload
        requests = [pb.StreamChunksRequest(**chunk(started.token, upload))]
        receipts = []
        for port in (site.port, started.ingest_port, site.port, started.ingest_port):
            async with channel_to(f"127.0.0.1:{port}", site.tls) as channel:
                stub = pb_grpc.AggregationServiceStub(channel)
                receipts.append(await stub.StreamChunks(iter(requests), timeout=CALL_S))
        assert len({receipt.SerializeToString() for receipt in receipts}) == 1
        await site.upload(*range(1, COUNT))
        await close_exactly(site)

    play(script, processes=1)


def test_a_sum_that_is_damaged_or_late_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_processes, "_HAND_OVER_S", 0.2)

    async def script(site: IngestSite) -> None:
        def damaged(session: bytes, total: Any) -> None:
            (site.state / "ingest-0" / "sums" / f"{session.hex()}.sum").write_bytes(b"no sum")

        async def late(session: bytes) -> None:
            await asyncio.Event().wait()

        site.lives[0].server._directory.put_sum = damaged
        site.lives[1].server._desk.hand_over = late
        await site.upload(*range(COUNT))
        await close_exactly(site)
        (reports,) = [each for each in site.cohort.reports if isinstance(each, list)]
        assert {(event, reason) for event, _, reason in reports} == {
            ("ingest_sum_missing", StoreError.__name__),
            ("ingest_sum_missing", "timeout"),
        }

    play(script)


def test_a_sum_with_wrong_entries_never_gets_into_a_close() -> None:
    async def script(site: IngestSite) -> None:
        directory = site.lives[0].server._directory
        put_sum = directory.put_sum

        def wrong(session: bytes, total: Any) -> None:
            total.limb_sum._entries[7] += 1
            put_sum(session, total)

        directory.put_sum = wrong
        await site.upload(*range(COUNT))
        await close_exactly(site)

    play(script, processes=1)


def test_chunks_are_smaller_the_more_uploads_are_under_way() -> None:
    async def script(site: IngestSite) -> None:
        desk = site.server._uploads
        assert (await site.announce(0)).preferred_chunk_bytes == 1 << 20
        assert (await site.announce(0)).preferred_chunk_bytes == 1 << 20
        assert desk.under_way() == 1, "announced again is no other upload"
        now_s = asyncio.get_running_loop().time()
        desk._announced_s = {f"{number:032x}": now_s - 61 for number in range(1000)} | {
            f"{number:032x}": now_s for number in range(1000, 1127)
        }
        assert (await site.announce(0)).preferred_chunk_bytes == 256 << 10
        assert desk.under_way() == 128, "those of more than a minute ago are not counted"
        await site.upload(*range(COUNT))
        assert desk.under_way() == 127
        await close_exactly(site)

    play(script)


# Adversaries.


def test_an_ingest_process_serves_nothing_but_uploads() -> None:
    async def script(site: IngestSite) -> None:
        request = pb.GetSessionRequest(session=site.session)
        error = await refusal(site, site.lives[0].port, "GetSession", request)
        assert "UNIMPLEMENTED" in str(error)

    play(script, processes=1)


@pytest.mark.parametrize("token", ["", "0" * 32, "../../../../etc/passwd", "no token"])
def test_a_token_that_was_never_given_out_is_refused(token: str) -> None:
    async def script(site: IngestSite) -> None:
        for method, request in (
            ("WriteChunk", pb.WriteChunkRequest(**chunk(token, b"x"))),
            ("StreamChunks", pb.StreamChunksRequest(**chunk(token, b"x"))),
            ("FinishUpload", pb.FinishUploadRequest(token=token)),
        ):
            error = await refusal(site, site.lives[0].port, method, request)
            assert isinstance(error, RemoteProtocolError)
            assert error.reason is RejectReason.UNKNOWN_UPLOAD
        assert not list(site.state.glob("ingest-0/uploads/*"))

    play(script, processes=1)


def test_bytes_that_are_not_those_of_the_header_do_not_count_and_block_nobody() -> None:
    async def script(site: IngestSite) -> None:
        started = await site.announce(0)
        other = site.cohort.contributors[1].upload  # of the right length, under somebody else's token
        port = site.lives[0].port
        error = await refusal(site, port, "StreamChunks", pb.StreamChunksRequest(**chunk(started.token, other)))
        assert isinstance(error, UploadError)
        assert (error.reason, error.committed_bytes) == ("the bytes have another digest", 0)
        assert not site.cohort.host.is_staged(site.cohort.contributors[0].identity)
        await site.upload(*range(COUNT))
        await close_exactly(site)

    play(script, processes=1)


def test_more_bytes_than_were_declared_are_refused() -> None:
    async def script(site: IngestSite) -> None:
        started, upload = await site.announce(0), site.cohort.contributors[0].upload
        port = site.lives[0].port
        for data, reason in (
            (upload + b"x", "the chunk goes beyond the declared length"),
            (upload[:8], "the chunk leaves a gap"),
        ):
            offset = 0 if len(data) > 8 else 16
            request = pb.WriteChunkRequest(**chunk(started.token, data, offset))
            error = await refusal(site, port, "WriteChunk", request)
            assert (error.reason, error.committed_bytes) == (reason, 0)
        large = pb.WriteChunkRequest(**chunk(started.token, bytes((1 << 20) + 1)))
        assert (await refusal(site, port, "WriteChunk", large)).reason is RejectReason.CHUNK_TOO_LARGE
        unfinished = await refusal(site, port, "FinishUpload", pb.FinishUploadRequest(token=started.token))
        assert unfinished.reason == "the upload is incomplete"

    play(script, processes=1)


def test_after_the_session_nothing_is_taken_and_nothing_is_left() -> None:
    async def script(site: IngestSite) -> None:
        started = await site.announce(COUNT - 1)
        data = site.cohort.contributors[COUNT - 1].upload[:8]
        async with channel_to(f"127.0.0.1:{started.ingest_port}", site.tls) as channel:
            stub = pb_grpc.AggregationServiceStub(channel)
            await stub.WriteChunk(pb.WriteChunkRequest(**chunk(started.token, data)), timeout=CALL_S)
        assert list(site.state.glob("ingest-0/uploads/*"))
        await site.upload(*range(COUNT - 1))
        await site.cohort.host.end_phase(Phase.MASKED_INPUT)
        await site.cohort.reach(Phase.FINISHED)
        async with asyncio.timeout(CALL_S):
            while list(site.state.glob("ingest-0/uploads/*")):
                await asyncio.sleep(0.001)
        request = pb.WriteChunkRequest(**chunk(started.token, data))
        error = await refusal(site, started.ingest_port, "WriteChunk", request)
        assert error.reason is RejectReason.UNKNOWN_UPLOAD
        async with site.client() as port:
            with pytest.raises((RemoteProtocolError, TransportError)):
                await site.upload_by(port, site.cohort.contributors[COUNT - 1])

    play(script, processes=1)
