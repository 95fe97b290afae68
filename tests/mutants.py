"""Teeth: one-line weakenings of the protocol, and the tests that must notice each of them.

``python -m tests.mutants [--only NAME]`` copies the tree, weakens one line at a time in the copy and runs the named
tests there. A mutant that survives is a promise that no test holds anybody to.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("secagg", "tests", "pyproject.toml")

_COORDINATOR = "tests/adversaries/test_lying_coordinator.py"
_CLIENTS = "tests/adversaries/test_lying_clients.py"
_FINDINGS = "tests/adversaries/test_findings.py"
_ONE_HOT = "tests/adversaries/test_one_hot_sums.py"
_UPLOADS = "tests/adversaries/test_lying_uploads.py"
_SUMS = "tests/unit/runtime/test_limb_sums.py"
_RETENTION = "tests/unit/runtime/test_retention.py"
_RESULTS = "tests/unit/runtime/test_results.py"
_PAIRWISE = "secagg/protocol/pairwise"


@dataclass(frozen=True, slots=True)
class Mutant:
    """``old`` stands exactly once in ``file``; with ``new`` in its place ``tests`` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, file, old, new, tests)


MUTANTS: tuple[Mutant, ...] = (
    # Lists a neighbour as alive to some and dropped to others.
    _mutant(
        "another close is confirmed and nobody minds",
        f"{_PAIRWISE}/client.py",
        "if statement.close != state.view.close_digest:",
        "if not statement.close:",
        f"{_COORDINATOR}::TestListsANeighbourAsAliveToSomeAndDroppedToOthers::"
        "test_one_confirmation_of_another_close_shows_the_fork",
    ),
    _mutant(
        "confirmations are not verified",
        f"{_PAIRWISE}/client.py",
        "        lists.check_signature(signed, statement.identity)\n        confirmed.add",
        "        confirmed.add",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_forged_confirmations_are_refused",
    ),
    _mutant(
        "half of the neighbours is a threshold",
        "secagg/derive/threshold.py",
        "return (degree + corrupt) // 2 + 1",
        "return degree // 2 + 1",
        f"{_COORDINATOR}::TestGrindsTheCohort",
    ),
    # Forges pair-seed boxes towards the highest index; forwards a box to the wrong client.
    _mutant(
        "boxes need not be under the signed root",
        f"{_PAIRWISE}/dealing.py",
        "merkle.verify_inclusion(leaf, position, len(recipients), item.path, statement.boxes)",
        "len(recipients) > position",
        f"{_COORDINATOR}::TestForgesBoxes::test_a_box_for_somebody_else_is_refused",
    ),
    _mutant(
        "the signed root does not cover pair boxes",
        "secagg/derive/boxes.py",
        "hashlib.sha256(pair_box).digest()",
        'hashlib.sha256(b"").digest()',
        f"{_COORDINATOR}::TestForgesBoxes::test_a_pair_seed_forged_towards_the_highest_index_is_under_no_root",
    ),
    _mutant(
        "a box may hold something else than was promised",
        f"{_PAIRWISE}/dealing.py",
        "if promised != item.commitments:",
        "if not promised:",
        f"{_CLIENTS}::TestADealer::test_of_boxes_that_do_not_open_to_what_was_promised_is_left_out_alone",
    ),
    # Withholds boxes to thin the graph.
    _mutant(
        "boxes may be withheld",
        f"{_PAIRWISE}/dealing.py",
        "if [item.sender for item in inbox] != expected:",
        "if len(inbox) > len(expected):",
        f"{_COORDINATOR}::TestThinsTheGraph::test_withholding_one_box_is_refused",
    ),
    _mutant(
        "a client masks with however few neighbours",
        f"{_PAIRWISE}/client.py",
        "if len(received) < dealer.threshold:",
        "if not received:",
        f"{_COORDINATOR}::TestThinsTheGraph::test_declaring_neighbours_absent_stops_the_client_below_the_threshold",
    ),
    _mutant(
        "the absent are counted as present",
        f"{_PAIRWISE}/lists.py",
        "if present != entry.count:",
        "if present > entry.count:",
        f"{_COORDINATOR}::TestThinsTheGraph::test_counting_the_absent_as_present_is_refused",
    ),
    # Logs two closes.
    _mutant(
        "a log may hold a second close",
        "secagg/protocol/log.py",
        "elif position >= len(_ORDER) or not isinstance(entry, _ORDER[position]):",
        "elif position < 4 and not isinstance(entry, _ORDER[position]):",
        f"{_COORDINATOR}::TestLogsTwoCloses::test_a_second_close_in_one_log_is_refused",
    ),
    _mutant(
        "a log need not continue what was seen",
        "secagg/protocol/log.py",
        "if entries[: len(view.entries)] != view.entries:",
        "if not entries:",
        f"{_COORDINATOR}::TestLogsTwoCloses::test_a_log_that_is_not_what_the_client_saw_is_refused",
    ),
    _mutant(
        "anybody signs the log",
        "secagg/protocol/log.py",
        "verify_statement(parameters.coordinator, evidence.head, evidence.signature)",
        "bytes(evidence.signature)",
        f"{_COORDINATOR}::TestSignsWhatItShouldNot::test_a_head_under_another_key_is_refused",
    ),
    _mutant(
        "a quarter is a quorum",
        "secagg/derive/threshold.py",
        "return (cohort + max_corrupt) // 2 + 1",
        "return (cohort + max_corrupt) // 4 + 1",
        f"{_FINDINGS}::test_no_forked_log_opens_a_sum_below_the_minimum",
    ),
    _mutant(
        "a client counts itself twice towards the quorum",
        f"{_PAIRWISE}/client.py",
        "if len(confirmed) + 1 < quorum:",
        "if len(confirmed) + 2 < quorum:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_a_quorum_is_enough_and_one_fewer_is_not",
    ),
    _mutant(
        "neighbours need not confirm",
        f"{_PAIRWISE}/client.py",
        "if len(neighbours) < threshold:",
        "if not threshold:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_a_quorum_without_enough_neighbours_opens_nothing",
    ),
    # Admits max_corrupt and grinds U1.
    _mutant(
        "every other order of the circle may be a bad one",
        "secagg/derive/threshold.py",
        "PRIVACY_BITS = 128",
        "PRIVACY_BITS = 1",
        f"{_COORDINATOR}::TestGrindsTheCohort",
    ),
    # Asks twice with different sets; restarts in the middle and asks for the opposite share.
    _mutant(
        "who answered remembers nothing of it",
        f"{_PAIRWISE}/client.py",
        "return Transition(Answered(state.view), (Send(",
        "return Transition(state, (Send(",
        f"{_COORDINATOR}::TestAsksTwice::test_who_answered_answers_no_second_set",
        f"{_ONE_HOT}::TestNoOrderOfLiesOpensTwoSets::runTest",
    ),
    _mutant(
        "who confirmed remembers nothing of it",
        f"{_PAIRWISE}/client.py",
        "return Transition(confirmed, (Send(ConfirmClose(",
        "return Transition(state, (Send(ConfirmClose(",
        f"{_COORDINATOR}::TestRestartsInTheMiddle::test_a_restarted_client_does_not_give_the_opposite_share",
    ),
    _mutant(
        "who was left out may be asked again",
        f"{_PAIRWISE}/client.py",
        "return Transition(Aborted(view, RejectReason.LEFT_OUT))",
        "return Transition(state)",
        f"{_FINDINGS}::test_a_client_that_was_shown_a_close_without_it_confirms_no_other_close",
    ),
    _mutant(
        "shares of contributors and of dropouts change places",
        f"{_PAIRWISE}/client.py",
        "        if held.index in accepted\n",
        "        if held.index not in accepted\n",
        f"{_CLIENTS}::TestDrops::test_between_header_and_upload_leave_an_exact_sum",
    ),
    # Replays an old close record.
    _mutant(
        "entries of another session count",
        "secagg/protocol/log.py",
        "if entry.session != parameters.session:",
        "if not entry.session:",
        f"{_COORDINATOR}::TestReplaysAnotherSession::test_an_old_close_entry_is_refused",
    ),
    _mutant(
        "statements of another session count",
        f"{_PAIRWISE}/lists.py",
        "if statement.session != session.digest:",
        "if not statement.session:",
        f"{_COORDINATOR}::TestReplaysAnotherSession",
        f"{_CLIENTS}::TestAContribution::test_with_a_wrong_header_is_refused",
    ),
    # Substitutes a key.
    _mutant(
        "a client does not look at its own keys",
        f"{_PAIRWISE}/client.py",
        "if event.leaves[index] != state.sent.to_bytes():",
        "if not event.leaves[index]:",
        f"{_COORDINATOR}::TestSubstitutesKeys::test_an_own_key_with_a_stolen_signature_is_refused",
    ),
    _mutant(
        "a neighbour's keys need not be the signed ones",
        f"{_PAIRWISE}/dealing.py",
        "if digests != (statement.mask_key, statement.share_key):",
        "if not digests:",
        f"{_COORDINATOR}::TestSubstitutesKeys::test_a_neighbours_key_that_is_not_the_signed_one_is_refused",
    ),
    _mutant(
        "statements are not verified",
        f"{_PAIRWISE}/lists.py",
        "verify_statement(identity, signed.statement.to_bytes(), signed.signature)",
        "bytes(signed.signature)",
        f"{_COORDINATOR}::TestSubstitutesKeys::test_a_neighbours_key_without_its_signature_is_refused",
    ),
    # Presents clients outside the roster.
    _mutant(
        "anybody may be listed",
        f"{_PAIRWISE}/lists.py",
        "if statement.identity not in session.positions:",
        "if not statement.identity:",
        f"{_COORDINATOR}::TestPresentsClientsThatDoNotExist::test_an_identity_outside_the_roster_is_refused",
    ),
    _mutant(
        "an identity may be listed twice",
        f"{_PAIRWISE}/lists.py",
        "if statements and statement.identity <= statements[-1].identity:",
        "if statements and statement.identity < statements[-1].identity:",
        f"{_COORDINATOR}::TestPresentsClientsThatDoNotExist::test_an_identity_that_is_listed_twice_is_refused",
    ),
    # Closes below the minimum.
    _mutant(
        "one fewer than the minimum will do",
        f"{_PAIRWISE}/lists.py",
        "if len(accepted) < session.parameters.min_contributors:",
        "if len(accepted) < session.parameters.min_contributors - 1:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_fewer_than_the_minimum_are_refused",
    ),
    _mutant(
        "the close entry says how many there are",
        f"{_PAIRWISE}/lists.py",
        "if counts != (entry.count, entry.rejected, entry.dropped):",
        "if counts[1:] != (entry.rejected, entry.dropped):",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::"
        "test_fewer_than_the_minimum_that_are_counted_as_enough_are_refused",
    ),
    _mutant(
        "the close entry says how many were rejected",
        f"{_PAIRWISE}/lists.py",
        "if counts != (entry.count, entry.rejected, entry.dropped):",
        "if counts[0] != entry.count:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::"
        "test_counts_of_rejected_and_dropped_that_are_not_the_lists_are_refused",
    ),
    # Signs another linear hash than its upload's.
    _mutant(
        "a linear hash need not be the signed one",
        f"{_PAIRWISE}/admission.py",
        "if hashlib.sha256(linear_hash).digest() != header.linear_hash:",
        "if not linear_hash:",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_it_is_refused_and_nothing_is_kept",
    ),
    _mutant(
        "a linear hash may have any length",
        f"{_PAIRWISE}/admission.py",
        "if len(linear_hash) != HASH_BYTES:",
        "if linear_hash is None:",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_a_signed_hash_of_another_length_is_refused",
    ),
    _mutant(
        "a repeated header brings any linear hash",
        f"{_PAIRWISE}/admission.py",
        "            _check_linear_hash(statement, linear_hash)\n            return RowKind.HEADER",
        "            return RowKind.HEADER",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_after_the_header_was_accepted_too",
    ),
    _mutant(
        "a linear hash is stored before its header is checked",
        "secagg/runtime/host.py",
        'admission.admit(self.session, cast("Rows", rows), state, message)',
        "(state, rows)",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_strangers_store_nothing",
    ),
    _mutant(
        "a header counts whose linear hash is nowhere",
        "secagg/runtime/host.py",
        "await asyncio.to_thread(self._ports.blobs.put, message.linear_hash)",
        "await asyncio.sleep(0)",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_the_hash_is_stored_before_the_header_counts",
    ),
    _mutant(
        "sums are not compared with what was signed",
        "secagg/runtime/limb_sums.py",
        "return np.array_equal(self._hashes, linear_hash.hash_limb_sum(self._limbs))",
        "return self._hashes.size == linear_hash.hash_limb_sum(self._limbs).size",
        f"{_UPLOADS}::TestSignsAnotherHash::test_a_liar_is_left_out_by_name_and_the_sum_and_the_audit_are_exact",
    ),
    _mutant(
        "of two halves only the first is searched for liars",
        "secagg/runtime/limb_sums.py",
        "if not left_fails or not added_up",
        "if not left_fails and not added_up",
        f"{_SUMS}::test_bisection_finds_every_liar_and_nobody_else",
    ),
    _mutant(
        "whoever stands beside a liar is one",
        "secagg/runtime/limb_sums.py",
        "found += [index for index in part if not is_hash_of_upload(blobs, accepted[index])]",
        "found += part",
        f"{_UPLOADS}::TestSignsAnotherHash::test_every_one_of_several_is_found_and_nobody_else",
    ),
    _mutant(
        "a client is blamed for what the disk did",
        "secagg/runtime/limb_sums.py",
        "    lanes = _words(blobs.get(item.upload))",
        "    blobs.read_into(item.upload, 0, lanes := np.empty(len(blobs._blobs[item.upload]) // 8, dtype=np.uint64))",
        f"{_SUMS}::test_a_suspects_blob_is_checked_before_the_suspect_is_blamed",
    ),
    _mutant(
        "a running sum that is wrong is kept",
        "secagg/runtime/limb_sums.py",
        "            self._drop()\n            raise StoreError",
        "            raise StoreError",
        f"{_SUMS}::test_a_running_sum_that_went_wrong_blames_nobody_and_is_made_again",
    ),
    _mutant(
        "uploads are added at close only",
        "secagg/runtime/host.py",
        "        if isinstance(event, UploadStaged):\n            self._add_staged(event.identity)",
        "        if isinstance(event, UploadStaged):\n            self.is_staged(event.identity)",
        f"{_UPLOADS}::test_uploads_are_added_as_they_come_and_again_after_a_restart_before_the_close",
    ),
    _mutant(
        "what was refuted stays in the running sum",
        "secagg/runtime/limb_sums.py",
        "surplus = [index for index, item in self._held.items() if accepted.get(index) != item]",
        "surplus: list[int] = []",
        f"{_UPLOADS}::TestAsymmetricEdgesAndHashesTogether",
        f"{_SUMS}::test_what_was_offered_and_what_is_accepted_may_differ_in_any_way",
    ),
    _mutant(
        "an upload that is offered twice counts twice",
        "secagg/runtime/limb_sums.py",
        "if index not in self._held:",
        "if item.upload:",
        f"{_SUMS}::test_a_contribution_that_is_offered_twice_is_added_once",
    ),
    _mutant(
        "only the first shard is checked",
        "secagg/runtime/limb_sums.py",
        "            if not total.is_as_signed():\n                refuted",
        "            if shard is shards[0] and not total.is_as_signed():\n                refuted",
        f"{_UPLOADS}::TestShards",
    ),
    _mutant(
        "a shard holds one more than the norm bound allows",
        "secagg/arith/linear_hash.py",
        "    most = max_contributors(lanes)\n    starts",
        "    most = max_contributors(lanes) + 1\n    starts",
        f"{_UPLOADS}::TestShards",
    ),
    _mutant(
        "what is not in a limb sum can be taken out of it",
        "secagg/arith/linear_hash.py",
        "if not self._contributors or any((target < wide).any() for target, wide in self._pieces(pieces)):",
        "if not self._contributors:",
        "tests/unit/arith/test_linear_hash.py::test_what_was_not_added_cannot_be_taken_out_and_nothing_changes",
    ),
    _mutant(
        "liars are rejected and the minimum is forgotten",
        f"{_PAIRWISE}/coordinator.py",
        "    return _close_over(moment, state, tables.staged_headers(moment.rows, state.cohort, rest), rows)",
        "    return Transition(dataclasses.replace(state, accepted=tuple(rest)), (FoldUploads(tuple(rest)),), rows)",
        f"{_UPLOADS}::TestSignsAnotherHash::test_so_many_that_the_minimum_is_missed_abort_and_nothing_is_opened",
    ),
    _mutant(
        "liars are left out and nobody is told why",
        f"{_PAIRWISE}/coordinator.py",
        "{row_key(state.cohort.positions[index], RowKind.REJECTED): rejected for index in liars}",
        "{row_key(state.cohort.positions[index], RowKind.REJECTED): rejected for index in liars if index < 0}",
        f"{_UPLOADS}::TestSignsAnotherHash::test_a_liar_is_left_out_by_name_and_the_sum_and_the_audit_are_exact",
    ),
    _mutant(
        "an abort hides the answers it was given",
        f"{_PAIRWISE}/coordinator.py",
        "root = merkle.root(tuple(answers.values()))",
        "root = merkle.root(())",
        f"{_RESULTS}::test_an_abort_commits_to_every_answer_that_was_given",
    ),
    _mutant(
        "answers that came too late to be used are logged as used",
        "secagg/runtime/host.py",
        "rows = dict(self.rows)  # answers",
        "rows = self.rows  # answers",
        f"{_RESULTS}::test_an_answer_that_comes_while_the_sum_is_opened_is_not_among_those_that_opened_it",
    ),
    _mutant(
        "uploads and their hashes are kept for ever",
        "secagg/runtime/registry.py",
        "return signed.statement.upload, signed.statement.linear_hash",
        "return (signed.statement.upload,)",
        f"{_RETENTION}::test_uploads_hashes_boxes_and_limb_sum_go_and_the_result_stays",
    ),
    _mutant(
        "a limb sum is kept for ever",
        "secagg/runtime/registry.py",
        "return (entry.limb_sum,) if isinstance(entry, SessionClose) else ()",
        "return ()",
        f"{_RETENTION}::test_uploads_hashes_boxes_and_limb_sum_go_and_the_result_stays",
    ),
    _mutant(
        "a client hashes its input before it is masked",
        "secagg/runtime/participant.py",
        "linear_hash = vectors.linear_hash_of(lanes)",
        "linear_hash = vectors.linear_hash_of(lanes // 2)",
        "tests/integration/test_faulty_store.py::test_a_session_without_faults_ends_with_the_sum",
    ),
    _mutant(
        "the coordinator closes below the minimum",
        f"{_PAIRWISE}/coordinator.py",
        "if len(headers) < moment.session.parameters.min_contributors:",
        "if not headers:",
        f"{_FINDINGS}::test_a_set_below_the_quorum_or_the_minimum_is_not_closed",
    ),
    _mutant(
        "one end of an edge may go without its mask",
        f"{_PAIRWISE}/client.py",
        "if lists.asymmetric_edges(graph, headers):",
        "if not headers:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::"
        "test_a_contribution_masked_without_an_honest_neighbour_is_refused",
    ),
    _mutant(
        "a contribution may rest on another list of shared keys",
        f"{_PAIRWISE}/lists.py",
        "if header.shared != shared:",
        "if not header.shared:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_a_contribution_over_another_u2_is_refused",
    ),
    # A client that sends wrong shares.
    _mutant(
        "any share is an answer",
        f"{_PAIRWISE}/admission.py",
        "if not fits:",
        "if fits is None:",
        f"{_CLIENTS}::TestWrongShares::test_are_refused_by_name_and_the_sum_comes_without_them",
    ),
    _mutant(
        "who disagreed is forgotten",
        "secagg/derive/opening.py",
        "disagreed.extend((usable[position][0], index) for position in wrong)",
        "disagreed.extend(())",
        f"{_CLIENTS}::TestWrongShares::test_that_were_stored_all_the_same_are_corrected_and_named",
    ),
    _mutant(
        "an answer may leave neighbours out",
        f"{_PAIRWISE}/admission.py",
        "if [share.index for share in statement.shares] != sorted(held):",
        "if not held:",
        f"{_CLIENTS}::TestWrongShares::test_for_fewer_neighbours_than_held_are_refused",
    ),
    _mutant(
        "a dealer need not keep its promise of a pair seed",
        "secagg/derive/opening.py",
        "if pairs.pair_commitment(owner, holder) != ",
        'if b"" == ',
        f"{_FINDINGS}::test_a_dealer_of_a_wrong_pair_seed_that_drops_is_named",
    ),
    # A wrong vector length, two different uploads, drops.
    _mutant(
        "a vector may have any length",
        f"{_PAIRWISE}/lists.py",
        "if header.lanes != session.field_layout.lanes:",
        "if not header.lanes:",
        f"{_CLIENTS}::TestAContribution::test_with_a_wrong_header_is_refused",
    ),
    _mutant(
        "the last of two messages counts",
        f"{_PAIRWISE}/admission.py",
        "        if known == row:\n",
        "        if known:\n",
        f"{_CLIENTS}::TestAContribution::test_that_differs_from_an_earlier_one_is_refused",
    ),
    _mutant(
        "any bytes are the upload",
        f"{_PAIRWISE}/admission.py",
        "if header.signed.statement.upload != digest:",
        "if not digest:",
        f"{_CLIENTS}::TestAContribution::test_of_other_bytes_than_signed_is_refused",
    ),
    _mutant(
        "a header may leave out most neighbours",
        f"{_PAIRWISE}/admission.py",
        "if len(neighbours) - len(header.missing) < state.cohort.threshold:",
        "if len(neighbours) < len(header.missing):",
        f"{_CLIENTS}::TestAContribution::test_with_a_wrong_header_is_refused",
    ),
    _mutant(
        "masks of who dropped out are taken away once more",
        "secagg/derive/opening.py",
        "boxes.pair_seed(root, cohort.session, index), add, dropped",
        "boxes.pair_seed(root, cohort.session, index), subtract, dropped",
        f"{_CLIENTS}::TestDrops::test_between_header_and_upload_leave_an_exact_sum",
        f"{_ONE_HOT}::test_masks_cancel_whenever_enough_survive_and_else_there_is_no_sum",
    ),
    _mutant(
        "the accused goes and the accuser stays",
        f"{_PAIRWISE}/admission.py",
        "rejected |= {index, min(partners)}",
        "rejected |= {min(index, min(partners))}",
        f"{_FINDINGS}::test_a_client_that_alone_complains_about_an_honest_one_does_not_outlive_it",
    ),
)


