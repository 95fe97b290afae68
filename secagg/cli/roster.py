"""``secagg roster``: say who may contribute, and sign it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, add_group, add_passphrase_file, hex_bytes, load_key
from secagg.cli.output import Reporter, table

_SHOWN_MEMBERS = 20


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``roster add``, ``sign`` and ``show``."""
    commands = add_group(
        subparsers,
        "roster",
        "say who may contribute, and sign it",
        """
        The registrar's side. A roster is a directory with roster.jsonl (one public key a line) and
        roster.head.json (the registrar's signature); ROSTER may also name the .jsonl file itself. The registrar
        answers for one thing: that each key belongs to another person. Keep this key apart from the coordinator's:
        a coordinator that is also the registrar can invent people, and then no minimum means anything.""",
    )
    add = add_command(
        commands,
        "add",
        "add public keys",
        """
        Add contributors' public keys, all or none; the roster is made if it is missing. A signature that is there
        is removed: sign again when the roster is complete.""",
        "secagg roster add roster alice.key.pub bob.key.pub 3d40...c7",
    )
    _add_roster(add)
    add.add_argument("keys", nargs="+", metavar="PUBLIC_KEY", help="a .pub file, or a public key in hex")
    add.add_argument("--stratum", default="", metavar="TEXT", help="a public label for these keys, such as a country")
    add.set_defaults(run=_add)
    sign = add_command(
        commands,
        "sign",
        "sign the members as they are now",
        """
        Sign the roster with the registrar's key (`secagg identity new --kind registrar`) and write
        roster.head.json. Sessions are opened with a signed roster only, and keep it as it was.""",
        "secagg roster sign roster --key registrar.key",
    )
    _add_roster(sign)
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="the registrar's key file")
    add_passphrase_file(sign)
    sign.set_defaults(run=_sign)
    show = add_command(
        commands,
        "show",
        "print the members and who signed",
        """
        Print a roster's members, and its registrar if it is signed; the signature is checked against the members.""",
        "secagg roster show roster",
    )
    _add_roster(show)
    show.set_defaults(run=_show)


def _add_roster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("roster", type=Path, metavar="ROSTER", help="the roster's directory, or its .jsonl file")


def _add(arguments: argparse.Namespace) -> ExitCode:
    from secagg.identity.roster_file import add_members

    additions = [(_public_key(text), arguments.stratum) for text in arguments.keys]
    addition = add_members(arguments.roster, additions)
    Reporter.of(arguments).result(
        {
            "roster": str(arguments.roster),
            "added": [key.hex() for key, _ in additions],
            "size": addition.size,
            "signature": addition.signature.name.lower(),
        },
        f"added {len(additions)}, {addition.size} members now; {addition.signature.value}",
    )
    return ExitCode.OK


def _public_key(text: str) -> bytes:
    from secagg.cli.identity import read_public_key
    from secagg.identity.errors import FileRefusal, IdentityFileError

    file = Path(text)
    if file.suffix == ".pub" or file.exists():
        kind, public = read_public_key(file)
        if kind != "identity":
            raise IdentityFileError(file, FileRefusal.WRONG_KIND, f"found {kind}, expected identity")
        return public
    try:
        return hex_bytes(32)(text)
    except argparse.ArgumentTypeError:
        raise CommandError(
            "PUBLIC_KEY", f"{text}: neither a .pub file that exists nor a public key of 64 hex characters"
        ) from None


def _sign(arguments: argparse.Namespace) -> ExitCode:
    from secagg.identity.keys import KeyKind
    from secagg.identity.roster_file import sign_roster

    head = sign_roster(arguments.roster, load_key(arguments.key, KeyKind.REGISTRAR, arguments))
    Reporter.of(arguments).result(
        {
            "roster": str(arguments.roster),
            "registrar": head.registrar.hex(),
            "size": head.size,
            "root": head.root.hex(),
        },
        table([("signed", f"{head.size} members"), ("registrar", head.registrar.hex()), ("root", head.root.hex())]),
    )
    return ExitCode.OK


def _show(arguments: argparse.Namespace) -> ExitCode:
    from secagg.identity.errors import RosterError, RosterRefusal
    from secagg.identity.roster_file import load_members, load_roster
    from secagg.transcript.roster import RosterHead

    members = load_members(arguments.roster)
    registrar = ""
    try:
        registrar = RosterHead.from_bytes(load_roster(arguments.roster).head).registrar.hex()
    except RosterError as error:
        if error.refusal is not RosterRefusal.UNSIGNED:
            raise
    rows = [("members", str(len(members))), ("registrar", registrar or "not signed yet")]
    rows += [("", f"{member.identity.hex()} {member.stratum}".rstrip()) for member in members[:_SHOWN_MEMBERS]]
    if len(members) > _SHOWN_MEMBERS:
        rows.append(("", f"and {len(members) - _SHOWN_MEMBERS} more (--format json shows all)"))
    Reporter.of(arguments).result(
        {
            "roster": str(arguments.roster),
            "registrar": registrar or None,
            "members": [{"identity": member.identity.hex(), "stratum": member.stratum} for member in members],
        },
        table(rows),
    )
    return ExitCode.OK
