"""Weakenings of the verifier of one-shot sessions: for every rule the one that its mutated record must notice."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_VALUES = "verifier/one_shot_values.py"
_LISTS = "verifier/session_lists.py"
_PLACES = "verifier/roster_places.py"
_SESSION = "verifier/families/one_shot_session.py"
_CIPHERTEXTS = "verifier/families/ciphertexts.py"
_OPENINGS = "verifier/families/one_shot_openings.py"
_CONTRIBUTIONS = "verifier/families/contributions.py"
_ANY_SESSION = "verifier/families/session.py"
_SESSION_TESTS = "tests/unit/verifier/test_one_shot_sessions.py"
_OPENING_TESTS = "tests/unit/verifier/test_one_shot_openings.py"
_REPORT_TESTS = "tests/unit/verifier/test_one_shot_reports.py"
_ORDER_TEST = (
    "tests/unit/verifier/test_session.py::"
    "test_exactly_the_prefixes_of_the_order_with_at_most_an_abort_behind_them_are_legal"
)
_TOLERATED = f"{_SESSION_TESTS}::test_ses_3_asks_for_the_fraction_of_the_most_that_may_contribute"
_UNBOUND = f"{_SESSION_TESTS}::test_ses_8_counts_a_pinned_member_that_did_not_sign_its_sealing_key_as_unknown"
_UNPREPARED = (
    f"{_SESSION_TESTS}::test_ses_8_fails_for_a_context_that_the_pinned_authority_did_not_sign_for_this_session"
)
_SETS = f"{_SESSION_TESTS}::test_ses_9_fails_for_sets_that_are_not_what_they_should_be"
_COMMITMENTS = f"{_SESSION_TESTS}::test_ses_9_fails_for_commitments_that_are_not_the_logged_ones"
_PLACES_OF_DISPOSITIONS = f"{_SESSION_TESTS}::test_con_3_fails_for_dispositions_that_are_not_one_for_each_place"
_LENGTHS = f"{_SESSION_TESTS}::test_con_1_fails_for_a_header_of_another_length_or_number_of_parts"
_MEMBERS_ANSWER = f"{_OPENING_TESTS}::TestMembers"
_SECRET_SUM = f"{_OPENING_TESTS}::TestTheSecretSum"
_AUTHORITY = f"{_OPENING_TESTS}::TestTheAuthority"
_ATTESTATIONS = f"{_OPENING_TESTS}::TestAttestations"
_CIPHERTEXT_TESTS = f"{_OPENING_TESTS}::TestCiphertexts"
_ROOT_TESTS = f"{_OPENING_TESTS}::TestTheRootOfAnswers"

MUTANTS: tuple[Mutant, ...] = (
    # Orders, stages, modes
    mutant(
        "an abort may follow any last entry",
        "verifier/entry_order.py",
        "    return steps == kinds or steps != order\n",
        "    return True\n",
        _ORDER_TEST,
    ),
    mutant(
        "an authority's session needs no commitments in the log",
        "verifier/entry_order.py",
        "    (Kind.OPEN_AUTHORITY, Kind.COMMITTED, Kind.ONE_SHOT_CLOSE, Kind.ONE_SHOT_RESULT),\n",
        "    (Kind.OPEN_AUTHORITY, Kind.ONE_SHOT_CLOSE, Kind.ONE_SHOT_RESULT),\n",
        _ORDER_TEST,
    ),
    mutant(
        "an authority's session goes in the order of a committee's",
        "verifier/entry_order.py",
        "    if isinstance(entry, OneShotOpen) and isinstance(entry.opening, KeyAuthority):\n",
        "    if isinstance(entry, OneShotOpen) and not entry.opening:\n",
        f"{_SESSION_TESTS}::test_an_honest_record_is_clean_at_every_level",
    ),
    mutant(
        "a one-shot close passes for a close of a pairwise session",
        "verifier/entry_order.py",
        "    OneShotClose: Kind.ONE_SHOT_CLOSE,\n",
        "    OneShotClose: Kind.CLOSE,\n",
        f"{_SESSION_TESTS}::test_an_honest_record_is_clean_at_every_level",
    ),
    mutant(
        "a close of a pairwise session passes for a one-shot close",
        "verifier/entry_order.py",
        "    SessionClose: Kind.CLOSE,\n",
        "    SessionClose: Kind.ONE_SHOT_CLOSE,\n",
        f"{_SESSION_TESTS}::test_ses_2_fails_for_a_close_of_the_other_protocol",
    ),
    mutant(
        "checks run on sessions of every mode",
        "verifier/run.py",
        "        if record.mode not in check.modes:\n",
        "        if not check.modes:\n",
        f"{_SESSION_TESTS}::test_checks_of_another_mode_neither_pass_nor_fail",
    ),
    mutant(
        "the mode of a session is always a committee's",
        "verifier/session_record.py",
        "        return Mode.AUTHORITY if isinstance(self.open.opening, KeyAuthority) else Mode.COMMITTEE\n",
        "        return Mode.COMMITTEE\n",
        f"{_SESSION_TESTS}::test_the_sessions_are_of_the_modes_and_stages_that_they_should_be",
    ),
    # SES
    mutant(
        "a one-shot session may bear any fraction of corrupt clients",
        _ANY_SESSION,
        "        _check_tolerated(session, min(opened.roster_size, opened.encoding.max_contributors), findings)\n",
        "        pass\n",
        _TOLERATED,
    ),
    mutant(
        "the fraction of corrupt clients is that of the fewest that may contribute",
        _ANY_SESSION,
        "        _check_tolerated(session, min(opened.roster_size, opened.encoding.max_contributors), findings)\n",
        "        _check_tolerated(session, opened.min_contributors, findings)\n",
        _TOLERATED,
    ),
    mutant(
        "the fraction of corrupt clients counts the whole roster where fewer may contribute",
        _ANY_SESSION,
        "        _check_tolerated(session, min(opened.roster_size, opened.encoding.max_contributors), findings)\n",
        "        _check_tolerated(session, opened.roster_size, findings)\n",
        _TOLERATED,
    ),
    mutant(
        "the fraction of corrupt clients counts more than the roster has",
        _ANY_SESSION,
        "        _check_tolerated(session, min(opened.roster_size, opened.encoding.max_contributors), findings)\n",
        "        _check_tolerated(session, opened.encoding.max_contributors, findings)\n",
        _TOLERATED,
    ),
    mutant(
        "commitments may name any session",
        _ANY_SESSION,
        "    lists = [(COMMITMENTS, session.get(one_shot_values.COMMITTED).headers)]\n",
        "    lists = []\n",
        f"{_SESSION_TESTS}::test_ses_5_fails_for_a_header_of_another_session",
    ),
    mutant(
        "a header may belong to another copy of the open entry",
        _ANY_SESSION,
        "            if header.opened_at != opened_at:",
        "            if header.opened_at < 0:",
        f"{_SESSION_TESTS}::test_ses_5_fails_for_a_header_of_another_copy_of_the_open_entry",
    ),
    mutant(
        "one-shot contributions may name any session",
        _ANY_SESSION,
        "            _check_session(session, (file, number), header.session, findings)\n",
        "            findings.count()\n",
        f"{_SESSION_TESTS}::test_ses_5_fails_for_a_header_of_another_session",
    ),
    mutant(
        "an aborted session may publish a secret sum",
        _ANY_SESSION,
        '    Mode.COMMITTEE: {Stage.CLOSED: _AT_CLOSE, Stage.FINISHED: (*_AT_RESULT, "secret-sum.bin")},\n',
        "    Mode.COMMITTEE: {Stage.CLOSED: _AT_CLOSE, Stage.FINISHED: _AT_RESULT},\n",
        f"{_SESSION_TESTS}::test_ses_6_fails_for_a_file_of_a_step_that_an_aborted_session_did_not_come_to",
    ),
    mutant(
        "an aborted session may publish ciphertexts",
        _ANY_SESSION,
        '        Stage.CLOSED: (*_AT_CLOSE, "ciphertexts", "ciphertext-sum.bin"),\n',
        '        Stage.CLOSED: (*_AT_CLOSE, "ciphertext-sum.bin"),\n',
        f"{_SESSION_TESTS}::test_ses_6_fails_for_a_file_of_a_step_that_an_aborted_session_did_not_come_to",
    ),
    mutant(
        "one member more than may be corrupt may be unknown",
        _SESSION,
        "        if unknown > committee.max_corrupt:\n",
        "        if unknown > committee.max_corrupt + 1:\n",
        f"{_SESSION_TESTS}::test_ses_8_takes_as_many_unknown_members_as_may_be_corrupt_and_no_more",
    ),
    mutant(
        "a member that may be corrupt must be known",
        _SESSION,
        "        if unknown > committee.max_corrupt:\n",
        "        if unknown >= committee.max_corrupt:\n",
        f"{_SESSION_TESTS}::test_an_honest_record_is_clean_at_every_level",
    ),
    mutant(
        "a known member may have any sealing key",
        _SESSION,
        "member.identity not in pinned.keys or not is_bound(member) for member",
        "member.identity not in pinned.keys for member",
        _UNBOUND,
    ),
    mutant(
        "a member that signed its sealing key need not be known",
        _SESSION,
        "member.identity not in pinned.keys or not is_bound(member) for member",
        "not is_bound(member) for member",
        f"{_SESSION_TESTS}::test_ses_8_takes_as_many_unknown_members_as_may_be_corrupt_and_no_more",
    ),
    mutant(
        "a member that is unknown and unbound counts twice",
        _SESSION,
        "sum(member.identity not in pinned.keys or not is_bound(member) for member",
        "sum((member.identity not in pinned.keys) + (not is_bound(member)) for member",
        f"{_SESSION_TESTS}::test_ses_8_takes_an_unbound_member_in_the_place_of_the_unknown_one_and_counts_nobody_twice",
    ),
    mutant(
        "a context need not be signed by the authority",
        _SESSION,
        "    if not is_prepared(session.one_shot, authority):\n",
        "    if not authority.prepared:\n",
        _UNPREPARED,
    ),
    mutant(
        "anybody's signature over a sealing key or context will do",
        "secagg/derive/openers.py",
        "        verify_statement(identity, body, signature)\n    except SignatureError:\n        return False\n",
        "        verify_statement(identity, body, signature)\n    except SignatureError:\n        return any(signature)\n",
        _UNBOUND,
        _UNPREPARED,
    ),
    mutant(
        "anybody may be the authority",
        _SESSION,
        "    if authority.identity not in pinned.keys:\n",
        "    if not authority.identity:\n",
        f"{_SESSION_TESTS}::test_ses_8_fails_for_an_authority_that_the_policy_does_not_pin",
    ),
    mutant(
        "attestors that nobody knows may be enough",
        _SESSION,
        "    if unknown >= authority.attestations:\n",
        "    if unknown > authority.attestations:\n",
        f"{_SESSION_TESTS}::test_ses_8_fails_where_attestors_that_nobody_knows_are_enough",
    ),
    mutant(
        "a pinned member passes for a pinned attestor",
        _SESSION,
        "attestor not in pinned.attestors for attestor",
        "attestor not in pinned.keys for attestor",
        f"{_SESSION_TESTS}::test_an_honest_record_is_clean_at_every_level",
    ),
    mutant(
        "the context need not be the logged one",
        _SESSION,
        "    if hashlib.sha256(data).digest() != session.authority.context:\n",
        "    if not data:\n",
        f"{_SESSION_TESTS}::test_ses_10_fails_for_another_context_than_the_open_entry_names",
    ),
    mutant(
        "the context need not be a public key",
        _SESSION,
        "        decode_context(data)\n",
        "        pass\n",
        f"{_SESSION_TESTS}::test_ses_10_fails_for_a_logged_context_that_is_no_public_key",
    ),
    mutant(
        "an authority's close may name members",
        _VALUES,
        "        if isinstance(opener, NamedMembers):\n",
        "        if not opener:\n",
        _SETS,
    ),
    mutant(
        "a member may be named that does not exist",
        _VALUES,
        "    if opener.members and opener.members[-1] >= len(committee.members):\n",
        "    if opener.members and opener.members[-1] > len(committee.members):\n",
        _SETS,
    ),
    mutant(
        "fewer members than are needed may be named",
        _VALUES,
        "    if len(opener.members) < committee.needed:\n",
        "    if not opener.members:\n",
        _SETS,
    ),
    mutant(
        "a one-shot set may be smaller than the minimum",
        _VALUES,
        "        if entry.count < least:\n",
        "        if not entry.count:\n",
        _SETS,
    ),
    mutant(
        "a one-shot set may be larger than the one before it",
        _VALUES,
        "        if entry.count > before:\n",
        "        if entry.count > 2 * before:\n",
        _SETS,
    ),
    mutant(
        "a one-shot result may count other contributions than the close",
        _VALUES,
        "    if entries.result is not None and entries.result.count != session.close.count:\n",
        "    if entries.result is not None and not entries.result.count:\n",
        _SETS,
    ),
    mutant(
        "an abort may count any number of answers of members",
        _VALUES,
        "    if entries.abort is not None and entries.abort.answers > openers:\n",
        "    if entries.abort is not None and entries.abort.answers > 100 + openers:\n",
        f"{_SESSION_TESTS}::test_ses_9_counts_no_more_answers_before_an_abort_than_members_were_named",
    ),
    mutant(
        "commitments need not be in order",
        _LISTS,
        "        if statements and leaf.statement.identity < statements[-1].identity:\n",
        "        if statements and not leaf.statement.identity:\n",
        _SETS,
    ),
    mutant(
        "commitments need not be the logged ones",
        _LISTS,
        "    check_list(session.files.place(file), tree, entry.count, entry.root)\n",
        "",
        _COMMITMENTS,
    ),
    mutant(
        "a contribution need not be what was committed to",
        _VALUES,
        "            if committed.get(leaf.statement.identity) != leaf:\n",
        "            if leaf.statement.identity not in committed:\n",
        f"{_SESSION_TESTS}::test_ses_9_fails_for_a_contribution_that_is_not_what_was_committed_to",
    ),
    # ELG, CON
    mutant(
        "whoever committed need not be in the roster",
        _PLACES,
        "        lists.append((COMMITMENTS, session.get(one_shot_values.COMMITTED).signed))\n",
        "",
        f"{_SESSION_TESTS}::test_elg_1_fails_for_somebody_who_only_committed_and_is_not_in_the_roster",
    ),
    mutant(
        "a one-shot contributor need not be in the roster",
        _PLACES,
        "            lists.append((CONTRIBUTIONS, session.get(one_shot_values.CLOSED).signed))\n",
        "            pass\n",
        f"{_SESSION_TESTS}::test_elg_1_fails_for_a_contributor_who_is_not_in_the_roster",
    ),
    mutant(
        "an identity may commit twice",
        _PLACES,
        "        if header.identity == previous:\n",
        "        if not header.identity:\n",
        f"{_SESSION_TESTS}::test_elg_2_fails_for_one_identity_that_commits_twice",
    ),
    mutant(
        "a contribution may be at any place of the roster",
        _PLACES,
        "            if places.positions[header.identity] != index:\n",
        "            if index < 0:\n",
        f"{_SESSION_TESTS}::test_elg_2_fails_for_one_identity_that_contributes_twice",
    ),
    mutant(
        "commitments need not be signed",
        _CONTRIBUTIONS,
        "        _check_signed(session, COMMITMENTS, committed.signed, findings)\n",
        "        findings.count()\n",
        f"{_SESSION_TESTS}::test_con_1_fails_for_a_header_that_its_client_did_not_sign",
    ),
    mutant(
        "commitments may have any length",
        _CONTRIBUTIONS,
        "        _check_lengths(session, COMMITMENTS, committed.headers, findings)\n",
        "",
        _LENGTHS,
    ),
    mutant(
        "a contribution may have any number of parts",
        _CONTRIBUTIONS,
        "        if isinstance(header, OneShotHeader) and len(header.parts) != parts:\n",
        "        if isinstance(header, OneShotHeader) and len(header.parts) > 100:\n",
        _LENGTHS,
    ),
    mutant(
        "uploads of one-shot sessions are not padded",
        "verifier/session_record.py",
        "            return self.entries.open.upload_lanes\n",
        "            return self.entries.open.encoding.field_layout().lanes\n",
        f"{_SESSION_TESTS}::test_an_honest_record_is_clean_at_every_level",
    ),
    mutant(
        "a sealed part may be in two contributions",
        _CONTRIBUTIONS,
        '        yield from ((f"parts[{place}]", part) for place, part in enumerate(header.parts))\n',
        "        yield from ()\n",
        f"{_SESSION_TESTS}::test_con_2_fails_for_a_sealed_part_that_two_contributions_have",
    ),
    mutant(
        "a sealed part may be in the same place only once",
        _CONTRIBUTIONS,
        'seen.setdefault(field.split("[")[0], {})',
        "seen.setdefault(field, {})",
        f"{_SESSION_TESTS}::test_con_2_fails_for_a_sealed_part_that_two_contributions_have",
    ),
    mutant(
        "a contribution may have one part twice",
        _CONTRIBUTIONS,
        "        if isinstance(header, OneShotHeader) and len(set(header.parts)) != len(header.parts):\n",
        "        if isinstance(header, OneShotHeader) and not header.identity:\n",
        f"{_SESSION_TESTS}::test_con_2_fails_for_a_sealed_part_that_one_contribution_has_twice",
    ),
    mutant(
        "one-shot dispositions need not be in order",
        _VALUES,
        "        if indices and leaf.index <= indices[-1]:\n",
        "        if indices and leaf.index == indices[-1]:\n",
        _PLACES_OF_DISPOSITIONS,
    ),
    mutant(
        "a one-shot disposition counts twice",
        _VALUES,
        "        if indices and leaf.index <= indices[-1]:\n",
        "        if indices and leaf.index < indices[-1]:\n",
        _PLACES_OF_DISPOSITIONS,
    ),
    mutant(
        "a disposition may be of nobody in the roster",
        _VALUES,
        "        if leaf.index >= session.parameters.roster_size:\n",
        "        if leaf.index > session.parameters.roster_size:\n",
        _PLACES_OF_DISPOSITIONS,
    ),
    mutant(
        "one may drop in a phase that there is not",
        _VALUES,
        '        elif isinstance(leaf, Dropped) and leaf.phase != "masked-input":\n',
        "        elif isinstance(leaf, Dropped) and not leaf.phase:\n",
        _PLACES_OF_DISPOSITIONS,
    ),
    mutant(
        "whoever committed may be left out",
        _CONTRIBUTIONS,
        "    if list(came) != committed:\n",
        "    if not set(came) <= set(committed):\n",
        f"{_SESSION_TESTS}::test_con_3_fails_where_somebody_who_committed_is_left_out_or_somebody_else_is_there",
    ),
    mutant(
        "whoever did not commit may have a disposition",
        _CONTRIBUTIONS,
        "    if list(came) != committed:\n",
        "    if not set(came) >= set(committed):\n",
        f"{_SESSION_TESTS}::test_con_3_fails_where_somebody_who_committed_is_left_out_or_somebody_else_is_there",
    ),
    mutant(
        "one-shot dispositions need not be the logged ones",
        _VALUES,
        "    check_list(session.files.place(DISPOSITIONS), tree, len(indices), close.dispositions)\n",
        "",
        f"{_SESSION_TESTS}::test_con_3_fails_for_dispositions_with_another_reason_than_was_logged",
    ),
    mutant(
        "one-shot contributions need not be the accepted ones",
        _VALUES,
        "    check_contributions(session, tuple(accepted.values()))\n",
        "",
        f"{_SESSION_TESTS}::test_con_3_fails_for_a_file_that_the_close_entry_does_not_name",
    ),
    # SUM
    mutant(
        "a ciphertext need not be the signed one",
        _CIPHERTEXTS,
        "                if hashlib.sha256(data).digest() != part:\n",
        "                if not data:\n",
        f"{_CIPHERTEXT_TESTS}::test_one_that_is_not_the_signed_one_is_found",
    ),
    mutant(
        "the sum of the ciphertexts need not be theirs",
        _CIPHERTEXTS,
        "    if session.files.read_exactly(CIPHERTEXT_SUM, CIPHERTEXT_BYTES) != computed:\n",
        "    computed = session.files.read_exactly(CIPHERTEXT_SUM, CIPHERTEXT_BYTES)\n    if not computed:\n",
        f"{_CIPHERTEXT_TESTS}::test_a_sum_of_other_ciphertexts_is_found_although_the_close_names_it",
    ),
    mutant(
        "the sum of the ciphertexts need not be the one in the close entry",
        _CIPHERTEXTS,
        "    if not isinstance(opener, SummedCiphertext) or opener.digest != digest:\n",
        "    if not isinstance(opener, SummedCiphertext):\n",
        f"{_CIPHERTEXT_TESTS}::test_a_sum_that_the_close_does_not_name_is_found",
    ),
    mutant(
        "ciphertexts are checked after the opening only",
        _CIPHERTEXTS,
        '        "The ciphertexts add up to the sum that was fixed in the close entry",\n        Level.PREOPEN,\n',
        '        "The ciphertexts add up to the sum that was fixed in the close entry",\n        Level.SUM,\n',
        f"{_ATTESTATIONS}::test_are_not_asked_for_before_the_opening",
    ),
    # OPN
    mutant(
        "answers of openers need not be in order",
        _OPENINGS,
        "        if number <= last:\n",
        "        if number == last:\n",
        f"{_ROOT_TESTS}::test_answers_are_those_of_members_in_their_order",
    ),
    mutant(
        "an opener answers twice",
        _OPENINGS,
        "        if number <= last:\n",
        "        if number < last:\n",
        # More lines than there are openers are never read: two answers need a third opener who gave none.
        f"{_ROOT_TESTS}::test_one_member_that_answers_twice_in_the_place_of_another_is_refused",
    ),
    mutant(
        "the openers' answers need not be those of the result entry",
        _OPENINGS,
        "    check_list(session.files.place(OPENINGS), tree, len(answers), session.result.openings)\n",
        "",
        f"{_ROOT_TESTS}::test_another_root_in_the_log_is_refused",
    ),
    mutant(
        "an answer of an opener may be of another session",
        _OPENINGS,
        "    if statement.session != session.digest:\n",
        "    if not statement.session:\n",
        f"{_MEMBERS_ANSWER}::test_an_answer_to_another_close_or_session_is_refused",
    ),
    mutant(
        "an answer of an opener may be to another close entry",
        _OPENINGS,
        "    if statement.close != session.entries.close_digest:\n",
        "    if not statement.close:\n",
        f"{_AUTHORITY}::test_an_answer_to_another_close_or_session_is_refused",
    ),
    mutant(
        "an answer of an opener need not be signed",
        _OPENINGS,
        "        verify_statement(statement.identity, statement.to_bytes(), signed.signature)\n",
        "        statement.to_bytes()\n",
        f"{_MEMBERS_ANSWER}::test_an_answer_that_its_member_did_not_sign_is_refused",
    ),
    mutant(
        "the authority's answer need not be checked",
        _OPENINGS,
        "    _check_answer(session, place, signed)\n    found = np.frombuffer",
        "    found = np.frombuffer",
        f"{_AUTHORITY}::test_an_answer_that_it_did_not_sign_is_refused",
    ),
    mutant(
        "a member may answer that the close does not name",
        _OPENINGS,
        "        if member not in named:\n",
        "        if not named:\n",
        f"{_MEMBERS_ANSWER}::test_an_answer_of_a_member_that_the_close_does_not_name_is_refused",
    ),
    mutant(
        "one answer less than is needed is enough",
        _OPENINGS,
        "    if len(answers) < needed:\n",
        "    if len(answers) < needed - 1:\n",
        f"{_MEMBERS_ANSWER}::test_too_few_answers_are_refused",
    ),
    mutant(
        "any number of members may have been used",
        _OPENINGS,
        "    if len(result.used) != needed:\n",
        "    if len(result.used) < needed:\n",
        f"{_SECRET_SUM}::test_is_interpolated_from_as_many_members_as_are_needed_of_those_who_answered",
    ),
    mutant(
        "the secret sum need not be what the members opened",
        _OPENINGS,
        "    found = reconstruct_sum(points, used, LARGEST_LIFT)\n    if not np.array_equal(found",
        "    found = session.get(PUBLISHED_SECRET)\n    if not np.array_equal(found",
        f"{_SECRET_SUM}::test_another_one_than_the_members_opened_is_refused",
    ),
    mutant(
        "nobody need be named who dissents",
        _OPENINGS,
        "    if dissenting != result.dissenting:\n",
        "    if not set(dissenting) >= set(result.dissenting):\n",
        f"{_SECRET_SUM}::test_a_member_that_dissents_is_named_and_no_other",
    ),
    mutant(
        "members may be named as dissenting who do not",
        _OPENINGS,
        "    if dissenting != result.dissenting:\n",
        "    if not set(dissenting) <= set(result.dissenting):\n",
        f"{_SECRET_SUM}::test_is_interpolated_from_as_many_members_as_are_needed_of_those_who_answered",
    ),
    mutant(
        "the secret sum need not be the logged one",
        _OPENINGS,
        "    if hashlib.sha256(data).digest() != session.one_shot_result.secret_sum:\n",
        "    if not data:\n",
        f"{_SECRET_SUM}::test_another_file_than_the_logged_one_is_refused",
    ),
    mutant(
        "the secret sum need not be what the authority answered",
        _OPENINGS,
        "    if not np.array_equal(found, session.get(PUBLISHED_SECRET)):\n"
        '        fail_at(session.files.place(SECRET_SUM), "not what the authority answered")\n',
        "",
        f"{_AUTHORITY}::test_another_secret_sum_than_it_answered_is_refused",
    ),
    mutant(
        "a secret sum may leave any error",
        _OPENINGS,
        "        return masked.certified(secret)\n",
        "        return lanes.copy()\n",
        _SECRET_SUM,
    ),
    mutant(
        "a certificate needs not that the sum is over the closed set",
        _OPENINGS,
        "    contributors = len(session.get(CONTRIBUTORS).indices)\n",
        "    contributors = session.parameters.encoding.max_contributors\n",
        f"{_SECRET_SUM}::test_is_as_small_as_so_many_contributors_can_make_it",
    ),
    mutant(
        "anybody may attest",
        _OPENINGS,
        "        if statement.identity not in authority.attestors:\n",
        "        if not authority.attestors:\n",
        f"{_ATTESTATIONS}::test_of_somebody_whom_the_open_entry_does_not_name_are_refused",
    ),
    mutant(
        "an attestor counts twice",
        _OPENINGS,
        "        if statement.identity <= last:\n",
        "        if statement.identity < last:\n",
        f"{_ATTESTATIONS}::test_of_one_attestor_count_once",
    ),
    mutant(
        "an attestation may be to another ciphertext",
        _OPENINGS,
        "        if not isinstance(opener, SummedCiphertext) or statement.ciphertext_sum != opener.digest:\n",
        "        if not isinstance(opener, SummedCiphertext):\n",
        f"{_ATTESTATIONS}::test_to_something_else_are_refused",
    ),
    mutant(
        "an attestation need not be signed",
        _OPENINGS,
        "        _check_answer(session, place, signed)\n        findings.count()\n",
        "        findings.count()\n",
        f"{_ATTESTATIONS}::test_that_nobody_signed_are_refused",
    ),
    mutant(
        "one attestation less than is needed is enough",
        _OPENINGS,
        "    if findings.examined < authority.attestations:\n",
        "    if findings.examined < authority.attestations - 1:\n",
        f"{_ATTESTATIONS}::test_of_too_few_attestors_are_refused",
    ),
    # RES, RCP, words
    mutant(
        "padding lanes may hold anything",
        "verifier/families/results.py",
        "    if lanes[own:].any():\n",
        "    if lanes[own:].all():\n",
        f"{_OPENING_TESTS}::TestTheResult::test_a_lane_of_padding_that_is_not_zero_is_found",
    ),
    mutant(
        "a receipt may mix the protocols",
        "secagg/transcript/receipt.py",
        "        if not isinstance(self.contribution.statement, header):\n",
        "        if not header:\n",
        f"{_OPENING_TESTS}::TestReceipts::test_one_that_mixes_the_protocols_is_none",
    ),
    mutant(
        "a vector too long for ring masks raises something else",
        "secagg/transcript/entries.py",
        '        except ValueError as error:\n            raise RecordError("session-open.encoding", str(error)) from None\n',
        "        except RecordError:\n            raise\n",
        f"{_SESSION_TESTS}::test_ses_1_fails_for_a_vector_that_is_too_long_for_ring_masks",
    ),
    mutant(
        "a one-shot session that was aborted after its close counts as not opened",
        "verifier/outcome.py",
        "    if session.mode is not Mode.PAIRWISE and session.stage >= Stage.CLOSED:\n",
        "    if session.mode is not Mode.PAIRWISE and session.stage > Stage.CLOSED:\n",
        f"{_REPORT_TESTS}::test_a_session_that_was_aborted_after_its_close_is_counted_as_published",
    ),
    mutant(
        "the statement is silent about what openers do in private",
        "verifier/statement.py",
        "    limits = [*_LIMITS, *(limit for mode in modes for limit in _LIMITS_OF[mode])]\n",
        "    limits = [*_LIMITS]\n",
        f"{_REPORT_TESTS}::test_the_statement_says_what_those_who_open_could_do_in_private",
    ),
)
