"""A session of honest clients stopped at every phase, and the tools of a coordinator that lies to them.

The session runs once through the real host and machines; what each client knew before each phase is kept. Machines
are pure, so any number of tests can go on from the same moment, each with its own lie. The coordinator's key is at
hand: whatever it could sign, a test can sign.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from secagg.crypto.signing import SigningKey
from secagg.derive.graph import MaskingGraph
from secagg.derive.result import decode
from secagg.protocol.errors import ProtocolError, RejectReason
from secagg.protocol.messages import AdvertisedList, ClosedList, Confirmations, SharedList
from secagg.protocol.pairwise import client, recovery, tables
from secagg.protocol.pairwise.client_states import CLIENT_PERSISTENCE, ClientEvent, ClientState, Confirmed, Send
from secagg.protocol.pairwise.coordinator_states import AnswerRow, Cohort, Row, Unmasking
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import RowKind, row_key
from secagg.protocol.session import ClientPolicy
from secagg.runtime import vectors
from secagg.runtime.memory import MemoryBlobStore
from secagg.transcript import merkle
from secagg.transcript.entries import SessionClose, SessionEntry
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import (
    Accepted,
    ConfirmStatement,
    ContributionHeader,
    Disposition,
    Dropped,
    Rejected,
    RootShare,
    SelfMaskShare,
    Signed,
    Statement,
    UnmaskStatement,
)
from tests.support.cohort import Client, key_of, one_hot, open_cohort, session_of, signed_roster
from tests.support.published import evidence_of
from tests.support.rng import CountingRng

LENIENT = ClientPolicy(tolerated_corrupt=Fraction(0))
"""What is tested is what the session's own parameters promise, not what a client may ask for beyond them."""

UNIT = 16383
"""What a coordinate of 1 becomes: clip norm 1 and 15 bits."""


@dataclass(frozen=True)
class Stage:
    """Everything about one honest session, by index in U1. ``log`` has the entries up to the honest close."""

    session: PairwiseSession
    keys: tuple[SigningKey, ...]
    contexts: tuple[client.ClientContext, ...]
    cohort: Cohort
    rows: dict[int, Row]
    blobs: MemoryBlobStore
    log: tuple[bytes, ...]
    advertised: tuple[ClientState, ...]
    advertised_lists: tuple[AdvertisedList, ...]
    shared: tuple[ClientState, ...]
    shared_lists: tuple[SharedList, ...]
    contributed: tuple[ClientState, ...]
    closed: ClosedList

    @property
    def size(self) -> int:
        return len(self.keys)

    @property
    def threshold(self) -> int:
        return self.cohort.threshold

    @property
    def graph(self) -> MaskingGraph:
        return self.session.graph(self.size, self.cohort.root)


def header_of(stage: Stage, index: int) -> Signed:
    """The signed header that the client uploaded."""
    found = tables.header_at(stage.rows, stage.cohort, index)
    assert found is not None
    return found[0]


@functools.lru_cache(maxsize=8)
def stage_of(
    size: int = 7, min_contributors: int = 4, max_corrupt: int = 1, expected_dropout: Fraction = Fraction(0)
) -> Stage:
    """A session of ``size`` clients, all of whom contribute; index i the unit vector i."""
    keys = sorted_keys(size)
    session = session_of(
        keys,
        dimension=size,
        min_contributors=min_contributors,
        max_corrupt=max_corrupt,
        expected_dropout=expected_dropout,
    )
    return asyncio.run(_play(session, keys))


def sorted_keys(size: int) -> list[SigningKey]:
    """Identity keys in the order of the indices that they will have."""
    return sorted((key_of(f"client {i}") for i in range(size)), key=lambda key: key.public_bytes)


