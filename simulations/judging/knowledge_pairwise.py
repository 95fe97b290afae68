"""What follows from masked inputs, boxes and answers in a pairwise session.

A masked input is ``x_u + g(b_u) + sum of g(s_uv), u < v, - sum of g(s_vu), v < u`` over the graph neighbours in the U2
that its header names, without those that the header lists as missing. A mask is known to the adversary

- if the client that chose its seed is corrupt, or, of a pair, either end;
- if as many shares of the seed's secret as the threshold are: released ones, and those in boxes that it can open;
- of a pair also if the root of either end is known: seeds follow from one, and boxes open with the other.

A box can be opened by the adversary if its recipient is corrupt, or if the key that the sender was shown for the
recipient is none that the recipient made. A *dealing* is what one client signed in phase SHARE_KEYS: secrets, shares
and seeds belong to it. If a client ever dealt under one statement twice, shares of both would be counted together,
and the adversary be taken for stronger than it is.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass, field

from secagg.derive.graph import MaskingGraph
from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    Contribution,
    NeighbourKeys,
    SharedList,
    ShareKeys,
    UnmaskAnswer,
)
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.transcript import merkle
from secagg.transcript.statements import (
    Absent,
    ContributionHeader,
    SelfMaskShare,
    ShareStatement,
    Signed,
    UnmaskStatement,
    decode_share_leaf,
)
from simulations.judging.linear import Vector, cancelling
from simulations.judging.seen_inputs import Adversary, Input, KnowledgeError, SeenInputs, client_number
from simulations.world.cast import Cast
from simulations.world.network import Call

_SELF, _ROOT = "self-mask", "root"


class _Box(enum.Enum):
    """What an honest client seals to a neighbour."""

    SHARES = enum.auto()
    PAIR_SEED = enum.auto()


@dataclass(frozen=True, slots=True)
class _Cohort:
    """U1 as clients were shown it: its root; who, by index; the graph, the threshold."""

    advertised: bytes
    numbers: tuple[int | None, ...]
    graph: MaskingGraph
    threshold: int


@dataclass(frozen=True, slots=True)
class _Partners:
    """U2 as clients were shown it: the dealing at each index of U1, None where there is none."""

    cohort: _Cohort
    dealings: tuple[bytes | None, ...]

    def index_of(self, client: int) -> int:
        """A client's index in U1."""
        return self.cohort.numbers.index(client)


@dataclass
class _KnownSecrets:
    """Whose shares of which dealing the adversary holds, by dealing and kind, and the threshold of each dealing."""

    holders: dict[tuple[bytes, str], set[int]] = field(default_factory=dict)
    thresholds: dict[bytes, int] = field(default_factory=dict)

    def add(self, dealing: bytes, kind: str, holder: int) -> None:
        """The share of the client at this index."""
        self.holders.setdefault((dealing, kind), set()).add(holder)

    def knows(self, dealing: bytes, kind: str) -> bool:
        """Whether there are enough."""
        return len(self.holders.get((dealing, kind), ())) >= self.thresholds[dealing]


