"""Attacks on the log fail while few enough witnesses lie, and succeed once the rule that stops them is gone."""

from __future__ import annotations

import functools

import pytest

from secagg.runtime import log_trust
from secagg.runtime.witness import Witness
from secagg.transcript.policy import LogPolicy
from simulations.attacks import log
from simulations.attacks.attack import AttackResult
from simulations.world.loop import run_virtually
from tests.simulations.broken_rules import members_forget

SEED = 7
ATTACKS = {attack.name: attack for attack in log.ATTACKS}


@functools.cache
def played(name: str) -> AttackResult:
    """An attack on everything as it is; played once for all tests."""
    return ATTACKS[name].run(SEED)


SUCCEEDING = {"log-split-view-beyond-quorum", "log-split-view-unwitnessed"}


class TestTwoHistories:
    @pytest.mark.parametrize("name", sorted(ATTACKS.keys() - SUCCEEDING))
    def test_an_attack_within_what_is_assumed_fails(self, name: str) -> None:
        result = played(name)
        assert not result.succeeded
        assert result.learned == ()

    @pytest.mark.parametrize("name", sorted(SUCCEEDING))
    def test_an_attack_beyond_it_succeeds_and_its_text_says_so(self, name: str) -> None:
        assert played(name).succeeded
        assert ATTACKS[name].why.startswith("It succeeds: ")

    @pytest.mark.parametrize("witnesses", [4, 7])
    def test_it_takes_two_k_minus_n_witnesses_that_lie(self, witnesses: int) -> None:
        quorum = log.pairwise_plan(SEED, witnesses).quorum
        least = 2 * quorum - witnesses
        assert not run_virtually(log.split_view(SEED, witnesses, least - 1)).succeeded
        assert run_virtually(log.split_view(SEED, witnesses, least)).succeeded

    def test_clients_that_count_no_cosignatures_believe_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LogPolicy, "is_met_by", lambda *_: True)
        assert ATTACKS["log-split-view"].run(SEED).succeeded

    def test_witnesses_that_remember_nothing_cosign_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        everybody = list(range(log.WITNESSES))
        monkeypatch.setattr(log, "sides", lambda *_: (everybody, everybody))
        assert not run_virtually(log.split_view(SEED, log.WITNESSES, 0)).succeeded
        monkeypatch.setattr(Witness, "_last", lambda *_: None)
        assert run_virtually(log.split_view(SEED, log.WITNESSES, 0)).succeeded

    def test_who_signed_both_histories_is_named(self) -> None:
        (learned,) = played("log-split-view-beyond-quorum").learned
        assert "witness-0 and witness-1 signed both" in learned

    def test_members_answer_two_closes_once_too_many_witnesses_lie_and_still_no_two_sets_open(self) -> None:
        result = run_virtually(log.split_members(SEED, 2))
        assert result.succeeded
        assert result.learned == ("two closes of one session were answered, by different members",)

    def test_members_that_count_no_cosignatures_answer_two_closes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LogPolicy, "is_met_by", lambda *_: True)
        assert ATTACKS["log-split-committee"].run(SEED).succeeded


class TestAHistoryThatGoesBack:
    def test_honest_witnesses_say_that_they_know_a_longer_log(self) -> None:
        result = played("log-goes-back")
        assert result.refusals == (
            "witness-0 to witness-3 refused to cosign a log that it knows to be longer: OTHER_SIZE",
        )

    def test_where_all_witnesses_lie_members_remember_and_where_they_do_not_the_victim_is_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not run_virtually(log.goes_back(SEED, log.WITNESSES)).succeeded
        members_forget(monkeypatch)
        result = run_virtually(log.goes_back(SEED, log.WITNESSES))
        assert result.succeeded
        assert "client 0 alone, exactly" in result.learned[0]

    def test_a_client_that_does_not_compare_with_what_it_saw_takes_an_old_log(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_trust, "check_pinned", lambda *_: None)
        assert ATTACKS["log-old-checkpoint"].run(SEED).succeeded
