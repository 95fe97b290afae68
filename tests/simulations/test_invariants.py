"""Each invariant holds in honest sessions with crashes, and is named when it is broken on purpose."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable

import pytest

from secagg.derive.threshold import GraphParameters
from secagg.protocol.messages import UnmaskAnswer
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import RowKind, row_key
from secagg.transcript.statements import RootShare, SelfMaskShare, Signed
from simulations.judging.invariants import END_INVARIANTS, INVARIANTS, Assumption, Honesty, Watch
from simulations.judging.seen_inputs import Adversary
from simulations.world.cast import client_name
from simulations.world.loop import run_virtually
from simulations.world.network import Call, Event, Mishap
from simulations.world.plan import Plan, Protocol
from simulations.world.stores import CrashTime, Disk
from simulations.world.world import World
from tests.support.seen_sessions import ROOT, SELF, SeenOneShot, SeenPairwise, digest

BOTH = pytest.mark.parametrize("protocol", list(Protocol))
NAMES = {
    "no-small-sum",
    "one-kind-of-share",
    "one-set-opened",
    "upload-once",
    "nothing-acknowledged-lost",
    "states-agree",
    "one-hot-sums",
    "record-verifiable",
}


async def _nothing() -> None:
    """What a handler would do."""


def _plan(protocol: Protocol, **more: object) -> Plan:
    return Plan(protocol, **{"clients": 6, "dimension": 8, "seed": 1, "max_corrupt": 1, **more})  # type: ignore[arg-type]


def _dies(number: int, what: str, event: Event = Event.CALLER_DIES_BEFORE) -> Mishap:
    return Mishap(event, client_name(number), what)


async def _session(
    plan: Plan, mishaps: Iterable[Mishap] = (), prepare: Callable[[World], None] | None = None, **watching: object
) -> Watch:
    """A whole session, everybody joining at once, checked every few seconds."""
    world = World(plan)
    watch = Watch(world, **watching)  # type: ignore[arg-type]
    for mishap in mishaps:
        world.network.mishaps.append(mishap)
    if prepare is not None:
        prepare(world)
    await world.open()
    for number in range(plan.clients):
        world.join(number)
    while not await world.until_over(5):
        assert watch.check() == ()
        assert world.now_s < 10_000
    return watch


def _named(watch: Watch) -> list[str]:
    return [each.invariant for each in watch.check()]


def test_every_invariant_has_a_name_and_a_reason():
    everything = (*INVARIANTS, *END_INVARIANTS)
    assert {each.name for each in everything} == NAMES
    assert len(everything) == len(NAMES)
    assert all(len(each.reason) > 40 for each in everything)


# They hold.


@BOTH
@pytest.mark.parametrize("witnesses", [0, 3])
def test_all_hold_in_a_session_in_which_two_drop_out(protocol, witnesses):
    async def main() -> None:
        late = "UnmaskAnswer" if protocol is Protocol.PAIRWISE else "deliver"
        watch = await _session(_plan(protocol, clients=8, witnesses=witnesses), [_dies(0, "announce"), _dies(1, late)])
        assert watch.world.phase is Phase.FINISHED
        assert watch.check_end() == ()
        assert watch.not_promised() == ()

    run_virtually(main())


@BOTH
@pytest.mark.parametrize("write", [2, 9, 17])
@pytest.mark.parametrize("when", list(CrashTime))
def test_all_hold_when_the_coordinator_dies_and_comes_back(protocol, write, when):
    async def main() -> None:
        watch = await _session(_plan(protocol), prepare=lambda world: world.crash_at("coordinator", write, when, 30))
        assert watch.check_end() == ()

    run_virtually(main())


@BOTH
@pytest.mark.parametrize("write", [5, 14])
@pytest.mark.parametrize("when", list(CrashTime))
def test_all_hold_when_the_coordinator_dies_for_good(protocol, write, when):
    """Then the record is that of a session under way: nothing in it is wrong, and nobody says that it has ended."""

    async def main() -> None:
        world = World(_plan(protocol))
        watch = Watch(world)
        await world.open()
        world.crash_at("coordinator", write, when)
        for number in range(6):
            world.join(number)
        await world.until_over(60)
        assert not world.is_over
        assert watch.check() == ()
        assert watch.check_end() == ()

    run_virtually(main())


@pytest.mark.parametrize(
    ("protocol", "node"),
    [(Protocol.PAIRWISE, "client-2"), (Protocol.ONE_SHOT, "client-2"), (Protocol.ONE_SHOT, "member-3")],
)
def test_all_hold_when_somebody_dies_at_every_write_and_comes_back(protocol, node):
    async def main(write: int) -> None:
        watch = await _session(_plan(protocol), prepare=lambda world: world.crash_at(node, write, CrashTime.AFTER, 20))
        assert watch.world.phase is Phase.FINISHED
        assert watch.check_end() == ()

    for write in (2, 4):
        run_virtually(main(write))


def test_a_session_with_too_few_contributors_is_aborted_and_its_record_holds():
    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE), [_dies(number, "announce") for number in range(4)])
        assert watch.world.phase is Phase.ABORTED
        assert watch.check_end() == ()
        assert watch.view.explain() == ("nothing",)

    run_virtually(main())


# Each is named when it is broken.


def test_a_sum_below_the_minimum_is_named():
    """The world's plan is made stricter behind its back: what it opens is then too small."""

    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE, min_contributors=4), [_dies(0, "announce")])
        assert watch.check() == ()
        cast = watch.world.cast
        stricter = dataclasses.replace(cast.plan, min_contributors=6)
        watch.world.cast = dataclasses.replace(cast, plan=stricter)
        assert _named(watch) == ["no-small-sum"]
        assert "the sum of clients 1 to 5, and nothing else" in watch.check()[0].detail

    run_virtually(main())


