"""The roster as files: who may contribute, edited line by line and signed as a whole.

``roster.jsonl`` holds one member on each line, canonical, in ascending order of identity; ``roster.head.json`` holds
the registrar's signature (``SignedRosterHead``). A change of the members removes the signature first. A path that ends
in ``.jsonl`` names the first file itself; any other names the directory of both.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nacl.bindings import crypto_core_ed25519_is_valid_point

from secagg.crypto.signing import PUBLIC_KEY_BYTES, SignatureError, SigningKey, verify_statement
from secagg.identity.errors import FileRefusal, IdentityFileError, RosterError, RosterRefusal
from secagg.identity.files import (
    PUBLIC_MODE,
    exclusive,
    file_errors,
    read_own,
    read_public,
    remove_durably,
    replace_durably,
)
from secagg.transcript.record import Record, RecordError, hex_field, record_field
from secagg.transcript.roster import Roster, RosterHead, RosterMember

MAX_FILE_BYTES = 2**30
MAX_HEAD_BYTES = 4096
_SUFFIX = ".jsonl"
_HEAD_SUFFIX = ".head.json"
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class SignedRosterHead(Record):
    """The content of ``roster.head.json``: a head and the signature of its registrar over the head's bytes."""

    TYPE: ClassVar[str] = "signed-roster"
    head: RosterHead = record_field(RosterHead)  # noqa: RUF009 - declares a codec; holds no state
    signature: bytes = hex_field(64)


@dataclass(frozen=True, slots=True)
class SignedRoster:
    """A roster, the canonical bytes of its head and the registrar's signature over them, which verifies."""

    roster: Roster
    head: bytes
    signature: bytes


class SignatureFate(enum.Enum):
    """What adding members did to the signature; the value is the text to show."""

    NONE = "the roster was not signed"
    REMOVED = "the signature was removed: sign the roster again"


@dataclass(frozen=True, slots=True)
class Addition:
    """The roster has ``size`` members now, and no signature."""

    size: int
    signature: SignatureFate


def add_member(path: Path, identity: bytes, stratum: str = "") -> Addition:
    """Add one member, durably, and remove a signature that is there. Errors as for ``add_members``."""
    return add_members(path, [(identity, stratum)])


def add_members(path: Path, additions: Sequence[tuple[bytes, str]]) -> Addition:
    """Add members (identity, stratum), all or none; the files are made where they are missing.

    Raises:
        RosterError: an identity is a member already or is no Ed25519 key (the text names it), or a stratum is unusable.
        IdentityFileError: the files cannot be used, or others can change them.
    """
    members_path, head_path = _paths(path)
    with _locked(members_path, path):
        members = {member.identity: member for member in _read_own_members(members_path)}
        for identity, stratum in additions:
            if identity in members:
                raise RosterError(RosterRefusal.DUPLICATE, identity.hex())
            members[identity] = _new_member(identity, stratum)
        if not members:
            raise RosterError(RosterRefusal.EMPTY)
        ordered = sorted(members.values(), key=lambda member: member.identity)
        signature = SignatureFate.REMOVED if head_path.exists() else SignatureFate.NONE
        # First the signature goes: a crash in between leaves an unsigned roster, never a wrongly signed one.
        remove_durably(head_path)
        replace_durably(members_path, b"".join(member.to_bytes() + b"\n" for member in ordered), PUBLIC_MODE)
    return Addition(len(ordered), signature)


def sign_roster(path: Path, registrar: SigningKey) -> RosterHead:
    """Sign the members as they are now and write ``roster.head.json``; returns what was signed.

    Raises:
        RosterError: no members, or a malformed line.
        IdentityFileError: the files cannot be used, or others can change them.
    """
    members_path, head_path = _paths(path)
    with _locked(members_path, path):
        members = _read_own_members(members_path)
        if not members:
            raise RosterError(RosterRefusal.EMPTY)
        head = Roster(members).head(registrar.public_bytes)
        signed = SignedRosterHead(head, registrar.sign_statement(head.to_bytes()))
        replace_durably(head_path, signed.to_bytes() + b"\n", PUBLIC_MODE)
    return head


def load_members(path: Path) -> tuple[RosterMember, ...]:
    """The members, signed or not, in order. Raises RosterError, IdentityFileError."""
    members_path, _ = _paths(path)
    return _decode_members(_split_lines(read_public(members_path, MAX_FILE_BYTES)))


