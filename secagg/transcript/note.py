"""Signed notes: a text and signature lines under it, in the strict profile.

Source: c2sp.org/signed-note. Where implementations differ, this one refuses: base64, decimals and key texts have
one form each, no line stands twice, and a note has at most 64 signatures and 64 KiB. Nothing here verifies a
signature; ``secagg.crypto.notes`` does.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 64
MAX_DECIMAL = 2**63 - 1
MAX_PROOF_HASHES = 63
HASH_BYTES = 32
KEY_ID_BYTES = 4
PUBLIC_KEY_BYTES = 32

_DECIMAL = re.compile("0|[1-9][0-9]{0,18}")
# The format forbids those below U+0020; DEL and U+0080 to U+009F steer a terminal just as well.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_NAME = re.compile(r"[\s+\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_KEY_TEXT_PARTS = 3
_DASH = "\u2014 "


class NoteError(ValueError):
    """``field`` of a note, checkpoint, key, cosignature or request breaks a rule; ``reason`` says which."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class SignatureType(IntEnum):
    """The type byte of a key: which algorithm, over which message."""

    ED25519 = 1
    """Ed25519 over the note text: a log."""
    COSIGNATURE_V1 = 4
    """Ed25519 over time and note text: a witness."""


def check_name(name: str, field: str) -> None:
    """A key name is not empty and has no Unicode space, no plus sign and no control character. Raises NoteError."""
    if type(name) is not str or not name:
        raise NoteError(field, "empty or not text")
    if _NOT_IN_NAME.search(name):
        raise NoteError(field, "a space, a plus sign or a control character")


def parse_decimal(text: str, field: str) -> int:
    """The integer in [0, 2^63) whose one decimal form is ``text``. Raises NoteError."""
    # ``int`` alone would take signs, spaces, underscores, leading zeros and the digits of other scripts.
    if _DECIMAL.fullmatch(text) is None or int(text) > MAX_DECIMAL:
        raise NoteError(field, "not a decimal in its one form, below 2^63")
    return int(text)


