from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from secagg.transcript import (
    canonical,
    encoding,
    entries,
    merge,
    merkle,
    noise,
    openers,
    published,
    receipt,
    roster,
    statements,
)
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.record import VERSION, Record, RecordError
from tests.unit.transcript.record_strategies import MAX_INDEX, RECORDS, session_opens

MODULES = (encoding, entries, merge, noise, openers, published, receipt, roster, statements)
CLASSES = sorted(RECORDS, key=lambda kind: kind.__name__)
# A share sum is 16 KiB, which is nothing to show but the price of showing it.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
each_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def examples() -> dict[type[Record], Record]:
    """One plain example of each class: the first that is drawn, not shrunk."""
    first = settings(max_examples=1, phases=[Phase.generate], database=None, derandomize=True)
    return {kind: find(strategy, lambda _: True, settings=first) for kind, strategy in RECORDS.items()}


def field_names(kind: type[Record]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def test_every_record_class_is_tested_here():
    abstract = {Record, entries.SessionOpen, merge.UpdateMerge, noise.DistributedNoise}
    published = {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Record) and kind not in abstract
    }
    assert published == set(RECORDS)


@settings(max_examples=40)
@given(st.data())
@each_class
def test_every_record_round_trips_through_its_bytes(kind, data):
    record = data.draw(RECORDS[kind])
    encoded = record.to_bytes()
    assert kind.from_bytes(encoded) == record
    assert kind.from_bytes(encoded).to_bytes() == encoded
    assert canonical.encode(canonical.decode(encoded)) == encoded
    assert json.loads(encoded)["type"] == kind.TYPE


@each_class
def test_an_unknown_member_is_refused_by_name(kind, examples):
    value = {**examples[kind].to_value(), "surprise": 1}
    with pytest.raises(RecordError) as caught:
        kind.from_value(value)
    assert caught.value.field == f"{kind.TYPE}.surprise"
    assert caught.value.reason == "unknown member"


def test_an_unknown_member_of_any_length_is_quoted_in_part(examples):
    value = {**examples[statements.Absent].to_value(), "x" * 100_000: 1}
    with pytest.raises(RecordError) as caught:
        statements.Absent.from_value(value)
    assert len(str(caught.value)) < 100


@each_class
def test_a_missing_member_is_refused_by_name(kind, examples):
    for name in field_names(kind):
        value = examples[kind].to_value()
        del value[name]
        with pytest.raises(RecordError) as caught:
            kind.from_value(value)
        assert (caught.value.field, caught.value.reason) == (f"{kind.TYPE}.{name}", "missing")


@each_class
def test_a_member_of_the_wrong_type_is_refused_by_name(kind, examples):
    for name in field_names(kind):
        original = examples[kind].to_value()[name]
        for wrong in ({}, [[]], "\u00e9" * 600, -1, {"type": "surprise", "version": VERSION}):
            if type(wrong) is type(original) and wrong == original:
                continue
            value = {**examples[kind].to_value(), name: wrong}
            with pytest.raises(RecordError) as caught:
                kind.from_value(value)
            assert caught.value.field.startswith(f"{kind.TYPE}.{name}"), (name, wrong)


@each_class
def test_another_type_version_or_shape_is_refused(kind, examples):
    value = examples[kind].to_value()
    for other in ({**value, "type": "surprise"}, {**value, "type": 1}, [value], "text", 1):
        with pytest.raises(RecordError) as caught:
            kind.from_value(other)
        assert caught.value.field == kind.TYPE
    for version in (0, VERSION - 1, VERSION + 1, str(VERSION)):
        with pytest.raises(RecordError) as caught:
            kind.from_value({**value, "version": version})
        assert caught.value.field == f"{kind.TYPE}.version"
    for absent in ("type", "version"):
        with pytest.raises(RecordError):
            kind.from_value({key: member for key, member in value.items() if key != absent})


@given(
    st.one_of(
        st.binary(max_size=60), st.builds(canonical.encode, st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)))
    )
)
def test_nothing_but_a_record_error_escapes_from_any_bytes(data):
    for decode in (
        *(kind.from_bytes for kind in CLASSES),
        entries.decode_entry,
        statements.decode_share_leaf,
        statements.decode_disposition,
    ):
        with pytest.raises(RecordError):
            decode(data)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_record_is_refused_or_is_canonical_itself(data):
    kind = data.draw(st.sampled_from(CLASSES))
    encoded = bytearray(data.draw(RECORDS[kind]).to_bytes())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        record = kind.from_bytes(bytes(encoded))
    except RecordError:
        return
    assert record.to_bytes() == encoded


