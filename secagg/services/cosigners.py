"""The log's side of c2sp.org/tlog-witness: ask the witnesses of a policy to cosign a checkpoint.

Nothing a witness says is believed. A cosignature counts once it verifies under the key of the policy over the very
checkpoint that was sent, with a time near ours. A claim that our log was longer, or had another history, counts as
that witness's failure until the witness shows a checkpoint that our own key signed: then it is proof that our state
went back in time or was copied, and the log has to stop (``RollbackShownError``).
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from secagg.crypto.notes import open_checkpoint
from secagg.runtime.clock import Clock
from secagg.runtime.log_ports import CosignError, LogRolledBackError
from secagg.runtime.witness import origin_hash
from secagg.services.http_exchange import HttpAnswer, HttpError, HttpPrefix
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.merkle import ProofError, verify_consistency
from secagg.transcript.note import MAX_NOTE_BYTES, Note, NoteError, NoteSignature, VerifierKey, parse_signatures
from secagg.transcript.policy import LogPolicy, WitnessRule
from secagg.transcript.witness_request import AddCheckpoint

Consistency = Callable[[int], tuple[bytes, ...]]
"""The consistency proof of our log from an older size to the size of the checkpoint."""

MAX_ANSWER_BYTES = MAX_NOTE_BYTES
_MOST_REQUESTS = 3
"""To one witness, for one checkpoint: a first one and two with the size that the witness names."""
_SIZE_BODY = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


class WitnessFault(enum.Enum):
    """Why a witness has not cosigned; the value is the text."""

    UNREACHABLE = "cannot be reached"
    TOO_LATE = "did not answer in time"
    REFUSED = "refused"
    CLAIMS_MORE = "claims to have cosigned a larger log, and does not show it"
    CLAIMS_OTHER = "claims to have cosigned another log of this size, and does not show it"
    BAD_ANSWER = "gave an answer that is none"
    BAD_COSIGNATURE = "gave a cosignature that does not verify"
    BAD_TIME = "gave a cosignature of another time than ours"


@dataclass(frozen=True, slots=True)
class WitnessFailure:
    """What one witness did instead of cosigning."""

    fault: WitnessFault
    detail: str = ""

    def __str__(self) -> str:
        return self.fault.value + (f" ({self.detail})" if self.detail else "")


class PolicyNotMetError(CosignError):
    """The policy is not met; asking again may help. ``failures``: by name of the witness in the policy."""

    def __init__(self, failures: Mapping[str, WitnessFailure]) -> None:
        # The reason is for event logs: names of the policy and words of ours, nothing that a witness sent.
        super().__init__(
            " ".join(["POLICY_NOT_MET", *(f"{name}:{each.fault.name}" for name, each in failures.items())])
        )
        self.failures = dict(failures)

    def __str__(self) -> str:
        each = "; ".join(f"{name} {failure}" for name, failure in self.failures.items())
        return f"not enough witnesses cosigned: {each or 'the policy has none with an address'}"


class RollbackShownError(LogRolledBackError):
    """Our log went back in time, or is run twice: what it signs now contradicts what it signed before.

    A witness that only claims so is not believed: its words would cost it nothing, and stop us for good.

    Attributes:
        witness: name in the policy of who shows it.
        evidence: a checkpoint, signed by our key, that the log of today does not continue.
    """

    def __init__(self, witness: str, evidence: bytes) -> None:
        self.witness = witness
        self.evidence = evidence
        super().__init__(f"{witness} shows: this log was longer or had another history before")


class _WitnessFailedError(Exception):
    def __init__(self, fault: WitnessFault, detail: str = "") -> None:
        super().__init__(fault.value)
        self.failure = WitnessFailure(fault, detail)


@dataclass(frozen=True, slots=True)
class CosignTimes:
    """How long to wait, in seconds, and how far a witness's clock may be from ours."""

    timeout_s: float = 10.0
    grace_s: float = 0.5
    """After the policy is met, for the rest: more cosignatures than needed help those with another policy."""
    clock_difference_s: int = 600


@dataclass(frozen=True, slots=True)
class _Question:
    """One checkpoint on its way to all witnesses."""

    note: bytes
    checkpoint: Checkpoint
    consistency: Consistency


