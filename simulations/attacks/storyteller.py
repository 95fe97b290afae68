"""A coordinator that closes its session as it likes, and tells different clients of different closes.

It plays by the rules until it has the masked inputs that it waits for. From then on its own machine is out of the game:
it signs closes, hands confirmations around, and keeps every answer that it gets. Corrupt clients sign whatever it asks
for. Clients whose story has no end are told nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from secagg.protocol.errors import ProtocolError, RemoteProtocolError
from secagg.protocol.messages import (
    ClientMessage,
    ClosedList,
    Confirmations,
    ConfirmClose,
    Contribution,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.one_shot.messages import CommitContribution, OneShotContribution
from secagg.protocol.pairwise import client
from secagg.protocol.pairwise.client_states import Aborted, ClientEvent, ClientState, Confirmed
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.runtime.pairwise_participant import PairwiseParticipant
from secagg.runtime.participant import CoordinatorPort
from secagg.runtime.ports import BlobStore
from secagg.runtime.shown import Status
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import ConfirmStatement, Signed, UnmaskStatement
from simulations.attacks import forgery
from simulations.attacks.loot import Loot
from simulations.attacks.notebook import Notebook
from simulations.world.clients import ClientNode
from simulations.world.coordinator import Front
from simulations.world.passing import PassingPort
from simulations.world.randomness import SeededRng
from simulations.world.world import World

_LOOKS_AGAIN_S = 1.0
_QUIET_S = 8.0
"""Nothing new for so long, and nothing more will come of a tale."""


@dataclass
class Tale:
    """One close as the coordinator tells of it, and what came back.

    Attributes:
        name: in words.
        shown: the close, in a log.
        counted: numbers of the clients that it counts.
        confirmed: who signed it, by number.
        answered: who released shares for it, by number.
    """

    name: str
    shown: ClosedList
    counted: frozenset[int]
    confirmed: dict[int, Signed] = field(default_factory=dict)
    answered: dict[int, Signed] = field(default_factory=dict)


class Accomplice(PassingPort):
    """The port of a client that works for the coordinator: it acts honestly, and gives every state away."""

    def __init__(self, node: ClientNode, port: CoordinatorPort, loot: Loot) -> None:
        super().__init__(port)
        self._node = node
        self._loot = loot

    async def send(self, session: bytes, message: ClientMessage | CommitContribution) -> None:
        """See ``CoordinatorPort.send``."""
        self._confess()
        await super().send(session, message)

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """See ``CoordinatorPort.upload``."""
        self._confess()
        return await super().upload(session, message, blobs)

    def _confess(self) -> None:
        if isinstance(self._node.participant, PairwiseParticipant):
            self._loot.confessed(self._node.participant.state)


Plot: TypeAlias = "Callable[[Storyteller], list[Tale]]"
"""Makes the tales, once the masked inputs are there; asked again as long as it makes none."""


class Storyteller(Front):
    """A coordinator that lies about the close.

    Attributes:
        loot: all that it and its accomplices hold.
        headers: of everybody who announced a masked input, by number.
        confirmed: what was signed of any close, by number.
        tales: what it tells, from the moment on that it has enough masked inputs.
        told: which tale a client is told: by its number, and how many processes it has had.
    """

    def __init__(self, world: World, corrupt: frozenset[int], plot: Plot, waits_for: int) -> None:
        super().__init__(world.coordinator)
        self.world = world
        self.loot = Loot(world, corrupt)
        self.headers: dict[int, Signed] = {}
        self.confirmed: dict[int, Signed] = {}
        self.tales: list[Tale] = []
        self.told: Callable[[int, int], int | None] = lambda _number, _starts: 0
        self._plot = plot
        self._waits_for = waits_for
        self._delivered: set[int] = set()
        self._last_news_s = 0.0
        self._before: LogEvidence | None = None
        for number in corrupt:
            world.wrapped[number] = lambda node, port: Accomplice(node, port, self.loot)

    @property
    def corrupt(self) -> frozenset[int]:
        """Numbers of the clients that work for it."""
        return self.loot.corrupt

    @property
    def quiet_s(self) -> float:
        """How long nobody has sent anything new, or come back."""
        return self.world.now_s - self._last_news_s

    def tale_over(self, name: str, counted: frozenset[int], witnesses: tuple[int, ...] = ()) -> Tale:
        """A close that counts these clients' contributions."""
        if self._before is None:
            self._before = self.host.evidence()
        accepted = {self.loot.index_of(number): self.headers[number] for number in counted}
        shown = forgery.forged_closed(self.world.cast, self._before, len(self.loot.members), accepted, witnesses)
        return Tale(name, shown, counted)

    # What clients meet.

    async def session_files(self, caller: bytes, log_size: int) -> tuple[LogEvidence, tuple[bytes, ...]]:
        """The log of the tale, with a proof that it is the one that the caller knows, where it is."""
        tale = self._tale_of(caller)
        if tale is None:
            return await super().session_files(caller, log_size)
        return tale.shown.evidence, forgery.consistency(tale.shown.evidence, log_size)

    async def status(self, caller: bytes) -> Status:
        """The phase that suits the tale."""
        return self._status(caller, await super().status(caller))

    async def changed(self, caller: bytes, last: Status) -> Status:
        """Looks now and then: what this caller is told depends on more than the host."""
        while True:
            status = await self.status(caller)
            if (status.phase, status.log_size) != (last.phase, last.log_size):
                return status
            await asyncio.sleep(_LOOKS_AGAIN_S)

    async def announce(self, caller: bytes, message: Contribution | OneShotContribution) -> bool:
        """Take any header: what its own machine thinks of it does not matter."""
        self.headers[self._number(caller)] = message.signed
        try:
            await super().announce(caller, message)
        except RemoteProtocolError:
            return False
        return False

    async def deliver(self, caller: bytes, data: bytes) -> None:
        """Take any upload."""
        number = self._number(caller)
        self.loot.uploaded(self.headers[number], data)
        self._delivered.add(number)
        try:
            await super().deliver(caller, data)
        except RemoteProtocolError:
            return

    async def receipt(self, caller: bytes, message: Contribution | OneShotContribution) -> SignedReceipt:
        """A receipt for everybody."""
        del caller
        return forgery.receipt(self.world.cast, message.signed)

    async def send(self, caller: bytes, message: ClientMessage) -> None:
        """Keep what is signed of a close; once there are tales, the host hears of it no more."""
        signed, number = message.signed, self._number(caller)
        self._last_news_s = self.world.now_s
        match signed.statement:
            case ConfirmStatement(_, close):
                self.confirmed[number] = signed
                for tale in self._tales_of(close):
                    tale.confirmed[number] = signed
            case UnmaskStatement(_, close):
                self.loot.answered(signed)
                for tale in self._tales_of(close):
                    tale.answered[number] = signed
        if not self.tales or not isinstance(message, ConfirmClose | UnmaskAnswer):
            await super().send(caller, message)

    async def closed_list(self, caller: bytes) -> ClosedList:
        """The close of the tale."""
        tale = self._tale_of(caller)
        return await super().closed_list(caller) if tale is None else tale.shown

    async def confirmations(self, caller: bytes) -> Confirmations:
        """What others signed of the tale, with what corrupt clients sign of it."""
        tale = self._tale_of(caller)
        return await super().confirmations(caller) if tale is None else self.around(tale, self._number(caller))

    def around(self, tale: Tale, number: int) -> Confirmations:
        """The confirmations of a tale that a client is handed."""
        close = forgery.close_digest(tale.shown)
        signed = {each: forgery.confirmation(self.world.cast, each, close) for each in self.corrupt & tale.counted}
        signed |= {each: kept for each, kept in tale.confirmed.items() if each in tale.counted}
        return Confirmations(tuple(signed[each] for each in sorted(signed) if each != number))

    def _status(self, caller: bytes, honest: Status) -> Status:
        if not self.tales and len(self._delivered) >= self._waits_for:
            self.tales = self._plot(self)
            self._last_news_s = self.world.now_s
        if not self.tales:
            return honest
        tale = self._tale_of(caller)
        if tale is None:
            return Status(Phase.MASKED_INPUT, 0, 0, 0, 3)
        return Status(Phase.UNMASK, 0, 0, 0, len(tale.shown.evidence.entries))

    def tale_told(self, node: ClientNode) -> Tale | None:
        """What a client is told; None if it is told nothing."""
        told = self.told(node.number, node.starts) if self.tales else None
        return None if told is None else self.tales[told]

    def _tale_of(self, caller: bytes) -> Tale | None:
        return self.tale_told(self.world.clients[self._number(caller)])

    def _tales_of(self, close: bytes) -> list[Tale]:
        return [tale for tale in self.tales if forgery.close_digest(tale.shown) == close]

    def _number(self, caller: bytes) -> int:
        return self.world.cast.numbers[caller]