CONSTRUCTIONS = [
    ("absent.index", lambda: statements.Absent(-1)),
    ("absent.index", lambda: statements.Absent(MAX_INDEX + 1)),
    ("absent.index", lambda: statements.Absent(True)),
    ("absent.index", lambda: statements.Absent(1.0)),
    ("absent.index", lambda: statements.Absent(1.7)),
    ("absent.index", lambda: statements.Absent("3")),
    ("absent.index", lambda: statements.Absent(None)),
    ("rejected.reason", lambda: statements.Rejected(0, "x" * 65)),
    ("rejected.reason", lambda: statements.Rejected(0, "\u20ac" * 22)),
    ("rejected.reason", lambda: statements.Rejected(0, 5)),
    ("rejected.reason", lambda: statements.Rejected(0, "\ud800")),
    ("dropped.phase", lambda: statements.Dropped(0, "unmask")),
    ("receipt.session", lambda: statements.Receipt(bytes(31), bytes(32))),
    ("receipt.contribution", lambda: statements.Receipt(bytes(32), bytes(33))),
    ("contribution.lanes", lambda: statements.ContributionHeader(*[bytes(32)] * 5, 0, ())),
    ("contribution.missing", lambda: statements.ContributionHeader(*[bytes(32)] * 5, 1, (2, 1))),
    ("contribution.missing", lambda: statements.ContributionHeader(*[bytes(32)] * 5, 1, (1, 1))),
    ("contribution.missing[1]", lambda: statements.ContributionHeader(*[bytes(32)] * 5, 1, (1, MAX_INDEX + 1))),
    (
        "contribution.missing",
        lambda: statements.ContributionHeader(*[bytes(32)] * 5, 1, tuple(range(statements.MAX_NEIGHBOURS + 1))),
    ),
    ("self-mask.share", lambda: statements.SelfMaskShare(0, bytes(35))),
    ("root.share", lambda: statements.RootShare(0, bytes(37))),
    ("signed.signature", lambda: statements.Signed(statements.ConfirmStatement(*[bytes(32)] * 3), bytes(63))),
    ("signed.statement", lambda: statements.Signed(statements.Absent(0), bytes(64))),
    ("accepted.contribution", lambda: statements.Accepted(0, statements.Absent(0))),
    ("keys-advertised.count", lambda: entries.KeysAdvertised(bytes(16), 1, bytes(32))),
    ("keys-advertised.session", lambda: entries.KeysAdvertised(bytes(15), 2, bytes(32))),
    ("pair-box.box", lambda: published.PairBox(0, 1, bytes(32), bytes(1167), bytes(96), ())),
    ("pair-promise.commitments", lambda: published.PairPromise(0, 1, bytes(32), bytes(32), bytes(64), ())),
    ("roster-head.size", lambda: roster.RosterHead(bytes(32), 2**40 + 1, bytes(32))),
    ("member.stratum", lambda: roster.RosterMember(bytes(32), "x" * 65)),
    ("deadlines.share_s", lambda: entries.Deadlines(1, 0, 1, 1, 1)),
    ("session-abort.answers", lambda: entries.SessionAbort(bytes(16), "", entries.MAX_COHORT + 1, bytes(32))),
]


@pytest.mark.parametrize(("field", "construct"), CONSTRUCTIONS)
def test_what_is_out_of_range_cannot_be_constructed_and_names_its_field(field, construct):
    with pytest.raises(RecordError) as caught:
        construct()
    assert caught.value.field == field


CONFIRM = statements.ConfirmStatement(*[bytes(32)] * 3)
SIGNED = statements.Signed(CONFIRM, bytes(64))
SHARE = statements.RootShare(0, bytes(36))


class Pretender(statements.ConfirmStatement):
    """Of the right kind by inheritance only."""


