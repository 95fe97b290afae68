"""Mutants of the coordinator of one-shot sessions, of its opening, and of partial sums."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_COORDINATOR = "tests/unit/one_shot/test_coordinator.py"
_SESSION = "tests/unit/one_shot/test_one_shot_session.py"
_PARTIAL = "tests/unit/runtime/test_partial_sum.py"
_ADMISSION = "secagg/protocol/one_shot/admission.py"
_TABLES = "secagg/protocol/one_shot/tables.py"
_MACHINE = "secagg/protocol/one_shot/coordinator.py"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "members are kept at the price of the minimum",
        _TABLES,
        " and most >= parameters.min_contributors:",
        ":",
        f"{_COORDINATOR}::test_as_many_members_are_named_as_corrupt_contributors_allow",
        "tests/adversaries/test_one_shot_attacks.py::TestMembersWhoBlock",
    ),
    mutant(
        "the set is not chosen anew among all when a liar goes",
        _MACHINE,
        "    return Transition(Folding(accepted, members), (FoldContributions(accepted),), rows)",
        "    lacking = RejectedRow(RejectReason.SHARE_NOT_HELD.name)\n"
        "    rows |= {row_key(position, RowKind.REJECTED): lacking for position in set(staged) - set(accepted)}\n"
        "    return Transition(Folding(accepted, members), (FoldContributions(accepted),), rows)",
        "tests/adversaries/test_one_shot_attacks.py::TestMembersWhoBlock",
    ),
    mutant(
        "blobs are not looked after once their row is there",
        "secagg/runtime/one_shot_host.py",
        "        await self.driver.feed(stored)\n        await asyncio.to_thread(self._keep, stored)",
        "        await self.driver.feed(stored)",
        "tests/adversaries/test_one_shot_attacks.py::TestContributorsWhoSpoil",
    ),
    mutant(
        "every repetition is an arrival",
        "secagg/runtime/one_shot_openers.py",
        "        if position in self._arrived:",
        "        if position < 0:",
        "tests/adversaries/test_one_shot_attacks.py::TestContributorsWhoSpoil",
    ),
    mutant(
        "another header of the same identity is taken for the first",
        _ADMISSION,
        "        if known == row:\n            return {row_key(position, kind): row}",
        "        if known is not None:\n            return {row_key(position, kind): row}",
        f"{_COORDINATOR}::test_a_retry_is_taken_only_if_it_is_the_same_to_the_byte",
    ),
    mutant(
        "parts are not compared with their digests",
        _ADMISSION,
        "        if hashlib.sha256(part).digest() != digest:",
        "        if len(digest) != 32:",
        f"{_COORDINATOR}::test_a_bad_contribution_is_refused_with_its_reason_and_leaves_nothing_behind",
    ),
    mutant(
        "boxes may have any length",
        _ADMISSION,
        "            if len(part) != box_bytes(session.opening, place):",
        "            if not part:",
        f"{_COORDINATOR}::test_a_bad_contribution_is_refused_with_its_reason_and_leaves_nothing_behind",
    ),
    mutant(
        "a digest may be signed twice",
        _ADMISSION,
        "any(rows.get(key, row) != row for key in keys)",
        "False",
        f"{_COORDINATOR}::test_nobody_signs_what_another_has_signed",
    ),
    mutant(
        "only uploads and hashes are anybody's own",
        _ADMISSION,
        "    digests = (header.upload, header.linear_hash, *header.parts)",
        "    digests = (header.upload, header.linear_hash)",
        f"{_COORDINATOR}::test_nobody_signs_what_another_has_signed",
    ),
    mutant(
        "an answer to any close counts",
        _ADMISSION,
        "    if not isinstance(statement, MemberAnswer | AuthorityAnswer) or statement.close != opening.close:",
        "    if not isinstance(statement, MemberAnswer | AuthorityAnswer):",
        f"{_COORDINATOR}::test_answers_count_only_from_named_members_to_this_close_and_once",
    ),
    mutant(
        "members that are not named may answer",
        _ADMISSION,
        "    if place not in opening.members:",
        "    if place < 0:",
        f"{_COORDINATOR}::test_answers_count_only_from_named_members_to_this_close_and_once",
    ),
    mutant(
        "an opener's signature is not checked",
        _ADMISSION,
        "    check_signature(signed, identity)\n    return openers.index(identity)",
        "    return openers.index(identity)",
        f"{_COORDINATOR}::test_answers_count_only_from_named_members_to_this_close_and_once",
    ),
    mutant(
        "members go where one contribution is lacking",
        _TABLES,
        "        if len(staged) - most <= session.spared and most",
        "        if len(staged) - most <= 0 and most",
        f"{_COORDINATOR}::test_as_many_members_are_named_as_corrupt_contributors_allow",
    ),
    mutant(
        "a contribution counts that a named member lacks",
        _TABLES,
        "if holdings(rows, at).held & together == together)",
        "if holdings(rows, at).held & together)",
        f"{_COORDINATOR}::test_as_many_members_are_named_as_corrupt_contributors_allow",
    ),
    mutant(
        "fewer than needed may be named",
        _TABLES,
        "range(len(committee.members), committee.needed - 1, -1)",
        "range(len(committee.members), committee.needed - 2, -1)",
        f"{_COORDINATOR}::test_as_many_members_are_named_as_corrupt_contributors_allow",
    ),
    mutant(
        "a member may take back what it said",
        _MACHINE,
        "            if not (before.held | before.refused) & bit:",
        "            if not before.held & bit:",
        f"{_COORDINATOR}::test_the_first_that_a_member_says_of_a_contribution_stands",
    ),
    mutant(
        "a set below the minimum is closed",
        _MACHINE,
        "    if len(accepted) < session.parameters.min_contributors:",
        "    if len(accepted) < 2:",
        f"{_SESSION}::test_too_few_contributions_are_never_closed",
    ),
    mutant(
        "liars about their upload stay in the set",
        _MACHINE,
        "    liars = frozenset(event.indices).intersection(state.accepted)",
        "    liars = frozenset(event.indices).intersection(())",
        f"{_COORDINATOR}::test_whose_upload_is_not_what_it_signed_is_left_out_by_name",
    ),
    mutant(
        "the session does not wait for the members it needs",
        _MACHINE,
        "    everybody = max(1, len(last.members))",
        "    everybody = last.answered",
        f"{_SESSION}::test_a_member_that_lies_is_found_out_and_listed_and_the_sum_is_right",
    ),
    mutant(
        "answers that do not fit are not listed",
        "secagg/derive/ring_opening.py",
        "        member for member in sorted(answers) if member not in used and not _fits(committee, answers, used, member)",
        "        member for member in sorted(answers) if member not in used and _fits(committee, answers, used, member)",
        f"{_SESSION}::test_a_member_that_lies_is_found_out_and_listed_and_the_sum_is_right",
    ),
    mutant(
        "a secret sum that does not certify opens",
        "secagg/derive/ring_opening.py",
        "        self.mask.certify_and_unmask(lanes, secret_sum, self.contributors, self.public_key)",
        "        try:\n"
        "            self.mask.certify_and_unmask(lanes, secret_sum, self.contributors, self.public_key)\n"
        "        except CertificationError:\n"
        "            lanes >>= np.uint64(self.mask.shift)",
        f"{_SESSION}::test_a_member_that_lies_is_found_out_and_listed_and_the_sum_is_right",
        f"{_SESSION}::test_where_no_set_of_answers_opens_the_sum_nothing_is_published",
    ),
    mutant(
        "a contribution in two partial sums counts twice",
        "secagg/runtime/partial_sum.py",
        "        if twice:",
        "        if len(twice) > len(self._held):",
        f"{_PARTIAL}::test_a_contribution_that_is_in_both_is_not_counted_twice",
    ),
    mutant(
        "the set of a partial sum is written in the order of merging",
        "secagg/runtime/partial_sum.py",
        "for place, position in enumerate(sorted(self._held)):",
        "for place, position in enumerate(self._held):",
        f"{_PARTIAL}::test_any_tree_in_any_order_gives_the_same_bytes",
    ),
    mutant(
        "merging forgets the hashes",
        "secagg/runtime/partial_sum.py",
        "        np.add(self._hashes, other.hashes, out=self._hashes)",
        "        np.add(self._hashes, other.hashes)",
        f"{_PARTIAL}::test_any_tree_in_any_order_gives_the_same_bytes",
    ),
    mutant(
        "what another process added is trusted to be new",
        "secagg/runtime/limb_sums.py",
        "        if index not in total.held:\n            total.add",
        "        if True:\n            total.add",
        "tests/unit/runtime/test_limb_sums.py::test_what_another_process_added_up_is_taken_over_and_not_read_again",
    ),
)
