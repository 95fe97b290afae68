"""Weakenings of the client side of one-shot sessions: policy, machine, committed list, participant, encoding."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_ONE_SHOT = "secagg/protocol/one_shot"
_PARTICIPANT = "secagg/runtime/one_shot_participant.py"
_CLIENT = "tests/unit/one_shot/test_client.py"
_SUMS = "tests/unit/one_shot/test_sums.py"
_LIVES = "tests/unit/one_shot/test_participant.py"
_CLI = "tests/unit/cli/test_one_shot_cli.py"

MUTANTS: tuple[Mutant, ...] = (
    # Who opens the sum.
    mutant(
        "whoever writes a pinned identity may write any sealing key beside it",
        "secagg/protocol/session.py",
        "if member.identity not in self.openers or not is_bound(member)",
        "if member.identity not in self.openers",
        "tests/unit/one_shot/test_client.py::TestJoining::"
        "test_members_whose_sealing_key_is_not_the_one_that_they_signed_are_strangers",
        "tests/adversaries/test_one_shot_attacks.py::TestWhoTheBoxesAreFor",
    ),
    mutant(
        "whoever writes a pinned authority may write any context beside it",
        "secagg/protocol/session.py",
        "            if not is_prepared(parameters, opening):",
        "            if not opening.prepared:",
        "tests/unit/one_shot/test_client.py::TestJoining::"
        "test_a_context_that_the_authority_did_not_make_for_this_session_is_refused",
    ),
    mutant(
        "with an authority nobody has to vouch for the log",
        "secagg/protocol/one_shot/client.py",
        "    if isinstance(session.opening, KeyAuthority) and context.log.is_met_by(()):",
        "    if False:",
        "tests/unit/one_shot/test_client.py::TestJoining::test_with_an_authority_somebody_has_to_vouch_for_the_log",
    ),
    mutant(
        "an authority serves without witnesses",
        "secagg/identity/authority_config.py",
        "        if policy.is_met_by(()):",
        "        if policy is None:",
        "tests/unit/identity/test_authority_config.py::test_a_policy_that_asks_for_no_witness_is_refused",
    ),
    mutant(
        "a committee of which every member would have to be honest is good enough",
        "secagg/protocol/session.py",
        "        if not opening.max_corrupt:",
        "        if opening.max_corrupt < 0:",
        "tests/unit/one_shot/test_client.py::TestJoining::"
        "test_a_committee_in_which_nobody_may_be_corrupt_is_refused_even_if_all_are_pinned",
    ),
    mutant(
        "the fraction of corrupt contributors does not matter in one-shot sessions",
        "secagg/protocol/session.py",
        "            self.check_cohort(parameters, min(parameters.roster_size, parameters.encoding.max_contributors))\n",
        "",
        _CLIENT,
    ),
    mutant(
        "strangers in a committee count as honest",
        "secagg/protocol/session.py",
        "if len(strangers) > opening.max_corrupt:",
        "if len(strangers) > opening.needed:",
        f"{_CLIENT}::TestJoining::test_of_a_committee_as_many_may_be_strangers_as_the_session_says_may_be_corrupt",
    ),
    mutant(
        "any authority will do",
        "secagg/protocol/session.py",
        "if opening.identity not in self.openers:",
        "if not opening.identity:",
        f"{_CLIENT}::TestJoining::test_an_authority_has_to_be_pinned",
    ),
    mutant(
        "a one-shot client asks for no policy",
        f"{_ONE_SHOT}/client.py",
        "    session.once(context.policy.check_parameters, session.parameters)\n",
        "",
        f"{_CLIENT}::TestJoining",
    ),
    # One header, once.
    mutant(
        "a one-shot client signs a second encoding",
        f"{_ONE_SHOT}/client.py",
        "    if not isinstance(state, Masking):\n",
        "    if isinstance(state, Committed):\n",
        f"{_CLIENT}::TestAMaskedInput::test_a_second_encoding_is_never_signed",
    ),
    mutant(
        "an upload goes with its commitment",
        f"{_ONE_SHOT}/client.py",
        "    if isinstance(session.opening, KeyAuthority):\n",
        "    if not isinstance(session.opening, KeyAuthority | Committee):\n",
        f"{_CLIENT}::TestAMaskedInput::test_is_only_committed_to_where_an_authority_opens",
    ),
    mutant(
        "boxes of any length are signed",
        f"{_ONE_SHOT}/client.py",
        "            if len(part) != box_bytes(session.opening, place):",
        "            if not part:",
        f"{_CLIENT}::TestAMaskedInput::test_of_wrong_lengths_is_never_signed",
    ),
    # The list of what was committed to.
    mutant(
        "an altered header of one's own is taken for it",
        f"{_ONE_SHOT}/client.py",
        "    if own != state.sent:\n",
        "    if own.statement.identity != state.sent.statement.identity:\n",
        f"{_CLIENT}::TestTheCommittedList::test_that_alters_the_own_header_is_refused",
    ),
    mutant(
        "whoever was left out of a list looks at the next",
        f"{_ONE_SHOT}/client.py",
        "return Transition(Aborted(view, RejectReason.LEFT_OUT))",
        "return Transition(state)",
        f"{_CLIENT}::TestTheCommittedList::test_that_leaves_the_client_out_ends_its_part_for_good",
    ),
    mutant(
        "a second list is acted on",
        f"{_ONE_SHOT}/client.py",
        "    if not isinstance(state, Committed):\n",
        "    if isinstance(state, Masking):\n",
        f"{_CLIENT}::TestTheCommittedList::test_whoever_acted_on_one_list_never_acts_on_another",
    ),
    mutant(
        "a list need not continue the log that was seen",
        f"{_ONE_SHOT}/client.py",
        "    view = log.extend(state.view, context.session.parameters, context.log, event.evidence)\n"
        "    if view.abort is not None:\n        return Transition(Aborted(view, RejectReason.ABORTED))\n"
        "    if view.committed is None:\n",
        "    view = log.join(context.session.parameters, context.log, event.evidence)\n"
        "    if view.abort is not None:\n        return Transition(Aborted(view, RejectReason.ABORTED))\n"
        "    if view.committed is None:\n",
        f"{_CLIENT}::TestTheCommittedList::test_in_a_log_that_is_not_what_the_client_saw_is_refused",
    ),
    mutant(
        "a list need not be under the logged root",
        f"{_ONE_SHOT}/committed.py",
        "    check_root(_NAME, entry.root, leaves)\n",
        "",
        f"{_CLIENT}::TestTheCommittedList::test_that_is_not_under_the_logged_root_is_refused",
    ),
    mutant(
        "the entry says how many committed",
        f"{_ONE_SHOT}/committed.py",
        "    if entry.count != len(leaves):\n",
        "    if not entry.count:\n",
        f"{_CLIENT}::TestTheCommittedList::test_of_fewer_than_the_minimum_that_are_counted_as_enough_is_refused",
    ),
    mutant(
        "one commitment fewer than the minimum will do",
        f"{_ONE_SHOT}/committed.py",
        "    if len(leaves) < session.parameters.min_contributors:\n",
        "    if len(leaves) < session.parameters.min_contributors - 1:\n",
        f"{_CLIENT}::TestTheCommittedList::test_of_fewer_than_the_minimum_is_refused",
    ),
    mutant(
        "more commit than fit a sum",
        f"{_ONE_SHOT}/committed.py",
        "    if len(leaves) > session.parameters.encoding.max_contributors:\n",
        "    if len(leaves) > session.parameters.roster_size:\n",
        f"{_CLIENT}::TestTheCommittedList::test_of_more_than_the_sum_has_room_for_is_refused",
    ),
    mutant(
        "an identity commits twice",
        f"{_ONE_SHOT}/committed.py",
        "        if position <= before:\n",
        "        if position < before:\n",
        f"{_CLIENT}::TestTheCommittedList::test_in_another_order_than_the_rosters_is_refused",
    ),
    mutant(
        "commitments are not verified",
        f"{_ONE_SHOT}/committed.py",
        "    check_signature(signed, header.identity)\n",
        "",
        f"{_CLIENT}::TestTheCommittedList",
    ),
    mutant(
        "commitments to another session count",
        f"{_ONE_SHOT}/committed.py",
        "    check_statement_session(header, session)\n",
        "",
        f"{_CLIENT}::TestTheCommittedList::test_with_headers_of_another_session_is_refused",
    ),
    mutant(
        "what one committed to another may commit to",
        f"{_ONE_SHOT}/committed.py",
        "        if not digests.isdisjoint(own):\n",
        "        if not own:\n",
        f"{_CLIENT}::TestTheCommittedList::test_with_a_copy_of_what_the_client_committed_to_is_refused",
    ),
    # The receipt and the end.
    mutant(
        "a receipt for anything ends a one-shot client's part",
        "secagg/protocol/published.py",
        "    if receipt.receipt != expected.to_bytes():\n",
        "    if not receipt.receipt:\n",
        f"{_CLIENT}::TestTheReceipt",
    ),
    mutant(
        "anybody signs receipts",
        "secagg/protocol/published.py",
        "        verify_statement(session.parameters.coordinator, receipt.receipt, receipt.signature)\n",
        "        bytes(receipt.signature)\n",
        f"{_CLIENT}::TestTheReceipt",
    ),
    mutant(
        "whoever has delivered goes on",
        f"{_ONE_SHOT}/client.py",
        "    if isinstance(state, Delivered | Aborted):\n",
        "    if isinstance(state, Aborted):\n",
        f"{_CLIENT}::TestTheReceipt::test_ends_the_clients_part_and_is_kept",
    ),
    # The runtime.
    mutant(
        "masking again draws new seeds",
        _PARTICIPANT,
        "        masked = vectors.ring_masked_input(session, self._vector, plan)\n",
        "        plan = next(iter(self._start(self.state.view).effects))  # type: ignore[assignment]\n"
        "        masked = vectors.ring_masked_input(session, self._vector, plan)\n",
        f"{_LIVES}::test_a_disk_that_fails_while_the_input_is_stored_gives_the_same_upload_again",
    ),
    mutant(
        "a one-shot contributor goes on under other parameters",
        "secagg/runtime/participant.py",
        "        await self._check_stored()\n",
        "",
        f"{_LIVES}::test_a_stored_session_of_other_parameters_is_not_gone_on_with",
    ),
    mutant(
        "a delivered contribution is uploaded again",
        _PARTICIPANT,
        "        if isinstance(self.state, Contributed):\n",
        "        if self.state:\n",
        f"{_LIVES}",
    ),
    mutant(
        "a refused upload is forgotten before it is told",
        "secagg/runtime/participant.py",
        "            await self._abandon(error.reason)\n",
        "            del error\n",
        f"{_LIVES}::test_an_upload_that_is_refused_ends_the_participation_for_good",
    ),
    mutant(
        "everybody watches a session that they leave",
        _PARTICIPANT,
        "        if isinstance(self._joined.opening, Committee):\n",
        "        if not self._joined.opening:\n",
        f"{_LIVES}::test_with_a_committee_nobody_watches_the_session",
    ),
    # Encoding and masking.
    mutant(
        "the linear hash is that of the input",
        _PARTICIPANT,
        "linear_hash = vectors.linear_hash_of(masked.lanes)",
        "linear_hash = vectors.linear_hash_of(masked.lanes >> 52)",
        f"{_LIVES}::test_the_linear_hash_that_is_sent_is_that_of_the_upload",
    ),
    mutant(
        "padding is left unmasked",
        "secagg/runtime/vectors.py",
        "    session.ring_mask.apply_mask(lanes, session.public_key, secret, error_key)\n",
        "    session.ring_mask.apply_mask(lanes, session.public_key, secret, error_key)\n"
        "    lanes[session.field_layout.lanes :] = 0\n",
        f"{_SUMS}::test_the_uploads_of_whoever_came_add_up_to_zeros_and_ones",
        f"{_SUMS}::test_an_upload_says_nothing_without_its_secret",
    ),
    mutant(
        "rounding does not follow from its seed",
        "secagg/runtime/vectors.py",
        "    stream = Keystream(derive(rounding, Label.QUANTISER_STREAM).expose())\n",
        "    stream = Keystream(os.urandom(32))\n",
        f"{_SUMS}::test_the_same_plan_gives_the_same_upload_and_another_seed_another",
    ),
    mutant(
        "a longer vector is cut",
        "secagg/runtime/vectors.py",
        "    if vector.shape != (encoding.dimension,):\n",
        "    if vector.size < encoding.dimension:\n",
        f"{_SUMS}::test_a_vector_of_another_length_is_not_encoded",
    ),
    # Opening a session.
    mutant(
        "a key that was made for another session opens this one",
        "secagg/cli/openers.py",
        "    digest = made.checked(session, coordinator_key, openers.opening.identity)\n",
        "    import hashlib\n\n    digest = hashlib.sha256(made.context).digest()\n",
        f"{_CLI}::test_a_key_for_something_else_opens_no_session",
    ),
    mutant(
        "one member fewer opens a sum by default",
        "secagg/cli/openers.py",
        "        needed = max(2, (members + max_corrupt) // 2 + 1)\n",
        "        needed = max(2, (members + max_corrupt) // 2)\n",
        f"{_CLI}::test_every_committee_has_numbers_with_which_no_two_sets_are_opened",
    ),
)
