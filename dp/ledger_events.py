"""What happens to a privacy budget, as canonical bytes in a hash chain.

Event number n, counted from 1, is one JSON object: sorted members, no spaces, ASCII, integers and strings only.
Its digest covers everything before it::

    digest(0) = SHA-256("dp/ledger/genesis/v1")
    digest(n) = SHA-256("dp/ledger/event/v1" || 0x00 || digest(n - 1) || event n)

which is injective, since all but the last part have a fixed length. Whoever has a record that shows population,
session, mechanism, sequence number and the digest before recomputes the digest of a reservation
(``reservation_digest``) and finds it in the log.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, assert_never

from dp.errors import ParameterError
from dp.ledger_errors import LedgerCorruptError
from dp.mechanisms import DistributedMechanism, Mechanism, mechanism_from_json
from dp.parameters import check_integer, check_positive, fraction_from_text, fraction_text

DIGEST_BYTES = 32
IDENTITY_BYTES = 32
MAX_SESSION_BYTES = 64
MAX_NAME_CHARACTERS = 128
MAX_EVIDENCE_CHARACTERS = 1024

_EVENT_DOMAIN = b"dp/ledger/event/v1\x00"
_PARTICIPANTS_DOMAIN = b"dp/ledger/participants/v1\x00"
_MAX_SEQUENCE = (1 << 63) - 1

GENESIS = hashlib.sha256(b"dp/ledger/genesis/v1").digest()
"""The digest before the first event."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far a ledger has come: number and digest of its last event; 0 and ``GENESIS`` when there is none."""

    sequence: int
    digest: bytes

    def __post_init__(self) -> None:
        check_integer("sequence", self.sequence, 0, _MAX_SEQUENCE)
        _check_digest("digest", self.digest)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation's place in the chain: what a session publishes, so that others find it in the log."""

    sequence: int
    previous: bytes
    digest: bytes

    def __post_init__(self) -> None:
        check_integer("sequence", self.sequence, 1, _MAX_SEQUENCE)
        _check_digest("previous", self.previous)
        _check_digest("digest", self.digest)


@dataclass(frozen=True, slots=True)
class Participants:
    """Who took part in a session: a set of 32-byte identities, kept sorted in one piece."""

    identities: bytes

    def __post_init__(self) -> None:
        count, rest = divmod(len(self.identities), IDENTITY_BYTES)
        if count == 0 or rest:
            raise ParameterError("participants", f"must be one or more identities of {IDENTITY_BYTES} bytes")
        if any(self._at(index) >= self._at(index + 1) for index in range(count - 1)):
            raise ParameterError("participants", "must be sorted and without repetition")

    @classmethod
    def of(cls, identities: Iterable[bytes]) -> Participants:
        """Sort the identities.

        Raises:
            ParameterError: there are none, one repeats, or one is not 32 bytes long.
        """
        ordered = sorted(identities)
        for identity in ordered:
            check_identity("participants", identity)
        return cls(b"".join(ordered))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.identities) // IDENTITY_BYTES

    @property
    def digest(self) -> bytes:
        """What the event says about them: SHA-256 over the sorted identities."""
        return hashlib.sha256(_PARTICIPANTS_DOMAIN + self.identities).digest()

    def __contains__(self, identity: bytes) -> bool:
        place = bisect_left(range(self.count), identity, key=self._at)
        return place < self.count and self._at(place) == identity

    def _at(self, index: int) -> bytes:
        return self.identities[index * IDENTITY_BYTES : (index + 1) * IDENTITY_BYTES]


@dataclass(frozen=True, slots=True)
class Created:
    """A population gets a budget: (epsilon, delta) for everything that it will ever release."""

    population: str
    epsilon: Fraction
    delta: Fraction

    def __post_init__(self) -> None:
        _check_text("population", self.population, MAX_NAME_CHARACTERS)
        check_positive("epsilon", self.epsilon)
        check_positive("delta", self.delta)
        if self.delta >= 1:
            raise ParameterError("delta", f"must be below 1, got {self.delta}")


@dataclass(frozen=True, slots=True)
class Reserved:
    """A session is about to be published and is charged the worst that it can cost."""

    population: str
    session: bytes
    mechanism: Mechanism

    def __post_init__(self) -> None:
        _check_text("population", self.population, MAX_NAME_CHARACTERS)
        _check_session(self.session)
        _check_mechanism(self.mechanism)


