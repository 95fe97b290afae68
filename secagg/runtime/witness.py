"""A witness: the rules of c2sp.org/tlog-witness, without network and disk.

A witness signs one history of a log and no other. Its whole promise is in the order of three steps: compare with what
it signed last, make the new checkpoint durable, answer. A cosignature leaves this module only after ``advance``.

Three decisions where the text leaves room:

- Same size with another root is 422, as the text of July 2026 has it; older text said 409.
- A cosignature says that, as of its time, nothing larger was seen. A clock that went back would make two of them
  contradict each other, so the time of a log's cosignatures never decreases: a clock that is a little behind is held
  at the last time, and one that is far behind is not used at all.
- What is remembered is the cosigned note itself. It proves its own origin: a state file that was altered, or that
  belongs to another witness or another log key, is refused and never read as "nothing seen yet".
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from secagg.crypto.notes import Witnessed, cosign, open_checkpoint, witness_key
from secagg.crypto.signing import SigningKey
from secagg.runtime.clock import Clock
from secagg.runtime.ports import StoreError, VersionConflictError
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.merkle import EMPTY_ROOT, ProofError, verify_consistency
from secagg.transcript.note import Note, NoteError, NoteSignature, SignatureType, VerifierKey
from secagg.transcript.witness_request import AddCheckpoint

SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
CLOCK_TOLERANCE_S = 300
"""How far the clock may be behind the last cosignature before the witness stops trusting it."""
_ATTEMPTS = 3


class WitnessState(Protocol):
    """What a witness must not forget: the last note it cosigned, for each origin."""

    def latest(self, origin: str) -> bytes | None:
        """The last note, or None if there never was one. Raises StoreError."""
        ...

    def advance(self, origin: str, expected: bytes | None, new: bytes) -> None:
        """Replace ``expected`` by ``new``; durable when it returns.

        Raises:
            VersionConflictError: the last note is not ``expected``; nothing was written.
            StoreError: storage failed; either of the two may be there.
        """
        ...


class Outcome(enum.Enum):
    """What became of a request."""

    COSIGNED = "cosigned"
    FOUND = "found"
    MALFORMED = "malformed"
    UNKNOWN_ORIGIN = "unknown-origin"
    BAD_LOG_SIGNATURE = "bad-log-signature"
    OLD_ABOVE_NEW = "old-above-new"
    OTHER_SIZE = "other-size"
    FORK = "fork"
    BAD_PROOF = "bad-proof"
    CLOCK_BEHIND = "clock-behind"
    NOTHING_COSIGNED = "nothing-cosigned"


_STATUS = {
    Outcome.COSIGNED: 200,
    Outcome.FOUND: 200,
    Outcome.MALFORMED: 400,
    Outcome.UNKNOWN_ORIGIN: 404,
    Outcome.BAD_LOG_SIGNATURE: 403,
    Outcome.OLD_ABOVE_NEW: 400,
    Outcome.OTHER_SIZE: 409,
    Outcome.FORK: 422,
    Outcome.BAD_PROOF: 422,
    Outcome.CLOCK_BEHIND: 503,
    Outcome.NOTHING_COSIGNED: 404,
}


@dataclass(frozen=True, slots=True)
class Response:
    """An answer over HTTP; ``outcome`` is for the witness's own log."""

    outcome: Outcome
    body: bytes
    content_type: str = TEXT_TYPE

    @property
    def status(self) -> int:
        """The status code."""
        return _STATUS[self.outcome]


@dataclass(frozen=True, slots=True)
class _Submission:
    """A request that its log signed."""

    old_size: int
    proof: tuple[bytes, ...]
    text: str
    checkpoint: Checkpoint
    log: VerifierKey
    log_line: NoteSignature


def origin_hash(origin: str) -> str:
    """The name of a log in paths: SHA-256 of its origin, lowercase hex (tlog-witness, monitor retrieval)."""
    return hashlib.sha256(origin.encode("utf-8")).hexdigest()


