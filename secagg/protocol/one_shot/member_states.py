"""States, rows, events and effects of the committee member's machine.

The state has the same size for any session; each held share is a row of its own, named by roster position, which
tells where the sealed box lies. A terminal state holds no secret: what a member answered is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from secagg.protocol.errors import RejectReason
from secagg.protocol.log import LogView
from secagg.protocol.persist import Persistence
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merkle import DIGEST_BYTES
from secagg.transcript.statements import MemberAnswer, Signed

SESSION_ROW = -1
"""Names, below, the row of what was seen of the session; every other row is a contribution."""


def row_key(position: int) -> int:
    """Name of a row: the roster position plus one; 0 is the session's own (``SESSION_ROW``)."""
    return position + 1


@dataclass(frozen=True, slots=True)
class SessionRow:
    """What the log showed last, verified, and the member's own time when it joined."""

    view: LogView
    joined_at_s: int


@dataclass(frozen=True, slots=True)
class HeldRow:
    """One contribution: RFC 6962 leaf hash of its signed header, and the slot of the box in the session's box file."""

    leaf: bytes
    slot: int


Row: TypeAlias = SessionRow | HeldRow
Rows: TypeAlias = Mapping[int, Row]


@dataclass(frozen=True, slots=True)
class Holding:
    """Takes boxes; nothing was answered."""


@dataclass(frozen=True, slots=True)
class Answering:
    """This close (SHA-256 of its entry) is the one that will be answered, and no other ever; shares are being summed.

    ``contributions`` is the root over the closed set, ``count`` its size.
    """

    close: bytes
    contributions: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The one answer of the session."""

    close: bytes
    contributions: bytes
    count: int
    answer: Signed


@dataclass(frozen=True, slots=True)
class Over:
    """The session will never be answered, for this reason."""

    reason: RejectReason


MemberState: TypeAlias = Holding | Answering | Answered | Over


@dataclass(frozen=True, slots=True)
class HeldShare:
    """A contribution that was checked, and whose box opens to a well-formed share: position in the roster, leaf hash.

    ``judge`` is the one place that makes them.
    """

    position: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class StoredShare:
    """A held share whose sealed box is durable in this slot."""

    share: HeldShare
    slot: int


@dataclass(frozen=True, slots=True)
class LogShown:
    """Event: the log from the session's open entry on."""

    evidence: LogEvidence


@dataclass(frozen=True, slots=True)
class BoxesStored:
    """Event: these boxes are durable."""

    shares: tuple[StoredShare, ...]


@dataclass(frozen=True, slots=True)
class OpenAsked:
    """Event: the coordinator asks for the sum over these headers, by leaf hash, 32 bytes each, in the set's order."""

    evidence: LogEvidence
    leaves: bytes

    @property
    def hashes(self) -> list[bytes]:
        """The leaf hashes one by one."""
        return [self.leaves[at : at + DIGEST_BYTES] for at in range(0, len(self.leaves), DIGEST_BYTES)]


@dataclass(frozen=True, slots=True)
class SharesSummed:
    """Event: the sum of the shares for this close: field elements, uint32 little-endian, 16 KiB."""

    close: bytes
    share_sum: bytes


@dataclass(frozen=True, slots=True)
class SharesLost:
    """Event: a box of the set for this close is damaged; there will be no answer."""

    close: bytes


@dataclass(frozen=True, slots=True)
class RetentionPassed:
    """Event: the session is past its deadlines and its retention; nobody will ask any more."""


MemberEvent: TypeAlias = LogShown | BoxesStored | OpenAsked | SharesSummed | SharesLost | RetentionPassed


@dataclass(frozen=True, slots=True)
class SumShares:
    """Effect: open the boxes of these contributions, add the shares up, report SharesSummed for this close.

    ``positions`` is a bitmap over the roster, bit ``i % 8`` of byte ``i // 8`` for position ``i``: nothing can stand in
    it twice.
    """

    close: bytes
    positions: bytes


MemberEffect: TypeAlias = SumShares

MEMBER_PERSISTENCE = Persistence(
    Holding,
    Answering,
    Answered,
    Over,
    SessionRow,
    HeldRow,
    LogView,
    RejectReason,
    SumShares,
    Signed,
    MemberAnswer,
)
