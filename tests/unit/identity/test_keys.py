"""Key files: what is written, what is refused, and that nothing secret shows."""

from __future__ import annotations

import base64
import gc
import os
import stat
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey, verify_statement
from secagg.identity import keys
from secagg.identity.errors import FileRefusal, IdentityFileError
from secagg.identity.keys import KeyKind, ScryptCost, create_key_file, load_key_file, load_public_key
from secagg.transcript import canonical
from secagg.transcript.record import RecordError

CHEAP = ScryptCost(n=16)
SEED = bytes.fromhex("5eedc0de" * 8)
PASSPHRASE = Secret(b"correct horse battery staple")
EVERY_FILE = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class CountingRng:
    """First the known seed, then bytes that count."""

    def __init__(self) -> None:
        self.calls = 0

    def bytes(self, count: int) -> bytes:
        self.calls += 1
        return SEED if self.calls == 1 else bytes((self.calls + i) % 256 for i in range(count))


def ask() -> Secret:
    return PASSPHRASE


def never_asked() -> Secret:
    raise AssertionError("asked for a passphrase")


def plain(tmp_path: Path) -> Path:
    create_key_file(tmp_path / "k.key", KeyKind.IDENTITY, None, CountingRng())
    return tmp_path / "k.key"


def encrypted(tmp_path: Path) -> Path:
    create_key_file(tmp_path / "k.key", KeyKind.IDENTITY, PASSPHRASE, CountingRng(), CHEAP)
    return tmp_path / "k.key"


def members(path: Path) -> dict:
    return canonical.decode_object(path.read_bytes()[:-1])


def rewrite(path: Path, value) -> None:
    path.write_bytes(canonical.encode(value) + b"\n")


def refusal(path: Path, kind: KeyKind = KeyKind.IDENTITY, ask_passphrase=never_asked) -> IdentityFileError:
    with pytest.raises(IdentityFileError) as caught:
        load_key_file(path, kind, ask_passphrase)
    assert str(path) in str(caught.value)
    assert_no_secret(caught.value)
    return caught.value


def assert_no_secret(error: BaseException) -> None:
    """Neither text, nor attributes, nor the exceptions behind it, printed or not."""
    shown, chain = [], [error]
    for link in chain:
        shown += [repr(link), str(link), "".join(traceback.format_exception(link)), repr(link.args)]
        shown += [
            repr(getattr(link, name))
            for name in ("doc", "object", "msg", "reason", "__notes__", "__dict__")
            if hasattr(link, name)
        ]
        chain += [next_link for next_link in (link.__cause__, link.__context__) if next_link is not None]
    for secret in (SEED, PASSPHRASE.expose()):
        forms = (
            repr(secret)[2:-1],
            secret.hex(),
            secret.hex()[:16],
            base64.b64encode(secret).decode(),
            str(int.from_bytes(secret, "big")),
        )
        for form in forms:
            assert form not in "\n".join(shown)


def test_a_plain_key_file_gives_back_the_key(tmp_path):
    path = tmp_path / "k.key"
    public = create_key_file(path, KeyKind.IDENTITY, None, SystemRng())
    key = load_key_file(path, KeyKind.IDENTITY, None)
    assert key.public_bytes == public
    verify_statement(public, b"x", key.sign_statement(b"x"))


def test_an_encrypted_key_file_gives_back_the_key_and_does_not_hold_the_seed(tmp_path):
    path = encrypted(tmp_path)
    assert load_key_file(path, KeyKind.IDENTITY, ask).public_bytes == SigningKey(Secret(SEED)).public_bytes
    assert SEED not in path.read_bytes()
    assert SEED.hex().encode() not in path.read_bytes()


def test_the_default_cost_is_in_the_file_and_opens(tmp_path):
    path = tmp_path / "k.key"
    public = create_key_file(path, KeyKind.WITNESS, PASSPHRASE, SystemRng())
    seed = members(path)["seed"]
    assert (seed["n"], seed["r"], seed["p"]) == (2**17, 8, 1)
    assert load_key_file(path, KeyKind.WITNESS, ask).public_bytes == public


