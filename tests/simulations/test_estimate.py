"""The estimator against real sessions in memory, against the limits of the product, and as a command."""

import argparse
import asyncio
import json
from fractions import Fraction

import pytest

from secagg.arith.linear_hash import HASH_BYTES
from secagg.arith.ring_mask import usable_bits_for
from secagg.protocol.messages import ShareKeys
from secagg.protocol.one_shot.coordinator_states import ONE_SHOT_PERSISTENCE, Opening
from secagg.protocol.one_shot.member_states import MEMBER_PERSISTENCE
from secagg.protocol.phases import Phase
from secagg.protocol.rows import RowKind, row_position
from secagg.services import server
from secagg.services.uploads import PREFERRED_CHUNK_BYTES
from secagg.store import sqlite
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.roster import RosterMember
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import convert
from simulations.commands import estimate as cli_estimate
from simulations.estimates.constants import MEANINGS, Constants, ConstantsError, load
from simulations.estimates.estimate import Protocol, Question, Unit, estimate, most_in_a_cell, most_in_a_message
from simulations.estimates.sizes import (
    OneShotSizes,
    PairwiseSizes,
    committee_of,
    digits_below,
    pairwise_widths,
    ring_widths,
    roster_line,
    widest_value_bits,
)
from tests.support.cohort import key_of, one_hot, open_cohort, run_session, session_of
from tests.support.one_shot_cohort import open_one_shot

CLIENTS, DIMENSION, BITS = 8, 20, 15
BY_MODEL = ("layout.json", "adapter.json", "aggregate/adapter_config.json", "aggregate/adapter_model.safetensors")
DEFAULTS = load(None)


def vector_of(number):
    return one_hot(DIMENSION, number % DIMENSION)


def published(files, name):
    return len(next(data for (_, each), data in files.items() if each == name))


def published_lengths(files):
    """What a session has published, but what the model decides; of the adapter's file its numbers only."""
    lengths = {name: len(data) for (_, name), data in files.items() if name not in BY_MODEL}
    return sum(lengths.values()) + 4 * DIMENSION


# One-shot, against a session.


@pytest.fixture(scope="module")
def one_shot_played():
    """A finished session of 8, its host, its record, and the messages that were sent."""

    async def play():
        usable = usable_bits_for(BITS, CLIENTS, DIMENSION)
        encoding = Encoding(DIMENSION, BITS, CLIENTS, usable, Fraction(1), NoFlattening())
        cohort = await open_one_shot(CLIENTS, vector_of, encoding=encoding)
        await cohort.contribute(*range(CLIENTS))
        await cohort.reach(Phase.FINISHED)
        members = [await member.host.find(cohort.session.parameters.session) for member in cohort.members]
        held = [dict(member.rows) for member in members]
        rows, entries = dict(cohort.host.rows), cohort.host.evidence().entries
        await cohort.close()
        return cohort, rows, entries, held

    return asyncio.run(play())


@pytest.fixture(scope="module")
def one_shot_sizes():
    return OneShotSizes(CLIENTS, ring_widths(BITS, CLIENTS, DIMENSION), committee_of(4, 3))


def test_a_real_record_is_as_long_as_estimated(one_shot_played, one_shot_sizes):
    cohort = one_shot_played[0]
    files = cohort.record.files
    # Three answers open the sum; the fourth is published if it has come by then.
    answers = files[cohort.session.parameters.session, "openings.jsonl"].splitlines()
    assert {len(line) for line in answers} == {one_shot_sizes.answer}
    absent = (4 - len(answers)) * (one_shot_sizes.answer + 1)
    assert published_lengths(files) == one_shot_sizes.record - absent
    assert published(files, "dispositions.jsonl") == one_shot_sizes.dispositions
    assert published(files, "roster.jsonl") == one_shot_sizes.roster


def test_a_real_contribution_is_as_long_as_estimated(one_shot_played, one_shot_sizes):
    cohort = one_shot_played[0]
    for contributor in cohort.contributors:
        message = contributor.contribution
        assert len(message.signed.to_bytes()) == one_shot_sizes.header
        assert sum(map(len, message.parts)) == one_shot_sizes.boxes
        assert len(message.linear_hash) == HASH_BYTES
        assert len(contributor.upload) == one_shot_sizes.widths.upload
    receipt = cohort.host.receipt(cohort.contributors[0].contribution.signed)
    assert len(receipt.receipt) + len(receipt.signature) == one_shot_sizes.receipt


