"""Other processes that take uploads of a session and add them up; what they hand over is still masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from secagg.runtime.partial_sum import PartialSum
from secagg.runtime.ports import SessionKey


class Adders(Protocol):
    """The processes beside this one. Nothing depends on them but time: what they lose is read from the blobs."""

    async def partial_sums(self, session: SessionKey) -> Sequence[PartialSum]:
        """What they have added up of a session, which they forget; those that do not answer in time are left out."""
        ...


class NoAdders:
    """Everything is added up here."""

    async def partial_sums(self, session: SessionKey) -> Sequence[PartialSum]:  # noqa: ARG002
        """Nothing."""
        return ()
