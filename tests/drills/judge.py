"""What must hold of a session, whatever happened while it ran."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from secagg.cli.demo_committee import _used
from secagg.cli.demo_course import Running
from secagg.cli.institution import STATE_DIRECTORY
from secagg.client import SessionAbortedError, connect
from secagg.protocol.one_shot.member_states import MEMBER_PERSISTENCE, Answered
from secagg.runtime.member_ports import ANSWERED
from secagg.store.institution_state import JOURNAL_FILE, SESSIONS_FILE
from secagg.store.opening_journal import read_journal
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript.statements import Receipt, Rejected, Signed, decode_disposition
from tests.drills.grounds import Grounds
from tests.support.coordinator_process import UNIT

SUM = "a session ends with the exact sum of its closed set, or says why not"
RECEIPTS = "whoever has a receipt is in the closed set, or named there as rejected with a reason"
ONE_ANSWER = "a contributor says each thing in one way only, and of nobody are shares of both kinds released"
MEMBER = "a member answers once for a session, and its answer is on its disk before it is out"
RECORD = "the published record passes secagg-verify"


@dataclass
class Held:
    """What people hold after a session: the one-hot position of each by identity, and receipts by identity."""

    positions: Mapping[bytes, int]
    receipts: dict[bytes, list[bytes]] = field(default_factory=lambda: defaultdict(list))


async def judge(grounds: Grounds, session: bytes, protocol: str, held: Held) -> set[bytes]:
    """Whether the sum is exact and everybody with a receipt is in it or told why not; who is in it."""
    report = grounds.report
    directory = grounds.site.record / "sessions" / session.hex()
    try:
        async with await connect(*grounds.site.how_to_connect) as remote:
            result = await remote.result(session)
    except SessionAbortedError as error:
        report.endings[f"{protocol} aborted ({error.reason})"] += 1
        report.promise(SUM)
        return set()
    report.endings[f"{protocol} with a sum"] += 1
    lines = (directory / "contributions.jsonl").read_bytes().splitlines()
    counted = [Signed.from_bytes(line).statement.identity for line in lines]
    expected = np.zeros(result.integer_sum.size, dtype=np.int64)
    for identity in counted:
        expected[held.positions[identity]] += UNIT
    wrong = np.flatnonzero(result.integer_sum != expected)
    found = [f"{wrong.size} coordinates are wrong, the first is {wrong[0]}"] if wrong.size else []
    if result.contributors != len(counted) or len(set(counted)) != len(counted):
        found.append(f"{result.contributors} contributors, {len(set(counted))} of them named")
    report.promise(SUM, *found)
    _judge_receipts(grounds, directory, held, {hashlib.sha256(line).digest() for line in lines})
    return set(counted)


def _judge_receipts(grounds: Grounds, directory: Path, held: Held, counted: set[bytes]) -> None:
    leaves = [decode_disposition(line) for line in (directory / "dispositions.jsonl").read_bytes().splitlines()]
    rejected = {leaf.index for leaf in leaves if isinstance(leaf, Rejected)}
    order = sorted(held.positions)  # the roster's
    broken = []
    for identity, receipts in held.receipts.items():
        named = {Receipt.from_bytes(each).contribution for each in receipts}
        if len(named) > 1:
            broken.append(f"{identity.hex()[:8]} has receipts for {len(named)} contributions")
        if not named <= counted and order.index(identity) not in rejected:
            broken.append(f"{identity.hex()[:8]} has a receipt and is not in the closed set")
    grounds.report.promise(RECEIPTS, *broken)


def judge_sent(grounds: Grounds, session: bytes, people: Iterable[int]) -> None:
    """Whether anybody said something in two ways, by what was written down at the door."""
    broken, kinds = [], defaultdict(set)
    for k in people:
        said: dict[str, set[str]] = defaultdict(set)
        file = grounds.sent_of(k, session) / "sent.jsonl"
        for line in file.read_text().splitlines() if file.exists() else ():
            message, digest, released = json.loads(line)
            said[message].add(digest)
            for index, kind in released:
                kinds[index].add(kind)
        broken += [f"contributor {k}: {len(ways)} {message}" for message, ways in said.items() if len(ways) > 1]
    broken += [f"both shares of index {index}" for index, both in kinds.items() if len(both) > 1]
    refused = [line for line in grounds.coordinator.errors if line.get("reason") == "EQUIVOCATION"]
    grounds.report.promise(ONE_ANSWER, *broken, *(f"refused: {line['method']}" for line in refused))


async def judge_journals(grounds: Grounds, session: bytes) -> None:
    """Whether the members whose answers opened the sum have written down that they answered, once."""
    async with await connect(*grounds.site.how_to_connect) as remote:
        used = await _used(Running(remote.port, grounds.site, session, ()))
    broken = []
    for place in range(len(grounds.members)):
        journal = read_journal(_state_of(grounds, place) / JOURNAL_FILE)
        closes = [line.close for line in journal if (line.session, line.outcome) == (session, ANSWERED)]
        if len(closes) > 1:
            broken.append(f"member {place + 1} answered {len(closes)} times")
        if place in used and not closes:
            broken.append(f"member {place + 1} opened the sum, and its journal does not say so")
    grounds.report.promise(MEMBER, *broken)


async def judge_member_states(grounds: Grounds, sessions: Iterable[bytes]) -> None:
    """Whether each member's store holds the very answer that was published; no member runs any more."""
    keys = list(sessions)
    for place in range(len(grounds.members)):
        store = await asyncio.to_thread(SqliteSessionStore, _state_of(grounds, place) / SESSIONS_FILE)
        try:
            for session in keys:
                published = _published_answer(grounds, session, grounds.openers[place])
                stored = await store.load(session)
                state = None if stored is None else MEMBER_PERSISTENCE.decode(stored.state)
                own = state.answer.to_bytes() if isinstance(state, Answered) else None
                wrong = published is not None and own != published
                found = [f"member {place + 1} has another answer than the published one"] if wrong else []
                grounds.report.promise(MEMBER, *found)
        finally:
            await store.close()


def _published_answer(grounds: Grounds, session: bytes, member: bytes) -> bytes | None:
    file = grounds.site.record / "sessions" / session.hex() / "openings.jsonl"
    for line in file.read_bytes().splitlines() if file.exists() else ():
        if Signed.from_bytes(line).statement.identity == member:
            return line
    return None


def _state_of(grounds: Grounds, place: int) -> Path:
    return grounds.cards[place].parent / STATE_DIRECTORY