async def _play(session: PairwiseSession, keys: list[SigningKey]) -> Stage:
    size = len(keys)
    cohort = await open_cohort(session, keys, lambda number: one_hot(size, number), LENIENT)
    host, clients = cohort.host, cohort.clients
    cohort.start_all()
    advertised = _states(clients)
    await cohort.advertise(clients)
    await cohort.reach(Phase.SHARE_KEYS)
    advertised_lists = tuple(host.advertised_list(one.identity) for one in clients)
    await cohort.share(clients)
    shared = _states(clients)
    await cohort.reach(Phase.MASKED_INPUT)
    shared_lists = tuple([await host.shared_list(one.identity) for one in clients])
    await cohort.upload(clients)
    await cohort.reach(Phase.CONSISTENCY_CHECK)
    stage = Stage(
        session=session,
        keys=tuple(keys),
        contexts=tuple(one.context for one in clients),
        cohort=host.driver.state.cohort,
        rows=dict(host.rows),
        blobs=cohort.blobs,
        log=host.evidence().entries,
        advertised=advertised,
        advertised_lists=advertised_lists,
        shared=shared,
        shared_lists=shared_lists,
        contributed=_states(clients),
        closed=host.closed_list(),
    )
    for _ in range(50):
        await asyncio.sleep(0)
    await host.close()
    return stage


def _states(clients: Iterable[Client]) -> tuple[ClientState, ...]:
    return tuple(one.state for one in clients if one.state is not None)


def signed_log(session: PairwiseSession, *entries: bytes | SessionEntry, key: SigningKey | None = None) -> LogEvidence:
    """Any entries, after the roster's, under a checkpoint that the coordinator signs."""
    data = tuple(entry if isinstance(entry, bytes) else entry.to_bytes() for entry in entries)
    return evidence_of(key or key_of("coordinator"), data, [signed_roster(session).to_bytes()])


def signed_by(key: SigningKey, statement: Statement) -> Signed:
    """A statement with this key's signature, whatever it says."""
    return Signed(statement, key.sign_statement(statement.to_bytes()))


def dispositions(stage: Stage, accepted: Iterable[int]) -> list[Disposition]:
    """One leaf for each index: accepted as uploaded, everybody else dropped."""
    chosen = set(accepted)
    return [
        Accepted(index, header_of(stage, index)) if index in chosen else Dropped(index, "masked-input")
        for index in range(stage.size)
    ]


def closing(leaves: Sequence[Disposition], session_id: bytes, count: int | None = None) -> SessionClose:
    """The close entry over these dispositions."""
    headers = [leaf.contribution.to_bytes() for leaf in leaves if isinstance(leaf, Accepted)]
    return SessionClose(
        session_id,
        count=len(headers) if count is None else count,
        rejected=sum(isinstance(leaf, Rejected) for leaf in leaves),
        dropped=sum(isinstance(leaf, Dropped) for leaf in leaves),
        contributions=merkle.root(headers),
        dispositions=merkle.root([leaf.to_bytes() for leaf in leaves]),
        limb_sum=bytes(32),
    )


def closed_list(stage: Stage, leaves: Sequence[Disposition], count: int | None = None) -> ClosedList:
    """A close over any dispositions, in a log that starts as the honest one."""
    entry = closing(leaves, stage.session.parameters.session, count)
    return ClosedList(signed_log(stage.session, *stage.log[:3], entry), tuple(leaf.to_bytes() for leaf in leaves))


def close_with(stage: Stage, accepted: Iterable[int]) -> ClosedList:
    """A close that says these are in the sum."""
    return closed_list(stage, dispositions(stage, accepted))


def step(stage: Stage, index: int, state: ClientState, event: ClientEvent) -> client.ClientTransition:
    """What the client does."""
    return client.step(stage.contexts[index], state, event, CountingRng(b"step %d" % index))


def sent(transition: client.ClientTransition) -> Signed:
    """The one signed statement that a step sends."""
    (effect,) = transition.effects
    assert isinstance(effect, Send)
    return effect.message.signed


