"""Merges that take two sessions, over a real service: small adapters, both sessions, and a coordinator that lies."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from secagg.client import Coordinator, connect
from secagg.crypto.rng import SystemRng
from secagg.crypto.signing import SigningKey
from secagg.lora.fixed import BASIS_FILE
from secagg.lora.layout import Layout
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.pieces import scales_for
from secagg.lora.template import AdapterTemplate
from secagg.lora.update_merging import UpdateMerging
from secagg.lora.writer import write_adapter
from secagg.protocol.rows import SetupRow
from secagg.protocol.session import ClientPolicy
from secagg.protocol.sessions import session_of
from secagg.remote_operator import open_session
from secagg.runtime.clock import SystemClock
from secagg.session_details import Result
from secagg.transcript import canonical
from secagg.transcript.encoding import CoordinateRange, Encoding
from secagg.transcript.entries import Deadlines, PairwiseOpen
from secagg.transcript.merge import (
    BasisMerge,
    LinearMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    contributors_digest,
    is_pilot,
    second_session,
)
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.roster import Roster, RosterMember
from secagg.v1 import aggregation_pb2 as pb
from tests.support.cohort import key_of
from tests.support.service import RunningService

OUTPUTS, COLUMNS, RANK = 24, 20, 4
MODULE = MergedModule("layer.q_proj", "linear", OUTPUTS, COLUMNS)
SEED = b"s" * 32
BOUND = Fraction(8)
RANGE = RangeMerge(BOUND, SEED, 6)
PILOTS = PilotMerge(BOUND, SEED, 6, 1, Fraction(1, 2))
LENIENT = ClientPolicy(tolerated_corrupt=Fraction(0))


def update_of(seed: int) -> np.ndarray:
    """The update of the adapter with this seed, float64[m, n]: all share most of it."""
    a, b = _factors(seed)
    return 2.0 * b.astype(np.float64) @ a.astype(np.float64)


def adapter_in(directory: Path, seed: int) -> Path:
    """An adapter of rank 2 and alpha 4 with that update."""
    name = "base_model.model.layer.q_proj"
    a, b = _factors(seed)
    template = AdapterTemplate("tiny-base", "", "CAUSAL_LM", 2, 4, use_rslora=False, fan_in_fan_out=False)
    write_adapter(directory, template, {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b})
    return directory


def _factors(seed: int) -> tuple[np.ndarray, np.ndarray]:
    common, own = np.random.default_rng(0), np.random.default_rng(1000 + seed)
    a = common.normal(0, 0.3, (2, COLUMNS)) + own.normal(0, 0.05, (2, COLUMNS))
    b = common.normal(0, 0.3, (OUTPUTS, 2)) + own.normal(0, 0.05, (OUTPUTS, 2))
    return a.astype(np.float32), b.astype(np.float32)


def merging_of(merge: LinearMerge) -> UpdateMerging:
    """What sessions with this merge are about."""
    module = dataclasses.replace(MODULE, scales=scales_for(merge, MODULE, RANK, {}))
    manifest = Manifest("tiny-base", "", "CAUSAL_LM", RANK, False, "refuse", (module,))
    return UpdateMerging.of(merge, manifest, counts_clipping=True)


def parameters_of(
    service_key: bytes, identities: Sequence[SigningKey], merge: LinearMerge, **changes: object
) -> PairwiseOpen:
    """A pairwise session for these identities."""
    roster, merging = roster_of(identities), merging_of(merge)
    members = {
        "session": SystemRng().bytes(16),
        "protocol": "pairwise",
        "coordinator": service_key,
        "log": "log.example/secagg",
        "opened_at_s": SystemClock().now_s(),
        "base_model": "tiny-base",
        "base_model_digest": bytes(32),
        "adapter": merging.digest,
        "layout": merging.layout.digest,
        "merge": merge,
        "encoding": Encoding(merging.layout.dimension, 24, 64, 64, Fraction(32), CoordinateRange(Fraction(1))),
        "min_contributors": 3,
        "max_corrupt": 0,
        "expected_dropout": Fraction(0),
        "roster": roster.root(),
        "roster_size": len(roster.members),
        "registrar": key_of("registrar").public_bytes,
        "deadlines": Deadlines(60, 60, 60, 60, 60),
        "noise": NoDifferentialPrivacy(),
        "retention_s": 3600,
    }
    return PairwiseOpen(**{**members, **changes})


def roster_of(identities: Iterable[SigningKey]) -> Roster:
    """Their roster."""
    return Roster.of([RosterMember(key.public_bytes, "") for key in identities])


def request_of(parameters: PairwiseOpen, identities: Sequence[SigningKey], **changes: object) -> pb.OpenSessionRequest:
    """What an operator asks, to open it."""
    registrar, roster, merging = key_of("registrar"), roster_of(identities), merging_of(parameters.merge)
    head = roster.head(registrar.public_bytes).to_bytes()
    members = {
        "parameters": parameters.to_bytes(),
        "roster": roster.leaves(),
        "roster_head": head,
        "roster_signature": registrar.sign_statement(head),
        "layout": canonical.encode(merging.layout.to_json_value()),
        "adapter": canonical.encode(merging.to_json_value()),
    }
    return pb.OpenSessionRequest(**{**members, **changes})


@dataclass
class Two:
    """A service, who may come, and where everybody keeps adapters and state."""

    service: RunningService
    identities: tuple[SigningKey, ...]
    home: Path

    def adapter(self, identity: SigningKey) -> Path:
        """That of an identity: number i of ``identities`` has the one with seed i."""
        number = self.identities.index(identity)
        directory = self.home / f"adapter{number}"
        return directory if directory.exists() else adapter_in(directory, number)

    async def open(self, merge: LinearMerge, **changes: object) -> PairwiseOpen:
        """Open a session through the operator's socket."""
        parameters = parameters_of(self.service.key, self.identities, merge, **changes)
        await open_session(self.service.state, request_of(parameters, self.identities), 30.0)
        return parameters

    def second(
        self, first: PairwiseOpen, basis: bytes, contributors: Iterable[bytes], attempt: int = 0, **changes: object
    ) -> PairwiseOpen:
        """Parameters of an honest second session; ``changes`` are of its merge."""
        merge: ProjectionMerge | BasisMerge
        before, digest = first.merge, hashlib.sha256(basis).digest()
        everybody = tuple(contributors)
        if isinstance(before, RangeMerge):
            merge = ProjectionMerge(
                BOUND, before.seed, before.columns, 4, first.session, digest, contributors_digest(everybody)
            )
        else:
            assert isinstance(before, PilotMerge)
            merge = BasisMerge(BOUND, before.seed, before.columns, before.sides, 4, before.share, first.session, digest)
        merge = dataclasses.replace(merge, **changes)
        least = len(everybody) if isinstance(merge, ProjectionMerge) else 3
        session = second_session(first.session, attempt)
        return parameters_of(self.service.key, self.identities, merge, session=session, min_contributors=least)

    async def open_second(self, parameters: PairwiseOpen, **changes: object) -> bytes:
        """Ask the operator's service to open it."""
        return await open_session(self.service.state, request_of(parameters, self.identities, **changes), 30.0)

    async def open_lying(self, parameters: PairwiseOpen, basis: bytes) -> None:
        """Open a session as a coordinator does that checks nothing: past the operator's service."""
        request, blobs = request_of(parameters, self.identities), self.service.registry.ports.blobs
        setup = SetupRow(
            roster=blobs.put(b"".join(leaf + b"\n" for leaf in request.roster)),
            roster_head=request.roster_head,
            roster_signature=request.roster_signature,
            layout=blobs.put(request.layout),
            adapter=blobs.put(request.adapter),
            fixed=blobs.put(basis),
        )
        await self.service.registry.open(session_of(parameters, roster_of(self.identities)), setup)

    async def connected(self) -> Coordinator:
        """The client library's coordinator; nothing is remembered of the log."""
        return await connect(self.service.address, self.service.key, self.service.tls)

    async def contribute(self, session: bytes, identity: SigningKey, adapter: Path | None = None) -> Result:
        """Take part until the sum is published."""
        async with await self.connected() as coordinator:
            participation = await coordinator.contribute(
                session, adapter or self.adapter(identity), identity, self.home / "clients", LENIENT
            )
            return await participation.result()

    async def contribute_all(self, session: bytes, among: Iterable[SigningKey]) -> list[Result]:
        """All of them."""
        return list(await asyncio.gather(*(self.contribute(session, each) for each in among)))

    def basis(self, first: PairwiseOpen) -> bytes:
        """The file of bases that a first session published."""
        record = self.service.state / "record" / "sessions" / first.session.hex()
        return (record / "aggregate" / BASIS_FILE).read_bytes()

    async def received(self, session: bytes) -> int:
        """How many did what the current phase of a session asks for."""
        return (await self.service.registry.find(session)).status().received


def pilots(identities: Iterable[SigningKey], merge: PilotMerge = PILOTS) -> list[SigningKey]:
    """Who is drawn for the pilot."""
    return [key for key in identities if is_pilot(merge.seed, merge.share, key.public_bytes)]


def layout_of(merge: LinearMerge) -> Layout:
    """Of the messages."""
    return merging_of(merge).layout