def test_corrupt_clients_are_not_counted_among_those_that_a_sum_is_over():
    async def main() -> None:
        watch = await _session(_plan(Protocol.ONE_SHOT, min_contributors=4), [_dies(0, "announce")], clients=[3])
        assert watch.world.accepted() == {1, 2, 3, 4, 5}
        assert watch.view.smallest_sum() == {1, 2, 4, 5}
        assert watch.check() == ()
        cast = watch.world.cast
        for minimum, named in ((5, []), (6, ["no-small-sum"])):
            watch.world.cast = dataclasses.replace(cast, plan=dataclasses.replace(cast.plan, min_contributors=minimum))
            assert _named(watch) == named

    run_virtually(main())


def test_what_was_seen_and_cannot_be_accounted_for_is_named():
    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE))
        seen = SeenOneShot(watch.view)
        watch.view._knowledge._inputs.headers.clear()
        seen.uploads(0, b"masked")
        assert _named(watch) == ["no-small-sum", "one-kind-of-share", "one-set-opened"]

    run_virtually(main())


def test_members_that_answer_for_two_sets_are_named():
    async def main() -> None:
        world = World(_plan(Protocol.ONE_SHOT))
        watch = Watch(world)
        seen = SeenOneShot(watch)
        for number in range(6):
            seen.contributes(number)
        for place in range(5):
            seen.answers(place, range(5))
        assert watch.check() == ()
        seen.answers(0, range(1, 6))
        assert _named(watch) == ["one-set-opened"]
        assert watch.check()[0].detail == "member 0 gave 2 answers"

    run_virtually(main())


def test_two_sums_are_named_even_if_every_member_gave_one_answer():
    """Seven members of whom five are needed: with three corrupt ones, two sets find five answers each."""

    async def main() -> None:
        world = World(_plan(Protocol.ONE_SHOT, min_contributors=5))
        watch = Watch(world, members=[0, 1])
        seen = SeenOneShot(watch)
        for number in range(6):
            seen.contributes(number)
        for place in (2, 3, 4):
            seen.answers(place, [0, 2, 3, 4, 5])
        assert watch.check() == ()
        watch.view._knowledge._adversary = Adversary(members=frozenset({0, 1, 2}))
        for place in (5, 6):
            seen.answers(place, [1, 2, 3, 4, 5])
        assert _named(watch) == ["no-small-sum", "one-set-opened"]
        # Either sum is large enough; their difference is not.
        assert [len(each.clients) for each in watch.view.determined()] == [5, 5]
        assert "2 honest clients of at least 5" in watch.check()[0].detail
        assert "2 sums are known" in watch.check()[1].detail

    run_virtually(main())


