"""Checks of signed statements and published lists that every protocol shares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import SignedReceipt
from secagg.protocol.session import Session
from secagg.transcript import merkle, statements
from secagg.transcript.entries import SessionClose
from secagg.transcript.record import RecordError
from secagg.transcript.statements import Accepted, Disposition, Receipt, Signed, Statement


def check_signature(signed: Signed, identity: bytes) -> None:
    """Raise RemoteProtocolError(BAD_SIGNATURE) unless ``identity`` signed the statement."""
    try:
        verify_statement(identity, signed.statement.to_bytes(), signed.signature)
    except SignatureError:
        raise RemoteProtocolError(RejectReason.BAD_SIGNATURE, f"identity {identity.hex()[:16]}") from None


def check_statement_session(statement: Statement, session: Session) -> None:
    """Raise RemoteProtocolError(WRONG_SESSION) unless the statement is bound to this session."""
    if statement.session != session.digest:
        raise RemoteProtocolError(RejectReason.WRONG_SESSION)


def roster_position(session: Session, identity: bytes) -> int:
    """Position of an identity in the roster; RemoteProtocolError(UNKNOWN_IDENTITY) if it is not there."""
    position = session.positions.get(identity)
    if position is None:
        raise RemoteProtocolError(RejectReason.UNKNOWN_IDENTITY, identity.hex())
    return position


def check_admitted(session: Session, identity: bytes) -> None:
    """Raise RemoteProtocolError(NOT_ADMITTED) unless the session's merge lets this identity take part."""
    if not session.admits(identity):
        raise RemoteProtocolError(RejectReason.NOT_ADMITTED, identity.hex())


def check_receipt(session: Session, sent: Signed, receipt: SignedReceipt) -> None:
    """Raise RemoteProtocolError(WRONG_RECEIPT) unless the coordinator signed that it holds what ``sent`` announced."""
    expected = Receipt(session.digest, hashlib.sha256(sent.to_bytes()).digest())
    if receipt.receipt != expected.to_bytes():
        raise RemoteProtocolError(RejectReason.WRONG_RECEIPT)
    try:
        verify_statement(session.parameters.coordinator, receipt.receipt, receipt.signature)
    except SignatureError:
        raise RemoteProtocolError(RejectReason.WRONG_RECEIPT, "signature") from None


def check_root(name: str, expected: bytes, leaves: Sequence[bytes]) -> None:
    """Raise RemoteProtocolError(LOG_MISMATCH) unless the leaves have this root."""
    if merkle.root(leaves) != expected:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"{name}: root differs")


def decode_disposition(leaf: bytes) -> Disposition:
    """A leaf of the dispositions. Raises RemoteProtocolError(LOG_MISMATCH)."""
    try:
        return statements.decode_disposition(leaf)
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, str(error)) from None


def published_contributions(entry: SessionClose, leaves: Sequence[bytes]) -> list[Signed]:
    """The accepted headers in set order, out of all dispositions; their signatures are not checked.

    Raises:
        RemoteProtocolError: LOG_MISMATCH; the leaves are not those under the entry's two roots.
    """
    check_root("session-close", entry.dispositions, leaves)
    decoded = map(decode_disposition, leaves)
    accepted = {leaf.index: leaf.contribution for leaf in decoded if isinstance(leaf, Accepted)}
    if contributions_root(accepted) != entry.contributions:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "session-close: contribution root differs")
    return [accepted[index] for index in sorted(accepted)]


def contributions_root(accepted: dict[int, Signed]) -> bytes:
    """Root over the accepted signed headers in ascending order of index."""
    return merkle.root([accepted[index].to_bytes() for index in sorted(accepted)])
