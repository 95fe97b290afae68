"""How many large messages are under way at once.

All clients ask for the same list when a phase begins, and gRPC takes an answer as a whole; all uploads begin at once,
and gRPC reads ahead of us. So as many lists or uploads lie in memory as there are clients: 1.2 GiB with 1000 of them.
Whoever waits here holds its request only, or the first 64 KiB of its stream.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from secagg.services.refusals import Context


class Turnstile:
    """Lets ``places`` calls through; a place is free again once a call has ended, or after ``patience_s``.

    The patience is for clients that send or receive slowly, or stop: they must not keep the others waiting.
    """

    def __init__(self, places: int, patience_s: float) -> None:
        self._free = asyncio.Semaphore(places)
        self._patience_s = patience_s

    async def enter(self, context: Context) -> None:
        """Wait for a place, and keep it for the rest of this call."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._patience_s, self._free.release)

        def leave(_: object) -> None:
            if timer.when() > loop.time() and not timer.cancelled():
                timer.cancel()
                self._free.release()

        # The stubs ask for an instance of a class of theirs; gRPC calls whatever it is given.
        context.add_done_callback(cast("Any", leave))


class Places:
    """Streams that are read at a time: so many in all, and so many of each session.

    Whoever waits for one of its session takes none of the others'. ``taken`` and ``waiting`` say how many there are.
    """

    def __init__(self, places: int, of_session: int, wait_s: float) -> None:
        self._all = asyncio.Semaphore(places)
        self._of_session = of_session
        self._wait_s = wait_s
        self.taken = self.waiting = 0
        self._sessions: weakref.WeakValueDictionary[bytes, asyncio.Semaphore] = weakref.WeakValueDictionary()

    @asynccontextmanager
    async def one(self, session: bytes) -> AsyncIterator[None]:
        """A place for as long as the context lasts. Raises TimeoutError: none became free in time."""
        own = self._sessions.setdefault(session, asyncio.Semaphore(self._of_session))
        async with AsyncExitStack() as taken:
            self.waiting += 1
            try:
                async with asyncio.timeout(self._wait_s):
                    await taken.enter_async_context(own)
                    await taken.enter_async_context(self._all)
            finally:
                self.waiting -= 1
            self.taken += 1
            try:
                yield
            finally:
                self.taken -= 1