def test_two_files_of_one_passphrase_share_neither_salt_nor_nonce(tmp_path):
    create_key_file(tmp_path / "a", KeyKind.IDENTITY, PASSPHRASE, SystemRng(), CHEAP)
    create_key_file(tmp_path / "b", KeyKind.IDENTITY, PASSPHRASE, SystemRng(), CHEAP)
    a, b = members(tmp_path / "a")["seed"], members(tmp_path / "b")["seed"]
    assert a["salt"] != b["salt"]
    assert a["nonce"] != b["nonce"]


def test_the_modes_are_600_and_644_whatever_the_umask_is(tmp_path):
    for umask in (0o000, 0o777):
        directory = tmp_path / f"{umask}"
        directory.mkdir()
        before = os.umask(umask)
        try:
            path = plain(directory)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(keys.public_path(path).stat().st_mode) == 0o644


def test_the_public_half_stands_beside_the_key(tmp_path):
    path = plain(tmp_path)
    public = SigningKey(Secret(SEED)).public_bytes
    assert load_public_key(tmp_path / "k.key.pub", KeyKind.IDENTITY) == public
    assert keys.public_path(path).read_bytes() == keys.encode_public_key(KeyKind.IDENTITY, public)


def test_a_passphrase_is_not_asked_for_where_none_is_needed(tmp_path):
    load_key_file(plain(tmp_path), KeyKind.IDENTITY, never_asked)


def test_an_existing_key_file_is_never_overwritten(tmp_path):
    path = plain(tmp_path)
    before = path.read_bytes()
    with pytest.raises(IdentityFileError) as caught:
        create_key_file(path, KeyKind.IDENTITY, None, SystemRng())
    assert caught.value.reason is FileRefusal.EXISTS
    assert path.read_bytes() == before


def test_a_dangling_symbolic_link_is_not_written_through(tmp_path):
    (tmp_path / "k.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityFileError) as caught:
        create_key_file(tmp_path / "k.key", KeyKind.IDENTITY, None, SystemRng())
    assert caught.value.reason in (FileRefusal.EXISTS, FileRefusal.SYMLINK)
    assert not (tmp_path / "elsewhere").exists()


def test_a_taken_public_name_leaves_no_private_key_behind(tmp_path):
    (tmp_path / "k.key.pub").write_bytes(b"somebody else's")
    with pytest.raises(IdentityFileError) as caught:
        create_key_file(tmp_path / "k.key", KeyKind.IDENTITY, None, SystemRng())
    assert caught.value.file.endswith(".pub")
    assert not (tmp_path / "k.key").exists()
    assert (tmp_path / "k.key.pub").read_bytes() == b"somebody else's"


def test_a_failing_disk_leaves_no_private_key_behind(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("secagg.identity.files.os.fsync", fail)
    with pytest.raises(IdentityFileError) as caught:
        create_key_file(tmp_path / "k.key", KeyKind.IDENTITY, None, CountingRng())
    assert caught.value.reason is FileRefusal.SYSTEM_ERROR
    assert list(tmp_path.iterdir()) == []
    assert_no_secret(caught.value)


def test_an_empty_passphrase_is_refused(tmp_path):
    with pytest.raises(IdentityFileError) as caught:
        create_key_file(tmp_path / "k.key", KeyKind.IDENTITY, Secret(b""), SystemRng())
    assert caught.value.reason is FileRefusal.EMPTY_PASSPHRASE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o660, 0o777])
def test_a_file_that_others_have_access_to_is_refused_with_the_fix(tmp_path, mode):
    path = plain(tmp_path)
    path.chmod(mode)
    error = refusal(path)
    assert error.reason is FileRefusal.OPEN_PERMISSIONS
    assert f"chmod 600 {path}" in str(error)
    path.chmod(0o600)
    load_key_file(path, KeyKind.IDENTITY, None)


def test_a_read_only_file_of_ours_is_accepted(tmp_path):
    path = plain(tmp_path)
    path.chmod(0o400)
    load_key_file(path, KeyKind.IDENTITY, None)


def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    path = plain(tmp_path)
    other = os.geteuid() + 1
    monkeypatch.setattr("secagg.identity.files.os.geteuid", lambda: other)
    assert refusal(path).reason is FileRefusal.WRONG_OWNER


def test_a_symbolic_link_is_refused(tmp_path):
    path = plain(tmp_path)
    (tmp_path / "link").symlink_to(path)
    assert refusal(tmp_path / "link").reason is FileRefusal.SYMLINK


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    assert refusal(tmp_path / "pipe").reason is FileRefusal.NOT_A_FILE
    assert refusal(tmp_path / "directory").reason is FileRefusal.NOT_A_FILE