def _two_cohorts(honesty: Honesty) -> tuple[Watch, SeenPairwise]:
    """Two halves of the clients were shown different logs, and each opened the sum over all of its own."""
    watch = Watch(World(_plan(Protocol.PAIRWISE, clients=12, min_contributors=5)), coordinator=honesty)
    for half in (range(6, 12), range(6)):
        seen = SeenPairwise(watch, half)
        for number in half:
            seen.contributes(number)
        for number in half:
            seen.answers(number, {each: SELF for each in half if each != number})
    return watch, seen


def test_two_sums_are_named_where_the_log_is_one_and_only_over_one_cohort_where_it_can_be_forked():
    watch, _ = _two_cohorts(Honesty.HONEST)
    assert watch.view.explain() == ("the sum of clients 0 to 5", "the sum of clients 6 to 11")
    assert _named(watch) == ["one-set-opened"]
    watch, seen = _two_cohorts(Honesty.LIES)
    assert watch.view.explain() == ("the sum of clients 0 to 5", "the sum of clients 6 to 11")
    assert watch.check() == ()
    for number in range(1, 5):
        seen.answers(number, {0: ROOT})
    assert _named(watch) == ["no-small-sum", "one-kind-of-share", "one-set-opened"]
    assert watch.check()[2].detail == "2 sums are known: the input of client 0; the sum of clients 1 to 5"


def test_a_client_that_answers_two_close_entries_is_named():
    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE))
        (answer,) = watch.answers[2]
        other = dataclasses.replace(answer.statement, close=bytes(32))
        watch.request(
            Call("client-2", "coordinator", "UnmaskAnswer", 9), UnmaskAnswer(Signed(other, bytes(64))), _nothing
        )
        assert _named(watch) == ["one-set-opened"]

    run_virtually(main())


def _opposite(share: SelfMaskShare | RootShare) -> SelfMaskShare | RootShare:
    return (RootShare if isinstance(share, SelfMaskShare) else SelfMaskShare)(share.index, share.share)


def test_a_client_that_releases_the_other_share_after_a_restart_is_named():
    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE))
        (answer,) = watch.answers[2]
        shares = (_opposite(answer.statement.shares[0]),)
        again = UnmaskAnswer(Signed(dataclasses.replace(answer.statement, shares=shares), bytes(64)))
        watch.request(Call("client-2", "coordinator", "UnmaskAnswer", 9), again, _nothing)
        assert _named(watch) == ["one-kind-of-share"]
        assert "client 2 released both shares" in watch.check()[0].detail

    run_virtually(main())


def test_two_secrets_that_are_known_are_named_although_every_client_gave_one_kind(monkeypatch):
    """With a threshold that leaves the corrupt neighbour out of account, two halves of the neighbours hold both."""
    monkeypatch.setattr(PairwiseSession, "graph_parameters", lambda *_: GraphParameters(7, 4))

    async def main() -> None:
        watch = Watch(World(_plan(Protocol.PAIRWISE, clients=8)), clients=[7])
        seen = SeenPairwise(watch, range(8))
        for number in range(7):
            seen.contributes(number)
        for number in (1, 2, 3):
            seen.answers(number, {0: SELF})
        for number in (4, 5):
            seen.answers(number, {0: ROOT})
        assert watch.check() == ()
        seen.answers(6, {0: ROOT})
        assert _named(watch) == ["no-small-sum", "one-kind-of-share"]
        assert watch.check()[1].detail == "both secrets of client 0 are known"

    run_virtually(main())


