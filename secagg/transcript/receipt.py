"""What a contributor keeps: its contribution is in the closed set, and the close entry is in the log.

A receipt is a proof file (``secagg.transcript.proof``) of the session-close entry whose extra line holds the canonical
bytes of a ``ContributionProof``. Nothing authenticates the extra line, and nothing has to: the proof is for the close
entry in it, and the contribution is under that entry's root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secagg.transcript.encoding import MAX_CONTRIBUTORS
from secagg.transcript.entries import OneShotClose, SessionClose, decode_entry
from secagg.transcript.merkle import leaf_hash, verify_inclusion
from secagg.transcript.record import Record, RecordError, hex_codec, integer_field, list_field, record_field, text_field
from secagg.transcript.statements import ContributionHeader, OneShotHeader, Signed

_MAX_CLOSE_BYTES = 4096
_MAX_PATH = 28


@dataclass(frozen=True, slots=True)
class ContributionProof(Record):
    """The close entry, verbatim, and the path of one signed header under its root of contributions.

    ``position`` counts in set order: accepted contributions by ascending index. Whether they fit each other is for
    ``verify`` to say.
    """

    TYPE: ClassVar[str] = "contribution-proof"
    close: str = text_field(_MAX_CLOSE_BYTES)
    contribution: Signed = record_field(Signed)
    position: int = integer_field(0, MAX_CONTRIBUTORS - 1)
    path: tuple[bytes, ...] = list_field(hex_codec(32), _MAX_PATH)

    def check(self) -> None:
        """A close entry, and a header of the same protocol: what else is signed has no place here."""
        header = OneShotHeader if isinstance(self.closing(), OneShotClose) else ContributionHeader
        if not isinstance(self.contribution.statement, header):
            raise RecordError("contribution-proof.contribution", "not of a contribution")

    def closing(self) -> SessionClose:
        """The close entry, of either protocol. Raises RecordError."""
        try:
            entry = decode_entry(self.close.encode("utf-8"))
        except RecordError as error:
            raise RecordError("contribution-proof.close", str(error)) from None
        if not isinstance(entry, SessionClose):
            raise RecordError("contribution-proof.close", f"an entry of type {entry.TYPE}")
        return entry

    def verify(self) -> None:
        """Check that the contribution is under the root of the close entry.

        Raises:
            ProofError: it is not, at this position of as many as the entry counts.
        """
        closing = self.closing()
        leaf = leaf_hash(self.contribution.to_bytes())
        verify_inclusion(leaf, self.position, closing.count, self.path, closing.contributions)
