"""A one-shot demo session with a committee: contributors upload once and leave, and members of whom two go open it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secagg.cli.committee import CARD_FILE, KEY_FILE
from secagg.cli.demo_course import Opened, Running
from secagg.cli.demo_one_shot import OneShotCourse, certificate_in, new_home
from secagg.cli.demo_plan import DemoFailedError, DemoPlan, Departure, plan_one_shot
from secagg.cli.demo_process import serving, started, stopped
from secagg.cli.demo_site import FREE_PORT, Pins, Site, deadlines
from secagg.cli.institution import STATE_DIRECTORY
from secagg.crypto.rng import SystemRng
from secagg.derive.member_boxes import box_bytes
from secagg.derive.openers import member_of
from secagg.identity.address import Address
from secagg.identity.cards import MemberCard
from secagg.identity.committee_config import DEFAULT_ADDRESS, CommitteeConfig
from secagg.identity.keys import KeyKind, create_key_file, load_key_file
from secagg.protocol.phases import Phase
from secagg.runtime.committee_member import member_sealing_key
from secagg.runtime.ports import StoreError
from secagg.store.box_file import DirectoryBoxStore
from secagg.store.member_state import BOX_DIRECTORY, MemberState
from secagg.transcript.entries import OneShotResult, decode_entry
from secagg.transcript.openers import Committee

NAMES = tuple(f"Institute {letter}" for letter in "ABCDEFG")
NEEDED = 5
MAX_CORRUPT = 2
_HOLD_S = 60
_LOOK_AGAIN_S = 0.05


@dataclass(frozen=True)
class _Member:
    """A member whose process serves."""

    card: MemberCard
    home: Path
    process: asyncio.subprocess.Process

    @property
    def card_file(self) -> Path:
        return self.home / CARD_FILE


class CommitteeCourse(OneShotCourse):
    """Everybody uploads and leaves; then two members are stopped, and the others open the sum."""

    _members: tuple[_Member, ...] = ()

    @staticmethod
    def planned(clients: int, drop: int | None) -> DemoPlan:
        """See ``Course``."""
        return plan_one_shot(clients, drop, Departure.BEFORE_UPLOAD)

    @property
    def enrolled(self) -> int:
        """See ``Course``: while somebody is missing the operator decides when uploading ends, and so when to stop two.

        If all came, the sum would be open before that.
        """
        return max(self.plan.clients, len(self.plan.contributors) + 1)

    async def start(self, site: Site, stack: contextlib.AsyncExitStack) -> Pins:
        """See ``Course``."""
        homes = await asyncio.to_thread(_found, site)
        processes = await asyncio.gather(
            *(stack.enter_async_context(started("secagg.cli.main", *_serve(home))) for home in homes)
        )
        ports = [(await serving(process, "a committee member"))["port"] for process in processes]
        cards = [
            await asyncio.to_thread(_write_card, name, home, port)
            for name, home, port in zip(NAMES, homes, ports, strict=True)
        ]
        self._members = tuple(map(_Member, cards, homes, processes))
        self._say(f"{len(cards)} committee members, of whom any {NEEDED} open the sum")
        return Pins(openers=tuple(card.identity for card in cards))

    def _own_options(self) -> dict[str, object]:
        return {
            **super()._own_options(),
            "--committee": [member.card_file for member in self._members],
            "--needed": NEEDED,
            "--max-corrupt-members": MAX_CORRUPT,
            # Waited for only if a member was stopped before the coordinator had heard that it holds a share.
            "--deadlines": f"{deadlines('upload', 'open')},hold={_HOLD_S}",
        }

    def awaited(self) -> Mapping[Phase, int]:
        """See ``Course``: uploading ends when two members were stopped."""
        return {}

    async def opened(self, running: Running) -> Opened:
        """Who answered, as the log has it."""
        named = [self._members[place].card.name for place in await _used(running)]
        gone = [member.card.name for member in self._leaving]
        return Opened(
            {"opened_by": named, "gone": gone},
            (
                ("opened by", f"{', '.join(named)} (any {NEEDED} of {len(self._members)} can)"),
                ("gone", f"{', '.join(gone)}, stopped before the opening"),
            ),
        )

    @property
    def _leaving(self) -> tuple[_Member, ...]:
        return self._members[NEEDED:]

    async def _until_all_left(self, running: Running) -> None:
        await super()._until_all_left(running)
        try:
            async with asyncio.timeout(_HOLD_S):
                await asyncio.gather(*(self._holds(place, running.session) for place in range(len(self._members))))
        except TimeoutError:
            raise DemoFailedError("a committee member does not hold the shares of all contributions") from None
        for member in self._leaving:
            # In order, so that the coordinator has heard of every share that it holds.
            await stopped(member.process)
            self._say(f"committee member {member.card.name} is gone: its process was stopped")
        await running.end_phase(Phase.MASKED_INPUT)

    async def _holds(self, place: int, session: bytes) -> None:
        """Return once a member has stored its share of every contribution."""
        member = self._members[place]
        committee = Committee(tuple(each.card.member() for each in self._members), NEEDED, MAX_CORRUPT)
        boxes = DirectoryBoxStore(member.home / STATE_DIRECTORY / BOX_DIRECTORY)
        while True:
            try:
                boxes.read(session, box_bytes(committee, place), 0, len(self.plan.contributors))
            except StoreError:
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                return


async def _used(running: Running) -> tuple[int, ...]:
    """The places of the members whose answers opened the sum, as the log has it."""
    ended = await running.port.outcome(running.session)
    for entry in map(decode_entry, ended.evidence.entries):
        if isinstance(entry, OneShotResult) and entry.session == running.session:
            return entry.used
    raise DemoFailedError("the log has no result of the session")


def _found(site: Site) -> list[Path]:
    """Make what ``secagg committee init`` makes, but for the cards; returns the directories."""
    homes = []
    for number, name in enumerate(NAMES, start=1):
        home = site.private / f"member-{number}"
        config = CommitteeConfig(
            name=name,
            listen=FREE_PORT,
            address=DEFAULT_ADDRESS,  # stands in cards that `committee init` writes; here the port is known later
            state_directory=home / STATE_DIRECTORY,
            key_file=home / KEY_FILE,
            transport=new_home(home),
            coordinators=frozenset({site.coordinator_key}),
            registrars=frozenset({site.registrar.public_bytes}),
            log_policy=site.witnesses,
        )
        create_key_file(config.key_file, KeyKind.COMMITTEE_MEMBER, None, SystemRng())
        MemberState.create(config.state_directory)
        (home / CommitteeConfig.FILE_NAME).write_text(config.to_toml(), encoding="utf-8")
        homes.append(home)
    return homes


def _serve(home: Path) -> tuple[str, ...]:
    return ("committee", "serve", "--config", str(home / CommitteeConfig.FILE_NAME), "--format", "json")


def _write_card(name: str, home: Path, port: int) -> MemberCard:
    key = load_key_file(home / KEY_FILE, KeyKind.COMMITTEE_MEMBER, None)
    address = str(Address(FREE_PORT.host, port))
    member = member_of(name, key, member_sealing_key(key).public_bytes)
    card = MemberCard.of(member, address, certificate_in(home))
    (home / CARD_FILE).write_bytes(card.to_bytes() + b"\n")
    return card
