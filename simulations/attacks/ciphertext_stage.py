"""A small session that a key authority opens: the real authority, real clients' machines, a real witness, no network.

The coordinator is the adversary, so there is no machine of it: it signs the log, and decides what goes into it and what
the authority is asked.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secagg.arith.linear_hash import LimbSum
from secagg.crypto.notes import cosign, log_key, sign_checkpoint, witness_key
from secagg.crypto.signing import SigningKey
from secagg.he.bfv import EncryptionContext
from secagg.he.ciphertext_sum import CiphertextSum
from secagg.protocol import log
from secagg.protocol.one_shot import client
from secagg.protocol.one_shot.authority_states import Authority, AuthorityPolicy, SumRequest
from secagg.protocol.one_shot.client_states import Committed, InputMasked, MaskInput
from secagg.protocol.one_shot.messages import CommittedList, ShownSessionFiles
from secagg.protocol.one_shot.session import OneShotSession
from secagg.runtime import vectors
from secagg.runtime.institutions import DecryptPiece, PreparedContext
from secagg.runtime.key_authority import AuthorityPorts, KeyAuthorityHost
from secagg.runtime.log_trust import ForgetfulMemory
from secagg.runtime.memory import MemorySessionStore, MemoryWitnessState
from secagg.runtime.memory_boxes import MemoryJournal
from secagg.runtime.witness import Outcome, Witness
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import ContributionsCommitted, OneShotClose, OneShotOpen, SessionEntry
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.note import Note, parse_signatures
from secagg.transcript.openers import KeyAuthority, SummedCiphertext
from secagg.transcript.policy import LogPolicy, LogRule, WitnessRule
from secagg.transcript.statements import Attestation, OneShotHeader, Signed
from secagg.transcript.witness_request import AddCheckpoint
from simulations.attacks.forgery import signed_by
from simulations.attacks.forgery_one_shot import one_shot_of
from simulations.attacks.interrogation import plan_of
from simulations.attacks.notebook import Notebook
from simulations.world.cast import ORIGIN, START_S, Cast, key_of
from simulations.world.randomness import SeededRng

Lanes = npt.NDArray[np.uint64]
Secrets = npt.NDArray[np.int64]

ATTESTORS = 2
_WITNESS = "witness"


@dataclass(frozen=True, eq=False)
class Upload:
    """What one client sends: the header that it signed, uint64 lanes, its ciphertext."""

    signed: Signed
    lanes: Lanes
    ciphertext: bytes

    @property
    def leaf(self) -> bytes:
        """Its leaf in lists."""
        return self.signed.to_bytes()


class WitnessSide(enum.Enum):
    """Whose side the one witness is on."""

    HONEST = "honest"
    CORRUPT = "corrupt"


class StillClock:
    """A clock at the hour when sessions are opened."""

    def now_s(self) -> int:
        """Seconds since the epoch."""
        return START_S


@dataclass
class AuthorityStage:
    """Everybody in the session.

    Attributes:
        cast: clients, coordinator and registrar.
        authority: the real host.
        attestors: keys of those who recompute the sum of the ciphertexts; honest.
        session: parameters and roster.
        encryption: the public key of the session.
        policy: whose checkpoints clients and authority believe.
        witness: the real one; None where it works for the coordinator and cosigns anything.
        notes: what is tried.
    """

    cast: Cast
    authority: KeyAuthorityHost
    attestors: tuple[SigningKey, ...]
    session: OneShotSession
    encryption: EncryptionContext
    policy: LogPolicy
    witness: Witness | None
    notes: Notebook
    _cosigned: int = 0
    _states: dict[int, Committed] = field(default_factory=dict)

    @classmethod
    async def open(cls, seed: int, notes: Notebook, witness: WitnessSide = WitnessSide.HONEST) -> AuthorityStage:
        """Prepare a key and open the session. Raises HeUnavailableError without TenSEAL."""
        cast = Cast.of(plan_of(seed))
        coordinator = cast.coordinator.public_bytes
        attestors = tuple(key_of(seed, f"attestor-{number}") for number in range(ATTESTORS))
        policy = _log_policy(seed, coordinator)
        rules = AuthorityPolicy(
            min_contributors=cast.plan.minimum,
            coordinators=frozenset({coordinator}),
            registrars=frozenset({cast.registrar.public_bytes}),
            log=policy,
            attestors=frozenset(key.public_bytes for key in attestors),
            attestations=ATTESTORS,
        )
        own = Authority(key_of(seed, "authority"), rules)
        memory = ForgetfulMemory()
        ports = AuthorityPorts(
            MemorySessionStore(), MemoryJournal(), StillClock(), SeededRng(seed, "authority"), lambda *_: memory
        )
        host = KeyAuthorityHost(own, ports)
        made = await host.prepare(cast.session.parameters.session, coordinator)
        session = _session(cast, own, made, attestors)
        encryption = EncryptionContext.from_bytes(made.context)
        known = [log_key(ORIGIN, coordinator)]
        real = Witness(_WITNESS, key_of(seed, _WITNESS), known, MemoryWitnessState(), StillClock())
        honest = real if witness is WitnessSide.HONEST else None
        return cls(cast, host, attestors, session, encryption, policy, honest, notes)

    # Clients.

    def joins(self, number: int) -> Upload:
        """A client's real machine up to its commitment: what it will send."""
        context, rng = self._context(number), SeededRng(self.cast.plan.seed, "client", number)
        started = client.start(context, log.join(self.session.parameters, self.policy, self.shown()), rng)
        (plan,) = started.effects
        if not isinstance(plan, MaskInput):
            raise TypeError("a client masks its input first")
        masked = vectors.ring_masked_input(self.session, self.cast.one_hot(number), plan)
        ciphertext = self.encryption.encrypt(masked.secret, rng)
        linear_hash, digest = vectors.linear_hash_of(masked.lanes), vectors.digest_of(masked.lanes)
        step = client.step(context, started.state, InputMasked(digest, masked.lanes.size, linear_hash, (ciphertext,)))
        if not isinstance(step.state, Committed):
            raise TypeError("a client commits before it sends")
        self._states[number] = step.state
        return Upload(step.state.sent, masked.lanes, ciphertext)

    def sends(self, number: int, shown: CommittedList) -> None:
        """A client's machine, if it is an honest one, sees the list and uploads. Raises ProtocolError if not."""
        if number in self._states:
            client.step(self._context(number), self._states[number], shown)

    def forged(self, number: int, lanes: Lanes, ciphertext: bytes) -> Upload:
        """What a corrupt client signs and sends: any lanes, any ciphertext."""
        key = self.cast.clients[number]
        header = OneShotHeader(
            self.session.digest,
            key.public_bytes,
            vectors.digest_of(lanes),
            hashlib.sha256(vectors.linear_hash_of(lanes)).digest(),
            lanes.size,
            (hashlib.sha256(ciphertext).digest(),),
            0,
        )
        return Upload(signed_by(key, header), lanes, ciphertext)

    # The log.

    def in_order(self, uploads: Sequence[Upload]) -> list[Upload]:
        """In the order of the roster."""
        return sorted(uploads, key=lambda each: each.signed.statement.identity)

    def committed(self, uploads: Sequence[Upload]) -> ContributionsCommitted:
        """The entry over what these signed."""
        leaves = [each.leaf for each in self.in_order(uploads)]
        return ContributionsCommitted(self.session.parameters.session, len(leaves), merkle.root(leaves))

    def close(self, uploads: Sequence[Upload]) -> OneShotClose:
        """The entry that closes the session over these."""
        ordered = self.in_order(uploads)
        return OneShotClose(
            self.session.parameters.session,
            count=len(ordered),
            rejected=0,
            dropped=0,
            contributions=merkle.root([each.leaf for each in ordered]),
            dispositions=bytes(32),
            limb_sum=hashlib.sha256(_limb_sum(ordered)).digest(),
            opener=SummedCiphertext(hashlib.sha256(_ciphertext_sum(ordered)).digest()),
        )

    def shown(self, *entries: SessionEntry) -> LogEvidence:
        """A log of the open entry and these, signed by the coordinator, cosigned if the witness does."""
        data = [self.session.entry, *(entry.to_bytes() for entry in entries)]
        note = sign_checkpoint(self.cast.coordinator, Checkpoint(ORIGIN, len(data), merkle.root(data)))
        return LogEvidence(0, (), tuple(data), self._with_cosignature(note, data).to_bytes())

    # The authority.

    async def ask(self, uploads: Sequence[Upload], evidence: LogEvidence, committed: Sequence[Upload]) -> Signed:
        """Ask the authority to open these, with the attestations of honest attestors, under a list of commitments.

        Raises:
            RemoteProtocolError: it refuses.
        """
        ordered, listed = self.in_order(uploads), self.in_order(committed)
        head = self.session.roster.head(self.cast.registrar.public_bytes).to_bytes()
        signature = self.cast.registrar.sign_statement(head)
        files = ShownSessionFiles(evidence, (), self.session.roster.leaves(), head, signature)
        total = _ciphertext_sum(ordered)
        close = hashlib.sha256(evidence.entries[-1]).digest()
        attested = tuple(
            signed_by(key, Attestation(self.session.digest, close, key.public_bytes, hashlib.sha256(total).digest()))
            for key in self.attestors
        )

        async def pieces() -> AsyncIterator[DecryptPiece]:
            yield DecryptPiece(committed=tuple(each.leaf for each in listed))
            yield DecryptPiece(contributions=tuple(each.leaf for each in ordered))
            yield DecryptPiece(limb_sum=_limb_sum(ordered))

        request = SumRequest(files, total, attested)
        return await self.authority.decrypt(self.session.parameters.session, request, pieces())

    def _with_cosignature(self, note: Note, data: Sequence[bytes]) -> Note:
        if self.witness is None:
            key = key_of(self.cast.plan.seed, _WITNESS)
            return note.with_signatures((cosign(key, _WITNESS, note.text, START_S),))
        old_size = min(self._cosigned, len(data))
        proof = merkle.consistency_proof([merkle.leaf_hash(each) for each in data], old_size)
        answer = self.witness.add_checkpoint(AddCheckpoint(old_size, proof, note.to_bytes()).to_bytes())
        if answer.outcome is not Outcome.COSIGNED:
            self.notes.refused("the witness", "to cosign another history of the log", answer.outcome.name)
            return note
        self._cosigned = len(data)
        return note.with_signatures(parse_signatures(answer.body))

    def _context(self, number: int) -> client.OneShotClientContext:
        openers = frozenset({self.authority.own.key.public_bytes})
        policy = dataclasses.replace(self.cast.client_policy, openers=openers)
        return client.OneShotClientContext(self.cast.clients[number], self.session, policy, self.policy)