@pytest.mark.parametrize(
    ("field", "construct"),
    [
        ("signed.statement", lambda: statements.Signed(CONFIRM.to_value(), bytes(64))),
        ("signed.statement", lambda: statements.Signed(CONFIRM.to_bytes(), bytes(64))),
        ("signed.statement", lambda: statements.Signed(None, bytes(64))),
        ("signed.statement", lambda: statements.Signed(statements.ConfirmStatement, bytes(64))),
        ("signed.statement", lambda: statements.Signed(SIGNED, bytes(64))),
        ("signed.statement", lambda: statements.Signed(Pretender(*[bytes(32)] * 3), bytes(64))),
        ("signed.signature", lambda: statements.Signed(CONFIRM, bytearray(64))),
        ("signed.signature", lambda: statements.Signed(CONFIRM, "00" * 64)),
        ("accepted.contribution", lambda: statements.Accepted(0, CONFIRM)),
        ("accepted.contribution", lambda: statements.Accepted(0, SIGNED.to_value())),
        ("unmask.shares", lambda: statements.UnmaskStatement(*[bytes(32)] * 3, [statements.RootShare(0, bytes(36))])),
        ("unmask.shares[0]", lambda: statements.UnmaskStatement(*[bytes(32)] * 3, (statements.Absent(0),))),
        ("unmask.shares[1]", lambda: statements.UnmaskStatement(*[bytes(32)] * 3, (SHARE, SHARE.to_value()))),
        ("contribution.missing", lambda: statements.ContributionHeader(*[bytes(32)] * 5, 1, [1])),
        ("contribution.missing[0]", lambda: statements.ContributionHeader(*[bytes(32)] * 5, 1, (True,))),
        ("contribution.missing[1]", lambda: statements.ContributionHeader(*[bytes(32)] * 5, 1, (0, (1,)))),
    ],
)
def test_a_record_within_a_record_is_of_its_very_type_though_it_is_not_checked_again(field, construct):
    with pytest.raises(RecordError) as caught:
        construct()
    assert caught.value.field == field


def test_the_bytes_of_a_record_are_kept_and_belong_to_it_alone(examples):
    for kind, example in examples.items():
        data = example.to_bytes()
        read = kind.from_bytes(bytearray(data))
        assert read.to_bytes() == data
        assert type(read.to_bytes()) is bytes
        assert read.to_bytes() is read.to_bytes()
    other = dataclasses.replace(CONFIRM, close=bytes([1] * 32))
    assert other.to_bytes() == canonical.encode(other.to_value()) != CONFIRM.to_bytes()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"clip_norm": Fraction(0)}, "encoding.clip_norm"),
        ({"clip_norm": Fraction(-1)}, "encoding.clip_norm"),
        ({"clip_norm": Fraction(10**40, 3)}, "encoding.clip_norm"),
        ({"value_bits": 1}, "encoding.value_bits"),
        ({"value_bits": 33}, "encoding.value_bits"),
        ({"usable_bits": 65}, "encoding.usable_bits"),
        ({"dimension": 0}, "encoding.dimension"),
        ({"dimension": 2**31 + 1}, "encoding.dimension"),
        ({"max_contributors": 2**28 + 1}, "encoding.max_contributors"),
        # 24 bits and 2^20 contributors need 44 bits of a lane.
        ({"value_bits": 24, "max_contributors": 2**20, "usable_bits": 43}, "encoding"),
        ({"flatten": entries.Deadlines(1, 1, 1, 1, 1)}, "encoding.flatten"),
    ],
    ids=repr,
)
def test_an_encoding_that_could_overflow_or_has_no_scale_cannot_be_constructed(changes, field):
    sound = Encoding(10, 8, 100, 64, Fraction(1), NoFlattening())
    with pytest.raises(RecordError) as caught:
        dataclasses.replace(sound, **changes)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"min_contributors": 3, "max_corrupt": 2}, "session-open.min_contributors"),
        ({"min_contributors": 101}, "session-open.min_contributors"),
        ({"min_contributors": 10, "roster_size": 9}, "session-open.min_contributors"),
        ({"min_contributors": 1, "max_corrupt": 0}, "session-open.min_contributors"),
        ({"expected_dropout": Fraction(1)}, "session-open.expected_dropout"),
        ({"expected_dropout": Fraction(-1, 2)}, "session-open.expected_dropout"),
        ({"protocol": "one-shot"}, "session-open.protocol"),
        ({"protocol": "three-shot"}, "session-open.protocol"),
        (
            {"encoding": Encoding(10, 8, 2**20 + 1, 64, Fraction(1), NoFlattening())},
            "session-open.encoding.max_contributors",
        ),
        ({"merge": "deltas"}, "session-open.merge"),
        ({"base_model": "x" * 1025}, "session-open.base_model"),
        ({"opened_at_s": -1}, "session-open.opened_at_s"),
        ({"roster_size": 2**40 + 1}, "session-open.roster_size"),
    ],
    ids=repr,
)
def test_a_session_that_could_not_be_safe_cannot_be_constructed(changes, field, examples):
    sound = dataclasses.replace(
        examples[entries.PairwiseOpen],
        encoding=Encoding(10, 8, 100, 64, Fraction(1), NoFlattening()),
        min_contributors=10,
        max_corrupt=3,
        roster_size=50,
    )
    with pytest.raises(RecordError) as caught:
        dataclasses.replace(sound, **changes)
    assert caught.value.field == field


