"""The client machine of pairwise sessions.

``start`` and ``step`` are pure: clock, storage and transport stay outside, randomness is an argument. The phases
follow Bonawitz et al. 2017 (ePrint 2017/281) on the sparse graph of Bell et al. 2020 (ePrint 2020/704); what is
added against a coordinator that lies is written at each rule.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import assert_never

from secagg.arith.linear_hash import HASH_BYTES
from secagg.crypto.rng import Rng
from secagg.crypto.sealing import SealingKey
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.boxes import mask_key_seed, pair_mask_keystream, pair_seed, self_mask_keystream
from secagg.protocol import log
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    ClosedList,
    Confirmations,
    ConfirmClose,
    Contribution,
    SessionEnded,
    SharedList,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.pairwise import dealing, lists
from secagg.protocol.pairwise.client_states import (
    Abandoned,
    Aborted,
    Advertised,
    Answered,
    ClientEffect,
    ClientEvent,
    ClientState,
    Completed,
    Confirmed,
    Contributed,
    InputMasked,
    Masking,
    MaskInput,
    Place,
    Send,
    SharedKeys,
)
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.published import check_receipt, check_signature, check_statement_session
from secagg.protocol.session import ClientPolicy
from secagg.protocol.transition import Transition
from secagg.transcript.policy import LogPolicy
from secagg.transcript.statements import (
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    RootShare,
    SelfMaskShare,
    Signed,
    Statement,
    UnmaskStatement,
)

ClientTransition = Transition[ClientState, ClientEffect]


@dataclass(frozen=True, slots=True)
class ClientContext:
    """What a client machine is told from outside and never stores: its key, the session, its policy.

    ``log`` says which logs and how many of which witnesses a checkpoint must come from.
    """

    identity: SigningKey
    session: PairwiseSession
    policy: ClientPolicy
    log: LogPolicy


def start(context: ClientContext, view: LogView, rng: Rng) -> ClientTransition:
    """Join: draw the root ``rho`` and the share key, and advertise both public keys.

    Raises:
        LocalProtocolError: the session is below the client's policy, or does not admit its identity.
    """
    parameters = context.session.parameters
    context.policy.check_parameters(parameters)
    if context.identity.public_bytes not in context.session.positions:
        raise LocalProtocolError(RejectReason.UNKNOWN_IDENTITY)
    if not context.session.admits(context.identity.public_bytes):
        raise LocalProtocolError(RejectReason.NOT_ADMITTED)
    if view.entries[0] != context.session.entry:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "open entry differs from the session joined")
    root, share_seed = Secret(rng.bytes(32)), Secret(rng.bytes(32))
    mask_public = SealingKey(mask_key_seed(root, context.session.digest)).public_bytes
    share_public = SealingKey(share_seed).public_bytes
    signed = _sign(
        context,
        AdvertiseStatement(
            context.session.digest,
            context.identity.public_bytes,
            hashlib.sha256(mask_public).digest(),
            hashlib.sha256(share_public).digest(),
        ),
    )
    message = AdvertiseKeys(signed, mask_public, share_public)
    return Transition(Advertised(view, signed, root, share_seed), (Send(message),))


def step(context: ClientContext, state: ClientState, event: ClientEvent, rng: Rng) -> ClientTransition:
    """The state after ``event``.

    Raises:
        RemoteProtocolError: the coordinator broke a rule; the state stands as it was.
        LocalProtocolError: the event does not belong to this state, or going on would be unsafe.
    """
    if isinstance(state, Completed | Aborted):
        raise LocalProtocolError(RejectReason.SESSION_OVER)
    match event:
        case Abandoned(reason):
            return Transition(_aborted(state, state.view, reason))
        case AdvertisedList():
            return _advertised(context, state, event, rng)
        case SharedList():
            return _shared(context, state, event, rng)
        case InputMasked():
            return _masked(context, state, event)
        case SignedReceipt():
            return _acknowledged(context, state, event)
        case ClosedList():
            return _closed(context, state, event)
        case Confirmations():
            return _confirmations(context, state, event)
        case SessionEnded():
            return _ended(context, state, event)
        case _:
            assert_never(event)


def _advertised(context: ClientContext, state: ClientState, event: AdvertisedList, rng: Rng) -> ClientTransition:
    if not isinstance(state, Advertised):
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "U1 was seen before")
    session = context.session
    view = log.extend(state.view, session.parameters, context.log, event.evidence)
    entry = view.advertised
    if entry is None:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "no keys-advertised entry")
    statements = session.once(lists.check_advertised, session, entry, event.leaves)
    members = tuple(statement.identity for statement in statements)
    if context.identity.public_bytes not in members:
        raise RemoteProtocolError(RejectReason.OWN_ENTRY_MISSING, "keys-advertised")
    index = members.index(context.identity.public_bytes)
    # A substituted key of our own shows here; one of a neighbour shows against its signed digest below.
    if event.leaves[index] != state.sent.to_bytes():
        raise RemoteProtocolError(RejectReason.OWN_ENTRY_MISSING, "keys-advertised alters our statement")
    context.policy.check_cohort(session.parameters, len(members))
    dealer = dealing.Dealer(session, entry.root, Place(members, index), state.root)
    keys = dealing.check_neighbour_keys(dealer, statements, event.keys)
    self_mask = Secret(rng.bytes(32))
    message = dealing.deal(dealer, context.identity, self_mask, keys, rng)
    shared = SharedKeys(view, dealer.place, message.signed, state.root, state.share_seed, self_mask)
    return Transition(shared, (Send(message),))


def _shared(context: ClientContext, state: ClientState, event: SharedList, rng: Rng) -> ClientTransition:
    if not isinstance(state, SharedKeys):
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "U2 was seen before, or not yet due")
    session, place = context.session, state.place
    view = log.extend(state.view, session.parameters, context.log, event.evidence)
    advertised, shared = view.advertised, view.shared
    if advertised is None or shared is None:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "no keys-shared entry")
    statements = session.once(lists.check_shared, session, shared, event.leaves, place.members, advertised.root)
    if event.leaves[place.index] != state.sent.to_bytes():
        raise RemoteProtocolError(RejectReason.OWN_ENTRY_MISSING, "keys-shared")
    dealer = dealing.Dealer(session, advertised.root, place, state.root)
    received = dealing.open_inbox(dealer, statements, event.inbox, SealingKey(state.share_seed))
    neighbours = [index for index in dealer.neighbours if statements[index] is not None]
    missing = tuple(index for index in neighbours if index not in received)
    # Fewer than t mask neighbours, and the coordinator could gather what it needs to be alone with us.
    if len(received) < dealer.threshold:
        raise RemoteProtocolError(RejectReason.TOO_FEW_NEIGHBOURS, f"{len(received)} of at least {dealer.threshold}")
    add, subtract = [], []
    for other, item in received.items():
        if other > place.index:
            add.append(pair_mask_keystream(pair_seed(state.root, session.digest, other), session.digest))
        elif item.pair_seed is not None:
            subtract.append(pair_mask_keystream(item.pair_seed, session.digest))
    present = tuple(index for index, statement in enumerate(statements) if statement is not None)
    held = tuple(item.shares for item in received.values())
    effect = MaskInput(
        rounding=Secret(rng.bytes(32)),
        self_mask=self_mask_keystream(state.self_mask, session.digest),
        add=tuple(add),
        subtract=tuple(subtract),
    )
    return Transition(Masking(view, place, present, missing, held), (effect,))


def _masked(context: ClientContext, state: ClientState, event: InputMasked) -> ClientTransition:
    if not isinstance(state, Masking):
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "an input was masked before")
    if event.lanes != context.session.field_layout.lanes:
        raise LocalProtocolError(RejectReason.WRONG_LENGTH, f"{event.lanes} lanes")
    if len(event.linear_hash) != HASH_BYTES:
        raise LocalProtocolError(RejectReason.WRONG_LINEAR_HASH, f"{len(event.linear_hash)} bytes")
    shared = state.view.shared
    if shared is None:
        raise LocalProtocolError(RejectReason.WRONG_PHASE)
    header = ContributionHeader(
        context.session.digest,
        shared.root,
        context.identity.public_bytes,
        event.digest,
        hashlib.sha256(event.linear_hash).digest(),
        event.lanes,
        state.missing,
    )
    signed = _sign(context, header)
    contributed = Contributed(state.view, state.place, state.present, state.shares, signed)
    # The hash travels in the effect, which is kept until it is delivered: after a crash the same bytes are sent again.
    return Transition(contributed, (Send(Contribution(signed, event.linear_hash)),))


def _acknowledged(context: ClientContext, state: ClientState, event: SignedReceipt) -> ClientTransition:
    """A receipt changes nothing but must be right: it is the contributor's evidence against a refusal later."""
    if isinstance(state, Advertised | SharedKeys | Masking):
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "nothing was contributed yet")
    if isinstance(state, Contributed):
        check_receipt(context.session, state.sent, event)
    return Transition(state)