def _log_policy(seed: int, coordinator: bytes) -> LogPolicy:
    key = witness_key(_WITNESS, key_of(seed, _WITNESS).public_bytes)
    return LogPolicy((LogRule(log_key(ORIGIN, coordinator)),), (WitnessRule("w", key),), (), "w")


def _session(cast: Cast, own: Authority, made: PreparedContext, attestors: Sequence[SigningKey]) -> OneShotSession:
    parameters = cast.session.parameters
    context = made.checked(parameters.session, parameters.coordinator, own.key.public_bytes)
    opening = KeyAuthority(
        "authority",
        own.key.public_bytes,
        context,
        made.signature,
        tuple(key.public_bytes for key in attestors),
        ATTESTORS,
    )
    if not isinstance(parameters, OneShotOpen):
        raise TypeError("a one-shot session is attacked")
    return OneShotSession(dataclasses.replace(parameters, opening=opening), one_shot_of(cast).roster)


def _ciphertext_sum(uploads: Sequence[Upload]) -> bytes:
    total = CiphertextSum()
    for each in uploads:
        total.add(each.ciphertext)
    return total.result()


def _limb_sum(uploads: Sequence[Upload]) -> bytes:
    total = LimbSum(uploads[0].lanes.size)
    for each in uploads:
        total.add_lanes(each.lanes)
    return total.entries.astype("<u8").tobytes()
