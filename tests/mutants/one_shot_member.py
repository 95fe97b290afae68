"""Weakenings of a committee member: what it holds, what it answers, what it remembers."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_M = "secagg/protocol/one_shot/member.py"
_S = "secagg/runtime/member_session.py"
_R = "secagg/runtime/committee_member.py"
_D = "secagg/store/member_state.py"
_I = "secagg/store/institution_state.py"
_B = "secagg/store/box_file.py"
_W = "secagg/services/committee.py"
_T = "secagg/services/turnstile.py"
_UM = "tests/unit/one_shot/test_member.py"
_IM = "tests/integration/test_committee_member.py"
_IS = "tests/integration/test_committee_streams.py"
_SA = "tests/adversaries/test_one_shot_service_attacks.py"
_A = "tests/adversaries/test_member_attacks.py"
_UD = "tests/unit/store/test_member_state.py"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "a member answers another close than the one it answered",
        _M,
        "    if view.close is None or view.close_digest != answered:\n",
        "    if view.close is None:\n",
        f"{_A}::TestAfterACrash",
    ),
    mutant(
        "a member sums again for whoever asks again",
        _M,
        "            _check_set(event, state.contributions, state.count)\n            return Transition(state)\n",
        "            return Transition(Answering(state.close, state.contributions, state.count), (SumShares(state.close, b''),))\n",
        f"{_UM}::TestOpening::test_the_same_request_again_changes_nothing_before_and_after_the_answer",
    ),
    mutant(
        "another set is answered under the close that was answered",
        _M,
        "            _check_set(event, state.contributions, state.count)\n",
        "",
        f"{_A}::TestTwoSets::test_the_difference_of_two_sets_is_nobody_s_share",
    ),
    mutant(
        "a close that was refused is forgotten",
        _M,
        "    return Transition(state, (), {row_key(SESSION_ROW): dataclasses.replace(row, view=view)})\n",
        "    return Transition(state)\n",
        f"{_UM}::TestOpening::test_a_close_that_was_only_shown_is_the_first_one_already",
    ),
    mutant(
        "a fork of an answered session becomes what its log is measured by",
        _M,
        "            _check_close(view, state.close)\n        return",
        "            pass\n        return",
        f"{_UM}::TestOpening::test_another_close_is_not_even_taken_note_of",
    ),
    mutant(
        "a set below the minimum is opened",
        _M,
        "    least = max(context.session.parameters.min_contributors, context.rules.min_contributors)\n",
        "    least = 1\n",
        f"{_A}::TestTheSet::test_fewer_than_the_minimum_are_not_opened_and_end_the_session",
    ),
    mutant(
        "a member's own minimum counts for nothing",
        _M,
        "    least = max(context.session.parameters.min_contributors, context.rules.min_contributors)\n",
        "    least = context.session.parameters.min_contributors\n",
        f"{_UM}::TestOpening::test_the_member_s_own_minimum_counts_also_where_it_was_raised_later",
    ),
    mutant(
        "the count of a set is what the close says",
        _M,
        "    if len(event.leaves) != DIGEST_BYTES * count:\n",
        "    if not event.leaves:\n",
        f"{_A}::TestTheSet::test_one_contribution_under_the_count_of_many_is_not_opened",
    ),
    mutant(
        "any set is the closed one",
        _M,
        "    if merkle.root_of_hashes(hashes) != contributions:\n",
        "    if not contributions:\n",
        f"{_UM}::TestOpening::test_a_close_that_breaks_a_rule_is_not_answered",
    ),
    mutant(
        "what is not held is left out of the sum",
        _M,
        "        if key is None:\n            raise RemoteProtocolError(\n                RejectReason.SHARE_NOT_HELD",
        "        if key is None:\n            continue\n            raise RemoteProtocolError(\n                RejectReason.SHARE_NOT_HELD",
        f"{_A}::TestTheSet::test_contributions_of_strangers_do_not_fill_the_set_up",
    ),
    mutant(
        "a contribution counts as often as it is listed",
        _M,
        "        if key <= last:\n",
        "        if key < last:\n",
        f"{_A}::TestTheSet::test_the_same_contribution_twice_is_not_summed",
    ),
    mutant(
        "the order of a set does not matter",
        _M,
        "        if key <= last:\n",
        "        if key == last:\n",
        f"{_A}::TestTheSet::test_the_same_contribution_twice_is_not_summed",
    ),
    mutant(
        "a member answers a close that does not name it",
        _M,
        "    if not isinstance(named, NamedMembers) or context.place not in named.members:\n",
        "    if not isinstance(named, NamedMembers):\n",
        f"{_A}::TestTheSet::test_a_close_that_does_not_name_the_member_is_not_answered",
    ),
    mutant(
        "an aborted session is opened",
        _M,
        "    if view.abort is not None:\n        return RejectReason.ABORTED\n",
        "",
        f"{_A}::TestTheSet::test_an_aborted_session_is_not_opened",
    ),
    mutant(
        "a header counts without its signature",
        _M,
        "    check_signature(signed, header.identity)\n",
        "",
        f"{_A}::TestTheSet::test_a_header_with_a_box_of_the_coordinator_s_own_is_not_held",
    ),
    mutant(
        "a box counts whatever the header names",
        _M,
        "    if hashlib.sha256(item.box).digest() != header.parts[context.place]:\n",
        "    if not item.box:\n",
        f"{_A}::TestTheSet::test_a_header_with_a_box_of_the_coordinator_s_own_is_not_held",
    ),
    mutant(
        "a box is held unopened",
        _M,
        "        open_box(sealing_key, info, item.box, context.committee, context.place)\n    except",
        "        pass\n    except",
        f"{_UM}::TestHolding::test_a_box_that_does_not_open_is_complained_of_though_the_header_names_it",
    ),
    mutant(
        "a second header replaces the first",
        _M,
        "        if key not in rows and key not in new:\n",
        "        if key not in new:\n",
        f"{_UM}::TestHolding::test_of_two_headers_of_one_identity_the_first_stays",
    ),
    mutant(
        "any coordinator is served",
        _M,
        "        if parameters.coordinator not in self.coordinators:\n",
        "        if self.coordinators and parameters.coordinator == bytes(32):\n",
        f"{_UM}::TestJoining::test_a_session_that_is_none_for_this_member_is_not_joined",
    ),
    mutant(
        "a member stands in a committee with one of its keys",
        _M,
        "        if member.identity == identity and member.sealing_key == sealing_key:\n",
        "        if member.identity == identity:\n",
        f"{_UM}::TestJoining::test_a_member_stands_in_the_committee_with_both_of_its_keys_or_not_at_all",
    ),
    mutant(
        "a restored member joins what was opened before",
        _M,
        "        if self.restored_at_s and parameters.opened_at_s <= self.restored_at_s + 2 * CLOCK_TOLERANCE_S:\n",
        "        if self.restored_at_s and parameters.opened_at_s < 0:\n",
        f"{_A}::TestAfterACrash::test_a_restored_member_answers_nothing_that_it_may_have_answered",
    ),
    mutant(
        "a session may be dated into the future",
        _M,
        "        if parameters.opened_at_s > now_s + CLOCK_TOLERANCE_S:\n",
        "        if parameters.opened_at_s > 2 * now_s:\n",
        f"{_A}::TestAfterACrash::test_a_restored_member_answers_nothing_that_it_may_have_answered",
    ),
    mutant(
        "what was decided before a crash is decided anew",
        _M,
        "        case Answering() | Answered():\n            _check_close(log.join(parameters, context.log, event.evidence), state.close)\n            _check_set(event, state.contributions, state.count)\n            return Transition(state)\n        case Holding():\n",
        "        case Answered():\n            return Transition(state)\n        case Holding() | Answering():\n",
        f"{_UM}::TestOpening::test_another_close_is_never_answered",
    ),
    mutant(
        "one bad box refuses the batch",
        _S,
        "                found.append(error.reason)\n",
        "                raise\n",
        f"{_IM}::test_one_bad_item_of_a_batch_leaves_the_others_alone",
    ),
    mutant(
        "a verdict does not look at what is held",
        _S,
        "        held = isinstance(row, HeldRow) and row.leaf == share.leaf\n",
        "        held = isinstance(row, HeldRow)\n",
        f"{_IM}::test_one_bad_item_of_a_batch_leaves_the_others_alone",
    ),
    mutant(
        "a box is stored as often as it comes",
        _S,
        "            new.setdefault(share.position, (share, item.box))\n",
        "            new[len(new)] = (share, item.box)\n",
        f"{_IM}::test_one_bad_item_of_a_batch_leaves_the_others_alone",
    ),
    mutant(
        "what a member gives away does not stand in its journal",
        _S,
        "        await self._write_down(answered.close, answered.count, None)\n",
        "",
        f"{_IM}::test_a_session_from_join_to_answer_and_what_is_left_of_it",
    ),
    mutant(
        "boxes outlive the answer",
        _S,
        "        if self.is_over:\n",
        "        if not self.rows:\n",
        f"{_IM}::test_a_session_from_join_to_answer_and_what_is_left_of_it",
    ),
    mutant(
        "what another session showed of the log binds nobody",
        _S,
        "        self._trust.check(seen, evidence)\n",
        "        pass\n",
        f"{_A}::TestTwoSets::test_what_the_log_remembers_of_another_session_binds_this_one",
    ),
    mutant(
        "a damaged box is left out of the sum",
        _S,
        "            return SharesLost(effect.close)\n",
        "            totals = [np.zeros(SHARE_ELEMENTS, dtype=np.uint64)]\n",
        f"{_IM}::test_a_damaged_box_is_reported_and_gives_no_answer",
    ),
    mutant(
        "two sessions of a log need no proof between them",
        _R,
        "            await asyncio.to_thread(trust.accept, seen, view, files.evidence, files.consistency)\n",
        "            await asyncio.to_thread(trust.remember, files.evidence)\n",
        f"{_IM}::test_two_sessions_of_one_log_are_tied_together_by_consistency_proofs",
    ),
    mutant(
        "boxes of abandoned sessions are kept",
        _R,
        "        for key in set(await asyncio.to_thread(self.ports.boxes.sessions)).difference(keys):\n",
        "        for key in ():\n",
        f"{_IM}::test_a_copied_state_is_refused_until_the_operator_says_so_and_then_opens_nothing_of_before",
    ),
    mutant(
        "a copy of the state is the state",
        _I,
        "    if problem:\n",
        "    if not directory.exists():\n",
        f"{_UD}::TestTheStateDirectory::test_an_empty_backup_of_the_first_day_is_not_taken_for_the_state",
    ),
    mutant(
        "a restore leaves no date behind",
        _D,
        '            replace_durably(directory / RESTORED_FILE, b"%d\\n" % at_s)\n',
        "            del at_s\n",
        f"{_UD}::TestTheStateDirectory",
    ),
    mutant(
        "a state that was restored into its old inodes is the state",
        _D,
        "            problem = mark_problem(directory) or _birth_problem(directory)\n",
        "            problem = mark_problem(directory)\n",
        f"{_UD}::TestTheStateDirectory::test_a_restored_file_that_got_its_old_inode_is_noticed_all_the_same",
    ),
    mutant(
        "an earlier restore replaces the date of a later one",
        _D,
        "at_s = max(now_s, _restored_at(directory) if directory.is_dir() else 0)",
        "at_s = now_s",
        f"{_UD}::TestTheStateDirectory::test_the_latest_restore_counts",
    ),
    mutant(
        "a batch that failed gives its slots to the next one",
        _B,
        "                slot = size // box_bytes if known is None else known[1]\n",
        "                slot = 0 if known is None else known[1]\n",
        "tests/unit/store/test_box_file.py",
    ),
    mutant(
        "what could be joined before a restore can be joined after it",
        _M,
        "parameters.opened_at_s <= self.restored_at_s + 2 * CLOCK_TOLERANCE_S:",
        "parameters.opened_at_s < self.restored_at_s + CLOCK_TOLERANCE_S:",
        f"{_SA}::TestBackupsAndDisks::test_what_could_be_joined_before_a_restore_cannot_be_joined_after_it",
    ),
    mutant(
        "an answer that never came is waited for for ever",
        _S,
        "        if not self.is_over and self._ports.clock.now_s() >= self.keeps_until_s:\n",
        "        if isinstance(self.driver.state, member.Holding) and self._ports.clock.now_s() >= self.keeps_until_s:\n",
        f"{_SA}::TestBackupsAndDisks::test_a_session_whose_boxes_are_gone_ends_when_its_time_is_over",
    ),
    mutant(
        "what was decided on and never came stays decided",
        _M,
        "            return Over(RejectReason.SHARE_NOT_HELD)\n        case _:\n            return state\n",
        "            return state\n        case _:\n            return state\n",
        f"{_UM}::TestTheEnd::test_an_answer_that_never_came_is_not_waited_for_longer_than_its_session_is_kept",
    ),
    mutant(
        "one damaged roster keeps the member from starting",
        _R,
        "        except (KeyError, IndexError, RecordError, PersistError) as error:\n",
        "        except (KeyError, IndexError, PersistError) as error:\n",
        f"{_SA}::TestBackupsAndDisks::test_one_damaged_roster_keeps_no_other_session_from_being_served",
    ),
    mutant(
        "one missing row keeps the member from starting",
        _R,
        "        except (KeyError, IndexError, RecordError, PersistError) as error:\n",
        "        except (IndexError, RecordError, PersistError) as error:\n",
        f"{_IM}::test_a_damaged_session_is_reported_and_keeps_no_member_from_starting",
    ),
    mutant(
        "a damaged state keeps the member from starting",
        _R,
        "            except (StoreError, OSError, PersistError, ProtocolError) as error:\n                # The others",
        "            except (StoreError, OSError, ProtocolError) as error:\n                # The others",
        f"{_IM}::test_a_damaged_session_is_reported_and_keeps_no_member_from_starting",
    ),
    mutant(
        "a closed set has as many as the session admits, whoever is in the roster",
        _S,
        "        most = min(session.parameters.encoding.max_contributors, len(session.positions))\n",
        "        most = session.parameters.encoding.max_contributors\n",
        f"{_SA}::TestWhoeverReachesThePort::test_a_stream_of_more_headers_than_the_roster_has_people_is_cut_off",
    ),
    mutant(
        "a closed set may have more than the member holds",
        _S,
        "        if count > held:\n",
        "        if count < 0:\n",
        f"{_IM}::test_a_stream_that_is_no_closed_set_is_refused_with_its_field",
    ),
    mutant(
        "a stream is read before its evidence holds",
        _S,
        "                await self.show(evidence)\n                self._check_not_over()\n                async for piece in leaves:\n"
        "                    count += len(piece) // DIGEST_BYTES\n                    self._check_count(count)\n"
        "                    came += piece\n",
        "                async for piece in leaves:\n"
        "                    count += len(piece) // DIGEST_BYTES\n                    self._check_count(count)\n"
        "                    came += piece\n                await self.show(evidence)\n                self._check_not_over()\n",
        f"{_SA}::TestWhoeverReachesThePort::test_streams_that_say_nothing_keep_no_coordinator_waiting",
    ),
    mutant(
        "a stream may be silent for ever",
        _W,
        "asyncio.timeout_at(min(end_s, now_s() + self._limits.message_s))",
        "asyncio.timeout_at(end_s)",
        f"{_IS}::test_a_stream_that_falls_silent_is_ended",
    ),
    mutant(
        "a stream may begin with silence for ever",
        _W,
        "        async with asyncio.timeout(self._limits.message_s):\n",
        "        async with asyncio.timeout(None):\n",
        f"{_IS}::test_a_stream_that_falls_silent_is_ended",
    ),
    mutant(
        "a stream may last for ever",
        _W,
        "asyncio.timeout_at(min(end_s, now_s() + self._limits.message_s))",
        "asyncio.timeout(self._limits.message_s)",
        f"{_IS}::test_a_stream_that_goes_on_for_ever_is_ended",
    ),
    mutant(
        "who waits for a place waits for ever",
        _T,
        "                async with asyncio.timeout(self._wait_s):\n",
        "                async with asyncio.timeout(None):\n",
        f"{_IS}::test_who_waits_for_a_place_too_long_is_told_to_come_again",
    ),
    mutant(
        "one session's streams take all places",
        _T,
        "                    await taken.enter_async_context(own)\n",
        "",
        f"{_IS}::test_streams_of_one_session_keep_no_other_waiting",
    ),
    mutant(
        "answered sessions take the places of those to answer",
        _W,
        "        places = self.repetitions if session.is_over else self.openings\n",
        "        places = self.openings\n",
        f"{_IS}::test_streams_of_answered_sessions_keep_none_waiting_that_is_to_be_answered",
    ),
    mutant(
        "a refusal is sent to a client that is still sending",
        _W,
        "            await let_finish(request)\n",
        "",
        f"{_IS}::test_a_refusal_reaches_a_client_that_is_still_sending",
    ),
    mutant(
        "any registrar's roster is taken",
        _W,
        "files.roster, files.roster_head, files.roster_signature, registrar\n",
        "files.roster, files.roster_head, files.roster_signature, frozenset()\n",
        f"{_A}::TestTheSet::test_a_roster_of_strangers_is_not_taken_for_the_registrar_s",
    ),
)
