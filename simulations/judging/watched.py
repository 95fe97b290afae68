"""What is collected of a session so that its invariants can be checked: who said what to whom, what was promised."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from secagg.protocol.messages import (
    AdvertiseKeys,
    ConfirmClose,
    Contribution,
    ShareKeys,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.one_shot.member_states import row_key
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.rows import RowKind
from secagg.runtime.memory import MemorySessionStore
from secagg.runtime.ports import SessionKey
from secagg.transcript.entries import SessionEntry, decode_entry
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.statements import (
    AdvertiseStatement,
    Disposition,
    MemberAnswer,
    OneShotHeader,
    Receipt,
    Signed,
    UnmaskStatement,
    decode_disposition,
)
from simulations.judging.knowledge import View
from simulations.judging.seen_inputs import client_number
from simulations.world.network import Call
from simulations.world.plan import Protocol
from simulations.world.world import World


class Honesty(enum.Enum):
    """Whether the coordinator does what its machine says."""

    HONEST = "honest"
    LIES = "lies"


class Assumption(enum.Enum):
    """What a promise rests on."""

    FEW_CORRUPT = "no more clients and members are corrupt than the session says"
    HONEST_COORDINATOR = "the coordinator does what its machine says"
    ONE_LOG = "the coordinator is honest, or witnesses cosign the log"


@dataclass(frozen=True, slots=True)
class MemberAnswered:
    """A member's answer, and the SHA-256 of the headers that it was asked to open."""

    statement: MemberAnswer
    asked: bytes