def refusal(stage: Stage, index: int, state: ClientState, event: ClientEvent) -> RejectReason:
    """Why the client refuses; it must refuse, and stay as it was."""
    before = CLIENT_PERSISTENCE.encode(state)
    with pytest.raises(ProtocolError) as caught:
        step(stage, index, state, event)
    assert CLIENT_PERSISTENCE.encode(state) == before
    return caught.value.reason


def restarted(state: ClientState) -> ClientState:
    """The state as it comes back from a store."""
    return CLIENT_PERSISTENCE.decode(CLIENT_PERSISTENCE.encode(state))


def corrupt_confirmation(stage: Stage, index: int, shown: ClosedList) -> Signed:
    """A client that colludes signs any close."""
    close = hashlib.sha256(shown.evidence.entries[3]).digest()
    statement = ConfirmStatement(stage.session.digest, close, stage.keys[index].public_bytes)
    return signed_by(stage.keys[index], statement)


@dataclass
class Fork:
    """One story that the coordinator tells: a close, to whom it was shown, and what came back."""

    shown: ClosedList
    confirmations: dict[int, Signed]
    answers: dict[int, Signed]


def tell(stage: Stage, shown: ClosedList, audience: Iterable[int], corrupt: Iterable[int] = ()) -> Fork:
    """Show a close to an audience, hand around their confirmations and those of ``corrupt``, collect answers.

    Clients that refuse, or are left out, give nothing.
    """
    confirmations = {index: corrupt_confirmation(stage, index, shown) for index in corrupt}
    confirmed = {}
    for index in audience:
        try:
            transition = step(stage, index, stage.contributed[index], shown)
        except ProtocolError:
            continue
        if isinstance(transition.state, Confirmed):
            confirmed[index] = transition.state
            confirmations[index] = sent(transition)
    answers = {}
    for index, state in confirmed.items():
        around = Confirmations(tuple(signed for other, signed in confirmations.items() if other != index))
        try:
            answers[index] = sent(step(stage, index, state, around))
        except ProtocolError:
            continue
    return Fork(shown, confirmations, answers)


def shares_of(stage: Stage, owner: int, forks: Iterable[Fork], corrupt: Iterable[int] = ()) -> tuple[int, int]:
    """How many different neighbours gave away a share of the self-mask seed and of the root of ``owner``."""
    holders = set(corrupt) & set(stage.graph.neighbours(owner))
    self_masks, roots = set(holders), set(holders)
    for fork in forks:
        for index, answer in fork.answers.items():
            assert isinstance(answer.statement, UnmaskStatement)
            for share in answer.statement.shares:
                if share.index == owner and isinstance(share, SelfMaskShare):
                    self_masks.add(index)
                if share.index == owner and isinstance(share, RootShare):
                    roots.add(index)
    return len(self_masks), len(roots)


def unmasked(stage: Stage, accepted: Sequence[int], forks: Iterable[Fork]) -> list[int]:
    """The sum over ``accepted`` that the answers of all forks open, by the coordinator's own recovery.

    Raises:
        OpeningError: they do not open it.
    """
    rows = dict(stage.rows)
    for fork in forks:
        for index, answer in fork.answers.items():
            rows[row_key(stage.cohort.positions[index], RowKind.ANSWER)] = AnswerRow(answer.to_bytes())
    present = tuple(range(stage.size))
    state = Unmasking(0, stage.cohort, present, tuple(accepted), bytes(32), 0, 0, 0)
    removal = recovery.recover(stage.session, rows, state, stage.blobs.read)
    lanes = np.zeros(stage.session.field_layout.lanes, dtype=np.uint64)
    for index in accepted:
        statement = header_of(stage, index).statement
        assert isinstance(statement, ContributionHeader)
        lanes += np.frombuffer(stage.blobs.get(statement.upload), dtype="<u8")
    vectors.remove_masks(lanes, removal, 1)
    parameters = stage.session.parameters
    return decode(parameters.encoding, parameters.noise, lanes, len(accepted)).integer_sum.tolist()
