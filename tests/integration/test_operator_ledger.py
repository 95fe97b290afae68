"""An operator's budget over real sessions: reserved before anybody hears of them, settled by what the log shows."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from secagg.cli.failures import CommandError
from secagg.cli.main import parser_for
from secagg.cli.main import run as run_command
from secagg.cli.opening import plan_opening
from secagg.cli.operator_ledger import in_turn
from secagg.client import connect
from secagg.crypto.signing import SigningKey
from secagg.identity.address import Address
from secagg.identity.config import CoordinatorConfig, LogConfig
from secagg.identity.keys import KeyKind, create_key_file, load_key_file
from secagg.identity.roster_file import add_members, sign_roster
from secagg.identity.transport import TlsFiles
from secagg.protocol.phases import Phase
from secagg.remote_operator import end_phase, open_session
from secagg.runtime.participant import TransportError
from tests.support.cohort import key_of
from tests.support.rng import CountingRng
from tests.support.service import ORIGIN, serving, tiny_adapter

IDENTITIES = [key_of(f"id{number}") for number in range(4)]


@dataclass
class Operator:
    """A coordinator's directory, and the sessions that its operator opens."""

    home: Path
    key: SigningKey

    @property
    def config_file(self) -> Path:
        return self.home / "coordinator.toml"

    @property
    def config(self) -> CoordinatorConfig:
        return CoordinatorConfig.load(self.config_file)

    @property
    def ledger_files(self) -> list[Path]:
        return sorted((self.home / "state").glob("budget.db*"))

    async def open(self, *options: str) -> bytes:
        argv = [
            *("session", "open", "--config", str(self.config_file), "--roster", str(self.home / "roster")),
            *("--adapter", str(self.home / "adapter0"), "--min-contributors", "3", "--max-corrupt", "1"),
            *("--max-contributors", "64", "--accept-ratio", "1000", *options),
        ]
        arguments = parser_for(argv).parse_args(argv)
        with in_turn(plan_opening(arguments, self.config), self.config) as opening:
            return await open_session(self.config.state_directory, opening.request(), 30.0)

    async def contribute_all(self, service, session: bytes) -> None:
        async def contribute(number: int) -> None:
            async with await connect(service.address, service.key, service.tls) as coordinator:
                adapter, state = self.home / f"adapter{number}", self.home / "clients"
                await (await coordinator.contribute(session, adapter, IDENTITIES[number], state)).result()

        await asyncio.gather(*map(contribute, range(len(IDENTITIES))))

    def shown(self, capsys: pytest.CaptureFixture[str]) -> dict:
        assert run_command(["budget", "show", "--config", str(self.config_file), "--format", "json"]) == 0
        (budget,) = json.loads(capsys.readouterr().out)["budgets"]
        return budget


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    for number in range(len(IDENTITIES)):
        tiny_adapter(tmp_path / f"adapter{number}", number)
    rng = CountingRng(b"operator")
    create_key_file(tmp_path / "coordinator.key", KeyKind.COORDINATOR, None, rng)
    add_members(tmp_path / "roster", [(key.public_bytes, "") for key in IDENTITIES])
    sign_roster(tmp_path / "roster", key_of("registrar"))
    state = tmp_path / "state"
    state.mkdir()
    config = CoordinatorConfig(
        listen=Address("127.0.0.1", 0),
        state_directory=state,
        key_file=tmp_path / "coordinator.key",
        transport=TlsFiles(state / "tls.crt", state / "tls.key"),
        log=LogConfig(ORIGIN, None),
        record_directory=state / "record",
    )
    operator = Operator(tmp_path, load_key_file(tmp_path / "coordinator.key", KeyKind.COORDINATOR, None))
    operator.config_file.write_text(config.to_toml(), encoding="utf-8")
    return operator


def test_what_the_log_shows_lowers_the_charge(operator, capsys):
    async def run() -> tuple[bytes, bytes, bytes]:
        async with serving(operator.home / "state", operator.key) as service:
            noise = ("--dp-epsilon", "20", "--dp-sessions", "3")
            ended = await operator.open(*noise)
            await operator.contribute_all(service, ended)
            aborted = await operator.open(*noise)
            host = await service.registry.find(aborted)
            await end_phase(operator.config.state_directory, aborted, Phase.ADVERTISE_KEYS, 30.0)
            while host.status().phase is not Phase.ABORTED:
                await asyncio.sleep(0.01)
            waiting = await operator.open(*noise)
            return ended, aborted, waiting

    ended, aborted, waiting = asyncio.run(run())
    budget = operator.shown(capsys)
    found = {session["session"]: (session["state"], session["epsilon"]) for session in budget["sessions"]}
    assert {name: state for name, (state, _) in found.items()} == {
        ended.hex(): "settled",
        aborted.hex(): "cancelled",
        waiting.hex(): "reserved",
    }
    # Four contributed where three would have done: three honest ones, not two.
    assert 0 < found[ended.hex()][1] < found[waiting.hex()][1]
    assert found[aborted.hex()][1] == 0
    assert budget["spent"] < 20
    assert budget["left"] == pytest.approx(20 - budget["spent"])


