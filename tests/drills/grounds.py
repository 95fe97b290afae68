"""The grounds of a drill: coordinator, witnesses, members and contributors, each a process; sessions between them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import grpc
import grpc.aio

from secagg.cli import demo_committee, demo_site, demo_witnesses
from secagg.cli.demo_plan import DemoPlan
from secagg.client import connect
from secagg.crypto.notes import log_key
from secagg.identity.address import Address
from secagg.identity.client_config import ClientConfig, PolicyConfig
from secagg.identity.config import CoordinatorConfig
from secagg.identity.tls import fingerprint
from secagg.identity.transport import PinnedFingerprint
from secagg.protocol.phases import Phase
from secagg.remote_operator import end_phase, open_session
from secagg.runtime.participant import TransportError
from secagg.runtime.shown import Status
from secagg.transcript.policy import LogPolicy
from tests.drills.party import Happening, Happenings, Party
from tests.drills.report import DrillReport
from tests.support.coordinator_process import SHAPES, one_hot_adapter
from verifier.cli import run as verify

CALL_S = 30.0
SESSION_S = 150.0
"""Longer than any session takes whose processes come back; shorter than its deadlines."""
DEADLINE_S = 300


@dataclass(frozen=True)
class Cast:
    """How many take part. All members are needed to open a sum, and one may be corrupt."""

    people: int = 3
    members: int = 0
    witnesses: int = 1
    max_watchers: int = 2000
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=lambda: SHAPES)


@dataclass
class Grounds:
    """What runs, and where; the report that is being written."""

    site: demo_site.Site
    cast: Cast
    report: DrillReport
    happenings: Happenings
    coordinator: Party
    witnesses: list[Party] = field(default_factory=list)
    members: list[Party] = field(default_factory=list)
    cards: list[Path] = field(default_factory=list)
    openers: tuple[bytes, ...] = ()

    @property
    def logs(self) -> Path:
        return self.site.private / "lines"

    @property
    def services(self) -> list[Party]:
        return [*self.witnesses, self.coordinator, *self.members]

    def party(self, name: str, *command: str) -> Party:
        """A party that has not been started."""
        return Party(name, command, self.logs / name.replace(" ", "-"), self.happenings)

    async def open_session(self, protocol: str, **options: object) -> bytes:
        """Open a session of one-hot adapters for everybody in the roster."""
        for file in self.site.private.glob("roster*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        corrupt = max(1, -(-self.cast.people // 10))  # the tenth that contributors ask for
        plan = DemoPlan(min(3, self.cast.people), {}, corrupt + 2, corrupt)
        own = {"--clip-norm": 1, "--value-bits": 15, "--max-contributors": 1024, "--protocol": protocol}
        if protocol == "one-shot":
            own |= {"--committee": self.cards, "--needed": self.cast.members, "--max-corrupt-members": 1}
            phases = ("upload", "hold", "open")
        else:
            own |= {"--expected-dropout": Fraction(0)}
            phases = ("advertise", "share", "upload", "confirm", "unmask")
        own |= {"--deadlines": ",".join(f"{phase}={DEADLINE_S}" for phase in phases), **options}
        request = await asyncio.to_thread(self.site.request, plan, lambda _: own)
        return await open_session(self.site.state, request, CALL_S)

    def contributor(self, k: int, session: bytes) -> Party:
        """The command with which person k contributes."""
        sent = self.sent_of(k, session)
        sent.mkdir(exist_ok=True)
        return self.party(
            f"contributor {k} {session.hex()[:8]}", "tests.drills.contributor", str(sent), "contribute",
            str(self.site.contributors / str(k)), "--session", session.hex(),
            "--config", str(self.site.private / f"client-{k}.toml"), "--format", "json",
        )  # fmt: skip

    def sent_of(self, k: int, session: bytes) -> Path:
        """Where it is written down what person k has sent in a session."""
        return self.site.private / f"sent-{k}-{session.hex()[:8]}"

    def own_channel(self) -> grpc.aio.Channel:
        """A connection of its own: channels with equal arguments in one process would share one."""
        options: list[tuple[str, int | str]] = [
            ("grpc.ssl_target_name_override", self.site.certificate.name),
            ("grpc.max_send_message_length", 64 << 20),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        return grpc.aio.secure_channel(
            self.site.address, grpc.ssl_channel_credentials(self.site.certificate.pem), options
        )

    async def watch(self, session: bytes) -> Status:
        """Tell the happenings of each phase as it begins; the last status. A coordinator that is away is waited for."""
        last: Status | None = None
        while True:
            with contextlib.suppress(TransportError):
                async with await connect(*self.site.how_to_connect) as remote:
                    async for status in remote.port.watch(session):
                        if last is None or status.phase is not last.phase:
                            moment = Happening("session", f"phase {status.phase.value}", {"phase": status.phase.value})
                            self.happenings.add(moment)
                        last = status
                        if status.phase in {Phase.FINISHED, Phase.ABORTED}:
                            return status
            await asyncio.sleep(0.02)  # a poll: the coordinator is being started again

    async def end_phase(self, session: bytes, phase: Phase) -> None:
        """What ``secagg session end-phase`` does."""
        await end_phase(self.site.state, session, phase, CALL_S)

    async def verified(self) -> list[str]:
        """What ``secagg-verify check`` finds against the published record."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = await asyncio.to_thread(verify, ["check", str(self.site.record), "--policy", str(self.site.audit)])
        return [] if code == 0 else [f"exit code {code}: {line}" for line in said.getvalue().splitlines()[-12:]]

    async def end(self) -> None:
        """End everything in order and look at what was left behind."""
        for party in reversed(self.services):
            await party.stop()
        self.look_at(*self.services)

    def look_at(self, *parties: Party) -> None:
        """Weigh these parties; none of them met something it did not expect."""
        for party in parties:
            self.report.weigh(party.kind, party.peak_mib)
            surprised = [line["text"] for line in party.errors if "text" in line]
            failed = [str(line) for line in party.errors if line.get("level") in {"error", "critical"}]
            found = [f"{party.name}: {' / '.join((surprised + failed)[-4:])}"] if surprised or failed else []
            self.report.promise("no process meets an error that it did not expect", *found)


