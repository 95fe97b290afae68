"""The passphrase of a key that is being made: asked for, from a file, or none and said so."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from secagg.cli.output import Reporter
from secagg.crypto.secret import Secret
from secagg.identity.passphrase import passphrase_from_file, prompt_new_passphrase


def new_passphrase(arguments: argparse.Namespace, key_file: Path, reporter: Reporter) -> Secret | None:
    """What ``--passphrase-file`` or the person at the terminal gives; None for a key that is not encrypted.

    Raises:
        PassphraseError: two different answers.
        IdentityFileError: the passphrase file cannot be used.
    """
    if arguments.passphrase_file is not None:
        return passphrase_from_file(arguments.passphrase_file)
    if arguments.no_passphrase:
        return None
    if sys.stdin.isatty() and sys.stderr.isatty():
        first = getpass.getpass(f"Passphrase for {key_file} (empty: none): ")
        if first:
            answers = iter([first])
            return prompt_new_passphrase(
                f"Passphrase for {key_file}", lambda prompt: next(answers, None) or getpass.getpass(f"{prompt}: ")
            )
    reporter.progress(f"{key_file} is not encrypted: its mode 0600 is the only protection")
    return None
