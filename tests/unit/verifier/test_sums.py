"""SUM: what the linear hashes, the limb sum and the masked inputs show, and every way to break each check alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from secagg.arith import linear_hash
from secagg.transcript.published import PairBox, PairPromise
from tests.support.forge import Forge, write_record
from tests.support.forge_closing import SessionForge
from tests.support.forge_session import Plan
from tests.unit.verifier.session_checks import audit_of, checked, failing, failing_after, reason, unclean
from verifier.checks import CheckResult, Level, Status, run_check
from verifier.families import openings, results, sums
from verifier.report import CheckReport
from verifier.session_record import SessionEntries, SessionRecord

HASH_BYTES = 16384


def closed_only(directory):
    """A record with one session, which is closed and not opened yet."""
    forge = Forge()
    main = forge.main
    forge.append(forge.roster_entry())
    for step in (main.open, main.advertise, main.share, main.close):
        forge.append(step())
    return forge.write(directory)


def found_of_session(written, session, level=Level.SUM):
    """What the checks of this family and of those after it find of one session."""
    names = ("advertised", "shared", "closing", "finished", "aborted")
    entries = SessionEntries(session.parameters, *(getattr(session, name, None) for name in names))
    subject = SessionRecord(audit_of(written, level), entries)
    found = {}
    for check in (*sums.CHECKS, *openings.CHECKS, *results.CHECKS):
        if check.level <= level and check.needs <= entries.stage:
            result = CheckResult()
            result.add(run_check(check, subject))
            found[check.identifier] = CheckReport.of(check, result)
    return found


def shifted(limb_sum: np.ndarray, session: SessionForge) -> np.ndarray:
    """The sum of the first coordinate is one higher."""
    out = limb_sum.copy()
    position = session.parameters.encoding.field_layout().field_bits
    out[position // 16] += np.uint64(1 << position % 16)
    return out


def hash_of_shift(session: SessionForge) -> np.ndarray:
    """By what ``shifted`` changes the hash of a limb sum."""
    difference = np.zeros(session.lanes, dtype=np.uint64)
    difference[0] = np.uint64(1 << session.parameters.encoding.field_layout().field_bits)
    return linear_hash.hash_lanes(difference)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("honest"))


class TestAnHonestRecord:
    def test_passes_every_check_and_each_examined_something(self, honest):
        found = checked(honest)
        assert unclean(found) == {}
        assert found["SUM-1"].examined == found["SUM-5"].examined == 8 + 5
        assert found["SUM-2"].examined == found["SUM-4"].examined == 2
        assert found["SUM-3"].examined == 4 * (honest.forge.main.lanes + honest.forge.second.lanes)

    def test_of_a_session_in_which_nobody_dropped_out_has_no_pairs_to_check(self, honest):
        assert found_of_session(honest, honest.forge.second)["OPN-5"].status is Status.NOT_APPLICABLE

    def test_of_a_sparse_graph_passes_too(self, tmp_path):
        plan = Plan(
            members=tuple(range(140)),
            absent=frozenset({7}),
            dropped=frozenset(range(3, 140, 30)),
            rejected={50: "WRONG_UPLOAD"},
            min_contributors=60,
            max_corrupt=7,
            expected_dropout=Fraction(1, 10),
        )
        forge = Forge(main=plan, roster_size=140).run()
        assert forge.main.graph.degree < 139
        assert {type(pair) for pair in forge.main.pairs} == {PairBox, PairPromise}
        assert unclean(checked(forge.write(tmp_path))) == {}

    def test_is_checked_before_anything_is_opened(self, tmp_path):
        found = checked(closed_only(tmp_path), Level.PREOPEN)
        assert unclean(found) == {}
        assert [found[f"SUM-{number}"].examined for number in (1, 2, 4)] == [8, 1, 1]
        assert "OPN-1" not in found

    def test_of_a_session_that_was_aborted_after_its_close_is_checked_up_to_there(self, tmp_path):
        forge = Forge()
        main = forge.main
        forge.append(forge.roster_entry())
        for step in (main.open, main.advertise, main.share, main.close, main.abort):
            forge.append(step())
        written = forge.write(tmp_path)
        found = checked(written)
        assert unclean(found) == {}
        assert [found[f"SUM-{number}"].examined for number in (1, 2, 5)] == [8, 1, 8]
        assert found["OPN-1"].status is found["RES-1"].status is Status.NOT_APPLICABLE
        (written.session / "masked-limb-sum.bin").write_bytes(b"")
        assert failing(checked(written)) == ["SUM-3"]

    def test_needs_no_masked_inputs_below_level_full(self, honest, tmp_path):
        assert "SUM-5" not in checked(honest, Level.SUM, tmp_path)
        assert "SUM-1" not in checked(honest, Level.META)


def test_scipy_is_imported_by_the_checks_that_hash_and_not_before():
    code = "import sys, verifier.catalogue; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


class TestLinearHashes:
    def test_one_altered_bit_is_found(self, tmp_path):
        written = write_record(tmp_path)
        path = written.session / "linear-hashes.bin"
        data = bytearray(path.read_bytes())
        data[3 * HASH_BYTES + 77] ^= 1
        path.write_bytes(data)
        found = checked(written)
        assert failing(found) == ["SUM-1"]
        assert "number 4" in reason(found, "SUM-1")
        assert found["SUM-1"].failed == 1

    def test_two_exchanged_hashes_are_found_although_their_sum_is_the_same(self, tmp_path):
        def swap(files, _session):
            data = files["linear-hashes.bin"]
            first, second, rest = data[:HASH_BYTES], data[HASH_BYTES : 2 * HASH_BYTES], data[2 * HASH_BYTES :]
            return files | {"linear-hashes.bin": second + first + rest}

        found = checked(write_record(tmp_path, {"files": swap}))
        assert failing(found) == ["SUM-1"]
        assert found["SUM-1"].failed == 2

    @pytest.mark.parametrize("change", [lambda data: data[:-HASH_BYTES], lambda data: data[:-1], lambda data: data * 2])
    def test_a_file_of_another_length_is_refused(self, tmp_path, change):
        def edit(files, _session):
            return files | {"linear-hashes.bin": change(files["linear-hashes.bin"])}

        assert failing_after(tmp_path, files=edit) == ["SUM-1"]

    def test_a_missing_file_leaves_open_what_needs_it(self, tmp_path):
        written = write_record(tmp_path)
        (written.session / "linear-hashes.bin").unlink()
        found = checked(written)
        assert failing(found) == []
        assert unclean(found) == dict.fromkeys(("SUM-1", "SUM-2"), Status.UNAVAILABLE)


class TestTheEquation:
    def test_a_sum_shifted_by_the_coordinator_everywhere_is_found(self, tmp_path):
        """Limb sum, close, openings, integer sum, mean, adapter and result all follow the shift."""
        written = write_record(tmp_path, {"limb_sum": shifted})
        assert failing(checked(written)) == ["SUM-2", "SUM-6"]
        assert failing(checked(written, Level.SUM)) == ["SUM-2"]

    def test_a_contributor_left_out_of_the_sum_is_found(self, tmp_path):
        def without(limb_sum, session):
            index = session.accepted[2]
            blank = np.zeros_like(session.packed[index])
            # What is left is the counter and the offsets, so that the sum decodes as if the vector had been zero.
            values = np.zeros(session.parameters.encoding.field_layout().dimension, dtype=np.int64)
            blank += session.parameters.encoding.field_layout().pack(values)
            emptied = linear_hash.limbs(session.masked(index, blank))
            return limb_sum - linear_hash.limbs(session.uploads[index]) + emptied.astype(np.uint64)

        assert failing(checked(write_record(tmp_path, {"limb_sum": without}), Level.SUM)) == ["SUM-2"]

    def test_a_contributor_that_signs_another_hash_is_found(self, tmp_path):
        def lie(hashes, session):
            return hashes | {0: hashes[0] + np.uint64(1)}

        assert failing(checked(write_record(tmp_path, {"hashes": lie}), Level.SUM)) == ["SUM-2"]

    def test_holds_for_each_shard_and_not_only_for_all_together(self, tmp_path, monkeypatch):
        monkeypatch.setattr(linear_hash, "max_contributors", lambda lanes: 3)
        honest = write_record(tmp_path / "honest")
        assert (honest.session / "masked-limb-sum.bin").stat().st_size == 3 * 32 * honest.forge.main.lanes
        found = checked(honest)
        assert unclean(found) == {}
        assert found["SUM-2"].examined == 3 + 2

        def moved(limb_sum, session):
            out = limb_sum.copy()
            out[0] += np.uint64(1)
            out[4 * session.lanes] -= np.uint64(1)
            return out

        found = checked(write_record(tmp_path / "moved", {"limb_sum": moved}), Level.SUM)
        assert failing(found) == ["SUM-2"]
        assert found["SUM-2"].failed == 2


class TestBounds:
    def test_an_entry_that_so_many_contributors_cannot_reach_is_refused(self, tmp_path):
        def carried(limb_sum, session):
            """The same lanes: 2^16 of the lowest limb instead of one of the next."""
            out = limb_sum.copy()
            moved = np.uint64(session.count)
            out[1] -= moved
            out[0] += moved << np.uint64(16)
            return out

        found = checked(write_record(tmp_path, {"limb_sum": carried}), Level.SUM)
        assert failing(found) == ["SUM-3"]
        assert "beyond 8 * 65535" in reason(found, "SUM-3")

    @pytest.mark.parametrize("more", [4, -4])
    def test_another_length_is_refused_although_the_close_names_it(self, tmp_path, more):
        def resize(limb_sum, session):
            return np.concatenate([limb_sum, np.zeros(more, np.uint64)]) if more > 0 else limb_sum[:more]

        forge = Forge({"limb_sum": resize})
        forge.main._unmasked = lambda: np.zeros(forge.main.lanes, dtype=np.uint64)
        found = checked(forge.run().write(tmp_path), Level.SUM)
        assert failing(found) == ["SUM-3"]
        assert "bytes, expected" in reason(found, "SUM-3")

    def test_a_vector_longer_than_the_hash_takes_is_refused_without_room_for_it(self, tmp_path):
        written = write_record(tmp_path)
        main = written.forge.main
        huge = replace(main.parameters.encoding, dimension=2**31, value_bits=32)
        main.parameters = replace(main.parameters, encoding=huge)
        found = found_of_session(written, main, Level.PREOPEN)
        assert failing(found) == ["SUM-3"]
        assert "lanes" in reason(found, "SUM-3")


class TestTheClose:
    def test_a_limb_sum_that_is_not_the_logged_one_is_refused(self, tmp_path):
        def edit(files, session):
            return files | {"masked-limb-sum.bin": shifted(session.limb_sum, session).tobytes()}

        found = checked(write_record(tmp_path, {"files": edit}), Level.SUM)
        assert failing(found) == ["SUM-4"]
        assert {found[name].status for name in ("SUM-2", "SUM-3", "RES-1", "RES-4")} == {Status.UNAVAILABLE}

    def test_a_close_that_names_another_limb_sum_is_refused(self, tmp_path):
        def other(entry, session):
            return replace(entry, limb_sum=hashlib.sha256(b"another").digest())

        assert failing(checked(write_record(tmp_path, {"close": other}), Level.SUM)) == ["SUM-4"]


class TestMaskedInputs:
    @pytest.mark.parametrize("change", [lambda data: b"\0" + data[1:], lambda data: data + bytes(8), lambda data: b""])
    def test_one_that_is_not_what_was_signed_is_found(self, tmp_path, change):
        written = write_record(tmp_path)
        upload = written.forge.main.headers[5].upload
        path = written.masked_inputs / f"{upload.hex()}.bin"
        path.write_bytes(change(path.read_bytes()))
        found = checked(written)
        assert failing(found) == ["SUM-5"]
        assert upload.hex() in reason(found, "SUM-5")
        assert found["SUM-6"].status is Status.UNAVAILABLE

    def test_a_missing_one_is_no_failure_and_no_pass(self, tmp_path):
        written = write_record(tmp_path)
        upload = written.forge.main.headers[5].upload
        (written.masked_inputs / f"{upload.hex()}.bin").unlink()
        found = checked(written)
        assert failing(found) == []
        assert {found["SUM-5"].status, found["SUM-6"].status} == {Status.UNAVAILABLE}

    def test_none_are_needed_for_what_was_rejected(self, tmp_path):
        written = write_record(tmp_path)
        (written.masked_inputs / f"{written.forge.main.headers[2].upload.hex()}.bin").unlink()
        assert checked(written)["SUM-6"].status is Status.PASS

    def test_a_contributor_that_fits_its_hash_to_the_coordinators_sum_is_found(self, tmp_path):
        """The limit of the linear hash: a contributor that colludes signs a hash that makes another sum pass."""

        def fitted(hashes, session):
            return hashes | {0: hashes[0] + hash_of_shift(session)}

        written = write_record(tmp_path, {"limb_sum": shifted, "hashes": fitted})
        assert failing(checked(written, Level.SUM)) == []
        found = checked(written)
        assert failing(found) == ["SUM-6"]
        assert found["SUM-6"].failed == 1

    def test_two_contributors_with_wrong_hashes_of_the_right_sum_spoil_nothing(self, tmp_path):
        """A coordinator that adds up hashes cannot tell them; nobody must be able to make its true record fail."""

        def exchanged(hashes, session):
            return hashes | {0: hashes[1], 1: hashes[0]}

        written = write_record(tmp_path, {"hashes": exchanged})
        assert checked(written)["SUM-6"].status is Status.PASS

    def test_do_not_depend_on_how_many_workers_read_them(self, tmp_path, monkeypatch):
        written = write_record(tmp_path)
        for workers in (1, 2, 3, 64):
            monkeypatch.setattr(sums, "worker_threads", lambda count=workers: count)
            assert checked(written)["SUM-6"].status is Status.PASS