def load_roster(path: Path, registrars: frozenset[bytes] = frozenset()) -> SignedRoster:
    """The signed roster; ``registrars`` as for ``verify_signed_roster``.

    Raises:
        RosterError: unsigned, malformed, or the signature is not over these members.
        IdentityFileError: a file cannot be read.
    """
    members_path, head_path = _paths(path)
    leaves = _split_lines(read_public(members_path, MAX_FILE_BYTES))
    try:
        head_line = read_public(head_path, MAX_HEAD_BYTES)
    except IdentityFileError as error:
        if error.reason is FileRefusal.MISSING:
            raise RosterError(RosterRefusal.UNSIGNED, str(head_path)) from None
        raise
    if not head_line.endswith(b"\n"):
        raise RosterError(RosterRefusal.MALFORMED_HEAD, "no final newline")
    try:
        signed = SignedRosterHead.from_bytes(head_line[:-1])
    except RecordError as error:
        raise RosterError(RosterRefusal.MALFORMED_HEAD, _shown(error)) from None
    head = signed.head.to_bytes()
    return SignedRoster(verify_signed_roster(leaves, head, signed.signature, registrars), head, signed.signature)


def verify_signed_roster(
    leaves: Sequence[bytes], head: bytes, signature: bytes, registrars: frozenset[bytes]
) -> Roster:
    """The roster with these leaves, if ``head`` is over them and signed by the registrar it names.

    Args:
        leaves: canonical bytes of the members, in order.
        head: canonical bytes of the ``RosterHead``.
        signature: 64 bytes.
        registrars: the pinned keys; empty accepts any registrar, whose trustworthiness is then nobody's claim.

    Raises:
        RosterError: anything else.
    """
    try:
        claimed = RosterHead.from_bytes(head)
    except RecordError as error:
        raise RosterError(RosterRefusal.MALFORMED_HEAD, _shown(error)) from None
    if registrars and claimed.registrar not in registrars:
        raise RosterError(RosterRefusal.UNKNOWN_REGISTRAR, claimed.registrar.hex())
    try:
        verify_statement(claimed.registrar, head, signature)
    except SignatureError:
        raise RosterError(RosterRefusal.BAD_SIGNATURE, claimed.registrar.hex()) from None
    if len(leaves) != claimed.size:
        raise RosterError(RosterRefusal.WRONG_SIZE, f"{claimed.size}, found {len(leaves)}")
    roster = Roster(_decode_members(leaves))
    if roster.root() != claimed.root:
        raise RosterError(RosterRefusal.WRONG_ROOT)
    return roster


def _paths(path: Path) -> tuple[Path, Path]:
    members = path if path.suffix == _SUFFIX else path / f"roster{_SUFFIX}"
    return members, members.with_name(members.name.removesuffix(_SUFFIX) + _HEAD_SUFFIX)


@contextmanager
def _locked(members_path: Path, path: Path) -> Iterator[None]:
    if members_path != path:
        with file_errors(path):
            path.mkdir(exist_ok=True)
    with exclusive(members_path.parent):
        yield


def _read_own_members(members_path: Path) -> tuple[RosterMember, ...]:
    try:
        data = read_own(members_path, MAX_FILE_BYTES)
    except IdentityFileError as error:
        if error.reason is FileRefusal.MISSING:
            return ()
        raise
    return _decode_members(_split_lines(data))


def _split_lines(data: bytes) -> tuple[bytes, ...]:
    if not data:
        return ()
    # bytes.splitlines() also breaks at a carriage return: not what was hashed.
    *lines, last = data.split(b"\n")
    if last:
        raise RosterError(RosterRefusal.MALFORMED, "no final newline")
    return tuple(lines)


def _decode_members(leaves: Sequence[bytes]) -> tuple[RosterMember, ...]:
    members: list[RosterMember] = []
    for number, leaf in enumerate(leaves, start=1):
        try:
            member = RosterMember.from_bytes(leaf)
        except RecordError as error:
            raise RosterError(RosterRefusal.MALFORMED, f"line {number}: {_shown(error)}") from None
        if members and member.identity <= members[-1].identity:
            raise RosterError(RosterRefusal.NOT_ASCENDING, f"line {number}: {member.identity.hex()}")
        members.append(member)
    return tuple(members)


def _new_member(identity: bytes, stratum: str) -> RosterMember:
    # Also refuses points of small order and second encodings of one point, under which no signature verifies.
    if len(identity) != PUBLIC_KEY_BYTES or not crypto_core_ed25519_is_valid_point(identity):
        raise RosterError(RosterRefusal.NOT_A_KEY, identity.hex()[:_SHOWN_CHARACTERS])
    try:
        member = RosterMember(identity, stratum)
        member.to_bytes()
    except ValueError:
        raise RosterError(RosterRefusal.BAD_STRATUM, identity.hex()) from None
    return member


def _shown(error: RecordError) -> str:
    return str(error)[:_SHOWN_CHARACTERS]
