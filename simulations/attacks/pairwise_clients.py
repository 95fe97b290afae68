"""Clients of pairwise sessions that lie, or fall silent at the worst moment; the coordinator is honest."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from secagg.protocol.errors import RemoteProtocolError
from secagg.protocol.messages import ClientMessage, Contribution, SignedReceipt
from secagg.protocol.one_shot.messages import CommitContribution, OneShotContribution
from secagg.protocol.phases import Phase
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.participant import CoordinatorPort
from secagg.runtime.ports import BlobStore
from secagg.transcript.statements import Accepted, ContributionHeader, decode_disposition
from simulations.attacks.attack import AttackResult
from simulations.attacks.notebook import Notebook, how_it_ended, numbered
from simulations.attacks.pairwise_stage import MOST_S, People, plan_of
from simulations.exploring.client_lies import LyingPort
from simulations.exploring.operations import ClientLie, DropPhase
from simulations.world.cast import ONE, client_name
from simulations.world.network import Event, Line, Mishap
from simulations.world.passing import PassingPort
from simulations.world.people import PHASE_OF
from simulations.world.plan import Plan
from simulations.world.world import World


class Noting(PassingPort):
    """Passes everything on, and writes down what the coordinator refuses."""

    def __init__(self, port: CoordinatorPort, notebook: Notebook, what: str) -> None:
        super().__init__(port)
        self._what = what
        self._notebook = notebook

    async def send(self, session: bytes, message: ClientMessage | CommitContribution) -> None:
        """See ``CoordinatorPort.send``."""
        try:
            await super().send(session, message)
        except RemoteProtocolError as error:
            self._notebook.refused("the coordinator", self._what, error.reason.name)
            raise

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """See ``CoordinatorPort.upload``."""
        try:
            return await super().upload(session, message, blobs)
        except RemoteProtocolError as error:
            self._notebook.refused("the coordinator", self._what, error.reason.name)
            raise


async def lying(
    seed: int, what: str, lies: Iterable[ClientLie] = (), equivocates: Iterable[DropPhase] = ()
) -> AttackResult:
    """All corrupt clients of a session tell the same lies.

    Args:
        seed: of the session.
        what: the lie, in words.
        lies: which.
        equivocates: in which phases they send a second message that differs from the first.
    """
    plan, book = plan_of(seed), Notebook()
    people = _in_the_middle(plan)
    world = World(plan)
    for number in people.corrupt:
        world.wrapped[number] = lambda node, port: LyingPort(
            node, Noting(port, book, what), frozenset(lies), frozenset(equivocates)
        )
    # One honest client is slow: whatever the liars send twice, it comes while its phase is still open.
    world.clients[people.victim].line = Line(1.0)
    await _play(world)
    book.step(f"{numbered(people.corrupt).capitalize()} of 8 send {what}; all else they do is right.")
    harm = _harm(world)
    book.step(f"In the end {_outcome(world, people)}.")
    return book.result(how_it_ended(world), harm, succeeded=bool(harm))


def _in_the_middle(plan: Plan) -> People:
    """The liars stand between honest clients: what they say of their first neighbour is about one of those."""
    order = People.of(plan).order
    return People(order, frozenset(order[3 : 3 + plan.corrupt]), order[0])


async def drops(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    plan, book = plan_of(seed, clients=5, min_contributors=3, max_corrupt=1), Notebook()
    harm: list[str] = []
    people = People.of(plan)
    ended = "open"
    for what in PHASE_OF:
        for event in (Event.CALLER_DIES_BEFORE, Event.CALLER_DIES_AFTER):
            world = World(plan)
            for number in people.corrupt:
                world.network.mishaps.append(Mishap(event, client_name(number), what))
            await _play(world)
            ended = how_it_ended(world)
            since = "is sent" if event is Event.CALLER_DIES_BEFORE else "was taken"
            side = "before" if event is Event.CALLER_DIES_BEFORE else "after"
            book.step(f"Silent from {side} its {_CALLS[what]} {since}: {_outcome(world, people)}.")
            harm += _harm(world)
            if harm:
                break
    return book.result(ended, harm, succeeded=bool(harm))


async def _play(world: World) -> None:
    await world.open()
    for number in range(world.plan.clients):
        world.join(number)
    await world.until_over(MOST_S)


def _outcome(world: World, people: People) -> str:
    accepted, total = world.accepted(), world.integer_sum()
    if total is None:
        return f"there is no sum, and the session is {how_it_ended(world)}"
    inside = "with" if accepted & people.corrupt else "without"
    whom = "them" if len(people.corrupt) > 1 else "it"
    exact = "exact" if np.array_equal(total, world.expected_sum(accepted)) else "wrong"
    return f"the sum over {len(accepted)}, {inside} {whom}, is {exact}"


def _harm(world: World) -> list[str]:
    """What the liars achieved, in words."""
    accepted, total = world.accepted(), world.integer_sum()
    if total is None or world.phase is not Phase.FINISHED:
        return [f"nothing, but there is no sum: {how_it_ended(world)}"]
    harm = []
    if not np.array_equal(total, world.expected_sum(accepted)):
        harm.append("nothing, but the published sum is not that of the contributions in it")
    if total.max() > ONE * -(-len(accepted) // world.plan.dimension):
        harm.append("nothing, but a contribution counts more than once")
    if _foreign_headers(world):
        harm.append("nothing, but a contribution to another session is in the record")
    return harm


def _foreign_headers(world: World) -> bool:
    """Whether the record holds a contribution whose header does not name this session and its form."""
    host, session = world.coordinator.host, world.cast.session
    if not isinstance(host, PairwiseHost):
        return False
    leaves = map(decode_disposition, host.closed_list().leaves)
    headers = [leaf.contribution.statement for leaf in leaves if isinstance(leaf, Accepted)]
    return any(
        not isinstance(header, ContributionHeader)
        or header.session != session.digest
        or header.lanes != session.field_layout.lanes
        for header in headers
    )


_CALLS = {
    "AdvertiseKeys": "pair of keys",
    "ShareKeys": "set of boxes",
    "announce": "header",
    "deliver": "masked input",
    "ConfirmClose": "confirmation",
    "UnmaskAnswer": "answer",
}
