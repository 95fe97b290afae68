"""``secagg authority``: set up and run a key authority, which decrypts one sum of a one-shot session."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.daemon import announcing, until_signal
from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.institution import (
    Home,
    Institution,
    add_conditions,
    add_contact,
    add_log,
    add_public_keys,
    add_serving,
    opened_key,
    planned,
    say_made,
    say_what_is_open,
    write_home,
)
from secagg.cli.options import add_command, add_group, read_config
from secagg.cli.output import Reporter

if TYPE_CHECKING:
    from secagg.identity.authority_config import AuthorityConfig

KEY_FILE = "authority.key"
CARD_FILE = "authority.card"
_KIND = Institution("authority", "authority", "key", KEY_FILE, CARD_FILE)


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``authority init``, ``serve`` and ``log``."""
    commands = add_group(
        subparsers,
        "authority",
        "set up and run a key authority, which decrypts one sum of a one-shot session",
        """
        The side of an institution that makes an encryption key for a session and decrypts the sum of what was
        encrypted under it, once: after it has checked log, roster and contributions for itself, after attestors have
        recomputed the sum, and only if what it finds opens the masked sum. It needs TenSEAL:
        pip install "secagg-lora[he]".""",
    )
    _add_init(commands)
    _add_serve(commands)
    add_log(commands, _KIND, load_config, "secagg authority log --config authority/authority.toml")


def _add_init(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "init",
        "make a key, a certificate, a configuration and a card",
        """
        Make what a key authority needs, in DIR (mode 0700): authority.toml (its configuration, with comments),
        authority.key and .pub (the key that signs answers), tls.key and tls.crt (self-signed), the state directory,
        which is made here and never again, and authority.card, which goes to the operators of coordinators. Nothing
        that exists is overwritten. Prints the public key, which contributors pin.""",
        """
        secagg authority init authority --name "Institute A" --listen 0.0.0.0:7446 --host a.example \\
            --coordinator 9a1c...e0 --registrar 77ab...31 --attestor 51d0...aa --attestor 0c88...04 \\
            --log-policy log.policy""",
    )
    add_contact(parser, _KIND, 7446)
    add_public_keys(parser, "--attestor", "public key of an attestor; at least one, may be repeated", required=True)
    parser.add_argument(
        "--attestations", type=int, metavar="N", help="how many attestors must have signed a sum (default: all)"
    )
    add_conditions(parser)
    parser.set_defaults(run=_init)


def _add_serve(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "serve",
        "run the authority",
        """
        Serve the authority of a configuration until SIGTERM or SIGINT, then end in order. What it decided is durable
        before it decrypts; after a crash the same command goes on. Once it serves, one line on stdout says where; a
        log of events goes to stderr, one JSON object a line, without secrets. It refuses to start without TenSEAL,
        and on a state that is missing, a copy, or older than it was: then --restored accepts it, and every session in
        it is abandoned.""",
        "secagg authority serve --config authority/authority.toml",
    )
    add_serving(parser, _KIND, "abandon every session in it, with its key")
    parser.set_defaults(run=_serve)


def load_config(path: Path) -> AuthorityConfig:
    """The configuration in a file; errors name it."""
    from secagg.identity.authority_config import AuthorityConfig

    return read_config(AuthorityConfig.load, path, "secagg authority init DIR --name NAME --attestor HEX")


def check_tenseal() -> None:
    """Raise CommandError unless TenSEAL can be imported, before a session needs it."""
    from secagg.he.errors import HeUnavailableError
    from secagg.he.seal import load_api

    try:
        load_api()
    except HeUnavailableError as error:
        raise CommandError("TENSEAL", str(error), kind="config") from None


def _init(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.passphrases import new_passphrase
    from secagg.crypto.rng import SystemRng
    from secagg.identity.cards import AuthorityCard
    from secagg.identity.keys import KeyKind, create_key_file
    from secagg.store.authority_state import AuthorityState

    reporter = Reporter.of(arguments)
    config, hosts = _planned(arguments)
    home = Home.of(_KIND, arguments.directory)
    home.make()
    passphrase = new_passphrase(arguments, home.key_file, reporter)
    identity = create_key_file(home.key_file, KeyKind.KEY_AUTHORITY, passphrase, SystemRng())
    attestors = tuple(sorted(config.attestors))

    def card_of(pem: str) -> AuthorityCard:
        return AuthorityCard(config.name, identity, str(config.address), pem, attestors, config.attestations)

    fingerprint = write_home(home, config, hosts, card_of, AuthorityState.create)
    say_what_is_open(
        config, "log_policy is missing: before serving, name a policy file with a quorum of witnesses", reporter
    )
    counted = ("attestors", f"{config.attestations} of\n" + "\n".join(each.hex() for each in attestors))
    say_made(reporter, home, config, identity, fingerprint, counted)
    return ExitCode.OK


def _planned(arguments: argparse.Namespace) -> tuple[AuthorityConfig, tuple[str, ...]]:
    """The configuration that the options describe, and the names for the certificate. Nothing is made yet."""
    from secagg.identity.authority_config import DEFAULT_ADDRESS, AuthorityConfig

    common, hosts = planned(arguments, _KIND, DEFAULT_ADDRESS)
    attestors = frozenset(arguments.attestor)
    attestations = len(attestors) if arguments.attestations is None else arguments.attestations
    config = AuthorityConfig(**common, attestors=attestors, attestations=attestations)
    if config.log_policy is not None:
        config.policy()
    return config, hosts


def _serve(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.authority_serving import serve
    from secagg.identity.keys import KeyKind
    from secagg.services.logs import log_to
    from secagg.store.authority_state import AuthorityState

    check_tenseal()
    config = load_config(arguments.config)
    key, facts = opened_key(arguments, config, KeyKind.KEY_AUTHORITY)
    reporter = Reporter.of(arguments)
    if arguments.restored:
        abandoned = AuthorityState.accept_restored(config.state_directory)
        facts["abandoned"] = abandoned
        reporter.progress(f"restored: {abandoned} sessions abandoned, with their keys")
    ready = announcing(reporter, config.listen, facts, f"authority {key.public_bytes.hex()}")
    log_to()
    asyncio.run(until_signal(lambda stop: serve(config, key, ready, stop)))
    return ExitCode.OK
