"""Attacks on what a session promises of differential privacy, tried on the client library over real gRPC.

The operator is the adversary: it serves parameters under which contributors would add less noise than they believe, or
runs one session after the other. What of this no client could see (noise that others leave out) is in the threat model.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from secagg.client import connect
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import SessionEnded
from secagg.protocol.session import ClientPolicy, PrivacyAllowance
from secagg.runtime import registry
from secagg.runtime.log_record import iterate_entries, parse_names
from secagg.runtime.ports import StaleStoreError
from secagg.spending import OwnBudget
from secagg.store.log_files import RecordFiles
from secagg.transcript import merkle
from secagg.transcript.entries import (
    Deadlines,
    LogEntry,
    PairwiseOpen,
    SessionAbort,
    SessionClose,
    SessionResult,
    decode_entry,
)
from secagg.transcript.noise import NoDifferentialPrivacy
from simulations.world.noise import reserved, with_noise
from tests.support.cohort import key_of
from tests.support.published import evidence_of
from tests.support.service import open_example_session, serving, tiny_adapter

CROWD = [key_of(f"id{number}") for number in range(8)]
IDENTITIES = CROWD[:4]
DELTA = Fraction(1, 100_000)
Change = Callable[[PairwiseOpen], PairwiseOpen]


def allowance(epsilon: int | str) -> PrivacyAllowance:
    return PrivacyAllowance(Fraction(epsilon), DELTA)


async def contribute(service, session, number: int, tmp_path: Path, budget: PrivacyAllowance | None):
    async with await connect(service.address, service.key, service.tls) as coordinator:
        participation = await coordinator.contribute(
            session,
            tmp_path / f"adapter{number}",
            CROWD[number],
            tmp_path / "clients",
            ClientPolicy(allowance=budget),
        )
        return await participation.result()


async def open_session(service, tmp_path: Path, change: Change) -> PairwiseOpen:
    return await open_example_session(service, IDENTITIES, tmp_path / "adapter0", change=change)


async def whole_session(service, tmp_path: Path, change: Change, budget: PrivacyAllowance | None):
    parameters = await open_session(service, tmp_path, change)
    contributions = (contribute(service, parameters.session, k, tmp_path, budget) for k in range(len(IDENTITIES)))
    return parameters, await asyncio.gather(*contributions)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for number in range(len(CROWD)):
        tiny_adapter(tmp_path / f"adapter{number}", number)
    return tmp_path


def own_budget(directory: Path, number: int, budget: PrivacyAllowance) -> OwnBudget:
    return OwnBudget(directory / "clients" / CROWD[number].public_bytes.hex(), budget)


def part(field: str, value: object) -> Change:
    """Noise with one member of another value, in an entry that has a reservation for just that."""

    def change(parameters: PairwiseOpen) -> PairwiseOpen:
        noisy = with_noise(parameters)
        new = value(noisy) if callable(value) else value
        return reserved(dataclasses.replace(noisy, noise=dataclasses.replace(noisy.noise, **{field: new})))

    return change


def narrower(parameters: PairwiseOpen) -> PairwiseOpen:
    noisy = with_noise(parameters)
    bits = noisy.encoding.value_bits - 1
    return reserved(dataclasses.replace(noisy, encoding=dataclasses.replace(noisy.encoding, value_bits=bits)))


def not_reserved(parameters: PairwiseOpen) -> PairwiseOpen:
    """The reservation of a session with fewer corrupt contributors, which costs less."""
    noisy = with_noise(dataclasses.replace(parameters, max_corrupt=0))
    return dataclasses.replace(noisy, max_corrupt=1)


ATTACKS = {
    "a table of hardly any noise": (part("table", b"t" * 32), "noise.table"),
    "a smaller bound on squares than vectors have": (
        part("squared_norm", lambda noisy: noisy.noise.squared_norm // 4),
        "noise.squared_norm",
    ),
    "a finer scale at the same bound": (part("scale", lambda noisy: 2 * noisy.noise.scale), "noise.squared_norm"),
    "fields so narrow that noise is cut off": (narrower, "encoding.value_bits"),
    "a reservation for a session that costs less": (not_reserved, "noise.budget.reserved"),
    "noise that nobody accepted": (part("accepted_ratio", Fraction(1, 100)), "noise.accepted_ratio"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_client_leaves_when_what_is_declared_is_not_true(directory, monkeypatch, name):
    change, field = ATTACKS[name]
    monkeypatch.setattr(registry, "check_noise", lambda _: None)

    async def run() -> None:
        async with serving(directory / "coordinator") as service:
            parameters = await open_session(service, directory, change)
            with pytest.raises(RemoteProtocolError) as caught:
                await contribute(service, parameters.session, 0, directory, None)
            assert caught.value.reason is RejectReason.UNSAFE_NOISE
            assert field in str(caught.value)
            host = await service.registry.find(parameters.session)
            assert host.status().received == 0

    asyncio.run(run())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_honest_coordinator_does_not_open_such_a_session(directory, name):
    change, field = ATTACKS[name]

    async def run() -> None:
        async with serving(directory / "coordinator") as service:
            with pytest.raises(RemoteProtocolError) as caught:
                await open_session(service, directory, change)
            assert caught.value.reason is RejectReason.UNSAFE_NOISE
            assert field in str(caught.value)

    asyncio.run(run())


def test_a_client_stops_when_its_own_budget_is_spent_whatever_the_operator_says(directory):
    """Each session names a population of its own, so that every budget that is published holds."""

    async def run() -> None:
        async with serving(directory / "coordinator") as service:
            names = iter("abc")

            def fresh(parameters: PairwiseOpen) -> PairwiseOpen:
                return with_noise(parameters, population=next(names))

            await whole_session(service, directory, fresh, allowance(9))
            parameters = await open_session(service, directory, fresh)
            with pytest.raises(LocalProtocolError) as caught:
                await contribute(service, parameters.session, 1, directory, allowance(9))
            assert caught.value.reason is RejectReason.BELOW_POLICY
            assert "budget" in str(caught.value)
            host = await service.registry.find(parameters.session)
            assert host.status().received == 0

    asyncio.run(run())


def test_a_client_with_a_budget_takes_part_in_no_session_without_noise(directory):
    async def run() -> None:
        async with serving(directory / "coordinator") as service:
            parameters = await open_session(service, directory, lambda same: same)
            assert parameters.noise == NoDifferentialPrivacy()
            with pytest.raises(LocalProtocolError) as caught:
                await contribute(service, parameters.session, 0, directory, allowance(1000))
            assert caught.value.reason is RejectReason.BELOW_POLICY
            assert "noise is none" in str(caught.value)
            host = await service.registry.find(parameters.session)
            assert host.status().received == 0

    asyncio.run(run())


def test_what_is_spent_is_written_down_before_the_session_is_joined(directory, monkeypatch):
    """Whoever is killed on joining has paid all the same."""

    async def killed(*_: object) -> None:
        raise KeyboardInterrupt

    from secagg.runtime.participant import Participant

    monkeypatch.setattr(Participant, "join", killed)

    async def run() -> PairwiseOpen:
        async with serving(directory / "coordinator") as service:
            parameters = await open_session(service, directory, with_noise)
            async with await connect(service.address, service.key, service.tls) as coordinator:
                with pytest.raises(KeyboardInterrupt):
                    await coordinator.contribute(
                        parameters.session,
                        directory / "adapter0",
                        IDENTITIES[0],
                        directory / "clients",
                        ClientPolicy(allowance=allowance(12)),
                    )
            return parameters

    parameters = asyncio.run(run())
    other = dataclasses.replace(parameters, session=b"another session!")
    with own_budget(directory, 0, allowance(12)) as budget:
        assert 7.9 < budget.spending(other).before <= 8


def test_a_restored_copy_of_a_clients_ledger_is_refused(directory):
    async def run() -> None:
        own = directory / "clients" / IDENTITIES[0].public_bytes.hex()
        async with serving(directory / "coordinator") as service:
            budget = allowance(20)
            await whole_session(service, directory, with_noise, budget)
            shutil.copy(own / "budget.db", directory / "old.db")
            parameters = await open_session(service, directory, with_noise)
            await asyncio.gather(
                *(contribute(service, parameters.session, k, directory, budget) for k in range(len(IDENTITIES)))
            )
            shutil.copy(directory / "old.db", own / "budget.db")
            third = await open_session(service, directory, with_noise)
            with pytest.raises(StaleStoreError):
                await contribute(service, third.session, 0, directory, budget)

    asyncio.run(run())


def test_a_settled_charge_is_that_of_the_contributions_that_were_closed_over(directory):
    async def run() -> PairwiseOpen:
        async with serving(directory / "coordinator") as service:
            parameters, results = await whole_session(service, directory, with_noise, allowance(20))
            assert {result.contributors for result in results} == {4}
            # The same adapters, exactly: what is between is noise, of everybody's share.
            _, exact = await whole_session(service, directory, lambda same: same, None)
            difference = results[0].mean.astype(float) - exact[0].mean
            deviation = float(4 * parameters.noise.local_variance) ** 0.5 / float(4 * parameters.noise.scale)
            assert np.sqrt(np.mean(np.square(difference))) == pytest.approx(deviation, rel=0.5)
            return parameters

    parameters = asyncio.run(run())
    with own_budget(directory, 0, allowance(20)) as budget:
        other = budget.spending(dataclasses.replace(parameters, session=b"another session!"))
        own = budget.spending(parameters)
    # Another session like it would cost the worst case; this one did not.
    assert other.before == own.session < other.session


def spent_alone(directory: Path, number: int, parameters: PairwiseOpen, budget: PrivacyAllowance) -> float:
    """What a client's own ledger says that it has spent by now, in this one session."""
    other = dataclasses.replace(parameters, session=b"another session!")
    with own_budget(directory, number, budget) as own:
        return own.spending(other).before


