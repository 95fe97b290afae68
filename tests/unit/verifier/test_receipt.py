"""RCP: a contributor finds its contribution in the record, and what a receipt can be that is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secagg.transcript import merkle
from secagg.transcript.merkle import ProofError
from secagg.transcript.note import Note
from secagg.transcript.proof import LogProof
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.record import RecordError
from secagg.transcript.statements import Signed
from tests.support.forge import Forge, write_record
from tests.unit.verifier.session_checks import audit_of, checked, failing, reason, unclean
from verifier.audit import Brought
from verifier.checks import Level, Status
from verifier.run import run_audit


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("receipts"))


def found(written, receipt):
    """What became of the checks of level meta with another receipt."""
    audit = replace(audit_of(written, Level.META), brought=Brought(None, receipt))
    return {one.check.identifier: one for one in run_audit(audit).checks if one.status is not Status.NOT_AT_THIS_LEVEL}


def with_proof(written, edit):
    """The receipt with another proof in its extra line."""
    proof = LogProof.parse(written.receipt.read_bytes())
    return replace(proof, extra=edit(ContributionProof.from_bytes(proof.extra)).to_bytes()).to_bytes()


def test_every_contributor_finds_its_contribution(written):
    main = written.forge.main
    note = (written.record / "checkpoint").read_bytes()
    for index in main.accepted:
        assert unclean(found(written, written.forge.receipt(index, note))) == {}


def test_rcp_1_says_whose_contribution_it_found_in_which_session_and_where(written):
    main = written.forge.main
    note = (written.record / "checkpoint").read_bytes()
    index = main.accepted[2]
    (said,) = found(written, written.forge.receipt(index, note))["RCP-1"].notes
    identity = main.contributions[index].statement.identity.hex()
    assert said == f"the contribution of {identity} in session {main.session_id.hex()}, at position 2 (from 0) of 8"
    assert found(written, with_proof(written, lambda proof: replace(proof, position=1)))["RCP-1"].notes == ()


def test_a_receipt_of_an_earlier_checkpoint_is_as_good(written):
    forge = Forge()
    forge.main, forge.entries = written.forge.main, written.forge.entries[:11]
    receipt = forge.receipt(forge.main.accepted[2], forge.note().to_bytes())
    assert unclean(found(written, receipt)) == {}


def test_rcp_1_does_not_apply_without_a_receipt(written):
    assert found(written, None)["RCP-1"].status is Status.NOT_APPLICABLE


@pytest.mark.parametrize(
    "edit",
    [
        lambda proof: replace(proof, position=1),
        lambda proof: replace(proof, path=proof.path[:-1]),
        lambda proof: replace(proof, contribution=Signed(proof.contribution.statement, bytes(64))),
        lambda proof: replace(proof, close=proof.close.replace('"count":8', '"count":7')),
    ],
    ids=["another place", "a shorter path", "altered", "another close entry"],
)
def test_rcp_1_fails_for_a_receipt_of_what_is_not_in_the_record(written, edit):
    assert failing(found(written, with_proof(written, edit))) == ["RCP-1"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda proof: replace(proof, index=proof.index + 1),
        lambda proof: replace(proof, path=proof.path[:-1]),
        lambda proof: replace(proof, extra=b"{}"),
        lambda proof: replace(proof, extra=b""),
    ],
)
def test_rcp_1_fails_for_another_proof(written, edit):
    proof = LogProof.parse(written.receipt.read_bytes())
    assert failing(found(written, edit(proof).to_bytes())) == ["RCP-1"]


def test_rcp_1_fails_for_what_is_no_proof_at_all(written):
    assert failing(found(written, b"")) == ["RCP-1"]
    assert failing(found(written, b"\xff" * 500_000)) == ["RCP-1"]


def test_rcp_1_fails_for_a_checkpoint_that_too_few_cosigned(written):
    proof = LogProof.parse(written.receipt.read_bytes())
    note = Note.parse(proof.checkpoint)
    receipt = replace(proof, checkpoint=Note(note.text, note.signatures[:1]).to_bytes()).to_bytes()
    assert failing(found(written, receipt)) == ["RCP-1"]


def test_rcp_1_fails_for_a_receipt_of_another_history(written):
    other = Forge({"open": lambda opened, _: replace(opened, retention_s=1)}).run()
    results = found(written, other.receipt(other.main.accepted[0], other.note().to_bytes()))
    assert failing(results) == ["RCP-1"]
    assert "rewritten" in reason(results, "RCP-1")


def test_rcp_1_is_unavailable_where_the_published_list_was_refused(tmp_path):
    def shortened(files, _):
        return files | {"contributions.jsonl": files["contributions.jsonl"][:-1]}

    results = checked(write_record(tmp_path, {"files": shortened}), Level.META)
    assert failing(results) == ["CON-3"]
    assert results["RCP-1"].status is Status.UNAVAILABLE


def test_a_proof_holds_for_its_place_only_and_holds_nothing_but_a_contribution(written):
    main = written.forge.main
    leaves = [merkle.leaf_hash(signed.to_bytes()) for signed in main.contributed]
    close = main.closing.to_bytes().decode()
    proof = ContributionProof(close, main.contributed[3], 3, merkle.inclusion_proof(leaves, 3))
    proof.verify()
    assert ContributionProof.from_bytes(proof.to_bytes()) == proof
    with pytest.raises(ProofError):
        replace(proof, position=2).verify()
    with pytest.raises(RecordError, match="not of a contribution"):
        replace(proof, contribution=main.u1[0])
    with pytest.raises(RecordError):
        replace(proof, close=main.finished.to_bytes().decode())
