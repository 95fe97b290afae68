"""What passes between clients, coordinator and institutions in a one-shot session, checked in nothing but its types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import Signed


@dataclass(frozen=True, slots=True)
class CommitContribution:
    """Client to coordinator, with a key authority: the signed header, before anything that it names is sent."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class OneShotContribution:
    """Client to coordinator: the signed header, the linear hash (16 KiB), the sealed parts; the upload is streamed."""

    signed: Signed
    linear_hash: bytes
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attested:
    """Attestor to coordinator, with a key authority: the signed attestation of the sum of the ciphertexts."""

    signed: Signed


OneShotMessage: TypeAlias = CommitContribution | OneShotContribution


@dataclass(frozen=True, slots=True)
class CommittedList:
    """Coordinator to client: the log, and the signed headers that were committed to, in order of roster position."""

    evidence: LogEvidence
    leaves: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ShownSessionFiles:
    """Coordinator to an institution: a session's log from its open entry on, and its signed roster."""

    evidence: LogEvidence
    consistency: tuple[bytes, ...]
    roster: tuple[bytes, ...]
    roster_head: bytes
    roster_signature: bytes


@dataclass(frozen=True, slots=True)
class HeldBox:
    """Coordinator to member: one contribution's header, and the box that is for the member."""

    signed: Signed
    box: bytes


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """Coordinator to member: the log with its close entry, and the signed headers of the closed set in order."""

    evidence: LogEvidence
    contributions: tuple[bytes, ...]
