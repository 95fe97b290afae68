"""What clients sign, one statement for each phase, and the leaves that publish it.

A statement's canonical bytes are what the identity key signs; a leaf is the statement with its signature. The
digest of the session's open entry is in every statement, so that none can be moved to another session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from secagg.transcript.entries import MAX_COHORT, MAX_ROSTER
from secagg.transcript.openers import MAX_MEMBERS
from secagg.transcript.record import (
    Record,
    RecordError,
    decode_value,
    hex_codec,
    hex_field,
    integer_codec,
    integer_field,
    list_field,
    record_codec,
    record_field,
    text_field,
)

MAX_NEIGHBOURS = 2**14
SHARE_BYTES = 36
RING_VECTOR_BYTES = 4 * 4096
"""A vector of 4096 field elements (uint32) or small integers (int32), little-endian."""
_LAST = MAX_COHORT - 1
_LAST_POSITION = MAX_ROSTER - 1


@dataclass(frozen=True, slots=True)
class AdvertiseStatement(Record):
    """Phase ADVERTISE_KEYS: the SHA-256 digests of the two sealing keys of ``identity``."""

    TYPE: ClassVar[str] = "advertise-keys"
    session: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    mask_key: bytes = hex_field(32)
    share_key: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class ShareStatement(Record):
    """Phase SHARE_KEYS: commitments to self-mask seed and root, and the root over the digests of all boxes."""

    TYPE: ClassVar[str] = "share-keys"
    session: bytes = hex_field(32)
    advertised: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    self_mask_commitment: bytes = hex_field(32)
    root_commitment: bytes = hex_field(32)
    boxes: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class ContributionHeader(Record):
    """Phase MASKED_INPUT: digests and length of the upload and the neighbours it is *not* masked with.

    ``upload`` is the SHA-256 of the lanes, ``linear_hash`` the SHA-256 of their linear hash (16 KiB). The mask
    neighbours are all graph neighbours in U2 except ``missing`` (indices, ascending).
    """

    TYPE: ClassVar[str] = "contribution"
    session: bytes = hex_field(32)
    shared: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    upload: bytes = hex_field(32)
    linear_hash: bytes = hex_field(32)
    lanes: int = integer_field(1)
    missing: tuple[int, ...] = list_field(integer_codec(0, _LAST), MAX_NEIGHBOURS)

    def check(self) -> None:
        """``missing`` has one form."""
        if list(self.missing) != sorted(set(self.missing)):
            raise RecordError("contribution.missing", "not strictly ascending")


@dataclass(frozen=True, slots=True)
class ConfirmStatement(Record):
    """Phase CONSISTENCY_CHECK: this close entry, by its SHA-256, is the one I saw."""

    TYPE: ClassVar[str] = "confirm-close"
    session: bytes = hex_field(32)
    close: bytes = hex_field(32)
    identity: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class SelfMaskShare(Record):
    """A share of the self-mask seed of a contributor."""

    TYPE: ClassVar[str] = "self-mask"
    index: int = integer_field(0, _LAST)
    share: bytes = hex_field(SHARE_BYTES)


@dataclass(frozen=True, slots=True)
class RootShare(Record):
    """A share of the root of a client that dropped out."""

    TYPE: ClassVar[str] = "root"
    index: int = integer_field(0, _LAST)
    share: bytes = hex_field(SHARE_BYTES)


ReleasedShare: TypeAlias = SelfMaskShare | RootShare


@dataclass(frozen=True, slots=True)
class UnmaskStatement(Record):
    """Phase UNMASK: for each neighbour exactly one share, of one kind or the other."""

    TYPE: ClassVar[str] = "unmask"
    session: bytes = hex_field(32)
    close: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    shares: tuple[ReleasedShare, ...] = list_field(record_codec(SelfMaskShare, RootShare), MAX_NEIGHBOURS)

    def check(self) -> None:
        """One share for a neighbour: both kinds for one index cannot be written down."""
        indices = [share.index for share in self.shares]
        if indices != sorted(set(indices)):
            raise RecordError("unmask.shares", "indices not strictly ascending")


@dataclass(frozen=True, slots=True)
class OneShotHeader(Record):
    """The contribution to a one-shot session: digests and length of the upload, digests of the ``parts``.

    ``parts`` are the SHA-256 digests of one sealed box for each committee member, in their order, or of the one
    ciphertext for a key authority. ``opened_at`` is the index in the log of the open entry that the contributor has
    seen: were the same entry logged again, nothing that was signed before would count there.
    """

    TYPE: ClassVar[str] = "one-shot-contribution"
    session: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    upload: bytes = hex_field(32)
    linear_hash: bytes = hex_field(32)
    lanes: int = integer_field(1)
    parts: tuple[bytes, ...] = list_field(hex_codec(32), MAX_MEMBERS)
    opened_at: int = integer_field(0)


@dataclass(frozen=True, slots=True)
class MemberAnswer(Record):
    """A committee member's sum of its shares over exactly the closed set: field elements, uint32 little-endian."""

    TYPE: ClassVar[str] = "member-answer"
    session: bytes = hex_field(32)
    close: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    share_sum: bytes = hex_field(RING_VECTOR_BYTES)


