"""How a coordinator talks to one committee member, again and again until it succeeds.

Each member has a courier of its own, so that one that is slow or gone keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.runtime.institutions import MemberPort
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StoreError
from secagg.transcript.statements import Signed

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0

AnswerT = TypeVar("AnswerT")


class Courier:
    """Brings one member its boxes and the closed set.

    Args:
        port: the member.
        session: identifier, 16 bytes.
        origin: of the coordinator's log.
        show: what a member checks before it serves the session, for one that has seen the log up to a size. Blocks.
        failed: hears of calls that failed: what, and why.
    """

    def __init__(
        self,
        port: MemberPort,
        session: bytes,
        origin: str,
        show: Callable[[int], ShownSessionFiles],
        failed: Callable[[str, str], None],
    ) -> None:
        self._port = port
        self._session = session
        self._origin = origin
        self._show = show
        self._failed = failed
        self._joined = False

    async def join(self) -> None:
        """Show the member the session as it is now.

        Raises:
            TransportError, RemoteProtocolError: see ``MemberPort``.
        """
        try:
            await self._show_once()
        except RemoteProtocolError as error:
            if error.reason is not RejectReason.LOG_FORKED:
                raise
            # Another session may have shown it more of the log between the two calls.
            await self._show_once()
        self._joined = True

    async def bring(self, boxes: Sequence[HeldBox]) -> tuple[str, ...]:
        """Hand over boxes, until the member has said something of each: "" where it holds the share."""

        async def attempt() -> tuple[str, ...]:
            if not self._joined:
                await self.join()
            complaints = await self._port.hold(self._session, boxes)
            if len(complaints) != len(boxes):
                raise TransportError("verdicts are missing")
            return complaints

        return await self._persist(attempt)

    async def ask(self, request: Callable[[], OpenRequest]) -> Signed:
        """The member's answer to the closed set."""

        async def attempt() -> Signed:
            return await self._port.open(self._session, await asyncio.to_thread(request))

        return await self._persist(attempt)

    async def _persist(self, attempt: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        return await persist(attempt, self._refused, self._failed)

    def _refused(self, _reason: RejectReason) -> None:
        # It does not serve this session, or has forgotten it: it may yet, when it is shown it again.
        self._joined = False

    async def _show_once(self) -> None:
        size = await self._port.log_size(self._origin)
        await self._port.join(self._session, await asyncio.to_thread(self._show, size))


async def persist(
    attempt: Callable[[], Awaitable[AnswerT]],
    refused: Callable[[RejectReason], None],
    failed: Callable[[str, str], None],
) -> AnswerT:
    """Call an institution until it answers, or the task is cancelled.

    Args:
        attempt: the call.
        refused: hears of refusals; what it raises ends the attempts.
        failed: hears of every call that failed: what, and why.
    """
    delay_s = _FIRST_DELAY_S
    while True:
        try:
            return await attempt()
        except (TransportError, StoreError, OSError) as error:
            failed("institution_unreachable", type(error).__name__)
        except RemoteProtocolError as error:
            failed("institution_refused", error.reason.name)
            refused(error.reason)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
