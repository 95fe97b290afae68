"""Weakenings of the checks of declared noise; part of ``verifier``."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_NOISE = "verifier/families/noise.py"
_SPENT = "verifier/privacy_spent.py"
_FLOOR = "verifier/noise_floor.py"
_POLICY = "verifier/policy.py"
_TESTS = "tests/unit/verifier/test_noise.py"
_FLOOR_TESTS = "tests/unit/verifier/test_noise_floor.py"
_REPORTS = "tests/unit/verifier/test_noise_reports.py"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "any mechanism is the one that the policy asks for",
        _NOISE,
        "    if declared != demanded:",
        "    if not declared:",
        f"{_TESTS}::TestTheMechanism",
    ),
    mutant(
        "what is declared of noise need not fit together",
        _NOISE,
        "    fault = noise.faults.get(identifier)",
        "    fault = None if noise.faults else None",
        f"{_TESTS}::TestWhatFitsTogether::test_each_number_that_does_not_is_found",
    ),
    mutant(
        "noise that does not fit together costs nothing",
        _NOISE,
        "    for session in noise.faults:",
        "    for session in ():",
        f"{_TESTS}::TestBudgets::test_of_sessions_that_were_not_asked_for_are_counted_too",
    ),
    mutant(
        "noise of too many tables counts as checked",
        _NOISE,
        "    if identifier in noise.untried:",
        "    if identifier in ():",
        f"{_TESTS}::TestBudgets::test_more_tables_than_anybody_has_the_time_for_are_not_tried",
    ),
    mutant(
        "any number of tables of noise is made",
        _SPENT,
        "        if len(tables) > MAX_TABLES:",
        "        if not tables:",
        f"{_TESTS}::TestBudgets::test_more_tables_than_anybody_has_the_time_for_are_not_tried",
    ),
    mutant(
        "a population may have several budgets",
        _NOISE,
        "        if (budget.epsilon, budget.delta) != (first.epsilon, first.delta):",
        "        if (budget.epsilon, first.delta) != (first.epsilon, first.delta):",
        f"{_TESTS}::TestBudgets::test_a_population_has_one_budget",
    ),
    mutant(
        "a reservation may be used again",
        _NOISE,
        "        if budget.sequence <= last.sequence:",
        "        if budget.sequence < last.sequence:",
        f"{_TESTS}::TestBudgets::test_reservations_do_not_go_back",
    ),
    mutant(
        "the next reservation may be of another ledger",
        _NOISE,
        "        elif budget.sequence == last.sequence + 1 and budget.previous != last.reserved:",
        "        elif budget.sequence == last.sequence and budget.previous != last.reserved:",
        f"{_TESTS}::TestBudgets::test_a_reservation_that_is_next_follows_from_the_one_before",
    ),
    mutant(
        "every reservation has to be the next",
        _NOISE,
        "        elif budget.sequence == last.sequence + 1 and budget.previous != last.reserved:",
        "        elif budget.previous != last.reserved:",
        f"{_TESTS}::TestBudgets::test_other_events_of_the_ledger_may_lie_between_reservations",
    ),
    mutant(
        "a session may open beyond the budget",
        _NOISE,
        "        if spent is not None:",
        "        if spent == 0:",
        f"{_TESTS}::TestBudgets::test_no_session_opens_that_could_cost_more_than_is_left",
    ),
    mutant(
        "a session costs its worst for ever",
        _SPENT,
        "        settled = end if session.settled_at is None else bisect_right(opened, session.settled_at)",
        "        settled = end",
        f"{_TESTS}::TestBudgets::test_a_session_that_was_closed_before_counts_with_its_contributions",
    ),
    mutant(
        "a session counts as closed before it is",
        _SPENT,
        "        settled = end if session.settled_at is None else bisect_right(opened, session.settled_at)",
        "        settled = end if session.settled_at is None else number + 1",
        f"{_TESTS}::TestBudgets::test_no_session_opens_that_could_cost_more_than_is_left",
        f"{_TESTS}::TestCharges",
    ),
    mutant(
        "an aborted session costs nothing although it was closed",
        _SPENT,
        "    if close is not None:\n        closed_at",
        "    if close is not None and entries.abort is None:\n        closed_at",
        f"{_TESTS}::TestBudgets::test_a_session_that_was_aborted_before_its_close_counts_nothing",
    ),
    mutant(
        "a session that is not settled costs nothing",
        _SPENT,
        "        return self.worst if self.settled_at is None else self.settled",
        "        return self.settled",
        f"{_TESTS}::TestBudgets::test_the_policy_counts_sessions_that_are_under_way",
    ),
    mutant(
        "a close over too few counts like any other",
        _NOISE,
        "    for session in noise.short:",
        "    for session in ():",
        f"{_TESTS}::TestBudgets::test_a_close_over_too_few_leaves_open_what_it_cost",
    ),
    mutant(
        "the policy's epsilon is no limit",
        _NOISE,
        "    if total is not None:\n        findings.fail(place",
        "    if total == 0:\n        findings.fail(place",
        f"{_TESTS}::TestBudgets::test_the_policy_limits_all_sessions_whatever_their_populations_are_called",
    ),
    mutant(
        "twice the budget is within it",
        _SPENT,
        "_ROUNDING = 1 + 1e-9",
        "_ROUNDING = 2.0",
        f"{_TESTS}::TestCharges::test_go_beyond_a_budget_exactly_where_their_epsilon_is_larger",
    ),
    mutant(
        "a sum may have any size",
        _NOISE,
        "    if squares < floor * (1 - _TOLERANCE):",
        "    if squares < 0:",
        f"{_TESTS}::TestTheFloor::test_catches_a_session_in_which_nobody_added_noise",
    ),
    mutant(
        "the floor counts on one contributor only",
        _NOISE,
        "(session.close.count - parameters.max_corrupt))",
        "(1 + 0 * parameters.max_corrupt))",
        f"{_TESTS}::TestTheFloor::test_counts_only_on_those_who_are_not_taken_to_be_corrupt",
    ),
    mutant(
        "the floor is where the noise is on average",
        _FLOOR,
        "    return coordinates * variance - math.sqrt(",
        "    return coordinates * variance - 0 * math.sqrt(",
        _FLOOR_TESTS,
    ),
    mutant(
        "the floor takes noise to be Gaussian at any variance",
        _FLOOR,
        "    fourth = variance * (3 * variance + 1)",
        "    fourth = variance * (3 * variance)",
        _FLOOR_TESTS,
    ),
    mutant(
        "a floor that is none passes",
        _NOISE,
        "    if floor <= 0:",
        "    if floor <= -1e300:",
        f"{_TESTS}::TestTheFloor::test_says_nothing_where_coordinates_are_few",
    ),
    mutant(
        "without noise what is declared of it fits together",
        _NOISE,
        '    """Rule: ``secagg.privacy.session_noise.check_noise`` has nothing to say of the open entry."""\n',
        "    findings.count()\n",
        f"{_TESTS}::TestHonestRecords::test_without_noise_have_nothing_to_check_and_do_not_pass_for_it",
    ),
    mutant(
        "an epsilon without a delta is ignored",
        _POLICY,
        '    if "epsilon" not in table and "delta" not in table:',
        '    if "epsilon" not in table or "delta" not in table:',
        "tests/unit/verifier/test_policy.py",
    ),
    mutant(
        "the statement says that there was no noise where some was declared",
        "verifier/noise_statement.py",
        "    if sessions and not noisy:",
        "    if sessions:",
        _REPORTS,
    ),
    mutant(
        "the report rests on nothing where noise is declared",
        "verifier/statement.py",
        "    if any(session.noise is not None for session in _spoken_of(report)):",
        "    if not _spoken_of(report):",
        _REPORTS,
    ),
    mutant(
        "an infinite epsilon is written into JSON",
        "verifier/json_report.py",
        "epsilon if epsilon is not None and math.isfinite(epsilon) else None",
        "epsilon if epsilon is not None and epsilon == epsilon else None",
        _REPORTS,
    ),
    mutant(
        "close entries of sessions that nobody checked are believed",
        _SPENT,
        "        if session.session in checked or session.settled is None",
        "        if session.session or checked",
        "tests/unit/verifier/test_noise_wanted.py",
    ),
)
