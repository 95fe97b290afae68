"""The client library: contribute adapters to sessions of a coordinator and read what came of them.

    coordinator = await connect("aggregator.example:7443", key, tls)
    async with coordinator:
        participation = await coordinator.contribute(session, "my-adapter", identity, Path("state"))
        result = await participation.result()
        result.write_adapter(Path("merged"))

``contribute`` returns when the session is joined; ``result`` takes part until the sum is published. A process that
died calls ``contribute`` again with the same arguments and goes on where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from secagg.crypto.labels import Label
from secagg.crypto.rng import SystemRng
from secagg.crypto.signing import SigningKey
from secagg.derive.result import FloatVector, mean_of
from secagg.identity.roster_file import verify_signed_roster
from secagg.identity.tls import ClientTls
from secagg.lora.errors import AdapterError
from secagg.lora.layout import Layout
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.vector import FactorMean, adapter_to_vector
from secagg.lora.writer import write_adapter
from secagg.protocol import log
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.messages import SignedReceipt
from secagg.protocol.pairwise import lists
from secagg.protocol.pairwise.client import ClientContext
from secagg.protocol.pairwise.client_states import Aborted
from secagg.protocol.session import ClientPolicy, Session
from secagg.remote import GrpcCoordinator, open_channel
from secagg.runtime import vectors
from secagg.runtime.adapters import check_layout
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.participant import Milestone, Participant, ParticipantPorts, TransportError
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.sealed import SealedSessionStore
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript import merkle
from secagg.transcript.entries import SessionOpen, SessionResult
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.policy import LogPolicy
from secagg.transcript.proof import LogProof
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.record import RecordError
from secagg.transcript.segment import LogSegment

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0


@dataclass(frozen=True, slots=True)
class SessionDetails:
    """A session as its coordinator published it, checked: parameters, roster, layout, template, log."""

    session: Session
    layout: Layout
    template: AdapterTemplate
    view: LogView


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

    def write_adapter(self, directory: Path) -> None:
        """Write the merged adapter as PEFT reads it: the mean of each factor."""
        tensors = FactorMean().to_adapter(self.mean, self.details.layout, self.details.template)
        write_adapter(directory, self.details.template, tensors)


class SessionAbortedError(Exception):
    """The session ended without a sum; ``reason`` is the coordinator's, from the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def connect(
    address: str,
    coordinator_key: bytes,
    tls: ClientTls,
    log: LogTrust | None = None,
    timeout_s: float = 30.0,
) -> Coordinator:
    """Connect to a coordinator.

    Args:
        address: ``host:port``.
        coordinator_key: the 32-byte key that signs its log; what it shows is checked against it.
        tls: how to know the server; plaintext is for loopback addresses only.
        log: which witnesses must have cosigned what it shows, and what was seen of it before; the default asks for
            none and remembers nothing: then the coordinator can show others another log.
        timeout_s: for every single call.

    Raises:
        TlsError: the certificate is not the pinned one.
        TransportError: nobody answers.
    """
    channel = await open_channel(address, tls, timeout_s)
    return Coordinator(GrpcCoordinator(channel, timeout_s), coordinator_key, log or LogTrust.nobody())


