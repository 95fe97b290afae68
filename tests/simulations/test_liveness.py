"""Sessions that came to nothing although everybody was there: found by simulation, mended in the participant."""

from __future__ import annotations

from simulations.world.loop import run_virtually
from simulations.world.network import Event, Mishap
from simulations.world.plan import Plan, Protocol
from simulations.world.world import World


async def _session(clients: int, mishaps: list[Mishap]) -> World:
    world = World(Plan(Protocol.PAIRWISE, clients, dimension=8, seed=1))
    for mishap in mishaps:
        world.network.mishaps.append(mishap)
    await world.open()
    for number in range(clients):
        world.join(number)
    await world.until_over(10_000)
    return world


def _one_dies() -> Mishap:
    """Of eight, six confirm in time and five of them answer: one answer more is needed for each of their masks."""
    return Mishap(Event.CALLER_DIES_BEFORE, "client-0", "UnmaskAnswer")


def test_those_who_confirm_after_the_quorum_answer_although_nothing_changes_any_more():
    late = [Mishap(Event.LOSE_REQUEST, f"client-{number}", "closed_list") for number in (6, 7)]
    world = run_virtually(_session(8, [_one_dies(), *late]))
    assert world.aborted_because() is None
    assert len(world.accepted()) == 8


def test_an_answer_never_overtakes_the_confirmation_that_it_needs():
    """Two confirmations are lost once; until they are sent again, the answers of the same clients have to wait."""
    lost = [Mishap(Event.LOSE_REQUEST, f"client-{number}", "ConfirmClose") for number in (6, 7)]
    world = run_virtually(_session(8, [_one_dies(), *lost]))
    assert world.aborted_because() is None
    assert len(world.accepted()) == 8
