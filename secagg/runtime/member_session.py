"""One session at a committee member: its driver, the boxes, the sum of the shares.

Boxes are opened when they come, to check them, and again when they are summed; what is kept is what was sent. Measured,
CPU time of one core: 0.24 ms to take a contribution, 0.1 ms to sum it (``benchmarks/committee.py``). HPKE takes 0.07 ms
of each and holds the GIL, so that threads help the signatures and the disk only.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.seeded_shamir import SHARE_ELEMENTS, add_share, shares_to_bytes
from secagg.crypto.sealing import SealingError
from secagg.derive.member_boxes import member_box_info, open_box
from secagg.protocol import log
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.one_shot import member
from secagg.protocol.one_shot.member_states import (
    MEMBER_PERSISTENCE,
    SESSION_ROW,
    Answered,
    Answering,
    BoxesStored,
    HeldRow,
    HeldShare,
    LogShown,
    MemberEffect,
    MemberEvent,
    MemberState,
    OpenAsked,
    Over,
    RetentionPassed,
    Rows,
    SessionRow,
    SharesLost,
    SharesSummed,
    StoredShare,
    SumShares,
    row_key,
)
from secagg.protocol.one_shot.messages import HeldBox
from secagg.runtime.driver import Driver
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.member_ports import ANSWERED, MemberPorts, OpeningLine
from secagg.runtime.ports import StoreError
from secagg.runtime.vectors import worker_threads
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merkle import DIGEST_BYTES
from secagg.transcript.statements import Signed

Shares = npt.NDArray[np.uint64]
_READ_BOXES = 64
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 10.0


@dataclass(frozen=True, slots=True)
class _Run:
    """Boxes in consecutive slots, and whose they are."""

    first: int
    identities: tuple[bytes, ...]


class MemberSession:
    """A session at one member. All methods run in one event loop; work on shares goes to threads."""

    def __init__(self, context: member.MemberContext, ports: MemberPorts, trust: LogTrust) -> None:
        self.context = context
        self._ports = ports
        self._trust = trust
        self._key = context.session.parameters.session
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._storing = asyncio.Lock()
        self.driver: Driver[MemberState, MemberEvent, MemberEffect] = Driver(
            self._key, ports.store, MEMBER_PERSISTENCE, self._step, self._dispatch
        )

    @property
    def rows(self) -> Rows:
        """The durable rows of the machine."""
        return cast("Rows", self.driver.rows)

    @property
    def is_over(self) -> bool:
        """Whether nothing of the session is held any more: it was answered, or never will be."""
        return isinstance(self.driver.state, Answered | Over)

    @property
    def keeps_until_s(self) -> int:
        """When the session is past all its deadlines and its retention, by the member's own clock since it joined."""
        row = self.rows[row_key(SESSION_ROW)]
        if not isinstance(row, SessionRow):
            raise StoreError("the session has no row of its own")
        parameters = self.context.session.parameters
        deadlines = parameters.deadlines
        phases_s = deadlines.commit_s + deadlines.upload_s + deadlines.hold_s + deadlines.open_s
        return row.joined_at_s + phases_s + parameters.retention_s

    async def create(self, view: LogView) -> None:
        """Join: store the session.

        Raises:
            RemoteProtocolError: it is none for this member.
            VersionConflictError: it exists.
        """
        await self.driver.create(member.start(self.context, view, self._ports.clock.now_s()))

    async def resume(self) -> None:
        """Go on after a restart."""
        if not await self.driver.resume():
            raise StoreError("the session is not in the store")
        await self.forget_boxes()

    async def close(self) -> None:
        """Stop background work; what it had not finished is done after the next start."""
        await self.driver.close(list(self._tasks.values()))

    async def show(self, evidence: LogEvidence) -> None:
        """Take note of what the log says by now.

        Raises:
            RemoteProtocolError: it does not continue what was shown before, or is not signed and cosigned.
        """
        seen = await asyncio.to_thread(self._trust.seen)
        self._trust.check(seen, evidence)
        await self.driver.feed(LogShown(evidence))
        await asyncio.to_thread(self._trust.remember, evidence)
        await self.forget_boxes()

    async def hold(self, items: Sequence[HeldBox]) -> tuple[str, ...]:
        """Check and keep boxes.

        Returns:
            For each, in order, "" if its share is durably held, otherwise the name of the reason why not.

        Raises:
            RemoteProtocolError: the session takes no boxes any more.
            StoreError: the disk refuses; nothing is known of any of them.
        """
        await self.driver.check(lambda state, _: member.check_holding(state))
        judged = await self._judged(items)
        # One batch at a time: of a box that comes in two at once one copy is stored.
        async with self._storing:
            new = _without_repeats(self.rows, judged, items)
            if new:
                first = await asyncio.to_thread(self._ports.boxes.append, self._key, [box for _, box in new])
                slots = itertools.count(first)
                await self.driver.feed(BoxesStored(tuple(StoredShare(share, next(slots)) for share, _ in new)))
        return tuple(each.name if isinstance(each, RejectReason) else self._verdict(each) for each in judged)

    async def open(self, evidence: LogEvidence, leaves: bytes) -> Signed:
        """The member's answer for the closed set with these headers (leaf hashes, 32 bytes each, in order).

        Raises:
            RemoteProtocolError: the member does not answer for that set, for this reason.
            StoreError: the disk refuses; the same call may succeed later.
        """

        async def given() -> AsyncGenerator[bytes, None]:
            yield leaves

        return await self.open_streamed(evidence, given())

    async def open_streamed(self, evidence: LogEvidence, leaves: AsyncGenerator[bytes, None]) -> Signed:
        """As ``open``, for leaf hashes that come in pieces: the first is asked for once the evidence holds.

        Args:
            evidence: the log with the close.
            leaves: the pieces; closed at the end.

        Raises:
            RemoteProtocolError, StoreError: as ``open``, and what ``leaves`` raises; or COHORT_FULL or SHARE_NOT_HELD
                as soon as more came than anybody could ask for.
        """
        count, came = 0, bytearray()
        try:
            async with aclosing(leaves):
                await self.show(evidence)
                self._check_not_over()
                async for piece in leaves:
                    count += len(piece) // DIGEST_BYTES
                    self._check_count(count)
                    came += piece
            await self.driver.feed(OpenAsked(evidence, bytes(came)))
            answered = await self._answered()
        except RemoteProtocolError as error:
            await self._write_down(self._close_of(evidence), count, error.reason)
            raise
        # Before the answer leaves: whatever was given away stands in the journal.
        await self._write_down(answered.close, answered.count, None)
        await self.forget_boxes()
        return answered.answer

    async def retire(self) -> None:
        """Give the session up if it is past its retention; delete boxes that nobody needs."""
        if not self.is_over and self._ports.clock.now_s() >= self.keeps_until_s:
            await self.driver.feed(RetentionPassed())
        await self.forget_boxes()

    async def forget_boxes(self) -> None:
        """Delete the boxes of a session that is over: its answer is durable, and no other will be given."""
        if self.is_over:
            await asyncio.to_thread(self._ports.boxes.delete, self._key)

    def _step(self, state: MemberState, rows: Mapping[int, object], event: MemberEvent) -> member.MemberTransition:
        return member.step(self.context, cast("Rows", rows), state, event)

    async def _judged(self, items: Sequence[HeldBox]) -> list[HeldShare | RejectReason]:
        slices = np.array_split(np.arange(len(items)), min(worker_threads(), max(1, len(items) // 16)))
        parts = [[items[int(at)] for at in part] for part in slices]
        judged = await asyncio.gather(*(asyncio.to_thread(self._judge, part) for part in parts))
        return [each for part in judged for each in part]

    def _judge(self, items: Sequence[HeldBox]) -> list[HeldShare | RejectReason]:
        found: list[HeldShare | RejectReason] = []
        for item in items:
            try:
                found.append(member.judge(self.context, self._ports.sealing_key, self.rows, item))
            except RemoteProtocolError as error:
                found.append(error.reason)
        return found

    def _verdict(self, share: HeldShare) -> str:
        row = self.rows.get(row_key(share.position))
        held = isinstance(row, HeldRow) and row.leaf == share.leaf
        return "" if held else RejectReason.EQUIVOCATION.name

    async def _answered(self) -> Answered:
        while True:
            version = self.driver.version
            self._check_not_over()
            state = self.driver.state
            if isinstance(state, Answered):
                return state
            await self.driver.wait_for_change(version)

    def _check_not_over(self) -> None:
        state = self.driver.state
        if isinstance(state, Over):
            raise RemoteProtocolError(state.reason, "this member does not answer for the session")

    def _check_count(self, count: int) -> None:
        """Refuse what is no closed set of this session however it goes on: its leaf hashes are kept until its end."""
        session = self.context.session
        most = min(session.parameters.encoding.max_contributors, len(session.positions))
        if count > most:
            raise RemoteProtocolError(RejectReason.COHORT_FULL, f"contributions: more than {most}")
        held = len(self.rows) - 1
        if count > held:
            raise RemoteProtocolError(RejectReason.SHARE_NOT_HELD, f"contributions: more than the {held} that are held")

    def _close_of(self, evidence: LogEvidence) -> bytes:
        """The close that was asked for, if evidence of it holds at all."""
        try:
            view = log.join(self.context.session.parameters, self.context.log, evidence)
        except RemoteProtocolError:
            return b""
        return b"" if view.close is None else view.close_digest

    async def _write_down(self, close: bytes, count: int, refusal: RejectReason | None) -> None:
        outcome, words = (ANSWERED, "answered") if refusal is None else (refusal.name, refusal.value)
        line = OpeningLine(self._ports.clock.now_s(), self._key, close, count, outcome, words)
        await asyncio.to_thread(self._ports.journal.add, line)

    def _dispatch(self, identifier: int, effect: MemberEffect) -> None:
        if identifier in self._tasks:
            return
        task = asyncio.ensure_future(self._carry_out(identifier, effect))
        self._tasks[identifier] = task
        task.add_done_callback(lambda _: self._tasks.pop(identifier, None))

    async def _carry_out(self, identifier: int, effect: SumShares) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                await self.driver.restore()
                state = self.driver.state
                if isinstance(state, Answering) and state.close == effect.close:
                    await self.driver.feed(await asyncio.to_thread(self._sum, effect))
                await self.driver.done(identifier)
                return
            except (StoreError, OSError) as error:
                self._ports.report("effect_failed", self._key, type(error).__name__)
            # The disk may recover; the session waits for it as long as it takes.
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def _sum(self, effect: SumShares) -> MemberEvent:
        bits = np.unpackbits(np.frombuffer(effect.positions, dtype=np.uint8), bitorder="little")
        runs = list(self._runs(np.flatnonzero(bits)))
        threads = max(1, min(worker_threads(), len(runs)))
        try:
            with ThreadPoolExecutor(threads) as pool:
                totals = list(pool.map(self._sum_runs, (runs[at::threads] for at in range(threads))))
        except (SealingError, ArithmeticInputError) as error:
            # Each was opened before it was stored: the disk returns other bytes.
            self._ports.report("box_damaged", self._key, type(error).__name__)
            return SharesLost(effect.close)
        for total in totals[1:]:
            add_share(totals[0], total)
        return SharesSummed(effect.close, shares_to_bytes(totals[0]))

    def _runs(self, positions: npt.NDArray[np.intp]) -> Iterator[_Run]:
        """The boxes of a set in the order they lie in, a megabyte at most at a time."""
        held = [(row.slot, int(at)) for at in positions if isinstance(row := self.rows[row_key(int(at))], HeldRow)]
        held.sort()
        members = self.context.session.roster.members
        start = 0
        for end in range(1, len(held) + 1):
            if end < len(held) and held[end][0] == held[end - 1][0] + 1 and end - start < _READ_BOXES:
                continue
            yield _Run(held[start][0], tuple(members[position].identity for _, position in held[start:end]))
            start = end

    def _sum_runs(self, runs: Sequence[_Run]) -> Shares:
        context, key, length = self.context, self._ports.sealing_key, self.context.box_bytes
        digest, place, committee = context.session.digest, context.place, context.committee
        total = np.zeros(SHARE_ELEMENTS, dtype=np.uint64)
        for run in runs:
            data = self._ports.boxes.read(self._key, length, run.first, len(run.identities))
            for number, identity in enumerate(run.identities):
                box = data[number * length : (number + 1) * length]
                add_share(total, open_box(key, member_box_info(digest, identity, place), box, committee, place))
        return total


def _without_repeats(
    rows: Rows, judged: Sequence[HeldShare | RejectReason], items: Sequence[HeldBox]
) -> list[tuple[HeldShare, bytes]]:
    """The shares that are not held yet, each once, with their boxes."""
    new: dict[int, tuple[HeldShare, bytes]] = {}
    for share, item in zip(judged, items, strict=True):
        if isinstance(share, HeldShare) and row_key(share.position) not in rows:
            new.setdefault(share.position, (share, item.box))
    return list(new.values())
