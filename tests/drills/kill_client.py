"""Contributors are killed again and again while they contribute: they go on where they were, and say nothing twice."""

from __future__ import annotations

import random

from tests.drills.grounds import Cast
from tests.drills.killing import Killer, Rounds, acknowledged, drill
from tests.drills.report import DrillReport

NAME = "kill-client"


async def run(rounds: Rounds) -> DrillReport:
    """The drill."""
    report = DrillReport(
        NAME, f"{rounds.sessions} sessions of 3 contributors; up to 2 of them killed {rounds.kills} times in each"
    )
    members = 2 if "one-shot" in rounds.protocols else 0
    chance = random.Random(f"{NAME} {rounds.seed}")

    # Whoever contributes is started again by ``take_part``.
    await drill(
        report,
        Cast(members=members),
        rounds,
        lambda ground, people: Killer(ground, people, acknowledged, chance, at_once=2, restarts=False),
    )
    return report
