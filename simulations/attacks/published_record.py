"""The record that a simulated session publishes, as files, and the real verifier over it."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from secagg.transcript import merkle, tiles
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.growing_tree import GrowingTree
from simulations.attacks.forgery_one_shot import taken
from simulations.judging.record_check import audit_policy, entries_of
from simulations.world.cast import START_S, Cast
from simulations.world.world import World
from verifier.audit import Audit, Brought
from verifier.checks import Level, Status
from verifier.record_files import RecordFiles
from verifier.run import run_audit

SOON_S = START_S + 3600
"""When auditors look: an hour after the session was opened."""


@dataclass(frozen=True)
class Auditor:
    """What an auditor insists on and brings along.

    Attributes:
        now_s: the auditor's clock.
        max_age_s: how old cosignatures may be; None for any age.
        saved: a checkpoint of an earlier visit.
    """

    now_s: int = SOON_S
    max_age_s: int | None = None
    saved: bytes | None = None


@dataclass(frozen=True)
class Verdict:
    """What the verifier says: its exit code, and the checks that fail."""

    exit_code: int
    failing: tuple[str, ...]

    def __str__(self) -> str:
        """In words."""
        if self.exit_code == 0:
            return "every check passes"
        if self.exit_code == 3:
            return "incomplete"
        return f"{' and '.join(self.failing)} fail{'' if len(self.failing) > 1 else 's'}"


@dataclass(frozen=True)
class PublishedRecord:
    """The files of a record by path, and masked inputs, which auditors of level full get as well."""

    cast: Cast
    files: Mapping[str, bytes]
    masked_inputs: Mapping[str, bytes]

    @classmethod
    def of(cls, world: World) -> PublishedRecord:
        """What the coordinator of a one-shot session has published by now; its log has less than 256 entries."""
        log = world.coordinator.disk.log
        bundle = max((name for name in log.names() if name.startswith("tile/entries/")), key=entries_of)
        # Without the partial tiles of earlier sizes, which anybody may delete.
        files = log_files(tiles.decode_bundle(log.read(bundle) or b""))
        files["checkpoint"] = log.checkpoint() or b""
        for (session, name), data in world.coordinator.published.files.items():
            files[f"sessions/{session.hex()}/{name}"] = data
        uploads = [each.lanes.astype("<u8").tobytes() for each in taken(world).values()]
        return cls(world.cast, files, {f"{hashlib.sha256(data).hexdigest()}.bin": data for data in uploads})

    @property
    def entries(self) -> tuple[bytes, ...]:
        """All entries of the log; a simulated one is short."""
        (bundle,) = [data for name, data in self.files.items() if name.startswith("tile/entries/")]
        return tiles.decode_bundle(bundle)

    def path(self, name: str) -> str:
        """The path of a file of the session."""
        return f"sessions/{self.cast.session.parameters.session.hex()}/{name}"

    def with_files(self, changes: Mapping[str, bytes]) -> PublishedRecord:
        """The record with other contents of some files."""
        return dataclasses.replace(self, files={**self.files, **changes})

    def without(self, path: str) -> PublishedRecord:
        """The record without a file."""
        return dataclasses.replace(self, files={name: data for name, data in self.files.items() if name != path})

    def with_log(self, entries: Sequence[bytes], checkpoint: bytes) -> PublishedRecord:
        """The record with another log, tiles and all."""
        kept = {name: data for name, data in self.files.items() if not name.startswith("tile/")}
        return dataclasses.replace(self, files={**kept, **log_files(entries), "checkpoint": checkpoint})

    def verdict(self, auditor: Auditor = Auditor()) -> Verdict:
        """What the real verifier says of it at level full, under the policy of an auditor."""
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            _write(root / "record", self.files)
            _write(root / "masked-inputs", self.masked_inputs)
            inputs = RecordFiles(root / "masked-inputs", "masked-inputs/")
            brought = Brought(inputs, None, auditor.saved)
            policy = dataclasses.replace(audit_policy(self.cast), max_age_s=auditor.max_age_s)
            audit = Audit(RecordFiles(root / "record"), policy, Level.FULL, auditor.now_s, brought)
            report = run_audit(audit)
        failing = tuple(each.check.identifier for each in report.checks if each.status is Status.FAIL)
        return Verdict(report.verdict.exit_code, failing)


def log_files(entries: Sequence[bytes]) -> dict[str, bytes]:
    """Tiles and entry bundles of a log, by path."""
    tree = GrowingTree()
    for entry in entries:
        tree.append(merkle.leaf_hash(entry))
    files = {}
    for level, index, width in tiles.tiles_of(len(entries)):
        files[tiles.tile_path(level, index, width)] = tree.nodes(8 * level, tiles.TILE_WIDTH * index, width)
    for index, width in tiles.bundles_of(len(entries)):
        start = tiles.TILE_WIDTH * index
        files[tiles.bundle_path(index, width)] = tiles.encode_bundle(entries[start : start + width])
    return files


def with_entries(record: PublishedRecord, evidence: LogEvidence) -> PublishedRecord:
    """The record with the log that somebody is shown: what stands before the session stays."""
    return record.with_log([*record.entries[: evidence.start], *evidence.entries], evidence.checkpoint)


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir()
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
