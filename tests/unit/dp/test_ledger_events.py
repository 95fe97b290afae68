"""Events of a ledger: their bytes are fixed, read strictly, and chained."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp.errors import ParameterError
from dp.ledger_errors import LedgerCorruptError
from dp.ledger_events import (
    GENESIS,
    Cancelled,
    Created,
    Event,
    Head,
    Participants,
    Reserved,
    Restored,
    Settled,
    decode_event,
    decode_head,
    encode_event,
    encode_head,
    event_digest,
    reservation_digest,
)
from dp.mechanisms import DistributedSkellam, Gaussian, Mechanism, NoNoise
from dp.sensitivity import Sensitivity

MECHANISM = DistributedSkellam(Fraction(3, 2), 60, 10, Sensitivity(100, 10, 16), Fraction(1, 1 << 64))
ALICE, BOB, CAROL = (bytes([number]) * 32 for number in (1, 2, 3))
GAUSSIAN = Gaussian(Fraction(5))
EVENTS: list[Event] = [
    Created("p", Fraction(8), Fraction(1, 100000)),
    Reserved("p", b"\x01\xff", MECHANISM),
    Settled("p", b"\x01\xff", GAUSSIAN, Participants.of([BOB, ALICE])),
    Settled("p", b"\x01\xff", MECHANISM, None),
    Cancelled("Universität", b"\x02", 'nobody came: "timeout"'),
    Restored(Head(3, ALICE), None),
    Restored(Head(3, ALICE), Head(9, BOB)),
]

mechanisms = st.one_of(
    st.builds(Gaussian, st.fractions(Fraction(1, 100), 100, max_denominator=1000)),
    st.just(NoNoise()),
    st.builds(
        lambda survivors: DistributedSkellam(Fraction(7), survivors, 0, Sensitivity(100, 10, 16)), st.integers(1, 99)
    ),
)
names = st.text(min_size=1, max_size=8).filter(str.isprintable)
sessions = st.binary(min_size=1, max_size=4)
reserved = st.tuples(st.integers(1, 300), names, sessions, mechanisms)


def identities(event: Event) -> bytes | None:
    return event.participants.identities if isinstance(event, Settled) and event.participants else None


def test_an_event_has_these_bytes_and_this_digest_in_every_release() -> None:
    data = encode_event(2, Reserved("Universität", b"\x01\xff", MECHANISM))
    assert data == (
        b'{"event":"reserve","mechanism":{"corrupt":10,"dimension":16,"distance":"1/18446744073709551616",'
        b'"l1":10,"local_variance":"3/2","mechanism":"distributed-skellam","squared_l2":100,"survivors":60},'
        b'"population":"Universit\\u00e4t","sequence":2,"session":"01ff"}'
    )
    assert hashlib.sha256(b"dp/ledger/genesis/v1").digest() == GENESIS
    expected = hashlib.sha256(b"dp/ledger/event/v1\x00" + ALICE + data).digest()
    assert event_digest(ALICE, data) == expected
    assert reservation_digest(ALICE, 2, "Universität", b"\x01\xff", MECHANISM) == expected


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_decoding_gives_back_the_event(event: Event) -> None:
    data = encode_event(7, event)
    assert decode_event(7, data, identities(event)) == event
    assert data.isascii()
    assert b" " not in data.replace(b'nobody came: \\"timeout\\"', b"")


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_no_other_bytes_are_read_as_an_event(event: Event) -> None:
    data = encode_event(7, event)
    members = json.loads(data)
    others = [
        json.dumps(members, sort_keys=True).encode(),
        json.dumps(dict(reversed(members.items())), separators=(",", ":")).encode(),
        json.dumps({**members, "more": 1}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps({**members, "sequence": 7.0}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps({**members, "event": "forgive"}, sort_keys=True, separators=(",", ":")).encode(),
        *(
            json.dumps({k: v for k, v in members.items() if k != name}, sort_keys=True, separators=(",", ":")).encode()
            for name in members
        ),
        data + b"\n",
        data[:-1],
        data.replace(b":7", b":NaN"),
        b"[]",
        b"\xff",
        b"",
    ]
    for other in others:
        with pytest.raises(LedgerCorruptError):
            decode_event(7, other, identities(event))
    with pytest.raises(LedgerCorruptError):
        decode_event(8, data, identities(event))


def test_participants_stand_beside_their_own_event_only() -> None:
    settled = Settled("p", b"s", GAUSSIAN, Participants.of([ALICE, BOB]))
    for beside in (None, ALICE, ALICE + CAROL, BOB + ALICE, ALICE + BOB[:-1], b""):
        with pytest.raises(LedgerCorruptError):
            decode_event(3, encode_event(3, settled), beside)
    with pytest.raises(LedgerCorruptError):
        decode_event(3, encode_event(3, Settled("p", b"s", GAUSSIAN, None)), ALICE)
    with pytest.raises(LedgerCorruptError):
        decode_event(3, encode_event(3, Reserved("p", b"s", GAUSSIAN)), ALICE)


def test_the_event_commits_to_every_participant() -> None:
    members = [ALICE, BOB, CAROL]
    expected = hashlib.sha256(b"dp/ledger/participants/v1\x00" + ALICE + BOB + CAROL).digest()
    assert Participants.of(members).digest == expected
    data = encode_event(3, Settled("p", b"s", GAUSSIAN, Participants.of(members)))
    assert expected.hex().encode() in data
    stranger = b"\x00" * 32, b"\xff" * 32
    for place in range(3):
        for other in stranger:
            exchanged = Participants.of([*members[:place], *members[place + 1 :], other])
            with pytest.raises(LedgerCorruptError):
                decode_event(3, data, exchanged.identities)


@given(reserved, reserved, st.binary(min_size=32, max_size=32), st.sampled_from([None, 0, 1, 2, 3]))
def test_two_different_reservations_never_have_one_digest(
    one: tuple[int, str, bytes, Mechanism],
    other: tuple[int, str, bytes, Mechanism],
    previous: bytes,
    replaced: int | None,
) -> None:
    # Half of the pairs would differ everywhere; these differ in one member, or in none.
    if replaced is not None:
        changed = list(one)
        changed[replaced] = other[replaced]
        other = tuple(changed)  # type: ignore[assignment]
    assert (reservation_digest(previous, *one) == reservation_digest(previous, *other)) == (one == other)
    assert reservation_digest(hashlib.sha256(previous).digest(), *one) != reservation_digest(previous, *one)


@given(
    st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40, unique=True),
    st.binary(min_size=32, max_size=32),
)
def test_participants_are_a_set(members: list[bytes], stranger: bytes) -> None:
    participants = Participants.of(reversed(members))
    assert participants == Participants.of(members)
    assert participants.count == len(members)
    assert all(member in participants for member in members)
    assert (stranger in participants) == (stranger in members)
    # A name that only appears across the border of two is not there.
    shifted = participants.identities[16:48]
    assert len(shifted) < 32 or (shifted in participants) == (shifted in members)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("population", lambda: Created("", Fraction(1), Fraction(1, 2))),
        ("population", lambda: Reserved("p" * 129, b"s", GAUSSIAN)),
        ("population", lambda: Reserved("p\n", b"s", GAUSSIAN)),
        ("population", lambda: Reserved("\ud800", b"s", GAUSSIAN)),
        ("population", lambda: Reserved(b"p", b"s", GAUSSIAN)),
        ("epsilon", lambda: Created("p", 8.0, Fraction(1, 2))),
        ("epsilon", lambda: Created("p", float("nan"), Fraction(1, 2))),
        ("epsilon", lambda: Created("p", Fraction(-1), Fraction(1, 2))),
        ("epsilon", lambda: Created("p", Fraction(0), Fraction(1, 2))),
        ("epsilon", lambda: Created("p", Fraction(1 << 300), Fraction(1, 2))),
        ("delta", lambda: Created("p", Fraction(1), 1e-5)),
        ("delta", lambda: Created("p", Fraction(1), Fraction(1))),
        ("delta", lambda: Created("p", Fraction(1), Fraction(0))),
        ("session", lambda: Reserved("p", b"", GAUSSIAN)),
        ("session", lambda: Reserved("p", bytes(65), GAUSSIAN)),
        ("session", lambda: Reserved("p", "s", GAUSSIAN)),
        ("session", lambda: Reserved("p", bytearray(b"s"), GAUSSIAN)),
        ("mechanism", lambda: Reserved("p", b"s", None)),
        ("mechanism", lambda: Settled("p", b"s", {"mechanism": "no-noise"}, None)),
        ("participants", lambda: Participants.of([])),
        ("participants", lambda: Participants.of([ALICE, BOB, ALICE])),
        ("participants", lambda: Participants.of([ALICE, b"short"])),
        ("participants", lambda: Settled("p", b"s", MECHANISM, Participants.of([ALICE, BOB]))),
        ("evidence", lambda: Cancelled("p", b"s", "")),
        ("evidence", lambda: Cancelled("p", b"s", "x" * 1025)),
        ("sequence", lambda: Head(-1, ALICE)),
        ("sequence", lambda: Head(True, ALICE)),
        ("digest", lambda: Head(1, b"short")),
        ("sequence", lambda: encode_event(0, Reserved("p", b"s", GAUSSIAN))),
        ("previous", lambda: reservation_digest(b"", 1, "p", b"s", GAUSSIAN)),
    ],
)
def test_what_no_ledger_holds_cannot_be_said(field: str, make: object) -> None:
    with pytest.raises(ParameterError) as refused:
        make()  # type: ignore[operator]
    assert refused.value.field == field


def test_a_head_is_read_back_and_nothing_else_is() -> None:
    head = Head(5, ALICE)
    data = encode_head(head)
    assert decode_head(data) == head
    for other in (data + b" ", data[:-1], b"{}", b"[]", b"5", b"\xff", b"", data.replace(b"5", b"5.0"), data.upper()):
        with pytest.raises(LedgerCorruptError):
            decode_head(other)
