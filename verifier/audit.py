"""What one run of the verifier is about: a record, a policy, and what the auditor brings along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from verifier.checks import Derived, Inputs, Level
from verifier.policy import AuditPolicy
from verifier.record_files import RecordFiles

ValueT = TypeVar("ValueT")


def _silent(_text: str) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What the auditor has besides record and policy; None for what it has not.

    Attributes:
        masked_inputs: where the masked inputs lie, by digest.
        receipt: a contributor's receipt file.
        saved_checkpoint: a checkpoint from an earlier run.
    """

    masked_inputs: RecordFiles | None = None
    receipt: bytes | None = None
    saved_checkpoint: bytes | None = None


@dataclass(frozen=True)
class Audit:
    """The subject of the checks that look at the log as a whole.

    Attributes:
        record: the files of the record.
        policy: whom the auditor trusts and what it demands.
        level: how much is checked.
        now_s: the time, in seconds since 1970, that the age of cosignatures counts from.
        progress: told what long work is at.
        wanted: the sessions that are checked, by identifier; empty for all of the log.
    """

    record: RecordFiles
    policy: AuditPolicy
    level: Level
    now_s: int
    brought: Brought = field(default_factory=Brought)
    progress: Callable[[str], None] = _silent
    wanted: frozenset[bytes] = frozenset()
    inputs: Inputs[Audit] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", Inputs(self))

    def get(self, derived: Derived[Audit, ValueT]) -> ValueT:
        """A value of the record as a whole; raises as ``Inputs.get``."""
        return self.inputs.get(derived)