def test_real_rows_are_as_long_as_estimated(one_shot_played, one_shot_sizes):
    rows = one_shot_played[1]
    kinds = (RowKind.HEADER, RowKind.PARTS, RowKind.STAGED, RowKind.HOLDING, RowKind.TAKEN)
    stored = [
        len(ONE_SHOT_PERSISTENCE.encode(row))
        for key, row in rows.items()
        if any(row_position(key, kind) is not None for kind in kinds)
    ]
    assert sum(stored) == CLIENTS * one_shot_sizes.rows
    for held in one_shot_played[3]:
        contributions = [len(MEMBER_PERSISTENCE.encode(row)) for key, row in held.items() if key]
        assert len(contributions) == CLIENTS
        assert set(contributions) == {one_shot_sizes.member_row}


def test_real_log_entries_are_within_a_tenth_of_what_is_estimated(one_shot_played, one_shot_sizes):
    # Names of members and numbers of seconds are others.
    entries = one_shot_played[2]
    logged = sum(len(entry) + 34 for entry in entries)
    assert 0.9 < logged / (one_shot_sizes.log - 400) < 1.1
    assert 0.9 < len(entries[0]) / one_shot_sizes.open_entry < 1.1


def test_an_estimate_shows_those_lengths(one_shot_sizes):
    question = Question(DIMENSION, committee_of(4, 3), value_bits=BITS)
    column = estimate(question, Protocol.ONE_SHOT, CLIENTS, DEFAULTS)
    assert column["published", "records"] == one_shot_sizes.record
    assert column["a contributor", "  of which boxes"] == one_shot_sizes.boxes
    assert column["a contributor", "  of which masked input"] == one_shot_sizes.widths.upload
    assert column["coordinator", "stores masked inputs"] == CLIENTS * one_shot_sizes.widths.upload
    assert column["a member with whole shares", "receives"] == CLIENTS * (one_shot_sizes.box(3) + one_shot_sizes.header)
    assert not column.beyond


def test_messages_have_the_framing_that_was_measured(one_shot_played, one_shot_sizes):
    cohort = one_shot_played[0]
    message = cohort.contributors[0].contribution
    announced = convert.contribution_to_pb(bytes(16), message).ByteSize()
    payload = one_shot_sizes.header + one_shot_sizes.boxes + HASH_BYTES
    # Three boxes fewer than with the committee of seven that was measured.
    assert abs(announced - payload - DEFAULTS["announcement_overhead_bytes"]) <= 16


# Pairwise, against a session.


def test_a_real_pairwise_session_is_as_long_as_estimated():
    keys = sorted((key_of(f"client {number}") for number in range(CLIENTS)), key=lambda key: key.public_bytes)
    encoding = Encoding(DIMENSION, BITS, CLIENTS, 64, Fraction(1), NoFlattening())
    dealt = []

    async def play():
        cohort = await open_cohort(session_of(keys, encoding=encoding), keys, vector_of)
        share, record = cohort.host.share_keys, cohort.host._ports.record

        async def noted(message):
            dealt.append(message)
            await share(message)

        cohort.host.share_keys = noted
        await run_session(cohort, {})
        return cohort, record

    cohort, record = asyncio.run(play())
    sizes = PairwiseSizes(CLIENTS, pairwise_widths(BITS, CLIENTS, DIMENSION), cohort.session.graph_parameters(CLIENTS))
    files = record.files
    answered = files[cohort.session.parameters.session, "openings.jsonl"].splitlines()
    missing = CLIENTS - len(answered)  # t + 1 answers may be enough on the complete graph
    # Of its indices only an answer's own place differs, and they all have one digit.
    assert {len(line) for line in answered} == {sizes.answer}
    assert published_lengths(files) == sizes.record - missing * (sizes.answer + 1)
    assert published(files, "dispositions.jsonl") == sizes.dispositions
    assert published(files, "keys.jsonl") == CLIENTS * (sizes.advertised + 1)
    assert published(files, "u2.jsonl") == CLIENTS * (sizes.shared + 1)
    assert all(isinstance(message, ShareKeys) for message in dealt)
    boxes = [box for message in dealt for box in message.boxes]
    lengths = [len(box.share_box) + len(box.pair_box) + len(box.commitments) for box in boxes]
    assert sum(lengths) == CLIENTS * sizes.dealt


# Limits and widths.


def test_the_limits_are_those_of_the_services():
    assert DEFAULTS["message_limit_bytes"] == server.LARGE_MESSAGE_BYTES
    assert DEFAULTS["cell_limit_bytes"] == sqlite.MAX_CELL_BYTES
    assert DEFAULTS["chunk_bytes"] == PREFERRED_CHUNK_BYTES


def test_the_largest_roster_fits_one_message_and_hardly_more_does():
    line = RosterMember(bytes(32), "").to_bytes()
    assert len(line) + 1 == roster_line()
    most = most_in_a_message(DEFAULTS)
    for count, fits in ((most, True), (round(1.01 * most), False)):
        response = pb.GetSessionResponse(roster=[line] * count)
        assert (response.ByteSize() <= server.LARGE_MESSAGE_BYTES) is fits


