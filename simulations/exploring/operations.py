"""Operations as values: what can be done to a simulated session. Their text is in ``simulations.exploring.scripts``."""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from simulations.world.people import PHASE_OF
from simulations.world.stores import CrashTime


class Side(enum.StrEnum):
    """Whether something happens before the call is handled or after it."""

    BEFORE = "before"
    AFTER = "after"


class Part(enum.StrEnum):
    """Of a call."""

    REQUEST = "request"
    REPLY = "reply"


class DropPhase(enum.StrEnum):
    """The phases in which a client has something to send."""

    ADVERTISE_KEYS = "advertise-keys"
    SHARE_KEYS = "share-keys"
    MASKED_INPUT = "masked-input"
    CONSISTENCY_CHECK = "consistency-check"
    UNMASK = "unmask"


class ClientLie(enum.StrEnum):
    """What a corrupt client sends instead of what its machine decided on."""

    WRONG_SHARE = "wrong-share"
    """Answers with shares that nobody dealt."""
    OPPOSITE_SHARE = "opposite-share"
    """Answers with the kind of share that the close does not ask for."""
    FEWER_SHARES = "fewer-shares"
    """Answers for all neighbours but the first."""
    WRONG_LENGTH = "wrong-length"
    """Signs and uploads one lane more."""
    OTHER_SESSION = "other-session"
    """Signs a header for another session."""
    ALTERED_UPLOAD = "altered-upload"
    """Uploads other bytes than it signed."""
    WRONG_LINEAR_HASH = "wrong-linear-hash"
    """Signs a linear hash that is not its upload's."""
    OMITTED_BOXES = "omitted-boxes"
    """Deals to all neighbours but the last."""
    GARBLED_BOXES = "garbled-boxes"
    """Signs boxes that nobody can open."""
    FALSE_MISSING = "false-missing"
    """Says that the boxes of its first neighbour did not open."""


class MemberLie(enum.StrEnum):
    """What a corrupt committee member answers instead."""

    WRONG_SUM = "wrong-sum"
    """Signs a sum of shares that is none."""
    COMPLAINS = "complains"
    """Complains about every box."""
    FALSE_HOLDING = "false-holding"
    """Says that it holds boxes that it never took."""
    SILENT = "silent"
    """Never answers."""


class Forgery(enum.StrEnum):
    """Which second close a lying coordinator signs, and to whom it is shown."""

    FORK = "fork"
    """Leaves the named client out; every other client and member is shown it, the rest the honest one."""
    MIX = "mix"
    """As ``fork``, and everybody is shown whatever was signed over either."""
    CHANGE = "change"
    """Leaves the named client out; everybody is shown the honest one first and this one afterwards."""
    TINY = "tiny"
    """Counts one contribution less than the minimum; everybody is shown it."""
    SECOND = "second"
    """Leaves the named client out, and stands in the same log behind the honest one; everybody is shown both."""


@dataclass(frozen=True, slots=True)
class Join:
    """A client's process starts."""

    VERB: ClassVar[str] = "join"
    client: int


@dataclass(frozen=True, slots=True)
class Advance:
    """So many seconds pass."""

    VERB: ClassVar[str] = "advance"
    seconds: int


@dataclass(frozen=True, slots=True)
class Drop:
    """A client falls silent for good, around its next call that belongs to a phase."""

    VERB: ClassVar[str] = "drop"
    client: int
    phase: DropPhase
    side: Side


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The next call of a node with this name is delivered twice, the second time so much later."""

    VERB: ClassVar[str] = "duplicate"
    node: str
    call: str
    after_s: int


@dataclass(frozen=True, slots=True)
class Reorder:
    """For so many seconds latencies are long and differ widely: messages overtake each other."""

    VERB: ClassVar[str] = "reorder"
    seconds: int


@dataclass(frozen=True, slots=True)
class Delay:
    """The next call of a node with this name takes so much longer."""

    VERB: ClassVar[str] = "delay"
    node: str
    call: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Lose:
    """Requests or replies of the next calls of a node with this name are lost."""

    VERB: ClassVar[str] = "lose"
    node: str
    call: str
    part: Part
    times: int


@dataclass(frozen=True, slots=True)
class Crash:
    """A node dies around one of its next writes, counted from 1, and starts again after ``down_s``."""

    VERB: ClassVar[str] = "crash"
    node: str
    write: int
    when: CrashTime
    down_s: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A node dies now."""

    VERB: ClassVar[str] = "kill"
    node: str


@dataclass(frozen=True, slots=True)
class Restart:
    """A node that is down starts again."""

    VERB: ClassVar[str] = "restart"
    node: str


@dataclass(frozen=True, slots=True)
class Partition:
    """For so many seconds these nodes hear nobody else, and nobody hears them."""

    VERB: ClassVar[str] = "partition"
    seconds: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Equivocate:
    """A client sends its message of a phase in two versions, both signed."""

    VERB: ClassVar[str] = "equivocate"
    client: int
    phase: DropPhase


@dataclass(frozen=True, slots=True)
class Forge:
    """The coordinator signs a second close; ``client`` is whom it is about."""

    VERB: ClassVar[str] = "forge"
    forgery: Forgery
    client: int


@dataclass(frozen=True, slots=True)
class Replay:
    """The last request that a node made with this name is delivered again, so much later."""

    VERB: ClassVar[str] = "replay"
    node: str
    call: str
    after_s: int


@dataclass(frozen=True, slots=True)
class Lie:
    """A client lies from its next start on."""

    VERB: ClassVar[str] = "lie"
    client: int
    lie: ClientLie


@dataclass(frozen=True, slots=True)
class Betray:
    """A committee member lies from now on."""

    VERB: ClassVar[str] = "betray"
    member: int
    lie: MemberLie


Operation: TypeAlias = (
    Join
    | Advance
    | Drop
    | Duplicate
    | Reorder
    | Delay
    | Lose
    | Crash
    | Kill
    | Restart
    | Partition
    | Equivocate
    | Forge
    | Replay
    | Lie
    | Betray
)
KINDS: dict[str, type[Operation]] = {kind.VERB: kind for kind in typing.get_args(Operation)}
"""Kinds of operations by verb."""

CLIENT_CALLS = (
    "files",
    "status",
    "watch",
    *PHASE_OF,
    "receipt",
    "advertised_list",
    "shared_list",
    "closed_list",
    "confirmations",
    "outcome",
)
"""Names of the calls that clients make."""
COORDINATOR_CALLS = ("member-log-size", "member-join", "member-hold", "member-open", "add-checkpoint")
"""Names of the calls that the coordinator makes."""
