"""Weakenings of what the verifier says about merges: what is published, and sessions that follow another."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_MERGING = "verifier/families/merging.py"
_RESULTS = "verifier/families/results.py"
_PUBLISHED = "secagg/lora/published_check.py"
_UPDATES = "secagg/lora/update_merging.py"
_FOLLOWING_TESTS = "tests/unit/verifier/test_following.py"
_MERGE_TESTS = "tests/unit/verifier/test_merges.py"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "anybody may be a pilot",
        _MERGING,
        "        if not admits(merge, header.identity):",
        "        if not header.identity:",
        f"{_FOLLOWING_TESTS}::test_somebody_who_is_no_pilot_does_not_decide_on_the_basis",
    ),
    mutant(
        "pilots may be in the second sum",
        _MERGING,
        "    if not isinstance(merge, PilotMerge | BasisMerge):",
        "    if not isinstance(merge, PilotMerge):",
        f"{_FOLLOWING_TESTS}::test_a_pilot_is_not_in_the_second_sum_even_if_the_first_is_without_it",
    ),
    mutant(
        "a first session may end later",
        _MERGING,
        "    if last not in {Kind.RESULT, Kind.ONE_SHOT_RESULT} or ended_at > _opened_at(session):",
        "    if last not in {Kind.RESULT, Kind.ONE_SHOT_RESULT}:",
        f"{_FOLLOWING_TESTS}::test_a_basis_is_published_before_anybody_projects_on_it",
    ),
    mutant(
        "only pairwise sessions are followed",
        _MERGING,
        "    if last not in {Kind.RESULT, Kind.ONE_SHOT_RESULT} or",
        "    if last is not Kind.RESULT or",
        f"{_FOLLOWING_TESTS}::test_honest_one_shot_sessions_pass",
    ),
    mutant(
        "an identifier of a second session may be chosen",
        _MERGING,
        "    if _attempt_of(parameters) is None:",
        "    if not parameters.session:",
        f"{_FOLLOWING_TESTS}::test_an_identifier_that_anybody_could_choose_is_found",
    ),
    mutant(
        "a first session may be of any kind",
        _MERGING,
        "    if not isinstance(first.parameters.merge, _FIRSTS[type(merge)]):",
        "    if isinstance(first.parameters.merge, type(merge)):",
        f"{_FOLLOWING_TESTS}::test_a_first_session_of_another_kind_is_found",
    ),
    mutant(
        "a second session may be of another model",
        _MERGING,
        "        if getattr(parameters, name) != getattr(first.parameters, name):",
        "        if not getattr(parameters, name):",
        f"{_FOLLOWING_TESTS}::test_a_second_session_of_another_model_or_registrar_is_found",
    ),
    mutant(
        "a second merge may have other matrices",
        _MERGING,
        "        if getattr(merge, name) != getattr(first.parameters.merge, name):",
        "        if not getattr(merge, name):",
        f"{_FOLLOWING_TESTS}::test_a_second_merge_that_differs_from_the_first_is_found",
    ),
    mutant(
        "bases may be made up",
        _MERGING,
        "    if merge.fixed != first.result.digest_of(BASIS_FILE):",
        "    if not first.result.digest_of(BASIS_FILE):",
        f"{_FOLLOWING_TESTS}::test_bases_that_a_coordinator_made_up_are_found",
    ),
    mutant(
        "a second session may do with fewer",
        _MERGING,
        "    if isinstance(merge, ProjectionMerge) and parameters.min_contributors != first.close.count:",
        "    if isinstance(merge, ProjectionMerge) and parameters.min_contributors > first.close.count:",
        f"{_FOLLOWING_TESTS}::test_a_second_session_that_would_go_on_without_somebody_is_found",
    ),
    mutant(
        "a second sum need not be over those that its entry names",
        _MERGING,
        "            if contributors_digest(own) != merge.contributors:",
        "            if not own:",
        f"{_FOLLOWING_TESTS}::test_a_second_sum_over_other_people_is_found",
    ),
    mutant(
        "a second session may name others than the first sum's",
        _MERGING,
        "            if contributors_digest(_checked_identities(first)) != merge.contributors:",
        "            if not _checked_identities(first):",
        f"{_FOLLOWING_TESTS}::test_a_second_sum_over_other_people_is_found",
    ),
    mutant(
        "somebody may be in both sums of a basis",
        _MERGING,
        "                    if identity in before:",
        "                    if not identity:",
        f"{_FOLLOWING_TESTS}::test_nobody_is_in_both_sums",
    ),
    mutant(
        "a sum that was closed and aborted was not opened",
        _MERGING,
        "            if other.entries.close is not None:",
        "            if other.entries.result is not None:",
        f"{_FOLLOWING_TESTS}::test_of_pilot_basis_nobody_is_in_two_attempts_that_were_closed",
    ),
    mutant(
        "a first list counts whose signatures nobody checked",
        _MERGING,
        "    if wanted and session.parameters.session not in wanted:",
        "    if wanted and not session.parameters.session:",
        f"{_FOLLOWING_TESTS}::test_a_first_session_that_was_not_asked_for_is_no_pass",
    ),
    mutant(
        "an attempt may be left out",
        _MERGING,
        "        if before is None:",
        "        if before is None and after is None:",
        f"{_FOLLOWING_TESTS}::test_an_attempt_that_is_not_in_the_log_is_found",
    ),
    mutant(
        "two attempts may have sums",
        _MERGING,
        "        elif after is not None and (before[-1][0] is not Kind.ABORT or before[-1][1] > after[0][1]):",
        "        elif after is not None and before[-1][1] > after[0][1]:",
        f"{_FOLLOWING_TESTS}::test_two_sums_of_two_attempts_are_found_from_either_side",
    ),
    mutant(
        "an attempt may be aborted while the next is open",
        _MERGING,
        "        elif after is not None and (before[-1][0] is not Kind.ABORT or before[-1][1] > after[0][1]):",
        "        elif after is not None and before[-1][0] is not Kind.ABORT:",
        f"{_FOLLOWING_TESTS}::test_an_abort_that_came_too_late_is_found",
    ),
    mutant(
        "a result may leave files of the merge out",
        _RESULTS,
        "    if named.keys() != set(merging.files):",
        "    if not named.keys() <= set(merging.files):",
        f"{_MERGE_TESTS}::test_a_result_without_one_of_the_files_is_found",
    ),
    mutant(
        "an adapter is made however short its file is",
        _RESULTS,
        "    if found_bytes < least_bytes:",
        "    if found_bytes < 0:",
        f"{_MERGE_TESTS}::test_an_adapter_is_made_only_where_its_file_is_as_long_as_it",
    ),
    mutant(
        "test matrices may take all memory",
        "secagg/lora/matrix_sizes.py",
        "            if max(left, right) > MAX_MATRIX:",
        "            if left > MAX_MATRIX:",
        "tests/unit/lora/test_matrix_sizes.py",
    ),
    mutant(
        "a published update may be any",
        _PUBLISHED,
        "        if _distance(own, theirs) > TOLERANCE * _norm(own):",
        "        if not np.isfinite(_distance(own, theirs)):",
        f"{_MERGE_TESTS}::test_a_value_that_was_changed_is_found",
    ),
    mutant(
        "a basis need not be orthonormal",
        _PUBLISHED,
        "            if distance_from_orthonormal(basis) > TOLERANCE * np.sqrt(columns):",
        "            if not np.isfinite(np.linalg.norm(basis.T @ basis)):",
        f"{_MERGE_TESTS}::test_a_basis_that_is_not_orthonormal_is_found",
    ),
    mutant(
        "a basis may be of something else",
        _PUBLISHED,
        "            elif np.linalg.norm(spanned - basis @ (basis.T @ spanned)) > TOLERANCE * np.linalg.norm(spanned):",
        "            elif not np.isfinite(np.linalg.norm(spanned)):",
        f"{_MERGE_TESTS}::test_a_basis_of_something_else_is_found",
    ),
    mutant(
        "a merged adapter may have another config",
        _UPDATES,
        "        if published[CONFIG_FILE] != config:",
        "        if not published[CONFIG_FILE]:",
        f"{_MERGE_TESTS}::test_another_config_is_found",
    ),
    mutant(
        "tensors may be written in any form",
        _PUBLISHED,
        "        if data[position : position + length] != bytes(piece):",
        "        if len(data) < position + length:",
        f"{_MERGE_TESTS}::test_tensors_in_any_other_form_are_found",
    ),
    mutant(
        "the report may say anything",
        _UPDATES,
        "        if difference is not None:",
        "        if not published[REPORT_FILE]:",
        f"{_MERGE_TESTS}::test_a_number_of_the_report_that_does_not_follow_is_found",
    ),
)
"""All weakenings."""
