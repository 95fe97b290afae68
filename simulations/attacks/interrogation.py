"""A lying coordinator at work: the real machine, and beside it whoever has its keys and its store, asking for more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from secagg.protocol.errors import RemoteProtocolError
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.messages import OpenRequest
from secagg.runtime.institutions import MemberPort
from secagg.runtime.participant import TransportError
from secagg.transcript.entries import SessionEntry
from secagg.transcript.evidence import LogEvidence
from simulations.attacks.attack import AttackResult
from simulations.attacks.forgery_one_shot import Opened, Spoils, Taken, host_of, log_with, taken
from simulations.attacks.notebook import Notebook, how_it_ended, named, numbered
from simulations.judging.knowledge import View
from simulations.world.cast import ONE, member_name
from simulations.world.plan import CommitteePlan, Plan, Protocol
from simulations.world.world import World

VICTIM = 0
PHASE_S = 10
_PATIENCE_S = 3600
CORRUPT = frozenset({0, 1})
"""Places of the members that work for the coordinator: as many as the session says may be corrupt."""


def plan_of(seed: int, committee: CommitteePlan | None = None, witnesses: int = 0) -> Plan:
    """Six clients, at least three in a sum; by default any five of seven members open it."""
    return Plan(
        Protocol.ONE_SHOT,
        clients=6,
        dimension=8,
        seed=seed,
        min_contributors=3,
        committee=committee or CommitteePlan(),
        phase_s=PHASE_S,
        witnesses=witnesses,
    )


class LyingCoordinator:
    """What its operator has, and what members gave it.

    Attributes:
        world: the session; its coordinator's machine runs as it should.
        notes: what is tried, and what comes of it.
        spoils: the share sums it has by now.
        view: everything that it has seen, for the exact argument about what that determines.
    """

    def __init__(self, world: World, corrupt: frozenset[int] = CORRUPT) -> None:
        self.world = world
        self.notes = Notebook()
        self.spoils = Spoils(world.cast, corrupt)
        self.view = View(world.cast, members=corrupt)
        world.network.observers.append(self.view)

    @property
    def honest(self) -> list[int]:
        """Places of the honest members."""
        return [place for place in range(len(self.world.cast.members)) if place not in self.spoils.corrupt]

    def port(self, place: int) -> MemberPort:
        """How it reaches a member."""
        return self.world.coordinator.institutions.members([b"%d" % place])[0]

    async def collect(self, numbers: Sequence[int]) -> dict[int, Taken]:
        """Let these clients contribute, and wait until every member has said that it holds their shares."""
        world, members = self.world, len(self.world.cast.members)
        for number in numbers:
            world.join(number)
        for _ in range(_PATIENCE_S):
            await asyncio.sleep(1)
            rows = host_of(world).rows
            staged = tables.staged_positions(rows)
            if len(staged) == len(numbers) == tables.settled(rows, staged, members):
                break
        else:
            raise RuntimeError(f"after {_PATIENCE_S} s not every member holds the shares of {numbered(list(numbers))}")
        self.notes.step(f"{members} members hold the shares of {numbered(list(numbers))}.")
        return taken(world)

    async def ask(
        self, what: str, chosen: Sequence[Taken], evidence: LogEvidence, places: Sequence[int] | None = None
    ) -> int:
        """Ask honest members (``places``, or all) to open these contributions under a log; how many answer."""
        asked = self.honest if places is None else list(places)
        request = OpenRequest(evidence, tuple(each.leaf for each in chosen))
        answered = 0
        for place in asked:
            try:
                answer = await self.port(place).open(self.world.cast.session.parameters.session, request)
            except RemoteProtocolError as error:
                self.notes.refused(member_name(place), what, error.reason.name)
            except TransportError:
                self.notes.refused(member_name(place), what, "no answer")
            else:
                self.spoils.add(chosen, place, answer)
                answered += 1
        self.spoils.add_corrupt(chosen)
        who = named([member_name(place) for place in asked])
        self.notes.step(f"The coordinator asks {who} for {what}: {answered} of {len(asked)} answer.")
        return answered

    async def hold(self, what: str, items: Sequence[Taken]) -> None:
        """Bring honest members the boxes of contributions that it made itself."""
        session = self.world.cast.session.parameters.session
        for place in self.honest:
            for verdict in await self.port(place).hold(session, [each.item(place) for each in items]):
                if verdict:
                    self.notes.refused(member_name(place), what, verdict)

    def shows(self, *entries: SessionEntry) -> LogEvidence:
        """A log that it makes up for a member: the session's open entry, and then these."""
        return log_with(self.world, *entries)

    async def finish(self) -> AttackResult:
        """Let the session go on to its end; say what everything together opens."""
        world = self.world
        await world.until_over(world.now_s + 20 * PHASE_S)
        ended = how_it_ended(world)
        self.notes.step(f"The coordinator's own session goes on and ends: {ended}.")
        self.take_what_was_published()
        smallest = self.spoils.smallest()
        corrupt = len(self.spoils.corrupt)
        self.notes.step(
            f"With the share sums of {corrupt} corrupt members added, it can compute {_in_words(smallest)}."
        )
        self.notes.step(f"By linear algebra, what it has seen determines: {', '.join(self.view.explain())}.")
        is_open = smallest is not None and len(smallest.clients) < world.plan.minimum
        determined = self.view.smallest_sum()
        is_determined = determined is not None and len(determined) < world.plan.minimum
        learned = [_learned(world, smallest)] if smallest is not None and is_open else []
        if is_determined and not is_open:
            learned = list(self.view.explain())
        return self.notes.result(ended, learned, succeeded=is_open or is_determined)

    def take_what_was_published(self) -> None:
        """The sum of the session as it ended, and the answers that members gave for it."""
        world = self.world
        contributions, accepted = taken(world), world.accepted()
        chosen = [each for number, each in contributions.items() if number in accepted]
        if not chosen:
            return
        for place, signed in tables.answers(host_of(world).rows).items():
            self.spoils.add(chosen, place, signed)
        self.spoils.add_corrupt(chosen)
        total = world.integer_sum()
        if total is not None:
            self.spoils.published.append(Opened(Counter(accepted), total))


def _in_words(smallest: Opened | None) -> str:
    if smallest is None:
        return "nothing"
    return f"the sum of {numbered(smallest.clients)}, and no smaller one"


def _learned(world: World, smallest: Opened) -> str:
    """The sum that should not be open, against what those clients really contributed."""
    inputs = np.zeros(world.plan.dimension, dtype=np.int64)
    for number in smallest.clients:
        inputs += smallest.weights[number] * world.expected_sum(frozenset({number}))
    words = "exactly" if np.array_equal(smallest.integer_sum, inputs) else "not exactly"
    share = abs(smallest.weights[min(smallest.clients)])
    shown = ", ".join(str(int(value)) for value in smallest.integer_sum // share)
    return f"the sum of {numbered(smallest.clients)} alone, {words} what they contributed ({ONE} for a 1): {shown}"


Scheme = Callable[[LyingCoordinator], Awaitable[None]]
"""What a coordinator tries, once the session is open."""


async def attempt(plan: Plan, scheme: Scheme) -> AttackResult:
    """Open a session, let a coordinator try what it likes, and let the session go on to its end."""
    world = World(plan)
    await world.open()
    liar = LyingCoordinator(world)
    await scheme(liar)
    return await liar.finish()
