"""Weakenings of noise: what contributors add, what they check of it, and what both ledgers stop."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_SESSION_NOISE = "secagg/privacy/session_noise.py"
_SHARE = "secagg/privacy/noise_share.py"
_ROUNDING = "dp/rounding.py"
_SAMPLER = "dp/sampler.py"
_CHARGE = "dp/charge.py"
_BOOK = "dp/ledger_book.py"
_SPENDING = "secagg/spending.py"
_ATTACKS = "tests/adversaries/test_privacy_attacks.py"
_SHARES = "tests/unit/privacy/test_noise_share.py"
_OPERATOR = "tests/integration/test_operator_ledger.py"
_DECLARED = "tests/unit/privacy/test_session_noise.py"

MUTANTS: tuple[Mutant, ...] = (
    # What a contributor adds.
    mutant(
        "a vector is rounded once and never looked at again",
        _ROUNDING,
        "        if squared_norm(values) <= bound:",
        "        if squared_norm(values) <= 2**63:",
        f"{_SHARES}::test_a_vector_that_is_too_long_after_rounding_never_gets_into_a_sum",
    ),
    mutant(
        "squares wrap around where vectors are long",
        _ROUNDING,
        "        if largest * largest > MAX_SQUARED_NORM:",
        "        if largest * largest > 2**63:",
        "tests/unit/dp/test_rounding.py",
    ),
    mutant(
        "no noise is added",
        _SHARE,
        "    sampler.add_into(values)",
        "    del sampler",
        f"{_SHARES}::test_what_is_packed_is_the_signal_and_noise_of_the_declared_variance",
        f"{_SHARES}::test_a_whole_session_sums_up_signal_and_everybodys_noise",
    ),
    mutant(
        "every contributor adds the same noise",
        _SHARE,
        "derive(secret, Label.NOISE).expose()",
        "bytes(32)",
        f"{_SHARES}::test_the_same_secret_gives_the_same_noise_and_another_one_other_noise",
    ),
    mutant(
        "noise is the same in every session",
        _SHARE,
        "noise.to_bytes())",
        'b"")',
        f"{_SHARES}::test_sessions_with_one_secret_get_unrelated_noise",
    ),
    mutant(
        "one key draws from any table",
        _SAMPLER,
        "for part in (context, stream, table_digest))",
        "for part in (context, stream))",
        "tests/unit/dp/test_sampler.py",
    ),
    mutant(
        "a tie is always the alias",
        _SAMPLER,
        "            if self._ties.word(self._drawn + index) < low_edge:",
        "            if self._ties.word(self._drawn + index) < 0:",
        "tests/unit/dp/test_sampler.py",
    ),
    # What a contributor believes of the open entry.
    mutant(
        "nobody checks what is declared of noise",
        "secagg/client.py",
        "            await asyncio.to_thread(check_noise, parameters)",
        "            await asyncio.to_thread(len, parameters.session)",
        f"{_ATTACKS}::test_a_client_leaves_when_what_is_declared_is_not_true",
    ),
    mutant(
        "a coordinator opens any session with noise",
        "secagg/runtime/registry.py",
        "        await asyncio.to_thread(_check_noise, parameters)",
        "        await asyncio.to_thread(len, parameters.session)",
        f"{_ATTACKS}::test_an_honest_coordinator_does_not_open_such_a_session",
    ),
    mutant(
        "noise may be cut off at the edge of the field",
        _SESSION_NOISE,
        "    if room < reach:",
        "    if room < 0:",
        f"{_DECLARED}::test_what_does_not_fit_together_is_refused_by_name",
    ),
    mutant(
        "any bound on squares will do",
        _SESSION_NOISE,
        "    if noise.squared_norm != expected:",
        "    if noise.squared_norm > expected:",
        f"{_DECLARED}::test_what_does_not_fit_together_is_refused_by_name",
    ),
    mutant(
        "colluders count as adding noise",
        _SESSION_NOISE,
        "        parameters.max_corrupt,\n        Sensitivity",
        "        0,\n        Sensitivity",
        f"{_DECLARED}::test_colluders_count_as_adding_nothing",
    ),
    # What is counted.
    mutant(
        "what is sampled counts as the ideal law",
        _CHARGE,
        "    if charge.distance == 0:",
        "    if charge.distance >= 0:",
        "tests/unit/dp/test_accounting_charge.py",
    ),
    mutant(
        "the noise of colluders counts",
        "dp/mechanisms.py",
        "skellam_rdp(self.local_variance * (self.survivors - self.corrupt), self.sensitivity)",
        "skellam_rdp(self.local_variance * self.survivors, self.sensitivity)",
        "tests/adversaries/test_privacy_audit.py::"
        "test_the_game_stays_below_the_claim_until_more_leave_their_noise_out_than_may",
    ),
    mutant(
        "whatever a close entry counts lowers a client's charge",
        "secagg/protocol/pairwise/client.py",
        "    return Transition(Completed(view, _answered_over(state)))",
        "    return Transition(Completed(view, view.close.count if view.close else 0))",
        f"{_ATTACKS}::test_a_close_that_a_client_did_not_answer_lowers_no_charge_of_its",
    ),
    mutant(
        "who has lost its sessions contributes again for nothing",
        "secagg/participation.py",
        "        elif not begun:",
        "        elif begun is None:",
        f"{_ATTACKS}::test_who_has_lost_its_sessions_does_not_contribute_to_one_again_for_nothing",
    ),
    mutant(
        "what a lost ledger has forgotten is forgotten",
        "secagg/participation.py",
        "        for forgotten in await self._keeper.uncharged(budget):",
        "        for forgotten in list[SessionOpen]():",
        f"{_ATTACKS}::test_what_was_spent_before_the_ledger_began_is_charged_from_the_store_of_sessions",
    ),
    mutant(
        "a contributor reserves nothing",
        "secagg/participation.py",
        "            await asyncio.to_thread(budget.reserve, parameters)",
        "            await asyncio.to_thread(budget.spending, parameters)",
        f"{_ATTACKS}::test_what_is_spent_is_written_down_before_the_session_is_joined",
        f"{_ATTACKS}::test_a_client_stops_when_its_own_budget_is_spent_whatever_the_operator_says",
    ),
    mutant(
        "a budget does not mind sessions without noise",
        "secagg/protocol/session.py",
        "        if self.allowance is not None and isinstance(parameters.noise, NoDifferentialPrivacy):",
        "        if False:",
        f"{_ATTACKS}::test_a_client_with_a_budget_takes_part_in_no_session_without_noise",
    ),
    mutant(
        "any budget holds anything",
        _BOOK,
        "        return math.isfinite(spent.epsilon) and Fraction(spent.epsilon) <= self.budget.epsilon",
        "        return math.isfinite(spent.epsilon)",
        "tests/unit/dp/test_ledger.py",
        f"{_ATTACKS}::test_a_client_stops_when_its_own_budget_is_spent_whatever_the_operator_says",
    ),
    mutant(
        "an operator's ledger may be older than the log",
        "secagg/cli/operator_ledger.py",
        "            ledger.require(Head(budget.sequence, budget.reserved))",
        "            ledger.contains(Head(budget.sequence, budget.reserved))",
        f"{_OPERATOR}::test_a_ledger_that_was_restored_with_all_its_files_is_found_by_the_log",
    ),
    mutant(
        "a session that was closed and aborted costs nothing",
        "secagg/cli/operator_ledger.py",
        "    if session.closed_over is None:",
        "    if session.ended:",
        f"{_OPERATOR}::test_what_the_log_shows_lowers_the_charge",
    ),
    mutant(
        "settling may raise a charge",
        _BOOK,
        "        if not charge_of(entry.reserved).covers(charge_of(event.mechanism)):",
        "        if False:",
        "tests/unit/dp/test_ledger.py",
    ),
    # Foreign bytes.
    mutant(
        "brackets in brackets trip the decoder of what is hashed and signed",
        "secagg/transcript/canonical.py",
        "    except (ValueError, RecursionError):",
        "    except ValueError:",
        "tests/fuzz/test_fuzz.py::test_what_is_no_refusal_is_a_crash_and_there_is_none",
    ),
)
