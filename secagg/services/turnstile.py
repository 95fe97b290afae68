"""How many large answers are under way at once.

All clients ask for the same list when a phase begins, and gRPC takes an answer as a whole, so that as many lists lie
in memory as clients ask at once. Whoever waits here holds its request only.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from secagg.services.refusals import Context


class Turnstile:
    """Lets ``places`` calls through; a place is free again once the answer is sent, or after ``patience_s``.

    The patience is for clients that take their answer slowly, or never: they must not keep the others from theirs.
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