class PairwiseKnowledge:
    """What the adversary has seen of one session."""

    def __init__(self, cast: Cast, adversary: Adversary) -> None:
        if not isinstance(cast.session, PairwiseSession):
            raise KnowledgeError("the session is not pairwise")
        self._cast = cast
        self._session = cast.session
        self._adversary = adversary
        self._inputs: SeenInputs[ContributionHeader] = SeenInputs()
        self._made_keys: dict[int, set[bytes]] = {}
        self._shown_keys: dict[tuple[int, bytes], dict[int, set[NeighbourKeys]]] = {}
        self._dealt: dict[int, dict[Signed, None]] = {}
        self._released: dict[int, list[UnmaskStatement]] = {}
        self._advertised: dict[tuple[bytes, ...], bytes] = {}
        self._shared: dict[tuple[bytes, ...], bytes] = {}
        self._partners: dict[bytes, _Partners] = {}
        self._cohorts: dict[bytes, _Cohort] = {}

    def request(self, call: Call, request: object) -> None:
        """Something that a client says."""
        number = client_number(self._cast, call)
        if number is None or number in self._adversary.clients:
            return
        match request:
            case AdvertiseKeys():
                self._made_keys.setdefault(number, set()).update((request.mask_public, request.share_public))
            case ShareKeys(signed):
                self._dealt.setdefault(number, {})[signed] = None
            case Contribution(Signed(ContributionHeader() as header)):
                self._inputs.announced(number, header)
            case UnmaskAnswer(Signed(UnmaskStatement() as statement)):
                self._released.setdefault(number, []).append(statement)
            case bytes():
                self._inputs.delivered(number, request)
            case _:
                return

    def reply(self, call: Call, reply: object) -> None:
        """A list that a client is shown: what it does next depends on it."""
        number = client_number(self._cast, call)
        if number is None or number in self._adversary.clients:
            return
        if isinstance(reply, AdvertisedList):
            root = self._root_of(self._advertised, reply.leaves)
            shown = self._shown_keys.setdefault((number, root), {})
            for keys in reply.keys:
                shown.setdefault(keys.index, set()).add(keys)
        elif isinstance(reply, SharedList):
            self._root_of(self._shared, reply.leaves)

    def determined(self) -> list[Vector[Input]]:
        """Combinations of honest inputs that span all that is determined."""
        secrets = self._secrets()
        inputs: list[Input] = []
        rows: list[dict[Hashable, int]] = []
        for client in range(self._cast.plan.clients):
            if client in self._adversary.clients:
                continue
            for each, header in self._inputs.of(client):
                inputs.append(each)
                rows.append(self._unknown_masks(client, header, secrets))
        return [{inputs[number]: factor for number, factor in vector.items()} for vector in cancelling(rows)]

    def doubly_opened(self) -> tuple[int, ...]:
        """The honest clients of one of whose dealings both self-mask seed and root are known."""
        secrets = self._secrets()
        return tuple(
            client
            for client, dealt in sorted(self._dealt.items())
            if any(all(secrets.knows(signed.to_bytes(), kind) for kind in (_SELF, _ROOT)) for signed in dealt)
        )

    def branches(self) -> dict[int, bytes]:
        """Under which U1, by its root, each honest client masked; the last of several."""
        found = {}
        for client, headers in self._inputs.headers.items():
            for header in headers:
                found[client] = self._partners_of(client, header.shared).cohort.advertised
        return found

    # What is known.

    def _secrets(self) -> _KnownSecrets:
        secrets = _KnownSecrets()
        for client, dealt in self._dealt.items():
            for signed in dealt:
                self._add_dealt(secrets, client, signed)
        for client, statements in self._released.items():
            headers = self._inputs.headers.get(client, {})
            if not headers:
                raise KnowledgeError(f"client {client}: released shares and signed no header")
            for header in headers:
                partners = self._partners_of(client, header.shared)
                for statement in statements:
                    self._add_released(secrets, partners, client, statement)
        return secrets

    def _add_dealt(self, secrets: _KnownSecrets, client: int, signed: Signed) -> None:
        statement = signed.statement
        if not isinstance(statement, ShareStatement):
            raise KnowledgeError(f"client {client}: a share statement of another kind")
        cohort, dealing = self._cohort_of(client, statement.advertised), signed.to_bytes()
        secrets.thresholds[dealing] = cohort.threshold
        for recipient in cohort.graph.neighbours(cohort.numbers.index(client)):
            if self._can_open(client, cohort, recipient, _Box.SHARES):
                secrets.add(dealing, _SELF, recipient)
                secrets.add(dealing, _ROOT, recipient)

    def _add_released(
        self, secrets: _KnownSecrets, partners: _Partners, client: int, statement: UnmaskStatement
    ) -> None:
        holder = partners.index_of(client)
        for share in statement.shares:
            dealing = partners.dealings[share.index]
            if dealing is not None:
                secrets.add(dealing, _SELF if isinstance(share, SelfMaskShare) else _ROOT, holder)

    def _can_open(self, sender: int, cohort: _Cohort, recipient: int, box: _Box) -> bool:
        """Whether the adversary can open a box of an honest sender to the client at an index."""
        number = cohort.numbers[recipient]
        if number is None or number in self._adversary.clients:
            return True
        made = self._made_keys.get(number, set())
        shown = self._shown_keys.get((sender, cohort.advertised), {}).get(recipient, ())
        return any((keys.share_public if box is _Box.SHARES else keys.mask_public) not in made for keys in shown)

    def _unknown_masks(self, client: int, header: ContributionHeader, secrets: _KnownSecrets) -> dict[Hashable, int]:
        partners = self._partners_of(client, header.shared)
        own = partners.index_of(client)
        dealing = partners.dealings[own]
        if dealing is None:
            raise KnowledgeError(f"client {client}: masked under a list that it is not in")
        masks: dict[Hashable, int] = {} if self._knows(secrets, dealing, _SELF) else {(_SELF, dealing): 1}
        for other in partners.cohort.graph.neighbours(own):
            if partners.dealings[other] is None or other in header.missing:
                continue
            low, high = min(own, other), max(own, other)
            if not self._knows_pair(secrets, partners, low, high):
                masks["pair", partners.dealings[low], high] = 1 if own == low else -1
        return masks

    def _knows_pair(self, secrets: _KnownSecrets, partners: _Partners, low: int, high: int) -> bool:
        cohort = partners.cohort
        ends = cohort.numbers[low], cohort.numbers[high]
        if any(end is None or end in self._adversary.clients for end in ends):
            return True
        dealings = partners.dealings[low], partners.dealings[high]
        if any(dealing is not None and self._knows(secrets, dealing, _ROOT) for dealing in dealings):
            return True
        return ends[0] is None or self._can_open(ends[0], cohort, high, _Box.PAIR_SEED)

    def _knows(self, secrets: _KnownSecrets, dealing: bytes, kind: str) -> bool:
        if dealing not in secrets.thresholds:
            raise KnowledgeError("a list holds what an honest client never dealt")
        return secrets.knows(dealing, kind)

    # The lists.

    def _root_of(self, known: dict[tuple[bytes, ...], bytes], leaves: tuple[bytes, ...]) -> bytes:
        if leaves not in known:
            known[leaves] = merkle.root(leaves)
        return known[leaves]

    def _cohort_of(self, client: int, advertised: bytes) -> _Cohort:
        if advertised not in self._cohorts:
            leaves = next((leaves for leaves, root in self._advertised.items() if root == advertised), None)
            if leaves is None:
                raise KnowledgeError(f"client {client}: dealt under a list of keys that was not shown")
            identities = (Signed.from_bytes(leaf).statement.identity for leaf in leaves)
            self._cohorts[advertised] = _Cohort(
                advertised,
                tuple(map(self._cast.numbers.get, identities)),
                self._session.graph(len(leaves), advertised),
                self._session.graph_parameters(len(leaves)).threshold,
            )
        return self._cohorts[advertised]

    def _partners_of(self, client: int, shared: bytes) -> _Partners:
        if shared not in self._partners:
            leaves = next((leaves for leaves, root in self._shared.items() if root == shared), None)
            if leaves is None:
                raise KnowledgeError(f"client {client}: masked under a list of boxes that was not shown")
            decoded = [(decode_share_leaf(leaf), leaf) for leaf in leaves]
            statements = [each.statement for each, _ in decoded if not isinstance(each, Absent)]
            advertised = {each.advertised for each in statements if isinstance(each, ShareStatement)}
            if len(advertised) != 1:
                raise KnowledgeError(f"client {client}: masked under a list of several cohorts")
            dealings = tuple(None if isinstance(each, Absent) else leaf for each, leaf in decoded)
            self._partners[shared] = _Partners(self._cohort_of(client, advertised.pop()), dealings)
        return self._partners[shared]
