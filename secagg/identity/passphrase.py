"""Where passphrases come from: a prompt, a private file or a file descriptor. Never argv, never the environment."""

from __future__ import annotations

import getpass
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

from secagg.crypto.secret import Secret
from secagg.identity.errors import FileRefusal, IdentityFileError, PassphraseError
from secagg.identity.files import file_errors, read_bounded, read_private

MAX_BYTES = 1024


def prompt_passphrase(prompt: str, ask: Callable[[str], str] = getpass.getpass) -> Secret:
    """Ask once, without echo.

    Raises:
        PassphraseError: nothing was typed, or there is no terminal that can hide what is typed.
    """
    with warnings.catch_warnings():
        # Without a terminal getpass warns and then echoes; the warning as an error comes before that.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            typed = ask(prompt)
        except (getpass.GetPassWarning, EOFError):
            raise PassphraseError("no terminal to ask for the passphrase; give a file or a descriptor") from None
    passphrase = _normalise(typed.encode("utf-8", "surrogateescape"))
    if not 0 < len(passphrase) <= MAX_BYTES:
        raise PassphraseError(f"a passphrase has 1 to {MAX_BYTES} bytes")
    return passphrase


def prompt_new_passphrase(prompt: str, ask: Callable[[str], str] = getpass.getpass) -> Secret:
    """Ask twice.

    Raises:
        PassphraseError: the two differ, or as for ``prompt_passphrase``.
    """
    first = prompt_passphrase(prompt, ask)
    if prompt_passphrase(f"{prompt} (again)", ask) != first:
        raise PassphraseError("the two passphrases differ")
    return first


def passphrase_from_file(path: Path) -> Secret:
    """The one line of a file with mode 0600. Raises IdentityFileError."""
    return _one_line(path, read_private(path, MAX_BYTES + 2))


def passphrase_from_descriptor(descriptor: int) -> Secret:
    """The one line that an inherited file descriptor gives until its end; it stays open. Raises IdentityFileError."""
    name = Path(f"file descriptor {descriptor}")
    if descriptor < 0:
        raise IdentityFileError(name, FileRefusal.MISSING)
    with file_errors(name):
        return _one_line(name, read_bounded(name, descriptor, MAX_BYTES + 2))


def _one_line(name: Path, data: bytes) -> Secret:
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise IdentityFileError(name, FileRefusal.EMPTY_PASSPHRASE)
    if len(line) > MAX_BYTES or b"\n" in line or b"\0" in line:
        raise IdentityFileError(name, FileRefusal.UNUSABLE_PASSPHRASE)
    return _normalise(line)


def _normalise(data: bytes) -> Secret:
    """Unicode form NFC, so that every keyboard types the same bytes; what is not UTF-8 stays as it is."""
    text = unicodedata.normalize("NFC", data.decode("utf-8", "surrogateescape"))
    return Secret(text.encode("utf-8", "surrogateescape"))
