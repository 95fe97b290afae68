"""States, events and effects of the client machine.

One class for each phase; a terminal state holds no secret, and a secret is dropped as soon as the client no
longer needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from secagg.crypto.secret import Secret
from secagg.protocol.errors import RejectReason
from secagg.protocol.log import LogView
from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    ClientMessage,
    ClosedList,
    Confirmations,
    ConfirmClose,
    Contribution,
    OutgoingBoxes,
    SessionEnded,
    SharedList,
    ShareKeys,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.persist import Persistence
from secagg.transcript.statements import (
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    RootShare,
    SelfMaskShare,
    ShareStatement,
    Signed,
    UnmaskStatement,
)


@dataclass(frozen=True, slots=True)
class HeldShares:
    """What neighbour ``index`` entrusted to this client: 36-byte shares of its self-mask seed and its root."""

    index: int
    self_mask: Secret
    root: Secret


@dataclass(frozen=True, slots=True)
class Place:
    """The client's place in the cohort, fixed by the logged U1: all identities, and its own index."""

    members: tuple[bytes, ...]
    index: int


@dataclass(frozen=True, slots=True)
class Advertised:
    """Keys sent; waits for U1."""

    view: LogView
    sent: Signed
    root: Secret
    share_seed: Secret


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """Boxes sent; waits for U2."""

    view: LogView
    place: Place
    sent: Signed
    root: Secret
    share_seed: Secret
    self_mask: Secret


@dataclass(frozen=True, slots=True)
class Masking:
    """U2 checked, boxes opened; the runtime masks the input. Own seeds live on in the effect only."""

    view: LogView
    place: Place
    present: tuple[int, ...]
    missing: tuple[int, ...]
    shares: tuple[HeldShares, ...]


@dataclass(frozen=True, slots=True)
class Contributed:
    """Header signed, masked input on its way or delivered; waits for the close entry."""

    view: LogView
    place: Place
    present: tuple[int, ...]
    shares: tuple[HeldShares, ...]
    sent: Signed


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The one close entry this client will ever act on is signed; waits for its neighbours' signatures."""

    view: LogView
    place: Place
    accepted: tuple[int, ...]
    shares: tuple[HeldShares, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is stored and on its way; the shares are gone. ``contributions`` is over how many it is."""

    view: LogView
    contributions: int


@dataclass(frozen=True, slots=True)
class Completed:
    """The result is in the log.

    ``answered_over`` is over how many contributions this client answered, which it had checked and a quorum confirmed;
    0 if it did not. What the log says is the coordinator's word.
    """

    view: LogView
    answered_over: int


@dataclass(frozen=True, slots=True)
class Aborted:
    """The session is over for this client, for this reason; it will not answer any more.

    ``answered_over`` as in ``Completed``; ``masked`` says whether a masked input may have left this client.
    """

    view: LogView
    reason: RejectReason
    answered_over: int
    masked: bool


ClientState: TypeAlias = Advertised | SharedKeys | Masking | Contributed | Confirmed | Answered | Completed | Aborted


@dataclass(frozen=True, slots=True)
class InputMasked:
    """Event: the masked input is durable; SHA-256 of its bytes, its number of lanes, its linear hash (16 KiB)."""

    digest: bytes
    lanes: int
    linear_hash: bytes


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Event: the runtime gives the session up, for this reason."""

    reason: RejectReason


ClientEvent: TypeAlias = (
    AdvertisedList | SharedList | InputMasked | SignedReceipt | ClosedList | Confirmations | SessionEnded | Abandoned
)


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: deliver this message, until it is acknowledged."""

    message: ClientMessage


@dataclass(frozen=True, slots=True)
class MaskInput:
    """Effect: encode the input once, add these keystreams, store the bytes, then report InputMasked.

    ``y = lanes + G(self_mask) + sum G(add) - sum G(subtract)`` in 64-bit words; these values are keystream keys.
    ``rounding`` seeds the random rounding, so that encoding again after a crash gives the same bytes: two encodings
    under the same masks would differ by what rounding left out.
    """

    rounding: Secret
    self_mask: Secret
    add: tuple[Secret, ...]
    subtract: tuple[Secret, ...]


ClientEffect: TypeAlias = Send | MaskInput

CLIENT_PERSISTENCE = Persistence(
    Advertised,
    SharedKeys,
    Masking,
    Contributed,
    Confirmed,
    Answered,
    Completed,
    Aborted,
    HeldShares,
    Place,
    LogView,
    RejectReason,
    Send,
    MaskInput,
    AdvertiseKeys,
    ShareKeys,
    OutgoingBoxes,
    Contribution,
    ConfirmClose,
    UnmaskAnswer,
    Signed,
    AdvertiseStatement,
    ShareStatement,
    ContributionHeader,
    ConfirmStatement,
    UnmaskStatement,
    SelfMaskShare,
    RootShare,
)
