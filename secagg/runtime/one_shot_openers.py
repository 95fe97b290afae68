"""The institutions of a one-shot session as its coordinator deals with them: boxes out, answers in.

What there is to do follows from the rows of the session, so nothing is queued that a crash could lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING

from secagg.arith.linear_hash import LIMBS_PER_LANE, shards_needed
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.coordinator_states import (
    Collecting,
    HoldingsReported,
    OneShotState,
    OpenerAnswered,
    Opening,
    Publishing,
    Recovering,
    Settling,
)
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.runtime.couriers import Courier, persist
from secagg.runtime.institutions import DecryptRequest
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StoreError
from secagg.runtime.session_host import CoordinatorPorts
from secagg.transcript.entries import OneShotClose
from secagg.transcript.openers import Committee, KeyAuthority, SummedCiphertext
from secagg.transcript.statements import Signed

if TYPE_CHECKING:
    from secagg.runtime.one_shot_host import OneShotHost

_BATCH = 64
"""Contributions whose boxes are brought at a time: about a mebibyte of whole shares."""

_LINGER_S = 0.1
_PIECE_BYTES = 1 << 20
_FINAL = frozenset({RejectReason.WRONG_OPENING, RejectReason.OPENED_BEFORE})
"""Refusals of an authority after which it will never answer; the session waits for its deadline, or its operator."""


class _GivenUpError(Exception):
    """The authority will not answer."""


class Openers:
    """Talks to the institutions of one session; its methods run in the host's event loop."""

    def __init__(self, host: OneShotHost, ports: CoordinatorPorts) -> None:
        self._host = host
        self._ports = ports
        self._arrivals: list[int] = []
        self._arrived: set[int] = set()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to bring members their boxes, also those that came before a restart."""
        opening = self._host.session.opening
        if not isinstance(opening, Committee):
            return
        self._arrivals = list(tables.staged_positions(self._host.rows))
        self._arrived = set(self._arrivals)
        bringing = [self._spawn(self._bring(member)) for member in range(len(opening.members))]
        self._spawn(self._stop_in_time(bringing))

    async def close(self) -> None:
        """Stop; what members were not told is told after the next start."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def arrived(self, position: int) -> None:
        """The contribution of this roster position is durable: members may have their boxes."""
        if position in self._arrived:
            return
        self._arrived.add(position)
        self._arrivals.append(position)
        self._news.set()
        self._news = asyncio.Event()

    async def ask(self, close: bytes) -> None:
        """Ask whoever is to open this close, until the sum is open or given up."""
        asking = {asyncio.ensure_future(question) for question in self._questions(close)}
        driver = self._host.driver
        try:
            while asking and _asks_for(driver.state, close):
                changed = asyncio.ensure_future(driver.wait_for_change(driver.version))
                try:
                    await asyncio.wait({changed, *asking}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                for task in [task for task in asking if task.done()]:
                    asking.remove(task)
                    task.result()
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    def files(self, log_size: int) -> ShownSessionFiles:
        """What an institution checks before it serves the session, if it has seen the log up to a size. Blocks."""
        setup = self._host.setup()
        return ShownSessionFiles(
            evidence=self._host.evidence(),
            consistency=self._host.consistency(log_size),
            roster=tuple(self._ports.blobs.get(setup.roster).splitlines()),
            roster_head=setup.roster_head,
            roster_signature=setup.roster_signature,
        )

    @functools.cached_property
    def _couriers(self) -> tuple[Courier, ...]:
        parameters = self._host.session.parameters
        cards = [self._ports.blobs.get(card) for card in self._host.setup().cards]
        try:
            ports = self._ports.institutions.members(cards)
        except RemoteProtocolError as error:
            raise StoreError(f"the session's cards: {error}") from None
        return tuple(Courier(port, parameters.session, parameters.log, self.files, self._failed) for port in ports)

    def _failed(self, event: str, reason: str) -> None:
        self._ports.report(event, self._host.session.parameters.session, reason)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _bring(self, member: int) -> None:
        """Bring one member the boxes of every contribution, in the order in which they came."""
        await self._host.opened()
        courier, told = self._couriers[member], 0
        while True:
            news = self._news
            batch = self._arrivals[told : told + _BATCH]
            if not batch:
                await news.wait()
                # Others may be arriving: a box by itself costs a member a call and two flushes.
                await asyncio.sleep(_LINGER_S)
                continue
            boxes = await asyncio.to_thread(self._boxes, member, tables.unsettled(self._host.rows, batch, member))
            if boxes:
                complaints = await courier.bring(list(boxes.values()))
                await self._report(member, list(boxes), complaints)
            told += len(batch)

    def _boxes(self, member: int, positions: Sequence[int]) -> dict[int, HeldBox]:
        """What there is for a member; a box that cannot be read keeps no other waiting."""
        rows, found = self._host.rows, {}
        for position in positions:
            parts = tables.parts_at(rows, position)
            try:
                box = self._ports.blobs.read(parts.blob, sum(parts.lengths[:member]), parts.lengths[member])
            except (StoreError, OSError) as error:
                self._failed("box_unreadable", type(error).__name__)
                continue
            found[position] = HeldBox(tables.require_header(rows, position)[0], box)
        return found

    async def _report(self, member: int, positions: Sequence[int], complaints: Sequence[str]) -> None:
        said = list(zip(positions, complaints, strict=True))
        for reason in sorted({complaint for complaint in complaints if complaint}):
            self._failed("share_refused", reason)
        held = tuple(position for position, complaint in said if not complaint)
        refused = tuple(position for position, complaint in said if complaint)
        while True:
            try:
                await self._host.driver.feed(HoldingsReported(member, held, refused))
                return
            except StoreError as error:
                self._failed("report_delayed", type(error).__name__)
                await asyncio.sleep(1.0)

    async def _stop_in_time(self, bringing: Sequence[asyncio.Task[None]]) -> None:
        """End the couriers when the set is fixed, and tell the members when the session has ended."""
        driver = self._host.driver
        while _takes_reports(driver.state):
            await driver.wait_for_change(driver.version)
        for task in bringing:
            task.cancel()
        await asyncio.gather(*bringing, return_exceptions=True)
        await self._host.ended()
        # Best effort: a member that does not hear of the end forgets the boxes when their time is over.
        for courier in self._couriers:
            with contextlib.suppress(TransportError, RemoteProtocolError, StoreError, OSError):
                await courier.join()

    def _questions(self, close: bytes) -> list[Coroutine[None, None, None]]:
        state = self._host.driver.state
        if not _asks_for(state, close):
            return []  # an effect of before a restart, carried out again: this close is open, or given up
        opening = state.opening if isinstance(state, Recovering) else state
        if not isinstance(opening, Opening):
            return []
        if isinstance(self._host.session.opening, KeyAuthority):
            return [self._ask_authority()]
        answered = tables.answers(self._host.rows)
        return [self._ask_member(member) for member in opening.members if member not in answered]

    async def _ask_member(self, member: int) -> None:
        await self._take(await self._couriers[member].ask(self._request))

    def _request(self) -> OpenRequest:
        return OpenRequest(self._host.evidence(), self._host.contribution_leaves())

    async def _ask_authority(self) -> None:
        setup, parameters = self._host.setup(), self._host.session.parameters
        card = await asyncio.to_thread(self._ports.blobs.get, setup.cards[0])
        try:
            port = self._ports.institutions.authority(card)
        except RemoteProtocolError as error:
            raise StoreError(f"the session's card: {error}") from None

        async def attempt() -> Signed:
            size = await port.log_size(parameters.log)
            return await port.decrypt(parameters.session, await asyncio.to_thread(self._decryption, size))

        def refused(reason: RejectReason) -> None:
            if reason in _FINAL:
                raise _GivenUpError

        with contextlib.suppress(_GivenUpError):
            await self._take(await persist(attempt, refused, self._failed))

    def _decryption(self, log_size: int) -> DecryptRequest:
        rows, blobs = self._host.rows, self._ports.blobs
        close = tables.close_entry(rows)
        if not isinstance(close.opener, SummedCiphertext):
            raise StoreError("the close entry names no ciphertext sum")
        return DecryptRequest(
            files=self.files(log_size),
            ciphertext_sum=blobs.get(close.opener.digest),
            attestations=tables.attestations(rows),
            committed=tables.committed_leaves(rows),
            contributions=self._host.contribution_leaves(),
            limb_sum=self._limb_sum(close),
        )

    def _limb_sum(self, close: OneShotClose) -> Iterator[bytes]:
        lanes = self._host.session.upload_lanes
        length = 8 * LIMBS_PER_LANE * lanes * shards_needed(close.count, lanes)
        for offset in range(0, length, _PIECE_BYTES):
            yield self._ports.blobs.read(close.limb_sum, offset, min(_PIECE_BYTES, length - offset))

    async def _take(self, signed: Signed) -> None:
        try:
            await self._host.driver.feed(OpenerAnswered(signed))
        except RemoteProtocolError as error:
            # It came after the sum was open, or is none to what was asked.
            if error.reason not in {RejectReason.WRONG_PHASE, RejectReason.SESSION_OVER}:
                self._failed("answer_refused", error.reason.name)


def _takes_reports(state: OneShotState) -> bool:
    outcome = state.then if isinstance(state, Publishing) else state
    return isinstance(outcome, Collecting | Settling)


def _asks_for(state: OneShotState, close: bytes) -> bool:
    opening = state.opening if isinstance(state, Recovering) else state
    return isinstance(opening, Opening) and opening.close == close
