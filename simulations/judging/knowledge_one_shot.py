"""What follows from masked inputs, shares and members' sums of shares in a one-shot session with a committee.

Client i has a polynomial f_i of degree below ``needed`` for every coefficient of its mask secret; all coefficients are
alike, so one stands for all. Its masked input is ``x_i + f_i(0)``, the share of member j is ``f_i(j + 1)``. The
adversary has the shares of corrupt members, and the sums ``sum of f_i(j + 1) over T`` that honest members answered.

Clients whose masked input arrived, and that are in the same answered sets, are alike: with fewer than ``needed``
corrupt members ``f_i(0)`` does not follow from the shares that they hold, so the multiples of the answers that enter a
combination decide the coefficient of each client, by the sets that it is in. There are as many groups of clients as
combinations of sets, however many clients there are, and the system is one of groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from secagg.arith.prime_field import PRIME
from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.transcript.openers import Committee
from secagg.transcript.statements import MemberAnswer, OneShotHeader, Signed
from simulations.judging.linear import Vector, cancelling
from simulations.judging.seen_inputs import Adversary, Input, KnowledgeError, SeenInputs, client_number
from simulations.world.cast import Cast
from simulations.world.network import Call


@dataclass(frozen=True, slots=True)
class _Answer:
    """A member's sum: its place, and the signed headers that it is over."""

    member: int
    leaves: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """Clients that are alike: whether their masked input arrived, and how often they are in each answered set."""

    has_arrived: bool
    times: tuple[int, ...]


class OneShotKnowledge:
    """What the adversary has seen of one session."""

    def __init__(self, cast: Cast, adversary: Adversary) -> None:
        self._cast = cast
        self._adversary = adversary
        self._inputs: SeenInputs[OneShotHeader] = SeenInputs()
        self._asked: dict[Call, tuple[bytes, ...]] = {}
        self._answers: dict[tuple[int, bytes], _Answer] = {}
        self._places = {key.public_bytes: place for place, key in enumerate(cast.members)}
        self._clients: dict[bytes, int | None] = {}

    def request(self, call: Call, request: object) -> None:
        """A header, a masked input, or a request to a member to open a set."""
        if call.what == "member-open":
            if not isinstance(request, tuple):
                raise KnowledgeError("member-open: no tuple of headers")
            self._asked[call] = request
            return
        number = client_number(self._cast, call)
        if number is None:
            return
        if isinstance(request, OneShotContribution) and isinstance(request.signed.statement, OneShotHeader):
            self._inputs.announced(number, request.signed.statement)
        elif isinstance(request, bytes) and call.what == "deliver":
            self._inputs.delivered(number, request)

    def reply(self, call: Call, reply: object) -> None:
        """A member's answer."""
        if call.what == "member-open" and isinstance(reply, Signed) and isinstance(reply.statement, MemberAnswer):
            self.answered(reply.statement, self._asked.pop(call))

    def answered(self, answer: MemberAnswer, contributions: tuple[bytes, ...]) -> None:
        """A member gave its sum over the contributions with these signed headers.

        The same sum again is what was known before, whatever set it is given for: a member that answered repeats its
        answer.
        """
        place = self._places[answer.identity]
        self._answers.setdefault((place, answer.share_sum), _Answer(place, contributions))

    def determined(self) -> list[Vector[Input]]:
        """Combinations of honest inputs that span all that is determined."""
        found: list[Vector[Input]] = []
        arrived: dict[int, Input] = {}
        for client in range(self._cast.plan.clients):
            if client in self._adversary.clients:
                continue
            inputs = [each for each, _ in self._inputs.of(client)]
            for other in inputs[1:]:
                found.append({inputs[0]: 1, other: PRIME - 1})
            if inputs:
                arrived[client] = inputs[0]
        if len(self._adversary.members) >= self._needed:
            return found + [{each: 1} for each in arrived.values()]
        return found + self._opened(arrived)

    def doubly_opened(self) -> tuple[int, ...]:
        """None: a client has one secret."""
        return ()

    def branches(self) -> dict[int, bytes]:
        """Nothing: whoever contributes is in the one cohort there is."""
        return {}

    @property
    def _needed(self) -> int:
        opening = self._cast.session.parameters.opening  # type: ignore[union-attr]
        if not isinstance(opening, Committee):
            raise LocalProtocolError(RejectReason.WRONG_PROTOCOL, "the session has no committee")
        return opening.needed

    def _opened(self, arrived: dict[int, Input]) -> list[Vector[Input]]:
        answers = [each for each in self._answers.values() if each.member not in self._adversary.members]
        sets = [self._honest(each.leaves) for each in answers]
        groups: dict[_Group, list[int]] = {}
        for client in sorted(frozenset[int]().union(*sets)):
            times = tuple(members[client] for members in sets)
            groups.setdefault(_Group(client in arrived, times), []).append(client)
        masked = [group for group in groups if group.has_arrived]
        rows: list[dict[Hashable, int]] = [{(group, 0): 1} for group in masked]
        for number, answer in enumerate(answers):
            rows.append(self._values(answer.member, {group: group.times[number] for group in groups}))
        for group in groups:
            rows.extend(self._values(member, {group: 1}) for member in sorted(self._adversary.members))
        found = []
        for combination in cancelling(rows, PRIME):
            factors = {number: factor for number, factor in combination.items() if number < len(masked)}
            if factors:
                found.append(
                    {arrived[client]: factors[number] for number in factors for client in groups[masked[number]]}
                )
        return found

    def _values(self, member: int, groups: Mapping[_Group, int]) -> dict[Hashable, int]:
        """So many times the value at a member's point, in terms of the coefficients of one client of each group."""
        powers = [pow(member + 1, power, PRIME) for power in range(self._needed)]
        return {(group, power): times * value for group, times in groups.items() for power, value in enumerate(powers)}

    def _honest(self, leaves: Iterable[bytes]) -> Counter[int]:
        clients = map(self._client, leaves)
        return Counter(each for each in clients if each is not None and each not in self._adversary.clients)

    def _client(self, leaf: bytes) -> int | None:
        """Whose signed header this is; None for nobody's in the roster."""
        if leaf not in self._clients:
            statement = Signed.from_bytes(leaf).statement
            self._clients[leaf] = self._cast.numbers.get(statement.identity)
        return self._clients[leaf]
