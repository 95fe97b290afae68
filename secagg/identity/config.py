"""Configuration files of coordinators: TOML, read strictly, written with comments.

What a file may say is in the docstring of ``CoordinatorConfig``; that of clients is in ``client_config``. Relative
paths are relative to the directory of the file (``load``). No file holds a secret; it names the files that do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from secagg.identity.address import Address
from secagg.identity.errors import ConfigError
from secagg.identity.tls import ServerTransport
from secagg.identity.toml_reader import (
    Table,
    check_integer,
    check_path,
    document,
    quoted,
    read_address,
    read_text,
    resolved,
)
from secagg.identity.transport import (
    Plaintext,
    TlsFiles,
    check_plaintext,
    read_server_transport,
    server_transport,
    transport_paragraphs,
)
from secagg.transcript.note import NoteError, check_name
from secagg.transcript.policy import LogPolicy, PolicyError

DEFAULT_ADDRESS = Address("127.0.0.1", 7443)
_DAY_S = 24 * 3600
MAX_INGEST_PROCESSES = 64
_MAX_RETENTION_S = 10 * 366 * _DAY_S  # as in a session's record


class ReflectionAudience(enum.Enum):
    """Who can ask the coordinator what it serves (gRPC server reflection)."""

    NOBODY = "nobody"
    OPERATOR = "operator"
    """On the operator's socket only."""
    EVERYONE = "everyone"
    """On the public address as well."""


