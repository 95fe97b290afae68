"""The key authority machine: a key for one session, one decision, one answer.

Ciphertexts and masked inputs are malleable. So the authority decides for good before it decrypts (``ClosedSum`` is
durable first), checks both conditions on what it decrypted before it says anything, and says it once, also when that is
a refusal: otherwise each refused variant of a closed set would be a question about the key.

Source: design 06-one-shot, "Key authority mode".
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias, assert_never

from secagg.arith.errors import CertificationError
from secagg.crypto.rng import Rng
from secagg.crypto.secret import Secret
from secagg.derive.ring_opening import MaskedSum
from secagg.he.bfv import DecryptionKey
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.authority_states import (
    Answered,
    Authority,
    AuthorityEvent,
    AuthorityState,
    ClosedSum,
    Deciding,
    Ended,
    EndShown,
    Prepared,
    Refused,
    SumCertified,
    SumNotCertified,
)
from secagg.protocol.transition import Transition
from secagg.transcript.openers import PreparedKey
from secagg.transcript.statements import AuthorityAnswer, Signed

AuthorityTransition: TypeAlias = Transition[AuthorityState, None]

_REASONS = {
    "secret": "the decryption is larger than any sum of so many mask secrets",
    "remainder": "the decryption does not open the masked sum",
}


def prepare(authority: Authority, session: bytes, coordinator: bytes, rng: Rng) -> AuthorityTransition:
    """Make the key of a session that is about to be opened; 128 bytes of ``rng``, 5 ms.

    Raises:
        RemoteProtocolError: NOT_SERVED.
        HeUnavailableError: TenSEAL is not installed.
    """
    if coordinator not in authority.policy.coordinators:
        raise RemoteProtocolError(RejectReason.NOT_SERVED, f"coordinator: {coordinator.hex()} is not served here")
    # A fresh key for every session: a malformed ciphertext makes a decryption depend on the key.
    key = DecryptionKey.generate(rng)
    context = hashlib.sha256(key.public_context()).digest()
    return Transition(Prepared(session, coordinator, context, key.to_bytes()))


def public_context(state: AuthorityState) -> bytes:
    """The public half of the key, as long as there is one.

    Raises:
        RemoteProtocolError: SESSION_OVER.
    """
    match state:
        case Prepared():
            return DecryptionKey.from_bytes(state.key).public_context()
        case Deciding():
            return public_context(state.prepared)
        case _:
            raise RemoteProtocolError(RejectReason.SESSION_OVER, "the session was answered; its key is gone")


def statement_of(authority: Authority, prepared: Prepared) -> tuple[bytes, bytes]:
    """The authority's word about a key that it made, and its signature over it; the same every time."""
    identity = authority.key.public_bytes
    body = PreparedKey(prepared.session, prepared.coordinator, identity, prepared.context).to_bytes()
    return body, authority.key.sign_statement(body)


def step(authority: Authority, state: AuthorityState, event: AuthorityEvent) -> AuthorityTransition:
    """The state after ``event``; repetitions change nothing.

    Raises:
        RemoteProtocolError: OPENED_BEFORE; another closed set was decided on.
        LocalProtocolError: a decryption is reported that was not decided on.
    """
    match event:
        case ClosedSum():
            return _decide(state, event)
        case SumCertified():
            deciding = _decided(state, event.close)
            if deciding is None:
                return Transition(state)
            body = AuthorityAnswer(deciding.session, event.close, authority.key.public_bytes, event.secret_sum)
            signed = Signed(body, authority.key.sign_statement(body.to_bytes()))
            return Transition(Answered(event.close, signed))
        case SumNotCertified():
            if _decided(state, event.close) is None:
                return Transition(state)
            return Transition(Refused(event.close, event.reason))
        case EndShown():
            return Transition(Ended()) if isinstance(state, Prepared) else Transition(state)
        case _:
            assert_never(event)


def answer_to(state: AuthorityState, close: bytes) -> Signed | None:
    """What was said of a closed set; None if nothing was said yet and this one may still be decided on.

    Raises:
        RemoteProtocolError: OPENED_BEFORE; another one was decided on. WRONG_OPENING; this one was refused for good.
            SESSION_OVER; the session had ended before anything was decided.
    """
    match state:
        case Prepared():
            return None
        case Ended():
            raise RemoteProtocolError(RejectReason.SESSION_OVER, "the log was seen with the session's end")
        case Deciding() | Answered() | Refused() if state.close != close:
            raise RemoteProtocolError(RejectReason.OPENED_BEFORE, "close: another closed set was decided on")
        case Deciding():
            return None
        case Answered():
            return state.signed
        case Refused():
            raise RemoteProtocolError(RejectReason.WRONG_OPENING, state.reason)
        case _:
            assert_never(state)


def certify(key: Secret, ciphertext_sum: bytes, masked: MaskedSum, close: bytes) -> SumCertified | SumNotCertified:
    """Decrypt, and check both conditions before a word of it is said; 20 ms for 500,000 lanes.

    Args:
        key: that of the Deciding state.
        ciphertext_sum: the ciphertext whose digest the close entry binds, well-formed.
        masked: the masked sum that the same entry binds.
        close: SHA-256 of that entry.

    Raises:
        HeUnavailableError: TenSEAL is not installed.
    """
    secret_sum = DecryptionKey.from_bytes(key).decrypt(ciphertext_sum)
    try:
        masked.certified(secret_sum)
    except CertificationError as error:
        return SumNotCertified(close, _REASONS[error.condition])
    return SumCertified(close, secret_sum.astype("<i4").tobytes())


def _decide(state: AuthorityState, closed: ClosedSum) -> AuthorityTransition:
    # Whatever the state is, no second set: also after a crash between decision and answer.
    if answer_to(state, closed.close) is None and isinstance(state, Prepared):
        return Transition(Deciding(state, closed.session, closed.close))
    return Transition(state)


def _decided(state: AuthorityState, close: bytes) -> Deciding | None:
    """The decision that an outcome belongs to; None if it was recorded before."""
    if isinstance(state, Prepared | Ended) or state.close != close:
        raise LocalProtocolError(RejectReason.WRONG_PHASE, "a decryption that was not decided on")
    return state if isinstance(state, Deciding) else None
