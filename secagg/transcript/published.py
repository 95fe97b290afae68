"""What the record publishes of boxes between neighbours: only what recomputing the masks of dropped clients takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from secagg.transcript.entries import MAX_COHORT
from secagg.transcript.record import (
    Record,
    decode_value,
    hex_codec,
    hex_field,
    integer_field,
    list_field,
    record_codec,
)

PAIR_BOX_BYTES = 1168
COMMITMENTS_BYTES = 96
_LAST = MAX_COHORT - 1
_MAX_PATH = 20


@dataclass(frozen=True, slots=True)
class PairBox(Record):
    """The sealed pair seed that contributor ``sender`` dealt to ``recipient``, who has a higher index and dropped.

    ``share_box`` is the SHA-256 of the share box beside it, ``commitments`` what was promised of the content of both,
    ``path`` the audit path of their leaf under the root of boxes that the sender signed.
    """

    TYPE: ClassVar[str] = "pair-box"
    sender: int = integer_field(0, _LAST)
    recipient: int = integer_field(0, _LAST)
    share_box: bytes = hex_field(32)
    box: bytes = hex_field(PAIR_BOX_BYTES)
    commitments: bytes = hex_field(COMMITMENTS_BYTES)
    path: tuple[bytes, ...] = list_field(hex_codec(32), _MAX_PATH)


@dataclass(frozen=True, slots=True)
class PairPromise(Record):
    """What ``sender``, a client that dropped, promised contributor ``recipient``, which has a higher index.

    The seed follows from the sender's root, so the box (``pair_box``: its SHA-256) is not published.
    """

    TYPE: ClassVar[str] = "pair-promise"
    sender: int = integer_field(0, _LAST)
    recipient: int = integer_field(0, _LAST)
    share_box: bytes = hex_field(32)
    pair_box: bytes = hex_field(32)
    commitments: bytes = hex_field(COMMITMENTS_BYTES)
    path: tuple[bytes, ...] = list_field(hex_codec(32), _MAX_PATH)


PublishedPair: TypeAlias = PairBox | PairPromise


def decode_published_pair(data: bytes) -> PublishedPair:
    """A line of ``pair-boxes.jsonl``. Raises RecordError."""
    pair: PublishedPair = record_codec(PairBox, PairPromise).read(decode_value(data), "pair")
    return pair
