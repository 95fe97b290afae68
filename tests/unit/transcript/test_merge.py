"""How sessions say that they merge: what cannot be said, who takes part, and how second sessions are named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.transcript import merge
from secagg.transcript.encoding import CoordinateRange
from secagg.transcript.entries import AggregateFile, SessionResult
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.record import RecordError
from tests.unit.transcript.merge_strategies import digests, shares
from tests.unit.transcript.noise_strategies import skellam_noises
from tests.unit.transcript.record_strategies import session_opens

SEED, FIRST = b"s" * 32, b"f" * 16
ONE, HALF = Fraction(1), Fraction(1, 2)
SKETCH = merge.SketchMerge(ONE, SEED, 4, 8, 2)
RANGE = merge.RangeMerge(ONE, SEED, 4)
PROJECTION = merge.ProjectionMerge(ONE, SEED, 4, 2, FIRST, b"d" * 32, b"c" * 32)
PILOT = merge.PilotMerge(ONE, SEED, 4, 1, HALF)
BASIS = merge.BasisMerge(ONE, SEED, 4, 1, 2, HALF, FIRST, b"d" * 32)
FROZEN, DENSE = merge.FrozenMerge(ONE, b"d" * 32), merge.DenseMerge(ONE)
IDENTITIES = [hashlib.sha256(b"%d" % number).digest() for number in range(2000)]


@pytest.mark.parametrize(
    ("record", "changes", "field"),
    [
        (DENSE, {"update_norm": Fraction(0)}, "dense.update_norm"),
        (DENSE, {"update_norm": Fraction(1, 2**61)}, "dense.update_norm"),
        (FROZEN, {"update_norm": Fraction(2**60 + 1)}, "frozen-a.update_norm"),
        (SKETCH, {"update_norm": Fraction(0)}, "sketch.update_norm"),
        (SKETCH, {"core_columns": 3}, "sketch.core_columns"),
        (SKETCH, {"columns": 0}, "sketch.columns"),
        (SKETCH, {"core_columns": merge.MAX_COLUMNS + 1}, "sketch.core_columns"),
        (PILOT, {"share": Fraction(0)}, "pilot.share"),
        (PILOT, {"share": ONE}, "pilot.share"),
        (PILOT, {"sides": 3}, "pilot.sides"),
        (PILOT, {"update_norm": Fraction(0)}, "pilot.update_norm"),
        (BASIS, {"share": ONE}, "pilot-basis.share"),
        (BASIS, {"update_norm": Fraction(0)}, "pilot-basis.update_norm"),
    ],
)
def test_a_merge_that_means_nothing_cannot_be_constructed(record, changes, field):
    with pytest.raises(RecordError) as caught:
        dataclasses.replace(record, **changes)
    assert caught.value.field == field


def test_limits_themselves_can_be_said():
    dataclasses.replace(SKETCH, core_columns=4)
    for norm in (Fraction(1, 2**60), Fraction(2**60)):
        dataclasses.replace(DENSE, update_norm=norm)


@given(session_opens(), st.sampled_from([PROJECTION, BASIS]))
def test_a_second_session_does_not_follow_itself(opened, second):
    dataclasses.replace(opened, merge=dataclasses.replace(second, first=bytes(16)), session=FIRST)
    with pytest.raises(RecordError) as caught:
        dataclasses.replace(opened, merge=second, session=FIRST)
    assert caught.value.field == "session-open.merge.first"


@given(session_opens(), skellam_noises)
def test_noise_needs_no_range_of_coordinates(opened, noise):
    encoding = dataclasses.replace(opened.encoding, flatten=CoordinateRange(opened.encoding.clip_norm))
    dataclasses.replace(opened, encoding=encoding, noise=NoDifferentialPrivacy())
    with pytest.raises(RecordError) as caught:
        dataclasses.replace(opened, encoding=encoding, noise=noise)
    assert caught.value.field == "session-open.encoding.flatten"


@given(session_opens())
def test_a_range_is_positive_and_no_wider_than_the_norm(opened):
    encoding = opened.encoding
    for bound in (Fraction(0), encoding.clip_norm + Fraction(1, 2**20)):
        with pytest.raises(RecordError) as caught:
            dataclasses.replace(encoding, flatten=CoordinateRange(bound))
        assert caught.value.field == "encoding.flatten.bound"
    half = dataclasses.replace(encoding, flatten=CoordinateRange(encoding.clip_norm / 2))
    assert half.bound() == encoding.clip_norm / 2


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("merge.json", "basis.safetensors"),
        ("merge.json", "merge.json"),
    ],
)
def test_a_result_names_each_file_once_in_one_order(names):
    files = tuple(AggregateFile(name, bytes(32)) for name in names)
    with pytest.raises(RecordError) as caught:
        SessionResult(FIRST, 2, *[bytes(32)] * 3, files)
    assert caught.value.field == "session-result.aggregate"


def test_a_result_finds_the_digest_of_a_file_it_names():
    files = (AggregateFile("adapter_config.json", b"c" * 32), AggregateFile("merge.json", b"m" * 32))
    result = SessionResult(FIRST, 2, *[bytes(32)] * 3, files)
    assert result.digest_of("merge.json") == b"m" * 32
    assert result.digest_of("basis.safetensors") is None


def test_no_file_of_another_name_is_an_aggregate():
    with pytest.raises(RecordError):
        AggregateFile("roster.jsonl", bytes(32))


# Names and draws


def test_strategies_have_the_names_that_people_use():
    assert {merge.strategy_of(each) for each in (merge.FactorMerge(), DENSE, FROZEN, SKETCH)} == {
        "factors",
        "dense",
        "frozen-a",
        "sketch",
    }
    assert merge.strategy_of(RANGE) == merge.strategy_of(PROJECTION) == "two-session"
    assert merge.strategy_of(PILOT) == merge.strategy_of(BASIS) == "pilot-basis"


def test_only_merges_that_need_them_name_fixed_tensors():
    for each in (merge.FactorMerge(), DENSE, SKETCH, RANGE, PILOT):
        assert merge.fixed_digest(each) == b""
    for each in (FROZEN, PROJECTION, BASIS):
        assert merge.fixed_digest(each) == b"d" * 32


@given(digests, shares, digests)
def test_everybody_is_either_a_pilot_or_not(seed, share, identity):
    pilot = dataclasses.replace(PILOT, seed=seed, share=share)
    basis = dataclasses.replace(BASIS, seed=seed, share=share)
    assert merge.admits(pilot, identity) != merge.admits(basis, identity)
    assert merge.admits(pilot, identity) == merge.is_pilot(seed, share, identity)
    assert all(merge.admits(each, identity) for each in (merge.FactorMerge(), DENSE, SKETCH, RANGE, PROJECTION))


@pytest.mark.parametrize("share", [Fraction(1, 10), HALF, Fraction(9, 10)])
def test_about_the_share_is_drawn_and_another_seed_draws_others(share):
    drawn = [{one for one in IDENTITIES if merge.is_pilot(seed, share, one)} for seed in (SEED, b"t" * 32)]
    for each in drawn:
        # Six deviations of a binomial on either side.
        assert abs(len(each) - share * 2000) < 6 * (2000 * share * (1 - share)) ** 0.5
    assert drawn[0] != drawn[1]


def test_who_is_drawn_stays_drawn_for_a_larger_share():
    drawn = [{one for one in IDENTITIES if merge.is_pilot(SEED, Fraction(n, 10), one)} for n in (1, 2, 3)]
    assert drawn[0] < drawn[1] < drawn[2]


def test_the_draw_and_the_names_are_hashes_of_documented_texts():
    identity = IDENTITIES[0]
    text = json.dumps({"identity": identity.hex(), "seed": SEED.hex(), "type": "pilot"}, separators=(",", ":"))
    drawn = Fraction(int(hashlib.sha256(text.encode()).hexdigest(), 16), 2**256)
    assert not merge.is_pilot(SEED, drawn, identity)
    assert merge.is_pilot(SEED, drawn + Fraction(1, 2**256), identity)
    text = json.dumps({"attempt": 3, "first": FIRST.hex(), "type": "second-session"}, separators=(",", ":"))
    assert merge.second_session(FIRST, 3) == hashlib.sha256(text.encode()).digest()[:16]
    assert len({merge.second_session(FIRST, attempt) for attempt in range(100)}) == 100


@given(st.permutations(IDENTITIES[:5]))
def test_the_digest_of_contributors_is_that_of_the_set(identities):
    digest = merge.contributors_digest(identities)
    assert digest == hashlib.sha256(b"".join(sorted(IDENTITIES[:5]))).digest()
    assert digest != merge.contributors_digest(identities[:4])