async def told_out(liar: Storyteller, most_s: float) -> None:
    """Let time pass until the session is over, nobody takes part any more, or nothing more comes of the tales."""
    world = liar.world
    end_s = world.now_s + most_s
    while world.now_s < end_s:
        await asyncio.sleep(_LOOKS_AGAIN_S)
        is_deserted = all(node.process is None for node in world.clients)
        if liar.host.is_over or (liar.quiet_s > _QUIET_S and (liar.tales or is_deserted)):
            return


def note_verdicts(liar: Storyteller, notebook: Notebook, what: str) -> None:
    """Write down who refused to go on and why, the silent ones too.

    Who lacks confirmations waits for more and says nothing: its machine is asked again.
    """
    told = {node.name: node for node in liar.world.clients if node.number not in liar.corrupt}
    for happening in liar.world.happenings:
        if happening.what == "refused" and happening.node in told:
            notebook.refused(happening.node, _told(liar, told[happening.node], what), happening.detail)
    for node in told.values():
        state = state_of(node)
        tale = liar.tale_told(node)
        if isinstance(state, Aborted) and not _has_refused(liar.world, node):
            notebook.refused(node.name, _told(liar, node, what), state.reason.name)
        elif isinstance(state, Confirmed) and tale is not None:
            reason = refusal(liar.world, node, liar.around(tale, node.number))
            if reason is not None:
                notebook.refused(node.name, f"to answer for {tale.name}", reason)


def refusal(world: World, node: ClientNode, event: ClientEvent) -> str | None:
    """Why a client's machine refuses an event, by name; None if it does not. Nothing comes of the question."""
    session, state = world.cast.session, state_of(node)
    if not isinstance(session, PairwiseSession) or state is None:
        return None
    key = world.cast.clients[node.number]
    context = client.ClientContext(key, session, world.cast.client_policy, world.cast.log_policy)
    try:
        client.step(context, state, event, SeededRng(world.plan.seed, "asked"))
    except ProtocolError as error:
        return error.reason.name
    return None


def state_of(node: ClientNode) -> ClientState | None:
    """The last state of a client's machine; None before it has one."""
    return node.participant.state if isinstance(node.participant, PairwiseParticipant) else None


def _has_refused(world: World, node: ClientNode) -> bool:
    return any(each.what == "refused" and each.node == node.name for each in world.happenings)


def _told(liar: Storyteller, node: ClientNode, what: str) -> str:
    tale = liar.tale_told(node)
    return what if tale is None else tale.name
