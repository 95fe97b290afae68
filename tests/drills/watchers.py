"""Many watch a session and do nothing else: each hears how it ends, and costs little."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.phases import Phase
from secagg.remote import GrpcCoordinator
from secagg.runtime.participant import TransportError
from tests.drills.grounds import CALL_S, SESSION_S, Cast, Grounds, grounds
from tests.drills.judge import RECORD, judge, judge_sent
from tests.drills.killing import ENDS, RefusedError, held_by, take_part
from tests.drills.party import Party, memory_mib
from tests.drills.report import DrillReport

NAME = "watchers"
HEARD = "every watcher hears the end of the session"
PLACES = "a place is free again once its watcher has gone, and beyond the limit watchers are refused with the reason"
BOUNDED = "a watcher costs the coordinator no more than its bound"
_SPARE = 8
_MIB_EACH = 0.15
"""85 KB were measured for a watcher over TLS; this is 154 KiB."""
_KEPT_MIB = 16
"""What the allocator asks for at once."""
_LOOK_AGAIN_S = 0.05


@dataclass
class Watcher:
    """One watcher, on a connection of its own."""

    ground: Grounds
    session: bytes
    heard: list[Phase] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: RejectReason | None = None

    async def watch(self) -> None:
        """Until the session has ended, or the watch is refused."""
        port = GrpcCoordinator(self.ground.own_channel(), CALL_S)
        try:
            async for status in port.watch(self.session):
                self.heard.append(status.phase)
                self.began.set()
        except RemoteProtocolError as error:
            self.refusal = error.reason
        except TransportError as error:
            self.heard.clear()
            self.ground.report.promise(HEARD, f"a watch broke off: {error}")
        finally:
            self.began.set()
            await port.close()


@dataclass
class Gallery:
    """Watchers and their tasks."""

    ground: Grounds
    session: bytes
    watchers: list[Watcher] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def admit(self, count: int) -> list[Watcher]:
        """So many more; all of them have heard something, or were refused."""
        new = [Watcher(self.ground, self.session) for _ in range(count)]
        for start in range(0, count, 50):  # as many handshakes at a time
            some = new[start : start + 50]
            self.tasks += [asyncio.ensure_future(each.watch()) for each in some]
            async with asyncio.timeout(SESSION_S):
                await asyncio.gather(*(each.began.wait() for each in some))
        self.watchers += new
        return new

    async def dismiss(self, count: int) -> None:
        """The last ones go, without a word."""
        leaving, self.tasks = self.tasks[-count:], self.tasks[:-count]
        self.watchers = self.watchers[:-count]
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    async def end(self, within_s: float) -> None:
        """All have heard the end, or had the time to."""
        _, late = await asyncio.wait(self.tasks, timeout=within_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def run(watchers: int) -> DrillReport:
    """The drill."""
    report = DrillReport(
        NAME,
        f"{watchers} watchers of a session, each on a TLS connection of its own; half of them go and others come; then "
        "the session runs from its first message to its end",
    )
    started = time.monotonic()
    async with grounds(Cast(witnesses=0, max_watchers=watchers + _SPARE), report) as ground:
        session = await ground.open_session("pairwise")
        gallery = Gallery(ground, session)
        await _fill(gallery, watchers)
        await _run_session(gallery)
        await gallery.end(CALL_S)
        deaf = [each for each in gallery.watchers if each.heard[-1:] != [Phase.FINISHED]]
        report.promise(HEARD, *([f"{len(deaf)} of {watchers} did not"] if deaf else []))
        await ground.end()
        report.promise(RECORD, *await ground.verified())
    report.elapsed_s = round(time.monotonic() - started, 1)
    return report


async def _fill(gallery: Gallery, watchers: int) -> None:
    """Every place is taken once, given back and taken again; then one too many comes."""
    ground, pid = gallery.ground, gallery.ground.coordinator.pid
    before_mib, begun = memory_mib(pid, "VmRSS"), time.monotonic()
    await gallery.admit(watchers)
    each_mib = (memory_mib(pid, "VmRSS") - before_mib) / watchers
    seconds = round(time.monotonic() - begun, 1)
    bound_mib = _MIB_EACH + _KEPT_MIB / watchers
    found = [f"{1024 * each_mib:.0f} KiB of {1024 * bound_mib:.0f}"] if each_mib > bound_mib else []
    ground.report.promise(BOUNDED, *found)
    await gallery.dismiss(watchers // 2)
    broken = [] if await _all_seated(gallery, watchers // 2 + _SPARE) else ["places stay taken"]
    [refused] = await gallery.admit(1)
    if refused.refusal is not RejectReason.TOO_MANY_WATCHERS:
        broken.append(f"one too many: {refused.refusal}")
    ground.report.promise(PLACES, *broken)
    await gallery.dismiss(1 + _SPARE)
    ground.report.figures |= {
        "kib_each": round(1024 * each_mib, 1), "bound_kib": round(1024 * bound_mib, 1), "seconds_to_seat": seconds
    }  # fmt: skip


async def _all_seated(gallery: Gallery, count: int) -> bool:
    """Whether so many more get a place, which the coordinator frees once it has noticed who has gone."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CALL_S):
            while count:
                new = await gallery.admit(count)
                count = sum(each.refusal is not None for each in new)
                seated = [(each, task) for each, task in zip(gallery.watchers, gallery.tasks, strict=True)
                          if each.refusal is None]  # fmt: skip
                gallery.watchers, gallery.tasks = [each for each, _ in seated], [task for _, task in seated]
                await asyncio.sleep(_LOOK_AGAIN_S if count else 0)
    return not count


async def _run_session(gallery: Gallery) -> None:
    """Three contribute, and the session ends with the exact sum while everybody looks on."""
    ground, session = gallery.ground, gallery.session
    people = range(1, ground.cast.people + 1)
    parties: Sequence[Party] = [ground.contributor(k, session) for k in people]
    work = [asyncio.ensure_future(each) for each in (ground.watch(session), *map(take_part, parties))]
    try:
        async with asyncio.timeout(SESSION_S):
            await asyncio.gather(*work)
        ground.report.promise(ENDS)
    except (RefusedError, TimeoutError) as error:
        ground.report.promise(ENDS, f"{type(error).__name__}: {error}")
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        for party in parties:
            if party.is_running:
                await party.kill()
    ground.look_at(*parties)
    if not ground.report.broken:
        await judge(ground, session, "pairwise", held_by(ground, parties))
        judge_sent(ground, session, people)
