"""Witnesses are killed again and again while a log grows: what they cosigned is on their disks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from secagg.cli.demo_site import ORIGIN
from secagg.crypto.notes import log_key, open_checkpoint
from secagg.runtime.witness import origin_hash
from secagg.transcript.note import VerifierKey
from tests.drills.grounds import Cast, Grounds
from tests.drills.killing import Killer, Rounds, drill, phase_began
from tests.drills.party import Party
from tests.drills.report import DrillReport

NAME = "kill-witness"
REMEMBERS = "a witness that was killed remembers the largest log that it cosigned"


async def run(rounds: Rounds) -> DrillReport:
    """The drill."""
    report = DrillReport(
        NAME,
        f"{rounds.sessions} sessions whose log 2 witnesses have to cosign; up to 2 of them killed {rounds.kills} times "
        "in each",
    )
    members = 2 if "one-shot" in rounds.protocols else 0
    chance = random.Random(f"{NAME} {rounds.seed}")

    def killer(ground: Grounds, _: Sequence[Party]) -> Killer:
        return Killer(ground, ground.witnesses, phase_began, chance, 2, after_death=lambda dead: _judge(ground, dead))

    await drill(report, Cast(members=members, witnesses=2), rounds, killer)
    return report


def _judge(ground: Grounds, dead: Sequence[Party]) -> None:
    """What is published with a cosignature is no larger than what the dead witness has on its disk."""
    broken = []
    for party in dead:
        key = VerifierKey.parse(party.serving["vkey"])
        shown = _size(ground, ground.site.record / "checkpoint", key)
        state = ground.site.private / party.name.replace(" ", "-") / "state"
        kept = _size(ground, state / origin_hash(ORIGIN), key)
        if kept < shown:
            broken.append(f"{party.name} has {kept} entries on its disk and has cosigned {shown}")
    ground.report.promise(REMEMBERS, *broken)


def _size(ground: Grounds, note: Path, witness: VerifierKey) -> int:
    """The size of the log in a note, if this witness cosigned it; else 0."""
    if not note.exists():
        return 0
    opened = open_checkpoint(note.read_bytes(), log_key(ORIGIN, ground.site.coordinator_key), (witness,))
    return opened.checkpoint.size if opened.cosigned else 0