def test_the_largest_closed_set_fits_a_cell_and_hardly_more_does():
    def stored(count):
        return len(ONE_SHOT_PERSISTENCE.encode(Opening(0, (count,) * 1000, (), bytes(32), 0, 0, 0))) * count / 1000

    most = most_in_a_cell(DEFAULTS)
    assert stored(most) < 1.05 * sqlite.MAX_CELL_BYTES
    assert stored(round(1.1 * most)) > sqlite.MAX_CELL_BYTES


@pytest.mark.parametrize(
    ("contributors", "beyond"), [(10**5, ()), (136_000, ()), (140_000, ("A",)), (10**7, ("A",)), (2**24, ("A", "B"))]
)
def test_a_column_names_the_limits_that_it_breaks(contributors, beyond):
    column = estimate(Question(1000), Protocol.ONE_SHOT, contributors, DEFAULTS)
    assert column.beyond == beyond


def test_widths_are_those_of_the_design():
    shapes = {
        count: estimate(Question(10**6), Protocol.ONE_SHOT, count, DEFAULTS) for count in (1024, 2**20, 2**28, 2**33)
    }
    usable = {count: column["shape", "usable, were all in one opening"] for count, column in shapes.items()}
    assert usable == {1024: 52, 2**20: 47, 2**28: 43, 2**33: 41}
    assert widest_value_bits(2**33, 10**6) == 8
    assert shapes[2**33]["shape", "cohorts"] == 32
    assert shapes[2**33]["shape", "contributors in each"] == 2**28
    assert shapes[2**28]["shape", "cohorts"] == 1
    assert (shapes[2**28]["shape", "a coordinate"], shapes[1024]["shape", "a coordinate"]) == (15, 16)
    assert shapes[1024]["shape", "fields in a lane"] == 2


def test_what_is_said_to_be_linear_is_linear():
    one, many = (estimate(Question(10**6), Protocol.ONE_SHOT, count, DEFAULTS) for count in (2**28, 2**33))
    for first, last in zip(one.figures, many.figures, strict=True):
        is_total = first.group not in {"shape", "a contributor"} and first.unit in {Unit.BYTES, Unit.SECONDS}
        each = ("an upload", "a cohort")
        if is_total and not any(word in first.name for word in each):
            assert last.value == pytest.approx(32 * first.value), first
        elif first.group == "a contributor" or any(word in first.name for word in each):
            assert last.value == first.value, first


def test_every_limb_sum_of_a_cohort_is_hashed():
    few, many = (estimate(Question(10**6), Protocol.ONE_SHOT, count, DEFAULTS) for count in (10**6, 2**28))
    assert (few["shape", "limb sums in a cohort"], many["shape", "limb sums in a cohort"]) == (1, 32)
    more = many["coordinator", "CPU to open a cohort"] - few["coordinator", "CPU to open a cohort"]
    assert more == pytest.approx(31 * DEFAULTS["hash_sum_s_a_lane"] * few["shape", "lanes"])
    assert many["published", "records"] > 32 * 32 * many["shape", "lanes"]


def test_more_coordinates_and_more_members_cost_more():
    def column(dimension, members):
        return estimate(Question(dimension, committee_of(*members)), Protocol.ONE_SHOT, 1000, DEFAULTS)

    small, large, crowd = column(10**5, (7, 5)), column(10**6, (7, 5)), column(10**5, (15, 11))
    assert large["a contributor", "CPU"] > 2 * small["a contributor", "CPU"]
    assert (
        9 < large["a contributor", "  of which masked input"] / small["a contributor", "  of which masked input"] < 11
    )
    assert large["a member with seeds", "CPU"] == small["a member with seeds", "CPU"]
    assert crowd["a contributor", "  of which boxes"] > small["a contributor", "  of which boxes"]


def test_pairwise_is_refused_beyond_its_cohort_and_estimated_in_cohorts():
    refused = estimate(Question(1000), Protocol.PAIRWISE, 16385, DEFAULTS)
    assert not refused.figures
    assert "16,384" in refused.why_not
    column = estimate(Question(1000, cohort=1000), Protocol.PAIRWISE, 16000, DEFAULTS)
    assert (column["shape", "cohorts"], column["shape", "contributors in each"]) == (16, 1000)
    assert (column["shape", "neighbours (degree)"], column["shape", "threshold"]) == (146, 109)
    impossible = estimate(Question(1000, corrupt=Fraction(9, 10)), Protocol.PAIRWISE, 50, DEFAULTS)
    assert "lower" in impossible.why_not