def committee_of(members: int, needed: int, corrupt: int) -> openers.Committee:
    made = [openers.CommitteeMember(f"{at}", bytes([at]) * 32, bytes([at]) * 1216, bytes(64)) for at in range(members)]
    return openers.Committee(tuple(made), needed, corrupt)


@pytest.mark.parametrize("numbers", [(7, 5, 2), (4, 3, 1), (10, 7, 3), (3, 2, 0), (2, 2, 0), (16, 16, 15)])
def test_a_committee_of_which_no_two_sets_find_enough_answers_can_be_written_down(numbers):
    assert committee_of(*numbers).needed == numbers[1]


@pytest.mark.parametrize("numbers", [(7, 4, 1), (7, 5, 3), (4, 2, 0), (3, 4, 0), (6, 4, 2), (2, 2, 2)])
def test_a_committee_that_could_open_two_sets_or_none_cannot_be_written_down(numbers):
    with pytest.raises(RecordError) as caught:
        committee_of(*numbers)
    assert caught.value.field == "committee.needed"


@pytest.mark.parametrize("field", ["name", "identity", "sealing_key"])
def test_no_two_members_share_what_tells_them_apart(field):
    members = list(committee_of(3, 2, 0).members)
    members[2] = dataclasses.replace(members[2], **{field: getattr(members[0], field)})
    with pytest.raises(RecordError) as caught:
        openers.Committee(tuple(members), 2, 0)
    assert caught.value.field == f"committee.members.{field}"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"protocol": "pairwise"}, "session-open.protocol"),
        ({"min_contributors": 3, "max_corrupt": 2}, "session-open.min_contributors"),
        ({"deadlines": entries.Deadlines(1, 1, 1, 1, 1)}, "one-shot.deadlines"),
        (
            {"encoding": Encoding(10, 8, 1024, 53, Fraction(1), NoFlattening())},
            "session-open.encoding.usable_bits",
        ),
        (
            {
                "encoding": Encoding(10, 8, 2**18, 40, Fraction(1), NoFlattening()),
                "opening": openers.KeyAuthority("a", bytes(32), bytes(32), bytes(64), (bytes(32),), 1),
            },
            "session-open.encoding.max_contributors",
        ),
    ],
    ids=repr,
)
def test_a_one_shot_session_that_could_not_be_safe_or_opened_cannot_be_constructed(changes, field, examples):
    sound = dataclasses.replace(
        examples[entries.OneShotOpen],
        encoding=Encoding(10, 8, 1024, 52, Fraction(1), NoFlattening()),
        opening=committee_of(7, 5, 2),
        min_contributors=10,
        max_corrupt=3,
        roster_size=50,
    )
    with pytest.raises(RecordError) as caught:
        dataclasses.replace(sound, **changes)
    assert caught.value.field == field.replace("one-shot.", "session-open.")


def test_parameters_belong_to_the_protocol_that_they_name(examples):
    pairwise, one_shot = examples[entries.PairwiseOpen], examples[entries.OneShotOpen]
    assert type(entries.SessionOpen.from_bytes(pairwise.to_bytes())) is entries.PairwiseOpen
    assert type(entries.SessionOpen.from_bytes(one_shot.to_bytes())) is entries.OneShotOpen
    assert entries.decode_entry(one_shot.to_bytes()) == one_shot
    for kind, data in ((entries.OneShotOpen, pairwise.to_bytes()), (entries.PairwiseOpen, one_shot.to_bytes())):
        with pytest.raises(RecordError) as caught:
            kind.from_bytes(data)
        assert caught.value.field == "session-open.protocol"
    value = one_shot.to_value() | {"protocol": "pairwise"}
    with pytest.raises(RecordError):
        entries.SessionOpen.from_bytes(canonical.encode(value))