@dataclass(frozen=True, slots=True)
class AuthorityAnswer(Record):
    """What a key authority decrypted: the sum of the mask secrets, int32 little-endian."""

    TYPE: ClassVar[str] = "authority-answer"
    session: bytes = hex_field(32)
    close: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    secret_sum: bytes = hex_field(RING_VECTOR_BYTES)


@dataclass(frozen=True, slots=True)
class Attestation(Record):
    """An attestor's word: the record of the closed set checks out, and its ciphertexts have this sum (SHA-256)."""

    TYPE: ClassVar[str] = "attestation"
    session: bytes = hex_field(32)
    close: bytes = hex_field(32)
    identity: bytes = hex_field(32)
    ciphertext_sum: bytes = hex_field(32)


Statement: TypeAlias = (
    AdvertiseStatement
    | ShareStatement
    | ContributionHeader
    | ConfirmStatement
    | UnmaskStatement
    | OneShotHeader
    | MemberAnswer
    | AuthorityAnswer
    | Attestation
)
_STATEMENTS = (
    AdvertiseStatement,
    ShareStatement,
    ContributionHeader,
    ConfirmStatement,
    UnmaskStatement,
    OneShotHeader,
    MemberAnswer,
    AuthorityAnswer,
    Attestation,
)


@dataclass(frozen=True, slots=True)
class Signed(Record):
    """A statement and the signature of its identity over the statement's canonical bytes."""

    TYPE: ClassVar[str] = "signed"
    statement: Statement = record_field(*_STATEMENTS)
    signature: bytes = hex_field(64)


@dataclass(frozen=True, slots=True)
class Absent(Record):
    """U2 leaf of a client that advertised keys and did not share."""

    TYPE: ClassVar[str] = "absent"
    index: int = integer_field(0, _LAST)


@dataclass(frozen=True, slots=True)
class Accepted(Record):
    """Disposition: the contribution is in the sum.

    In dispositions, an index is that in U1, and in one-shot sessions the position in the roster.
    """

    TYPE: ClassVar[str] = "accepted"
    index: int = integer_field(0, _LAST_POSITION)
    contribution: Signed = record_field(Signed)


@dataclass(frozen=True, slots=True)
class Rejected(Record):
    """Disposition: the client took part and its contribution is left out, for this reason."""

    TYPE: ClassVar[str] = "rejected"
    index: int = integer_field(0, _LAST_POSITION)
    reason: str = text_field(64)


@dataclass(frozen=True, slots=True)
class Dropped(Record):
    """Disposition: the client fell silent in this phase."""

    TYPE: ClassVar[str] = "dropped"
    index: int = integer_field(0, _LAST_POSITION)
    phase: str = text_field(16, "share-keys", "masked-input")


Disposition: TypeAlias = Accepted | Rejected | Dropped
ShareLeaf: TypeAlias = Signed | Absent


@dataclass(frozen=True, slots=True)
class Receipt(Record):
    """The coordinator's word that it holds the upload of this header (SHA-256 of the signed header)."""

    TYPE: ClassVar[str] = "receipt"
    session: bytes = hex_field(32)
    contribution: bytes = hex_field(32)


def decode_share_leaf(data: bytes) -> ShareLeaf:
    """A leaf of U2. Raises RecordError."""
    leaf: ShareLeaf = record_codec(Signed, Absent).read(decode_value(data), "u2")
    return leaf


def decode_disposition(data: bytes) -> Disposition:
    """A leaf of the dispositions. Raises RecordError."""
    leaf: Disposition = record_codec(Accepted, Rejected, Dropped).read(decode_value(data), "disposition")
    return leaf
