"""States, events and effects of the client machine of one-shot sessions.

A client speaks once and leaves. No state holds a secret: seeds live in the effect that masks the input, and nowhere
once the header is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from secagg.crypto.secret import Secret
from secagg.protocol.errors import RejectReason
from secagg.protocol.log import LogView
from secagg.protocol.messages import SessionEnded, SignedReceipt
from secagg.protocol.one_shot.messages import CommitContribution, CommittedList, OneShotContribution, OneShotMessage
from secagg.protocol.persist import Persistence
from secagg.transcript.statements import OneShotHeader, Signed


@dataclass(frozen=True, slots=True)
class Masking:
    """Joined; the runtime masks the input and seals what opens it."""

    view: LogView


@dataclass(frozen=True, slots=True)
class Committed:
    """With a key authority: header signed and on its way; waits for the list of all that were committed to.

    ``linear_hash`` and ``parts`` are what will be sent beside the upload: sealed, nothing in them is a secret.
    """

    view: LogView
    sent: Signed
    linear_hash: bytes
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Contributed:
    """Header signed, parts and masked input on their way; waits for the receipt."""

    view: LogView
    sent: Signed


@dataclass(frozen=True, slots=True)
class Delivered:
    """The coordinator holds everything and has said so. Nothing more is asked of this client."""

    view: LogView
    sent: Signed
    receipt: SignedReceipt


@dataclass(frozen=True, slots=True)
class Aborted:
    """The session is over for this client, for this reason; it will not send anything any more."""

    view: LogView
    reason: RejectReason


OneShotClientState: TypeAlias = Masking | Committed | Contributed | Delivered | Aborted


@dataclass(frozen=True, slots=True)
class InputMasked:
    """Event: the masked input is durable, and what opens it is sealed.

    SHA-256 of the upload's bytes, its number of lanes, its linear hash (16 KiB); the parts: a box for each committee
    member, in their order, or the one ciphertext for a key authority.
    """

    digest: bytes
    lanes: int
    linear_hash: bytes
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Event: the runtime gives the session up, for this reason."""

    reason: RejectReason


OneShotClientEvent: TypeAlias = InputMasked | CommittedList | SignedReceipt | SessionEnded | Abandoned


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: deliver this message, until it is acknowledged."""

    message: OneShotMessage


@dataclass(frozen=True, slots=True)
class MaskInput:
    """Effect: encode the input once, mask it, seal what opens it, store the bytes, then report InputMasked.

    Three kinds of 32-byte seeds. ``rounding`` is for the random rounding and ``mask`` for mask secret and lattice
    errors, so that masking again after a crash gives the same upload: two encodings under one secret would differ by
    what rounding left out. ``shares`` are those that the first ``needed - 1`` committee members get; none where an
    authority opens. Boxes and ciphertexts may come out different; of two versions the stored one is signed and sent.
    """

    rounding: Secret
    mask: Secret
    shares: tuple[Secret, ...]


OneShotClientEffect: TypeAlias = Send | MaskInput

ONE_SHOT_CLIENT_PERSISTENCE = Persistence(
    Masking,
    Committed,
    Contributed,
    Delivered,
    Aborted,
    LogView,
    RejectReason,
    SignedReceipt,
    Send,
    MaskInput,
    CommitContribution,
    OneShotContribution,
    Signed,
    OneShotHeader,
)
