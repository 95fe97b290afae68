"""The real verifier reads what simulated coordinators publish, and says what it says of any record."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest

from secagg.transcript.tiles import bundle_path, tile_path
from simulations.judging import record_check
from simulations.judging.record_check import RecordVerdict, audit_policy, check_record, entries_of, write_record
from simulations.world.cast import client_name, key_of
from simulations.world.loop import run_virtually
from simulations.world.network import Event, Mishap
from simulations.world.plan import Plan, Protocol
from simulations.world.world import World
from verifier.report import SessionEnd, Verdict

BOTH = pytest.mark.parametrize("protocol", list(Protocol))
WITNESSES = pytest.mark.parametrize("witnesses", [0, 3])


async def _session(plan: Plan, silent: int = 0, most_s: float = 10_000) -> World:
    world = World(plan)
    for number in range(silent):
        world.network.mishaps.append(Mishap(Event.CALLER_DIES_BEFORE, client_name(number), "announce"))
    await world.open()
    for number in range(plan.clients):
        world.join(number)
    await world.until_over(most_s)
    return world


def _verdict(plan: Plan, **more: object) -> RecordVerdict:
    async def main() -> RecordVerdict:
        return check_record(await _session(plan, **more))  # type: ignore[arg-type]

    return run_virtually(main())


@BOTH
@WITNESSES
def test_the_record_of_a_session_with_a_result_passes(protocol, witnesses):
    plan = Plan(protocol, 6, dimension=8, seed=2, witnesses=witnesses)
    assert _verdict(plan, silent=1) == RecordVerdict(Verdict.PASSED, SessionEnd.RESULT, (), (), ())


@BOTH
@WITNESSES
def test_the_record_of_an_aborted_session_passes(protocol, witnesses):
    plan = Plan(protocol, 6, dimension=8, seed=2, witnesses=witnesses)
    assert _verdict(plan, silent=5) == RecordVerdict(Verdict.PASSED, SessionEnd.ABORTED, (), (), ())


@BOTH
def test_a_session_under_way_has_a_record_in_which_nothing_but_its_end_is_missing(protocol):
    found = _verdict(Plan(protocol, 6, dimension=8, seed=2), silent=1, most_s=100)
    assert (found.verdict, found.end, found.failed) == (Verdict.INCOMPLETE, SessionEnd.UNDER_WAY, ())
    assert found.unavailable == ("SES-6",)
    assert len(found.findings) == 1


def test_the_record_of_a_session_with_noise_passes():
    plan = Plan(Protocol.ONE_SHOT, 12, dimension=64, seed=2, epsilon=Fraction(8))
    assert _verdict(plan).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("integer-sum.bin", ("RES-1",)),
        ("dispositions.jsonl", ("CON-3",)),
        ("linear-hashes.bin", ("SUM-1",)),
    ],
)
def test_a_byte_that_was_altered_fails_the_check_that_reads_it(name, failed):
    async def main() -> RecordVerdict:
        world = await _session(Plan(Protocol.PAIRWISE, 6, dimension=8, seed=2))
        files, key = world.coordinator.published.files, (world.cast.session.parameters.session, name)
        files[key] = files[key][:-2] + bytes([files[key][-2] ^ 1]) + files[key][-1:]
        return check_record(world)

    found = run_virtually(main())
    assert found.verdict is Verdict.FAILED
    assert found.failed == failed, found.findings


@pytest.mark.parametrize(("field", "failed"), [("coordinator", "LOG-2"), ("registrar", "ELG-3"), ("members", "SES-8")])
def test_keys_are_pinned_and_never_taken_from_the_record(field, failed, monkeypatch):
    """An auditor who knows other keys refuses a record that is right in itself."""

    async def main() -> RecordVerdict:
        world = await _session(Plan(Protocol.ONE_SHOT, 6, dimension=8, seed=2))
        other = key_of(99, field)
        stranger = dataclasses.replace(world.cast, **{field: (other,) * 7 if field == "members" else other})
        monkeypatch.setattr(record_check, "audit_policy", lambda _: audit_policy(stranger))
        return check_record(world)

    found = run_virtually(main())
    assert found.verdict is Verdict.FAILED
    assert found.failed == (failed,), found.findings


def test_too_few_cosignatures_fail(monkeypatch):
    async def main() -> RecordVerdict:
        plan = Plan(Protocol.ONE_SHOT, 6, dimension=8, seed=2)
        world = await _session(plan)
        watched = dataclasses.replace(world.cast, plan=dataclasses.replace(plan, witnesses=3))
        others = dataclasses.replace(watched, witnesses=tuple(key_of(2, f"witness-{number}") for number in range(3)))
        monkeypatch.setattr(record_check, "audit_policy", lambda _: audit_policy(others))
        return check_record(world)

    found = run_virtually(main())
    assert found.verdict is Verdict.FAILED
    assert "LOG-4" in found.failed, found.findings


def test_before_anything_is_published_there_is_no_session_to_pass():
    async def main() -> RecordVerdict:
        return check_record(World(Plan(Protocol.PAIRWISE, 6, dimension=8, seed=2)))

    found = run_virtually(main())
    assert (found.verdict, found.end) == (Verdict.INCOMPLETE, None)


def test_what_is_written_lies_where_a_static_web_server_would_have_it(tmp_path):
    async def main() -> World:
        return await _session(Plan(Protocol.PAIRWISE, 6, dimension=8, seed=2))

    world = run_virtually(main())
    write_record(world, tmp_path)
    session = tmp_path / "sessions" / world.cast.session.parameters.session.hex()
    for name in ("roster.jsonl", "keys.jsonl", "u2.jsonl", "contributions.jsonl", "integer-sum.bin"):
        assert (session / name).is_file()
    assert (tmp_path / "checkpoint").is_file()


def test_tiles_of_a_larger_log_than_the_checkpoints_are_left_out(tmp_path):
    async def main() -> World:
        world = await _session(Plan(Protocol.PAIRWISE, 6, dimension=8, seed=2))
        log = world.coordinator.disk.log
        await log.add([("tile/0/000.p/99", bytes(32 * 99)), ("tile/entries/000.p/99", b"later")])
        assert check_record(world).verdict is Verdict.PASSED
        return world

    write_record(run_virtually(main()), tmp_path)
    assert not (tmp_path / "tile/0/000.p/99").exists()


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        (tile_path(0, 0, 3), 3),
        (tile_path(0, 0, 256), 256),
        (tile_path(0, 2, 5), 517),
        (tile_path(1, 0, 2), 512),
        (tile_path(2, 0, 1), 65536),
        (bundle_path(1, 7), 263),
    ],
)
def test_a_tile_belongs_to_logs_that_have_all_its_entries(name, entries):
    assert entries_of(name) == entries