class Coordinator:
    """A coordinator, by its key. Close it with ``async with`` or ``close``."""

    def __init__(self, port: GrpcCoordinator, key: bytes, trust: LogTrust) -> None:
        self.port = port
        self._key = key
        self._trust = trust

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self.port.close()

    async def details(self, session: bytes, registrars: frozenset[bytes] = frozenset()) -> SessionDetails:
        """What the coordinator published of a session, checked as far as anybody can.

        Raises:
            RemoteProtocolError: unknown session; another coordinator key; a log, roster or layout that does not fit.
        """
        seen = await asyncio.to_thread(self._trust.seen)
        files = await self.port.session_files(session, seen.size)
        parameters = _parameters(files.evidence, session, self._key)
        view = log.join(parameters, self._trust.policy, files.evidence)
        await asyncio.to_thread(self._trust.accept, seen, view, files.evidence, files.consistency)
        try:
            if registrars and parameters.registrar not in registrars:
                raise LocalProtocolError(RejectReason.BELOW_POLICY, "registrar is not a pinned one")
            registrar = frozenset({parameters.registrar})
            roster = verify_signed_roster(files.roster, files.roster_head, files.roster_signature, registrar)
            layout, template = check_layout(parameters, files.layout, files.adapter)
        except RecordError as error:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"roster: {error}") from None
        except AdapterError as error:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"layout or adapter: {error}") from None
        return SessionDetails(Session(parameters, roster), layout, template, view)

    async def contribute(
        self,
        session: bytes,
        adapter: Path | str,
        identity: SigningKey,
        state_directory: Path,
        policy: ClientPolicy | None = None,
        progress: Callable[[Milestone], None] = lambda _: None,
    ) -> Participation:
        """Join a session with the PEFT adapter in a directory.

        Args:
            session: 16 bytes.
            adapter: directory with ``adapter_config.json`` and ``adapter_model.safetensors``.
            identity: a key in the session's roster.
            state_directory: where this identity keeps what it must not forget, encrypted under its key.
            policy: what to insist on; the default asks for at least three contributors.
            progress: hears of every step.

        Raises:
            AdapterError: the adapter is malformed or not of the session's shape; nothing was sent.
            LocalProtocolError: the session is below the policy, or does not admit the identity; nothing was sent.
            RemoteProtocolError: what the coordinator shows does not fit together.
            StoreError: the state is in use by another process, or was restored from an old copy.
        """
        policy = policy or ClientPolicy()
        details = await self.details(session, policy.registrars)
        policy.check_parameters(details.session.parameters)
        vector = await asyncio.to_thread(_read_vector, Path(adapter), details)
        keeper = await asyncio.to_thread(_StateKeeper, state_directory, identity)
        ports = ParticipantPorts(keeper.sealed, keeper.blobs, self.port, SystemRng(), progress)
        context = ClientContext(identity, details.session, policy, self._trust.policy)
        participant = Participant(context, vector, ports, self._trust)
        participation = Participation(self, details, participant, keeper)
        try:
            await participant.join(details.view)
        except BaseException:
            await participation.close()
            raise
        return participation

    async def result(self, session: bytes) -> Result:
        """The sum of a finished session, checked against its log.

        Raises:
            SessionAbortedError: it ended without one.
            RemoteProtocolError: WRONG_PHASE if it has not ended; LOG_MISMATCH if the sum is not the logged one.
        """
        details = await self.details(session)
        return await self._result(details)

    async def contribution_proof(self, session: bytes, identity: bytes) -> LogProof:
        """The proof that the contribution of ``identity`` is in the closed set of a session, for any verifier.

        Raises:
            RemoteProtocolError: WRONG_PHASE before the close; LEFT_OUT if it is not in the set; otherwise the log or
                the list does not hold.
        """
        details = await self.details(session)
        closed = await self.port.closed_list(session)
        parameters = details.session.parameters
        view = log.extend(details.view, parameters, self._trust.policy, closed.evidence)
        if view.close is None:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "no session-close entry")
        accepted = lists.published_contributions(view.close, closed.leaves)
        position = next((at for at, signed in enumerate(accepted) if signed.statement.identity == identity), None)
        if position is None:
            raise RemoteProtocolError(RejectReason.LEFT_OUT, f"identity {identity.hex()}")
        tree = merkle.Tree([merkle.leaf_hash(signed.to_bytes()) for signed in accepted])
        proof = ContributionProof(
            close=view.entries[3].decode("utf-8"),
            contribution=accepted[position],
            position=position,
            path=tree.inclusion_proof(position),
        )
        index = view.start + view.segment.index(view.entries[3])
        path = LogSegment(view.start, view.prefix, view.segment).inclusion_proof(index)
        return LogProof(proof.to_bytes(), index, path, closed.evidence.checkpoint)

    async def _result(self, details: SessionDetails) -> Result:
        parameters = details.session.parameters
        ended = await self.port.outcome(parameters.session)
        view = log.extend(details.view, parameters, self._trust.policy, ended.evidence)
        if view.abort is not None:
            raise SessionAbortedError(view.abort.reason)
        if view.result is None:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "neither a result nor an abort entry")
        expected = 8 * details.session.field_layout.dimension
        data = await self.port.integer_sum(parameters.session, expected)
        return await asyncio.to_thread(_checked_result, details, view.result, data)


class Participation:
    """One contribution on its way."""

    def __init__(
        self, coordinator: Coordinator, details: SessionDetails, participant: Participant, keeper: _StateKeeper
    ) -> None:
        self.details = details
        self._coordinator = coordinator
        self._participant = participant
        self._keeper = keeper

    @property
    def receipt(self) -> SignedReceipt | None:
        """The coordinator's signed word that it holds the contribution, once it has given it."""
        return self._participant.receipt

    @property
    def encoding(self) -> vectors.EncodingReport | None:
        """The norm before clipping and the number of clamped coordinates, once the input is encoded."""
        return self._participant.report

    async def result(self) -> Result:
        """Take part until the session has ended; the checked sum.

        Raises:
            SessionAbortedError: the session ended without a sum.
            RemoteProtocolError: the coordinator refused or broke a rule; this identity will not answer any more.
        """
        try:
            state = await self._participant.run()
        finally:
            await self.close()
        if isinstance(state, Aborted) and state.view.abort is None:
            raise LocalProtocolError(state.reason, "this identity takes no further part in the session")
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                return await self._coordinator._result(self.details)  # noqa: SLF001 - the same module
            except TransportError:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def close(self) -> None:
        """Stop; what is not done is done by the next process that contributes with this identity."""
        await self._participant.close()
        await self._keeper.close()


class _StateKeeper:
    """The stores of one identity: sessions sealed under a key that follows from the identity key, and blobs."""

    def __init__(self, directory: Path, identity: SigningKey) -> None:
        own = directory / identity.public_bytes.hex()
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sqlite = SqliteSessionStore(own / "sessions.db")
        self.sealed = SealedSessionStore(
            self._sqlite, identity.derive_seed(Label.STORE_KEY).expose(), SystemRng().bytes
        )
        self.blobs = DirectoryBlobStore(own / "blobs")

    async def close(self) -> None:
        """Close the stores."""
        await self._sqlite.close()


def _parameters(evidence: LogEvidence, session: bytes, key: bytes) -> SessionOpen:
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


def _read_vector(directory: Path, details: SessionDetails) -> FloatVector:
    adapter = read_adapter(directory, details.session.parameters.base_model)
    details.template.matches(adapter)
    return adapter_to_vector(adapter, details.layout)


def _checked_result(details: SessionDetails, entry: SessionResult, data: bytes) -> Result:
    if hashlib.sha256(data).digest() != entry.integer_sum:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "the sum is not the one in the log")
    integer_sum = np.frombuffer(data, dtype="<i8").astype(np.int64)
    mean = mean_of(details.session.parameters.encoding, integer_sum, entry.count)
    if vectors.digest_of(mean) != entry.mean:
        raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "the mean is not the one in the log")
    return Result(details, entry.count, integer_sum, mean)


__all__ = [
    "Coordinator",
    "LogPolicy",
    "LogTrust",
    "Milestone",
    "Participation",
    "Result",
    "SessionAbortedError",
    "SessionDetails",
    "connect",
]
