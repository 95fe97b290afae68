"""Why a key file, a roster, a certificate or a configuration is refused.

Texts name the file, the member and what to do; never what a private file holds.
"""

from __future__ import annotations

import enum
import os

from secagg.transcript.record import RecordError


class FileRefusal(enum.Enum):
    """Why a file is refused; the value is the text."""

    MISSING = "no such file"
    EXISTS = "exists already and is never overwritten"
    SYMLINK = "is a symbolic link"
    NOT_A_FILE = "is not a regular file"
    WRONG_OWNER = "belongs to another user"
    OPEN_PERMISSIONS = "others have access to it"
    NOT_PERMITTED = "access is denied"
    SYSTEM_ERROR = "the system reports an error"
    TOO_LARGE = "is too large"
    MALFORMED = "is malformed"
    WRONG_KIND = "holds a key of another kind"
    KEY_MISMATCH = "the public key does not belong to the private one"
    EMPTY_PASSPHRASE = "the passphrase is empty"  # noqa: S105 - a sentence
    UNUSABLE_PASSPHRASE = "the passphrase is not one line of at most 1024 bytes"  # noqa: S105 - a sentence
    PASSPHRASE_NEEDED = "is encrypted and no passphrase was given"  # noqa: S105 - a sentence
    DOES_NOT_OPEN = "does not open: the passphrase is wrong or the file was altered"


class IdentityFileError(ValueError):
    """A file is refused.

    Attributes:
        file: its name, as it was given.
        reason: why.
        fix: what its owner can do about it, or empty.
    """

    def __init__(self, file: str | os.PathLike[str], reason: FileRefusal, detail: str = "", fix: str = "") -> None:
        self.file = os.fspath(file)
        self.reason = reason
        self.fix = fix
        text = f"{self.file}: {reason.value}"
        super().__init__(text + (f" ({detail})" if detail else "") + (f"; {fix}" if fix else ""))


class PassphraseError(ValueError):
    """The person at the prompt gave no usable passphrase."""


class RosterRefusal(enum.Enum):
    """Why a roster or its signature is refused; the value is the text."""

    MALFORMED = "a line is malformed"
    NOT_ASCENDING = "identities are not strictly ascending"
    EMPTY = "has no members"
    DUPLICATE = "is a member already"
    NOT_A_KEY = "is not an Ed25519 public key"
    BAD_STRATUM = "the stratum is not text of at most 64 bytes"
    UNSIGNED = "is not signed"
    MALFORMED_HEAD = "the signed head is malformed"
    UNKNOWN_REGISTRAR = "the registrar is not a pinned one"
    BAD_SIGNATURE = "the registrar's signature does not verify"
    WRONG_SIZE = "the signed head is over another number of members"
    WRONG_ROOT = "the signed head is over other members"


class RosterError(RecordError):
    """A roster is refused; ``refusal`` says why."""

    def __init__(self, refusal: RosterRefusal, detail: str = "") -> None:
        super().__init__("roster", refusal.value + (f": {detail}" if detail else ""))
        self.refusal = refusal


class TlsRefusal(enum.Enum):
    """Why TLS cannot be set up; the value is the text."""

    BAD_HOST = "not a host name or an IP address"
    BAD_VALIDITY = "a certificate is valid for 1 to 3650 days"
    BAD_CERTIFICATE = "not a certificate in PEM form"
    BAD_FINGERPRINT = "a fingerprint is 64 characters of lowercase hex"
    UNREACHABLE = "no TLS connection"
    WRONG_FINGERPRINT = "the server's certificate has another fingerprint"
    NAMELESS_CERTIFICATE = "the server's certificate names no host"
    NOT_LOOPBACK = "plaintext works on a loopback address only"


class TlsError(ValueError):
    """TLS cannot be set up; ``reason`` says why, the text also names what it is about."""

    def __init__(self, reason: TlsRefusal, subject: str, detail: str = "") -> None:
        super().__init__(f"{subject}: {reason.value}" + (f" ({detail})" if detail else ""))
        self.reason = reason
        self.subject = subject


class AddressError(ValueError):
    """Not an address of the form ``host:port``."""


class ConfigError(ValueError):
    """A configuration is refused: ``key`` (dotted; ``file`` for the whole) and ``reason``."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason
