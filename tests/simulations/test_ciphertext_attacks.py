"""Attacks on a key authority fail against the real one, and succeed once the rule that stops them is gone."""

from __future__ import annotations

import importlib.util

import pytest

from secagg.he.bfv import DecryptionKey
from secagg.he.errors import HeUnavailableError
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import authority
from secagg.protocol.one_shot.authority_states import ClosedSum, SumCertified, SumNotCertified
from secagg.runtime import key_authority
from secagg.runtime.key_authority import KeyAuthorityHost
from secagg.transcript.statements import AuthorityAnswer, Signed
from simulations.attacks import ciphertexts
from simulations.attacks.ciphertext_stage import AuthorityStage, WitnessSide
from simulations.attacks.ciphertexts import Asked, Late
from simulations.attacks.notebook import Notebook
from simulations.world.loop import run_virtually
from tests.simulations.broken_rules import any_order

SEED = 7
ATTACKS = {attack.name: attack for attack in ciphertexts.ATTACKS}
needs_tenseal = pytest.mark.skipif(
    importlib.util.find_spec("tenseal") is None, reason="the key authority mode needs TenSEAL, which is not installed"
)


def isolates(how: Late, witness: WitnessSide = WitnessSide.HONEST) -> bool:
    async def play() -> bool:
        return await ciphertexts.isolating(await AuthorityStage.open(SEED, Notebook(), witness), how)

    return run_virtually(play())


def probes(first_asked: Asked) -> bool:
    async def play() -> bool:
        return await ciphertexts.probing(await AuthorityStage.open(SEED, Notebook(), WitnessSide.CORRUPT), first_asked)

    return run_virtually(play())


def answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that keeps its key and remembers neither what it answered nor the log."""

    async def decide(_host, driver, closed, asked, ciphertext_sum, lanes):
        session, prepared = asked.session, driver.state
        masked = key_authority.MaskedSum(session.ring_mask, session.public_key, lanes, asked.close.count)
        outcome = authority.certify(prepared.key, ciphertext_sum, masked, closed.close)
        if isinstance(outcome, SumNotCertified):
            raise RemoteProtocolError(RejectReason.WRONG_OPENING, outcome.reason)
        own = _host.own
        body = AuthorityAnswer(session.digest, closed.close, own.key.public_bytes, outcome.secret_sum)
        return Signed(body, own.key.sign_statement(body.to_bytes()))

    monkeypatch.setattr(KeyAuthorityHost, "_decide", decide)
    monkeypatch.setattr(KeyAuthorityHost, "_remember", lambda *_: None)


def answers_uncertified(monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that says whatever it decrypted."""

    def certify(key, ciphertext_sum, _masked, close):
        secret_sum = DecryptionKey.from_bytes(key).decrypt(ciphertext_sum)
        return SumCertified(close, secret_sum.astype("<i4").tobytes())

    monkeypatch.setattr(authority, "certify", certify)


@needs_tenseal
class TestIsolatingOneVictim:
    def test_it_fails_in_every_way_and_each_has_its_own_reason(self) -> None:
        result = ATTACKS["ciphertext-isolating"].run(SEED)
        assert not result.succeeded
        assert result.learned == ()
        assert [each.rpartition(": ")[2] for each in result.refusals] == [
            "NOT_COMMITTED",
            "LOG_ORDER",
            "BAD_PROOF",
            "LOG_UNWITNESSED",
        ]

    def test_an_authority_that_does_not_compare_the_set_with_the_commitments_opens_the_victim(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unchecked(asked, _committed, _contributions):
            return ClosedSum(asked.session.digest, asked.close_digest)

        monkeypatch.setattr(key_authority, "check_sets", unchecked)
        assert isolates(Late.UNCOMMITTED)
        assert ATTACKS["ciphertext-isolating"].run(SEED).learned == ("the vector of client 0 alone, exactly",)

    def test_where_a_second_list_of_one_log_counts_it_opens_the_victim(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not isolates(Late.SECOND_LIST)
        any_order(monkeypatch)
        assert isolates(Late.SECOND_LIST)

    def test_with_a_witness_that_signs_two_histories_it_opens_the_victim(self) -> None:
        assert not isolates(Late.FORK)
        assert isolates(Late.FORK, WitnessSide.CORRUPT)


@needs_tenseal
class TestAskingForTheKey:
    def test_it_fails_whatever_is_asked_first(self) -> None:
        result = ATTACKS["ciphertext-key-probe"].run(SEED)
        assert not result.succeeded
        assert any("WRONG_OPENING" in each for each in result.refusals)
        assert result.steps.count("The authority answers the sum without that ciphertext.") == 1

    def test_an_authority_that_answers_again_and_uncertified_loses_its_key(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers_again(monkeypatch)
        assert not probes(Asked.WITHOUT)
        answers_uncertified(monkeypatch)
        assert probes(Asked.WITHOUT)
        assert probes(Asked.WITH_PROBE)

    def test_an_authority_that_answers_once_and_uncertified_keeps_its_key(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers_uncertified(monkeypatch)
        assert not probes(Asked.WITHOUT)
        assert not probes(Asked.WITH_PROBE)


def test_without_tenseal_it_is_said_that_nothing_was_played(monkeypatch: pytest.MonkeyPatch) -> None:
    async def missing(*_: object) -> None:
        raise HeUnavailableError

    monkeypatch.setattr(AuthorityStage, "open", missing)
    result = ATTACKS["ciphertext-isolating"].run(SEED)
    assert result.ended == ciphertexts.NOT_PLAYED
    assert not result.succeeded
    assert "pip install" in result.steps[0]
