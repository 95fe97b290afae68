"""The configuration file of a key authority: TOML, read strictly, written with comments.

Relative paths are relative to the directory of the file (``load``). The file holds no secret; it names the files that
do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secagg.identity.address import Address
from secagg.identity.errors import ConfigError
from secagg.identity.institution_config import Comments, InstitutionConfig, institution_document, take_common
from secagg.identity.toml_reader import Table, check_integer, quoted_list, read_keys
from secagg.transcript.openers import MAX_ATTESTORS
from secagg.transcript.policy import LogPolicy

DEFAULT_ADDRESS = Address("127.0.0.1", 7446)
_COMMENTS = Comments(
    title="# Configuration of a secagg key authority. Relative paths count from the directory of this file.",
    state_directory=(
        "# Sessions with their keys, what was opened. Never restore it from a backup without telling the service:\n"
        "# `authority serve --restored` then opens nothing of the sessions in it."
    ),
    key_file="# The signing key. The key that the sessions are encrypted under follows from it.",
    coordinators="# For whose sessions keys are made: public keys of coordinators.",
    log_policy=(
        "# Which logs, and who must have cosigned them: a C2SP policy file with witnesses. Without one nothing is\n"
        "# served: a coordinator could show this authority other commitments than to contributors."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityConfig(InstitutionConfig):
    """What a key authority is started with.

    Keys of the file (a default in brackets; others have to be there):

    ==================  ================================================================================
    name                the authority's name, for people, of 1 to 64 bytes
    listen              address host:port ["127.0.0.1:7446"]; port 0 takes a free one
    address             where coordinators reach it, for its card
    state_directory     sessions with their keys, what it opened
    key_file            its signing key; the sessions are encrypted under one that follows from it
    transport           "tls" or "loopback-plaintext" ["tls"]
    tls.certificate     certificate chain in PEM (transport "tls")
    tls.private_key     its key in PEM, mode 0600 (transport "tls")
    tls.client_ca       authority whose certificates coordinators must show (transport "tls") [none]
    coordinators        public keys of the coordinators it serves, in hex [[]: nobody]
    registrars          public keys of the registrars whose rosters it takes, in hex [[]: any]
    min_contributors    it opens no sum of fewer, 2 to 2^28 [3]
    log_policy          C2SP policy file: which logs, whose cosignatures; nothing is served without it [none]
    attestors           public keys of those whose attestations count, in hex, 1 to 16
    attestations        of how many of them it wants one [all]
    expose_reflection   "nobody" or "everyone" ["nobody"]
    ==================  ================================================================================
    """

    attestors: frozenset[bytes]
    attestations: int
    listen: Address = DEFAULT_ADDRESS

    FILE_NAME: ClassVar[str] = "authority.toml"

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        InstitutionConfig.__post_init__(self)
        if not 1 <= len(self.attestors) <= MAX_ATTESTORS:
            raise ConfigError(
                "attestors", f"expected 1 to {MAX_ATTESTORS} keys: without attestations nothing is opened"
            )
        check_integer("attestations", self.attestations, 1, len(self.attestors))

    @classmethod
    def from_toml(cls, text: str) -> AuthorityConfig:
        """Read a document; paths stay as written. Raises ConfigError."""
        top = Table.parse(text)
        attestors = read_keys("attestors", top.texts("attestors", ()))
        attestations = top.integer("attestations", len(attestors))
        config = cls(**take_common(top, DEFAULT_ADDRESS), attestors=attestors, attestations=attestations)
        top.finish()
        return config

    def to_toml(self) -> str:
        """A commented document that ``from_toml`` reads back to an equal value."""
        return institution_document(
            self,
            _COMMENTS,
            "# Who recomputes the sum of the ciphertexts (`secagg attest`), and how many of them have to have signed\n"
            "# it before anything is decrypted. Sessions name those in authority.card: keep the two the same.\n"
            f"attestors = {quoted_list(sorted(key.hex() for key in self.attestors))}\n"
            f"attestations = {self.attestations}",
        )

    def policy(self) -> LogPolicy:
        """The policy in the file, which has to ask for witnesses.

        What contributors committed to is fixed by the log alone: in a fork that nobody cosigned, the authority would be
        shown other commitments than they were.

        Raises:
            ConfigError: there is none, or it asks for no witness.
            IdentityFileError: the file cannot be read.
        """
        policy = InstitutionConfig.policy(self)
        if policy.is_met_by(()):
            raise ConfigError("log_policy", "expected a C2SP policy file with a quorum of witnesses")
        return policy