def test_a_client_that_starts_again_from_nothing_is_named():
    """Its disk is lost after it uploaded, and it takes part again: another masked input."""

    async def main() -> None:
        world = World(_plan(Protocol.ONE_SHOT))
        watch = Watch(world)
        world.network.mishaps.append(_dies(2, "deliver", Event.CALLER_DIES_AFTER))
        await world.open()
        for number in (0, 1, 2, 3):
            world.join(number)
        await world.until_over(20)
        assert watch.check() == ()
        world.clients[2].disk = Disk()
        world.join(2)
        await world.until_over(20)
        assert "upload-once" in _named(watch)
        assert "signed 2 headers" in next(each.detail for each in watch.check() if each.invariant == "upload-once")

    run_virtually(main())


@pytest.mark.parametrize("kind", [RowKind.ADVERTISE, RowKind.SHARE, RowKind.HEADER, RowKind.STAGED])
def test_an_acknowledged_message_that_is_gone_after_a_crash_is_named(kind):
    async def main() -> None:
        world = World(_plan(Protocol.PAIRWISE))
        watch = Watch(world)
        await world.open()
        world.network.mishaps.append(_dies(5, "deliver"))
        for number in range(6):
            world.join(number)
        await world.until_over(30)
        assert world.phase is Phase.MASKED_INPUT
        assert watch.check() == ()
        world.kill("coordinator")
        assert watch.check() == ()
        session = world.cast.session
        rows = world.coordinator.disk.sessions._sessions[session.parameters.session].rows
        del rows[row_key(session.positions[world.cast.clients[3].public_bytes], kind)]
        await world.restart("coordinator")
        assert _named(watch) == ["nothing-acknowledged-lost"]
        assert watch.check()[0].detail == f"client 3: what was acknowledged of {kind.name} is gone"

    run_virtually(main())


def test_an_acknowledged_message_that_says_something_else_afterwards_is_named():
    async def main() -> None:
        watch = await _session(_plan(Protocol.ONE_SHOT))
        assert watch.acknowledged[3, RowKind.STAGED] is not None
        watch.acknowledged[3, RowKind.STAGED] = bytes(32)
        assert _named(watch) == ["nothing-acknowledged-lost"]

    run_virtually(main())


def test_a_share_of_which_a_member_complained_is_not_held():
    watch = Watch(World(_plan(Protocol.ONE_SHOT)))
    box = b"a box for member 3"
    seen = SeenOneShot(watch)
    header = dataclasses.replace(seen.header(1).statement, parts=(hashlib.sha256(box).digest(),))
    seen.says("client-1", "announce", OneShotContribution(Signed(header, bytes(64)), b"", ()))
    for sequence, verdict in enumerate(("SHARE_NOT_HELD", "")):
        call = Call("coordinator", "member-3", "member-hold", sequence)
        watch.request(call, [box], _nothing)
        watch.reply(call, (verdict,))
        assert list(watch.held) == ([3] if not verdict else [])
    assert _named(watch) == ["nothing-acknowledged-lost"]


def test_a_share_that_a_member_said_it_holds_and_that_is_gone_is_named():
    async def main() -> None:
        watch = await _session(_plan(Protocol.ONE_SHOT), members=[0])
        assert sorted(watch.held) == [1, 2, 3, 4, 5, 6]
        assert all(sorted(held) == [0, 1, 2, 3, 4, 5] for held in watch.held.values())
        session = watch.world.cast.session
        position = session.positions[watch.world.cast.clients[4].public_bytes]
        for place in (0, 2):
            assert watch.check() == ()
            del watch.world.members[place].disk.sessions._sessions[session.parameters.session].rows[position + 1]
        assert _named(watch) == ["nothing-acknowledged-lost"]
        assert watch.check()[0].detail == "member 2: the share of client 4, which it said it holds, is gone"

    run_virtually(main())


@BOTH
def test_a_receipt_for_what_the_record_does_not_count_is_named(protocol):
    async def main() -> None:
        watch = await _session(_plan(protocol, clients=7, min_contributors=3), [_dies(1, "deliver")])
        assert sorted(watch.receipts) == [0, 2, 3, 4, 5, 6]
        (real,) = watch.receipts[0]
        watch.receipts[0] = {bytes(32): None}
        assert watch.check()[0].detail == "client 0 has a receipt for another contribution than the one that counts"
        watch.receipts[0] = {real: None}
        watch.receipts[1] = {digest("receipt"): None}
        assert _named(watch) == ["nothing-acknowledged-lost"]
        assert watch.check()[0].detail == "client 1 has a receipt, the record says dropped"

    run_virtually(main())


