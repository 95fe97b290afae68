"""States and events of the key authority machine: one session of one authority.

``Prepared`` has made the key. ``Deciding`` has fixed which closed set it decrypts, durably and before anything is
decrypted. ``Answered`` and ``Refused`` are final and have no key. A request that breaks a rule is refused in any state
and leaves it as it was; what a decryption shows is said once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.protocol.one_shot.messages import ShownSessionFiles
from secagg.protocol.persist import Persistence
from secagg.transcript.openers import MAX_ATTESTORS
from secagg.transcript.policy import LogPolicy
from secagg.transcript.statements import AuthorityAnswer, Signed


@dataclass(frozen=True, slots=True)
class AuthorityPolicy:
    """What an authority insists on, whatever a session says.

    Attributes:
        min_contributors: its own floor; a session with a larger minimum is held to that.
        coordinators: keys of those that it makes keys for; empty serves nobody.
        registrars: keys of those whose rosters it accepts; empty accepts any.
        log: the witnesses that have to have cosigned a log.
        attestors: keys of those whose attestations count.
        attestations: of how many of them it wants one; a session that asks for more is held to that.

    Raises:
        ValueError: a sum of one, or more attestations than can come, or none.
    """

    min_contributors: int
    coordinators: frozenset[bytes]
    registrars: frozenset[bytes]
    log: LogPolicy
    attestors: frozenset[bytes]
    attestations: int

    def __post_init__(self) -> None:
        if self.min_contributors < 2:
            raise ValueError("min_contributors: a sum of fewer than two hides nothing")
        if not 1 <= self.attestations <= len(self.attestors):
            raise ValueError(f"attestations: expected 1 to {len(self.attestors)}, as many as there are attestors")
        if len(self.attestors) > MAX_ATTESTORS:
            raise ValueError(f"attestors: at most {MAX_ATTESTORS}")


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority: the key that signs its answers, and its policy."""

    key: SigningKey
    policy: AuthorityPolicy


@dataclass(frozen=True, slots=True)
class Prepared:
    """A key was made for this session (identifier) of this coordinator; ``context`` is its public half's SHA-256."""

    session: bytes
    coordinator: bytes
    context: bytes
    key: Secret


@dataclass(frozen=True, slots=True)
class Deciding:
    """This closed set is decrypted, by its close entry's SHA-256, and no other; ``session`` is the open entry's."""

    prepared: Prepared
    session: bytes
    close: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The closed set was opened; there is no key any more."""

    close: bytes
    signed: Signed


@dataclass(frozen=True, slots=True)
class Ended:
    """The log was seen with the session's end, and nothing had been decided; there is no key any more."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What the closed set decrypts to is no sum of mask secrets; there is no key any more."""

    close: bytes
    reason: str


AuthorityState: TypeAlias = Prepared | Deciding | Answered | Refused | Ended


@dataclass(frozen=True, slots=True)
class SumRequest:
    """Coordinator to authority: open this. ``ciphertext_sum`` as ``secagg.he`` writes it; the lists come after."""

    files: ShownSessionFiles
    ciphertext_sum: bytes
    attestations: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class ClosedSum:
    """Event: a closed set that kept every rule (``authority_rules``), by the digests of open and close entry."""

    session: bytes
    close: bytes


@dataclass(frozen=True, slots=True)
class SumCertified:
    """Event: the decryption, int32 little-endian, opens the masked sum."""

    close: bytes
    secret_sum: bytes


@dataclass(frozen=True, slots=True)
class SumNotCertified:
    """Event: it does not; ``reason`` is a constant, because the decryption may depend on the key."""

    close: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class EndShown:
    """Event: the log, verified, has the session's result or its abort."""


AuthorityEvent: TypeAlias = ClosedSum | SumCertified | SumNotCertified | EndShown

AUTHORITY_PERSISTENCE = Persistence(Prepared, Deciding, Answered, Refused, Ended, Signed, AuthorityAnswer)
