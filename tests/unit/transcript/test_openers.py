"""Who opens a one-shot session: only what is safe can be written down."""

from __future__ import annotations

import itertools

import pytest

from secagg.transcript.openers import (
    MAX_MEMBERS,
    Committee,
    CommitteeMember,
    KeyAuthority,
    NamedMembers,
)
from secagg.transcript.record import RecordError


def member(place: int, **changes: object) -> CommitteeMember:
    named = {
        "name": f"m{place}",
        "identity": bytes([place]) * 32,
        "sealing_key": bytes([place]) * 1216,
        "binding": bytes(64),
    }
    return CommitteeMember(**{**named, **changes})


def is_constructible(members: int, needed: int, max_corrupt: int) -> bool:
    try:
        Committee(tuple(map(member, range(members))), needed, max_corrupt)
    except RecordError as error:
        return error.field != "committee.needed"
    return True


def could_open_two_sets(members: int, needed: int, max_corrupt: int) -> bool:
    """Honest members answer one set or the other, or none; corrupt ones, the first, answer both."""
    honest = members - min(members, max_corrupt)
    for answers in itertools.product((0, 1), repeat=honest):
        first, second = answers.count(0), answers.count(1)
        if members - honest + min(first, second) >= needed:
            return True
    return False


@pytest.mark.parametrize("members", range(2, 9))
def test_a_committee_exists_exactly_where_no_two_sets_can_be_opened(members):
    for needed in range(2, members + 1):
        for max_corrupt in range(members + 1):
            safe = not could_open_two_sets(members, needed, max_corrupt)
            assert is_constructible(members, needed, max_corrupt) == safe


def test_corrupt_members_alone_open_nothing():
    for members in range(2, MAX_MEMBERS + 1):
        for needed in range(2, members + 1):
            for max_corrupt in range(needed, MAX_MEMBERS + 1):
                assert not is_constructible(members, needed, max_corrupt)


def test_no_more_are_needed_than_there_are_members():
    assert not is_constructible(3, 4, 0)
    assert is_constructible(4, 4, 0)


@pytest.mark.parametrize("field", ["name", "identity", "sealing_key"])
def test_no_two_members_share_a_name_or_a_key(field):
    others = tuple(map(member, range(3)))
    twin = member(9, **{field: getattr(others[0], field)})
    with pytest.raises(RecordError) as caught:
        Committee((*others, twin), 3, 1)
    assert caught.value.field == f"committee.members.{field}"


@pytest.mark.parametrize(("attestors", "attestations"), [((b"a" * 32, b"a" * 32), 1), ((b"a" * 32,), 2), ((), 1)])
def test_an_authority_has_enough_attestors_each_once(attestors, attestations):
    KeyAuthority("a", bytes(32), bytes(32), bytes(64), (b"a" * 32, b"b" * 32), 2)
    with pytest.raises(RecordError):
        KeyAuthority("a", bytes(32), bytes(32), bytes(64), attestors, attestations)


@pytest.mark.parametrize("places", [(1, 0), (1, 1)])
def test_named_members_have_one_form(places):
    assert NamedMembers((0, 1)).members == (0, 1)
    with pytest.raises(RecordError):
        NamedMembers(places)
