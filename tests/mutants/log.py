"""Weakenings of the log: its writer, its files, its tree."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mutant

_LOG = "secagg/runtime/transparency_log.py"
_LOG_STATE = "secagg/runtime/log_state.py"
_LOG_RECORD = "secagg/runtime/log_record.py"
_LOG_FILES = "secagg/store/log_files.py"
_LOG_TESTS = "tests/unit/runtime/test_transparency_log.py"
_LOG_CRASHES = "tests/unit/store/test_log_crashes.py"
_LOG_FILES_TESTS = "tests/unit/store/test_log_files.py"
_TREE_TESTS = "tests/unit/transcript/test_growing_tree.py"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "a head leaves the process before it is in the private file",
        _LOG,
        "            await self._files.keep_signed(note.to_bytes())\n",
        "",
        f"{_LOG_TESTS}::test_a_head_is_in_the_private_file_before_a_witness_sees_it_and_its_entries_before_that",
    ),
    mutant(
        "a log signs a head that does not continue its last one",
        _LOG,
        "if last is not None and (last.size > size or",
        "if last is not None and last.size > size and (",
        f"{_LOG_TESTS}::test_the_log_signs_no_head_that_leaves_its_last_one_behind",
    ),
    mutant(
        "an append is answered before its checkpoint is published",
        _LOG,
        "        await self._sequence(batch)\n        await self._publish()\n",
        "        await self._sequence(batch)\n",
        f"{_LOG_TESTS}::test_what_was_appended_is_under_the_published_checkpoint_when_the_call_returns",
    ),
    mutant(
        "entries are signed before they have a durable place",
        _LOG,
        "            await self._files.add([bundle])\n",
        "            pass\n",
        f"{_LOG_TESTS}::test_a_head_is_in_the_private_file_before_a_witness_sees_it_and_its_entries_before_that",
    ),
    mutant(
        "an entry gets a second place",
        _LOG,
        "if digest not in self._state.index:",
        "if digest in new or digest:",
        f"{_LOG_TESTS}::test_entries_get_their_places_in_order_and_each_has_one",
    ),
    mutant(
        "a checkpoint is published before its tiles",
        _LOG,
        "        await self._files.add(tiles)\n        await self._files.publish(published)\n",
        "        await self._files.publish(published)\n        await self._files.add(tiles)\n",
        f"{_LOG_TESTS}::test_the_tiles_are_there_before_the_checkpoint_that_needs_them",
    ),
    mutant(
        "what a crash left signed is grown before it is published",
        _LOG,
        "        await self._publish()\n        await self._sequence(batch)\n",
        "        await self._sequence(batch)\n",
        f"{_LOG_TESTS}::test_what_a_crash_left_unpublished_is_published_before_anything_new",
    ),
    mutant(
        "a log goes on after a witness knew more of it",
        _LOG,
        "                raise StoreError(self._refusal) from error\n",
        "                self._refusal = None\n",
        f"{_LOG_TESTS}::test_a_witness_that_knows_more_stops_the_log_for_good",
    ),
    mutant(
        "witnesses are given up on",
        _LOG,
        '                self._report("log-not-cosigned", error.reason)\n',
        "                raise StoreError(error.reason) from error\n",
        f"{_LOG_TESTS}::test_witnesses_that_fail_for_a_while_are_asked_again_with_the_same_head_and_longer_pauses",
    ),
    mutant(
        "what witnesses sent is published unread",
        _LOG,
        "                open_head(published, self._log_key)\n",
        "",
        f"{_LOG_TESTS}::test_lines_that_would_spoil_the_checkpoint_are_not_published",
    ),
    mutant(
        "entries that no checkpoint covers are found",
        _LOG,
        "return index if index is not None and index < self.size else None",
        "return index",
        f"{_LOG_TESTS}::test_what_comes_while_cosignatures_are_under_way_waits_for_the_next_checkpoint",
    ),
    mutant(
        "after a failed write the log goes on from memory",
        _LOG,
        "                    self._in_doubt = True\n",
        "",
        f"{_LOG_CRASHES}::test_a_call_that_fails_loses_nothing_even_if_the_machine_fails_soon_after",
    ),
    mutant(
        "what a failed write left is built on before it is flushed",
        _LOG,
        "            await self._files.settle()\n",
        "",
        f"{_LOG_CRASHES}::test_a_call_that_fails_loses_nothing_even_if_the_machine_fails_soon_after",
    ),
    mutant(
        "a record that is older than what was signed opens",
        _LOG_STATE,
        "        if head.size > tree.size:",
        "        if head.size > tree.size + 9:",
        f"{_LOG_FILES_TESTS}::test_an_old_backup_of_the_record_is_refused",
    ),
    mutant(
        "entries that give another root than was signed open",
        _LOG_STATE,
        "        if tree.root(head.size) != head.root:",
        "        if len(head.root) != 32:",
        f"{_LOG_TESTS}::test_files_that_are_older_or_other_than_what_was_signed_are_stale",
    ),
    mutant(
        "a private state that is older than the record opens",
        _LOG_STATE,
        "if published is not None and (signed is None or signed.size < published.size):",
        "if published is not None and signed is None:",
        f"{_LOG_TESTS}::test_files_that_are_older_or_other_than_what_was_signed_are_stale",
    ),
    mutant(
        "tiles need not follow from the entries when a log opens",
        _LOG_STATE,
        "leftovers += _refuse_faults(check_tiles(files, names, tree, size), _REBUILD)",
        "leftovers += []",
        f"{_LOG_TESTS}::test_damaged_and_foreign_files_are_refused_and_left_as_they_are",
    ),
    mutant(
        "a bundle that changed is shown as evidence",
        _LOG_STATE,
        'if b"".join(map(leaf_hash, entries)) != self.tree.nodes(0, number * TILE_WIDTH, TILE_WIDTH):',
        "if len(entries) != TILE_WIDTH:",
        f"{_LOG_TESTS}::test_a_bundle_that_changes_under_an_open_log_is_noticed",
    ),
    mutant(
        "a partial bundle may tell another history than the full one",
        _LOG_RECORD,
        "        if record.read(path) != encode_bundle(entries[:width]):",
        "        if record.read(path) is None:",
        f"{_LOG_TESTS}::test_damaged_and_foreign_files_are_refused_and_left_as_they_are",
    ),
    mutant(
        "a bundle may hold fewer entries than its name says",
        _LOG_RECORD,
        "        if len(entries) != width:",
        "        if len(entries) > width:",
        f"{_LOG_TESTS}::test_damaged_and_foreign_files_are_refused_and_left_as_they_are",
    ),
    mutant(
        "a gap between bundles is the end of the log",
        _LOG_RECORD,
        "    if beyond > tree.size // TILE_WIDTH:",
        "    if beyond < -1:",
        f"{_LOG_TESTS}::test_damaged_and_foreign_files_are_refused_and_left_as_they_are",
    ),
    mutant(
        "a file that is in the way is overwritten",
        _LOG_FILES,
        "            if found is None:",
        "            if found != data:",
        f"{_LOG_FILES_TESTS}::test_a_file_that_is_there_with_other_bytes_is_not_touched",
    ),
    mutant(
        "a published file gets its name before its content is flushed",
        _LOG_FILES,
        "        write_all(descriptor, data, 0)\n        os.fsync(descriptor)\n",
        "        write_all(descriptor, data, 0)\n",
        f"{_LOG_CRASHES}::test_a_crash_at_any_system_call_loses_nothing_acknowledged_and_forks_nothing",
    ),
    mutant(
        "the names of published files are not flushed",
        _LOG_FILES,
        "        for directory in sorted({target.parent for target, _ in files}):\n            fsync_directory(directory)\n",
        "",
        f"{_LOG_CRASHES}::test_a_crash_at_any_system_call_loses_nothing_acknowledged_and_forks_nothing",
    ),
    mutant(
        "the names of new directories are not flushed",
        _LOG_FILES,
        "        directory.chmod(PUBLIC_DIRECTORY_MODE)\n        fsync_directory(directory.parent)\n",
        "        directory.chmod(PUBLIC_DIRECTORY_MODE)\n",
        f"{_LOG_CRASHES}::test_a_crash_at_any_system_call_loses_nothing_acknowledged_and_forks_nothing",
    ),
    mutant(
        "what a killed process left is built on before it is flushed",
        _LOG_FILES,
        "            self._flush()\n",
        "",
        f"{_LOG_CRASHES}::test_what_a_killed_process_had_not_flushed_is_flushed_before_anything_is_built_on_it",
    ),
    mutant(
        "a private state that was copied opens",
        _LOG_FILES,
        "        if head.inode != self._inode:",
        "        if head.inode < 0:",
        f"{_LOG_FILES_TESTS}::test_a_backup_of_both_is_refused_although_nothing_in_it_disagrees",
    ),
    mutant(
        "a record whose private state is gone begins anew",
        _LOG_FILES,
        "if self.checkpoint() is not None or self.names():",
        "if not self.record.exists():",
        f"{_LOG_FILES_TESTS}::test_a_record_without_its_private_state_is_refused",
        f"{_LOG_FILES_TESTS}::test_entries_alone_are_a_log_that_somebody_has_to_know",
    ),
    mutant(
        "accepting a move forgets what was signed",
        _LOG_FILES,
        "signed = max(notes, key=_size_of)",
        "signed = notes[1]",
        f"{_LOG_FILES_TESTS}::test_accepting_a_move_takes_the_larger_of_what_was_signed_and_what_was_published",
    ),
    mutant(
        "the head outlives the lock file that it names",
        _LOG_FILES,
        "            fsync_directory(private)  # the head must not outlive the lock file that it names\n",
        "",
        f"{_LOG_CRASHES}::test_a_crash_while_a_log_is_made_leaves_none_that_does_not_open",
    ),
    mutant(
        "fsck writes tiles for entries that do not give the checkpoint",
        "secagg/runtime/log_check.py",
        "    if tree.root(checkpoint.size) != checkpoint.root:",
        "    if len(checkpoint.root) != 32:",
        "tests/unit/cli/test_log_cli.py::test_entries_and_checkpoints_that_are_not_right_are_named_and_never_touched",
    ),
    mutant(
        "fsck may write over anything",
        _LOG_FILES,
        "            parse_tile_path(path)\n",
        "            str(path)\n",
        f"{_LOG_FILES_TESTS}::test_tiles_can_be_written_over_and_nothing_else_can",
    ),
    mutant(
        "a consistency proof leaves out the old tree",
        "secagg/transcript/growing_tree.py",
        "        if start:\n",
        "        if start and old_size < 0:\n",
        f"{_TREE_TESTS}::test_roots_and_proofs_of_every_past_size_are_those_of_the_rfc",
    ),
    mutant(
        "a tree splits a power of two in unequal halves",
        "secagg/transcript/growing_tree.py",
        "(end - start - 1).bit_length() - 1",
        "(end - start).bit_length() - 1",
        f"{_TREE_TESTS}::test_at_the_borders_of_tiles_roots_and_proofs_are_those_of_a_tree_built_at_once",
    ),
)