def log_before(directory: Path, parameters: PairwiseOpen) -> list[bytes]:
    files = RecordFiles(directory / "coordinator" / "record")
    entries = [entry for _, bundle in iterate_entries(files, parse_names(files.names())) for entry in bundle]
    return entries[: entries.index(parameters.to_bytes())]


def lie_about_the_end(port, before: list[bytes], end: Callable[[SessionResult], LogEntry], count: int) -> None:
    """Show a client no closed list, and then an end in a log that closes over ``count`` contributions."""
    honest = port.outcome

    async def closed_list(_session: bytes) -> None:
        raise RemoteProtocolError(RejectReason.WRONG_PHASE)

    async def outcome(session: bytes) -> SessionEnded:
        forked = []
        for data in (await honest(session)).evidence.entries:
            entry = decode_entry(data)
            if isinstance(entry, SessionClose):
                entry = dataclasses.replace(entry, count=count)
            forked.append(end(entry) if isinstance(entry, SessionResult) else entry)
        return SessionEnded(evidence_of(key_of("coordinator"), [entry.to_bytes() for entry in forked], before))

    port.closed_list, port.outcome = closed_list, outcome


@pytest.mark.parametrize("count", [2, 2**28])
@pytest.mark.parametrize("end", ["abort", "result"])
def test_a_close_that_a_client_did_not_answer_lowers_no_charge_of_its(directory, end, count):
    """The others open the sum, the victim's input in it; the victim is told that very many, or none, contributed."""
    budget, victim = allowance(20), len(CROWD) - 1

    def ended(entry: SessionResult) -> LogEntry:
        if end == "abort":
            return SessionAbort(entry.session, "regrets", 0, merkle.root(()))
        return dataclasses.replace(entry, count=count)

    async def run() -> PairwiseOpen:
        async with serving(directory / "coordinator") as service:
            parameters = await open_example_session(
                service,
                CROWD,
                directory / "adapter0",
                change=with_noise,
                deadlines=Deadlines(60, 60, 60, 2, 5),
            )
            before = log_before(directory, parameters)

            async def told_lies() -> object:
                async with await connect(service.address, service.key, service.tls) as coordinator:
                    lie_about_the_end(coordinator.port, before, ended, count)
                    adapter, state = directory / f"adapter{victim}", directory / "clients"
                    policy = ClientPolicy(allowance=budget)
                    participation = await coordinator.contribute(
                        parameters.session, adapter, CROWD[victim], state, policy
                    )
                    return await participation.result()

            others = [contribute(service, parameters.session, k, directory, budget) for k in range(victim)]
            _, *results = await asyncio.gather(told_lies(), *others, return_exceptions=True)
            # The attack is one: what the victim uploaded is in the sum.
            assert [result.contributors for result in results] == [len(CROWD)] * victim
            return parameters

    parameters = asyncio.run(run())
    assert spent_alone(directory, victim, parameters, budget) > 7.9