@asynccontextmanager
async def grounds(cast: Cast, report: DrillReport) -> AsyncIterator[Grounds]:
    """Everything founded and served; at the end nothing is left of it."""
    # Not a test's directory: the path of the operator's socket has to be short.
    with tempfile.TemporaryDirectory(prefix="drill-") as name:
        made = await asyncio.to_thread(_founded, Path(name), cast, report)
        try:
            await _begin(made)
            yield made
        finally:
            for party in made.services:
                if party.is_running:
                    await party.kill()


def _founded(home: Path, cast: Cast, report: DrillReport) -> Grounds:
    public, private = home / "public", home / "private"
    for directory in (public, private, private / "lines"):
        directory.mkdir(mode=0o700)
    site = demo_site.found(cast.people, public, private)
    ports = iter(free_ports(1 + cast.witnesses + cast.members))
    site = dataclasses.replace(site, port=next(ports))
    config = CoordinatorConfig.load(site.config)
    limits = dataclasses.replace(config.limits, max_watchers=cast.max_watchers)
    config = dataclasses.replace(config, listen=Address("127.0.0.1", site.port), limits=limits)
    site.config.write_text(config.to_toml(), encoding="utf-8")
    for k in range(1, min(3, cast.people) + 1):
        one_hot_adapter(site.contributors / str(k), k - 1, cast.shapes)
    serve = ("coordinator", "serve", "--config", str(site.config), "--format", "json")
    happenings = Happenings()
    lines = private / "lines" / "coordinator"
    made = Grounds(site, cast, report, happenings, Party("coordinator", ("secagg.cli.main", *serve), lines, happenings))
    logs = log_key(demo_site.ORIGIN, site.coordinator_key)
    for number, file in enumerate(demo_witnesses._found(private, logs)[: cast.witnesses], start=1):
        _listen(file, next(ports))
        command = ("witness", "serve", "--config", str(file), "--format", "json")
        made.witnesses.append(made.party(f"witness {number}", "secagg.cli.main", *command))
    if cast.members:
        _found_members(made, [next(ports) for _ in range(cast.members)])
    return made


def _found_members(made: Grounds, ports: list[int]) -> None:
    """The first of the demo's members, at fixed ports, with cards that say so."""
    cards = []
    for name, home, port in zip(demo_committee.NAMES, demo_committee._found(made.site), ports, strict=False):
        _listen(home / "committee.toml", port)
        cards.append(demo_committee._write_card(name, home, port))
        made.cards.append(home / demo_committee.CARD_FILE)
        serve = demo_committee._serve(home)
        made.members.append(made.party(f"member {len(cards)}", "secagg.cli.main", *serve))
    made.openers = tuple(card.identity for card in cards)


async def _begin(made: Grounds) -> None:
    """Start the witnesses, then, with what they say of themselves, everybody else."""
    site, key = made.site, log_key(demo_site.ORIGIN, made.site.coordinator_key)
    for party in made.witnesses:
        await party.start()
    lines = [(await party.serves())["policy_line"] for party in made.witnesses]
    text = [f"log {key.to_text()}", *lines]
    if lines:
        members = " ".join(line.split()[1] for line in lines)
        text.append(f"group witnesses all {members}")
    text.append("quorum witnesses" if lines else "quorum none")
    made.site = site = site.with_witnesses(LogPolicy.parse("".join(f"{line}\n" for line in text)))
    site.write_trust(3, demo_site.Pins(openers=made.openers), None)
    _write_clients(made)
    for party in (made.coordinator, *made.members):
        await party.start()
    await asyncio.gather(*(party.serves() for party in (made.coordinator, *made.members)))


def _write_clients(made: Grounds) -> None:
    site = made.site
    for k in range(1, min(3, made.cast.people) + 1):
        config = ClientConfig(
            coordinator=Address("127.0.0.1", site.port),
            coordinator_key=site.coordinator_key,
            identity_key_file=site.identity_file(k),
            state_directory=site.private / f"client-{k}",
            transport=PinnedFingerprint(fingerprint(site.certificate.pem)),
            policy=PolicyConfig(registrars=frozenset({site.registrar.public_bytes}), log=site.witnesses),
            openers=frozenset(made.openers),
        )
        (site.private / f"client-{k}.toml").write_text(config.to_toml(), encoding="utf-8")


def _listen(config: Path, port: int) -> None:
    """Let a party that was founded for any free port come back to the same one each time."""
    text = config.read_text(encoding="utf-8")
    assert text.count("127.0.0.1:0") == 1, config
    config.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{port}"), encoding="utf-8")


def free_ports(count: int) -> list[int]:
    """Ports that are free now, below those that a system gives to outgoing connections while a party is away."""
    found: list[int] = []
    port = 12_000 + os.getpid() * 67 % 15_000
    while len(found) < count:
        port += 1
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found