@dataclass(frozen=True, slots=True)
class CoordinatorLimits:
    """What one coordinator takes on at a time."""

    max_concurrent_rpcs: int = 4096
    max_upload_bytes: int = 4 * 2**30
    max_watchers: int = 2000

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_integer("limits.max_concurrent_rpcs", self.max_concurrent_rpcs, 1, 2**20)
        check_integer("limits.max_upload_bytes", self.max_upload_bytes, 1, 2**40)
        check_integer("limits.max_watchers", self.max_watchers, 0, 2**20 - 1)
        # A watcher holds an RPC for as long as it watches.
        if self.max_watchers >= self.max_concurrent_rpcs:
            raise ConfigError("limits.max_watchers", "must be below limits.max_concurrent_rpcs: a watcher is an RPC")


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The coordinator's log: its name for ever, and the policy file whose witnesses have to cosign it."""

    origin: str
    witnesses: Path | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        try:
            check_name(self.origin, "origin")
        except NoteError as error:
            raise ConfigError("log.origin", error.reason) from None
        if self.witnesses is not None:
            check_path("log.witnesses", self.witnesses)

    def policy(self) -> LogPolicy:
        """The witnesses to ask, with their addresses; none if no file is named. Raises ConfigError."""
        return LogPolicy.without_witnesses() if self.witnesses is None else load_policy(self.witnesses)


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """What a coordinator is started with.

    Keys of the file (a default in brackets; others have to be there):

    ==============================  ====================================================================
    listen                          address host:port ["127.0.0.1:7443"]; port 0 takes a free one
    state_directory                 where sessions and uploads are
    record_directory                where the log and the results are published ["record"]
    log.origin                      name of the log, such as "aggregator.example/secagg"; never change it
    log.witnesses                   C2SP policy file: who has to cosign the log, and their addresses [none]
    key_file                        the coordinator's signing key
    transport                       "tls" or "loopback-plaintext" ["tls"]
    retention_s                     how long masked inputs are kept, 0 to ten years; a session's own value
                                    replaces it [2592000]
    expose_reflection               "nobody", "operator" or "everyone" ["operator"]
    ingest_processes                how many processes take uploads, on the ports after that of listen; 0 to 64,
                                    0 for none beside the service itself [0]
    tls.certificate                 certificate chain in PEM (transport "tls")
    tls.private_key                 its key in PEM, mode 0600 (transport "tls")
    tls.client_ca                   authority whose certificates clients must show (transport "tls") [none]
    limits.max_concurrent_rpcs      1 to 2^20 [4096]
    limits.max_upload_bytes         of one masked input, 1 to 2^40 [4294967296]
    limits.max_watchers             0 to 2^20, below max_concurrent_rpcs [2000]
    ==============================  ====================================================================
    """

    state_directory: Path
    key_file: Path
    transport: TlsFiles | Plaintext
    log: LogConfig
    record_directory: Path = Path("record")
    listen: Address = DEFAULT_ADDRESS
    limits: CoordinatorLimits = CoordinatorLimits()
    retention_s: int = 30 * _DAY_S
    expose_reflection: ReflectionAudience = ReflectionAudience.OPERATOR
    ingest_processes: int = 0

    FILE_NAME: ClassVar[str] = "coordinator.toml"

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_path("state_directory", self.state_directory)
        check_path("record_directory", self.record_directory)
        check_path("key_file", self.key_file)
        check_integer("retention_s", self.retention_s, 0, _MAX_RETENTION_S)
        check_integer("ingest_processes", self.ingest_processes, 0, MAX_INGEST_PROCESSES)
        if self.listen.port and self.listen.port + self.ingest_processes >= 1 << 16:
            raise ConfigError("ingest_processes", f"no ports after {self.listen.port} for so many")
        check_plaintext(self.transport, "listen", self.listen)

    @classmethod
    def from_toml(cls, text: str) -> CoordinatorConfig:
        """Read a document; paths stay as written. Raises ConfigError."""
        top = Table.parse(text)
        config = cls(
            listen=read_address("listen", top.text_or("listen", str(DEFAULT_ADDRESS))),
            state_directory=top.path("state_directory"),
            key_file=top.path("key_file"),
            record_directory=top.path_or("record_directory", Path("record")),
            transport=read_server_transport(top),
            log=_log(top),
            limits=_limits(top),
            retention_s=top.integer("retention_s", 30 * _DAY_S),
            expose_reflection=read_audience(top.text_or("expose_reflection", ReflectionAudience.OPERATOR.value)),
            ingest_processes=top.integer("ingest_processes", 0),
        )
        top.finish()
        return config

    @classmethod
    def load(cls, path: Path) -> CoordinatorConfig:
        """Read a file; its relative paths count from its directory. Raises ConfigError, IdentityFileError."""
        return resolved(cls.from_toml(read_text(path)), path.absolute().parent)

    def to_toml(self) -> str:
        """A commented document that ``from_toml`` reads back to an equal value."""
        transport, tls = transport_paragraphs(self.transport, "Clients")
        return document(
            "# Configuration of a secagg coordinator. Relative paths count from the directory of this file.",
            f"# Where clients connect; anything but a loopback address needs TLS.\nlisten = {quoted(self.listen)}",
            f"# Sessions and uploads.\nstate_directory = {quoted(self.state_directory)}",
            "# The log and the results; any static web server can publish this directory.\n"
            f"record_directory = {quoted(self.record_directory)}",
            f"# The coordinator's signing key; clients pin its public half.\nkey_file = {quoted(self.key_file)}",
            transport,
            "# How long masked inputs are kept for auditors, unless the session says otherwise.\n"
            f"retention_s = {self.retention_s}",
            '# Who can list the services: "nobody", "operator" (on the operator\'s socket), "everyone".\n'
            f"expose_reflection = {quoted(self.expose_reflection.value)}",
            "# Processes that take uploads beside this one, each on a port of its own: those after the port above.\n"
            f"ingest_processes = {self.ingest_processes}",
            tls,
            "[log]\n# The log's name, for ever: clients and witnesses pin it with the key.\n"
            f"origin = {quoted(self.log.origin)}\n"
            "# Who has to cosign the log before anything follows from it (a C2SP policy file with their addresses).\n"
            + (
                '# witnesses = "witnesses.policy"'
                if self.log.witnesses is None
                else f"witnesses = {quoted(self.log.witnesses)}"
            ),
            "[limits]\n"
            f"max_concurrent_rpcs = {self.limits.max_concurrent_rpcs}\n"
            f"# Of one masked input.\nmax_upload_bytes = {self.limits.max_upload_bytes}\n"
            f"# Clients that wait for news; each is one of the RPCs above.\nmax_watchers = {self.limits.max_watchers}",
        )

    def ingest_listen(self, place: int) -> Address:
        """Where the ingest process at ``place``, from 0, listens; port 0 takes a free one there as well."""
        return Address(self.listen.host, self.listen.port and self.listen.port + 1 + place)

    def server_transport(self) -> ServerTransport:
        """Read the TLS files. Raises IdentityFileError."""
        return server_transport(self.transport, self.listen)


def _log(top: Table) -> LogConfig:
    table = top.table("log")
    if table is None:
        raise ConfigError("log.origin", "missing")
    log = LogConfig(table.text("origin"), table.path_or("witnesses", None))
    table.finish()
    return log


def load_policy(path: Path) -> LogPolicy:
    """A C2SP policy file. Raises ConfigError, IdentityFileError."""
    try:
        return LogPolicy.parse(read_text(path))
    except PolicyError as error:
        raise ConfigError(str(path), str(error)) from None


def _limits(top: Table) -> CoordinatorLimits:
    table, default = top.table("limits"), CoordinatorLimits()
    if table is None:
        return default
    limits = CoordinatorLimits(
        table.integer("max_concurrent_rpcs", default.max_concurrent_rpcs),
        table.integer("max_upload_bytes", default.max_upload_bytes),
        table.integer("max_watchers", default.max_watchers),
    )
    table.finish()
    return limits


def read_audience(text: str) -> ReflectionAudience:
    """The value of ``expose_reflection``. Raises ConfigError."""
    try:
        return ReflectionAudience(text)
    except ValueError:
        words = ", ".join(f'"{audience.value}"' for audience in ReflectionAudience)
        raise ConfigError("expose_reflection", f"expected one of {words}") from None