def test_a_session_beyond_the_budget_is_refused_before_anybody_hears_of_it(operator, capsys):
    async def run() -> None:
        async with serving(operator.home / "state", operator.key) as service:
            await operator.open("--dp-epsilon", "5")
            with pytest.raises(CommandError) as caught:
                await operator.open("--dp-epsilon", "5")
            assert caught.value.reason == "BUDGET_EXHAUSTED"
            assert len(await service.registry.keys()) == 1

    asyncio.run(run())
    assert len(operator.shown(capsys)["sessions"]) == 1


def test_a_population_keeps_the_budget_it_began_with(operator):
    async def run() -> None:
        async with serving(operator.home / "state", operator.key):
            await operator.open("--dp-epsilon", "5")
            with pytest.raises(CommandError) as caught:
                await operator.open("--dp-epsilon", "50")
            assert caught.value.reason == "LEDGER"
            assert "budget epsilon 5" in caught.value.message

    asyncio.run(run())


def test_a_reservation_stands_when_nobody_serves(operator, capsys):
    async def run() -> None:
        async with serving(operator.home / "state", operator.key):
            await operator.open("--dp-epsilon", "9", "--dp-sessions", "2")

    asyncio.run(run())
    with pytest.raises(TransportError):
        asyncio.run(operator.open("--dp-epsilon", "9", "--dp-sessions", "2"))
    states = [session["state"] for session in operator.shown(capsys)["sessions"]]
    assert states == ["reserved", "reserved"]


def test_a_ledger_that_was_restored_with_all_its_files_is_found_by_the_log(operator):
    async def run() -> None:
        async with serving(operator.home / "state", operator.key):
            noise = ("--dp-epsilon", "50", "--dp-sessions", "3")
            await operator.open(*noise)
            (operator.home / "backup").mkdir()
            for file in operator.ledger_files:
                shutil.copy(file, operator.home / "backup")
            await operator.open(*noise)
            for file in operator.ledger_files:
                shutil.copy(operator.home / "backup" / file.name, file)
            with pytest.raises(CommandError) as caught:
                await operator.open(*noise)
            assert caught.value.reason == "LEDGER"
            assert "known elsewhere" in caught.value.message

    asyncio.run(run())


def test_a_restored_database_is_refused_by_itself(operator):
    async def run() -> None:
        async with serving(operator.home / "state", operator.key):
            noise = ("--dp-epsilon", "50", "--dp-sessions", "3")
            await operator.open(*noise)
            database = operator.home / "state" / "budget.db"
            shutil.copy(database, operator.home / "old.db")
            await operator.open(*noise)
            shutil.copy(operator.home / "old.db", database)
            with pytest.raises(CommandError) as caught:
                await operator.open(*noise)
            assert caught.value.reason == "LEDGER"

    asyncio.run(run())


def test_a_restored_ledger_goes_on_only_if_the_log_shows_nothing_that_it_lacks(operator, capsys):
    """What it lost then are settlements, which are made again."""
    database, accept = operator.home / "state" / "budget.db", ["budget", "accept-restored", "--config"]

    async def run() -> None:
        async with serving(operator.home / "state", operator.key) as service:
            noise = ("--dp-epsilon", "50", "--dp-sessions", "3")
            await operator.open(*noise)
            shutil.copy(database, operator.home / "without-the-second.db")
            ended = await operator.open(*noise)
            shutil.copy(database, operator.home / "without-settlements.db")
            await operator.contribute_all(service, ended)

    asyncio.run(run())
    before = operator.shown(capsys)
    assert sorted(session["state"] for session in before["sessions"]) == ["reserved", "settled"]
    for name, code in (("without-the-second", 2), ("without-settlements", 0)):
        shutil.copy(operator.home / f"{name}.db", database)
        assert run_command(["budget", "show", "--config", str(operator.config_file)]) == 2
        assert "accept-restored" in capsys.readouterr().err
        assert run_command([*accept, str(operator.config_file)]) == code
        capsys.readouterr()
    assert operator.shown(capsys)["sessions"] == before["sessions"]
    assert run_command([*accept, str(operator.config_file)]) == 2


def test_nothing_is_reserved_while_nobody_serves(operator, capsys):
    argv = ["session", "open", "--config", str(operator.config_file), "--roster", str(operator.home / "roster")]
    more = ["--adapter", str(operator.home / "adapter0"), "--min-contributors", "3", "--max-corrupt", "1"]
    assert run_command([*argv, *more, "--dp-epsilon", "5", "--accept-ratio", "1000"]) == 3
    assert "answers on this machine" in capsys.readouterr().err
    assert not operator.ledger_files
