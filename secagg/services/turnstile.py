"""How many large answers are under way at once.

All clients ask for the same list when a phase begins, and gRPC takes an answer as a whole: 1000 of them were 1.2 GiB
of memory at n = 1000, though the machine sends no more than a few at a time. Whoever waits here holds its request only.
"""

from __future__ import annotations

import asyncio

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
        timer = asyncio.get_running_loop().call_later(self._patience_s, self._free.release)

        def leave(_: Context) -> None:
            if not timer.cancelled() and timer.when() > asyncio.get_running_loop().time():
                timer.cancel()
                self._free.release()

        context.add_done_callback(leave)