def check_integer(value: int, field: str) -> None:
    """An integer that has a decimal here: 0 to 2^63 - 1. Raises NoteError."""
    if type(value) is not int or not 0 <= value <= MAX_DECIMAL:
        raise NoteError(field, "not an integer of 0 to 2^63 - 1")


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, field: str) -> bytes:
    """The bytes whose one base64 form is ``text``. Raises NoteError."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise NoteError(field, "not base64") from None
    # ``b64decode`` ignores the unused bits of the last digit.
    if encode_base64(data) != text:
        raise NoteError(field, "base64 not in its one form")
    return data


def check_bytes(value: bytes, length: int, field: str) -> None:
    """Exactly ``length`` bytes. Raises NoteError."""
    if type(value) is not bytes or len(value) != length:
        raise NoteError(field, f"not {length} bytes")


def check_hashes(hashes: tuple[bytes, ...], field: str) -> None:
    """The hashes of a proof: a tuple of at most 63, 32 bytes each. Raises NoteError."""
    if type(hashes) is not tuple or len(hashes) > MAX_PROOF_HASHES:
        raise NoteError(field, f"not a tuple of at most {MAX_PROOF_HASHES} hashes")
    for node in hashes:
        check_bytes(node, HASH_BYTES, field)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named Ed25519 public key for one kind of signature; as text a "vkey"."""

    name: str
    kind: SignatureType
    public_key: bytes

    def __post_init__(self) -> None:
        check_name(self.name, "key.name")
        if type(self.kind) is not SignatureType:
            raise NoteError("key.kind", "not a known signature type")
        check_bytes(self.public_key, PUBLIC_KEY_BYTES, "key.public_key")

    @property
    def key_id(self) -> bytes:
        """Four bytes that, with the name, say which key made a signature; too short to be a commitment."""
        preimage = self.name.encode("utf-8") + b"\n" + bytes([self.kind]) + self.public_key
        return hashlib.sha256(preimage).digest()[:KEY_ID_BYTES]

    def to_text(self) -> str:
        """``name+hex of the key id+base64 of type and key``."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.kind]) + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key that has this text.

        Raises:
            NoteError: not in the one form of a key, an unknown type, or a key id that does not belong to the key.
        """
        # Base64 may contain plus signs; a name may not.
        parts = text.split("+", _KEY_TEXT_PARTS - 1)
        if len(parts) != _KEY_TEXT_PARTS:
            raise NoteError("key", "not of the form name+id+key")
        name, key_id, encoded = parts
        material = decode_base64(encoded, "key.public_key")
        if material[:1] not in {bytes([kind]) for kind in SignatureType}:
            raise NoteError("key.kind", "not a known signature type")
        key = cls(name, SignatureType(material[0]), material[1:])
        if key.key_id.hex() != key_id:
            raise NoteError("key.key_id", "does not belong to the key")
        return key


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: who claims to have signed, and the bytes."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_name(self.name, "signature.name")
        check_bytes(self.key_id, KEY_ID_BYTES, "signature.key_id")
        if type(self.signature) is not bytes or not self.signature:
            raise NoteError("signature.signature", "empty or not bytes")

    def to_line(self) -> str:
        """The line with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """The signature on a line given without its newline. Raises NoteError."""
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise NoteError("signature", "not of the form: dash, name, base64")
        data = decode_base64(encoded, "signature.signature")
        return cls(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def parse_signatures(data: bytes) -> tuple[NoteSignature, ...]:
    """The signatures of one or more lines, as a witness answers them.

    Raises:
        NoteError: a line is malformed or stands twice, or there are none or too many.
    """
    signatures = _parse_lines(_decode_text(data, "signatures"))
    _check_signatures(signatures)
    return signatures


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline and at least one signature line; none has been verified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        _check_text(self.text, "note.text")
        _check_signatures(self.signatures)
        if len(self.to_bytes()) > MAX_NOTE_BYTES:
            raise NoteError("note", f"longer than {MAX_NOTE_BYTES} bytes")

    def to_bytes(self) -> bytes:
        """Text, empty line, signature lines."""
        return (self.text + "\n" + "".join(signature.to_line() for signature in self.signatures)).encode("utf-8")

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """The note that has these bytes.

        Raises:
            NoteError: they are not a note of the profile; ``field`` says where.
        """
        text = _decode_text(data, "note")
        # The text may hold empty lines and the signatures cannot, so the last one divides.
        end = text.rfind("\n\n")
        if end < 0:
            raise NoteError("note", "no empty line before the signatures")
        return cls(text[: end + 1], _parse_lines(text[end + 2 :]))

    def with_signatures(self, more: Iterable[NoteSignature]) -> Note:
        """This note with further lines; one that it has already is not added again. Raises NoteError."""
        return Note(self.text, tuple(dict.fromkeys((*self.signatures, *more))))


def _decode_text(data: bytes, field: str) -> str:
    if len(data) > MAX_NOTE_BYTES:
        raise NoteError(field, f"longer than {MAX_NOTE_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteError(field, "not UTF-8") from None
    _check_text(text, field)
    return text


def _check_text(text: str, field: str) -> None:
    if type(text) is not str or not text.endswith("\n"):
        raise NoteError(field, "no final newline")
    if _CONTROL.search(text):
        raise NoteError(field, "a control character or a lone surrogate")


def _parse_lines(block: str) -> tuple[NoteSignature, ...]:
    lines = block.split("\n")
    if len(lines) - 1 > MAX_SIGNATURES:
        raise NoteError("signatures", f"more than {MAX_SIGNATURES}")
    return tuple(NoteSignature.parse(line) for line in lines[:-1])


def _check_signatures(signatures: tuple[NoteSignature, ...]) -> None:
    if type(signatures) is not tuple or not all(type(each) is NoteSignature for each in signatures):
        raise NoteError("signatures", "not a tuple of signatures")
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise NoteError("signatures", f"none, or more than {MAX_SIGNATURES}")
    if len(set(signatures)) != len(signatures):
        raise NoteError("signatures", "a line stands twice")
