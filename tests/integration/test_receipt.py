"""Proofs of contribution over the real service: what they prove to somebody who has nothing but the log's key."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from secagg.client import Coordinator, connect
from secagg.crypto.notes import log_key, open_checkpoint
from secagg.crypto.signing import SigningKey, verify_statement
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import ClosedList
from secagg.protocol.phases import Phase
from secagg.protocol.session import ClientPolicy
from secagg.remote import GrpcCoordinator
from secagg.remote_operator import end_phase
from secagg.store.log_files import RecordFiles
from secagg.transcript import merkle
from secagg.transcript.entries import SessionClose, decode_entry
from secagg.transcript.proof import LogProof
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.tiles import decode_bundle
from tests.support.audit import complaints
from tests.support.cohort import key_of
from tests.support.published import ORIGIN, evidence_of
from tests.support.service import RunningService, open_example_session, serving, tiny_adapter

NAMES = ("ada", "bob", "cy", "di", "eve")
LOST = "eve"
"""Shares her keys, and her upload never arrives."""


class Site:
    """A coordinator that serves, and the contributors who know it."""

    def __init__(self, service: RunningService, directory: Path) -> None:
        self.service = service
        self.directory = directory
        self.record = service.state / "record"
        self.adapters = [tiny_adapter(directory / name, number) for number, name in enumerate(NAMES)]

    async def session(self, names: tuple[str, ...] = NAMES) -> bytes:
        """One session to its end; what becomes of each contributor is its own business."""
        keys = [key_of(name) for name in names]
        parameters = await open_example_session(self.service, keys, self.adapters[0])
        running = [
            asyncio.ensure_future(self._contribute(parameters.session, self.adapters[NAMES.index(name)], key_of(name)))
            for name in names
        ]
        host = await self.service.registry.find(parameters.session)
        if LOST in names:
            async with asyncio.timeout(60):
                while (host.status().phase, host.status().received) != (Phase.MASKED_INPUT, len(names) - 1):
                    await asyncio.sleep(0.01)  # a poll
            with pytest.raises(RemoteProtocolError) as caught:
                await self.proof(parameters.session, key_of("ada"))
            assert caught.value.reason is RejectReason.WRONG_PHASE
            await end_phase(self.service.state, parameters.session, Phase.MASKED_INPUT, 10.0)
        await asyncio.gather(*running)
        return parameters.session

    async def _contribute(self, session: bytes, adapter: Path, identity: SigningKey) -> None:
        async with await self.connected() as coordinator:
            state = self.directory / "clients"
            participation = await coordinator.contribute(session, adapter, identity, state, ClientPolicy())
            if identity.public_bytes != key_of(LOST).public_bytes:
                await participation.result()
                return
            with pytest.raises(ProtocolError) as caught:
                await participation.result()
            assert caught.value.reason is RejectReason.LEFT_OUT

    async def connected(self) -> Coordinator:
        return await connect(self.service.address, self.service.key, self.service.tls)

    async def proof(self, session: bytes, identity: SigningKey) -> LogProof:
        async with await self.connected() as coordinator:
            return await coordinator.contribution_proof(session, identity.public_bytes)

    def entries(self) -> list[bytes]:
        """Of a log that is shorter than a bundle."""
        record = RecordFiles(self.record)
        names = [name for name in record.names() if name.startswith("tile/entries/000.p/")]
        return list(decode_bundle(record.read(max(names, key=lambda name: int(Path(name).name))) or b""))


@asynccontextmanager
async def site_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    upload, lost = GrpcCoordinator.upload, key_of(LOST).public_bytes

    async def uploaded(port: Any, session: bytes, message: Any, blobs: Any) -> Any:
        if message.signed.statement.identity == lost:
            await asyncio.Event().wait()
        return await upload(port, session, message, blobs)

    monkeypatch.setattr(GrpcCoordinator, "upload", uploaded)
    async with serving(directory / "coordinator") as service:
        yield Site(service, directory)


def check(proof: LogProof, identity: SigningKey, session: bytes) -> tuple[SessionClose, int]:
    """What anybody can check who knows the log's key; the close entry and the position in its set."""
    again = LogProof.parse(proof.to_bytes())
    assert again == proof
    log = log_key(ORIGIN, key_of("coordinator").public_bytes)
    checkpoint = open_checkpoint(again.checkpoint, log, ()).checkpoint
    inner = ContributionProof.from_bytes(again.extra)
    leaf = merkle.leaf_hash(inner.close.encode())
    merkle.verify_inclusion(leaf, again.index, checkpoint.size, again.path, checkpoint.root)
    close = decode_entry(inner.close.encode())
    assert isinstance(close, SessionClose)
    assert close.session == session
    statement = inner.contribution.statement
    assert statement.identity == identity.public_bytes
    verify_statement(identity.public_bytes, statement.to_bytes(), inner.contribution.signature)
    leaf = merkle.leaf_hash(inner.contribution.to_bytes())
    merkle.verify_inclusion(leaf, inner.position, close.count, inner.path, close.contributions)
    return close, inner.position


