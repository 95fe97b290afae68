"""A coordinator's real server on loopback, with TLS and stores on disk, and sessions of the example adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from secagg.crypto.rng import SystemRng
from secagg.crypto.signing import SigningKey
from secagg.identity.tls import PinnedCertificate, create_certificate
from secagg.lora.factor_merging import adapter_to_vector
from secagg.lora.layout import Layout
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.writer import write_adapter
from secagg.remote_operator import open_session
from secagg.runtime.clock import SystemClock
from secagg.runtime.institution_directory import InstitutionDirectory, NoInstitutions
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.transparency_log import Cosigners, NoCosigners, TransparencyLog
from secagg.services.logs import EventLog
from secagg.services.server import CoordinatorServer, ServerSocket, server_credentials
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.log_files import LogDirectory
from secagg.store.session_files import SessionDirectory
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript import canonical
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import Deadlines, PairwiseOpen, SessionOpen
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.roster import Roster, RosterMember
from secagg.v1 import aggregation_pb2 as pb
from tests.support.cohort import key_of
from tests.support.published import ORIGIN

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "adapters"


@dataclass
class RunningService:
    """Where a served coordinator is, and how to know it."""

    port: int
    key: bytes
    tls: PinnedCertificate
    state: Path
    registry: Registry
    reports: list[tuple[str, bytes, str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    state: Path,
    key: SigningKey | None = None,
    cosigners: Cosigners | None = None,
    institutions: InstitutionDirectory | None = None,
) -> AsyncIterator[RunningService]:
    """Serve from ``state``; leaving the context is an orderly stop. Witnesses are asked again without a pause."""
    key = key or key_of("coordinator")
    state.mkdir(parents=True, exist_ok=True)
    if not (state / "tls.crt").exists():
        create_certificate(state, ["localhost", "127.0.0.1"], SystemClock().now_s(), 30)
    pem = (state / "tls.crt").read_bytes()
    store = SqliteSessionStore(state / "sessions.db")
    reports: list[tuple[str, bytes, str]] = []
    record = state / "record"
    files = LogDirectory(record, state)

    def report(event: str, reason: str) -> None:
        reports.append((event, b"", reason))

    log = TransparencyLog(files, cosigners or NoCosigners(), key, ORIGIN, report, lambda _: asyncio.sleep(0.01))
    ports = CoordinatorPorts(
        store,
        DirectoryBlobStore(state / "blobs"),
        log,
        SessionDirectory(record),
        SystemClock(),
        key,
        lambda *report: reports.append(report),
        institutions or NoInstitutions(),
    )
    registry = Registry(ports)
    server = CoordinatorServer(registry, state, EventLog())
    credentials = server_credentials(pem, (state / "tls.key").read_bytes(), None)
    port = await server.start(ServerSocket("127.0.0.1:0", credentials))
    try:
        yield RunningService(port, key.public_bytes, PinnedCertificate(pem, "localhost"), state, registry, reports)
    finally:
        await server.stop()
        await log.close()
        await files.close()
        await store.close()


async def open_example_session(
    service: RunningService,
    identities: Sequence[SigningKey],
    example: Path,
    *,
    min_contributors: int = 3,
    max_corrupt: int = 1,
    deadlines: Deadlines | None = None,
    change: Callable[[PairwiseOpen], PairwiseOpen] = lambda parameters: parameters,
) -> SessionOpen:
    """Open a session for adapters like the one in ``example``; ``change`` has the last word on its parameters."""
    adapter = read_adapter(example, None)
    template = AdapterTemplate.from_adapter(adapter)
    layout = adapter.layout
    registrar = key_of("registrar")
    roster = Roster.of([RosterMember(key.public_bytes, "") for key in identities])
    head = roster.head(registrar.public_bytes).to_bytes()
    norm = float(np.linalg.norm(adapter_to_vector(adapter, layout)))
    parameters = PairwiseOpen(
        session=SystemRng().bytes(16),
        protocol="pairwise",
        coordinator=service.key,
        log="log.example/secagg",
        opened_at_s=SystemClock().now_s(),
        base_model=template.base_model,
        base_model_digest=bytes(32),
        adapter=template.digest,
        layout=layout.digest,
        merge=FactorMerge(),
        encoding=Encoding(layout.dimension, 26, 64, 64, Fraction(int(norm) + 2), NoFlattening()),
        min_contributors=min_contributors,
        max_corrupt=max_corrupt,
        expected_dropout=Fraction(0),
        roster=roster.root(),
        roster_size=len(roster.members),
        registrar=registrar.public_bytes,
        deadlines=deadlines or Deadlines(60, 60, 60, 60, 60),
        noise=NoDifferentialPrivacy(),
        retention_s=3600,
    )
    parameters = change(parameters)
    request = pb.OpenSessionRequest(
        parameters=parameters.to_bytes(),
        roster=roster.leaves(),
        roster_head=head,
        roster_signature=registrar.sign_statement(head),
        layout=canonical.encode(layout.to_json_value()),
        adapter=canonical.encode(template.to_json_value()),
    )
    assert await open_session(service.state, request, 30.0) == parameters.session
    return parameters


def tiny_adapter(directory: Path, seed: int) -> Path:
    """A small adapter of its own values: two tensors, 48 parameters."""
    rng = np.random.default_rng(seed)
    name = "base_model.model.layer.q_proj"
    shapes = {f"{name}.lora_A.weight": (2, 16), f"{name}.lora_B.weight": (8, 2)}
    layout = Layout.from_shapes(shapes)
    template = AdapterTemplate("tiny-base", "", "CAUSAL_LM", 2, 4, use_rslora=False, fan_in_fan_out=False)
    tensors = {key: rng.normal(0, 0.1, shape).astype(np.float32) for key, shape in layout.tensors}
    write_adapter(directory, template, tensors)
    return directory
