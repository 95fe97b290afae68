"""The demo session itself: keys, a coordinator and its clients as processes, and the check of the sum."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from secagg.arith.quantiser import Quantiser
from secagg.cli.demo_client import Task
from secagg.cli.demo_plan import (
    LEAVE_BEFORE_UPLOAD,
    PHASE_OF_LEAVING,
    DemoFailedError,
    DemoPlan,
    clip_norm_for,
    largest_difference,
    read_vectors,
    value_bits_for,
    write_contributors,
)
from secagg.cli.demo_process import serving, started
from secagg.cli.demo_witnesses import witnesses, write_trust
from secagg.cli.main import parser_for
from secagg.cli.opening import plan_opening
from secagg.client import LogTrust, Result, connect
from secagg.crypto.notes import log_key
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.identity.address import Address
from secagg.identity.config import CoordinatorConfig, LogConfig
from secagg.identity.keys import KeyKind, create_key_file
from secagg.identity.roster_file import add_members, sign_roster
from secagg.identity.tls import PinnedCertificate, create_certificate
from secagg.identity.transport import TlsFiles
from secagg.protocol.pairwise.coordinator_states import Phase
from secagg.remote import GrpcCoordinator, end_phase, open_session
from secagg.runtime.clock import SystemClock
from secagg.runtime.log_trust import ForgetfulMemory
from secagg.transcript.policy import LogPolicy
from secagg.v1 import aggregation_pb2 as pb

Say = Callable[[str], None]

RECORD = "record"
ORIGIN = "demo.example/secagg"
WITNESSES_FILE = "witnesses.policy"
_CALL_S = 30.0
_PHASE_S = 300
"""Deadlines that a demo never waits for: it ends a phase when everybody who will act has acted."""


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demo reports."""

    session: str
    contributors: list[int]
    dropped: list[dict[str, str | int]]
    max_abs_diff_steps: float
    merged: str
    record: str = ""
    policy: str = ""
    verified: str = ""


@dataclass(frozen=True)
class _Site:
    """Where the demo's parties keep their things, and who they are."""

    private: Path
    coordinator_key: bytes
    certificate: PinnedCertificate
    registrar: SigningKey
    identities: dict[int, bytes]
    policy: LogPolicy
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def how_to_connect(self) -> tuple[str, bytes, PinnedCertificate, LogTrust]:
        """Arguments of ``client.connect`` for somebody who asks for all witnesses."""
        trust = LogTrust(self.policy, ForgetfulMemory())
        return self.address, self.coordinator_key, self.certificate, trust

    @property
    def config(self) -> Path:
        return self.private / "coordinator" / CoordinatorConfig.FILE_NAME

    @property
    def state(self) -> Path:
        return self.private / "coordinator" / "state"

    def identity_file(self, k: int) -> Path:
        return self.private / f"identity-{k}.key"


async def run_demo(plan: DemoPlan, directory: Path, private: Path, say: Say) -> DemoOutcome:
    """Run one session; inputs and result go to ``directory``, keys and stores to ``private``.

    Raises:
        DemoFailedError: a party failed, or the sum is not exact.
    """
    say(f"{plan.clients} contributors with the adapters in {directory / 'contributors'}")
    await asyncio.to_thread(write_contributors, plan, directory / "contributors")
    site = await asyncio.to_thread(_found, plan, directory, private)
    async with contextlib.AsyncExitStack() as stack:
        site = await stack.enter_async_context(_witnessed(site))
        coordinator, *contributors = await asyncio.gather(
            stack.enter_async_context(started("secagg.cli.main", *_serve(site))),
            *(stack.enter_async_context(started("secagg.cli.demo_client")) for _ in range(plan.clients)),
        )
        site = dataclasses.replace(site, port=(await serving(coordinator, "the coordinator"))["port"])
        say(
            f"coordinator on {site.address}, TLS, key {site.coordinator_key.hex()[:16]}..., "
            f"{len(site.policy.witnesses)} witnesses"
        )
        remote = await stack.enter_async_context(await connect(*site.how_to_connect))
        session = await _open(plan, directory, site)
        say(
            f"session {session.hex()[:16]}... open: at least {plan.min_contributors} contributions, "
            f"up to {plan.max_corrupt} of them may collude with the coordinator"
        )
        for k, process in enumerate(contributors, start=1):
            await _instruct(process, _task(site, plan, directory, session, k))
        work = [_listen(k, process, plan, say) for k, process in enumerate(contributors, start=1)]
        await _all_or_none([*work, _conduct(remote.port, site, session, plan, say)])
        result = await remote.result(session)
    outcome = await asyncio.to_thread(_outcome, plan, directory, result)
    registrar = site.registrar.public_bytes
    audit = await asyncio.to_thread(write_trust, directory, site.policy, registrar, plan.min_contributors)
    say("checking the published record")
    verified = await _verified(directory / RECORD, audit)
    return dataclasses.replace(outcome, record=str(directory / RECORD), policy=str(audit), verified=verified)