@given(session_opens())
def test_a_session_always_hides_a_contribution_among_two_that_nobody_corrupt_knows(opened):
    assert opened.min_contributors - opened.max_corrupt >= 2
    assert opened.encoding.field_layout().lanes >= 1


def test_both_kinds_of_share_for_one_index_cannot_be_written_down():
    shares = (statements.SelfMaskShare(3, bytes(36)), statements.RootShare(3, bytes(36)))
    for pair in (shares, shares[::-1], shares[:1] * 2):
        with pytest.raises(RecordError) as caught:
            statements.UnmaskStatement(bytes(32), bytes(32), bytes(32), pair)
        assert caught.value.field == "unmask.shares"
    value = statements.UnmaskStatement(bytes(32), bytes(32), bytes(32), shares[:1]).to_value()
    value["shares"] = [share.to_value() for share in shares]
    with pytest.raises(RecordError) as caught:
        statements.UnmaskStatement.from_bytes(canonical.encode(value))
    assert caught.value.field == "unmask.shares"


@pytest.mark.parametrize(
    "text",
    ["1", "1/0", "2/4", "0/2", "-1/2", "01/2", "1/02", "1/2\n", " 1/2", "1/2/3", "\u0661/2", "1" * 41 + "/2", ".5", ""],
)
def test_a_fraction_has_one_form(text, examples):
    value = {**examples[entries.PairwiseOpen].to_value(), "expected_dropout": text}
    with pytest.raises(RecordError) as caught:
        entries.PairwiseOpen.from_value(value)
    assert caught.value.field == "session-open.expected_dropout"


@pytest.mark.parametrize(
    "text", ["00" * 31, "00" * 33, "AA" * 32, "0x" + "00" * 31, "00 " * 21 + "0", " " * 64, "zz" * 32, "\u0660" * 64]
)
def test_bytes_have_one_form(text, examples):
    value = {**examples[statements.Receipt].to_value(), "session": text}
    with pytest.raises(RecordError) as caught:
        statements.Receipt.from_value(value)
    assert caught.value.field == "receipt.session"


def test_an_entry_of_another_kind_is_refused(examples):
    for kind in CLASSES:
        data = examples[kind].to_bytes()
        if isinstance(examples[kind], entries.LogEntry):
            assert entries.decode_entry(data) == examples[kind]
        else:
            with pytest.raises(RecordError, match=r"entry\.type"):
                entries.decode_entry(data)


def test_a_nested_error_names_the_whole_way():
    value = statements.UnmaskStatement(
        bytes(32), bytes(32), bytes(32), tuple(statements.RootShare(i, bytes(36)) for i in range(3))
    ).to_value()
    value["shares"][2]["share"] = "00"
    with pytest.raises(RecordError) as caught:
        statements.Signed.from_value({"type": "signed", "version": VERSION, "statement": value, "signature": "00" * 64})
    assert caught.value.field == "signed.statement.shares[2].share"


def test_a_roster_is_in_order_without_repetition():
    first, second = roster.RosterMember(bytes(32), ""), roster.RosterMember(bytes([1] * 32), "north")
    members = roster.Roster.of([second, first])
    assert members.members == (first, second)
    assert roster.Roster.from_leaves(members.leaves()) == members
    assert members.identities() == (bytes(32), bytes([1] * 32))
    assert members.head(bytes(32)) == roster.RosterHead(bytes(32), 2, merkle.root(members.leaves()))
    for wrong in ((), (second, first), (first, first), (first, roster.RosterMember(bytes(32), "south"))):
        with pytest.raises(RecordError) as caught:
            roster.Roster(wrong)
        assert caught.value.field == "roster"


def test_a_record_cannot_be_changed(examples):
    for record in examples.values():
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError, AttributeError)):
            record.TYPE = "other"
        for name in field_names(type(record)):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(record, name, None)
