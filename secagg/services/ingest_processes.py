"""The ingest processes of a coordinator, as it sees them: where each listens, and what it is asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from secagg.runtime.partial_sum import PartialSum
from secagg.runtime.ports import StoreError
from secagg.services.uploads import Route
from secagg.store.ingest_directory import IngestDirectory
from secagg.v1 import ingest_pb2 as pb

_HAND_OVER_S: Final = 60.0
"""A sum of a million lanes is handed over in a tenth of a second. Whoever needs a minute is left out."""


@dataclass(eq=False, slots=True)
class Attachment:
    """One life of an ingest process. It has been told what is in ``orders``, or will be."""

    place: int
    port: int
    directory: IngestDirectory
    orders: asyncio.Queue[pb.AttachResponse] = field(default_factory=asyncio.Queue)
    handing_over: dict[bytes, asyncio.Future[None]] = field(default_factory=dict)

    def ask_for(self, session: bytes) -> asyncio.Future[None]:
        """Ask for the sum of a session; done once it lies in the directory, cancelled if the process is gone."""
        asked = self.handing_over.get(session)
        if asked is None:
            asked = self.handing_over[session] = asyncio.get_running_loop().create_future()
            self.orders.put_nowait(pb.AttachResponse(hand_over=session))
        return asked

    def handed_over(self, session: bytes) -> None:
        """The process has answered."""
        asked = self.handing_over.pop(session, None)
        if asked is not None and not asked.done():
            asked.set_result(None)


class IngestProcesses:
    """``Routes`` and ``Adders``: an upload is one process's as long as that process lives, by its token.

    Args:
        root: where the blobs are, and the directories of the processes.
        count: how many processes there are to be; the coordinator takes the uploads of those that are not there.
        report: told of what failed: event, session, reason.
    """

    def __init__(self, root: Path, count: int, report: Callable[[str, bytes, str], None]) -> None:
        self.count = count
        self._root = root
        self._report = report
        self._attached: dict[int, Attachment] = {}
        self._changed = asyncio.Event()

    def attach(self, place: int, port: int) -> Attachment:
        """A process listens at ``port``."""
        self.detach(self._attached.get(place))
        made = self._attached[place] = Attachment(place, port, IngestDirectory(self._root, place))
        self._changed.set()
        return made

    def detach(self, attachment: Attachment | None) -> None:
        """A process is gone; what it was asked for will not come."""
        if attachment is None:
            return
        if self._attached.get(attachment.place) is attachment:
            del self._attached[attachment.place]
        for asked in attachment.handing_over.values():
            asked.cancel()

    def attached(self, place: int) -> Attachment | None:
        """The process at ``place``, if it is there."""
        return self._attached.get(place)

    async def has_attached(self, place: int) -> None:
        """Wait until the process at ``place`` is there."""
        while place not in self._attached:
            self._changed.clear()
            await self._changed.wait()

    def place_of(self, token: str) -> int:
        """Which process an upload belongs to."""
        return int(token[:8], 16) % self.count

    def of_place(self, place: int, tokens: Iterable[str]) -> list[str]:
        """Those of ``tokens`` that belong to the process at ``place``."""
        return sorted(token for token in tokens if self.count and self.place_of(token) == place)

    def route(self, token: str) -> Route | None:
        """See ``Routes``."""
        attachment = self._attached_for(token)
        if attachment is None:
            return None
        try:
            return Route(attachment.port, attachment.directory.staged_bytes(token))
        except StoreError as error:
            self._report("ingest_unreadable", b"", type(error).__name__)
            return None

    def discard(self, token: str) -> None:
        """See ``Routes``."""
        attachment = self._attached_for(token)
        if attachment is not None:
            attachment.orders.put_nowait(pb.AttachResponse(discard=token))

    def forget(self, session: bytes) -> None:
        """See ``Routes``."""
        for attachment in self._attached.values():
            attachment.orders.put_nowait(pb.AttachResponse(forget=session))

    async def partial_sums(self, session: bytes) -> Sequence[PartialSum]:
        """See ``Adders``."""
        asked = {attachment: attachment.ask_for(session) for attachment in self._attached.values()}
        if not asked:
            return ()
        await asyncio.wait(asked.values(), timeout=_HAND_OVER_S)
        found = []
        for attachment, answer in asked.items():
            if not answer.done() or answer.cancelled():
                self._report("ingest_sum_missing", session, "timeout" if not answer.done() else "ended")
                continue
            try:
                total = await asyncio.to_thread(attachment.directory.take_sum, session)
            except StoreError as error:
                self._report("ingest_sum_missing", session, type(error).__name__)
                continue
            if total is not None:
                found.append(total)
        return found

    def _attached_for(self, token: str) -> Attachment | None:
        return self._attached.get(self.place_of(token)) if self.count else None
