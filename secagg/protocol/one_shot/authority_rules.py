"""What a key authority checks before it decides: all of it public, none of it with the key.

Whatever fails here changes nothing and uses up nothing. ``check_request`` is cheap and needs the log and the roster
only; ``check_sets`` recomputes two lists of signed headers whose lengths the log has fixed by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.he.ciphertext_sum import check_ciphertext
from secagg.he.errors import CiphertextError
from secagg.protocol import log
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.one_shot.authority_states import Authority, ClosedSum, SumRequest
from secagg.protocol.one_shot.committed import check_committed
from secagg.protocol.one_shot.messages import ShownSessionFiles
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.published import check_root
from secagg.transcript.entries import ContributionsCommitted, OneShotClose, OneShotOpen, SessionOpen
from secagg.transcript.openers import KeyAuthority, SummedCiphertext
from secagg.transcript.record import RecordError
from secagg.transcript.roster import Roster, RosterHead
from secagg.transcript.statements import Attestation, Signed


@dataclass(frozen=True, slots=True)
class MadeKey:
    """Which session a key was made for; ``context`` is the SHA-256 of its public half."""

    session: bytes
    coordinator: bytes
    context: bytes


@dataclass(frozen=True, slots=True)
class AskedSum:
    """A request whose log, roster and attestations are in order."""

    session: OneShotSession
    view: LogView
    committed: ContributionsCommitted
    close: OneShotClose

    @property
    def close_digest(self) -> bytes:
        """SHA-256 of the close entry."""
        return hashlib.sha256(self.view.close_entry).digest()


def read_open(files: ShownSessionFiles) -> OneShotOpen:
    """The open entry that a session is shown with; nothing of it is verified.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE or WRONG_PROTOCOL.
    """
    if not files.evidence.entries:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "evidence.entries: empty")
    try:
        parameters = SessionOpen.from_bytes(files.evidence.entries[0])
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"evidence.entries[0]: {error}") from None
    if not isinstance(parameters, OneShotOpen):
        raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "protocol: not one-shot")
    opener_of(parameters)
    return parameters


def opener_of(parameters: OneShotOpen) -> KeyAuthority:
    """The authority that opens a session. Raises RemoteProtocolError(WRONG_PROTOCOL) if a committee does."""
    if not isinstance(parameters.opening, KeyAuthority):
        raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, "opening: a committee opens this session")
    return parameters.opening


def check_request(authority: Authority, made: MadeKey | None, request: SumRequest) -> AskedSum:
    """The sum that a request asks for.

    Rules, in this order:

    1. The session is one that this authority serves, and the one that the key was made for.
    2. Its log, under a checkpoint that the authority's own witnesses cosigned, has exactly one entry of each kind up to
       the close and none after it: a second ``contributions-committed`` or close in one log is never answered, first or
       last. The session has not ended.
    3. Its roster is signed by the registrar that the open entry names.
    4. The close counts as many as the session asks for, which is no less than this authority does (1), and no more than
       it takes.
    5. The close binds this ciphertext, which is one.
    6. Enough of the configured attestors, each once, signed that it is the sum of the closed set's ciphertexts.

    Args:
        authority: who is asked.
        made: what its key was made for; None where it has none any more, because the session was answered.
        request: all but the lists.

    Raises:
        RemoteProtocolError: a rule is broken.
    """
    parameters = read_open(request.files)
    _check_served(authority, parameters)
    if made is not None:
        _check_key(made, parameters)
    view = log.join(parameters, authority.policy.log, request.files.evidence)
    committed, close = view.committed, view.close
    if view.result is not None or view.abort is not None:
        raise RemoteProtocolError(RejectReason.SESSION_OVER, "evidence: the session has ended")
    if committed is None or not isinstance(close, OneShotClose):
        raise RemoteProtocolError(RejectReason.WRONG_PHASE, "evidence: the session is not closed")
    _check_count(parameters, committed, close)
    if not isinstance(close.opener, SummedCiphertext):
        raise RemoteProtocolError(RejectReason.WRONG_CIPHERTEXT, "close.opener: names members")
    if hashlib.sha256(request.ciphertext_sum).digest() != close.opener.digest:
        raise RemoteProtocolError(RejectReason.WRONG_CIPHERTEXT, "ciphertext_sum: not the one of the close entry")
    try:
        check_ciphertext(request.ciphertext_sum)
    except CiphertextError as error:
        raise RemoteProtocolError(RejectReason.WRONG_CIPHERTEXT, f"ciphertext_sum: {error}") from None
    # Before the roster is read, which can be long: strangers have no attestations.
    _check_attestations(authority, parameters, close, request.attestations)
    return AskedSum(_session_of(parameters, request.files), view, committed, close)


def check_sets(asked: AskedSum, committed: Sequence[bytes], contributions: Sequence[bytes]) -> ClosedSum:
    """The closed set, if it is what the log says, and part of what was committed to before anything was sent.

    0.15 ms for each contribution.

    Args:
        asked: the request.
        committed: signed headers under the ``contributions-committed`` entry, in order.
        contributions: those under the close entry, in order.

    Raises:
        RemoteProtocolError: LOG_MISMATCH, NOT_COMMITTED, OTHER_CONTRIBUTORS, or as ``check_committed``.
    """
    listed = check_committed(asked.session, asked.view.start, asked.committed, committed)
    check_root("contributions", asked.close.contributions, contributions)
    if len(contributions) != asked.close.count:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "contributions: count differs")
    # Byte for byte what was committed to: nothing in it can depend on what others sent.
    places = {leaf: place for place, leaf in enumerate(committed)}
    before = -1
    for leaf in contributions:
        place = places.get(leaf)
        if place is None:
            raise RemoteProtocolError(RejectReason.NOT_COMMITTED, "contributions: one that was not committed to")
        if place <= before:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "contributions: roster positions out of order")
        before = place
    identities = list(listed)
    asked.session.check_contributors(identities[places[leaf]] for leaf in contributions)
    return ClosedSum(asked.session.digest, asked.close_digest)


def _check_served(authority: Authority, parameters: OneShotOpen) -> None:
    policy = authority.policy
    if opener_of(parameters).identity != authority.key.public_bytes:
        raise RemoteProtocolError(RejectReason.NOT_SERVED, "opening.identity: another authority")
    if parameters.coordinator not in policy.coordinators:
        raise RemoteProtocolError(RejectReason.NOT_SERVED, "coordinator: not served here")
    if policy.registrars and parameters.registrar not in policy.registrars:
        raise RemoteProtocolError(RejectReason.NOT_SERVED, "registrar: not served here")
    if parameters.min_contributors < policy.min_contributors:
        raise RemoteProtocolError(
            RejectReason.BELOW_POLICY,
            f"min_contributors: {parameters.min_contributors}, this authority asks for {policy.min_contributors}",
        )


def _check_key(made: MadeKey, parameters: OneShotOpen) -> None:
    if (parameters.session, parameters.coordinator) != (made.session, made.coordinator):
        raise RemoteProtocolError(RejectReason.WRONG_SESSION, "session: the key was made for another")
    if opener_of(parameters).context != made.context:
        raise RemoteProtocolError(RejectReason.NOT_SERVED, "opening.context: not that of the key made for the session")


def _session_of(parameters: OneShotOpen, files: ShownSessionFiles) -> OneShotSession:
    """The session with its roster, which the registrar that the open entry names has signed."""
    try:
        head = RosterHead.from_bytes(files.roster_head)
        verify_statement(parameters.registrar, files.roster_head, files.roster_signature)
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"roster: {error}") from None
    except SignatureError:
        raise RemoteProtocolError(RejectReason.BAD_SIGNATURE, "roster_signature: not the registrar's") from None
    if head != RosterHead(parameters.registrar, parameters.roster_size, parameters.roster):
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "roster_head: not that of the open entry")
    if len(files.roster) != parameters.roster_size:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "roster: size differs from the open entry")
    try:
        return OneShotSession(parameters, Roster.from_leaves(files.roster))
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"roster: {error}") from None


def _check_count(parameters: OneShotOpen, committed: ContributionsCommitted, close: OneShotClose) -> None:
    count = close.count
    if count < parameters.min_contributors:
        raise RemoteProtocolError(
            RejectReason.BELOW_MINIMUM, f"close.count: {count}, at least {parameters.min_contributors} are asked for"
        )
    if count > parameters.encoding.max_contributors:
        raise RemoteProtocolError(RejectReason.COHORT_FULL, f"close.count: {count}")
    if committed.count > parameters.encoding.max_contributors:
        raise RemoteProtocolError(RejectReason.COHORT_FULL, f"contributions-committed.count: {committed.count}")


def _check_attestations(
    authority: Authority, parameters: OneShotOpen, close: OneShotClose, attestations: Sequence[Signed]
) -> None:
    """Whoever is not configured here counts for nothing, whatever the session's own list says."""
    policy = authority.policy
    needed = max(policy.attestations, opener_of(parameters).attestations)
    session, closed = (hashlib.sha256(entry.to_bytes()).digest() for entry in (parameters, close))
    ciphertext_sum = close.opener.digest if isinstance(close.opener, SummedCiphertext) else b""
    vouching: set[bytes] = set()
    for signed in attestations:
        identity = signed.statement.identity
        due = Attestation(session, closed, identity, ciphertext_sum)
        if identity in policy.attestors and signed.statement == due and _is_signed(signed):
            vouching.add(identity)
    if len(vouching) < needed:
        raise RemoteProtocolError(
            RejectReason.TOO_FEW_ATTESTATIONS, f"attestations: {len(vouching)} count, {needed} are needed"
        )


def _is_signed(signed: Signed) -> bool:
    try:
        verify_statement(signed.statement.identity, signed.statement.to_bytes(), signed.signature)
    except SignatureError:
        return False
    return True