def test_who_has_lost_its_sessions_does_not_contribute_to_one_again_for_nothing(directory):
    """A second log of the same coordinator, with the very same open entry."""
    budget = allowance(20)

    async def first() -> PairwiseOpen:
        async with serving(directory / "coordinator") as service:
            return (await whole_session(service, directory, with_noise, budget))[0]

    parameters = asyncio.run(first())
    for file in (directory / "clients" / IDENTITIES[0].public_bytes.hex()).glob("sessions.db*"):
        file.unlink()

    async def again() -> None:
        async with serving(directory / "other") as service:
            await open_session(service, directory, lambda _: parameters)
            with pytest.raises(StaleStoreError):
                await contribute(service, parameters.session, 0, directory, budget)
            host = await service.registry.find(parameters.session)
            assert host.status().received == 0

    asyncio.run(again())


def test_a_session_that_a_client_leaves_before_it_masks_anything_costs_it_nothing(directory):
    """So no coordinator can spend anybody's budget on sessions that nobody sends anything to."""
    budget = allowance(20)

    def unsafe(parameters: PairwiseOpen) -> PairwiseOpen:
        return with_noise(dataclasses.replace(parameters, max_corrupt=0))

    async def run() -> PairwiseOpen:
        async with serving(directory / "coordinator") as service:
            parameters = await open_session(service, directory, unsafe)
            everybody = (contribute(service, parameters.session, k, directory, budget) for k in range(len(IDENTITIES)))
            outcomes = await asyncio.gather(*everybody, return_exceptions=True)
            assert all(isinstance(outcome, LocalProtocolError | RemoteProtocolError) for outcome in outcomes), outcomes
            return parameters

    parameters = asyncio.run(run())
    assert spent_alone(directory, 0, parameters, budget) == 0


@pytest.mark.parametrize("first", [allowance(30), None], ids=["its ledger was lost", "it had no budget then"])
def test_what_was_spent_before_the_ledger_began_is_charged_from_the_store_of_sessions(directory, first):
    async def run() -> None:
        async with serving(directory / "coordinator") as service:
            await whole_session(service, directory, with_noise, first)
            for file in (directory / "clients" / IDENTITIES[0].public_bytes.hex()).glob("budget.db*"):
                file.unlink()
            parameters, _ = await whole_session(service, directory, with_noise, allowance(30))
            with own_budget(directory, 0, allowance(30)) as budget:
                own = budget.spending(parameters)
                assert 7.9 < own.before <= 8
            third = await open_session(service, directory, with_noise)
            own_directory = directory / "clients" / IDENTITIES[1].public_bytes.hex()
            for file in own_directory.glob("budget.db*"):
                file.unlink()
            # With less than what the store of sessions shows to be spent, there is nothing left for another one.
            with pytest.raises(LocalProtocolError) as caught:
                await contribute(service, third.session, 1, directory, allowance(9))
            assert caught.value.reason is RejectReason.BELOW_POLICY

    asyncio.run(run())
