"""Committee members as a simulated coordinator reaches them: they may lie, and so may the coordinator to them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.runtime.institutions import MemberPort
from secagg.runtime.participant import TransportError
from secagg.transcript.statements import MemberAnswer, Signed
from simulations.exploring.operations import MemberLie
from simulations.world.cast import Cast

Asked = Callable[[int, OpenRequest], tuple[OpenRequest, ...]]
"""What a coordinator asks a member for instead, in order: place, the honest request."""


class FalseMember:
    """A ``MemberPort``; the answer that the coordinator's host gets is the first to an honest request.

    Args:
        cast: everybody; its key signs a corrupt member's lies.
        place: which member.
        port: the network.
        lies: looked up at every call.
        asked: what the coordinator asks for.
    """

    def __init__(self, cast: Cast, place: int, port: MemberPort, lies: set[MemberLie], asked: Asked) -> None:
        self._cast = cast
        self._place = place
        self._port = port
        self._lies = lies
        self._asked = asked

    async def log_size(self, origin: str) -> int:
        """See ``MemberPort.log_size``."""
        self._check_speaking()
        return await self._port.log_size(origin)

    async def join(self, session: bytes, files: ShownSessionFiles) -> None:
        """See ``MemberPort.join``."""
        self._check_speaking()
        await self._port.join(session, files)

    async def hold(self, session: bytes, items: Sequence[HeldBox]) -> tuple[str, ...]:
        """See ``MemberPort.hold``."""
        self._check_speaking()
        if MemberLie.FALSE_HOLDING in self._lies:
            return ("",) * len(items)
        said = await self._port.hold(session, items)
        if MemberLie.COMPLAINS in self._lies:
            return (RejectReason.SHARE_NOT_HELD.name,) * len(items)
        return said

    async def open(self, session: bytes, request: OpenRequest) -> Signed:
        """See ``MemberPort.open``."""
        self._check_speaking()
        honest: Signed | None = None
        for each in self._asked(self._place, request):
            if each is request:
                honest = await self._port.open(session, each)
                continue
            with contextlib.suppress(RemoteProtocolError):
                await self._port.open(session, each)
        if honest is None:
            raise TransportError("the coordinator never asked honestly")
        return self._falsified(honest) if MemberLie.WRONG_SUM in self._lies else honest

    def _falsified(self, signed: Signed) -> Signed:
        answer = signed.statement
        if not isinstance(answer, MemberAnswer):
            return signed
        wrong = dataclasses.replace(answer, share_sum=bytes([answer.share_sum[0] ^ 1]) + answer.share_sum[1:])
        return Signed(wrong, self._cast.members[self._place].sign_statement(wrong.to_bytes()))

    def _check_speaking(self) -> None:
        if MemberLie.SILENT in self._lies:
            raise TransportError("the member does not answer")
