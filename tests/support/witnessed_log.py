"""A log for tests of witnesses: it grows, forks, and signs whatever it is told to."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.crypto.notes import log_key, sign_checkpoint
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.merkle import Tree, leaf_hash
from secagg.transcript.note import VerifierKey
from secagg.transcript.witness_request import AddCheckpoint
from tests.support.rng import CountingRng

ORIGIN = "aggregator.example/log"
NOW_S = 1_700_000_000


def key_of(name: str) -> SigningKey:
    """A signing key that follows from a name."""
    return SigningKey(Secret(CountingRng(name.encode()).bytes(32)))


class FixedClock:
    """A clock that stands still until it is set."""

    def __init__(self, now_s: int = NOW_S) -> None:
        self.time_s = now_s

    def now_s(self) -> int:
        return self.time_s


@dataclass(frozen=True)
class History:
    """The entries that one log signs; a fork of it has the same key and other entries."""

    entries: tuple[bytes, ...]
    origin: str = ORIGIN
    signer: str = "log"

    @classmethod
    def of(cls, size: int, origin: str = ORIGIN) -> History:
        return cls(tuple(b"entry %d" % number for number in range(size)), origin)

    @property
    def key(self) -> VerifierKey:
        return log_key(self.origin, key_of(self.signer).public_bytes)

    def fork(self, at: int, label: bytes = b"another") -> History:
        """The same up to ``at``, and other entries from there to the same size."""
        other = tuple(label + b" %d" % number for number in range(at, len(self.entries)))
        return History(self.entries[:at] + other, self.origin, self.signer)

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(self.origin, size, self._tree(size).root)

    def note(self, size: int) -> bytes:
        return sign_checkpoint(key_of(self.signer), self.checkpoint(size)).to_bytes()

    def proof(self, old_size: int, size: int) -> tuple[bytes, ...]:
        return self._tree(size).consistency_proof(old_size)

    def request(self, old_size: int, size: int) -> bytes:
        """An honest add-checkpoint body."""
        return AddCheckpoint(old_size, self.proof(old_size, size), self.note(size)).to_bytes()

    def _tree(self, size: int) -> Tree:
        return Tree([leaf_hash(entry) for entry in self.entries[:size]])
