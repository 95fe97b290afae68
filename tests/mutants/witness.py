"""Weakenings of witnesses, and of what asks them."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_R = "secagg/runtime/witness.py"
_ST = "secagg/store/witness_state.py"
_SV = "secagg/services/witness.py"
_C = "secagg/services/cosigners.py"
_H = "secagg/services/http_exchange.py"
_UR = "tests/unit/runtime/test_witness.py"
_US = "tests/unit/store/test_witness_state.py"
_IW = "tests/integration/test_witness.py"
_IC = "tests/integration/test_cosigners.py"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "a witness takes any old size",
        _R,
        "if submission.old_size != last_checkpoint.size:",
        "if submission.old_size > last_checkpoint.size:",
        f"{_IW}::test_a_log_that_goes_back_is_told_the_size_it_had",
    ),
    mutant(
        "a request that was answered before is answered again",
        _R,
        "if submission.old_size != last_checkpoint.size:",
        "if submission.checkpoint.size < last_checkpoint.size:",
        f"{_IW}::test_a_request_that_is_replayed_later_gets_nothing_signed",
    ),
    mutant(
        "a witness cosigns two roots of one size",
        _R,
        '    if new.size == last.size and new.root != last.root:\n        return _refusal(Outcome.FORK, "another root was cosigned for this size")',
        "    if new.size == last.size:\n        return None",
        f"{_IW}::test_a_fork_of_the_same_size_is_refused",
    ),
    mutant(
        "a witness does not mind a proof that fails",
        _R,
        '        return _refusal(Outcome.BAD_PROOF, "the consistency proof does not verify")',
        "        return None",
        f"{_IW}::test_a_fork_with_a_forged_proof_is_refused",
    ),
    mutant(
        "whoever sends a checkpoint may have made it",
        _R,
        "            open_checkpoint(request.note, log, ())\n",
        "            pass\n",
        f"{_UR}::test_a_checkpoint_that_the_log_did_not_sign_is_forbidden_whatever_its_sizes",
    ),
    mutant(
        "a witness answers without keeping",
        _R,
        "        self._state.advance(log.name, stored, kept)\n",
        "",
        f"{_UR}::test_nothing_is_signed_that_could_not_be_kept",
    ),
    mutant(
        "a state that cannot be read is no state",
        _R,
        '            raise StoreError(f"the state of {log.name}: {error}") from None',
        "            return None",
        f"{_UR}::test_a_state_that_this_witness_did_not_sign_is_refused_and_never_taken_for_none",
    ),
    mutant(
        "a note that this witness did not cosign is its state",
        _R,
        '        if not witnessed.cosigned:\n            raise StoreError(f"the state of {log.name}: it was cosigned by another witness")',
        "        if not witnessed.cosigned:\n            return None",
        f"{_UR}::test_a_state_that_this_witness_did_not_sign_is_refused_and_never_taken_for_none",
    ),
    mutant(
        "the time of cosignatures follows a clock that went back",
        _R,
        "max(now_s, last_s)",
        "now_s",
        f"{_UR}::test_the_time_of_a_log_s_cosignatures_never_decreases",
    ),
    mutant(
        "a witness's state is set without comparing",
        _ST,
        '            if self._read(origin) != expected:\n                raise VersionConflictError(f"{origin}: another checkpoint was cosigned first")\n            self._write',
        "            self._write",
        f"{_US}::test_of_many_threads_that_advance_from_the_same_note_one_succeeds",
    ),
    mutant(
        "forks that race are both cosigned",
        _ST,
        "            if self._read(origin) != expected:",
        "            if self._read(origin) is None and expected is not None:",
        f"{_IW}::test_of_forks_that_race_one_is_cosigned_for_each_size",
    ),
    mutant(
        "a witness forgets when it is killed",
        _ST,
        "return self._directory / origin_hash(origin)",
        "return self._directory / str(id(self))",
        f"{_IW}::test_a_witness_that_is_killed_around_its_write_signs_one_history",
    ),
    mutant(
        "what is visible is taken for durable",
        _ST,
        "        if origin not in self._durable:\n",
        "        if note is None:\n",
        f"{_US}::test_a_note_whose_write_failed_half_way_is_shown_to_nobody_before_it_is_durable",
    ),
    mutant(
        "a lost state is made anew",
        _ST,
        "        if not directory.is_dir():\n",
        "        make_private_directory(directory)\n        if not directory.is_dir():\n",
        f"{_US}::test_a_state_that_is_gone_is_not_made_anew",
    ),
    mutant(
        "a witness reads bodies of any length",
        _SV,
        "if int(length) > MAX_REQUEST_BYTES:",
        "if int(length) > 10**9:",
        f"{_IW}::test_what_is_no_request_gets_a_status_and_leaves_the_witness_serving",
    ),
    mutant(
        "a witness takes any number of connections",
        _SV,
        "if len(self._connections) >= self._limits.max_connections:",
        "if len(self._connections) >= 10**9:",
        f"{_IW}::test_connections_are_bounded_and_a_place_is_free_again",
    ),
    mutant(
        "a request takes as long as it likes",
        _SV,
        "                    async with asyncio.timeout(self._limits.request_s):\n                        request",
        "                    async with asyncio.timeout(None):\n                        request",
        f"{_IW}::test_a_peer_that_sends_a_byte_at_a_time_is_cut_off_as_a_whole",
    ),
    mutant(
        "a cosignature that does not verify counts",
        _C,
        "            raise _WitnessFailedError(WitnessFault.BAD_COSIGNATURE, error.field) from None",
        "            return parse_signatures(body)[0]",
        f"{_IC}::test_a_lie_of_one_witness_is_not_counted_and_not_believed",
    ),
    mutant(
        "a cosignature of any time counts",
        _C,
        "if abs(difference_s) > self._times.clock_difference_s:",
        "if -difference_s > self._times.clock_difference_s:",
        f"{_IC}::test_a_lie_of_one_witness_is_not_counted_and_not_believed",
    ),
    mutant(
        "a cosignature of long ago counts",
        _C,
        "if abs(difference_s) > self._times.clock_difference_s:",
        "if difference_s > self._times.clock_difference_s:",
        f"{_IC}::test_a_lie_of_one_witness_is_not_counted_and_not_believed",
    ),
    mutant(
        "one witness answers for another",
        _C,
        "open_checkpoint(note.to_bytes(), self._log, (rule.key,))",
        "open_checkpoint(note.to_bytes(), self._log, self._policy.witness_keys)",
        f"{_IC}::test_a_lie_of_one_witness_is_not_counted_and_not_believed",
    ),
    mutant(
        "any cosignature meets the policy",
        _C,
        "            met = self._policy.is_met_by([self._witnesses[name][0].key.public_key for name in cosigned])",
        "            met = bool(cosigned)",
        f"{_IC}::test_one_key_behind_two_addresses_counts_once",
    ),
    mutant(
        "a claim without a signature of ours is proof",
        _C,
        "            shown = open_checkpoint(answer.body, self._log, ()).checkpoint",
        "            shown = Checkpoint.parse(Note.parse(answer.body).text)",
        f"{_IC}::test_one_liar_cannot_stop_a_log_that_did_nothing_wrong",
    ),
    mutant(
        "our own past is proof against us",
        _C,
        "        if shown.size <= ours.size:\n",
        "        if shown.size == ours.size:\n",
        f"{_IC}::test_one_liar_cannot_stop_a_log_that_did_nothing_wrong",
    ),
    mutant(
        "a log that grew again after it went back goes on",
        _C,
        "            except ProofError:\n                pass",
        "            except ProofError:\n                return",
        f"{_IC}::test_a_log_that_went_back_and_grew_again_is_told_by_its_own_signature",
    ),
    mutant(
        "a log that went back asks again and again",
        _C,
        "        raise RollbackShownError(name, answer.body)",
        "        return",
        f"{_IC}::test_a_log_that_went_back_is_told_by_its_own_signature",
    ),
    mutant(
        "a claim without any proof stops the log",
        _C,
        '                raise _WitnessFailedError(WitnessFault.CLAIMS_OTHER, f"status {answer.status}")',
        '                raise RollbackShownError(name, b"")',
        f"{_IC}::test_claims_that_nobody_shows_stop_no_log_however_many_make_them",
    ),
    mutant(
        "another time is published than the one that was looked at",
        _C,
        "        if len(own) > 1:",
        "        if not own:",
        "tests/adversaries/test_log_attacks.py::TestWitnessesAgainstTheLog::"
        "test_the_time_that_is_published_is_the_one_that_was_checked",
    ),
    mutant(
        "a witness that hangs holds the log up",
        _C,
        "deadline = loop.time() + self._times.timeout_s",
        "deadline = loop.time() + 100 * self._times.timeout_s",
        f"{_IC}::test_a_witness_that_does_not_answer_is_too_late_and_costs_no_more_than_the_timeout",
    ),
    mutant(
        "a met policy waits for everybody",
        _C,
        "deadline = min(deadline, loop.time() + self._times.grace_s)",
        "pass",
        f"{_IC}::test_a_met_policy_waits_for_the_rest_no_longer_than_the_grace",
    ),
    mutant(
        "what a witness has seen is forgotten",
        _C,
        "                self._seen[name] = question.checkpoint.size\n",
        "",
        f"{_IC}::test_what_a_witness_has_seen_is_remembered",
    ),
    mutant(
        "an answer that is cut off is an answer",
        _H,
        '    if response.length:\n        raise HttpError("the answer is cut off")\n',
        "",
        f"{_IC}::test_a_lie_of_one_witness_is_not_counted_and_not_believed",
    ),
)
