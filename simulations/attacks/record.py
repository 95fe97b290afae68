"""Attacks on what is published: files altered, sums rewritten, entries added, old states shown, receipts not honoured.

A session is simulated with four witnesses, its record is written out, altered, and given to the real verifier at level
full. An attack succeeds if the verifier passes what was altered.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from secagg.crypto.signing import SignatureError, verify_statement
from secagg.protocol.messages import SignedReceipt
from secagg.protocol.one_shot.client_states import Delivered
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.runtime.participant import Milestone
from secagg.transcript.entries import OneShotClose, OneShotResult, decode_entry
from secagg.transcript.statements import Receipt
from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.forgery import receipt
from simulations.attacks.forgery_one_shot import close_over, taken
from simulations.attacks.histories import Historian, corrupt_witnesses
from simulations.attacks.interrogation import PHASE_S, VICTIM, plan_of
from simulations.attacks.notebook import Notebook, how_it_ended, numbered
from simulations.attacks.published_record import Auditor, PublishedRecord, Verdict, with_entries
from simulations.world.cast import START_S
from simulations.world.coordinator import CoordinatorNode, Front
from simulations.world.loop import run_virtually
from simulations.world.plan import Protocol
from simulations.world.world import World

WITNESSES = 4
DAY_S = 86_400


async def finished(seed: int, corrupt: Sequence[int] = ()) -> tuple[World, Notebook, Historian]:
    """A session of six clients that ended with a sum, and whoever signs histories of its log."""
    world, notes = World(plan_of(seed, witnesses=WITNESSES)), Notebook()
    corrupt_witnesses(world, corrupt)
    historian = Historian(world, notes)
    await world.open()
    for number in range(world.plan.clients):
        world.join(number)
    await world.until_over(20 * PHASE_S)
    record = PublishedRecord.of(world)
    notes.step(f"A session ends ({how_it_ended(world)}) and publishes {len(record.files)} files: {record.verdict()}.")
    return world, notes, historian


# Files


async def altered_files(seed: int, below: str = "") -> AttackResult:
    """Whoever serves the record alters one bit of a file, or leaves it out; every file below a path in turn."""
    world, notes, _ = await finished(seed)
    record = PublishedRecord.of(world)
    passed = []
    for path in sorted(each for each in record.files if each.startswith(below)):
        shown = path.removeprefix(record.path(""))
        altered = record.with_files({path: _flipped(record.files[path])}).verdict()
        missing = record.without(path).verdict()
        notes.step(f"{shown}: one bit altered: {altered}; left out: {missing}.")
        passed += [shown for verdict in (altered, missing) if verdict.exit_code == 0]
    learned = [f"{path} can be altered or left out" for path in passed]
    return notes.result(how_it_ended(world), learned, succeeded=bool(passed))


def _flipped(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


async def rewritten_sum(seed: int, corrupt: Sequence[int] = range(WITNESSES)) -> AttackResult:
    """The coordinator publishes another sum, and rewrites the result entry and the log so that all fits."""
    world, notes, historian = await finished(seed, corrupt)
    record, before = PublishedRecord.of(world), world.coordinator.host.evidence()
    total = np.frombuffer(record.files[record.path("integer-sum.bin")], dtype="<i8").copy()
    total[0] += 1
    entries = [_with_sum(entry, total.tobytes()) for entry in before.entries]
    evidence = await historian.told(before, entries, range(WITNESSES))
    rewritten = with_entries(record, evidence).with_files({record.path("integer-sum.bin"): total.tobytes()})
    auditors = {"a new auditor": Auditor(), "an auditor that was there before": _returning(record)}
    return _told(world, notes, rewritten, auditors)


def _with_sum(entry: bytes, total: bytes) -> bytes:
    decoded = decode_entry(entry)
    if not isinstance(decoded, OneShotResult):
        return entry
    return dataclasses.replace(decoded, integer_sum=hashlib.sha256(total).digest()).to_bytes()


# Entries


async def second_close(seed: int) -> AttackResult:
    """After the result the coordinator logs a second close, without the victim: all witnesses sign, as they should."""
    world, notes, historian = await finished(seed)
    record, before = PublishedRecord.of(world), world.coordinator.host.evidence()
    others = [each for number, each in taken(world).items() if number != VICTIM]
    entries = (*before.entries, close_over(world.cast, others).to_bytes())
    evidence = await historian.told(before, entries, range(WITNESSES))
    return _told(world, notes, with_entries(record, evidence), {"an auditor": Auditor()})


async def swapped_entries(seed: int, corrupt: Sequence[int] = range(WITNESSES)) -> AttackResult:
    """Close and result change places, as if the sum had been opened before the set was fixed."""
    world, notes, historian = await finished(seed, corrupt)
    record, before = PublishedRecord.of(world), world.coordinator.host.evidence()
    *first, close, result = before.entries
    if not isinstance(decode_entry(close), OneShotClose):
        raise TypeError("the session ends with a close and a result")
    evidence = await historian.told(before, (*first, result, close), range(WITNESSES))
    return _told(world, notes, with_entries(record, evidence), {"an auditor": Auditor()})


async def old_record(seed: int) -> AttackResult:
    """The log grows, and whoever serves the record shows it as it was before."""
    world, notes, historian = await finished(seed)
    old, before = PublishedRecord.of(world), world.coordinator.host.evidence()
    others = [each for number, each in taken(world).items() if number != VICTIM]
    entries = (*before.entries, close_over(world.cast, others).to_bytes())
    later = await historian.told(before, entries, range(WITNESSES))
    notes.step(f"The log grows to {later.size} entries. Whoever serves it shows the {before.size} of before.")
    auditors = {
        "an auditor that has seen the longer log": Auditor(saved=later.checkpoint),
        "an auditor that comes two days later and wants cosignatures of the last day": Auditor(
            now_s=START_S + 2 * DAY_S, max_age_s=DAY_S
        ),
    }
    notes.step(f"To a new auditor that asks for no date: {old.verdict()}. It learns what was so then, and no more.")
    return _told(world, notes, old, auditors)


def _returning(record: PublishedRecord) -> Auditor:
    return Auditor(saved=record.files["checkpoint"])


def _told(world: World, notes: Notebook, record: PublishedRecord, auditors: dict[str, Auditor]) -> AttackResult:
    """What auditors find; the attack succeeds if one of them passes the record."""
    verdicts: dict[str, Verdict] = {name: record.verdict(auditor) for name, auditor in auditors.items()}
    for name, verdict in verdicts.items():
        notes.step(f"To {name}: {verdict}.")
        for check in verdict.failing:
            notes.refused("the verifier", "the record", check)
    passed = [name for name, verdict in verdicts.items() if verdict.exit_code == 0]
    learned = [f"{name} passes it" for name in passed]
    return notes.result(how_it_ended(world), learned, succeeded=bool(passed))


# Receipts


class Forgetful(Front):
    """Gives the victim a receipt, and throws its contribution away."""

    def __init__(self, node: CoordinatorNode) -> None:
        super().__init__(node)
        self._victim = node.cast.clients[VICTIM].public_bytes

    async def announce(self, caller: bytes, message: object) -> bool:
        """Take a header; the victim's is not kept."""
        if caller == self._victim:
            return False
        return await super().announce(caller, message)  # type: ignore[arg-type]

    async def deliver(self, caller: bytes, data: bytes) -> None:
        """Take an upload; the victim's is not kept."""
        if caller != self._victim:
            await super().deliver(caller, data)

    async def receipt(self, caller: bytes, message: object) -> SignedReceipt:
        """The coordinator's word, also for what it does not hold."""
        if caller == self._victim and isinstance(message, OneShotContribution):
            return self.signed(message)
        return await super().receipt(caller, message)  # type: ignore[arg-type]

    def signed(self, message: OneShotContribution) -> SignedReceipt:
        """A receipt that verifies."""
        return receipt(self.node.cast, message.signed)


