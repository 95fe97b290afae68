"""What the transparency log needs: files that survive, and witnesses that cosign."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from secagg.runtime.log_record import RecordReader
from secagg.transcript.note import Note, NoteSignature

ConsistencyProof = Callable[[int], tuple[bytes, ...]]
"""From an older size of the log to the hashes that tie it to the checkpoint at hand."""


class CosignError(Exception):
    """Not enough witnesses cosigned now; ``reason``, a constant, says why. Trying again later may succeed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LogRolledBackError(Exception):
    """A witness knows a larger or another log of this origin than we have: ours went back in time."""


class Cosigners(Protocol):
    """The witnesses whose cosignatures a checkpoint needs."""

    async def cosign(self, checkpoint: Note, consistency: ConsistencyProof) -> tuple[NoteSignature, ...]:
        """The signature lines that make ``checkpoint`` meet the policy; asked again with the same note on failure.

        Raises:
            CosignError: not enough witnesses now.
            LogRolledBackError: a witness contradicts us.
        """
        ...


class NoCosigners:
    """Nobody vouches for the log but its own key."""

    async def cosign(self, checkpoint: Note, consistency: ConsistencyProof) -> tuple[NoteSignature, ...]:
        """No lines."""
        del checkpoint, consistency
        return ()


class LogFiles(RecordReader, Protocol):
    """The files of one log. Reading answers at once; what a writing method did is durable when it returns."""

    def checkpoint(self) -> bytes | None:
        """The published checkpoint, or None before the first."""
        ...

    def last_signed(self) -> bytes | None:
        """The private note that was signed last, whether or not it was published, or None before the first."""
        ...

    async def settle(self) -> None:
        """After a write that failed: make durable whatever of it can be read, before it is read again."""
        ...

    async def add(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Write new published files, each whole or not at all; one that is there with the same bytes stays.

        Raises:
            StoreError: a file is there with other bytes (it is not touched), or the disk refuses.
        """
        ...

    async def keep_signed(self, note: bytes) -> None:
        """Replace the private note, atomically."""
        ...

    async def publish(self, checkpoint: bytes) -> None:
        """Replace the published checkpoint, atomically."""
        ...

    async def remove_partials(self, paths: Sequence[str]) -> None:
        """Remove the partial tiles and bundles of these full ones, if there are any."""
        ...

    async def close(self) -> None:
        """Let go of the files; a second call does nothing."""
        ...
