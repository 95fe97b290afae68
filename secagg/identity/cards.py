"""Cards: what an institution hands to the operators of coordinators, as one line of canonical JSON.

``member.card`` and ``authority.card`` say who the institution is, where it is reached and by which certificate it is
known. Nothing in a card is secret; whoever takes one gets it by a way that they trust.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from secagg.crypto.sealing import SealingError, check_public_key
from secagg.derive.openers import is_bound
from secagg.identity.address import Address
from secagg.identity.errors import AddressError, FileRefusal, IdentityFileError, TlsError
from secagg.identity.files import read_public
from secagg.identity.tls import ClientTls, LoopbackPlaintext, pinned_certificate
from secagg.transcript.openers import MAX_ATTESTORS, SEALING_KEY_BYTES, CommitteeMember
from secagg.transcript.record import (
    Record,
    RecordError,
    decode_value,
    hex_codec,
    hex_field,
    integer_field,
    list_field,
    record_codec,
    text_field,
)

MAX_CERTIFICATE_BYTES = 16 * 1024
MAX_CARD_BYTES = 64 * 1024
MAX_ADDRESS_BYTES = 300


@dataclass(frozen=True, slots=True)
class MemberCard(Record):
    """A committee member: ``certificate`` is the one to pin, in PEM, or empty for plaintext on a loopback address."""

    TYPE: ClassVar[str] = "member-card"
    name: str = text_field(64)
    identity: bytes = hex_field(32)
    sealing_key: bytes = hex_field(SEALING_KEY_BYTES)
    binding: bytes = hex_field(64)
    address: str = text_field(MAX_ADDRESS_BYTES)
    certificate: str = text_field(MAX_CERTIFICATE_BYTES)

    def check(self) -> None:
        """The key can be sealed to, and the address reached."""
        try:
            check_public_key(self.sealing_key)
        except SealingError as error:
            raise RecordError("member-card.sealing_key", str(error)) from None
        if not is_bound(self.member()):
            raise RecordError("member-card.binding", "not the identity's signature over the sealing key")
        _check_server("member-card", self.address, self.certificate)

    @classmethod
    def of(cls, member: CommitteeMember, address: str, certificate: str) -> MemberCard:
        """The card of a member who is reached there."""
        return cls(member.name, member.identity, member.sealing_key, member.binding, address, certificate)

    def tls(self) -> ClientTls:
        """How its server is known."""
        return _tls(self.address, self.certificate)

    def member(self) -> CommitteeMember:
        """The member as it stands in a session's committee."""
        return CommitteeMember(self.name, self.identity, self.sealing_key, self.binding)


@dataclass(frozen=True, slots=True)
class AuthorityCard(Record):
    """A key authority, with the keys of its attestors and of how many of them it wants attestations."""

    TYPE: ClassVar[str] = "authority-card"
    name: str = text_field(64)
    identity: bytes = hex_field(32)
    address: str = text_field(MAX_ADDRESS_BYTES)
    certificate: str = text_field(MAX_CERTIFICATE_BYTES)
    attestors: tuple[bytes, ...] = list_field(hex_codec(32), MAX_ATTESTORS)
    attestations: int = integer_field(1, MAX_ATTESTORS)

    def check(self) -> None:
        """Enough attestors, each once; the address can be reached."""
        if len(set(self.attestors)) != len(self.attestors):
            raise RecordError("authority-card.attestors", "a key stands twice")
        if self.attestations > len(self.attestors):
            raise RecordError("authority-card.attestations", f"there are {len(self.attestors)} attestors")
        _check_server("authority-card", self.address, self.certificate)

    def tls(self) -> ClientTls:
        """How its server is known."""
        return _tls(self.address, self.certificate)


Card: TypeAlias = MemberCard | AuthorityCard


def read_card(data: bytes, where: str = "card") -> Card:
    """A card from its canonical bytes, with or without the newline at the end of its file.

    Raises:
        RecordError: it is none; ``where`` is the field it is in.
    """
    if len(data) > MAX_CARD_BYTES:
        raise RecordError(where, f"more than {MAX_CARD_BYTES} bytes")
    card: Card = record_codec(MemberCard, AuthorityCard).read(decode_value(data.removesuffix(b"\n")), where)
    return card


def load_card(path: Path) -> Card:
    """A card file. Raises IdentityFileError."""
    data = read_public(path, MAX_CARD_BYTES)
    try:
        return read_card(data)
    except RecordError as error:
        raise IdentityFileError(path, FileRefusal.MALFORMED, f"{error.field}: {error.reason}") from None


def _check_server(where: str, address: str, certificate: str) -> None:
    try:
        parsed = Address.parse(address)
    except AddressError as error:
        raise RecordError(f"{where}.address", str(error)) from None
    if parsed.port == 0 or str(parsed) != address:
        raise RecordError(f"{where}.address", "expected host:port with a port from 1 to 65535")
    try:
        _tls(address, certificate)
    except TlsError as error:
        raise RecordError(f"{where}.certificate", error.reason.value) from None


def _tls(address: str, certificate: str) -> ClientTls:
    parsed = Address.parse(address)
    if not certificate:
        return LoopbackPlaintext(parsed)
    return pinned_certificate(certificate.encode("utf-8"), parsed)
