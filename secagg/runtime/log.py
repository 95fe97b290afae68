"""The log while there are no witnesses: the coordinator signs a head over all entries of a session."""

from __future__ import annotations

from secagg.crypto.signing import SigningKey
from secagg.runtime.ports import SessionKey
from secagg.transcript.head import head_over


class SigningLog:
    """A LogPort that signs. Heads are deterministic, so no two differ for one size."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    async def publish(self, session: SessionKey, entries: tuple[bytes, ...]) -> tuple[bytes, bytes]:
        """Sign the head over ``entries``."""
        head = head_over(self._key.public_bytes, session, entries).to_bytes()
        return head, self._key.sign_statement(head)
