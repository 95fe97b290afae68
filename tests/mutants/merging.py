"""Weakenings of the rules of merges that take two sessions."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_ATTACKS = "tests/adversaries/test_two_session.py"
_DROPS = f"{_ATTACKS}::TestDropsSomebodyInTheSecondSession"
_OPENERS = f"{_ATTACKS}::TestAsksOpenersForFewer"
_HONEST = f"{_ATTACKS}::TestTheHonestCoordinator"
_LIES = f"{_ATTACKS}::TestLiesAboutTheFirstSession"
_WHO = f"{_ATTACKS}::TestWhoMayTakePart"
_ADAPTER = f"{_ATTACKS}::TestTheSameAdapterOnce"
_UNIT = "tests/unit/protocol/test_second.py"
_PAIRWISE, _ONE_SHOT = "secagg/protocol/pairwise", "secagg/protocol/one_shot"
_LIBRARY = "secagg/second_session.py"
_MERGE = "tests/adversaries/test_merge_attacks.py"
_CUT = f"{_MERGE}::TestChoosesWhatIsCut"

MUTANTS: tuple[Mutant, ...] = (
    # The set is the first one's, for whoever releases anything over it.
    mutant(
        "any second set will do",
        "secagg/protocol/session.py",
        "contributors_digest(identities) != merge.contributors",
        "not contributors_digest(identities)",
        f"{_DROPS}::test_nobody_confirms_or_unmasks_a_sum_without_one_of_them",
    ),
    mutant(
        "clients confirm a close without somebody of the first session",
        f"{_PAIRWISE}/lists.py",
        "    session.check_contributors(members[index] for index in accepted)\n",
        "",
        f"{_DROPS}::test_nobody_confirms_or_unmasks_a_sum_without_one_of_them",
    ),
    mutant(
        "clients share keys among fewer than the first session had",
        f"{_PAIRWISE}/lists.py",
        "    session.check_contributors(statement.identity for statement in statements)\n",
        "",
        f"{_DROPS}::test_nobody_shares_keys_among_fewer",
    ),
    mutant(
        "clients mask inputs among fewer than the first session had",
        f"{_PAIRWISE}/lists.py",
        "    session.check_contributors(statement.identity for statement in statements if statement is not None)\n",
        "",
        f"{_DROPS}::test_nobody_masks_an_input_among_fewer",
    ),
    mutant(
        "a member adds up the shares of any set",
        f"{_ONE_SHOT}/member.py",
        "    context.session.check_contributors(",
        "    frozenset(",
        f"{_OPENERS}::test_no_member_adds_up_shares_without_one_of_them",
    ),
    mutant(
        "an authority decrypts the sum of any set",
        f"{_ONE_SHOT}/authority_rules.py",
        "    asked.session.check_contributors(",
        "    frozenset(",
        f"{_OPENERS}::test_no_authority_decrypts_the_sum_of_fewer",
    ),
    mutant(
        "clients upload after a list of fewer",
        f"{_ONE_SHOT}/committed.py",
        "    session.check_contributors(found)\n",
        "",
        f"{_OPENERS}::test_nobody_uploads_after_a_list_of_fewer",
    ),
    mutant(
        "who comes back does not look who is in the sum",
        "secagg/participation.py",
        "        self.details.session.check_contributors(",
        "        frozenset(",
        f"{_OPENERS}::test_who_comes_back_for_the_sum_is_told_that_it_is_over_fewer",
    ),
    # The honest coordinator ends early, and spares nobody.
    mutant(
        "keys are shared although somebody did not come",
        f"{_PAIRWISE}/coordinator.py",
        "if not session.is_whole(positions):",
        "if not positions:",
        f"{_HONEST}::test_ends_a_pairwise_session_in_the_phase_in_which_somebody_is_missing",
    ),
    mutant(
        "inputs are uploaded although somebody shared no keys",
        f"{_PAIRWISE}/coordinator.py",
        "if not moment.session.is_whole([state.cohort.positions[index] for index in present]):",
        "if not present:",
        f"{_HONEST}::test_ends_a_pairwise_session_in_the_phase_in_which_somebody_is_missing",
    ),
    mutant(
        "a pairwise set is closed without somebody",
        f"{_PAIRWISE}/coordinator.py",
        "if not moment.session.is_whole([state.cohort.positions[index] for index in headers]):",
        "if not headers:",
        f"{_HONEST}::test_ends_a_pairwise_session_in_the_phase_in_which_somebody_is_missing",
    ),
    mutant(
        "a one-shot set is closed without somebody",
        f"{_ONE_SHOT}/coordinator.py",
        "if not session.is_whole(accepted):",
        "if not session.parameters:",
        f"{_HONEST}::test_ends_a_committee_s_session_when_an_upload_is_missing",
    ),
    mutant(
        "members are waited for although an upload is missing",
        f"{_ONE_SHOT}/coordinator.py",
        " or not moment.session.is_whole(staged):",
        ":",
        f"{_HONEST}::test_ends_a_committee_s_session_when_an_upload_is_missing",
    ),
    mutant(
        "uploads are asked for although somebody did not commit",
        f"{_ONE_SHOT}/coordinator.py",
        "if not moment.session.is_whole(tables.positions(moment.rows, RowKind.COMMITMENT)):",
        "if not leaves:",
        f"{_HONEST}::test_ends_an_authority_s_session_when_a_commitment_is_missing",
    ),
    mutant(
        "contributors are spared for the sake of a member",
        "secagg/protocol/session.py",
        "return 0 if isinstance(self.parameters.merge, ProjectionMerge) else self.parameters.max_corrupt",
        "return self.parameters.max_corrupt",
        f"{_HONEST}::test_does_without_a_member_rather_than_without_a_contributor",
    ),
    # Contributors believe nothing of the first session.
    mutant(
        "contributors take the coordinator's word for who was in the first sum",
        "secagg/protocol/second.py",
        "if contributors_digest(first.contributors) != merge.contributors:",
        "if not first.contributors:",
        f"{_LIES}::test_contributors_refuse_before_they_send_anything",
    ),
    mutant(
        "contributors project on any basis",
        "secagg/protocol/second.py",
        "if first.basis is None or merge.fixed != first.basis:",
        "if first.basis is None:",
        f"{_LIES}::test_contributors_refuse_before_they_send_anything",
    ),
    mutant(
        "the second session may be any session",
        "secagg/protocol/second.py",
        "    attempt_of(parameters.session, before.session)\n",
        "",
        f"{_UNIT}::test_what_all_sessions_say_is_the_same",
    ),
    mutant(
        "the seed of a second session is free",
        "secagg/protocol/second.py",
        '        ("merge.seed", merge.seed, before.seed),\n'
        '        ("merge.columns", merge.columns, before.columns),\n'
        '        ("merge.update_norm", merge.update_norm, before.update_norm),\n'
        '        ("merge.sides"',
        '        ("merge.columns", merge.columns, before.columns),\n'
        '        ("merge.update_norm", merge.update_norm, before.update_norm),\n'
        '        ("merge.sides"',
        f"{_UNIT}::test_what_both_merges_say_is_the_same",
    ),
    mutant(
        "pilots may be drawn anew",
        "secagg/protocol/second.py",
        '        ("merge.share", merge.share, before.share),\n',
        "",
        f"{_UNIT}::test_pilots_are_drawn_alike_in_both",
    ),
    mutant(
        "what was seen of the first session is not held against the log",
        _LIBRARY,
        "        log.extend(seen, first, source.log_policy, follows.evidence)\n",
        "",
        f"{_LIES}::test_who_saw_another_first_session_refuses",
    ),
    mutant(
        "a one-shot first session may be forked",
        _LIBRARY,
        "and source.log_policy.is_met_by(()):",
        "and not source.log_policy:",
        f"{_LIES}::test_after_a_one_shot_session_the_log_needs_witnesses",
    ),
    mutant(
        "fixed tensors may be any",
        "secagg/lora/fixed.py",
        'if hashlib.sha256(data).digest() != (fixed_digest(merge) or hashlib.sha256(b"").digest()):',
        "if not data and fixed_digest(merge):",
        f"{_ATTACKS}::test_the_published_basis_is_what_everybody_projects_on",
    ),
    mutant(
        "another adapter may be contributed to the second session",
        _LIBRARY,
        "if is_begun and before != digest:",
        "if is_begun and not digest:",
        f"{_ADAPTER}::test_another_adapter_is_refused_in_the_second_session",
    ),
    mutant(
        "who goes on in the first session may change its adapter",
        _LIBRARY,
        "is_begun = isinstance(merge, ProjectionMerge) or await keeper.sealed.load(session) is not None",
        "is_begun = isinstance(merge, ProjectionMerge)",
        f"{_ADAPTER}::test_until_it_has_joined_somebody_may_change_its_adapter",
    ),
    mutant(
        "two attempts may both get a sum",
        _LIBRARY,
        "if view.abort is None or may_show:",
        "if may_show:",
        f"{_ADAPTER}::test_another_attempt_is_joined_only_after_one_that_failed",
    ),
    mutant(
        "an attempt of pilot-basis that was closed counts for nothing",
        _LIBRARY,
        "if view.abort is None or may_show:",
        "if view.abort is None:",
        f"{_ADAPTER}::test_after_a_close_there_is_no_other_attempt_of_pilot_basis",
    ),
    # The coordinator opens no other second session.
    mutant(
        "any second session is opened",
        "secagg/runtime/following.py",
        "    check_follows(parameters, first)\n",
        "",
        f"{_LIES}::test_the_operator_s_service_opens_no_such_session",
    ),
    mutant(
        "attempts are opened side by side",
        "secagg/runtime/following.py",
        "if other.status().phase is not Phase.ABORTED:",
        "if other.status().phase is Phase.FINISHED:",
        f"{_LIES}::test_the_operator_s_service_opens_no_such_session",
    ),
    mutant(
        "the operator may hand over another basis",
        "secagg/services/operator.py",
        "if follows is not None and sent:",
        "if follows is not None and not follows.fixed:",
        f"{_LIES}::test_the_operator_s_service_opens_no_such_session",
    ),
    mutant(
        "frozen tensors are taken as they come",
        "secagg/services/operator.py",
        "    merging.with_fixed(sent if follows is None else blobs.get(follows.fixed))\n",
        "",
        f"{_LIES}::test_frozen_tensors_are_those_that_the_open_entry_names",
    ),
    mutant(
        "frozen tensors of a large model do not fit a request",
        "secagg/services/server.py",
        "self._at_socket(OPERATOR_SOCKET, OPERATOR_REQUEST_BYTES)",
        "self._at_socket(OPERATOR_SOCKET, LARGE_MESSAGE_BYTES)",
        f"{_LIES}::test_frozen_tensors_are_those_that_the_open_entry_names",
    ),
    mutant(
        "a session is opened for fewer pilots than it needs",
        "secagg/services/operator.py",
        "if session.most_contributors < parameters.min_contributors:",
        "if session.most_contributors < 0:",
        f"{_WHO}::test_no_session_is_opened_for_fewer_pilots_than_it_needs",
    ),
    # Who may take part.
    mutant(
        "strangers may join a second session",
        "secagg/protocol/session.py",
        "if self.contributors is not None and identity not in self.contributors:",
        "if self.contributors is not None and not identity:",
        f"{_WHO}::test_strangers_cannot_spoil_the_second_session",
    ),
    mutant(
        "after a restart strangers may join",
        "secagg/runtime/registry.py",
        "return session_of(_parameters(stored), roster, only)",
        "return session_of(_parameters(stored), roster, only and None)",
        f"{_WHO}::test_strangers_cannot_spoil_the_second_session",
    ),
    mutant(
        "uploads of strangers are taken",
        f"{_ONE_SHOT}/admission.py",
        "    check_admitted(session, signed.statement.identity)\n    if isinstance(session.opening, KeyAuthority):",
        "    if isinstance(session.opening, KeyAuthority):",
        f"{_WHO}::test_the_coordinator_of_a_one_shot_session_takes_nothing_of_a_stranger",
    ),
    mutant(
        "commitments of strangers are taken",
        f"{_ONE_SHOT}/admission.py",
        "            check_admitted(session, signed.statement.identity)\n",
        "",
        f"{_WHO}::test_the_coordinator_takes_no_commitment_of_a_stranger",
    ),
    mutant(
        "the coordinator may be told other contributors than the open entry names",
        "secagg/protocol/session.py",
        "            self.check_contributors(self.contributors)\n",
        "            self.contributors.union()\n",
        f"{_WHO}::test_who_may_take_part_cannot_be_other_than_the_open_entry_says",
    ),
    mutant(
        "who was not in the first sum contributes to the second",
        _LIBRARY,
        "if identity not in first.contributors:",
        "if not first.contributors:",
        f"{_WHO}::test_strangers_cannot_spoil_the_second_session",
    ),
    mutant(
        "who is no pilot joins the pilots",
        f"{_PAIRWISE}/client.py",
        "if not context.session.admits(context.identity.public_bytes):",
        "if not context.session.positions:",
        f"{_WHO}::test_pilots_refuse_the_second_session_and_others_the_first",
    ),
    mutant(
        "who is no pilot joins a one-shot session of pilots",
        f"{_ONE_SHOT}/client.py",
        "if not session.admits(context.identity.public_bytes):",
        "if not session.positions:",
        f"{_WHO}::test_only_pilots_join_a_one_shot_session_of_pilots",
    ),
    mutant(
        "the coordinator takes keys of whoever is no pilot",
        f"{_PAIRWISE}/admission.py",
        "    check_admitted(session, statement.identity)\n",
        "",
        f"{_WHO}::test_a_coordinator_takes_no_keys_of_whoever_is_no_pilot",
    ),
    # What is sent is linear, whatever the coordinator chooses.
    mutant(
        "a coordinator multiplies what is sent by anything",
        "secagg/lora/merging.py",
        "        check_scales(parameters.merge, merging.manifest)\n",
        "",
        f"{_CUT}::test_a_scale_between_three_people_would_show_the_smallest",
    ),
    mutant(
        "what is sent of a frozen adapter is multiplied by anything",
        "secagg/lora/fixed.py",
        "    check_frozen_scales(merge, manifest, tensors)\n",
        "",
        f"{_CUT}::test_nor_is_what_is_sent_where_a_is_frozen",
    ),
    mutant(
        "one of two sums over the same people clips some of them",
        "secagg/lora/linearity.py",
        "if encoding.clip_norm**2 < encoding.dimension:",
        "if encoding.clip_norm <= 0:",
        f"{_CUT}::test_two_sums_over_the_same_people_would_show_who_is_clipped_in_one",
    ),
    mutant(
        "messages are clamped to any range",
        "secagg/lora/linearity.py",
        "encoding.flatten.bound < 1:",
        "encoding.flatten.bound <= 0:",
        f"{_CUT}::test_no_range_smaller_than_a_message_is_taken",
    ),
    mutant(
        "factors are clamped to any range",
        "secagg/lora/merging.py",
        "        check_factor_encoding(parameters.encoding)\n",
        "",
        f"{_CUT}::test_factors_are_not_clamped_coordinate_by_coordinate",
    ),
    mutant(
        "contributors project on anything",
        "secagg/lora/fixed.py",
        "            check_orthonormal(name, tensors[name])\n",
        "            check_orthonormal(name, np.eye(1))\n",
        f"{_CUT}::test_bases_are_orthonormal",
    ),
    mutant(
        "an attempt that was seen closed can be shown as one that never was",
        _LIBRARY,
        "            _check_continues(await keeper.view_of(session), view)\n",
        "",
        f"{_MERGE}::TestShowsAnotherLogOfAnAttempt::test_an_attempt_that_was_seen_closed_is_not_forgotten",
    ),
    mutant(
        "a probe multiplies a module by anything",
        "secagg/lora/reconstruction.py",
        "min(MOST_SCALAR, max(0.0, float(np.sum(probe * seen)) / own))",
        "max(0.0, float(np.sum(probe * seen)) / own)",
        f"{_MERGE}::TestOneContributorLies::test_a_lying_probe_does_not_blow_up_what_it_calibrates",
    ),
    mutant(
        "who is clamped takes part in both of two sums over the same people",
        "secagg/lora/messages.py",
        "    if clamped and isinstance(maps.merge, RangeMerge | ProjectionMerge):\n",
        "    if clamped < 0:\n",
        f"{_CUT}::test_who_would_be_clamped_in_one_of_two_sums_stays_away",
    ),
    mutant(
        "the second of two sums over the same people has less room than the first",
        "secagg/lora/pieces.py",
        "_second_scale_of(piece, module, merge.update_norm)",
        "scale_of(piece, module, merge.update_norm)",
        f"{_CUT}::test_two_honest_sums_over_the_same_people_agree_whatever_they_trained",
    ),
    mutant(
        "contributors fetch as many fixed tensors as a manifest asks for",
        "secagg/lora/fixed.py",
        "return min(MAX_FILE_BYTES, _HEADER_ROOM_BYTES + data_bytes)",
        "return _HEADER_ROOM_BYTES + data_bytes",
        f"{_MERGE}::TestAsksForTooMuch::test_nobody_fetches_more_fixed_tensors_than_a_file_can_have",
    ),
    mutant(
        "hardly any noise lets two sums over the same people clip as they like",
        "secagg/protocol/session.py",
        "if self.allowance is None and is_noisy and isinstance(parameters.merge, RangeMerge | ProjectionMerge):",
        "if self.allowance is None and is_noisy and isinstance(parameters.merge, str):",
        f"{_CUT}::test_hardly_any_noise_is_no_way_around",
    ),
)
