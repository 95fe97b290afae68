"""Checks that are made once for all clients of a session in a process: nothing is believed that was not checked."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from secagg.protocol import session as session_module
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.published import check_signature
from secagg.transcript.statements import ConfirmStatement, RootShare, SelfMaskShare, Signed
from tests.support.cohort import key_of, session_of

KEYS = [key_of(f"client {number}") for number in range(4)]
ME, OTHER = KEYS[0].public_bytes, KEYS[1].public_bytes


@pytest.fixture
def session() -> PairwiseSession:
    return session_of(KEYS)


def confirmation(session: PairwiseSession, close: bytes) -> Signed:
    statement = ConfirmStatement(session.digest, close, ME)
    return Signed(statement, KEYS[0].sign_statement(statement.to_bytes()))


def test_a_check_is_made_once_for_the_same_and_again_for_anything_else(session: PairwiseSession) -> None:
    seen: list[tuple[object, ...]] = []

    def check(*arguments: object) -> int:
        seen.append(arguments)
        return len(seen)

    def other_check(*arguments: object) -> int:
        return -check(*arguments)

    # Of two kinds of shares all fields are the same.
    shares = SelfMaskShare(1, bytes(36)), RootShare(1, bytes(36))
    asked = [(ME, shares[0]), (ME, shares[1]), (OTHER, shares[0]), (shares[0], ME), (ME,), ()]
    for _ in range(2):
        assert [session.once(check, *each) for each in asked] == [1, 2, 3, 4, 5, 6]
    assert session.once(other_check, ME) == -7
    assert session_of(KEYS).once(check, ME) == 8, "another session remembers nothing"


def test_a_signature_that_was_checked_vouches_for_no_other_statement_signature_or_signer(
    session: PairwiseSession,
) -> None:
    good, other = confirmation(session, bytes(32)), confirmation(session, bytes([1] * 32))
    session.once(check_signature, good, ME)
    session.once(check_signature, Signed.from_bytes(good.to_bytes()), ME)
    for forged, signer in (
        (Signed(other.statement, good.signature), ME),
        (Signed(good.statement, other.signature), ME),
        (good, OTHER),
    ):
        for _ in range(2):
            with pytest.raises(RemoteProtocolError) as caught:
                session.once(check_signature, forged, signer)
            assert caught.value.reason is RejectReason.BAD_SIGNATURE


def test_what_is_remembered_is_bounded(session: PairwiseSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_MOST_REMEMBERED", 3)
    for number in range(10):
        assert session.once(abs, -number) == number
        assert len(session._remembered) <= 3


def test_threads_that_check_at_once_all_get_their_answer(
    session: PairwiseSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_MOST_REMEMBERED", 1)

    shares = [SelfMaskShare(number, bytes(36)) for number in range(3)]

    def ask(first: int) -> bool:
        asked = (shares[(first + number) % 3] for number in range(5000))
        return all(session.once(SelfMaskShare.to_bytes, share) == share.to_bytes() for share in asked)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(4)))
    finally:
        sys.setswitchinterval(before)
