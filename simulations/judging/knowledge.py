"""What an adversary can compute: exactly which sums of honest clients' inputs its view determines.

The adversary is the coordinator together with corrupt clients and corrupt committee members. ``View`` watches the
network and keeps whatever reaches them. Then it asks, as linear algebra, which combinations of honest inputs follow:
inputs, masks and shares are unknowns, everything that was seen is an equation, and what the adversary can open is a
known value. Ciphers, signatures, hashes and streams are taken for perfect; who holds a key opens what is sealed to it.

**Masks of pairs.** Each pair mask stands in at most two masked inputs, with opposite signs, and each self mask in one.
Such a matrix is that of a directed graph, every minor of which is 0, 1 or -1: rank and cancelling combinations are the
same modulo ``MERSENNE_61``, over the rationals and modulo 2^64, where the masks live. So the answer is exact. It is
too if one client sends several masked inputs under one list of partners, for these rows are equal. Where a client
masks under different lists a minor could be a multiple of ``MERSENNE_61`` by accident.

**Masks of one-shot sessions.** Shares are values of polynomials over the field of 2^31 - 1, and that is the field that
is computed in. A combination with large coefficients counts as known, though its lattice errors might hide it: the
adversary is never taken for weaker than it is.

**Several masked inputs of one client** are inputs of their own under the same mask: their difference shows, and counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from secagg.arith.prime_field import PRIME
from secagg.protocol.pairwise.session import PairwiseSession
from simulations.judging.knowledge_one_shot import OneShotKnowledge
from simulations.judging.knowledge_pairwise import PairwiseKnowledge
from simulations.judging.linear import MERSENNE_61, Vector, centred, echelon, smallest_support
from simulations.judging.seen_inputs import Adversary, Input, KnowledgeError
from simulations.world.cast import Cast
from simulations.world.network import Call

__all__ = ["Adversary", "Determined", "Input", "KnowledgeError", "View"]


class _Knowledge(Protocol):
    """What is known of a session of one protocol."""

    def request(self, call: Call, request: object) -> None:
        """Something has arrived."""
        ...

    def reply(self, call: Call, reply: object) -> None:
        """Something was answered."""
        ...

    def determined(self) -> list[Vector[Input]]:
        """Combinations of honest inputs that span all that is determined."""
        ...

    def doubly_opened(self) -> tuple[int, ...]:
        """Honest clients of whom both secrets are known."""
        ...

    def branches(self) -> dict[int, bytes]:
        """What tells the cohorts of a forked log apart, by client."""
        ...


@dataclass(frozen=True, slots=True)
class Determined:
    """A combination of honest clients' inputs that the adversary can compute.

    Attributes:
        terms: inputs in ascending order, each with its coefficient, which is not 0; the first is 1.
    """

    terms: tuple[tuple[Input, int], ...]

    @property
    def clients(self) -> frozenset[int]:
        """Whose inputs are in it."""
        return frozenset(each.client for each, _ in self.terms)

    @property
    def is_plain_sum(self) -> bool:
        """Whether it is a sum of different clients' inputs."""
        return len(self.clients) == len(self.terms) and all(factor == 1 for _, factor in self.terms)

    def words(self) -> str:
        """It in plain words."""
        if self.is_plain_sum and len(self.terms) == 1:
            return f"the input of client {self.terms[0][0].client}"
        if self.is_plain_sum:
            return f"the sum of clients {_numbers(self.clients)}"
        if len(self.clients) == 1 and [factor for _, factor in self.terms] == [1, -1]:
            return f"the difference of two masked inputs of client {self.terms[0][0].client}"
        if len(self.terms) > 12:
            return f"a combination of clients {_numbers(self.clients)}"
        text = " ".join(f"{'-' if factor < 0 else '+'} {_times(factor)}{each}" for each, factor in self.terms)
        return f"the combination {text.removeprefix('+ ')}"


