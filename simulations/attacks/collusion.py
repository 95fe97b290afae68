"""Clients in league with the coordinator of a pairwise session: what they learn together, and where that ends."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import add_masks
from secagg.crypto.secret import Secret
from secagg.derive import boxes
from secagg.derive.graph import MaskingGraph
from secagg.derive.result import decode
from secagg.protocol.messages import AdvertisedList
from secagg.runtime.participant import TransportError
from secagg.transcript import merkle
from secagg.transcript.statements import AdvertiseStatement, Signed
from simulations.attacks import forgery
from simulations.attacks.attack import AttackResult
from simulations.attacks.eclipse import Eclipsing
from simulations.attacks.loot import Loot
from simulations.attacks.notebook import Notebook, numbered
from simulations.attacks.pairwise_stage import People, Scene, plan_of, scene_of
from simulations.attacks.storyteller import Storyteller, note_verdicts
from simulations.world.plan import Plan
from simulations.world.randomness import SeededRng
from simulations.world.world import World

SEARCHED_BITS = 12
"""`seed-search`: of how many bits all seeds are tried."""

GRINDS = 300
"""`grind-cohort`: how many lists of keys are tried."""


def _honest_coordinator(world: World, people: People) -> Storyteller:
    return Storyteller(world, people.corrupt, lambda _: [], world.plan.clients)


# Strangers, and those who should be.


async def presents_strangers(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    liars: list[Eclipsing] = []

    def make(world: World, people: People) -> Eclipsing:
        liars.append(Eclipsing(world, people))
        return liars[-1]

    scene = scene_of(plan_of(seed), make)
    people, book, (liar,) = scene.people, scene.notebook, liars
    await scene.play()
    book.step(
        f"The coordinator shows client {people.victim} a cohort of 8 in which the other 7 are invented: identities "
        "that it made itself, with keys that it holds, signed as they should be."
    )
    if liar.both_secrets is None:
        book.step(f"Client {people.victim} deals nothing to them.")
    else:
        book.step(f"Client {people.victim} deals its secrets to them; both are put together before it masks its input.")
    note_verdicts(liar, book, "a list of keys with identities that are not in the roster")
    ended = scene.result()
    truth = scene.world.expected_sum(frozenset({people.victim}))
    if liar.recovered is None or not np.array_equal(liar.recovered, truth):
        return ended
    learned = f"the input of client {people.victim}, every coordinate"
    return dataclasses.replace(ended, learned=(learned,), succeeded=True)


async def sybils(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan, book = plan_of(seed), Notebook()
    within: Scene | None = None
    for corrupt in (plan.corrupt, 4, 5, 7):
        people = People.of(plan, corrupt)
        honest = people.honest[: max(1, plan.minimum - corrupt)]
        own = [number for number in people.order if number in people.corrupt]
        scene = _closing_over(plan, people, frozenset([*honest, *own][: plan.minimum]))
        await scene.play()
        within = within or scene
        allowed = "as many as may be" if corrupt <= plan.corrupt else f"{plan.corrupt} may be"
        book.step(
            f"{corrupt} of the 8 identities in the roster are one person's ({allowed}), who works for the coordinator. "
            f"It closes over {plan.minimum}, {len(honest)} of them honest, and learns {_what(scene.fewest())}. "
            f"Promised is a sum over {scene.promised} honest clients or more."
        )
        note_verdicts(scene.liar, book, "the close")
    book.step("Beyond max_corrupt nothing here helps: who is one person is for the registrar to know.")
    if within is None:
        raise ValueError("nothing was tried")
    return within.result(book)


def _what(clients: frozenset[int] | None) -> str:
    match sorted(clients or ()):
        case []:
            return "nothing"
        case [number]:
            return f"the input of client {number}, exactly"
        case several:
            return f"the sum over {len(several)} honest clients"


async def collusion(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan = plan_of(seed, min_contributors=5)
    return await closes_small_sets(plan, People.of(plan), (7, 6, 5, 4))


async def closes_small_sets(plan: Plan, people: People, sizes: Iterable[int]) -> AttackResult:
    """The coordinator closes over ever fewer clients, all its accomplices among them.

    Args:
        plan: of the session.
        people: who is corrupt; they may be more than the session allows for.
        sizes: how many contributions each close counts.
    """
    book = Notebook()
    book.step(
        f"{numbered(people.corrupt).capitalize()} give the coordinator their keys, states and inputs. It closes over "
        "as few others as it can; everybody else it says dropped out."
    )
    best: Scene | None = None
    for size in sizes:
        scene = _closing_over(plan, people, frozenset([*people.corrupt, *people.honest][:size]))
        await scene.play()
        (tale,) = scene.liar.tales
        opened = scene.fewest()
        shown = "nothing opens" if opened is None else f"the sum over {len(opened)} honest inputs opens"
        book.step(f"A close over {size}: {len(set(tale.answered) - people.corrupt)} honest clients answer, {shown}.")
        note_verdicts(scene.liar, book, "the close")
        if best is None or _smaller(scene, best):
            best = scene
    if best is None:
        raise ValueError("nothing was tried")
    return best.result(book)


def _closing_over(plan: Plan, people: People, counted: frozenset[int]) -> Scene:
    def make(world: World, people: People) -> Storyteller:
        name = f"a close over {len(counted)} contributions"
        liar = Storyteller(world, people.corrupt, lambda liar: [liar.tale_over(name, counted)], plan.clients)
        liar.told = lambda number, _: 0 if number in counted - people.corrupt else None
        return liar

    return scene_of(plan, make, people)


def _smaller(one: Scene, other: Scene) -> bool:
    first, second = one.fewest(), other.fewest()
    return first is not None and (second is None or len(first) < len(second))


# Masks.


async def seed_search(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    scene = scene_of(plan_of(seed, min_contributors=8, max_corrupt=6), _honest_coordinator)
    people, book, victim = scene.people, scene.notebook, scene.people.victim
    await scene.play()
    lanes, partners = scene.loot.hidden_by(victim)
    book.step(
        f"The session runs as it should. It allows for {len(people.corrupt)} corrupt clients of 8, and so many there "
        f"are: of the masked input of client {victim} the coordinator takes off the self mask, which unmasking opened, "
        f"and all pair masks but the one with {numbered(partners)}."
    )
    (partner,) = partners
    found = _fitting(scene.loot, (victim, partner), lanes)
    book.step(
        f"It tries all {2**SEARCHED_BITS:,} seeds of {SEARCHED_BITS} bits for that mask. The right one leaves lanes "
        f"whose counter says 1 and whose padding is zero: {len(found)} of them do."
    )
    book.step(
        f"A pair seed is derived from 32 random bytes and has 256 bits: there are 2^{256 - SEARCHED_BITS} times as "
        "many as were tried."
    )
    truth = scene.world.expected_sum(frozenset({victim}))
    succeeded = len(found) == 1 and np.array_equal(found[0], truth)
    learned = (f"the input of client {victim}, every coordinate",) if succeeded else ()
    return book.result("finished", learned, succeeded=succeeded)


def _fitting(
    loot: Loot, edge: tuple[int, int], lanes: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """What is left of the first client's lanes for each seed that leaves something that decodes."""
    parameters, found = loot.session.parameters, []
    own, other = map(loot.index_of, edge)
    for number in range(2**SEARCHED_BITS):
        key = boxes.pair_mask_keystream(Secret(number.to_bytes(32, "big")), loot.session.digest).expose()
        left = lanes.copy()
        add_masks(left, [] if own < other else [key], [key] if own < other else [], 1)
        try:
            found.append(decode(parameters.encoding, parameters.noise, left, 1).integer_sum)
        except ArithmeticInputError:
            continue
    return found


