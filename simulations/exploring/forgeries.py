"""A coordinator that signs a second close of its session: to whom it shows which, and what it asks members for."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from dataclasses import dataclass

from secagg.crypto.notes import sign_checkpoint
from secagg.protocol.errors import RemoteProtocolError
from secagg.protocol.messages import ClientMessage, ClosedList, Confirmations, ConfirmClose, UnmaskAnswer
from secagg.protocol.one_shot.messages import OpenRequest
from secagg.protocol.phases import Phase
from secagg.protocol.published import contributions_root
from secagg.runtime.participant import TransportError
from secagg.runtime.shown import Status
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import SessionClose, decode_entry
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merkle import Frontier, leaf_hash
from secagg.transcript.statements import (
    Accepted,
    ConfirmStatement,
    Dropped,
    Signed,
    UnmaskStatement,
    decode_disposition,
)
from simulations.exploring.operations import Forge, Forgery
from simulations.world.cast import ORIGIN, Cast
from simulations.world.coordinator import CoordinatorNode, Front

_PERIOD_S = 5.0


@dataclass(frozen=True, slots=True)
class SecondClose:
    """A close that the coordinator signed beside the honest one.

    Attributes:
        digest: SHA-256 of the entry.
        shown: the log that shows it, and the dispositions.
        contributions: signed headers that it counts, in order.
    """

    digest: bytes
    shown: ClosedList
    contributions: tuple[bytes, ...]


def second_close(cast: Cast, honest: ClosedList, forge: Forge) -> SecondClose | None:
    """What is forged from the honest close; None where it would count fewer than two."""
    evidence = honest.evidence
    at = next((at for at, data in enumerate(evidence.entries) if _is_close(cast, data)), None)
    if at is None:
        return None
    leaves = [decode_disposition(leaf) for leaf in honest.leaves]
    accepted = {leaf.index: leaf.contribution for leaf in leaves if isinstance(leaf, Accepted)}
    left_out = _left_out(cast, accepted, forge)
    counted = {index: signed for index, signed in accepted.items() if index not in left_out}
    if len(counted) < 2:
        return None
    altered = [Dropped(leaf.index, "masked-input") if leaf.index in left_out else leaf for leaf in leaves]
    data = tuple(leaf.to_bytes() for leaf in altered)
    close = decode_entry(evidence.entries[at])
    if not isinstance(close, SessionClose):
        return None
    entry = dataclasses.replace(
        close,
        count=len(counted),
        dropped=close.dropped + len(left_out),
        contributions=contributions_root(counted),
        dispositions=merkle.root(data),
    ).to_bytes()
    before = evidence.entries[: at + 1] if forge.forgery is Forgery.SECOND else evidence.entries[:at]
    shown = ClosedList(_signed(cast, evidence, (*before, entry)), data)
    headers = tuple(counted[index].to_bytes() for index in sorted(counted))
    return SecondClose(hashlib.sha256(entry).digest(), shown, headers)


def _is_close(cast: Cast, data: bytes) -> bool:
    entry = decode_entry(data)
    return isinstance(entry, SessionClose) and entry.session == cast.session.parameters.session


def _left_out(cast: Cast, accepted: dict[int, Signed], forge: Forge) -> frozenset[int]:
    """The named client goes first, then whoever comes first: one, or as many as are too many for a tiny set."""
    named = cast.clients[forge.client].public_bytes
    order = sorted(accepted, key=lambda index: (accepted[index].statement.identity != named, index))
    number = 1
    if forge.forgery is Forgery.TINY:
        number = len(accepted) - cast.plan.minimum + 1
    return frozenset(order[:number])


def _signed(cast: Cast, evidence: LogEvidence, entries: tuple[bytes, ...]) -> LogEvidence:
    """These entries under a checkpoint of the coordinator's own; no witness cosigns it."""
    frontier = Frontier.from_hashes(evidence.start, evidence.prefix)
    for entry in entries:
        frontier.append(leaf_hash(entry))
    checkpoint = Checkpoint(ORIGIN, evidence.start + len(entries), frontier.root)
    note = sign_checkpoint(cast.coordinator, checkpoint).to_bytes()
    return LogEvidence(evidence.start, evidence.prefix, entries, note)


class TwoFacedFront(Front):
    """Honest until ``forge`` is set."""

    def __init__(self, node: CoordinatorNode) -> None:
        super().__init__(node)
        self.forge: Forge | None = None
        self._asked: set[bytes] = set()
        self._deceived: set[bytes] = set()
        self._confirmed: dict[bytes, Signed] = {}
        self._second: SecondClose | None = None

    async def closed_list(self, caller: bytes) -> ClosedList:
        """U3, or another."""
        honest = await super().closed_list(caller)
        second = self._second_of(honest)
        before = caller in self._asked
        self._asked.add(caller)
        if second is None or not self._is_deceived(caller, asked_before=before):
            return honest
        self._deceived.add(caller)
        return second.shown

    async def send(self, caller: bytes, message: ClientMessage) -> None:
        """Keep what was signed over the second close; the host takes the rest."""
        second, forge = self._second, self.forge
        if second is not None and forge is not None and isinstance(message, ConfirmClose | UnmaskAnswer):
            statement = message.signed.statement
            over = statement.close if isinstance(statement, ConfirmStatement | UnmaskStatement) else b""
            is_kept = over == second.digest or forge.forgery is Forgery.MIX
            if is_kept and isinstance(message, ConfirmClose):
                self._confirmed[caller] = message.signed
            if over == second.digest:
                return
        await super().send(caller, message)

    async def confirmations(self, caller: bytes) -> Confirmations:
        """To whoever signed what was kept, what others signed."""
        if caller not in self._confirmed:
            return await super().confirmations(caller)
        return Confirmations(tuple(signed for who, signed in self._confirmed.items() if who != caller))

    async def status(self, caller: bytes) -> Status:
        """To whoever signed what was kept, that it is time to answer."""
        status = await super().status(caller)
        return dataclasses.replace(status, phase=Phase.UNMASK) if caller in self._confirmed else status

    async def changed(self, caller: bytes, last: Status) -> Status:
        """As ``status``, as soon as it is news."""
        if self.forge is None:
            return await super().changed(caller, last)
        while True:
            status = await self.status(caller)
            if (status.phase, status.log_size) != (last.phase, last.log_size):
                return status
            await asyncio.sleep(_PERIOD_S)

    def asked_of_member(self, place: int, request: OpenRequest) -> tuple[OpenRequest, ...]:
        """What a committee member is asked for, in order."""
        try:
            second = self._second_of(self.host.closed_list())
        except (RemoteProtocolError, TransportError):
            second = None
        if second is None or self.forge is None:
            return (request,)
        forged = OpenRequest(second.shown.evidence, second.contributions)
        match self.forge.forgery:
            case Forgery.FORK | Forgery.MIX:
                return (request,) if place % 2 else (forged, request)
            case Forgery.TINY:
                return forged, request
            case _:
                return request, forged

    def _second_of(self, honest: ClosedList) -> SecondClose | None:
        if self.forge is not None and self._second is None:
            self._second = second_close(self.node.cast, honest, self.forge)
        return self._second

    def _is_deceived(self, caller: bytes, *, asked_before: bool) -> bool:
        if self.forge is None:
            return False
        match self.forge.forgery:
            case Forgery.FORK | Forgery.MIX:
                return self.node.cast.numbers[caller] % 2 == 0
            case Forgery.CHANGE:
                return asked_before
            case _:
                return True