def _closed(context: ClientContext, state: ClientState, event: ClosedList) -> ClientTransition:
    if not isinstance(state, Contributed):
        # One answer for each session: whoever confirmed once never looks at another close entry.
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "a close entry was confirmed before, or is not due")
    session, place = context.session, state.place
    view = log.extend(state.view, session.parameters, context.log, event.evidence)
    if view.abort is not None:
        return Transition(_aborted(state, view, RejectReason.ABORTED))
    entry, shared, advertised = view.close, view.shared, view.advertised
    if entry is None or shared is None or advertised is None:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "no session-close entry")
    accepted = session.once(lists.check_closed, session, entry, event.leaves, place.members)
    if accepted.get(place.index) != state.sent:
        # A state, not an error: whoever was left out of one close entry never looks at another, also after a crash.
        return Transition(_aborted(state, view, RejectReason.LEFT_OUT))
    graph = session.graph(len(place.members), advertised.root)
    present = frozenset(state.present)
    headers: dict[int, ContributionHeader] = {}
    for index, signed in accepted.items():
        header = signed.statement
        if index not in present or not isinstance(header, ContributionHeader):
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"index {index} contributed without shared keys")
        neighbours = frozenset(graph.neighbours(index)) & present if header.missing else frozenset[int]()
        lists.check_header(session, header, shared.root, index, neighbours)
        headers[index] = header
    if lists.asymmetric_edges(graph, headers):
        raise RemoteProtocolError(RejectReason.ASYMMETRIC_EDGE)
    statement = ConfirmStatement(session.digest, view.close_digest, context.identity.public_bytes)
    confirmed = Confirmed(view, place, tuple(accepted), state.shares)
    return Transition(confirmed, (Send(ConfirmClose(_sign(context, statement))),))


