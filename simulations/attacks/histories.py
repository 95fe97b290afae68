"""A coordinator that keeps two histories of one log, with witnesses of which some work for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from secagg.crypto.notes import open_checkpoint, sign_checkpoint
from secagg.protocol.messages import AdvertisedList, ClosedList, SessionEnded, SharedList
from secagg.runtime.witness import Outcome, Response
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.note import Note
from secagg.transcript.witness_request import AddCheckpoint
from simulations.attacks.forgery import cosignature
from simulations.attacks.notebook import Notebook
from simulations.world.cast import ORIGIN, witness_name
from simulations.world.coordinator import CoordinatorNode, Front
from simulations.world.network import Call
from simulations.world.witnesses import NetworkCosigners, WitnessNode
from simulations.world.world import World


class LyingWitness(WitnessNode):
    """A witness that cosigns whatever it is shown."""

    async def add_checkpoint(self, body: bytes) -> Response:
        """See ``WitnessNode.add_checkpoint``."""
        note = Note.parse(AddCheckpoint.parse(body).note)
        line = cosignature(self.cast, self.number, note.text, self.clock.now_s())
        return Response(Outcome.COSIGNED, line.to_line().encode())


def corrupt_witnesses(world: World, numbers: Sequence[int]) -> None:
    """Before the session is opened: put liars in the places of honest witnesses."""
    for number in numbers:
        honest = world.witnesses[number]
        world.witnesses[number] = LyingWitness(world.cast, number, honest.clock)
        world.nodes[honest.name] = world.witnesses[number]


class Watcher:
    """Notes which witness refuses what."""

    def __init__(self, notes: Notebook) -> None:
        self._notes = notes
        self._asked: dict[Call, int] = {}

    def request(self, call: Call, request: object, handler: object) -> None:
        """See ``Observer.request``."""
        del handler
        if call.what == "add-checkpoint" and isinstance(request, bytes):
            note = Note.parse(AddCheckpoint.parse(request).note)
            self._asked[call] = Checkpoint.parse(note.text).size

    def reply(self, call: Call, reply: object) -> None:
        """See ``Observer.reply``."""
        if not isinstance(reply, Response):
            return
        size = self._asked.pop(call)
        if reply.outcome in {Outcome.FORK, Outcome.BAD_PROOF}:
            self._notes.refused(call.target, "to cosign another history of the log", reply.outcome.name)
        elif reply.outcome is Outcome.OTHER_SIZE and int(reply.body) > size:
            self._notes.refused(call.target, "to cosign a log that it knows to be longer", reply.outcome.name)


class Historian:
    """Signs histories of the coordinator's log, and has those witnesses cosign them that do.

    Args:
        world: whose log; it has one entry, the roster, before the session's.
        notes: told which witness refuses.
    """

    def __init__(self, world: World, notes: Notebook) -> None:
        self._world = world
        world.network.observers.append(Watcher(notes))

    async def told(self, before: LogEvidence, entries: Sequence[bytes], witnesses: Sequence[int]) -> LogEvidence:
        """The log with these entries in place of those from the session's open entry on, cosigned by whoever does."""
        if len(before.prefix) != before.start:
            raise ValueError("the log has more before the session than single entries")
        hashes = [*before.prefix, *map(merkle.leaf_hash, entries)]
        world = self._world
        note = sign_checkpoint(world.cast.coordinator, Checkpoint(ORIGIN, len(hashes), merkle.root_of_hashes(hashes)))
        asked = [world.witnesses[number] for number in witnesses]
        cosigners = NetworkCosigners(world.coordinator, asked, world.network, 0)
        lines = await cosigners.cosign(note, lambda size: merkle.consistency_proof(hashes, size))
        return LogEvidence(before.start, before.prefix, tuple(entries), note.with_signatures(lines).to_bytes())


def cosigners_of(world: World, evidence: LogEvidence) -> list[str]:
    """Names of the witnesses whose cosignatures a checkpoint has."""
    policy = world.cast.log_policy
    witnessed = open_checkpoint(evidence.checkpoint, policy.logs[0].key, policy.witness_keys) if policy.logs else None
    keys = frozenset[bytes]() if witnessed is None else witnessed.public_keys
    return [witness_name(number) for number, key in enumerate(world.cast.witnesses) if key.public_bytes in keys]


class TwoHistories(Front):
    """Shows some clients the real log, and the others one with an entry more, of a session that nobody opened.

    Everything else is the same in both: no client can notice by anything but the checkpoint.

    Args:
        node: the coordinator.
        historian: signs the other log.
        deceived: numbers of the clients that are shown it.
        witnesses: numbers of the witnesses that are asked to cosign it.
    """

    def __init__(
        self,
        node: CoordinatorNode,
        historian: Historian,
        deceived: frozenset[int],
        witnesses: Sequence[int],
    ) -> None:
        super().__init__(node)
        self._historian = historian
        self._deceived = frozenset(node.cast.clients[number].public_bytes for number in deceived)
        self._witnesses = witnesses
        self.told: dict[int, LogEvidence] = {}

    async def session_files(self, caller: bytes, log_size: int) -> tuple[LogEvidence, tuple[bytes, ...]]:
        """The log for this caller."""
        evidence, proof = await super().session_files(caller, log_size)
        if caller not in self._deceived:
            return evidence, proof
        other = await self._other(evidence)
        hashes = [*other.prefix, *map(merkle.leaf_hash, other.entries)]
        return other, merkle.consistency_proof(hashes, log_size) if log_size <= len(hashes) else ()

    async def advertised_list(self, caller: bytes) -> AdvertisedList:
        """U1 in the log for this caller."""
        shown = await super().advertised_list(caller)
        return dataclasses.replace(shown, evidence=await self._for(caller, shown.evidence))

    async def shared_list(self, caller: bytes) -> SharedList:
        """U2 in the log for this caller."""
        shown = await super().shared_list(caller)
        return dataclasses.replace(shown, evidence=await self._for(caller, shown.evidence))

    async def closed_list(self, caller: bytes) -> ClosedList:
        """U3 in the log for this caller."""
        shown = await super().closed_list(caller)
        return dataclasses.replace(shown, evidence=await self._for(caller, shown.evidence))

    async def outcome(self, caller: bytes) -> SessionEnded:
        """The end in the log for this caller."""
        shown = await super().outcome(caller)
        return dataclasses.replace(shown, evidence=await self._for(caller, shown.evidence))

    async def _for(self, caller: bytes, evidence: LogEvidence) -> LogEvidence:
        return await self._other(evidence) if caller in self._deceived else evidence

    async def _other(self, evidence: LogEvidence) -> LogEvidence:
        if evidence.size not in self.told:
            parameters = self.node.cast.session.parameters
            invented = dataclasses.replace(parameters, session=bytes(16)).to_bytes()
            entries = (evidence.entries[0], invented, *evidence.entries[1:])
            self.told[evidence.size] = await self._historian.told(evidence, entries, self._witnesses)
        return self.told[evidence.size]
