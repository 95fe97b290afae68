"""Committee members are killed again and again while they collect shares and open sums: each answers once."""

from __future__ import annotations

import dataclasses
import random

from tests.drills.grounds import Cast
from tests.drills.killing import Killer, Rounds, drill
from tests.drills.party import Happening
from tests.drills.report import DrillReport

NAME = "kill-member"


async def run(rounds: Rounds) -> DrillReport:
    """The drill."""
    rounds = dataclasses.replace(rounds, protocols=("one-shot",))
    members = 3 if rounds.sessions > 1 else 2
    report = DrillReport(
        NAME,
        f"{rounds.sessions} one-shot sessions, {members} members who are all needed; some or all of them killed "
        f"{rounds.kills} times in each, and once more when the sum was out",
    )
    chance = random.Random(f"{NAME} {rounds.seed}")
    await drill(
        report,
        Cast(members=members),
        rounds,
        lambda ground, _: Killer(ground, ground.members, _tells, chance, at_once=members),
    )
    return report


def _tells(happening: Happening) -> bool:
    """A contribution has come, or members are asked to open."""
    return happening.what.startswith("receipt") or happening.what in {"phase hold-shares", "phase open-sum"}
