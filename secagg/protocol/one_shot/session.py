"""A one-shot session: the ring masks of its uploads, and who opens the sum."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from secagg.arith.ring_mask import RingMask
from secagg.derive.ring_opening import public_polynomials_key
from secagg.protocol.session import Session
from secagg.transcript.entries import OneShotOpen
from secagg.transcript.openers import Committee, KeyAuthority


@dataclass(frozen=True)
class OneShotSession(Session):
    """Parameters and roster of one one-shot session."""

    parameters: OneShotOpen

    @property
    def opening(self) -> Committee | KeyAuthority:
        """Who opens the sum."""
        return self.parameters.opening

    @property
    def upload_lanes(self) -> int:
        """Lanes of every masked input: whole ring elements."""
        return self.parameters.upload_lanes

    @functools.cached_property
    def ring_mask(self) -> RingMask:
        """Widths and bounds of the masks."""
        return self.parameters.ring_mask()

    @functools.cached_property
    def public_key(self) -> bytes:
        """Keystream key of the public polynomials; nothing about it is secret."""
        return public_polynomials_key(self.digest)

    @property
    def parts(self) -> int:
        """How many sealed parts come with a contribution: a box for each member, or one ciphertext."""
        return len(self.opening.members) if isinstance(self.opening, Committee) else 1