class View:
    """Everything that the adversary has seen: an observer of the network.

    Args:
        cast: everybody.
        clients: numbers of the corrupt clients.
        members: places of the corrupt committee members.
    """

    def __init__(self, cast: Cast, clients: Iterable[int] = (), members: Iterable[int] = ()) -> None:
        self.cast = cast
        self.adversary = Adversary(frozenset(clients), frozenset(members))
        is_pairwise = isinstance(cast.session, PairwiseSession)
        self._prime = MERSENNE_61 if is_pairwise else PRIME
        self._knowledge: _Knowledge = (PairwiseKnowledge if is_pairwise else OneShotKnowledge)(cast, self.adversary)
        self._known: tuple[Determined, ...] | None = None

    def request(self, call: Call, request: object, handler: Callable[[], Awaitable[object]]) -> None:
        """See ``Observer.request``."""
        del handler
        if call.what in _TELLING:
            self._known = None
            self._knowledge.request(call, request)

    def reply(self, call: Call, reply: object) -> None:
        """See ``Observer.reply``."""
        if call.what in _TELLING:
            self._known = None
            self._knowledge.reply(call, reply)

    def determined(self) -> tuple[Determined, ...]:
        """A basis of all combinations of honest clients' inputs that are determined, in reduced echelon form.

        Raises:
            KnowledgeError: something arrived whose masks cannot be told from what was seen.
            LinearLimitError: the system is too large for an exact answer.
        """
        if self._known is None:
            basis = echelon(self._knowledge.determined(), lambda each: (each.client, each.version), self._prime)
            self._known = tuple(self._as_determined(vector) for vector in basis)
        return self._known

    def smallest_sum(self) -> frozenset[int] | None:
        """The fewest honest clients whose inputs are in a combination that is determined; None if nothing is.

        Exact: see ``simulations.judging.linear.smallest_support``, also for its limit. Raises as ``determined`` does.
        """
        vectors = [dict(each.terms) for each in self.determined()]
        return smallest_support(vectors, lambda each: each.client, self._prime)

    def doubly_opened(self) -> tuple[int, ...]:
        """The honest clients of whom the adversary knows self-mask seed and root; none in one-shot sessions.

        Raises:
            KnowledgeError: as ``determined``.
        """
        return self._knowledge.doubly_opened()

    def of_one_cohort(self) -> tuple[Determined, ...]:
        """Two sums that are determined over clients of one cohort, of which at most one may be; or nothing.

        In a forked log there can be several cohorts, each with another U1 and with other honest clients: they are like
        several sessions (docs/threat-model.md). Raises as ``determined``.
        """
        branches = self._knowledge.branches()
        first: dict[bytes | None, Determined] = {}
        for each in self.determined():
            for branch in dict.fromkeys(branches.get(client) for client in sorted(each.clients)):
                other = first.setdefault(branch, each)
                if other is not each:
                    return other, each
        return ()

    def explain(self) -> tuple[str, ...]:
        """What is determined, in plain words, for reports; ``("nothing",)`` if nothing is."""
        known = [each.words() for each in self.determined()]
        if not known:
            return ("nothing",)
        return (f"{known[0]}, and nothing else",) if len(known) == 1 else tuple(known)

    def _as_determined(self, vector: Mapping[Input, int]) -> Determined:
        return Determined(tuple((each, centred(vector[each], self._prime)) for each in sorted(vector)))


_TELLING = frozenset(
    {
        "AdvertiseKeys", "ShareKeys", "announce", "deliver", "UnmaskAnswer", "advertised_list", "shared_list",
        "member-open",
    }
)  # fmt: skip
"""The calls in which something is said that bears on what is known."""


def _times(factor: int) -> str:
    return "" if abs(factor) == 1 else f"{abs(factor)} * "


def _numbers(clients: Iterable[int]) -> str:
    runs = [f"{low}" if low == high else f"{low} to {high}" for low, high in _runs(sorted(clients))]
    return runs[0] if len(runs) == 1 else f"{', '.join(runs[:-1])} and {runs[-1]}"


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Three and more numbers in a row as one run; all others one by one."""
    run: list[int] = []
    for number in [*numbers, None]:
        if run and number != run[-1] + 1:
            yield from [(run[0], run[-1])] if len(run) > 2 else [(each, each) for each in run]
            run = []
        if number is not None:
            run.append(number)
