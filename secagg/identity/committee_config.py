"""The configuration file of a committee member: TOML, read strictly, written with comments.

Relative paths are relative to the directory of the file (``load``). The file holds no secret; it names the files that
do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secagg.identity.address import Address
from secagg.identity.institution_config import Comments, InstitutionConfig, institution_document, take_common
from secagg.identity.toml_reader import Table

DEFAULT_ADDRESS = Address("127.0.0.1", 7445)
_COMMENTS = Comments(
    title="# Configuration of a member of secagg committees. Relative paths count from the directory of this file.",
    state_directory=(
        "# Sessions, sealed boxes, what was opened. Never restore it from a backup without telling the service:\n"
        "# `committee serve --restored` then refuses whatever may have been opened before."
    ),
    key_file="# The signing key. The key that boxes are sealed to follows from it: whoever has it can open them.",
    coordinators="# Whose sessions are served: public keys of coordinators.",
    log_policy=(
        "# Which logs, and who must have cosigned them (a C2SP policy file). Without one a coordinator can show\n"
        "# this member another log than others, and so another closed set."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitteeConfig(InstitutionConfig):
    """What a committee member is started with.

    Keys of the file (a default in brackets; others have to be there):

    ==================  ================================================================================
    name                the member's name, for people, of 1 to 64 bytes
    listen              address host:port ["127.0.0.1:7445"]; port 0 takes a free one
    address             where coordinators reach it, for its card
    state_directory     sessions, sealed boxes, what it opened
    key_file            its signing key; the key that boxes are sealed to follows from it
    transport           "tls" or "loopback-plaintext" ["tls"]
    tls.certificate     certificate chain in PEM (transport "tls")
    tls.private_key     its key in PEM, mode 0600 (transport "tls")
    tls.client_ca       authority whose certificates coordinators must show (transport "tls") [none]
    coordinators        public keys of the coordinators it serves, in hex [[]: nobody]
    registrars          public keys of the registrars whose rosters it takes, in hex [[]: any]
    min_contributors    it opens no sum of fewer, 2 to 2^28 [3]
    log_policy          C2SP policy file: which logs, whose cosignatures [none: the coordinators' word alone]
    expose_reflection   "nobody" or "everyone" ["nobody"]
    ==================  ================================================================================
    """

    listen: Address = DEFAULT_ADDRESS

    FILE_NAME: ClassVar[str] = "committee.toml"

    @classmethod
    def from_toml(cls, text: str) -> CommitteeConfig:
        """Read a document; paths stay as written. Raises ConfigError."""
        top = Table.parse(text)
        config = cls(**take_common(top, DEFAULT_ADDRESS))
        top.finish()
        return config

    def to_toml(self) -> str:
        """A commented document that ``from_toml`` reads back to an equal value."""
        return institution_document(self, _COMMENTS)
