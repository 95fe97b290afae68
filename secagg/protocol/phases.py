"""The phases of sessions, as clients are told of them."""

from __future__ import annotations

import enum


@enum.unique
class Phase(enum.Enum):
    """What clients see of a session's progress."""

    ADVERTISE_KEYS = "advertise-keys"
    SHARE_KEYS = "share-keys"
    COMMIT = "commit"
    """One-shot with a key authority: clients sign the digests of what they will send."""
    MASKED_INPUT = "masked-input"
    HOLD_SHARES = "hold-shares"
    """One-shot with a committee: no uploads any more; members say whose shares they hold."""
    CONSISTENCY_CHECK = "consistency-check"
    UNMASK = "unmask"
    OPEN_SUM = "open-sum"
    """One-shot: the committee or the authority is asked to open the closed set."""
    FINISHED = "finished"
    ABORTED = "aborted"
