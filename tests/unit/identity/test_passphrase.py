"""Passphrases come from a prompt, a private file or a descriptor."""

from __future__ import annotations

import contextlib
import getpass
import os
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.secret import Secret
from secagg.identity.errors import FileRefusal, IdentityFileError, PassphraseError
from secagg.identity.passphrase import (
    passphrase_from_descriptor,
    passphrase_from_file,
    prompt_new_passphrase,
    prompt_passphrase,
)


def private_file(tmp_path, data):
    path = tmp_path / "passphrase"
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def through_pipe(data):
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        return passphrase_from_descriptor(reading)
    finally:
        os.close(reading)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_one_line_is_the_passphrase_with_or_without_its_end(tmp_path, ending):
    assert passphrase_from_file(private_file(tmp_path, b" a b " + ending)) == Secret(b" a b ")
    assert through_pipe(b" a b " + ending) == Secret(b" a b ")


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n"])
def test_an_empty_passphrase_is_refused(tmp_path, data):
    with pytest.raises(IdentityFileError) as caught:
        passphrase_from_file(private_file(tmp_path, data))
    assert caught.value.reason is FileRefusal.EMPTY_PASSPHRASE
    with pytest.raises(IdentityFileError):
        through_pipe(data)


@pytest.mark.parametrize("data", [b"sesame\nopen", b"sesame\n\n", b"ses\0ame", b"s" * 1025, b"s" * 5000])
def test_what_is_not_one_bounded_line_is_refused_without_being_quoted(tmp_path, data):
    with pytest.raises(IdentityFileError) as caught:
        passphrase_from_file(private_file(tmp_path, data))
    assert caught.value.reason in (FileRefusal.UNUSABLE_PASSPHRASE, FileRefusal.TOO_LARGE)
    assert "ses" not in str(caught.value)
    assert "ss" not in str(caught.value).replace("passphrase", "")
    with pytest.raises(IdentityFileError):
        through_pipe(data)


def test_a_passphrase_file_that_others_can_read_is_refused(tmp_path):
    path = private_file(tmp_path, b"sesame")
    path.chmod(0o644)
    with pytest.raises(IdentityFileError, match="chmod 600"):
        passphrase_from_file(path)


@pytest.mark.parametrize("descriptor", [-1, 99_999])
def test_a_descriptor_that_is_not_open_is_refused(descriptor):
    with pytest.raises(IdentityFileError, match="file descriptor"):
        passphrase_from_descriptor(descriptor)


def test_every_keyboard_types_the_same_bytes(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert prompt_passphrase("?", lambda _: composed) == prompt_passphrase("?", lambda _: decomposed)
    assert passphrase_from_file(private_file(tmp_path, decomposed.encode())) == Secret(composed.encode())


def test_a_new_passphrase_is_asked_for_twice():
    assert prompt_new_passphrase("?", lambda _: "sesame") == Secret(b"sesame")
    answers = iter(["sesame", "sesamy"])
    with pytest.raises(PassphraseError, match="differ") as caught:
        prompt_new_passphrase("?", lambda _: next(answers))
    assert "sesam" not in str(caught.value)


@pytest.mark.parametrize("typed", ["", "s" * 1025])
def test_nothing_typed_and_too_much_typed_are_refused(typed):
    with pytest.raises(PassphraseError):
        prompt_passphrase("?", lambda _: typed)


def test_without_a_terminal_nothing_is_typed_in_the_open():
    def echoing(_):
        warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
        return "echoed"

    def closed(_):
        raise EOFError

    for ask in (echoing, closed):
        with pytest.raises(PassphraseError, match="no terminal"):
            prompt_passphrase("?", ask)


@given(st.binary(max_size=1100))
def test_arbitrary_bytes_give_a_passphrase_or_the_declared_error(data):
    with contextlib.suppress(IdentityFileError):
        assert len(through_pipe(data)) > 0
