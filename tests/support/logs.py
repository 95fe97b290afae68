"""Logs for tests: a key, an entry for each number, witnesses that do what they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secagg.crypto.notes import cosign, log_key, open_checkpoint
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.runtime.log_ports import Cosigners, LogFiles, NoCosigners
from secagg.runtime.transparency_log import TransparencyLog
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import Note, NoteSignature

ORIGIN = "log.example/secagg"
KEY = SigningKey(Secret(b"k" * 32))
WITNESS = SigningKey(Secret(b"w" * 32))
LOG_KEY = log_key(ORIGIN, KEY.public_bytes)


def entry(number: int) -> bytes:
    return b"entry %d" % number


def entries(start: int, end: int) -> list[bytes]:
    return [entry(number) for number in range(start, end)]


def root(size: int) -> bytes:
    return merkle.root(entries(0, size))


def head_of(note: bytes) -> Checkpoint:
    return open_checkpoint(note, LOG_KEY, ()).checkpoint


def open_log(
    files: LogFiles, cosigners: Cosigners | None = None, report: Callable[[str, str], None] = lambda *_: None, **options
) -> TransparencyLog:
    return TransparencyLog(files, cosigners or NoCosigners(), KEY, ORIGIN, report, **options)


class Witness:
    """Cosigns what it is shown and keeps it; raises the next of ``failures`` first, as long as there are any.

    It checks every proof: a log that it cosigned is only ever continued.
    """

    def __init__(self, failures: Sequence[Exception] = (), watch: Callable[[Note], object] = lambda _: None) -> None:
        self.shown: list[bytes] = []
        self._failures = list(failures)
        self._watch = watch
        self._last = Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT)

    async def cosign(
        self, checkpoint: Note, consistency: Callable[[int], tuple[bytes, ...]]
    ) -> tuple[NoteSignature, ...]:
        self.shown.append(checkpoint.to_bytes())
        self._watch(checkpoint)
        if self._failures:
            raise self._failures.pop(0)
        head = head_of(checkpoint.to_bytes())
        old = self._last
        merkle.verify_consistency(old.size, old.root, head.size, head.root, consistency(old.size))
        self._last = head
        return (cosign(WITNESS, "witness.example", checkpoint.text, 1_700_000_000 + head.size),)
