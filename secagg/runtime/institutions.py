"""The institutions that open sums of one-shot sessions, as a coordinator sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.he.bfv import EncryptionContext
from secagg.he.errors import CiphertextError
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.transcript.openers import PreparedKey
from secagg.transcript.record import RecordError
from secagg.transcript.statements import Signed


class MemberPort(Protocol):
    """A committee member. Refusals are RemoteProtocolErrors, the rest TransportErrors; every call may be repeated."""

    async def log_size(self, origin: str) -> int:
        """Size of the last checkpoint that the member verified of the log with this origin; 0 for none."""
        ...

    async def join(self, session: bytes, files: ShownSessionFiles) -> None:
        """Show it the session; again whenever the log has news for it, such as the session's end.

        Between ``log_size`` and this call another session may have shown it more of the log: then a proof from the
        older size is refused (LOG_FORKED), and the call is worth repeating once with the new size.
        """
        ...

    async def hold(self, session: bytes, items: Sequence[HeldBox]) -> tuple[str, ...]:
        """Hand it boxes; for each, in order, "" if the share is durably held, else the name of the reason why not."""
        ...

    async def open(self, session: bytes, request: OpenRequest) -> Signed:
        """Its signed answer for the closed set."""
        ...


@dataclass(frozen=True, slots=True)
class PreparedContext:
    """An authority's word that it made a key for one session: canonical bytes of the PreparedKey, signature, context.

    Nothing of it is checked before ``checked`` was called.
    """

    prepared: bytes
    signature: bytes
    context: bytes

    def checked(self, session: bytes, coordinator: bytes, identity: bytes) -> bytes:
        """The SHA-256 of the public context, once everything about it is as it must be.

        Raises:
            RemoteProtocolError: the statement is of another session, coordinator or authority, or its signature or its
                context does not belong to it.
        """
        try:
            statement = PreparedKey.from_bytes(self.prepared)
            verify_statement(identity, self.prepared, self.signature)
            EncryptionContext.from_bytes(self.context)
        except RecordError as error:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"prepared: {error}") from None
        except SignatureError:
            raise RemoteProtocolError(RejectReason.BAD_SIGNATURE, "prepared: not signed by the authority") from None
        except CiphertextError as error:
            raise RemoteProtocolError(RejectReason.BAD_KEY, f"context: {error}") from None
        digest = hashlib.sha256(self.context).digest()
        if statement.session != session:
            raise RemoteProtocolError(RejectReason.WRONG_SESSION, "prepared.session: another one")
        if statement != PreparedKey(session, coordinator, identity, digest):
            raise RemoteProtocolError(RejectReason.BAD_KEY, "prepared: of another coordinator, authority or context")
        return digest


@dataclass(frozen=True, slots=True)
class DecryptRequest:
    """Coordinator to authority: open the closed set.

    Attributes:
        files: the log with its close entry, and the roster.
        ciphertext_sum: the sum of the closed set's ciphertexts.
        attestations: those that came.
        committed: signed headers that were committed to, in order.
        contributions: those of the closed set, in order.
        limb_sum: the masked limb sum whose digest is in the close entry, in pieces of any length; read once.
    """

    files: ShownSessionFiles
    ciphertext_sum: bytes
    attestations: tuple[Signed, ...]
    committed: tuple[bytes, ...]
    contributions: tuple[bytes, ...]
    limb_sum: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class DecryptPiece:
    """What comes after the head of a DecryptRequest, each continuing that of the piece before."""

    committed: tuple[bytes, ...] = ()
    contributions: tuple[bytes, ...] = ()
    limb_sum: bytes = b""


class AuthorityPort(Protocol):
    """A key authority. Refusals are RemoteProtocolErrors, the rest TransportErrors; every call may be repeated."""

    async def log_size(self, origin: str) -> int:
        """Size of the last checkpoint that the authority verified of the log with this origin; 0 for none."""
        ...

    async def prepare(self, session: bytes, coordinator: bytes) -> PreparedContext:
        """The key of a session that is about to be opened; checked against the authority's identity."""
        ...

    async def decrypt(self, session: bytes, request: DecryptRequest) -> Signed:
        """Its signed answer for the closed set, unchecked.

        WRONG_OPENING is final: it decided on this set, and what it decrypted does not open the masked sum. So is
        OPENED_BEFORE. Every other refusal is about the request and changed nothing.
        """
        ...


_HEADERS_TOGETHER = 1024
_PIECE_BYTES = 1 << 20


def pieces_of(request: DecryptRequest) -> Iterator[DecryptPiece]:
    """All of a request but its head, in pieces below a megabyte."""
    for start in range(0, len(request.committed), _HEADERS_TOGETHER):
        yield DecryptPiece(committed=request.committed[start : start + _HEADERS_TOGETHER])
    for start in range(0, len(request.contributions), _HEADERS_TOGETHER):
        yield DecryptPiece(contributions=request.contributions[start : start + _HEADERS_TOGETHER])
    for piece in request.limb_sum:
        for start in range(0, len(piece), _PIECE_BYTES):
            yield DecryptPiece(limb_sum=piece[start : start + _PIECE_BYTES])
