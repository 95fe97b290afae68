"""A coordinator's log and record in memory, and evidence that a lying one could make up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from secagg.crypto.notes import sign_checkpoint
from secagg.crypto.signing import SigningKey
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.memory_log import MemoryLogFiles
from secagg.runtime.ports import LogPort
from secagg.runtime.transparency_log import NoCosigners, TransparencyLog
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import LogEntry, decode_entry
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.policy import LogPolicy

ORIGIN = "log.example/secagg"
NO_WITNESSES = LogPolicy.without_witnesses()


def memory_log(key: SigningKey) -> TransparencyLog:
    """A log that nobody cosigns and that forgets everything with the process."""
    return TransparencyLog(MemoryLogFiles(), NoCosigners(), key, ORIGIN, lambda *_: None)


def trusting() -> LogTrust:
    """A client's trust that asks for no witness."""
    return LogTrust.nobody()


def evidence_of(key: SigningKey, entries: Sequence[bytes], before: Sequence[bytes] = ()) -> LogEvidence:
    """Any entries, after any others, under a checkpoint that this key signs."""
    frontier = merkle.Frontier()
    for entry in before:
        frontier.append(merkle.leaf_hash(entry))
    root = merkle.root([*before, *entries])
    note = sign_checkpoint(key, Checkpoint(ORIGIN, len(before) + len(entries), root))
    return LogEvidence(len(before), frontier.hashes, tuple(entries), note.to_bytes())


class HeldLog:
    """A ``LogPort`` around another: an append hangs for ever where ``holds`` says so of its last entry.

    ``taken`` keeps what was to be appended. ``after`` decides whether the log has taken it by then.
    """

    def __init__(self, inner: LogPort, holds: Callable[[LogEntry], object] = lambda _: False, *, after: bool) -> None:
        self.taken: list[bytes] = []
        self._inner, self._holds, self._after = inner, holds, after

    @property
    def size(self) -> int:
        return self._inner.size

    def evidence(self, start: int) -> LogEvidence:
        return self._inner.evidence(start)

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        return self._inner.consistency(old_size)

    async def append(self, entries: Sequence[bytes]) -> int:
        self.taken.append(entries[-1])
        held = self._holds(decode_entry(entries[-1]))
        if held and not self._after:
            await asyncio.Event().wait()
        index = await self._inner.append(entries)
        if held:
            await asyncio.Event().wait()
        return index
