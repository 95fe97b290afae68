"""The client library: contribute adapters to sessions of a coordinator and read what came of them.

    coordinator = await connect("aggregator.example:7443", key, tls)
    async with coordinator:
        participation = await coordinator.contribute(session, "my-adapter", identity, Path("state"))
        result = await participation.result()
        result.write_adapter(Path("merged"))

``contribute`` returns when the session is joined; ``result`` takes part until the sum is published. A process that
died calls ``contribute`` again with the same arguments and goes on where it was. In a one-shot session a contributor
can leave as soon as its upload is held:

    participation = await coordinator.contribute(session, "my-adapter", identity, Path("state"), policy)
    assert isinstance(participation, OneShotParticipation)
    receipt = await participation.delivered()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

from secagg import second_session
from secagg.crypto.rng import SystemRng
from secagg.crypto.signing import SigningKey
from secagg.derive.result import FloatVector
from secagg.he import seal
from secagg.identity.channels import channel_to, open_channel
from secagg.identity.roster_file import verify_signed_roster
from secagg.identity.tls import ClientTls
from secagg.lora.errors import AdapterError
from secagg.lora.reader import read_adapter
from secagg.participation import OneShotParticipation, PairwiseParticipation, Participation, StateKeeper
from secagg.privacy.session_noise import NoiseError, check_noise
from secagg.protocol import log, published
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.client import OneShotClientContext
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.pairwise.client import ClientContext
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.session import ClientPolicy
from secagg.protocol.sessions import session_of
from secagg.remote import GrpcCoordinator
from secagg.runtime.adapters import check_layout
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.one_shot_participant import OneShotParticipant
from secagg.runtime.pairwise_participant import PairwiseParticipant
from secagg.runtime.participant import Milestone, ParticipantPorts
from secagg.session_details import (
    Result,
    SessionAbortedError,
    SessionDetails,
    checked_result,
    encryption_context,
    parameters_of,
)
from secagg.transcript import merkle
from secagg.transcript.policy import LogPolicy
from secagg.transcript.proof import LogProof
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.record import RecordError
from secagg.transcript.segment import LogSegment


@dataclass(frozen=True, slots=True)
class _Contributor:
    """Who contributes, what it insists on, and what."""

    identity: SigningKey
    policy: ClientPolicy
    vector: FloatVector


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
    host = address.rpartition(":")[0]
    port = GrpcCoordinator(channel, timeout_s, lambda number: channel_to(f"{host}:{number}", tls))
    return Coordinator(port, coordinator_key, log or LogTrust.nobody())


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

    @property
    def log_policy(self) -> LogPolicy:
        """Whose checkpoints count."""
        return self._trust.policy

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
        parameters = parameters_of(files.evidence, session, self._key)
        view = log.join(parameters, self._trust.policy, files.evidence)
        await asyncio.to_thread(self._trust.accept, seen, view, files.evidence, files.consistency)
        try:
            if registrars and parameters.registrar not in registrars:
                raise LocalProtocolError(RejectReason.BELOW_POLICY, "registrar is not a pinned one")
            registrar = frozenset({parameters.registrar})
            roster = verify_signed_roster(files.roster, files.roster_head, files.roster_signature, registrar)
            merging = check_layout(parameters, files.layout, files.adapter)
            await asyncio.to_thread(check_noise, parameters)
        except RecordError as error:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"roster: {error}") from None
        except NoiseError as error:
            raise RemoteProtocolError(RejectReason.UNSAFE_NOISE, f"{error}") from None
        except AdapterError as error:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, f"layout or adapter: {error}") from None
        encryption = await asyncio.to_thread(encryption_context, parameters, files.context)
        return SessionDetails(session_of(parameters, roster), merging, view, encryption)

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
            LocalProtocolError: the session is below the policy, costs more than is left of the allowance, or does not
                admit the identity; or it follows another session to which another adapter was contributed, or with
                an attempt that may still get a sum. Nothing was sent.
            HeUnavailableError: a key authority opens the sum, and what encrypts for it is not installed.
            RemoteProtocolError: what the coordinator shows does not fit together; OTHER_CONTRIBUTORS, the session is to
                be over others than the first one's sum. Nothing was sent.
            StoreError: the state is in use by another process, or was restored from an old copy.
        """
        policy = policy or ClientPolicy()
        details = await self.details(session, policy.registrars)
        policy.check_parameters(details.session.parameters)
        if details.encryption is not None:
            await asyncio.to_thread(seal.load_api)
        follows = await second_session.followed(self, details, identity.public_bytes)
        details = await second_session.with_fixed(self.port, details)
        own = await asyncio.to_thread(read_adapter, Path(adapter), details.session.parameters.base_model)
        message = await asyncio.to_thread(details.merging.message, own)
        keeper = await asyncio.to_thread(StateKeeper, state_directory, identity, policy.allowance)
        try:
            if follows is not None:
                await second_session.check_own(self, keeper, details, follows)
            await second_session.check_adapter(keeper, details, own)
        except BaseException:
            await keeper.close()
            raise
        ports = ParticipantPorts(keeper.sealed, keeper.blobs, self.port, SystemRng(), progress)
        participation = self._participation(details, _Contributor(identity, policy, message.vector), ports, keeper)
        try:
            await participation.join()
        except BaseException:
            await participation.close()
            raise
        return participation

    def _participation(
        self, details: SessionDetails, contributor: _Contributor, ports: ParticipantPorts, keeper: StateKeeper
    ) -> Participation:
        identity, policy, vector = contributor.identity, contributor.policy, contributor.vector
        match details.session:
            case PairwiseSession() as session:
                context = ClientContext(identity, session, policy, self._trust.policy)
                participant = PairwiseParticipant(context, vector, ports, self._trust)
                return PairwiseParticipation(self, details, participant, keeper)
            case OneShotSession() as session:
                speaker = OneShotParticipant(
                    OneShotClientContext(identity, session, policy, self._trust.policy),
                    vector,
                    ports,
                    self._trust,
                    details.encryption,
                )
                return OneShotParticipation(self, details, speaker, keeper)
            case _:
                assert_never(details.session)

    async def second_session_of(self, first: SessionDetails) -> SessionDetails:
        """Wait until the session that follows ``first`` is open, for merges that take two; ``contribute`` to it then.

        Raises:
            ValueError: no session follows one with such a merge.
            SessionAbortedError: every attempt that there can be has failed.
            RemoteProtocolError: as ``details``.
        """
        return await second_session.second_session_of(self, first)

    async def result(self, session: bytes) -> Result:
        """The sum of a finished session, checked against its log.

        Raises:
            SessionAbortedError: it ended without one.
            RemoteProtocolError: WRONG_PHASE if it has not ended; LOG_MISMATCH if the sum is not the logged one.
        """
        details = await self.details(session)
        return await self.result_of(details)

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
        accepted = published.published_contributions(view.close, closed.leaves)
        position = next((at for at, signed in enumerate(accepted) if signed.statement.identity == identity), None)
        if position is None:
            raise RemoteProtocolError(RejectReason.LEFT_OUT, f"identity {identity.hex()}")
        tree = merkle.Tree([merkle.leaf_hash(signed.to_bytes()) for signed in accepted])
        proof = ContributionProof(
            close=view.close_entry.decode("utf-8"),
            contribution=accepted[position],
            position=position,
            path=tree.inclusion_proof(position),
        )
        index = view.start + view.segment.index(view.close_entry)
        path = LogSegment(view.start, view.prefix, view.segment).inclusion_proof(index)
        return LogProof(proof.to_bytes(), index, path, closed.evidence.checkpoint)

    async def result_of(self, details: SessionDetails) -> Result:
        """As ``result``, of a session that is known already: its log must continue what was seen of it."""
        details = await second_session.with_fixed(self.port, details)
        parameters = details.session.parameters
        ended = await self.port.outcome(parameters.session)
        view = log.extend(details.view, parameters, self._trust.policy, ended.evidence)
        if view.abort is not None:
            raise SessionAbortedError(view.abort.reason)
        if view.result is None:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "neither a result nor an abort entry")
        expected = 8 * details.session.field_layout.dimension
        data = await self.port.integer_sum(parameters.session, expected)
        return await asyncio.to_thread(checked_result, details, view.result, data)


__all__ = [
    "Coordinator",
    "LogPolicy",
    "LogTrust",
    "Milestone",
    "OneShotParticipation",
    "Participation",
    "Result",
    "SessionAbortedError",
    "SessionDetails",
    "connect",
]
