"""Attacks on what is published fail against the real verifier, and succeed once the check that stops them is gone."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from secagg.protocol.one_shot import client
from simulations.attacks import published_record, record
from simulations.attacks.attack import AttackResult
from simulations.attacks.published_record import Auditor
from simulations.world.loop import run_virtually
from verifier import log_view
from verifier.checks import Derived, Findings
from verifier.families import results
from verifier.run import LOG_CHECKS, SESSION_CHECKS

SEED = 7
ATTACKS = {attack.name: attack for attack in record.ATTACKS}


@functools.cache
def played(name: str) -> AttackResult:
    """An attack on everything as it is; played once for all tests."""
    return ATTACKS[name].run(SEED)


def without_checks(monkeypatch: pytest.MonkeyPatch, *identifiers: str) -> None:
    """A verifier in which these checks find nothing."""

    def blind(_subject: object, findings: Findings) -> None:
        findings.count()

    for name, checks in (("LOG_CHECKS", LOG_CHECKS), ("SESSION_CHECKS", SESSION_CHECKS)):
        changed = tuple(
            dataclasses.replace(check, run=blind) if check.identifier in identifiers else check for check in checks
        )
        monkeypatch.setattr(f"verifier.run.{name}", changed)


class TestRecords:
    @pytest.mark.parametrize("name", sorted(ATTACKS))
    def test_no_attack_on_a_record_passes(self, name: str) -> None:
        result = played(name)
        assert not result.succeeded
        assert result.learned == ()
        assert result.ended == "finished"

    def test_every_kind_of_file_is_altered_and_some_check_says_so(self) -> None:
        steps = " ".join(played("record-altered-files").steps)
        for kind in ("tile/entries/", "tile/0/", "openings.jsonl", "masked-limb-sum.bin", "integer-sum.bin"):
            assert kind in steps
        assert "adapter_model.safetensors: one bit altered: RES-4 fails" in steps
        assert "every check passes; left" not in steps

    def test_a_verifier_that_does_not_compare_tiles_passes_altered_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without_checks(monkeypatch, "LOG-7")
        result = run_virtually(record.altered_files(SEED, "tile/0/"))
        assert result.succeeded
        assert result.learned == ("tile/0/000.p/4 can be altered or left out",) * 2

    def test_a_verifier_that_does_not_compute_the_sum_passes_another_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # What RES-1 derives, others build on: the computed sum is taken without comparing it with the published one.
        taken = Derived("RES-1", lambda session: session.get(results.UNMASKED))
        monkeypatch.setattr(results, "INTEGERS", taken)
        result = ATTACKS["record-rewritten-sum"].run(SEED)
        assert result.learned == ("a new auditor passes it",)

    def test_where_witnesses_are_honest_a_rewritten_sum_has_no_quorum_either(self) -> None:
        result = run_virtually(record.rewritten_sum(SEED, ()))
        assert not result.succeeded
        assert any("LOG-4" in each for each in result.refusals)

    @pytest.mark.parametrize("name", ["record-second-close", "record-swapped-entries"])
    def test_both_fail_for_the_order_of_entries(self, name: str) -> None:
        assert played(name).refusals == ("the verifier refused the record: SES-2",)

    @pytest.mark.parametrize("name", ["record-second-close", "record-swapped-entries"])
    def test_a_verifier_that_takes_any_order_of_entries_passes_both(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(log_view, "is_legal", lambda _: True)
        assert ATTACKS[name].run(SEED).succeeded

    def test_an_auditor_that_has_seen_nothing_and_asks_for_no_date_passes_an_old_record(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verdict = published_record.PublishedRecord.verdict
        monkeypatch.setattr(published_record.PublishedRecord, "verdict", lambda one, _=None: verdict(one, Auditor()))
        assert ATTACKS["record-old-state"].run(SEED).succeeded


class TestReceipts:
    def test_a_receipt_proves_that_a_contribution_was_left_out(self) -> None:
        result = played("record-broken-receipt")
        assert result.steps[-1] == "Client 0 believes that it was taken; it can prove that it was left out."

    def test_a_receipt_for_something_else_is_none_and_a_client_that_takes_it_has_no_proof(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honest = run_virtually(record.broken_receipt(SEED, record.Evasive))
        assert not honest.succeeded
        assert honest.refusals == ("client-0 refused its receipt: WRONG_RECEIPT",)
        monkeypatch.setattr(client, "check_receipt", lambda *_: None)
        assert run_virtually(record.broken_receipt(SEED, record.Evasive)).succeeded
