"""How a command knows a coordinator: from a client's configuration file, or from options."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from secagg.cli.failures import CommandError
from secagg.cli.options import address, hex_bytes, read_config

if TYPE_CHECKING:
    from secagg.client import Coordinator
    from secagg.identity.client_config import ClientConfig
    from secagg.identity.transport import ClientTransport

DEFAULT_IDENTITY = Path("identity.key")
DEFAULT_STATE = Path("state")
_EXPLICIT = ("coordinator", "coordinator_key", "tls_fingerprint", "tls_ca", "registrar", "opener", "log_policy")


def add_connection(parser: argparse.ArgumentParser) -> None:
    """``--config``, or the coordinator's address, key and certificate one by one."""
    group = parser.add_argument_group("which coordinator (a configuration file, or the options one by one)")
    group.add_argument("--config", type=Path, metavar="FILE", help="client.toml, as `secagg client init` writes it")
    add_explicit(group)
    parser.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="for each call of the service (default: 30)"
    )


def add_explicit(group: argparse._ArgumentGroup) -> None:
    """The coordinator's address, key and certificate, registrars and openers as options."""
    group.add_argument("--coordinator", type=address, metavar="HOST:PORT", help="where the coordinator serves")
    group.add_argument(
        "--coordinator-key", type=hex_bytes(32), metavar="HEX", help="its public key; everything it shows is checked"
    )
    group.add_argument(
        "--tls-fingerprint", metavar="HEX", help="SHA-256 of its certificate, as `coordinator init` printed it"
    )
    group.add_argument("--tls-ca", type=Path, metavar="FILE", help="certificates in PEM that vouch for it, instead")
    group.add_argument(
        "--registrar",
        type=hex_bytes(32),
        action="append",
        default=[],
        metavar="HEX",
        help="public key of a registrar whose rosters you accept; may be repeated (default: any)",
    )
    group.add_argument(
        "--opener",
        type=hex_bytes(32),
        action="append",
        default=[],
        metavar="HEX",
        help="public key of a committee member or key authority whom you take for honest; may be repeated. Needed for "
        "one-shot sessions, whose sums they open (default: none)",
    )
    group.add_argument(
        "--log-policy",
        type=Path,
        metavar="FILE",
        help="C2SP policy file: which log it must be and which witnesses must have cosigned it (default: none)",
    )


def client_config(arguments: argparse.Namespace) -> ClientConfig:
    """What ``--config`` or the explicit options say.

    Raises:
        CommandError: both or neither are given, or the file is unusable.
        ConfigError: the options do not fit together.
        IdentityFileError: the file cannot be read.
    """
    given = [name for name in _EXPLICIT if getattr(arguments, name)]
    if arguments.config is None:
        return explicit_config(arguments, DEFAULT_IDENTITY, DEFAULT_STATE)
    if given:
        option = "--" + given[0].replace("_", "-")
        raise CommandError("ARGUMENTS", f"{option} and --config exclude each other", "change the file instead")
    return load_config(arguments.config)


def load_config(path: Path) -> ClientConfig:
    """The configuration in a file; errors name it."""
    from secagg.identity.client_config import ClientConfig

    return read_config(ClientConfig.load, path, "secagg client init FILE")


def explicit_config(arguments: argparse.Namespace, identity: Path, state: Path) -> ClientConfig:
    """A configuration from options. Raises CommandError, ConfigError."""
    from secagg.identity.client_config import ClientConfig, PolicyConfig

    for name in ("coordinator", "coordinator_key"):
        if getattr(arguments, name) is None:
            option = "--" + name.replace("_", "-")
            raise CommandError("ARGUMENTS", f"{option} is missing", "give it, or --config FILE")
    policy = PolicyConfig(registrars=frozenset(arguments.registrar), log=arguments.log_policy)
    return ClientConfig(
        arguments.coordinator,
        arguments.coordinator_key,
        identity,
        state,
        _transport(arguments),
        policy,
        frozenset(arguments.opener),
    )


def _transport(arguments: argparse.Namespace) -> ClientTransport:
    from secagg.identity.transport import AuthorityFile, PinnedFingerprint

    match (arguments.tls_fingerprint, arguments.tls_ca):
        case (str() as fingerprint, None):
            return PinnedFingerprint(fingerprint.lower().replace(":", ""))
        case (None, Path() as file):
            return AuthorityFile(file)
        case _:
            raise CommandError(
                "ARGUMENTS",
                "one of --tls-fingerprint and --tls-ca is needed",
                "`coordinator init` prints a fingerprint",
            )


async def connect_to(config: ClientConfig, timeout_s: float) -> Coordinator:
    """Connect, which includes fetching and comparing a pinned certificate. Raises TlsError, TransportError."""
    from secagg.client import LogTrust, connect
    from secagg.store.checkpoints import FileCheckpointMemory

    tls = await asyncio.to_thread(config.client_tls, timeout_s)
    memory = FileCheckpointMemory.of_coordinator(config.state_directory, config.coordinator_key)
    log = LogTrust(config.policy.log_policy(), memory)
    return await connect(str(config.coordinator), config.coordinator_key, tls, log, timeout_s)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError("expected seconds, above 0 and at most a day")
    return value
