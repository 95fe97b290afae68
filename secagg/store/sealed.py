"""Sessions encrypted at rest, over any other store.

Every cell - the state, a row, an effect - is a box of its own::

    cell = version (8 bytes) || position (8) || nonce (12) || AES-256-GCM(ciphertext || tag)
    key  = HKDF-SHA256(store key, STORE_CELL_KEY, session)
    associated data = encode_fields(STORE_CELL, kind (1), session (16), version (8) || position (8))

with ``version`` the version of the commit that wrote the cell and ``position`` the row's index, the effect's
place in its commit, or 0; integers are big-endian. A key for each session keeps random 96-bit nonces below the 2^32
invocations that NIST SP 800-38D
(section 8.3) allows.

What this gives: whoever reads the disk learns lengths, counts, versions, identifiers of sessions and times of
writing, nothing of the content. Whoever writes the disk cannot make a cell, nor move one to another session,
kind, row or place; the state is the one of the stored version, no row is from a later version, and no effect
comes twice or out of order.

What it does not give: a writer of the disk can put back an older content of a row, drop rows and effects, or
put back a whole older session. Rows are written one by one so that a step costs O(1), and nothing outside the
disk remembers them. ``epoch`` notices honest restores, not forged ones.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label, encode_fields
from secagg.crypto.secret import Secret
from secagg.runtime.ports import Commit, SessionKey, SessionStore, StoredSession, StoreError

KEY_BYTES = 32
_SESSION_BYTES = 16
_INTEGER_BYTES = 8
_NONCE_BYTES = 12
_HEADER_BYTES = 2 * _INTEGER_BYTES
_TAG_BYTES = 16
OVERHEAD_BYTES = _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES


class _Kind(enum.Enum):
    """What a cell is."""

    STATE = b"s"
    ROW = b"r"
    EFFECT = b"e"


class SealedSessionStore:
    """A ``SessionStore`` whose ``inner`` store sees ciphertexts only (the module says what that is worth).

    ``key`` has 32 bytes and serves one store; ``read_random(n)`` returns ``n`` fresh bytes from a CSPRNG.
    Closing ``inner`` stays with whoever opened it.
    """

    def __init__(self, inner: SessionStore, key: bytes, read_random: Callable[[int], bytes]) -> None:
        if len(key) != KEY_BYTES:
            raise StoreError(f"key of the store: expected {KEY_BYTES} bytes, got {len(key)}")
        self._inner = inner
        self._key = Secret(key)
        self._read_random = read_random

    async def sessions(self) -> Sequence[SessionKey]:
        """See ``SessionStore.sessions``."""
        return await self._inner.sessions()

    async def load(self, session: SessionKey) -> StoredSession | None:
        """See ``SessionStore.load``.

        Raises:
            StoreError: a cell does not open: it was damaged, moved, or sealed under another key.
        """
        stored = await self._inner.load(session)
        if stored is None:
            return None
        box = _SessionBox(self._key, session, self._read_random)
        written, _, state = box.open(_Kind.STATE, "state", stored.state)
        if written != stored.version:
            raise StoreError(f"{_name(session, 'state')}: from version {written}, stored {stored.version}")
        rows = {row: _open_row(box, row, cell, stored.version) for row, cell in stored.rows.items()}
        return StoredSession(stored.version, state, rows, _open_effects(box, stored))

    async def commit(self, session: SessionKey, expected_version: int, commit: Commit) -> Sequence[int]:
        """See ``SessionStore.commit``."""
        box = _SessionBox(self._key, session, self._read_random)
        version = expected_version + 1
        sealed = Commit(
            box.seal(_Kind.STATE, version, 0, commit.state),
            {row: box.seal(_Kind.ROW, version, row, content) for row, content in commit.rows.items()},
            [box.seal(_Kind.EFFECT, version, place, effect) for place, effect in enumerate(commit.effects)],
        )
        return await self._inner.commit(session, expected_version, sealed)

    async def effect_done(self, session: SessionKey, effect: int) -> None:
        """See ``SessionStore.effect_done``."""
        await self._inner.effect_done(session, effect)


class _SessionBox:
    """Seals and opens the cells of one session."""

    def __init__(self, key: Secret, session: SessionKey, read_random: Callable[[int], bytes]) -> None:
        if len(session) != _SESSION_BYTES:
            raise StoreError(f"session: expected {_SESSION_BYTES} bytes, got {len(session)}")
        self.session = session
        self._aead = AESGCM(derive(key, Label.STORE_CELL_KEY, session).expose())
        self._read_random = read_random

    def seal(self, kind: _Kind, version: int, position: int, content: bytes) -> bytes:
        if not (0 <= version < 1 << 63 and 0 <= position < 1 << 63):
            raise StoreError("version, row: expected a number from 0 to 2^63 - 1")
        header = version.to_bytes(_INTEGER_BYTES, "big") + position.to_bytes(_INTEGER_BYTES, "big")
        nonce = self._read_random(_NONCE_BYTES)
        return header + nonce + self._aead.encrypt(nonce, content, self._associated(kind, header))

    def open(self, kind: _Kind, name: str, cell: bytes) -> tuple[int, int, bytes]:
        """Version, position and content of ``cell``; ``name`` is for the error."""
        header, nonce = cell[:_HEADER_BYTES], cell[_HEADER_BYTES : _HEADER_BYTES + _NONCE_BYTES]
        sealed = cell[_HEADER_BYTES + _NONCE_BYTES :]
        if len(sealed) < _TAG_BYTES:
            raise StoreError(f"{_name(self.session, name)}: not a sealed cell")
        try:
            content = self._aead.decrypt(nonce, sealed, self._associated(kind, header))
        except InvalidTag as error:
            raise StoreError(f"{_name(self.session, name)}: does not open under this key") from error
        version, position = header[:_INTEGER_BYTES], header[_INTEGER_BYTES:]
        return int.from_bytes(version, "big"), int.from_bytes(position, "big"), content

    def _associated(self, kind: _Kind, header: bytes) -> bytes:
        return encode_fields(Label.STORE_CELL, kind.value, self.session, header)


def _open_row(box: _SessionBox, row: int, cell: bytes, version: int) -> bytes:
    written, position, content = box.open(_Kind.ROW, f"row {row}", cell)
    if position != row:
        raise StoreError(f"{_name(box.session, f'row {row}')}: is row {position}")
    if written > version:
        raise StoreError(f"{_name(box.session, f'row {row}')}: from version {written}, stored {version}")
    return content


def _open_effects(box: _SessionBox, stored: StoredSession) -> Sequence[tuple[int, bytes]]:
    effects = []
    last = (0, -1)
    for identifier, cell in stored.effects:
        name = f"effect {identifier}"
        written, position, content = box.open(_Kind.EFFECT, name, cell)
        if written > stored.version or (written, position) <= last:
            raise StoreError(f"{_name(box.session, name)}: out of order")
        last = (written, position)
        effects.append((identifier, content))
    return effects


def _name(session: SessionKey, cell: str) -> str:
    return f"session {session.hex()}, {cell}"
