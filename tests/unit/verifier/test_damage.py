"""Whatever byte of a record is flipped, cut or added: the verifier fails or says what is missing, and never raises.

Every file is damaged in turn and at many places, at level full, so that whatever a check reads is in what is damaged.
"""

from __future__ import annotations

import hashlib
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.forge import write_record
from tests.unit.verifier.damaging import BAD, after, damage, exit_code


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def files(written):
    """Every file that is read: of the record, the masked inputs of those in a sum, and the receipt."""
    found = [path for path in sorted(written.record.rglob("*")) if path.is_file()]
    for session in written.forge.sessions:
        for index in getattr(session, "accepted", ()):
            digest = hashlib.sha256(session.uploads[index].tobytes()).hexdigest()
            found.append(written.masked_inputs / f"{digest}.bin")
    return [*found, written.receipt]


def test_the_record_is_clean_as_it_is(written, capsys):
    assert exit_code(written, capsys) == 0


def test_every_file_that_is_there_is_needed(written, files, capsys):
    kept = written.record.parent / "kept"
    for path in files:
        if path == written.receipt:
            continue
        shutil.move(path, kept)
        try:
            assert exit_code(written, capsys) in BAD, path
        finally:
            shutil.move(kept, path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00", b"{}\n", b"[" * 100_000, b"\xff" * 70_000])
def test_every_file_may_hold_anything_at_all(written, files, content, capsys):
    for path in files:
        if path.read_bytes() != content:
            # What does not even begin as a receipt is a mistake of whoever gave it.
            assert after(path, content, written, capsys) in ({2} if path == written.receipt else BAD), path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_any_file_is_noticed(written, files, capsys, data):
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    damaged = damage(data.draw, before)
    if damaged != before:
        first_line = before.split(b"\n")[0] + b"\n"
        no_receipt = path == written.receipt and not damaged.startswith(first_line)
        assert after(path, damaged, written, capsys) in ({2} if no_receipt else BAD)
