"""Witnesses' machines, and the coordinator's side of asking them, over the simulated network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from secagg.crypto.notes import log_key, open_checkpoint
from secagg.runtime.clock import Clock
from secagg.runtime.log_ports import ConsistencyProof, CosignError
from secagg.runtime.memory import MemoryWitnessState
from secagg.runtime.participant import TransportError
from secagg.runtime.witness import Outcome, Response, Witness
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import Note, NoteSignature, parse_signatures
from secagg.transcript.witness_request import AddCheckpoint
from simulations.world.cast import ORIGIN, Cast, witness_name
from simulations.world.coordinator import CoordinatorNode
from simulations.world.machine import Machine
from simulations.world.network import Line, Network

_ATTEMPTS = 3


@dataclass
class WitnessNode(Machine):
    """One witness: what it keeps, and its process while it is up."""

    cast: Cast
    number: int
    clock: Clock
    line: Line = field(default_factory=lambda: Line(0.02))
    state: MemoryWitnessState = field(default_factory=MemoryWitnessState)

    @property
    def name(self) -> str:
        """See ``Machine.name``; also of its key."""
        return witness_name(self.number)

    async def start(self) -> None:
        """Begin to serve."""
        self.begin()

    async def add_checkpoint(self, body: bytes) -> Response:
        """Answer one request."""
        log = log_key(ORIGIN, self.cast.coordinator.public_bytes)
        key = self.cast.witnesses[self.number]
        return Witness(self.name, key, [log], self.state, self.clock).add_checkpoint(body)


class NetworkCosigners:
    """``Cosigners`` over the simulated network: all are asked at once, a quorum is enough."""

    def __init__(
        self, coordinator: CoordinatorNode, witnesses: Sequence[WitnessNode], network: Network, quorum: int
    ) -> None:
        self._coordinator = coordinator
        self._witnesses = witnesses
        self._network = network
        self._quorum = quorum
        self._seen = dict.fromkeys((witness.name for witness in witnesses), 0)

    async def cosign(self, checkpoint: Note, consistency: ConsistencyProof) -> tuple[NoteSignature, ...]:
        """See ``Cosigners.cosign``."""
        answers = await asyncio.gather(*(self._ask(witness, checkpoint, consistency) for witness in self._witnesses))
        lines = tuple(line for line in answers if line is not None)
        if len(lines) < self._quorum:
            raise CosignError(f"{len(lines)} of {self._quorum} witnesses")
        return lines

    async def _ask(self, witness: WitnessNode, note: Note, consistency: ConsistencyProof) -> NoteSignature | None:
        """A witness's cosignature, checked; None if it gives none now."""
        size = Checkpoint.parse(note.text).size
        old_size = min(self._seen[witness.name], size)
        for _ in range(_ATTEMPTS):
            body = AddCheckpoint(old_size, consistency(old_size), note.to_bytes()).to_bytes()
            try:
                answer = await self._network.call(
                    (self._coordinator, witness),
                    "add-checkpoint",
                    body,
                    lambda body=body: witness.add_checkpoint(body),  # type: ignore[misc]
                )
            except TransportError:
                return None
            if answer.outcome is Outcome.COSIGNED:
                self._seen[witness.name] = size
                return self._checked(note, answer.body)
            if answer.outcome is not Outcome.OTHER_SIZE or int(answer.body) > size:
                return None
            old_size = self._seen[witness.name] = int(answer.body)
        return None

    def _checked(self, note: Note, body: bytes) -> NoteSignature | None:
        lines = parse_signatures(body)
        signed = note.with_signatures(lines).to_bytes()
        cast = self._coordinator.cast
        log = log_key(ORIGIN, cast.coordinator.public_bytes)
        witnessed = open_checkpoint(signed, log, cast.log_policy.witness_keys)
        return lines[0] if witnessed.cosigned else None
