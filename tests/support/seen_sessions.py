"""Sessions as an observer of the network sees them, made up message by message: no keys, no crypto, any releases."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    Contribution,
    NeighbourKeys,
    SharedList,
    ShareKeys,
    UnmaskAnswer,
)
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.transcript import merkle
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import (
    Absent,
    AdvertiseStatement,
    ContributionHeader,
    MemberAnswer,
    OneShotHeader,
    RootShare,
    SelfMaskShare,
    ShareStatement,
    Signed,
    Statement,
    UnmaskStatement,
)
from simulations.judging.knowledge import View
from simulations.judging.watched import Watched
from simulations.world.cast import client_name
from simulations.world.network import Call

EVIDENCE = LogEvidence(0, (), (), b"")
SHARE = bytes(36)
SELF, ROOT = SelfMaskShare, RootShare


async def _nothing() -> None:
    """What a handler would do."""


def digest(*names: object) -> bytes:
    return hashlib.sha256(repr(names).encode()).digest()


def signed(statement: Statement) -> Signed:
    return Signed(statement, bytes(64))


class Seen:
    """What clients and members say, told to a view, or to whoever watches a world."""

    def __init__(self, view: View | Watched) -> None:
        self.view = view
        self.cast = view.cast if isinstance(view, View) else view.world.cast
        self._sequences: Counter[tuple[str, str]] = Counter()

    def says(self, caller: str, what: str, request: object, reply: object = None) -> None:
        call = Call(caller, "coordinator", what, self._sequences[caller, what])
        self._sequences[caller, what] += 1
        self.view.request(call, request, _nothing)
        self.view.reply(call, reply)

    def identity(self, number: int) -> bytes:
        return self.cast.clients[number].public_bytes

    def uploads(self, number: int, data: bytes) -> None:
        self.says(client_name(number), "deliver", data)


class SeenPairwise(Seen):
    """A pairwise session in which all of ``cohort`` are in U1 and U2, but ``absent`` only in U1.

    ``forged`` are keys that were substituted: to whom, whose, and which ("mask" or "share").
    """

    def __init__(
        self,
        view: View | Watched,
        cohort: Iterable[int],
        absent: Iterable[int] = (),
        forged: Collection[tuple[int, int, str]] = (),
    ) -> None:
        super().__init__(view)
        self.session = self.cast.session.digest
        self.cohort = sorted(cohort, key=self.identity)
        self.absent = frozenset(absent)
        for number in self.cohort:
            mask, share = self.keys(number)
            self.says(client_name(number), "AdvertiseKeys", AdvertiseKeys(self._advertised(number), mask, share))
        leaves = tuple(self._advertised(number).to_bytes() for number in self.cohort)
        self.advertised = merkle.root(leaves)
        for number in self.cohort:
            keys = tuple(
                NeighbourKeys(
                    index, *self.keys(each, [which for to, of, which in forged if (to, of) == (number, each)])
                )
                for index, each in enumerate(self.cohort)
            )
            self.says(client_name(number), "advertised_list", None, AdvertisedList(EVIDENCE, leaves, keys))
        for number in self.cohort:
            if number not in self.absent:
                self.says(client_name(number), "ShareKeys", ShareKeys(self._dealt(number), ()))
        shared = tuple(
            Absent(index).to_bytes() if number in self.absent else self._dealt(number).to_bytes()
            for index, number in enumerate(self.cohort)
        )
        self.shared = merkle.root(shared)
        for number in self.cohort:
            self.says(client_name(number), "shared_list", None, SharedList(EVIDENCE, shared, ()))

    @staticmethod
    def keys(number: int, forged: Collection[str] = ()) -> tuple[bytes, bytes]:
        return digest("mask", number, "mask" in forged), digest("share", number, "share" in forged)

    def _advertised(self, number: int) -> Signed:
        mask, share = (hashlib.sha256(key).digest() for key in self.keys(number))
        return signed(AdvertiseStatement(self.session, self.identity(number), mask, share))

    def _dealt(self, number: int) -> Signed:
        commitments = digest("b", number), digest("rho", number)
        return signed(
            ShareStatement(self.session, self.advertised, self.identity(number), *commitments, digest("boxes", number))
        )

    def index(self, number: int) -> int:
        return self.cohort.index(number)

    def contributes(self, number: int, missing: Iterable[int] = (), version: int = 0) -> None:
        data = digest("upload", number, version)
        without = tuple(sorted(map(self.index, missing)))
        header = ContributionHeader(
            self.session, self.shared, self.identity(number), hashlib.sha256(data).digest(), bytes(32), 1, without
        )
        self.says(client_name(number), "announce", Contribution(signed(header), b""))
        self.uploads(number, data)

    def answers(self, number: int, kinds: Mapping[int, type[SelfMaskShare] | type[RootShare]]) -> None:
        """Releases one share of each client in ``kinds``, of this kind."""
        by_index = sorted((self.index(owner), kind) for owner, kind in kinds.items())
        shares = tuple(kind(index, SHARE) for index, kind in by_index)
        statement = UnmaskStatement(self.session, digest("close"), self.identity(number), shares)
        self.says(client_name(number), "UnmaskAnswer", UnmaskAnswer(signed(statement)))


class SeenOneShot(Seen):
    """A one-shot session; ``header`` is what a client signs."""

    def header(self, number: int, version: int = 0) -> Signed:
        upload = hashlib.sha256(digest("upload", number, version)).digest()
        return signed(
            OneShotHeader(self.cast.session.digest, self.identity(number), upload, bytes(32), 1, (bytes(32),), 0)
        )

    def contributes(self, number: int, version: int = 0) -> None:
        self.says(client_name(number), "announce", OneShotContribution(self.header(number, version), b"", ()))
        self.uploads(number, digest("upload", number, version))

    def answers(self, place: int, numbers: Iterable[int], share_sum: bytes | None = None) -> None:
        """A member's sum over these clients."""
        leaves = tuple(self.header(number).to_bytes() for number in sorted(numbers))
        value = (share_sum or digest("sum", place, leaves)) * 512
        statement = MemberAnswer(
            self.cast.session.digest, digest("close", leaves), self.cast.members[place].public_bytes, value
        )
        self.says("coordinator", "member-open", leaves, signed(statement))
