"""A session and its result as a client has checked them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secagg.derive.result import FloatVector, mean_of
from secagg.he.bfv import EncryptionContext
from secagg.he.errors import CiphertextError
from secagg.lora.merge_report import REPORT_FILE, MergeReport
from secagg.lora.merging import Merging
from secagg.lora.writer import write_files
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.sessions import AnySession
from secagg.runtime import vectors
from secagg.transcript.entries import OneShotOpen, SessionOpen, SessionResult
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.openers import KeyAuthority
from secagg.transcript.record import RecordError


@dataclass(frozen=True, slots=True)
class SessionDetails:
    """A session as its coordinator published it, checked: parameters, roster, what is merged and how, log.

    ``merging`` has the session's fixed tensors only where they were fetched; ``encryption`` is the public encryption
    context, where a key authority opens the sum.
    """

    session: AnySession
    merging: Merging
    view: LogView
    encryption: EncryptionContext | None


@dataclass(frozen=True)
class Result:
    """A published sum, checked against the log.

    ``integer_sum`` is int64 in the order of the packed vector, ``mean`` float32 in layout order, both recomputed
    here; ``contributors`` is how many contributions are in them.
    """

    details: SessionDetails
    contributors: int
    integer_sum: npt.NDArray[np.int64]
    mean: FloatVector

    def write_adapter(self, directory: Path, progress: Callable[[str], None] = lambda _: None) -> MergeReport | None:
        """Write what is merged: an adapter as PEFT reads it and a report, or the bases that a first session gives.

        Returns:
            The report; None where the merge makes none.
        """
        files = self.details.merging.aggregate(self.mean, self.contributors, progress)
        write_files(directory, files)
        report = files.get(REPORT_FILE)
        return None if report is None else MergeReport.from_bytes(b"".join(report))


class SessionAbortedError(Exception):
    """The session ended without a sum; ``reason`` is the coordinator's, from the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parameters_of(evidence: LogEvidence, session: bytes, key: bytes) -> SessionOpen:
    """The parameters in the first entry of what was shown for ``session``; nothing of the log is verified yet.

    Raises:
        RemoteProtocolError: there is no open entry, or it is of another session or another coordinator key.
    """
    if not evidence.entries:
        raise RemoteProtocolError(RejectReason.LOG_ORDER, "no entries")
    try:
        parameters = SessionOpen.from_bytes(evidence.entries[0])
    except RecordError as error:
        raise RemoteProtocolError(RejectReason.LOG_ORDER, f"entry 0: {error}") from None
    if parameters.session != session:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "the coordinator shows another session")
    if parameters.coordinator != key:
        raise RemoteProtocolError(RejectReason.LOG_SIGNATURE, "the session belongs to another coordinator key")
    return parameters


def encryption_context(parameters: SessionOpen, context: bytes) -> EncryptionContext | None:
    """The session's public encryption context, whose digest its parameters name; None where no authority opens.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE; it has another digest, or is none.
    """
    if not isinstance(parameters, OneShotOpen) or not isinstance(parameters.opening, KeyAuthority):
        return None
    if hashlib.sha256(context).digest() != parameters.opening.context:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "context: digest differs from the open entry")
    try:
        return EncryptionContext.from_bytes(context)
    except CiphertextError as error:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"context: {error}") from None


def checked_result(details: SessionDetails, entry: SessionResult, data: bytes) -> Result:
    """The result that the log names, recomputed from the exact sum.

    Raises:
        RemoteProtocolError: LOG_MISMATCH; ``data`` is not the sum, or the mean is not what follows from it.
    """
    if hashlib.sha256(data).digest() != entry.integer_sum:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "the sum is not the one in the log")
    integer_sum = np.frombuffer(data, dtype="<i8").astype(np.int64)
    parameters = details.session.parameters
    mean = mean_of(parameters.encoding, parameters.noise, integer_sum, entry.count)
    if vectors.digest_of(mean) != entry.mean:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "the mean is not the one in the log")
    return Result(details, entry.count, integer_sum, mean)