class Watched:
    """An observer of a world's network that keeps what invariants are about. It attaches itself.

    Attributes:
        world: what is watched.
        view: what the adversary has seen.
        corrupt_clients, corrupt_members: who is not held to anything; with a coordinator that lies they work together.
        headers: what each honest client signed of its masked input, by number.
        uploads: SHA-256 of each honest client's masked inputs.
        answers: each honest client's answers.
        member_answers: each honest member's answers, by place.
        acknowledged: what the coordinator took from honest clients: the rows that have to be there, with what they say.
        receipts: SHA-256 of the signed headers for which each honest client was given a receipt.
        held: what each honest member said that it holds, by place: leaf hashes of honest clients' headers, by number.
    """

    def __init__(
        self,
        world: World,
        *,
        clients: Iterable[int] = (),
        members: Iterable[int] = (),
        coordinator: Honesty = Honesty.HONEST,
    ) -> None:
        self.world = world
        self.corrupt_clients = frozenset(clients) | frozenset(world.wrapped)
        self.corrupt_members = frozenset(members)
        self.view = View(world.cast, self.corrupt_clients, self.corrupt_members)
        self.headers: dict[int, dict[Signed, None]] = {}
        self.uploads: dict[int, dict[bytes, None]] = {}
        self.answers: dict[int, dict[Signed, None]] = {}
        self.member_answers: dict[int, dict[MemberAnswered, None]] = {}
        self.acknowledged: dict[tuple[int, RowKind], bytes | Signed | None] = {}
        self.receipts: dict[int, dict[bytes, None]] = {}
        self.held: dict[int, dict[int, bytes]] = {}
        self._coordinator = coordinator
        self._pending: dict[Call, object] = {}
        self._sessions: dict[bytes, bytes | None] = {}
        self._decoded: dict[bytes, tuple[Disposition, ...]] = {}
        self._parts: dict[bytes, tuple[int, Signed]] = {}
        self._places = {key.public_bytes: place for place, key in enumerate(world.cast.members)}
        world.network.observers.append(self)

    # The observer.

    def request(self, call: Call, request: object, handler: Callable[[], Awaitable[object]]) -> None:
        """See ``Observer.request``."""
        self.view.request(call, request, handler)
        number = client_number(self.world.cast, call)
        if number is None:
            if isinstance(request, tuple) and call.what == "member-open":
                self._pending[call] = hashlib.sha256(b"".join(request)).digest()
            elif isinstance(request, list) and call.what == "member-hold":
                self._pending[call] = [hashlib.sha256(box).digest() for box in request]
            return
        if number in self.corrupt_clients or call.what not in _SAYING:
            return
        match request:
            case Contribution(signed) | OneShotContribution(signed):
                self.headers.setdefault(number, {})[signed] = None
                if isinstance(signed.statement, OneShotHeader):
                    self._parts.update(dict.fromkeys(signed.statement.parts, (number, signed)))
            case bytes():
                request = hashlib.sha256(request).digest()
                self.uploads.setdefault(number, {})[request] = None
            case UnmaskAnswer(signed):
                self.answers.setdefault(number, {})[signed] = None
        self._pending[call] = request

    def reply(self, call: Call, reply: object) -> None:
        """See ``Observer.reply``."""
        self.view.reply(call, reply)
        request = self._pending.pop(call, None)
        number = client_number(self.world.cast, call)
        if number is not None:
            if call.what == "receipt" and isinstance(reply, SignedReceipt) and number not in self.corrupt_clients:
                self.receipts.setdefault(number, {})[Receipt.from_bytes(reply.receipt).contribution] = None
                self.acknowledged.setdefault((number, RowKind.STAGED), None)
            self._taken(number, request)
        elif isinstance(reply, Signed) and isinstance(reply.statement, MemberAnswer) and isinstance(request, bytes):
            self._opened(reply.statement, request)
        elif isinstance(reply, tuple) and isinstance(request, list):
            self._held(int(call.target.split("-")[1]), request, reply)

    def _taken(self, number: int, request: object) -> None:
        match request:
            case AdvertiseKeys(signed):
                self.acknowledged[number, RowKind.ADVERTISE] = signed
            case ShareKeys(signed):
                self.acknowledged[number, RowKind.SHARE] = signed
            case Contribution(signed) | OneShotContribution(signed):
                self.acknowledged[number, RowKind.HEADER] = signed
            case ConfirmClose(signed):
                self.acknowledged[number, RowKind.CONFIRM] = signed
            case UnmaskAnswer(signed):
                self.acknowledged[number, RowKind.ANSWER] = signed.to_bytes()
            case bytes():
                self.acknowledged[number, RowKind.STAGED] = request
            case _:
                return

    def _held(self, place: int, boxes: list[bytes], verdicts: tuple[str, ...]) -> None:
        for box, verdict in zip(boxes, verdicts, strict=True):
            if not verdict and box in self._parts and place not in self.corrupt_members:
                number, signed = self._parts[box]
                self.held.setdefault(place, {})[number] = leaf_hash(signed.to_bytes())

    def _opened(self, statement: MemberAnswer, asked: bytes) -> None:
        place = self._places[statement.identity]
        if place not in self.corrupt_members:
            self.member_answers.setdefault(place, {})[MemberAnswered(statement, asked)] = None

    # What can be told from it.

    def holds(self, assumption: Assumption) -> bool:
        """Whether a promise that rests on this is one here."""
        plan = self.world.plan
        match assumption:
            case Assumption.FEW_CORRUPT:
                return (
                    len(self.corrupt_clients) <= plan.corrupt
                    and len(self.corrupt_members) <= plan.committee.max_corrupt
                )
            case Assumption.HONEST_COORDINATOR:
                return self._coordinator is Honesty.HONEST
            case Assumption.ONE_LOG:
                return self._coordinator is Honesty.HONEST or plan.witnesses > 0

    def answers_of(self, number: int) -> list[UnmaskStatement]:
        """What an honest client answered, each once."""
        statements = (signed.statement for signed in self.answers.get(number, {}))
        return [each for each in statements if isinstance(each, UnmaskStatement)]

    def log_entries(self) -> tuple[bytes, ...]:
        """The session's entries in the coordinator's log; none while it is down or the session is not open."""
        if not self.world.coordinator.is_up or not _is_open(self.world):
            return ()
        own = self.world.cast.session.parameters.session
        return tuple(
            entry for entry in self.world.coordinator.host.evidence().entries if self._session_of(entry) == own
        )

    def lost_shares(self, place: int) -> list[int]:
        """The clients whose share a member said it holds and that its disk does not have."""
        cast = self.world.cast
        rows = _rows(self.world.members[place].disk.sessions, cast.session.parameters.session)
        lost = []
        for number, leaf in self.held.get(place, {}).items():
            position = cast.session.positions[cast.clients[number].public_bytes]
            # Bytes stand in a stored row as they are.
            if leaf not in rows.get(row_key(position), b""):
                lost.append(number)
        return lost

    def _session_of(self, entry: bytes) -> bytes | None:
        if entry not in self._sessions:
            decoded = decode_entry(entry)
            self._sessions[entry] = decoded.session if isinstance(decoded, SessionEntry) else None
        return self._sessions[entry]

    def published(self, name: str) -> bytes | None:
        """A file of the session as it is published, if it is."""
        return self.world.coordinator.published.files.get((self.world.cast.session.parameters.session, name))

    def dispositions(self) -> dict[int, Disposition]:
        """What the record says became of each client, by number; empty until the set is closed."""
        data = self.published("dispositions.jsonl")
        if data is None:
            return {}
        if data not in self._decoded:
            self._decoded[data] = tuple(decode_disposition(line) for line in data.splitlines())
        numbers = self._numbers()
        return {numbers[each.index]: each for each in self._decoded[data]}

    def digest_of(self, signed: Signed) -> bytes:
        """What a receipt names a contribution by."""
        return hashlib.sha256(signed.to_bytes()).digest()

    def _numbers(self) -> list[int]:
        """Numbers of clients in the order of indices: of U1, or of the roster."""
        cast = self.world.cast
        if cast.plan.protocol is Protocol.ONE_SHOT:
            return [cast.numbers[member.identity] for member in cast.session.roster.members]
        lines = (self.published("keys.jsonl") or b"").splitlines()
        statements = (Signed.from_bytes(line).statement for line in lines)
        return [cast.numbers[each.identity] for each in statements if isinstance(each, AdvertiseStatement)]


def _rows(store: MemorySessionStore, session: SessionKey) -> Mapping[int, bytes]:
    """The stored rows of a session; reading memory waits for nothing."""
    try:
        store.load(session).send(None)
    except StopIteration as done:
        return {} if done.value is None else done.value.rows
    raise RuntimeError("a store in memory waits for something")


def _is_open(world: World) -> bool:
    return world.coordinator.host.status().log_size > 0


_SAYING = frozenset({"AdvertiseKeys", "ShareKeys", "announce", "deliver", "ConfirmClose", "UnmaskAnswer"})
