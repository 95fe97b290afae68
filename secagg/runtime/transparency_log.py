"""The one append-only log of a coordinator: entries become final under a cosigned checkpoint, and never change.

The order of writes, each durable before the next begins:

1. the bundle that gives new entries their place;
2. the signed checkpoint over them, in a private file; only then does it leave the process, towards the witnesses;
3. the tiles;
4. the cosigned checkpoint, which publishes all of it, and only now is an append answered.

After a crash between any two, opening finds the entries that have a place, and they keep it. The same tree is signed
again, and Ed25519 gives the same bytes: no two heads of one size ever exist. What is half done is finished before
anything new is begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from secagg.crypto.notes import log_key, sign_checkpoint
from secagg.crypto.signing import SigningKey
from secagg.runtime.log_ports import (
    CosignError,
    Cosigners,
    LogFiles,
    LogRolledBackError,
    NoCosigners,
)
from secagg.runtime.log_record import filled_between, tile_data, tiles_between
from secagg.runtime.log_state import LogState, open_head, open_log
from secagg.runtime.ports import StoreError
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.evidence import MAX_SEGMENT_ENTRIES, LogEvidence
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.note import Note, NoteError
from secagg.transcript.tiles import MAX_ENTRY_BYTES, tile_path

__all__ = ["CosignError", "Cosigners", "LogFiles", "LogRolledBackError", "NoCosigners", "TransparencyLog"]

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

Report = Callable[[str, str], None]
"""Told of failures of background work: an event and a reason, both constants."""
Pause = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""


@dataclass(frozen=True, slots=True)
class _Append:
    """One call that waits for its entries to be covered."""

    entries: tuple[bytes, ...]
    hashes: tuple[bytes, ...]
    waiter: asyncio.Future[int]


class TransparencyLog:
    """The log with this ``origin`` and ``key``. All methods run in one event loop.

    The constructor reads and checks every file. What a crash left without a published checkpoint is published with
    the first append. After a failure of the disk the files are read and checked again before anything is written.

    Raises:
        StaleLogError: the files are older than, or differ from, what was signed.
        StoreError: files are damaged, foreign, or of another key or origin; nothing was changed.
    """

    def __init__(
        self,
        files: LogFiles,
        cosigners: Cosigners,
        key: SigningKey,
        origin: str,
        report: Report,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._files = files
        self._cosigners = cosigners
        self._key = key
        self._log_key = log_key(origin, key.public_bytes)
        self._report = report
        self._pause = pause
        self._state: LogState = open_log(files, self._log_key)
        self._in_doubt = False
        self._refusal: str | None = None
        self._queue: list[_Append] = []
        self._publisher: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        """How many entries the published checkpoint covers."""
        return self._state.published_size

    async def append(self, entries: Sequence[bytes]) -> int:
        """Put those of ``entries`` that are not in the log yet at its end, in order.

        A caller that is cancelled does not learn the outcome; its entries may become part of the log.

        Returns:
            The index of the last of ``entries``, once a cosigned checkpoint over all of them is published.

        Raises:
            StoreError: an entry is too long or there is none, the disk refuses (try again), or the log has stopped.
        """
        if not entries or max(map(len, entries)) > MAX_ENTRY_BYTES:
            raise StoreError(f"entries: expected one or more, each of at most {MAX_ENTRY_BYTES} bytes")
        if self._refusal is not None:
            raise StoreError(self._refusal)
        hashes = tuple(map(leaf_hash, entries))
        if all(self._state.index.get(digest, self.size) < self.size for digest in hashes):
            return self._state.index[hashes[-1]]
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Append(tuple(entries), hashes, waiter))
        if self._publisher is None or self._publisher.done():
            self._publisher = asyncio.create_task(self._run())
        return await waiter

    def find(self, entry: bytes) -> int | None:
        """The index of ``entry`` if the published checkpoint covers it."""
        index = self._state.index.get(leaf_hash(entry))
        return index if index is not None and index < self.size else None

    def evidence(self, start: int) -> LogEvidence:
        """All entries from index ``start`` on, under the published checkpoint.

        Raises:
            StoreError: nothing is published yet, ``start`` is beyond it, or it is more than a segment.
        """
        checkpoint = self._published()
        if not 0 <= start <= self.size or self.size - start > MAX_SEGMENT_ENTRIES:
            raise StoreError(f"start: {start} is not within the last {MAX_SEGMENT_ENTRIES} of {self.size} entries")
        state = self._state
        return LogEvidence(start, state.tree.frontier(start), state.entries(start, self.size), checkpoint)

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """The proof that the published checkpoint continues the log of ``old_size``. Raises StoreError."""
        if not 0 <= old_size <= self.size:
            raise StoreError(f"old_size: {old_size} is not 0 to {self.size}")
        return self._state.tree.consistency_proof(old_size, self.size)

    def inclusion(self, index: int) -> tuple[tuple[bytes, ...], bytes]:
        """The audit path of an entry and the published checkpoint it leads to. Raises StoreError."""
        checkpoint = self._published()
        if not 0 <= index < self.size:
            raise StoreError(f"index: {index} is not 0 to {self.size - 1}")
        return self._state.tree.inclusion_proof(index, self.size), checkpoint

    async def close(self) -> None:
        """Refuse further appends, end those that wait, let the write under way land; then close the files."""
        self._refusal = self._refusal or "the log is closed"
        if self._publisher is not None:
            self._publisher.cancel()
            await asyncio.gather(self._publisher, return_exceptions=True)
        await self._files.close()

    def _published(self) -> bytes:
        if not self._state.published:
            raise StoreError("nothing has been published yet")
        return self._state.published

    async def _run(self) -> None:
        """Publish until nobody waits."""
        batch: list[_Append] = []
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                try:
                    await self._round(batch)
                except StoreError as error:
                    # What the disk holds now is unknown: read it again before the next write.
                    self._in_doubt = True
                    _refuse(batch, str(error))
                    if self._refusal is not None:
                        break
                    self._report("log-not-written", type(error).__name__)
        finally:
            # Ended from outside, rolled back, or by a bug: nobody must be left waiting.
            if self._queue or any(not append.waiter.done() for append in batch):
                if self._refusal is None:
                    self._refusal = "the log has stopped"
                    self._report("log-stopped", "ended before it was done")
                _refuse(batch + self._queue, self._refusal)
                self._queue = []

    async def _round(self, batch: Sequence[_Append]) -> None:
        """Give the new entries of ``batch`` their places, publish, and answer."""
        if self._in_doubt:
            await self._files.settle()
            self._state = open_log(self._files, self._log_key)
            self._in_doubt = False
        filled = self._state.published_size
        # A head that was signed is published before a larger one exists, so that its tiles do not go missing.
        await self._publish()
        await self._sequence(batch)
        await self._publish()
        for append in batch:
            if not append.waiter.done():
                append.waiter.set_result(self._state.index[append.hashes[-1]])
        # Nobody needs the partial ones any more: "MAY delete any partial tile once the corresponding full tile is
        # available". All of them together would take 128 times the space of the entries.
        leftovers, self._state.leftovers = self._state.leftovers, ()
        await self._files.remove_partials([*leftovers, *filled_between(filled, self._state.published_size)])

    async def _sequence(self, batch: Sequence[_Append]) -> None:
        """Make the entries of ``batch`` that are new durable, in order, each once."""
        new: dict[bytes, bytes] = {}
        for append in batch:
            for digest, entry in zip(append.hashes, append.entries, strict=True):
                if digest not in self._state.index:
                    new.setdefault(digest, entry)
        # One bundle after the other: a later one that is durable proves that the earlier ones are.
        for bundle in self._state.bundles_with(list(new.values())):
            await self._files.add([bundle])
        self._state.extend(new)

    async def _publish(self) -> None:
        """Bring the published checkpoint up to all entries that have a place."""
        state = self._state
        size = state.tree.size
        if size == state.published_size:
            return
        note = self._sign(size)
        if state.signed_note != note.to_bytes():
            await self._files.keep_signed(note.to_bytes())
            state.signed = Checkpoint.parse(note.text)
            state.signed_note = note.to_bytes()
        published = await self._cosigned(note, size)
        tiles = [(tile_path(*tile), tile_data(state.tree, tile)) for tile in tiles_between(state.published_size, size)]
        await self._files.add(tiles)
        await self._files.publish(published)
        state.published, state.published_size = published, size

    def _sign(self, size: int) -> Note:
        """The head over the first ``size`` entries, which must continue the one that was signed last."""
        state = self._state
        last = state.signed
        if last is not None and (last.size > size or state.tree.root(last.size) != last.root):
            raise StoreError(f"a head of {last.size} entries was signed that {size} entries do not continue")
        return sign_checkpoint(self._key, Checkpoint(self._log_key.name, size, state.tree.root(size)))

    async def _cosigned(self, note: Note, size: int) -> bytes:
        """The note with its cosignatures, however long they take."""

        def consistency(old_size: int) -> tuple[bytes, ...]:
            return self._state.tree.consistency_proof(old_size, size)

        pause_s = FIRST_PAUSE_S
        while True:
            try:
                published = note.with_signatures(await self._cosigners.cosign(note, consistency)).to_bytes()
                # What witnesses sent must not spoil the file that everybody reads.
                open_head(published, self._log_key)
            except LogRolledBackError as error:
                self._refusal = (
                    "a witness knows more of this log than its files hold: they are old, the log has stopped"
                )
                self._report("log-rolled-back", type(error).__name__)
                raise StoreError(self._refusal) from error
            except CosignError as error:
                self._report("log-not-cosigned", error.reason)
            except NoteError:
                self._report("log-not-cosigned", "NoteError")
            else:
                return published
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _refuse(appends: Sequence[_Append], reason: str) -> None:
    for append in appends:
        if not append.waiter.done():
            append.waiter.set_exception(StoreError(reason))
