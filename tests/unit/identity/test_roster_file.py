"""Rosters as files: added to, signed, verified."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.identity.errors import FileRefusal, IdentityFileError, RosterError, RosterRefusal
from secagg.identity.roster_file import (
    SignatureFate,
    add_member,
    add_members,
    load_members,
    load_roster,
    sign_roster,
    verify_signed_roster,
)
from secagg.transcript.record import RecordError
from secagg.transcript.roster import Roster, RosterHead, RosterMember

ROOT = Path(__file__).parents[3]
REGISTRAR = SigningKey(Secret(b"r" * 32))
OTHER_REGISTRAR = SigningKey(Secret(b"o" * 32))
IDENTITIES = [SigningKey(Secret(bytes([i]) * 32)).public_bytes for i in range(8)]
ANY: frozenset[bytes] = frozenset()


def signed(path, count=3):
    add_members(path, [(identity, "") for identity in IDENTITIES[:count]])
    sign_roster(path, REGISTRAR)
    return load_roster(path)


def refused(refusal, call, *arguments):
    with pytest.raises(RosterError) as caught:
        call(*arguments)
    assert caught.value.refusal is refusal
    assert isinstance(caught.value, RecordError)
    return str(caught.value)


def test_members_are_kept_in_order_with_their_strata(tmp_path):
    sizes = [add_member(tmp_path / "r", identity, f"s{i}").size for i, identity in enumerate(IDENTITIES)]
    assert sizes == list(range(1, 9))
    members = load_members(tmp_path / "r")
    assert [member.identity for member in members] == sorted(IDENTITIES)
    assert {member.stratum for member in members} == {f"s{i}" for i in range(8)}
    lines = (tmp_path / "r" / "roster.jsonl").read_bytes()
    assert lines == b"".join(leaf + b"\n" for leaf in Roster(members).leaves())


def test_a_signed_roster_is_loaded_and_verified(tmp_path):
    result = signed(tmp_path)
    assert result.roster.identities() == tuple(sorted(IDENTITIES[:3]))
    assert RosterHead.from_bytes(result.head) == result.roster.head(REGISTRAR.public_bytes)
    assert load_roster(tmp_path, frozenset({REGISTRAR.public_bytes, OTHER_REGISTRAR.public_bytes})) == result
    assert verify_signed_roster(result.roster.leaves(), result.head, result.signature, ANY) == result.roster


def test_a_path_that_ends_in_jsonl_names_the_file_itself(tmp_path):
    add_member(tmp_path / "people.jsonl", IDENTITIES[0], "")
    sign_roster(tmp_path / "people.jsonl", REGISTRAR)
    assert load_roster(tmp_path / "people.jsonl").roster.identities() == (IDENTITIES[0],)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.head.json", "people.jsonl"]


def test_adding_a_member_removes_the_signature_and_says_so(tmp_path):
    assert add_member(tmp_path, IDENTITIES[0], "").signature is SignatureFate.NONE
    sign_roster(tmp_path, REGISTRAR)
    addition = add_member(tmp_path, IDENTITIES[1], "")
    assert (addition.size, addition.signature) == (2, SignatureFate.REMOVED)
    refused(RosterRefusal.UNSIGNED, load_roster, tmp_path)
    sign_roster(tmp_path, REGISTRAR)
    assert len(load_roster(tmp_path).roster.members) == 2


def test_a_crash_after_the_signature_went_leaves_an_unsigned_roster_of_the_old_members(tmp_path, monkeypatch):
    signed(tmp_path)
    monkeypatch.setattr("secagg.identity.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError(5, "crash")))
    with pytest.raises(IdentityFileError):
        add_member(tmp_path, IDENTITIES[5], "")
    monkeypatch.undo()
    refused(RosterRefusal.UNSIGNED, load_roster, tmp_path)
    assert len(load_members(tmp_path)) == 3
    assert add_member(tmp_path, IDENTITIES[5], "").size == 4  # also over the temporary file that is left


def test_a_duplicate_is_refused_by_name_and_nothing_changes(tmp_path):
    before = signed(tmp_path)
    text = refused(RosterRefusal.DUPLICATE, add_member, tmp_path, IDENTITIES[1], "other stratum")
    assert IDENTITIES[1].hex() in text
    twice = [(IDENTITIES[6], ""), (IDENTITIES[6], "")]
    refused(RosterRefusal.DUPLICATE, add_members, tmp_path, twice)
    assert load_roster(tmp_path) == before


@pytest.mark.parametrize(
    "identity",
    [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"\x02" + bytes(31)],
)
def test_what_is_no_usable_ed25519_key_is_refused(tmp_path, identity):
    refused(RosterRefusal.NOT_A_KEY, add_member, tmp_path, identity, "")


@pytest.mark.parametrize("stratum", ["x" * 65, "\u00e9" * 33, "\ud800"])
def test_an_unusable_stratum_is_refused(tmp_path, stratum):
    refused(RosterRefusal.BAD_STRATUM, add_member, tmp_path, IDENTITIES[0], stratum)


def test_an_empty_roster_is_neither_made_nor_signed(tmp_path):
    refused(RosterRefusal.EMPTY, add_members, tmp_path, [])
    refused(RosterRefusal.EMPTY, sign_roster, tmp_path, REGISTRAR)
    (tmp_path / "roster.jsonl").write_bytes(b"")
    refused(RosterRefusal.EMPTY, sign_roster, tmp_path, REGISTRAR)
    assert not (tmp_path / "roster.head.json").exists()


def test_an_unpinned_registrar_is_refused(tmp_path):
    signed(tmp_path)
    text = refused(RosterRefusal.UNKNOWN_REGISTRAR, load_roster, tmp_path, frozenset({OTHER_REGISTRAR.public_bytes}))
    assert REGISTRAR.public_bytes.hex() in text


def test_a_head_signed_by_another_key_than_it_names_is_refused(tmp_path):
    result = signed(tmp_path)
    forged = OTHER_REGISTRAR.sign_statement(result.head)
    refused(RosterRefusal.BAD_SIGNATURE, verify_signed_roster, result.roster.leaves(), result.head, forged, ANY)
    for signature in (b"", bytes(64), result.signature[:-1], result.signature + b"\0"):
        refused(RosterRefusal.BAD_SIGNATURE, verify_signed_roster, result.roster.leaves(), result.head, signature, ANY)


def test_leaves_that_are_not_the_signed_ones_are_refused(tmp_path):
    result = signed(tmp_path)
    leaves = result.roster.leaves()
    check = (verify_signed_roster,)
    refused(RosterRefusal.WRONG_SIZE, *check, leaves[:-1], result.head, result.signature, ANY)
    refused(RosterRefusal.WRONG_SIZE, *check, (), result.head, result.signature, ANY)
    restratified = (*leaves[:-1], RosterMember(result.roster.members[-1].identity, "else").to_bytes())
    refused(RosterRefusal.WRONG_ROOT, *check, restratified, result.head, result.signature, ANY)
    refused(RosterRefusal.NOT_ASCENDING, *check, leaves[::-1], result.head, result.signature, ANY)
    refused(RosterRefusal.NOT_ASCENDING, *check, (leaves[0], leaves[0], leaves[1]), result.head, result.signature, ANY)
    refused(RosterRefusal.MALFORMED, *check, (*leaves[:-1], b"{}"), result.head, result.signature, ANY)
    refused(RosterRefusal.MALFORMED_HEAD, *check, leaves, result.head + b" ", result.signature, ANY)


def test_members_added_with_an_editor_after_signing_are_refused(tmp_path):
    signed(tmp_path)
    members = Roster.of([*load_members(tmp_path), RosterMember(IDENTITIES[7], "")])
    (tmp_path / "roster.jsonl").write_bytes(b"".join(leaf + b"\n" for leaf in members.leaves()))
    refused(RosterRefusal.WRONG_SIZE, load_roster, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "refusal"),
    [
        (lambda data: data[:-1], RosterRefusal.MALFORMED),
        (lambda data: data + b"\n", RosterRefusal.MALFORMED),
        (lambda data: data.replace(b"\n", b"\r\n"), RosterRefusal.MALFORMED),
        (lambda data: data.replace(b"\n", b"\r", 1), RosterRefusal.MALFORMED),
        (lambda data: b"".join(sorted(data.splitlines(keepends=True), reverse=True)), RosterRefusal.NOT_ASCENDING),
        (lambda data: data + data, RosterRefusal.NOT_ASCENDING),
        (lambda data: b"\xff" + data, RosterRefusal.MALFORMED),
    ],
)
def test_lines_that_are_not_canonical_and_ascending_are_refused_everywhere(tmp_path, spoil, refusal):
    signed(tmp_path)
    path = tmp_path / "roster.jsonl"
    path.write_bytes(spoil(path.read_bytes()))
    refused(refusal, load_members, tmp_path)
    refused(refusal, sign_roster, tmp_path, REGISTRAR)
    refused(refusal, add_member, tmp_path, IDENTITIES[7], "")
    with pytest.raises(RosterError):
        load_roster(tmp_path)


def test_a_roster_that_others_can_change_is_not_signed(tmp_path):
    signed(tmp_path)
    path = tmp_path / "roster.jsonl"
    path.chmod(0o664)
    for call, *arguments in ((sign_roster, tmp_path, REGISTRAR), (add_member, tmp_path, IDENTITIES[7], "")):
        with pytest.raises(IdentityFileError, match="chmod go-w"):
            call(*arguments)
    load_roster(tmp_path)  # anybody may read it: it is signed


def test_a_roster_behind_a_symbolic_link_is_not_signed(tmp_path):
    add_member(tmp_path / "real.jsonl", IDENTITIES[0], "")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    with pytest.raises(IdentityFileError) as caught:
        sign_roster(tmp_path / "link.jsonl", REGISTRAR)
    assert caught.value.reason is FileRefusal.SYMLINK


def test_missing_files_and_directories_are_named(tmp_path):
    with pytest.raises(IdentityFileError) as caught:
        load_roster(tmp_path / "none")
    assert caught.value.reason is FileRefusal.MISSING
    with pytest.raises(IdentityFileError):
        add_member(tmp_path / "no" / "such", IDENTITIES[0], "")


def test_the_files_are_for_everybody_to_read(tmp_path):
    before = os.umask(0o077)
    try:
        signed(tmp_path)
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_two_processes_that_add_at_once_lose_nobody(tmp_path):
    program = (
        "import sys; from pathlib import Path; from secagg.crypto.secret import Secret;"
        "from secagg.crypto.signing import SigningKey; from secagg.identity.roster_file import add_member\n"
        "for i in range(12): add_member(Path(sys.argv[1]),"
        " SigningKey(Secret(sys.argv[2].encode() * 31 + bytes([i]))).public_bytes, '')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, tmp_path, name], cwd=ROOT) for name in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(load_members(tmp_path)) == 24


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.binary(max_size=400))
def test_arbitrary_bytes_give_only_the_declared_errors(tmp_path_factory, members, head):
    directory = tmp_path_factory.getbasetemp() / "fuzz-roster"
    directory.mkdir(exist_ok=True)
    for name, data in (("roster.jsonl", members), ("roster.head.json", head)):
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o644)
    with pytest.raises((RosterError, IdentityFileError)):
        load_roster(directory)
    with pytest.raises(RosterError):
        verify_signed_roster([members], head, head[:64], ANY)
    if members:
        with pytest.raises(RosterError):
            load_members(directory)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["roster.jsonl", "roster.head.json"]), st.integers(0, 5000), st.integers(1, 255))
def test_flipping_any_byte_of_a_signed_roster_is_noticed(tmp_path_factory, name, place, flip):
    directory = tmp_path_factory.getbasetemp() / "flipped"
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    signed(directory)
    data = bytearray((directory / name).read_bytes())
    data[place % len(data)] ^= flip
    (directory / name).write_bytes(data)
    with pytest.raises(RosterError):
        load_roster(directory)
