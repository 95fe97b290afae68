"""The simulated world: time, calls, deaths and disks behave as real ones; the machines in it are the real ones."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from secagg.protocol.phases import Phase
from secagg.runtime.participant import TransportError
from simulations.world.loop import NothingLeftError, run_virtually
from simulations.world.network import Event, Line, Mishap, Network
from simulations.world.people import Drop, Moment, Person, Window
from simulations.world.plan import Plan, Protocol
from simulations.world.process import Process
from simulations.world.randomness import SeededRng, generator
from simulations.world.stores import CrashTime
from simulations.world.world import World

BOTH = pytest.mark.parametrize("protocol", list(Protocol))


class _Machine:
    def __init__(self, name: str, line: Line) -> None:
        self.name = name
        self.line = line
        self.process: Process | None = Process(name)


def _pair() -> tuple[_Machine, _Machine]:
    return _Machine("client-0", Line(0.1, 0.0, 1000.0)), _Machine("coordinator", Line(0.4))


async def _echo() -> bytes:
    return b"x" * 50


async def _timed(network: Network, nodes: tuple[_Machine, _Machine], request: bytes) -> tuple[float, bytes]:
    begin = asyncio.get_running_loop().time()
    reply = await network.call(nodes, "say", request, _echo)
    return asyncio.get_running_loop().time() - begin, reply


def test_a_day_passes_in_no_time_and_nobody_waits_for_threads():
    async def day() -> tuple[float, int]:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time(), await asyncio.to_thread(sum, [1, 2])

    assert run_virtually(day()) == (86_400, 3)


def test_waiting_for_what_never_happens_is_an_error_and_not_a_hang():
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeftError):
        run_virtually(forever())


def test_what_fails_in_the_background_is_raised_in_the_end():
    async def broken() -> None:
        raise ValueError("in the background")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(int, "no number")
        await asyncio.sleep(1)

    with pytest.raises(BaseExceptionGroup) as caught:
        run_virtually(main())
    assert isinstance(caught.value.exceptions[0], ValueError)


def test_a_call_takes_two_latencies_each_way_and_the_time_of_its_bytes():
    seconds, reply = run_virtually(_timed(Network(generator(1)), _pair(), b"y" * 100))
    assert reply == b"x" * 50
    assert seconds == pytest.approx(2 * (0.1 + 0.4) + 100 / 1000 + 50 / 1000)


def test_a_node_with_a_capacity_takes_requests_one_after_the_other():
    async def main() -> list[float]:
        network = Network(generator(1), capacities={"coordinator": 10.0})
        calls = [_timed(network, _pair(), b"y" * 100) for _ in range(3)]
        return [seconds for seconds, _ in await asyncio.gather(*calls)]

    first, second, third = run_virtually(main())
    assert second - first == pytest.approx(10.0)
    assert third - second == pytest.approx(10.0)


@pytest.mark.parametrize("event", [Event.LOSE_REQUEST, Event.LOSE_REPLY])
def test_a_lost_call_is_no_answer_and_only_a_lost_reply_was_handled(event):
    handled = []

    async def main() -> None:
        network = Network(generator(1))
        network.mishaps.append(Mishap(event, "client-0", "say"))

        async def handle() -> None:
            handled.append(1)

        with pytest.raises(TransportError):
            await network.call(_pair(), "say", b"", handle)
        await network.call(_pair(), "say", b"", handle)

    run_virtually(main())
    assert len(handled) == (2 if event is Event.LOSE_REPLY else 1)


def test_whoever_calls_a_process_that_dies_hears_so():
    async def main() -> float:
        nodes = _pair()

        async def hang() -> None:
            await asyncio.Event().wait()

        asyncio.get_running_loop().call_later(5, nodes[1].process.kill)
        with pytest.raises(TransportError, match="went down"):
            await Network(generator(1)).call(nodes, "say", b"", hang)
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) == pytest.approx(5)


def test_tasks_of_a_dead_process_and_of_its_tasks_do_nothing_any_more():
    ticks = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(1)

    async def parent() -> None:
        child = asyncio.ensure_future(tick())
        await tick()
        await child

    async def main() -> None:
        process = Process("node")
        process.spawn(parent())
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(100)

    run_virtually(main())
    assert len(ticks) == 4


def test_randomness_follows_from_seed_and_names_and_no_two_lists_of_names_meet():
    assert SeededRng(1, "a", "b").bytes(100) == SeededRng(1, "a", "b").bytes(100)
    assert len({SeededRng(1, *names).bytes(32) for names in (("ab",), ("a", "b"), ("a", "b", ""), ("1:a",))}) == 4
    rng = SeededRng(1, "a")
    assert rng.bytes(10) != rng.bytes(10)


async def _session(plan: Plan, people: dict[int, Person] | None = None, crash: tuple | None = None) -> World:
    world = World(plan)
    await world.open()
    if crash is not None:
        world.crash_at(*crash)
    for number in range(plan.clients):
        world.expect(number, (people or {}).get(number, Person()))
    assert await world.until_over(20_000)
    return world


@BOTH
def test_a_session_of_real_machines_ends_with_the_right_sum(protocol):
    world = run_virtually(_session(Plan(protocol, 6, dimension=8, witnesses=4)))
    assert world.accepted() == set(range(6))
    assert np.array_equal(world.integer_sum(), world.expected_sum(world.accepted()))
    assert world.aborted_because() is None


def test_a_session_with_noise_ends_near_the_sum_and_not_at_it():
    from fractions import Fraction

    world = run_virtually(_session(Plan(Protocol.PAIRWISE, 6, dimension=8, epsilon=Fraction(8))))
    assert world.integer_sum() is not None
    assert not np.array_equal(world.integer_sum(), world.expected_sum(world.accepted()))


@BOTH
@pytest.mark.parametrize("moment", list(Moment))
def test_who_dies_before_its_input_is_there_is_not_in_the_sum_and_who_dies_after_is(protocol, moment):
    people = {2: Person(drop=Drop(Phase.MASKED_INPUT, moment))}
    world = run_virtually(_session(Plan(protocol, 6, dimension=8, min_contributors=4), people))
    assert (2 in world.accepted()) == (moment is Moment.AFTER)
    assert world.accepted() >= {0, 1, 3, 4, 5}
    assert np.array_equal(world.integer_sum(), world.expected_sum(world.accepted()))


def test_who_is_offline_for_a_while_comes_back_and_is_counted():
    people = {3: Person(offline=(Window(0.0, 200.0),))}
    world = run_virtually(_session(Plan(Protocol.ONE_SHOT, 6, dimension=8), people))
    assert 3 in world.accepted()


@BOTH
def test_nobody_hears_across_a_cut_until_it_is_over(protocol):
    async def main() -> World:
        world = World(Plan(protocol, 6, dimension=8, min_contributors=4))
        await world.open()
        world.cut(frozenset({"client-0"}), 100_000.0)
        for number in range(6):
            world.join(number)
        await world.until_over(5_000)
        return world

    world = run_virtually(main())
    assert world.accepted() == {1, 2, 3, 4, 5}


@BOTH
@pytest.mark.parametrize("when", list(CrashTime))
@pytest.mark.parametrize("write", [2, 7, 11])
def test_a_coordinator_that_dies_at_a_write_and_comes_back_loses_nothing(protocol, when, write):
    world = run_virtually(_session(Plan(protocol, 5, dimension=8), crash=("coordinator", write, when, 20.0)))
    assert [each.what for each in world.happenings if each.node == "coordinator"].count("dies") == 1
    assert world.accepted() == set(range(5))
    assert np.array_equal(world.integer_sum(), world.expected_sum(world.accepted()))


@pytest.mark.long
@BOTH
@pytest.mark.parametrize("node", ["coordinator", "client-3", "member-1"])
@pytest.mark.parametrize("when", list(CrashTime))
def test_every_write_of_every_machine_may_be_its_last_for_a_while(protocol, node, when):
    if node == "member-1" and protocol is Protocol.PAIRWISE:
        pytest.skip("no committee")
    write = 0
    while True:
        write += 1
        plan = Plan(protocol, 6, dimension=8, witnesses=3, seed=write)
        world = run_virtually(_session(plan, crash=(node, write, when, 20.0)))
        died = any(each.what == "dies" for each in world.happenings)
        assert world.accepted() == set(range(6)), write
        assert np.array_equal(world.integer_sum(), world.expected_sum(world.accepted())), write
        if not died:
            return
