"""Client machines of one-shot sessions, and a coordinator that signs whatever a test wants the log to say."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from secagg.arith.linear_hash import HASH_BYTES
from secagg.crypto.notes import cosign
from secagg.crypto.signing import SigningKey
from secagg.derive.member_boxes import box_bytes
from secagg.protocol import log
from secagg.protocol.log import LogView
from secagg.protocol.messages import SignedReceipt
from secagg.protocol.one_shot import client
from secagg.protocol.one_shot.client_states import (
    Committed,
    InputMasked,
    OneShotClientEffect,
    OneShotClientEvent,
    OneShotClientState,
)
from secagg.protocol.one_shot.messages import CommittedList
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.session import ClientPolicy
from secagg.transcript import merkle
from secagg.transcript.entries import ContributionsCommitted, SessionEntry
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.note import Note
from secagg.transcript.openers import Committee, KeyAuthority, PreparedKey
from secagg.transcript.statements import OneShotHeader, Receipt, Signed
from tests.support.cohort import key_of
from tests.support.one_shot import NOW_S, WITNESS, WITNESS_NAME, WITNESSED
from tests.support.one_shot_cohort import COORDINATOR, one_shot_parameters
from tests.support.published import evidence_of
from tests.support.rng import CountingRng

KEYS = tuple(sorted((key_of(f"contributor {number}") for number in range(5)), key=lambda key: key.public_bytes))
"""In the order of their roster positions."""
COORDINATOR_KEY = key_of(COORDINATOR)
ATTESTOR = key_of("attestor")
AUTHORITY_KEY = key_of("authority")


def authority_of(context: bytes) -> KeyAuthority:
    """The authority, which made the key of this context (SHA-256) for the session of these tests."""
    identity = AUTHORITY_KEY.public_bytes
    session, coordinator = CountingRng(b"one-shot session").bytes(16), COORDINATOR_KEY.public_bytes
    prepared = AUTHORITY_KEY.sign_statement(PreparedKey(session, coordinator, identity, context).to_bytes())
    return KeyAuthority("authority", identity, context, prepared, (ATTESTOR.public_bytes,), 1)


AUTHORITY = authority_of(bytes(32))


def one_shot_session(**changes: Any) -> OneShotSession:
    """A session of five, opened by any three of four members unless ``opening`` says otherwise."""
    return OneShotSession(*one_shot_parameters(KEYS, **changes))


def trusting_policy(session: OneShotSession, **changes: Any) -> ClientPolicy:
    """A policy that pins whoever opens the session."""
    opening = session.opening
    openers = [each.identity for each in opening.members] if isinstance(opening, Committee) else [opening.identity]
    return ClientPolicy(**{"openers": frozenset(openers), **changes})


def context_of(session: OneShotSession, number: int = 0, policy: ClientPolicy | None = None) -> Any:
    return client.OneShotClientContext(KEYS[number], session, policy or trusting_policy(session), WITNESSED)


def shown(session: OneShotSession, *entries: SessionEntry | bytes, key: SigningKey = COORDINATOR_KEY) -> LogEvidence:
    """The log with the session's open entry and then these."""
    written = [entry if isinstance(entry, bytes) else entry.to_bytes() for entry in entries]
    evidence = evidence_of(key, [session.entry, *written])
    note = Note.parse(evidence.checkpoint)
    cosigned = note.with_signatures((cosign(WITNESS, WITNESS_NAME, note.text, NOW_S),))
    return dataclasses.replace(evidence, checkpoint=cosigned.to_bytes())


def first_view(session: OneShotSession) -> LogView:
    return log.join(session.parameters, WITNESSED, shown(session))


def masked_of(session: OneShotSession, number: int) -> InputMasked:
    """What the runtime could report of an input: right in its lengths, and different for everybody."""

    def filler(name: str, length_bytes: int) -> bytes:
        return hashlib.shake_256(f"{name} of {number}".encode()).digest(length_bytes)

    if isinstance(session.opening, Committee):
        lengths = [box_bytes(session.opening, place) for place in range(len(session.opening.members))]
    else:
        lengths = [1000]
    parts = tuple(filler(f"part {place}", length) for place, length in enumerate(lengths))
    return InputMasked(filler("upload", 32), session.upload_lanes, filler("hash", HASH_BYTES), parts)


def header_of(session: OneShotSession, number: int, /, **changes: Any) -> OneShotHeader:
    """The header that contributor ``number`` signs, altered."""
    masked = masked_of(session, number)
    digests = tuple(hashlib.sha256(part).digest() for part in masked.parts)
    linear_hash = hashlib.sha256(masked.linear_hash).digest()
    header = OneShotHeader(
        session.digest, KEYS[number].public_bytes, masked.digest, linear_hash, masked.lanes, digests, 0
    )
    return dataclasses.replace(header, **changes)


def signed_header(session: OneShotSession, number: int, /, key: SigningKey | None = None, **changes: Any) -> Signed:
    header = header_of(session, number, **changes)
    return Signed(header, (key or KEYS[number]).sign_statement(header.to_bytes()))


def committed_list(session: OneShotSession, leaves: Sequence[Signed | bytes], **entry: Any) -> CommittedList:
    """A list under an entry of its own, of which members can be altered."""
    written = tuple(leaf if isinstance(leaf, bytes) else leaf.to_bytes() for leaf in leaves)
    logged = ContributionsCommitted(session.parameters.session, max(2, len(written)), merkle.root(written))
    return CommittedList(shown(session, dataclasses.replace(logged, **entry)), written)


def receipt_for(session: OneShotSession, sent: Signed, /, key: SigningKey = COORDINATOR_KEY, **changes: Any) -> Any:
    receipt = Receipt(session.digest, hashlib.sha256(sent.to_bytes()).digest())
    receipt = dataclasses.replace(receipt, **changes)
    return SignedReceipt(receipt.to_bytes(), key.sign_statement(receipt.to_bytes()))


class Speaker:
    """One machine; every effect that it ever asked for, in order."""

    def __init__(self, session: OneShotSession, number: int = 0, policy: ClientPolicy | None = None) -> None:
        self.session, self.number = session, number
        self.context = context_of(session, number, policy)
        self.effects: list[OneShotClientEffect] = []
        self.state: OneShotClientState
        self._take(client.start(self.context, first_view(session), CountingRng(b"speaker %d" % number)))

    def feed(self, event: OneShotClientEvent) -> OneShotClientState:
        self._take(client.step(self.context, self.state, event))
        return self.state

    def mask(self) -> Signed:
        """Report the masked input; the header that was signed over it."""
        self.feed(masked_of(self.session, self.number))
        return self.state.sent

    def _take(self, transition: client.OneShotClientTransition) -> None:
        self.state = transition.state
        self.effects.extend(transition.effects)


def committed_speaker() -> Speaker:
    """A machine in a session with an authority, which waits for the list."""
    speaker = Speaker(one_shot_session(opening=AUTHORITY))
    speaker.mask()
    assert isinstance(speaker.state, Committed)
    return speaker