def copied(destination: Path) -> Path:
    """The tree under test, in ``destination``."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, destination / name, ignore=ignored)
        else:
            shutil.copy2(source, destination / name)
    return destination


def run(tree: Path, tests: Sequence[str]) -> int:
    """Exit status of pytest over some tests of a tree: 0 if all pass, 1 if one fails, else the run is broken."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    finished = subprocess.run(command, cwd=tree, env=environment, capture_output=True, check=False, timeout=600)
    return finished.returncode


def judged(mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Each mutant with ``killed``, ``survived`` or ``broken``.

    Raises:
        RuntimeError: the tests fail without any mutant, or a mutant does not apply.
    """
    with tempfile.TemporaryDirectory() as directory:
        tree = copied(Path(directory))
        if run(tree, sorted({test for mutant in mutants for test in mutant.tests})) != 0:
            raise RuntimeError("the tests fail although nothing was weakened")
        for mutant in mutants:
            file = tree / mutant.file
            before = file.read_text(encoding="utf-8")
            if before.count(mutant.old) != 1:
                raise RuntimeError(f"{mutant.name}: its text does not stand exactly once in {mutant.file}")
            file.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
            status = run(tree, mutant.tests)
            file.write_text(before, encoding="utf-8")
            yield mutant, {0: "survived", 1: "killed"}.get(status, "broken")


def main() -> int:
    """Run all mutants or one; 1 if any is not killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", help="the one mutant of this name")
    only = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if only in {None, mutant.name}]
    if not chosen:
        parser.error(f"no mutant is named {only!r}")
    alive = 0
    for mutant, verdict in judged(chosen):
        print(f"{verdict}: {mutant.name}", flush=True)
        alive += verdict != "killed"
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
