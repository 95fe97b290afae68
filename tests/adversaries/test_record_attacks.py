"""Attacks on the verifier: records that must not pass, claims that must not be made, files that must not be read.

Each test fails as long as its attack succeeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from secagg.arith import linear_hash
from secagg.derive import threshold
from secagg.derive.graph import masking_graph
from secagg.transcript.entries import SessionClose
from secagg.transcript.merge import contributors_digest
from secagg.transcript.statements import Signed
from tests.support.forge import COSIGNED_AT_S, Forge, Written, write_record
from tests.support.forge_closing import SessionForge
from tests.support.forge_following import FollowingForge, Pair, two_session
from tests.support.forge_session import Plan, sha256
from tests.unit.verifier.session_checks import CLEAN, audit_of, checked
from verifier import cli
from verifier.catalogue import ALL_CHECKS
from verifier.checks import Level
from verifier.record_files import RecordFiles
from verifier.run import run_audit
from verifier.statement import Statement, statement_of


def exit_code(written: Written, level: str = "sum", *more: object) -> int:
    """What the command says of a record, in a minute after it was cosigned."""
    arguments = ["check", written.record, "--policy", written.policy, "--level", level, "--now", COSIGNED_AT_S + 60]
    return cli.run([str(argument) for argument in (*arguments, *more)])


def said(written: Written, level: Level) -> Statement:
    """What the report says in words; the record passes."""
    report = run_audit(dataclasses.replace(audit_of(written, level)))
    assert report.verdict.exit_code == 0
    return statement_of(report)


def before_open(monkeypatch: pytest.MonkeyPatch, name: str, number: int, change: Callable[[], object]) -> None:
    """Let whoever serves the record change something just before a file of this name is opened that often."""
    original, seen = RecordFiles.open, []

    @contextlib.contextmanager
    def opened(files: RecordFiles, path: str) -> Iterator[object]:
        if path == name:
            seen.append(path)
            if len(seen) == number:
                change()
        with original(files, path) as file:
            yield file

    monkeypatch.setattr(RecordFiles, "open", opened)


class TestFilesThatChangeWhileTheyAreRead:
    """A record on a share of the coordinator's, or a process that writes into the copy."""

    def test_a_victim_is_not_left_out_of_the_sum_by_cutting_the_hashes_after_their_length_was_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def without_the_last(_: np.ndarray, session: SessionForge) -> np.ndarray:
            total = linear_hash.LimbSum(session.lanes)
            for index in session.accepted[:-1]:
                total.add_lanes(session.uploads[index])
            return total.entries.astype("<u8")

        written = write_record(tmp_path, {"limb_sum": without_the_last})
        path = written.session / "linear-hashes.bin"
        cut = path.read_bytes()[: -linear_hash.HASH_BYTES]
        # The other session with a result is read after this one.
        before_open(monkeypatch, path.name, 2, lambda: path.write_bytes(cut))
        main = written.forge.main.session_id.hex()
        assert exit_code(written, "preopen", "--session", main) == 3

    def test_the_limb_sum_that_is_added_up_is_the_one_that_was_fixed_in_the_close_entry(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def of_nothing(entry: SessionClose, session: SessionForge) -> SessionClose:
            return dataclasses.replace(entry, limb_sum=sha256(bytes(32 * session.lanes)))

        written = write_record(tmp_path, {"close": of_nothing})
        path = written.session / "masked-limb-sum.bin"
        shown = path.read_bytes()
        path.write_bytes(bytes(len(shown)))
        # Its length is asked for twice, then it is digested, then it is added up.
        before_open(monkeypatch, path.name, 4, lambda: path.write_bytes(shown))
        assert exit_code(written, "sum", "--session", written.forge.main.session_id.hex()) == 3
        assert path.read_bytes() == shown


class TestWhatIsNoFileOfTheRecord:
    @pytest.mark.parametrize("which", ["sessions", "one session"])
    def test_no_session_is_read_through_a_symbolic_link(self, tmp_path: Path, which: str) -> None:
        """Whoever has the record only, without what the link leads to, could check nothing."""
        written = write_record(tmp_path)
        inside = written.record / "sessions" if which == "sessions" else written.session
        inside.rename(tmp_path / "elsewhere")
        inside.symlink_to(tmp_path / "elsewhere")
        assert exit_code(written) == 3

    @pytest.mark.parametrize("name", ["masked-limb-sum.bin", "integer-sum.bin", "aggregate/adapter_model.safetensors"])
    def test_a_file_of_a_tebibyte_of_nothing_is_not_read_through(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """A sparse file takes no room on a disk or in an archive, and an hour to hash."""
        written = write_record(tmp_path)
        with (written.session / name).open("r+b") as file:
            file.truncate(1 << 40)
        original = RecordFiles.chunks

        def counted(files: RecordFiles, path: str, *length: int) -> Iterator[bytes]:
            for number, data in enumerate(original(files, path, *length)):
                assert number < 64, f"{path}: read on and on"
                yield data

        monkeypatch.setattr(RecordFiles, "chunks", counted)
        assert "fail" in {report.status for report in checked(written, Level.SUM).values()}

    def test_a_session_without_a_result_does_not_pass_with_an_adapter_in_its_directory(self, tmp_path: Path) -> None:
        written = write_record(tmp_path)
        aborted = written.session.parent / written.forge.aborted.session_id.hex()
        shutil.copytree(written.session / "aggregate", aborted / "aggregate")
        (aborted / "aggregate" / "adapter_model.safetensors").write_bytes(b"whatever the coordinator likes")
        assert exit_code(written) != 0


class TestWhatIsNotCompared:
    def test_a_receipt_for_what_its_holder_never_signed_does_not_pass(self, tmp_path: Path) -> None:
        def forged(contributions: dict[int, Signed], _: object) -> dict[int, Signed]:
            first = min(contributions)
            return contributions | {first: Signed(contributions[first].statement, bytes(63) + b"\x01")}

        written = write_record(tmp_path, {"contributions": forged})
        other = written.forge.second.session_id.hex()
        assert exit_code(written, "sum", "--receipt", written.receipt, "--session", other) != 0

    def test_the_adapter_names_the_base_model_that_the_report_shows(self, tmp_path: Path) -> None:
        written = write_record(
            tmp_path, {"open": lambda entry, _: dataclasses.replace(entry, base_model="trusted/another")}
        )
        assert exit_code(written) != 0


class TestTwoSumsOfWhichOneLacksSomebody:
    """The first sum less the second: the projection of whoever is in the first only. Neither sum alone shows it."""

    @staticmethod
    def record(directory: Path, second: Callable[[Plan, SessionForge], Plan]) -> Written:
        """A record whose second session the coordinator opens as it likes."""
        honest = two_session()
        pair = Pair(honest.first, lambda first: second(honest.second(first), first))
        return FollowingForge(pair).run().write(directory)

    def test_the_honest_record_passes(self, tmp_path: Path) -> None:
        assert exit_code(self.record(tmp_path, lambda plan, _: plan)) == 0

    def test_a_second_session_over_everybody_but_the_victim_does_not_pass(self, tmp_path: Path) -> None:
        """All that the coordinator logs of the second session fits together."""

        def lacking(plan: Plan, first: SessionForge) -> Plan:
            left = plan.members[:-1]
            identities = [first.around.identities[member].public_bytes for member in left]
            merge = dataclasses.replace(plan.merge, contributors=contributors_digest(identities))
            return dataclasses.replace(plan, members=left, min_contributors=len(left), merge=merge)

        assert exit_code(self.record(tmp_path, lacking)) == 1

    def test_nor_does_one_with_somebody_in_the_place_of_the_victim(self, tmp_path: Path) -> None:
        """As many contribute as before, one of them the coordinator's own."""

        def exchanged(plan: Plan, first: SessionForge) -> Plan:
            others = (*plan.members[:-1], 12)
            identities = [first.around.identities[member].public_bytes for member in others]
            merge = dataclasses.replace(plan.merge, contributors=contributors_digest(identities))
            return dataclasses.replace(plan, members=others, merge=merge)

        assert exit_code(self.record(tmp_path, exchanged)) == 1

    def test_nor_does_one_that_leaves_the_victim_out_and_names_it(self, tmp_path: Path) -> None:
        def left_out(plan: Plan, _: SessionForge) -> Plan:
            return dataclasses.replace(plan, members=plan.members[:-1], min_contributors=4)

        assert exit_code(self.record(tmp_path, left_out)) == 1

    def test_without_the_list_of_the_first_session_nothing_is_known(self, tmp_path: Path) -> None:
        written = self.record(tmp_path, lambda plan, _: plan)
        assert isinstance(written.forge, FollowingForge)
        lists = written.record / "sessions" / written.forge.first.session_id.hex()
        (lists / "contributions.jsonl").unlink()
        assert exit_code(written) == 3

    def test_nor_if_only_the_second_session_is_looked_at(self, tmp_path: Path) -> None:
        written = self.record(tmp_path, lambda plan, _: plan)
        assert exit_code(written, "sum", "--session", written.forge.main.session_id.hex()) == 3


class TestWhatTheReportClaims:
    def test_level_preopen_says_that_a_hash_may_fit_another_input(self, tmp_path: Path) -> None:
        def other(session: SessionForge) -> np.ndarray:
            lanes = session.uploads[0].copy()
            lanes[1] += np.uint64(5)
            return lanes

        def limb_sum(_: np.ndarray, session: SessionForge) -> np.ndarray:
            total = linear_hash.LimbSum(session.lanes)
            for index in session.accepted:
                total.add_lanes(session.uploads[index] if index else other(session))
            return total.entries.astype("<u8")

        written = write_record(
            tmp_path,
            {
                "hashes": lambda hashes, session: hashes | {0: linear_hash.hash_lanes(other(session))},
                "limb_sum": limb_sum,
            },
        )
        assert "another input" in " ".join(said(written, Level.PREOPEN).remarks)

    def test_an_earlier_state_of_the_log_that_shows_less_is_said_to_be_possible(self, tmp_path: Path) -> None:
        forge = Forge()
        second = forge.second
        forge.append(forge.roster_entry())
        for step in (second.open, second.advertise, second.share, second.close, second.result):
            forge.append(step())
        for hidden in (forge.main, forge.aborted):
            hidden.uploads, hidden.final_files = {}, dict
        remarks = said(forge.write(tmp_path), Level.SUM).remarks
        assert any("older" in remark or "current" in remark for remark in remarks)

    def test_a_quorum_of_one_in_three_is_not_said_to_overlap(self, tmp_path: Path) -> None:
        written = write_record(tmp_path)
        log_policy = tmp_path / "policy"
        log_policy.write_text(log_policy.read_text().replace("group all-witnesses 3", "group all-witnesses any"))
        assert "any two quorums share" not in " ".join(said(written, Level.SUM).assumptions)

    def test_a_log_that_nobody_has_to_cosign_is_not_said_to_be_cosigned(self, tmp_path: Path) -> None:
        written = write_record(
            tmp_path, {"note": lambda note, _: dataclasses.replace(note, signatures=note.signatures[:1])}
        )
        log_policy = tmp_path / "policy"
        log_policy.write_text(log_policy.read_text().replace("quorum all-witnesses", "quorum none"))
        statement = said(written, Level.META)
        assert "cosigned" not in " ".join(statement.shows)
        assert "forks" not in statement.against

    def test_no_check_says_that_each_vector_is_in_the_sum_once_below_level_full(self, tmp_path: Path) -> None:
        def counters(packed: dict[int, np.ndarray], session: SessionForge) -> dict[int, np.ndarray]:
            first, second = session.plan.accepted[:2]
            changed = {first: packed[first].copy(), second: packed[second].copy()}
            changed[first][0] += np.uint64(1)
            changed[second][0] -= np.uint64(1)
            return packed | changed

        found = checked(write_record(tmp_path, {"packed": counters}), Level.SUM)
        assert all(report.status in CLEAN for report in found.values())
        assert "each once" not in next(check.proves for check in ALL_CHECKS if check.identifier == "RES-2")


class TestWhatASmallRecordCosts:
    def test_the_degree_of_a_cohort_with_two_honest_clients_is_found_in_few_steps(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = []
        original = threshold._corrupt_in_windows

        def counted(threat: object, degree: int) -> int:
            steps.append(degree)
            return original(threat, degree)

        monkeypatch.setattr(threshold, "_corrupt_in_windows", counted)
        threshold._parameters.cache_clear()
        threshold.graph_parameters(600, 598, 600, Fraction(0))
        assert len(steps) < 50

    def test_the_complete_graph_takes_no_memory_for_each_edge(self) -> None:
        clients = 1500
        graph = masking_graph(bytes(32), clients, clients - 1)
        tracemalloc.start()
        try:
            for index in range(clients):
                graph.neighbours(index)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * clients * clients // 2
