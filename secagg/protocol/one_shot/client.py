"""The client machine of one-shot sessions: join, mask, send once, leave.

``start`` and ``step`` are pure: clock, storage and transport stay outside, randomness is an argument. Where a key
authority opens the sum, the client first signs the digests of what it will send, and sends it only once the log fixes
everybody's: nothing that anybody sends can then depend on what others sent (design 06-one-shot, commit, then upload).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import assert_never

from secagg.arith.linear_hash import HASH_BYTES
from secagg.crypto.rng import Rng
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.member_boxes import SEED_BYTES, box_bytes
from secagg.protocol import log
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.messages import SessionEnded, SignedReceipt
from secagg.protocol.one_shot.client_states import (
    Abandoned,
    Aborted,
    Committed,
    Contributed,
    Delivered,
    InputMasked,
    Masking,
    MaskInput,
    OneShotClientEffect,
    OneShotClientEvent,
    OneShotClientState,
    Send,
)
from secagg.protocol.one_shot.committed import check_committed
from secagg.protocol.one_shot.messages import CommitContribution, CommittedList, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.published import check_receipt
from secagg.protocol.session import ClientPolicy
from secagg.protocol.transition import Transition
from secagg.transcript.openers import Committee, KeyAuthority
from secagg.transcript.policy import LogPolicy
from secagg.transcript.statements import OneShotHeader, Signed

OneShotClientTransition = Transition[OneShotClientState, OneShotClientEffect]


@dataclass(frozen=True, slots=True)
class OneShotClientContext:
    """What a client machine is told from outside and never stores: its key, the session, its policy.

    ``log`` says which logs and how many of which witnesses a checkpoint must come from.
    """

    identity: SigningKey
    session: OneShotSession
    policy: ClientPolicy
    log: LogPolicy


def start(context: OneShotClientContext, view: LogView, rng: Rng) -> OneShotClientTransition:
    """Join: draw all seeds and have the input masked; nothing is sent yet.

    Raises:
        LocalProtocolError: the session is below the client's policy, or does not admit its identity; or an authority
            opens it and the log policy asks for no witness.
        RemoteProtocolError: LOG_MISMATCH; the log opens another session than the one joined.
    """
    session = context.session
    session.once(context.policy.check_parameters, session.parameters)
    if isinstance(session.opening, KeyAuthority) and context.log.is_met_by(()):
        # In a fork with another list of commitments the authority would decrypt what somebody made to fit ours.
        raise LocalProtocolError(
            RejectReason.LOG_UNWITNESSED, "the log policy asks for no witness; with a key authority it has to"
        )
    if context.identity.public_bytes not in session.positions:
        raise LocalProtocolError(RejectReason.UNKNOWN_IDENTITY)
    if not session.admits(context.identity.public_bytes):
        raise LocalProtocolError(RejectReason.NOT_ADMITTED)
    if view.entries[0] != session.entry:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "open entry differs from the session joined")
    shares = session.opening.needed - 1 if isinstance(session.opening, Committee) else 0
    effect = MaskInput(
        rounding=Secret(rng.bytes(SEED_BYTES)),
        mask=Secret(rng.bytes(SEED_BYTES)),
        shares=tuple(Secret(rng.bytes(SEED_BYTES)) for _ in range(shares)),
    )
    return Transition(Masking(view), (effect,))


def step(
    context: OneShotClientContext, state: OneShotClientState, event: OneShotClientEvent
) -> OneShotClientTransition:
    """The state after ``event``.

    Raises:
        RemoteProtocolError: the coordinator broke a rule; the state stands as it was.
        LocalProtocolError: the event does not belong to this state, or going on would be unsafe.
    """
    if isinstance(state, Delivered | Aborted):
        raise LocalProtocolError(RejectReason.SESSION_OVER)
    match event:
        case Abandoned(reason):
            return Transition(Aborted(state.view, reason))
        case InputMasked():
            return _masked(context, state, event)
        case CommittedList():
            return _committed(context, state, event)
        case SignedReceipt():
            return _acknowledged(context, state, event)
        case SessionEnded():
            return _ended(context, state, event)
        case _:
            assert_never(event)


def _masked(context: OneShotClientContext, state: OneShotClientState, event: InputMasked) -> OneShotClientTransition:
    if not isinstance(state, Masking):
        # One header for each session: whoever signed one never signs another, whatever was masked since.
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "an input was masked before")
    session = context.session
    if event.lanes != session.upload_lanes:
        raise LocalProtocolError(RejectReason.WRONG_LENGTH, f"{event.lanes} lanes, expected {session.upload_lanes}")
    if len(event.linear_hash) != HASH_BYTES:
        raise LocalProtocolError(RejectReason.WRONG_LINEAR_HASH, f"{len(event.linear_hash)} bytes")
    _check_parts(session, event.parts)
    header = OneShotHeader(
        session.digest,
        context.identity.public_bytes,
        event.digest,
        hashlib.sha256(event.linear_hash).digest(),
        event.lanes,
        tuple(hashlib.sha256(part).digest() for part in event.parts),
        state.view.start,
    )
    signed = Signed(header, context.identity.sign_statement(header.to_bytes()))
    if isinstance(session.opening, KeyAuthority):
        committed = Committed(state.view, signed, event.linear_hash, event.parts)
        return Transition(committed, (Send(CommitContribution(signed)),))
    return _contribute(state.view, OneShotContribution(signed, event.linear_hash, event.parts))


def _contribute(view: LogView, message: OneShotContribution) -> OneShotClientTransition:
    # Hash and parts travel in the effect, which is kept until it is delivered: after a crash the same bytes are sent.
    return Transition(Contributed(view, message.signed), (Send(message),))


def _check_parts(session: OneShotSession, parts: tuple[bytes, ...]) -> None:
    """As many as there are openers, and boxes of the right lengths; a ciphertext's is its format's business."""
    if len(parts) != session.parts:
        raise LocalProtocolError(RejectReason.WRONG_PARTS, f"{len(parts)} parts, expected {session.parts}")
    if isinstance(session.opening, Committee):
        for place, part in enumerate(parts):
            if len(part) != box_bytes(session.opening, place):
                raise LocalProtocolError(RejectReason.WRONG_BOX_LENGTH, f"parts[{place}]")


def _committed(
    context: OneShotClientContext, state: OneShotClientState, event: CommittedList
) -> OneShotClientTransition:
    if not isinstance(state, Committed):
        # One list for each session: whoever acted on one never looks at another.
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "the committed list was seen before, or is not due")
    view = log.extend(state.view, context.session.parameters, context.log, event.evidence)
    if view.abort is not None:
        return Transition(Aborted(view, RejectReason.ABORTED))
    if view.committed is None:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "no contributions-committed entry")
    listed = check_committed(context.session, view.start, view.committed, event.leaves)
    own = listed.get(context.identity.public_bytes)
    if own is None:
        # A state, not an error: whoever was left out of one list never looks at another, also after a crash.
        return Transition(Aborted(view, RejectReason.LEFT_OUT))
    if own != state.sent:
        raise RemoteProtocolError(RejectReason.OWN_ENTRY_MISSING, "contributions-committed alters our header")
    return _contribute(view, OneShotContribution(state.sent, state.linear_hash, state.parts))


def _acknowledged(
    context: OneShotClientContext, state: OneShotClientState, event: SignedReceipt
) -> OneShotClientTransition:
    """The receipt ends the client's part; it is kept as evidence against a refusal later."""
    if not isinstance(state, Contributed):
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "nothing was contributed yet")
    check_receipt(context.session, state.sent, event)
    return Transition(Delivered(state.view, state.sent, event))


def _ended(context: OneShotClientContext, state: OneShotClientState, event: SessionEnded) -> OneShotClientTransition:
    """The session ended before this client had its receipt: whatever is held of it, nothing more will be sent."""
    view = log.extend(state.view, context.session.parameters, context.log, event.evidence)
    if view.abort is not None:
        return Transition(Aborted(view, RejectReason.ABORTED))
    if view.result is None:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "neither a result nor an abort entry")
    return Transition(Aborted(view, RejectReason.SESSION_OVER))
