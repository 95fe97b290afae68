"""What a second session must have in common with the first, field by field."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.second import FirstSession, attempt_of, check_follows
from secagg.transcript.entries import PairwiseOpen
from secagg.transcript.merge import (
    MAX_ATTEMPTS,
    BasisMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    contributors_digest,
    second_session,
)
from tests.support.cohort import key_of, session_of

KEYS = [key_of(f"client {number}") for number in range(5)]
EVERYBODY = frozenset(key.public_bytes for key in KEYS)
PLAIN = session_of(KEYS).parameters
BASIS = b"b" * 32
SEED = b"s" * 32
BOUND = Fraction(3, 2)


def opened(merge: object, **changes: object) -> PairwiseOpen:
    return dataclasses.replace(PLAIN, merge=merge, **changes)


RANGE = FirstSession(opened(RangeMerge(BOUND, SEED, 8)), EVERYBODY, BASIS)
PILOT = FirstSession(opened(PilotMerge(BOUND, SEED, 8, 2, Fraction(1, 5))), EVERYBODY, BASIS)
SECOND = second_session(PLAIN.session, 0)
PROJECTION = opened(
    ProjectionMerge(BOUND, SEED, 8, 4, PLAIN.session, BASIS, contributors_digest(EVERYBODY)),
    session=SECOND,
    min_contributors=5,
)
BASED = opened(BasisMerge(BOUND, SEED, 8, 2, 4, Fraction(1, 5), PLAIN.session, BASIS), session=SECOND)


def refusal(parameters: PairwiseOpen, first: FirstSession) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        check_follows(parameters, first)
    return caught.value


def test_an_honest_second_session_follows_whatever_the_attempt() -> None:
    check_follows(PROJECTION, RANGE)
    check_follows(BASED, PILOT)
    for attempt in (1, 7, MAX_ATTEMPTS - 1):
        session = second_session(PLAIN.session, attempt)
        check_follows(dataclasses.replace(PROJECTION, session=session), RANGE)
        assert attempt_of(session, PLAIN.session) == attempt


# Of each its own: what it says otherwise than the first session.
COMMON = {
    "session": second_session(PLAIN.session, MAX_ATTEMPTS),
    "coordinator": b"c" * 32,
    "log": "another.example/log",
    "registrar": b"r" * 32,
    "roster": b"r" * 32,
    "base_model": "another",
    "base_model_digest": b"m" * 32,
}
OF_MERGES = {"seed": b"t" * 32, "columns": 9, "update_norm": Fraction(2), "first": b"F" * 16, "fixed": b"f" * 32}


@pytest.mark.parametrize("name", COMMON)
@pytest.mark.parametrize(("second", "first"), [(PROJECTION, RANGE), (BASED, PILOT)], ids=["two-session", "pilot-basis"])
def test_what_all_sessions_say_is_the_same(name: str, second: PairwiseOpen, first: FirstSession) -> None:
    error = refusal(dataclasses.replace(second, **{name: COMMON[name]}), first)
    assert error.reason is RejectReason.MALFORMED_MESSAGE
    assert error.detail.startswith(f"{name}: ")


@pytest.mark.parametrize("name", OF_MERGES)
@pytest.mark.parametrize(("second", "first"), [(PROJECTION, RANGE), (BASED, PILOT)], ids=["two-session", "pilot-basis"])
def test_what_both_merges_say_is_the_same(name: str, second: PairwiseOpen, first: FirstSession) -> None:
    merge = dataclasses.replace(second.merge, **{name: OF_MERGES[name]})
    error = refusal(dataclasses.replace(second, merge=merge), first)
    assert error.reason is RejectReason.MALFORMED_MESSAGE
    assert error.detail.startswith(f"merge.{name}: ")


@pytest.mark.parametrize(("name", "value"), [("sides", 1), ("share", Fraction(1, 6))])
def test_pilots_are_drawn_alike_in_both(name: str, value: object) -> None:
    merge = dataclasses.replace(BASED.merge, **{name: value})
    assert refusal(dataclasses.replace(BASED, merge=merge), PILOT).detail.startswith(f"merge.{name}: ")


def test_the_contributors_are_those_of_the_first_sum() -> None:
    fewer = dataclasses.replace(RANGE, contributors=EVERYBODY - {KEYS[0].public_bytes})
    assert refusal(PROJECTION, fewer).reason is RejectReason.OTHER_CONTRIBUTORS
    assert refusal(dataclasses.replace(PROJECTION, min_contributors=4), RANGE).detail.startswith("min_contributors: ")


def test_nothing_follows_a_session_without_a_basis_or_of_another_kind() -> None:
    assert refusal(PROJECTION, dataclasses.replace(RANGE, basis=None)).detail.startswith("merge.fixed: ")
    assert refusal(PROJECTION, PILOT).detail.startswith("merge.first: ")
    assert refusal(BASED, RANGE).detail.startswith("merge.first: ")
    assert refusal(RANGE.parameters, RANGE).detail.startswith("merge: ")
