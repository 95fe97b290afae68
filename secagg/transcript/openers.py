"""Who opens the sum of a one-shot session: a committee whose members hold shares, or a key authority."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secagg.transcript.record import (
    Record,
    RecordError,
    hex_codec,
    hex_field,
    integer_codec,
    integer_field,
    list_field,
    record_codec,
    text_field,
)

MAX_MEMBERS = 16
"""The most members of a committee: their keys stand in one log entry."""
MAX_ATTESTORS = 16
SEALING_KEY_BYTES = 1216
_FIELD_CONTRIBUTORS = 2**28
"""Secrets of at most 2 in magnitude add up to 2^29, less than half the field of the shares (2^31 - 1)."""
_SLOT_CONTRIBUTORS = 258_048
"""Secrets of at most 2 add up to 516,096, half the plain modulus 1,032,193 of the homomorphic encryption."""


@dataclass(frozen=True, slots=True)
class MemberKeys(Record):
    """What a member signs of its keys: boxes for ``identity`` are sealed to ``sealing_key``."""

    TYPE: ClassVar[str] = "member-keys"
    identity: bytes = hex_field(32)
    sealing_key: bytes = hex_field(SEALING_KEY_BYTES)


@dataclass(frozen=True, slots=True)
class CommitteeMember(Record):
    """A member: the key that signs its answers, the hybrid key that boxes are sealed to, a name for people.

    ``binding`` is the signature of ``identity`` over the MemberKeys of both: contributors pin the identity.
    """

    TYPE: ClassVar[str] = "committee-member"
    name: str = text_field(64)
    identity: bytes = hex_field(32)
    sealing_key: bytes = hex_field(SEALING_KEY_BYTES)
    binding: bytes = hex_field(64)


@dataclass(frozen=True, slots=True)
class Committee(Record):
    """``needed`` members open a sum; up to ``max_corrupt`` of them may collude with the coordinator.

    Source: design 06-one-shot, "2 r > m + c".
    """

    TYPE: ClassVar[str] = "committee"
    members: tuple[CommitteeMember, ...] = list_field(record_codec(CommitteeMember), MAX_MEMBERS)
    needed: int = integer_field(2, MAX_MEMBERS)
    max_corrupt: int = integer_field(0, MAX_MEMBERS)

    def check(self) -> None:
        """No two different sets can both find enough answers, and those who may be corrupt are too few to open.

        Two sets need ``2 r`` answers; an honest member gives one, each of ``c`` corrupt ones two: together ``m + c``.
        """
        if not self.needed <= len(self.members):
            raise RecordError("committee.needed", f"there are {len(self.members)} members")
        if 2 * self.needed <= len(self.members) + self.max_corrupt:
            raise RecordError(
                "committee.needed",
                f"{self.needed} of {len(self.members)} with {self.max_corrupt} corrupt could open two sets: twice "
                "needed must exceed members and max_corrupt together",
            )
        for field in ("identity", "sealing_key", "name"):
            if len({getattr(member, field) for member in self.members}) != len(self.members):
                raise RecordError(f"committee.members.{field}", "two members have the same")

    @property
    def max_contributors(self) -> int:
        """The most contributions that one opening takes."""
        return _FIELD_CONTRIBUTORS


@dataclass(frozen=True, slots=True)
class KeyAuthority(Record):
    """Holds the decryption key that was made for this session.

    ``context`` is the SHA-256 of the public encryption context, ``prepared`` the signature of ``identity`` over the
    PreparedKey that names it; ``attestors`` are the keys of those of whom ``attestations`` have to have recomputed the
    sum of the ciphertexts.
    """

    TYPE: ClassVar[str] = "key-authority"
    name: str = text_field(64)
    identity: bytes = hex_field(32)
    context: bytes = hex_field(32)
    prepared: bytes = hex_field(64)
    attestors: tuple[bytes, ...] = list_field(hex_codec(32), MAX_ATTESTORS)
    attestations: int = integer_field(1, MAX_ATTESTORS)

    def check(self) -> None:
        """Enough attestors, each once."""
        if len(set(self.attestors)) != len(self.attestors):
            raise RecordError("key-authority.attestors", "a key stands twice")
        if self.attestations > len(self.attestors):
            raise RecordError("key-authority.attestations", f"there are {len(self.attestors)} attestors")

    @property
    def max_contributors(self) -> int:
        """The most contributions that one opening takes."""
        return _SLOT_CONTRIBUTORS


@dataclass(frozen=True, slots=True)
class PreparedKey(Record):
    """An authority's word that it made a key for one session of one coordinator; ``context`` as in KeyAuthority.

    ``session`` is the session's identifier: its open entry names this context and so comes later.
    """

    TYPE: ClassVar[str] = "prepared-key"
    session: bytes = hex_field(16)
    coordinator: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    context: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class NamedMembers(Record):
    """The members, by place in the committee, who hold a share of every contribution in the closed set."""

    TYPE: ClassVar[str] = "named-members"
    members: tuple[int, ...] = list_field(integer_codec(0, MAX_MEMBERS - 1), MAX_MEMBERS)

    def check(self) -> None:
        """``members`` has one form."""
        if list(self.members) != sorted(set(self.members)):
            raise RecordError("named-members.members", "not strictly ascending")


@dataclass(frozen=True, slots=True)
class SummedCiphertext(Record):
    """The sum of the ciphertexts of the closed set, by its SHA-256."""

    TYPE: ClassVar[str] = "summed-ciphertext"
    digest: bytes = hex_field(32)
