"""What passes between client and coordinator, checked in nothing yet but its types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.transcript.entries import MAX_COHORT
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import Signed


@dataclass(frozen=True, slots=True)
class AdvertiseKeys:
    """Client to coordinator, phase 1: two hybrid public keys of 1216 bytes and their signed digests."""

    signed: Signed
    mask_public: bytes
    share_public: bytes


@dataclass(frozen=True, slots=True)
class OutgoingBoxes:
    """Boxes for one neighbour; ``pair_box`` is empty where the recipient's index is lower.

    ``commitments`` are SHA-256 commitments to what is inside: to both shares, and to the pair seed if there is one.
    """

    recipient: int
    share_box: bytes
    pair_box: bytes
    commitments: bytes

    def __post_init__(self) -> None:
        """Raise RemoteProtocolError(MALFORMED_MESSAGE) for an index that no cohort has."""
        if not 0 <= self.recipient < MAX_COHORT:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "recipient: no index")


@dataclass(frozen=True, slots=True)
class ShareKeys:
    """Client to coordinator, phase 2: the signed root over all boxes, and the boxes by recipient."""

    signed: Signed
    boxes: tuple[OutgoingBoxes, ...]


@dataclass(frozen=True, slots=True)
class Contribution:
    """Client to coordinator, phase 3: the signed header and the linear hash; the masked input itself is streamed.

    ``linear_hash`` are the 2048 words (16 KiB, little-endian) whose SHA-256 is in the header.
    """

    signed: Signed
    linear_hash: bytes


@dataclass(frozen=True, slots=True)
class ConfirmClose:
    """Client to coordinator, phase 4."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class UnmaskAnswer:
    """Client to coordinator, phase 5."""

    signed: Signed


ClientMessage: TypeAlias = AdvertiseKeys | ShareKeys | Contribution | ConfirmClose | UnmaskAnswer


@dataclass(frozen=True, slots=True)
class NeighbourKeys:
    """The public keys of the client with this index."""

    index: int
    mask_public: bytes
    share_public: bytes


@dataclass(frozen=True, slots=True)
class AdvertisedList:
    """Coordinator to client: the log, all of U1, the keys of the recipient's neighbours in order."""

    evidence: LogEvidence
    leaves: tuple[bytes, ...]
    keys: tuple[NeighbourKeys, ...]


@dataclass(frozen=True, slots=True)
class IncomingBoxes:
    """Boxes from one neighbour with the audit path of their leaf under the sender's signed root."""

    sender: int
    share_box: bytes
    pair_box: bytes
    commitments: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SharedList:
    """Coordinator to client: the log, a leaf for each index of U1, the boxes addressed to the recipient."""

    evidence: LogEvidence
    leaves: tuple[bytes, ...]
    inbox: tuple[IncomingBoxes, ...]


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """Coordinator to client: the upload is held. ``receipt`` is the canonical bytes of a Receipt."""

    receipt: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class ClosedList:
    """Coordinator to client: the log and a disposition for each index of U1."""

    evidence: LogEvidence
    leaves: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Confirmations:
    """Coordinator to client: what the others in U3 signed in phase 4."""

    signed: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Coordinator to client: the log with its result or abort entry."""

    evidence: LogEvidence