# The graph.


class Grinding(Storyteller):
    """Has the keys of everybody, and answers nobody while it thinks about the list to log."""

    def __init__(self, world: World, people: People) -> None:
        super().__init__(world, people.corrupt, lambda _: [], world.plan.clients)
        self.has_u1 = asyncio.Event()

    async def advertised_list(self, caller: bytes) -> AdvertisedList:
        """Not yet."""
        self.has_u1.set()
        raise TransportError(f"client {self._number(caller)} has to wait")


async def grinds_cohort(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    dropout = Fraction(1, 20)
    plan = plan_of(seed, clients=120, dimension=2, min_contributors=60, max_corrupt=12, expected_dropout=dropout)
    liars: list[Grinding] = []

    def make(world: World, people: People) -> Grinding:
        liars.append(Grinding(world, people))
        return liars[-1]

    scene = scene_of(plan, make)
    people, book = scene.people, scene.notebook
    await scene.world.open()
    for number in range(plan.clients):
        scene.world.join(number)
    await liars[0].has_u1.wait()
    shown = scene.loot.host.advertised_list(scene.world.clients[people.victim].identity)
    parameters = scene.loot.session.graph_parameters(len(shown.leaves))
    needed = 2 * parameters.threshold - parameters.degree
    book.step(
        f"{len(shown.leaves)} clients advertise keys, {len(people.corrupt)} of them corrupt. The masking graph follows "
        f"from the list of keys: degree {parameters.degree}, {parameters.threshold} shares open a secret."
    )
    worst = max(_most_corrupt(scene, leaves) for leaves in _ground(scene, list(shown.leaves)))
    book.step(
        f"Before it logs the list the coordinator tries {GRINDS} others, with ever new keys of one corrupt client, and "
        f"looks at the graph that each gives. The most corrupt neighbours that any honest client had: {worst}."
    )
    book.step(
        f"An honest neighbour gives one kind of share, a corrupt one both: with {needed} corrupt neighbours or more "
        f"both secrets of a client could be opened. {_odds(len(people.corrupt), needed)}"
    )
    return book.result("open", (), succeeded=worst >= needed)


def _odds(corrupt: int, needed: int) -> str:
    if needed > corrupt:
        return f"There are only {corrupt}: in a cohort of this size no list would do."
    return "For one list that is less likely than 2^-128."


def _ground(scene: Scene, leaves: list[bytes]) -> Iterable[list[bytes]]:
    """Lists of keys that differ in one corrupt client's, which signs whatever it takes."""
    rng = SeededRng(scene.world.plan.seed, "grinding")
    number = min(scene.people.corrupt)
    key, place = scene.world.cast.clients[number], scene.loot.index_of(number)
    statement = Signed.from_bytes(leaves[place]).statement
    for _ in range(GRINDS):
        if isinstance(statement, AdvertiseStatement):
            fresh = dataclasses.replace(statement, share_key=rng.bytes(32))
            leaves[place] = forgery.signed_by(key, fresh).to_bytes()
        yield leaves


def _most_corrupt(scene: Scene, leaves: list[bytes]) -> int:
    """The most corrupt neighbours that any honest client has in the graph of a list of keys."""
    graph: MaskingGraph = scene.loot.session.graph(len(leaves), merkle.root(leaves))
    corrupt = frozenset(map(scene.loot.index_of, scene.people.corrupt))
    honest = set(range(len(leaves))) - corrupt
    return max(len(corrupt.intersection(graph.neighbours(index))) for index in honest)