class Evasive(Forgetful):
    """Gives the victim a receipt that proves nothing."""

    def signed(self, message: OneShotContribution) -> SignedReceipt:
        """A receipt for something else."""
        other = Receipt(bytes(32), bytes(32)).to_bytes()
        del message
        return SignedReceipt(other, self.node.cast.coordinator.sign_statement(other))


async def broken_receipt(seed: int, front: Callable[[CoordinatorNode], Forgetful]) -> AttackResult:
    """A contribution is acknowledged and left out; whether its client can prove that."""
    world, notes = World(plan_of(seed, witnesses=WITNESSES), front), Notebook()
    await world.open()
    for number in range(world.plan.clients):
        world.join(number)
    await world.until_over(20 * PHASE_S)
    record = PublishedRecord.of(world)
    notes.step(f"The session ends: {how_it_ended(world)}, with the sum of {numbered(world.accepted())}.")
    for each in world.happenings:
        if each.what == "refused":
            notes.refused(each.node, "its receipt", each.detail)
    is_left_out, believes = VICTIM not in world.accepted(), _delivered(world)
    proves = is_left_out and _proves(world, record)
    words = "believes that it was taken" if believes else "knows that it has no receipt"
    notes.step(f"Client {VICTIM} {words}; it {'can' if proves else 'cannot'} prove that it was left out.")
    succeeded = is_left_out and believes and not proves
    learned = [f"client {VICTIM} was left out, believes that it was taken, and has no proof"] if succeeded else []
    return notes.result(how_it_ended(world), learned, succeeded=succeeded)