def test_a_missing_file_and_an_impossible_name_are_refused(tmp_path):
    assert refusal(tmp_path / "none").reason is FileRefusal.MISSING
    with pytest.raises(IdentityFileError):
        load_key_file(tmp_path / "a\0b", KeyKind.IDENTITY, None)
    with pytest.raises(IdentityFileError):
        create_key_file(tmp_path / "a\0b", KeyKind.IDENTITY, None, SystemRng())


def test_a_file_too_large_is_refused(tmp_path):
    path = plain(tmp_path)
    path.write_bytes(path.read_bytes() + b" " * keys.MAX_FILE_BYTES)
    assert refusal(path).reason is FileRefusal.TOO_LARGE


@pytest.mark.parametrize("kind", [kind for kind in KeyKind if kind is not KeyKind.IDENTITY])
def test_a_key_of_another_kind_is_refused(tmp_path, kind):
    error = refusal(plain(tmp_path), kind)
    assert error.reason is FileRefusal.WRONG_KIND
    assert "identity" in str(error)
    assert kind.value in str(error)
    with pytest.raises(IdentityFileError) as caught:
        load_public_key(tmp_path / "k.key.pub", kind)
    assert caught.value.reason is FileRefusal.WRONG_KIND


def test_a_public_key_that_is_not_the_seeds_is_refused(tmp_path):
    path = plain(tmp_path)
    value = members(path)
    value["public"] = SigningKey(Secret(bytes(32))).public_bytes.hex()
    rewrite(path, value)
    assert refusal(path).reason is FileRefusal.KEY_MISMATCH


def test_a_wrong_passphrase_is_refused(tmp_path):
    error = refusal(encrypted(tmp_path), ask_passphrase=lambda: Secret(b"wrong"))
    assert error.reason is FileRefusal.DOES_NOT_OPEN


def test_an_encrypted_file_without_a_way_to_ask_is_refused(tmp_path):
    assert refusal(encrypted(tmp_path), ask_passphrase=None).reason is FileRefusal.PASSPHRASE_NEEDED


@pytest.mark.parametrize("member", ["salt", "nonce", "ciphertext"])
def test_flipping_a_bit_of_the_encrypted_part_is_noticed(tmp_path, member):
    path = encrypted(tmp_path)
    value = members(path)
    data = bytearray.fromhex(value["seed"][member])
    data[-1] ^= 1
    value["seed"][member] = data.hex()
    rewrite(path, value)
    assert refusal(path, ask_passphrase=ask).reason is FileRefusal.DOES_NOT_OPEN


@pytest.mark.parametrize(("member", "other"), [("n", 32), ("r", 4), ("p", 2)])
def test_changed_scrypt_parameters_are_noticed(tmp_path, member, other):
    path = encrypted(tmp_path)
    value = members(path)
    value["seed"][member] = other
    rewrite(path, value)
    assert refusal(path, ask_passphrase=ask).reason is FileRefusal.DOES_NOT_OPEN


def test_kind_and_public_key_are_bound_to_the_encrypted_seed(tmp_path):
    path = encrypted(tmp_path)
    value = members(path)
    rewrite(path, {**value, "kind": "registrar"})
    assert refusal(path, KeyKind.REGISTRAR, ask).reason is FileRefusal.DOES_NOT_OPEN
    rewrite(path, {**value, "public": "00" * 32})
    assert refusal(path, ask_passphrase=ask).reason is FileRefusal.DOES_NOT_OPEN


@pytest.mark.parametrize(
    ("n", "r", "p"),
    [
        (0, 8, 1),
        (1, 8, 1),
        (24, 8, 1),
        (2**21, 8, 1),
        (2**20, 8, 1),
        (16, 0, 1),
        (16, 33, 1),
        (16, 8, 0),
        (16, 8, 17),
        (2**18, 8, 8),
    ],
)
def test_scrypt_parameters_out_of_bounds_are_refused_before_anybody_is_asked(tmp_path, n, r, p):
    with pytest.raises(RecordError):
        ScryptCost(n, r, p)
    path = encrypted(tmp_path)
    value = members(path)
    value["seed"] |= {"n": n, "r": r, "p": p}
    rewrite(path, value)
    assert refusal(path, ask_passphrase=never_asked).reason is FileRefusal.MALFORMED


