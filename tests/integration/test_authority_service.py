"""A key authority over gRPC with TLS, its sessions sealed on disk."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from secagg.cli.authority_serving import serve
from secagg.cli.daemon import socket_of
from secagg.crypto.labels import Label
from secagg.crypto.rng import SystemRng
from secagg.identity.authority_config import AuthorityConfig
from secagg.identity.cards import AuthorityCard
from secagg.identity.keys import KeyKind, create_key_file, load_key_file
from secagg.identity.tls import create_certificate, load_server_tls
from secagg.identity.transport import TlsFiles
from secagg.institutions import GrpcAuthority, Institutions, prepare
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.runtime.institutions import DecryptRequest
from secagg.runtime.key_authority import AuthorityPorts, KeyAuthorityHost
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StoreError
from secagg.services.authority import AuthorityServer
from secagg.services.logs import EventLog
from secagg.store.authority_state import JOURNAL_FILE, SESSIONS_FILE, AuthorityState
from secagg.store.opening_journal import read_journal
from secagg.store.sealed import SealedSessionStore
from secagg.transcript.statements import AuthorityAnswer
from secagg.v1 import opening_pb2 as opb
from secagg.v1 import opening_pb2_grpc as opb_grpc
from tests.support.authority_stage import (
    ATTESTORS,
    AUTHORITY,
    CLIENTS,
    COORDINATOR,
    SESSION,
    Closed,
    Upload,
    encryption_of,
    secret_of,
    stage_of,
)
from tests.support.cohort import VirtualClock, key_of
from tests.support.he_attacks import key_probe
from tests.support.one_shot import WITNESSED
from tests.support.published import ORIGIN
from tests.support.rng import CountingRng

STAGE = stage_of()
TIMEOUT_S = 20.0


@asynccontextmanager
async def served(home: Path) -> AsyncIterator[AuthorityCard]:
    """The authority of the stage, with everything it keeps below ``home``; its card."""
    if not home.exists():
        home.mkdir()
        create_certificate(home, ["localhost", "127.0.0.1"], 1_700_000_000, 3650)
        AuthorityState.create(home / "state")
    state = AuthorityState(home / "state")
    sealed = SealedSessionStore(state.sessions, AUTHORITY.key.derive_seed(Label.STORE_KEY).expose(), SystemRng().bytes)
    ports = AuthorityPorts(sealed, state.journal, VirtualClock(), CountingRng(b"authority"), state.memory_of)
    server = AuthorityServer(KeyAuthorityHost(AUTHORITY, ports), "authority", EventLog())
    config = AuthorityConfig.from_toml(
        'name = "x"\naddress = "localhost:1"\nstate_directory = "s"\nkey_file = "k"\n'
        f'transport = "loopback-plaintext"\nlisten = "127.0.0.1:0"\n'
        f'attestors = ["{ATTESTORS[0].public_bytes.hex()}"]\n'
    )
    try:
        port = await server.start(socket_of(config.listen, load_server_tls(home / "tls.crt", home / "tls.key", None)))
        pem = (home / "tls.crt").read_text()
        keys = tuple(each.public_bytes for each in ATTESTORS)
        yield AuthorityCard("authority", AUTHORITY.key.public_bytes, f"127.0.0.1:{port}", pem, keys, 2)
    finally:
        await server.stop()
        await state.close()


@asynccontextmanager
async def connected(card: AuthorityCard) -> AsyncIterator[GrpcAuthority]:
    port = GrpcAuthority(card, TIMEOUT_S)
    try:
        yield port
    finally:
        await port.close()


async def refusal(port: GrpcAuthority, request: DecryptRequest, session: bytes = SESSION) -> RejectReason:
    with pytest.raises(RemoteProtocolError) as caught:
        await port.decrypt(session, request)
    return caught.value.reason


def test_a_session_over_tls_from_its_key_to_its_answer_and_again_after_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "authority"

    async def play() -> None:
        async with served(home) as card, connected(card) as port:
            assert await port.log_size(ORIGIN) == 0
            made = await prepare(card, SESSION, COORDINATOR.public_bytes)
            assert made == await port.prepare(SESSION, COORDINATOR.public_bytes)
            assert made.checked(SESSION, COORDINATOR.public_bytes, card.identity) == STAGE.made.context
        async with served(home) as card, connected(card) as port:
            signed = await port.decrypt(SESSION, STAGE.closed.whole_request())
            assert isinstance(signed.statement, AuthorityAnswer)
            assert np.array_equal(np.frombuffer(signed.statement.secret_sum, "<i4"), STAGE.secret_sum)
            assert await port.log_size(ORIGIN) == 4
            assert await port.log_size("another.example") == 0
        async with served(home) as card, connected(card) as port:
            assert await port.decrypt(SESSION, STAGE.closed.whole_request()) == signed
            with pytest.raises(RemoteProtocolError) as over:
                await port.prepare(SESSION, COORDINATOR.public_bytes)
            assert over.value.reason is RejectReason.SESSION_OVER

    asyncio.run(play())
    lines = read_journal(home / "state" / JOURNAL_FILE)
    assert [(line.outcome, line.close, line.count) for line in lines] == [
        ("ANSWERED", STAGE.closed.close_digest, len(CLIENTS))
    ]
    # What is at rest is sealed, before and after.
    stored = b"".join(path.read_bytes() for path in (home / "state").glob(f"{SESSIONS_FILE}*") if path.is_file())
    seeds = STAGE.made.key.expose()[16:144]
    assert not [start for start in range(0, len(seeds), 16) if seeds[start : start + 16] in stored]


def test_the_two_attacks_fail_over_the_wire_and_the_refusal_of_the_second_is_final(tmp_path: Path) -> None:
    probe = key_probe(encryption_of(STAGE.made), secret_of(5), 1, CountingRng(b"probe"))
    probing = Closed.of((*STAGE.uploads[:5], Upload(CLIENTS[5], STAGE.session, STAGE.uploads[5].lanes, probe)))
    late = dataclasses.replace(probing, committed=STAGE.closed.committed)

    async def play() -> None:
        async with served(tmp_path / "a") as card, connected(card) as port:
            await port.prepare(SESSION, COORDINATOR.public_bytes)
            assert await refusal(port, late.whole_request()) is RejectReason.NOT_COMMITTED
            assert await port.prepare(SESSION, COORDINATOR.public_bytes)
        async with served(tmp_path / "b") as card, connected(card) as port:
            await port.prepare(SESSION, COORDINATOR.public_bytes)
            assert await refusal(port, probing.whole_request()) is RejectReason.WRONG_OPENING
            assert await refusal(port, probing.whole_request()) is RejectReason.WRONG_OPENING
            # The log that it saw is the probing one's: another close is a fork, and the key is gone anyway.
            assert await refusal(port, STAGE.closed.whole_request()) is RejectReason.LOG_FORKED

    asyncio.run(play())
    (line,) = (
        line for line in read_journal(tmp_path / "b" / "state" / JOURNAL_FILE) if line.outcome == "WRONG_OPENING"
    )
    assert line.words == "the decryption is larger than any sum of so many mask secrets"


def test_what_breaks_a_rule_is_refused_with_its_reason_and_changes_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        async with served(tmp_path / "a") as card, connected(card) as port:
            assert await refusal(port, STAGE.closed.whole_request()) is RejectReason.UNKNOWN_SESSION
            await port.prepare(SESSION, COORDINATOR.public_bytes)
            with pytest.raises(RemoteProtocolError) as stranger:
                await port.prepare(SESSION, key_of("stranger").public_bytes)
            assert stranger.value.reason is RejectReason.NOT_SERVED
            few = dataclasses.replace(STAGE.closed.whole_request(), attestations=())
            assert await refusal(port, few) is RejectReason.TOO_FEW_ATTESTATIONS
            assert await refusal(port, STAGE.closed.whole_request(), bytes(16)) is RejectReason.WRONG_SESSION
            longer = dataclasses.replace(STAGE.closed.whole_request(), contributions=STAGE.closed.contributions * 2)
            assert await refusal(port, longer) is RejectReason.LOG_MISMATCH
            short = dataclasses.replace(STAGE.closed.whole_request(), limb_sum=iter([b"short"]))
            assert await refusal(port, short) is RejectReason.WRONG_LENGTH
            endless = dataclasses.replace(STAGE.closed.whole_request(), limb_sum=iter([bytes(1 << 20)] * 64))
            assert await refusal(port, endless) in {RejectReason.WRONG_LENGTH, RejectReason.LOG_MISMATCH}
            assert await port.decrypt(SESSION, STAGE.closed.whole_request())

    asyncio.run(play())


def test_a_refusal_arrives_with_its_reason_however_much_is_still_under_way(tmp_path: Path) -> None:
    async def play() -> None:
        async with served(tmp_path / "a") as card, connected(card) as port:
            await port.prepare(SESSION, COORDINATOR.public_bytes)
            for _ in range(30):
                long = iter([bytes(1 << 20)] * 8)
                few = dataclasses.replace(STAGE.closed.whole_request(), attestations=(), limb_sum=long)
                assert await refusal(port, few) is RejectReason.TOO_FEW_ATTESTATIONS

    asyncio.run(play())


def test_requests_that_are_none_are_malformed(tmp_path: Path) -> None:
    async def play() -> None:
        async with served(tmp_path / "a") as card:
            options = [("grpc.ssl_target_name_override", "localhost")]
            credentials = grpc.ssl_channel_credentials(card.certificate.encode())
            async with grpc.aio.secure_channel(card.address, credentials, options) as channel:
                stub = opb_grpc.AuthorityServiceStub(channel)
                nothing: Iterator[opb.DecryptSumRequest] = iter(())
                for call in (
                    stub.DecryptSum(nothing, timeout=TIMEOUT_S),
                    stub.DecryptSum(iter([opb.DecryptSumRequest(session=SESSION)]), timeout=TIMEOUT_S),
                    stub.PrepareSession(opb.PrepareSessionRequest(session=SESSION), timeout=TIMEOUT_S),
                    stub.GetAuthority(opb.GetAuthorityRequest(), timeout=TIMEOUT_S),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call
                    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                response = await stub.GetAuthority(opb.GetAuthorityRequest(origin=ORIGIN), timeout=TIMEOUT_S)
                assert list(response.attestors) == sorted(each.public_bytes for each in ATTESTORS)
                assert response.attestations == 2

    asyncio.run(play())


def test_a_server_that_is_not_the_cards_is_not_believed(tmp_path: Path) -> None:
    async def play() -> None:
        async with served(tmp_path / "a") as card:
            other = dataclasses.replace(card, identity=key_of("stranger").public_bytes)
            async with connected(other) as port:
                with pytest.raises(RemoteProtocolError) as wrong:
                    await port.log_size(ORIGIN)
                assert wrong.value.reason is RejectReason.BAD_KEY
                with pytest.raises(RemoteProtocolError) as forged:
                    await port.prepare(SESSION, COORDINATOR.public_bytes)
                assert forged.value.reason is RejectReason.BAD_SIGNATURE
            closed_port = card
        async with connected(closed_port) as port:
            with pytest.raises(TransportError):
                await port.log_size(ORIGIN)

    asyncio.run(play())


def test_a_limb_sum_that_cannot_be_read_is_the_senders_own_failure(tmp_path: Path) -> None:
    def torn() -> Iterator[bytes]:
        yield STAGE.closed.limb_sum[:1000]
        raise StoreError("the disk refuses")

    async def play() -> None:
        async with served(tmp_path / "a") as card, connected(card) as port:
            await port.prepare(SESSION, COORDINATOR.public_bytes)
            with pytest.raises(StoreError, match="the disk refuses"):
                await port.decrypt(SESSION, dataclasses.replace(STAGE.closed.whole_request(), limb_sum=torn()))
            assert await port.decrypt(SESSION, STAGE.closed.whole_request())

    asyncio.run(play())


def test_an_authority_is_found_by_its_card(tmp_path: Path) -> None:
    async def play() -> None:
        async with served(tmp_path / "a") as card, Institutions(TIMEOUT_S) as institutions:
            port = institutions.authority(card.to_bytes())
            assert port is institutions.authority(card.to_bytes() + b"\n")
            assert await port.log_size(ORIGIN) == 0
            for data in (b"{}", b"", card.to_bytes()[:-1]):
                with pytest.raises(RemoteProtocolError) as caught:
                    institutions.authority(data)
                assert caught.value.reason is RejectReason.MALFORMED_MESSAGE

    asyncio.run(play())


def test_the_composed_process_serves_with_a_key_of_its_own(tmp_path: Path) -> None:
    files = create_certificate(tmp_path, ["localhost", "127.0.0.1"], 1_700_000_000, 3650)
    identity = create_key_file(tmp_path / "authority.key", KeyKind.KEY_AUTHORITY, None, SystemRng())
    AuthorityState.create(tmp_path / "state")
    config = dataclasses.replace(
        AuthorityConfig.from_toml(
            'name = "A"\naddress = "localhost:7446"\nlisten = "127.0.0.1:0"\nstate_directory = "s"\nkey_file = "k"\n'
            f'transport = "loopback-plaintext"\nattestors = ["{bytes(32).hex()}"]\n'
            f'coordinators = ["{COORDINATOR.public_bytes.hex()}"]\n'
        ),
        state_directory=tmp_path / "state",
        transport=TlsFiles(files.certificate, files.private_key),
        log_policy=tmp_path / "log.policy",
    )
    (tmp_path / "log.policy").write_text(WITNESSED.to_text())
    key = load_key_file(tmp_path / "authority.key", KeyKind.KEY_AUTHORITY, None)

    async def play() -> None:
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        serving = asyncio.ensure_future(serve(config, key, ready.set_result, stop))
        port = await ready
        card = AuthorityCard("A", identity, f"127.0.0.1:{port}", files.certificate.read_text(), (bytes(32),), 1)
        first = await prepare(card, SESSION, COORDINATOR.public_bytes)
        assert first == await prepare(card, SESSION, COORDINATOR.public_bytes)
        assert first.context != (await prepare(card, bytes(16), COORDINATOR.public_bytes)).context
        stop.set()
        await serving

    asyncio.run(play())
