"""RES: what follows from an opened sum, and every way to break each check alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from secagg.transcript.encoding import NoFlattening
from tests.support.forge import MAIN, Forge, write_record
from tests.unit.verifier.session_checks import checked, failing, failing_after, found_of, reason
from verifier.checks import Level, Status

MODEL, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def layout_of(session):
    return session.parameters.encoding.field_layout()


class TestTheIntegerSum:
    def test_a_shift_by_the_coordinator_is_found(self, tmp_path):
        """Mean, adapter and result follow the shifted sum."""

        def shift(integer_sum, session):
            out = integer_sum.copy()
            out[17] += 1
            return out

        found = found_of(tmp_path, integer_sum=shift)
        assert failing(found) == ["RES-1"]
        assert found["RES-3"].status is Status.UNAVAILABLE

    def test_another_file_than_the_logged_one_is_refused(self, tmp_path):
        def edit(files, session):
            return files | {"integer-sum.bin": b"\1" + files["integer-sum.bin"][1:]}

        assert failing_after(tmp_path, files=edit) == ["RES-1"]

    def test_another_digest_in_the_log_is_refused(self, tmp_path):
        found = found_of(tmp_path, result=lambda entry, _: replace(entry, integer_sum=bytes(32)))
        assert failing(found) == ["RES-1"]

    def test_of_vectors_that_are_not_flattened_is_checked_too(self, tmp_path):
        plan = replace(MAIN, encoding=replace(MAIN.encoding, flatten=NoFlattening()))
        assert failing(checked(Forge(main=plan).run().write(tmp_path))) == []


class TestCounterAndPadding:
    def test_a_contribution_that_counts_twice_is_found(self, tmp_path):
        def twice(packed, session):
            lanes = packed[0].copy()
            lanes[0] += np.uint64(1)
            return packed | {0: lanes}

        found = found_of(tmp_path, packed=twice)
        assert failing(found) == ["RES-2"]
        assert "shows 9, expected 8" in reason(found, "RES-2")

    def test_padding_that_is_not_zero_is_found(self, tmp_path):
        def smuggle(packed, session):
            layout = layout_of(session)
            last = (layout.dimension + 1) % layout.fields_per_lane
            assert last, "this layout has no padding"
            lanes = packed[0].copy()
            lanes[-1] |= np.uint64(1 << layout.field_bits * last)
            return packed | {0: lanes}

        found = found_of(tmp_path, packed=smuggle)
        assert failing(found) == ["RES-2"]
        assert "padding" in reason(found, "RES-2")

    def test_bits_above_the_fields_that_are_not_zero_are_found(self, tmp_path):
        def smuggle(packed, session):
            return packed | {0: packed[0] | np.uint64(1 << 63)}

        assert failing_after(tmp_path, packed=smuggle) == ["RES-2"]

    def test_a_coordinate_beyond_what_contributions_can_add_up_to_is_found(self, tmp_path):
        def burst(packed, session):
            layout = layout_of(session)
            lanes = packed[0].copy()
            lanes[0] |= np.uint64((1 << layout.field_bits) - 1 << layout.field_bits)
            return packed | {0: lanes}

        assert failing_after(tmp_path, packed=burst) == ["RES-2"]

    def test_a_mask_that_is_still_in_the_sum_is_found(self, tmp_path):
        """A contributor masks with somebody whom its header names as missing."""

        def more(uploads, session):
            lanes = session.masked(0, session.packed[0]) + uploads[1]
            return uploads | {0: lanes}

        found = found_of(tmp_path, uploads=more)
        assert failing(found) == ["RES-2"]
        assert {found[name].status for name in ("RES-1", "RES-3", "RES-4")} == {Status.UNAVAILABLE}


class TestTheMean:
    def test_one_unit_in_the_last_place_is_found(self, tmp_path):
        def nudge(mean, session):
            out = mean.copy()
            out[7] = np.nextafter(out[7], np.float32(np.inf))
            return out

        found = found_of(tmp_path, mean=nudge)
        assert failing(found) == ["RES-3"]
        assert found["RES-4"].status is Status.UNAVAILABLE

    def test_the_sign_of_a_zero_is_found(self, tmp_path):
        plan = replace(MAIN, encoding=replace(MAIN.encoding, flatten=NoFlattening()))

        def zero(packed, session):
            layout = layout_of(session)
            values = np.zeros(layout.dimension, dtype=np.int64)
            return {index: layout.pack(values) for index in packed}

        def negate(mean, session):
            assert not mean.any()
            return -mean

        forge = Forge({"packed": zero, "mean": negate}, main=plan)
        assert failing(checked(forge.run().write(tmp_path))) == ["RES-3"]


class TestTheAdapter:
    @pytest.mark.parametrize("name", [MODEL, CONFIG])
    def test_another_one_than_the_mean_gives_is_found(self, tmp_path, name):
        def alter(files, session):
            return files | {name: files[name][:-2] + b" " + files[name][-1:]}

        found = found_of(tmp_path, aggregate=alter)
        assert failing(found) == ["RES-4"]
        assert reason(found, "RES-4").endswith(f"{name}: not what the mean gives")
        assert found["RES-4"].failed == 1

    @pytest.mark.parametrize("name", [MODEL, CONFIG])
    def test_a_file_that_is_not_the_logged_one_is_found(self, tmp_path, name):
        written = write_record(tmp_path)
        path = written.session / "aggregate" / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b" ")
        found = checked(written, Level.SUM)
        assert failing(found) == ["RES-4"]
        assert reason(found, "RES-4").endswith(f"{name}: another digest than the result entry's")
        path.write_bytes(content + b" ")
        found = checked(written, Level.SUM)
        assert failing(found) == ["RES-4"]
        assert reason(found, "RES-4").endswith(f"{name}: another digest than the result entry's")

    def test_a_file_that_claims_more_than_an_adapter_can_have_is_not_read(self, tmp_path):
        written = write_record(tmp_path)
        with (written.session / "aggregate" / MODEL).open("ab") as file:
            file.truncate(1 << 30)
        found = checked(written, Level.SUM)
        assert failing(found) == ["RES-4"]
        assert reason(found, "RES-4").endswith(f"{MODEL}: longer than {(1 << 27) + 4 * 60} bytes")

    def test_another_digest_in_the_log_is_refused(self, tmp_path):
        found = found_of(
            tmp_path,
            result=lambda entry, _: replace(
                entry, aggregate=(replace(entry.aggregate[0], digest=bytes(32)), *entry.aggregate[1:])
            ),
        )
        assert failing(found) == ["RES-4"]

    def test_a_missing_file_is_no_failure_and_no_pass(self, tmp_path):
        written = write_record(tmp_path)
        (written.session / "aggregate" / MODEL).unlink()
        found = checked(written, Level.SUM)
        assert failing(found) == []
        assert found["RES-4"].status is Status.UNAVAILABLE


class TestAnyByte:
    FILES = (
        "linear-hashes.bin",
        "masked-limb-sum.bin",
        "openings.jsonl",
        "pair-boxes.jsonl",
        "integer-sum.bin",
        "aggregate/adapter_model.safetensors",
        "aggregate/adapter_config.json",
    )

    @pytest.mark.parametrize("name", FILES)
    def test_of_a_file_that_is_altered_fails_exactly_one_check(self, tmp_path, name):
        written = write_record(tmp_path)
        path = written.session / name
        honest = path.read_bytes()
        rng = np.random.default_rng(len(honest))
        for position in {0, len(honest) - 1, *rng.integers(0, len(honest), 12).tolist()}:
            data = bytearray(honest)
            data[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(data)
            found = checked(written, Level.SUM)
            assert len(failing(found)) == 1, (name, position)
            assert Status.UNAVAILABLE in {result.status for result in found.values()} or name.startswith("aggregate")
