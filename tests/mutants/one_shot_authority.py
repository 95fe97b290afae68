"""Weakenings of the key authority: what it decides on, what it says, whom it believes; and of those who attest."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_ATTACKS = "tests/adversaries/test_authority_attacks.py"
_MACHINE_TESTS = "tests/unit/one_shot/test_authority_machine.py"
_SUM_TESTS = "tests/unit/runtime/test_masked_sum.py"
_ATTEST_TESTS = "tests/unit/cli/test_attest_cli.py"
_STATE_TESTS = "tests/unit/store/test_authority_state.py"
_HE_TESTS = "tests/unit/he"
_MACHINE = "secagg/protocol/one_shot/authority.py"
_RULES = "secagg/protocol/one_shot/authority_rules.py"
_COMMITTED = "secagg/protocol/one_shot/committed.py"
_HOST = "secagg/runtime/key_authority.py"
_SUM = "secagg/runtime/masked_sum.py"

MUTANTS: tuple[Mutant, ...] = (
    # Waits for the uploads of the others and cancels them.
    mutant(
        "a list of commitments may come after a second copy of the open entry",
        _COMMITTED,
        "        if header.opened_at != opened_at:",
        "        if header.opened_at < 0:",
        "tests/adversaries/test_authority_more_attacks.py::"
        "test_a_second_list_after_a_second_copy_of_the_open_entry_is_never_answered",
    ),
    mutant(
        "the key outlives a session whose end was seen",
        _HOST,
        "                if error.reason is RejectReason.SESSION_OVER:",
        "                if error.reason is RejectReason.ABORTED:",
        "tests/adversaries/test_authority_more_attacks.py::"
        "test_a_session_whose_abort_the_authority_has_seen_is_over_for_it",
    ),
    mutant(
        "a call that is cut off lets the next one in before its commit has landed",
        _HOST,
        "                await driver.close(())",
        "                pass",
        "tests/adversaries/test_authority_more_attacks.py::"
        "test_who_asks_after_a_call_that_was_cut_off_while_it_wrote_waits_until_that_has_landed",
    ),
    mutant(
        "attestors sign what nobody witnessed",
        "secagg/cli/attest.py",
        "        if policy.log.is_met_by(()):",
        "        if policy is None:",
        "tests/adversaries/test_authority_more_attacks.py::test_attestors_sign_nothing_of_a_log_that_nobody_witnessed",
    ),
    mutant(
        "a call may be silent for ever",
        "secagg/services/authority.py",
        "        async with asyncio.timeout(self._limits.message_s):",
        "        async with asyncio.timeout(None):",
        "tests/adversaries/test_authority_more_attacks.py::"
        "test_strangers_that_open_calls_and_say_nothing_keep_nobody_out",
    ),
    mutant(
        "a list of commitments may be longer than a session takes",
        _RULES,
        "    if committed.count > parameters.encoding.max_contributors:",
        "    if committed.count < 0:",
        "tests/adversaries/test_authority_more_attacks.py::"
        "test_a_list_of_commitments_longer_than_a_session_takes_is_not_read",
    ),
    mutant(
        "an authority opens what was not committed to",
        _RULES,
        "places = {leaf: place for place, leaf in enumerate(committed)}",
        "places = {leaf: place for place, leaf in enumerate(contributions)}",
        f"{_ATTACKS}::test_the_isolating_upload_does_not_count_because_it_was_not_committed_to",
    ),
    mutant(
        "a commitment to the digests of another counts",
        _COMMITTED,
        "        digests.update(own)\n",
        "        digests.add(header.identity)\n",
        f"{_ATTACKS}::test_who_commits_to_the_digests_of_a_victim_before_it_sent_them_counts_for_nothing",
    ),
    # Makes the decryption depend on the key.
    mutant(
        "an authority speaks before it certifies",
        _MACHINE,
        "masked.certified(secret_sum)",
        "masked.lanes.copy()",
        f"{_ATTACKS}::test_what_a_malformed_ciphertext_decrypts_to_is_certified_first_and_never_said",
        f"{_ATTACKS}::test_lanes_and_ciphertext_that_do_not_belong_together_are_refused_for_good",
    ),
    mutant(
        "one key serves every session",
        _MACHINE,
        "key = DecryptionKey.generate(rng)",
        "key = DecryptionKey(Secret(bytes(128)))",
        f"{_ATTACKS}::test_every_session_has_a_key_of_its_own",
    ),
    mutant(
        "a refusal is no answer",
        _MACHINE,
        "return Transition(Refused(event.close, event.reason))",
        "return Transition(state)",
        f"{_ATTACKS}::test_what_a_malformed_ciphertext_decrypts_to_is_certified_first_and_never_said",
    ),
    # Asks twice.
    mutant(
        "an authority answers a second close",
        _MACHINE,
        "case Deciding() | Answered() | Refused() if state.close != close:",
        "case Deciding() | Answered() | Refused() if not state.close:",
        f"{_ATTACKS}::test_a_second_closed_set_is_refused_whichever_came_first",
        f"{_ATTACKS}::test_after_a_crash_between_decision_and_answer_the_decided_set_is_answered_and_no_other",
    ),
    mutant(
        "an authority decides in memory only",
        _HOST,
        "deciding = await driver.feed(closed)",
        "deciding = driver._live = authority.step(self.own, driver.state, closed).state",
        f"{_ATTACKS}::test_what_it_decided_is_durable_before_anything_is_decrypted",
    ),
    mutant(
        "an authority forgets the log that it saw",
        _HOST,
        "self._remember(asked, request)",
        "str(request.files)",
        f"{_ATTACKS}::test_a_fork_of_the_log_that_was_seen_is_refused",
    ),
    mutant(
        "a session that was aborted is opened all the same",
        _RULES,
        "if view.result is not None or view.abort is not None:",
        "if view.result is not None:",
        f"{_ATTACKS}::test_a_session_that_has_ended_is_not_opened_any_more",
    ),
    mutant(
        "a restored authority goes on with the sessions of the backup",
        "secagg/store/institution_state.py",
        "        return mark_restored(database)\n",
        "        return 0\n",
        f"{_STATE_TESTS}::test_a_state_that_is_gone_emptied_or_a_copy_is_refused_until_it_is_accepted_without_its_sessions",
    ),
    # Whom it serves.
    mutant(
        "keys are made for everybody",
        _MACHINE,
        "if coordinator not in authority.policy.coordinators:",
        "if not coordinator:",
        f"{_ATTACKS}::test_a_key_is_made_for_nobody_that_it_does_not_serve",
    ),
    mutant(
        "an authority opens the sessions of another",
        _RULES,
        "if opener_of(parameters).identity != authority.key.public_bytes:",
        "if not opener_of(parameters).identity:",
        f"{_ATTACKS}::test_a_session_that_it_does_not_serve_is_not_opened",
    ),
    mutant(
        "any registrar will do for an authority",
        _RULES,
        "if policy.registrars and parameters.registrar not in policy.registrars:",
        "if policy.registrars and not parameters.registrar:",
        f"{_ATTACKS}::test_a_session_that_it_does_not_serve_is_not_opened",
    ),
    mutant(
        "an authority has no floor of its own",
        _RULES,
        "if parameters.min_contributors < policy.min_contributors:",
        "if parameters.min_contributors < 2:",
        f"{_ATTACKS}::test_a_session_that_it_does_not_serve_is_not_opened",
    ),
    mutant(
        "a key opens a session with another context",
        _RULES,
        "if opener_of(parameters).context != made.context:",
        "if not opener_of(parameters).context:",
        f"{_ATTACKS}::test_a_session_that_it_does_not_serve_is_not_opened",
    ),
    mutant(
        "a key opens another session",
        _RULES,
        "if (parameters.session, parameters.coordinator) != (made.session, made.coordinator):",
        "if not parameters.session:",
        f"{_MACHINE_TESTS}::test_the_key_belongs_to_session_coordinator_and_context",
    ),
    mutant(
        "an authority asks for no witnesses",
        _RULES,
        "view = log.join(parameters, authority.policy.log, request.files.evidence)",
        "view = log.join(parameters, authority.policy.log.without_witnesses(), request.files.evidence)",
        f"{_ATTACKS}::test_a_log_that_its_own_witnesses_did_not_cosign_is_refused",
    ),
    mutant(
        "an authority takes a roster that nobody signed",
        _RULES,
        "verify_statement(parameters.registrar, files.roster_head, files.roster_signature)",
        "head.to_bytes()",
        f"{_ATTACKS}::test_a_roster_that_its_registrar_did_not_sign_is_refused",
    ),
    # The closed set.
    mutant(
        "an authority opens sums of fewer than the minimum",
        _RULES,
        "if count < parameters.min_contributors:",
        "if count < 2:",
        f"{_ATTACKS}::test_fewer_than_the_sessions_minimum_are_not_opened",
    ),
    mutant(
        "an authority opens sums of more than the masks are for",
        _RULES,
        "if count > parameters.encoding.max_contributors:",
        "if count < 0:",
        f"{_MACHINE_TESTS}::test_more_than_the_session_takes_are_not_opened",
    ),
    mutant(
        "a stranger's commitment counts",
        _COMMITTED,
        "position = session.positions.get(header.identity)",
        "position = session.positions.get(header.identity, len(session.positions))",
        f"{_ATTACKS}::test_a_contribution_of_a_stranger_is_not_opened",
    ),
    mutant(
        "a commitment that its identity did not sign counts",
        _COMMITTED,
        "    check_signature(signed, header.identity)\n",
        "    check_statement_session(signed.statement, session)\n",
        f"{_ATTACKS}::test_a_contribution_that_its_identity_did_not_sign_is_not_opened",
    ),
    mutant(
        "contributions of a closed set may repeat",
        _RULES,
        "if place <= before:",
        "if place < 0:",
        f"{_ATTACKS}::test_a_contribution_counts_once",
        f"{_ATTACKS}::test_contributions_stand_in_the_order_of_the_roster",
    ),
    mutant(
        "the close may count others than there are",
        _RULES,
        "if len(contributions) != asked.close.count:",
        "if not contributions:",
        f"{_ATTACKS}::test_a_count_that_is_not_the_lists_is_refused",
    ),
    mutant(
        "the closed set need not be the one of the log",
        _RULES,
        'check_root("contributions", asked.close.contributions, contributions)',
        'str("contributions")',
        f"{_ATTACKS}::test_what_is_not_what_the_log_says_is_refused",
    ),
    mutant(
        "any limb sum is the one of the log",
        _SUM,
        "if not hmac.compare_digest(self._hash.digest(), self._digest):",
        "if not self._digest:",
        f"{_ATTACKS}::test_what_is_not_what_the_log_says_is_refused",
    ),
    mutant(
        "every shard of a limb sum may hold all contributions",
        _SUM,
        "block = LimbSum.from_entries(entries, self._shards[shard])",
        "block = LimbSum.from_entries(entries, sum(self._shards))",
        f"{_SUM_TESTS}::test_an_entry_out_of_range_is_refused_as_it_comes_in_its_own_shard",
    ),
    mutant(
        "an authority certifies limb sums out of range",
        _SUM,
        "block = LimbSum.from_entries(entries, self._shards[shard])",
        "block = LimbSum.from_entries(entries, 1 << 16)",
        f"{_ATTACKS}::test_a_limb_sum_that_so_many_contributions_cannot_add_up_to_is_refused",
    ),
    # Ciphertext and attestations.
    mutant(
        "any ciphertext is the one of the close",
        _RULES,
        "if hashlib.sha256(request.ciphertext_sum).digest() != close.opener.digest:",
        "if not request.ciphertext_sum:",
        f"{_ATTACKS}::test_the_sum_of_another_sets_ciphertexts_is_not_decrypted",
    ),
    mutant(
        "anybody attests",
        _RULES,
        "if identity in policy.attestors and signed.statement == due and _is_signed(signed):",
        "if signed.statement == due and _is_signed(signed):",
        f"{_ATTACKS}::test_attestors_of_the_session_that_it_is_not_configured_with_count_for_nothing",
    ),
    mutant(
        "an attestation of anything counts",
        _RULES,
        "if identity in policy.attestors and signed.statement == due and _is_signed(signed):",
        "if identity in policy.attestors and due and _is_signed(signed):",
        f"{_ATTACKS}::test_fewer_different_attestors_than_it_asks_for_are_too_few",
        f"{_ATTACKS}::test_a_sum_that_the_close_binds_and_no_attestor_recomputed_is_not_decrypted",
    ),
    mutant(
        "attestations are not verified",
        _RULES,
        "if identity in policy.attestors and signed.statement == due and _is_signed(signed):",
        "if identity in policy.attestors and signed.statement == due:",
        f"{_ATTACKS}::test_fewer_different_attestors_than_it_asks_for_are_too_few",
    ),
    mutant(
        "an attestor counts as often as it is shown",
        _RULES,
        "vouching.add(identity)",
        "vouching.add(identity + bytes([len(vouching)]))",
        f"{_ATTACKS}::test_fewer_different_attestors_than_it_asks_for_are_too_few",
    ),
    mutant(
        "a session says how many attestations an authority wants",
        _RULES,
        "needed = max(policy.attestations, opener_of(parameters).attestations)",
        "needed = opener_of(parameters).attestations",
        f"{_ATTACKS}::test_a_session_that_asks_for_fewer_attestations_than_the_authority_is_held_to_the_authoritys_number",
    ),
    mutant(
        "an authority wants fewer attestations than its session",
        _RULES,
        "needed = max(policy.attestations, opener_of(parameters).attestations)",
        "needed = policy.attestations",
        f"{_ATTACKS}::test_a_session_that_asks_for_more_attestations_than_the_authority_is_held_to_that",
    ),
    mutant(
        "an attestor signs what could not be checked",
        "secagg/cli/attest.py",
        "if report.verdict.exit_code:",
        "if report.verdict.exit_code == 1:",
        f"{_ATTEST_TESTS}::test_it_signs_nothing_if_a_check_fails_or_cannot_be_made",
    ),
    mutant(
        "an attestor signs another sum than it added up",
        "secagg/cli/attest.py",
        "if not isinstance(opener, SummedCiphertext) or digest != opener.digest:",
        "if not isinstance(opener, SummedCiphertext):",
        f"{_ATTEST_TESTS}::test_a_close_that_binds_another_sum_is_not_signed_whatever_was_checked_before",
    ),
    # The coordinator's side.
    mutant(
        "any key that an authority signed is the one of this session",
        "secagg/runtime/institutions.py",
        "if statement != PreparedKey(session, coordinator, identity, digest):",
        "if not statement.identity:",
        f"{_MACHINE_TESTS}::test_a_prepared_key_is_checked_against_session_coordinator_and_authority",
    ),
    # The encryption.
    mutant(
        "sums of ciphertexts are not reduced",
        "secagg/he/ciphertext_sum.py",
        "np.minimum(self._total, self._total - _MODULUS, out=self._total)",
        "self._total.sort(axis=-1) if not self._total.size else None",
        f"{_HE_TESTS}/test_bfv.py::test_sums_are_reduced_after_every_addition_whatever_the_residues",
    ),
    mutant(
        "a residue may be the modulus",
        "secagg/he/residues.py",
        "if (residues >= np.uint64(MODULUS)).any():",
        "if (residues > np.uint64(MODULUS)).any():",
        f"{_HE_TESTS}/test_residues.py::test_what_is_no_ciphertext_is_refused_by_all_who_read_one",
    ),
    mutant(
        "a ciphertext in the clear is a ciphertext",
        "secagg/he/residues.py",
        "if not residues[1].any():",
        "if not residues.any():",
        f"{_HE_TESTS}/test_residues.py::test_what_is_no_ciphertext_is_refused_by_all_who_read_one",
    ),
    mutant(
        "keys are made at whatever level SEAL allows",
        "secagg/he/seal.py",
        "api.SEC_LEVEL_TYPE.TC192",
        "api.SEC_LEVEL_TYPE.TC128",
        f"{_HE_TESTS}/test_bfv.py::test_the_context_is_batching_at_192_bits_with_ciphertexts_under_the_keys_own_modulus",
    ),
)
