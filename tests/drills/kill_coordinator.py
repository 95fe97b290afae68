"""The coordinator is killed again and again while sessions run: nothing that it acknowledged is lost."""

from __future__ import annotations

import random

from tests.drills.grounds import Cast
from tests.drills.killing import Killer, Rounds, acknowledged, drill, receipted
from tests.drills.report import DrillReport

NAME = "kill-coordinator"


async def run(rounds: Rounds) -> DrillReport:
    """The drill."""
    report = DrillReport(
        NAME,
        f"{rounds.sessions} sessions of 3 contributors, a witness; the coordinator killed {rounds.kills} times in each",
    )
    members = 2 if "one-shot" in rounds.protocols else 0
    chance = random.Random(f"{NAME} {rounds.seed}")
    # A single kill comes where most would be lost.
    tells = acknowledged if rounds.kills > 1 else receipted
    await drill(
        report,
        Cast(members=members),
        rounds,
        lambda ground, _: Killer(ground, [ground.coordinator], tells, chance),
    )
    return report
