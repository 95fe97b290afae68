"""Where a coordinator finds the institutions of its one-shot sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.runtime.institutions import AuthorityPort, MemberPort


class InstitutionDirectory(Protocol):
    """Finds institutions by their cards (canonical bytes)."""

    def members(self, cards: Sequence[bytes]) -> Sequence[MemberPort]:
        """The members of a committee, in the order of their cards, which is that of the parameters.

        Raises:
            RemoteProtocolError: MALFORMED_MESSAGE; a card is none of a member.
        """
        ...

    def authority(self, card: bytes) -> AuthorityPort:
        """A key authority. Raises as ``members`` does."""
        ...


class NoInstitutions:
    """For coordinators of pairwise sessions: there is nobody to be found."""

    def members(self, cards: Sequence[bytes]) -> Sequence[MemberPort]:
        """Nobody. Raises RemoteProtocolError(NOT_SERVED)."""
        raise RemoteProtocolError(RejectReason.NOT_SERVED, f"{len(cards)} cards, and no institutions here")

    def authority(self, card: bytes) -> AuthorityPort:
        """Nobody. Raises RemoteProtocolError(NOT_SERVED)."""
        raise RemoteProtocolError(RejectReason.NOT_SERVED, f"a card of {len(card)} bytes, and no institutions here")
