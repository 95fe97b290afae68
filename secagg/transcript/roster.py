"""The roster: who may contribute, once, as signed by the registrar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from secagg.transcript import merkle
from secagg.transcript.record import Record, RecordError, hex_field, integer_field, text_field


@dataclass(frozen=True, slots=True)
class RosterMember(Record):
    """One identity key and its optional public stratum (empty text: none)."""

    TYPE: ClassVar[str] = "member"
    identity: bytes = hex_field(32)
    stratum: str = text_field(64)


@dataclass(frozen=True, slots=True)
class RosterHead(Record):
    """What the registrar signs: ``size`` members, ordered by identity, have the root ``root``."""

    TYPE: ClassVar[str] = "roster-head"
    registrar: bytes = hex_field(32)
    size: int = integer_field(1, 2**40)
    root: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class Roster:
    """Members in strictly ascending order of identity."""

    members: tuple[RosterMember, ...]

    def __post_init__(self) -> None:
        identities = [member.identity for member in self.members]
        if not identities:
            raise RecordError("roster", "empty")
        if identities != sorted(set(identities)):
            raise RecordError("roster", "identities not strictly ascending")

    @classmethod
    def of(cls, members: Sequence[RosterMember]) -> Roster:
        """A roster of these members, put in order."""
        return cls(tuple(sorted(members, key=lambda member: member.identity)))

    @classmethod
    def from_leaves(cls, leaves: Sequence[bytes]) -> Roster:
        """Decode the published lines."""
        return cls(tuple(RosterMember.from_bytes(leaf) for leaf in leaves))

    def leaves(self) -> tuple[bytes, ...]:
        """The canonical bytes of each member, in order."""
        return tuple(member.to_bytes() for member in self.members)

    def identities(self) -> tuple[bytes, ...]:
        """The identity keys, in order."""
        return tuple(member.identity for member in self.members)

    def root(self) -> bytes:
        """RFC 6962 root over the leaves."""
        return merkle.root(self.leaves())

    def head(self, registrar: bytes) -> RosterHead:
        """What the registrar with this public key has to sign."""
        return RosterHead(registrar, len(self.members), self.root())
