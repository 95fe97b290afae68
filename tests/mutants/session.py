"""Weakenings of the session: machines, derivations, the linear hash at work."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_COORDINATOR = "tests/adversaries/test_lying_coordinator.py"
_CLIENTS = "tests/adversaries/test_lying_clients.py"
_FINDINGS = "tests/adversaries/test_findings.py"
_ONE_HOT = "tests/adversaries/test_one_hot_sums.py"
_PAIRWISE = "secagg/protocol/pairwise"
_ATTACKS = "tests/adversaries/test_log_attacks.py"

MUTANTS: tuple[Mutant, ...] = (
    # Lists a neighbour as alive to some and dropped to others.
    mutant(
        "another close is confirmed and nobody minds",
        f"{_PAIRWISE}/client.py",
        "if statement.close != close:",
        "if not statement.close:",
        f"{_COORDINATOR}::TestListsANeighbourAsAliveToSomeAndDroppedToOthers::"
        "test_one_confirmation_of_another_close_shows_the_fork",
    ),
    mutant(
        "confirmations are not verified",
        f"{_PAIRWISE}/client.py",
        "        session.once(check_signature, signed, statement.identity)\n        confirmed.add",
        "        confirmed.add",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_forged_confirmations_are_refused",
    ),
    mutant(
        "half of the neighbours is a threshold",
        "secagg/derive/threshold.py",
        "return (degree + corrupt) // 2 + 1",
        "return degree // 2 + 1",
        f"{_COORDINATOR}::TestGrindsTheCohort",
    ),
    # Forges pair-seed boxes towards the highest index; forwards a box to the wrong client.
    mutant(
        "boxes need not be under the signed root",
        f"{_PAIRWISE}/dealing.py",
        "merkle.verify_inclusion(leaf, position, len(recipients), item.path, statement.boxes)",
        "len(recipients) > position",
        f"{_COORDINATOR}::TestForgesBoxes::test_a_box_for_somebody_else_is_refused",
    ),
    mutant(
        "the signed root does not cover pair boxes",
        "secagg/derive/boxes.py",
        "hashlib.sha256(pair_box).digest()",
        'hashlib.sha256(b"").digest()',
        f"{_COORDINATOR}::TestForgesBoxes::test_a_pair_seed_forged_towards_the_highest_index_is_under_no_root",
    ),
    mutant(
        "a box may hold something else than was promised",
        f"{_PAIRWISE}/dealing.py",
        "if promised != item.commitments:",
        "if not promised:",
        f"{_CLIENTS}::TestADealer::test_of_boxes_that_do_not_open_to_what_was_promised_is_left_out_alone",
    ),
    # Withholds boxes to thin the graph.
    mutant(
        "boxes may be withheld",
        f"{_PAIRWISE}/dealing.py",
        "if [item.sender for item in inbox] != expected:",
        "if len(inbox) > len(expected):",
        f"{_COORDINATOR}::TestThinsTheGraph::test_withholding_one_box_is_refused",
    ),
    mutant(
        "a client masks with however few neighbours",
        f"{_PAIRWISE}/client.py",
        "if len(received) < dealer.threshold:",
        "if not received:",
        f"{_COORDINATOR}::TestThinsTheGraph::test_declaring_neighbours_absent_stops_the_client_below_the_threshold",
    ),
    mutant(
        "the absent are counted as present",
        f"{_PAIRWISE}/lists.py",
        "if present != entry.count:",
        "if present > entry.count:",
        f"{_COORDINATOR}::TestThinsTheGraph::test_counting_the_absent_as_present_is_refused",
    ),
    # Logs two closes.
    mutant(
        "a log may hold a second close",
        "secagg/protocol/log.py",
        "elif position >= len(order) or not _is_of(entry, order[position]):",
        "elif position < 4 and not _is_of(entry, order[position]):",
        f"{_COORDINATOR}::TestLogsTwoCloses::test_a_second_close_in_one_log_is_refused",
    ),
    mutant(
        "a log need not continue what was seen",
        "secagg/protocol/log.py",
        "if before != (view.start, view.prefix, view.segment):",
        "if not before:",
        f"{_COORDINATOR}::TestLogsTwoCloses::test_a_log_that_is_not_what_the_client_saw_is_refused",
    ),
    mutant(
        "anybody signs the log",
        "secagg/crypto/notes.py",
        '        raise NoteError("signature", "of a known key does not verify") from None',
        "        return",
        f"{_COORDINATOR}::TestSignsWhatItShouldNot::test_a_head_under_another_key_is_refused",
    ),
    mutant(
        "a quarter is a quorum",
        "secagg/derive/threshold.py",
        "return (cohort + max_corrupt) // 2 + 1",
        "return (cohort + max_corrupt) // 4 + 1",
        f"{_FINDINGS}::test_no_forked_log_opens_a_sum_below_the_minimum",
    ),
    mutant(
        "a client counts itself twice towards the quorum",
        f"{_PAIRWISE}/client.py",
        "if len(confirmed) + 1 < quorum:",
        "if len(confirmed) + 2 < quorum:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_a_quorum_is_enough_and_one_fewer_is_not",
    ),
    mutant(
        "neighbours need not confirm",
        f"{_PAIRWISE}/client.py",
        "if len(neighbours) < threshold:",
        "if not threshold:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_a_quorum_without_enough_neighbours_opens_nothing",
    ),
    # Admits max_corrupt and grinds U1.
    mutant(
        "every other order of the circle may be a bad one",
        "secagg/derive/threshold.py",
        "PRIVACY_BITS = 128",
        "PRIVACY_BITS = 1",
        f"{_COORDINATOR}::TestGrindsTheCohort",
    ),
    # Asks twice with different sets; restarts in the middle and asks for the opposite share.
    mutant(
        "who answered remembers nothing of it",
        f"{_PAIRWISE}/client.py",
        "return Transition(answered, (Send(",
        "return Transition(state, (Send(",
        f"{_COORDINATOR}::TestAsksTwice::test_who_answered_answers_no_second_set",
        f"{_ONE_HOT}::TestNoOrderOfLiesOpensTwoSets::runTest",
    ),
    mutant(
        "who confirmed remembers nothing of it",
        f"{_PAIRWISE}/client.py",
        "return Transition(confirmed, (Send(ConfirmClose(",
        "return Transition(state, (Send(ConfirmClose(",
        f"{_COORDINATOR}::TestRestartsInTheMiddle::test_a_restarted_client_does_not_give_the_opposite_share",
    ),
    mutant(
        "who was left out may be asked again",
        f"{_PAIRWISE}/client.py",
        "return Transition(_aborted(state, view, RejectReason.LEFT_OUT))",
        "return Transition(state)",
        f"{_FINDINGS}::test_a_client_that_was_shown_a_close_without_it_confirms_no_other_close",
    ),
    mutant(
        "shares of contributors and of dropouts change places",
        f"{_PAIRWISE}/client.py",
        "        if held.index in accepted\n",
        "        if held.index not in accepted\n",
        f"{_CLIENTS}::TestDrops::test_between_header_and_upload_leave_an_exact_sum",
    ),
    # Replays an old close record.
    mutant(
        "entries of another session count",
        "secagg/protocol/log.py",
        "and entry.session == parameters.session:",
        "and entry.session:",
        f"{_COORDINATOR}::TestReplaysAnotherSession::test_an_old_close_entry_is_refused",
    ),
    mutant(
        "statements of another session count",
        "secagg/protocol/published.py",
        "if statement.session != session.digest:",
        "if not statement.session:",
        f"{_COORDINATOR}::TestReplaysAnotherSession",
        f"{_CLIENTS}::TestAContribution::test_with_a_wrong_header_is_refused",
    ),
    # Substitutes a key.
    mutant(
        "a client does not look at its own keys",
        f"{_PAIRWISE}/client.py",
        "if event.leaves[index] != state.sent.to_bytes():",
        "if not event.leaves[index]:",
        f"{_COORDINATOR}::TestSubstitutesKeys::test_an_own_key_with_a_stolen_signature_is_refused",
    ),
    mutant(
        "a neighbour's keys need not be the signed ones",
        f"{_PAIRWISE}/dealing.py",
        "if digests != (statement.mask_key, statement.share_key):",
        "if not digests:",
        f"{_COORDINATOR}::TestSubstitutesKeys::test_a_neighbours_key_that_is_not_the_signed_one_is_refused",
    ),
    mutant(
        "statements are not verified",
        "secagg/protocol/published.py",
        "verify_statement(identity, signed.statement.to_bytes(), signed.signature)",
        "bytes(signed.signature)",
        f"{_COORDINATOR}::TestSubstitutesKeys::test_a_neighbours_key_without_its_signature_is_refused",
    ),
    # Presents clients outside the roster.
    mutant(
        "anybody may be listed",
        f"{_PAIRWISE}/lists.py",
        "if statement.identity not in session.positions:",
        "if not statement.identity:",
        f"{_COORDINATOR}::TestPresentsClientsThatDoNotExist::test_an_identity_outside_the_roster_is_refused",
    ),
    mutant(
        "an identity may be listed twice",
        f"{_PAIRWISE}/lists.py",
        "if statements and statement.identity <= statements[-1].identity:",
        "if statements and statement.identity < statements[-1].identity:",
        f"{_COORDINATOR}::TestPresentsClientsThatDoNotExist::test_an_identity_that_is_listed_twice_is_refused",
    ),
    # Closes below the minimum.
    mutant(
        "one fewer than the minimum will do",
        f"{_PAIRWISE}/lists.py",
        "if len(accepted) < session.parameters.min_contributors:",
        "if len(accepted) < session.parameters.min_contributors - 1:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_fewer_than_the_minimum_are_refused",
    ),
    mutant(
        "the close entry says how many there are",
        f"{_PAIRWISE}/lists.py",
        "if counts != (entry.count, entry.rejected, entry.dropped):",
        "if counts[1:] != (entry.rejected, entry.dropped):",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::"
        "test_fewer_than_the_minimum_that_are_counted_as_enough_are_refused",
    ),
    mutant(
        "the coordinator closes below the minimum",
        f"{_PAIRWISE}/coordinator.py",
        "if len(headers) < moment.session.parameters.min_contributors:",
        "if not headers:",
        f"{_FINDINGS}::test_a_set_below_the_quorum_or_the_minimum_is_not_closed",
    ),
    mutant(
        "one end of an edge may go without its mask",
        f"{_PAIRWISE}/client.py",
        "if lists.asymmetric_edges(graph, headers):",
        "if not headers:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::"
        "test_a_contribution_masked_without_an_honest_neighbour_is_refused",
    ),
    mutant(
        "a contribution may rest on another list of shared keys",
        f"{_PAIRWISE}/lists.py",
        "if header.shared != shared:",
        "if not header.shared:",
        f"{_COORDINATOR}::TestClosesWhatMustNotBeClosed::test_a_contribution_over_another_u2_is_refused",
    ),
    # A client that sends wrong shares.
    mutant(
        "any share is an answer",
        f"{_PAIRWISE}/admission.py",
        "if not fits:",
        "if fits is None:",
        f"{_CLIENTS}::TestWrongShares::test_are_refused_by_name_and_the_sum_comes_without_them",
    ),
    mutant(
        "who disagreed is forgotten",
        "secagg/derive/opening.py",
        "disagreed.extend((usable[position][0], index) for position in wrong)",
        "disagreed.extend(())",
        f"{_CLIENTS}::TestWrongShares::test_that_were_stored_all_the_same_are_corrected_and_named",
    ),
    mutant(
        "an answer may leave neighbours out",
        f"{_PAIRWISE}/admission.py",
        "if [share.index for share in statement.shares] != sorted(held):",
        "if not held:",
        f"{_CLIENTS}::TestWrongShares::test_for_fewer_neighbours_than_held_are_refused",
    ),
    mutant(
        "a dealer need not keep its promise of a pair seed",
        "secagg/derive/opening.py",
        "if pairs.pair_commitment(owner, holder) != ",
        'if b"" == ',
        f"{_FINDINGS}::test_a_dealer_of_a_wrong_pair_seed_that_drops_is_named",
    ),
    # A wrong vector length, two different uploads, drops.
    mutant(
        "a vector may have any length",
        f"{_PAIRWISE}/lists.py",
        "if header.lanes != session.field_layout.lanes:",
        "if not header.lanes:",
        f"{_CLIENTS}::TestAContribution::test_with_a_wrong_header_is_refused",
    ),
    mutant(
        "the last of two messages counts",
        f"{_PAIRWISE}/admission.py",
        "        if known == row:\n",
        "        if known:\n",
        f"{_CLIENTS}::TestAContribution::test_that_differs_from_an_earlier_one_is_refused",
    ),
    mutant(
        "any bytes are the upload",
        f"{_PAIRWISE}/admission.py",
        "if header.signed.statement.upload != digest:",
        "if not digest:",
        f"{_CLIENTS}::TestAContribution::test_of_other_bytes_than_signed_is_refused",
    ),
    mutant(
        "a header may leave out most neighbours",
        f"{_PAIRWISE}/admission.py",
        "if len(neighbours) - len(header.missing) < state.cohort.threshold:",
        "if len(neighbours) < len(header.missing):",
        f"{_CLIENTS}::TestAContribution::test_with_a_wrong_header_is_refused",
    ),
    mutant(
        "masks of who dropped out are taken away once more",
        "secagg/derive/opening.py",
        "boxes.pair_seed(root, cohort.session, index), add, dropped",
        "boxes.pair_seed(root, cohort.session, index), subtract, dropped",
        f"{_CLIENTS}::TestDrops::test_between_header_and_upload_leave_an_exact_sum",
        f"{_ONE_HOT}::test_masks_cancel_whenever_enough_survive_and_else_there_is_no_sum",
    ),
    mutant(
        "the accused goes and the accuser stays",
        f"{_PAIRWISE}/admission.py",
        "rejected |= {index, min(partners)}",
        "rejected |= {min(index, min(partners))}",
        f"{_FINDINGS}::test_a_client_that_alone_complains_about_an_honest_one_does_not_outlive_it",
    ),
    # What clients did to operators and to each other.
    mutant(
        "a key stands in two places",
        f"{_PAIRWISE}/admission.py",
        "    if statement.mask_key == statement.share_key:",
        "    if not statement.mask_key:",
        f"{_ATTACKS}::TestClientsAgainstAnHonestOperator::test_one_sealing_key_in_two_places_is_not_admitted",
    ),
    mutant(
        "one upload counts for two",
        f"{_PAIRWISE}/admission.py",
        "        if taken is not None and taken != TakenRow(position):",
        "        if taken is not None and not taken:",
        f"{_ATTACKS}::TestClientsAgainstAnHonestOperator::test_one_upload_of_two_senders_does_not_count_twice",
    ),
    mutant(
        "retention deletes whatever a header names",
        "secagg/runtime/registry.py",
        "                kept |= await self._kept(key)",
        "                await self._kept(key)",
        f"{_ATTACKS}::TestClientsAgainstAnHonestOperator::test_nobody_has_the_blobs_of_another_session_deleted",
    ),
    mutant(
        "messages of one client are stored all at once",
        "secagg/runtime/session_host.py",
        "        return self._arriving.setdefault(identity, asyncio.Lock())",
        "        return asyncio.Lock()",
        f"{_ATTACKS}::TestClientsAgainstAnHonestOperator::test_what_is_refused_is_not_stored",
    ),
    mutant(
        "a recovery of before a crash runs again",
        "secagg/runtime/pairwise_host.py",
        "if not isinstance(state, Recovering) or state.used != used:",
        "if not isinstance(state, Recovering):",
        f"{_ATTACKS}::TestEffectsThatACrashRepeats::test_one_recovery_runs_after_a_restart",
    ),
    mutant(
        "a client goes on under other parameters",
        "secagg/runtime/participant.py",
        "        if state.view.entries[0] != self._joined.entry:",
        "        if not state.view.entries[0]:",
        f"{_ATTACKS}::TestTheLogThatAClientSees::test_a_second_open_entry_of_a_session_is_not_gone_on_with",
    ),
    mutant(
        "a log may become shorter than what was seen",
        "secagg/runtime/log_trust.py",
        "        if evidence.size < seen.size:",
        "        if evidence.size < 0:",
        f"{_ATTACKS}::TestTheLogThatAClientSees::test_a_fork_that_stays_shorter_than_what_was_pinned_is_refused",
    ),
    mutant(
        "two writers share a record",
        "secagg/store/log_files.py",
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        f"{_ATTACKS}::TestTwoCoordinators::test_one_record_has_one_writer",
    ),
    mutant(
        "an answer may overtake its confirmation",
        "secagg/runtime/participant.py",
        "            await asyncio.wait(before)",
        "            await asyncio.sleep(0)",
        "tests/simulations/test_liveness.py::test_an_answer_never_overtakes_the_confirmation_that_it_needs",
    ),
    mutant(
        "one step for each change of the session",
        "secagg/runtime/pairwise_participant.py",
        "            if event is None:\n                return self._is_over()",
        "            if event is None or isinstance(self.state, Confirmed):\n                return self._is_over()",
        "tests/simulations/test_liveness.py::"
        "test_those_who_confirm_after_the_quorum_answer_although_nothing_changes_any_more",
    ),
    mutant(
        "strangers may send large requests",
        "secagg/services/server.py",
        "SMALL_REQUEST_BYTES = 4 << 20",
        "SMALL_REQUEST_BYTES = 16 << 20",
        "tests/integration/test_bad_input_over_grpc.py::test_bad_chunks_are_refused",
    ),
    mutant(
        "a receipt that is lost keeps the answer back",
        "secagg/runtime/participant.py",
        "tuple(self._first.values())",
        "tuple(self._tasks.values())",
        "tests/integration/test_faulty_store.py",
    ),
    mutant(
        "a check vouches for another check",
        "secagg/protocol/session.py",
        "        key = (check, *arguments)",
        "        key = arguments",
        "tests/unit/runtime/test_remembered_checks.py",
    ),
)