@contextlib.asynccontextmanager
async def _witnessed(site: _Site) -> AsyncIterator[_Site]:
    """The site with witnesses that run, and the coordinator told of them."""
    async with witnesses(site.private, log_key(ORIGIN, site.coordinator_key)) as policy:
        (site.config.parent / WITNESSES_FILE).write_text(policy.to_text(), encoding="utf-8")
        yield dataclasses.replace(site, policy=policy)


async def _verified(record: Path, audit: Path) -> str:
    """What ``secagg-verify check`` says of the record, run as anybody would."""
    arguments = ("-m", "verifier", "check", str(record), "--policy", str(audit))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    report = output.decode("utf-8", "replace")
    if process.returncode != 0:
        raise DemoFailedError(f"the record does not verify:\n{report}{errors.decode('utf-8', 'replace')}")
    return report


async def _all_or_none(work: Sequence[Coroutine[None, None, None]]) -> None:
    """Run all; the first failure ends the others and is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _serve(site: _Site) -> tuple[str, ...]:
    return ("coordinator", "serve", "--config", str(site.config), "--format", "json")


def _found(plan: DemoPlan, directory: Path, private: Path) -> _Site:
    """Make all keys, the coordinator's certificate and configuration."""
    rng, home = SystemRng(), private / "coordinator"
    (home / "state").mkdir(parents=True, mode=0o700)
    key = create_key_file(home / "coordinator.key", KeyKind.COORDINATOR, None, rng)
    files = create_certificate(home, ["localhost", "127.0.0.1"], SystemClock().now_s(), valid_days=1)
    config = CoordinatorConfig(
        listen=Address("127.0.0.1", 0),
        state_directory=home / "state",
        key_file=home / "coordinator.key",
        transport=TlsFiles(files.certificate, files.private_key),
        log=LogConfig(ORIGIN, home / WITNESSES_FILE),
        record_directory=directory.absolute() / RECORD,
    )
    (home / CoordinatorConfig.FILE_NAME).write_text(config.to_toml(), encoding="utf-8")
    identities = {
        k: create_key_file(private / f"identity-{k}.key", KeyKind.IDENTITY, None, rng)
        for k in range(1, plan.clients + 1)
    }
    certificate = PinnedCertificate(files.certificate.read_bytes(), "localhost")
    registrar = SigningKey(Secret(rng.bytes(32)))
    return _Site(private, key, certificate, registrar, identities, LogPolicy.without_witnesses())


async def _open(plan: DemoPlan, directory: Path, site: _Site) -> bytes:
    """Open the session through the operator's socket."""
    request = await asyncio.to_thread(_request, plan, directory, site)
    return await open_session(site.state, request, _CALL_S)


def _request(plan: DemoPlan, directory: Path, site: _Site) -> pb.OpenSessionRequest:
    """What ``secagg session open`` sends for these options."""
    inputs = directory / "contributors"
    roster = site.private / "roster"
    add_members(roster, [(identity, "") for identity in site.identities.values()])
    sign_roster(roster, site.registrar)
    most = max(8, 1 << (plan.clients - 1).bit_length())
    options = {
        "--config": site.config,
        "--roster": roster,
        "--adapter": inputs / "1",
        "--min-contributors": plan.min_contributors,
        "--max-corrupt": plan.max_corrupt,
        "--max-contributors": most,
        "--value-bits": value_bits_for(most),
        "--clip-norm": clip_norm_for(read_vectors(plan, inputs)),
        "--expected-dropout": Fraction(len(plan.leaving), plan.clients),
        "--deadlines": ",".join(
            f"{phase}={_PHASE_S}" for phase in ("advertise", "share", "upload", "confirm", "unmask")
        ),
    }
    argv = ["session", "open", *(str(word) for option in options.items() for word in option)]
    return plan_opening(parser_for(argv).parse_args(argv), CoordinatorConfig.load(site.config)).request()