class Witness:
    """Cosigns checkpoints of the logs it knows; safe to call from several threads."""

    def __init__(
        self, name: str, key: SigningKey, logs: Sequence[VerifierKey], state: WitnessState, clock: Clock
    ) -> None:
        """``logs``: the key of each log; the key's name is the origin.

        Raises:
            NoteError: ``name`` cannot name a key.
            ValueError: two logs of one origin, or a log key of another kind.
        """
        self.verifier_key = witness_key(name, key.public_bytes)
        self._key = key
        self._state = state
        self._clock = clock
        self._logs = {log.name: log for log in logs}
        if len(self._logs) != len(logs):
            raise ValueError("logs: two keys for one origin")
        if any(log.kind is not SignatureType.ED25519 for log in logs):
            raise ValueError("logs: expected keys that sign checkpoints, not cosignatures")
        self._paths = {origin_hash(origin): origin for origin in self._logs}

    def check_state(self) -> None:
        """Read what was cosigned last for every log, before anything is served.

        Raises:
            StoreError: the state of a log is unreadable, or this key or this log never signed it.
        """
        for log in self._logs.values():
            self._last(log, self._state.latest(log.name))

    def add_checkpoint(self, body: bytes) -> Response:
        """Answer one ``POST add-checkpoint``.

        Raises:
            StoreError: the state cannot be read or written; nothing was signed.
        """
        submission = self._read(body)
        if isinstance(submission, Response):
            return submission
        for _ in range(_ATTEMPTS):
            try:
                return self._cosign(submission)
            except VersionConflictError:
                continue  # another request was faster: the same rules again, on the state it left
        return _size_conflict(self._last_size(submission.log))

    def checkpoint(self, path_hash: str) -> Response:
        """Answer ``GET <hex SHA-256 of the origin>/checkpoint``: the last cosigned note. Raises StoreError."""
        origin = self._paths.get(path_hash)
        note = None if origin is None else self._state.latest(origin)
        if note is None:
            return _refusal(Outcome.NOTHING_COSIGNED, "no checkpoint of such a log was cosigned")
        return Response(Outcome.FOUND, note)

    def _read(self, body: bytes) -> _Submission | Response:
        """The checks that need no state, in the order of the text."""
        try:
            request = AddCheckpoint.parse(body)
            note = Note.parse(request.note)
            checkpoint = Checkpoint.parse(note.text)
        except NoteError as error:
            return _refusal(Outcome.MALFORMED, f"malformed: {error.field}")
        log = self._logs.get(checkpoint.origin)
        if log is None:
            return _refusal(Outcome.UNKNOWN_ORIGIN, "this log is not known here")
        try:
            open_checkpoint(request.note, log, ())
        except NoteError:
            return _refusal(Outcome.BAD_LOG_SIGNATURE, "not signed by the log")
        if request.old_size > checkpoint.size:
            return _refusal(Outcome.OLD_ABOVE_NEW, "the old size is above the size of the checkpoint")
        line = _line_of(note, log)
        return _Submission(request.old_size, tuple(request.proof), note.text, checkpoint, log, line)

    def _cosign(self, submission: _Submission) -> Response:
        checkpoint, log = submission.checkpoint, submission.log
        stored = self._state.latest(log.name)
        last = self._last(log, stored)
        last_checkpoint = last.checkpoint if last else Checkpoint(log.name, 0, EMPTY_ROOT)
        if submission.old_size != last_checkpoint.size:
            return _size_conflict(last_checkpoint.size)
        refused = _contradiction(last_checkpoint, checkpoint, submission.proof)
        if refused is not None:
            return refused
        now_s, last_s = self._clock.now_s(), last.cosigned[0].timestamp_s if last else 1
        if now_s < last_s - CLOCK_TOLERANCE_S or now_s < 1:
            return _refusal(Outcome.CLOCK_BEHIND, "the clock is behind an earlier cosignature")
        cosignature = cosign(self._key, self.verifier_key.name, submission.text, max(now_s, last_s))
        # Lines of other keys are not kept: nobody here has verified them.
        kept = Note(submission.text, (submission.log_line, cosignature)).to_bytes()
        self._state.advance(log.name, stored, kept)
        return Response(Outcome.COSIGNED, cosignature.to_line().encode())

    def _last(self, log: VerifierKey, stored: bytes | None) -> Witnessed | None:
        """What a stored note says, once both signatures on it verify."""
        if stored is None:
            return None
        try:
            witnessed = open_checkpoint(stored, log, (self.verifier_key,))
        except NoteError as error:
            raise StoreError(f"the state of {log.name}: {error}") from None
        if not witnessed.cosigned:
            raise StoreError(f"the state of {log.name}: it was cosigned by another witness")
        return witnessed

    def _last_size(self, log: VerifierKey) -> int:
        last = self._last(log, self._state.latest(log.name))
        return last.checkpoint.size if last else 0


def _contradiction(last: Checkpoint, new: Checkpoint, proof: tuple[bytes, ...]) -> Response | None:
    """The answer to a checkpoint that does not continue ``last``, whose size is the old size; None if it does."""
    if new.size == 0 and new.root != EMPTY_ROOT:
        return _refusal(Outcome.BAD_PROOF, "an empty log has another root")
    if new.size == last.size and new.root != last.root:
        return _refusal(Outcome.FORK, "another root was cosigned for this size")
    try:
        verify_consistency(last.size, last.root, new.size, new.root, proof)
    except ProofError:
        return _refusal(Outcome.BAD_PROOF, "the consistency proof does not verify")
    return None


def _line_of(note: Note, key: VerifierKey) -> NoteSignature:
    return next(line for line in note.signatures if (line.name, line.key_id) == (key.name, key.key_id))


def _size_conflict(size: int) -> Response:
    return Response(Outcome.OTHER_SIZE, f"{size}\n".encode("ascii"), SIZE_TYPE)


def _refusal(outcome: Outcome, words: str) -> Response:
    return Response(outcome, f"{words}\n".encode())