def test_digits_are_counted():
    for count in (0, 1, 9, 10, 11, 99, 100, 101, 1234):
        assert digits_below(count) == sum(len(str(number)) for number in range(count))


# The command.


def run(*arguments):
    parser = argparse.ArgumentParser(prog="python -m simulations")
    cli_estimate.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["estimate", *arguments])
    return options.run(options)


def test_columns_line_up_and_assumptions_are_numbered(capsys):
    assert run("--contributors", "1000,10^6,2^28,2^33", "--dimension", "10^6") == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("contributors")))
    assert lines[start].split() == ["contributors", "1,000", "10^6", "2^28", "2^33"]
    table = lines[start : lines.index("", start)]
    numbers = [line for line in table if line.startswith("  ")]
    assert {len(line) for line in numbers} == {len(table[0])}
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("  1. Times: python -m benchmarks.constants") for line in lines)
    assert sum(f"({name})" in " ".join(lines) for name in MEANINGS) == len(MEANINGS)
    assert "10^6, 2^28, 2^33: not feasible: a session takes at most 16,384 clients" in " ".join(lines)


def test_json_has_every_figure(tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = ["--contributors", "2^33", "--dimension", "1000000", "--protocol", "one-shot", "--json"]
    assert run(*arguments, str(out)) == 0
    capsys.readouterr()
    assert run(*arguments, "-") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    (column,) = json.loads(out.read_text())["columns"]
    figures = {(each["group"], each["name"]): each["value"] for each in column["figures"]}
    assert figures["shape", "usable, were all in one opening"] == 41
    assert column["beyond"] == ["A", "B"]
    assert column["runs_as_built"] is False


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--contributors", "2"),
        ("--contributors", "2^34"),
        ("--contributors", "many"),
        ("--contributors", "10,,20"),
        ("--contributors", "9^999999"),
        ("--dimension", "0"),
        ("--dimension", "1e6"),
        ("--protocol", "federated"),
        ("--cohort", "1"),
        ("--committee", "17"),
        ("--needed", "3"),
        ("--needed", "8"),
        ("--value-bits", "33"),
        ("--value-bits", "32"),
        ("--dropout", "1"),
        ("--corrupt", "x"),
        ("--constants", "/nowhere/constants.json"),
        ("--json", "/nowhere/out.json"),
    ],
)
def test_bad_input_ends_with_2_and_names_the_option(option, value, capsys):
    arguments = {"--contributors": "2^28", "--dimension": "1000", "--protocol": "one-shot", option: value}
    try:
        code = run(*(part for pair in arguments.items() for part in pair))
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert f"argument {option}: " in capsys.readouterr().err


# Constants.


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mask_s_a_lane": -1}, "mask_s_a_lane"),
        ({"mask_s_a_lane": float("inf")}, "mask_s_a_lane"),
        ({"mask_s_a_lane": True}, "mask_s_a_lane"),
        ({"mask_s_a_lane": "1"}, "mask_s_a_lane"),
        ({"more": 1}, "more: unknown"),
    ],
)
def test_constants_that_are_none_are_refused_by_name(change, named):
    with pytest.raises(ConstantsError, match=named):
        Constants({**DEFAULTS.values, **change}, "", "", "")


def test_a_missing_constant_is_named():
    values = {name: value for name, value in DEFAULTS.values.items() if name != "chunk_bytes"}
    with pytest.raises(ConstantsError, match="chunk_bytes: missing"):
        Constants(values, "", "", "")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format":"secagg/constants/1"}', '{"format":"other","constants":{}}']
)
def test_another_file_is_refused(text, tmp_path):
    path = tmp_path / "constants.json"
    path.write_text(text)
    with pytest.raises(ConstantsError):
        load(path)


def test_constants_read_back_as_written():
    assert Constants.from_json(DEFAULTS.to_json()) == DEFAULTS
    measured = Constants({**DEFAULTS.values, "mask_s_a_lane": 1.23456789e-8}, "today", "machine", "command")
    assert Constants.from_json(measured.to_json())["mask_s_a_lane"] == 1.235e-8


def test_another_machine_gives_other_times_and_the_same_lengths():
    slower = {name: value * (3 if "_s_" in name else 1) for name, value in DEFAULTS.values.items()}
    other = Constants(slower, "today", "slow", "command")
    for first, last in zip(
        estimate(Question(1000), Protocol.ONE_SHOT, 1000, DEFAULTS).figures,
        estimate(Question(1000), Protocol.ONE_SHOT, 1000, other).figures,
        strict=True,
    ):
        factor = 3 if first.unit is Unit.SECONDS else 1
        assert last.value == pytest.approx(factor * first.value)