def test_memory_that_does_not_suffice_is_a_refusal(tmp_path, monkeypatch):
    path = encrypted(tmp_path)

    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr(keys, "Scrypt", exhausted)
    assert refusal(path, ask_passphrase=ask).reason is FileRefusal.SYSTEM_ERROR


@pytest.mark.parametrize("member", ["kind", "public", "seed", "type", "version"])
def test_a_missing_and_an_unknown_member_are_refused_without_being_quoted(tmp_path, member):
    path = plain(tmp_path)
    value = members(path)
    rewrite(path, {name: item for name, item in value.items() if name != member})
    assert refusal(path).reason is FileRefusal.MALFORMED
    rewrite(path, {**value, SEED.hex(): member})
    assert refusal(path).reason is FileRefusal.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"type": "public-key"},
        {"kind": "king"},
        {"public": "AB" * 32},
        {"public": "ab" * 31},
        {"seed": SEED.hex()},
        {"seed": {"type": "plain", "seed": SEED.hex()[:-2]}},
        {"seed": {"type": "plain", "seed": "zz" * 32}},
        {"seed": {"type": "plain", "seed": SEED.hex(), "more": 1}},
        {"seed": {"type": "rot13", "seed": SEED.hex()}},
        {"seed": [SEED.hex()]},
    ],
)
def test_each_malformed_member_is_refused(tmp_path, change):
    path = plain(tmp_path)
    rewrite(path, {**members(path), **change})
    assert refusal(path).reason is FileRefusal.MALFORMED


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: data.replace(b":", b": ", 1),
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b'"' + SEED.hex().encode() + b'"', SEED.hex().replace("e", "1").encode()),
        lambda data: data.replace(
            b'"' + SEED.hex().encode() + b'"',
            b"5." + SEED.hex().encode().replace(b"c0", b"00").translate(None, b"abcdef"),
        ),
        lambda data: data.replace(SEED.hex().encode(), SEED + b"\xff"),
        lambda _: b"",
    ],
)
def test_what_is_not_one_canonical_line_is_refused_without_being_quoted(tmp_path, spoil):
    path = plain(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    assert refusal(path).reason is FileRefusal.MALFORMED


def test_no_repr_of_this_module_shows_seed_or_passphrase(tmp_path):
    key = load_key_file(plain(tmp_path), KeyKind.IDENTITY, None)
    parsed = keys._read_file((tmp_path / "k.key").read_bytes())
    for shown in (repr(key), repr(parsed), repr(PASSPHRASE), str(parsed)):
        assert SEED.hex() not in shown
        assert "5eedc0de" not in shown
        assert repr(SEED)[2:-1] not in shown
        assert "horse" not in shown


def test_an_error_keeps_no_decoder_error_alive_that_holds_the_file(tmp_path):
    path = plain(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"}", b""))
    error = refusal(path)
    assert error.__context__ is None
    assert error.__cause__ is None
    gc.collect()
    assert sys.exc_info() == (None, None, None)


@EVERY_FILE
@given(st.binary(max_size=600))
def test_arbitrary_bytes_give_only_the_declared_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(IdentityFileError):
        load_key_file(path, KeyKind.IDENTITY, ask)
    with pytest.raises(IdentityFileError):
        load_public_key(path, KeyKind.IDENTITY)


@EVERY_FILE
@given(st.sampled_from(["plain", "encrypted", "public"]), st.integers(0, 2000), st.binary(min_size=1, max_size=3))
def test_an_almost_right_file_loads_the_same_key_or_is_refused(tmp_path_factory, form, place, patch):
    directory = tmp_path_factory.mktemp("almost")
    path = (encrypted if form == "encrypted" else plain)(directory)
    right = SigningKey(Secret(SEED)).public_bytes
    path = keys.public_path(path) if form == "public" else path
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + len(patch)] = patch
    path.write_bytes(data)
    try:
        if form == "public":
            load_public_key(path, KeyKind.IDENTITY)  # not authenticated: whoever reads it pins it
        else:
            assert load_key_file(path, KeyKind.IDENTITY, ask).public_bytes == right
    except IdentityFileError as error:
        assert_no_secret(error)
