"""A committee member's boxes and journal in memory, for tests and simulations: nothing survives the process."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from secagg.runtime.member_ports import OpeningLine
from secagg.runtime.ports import SessionKey, StoreError


class MemoryBoxStore:
    """A ``BoxStore`` in dictionaries."""

    def __init__(self) -> None:
        self._rosters: dict[SessionKey, bytes] = {}
        self._boxes: dict[SessionKey, list[bytes]] = {}
        self._lock = threading.Lock()

    def keep_roster(self, session: SessionKey, lines: bytes) -> None:
        """See ``BoxStore.keep_roster``."""
        with self._lock:
            self._rosters[session] = lines

    def roster(self, session: SessionKey) -> bytes:
        """See ``BoxStore.roster``."""
        lines = self._rosters.get(session)
        if lines is None:
            raise StoreError(f"session {session.hex()}: there is no roster")
        return lines

    def append(self, session: SessionKey, boxes: Sequence[bytes]) -> int:
        """See ``BoxStore.append``."""
        with self._lock:
            held = self._boxes.setdefault(session, [])
            if len({len(box) for box in (*held[:1], *boxes)}) > 1:
                raise StoreError(f"session {session.hex()}: boxes of several lengths")
            held.extend(boxes)
            return len(held) - len(boxes)

    def read(self, session: SessionKey, box_bytes: int, first: int, count: int) -> bytes:
        """See ``BoxStore.read``."""
        data = b"".join(self._boxes.get(session, [])[first : first + count])
        if len(data) != box_bytes * count:
            raise StoreError(f"session {session.hex()}: slots {first} to {first + count - 1} are not all there")
        return data

    def delete(self, session: SessionKey) -> None:
        """See ``BoxStore.delete``."""
        with self._lock:
            self._boxes.pop(session, None)

    def sessions(self) -> Sequence[SessionKey]:
        """See ``BoxStore.sessions``."""
        return sorted(self._boxes)


class MemoryJournal:
    """An ``OpeningJournal`` in a list."""

    def __init__(self) -> None:
        self.lines: list[OpeningLine] = []
        self._lock = threading.Lock()

    def add(self, line: OpeningLine) -> None:
        """See ``OpeningJournal.add``."""
        with self._lock:
            known = {(each.session, each.close, each.outcome) for each in self.lines}
            if (line.session, line.close, line.outcome) not in known:
                self.lines.append(line)