def _task(site: _Site, plan: DemoPlan, directory: Path, session: bytes, k: int) -> Task:
    leaving = plan.leaving.get(k)
    return Task(
        address=site.address,
        coordinator_key=site.coordinator_key.hex(),
        certificate=site.certificate.pem.decode("ascii"),
        certificate_name=site.certificate.name,
        registrar=site.registrar.public_bytes.hex(),
        session=session.hex(),
        adapter=str(directory / "contributors" / str(k)),
        identity=str(site.identity_file(k)),
        state=str(site.private / "clients"),
        leave_at=leaving.name if leaving else "",
        log_policy=site.policy.to_text(),
    )


async def _instruct(process: asyncio.subprocess.Process, task: Task) -> None:
    if process.stdin is None:
        raise DemoFailedError("a contributor cannot be told its task")
    process.stdin.write(json.dumps(dataclasses.asdict(task)).encode() + b"\n")
    with contextlib.suppress(ConnectionError):
        await process.stdin.drain()


async def _listen(k: int, process: asyncio.subprocess.Process, plan: DemoPlan, say: Say) -> None:
    """Report a contributor's steps until its process has ended."""
    failure = ""
    if process.stdout is not None:
        async for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "FAILED":
                failure = event["detail"]
    code = await process.wait()
    if k in plan.leaving:
        say(f"contributor {k} is gone ({PHASE_OF_LEAVING[plan.leaving[k]]}): its process was killed")
    elif code != 0:
        raise DemoFailedError(f"contributor {k} failed: {failure or f'exit code {code}'}")


async def _conduct(port: GrpcCoordinator, site: _Site, session: bytes, plan: DemoPlan, say: Say) -> None:
    """Follow the session; end a phase once all who will act have acted, instead of waiting for its deadline."""
    awaited = {
        Phase.MASKED_INPUT: plan.uploads,
        Phase.CONSISTENCY_CHECK: plan.survivors,
        Phase.UNMASK: plan.survivors,
    }
    announced: set[Phase] = set()
    async for status in port.watch(session):
        if status.phase not in announced:
            announced.add(status.phase)
            say(f"phase {status.phase.value}")
        if len(plan.leaving) and status.received >= awaited.get(status.phase, status.received + 1):
            await end_phase(site.state, session, status.phase, _CALL_S)
    if Phase.FINISHED not in announced:
        raise DemoFailedError("the session was aborted")


def _outcome(plan: DemoPlan, directory: Path, result: Result) -> DemoOutcome:
    """Write the merged adapter and compare it with the plain mean of the contributors' inputs."""
    gone_before = {k for k, at in plan.leaving.items() if at is LEAVE_BEFORE_UPLOAD}
    contributors = [k for k in range(1, plan.clients + 1) if k not in gone_before]
    if result.contributors != len(contributors):
        raise DemoFailedError(f"{result.contributors} contributions in the sum, expected {len(contributors)}")
    merged = directory / "merged"
    result.write_adapter(merged)
    parameters = result.details.session.parameters
    inputs = {k: vector for k, vector in read_vectors(plan, directory / "contributors").items() if k in contributors}
    scale = Quantiser(parameters.encoding.value_bits, parameters.encoding.bound()).scale
    difference = largest_difference(result.mean, inputs, parameters.encoding.clip_norm, scale)
    if difference >= 1:
        raise DemoFailedError(f"the merged adapter is {difference:.2f} quantisation steps off")
    dropped: list[dict[str, str | int]] = [
        {"client": k, "phase": PHASE_OF_LEAVING[plan.leaving[k]]} for k in sorted(plan.leaving)
    ]
    return DemoOutcome(parameters.session.hex(), contributors, dropped, difference, str(merged))
