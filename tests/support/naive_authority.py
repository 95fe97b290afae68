"""The naive form of the key authority mode, which the rules of the real one are made against.

A model for tests, deliberately without them: uploads count as they come, one key serves for ever, whatever is asked is
decrypted, and as often as it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secagg.crypto.rng import Rng
from secagg.derive.ring_opening import MaskedSum
from secagg.he.bfv import DecryptionKey, EncryptionContext
from secagg.protocol.one_shot.session import OneShotSession
from tests.support.authority_stage import Upload, total_ciphertext


class NaiveAuthority:
    """Decrypts for everybody."""

    def __init__(self, rng: Rng) -> None:
        self._key = DecryptionKey.generate(rng)

    @property
    def context(self) -> EncryptionContext:
        """The public key, of every session."""
        return EncryptionContext.from_bytes(self._key.public_context())

    def decrypted(self, uploads: Sequence[Upload]) -> np.ndarray:
        """What the ciphertexts of these uploads add up to, unchecked: int64[4096]."""
        return self._key.decrypt(total_ciphertext(each.ciphertext for each in uploads))


def opened(session: OneShotSession, uploads: Sequence[Upload], secret_sum: np.ndarray) -> np.ndarray:
    """The lanes that such a decryption opens, by the very certification that honest sums pass.

    Raises:
        CertificationError: it opens nothing.
    """
    lanes = np.sum([each.lanes for each in uploads], axis=0, dtype=np.uint64)
    return MaskedSum(session.ring_mask, session.public_key, lanes, len(uploads)).certified(secret_sum)
