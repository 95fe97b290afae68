"""A coordinator of pairwise sessions that lies about the close: every such attack of docs/threat-model.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from secagg.protocol.messages import ClosedList
from secagg.transcript.statements import Signed
from simulations.attacks import forgery
from simulations.attacks.attack import AttackResult
from simulations.attacks.notebook import Notebook, numbered
from simulations.attacks.pairwise_stage import People, Scene, plan_of, scene_of
from simulations.attacks.storyteller import Plot, Storyteller, Tale, note_verdicts, refusal, told_out
from simulations.world.cast import client_name
from simulations.world.network import Event, Mishap
from simulations.world.plan import Plan
from simulations.world.stores import CrashTime
from simulations.world.world import World


def telling(plan: Plan, plot: Plot, told: Callable[[int, int], int | None], waits_for: int | None = None) -> Scene:
    """A session whose coordinator tells tales of the close."""

    def make(world: World, people: People) -> Storyteller:
        liar = Storyteller(world, people.corrupt, plot, waits_for or plan.clients)
        liar.told = lambda number, starts: None if number in people.corrupt else told(number, starts)
        return liar

    return scene_of(plan, make)


def _over_all(people: People) -> Callable[[Storyteller], Tale]:
    return lambda liar: liar.tale_over("the close over everybody", people.everybody)


def _without(people: People, witnesses: tuple[int, ...] = ()) -> Callable[[Storyteller], Tale]:
    name = f"the close without client {people.victim}"
    return lambda liar: liar.tale_over(name, people.everybody - {people.victim}, witnesses)


def _counts(tale: Tale) -> str:
    return f"{len(tale.confirmed)} confirm, {len(tale.answered)} answer"


def _shares(scene: Scene) -> str:
    self_masks, roots = scene.loot.shares_of(scene.people.victim)
    return (
        f"The coordinator holds {self_masks} shares of the self-mask seed of client {scene.people.victim} and {roots} "
        f"of its root; {scene.loot.threshold} open a secret."
    )


# Two closes.


def _halves(people: People, alive: int) -> dict[int, int]:
    """Which of two tales each honest client is told: the victim and those next to it the first, the rest the second."""
    others = [number for number in people.honest if number != people.victim]
    first = {people.victim, *others[: alive - 1]}
    return {number: int(number not in first) for number in people.honest}


async def alive_and_dropped(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan = plan_of(seed)
    people = People.of(plan)
    book = Notebook()
    book.step(
        f"Eight clients upload. Client {people.victim} is the victim, {numbered(people.corrupt)} work for the "
        "coordinator and sign whatever it asks for."
    )
    worst: Scene | None = None
    for alive in (2, 3, 4):
        scene = _split(plan, people, alive)
        await scene.play()
        first, second = scene.liar.tales
        book.step(
            f"{alive} of the honest are told that client {people.victim} is in the sum: {_counts(first)}. The other "
            f"{len(people.honest) - alive} are told that it dropped out: {_counts(second)}. {_shares(scene)}"
        )
        note_verdicts(scene.liar, book, "the close")
        if worst is None or min(scene.loot.shares_of(people.victim)) > min(worst.loot.shares_of(people.victim)):
            worst = scene
        if _succeeds(scene):
            worst = scene
            break
    if worst is None:
        raise ValueError("nobody is honest")
    return worst.result(book)


def _split(plan: Plan, people: People, alive: int) -> Scene:
    halves = _halves(people, alive)
    return telling(
        plan, lambda liar: [_over_all(people)(liar), _without(people)(liar)], lambda number, _: halves[number]
    )


def _succeeds(scene: Scene) -> bool:
    fewest = scene.fewest()
    return fewest is not None and len(fewest) < scene.promised


async def two_closes(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan = plan_of(seed, witnesses=4)
    people = People.of(plan)
    halves = _halves(people, 3)

    def plot(liar: Storyteller) -> list[Tale]:
        if liar.host.status().log_size < 4:
            return []
        real = Tale("the close over everybody", liar.host.closed_list(), people.everybody)
        return [real, _without(people, witnesses=(0,))(liar)]

    scene = telling(plan, plot, lambda number, _: halves[number])
    book = scene.notebook
    await scene.play()
    first, second = scene.liar.tales
    book.step("Four witnesses cosign the log, three are asked for by every client; one of the four lies.")
    book.step(f"The log gets its close over everybody, which 3 honest clients are shown: {_counts(first)}.")
    book.step(
        f"The other 3 are shown a second log with {second.name}, which the lying witness cosigns: {_counts(second)}."
    )
    book.step(_shares(scene))
    note_verdicts(scene.liar, book, "the close")
    return scene.result()


async def closes_twice_in_one_log(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan = plan_of(seed, witnesses=4)
    people = People.of(plan)
    halves = _halves(people, 3)

    def plot(liar: Storyteller) -> list[Tale]:
        if liar.host.status().log_size < 4:
            return []
        shown = liar.host.closed_list()
        real = Tale("the close over everybody", shown, people.everybody)
        other = _without(people)(liar)
        both = (*shown.evidence.entries, other.shown.evidence.entries[-1])
        evidence = forgery.forged_log(liar.world.cast, shown.evidence, both, range(plan.witnesses))
        lie = ClosedList(evidence, other.shown.leaves)
        return [real, Tale("a log with two closes", lie, other.counted)]

    scene = telling(plan, plot, lambda number, _: halves[number])
    book = scene.notebook
    await scene.play()
    first, second = scene.liar.tales
    book.step(f"3 honest clients are shown the log with its close over everybody: {_counts(first)}.")
    book.step(
        f"Then a second close, without client {people.victim}, is appended. All four witnesses cosign: the log is only "
        f"continued, and they do not look at what is in it. The other 3 are shown this log: {_counts(second)}."
    )
    book.step(_shares(scene))
    note_verdicts(scene.liar, book, "the close")
    return scene.result()


# One close that must not be.


async def below_minimum(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan = plan_of(seed, min_contributors=7)
    people = People.of(plan)
    kept = frozenset({people.victim, *[n for n in people.honest if n != people.victim][:3]}) | people.corrupt
    scene = telling(
        plan,
        lambda liar: [liar.tale_over(f"a close over {len(kept)} contributions", kept)],
        lambda number, _: 0 if number in kept else None,
    )
    await scene.play()
    (tale,) = scene.liar.tales
    book = scene.notebook
    book.step("All eight clients upload. The session promises sums over 7 contributions or more.")
    book.step(
        f"The coordinator logs {tale.name}, enough to confirm it and to open every secret: {numbered(kept)}, of whom "
        f"{numbered(people.corrupt)} are its own. {_counts(tale)}."
    )
    note_verdicts(scene.liar, book, "the close")
    return scene.result()


async def replayed_close(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan = plan_of(seed)
    people = People.of(plan)
    first = telling(plan, lambda _: [], lambda _number, _starts: None)
    await first.world.open()
    first.world.network.mishaps.append(Mishap(Event.CALLER_DIES_BEFORE, client_name(people.victim), "announce"))
    for number in people.order:
        first.world.join(number)
    await told_out(first.liar, 400.0)
    old = first.liar.host.closed_list()
    signed = dict(first.liar.confirmed)
    scene = telling(plan, lambda liar: [_replayed(liar, old, people, signed)], lambda _number, _starts: 0)
    for node in scene.world.clients:
        node.starts = 1  # another run: clients draw fresh secrets
    await scene.play()
    (tale,) = scene.liar.tales
    book = scene.notebook
    book.step(
        f"The same session is run twice, from the same open entry. In the first run client {people.victim} drops out; "
        f"it ends with a sum over 7, and the coordinator keeps its close and {len(signed)} signed confirmations."
    )
    book.step(
        "In the second run everybody uploads. The coordinator logs the close of the first run, byte for byte, and "
        f"hands around the old confirmations: {_counts(tale)} now."
    )
    note_verdicts(scene.liar, book, "the close")
    released = sorted(set(tale.answered) - people.corrupt)
    book.step(f"Shares for a set that was fixed in another run were released by {numbered(released)}.")
    ended = scene.result()
    learned = [f"the root of client {people.victim}, which uploaded"] if scene.loot.has_root(people.victim) else []
    return AttackResult(
        ended.steps, ended.refusals, ended.ended, (*ended.learned, *learned), bool(released) or ended.succeeded
    )


# The same clients, asked again.


async def asks_twice(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan = plan_of(seed)
    people = People.of(plan)
    scene = telling(
        plan,
        lambda liar: [_over_all(people)(liar), _without(people)(liar)],
        lambda _, starts: min(starts, 2) - 1,
    )
    await scene.play()
    first, second = scene.liar.tales
    book = scene.notebook
    book.step(f"All honest clients are told of the close over everybody: {_counts(first)}.")
    for number in people.honest:
        scene.world.kill(client_name(number))
        scene.world.join(number)
    await told_out(scene.liar, 30.0)
    book.step(
        f"Then each is killed and started again, and told of {second.name}, with the confirmations of the corrupt: "
        f"{_counts(second)}."
    )
    for number in people.honest:
        node = scene.world.clients[number]
        for event in (second.shown, scene.liar.around(second, number)):
            reason = refusal(scene.world, node, event)
            if reason is not None:
                book.refused(node.name, "to look at a second close after its answer", reason)
    book.step(_shares(scene))
    return scene.result()


async def restarts_in_the_middle(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan = plan_of(seed)
    people = People.of(plan)
    book = Notebook()
    book.step(
        "Honest clients are told of the close over everybody, and crash while they confirm and answer it. Started "
        f"again, they are told of the close without client {people.victim}, which asks for the other share of it."
    )
    worst: Scene | None = None
    for moment, crash in _CRASHES.items():
        scene = _crashing(plan, people, crash)
        await scene.play()
        first, second = scene.liar.tales
        book.step(f"Crash {moment}. The first close: {_counts(first)}. The second: {_counts(second)}. {_shares(scene)}")
        note_verdicts(scene.liar, book, "the close")
        if worst is None or min(scene.loot.shares_of(people.victim)) > min(worst.loot.shares_of(people.victim)):
            worst = scene
    if worst is None:
        raise ValueError("nothing was tried")
    return worst.result(book)


Crash: TypeAlias = Callable[[World, int], None]
"""Makes a client crash at some moment, and start again some seconds later."""


def _at_write(write: int, when: CrashTime) -> Crash:
    return lambda world, number: world.crash_at(client_name(number), write, when, down_s=3)


def _after_its_answer(world: World, number: int) -> None:
    world.network.mishaps.append(Mishap(Event.CALLER_DIES_AFTER, client_name(number), "UnmaskAnswer"))
    world.later(6.0, lambda: world.restart(client_name(number)))


_CRASHES: dict[str, Crash] = {
    "before the confirmation is stored": _at_write(1, CrashTime.BEFORE),
    "after the confirmation is stored and before it is sent": _at_write(1, CrashTime.AFTER),
    "before the answer is stored": _at_write(2, CrashTime.BEFORE),
    "after the answer is stored and before it is sent": _at_write(2, CrashTime.AFTER),
    "after the answer is sent": _after_its_answer,
}


def _crashing(plan: Plan, people: People, crash: Crash) -> Scene:
    def plot(liar: Storyteller) -> list[Tale]:
        for number in people.honest:
            crash(liar.world, number)
        return [_over_all(people)(liar), _without(people)(liar)]

    return telling(plan, plot, lambda _, starts: min(starts, 2) - 1)


def _replayed(liar: Storyteller, old: ClosedList, people: People, signed: dict[int, Signed]) -> Tale:
    entries = (*liar.host.evidence().entries[:3], old.evidence.entries[3])
    shown = ClosedList(forgery.forged_log(liar.world.cast, old.evidence, entries), old.leaves)
    return Tale("the close of another run", shown, people.everybody - {people.victim}, dict(signed))
