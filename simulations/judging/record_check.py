"""The published record of a simulated session, judged by the real verifier with the cast's keys pinned."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from secagg.crypto.notes import log_key
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import Note
from secagg.transcript.policy import LogPolicy, LogRule
from secagg.transcript.tiles import TILE_WIDTH, parse_bundle_path, parse_tile_path
from simulations.world.cast import ORIGIN, START_S, Cast
from simulations.world.world import World
from verifier.audit import Audit
from verifier.checks import Level, Status
from verifier.policy import AuditPolicy, NoiseDemand, PinnedOpeners, SessionFloors
from verifier.record_files import RecordFiles
from verifier.report import SessionEnd, Verdict
from verifier.run import run_audit

_LEVEL_BITS = 8
"""A hash stands for 256 of the level below."""


@dataclass(frozen=True, slots=True)
class RecordVerdict:
    """What the verifier says.

    Attributes:
        verdict: passed, failed or incomplete.
        end: how the session ended, as the record tells; None if the record has no session.
        failed: identifiers of the checks that failed, in order.
        unavailable: identifiers of the checks that could not be made.
        findings: what was found, in words, with the identifiers.
    """

    verdict: Verdict
    end: SessionEnd | None
    failed: tuple[str, ...]
    unavailable: tuple[str, ...]
    findings: tuple[str, ...]


def write_record(world: World, directory: Path) -> None:
    """Write what the coordinator has published by now, as docs/record.md lays it out.

    Tiles of a log larger than the checkpoint's are left out, as by everybody who copies a log that grows.
    """
    log, session = world.coordinator.disk.log, world.cast.session.parameters.session
    files = {}
    checkpoint = log.checkpoint()
    if checkpoint is not None:
        files["checkpoint"] = checkpoint
        size = Checkpoint.parse(Note.parse(checkpoint).text).size
        for name in log.names():
            data = log.read(name)
            if data is not None and entries_of(name) <= size:
                files[name] = data
    for (owner, name), data in world.coordinator.published.files.items():
        if owner == session:
            files[f"sessions/{session.hex()}/{name}"] = data
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def entries_of(name: str) -> int:
    """How many entries a log must have for a tile or bundle of this name to be its."""
    if name.startswith("tile/entries/"):
        level, (index, width) = 0, parse_bundle_path(name)
    else:
        level, index, width = parse_tile_path(name)
    return (TILE_WIDTH * index + width) << _LEVEL_BITS * level


def audit_policy(cast: Cast) -> AuditPolicy:
    """What an auditor trusts who knows the cast: its log, its witnesses, its registrar, its committee."""
    log = cast.log_policy
    if not log.logs:
        log = LogPolicy((LogRule(log_key(ORIGIN, cast.coordinator.public_bytes)),), (), (), log.quorum)
    return AuditPolicy(
        log=log,
        registrars=frozenset({cast.registrar.public_bytes}),
        floors=SessionFloors(cast.plan.minimum, Fraction(0)),
        noise=NoiseDemand(cast.session.parameters.noise.TYPE),
        max_age_s=None,
        digest=bytes(32),
        log_digest=bytes(32),
        openers=PinnedOpeners(frozenset(key.public_bytes for key in cast.members)),
    )


def check_record(world: World, level: Level = Level.SUM) -> RecordVerdict:
    """The verifier's word on the record as it is now; to be asked for inside the world's loop."""
    with tempfile.TemporaryDirectory(prefix="secagg-record-") as name:
        directory = Path(name)
        write_record(world, directory)
        now_s = START_S + int(world.now_s)
        report = run_audit(Audit(RecordFiles(directory), audit_policy(world.cast), level, now_s))
    failed = [each for each in report.checks if each.status is Status.FAIL]
    unavailable = [each for each in report.checks if each.status is Status.UNAVAILABLE]
    return RecordVerdict(
        report.verdict,
        report.sessions[0].end if report.sessions else None,
        tuple(each.check.identifier for each in failed),
        tuple(each.check.identifier for each in unavailable),
        tuple(
            f"{each.check.identifier} {' '.join(map(str, (*each.failures, *each.missing)))}"
            for each in (*failed, *unavailable)
        ),
    )