@dataclass(frozen=True, slots=True)
class Settled:
    """A session has ended and is charged what it did cost; without participants, to everybody."""

    population: str
    session: bytes
    mechanism: Mechanism
    participants: Participants | None

    def __post_init__(self) -> None:
        _check_text("population", self.population, MAX_NAME_CHARACTERS)
        _check_session(self.session)
        _check_mechanism(self.mechanism)
        # Somebody whose vector is in the sum and whose name is missing here would be charged nothing.
        if self.participants is not None and isinstance(self.mechanism, DistributedMechanism):
            missing = self.mechanism.survivors - self.participants.count
            if missing > 0:
                raise ParameterError("participants", f"{missing} fewer than the mechanism's survivors")


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A session has ended before anything was opened and is charged nothing."""

    population: str
    session: bytes
    evidence: str

    def __post_init__(self) -> None:
        _check_text("population", self.population, MAX_NAME_CHARACTERS)
        _check_session(self.session)
        _check_text("evidence", self.evidence, MAX_EVIDENCE_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Restored:
    """An operator put an older database in place that holds ``published``, the newest head the log shows.

    ``remembered`` is how far the ledger had come before, where that is still known.
    """

    published: Head
    remembered: Head | None


Event: TypeAlias = Created | Reserved | Settled | Cancelled | Restored


def encode_event(sequence: int, event: Event) -> bytes:
    """The canonical bytes of event number ``sequence``."""
    check_integer("sequence", sequence, 1, _MAX_SEQUENCE)
    members: dict[str, object]
    match event:
        case Created(population, epsilon, delta):
            members = {"event": "create", "population": population, "epsilon": fraction_text(epsilon)}
            members["delta"] = fraction_text(delta)
        case Reserved(population, session, mechanism):
            members = {"event": "reserve", "population": population, "session": session.hex()}
            members["mechanism"] = mechanism.to_json()
        case Settled(population, session, mechanism, participants):
            members = {"event": "settle", "population": population, "session": session.hex()}
            members["mechanism"] = mechanism.to_json()
            members["participants"] = None if participants is None else participants.digest.hex()
        case Cancelled(population, session, evidence):
            members = {"event": "cancel", "population": population, "session": session.hex(), "evidence": evidence}
        case Restored(published, remembered):
            members = {"event": "restore", "published": _head_to_json(published)}
            members["remembered"] = None if remembered is None else _head_to_json(remembered)
        case _:
            assert_never(event)
    return _canonical({**members, "sequence": sequence})


def decode_event(sequence: int, data: bytes, identities: bytes | None) -> Event:
    """Read event number ``sequence``; ``identities`` are the participants that stand beside it.

    Raises:
        LedgerCorruptError: these are not the bytes that ``encode_event`` makes, or other participants.
    """
    try:
        event = _event_from_json(json.loads(data), None if identities is None else Participants(identities))
        same = encode_event(sequence, event) == data
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # a ParameterError is a ValueError
        raise LedgerCorruptError(f"event {sequence} cannot be read: {error}") from error
    if not same or (identities is not None and not isinstance(event, Settled)):
        raise LedgerCorruptError(f"event {sequence} is not in its canonical form")
    return event


def event_digest(previous: bytes, data: bytes) -> bytes:
    """The digest of the event ``data`` that follows the event of digest ``previous``."""
    _check_digest("previous", previous)
    return hashlib.sha256(_EVENT_DOMAIN + previous + data).digest()


def reservation_digest(previous: bytes, sequence: int, population: str, session: bytes, mechanism: Mechanism) -> bytes:
    """The digest of a reservation, from what the session's record shows.

    Raises:
        ParameterError: a value that no ledger would hold.
    """
    return event_digest(previous, encode_event(sequence, Reserved(population, session, mechanism)))


def _canonical(members: dict[str, object]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode(
        "ascii"
    )


def _event_from_json(members: dict[str, object], participants: Participants | None) -> Event:
    """Build the event; members that do not belong are found by encoding it again."""
    kind = members["event"]
    if kind == "restore":
        remembered = members["remembered"]
        return Restored(
            _head_from_json(members["published"]), None if remembered is None else _head_from_json(remembered)
        )
    population = _text(members["population"])
    if kind == "create":
        epsilon, delta = (fraction_from_text(name, members[name]) for name in ("epsilon", "delta"))
        return Created(population, epsilon, delta)
    session = bytes.fromhex(_text(members["session"]))
    if kind == "cancel":
        return Cancelled(population, session, _text(members["evidence"]))
    mechanism = mechanism_from_json(members["mechanism"])
    if kind == "reserve":
        return Reserved(population, session, mechanism)
    if kind == "settle":
        return Settled(population, session, mechanism, participants)
    raise ParameterError("event", f"unknown kind {kind!r}")


def _head_to_json(head: Head) -> dict[str, object]:
    return {"sequence": head.sequence, "digest": head.digest.hex()}


def _head_from_json(value: object) -> Head:
    if not isinstance(value, dict) or not isinstance(value["sequence"], int):
        raise ParameterError("head", "must be an object with sequence and digest")
    return Head(value["sequence"], bytes.fromhex(_text(value["digest"])))


def encode_head(head: Head) -> bytes:
    """The canonical bytes of a head."""
    return _canonical(_head_to_json(head))


def decode_head(data: bytes) -> Head:
    """Read what ``encode_head`` wrote.

    Raises:
        LedgerCorruptError: these are other bytes.
    """
    try:
        head = _head_from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerCorruptError(f"a head cannot be read: {error}") from error
    if encode_head(head) != data:
        raise LedgerCorruptError("a head is not in its canonical form")
    return head


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ParameterError("event", f"expected a string, got {type(value).__name__}")
    return value


def _check_digest(field: str, value: object) -> None:
    if type(value) is not bytes or len(value) != DIGEST_BYTES:
        raise ParameterError(field, f"must be {DIGEST_BYTES} bytes")


def check_identity(field: str, value: object) -> None:
    """Refuse what is not the 32 bytes of an identity, naming the field."""
    if type(value) is not bytes or len(value) != IDENTITY_BYTES:
        raise ParameterError(field, f"must be identities of {IDENTITY_BYTES} bytes")


def _check_session(value: object) -> None:
    if type(value) is not bytes or not 1 <= len(value) <= MAX_SESSION_BYTES:
        raise ParameterError("session", f"must be 1 to {MAX_SESSION_BYTES} bytes")


def _check_text(field: str, value: object, most: int) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
        raise ParameterError(field, f"must be 1 to {most} printable characters")


def _check_mechanism(value: object) -> None:
    if not isinstance(value, Mechanism):
        raise ParameterError("mechanism", f"must be a mechanism of this package, got {type(value).__name__}")
