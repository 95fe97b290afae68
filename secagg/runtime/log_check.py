"""A published log examined by its files alone: no key, no private state, no signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from secagg.runtime.log_record import (
    Fault,
    FaultKind,
    RecordReader,
    check_tiles,
    parse_names,
    read_entries,
    tile_data,
)
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.growing_tree import GrowingTree
from secagg.transcript.note import Note, NoteError
from secagg.transcript.tiles import parse_tile_path

CHECKPOINT = "checkpoint"


class CheckpointedRecord(RecordReader, Protocol):
    """The published files of a log, checkpoint included."""

    def checkpoint(self) -> bytes | None:
        """The published checkpoint, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Examination:
    """What the files of a log say.

    ``checkpoint`` is None where there is none that can be read. ``tree`` is over all entries up to the first fault.
    ``is_settled``: the entries give the checkpoint, so they say what every tile has to hold.
    """

    checkpoint: Checkpoint | None
    tree: GrowingTree
    is_settled: bool
    faults: tuple[Fault, ...]

    @property
    def is_sound(self) -> bool:
        """Whether all is there and agrees."""
        return all(fault.kind is FaultKind.LEFTOVER for fault in self.faults)

    def repairs(self) -> list[tuple[str, bytes]]:
        """Paths and contents of the tiles that are missing, torn or wrong, where the entries settle them."""
        if not self.is_settled:
            return []
        found = []
        for fault in self.faults:
            if fault.kind in {FaultKind.MISSING, FaultKind.TORN, FaultKind.WRONG}:
                found.append((fault.path, tile_data(self.tree, parse_tile_path(fault.path))))
        return found


def examine(record: CheckpointedRecord) -> Examination:
    """Read entries and checkpoint, compute everything else again and compare."""
    names = parse_names(record.names())
    entries = read_entries(record, names)
    faults = list(entries.faults)
    checkpoint, fault = _read_checkpoint(record)
    if fault is None and checkpoint is not None:
        fault = _compare(entries.tree, checkpoint)
    if fault is not None:
        faults.append(fault)
    is_settled = checkpoint is not None and all(fault.kind is FaultKind.LEFTOVER for fault in faults)
    if is_settled and checkpoint is not None:
        faults += check_tiles(record, names, entries.tree, checkpoint.size)
    faults += [Fault(name, FaultKind.SUPERFLUOUS, "no tile or bundle has this name") for name in names.unknown]
    return Examination(checkpoint, entries.tree, is_settled, tuple(faults))


def published_size(record: CheckpointedRecord) -> int:
    """How many entries the checkpoint covers; 0 where there is none that can be read."""
    checkpoint, _ = _read_checkpoint(record)
    return checkpoint.size if checkpoint is not None else 0


def _read_checkpoint(record: CheckpointedRecord) -> tuple[Checkpoint | None, Fault | None]:
    data = record.checkpoint()
    if data is None:
        return None, Fault(CHECKPOINT, FaultKind.MISSING, "nothing has been published")
    try:
        return Checkpoint.parse(Note.parse(data).text), None
    except NoteError as error:
        return None, Fault(CHECKPOINT, FaultKind.TORN, str(error))


def _compare(tree: GrowingTree, checkpoint: Checkpoint) -> Fault | None:
    if checkpoint.size > tree.size:
        return Fault(
            "tile/entries", FaultKind.MISSING, f"{checkpoint.size} entries are published, {tree.size} are here"
        )
    if tree.root(checkpoint.size) != checkpoint.root:
        return Fault(CHECKPOINT, FaultKind.WRONG, "the entries give another root")
    return None