def test_everybody_who_is_in_the_sum_can_prove_it_and_who_was_left_out_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with site_in(tmp_path, monkeypatch) as site:
            session = await site.session()
            positions = set()
            for name in NAMES:
                if name == LOST:
                    continue
                proof = await site.proof(session, key_of(name))
                close, position = check(proof, key_of(name), session)
                assert close.count == len(NAMES) - 1
                positions.add(position)
                assert complaints(site.record, receipt=proof.to_bytes()) == []
            assert positions == set(range(len(NAMES) - 1))
            for stranger in (LOST, "nobody"):
                with pytest.raises(RemoteProtocolError) as caught:
                    await site.proof(session, key_of(stranger))
                assert caught.value.reason is RejectReason.LEFT_OUT

    asyncio.run(run())


def test_a_proof_holds_in_a_log_that_other_sessions_share_and_names_the_place_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with site_in(tmp_path, monkeypatch) as site:
            first = await site.session(NAMES[:3])
            early = await site.proof(first, key_of("ada"))
            second = await site.session(NAMES[:4])
            late = await site.proof(first, key_of("ada"))
            other = await site.proof(second, key_of("ada"))
            log = log_key(ORIGIN, key_of("coordinator").public_bytes)
            sizes = [open_checkpoint(each.checkpoint, log, ()).checkpoint.size for each in (early, late, other)]
            assert sizes == [6, 12, 12]  # each session with its roster's entry before it
            for proof, session in ((early, first), (late, first), (other, second)):
                check(proof, key_of("ada"), session)
                assert complaints(site.record, receipt=proof.to_bytes()) == []
                assert site.entries()[proof.index].decode() == ContributionProof.from_bytes(proof.extra).close
            assert (early.index, late.index, other.index) == (4, 4, 10)

    asyncio.run(run())


def test_a_proof_that_was_changed_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with site_in(tmp_path, monkeypatch) as site:
            session = await site.session(NAMES[:4])
            proof, other = [await site.proof(session, key_of(name)) for name in NAMES[:2]]
            inner, theirs = (ContributionProof.from_bytes(each.extra) for each in (proof, other))

            def with_inner(**changes: Any) -> LogProof:
                return dataclasses.replace(proof, extra=dataclasses.replace(inner, **changes).to_bytes())

            changed = [
                dataclasses.replace(proof, index=proof.index - 1),
                dataclasses.replace(proof, path=(bytes(32), *proof.path[1:])),
                with_inner(contribution=theirs.contribution),
                with_inner(position=theirs.position),
                with_inner(path=theirs.path),
            ]
            for bad in changed:
                assert complaints(site.record, receipt=bad.to_bytes()) != []

    asyncio.run(run())


class LyingPort:
    """A coordinator that says of the closed set what it likes."""

    def __init__(self, port: GrpcCoordinator, lie: Any) -> None:
        self._port, self._lie = port, lie

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def closed_list(self, session: bytes) -> ClosedList:
        return self._lie(await self._port.closed_list(session))


def test_a_list_that_is_not_under_the_close_entry_gives_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with site_in(tmp_path, monkeypatch) as site:
            session = await site.session()
            key, entries = key_of("coordinator"), site.entries()
            other = dataclasses.replace(decode_entry(entries[4]), count=len(NAMES)).to_bytes()
            lies = {
                "a leaf fewer": lambda shown: dataclasses.replace(shown, leaves=shown.leaves[:-1]),
                "another order": lambda shown: dataclasses.replace(shown, leaves=shown.leaves[::-1]),
                "no close entry": lambda shown: dataclasses.replace(
                    shown, evidence=dataclasses.replace(shown.evidence, entries=shown.evidence.entries[:3])
                ),
                "another log": lambda shown: dataclasses.replace(
                    shown, evidence=evidence_of(key, [*entries[1:4], other, entries[5]], before=entries[:1])
                ),
            }
            for name, lie in lies.items():
                async with await site.connected() as coordinator:
                    coordinator.port = LyingPort(coordinator.port, lie)
                    with pytest.raises(RemoteProtocolError) as caught:
                        await coordinator.contribution_proof(session, key_of("ada").public_bytes)
                    expected = {RejectReason.LOG_MISMATCH, RejectReason.LOG_SIGNATURE, RejectReason.LOG_FORKED}
                    assert caught.value.reason in expected, name

    asyncio.run(run())
