"""``secagg identity``: make and show signing keys."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.options import add_command, add_group, add_new_passphrase
from secagg.cli.output import Reporter, table


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``identity new`` and ``show``."""
    commands = add_group(
        subparsers,
        "identity",
        "make and show signing keys",
        """
        Keys are files: FILE holds the private key and stays with its owner (mode 0600), FILE.pub the public one
        and is for everybody. A contributor's key says who contributes; a registrar's key signs rosters.""",
    )
    new = add_command(
        commands,
        "new",
        "make a key",
        """
        Make an Ed25519 key: FILE (mode 0600) and FILE.pub, both new. In a terminal a passphrase is asked for,
        twice, and the key is encrypted with it; an empty one leaves the key unencrypted. Prints the public key,
        which a contributor sends to the registrar.""",
        "secagg identity new alice.key",
    )
    new.add_argument("file", type=Path, metavar="FILE", help="the key file to make")
    new.add_argument(
        "--kind",
        choices=["identity", "registrar", "attestor"],
        default="identity",
        help="identity: for one contributor; registrar: for signing rosters; attestor: for `secagg attest` (default: "
        "identity)",
    )
    add_new_passphrase(new)
    new.set_defaults(run=_new)
    show = add_command(
        commands,
        "show",
        "print the public key",
        """
        Print the kind and the public key of a key file, or of its .pub file. Reads FILE.pub, so that no passphrase
        is needed.""",
        "secagg identity show alice.key",
    )
    show.add_argument("file", type=Path, metavar="FILE", help="a key file or its .pub file")
    show.set_defaults(run=_show)


def _new(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.passphrases import new_passphrase
    from secagg.crypto.rng import SystemRng
    from secagg.identity.keys import KeyKind, create_key_file, public_path

    reporter, file, kind = Reporter.of(arguments), arguments.file, KeyKind(arguments.kind)
    passphrase = new_passphrase(arguments, file, reporter)
    public = create_key_file(file, kind, passphrase, SystemRng())
    _report(reporter, file, kind.value, public, [("public file", str(public_path(file)))])
    return ExitCode.OK


def _show(arguments: argparse.Namespace) -> ExitCode:
    file: Path = arguments.file
    kind, public = read_public_key(file if file.suffix == ".pub" else file.with_name(file.name + ".pub"))
    _report(Reporter.of(arguments), file, kind, public, [])
    return ExitCode.OK


def read_public_key(file: Path) -> tuple[str, bytes]:
    """Kind and public key in a ``.pub`` file of any kind. Raises IdentityFileError."""
    from secagg.identity.errors import FileRefusal, IdentityFileError
    from secagg.identity.keys import KeyKind, load_public_key

    for kind in KeyKind:
        try:
            return kind.value, load_public_key(file, kind)
        except IdentityFileError as error:
            if error.reason is not FileRefusal.WRONG_KIND:
                raise
    raise IdentityFileError(file, FileRefusal.WRONG_KIND)


def _report(reporter: Reporter, file: Path, kind: str, public: bytes, more: list[tuple[str, str]]) -> None:
    reporter.result(
        {"file": str(file), "kind": kind, "public_key": public.hex()},
        table([("file", str(file)), ("kind", kind), ("public key", public.hex()), *more]),
    )