class HttpCosigners:
    """Asks the witnesses of a policy, and remembers what each of them has seen."""

    def __init__(
        self,
        policy: LogPolicy,
        log: VerifierKey,
        clock: Clock,
        published_size: int = 0,
        times: CosignTimes | None = None,
    ) -> None:
        """``published_size``: of the last published checkpoint, or 0; what every witness is first taken to know.

        Raises:
            HttpError: an address in the policy is no http or https URL.
        """
        self._policy = policy
        self._log = log
        self._clock = clock
        self._times = times or CosignTimes()
        asked = [rule for rule in policy.witnesses if rule.url]
        self._witnesses = {rule.name: (rule, HttpPrefix.parse(rule.url or "")) for rule in asked}
        self._seen = {rule.name: published_size for rule in asked}

    async def cosign(self, checkpoint: Note, consistency: Consistency) -> tuple[NoteSignature, ...]:
        """Cosignatures that meet the policy, in its order of witnesses, and those that come within the grace.

        Args:
            checkpoint: a note that our log signed. Everything in it has to be durable before.
            consistency: is asked for sizes from 0 to the size of the checkpoint.

        Raises:
            NoteError: it is not a checkpoint of our log.
            PolicyNotMetError: the policy is not met in time.
            RollbackShownError: see there.
        """
        note = checkpoint.to_bytes()
        question = _Question(note, open_checkpoint(note, self._log, ()).checkpoint, consistency)
        tasks = {name: asyncio.create_task(self._ask(name, question)) for name in self._witnesses}
        try:
            return await self._collect(tasks)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _collect(self, tasks: Mapping[str, asyncio.Task[NoteSignature]]) -> tuple[NoteSignature, ...]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._times.timeout_s
        pending = set(tasks.values())
        while True:
            # A rollback that somebody proves is raised here, whoever else has cosigned.
            cosigned = {name: task.result() for name, task in tasks.items() if _has_cosigned(task)}
            met = self._policy.is_met_by([self._witnesses[name][0].key.public_key for name in cosigned])
            if met:
                deadline = min(deadline, loop.time() + self._times.grace_s)
            if not pending or loop.time() >= deadline:
                break
            # With the grace running, one wait for all of the rest: an answer does not start it anew.
            when = asyncio.ALL_COMPLETED if met else asyncio.FIRST_COMPLETED
            _, pending = await asyncio.wait(pending, timeout=deadline - loop.time(), return_when=when)
        if met:
            return tuple(cosigned.values())
        raise PolicyNotMetError({name: _failure_of(task) for name, task in tasks.items() if name not in cosigned})

    async def _ask(self, name: str, question: _Question) -> NoteSignature:
        """One witness's cosignature. Raises _WitnessFailedError, RollbackShownError."""
        rule, prefix = self._witnesses[name]
        old_size = min(self._seen[name], question.checkpoint.size)
        for _ in range(_MOST_REQUESTS):
            body = AddCheckpoint(old_size, question.consistency(old_size), question.note).to_bytes()
            answer = await _exchange(prefix, "POST", "/add-checkpoint", body)
            if answer.status == 200:
                cosignature = self._verified(rule, question, answer.body)
                self._seen[name] = question.checkpoint.size
                return cosignature
            if answer.status not in (409, 422):
                raise _WitnessFailedError(WitnessFault.REFUSED, f"status {answer.status}")
            theirs = _size_in(answer)
            if theirs is None:
                await self._look_for_evidence(name, question)
                raise _WitnessFailedError(WitnessFault.CLAIMS_OTHER, f"status {answer.status}")
            if theirs > question.checkpoint.size:
                await self._look_for_evidence(name, question)
                raise _WitnessFailedError(WitnessFault.CLAIMS_MORE, f"size {theirs}")
            old_size = self._seen[name] = theirs
        raise _WitnessFailedError(WitnessFault.BAD_ANSWER, "names a size and does not take it")

    def _verified(self, rule: WitnessRule, question: _Question, body: bytes) -> NoteSignature:
        """The cosignature in an answer, checked under the policy's key, over our checkpoint, near our time."""
        try:
            lines = parse_signatures(body)
            note = Note.parse(question.note).with_signatures(lines)
            witnessed = open_checkpoint(note.to_bytes(), self._log, (rule.key,))
        except NoteError as error:
            raise _WitnessFailedError(WitnessFault.BAD_COSIGNATURE, error.field) from None
        if not witnessed.cosigned:
            raise _WitnessFailedError(WitnessFault.BAD_COSIGNATURE, "none of its key")
        difference_s = witnessed.cosigned[0].timestamp_s - self._clock.now_s()
        if abs(difference_s) > self._times.clock_difference_s:
            raise _WitnessFailedError(WitnessFault.BAD_TIME, f"{difference_s:+} s")
        own = [line for line in lines if (line.name, line.key_id) == (rule.key.name, rule.key.key_id)]
        if len(own) > 1:
            # Only one of their times was looked at.
            raise _WitnessFailedError(WitnessFault.BAD_COSIGNATURE, "more than one of its key")
        return own[0]

    async def _look_for_evidence(self, name: str, question: _Question) -> None:
        """Raise RollbackShownError if the witness shows a checkpoint of ours that ours of today does not continue."""
        try:
            answer = await _exchange(
                self._witnesses[name][1], "GET", f"/{origin_hash(question.checkpoint.origin)}/checkpoint", b""
            )
            shown = open_checkpoint(answer.body, self._log, ()).checkpoint
        except (_WitnessFailedError, NoteError):
            return
        ours = question.checkpoint
        if shown.size <= ours.size:
            proof = question.consistency(shown.size)
            try:
                verify_consistency(shown.size, shown.root, ours.size, ours.root, proof)
            except ProofError:
                pass
            else:
                return
        raise RollbackShownError(name, answer.body)


async def _exchange(prefix: HttpPrefix, method: str, path: str, body: bytes) -> HttpAnswer:
    try:
        return await prefix.exchange(method, path, body, MAX_ANSWER_BYTES)
    except HttpError as error:
        raise _WitnessFailedError(WitnessFault.BAD_ANSWER, str(error)) from None
    except OSError as error:
        raise _WitnessFailedError(WitnessFault.UNREACHABLE, error.strerror or type(error).__name__) from None


def _size_in(answer: HttpAnswer) -> int | None:
    """The size that a 409 names; None where it names none (older text: same size, other root)."""
    found = _SIZE_BODY.fullmatch(answer.body) if answer.status == 409 else None
    return int(found[1]) if found else None


def _has_cosigned(task: asyncio.Task[NoteSignature]) -> bool:
    """Whether a witness is done and has cosigned. Raises what is no mere failure of the witness."""
    if not task.done():
        return False
    error = task.exception()
    if error is None or isinstance(error, _WitnessFailedError):
        return error is None
    raise error


def _failure_of(task: asyncio.Task[NoteSignature]) -> WitnessFailure:
    error = task.exception() if task.done() else None
    return error.failure if isinstance(error, _WitnessFailedError) else WitnessFailure(WitnessFault.TOO_LATE)
