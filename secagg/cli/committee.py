"""``secagg committee``: set up and run a member of committees, which open the sums of one-shot sessions."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.daemon import announcing, until_signal
from secagg.cli.exit_codes import ExitCode
from secagg.cli.institution import (
    Home,
    Institution,
    add_conditions,
    add_contact,
    add_log,
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
    from secagg.identity.committee_config import CommitteeConfig

KEY_FILE = "committee.key"
CARD_FILE = "member.card"
_KIND = Institution("committee", "member", "keys", KEY_FILE, CARD_FILE)


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``committee init``, ``serve`` and ``log``."""
    commands = add_group(
        subparsers,
        "committee",
        "set up and run a member of committees, which open the sums of one-shot sessions",
        """
        The side of an institution that coordinators name in one-shot sessions: it holds a share of what masks each
        contribution, checks for itself which contributions the log says are in the sum, and gives away the sum of
        its shares of those, once. Enough members of different institutions open a sum; fewer learn nothing.""",
    )
    _add_init(commands)
    _add_serve(commands)
    add_log(commands, _KIND, load_config, "secagg committee log --config member/committee.toml")


def _add_init(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "init",
        "make keys, a certificate, a configuration and a card",
        """
        Make what a committee member needs, in DIR (mode 0700): committee.toml (its configuration, with comments),
        committee.key and .pub (the key that signs answers; the key that boxes are sealed to follows from it),
        tls.key and tls.crt (self-signed), the state directory, which is made here and never again, and member.card,
        which goes to the operators of coordinators. Nothing that exists is overwritten. Prints the public key, which
        contributors pin.""",
        """
        secagg committee init member --name "Institute A" --listen 0.0.0.0:7445 --host a.example \\
            --coordinator 9a1c...e0 --registrar 77ab...31 --log-policy log.policy""",
    )
    add_contact(parser, _KIND, 7445)
    add_conditions(parser)
    parser.set_defaults(run=_init)


def _add_serve(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "serve",
        "run the member",
        """
        Serve the member of a configuration until SIGTERM or SIGINT, then end in order. What it holds and what it
        will answer is durable before anybody sees it; after a crash the same command goes on. Once it serves, one
        line on stdout says where; a log of events goes to stderr, one JSON object a line, without secrets. It
        refuses to start on a state that is missing, a copy, or older than it was: then --restored accepts it, and
        whatever may have been opened before is never opened by this member.""",
        "secagg committee serve --config member/committee.toml",
    )
    add_serving(
        parser,
        _KIND,
        "abandon every session in it, and serve only sessions that are opened more than ten minutes from now",
    )
    parser.set_defaults(run=_serve)


def load_config(path: Path) -> CommitteeConfig:
    """The configuration in a file; errors name it."""
    from secagg.identity.committee_config import CommitteeConfig

    return read_config(CommitteeConfig.load, path, "secagg committee init DIR --name NAME")


def _init(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.passphrases import new_passphrase
    from secagg.crypto.rng import SystemRng
    from secagg.derive.openers import member_of
    from secagg.identity.cards import MemberCard
    from secagg.identity.committee_config import DEFAULT_ADDRESS, CommitteeConfig
    from secagg.identity.keys import KeyKind, create_key_file, load_key_file
    from secagg.runtime.committee_member import member_sealing_key
    from secagg.store.member_state import MemberState

    reporter = Reporter.of(arguments)
    common, hosts = planned(arguments, _KIND, DEFAULT_ADDRESS)
    config = CommitteeConfig(**common)
    config.policy()
    home = Home.of(_KIND, arguments.directory)
    home.make()
    passphrase = new_passphrase(arguments, home.key_file, reporter)
    create_key_file(home.key_file, KeyKind.COMMITTEE_MEMBER, passphrase, SystemRng())
    key = load_key_file(home.key_file, KeyKind.COMMITTEE_MEMBER, None if passphrase is None else lambda: passphrase)

    def card_of(pem: str) -> MemberCard:
        sealing_key = member_sealing_key(key).public_bytes
        return MemberCard.of(member_of(config.name, key, sealing_key), str(config.address), pem)

    fingerprint = write_home(home, config, hosts, card_of, MemberState.create)
    say_what_is_open(
        config, "no witnesses are named: a coordinator can show this member another log (log_policy)", reporter
    )
    say_made(reporter, home, config, key.public_bytes, fingerprint)
    return ExitCode.OK


def _serve(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.committee_serving import serve
    from secagg.identity.keys import KeyKind
    from secagg.runtime.clock import SystemClock
    from secagg.services.logs import log_to
    from secagg.store.member_state import MemberState

    config = load_config(arguments.config)
    key, facts = opened_key(arguments, config, KeyKind.COMMITTEE_MEMBER)
    reporter = Reporter.of(arguments)
    if arguments.restored:
        abandoned = MemberState.accept_restored(config.state_directory, SystemClock().now_s())
        facts["abandoned"] = abandoned
        reporter.progress(
            f"restored: {abandoned} sessions abandoned; new ones are served if opened in ten minutes or later"
        )
    ready = announcing(reporter, config.listen, facts, f"member {key.public_bytes.hex()}")
    log_to()
    asyncio.run(until_signal(lambda stop: serve(config, key, ready, stop)))
    return ExitCode.OK
