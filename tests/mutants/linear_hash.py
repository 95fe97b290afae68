"""Mutants of the linear hash in a session: what is signed, added up, checked at close, and what the end logs."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_COORDINATOR = "tests/adversaries/test_lying_coordinator.py"
_UPLOADS = "tests/adversaries/test_lying_uploads.py"
_SUMS = "tests/unit/runtime/test_limb_sums.py"
_RETENTION = "tests/unit/runtime/test_retention.py"
_RESULTS = "tests/unit/runtime/test_results.py"
_PAIRWISE = "secagg/protocol/pairwise"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "the close entry says how many were rejected",
        f"{_PAIRWISE}/lists.py",
        "if counts != (entry.count, entry.rejected, entry.dropped):",
        "if counts[0] != entry.count:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::"
        "test_counts_of_rejected_and_dropped_that_are_not_the_lists_are_refused",
    ),
    # Signs another linear hash than its upload's.
    mutant(
        "a client may send another linear hash than it signed",
        f"{_PAIRWISE}/admission.py",
        "if hashlib.sha256(linear_hash).digest() != header.linear_hash:",
        "if not linear_hash:",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_it_is_refused_and_nothing_is_kept",
    ),
    mutant(
        "a linear hash may have any length",
        f"{_PAIRWISE}/admission.py",
        "if len(linear_hash) != HASH_BYTES:",
        "if linear_hash is None:",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_a_signed_hash_of_another_length_is_refused",
    ),
    mutant(
        "a repeated header brings any linear hash",
        f"{_PAIRWISE}/admission.py",
        "            _check_linear_hash(statement, linear_hash)\n            return RowKind.HEADER",
        "            return RowKind.HEADER",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_after_the_header_was_accepted_too",
    ),
    mutant(
        "a linear hash is stored before its header is checked",
        "secagg/runtime/pairwise_host.py",
        'admission.admit(self.session, cast("Rows", rows), state, event)',
        "(state, rows)",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_strangers_store_nothing",
    ),
    mutant(
        "a header counts whose linear hash is nowhere",
        "secagg/runtime/pairwise_host.py",
        "        await asyncio.to_thread(keep)\n        await self.driver.feed(event)",
        "        await self.driver.feed(event)",
        f"{_UPLOADS}::TestSendsAnotherHashThanSigned::test_the_hash_is_stored_before_the_header_counts",
    ),
    mutant(
        "sums are not compared with what was signed",
        "secagg/runtime/partial_sum.py",
        "return np.array_equal(self._hashes, linear_hash.hash_limb_sum(self._limbs))",
        "return self._hashes.size == linear_hash.hash_limb_sum(self._limbs).size",
        f"{_UPLOADS}::TestSignsAnotherHash::test_a_liar_is_left_out_by_name_and_the_sum_and_the_audit_are_exact",
    ),
    mutant(
        "of two halves only the first is searched for liars",
        "secagg/runtime/limb_sums.py",
        "if not left_fails or not added_up",
        "if not left_fails and not added_up",
        f"{_SUMS}::test_bisection_finds_every_liar_and_nobody_else",
    ),
    mutant(
        "whoever stands beside a liar is one",
        "secagg/runtime/limb_sums.py",
        "found += [index for index in part if not is_hash_of_upload(blobs, accepted[index])]",
        "found += part",
        f"{_UPLOADS}::TestSignsAnotherHash::test_every_one_of_several_is_found_and_nobody_else",
    ),
    mutant(
        "a client is blamed for what the disk did",
        "secagg/runtime/limb_sums.py",
        "    lanes = _words(blobs.get(item.upload))",
        "    blobs.read_into(item.upload, 0, lanes := np.empty(len(blobs._blobs[item.upload]) // 8, dtype=np.uint64))",
        f"{_SUMS}::test_a_suspects_blob_is_checked_before_the_suspect_is_blamed",
    ),
    mutant(
        "a running sum that is wrong is kept",
        "secagg/runtime/limb_sums.py",
        "            self._drop()\n            raise StoreError",
        "            raise StoreError",
        f"{_SUMS}::test_a_running_sum_that_went_wrong_blames_nobody_and_is_made_again",
    ),
    mutant(
        "uploads are added at close only",
        "secagg/runtime/session_host.py",
        "        if isinstance(event, UploadStaged):\n            self._add_staged(event.identity)",
        "        if isinstance(event, UploadStaged):\n            self.is_staged(event.identity)",
        f"{_UPLOADS}::test_uploads_are_added_as_they_come_and_again_after_a_restart_before_the_close",
    ),
    mutant(
        "what was refuted stays in the running sum",
        "secagg/runtime/limb_sums.py",
        "surplus = [index for index, item in total.held.items() if accepted.get(index) != item]",
        "surplus: list[int] = []",
        f"{_UPLOADS}::TestAsymmetricEdgesAndHashesTogether",
        f"{_SUMS}::test_what_was_offered_and_what_is_accepted_may_differ_in_any_way",
    ),
    mutant(
        "an upload that is offered twice counts twice",
        "secagg/runtime/limb_sums.py",
        "if index not in total.held:",
        "if item.upload:",
        f"{_SUMS}::test_a_contribution_that_is_offered_twice_is_added_once",
    ),
    mutant(
        "only the first shard is checked",
        "secagg/runtime/limb_sums.py",
        "            if not total.is_as_signed():\n                refuted",
        "            if shard is shards[0] and not total.is_as_signed():\n                refuted",
        f"{_UPLOADS}::TestShards",
    ),
    mutant(
        "a shard holds one more than the norm bound allows",
        "secagg/arith/linear_hash.py",
        "    most = max_contributors(lanes)\n    starts",
        "    most = max_contributors(lanes) + 1\n    starts",
        f"{_UPLOADS}::TestShards",
    ),
    mutant(
        "what is not in a limb sum can be taken out of it",
        "secagg/arith/linear_hash.py",
        "if not self._contributors or any((target < wide).any() for target, wide in self._pieces(pieces)):",
        "if not self._contributors:",
        "tests/unit/arith/test_linear_hash.py::test_what_was_not_added_cannot_be_taken_out_and_nothing_changes",
    ),
    mutant(
        "liars are rejected and the minimum is forgotten",
        f"{_PAIRWISE}/coordinator.py",
        "    return _close_over(moment, state, tables.staged_headers(moment.rows, state.cohort, rest), rows)",
        "    return Transition(dataclasses.replace(state, accepted=tuple(rest)), (FoldUploads(tuple(rest)),), rows)",
        f"{_UPLOADS}::TestSignsAnotherHash::test_so_many_that_the_minimum_is_missed_abort_and_nothing_is_opened",
    ),
    mutant(
        "liars are left out and nobody is told why",
        f"{_PAIRWISE}/coordinator.py",
        "{row_key(state.cohort.positions[index], RowKind.REJECTED): rejected for index in liars}",
        "{row_key(state.cohort.positions[index], RowKind.REJECTED): rejected for index in liars if index < 0}",
        f"{_UPLOADS}::TestSignsAnotherHash::test_a_liar_is_left_out_by_name_and_the_sum_and_the_audit_are_exact",
    ),
    mutant(
        "an abort hides the answers it was given",
        f"{_PAIRWISE}/coordinator.py",
        "root = merkle.root(tuple(answers.values()))",
        "root = merkle.root(())",
        f"{_RESULTS}::test_an_abort_commits_to_every_answer_that_was_given",
    ),
    mutant(
        "answers that came too late to be used are logged as used",
        "secagg/runtime/pairwise_host.py",
        "rows = dict(self.rows)  # answers",
        "rows = self.rows  # answers",
        f"{_RESULTS}::test_an_answer_that_comes_while_the_sum_is_opened_is_not_among_those_that_opened_it",
    ),
    mutant(
        "uploads and their hashes are kept for ever",
        "secagg/runtime/retention.py",
        "found |= {signed.statement.upload, signed.statement.linear_hash}",
        "found |= {signed.statement.upload}",
        f"{_RETENTION}::test_uploads_hashes_boxes_and_limb_sum_go_and_the_result_stays",
    ),
    mutant(
        "a limb sum is kept for ever",
        "secagg/runtime/retention.py",
        "                    found.add(entry.limb_sum)",
        '                    found.add(b"")',
        f"{_RETENTION}::test_uploads_hashes_boxes_and_limb_sum_go_and_the_result_stays",
    ),
    mutant(
        "a client hashes its input before it is masked",
        "secagg/runtime/pairwise_participant.py",
        "linear_hash = vectors.linear_hash_of(lanes)",
        "linear_hash = vectors.linear_hash_of(lanes // 2)",
        "tests/integration/test_faulty_store.py::test_a_session_without_faults_ends_with_the_sum",
    ),
)
