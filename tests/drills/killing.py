"""Processes are killed and started again while sessions run; what the four drills that kill have in common."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from secagg.cli.exit_codes import ExitCode
from tests.drills.grounds import SESSION_S, Cast, Grounds, grounds
from tests.drills.judge import RECORD, Held, judge, judge_journals, judge_member_states, judge_sent
from tests.drills.party import Happening, Party
from tests.drills.report import DrillReport

ENDS = "every session comes to its end once those that were killed are back"
COMES_BACK = "what was killed serves again when it is started again"
_LONGEST_GAP = 8
_LONGEST_PAUSE_S = 0.03

Tells = Callable[[Happening], bool]


@dataclass(frozen=True)
class Rounds:
    """How long a drill is: sessions of these protocols in turn, and how many times in each something is killed."""

    sessions: int
    kills: int
    seed: int
    protocols: tuple[str, ...] = ("pairwise", "one-shot")

    def protocol(self, number: int) -> str:
        return self.protocols[number % len(self.protocols)]


@dataclass
class Killer:
    """Kills some of ``targets`` again and again, at moments that follow from ``chance``.

    The first moment, and about half of the others, are among those of which ``tells`` is true: just after something
    was acknowledged, where what is not durable would be missed. The others are some happenings after the last one.
    """

    ground: Grounds
    targets: Sequence[Party]
    tells: Tells
    chance: random.Random
    at_once: int = 1
    restarts: bool = True
    after_death: Callable[[Sequence[Party]], None] = lambda _: None
    is_over: bool = field(default=False, init=False)

    async def keep_killing(self, times: int, position: int) -> None:
        """Until it is over, or done so many times."""
        happenings = self.ground.happenings
        for number in range(times):
            if self.is_over:  # it ended while something was started again
                return
            if number == 0 or self.chance.random() < 0.5:
                position = await happenings.after(position, lambda each: self.tells(each) or self.is_over)
            else:
                left = itertools.count(self.chance.randrange(_LONGEST_GAP), -1)
                position = await happenings.after(position, lambda _, left=left: next(left) <= 0 or self.is_over)
            if self.is_over:
                return
            # No waiting for anything: the moment is somewhat later than what was seen.
            await asyncio.sleep(self.chance.uniform(0, _LONGEST_PAUSE_S) if number else 0)
            await self.kill(happenings.all[position])
            position = len(happenings.all)

    async def kill(self, told: Happening) -> None:
        """Kill some that run, whoever has told of the moment among them, and start them again."""
        running = [party for party in self.targets if party.is_running]
        others = [party for party in running if party.name != told.who]
        count = min(len(running), self.chance.randint(1, self.at_once))
        victims = [party for party in running if party.name == told.who]
        victims += self.chance.sample(others, max(0, count - len(victims)))
        await self._kill(told.what, victims)
        if self.restarts:
            await bring_back(self.ground.report, victims)

    async def end(self) -> None:
        """The session has ended: the services that were killed in it are killed once more, all of them."""
        if self.restarts:
            await self._kill("the end of the session", [party for party in self.targets if party.is_running])

    async def _kill(self, moment: str, victims: Sequence[Party]) -> None:
        before = sum(party.deaths for party in victims)
        await asyncio.gather(*(party.kill() for party in victims))
        self.ground.report.kills[moment] += sum(party.deaths for party in victims) - before
        self.after_death(victims)

    def stop(self) -> None:
        """It is over: whoever waits for a moment waits no more."""
        self.is_over = True
        self.ground.happenings.add(Happening("drill", "over", {}))


async def bring_back(report: DrillReport, victims: Iterable[Party]) -> None:
    """Start services again; all of them serve."""
    broken = []
    for party in victims:
        await party.start()
    for party in victims:
        try:
            await party.serves()
        except RuntimeError as error:
            broken.append(str(error))
    report.promise(COMES_BACK, *broken)


class RefusedError(Exception):
    """A contributor cannot take part any more."""


async def take_part(party: Party) -> None:
    """Contribute, again after each death and while nobody answers. Raises RefusedError."""
    while True:
        await party.start()
        code = await party.ended()
        if code == ExitCode.OK:
            return
        if code not in {-signal.SIGKILL, ExitCode.UNAVAILABLE}:
            raise RefusedError(f"{party.name} ended with {code}: {party.last_words()}")


async def session_under_fire(
    ground: Grounds, protocol: str, times: int, killer_of: Callable[[Sequence[Party]], Killer]
) -> bytes:
    """One session of three people during which a killer is at work, and what is left of it; its identifier."""
    away = [party for party in ground.services if not party.is_running]
    if away:
        await bring_back(ground.report, away)
    begun = len(ground.happenings.all)
    session = await ground.open_session(protocol)
    people = range(1, ground.cast.people + 1)
    parties = [ground.contributor(k, session) for k in people]
    killer = killer_of(parties)
    killing = asyncio.ensure_future(killer.keep_killing(times, begun))
    work = [asyncio.ensure_future(each) for each in (ground.watch(session), *map(take_part, parties))]
    try:
        async with asyncio.timeout(SESSION_S):
            await asyncio.gather(*work)
        ground.report.promise(ENDS)
    except RefusedError as error:
        ground.report.promise(ENDS, str(error))
    except TimeoutError:
        last = ground.happenings.all[-1].what
        ground.report.promise(ENDS, f"a {protocol} session had not ended after {SESSION_S:.0f} s; last: {last}")
    finally:
        killer.stop()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await killing
    await killer.end()
    if not ground.coordinator.is_running:
        await bring_back(ground.report, [ground.coordinator])
    for party in parties:
        if party.is_running:
            await party.kill()
    ground.look_at(*parties)
    if not ground.report.broken:
        counted = await judge(ground, session, protocol, held_by(ground, parties))
        judge_sent(ground, session, people)
        if protocol == "one-shot" and counted:
            await judge_journals(ground, session)
    return session


def held_by(ground: Grounds, parties: Sequence[Party]) -> Held:
    """What three people hold, by what their processes have said."""
    held = Held({key: k - 1 for k, key in ground.site.identities.items()})
    for k, party in enumerate(parties, start=1):
        receipts = [bytes.fromhex(line["signed"]) for line in party.errors if "signed" in line]
        held.receipts[ground.site.identities[k]] += receipts
    return held


async def drill(
    report: DrillReport, cast: Cast, rounds: Rounds, killer_of: Callable[[Grounds, Sequence[Party]], Killer]
) -> None:
    """Sessions under fire, one after the other on the same grounds; then the record, and what is on the disks."""
    started = time.monotonic()
    sessions: dict[bytes, str] = {}
    async with grounds(cast, report) as ground:
        for number in range(rounds.sessions):
            protocol = rounds.protocol(number)
            killer = functools.partial(killer_of, ground)
            sessions[await session_under_fire(ground, protocol, rounds.kills, killer)] = protocol
            if report.broken:
                break
        await ground.end()
        if not report.broken:
            report.promise(RECORD, *await ground.verified())
            await judge_member_states(ground, [key for key, protocol in sessions.items() if protocol == "one-shot"])
    report.elapsed_s = round(time.monotonic() - started, 1)


def acknowledged(happening: Happening) -> bool:
    """Whether the coordinator has just acknowledged something to a contributor."""
    return happening.kind == "contributor" and happening.what.startswith(("receipt", "acknowledged"))


def receipted(happening: Happening) -> bool:
    """Whether a contributor has just got a receipt."""
    return happening.kind == "contributor" and happening.what.startswith("receipt")


def phase_began(happening: Happening) -> bool:
    """Whether a phase has just been seen to begin."""
    return happening.kind == "session"