def test_a_client_that_saw_another_log_is_named():
    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE))
        driver = watch.world.clients[4].participant._driver
        view = driver._durable.view
        forged = dataclasses.replace(view, entries=(*view.entries[:-1], b"another result"))
        driver._durable = dataclasses.replace(driver._durable, view=forged)
        assert _named(watch) == ["states-agree"]

    run_virtually(main())


@BOTH
def test_a_sum_that_is_not_that_of_the_accepted_clients_is_named(protocol):
    """Client 2 contributes the unit vector of client 3: a coordinate is 2 then. Or an empty coordinate's: still 1."""

    async def main(other: int, detail: str) -> None:
        def prepare(world: World) -> None:
            world.clients[2].vector = world.cast.one_hot(other)

        watch = Watch(World(_plan(protocol)))
        prepare(watch.world)
        await watch.world.open()
        for number in range(6):
            watch.world.join(number)
        await watch.world.until_over(10_000)
        assert _named(watch) == ["one-hot-sums"]
        assert watch.check()[0].detail == detail

    run_virtually(main(3, "a coordinate of the sum is neither 0 nor 1"))
    run_virtually(main(7, "the sum is not that of the 6 accepted clients"))


@BOTH
def test_a_record_that_does_not_verify_is_named(protocol):
    async def main() -> None:
        watch = await _session(_plan(protocol, witnesses=3))
        files = watch.world.coordinator.published.files
        name = next(name for name in files if name[1] == "contributions.jsonl")
        files[name] = files[name][:-3] + b"9\n"
        assert watch.check() == ()
        assert [each.invariant for each in watch.check_end()] == ["record-verifiable"]

    run_virtually(main())


def test_the_record_of_a_session_under_way_is_not_excused_from_being_right():
    async def main() -> None:
        world = World(_plan(Protocol.PAIRWISE))
        watch = Watch(world)
        await world.open()
        for number in range(6):
            world.join(number)
        world.network.mishaps.append(_dies(1, "deliver"))
        await world.until_over(60)
        assert not world.is_over
        assert watch.check_end() == ()
        files, key = world.coordinator.published.files, (world.cast.session.parameters.session, "keys.jsonl")
        files[key] = files[key][: len(files[key]) // 2]
        assert [each.invariant for each in watch.check_end()] == ["record-verifiable"]

    run_virtually(main())


# What is not promised is not checked, and said.


def test_what_a_corrupt_client_contributes_is_its_own_affair():
    async def main() -> None:
        watch = Watch(World(_plan(Protocol.ONE_SHOT)), clients=[2])
        watch.world.clients[2].vector = watch.world.cast.one_hot(3)
        await watch.world.open()
        for number in range(6):
            watch.world.join(number)
        await watch.world.until_over(10_000)
        assert watch.world.accepted() == set(range(6))
        assert watch.check_end() == ()

    run_virtually(main())


def test_with_a_coordinator_that_lies_only_what_holds_against_it_is_checked():
    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE), coordinator=Honesty.LIES)
        missing = {"nothing-acknowledged-lost", "states-agree", "one-hot-sums", "record-verifiable"}
        assert {each.name for each in watch.not_promised()} == missing
        watch.world.coordinator.published.files.clear()
        assert watch.check_end() == ()

    run_virtually(main())


def test_witnesses_make_the_log_one_also_where_the_coordinator_lies():
    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE, witnesses=3), coordinator=Honesty.LIES)
        assert "states-agree" not in {each.name for each in watch.not_promised()}

    run_virtually(main())


def test_with_more_corrupt_clients_than_the_session_says_no_sum_is_promised_to_be_large():
    async def main() -> None:
        watch = await _session(_plan(Protocol.PAIRWISE), clients=range(5))
        assert watch.view.smallest_sum() == {5}
        assert [each.name for each in watch.not_promised()] == ["no-small-sum"]
        assert not watch.holds(Assumption.FEW_CORRUPT)
        assert watch.check_end() == ()

    run_virtually(main())