def _delivered(world: World) -> bool:
    return any(
        (each.node, each.what, each.detail) == (f"client-{VICTIM}", "milestone", Milestone.DELIVERED.name.lower())
        for each in world.happenings
    )


def _proves(world: World, record: PublishedRecord) -> bool:
    """A receipt that the coordinator signed, for a header that is not among the published contributions."""
    participant = world.clients[VICTIM].participant
    state = None if participant is None else participant.state
    if not isinstance(state, Delivered):
        return False
    header, shown = state.sent.to_bytes(), state.receipt
    expected = Receipt(world.cast.session.digest, hashlib.sha256(header).digest()).to_bytes()
    try:
        verify_statement(world.cast.coordinator.public_bytes, shown.receipt, shown.signature)
    except SignatureError:
        return False
    listed = record.files[record.path("contributions.jsonl")].splitlines()
    return shown.receipt == expected and header not in listed


def _attack(name: str, texts: tuple[str, str, str], play: Callable[[int], Coroutine[Any, Any, AttackResult]]) -> Attack:
    goal, adversary, why = texts
    return Attack(name, Protocol.ONE_SHOT, goal, adversary, why, lambda seed: run_virtually(play(seed)))


ATTACKS: tuple[Attack, ...] = (
    _attack(
        "record-altered-files",
        (
            "Alter one bit of any published file, or leave the file out, so that the record still passes.",
            "whoever serves the record, without any key",
            "The log names every file by digest or root, and the checkpoint names the log. Whatever a check does not "
            "find as it is named fails, and nothing that is missing passes.",
        ),
        altered_files,
    ),
    _attack(
        "record-rewritten-sum",
        (
            "Publish another sum, with a log in which everything fits.",
            "the coordinator with all 4 witnesses",
            "The verifier computes the sum itself: from the masked sum that the close entry names, and from the "
            "members' signed answers. Whoever was there before also sees that the log was rewritten.",
        ),
        rewritten_sum,
    ),
    _attack(
        "record-second-close",
        (
            "Log a second close of a session that has ended, without the victim, and have the record pass.",
            "the coordinator; all 4 witnesses are honest, and sign because the log only grows",
            "A session has one entry of each kind, in one order; a second one fails everything that is said of it.",
        ),
        second_close,
    ),
    _attack(
        "record-swapped-entries",
        (
            "Let it look as if the sum had been opened before the set was fixed.",
            "the coordinator with all 4 witnesses",
            "The result stands before the close then, which no order of entries allows.",
        ),
        swapped_entries,
    ),
    _attack(
        "record-old-state",
        (
            "Show auditors the record as it was before the log grew.",
            "whoever serves the record, without any key",
            "An auditor that kept a checkpoint sees that the log became shorter; one that limits the age of "
            "cosignatures sees that they are old. A new auditor that asks for neither is shown what was true then, "
            "and the report says so.",
        ),
        old_record,
    ),
    _attack(
        "record-broken-receipt",
        (
            "Acknowledge a contribution, leave it out, and deny that it ever came.",
            "the coordinator alone",
            "The receipt names the header and the coordinator signed it. Together with the closed set, in which the "
            "header is not, it proves the breach to anybody. It cannot bring the contribution back.",
        ),
        lambda seed: broken_receipt(seed, Forgetful),
    ),
)
"""Attacks on what is published."""