def _confirmations(context: ClientContext, state: ClientState, event: Confirmations) -> ClientTransition:
    if not isinstance(state, Confirmed):
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "nothing to answer, or answered before")
    session, place, advertised = context.session, state.place, state.view.advertised
    if advertised is None:
        raise LocalProtocolError(RejectReason.WRONG_PHASE)
    others = {place.members[index]: index for index in state.accepted if index != place.index}
    close = state.view.close_digest
    confirmed: set[int] = set()
    for signed in event.signed:
        statement = signed.statement
        if not isinstance(statement, ConfirmStatement) or statement.identity not in others:
            raise RemoteProtocolError(RejectReason.NOT_IN_COHORT, "a confirmation of nobody else in the sum")
        check_statement_session(statement, session)
        if statement.close != close:
            raise RemoteProtocolError(RejectReason.LOG_FORKED, "another close entry was confirmed")
        session.once(check_signature, signed, statement.identity)
        confirmed.add(others[statement.identity])
    graph = session.graph(len(place.members), advertised.root)
    neighbours = confirmed.intersection(graph.neighbours(place.index))
    threshold = session.graph_parameters(len(place.members)).threshold
    if len(neighbours) < threshold:
        raise RemoteProtocolError(
            RejectReason.TOO_FEW_CONFIRMATIONS, f"{len(neighbours)} neighbours of at least {threshold}"
        )
    # Neighbours alone leave room for forks: parts of a sparse graph could each be told of another close entry.
    quorum = session.quorum(len(place.members))
    if len(confirmed) + 1 < quorum:
        raise RemoteProtocolError(
            RejectReason.TOO_FEW_CONFIRMATIONS, f"{len(confirmed) + 1} of the cohort of at least {quorum}"
        )
    answered = Answered(state.view, len(state.accepted))
    return Transition(answered, (Send(UnmaskAnswer(_sign(context, _answer(context, state)))),))


def _answer(context: ClientContext, state: Confirmed) -> UnmaskStatement:
    """One share for each neighbour, of the kind that the close entry decides; nobody can ask for a kind."""
    accepted = frozenset(state.accepted)
    shares = tuple(
        SelfMaskShare(held.index, held.self_mask.expose())
        if held.index in accepted
        else RootShare(held.index, held.root.expose())
        for held in state.shares
    )
    return UnmaskStatement(context.session.digest, state.view.close_digest, context.identity.public_bytes, shares)


def _ended(context: ClientContext, state: ClientState, event: SessionEnded) -> ClientTransition:
    view = log.extend(state.view, context.session.parameters, context.log, event.evidence)
    if view.abort is not None:
        return Transition(_aborted(state, view, RejectReason.ABORTED))
    if view.result is None:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "neither a result nor an abort entry")
    return Transition(Completed(view, _answered_over(state)))


def _aborted(state: ClientState, view: LogView, reason: RejectReason) -> Aborted:
    return Aborted(view, reason, _answered_over(state), not isinstance(state, Advertised | SharedKeys))


def _answered_over(state: ClientState) -> int:
    return state.contributions if isinstance(state, Answered) else 0


def _sign(context: ClientContext, statement: Statement) -> Signed:
    return Signed(statement, context.identity.sign_statement(statement.to_bytes()))
