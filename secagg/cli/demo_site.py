"""Where the demo's parties keep their things, who they are, and what they are told."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from secagg.cli.demo_client import Task
from secagg.cli.demo_merge import DemoMerge, FactorDemo
from secagg.cli.demo_noise import DemoNoise
from secagg.cli.demo_plan import DemoPlan, max_contributors
from secagg.cli.main import parser_for
from secagg.cli.merge_plan import plan_merge
from secagg.cli.opening import plan_opening
from secagg.cli.operator_ledger import in_turn
from secagg.client import LogTrust
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.identity.address import Address
from secagg.identity.config import CoordinatorConfig, LogConfig
from secagg.identity.keys import KeyKind, create_key_file
from secagg.identity.roster_file import add_members, sign_roster
from secagg.identity.tls import PinnedCertificate, create_certificate
from secagg.identity.transport import TlsFiles
from secagg.runtime.clock import SystemClock
from secagg.runtime.log_trust import ForgetfulMemory
from secagg.transcript.policy import LogPolicy
from secagg.v1 import aggregation_pb2 as pb

RECORD = "record"
ORIGIN = "demo.example/secagg"
FREE_PORT = Address("127.0.0.1", 0)
CERTIFICATE_NAMES = ("localhost", "127.0.0.1")
PHASE_S = 300
"""Deadlines that a demo never waits for: it ends a phase when everybody who will act has acted."""

_POLICY_FILE = "policy"
_AUDIT_FILE = "policy.toml"


@dataclass(frozen=True, slots=True)
class Pins:
    """Whom contributors and auditors let open the sum: keys of members or of an authority, and of its attestors."""

    openers: tuple[bytes, ...] = ()
    attestors: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Trust:
    """What contributors insist on: whom they let open the sum, and what they are willing to spend where noise is."""

    pins: Pins
    noise: DemoNoise | None

    @property
    def allowance(self) -> list[str]:
        """Epsilon and delta; empty without noise."""
        return [] if self.noise is None else [str(self.noise.epsilon), str(self.noise.delta)]


@dataclass(frozen=True)
class Site:
    """The parties and where they are. What is private lies in ``private``, the rest in ``public``."""

    public: Path
    private: Path
    coordinator_key: bytes
    certificate: PinnedCertificate
    registrar: SigningKey
    identities: Mapping[int, bytes]
    policy: LogPolicy
    port: int = 0

    @property
    def address(self) -> str:
        """Where the coordinator serves."""
        return f"127.0.0.1:{self.port}"

    @property
    def how_to_connect(self) -> tuple[str, bytes, PinnedCertificate, LogTrust]:
        """Arguments of ``client.connect`` for somebody who asks for all witnesses."""
        trust = LogTrust(self.policy, ForgetfulMemory())
        return self.address, self.coordinator_key, self.certificate, trust

    @property
    def config(self) -> Path:
        """The coordinator's configuration."""
        return self.private / "coordinator" / CoordinatorConfig.FILE_NAME

    @property
    def state(self) -> Path:
        """The coordinator's state directory."""
        return self.private / "coordinator" / "state"

    @property
    def witnesses(self) -> Path:
        """The file of the log policy, which the parties that run as services read."""
        return self.private / "witnesses.policy"

    @property
    def contributors(self) -> Path:
        """The directory with every contributor's adapter."""
        return self.public / "contributors"

    @property
    def record(self) -> Path:
        """The published record."""
        return self.public / RECORD

    @property
    def merged(self) -> Path:
        """The merged adapter."""
        return self.public / "merged"

    @property
    def audit(self) -> Path:
        """What an auditor trusts: ``policy.toml``."""
        return self.public / _AUDIT_FILE

    def with_witnesses(self, policy: LogPolicy) -> Site:
        """The same, once its witnesses are known."""
        self.witnesses.write_text(policy.to_text(), encoding="utf-8")
        return dataclasses.replace(self, policy=policy)

    def identity_file(self, k: int) -> Path:
        """The key of contributor k."""
        return _identity_file(self.private, k)

    def task(self, plan: DemoPlan, session: bytes, k: int, trust: Trust) -> Task:
        """What contributor k is told."""
        leaving = plan.leaving.get(k)
        return Task(
            address=self.address,
            coordinator_key=self.coordinator_key.hex(),
            certificate=self.certificate.pem.decode("ascii"),
            certificate_name=self.certificate.name,
            registrar=self.registrar.public_bytes.hex(),
            session=session.hex(),
            adapter=str(self.contributors / str(k)),
            identity=str(self.identity_file(k)),
            state=str(self.private / "clients"),
            leave_at=leaving.milestone.name if leaving else "",
            log_policy=self.policy.to_text(),
            openers=[key.hex() for key in trust.pins.openers],
            allowance=trust.allowance,
        )

    def request(
        self, plan: DemoPlan, own_options: Callable[[int], Mapping[str, object]], merge: DemoMerge | None = None
    ) -> pb.OpenSessionRequest:
        """What ``secagg session open`` sends for the plan, with the options that a protocol has for a dimension.

        The value of an option may be a list of words. Unless ``merge`` says otherwise, factors are merged.
        """
        roster = self.private / "roster"
        add_members(roster, [(identity, "") for identity in self.identities.values()])
        sign_roster(roster, self.registrar)
        common = {
            "--config": self.config,
            "--roster": roster,
            "--min-contributors": plan.min_contributors,
            "--max-corrupt": plan.max_corrupt,
            "--max-contributors": max_contributors(plan),
            **(merge or FactorDemo()).options(plan, self.contributors),
        }
        dimension = plan_merge(_arguments(common)).merging.layout.dimension
        config = CoordinatorConfig.load(self.config)
        with in_turn(plan_opening(_arguments({**common, **own_options(dimension)}), config), config) as opening:
            return opening.request()

    def write_trust(self, min_contributors: int, pins: Pins, noise: DemoNoise | None) -> None:
        """Write what an auditor trusts: ``policy`` and ``policy.toml``."""
        (self.public / _POLICY_FILE).write_text(self.policy.to_text(), encoding="utf-8")
        lines = [
            "# Whom an auditor of this demo trusts, and what it asks of every session (docs/record.md).",
            f'log_policy = "{_POLICY_FILE}"',
            "",
            "[registrar]",
            _keys("keys", (self.registrar.public_bytes,)),
            "",
            "[session]",
            f"min_contributors = {min_contributors}",
            "",
            "[noise]",
            *(['mechanism = "none"'] if noise is None else noise.policy_lines()),
        ]
        if pins.openers:
            lines += ["", "[openers]", _keys("keys", pins.openers)]
        if pins.attestors:
            lines += [_keys("attestors", pins.attestors)]
        self.audit.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def found(enrolled: int, public: Path, private: Path) -> Site:
    """Make the keys of coordinator, registrar and contributors, the coordinator's certificate and configuration."""
    rng, home = SystemRng(), private / "coordinator"
    (home / "state").mkdir(parents=True, mode=0o700)
    key = create_key_file(home / "coordinator.key", KeyKind.COORDINATOR, None, rng)
    files = create_certificate(home, CERTIFICATE_NAMES, SystemClock().now_s(), valid_days=1)
    identities = {
        k: create_key_file(_identity_file(private, k), KeyKind.IDENTITY, None, rng) for k in range(1, enrolled + 1)
    }
    certificate = PinnedCertificate(files.certificate.read_bytes(), "localhost")
    registrar = SigningKey(Secret(rng.bytes(32)))
    site = Site(public, private, key, certificate, registrar, identities, LogPolicy.without_witnesses())
    config = CoordinatorConfig(
        listen=FREE_PORT,
        state_directory=site.state,
        key_file=home / "coordinator.key",
        transport=TlsFiles(files.certificate, files.private_key),
        log=LogConfig(ORIGIN, site.witnesses),
        record_directory=site.record.absolute(),
    )
    site.config.write_text(config.to_toml(), encoding="utf-8")
    return site


def deadlines(*phases: str) -> str:
    """``--deadlines`` that are never waited for."""
    return ",".join(f"{phase}={PHASE_S}" for phase in phases)


def _arguments(options: Mapping[str, object]) -> argparse.Namespace:
    """The options of ``secagg session open``, read."""
    argv = ["session", "open"]
    for option, value in options.items():
        argv += [option, *(map(str, value) if isinstance(value, list) else [str(value)])]
    return parser_for(argv).parse_args(argv)


def _identity_file(private: Path, k: int) -> Path:
    return private / f"identity-{k}.key"


def _keys(name: str, keys: tuple[bytes, ...]) -> str:
    return f"{name} = [" + ", ".join(f'"{key.hex()}"' for key in keys) + "]"
