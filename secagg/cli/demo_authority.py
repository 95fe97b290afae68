"""A one-shot demo session with a key authority: contributors commit, upload and leave; attestors vouch for the sum."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secagg.cli.authority import CARD_FILE, KEY_FILE
from secagg.cli.demo_course import Opened, Running, Say, all_or_none
from secagg.cli.demo_merge import DemoMerge
from secagg.cli.demo_noise import DemoNoise
from secagg.cli.demo_one_shot import OneShotCourse, certificate_in, new_home
from secagg.cli.demo_plan import DemoFailedError, DemoPlan, Departure, plan_one_shot
from secagg.cli.demo_process import ran, serving, started
from secagg.cli.demo_site import FREE_PORT, Pins, Site, deadlines
from secagg.cli.institution import STATE_DIRECTORY
from secagg.crypto.rng import SystemRng
from secagg.he.seal import load_api
from secagg.identity.address import Address
from secagg.identity.authority_config import DEFAULT_ADDRESS, AuthorityConfig
from secagg.identity.cards import AuthorityCard
from secagg.identity.client_config import ClientConfig
from secagg.identity.keys import KeyKind, create_key_file
from secagg.identity.tls import fingerprint
from secagg.identity.transport import PinnedFingerprint
from secagg.protocol.phases import Phase
from secagg.store.authority_state import AuthorityState

NAME = "Institute A"
ATTESTORS = 2


@dataclass(frozen=True)
class _Institutions:
    """The authority's directory and card, and the key files of the attestors by public key."""

    home: Path
    identity: bytes
    attestors: dict[bytes, Path]


class AuthorityCourse(OneShotCourse):
    """Everybody uploads and leaves; then the attestors check the record, and the authority decrypts."""

    _institutions: _Institutions

    def __init__(self, plan: DemoPlan, say: Say, merge: DemoMerge, noise: DemoNoise | None = None) -> None:
        super().__init__(plan, say, merge, noise)
        self._all_left = asyncio.Event()

    @staticmethod
    def check_installed() -> None:
        """See ``Course``."""
        load_api()

    @staticmethod
    def planned(clients: int, drop: int | None) -> DemoPlan:
        """See ``Course``."""
        return plan_one_shot(clients, drop, Departure.BEFORE_COMMITMENT, Departure.AFTER_COMMITMENT)

    async def start(self, site: Site, stack: contextlib.AsyncExitStack) -> Pins:
        """See ``Course``."""
        made = self._institutions = await asyncio.to_thread(_found, site)
        config = made.home / AuthorityConfig.FILE_NAME
        process = await stack.enter_async_context(
            started("secagg.cli.main", "authority", "serve", "--config", str(config), "--format", "json")
        )
        port = (await serving(process, "the key authority"))["port"]
        attestors = tuple(sorted(made.attestors))
        address, certificate = str(Address(FREE_PORT.host, port)), certificate_in(made.home)
        card = AuthorityCard(NAME, made.identity, address, certificate, attestors, len(attestors))
        (made.home / CARD_FILE).write_bytes(card.to_bytes() + b"\n")
        self._say(f"key authority that decrypts a sum once {len(attestors)} attestors have checked the record")
        return Pins(openers=(made.identity,), attestors=attestors)

    def _own_options(self) -> dict[str, object]:
        return {
            **super()._own_options(),
            "--authority": self._institutions.home / CARD_FILE,
            "--deadlines": deadlines("commit", "upload", "open"),
        }

    def awaited(self) -> Mapping[Phase, int]:
        """See ``Course``."""
        plan = self.plan
        if not plan.leaving:
            return {}
        return {
            Phase.COMMIT: plan.clients - plan.gone_at(Departure.BEFORE_COMMITMENT),
            Phase.MASKED_INPUT: len(plan.contributors),
        }

    async def opened(self, _running: Running) -> Opened:
        """See ``Course``."""
        attestors = [key.hex() for key in sorted(self._institutions.attestors)]
        words = f"{NAME}, the key authority, after {len(attestors)} attestors had checked the record"
        return Opened({"opened_by": [NAME], "attested_by": attestors}, (("opened by", words),))

    async def _until_all_left(self, running: Running) -> None:
        await super()._until_all_left(running)
        self._all_left.set()

    async def _began(self, running: Running, phase: Phase) -> None:
        if phase is not Phase.OPEN_SUM:
            return
        await self._all_left.wait()
        client = await asyncio.to_thread(_write_client, running.site)
        await all_or_none([self._attest_with(file, client, running) for file in self._institutions.attestors.values()])

    async def _attest_with(self, key_file: Path, client: Path, running: Running) -> None:
        site = running.site
        options = {"--session": running.session.hex(), "--key": key_file, "--policy": site.audit, "--client": client}
        words = [str(word) for option in options.items() for word in option]
        code, _, errors = await ran("secagg.cli.main", "attest", str(site.record), *words)
        if code != 0:
            raise DemoFailedError(f"an attestor does not attest:\n{errors}")
        self._say(f"{key_file.stem} has checked the published record and signed the sum of the ciphertexts")


def _found(site: Site) -> _Institutions:
    """Make what ``secagg authority init`` makes, but for the card, and the attestors' keys."""
    rng, home = SystemRng(), site.private / "authority"
    key_files = [site.private / f"attestor-{number}.key" for number in range(1, ATTESTORS + 1)]
    attestors = {create_key_file(file, KeyKind.ATTESTOR, None, rng): file for file in key_files}
    config = AuthorityConfig(
        name=NAME,
        listen=FREE_PORT,
        address=DEFAULT_ADDRESS,  # for the card that `authority init` writes; here the port is known later
        state_directory=home / STATE_DIRECTORY,
        key_file=home / KEY_FILE,
        transport=new_home(home),
        attestors=frozenset(attestors),
        attestations=len(attestors),
        coordinators=frozenset({site.coordinator_key}),
        registrars=frozenset({site.registrar.public_bytes}),
        log_policy=site.witnesses,
    )
    identity = create_key_file(config.key_file, KeyKind.KEY_AUTHORITY, None, rng)
    AuthorityState.create(config.state_directory)
    (home / AuthorityConfig.FILE_NAME).write_text(config.to_toml(), encoding="utf-8")
    return _Institutions(home, identity, attestors)


def _write_client(site: Site) -> Path:
    """How attestors reach the coordinator; returns the file."""
    config = ClientConfig(
        coordinator=Address(FREE_PORT.host, site.port),
        coordinator_key=site.coordinator_key,
        identity_key_file=site.identity_file(1),
        state_directory=site.private / "attestors",
        transport=PinnedFingerprint(fingerprint(site.certificate.pem)),
    )
    path = site.private / ClientConfig.FILE_NAME
    path.write_text(config.to_toml(), encoding="utf-8")
    return path
