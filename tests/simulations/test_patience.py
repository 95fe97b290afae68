"""Found by sweeps: clients that wait for what will not come must not ask for it all the time."""

from secagg.protocol.phases import Phase
from simulations.world.loop import run_virtually
from simulations.world.people import Drop, Moment, Person
from simulations.world.plan import Plan, Protocol
from simulations.world.world import World

CLIENTS = 4


def test_who_lacks_confirmations_asks_ever_more_rarely_until_the_session_ends():
    # Three of four confirm: a quorum, and for each of the three one neighbour too few.
    async def main():
        world = World(Plan(Protocol.PAIRWISE, clients=CLIENTS, dimension=2, seed=5))
        await world.open()
        for number in range(CLIENTS):
            drop = Drop(Phase.CONSISTENCY_CHECK, Moment.BEFORE) if number == 3 else None
            world.expect(number, Person(drop=drop))
        assert await world.until_over(5_000)
        assert world.phase is Phase.ABORTED
        return world.network.traffic["client", "confirmations"].calls

    # 600 seconds at five seconds each, and some at the beginning; every third of a second it would be 1,900.
    assert (CLIENTS - 1) * 20 < run_virtually(main()) < (CLIENTS - 1) * 150
