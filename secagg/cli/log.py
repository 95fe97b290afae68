"""``secagg log``: look at the files of a published log, and write its tiles again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, add_group
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.runtime.log_check import Examination
    from secagg.store.log_files import RecordFiles

_SHOWN_FAULTS = 20
_DIGEST_CHARACTERS = 16
_TEXT_CHARACTERS = 40


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``log fsck`` and ``show``."""
    commands = add_group(
        subparsers,
        "log",
        "look at the files of a published log",
        """
        A coordinator publishes its log as a directory of files (c2sp.org/tlog-tiles) that any web server can serve:
        a checkpoint, bundles of entries, and tiles of hashes that follow from the entries. These commands read such
        a directory, the coordinator's own or a copy. They check no signature: `secagg-verify` does.""",
    )
    fsck = add_command(
        commands,
        "fsck",
        "check the files of a log against each other",
        """
        Read the entries and the checkpoint, compute every tile again, and say what is missing, torn, wrong or
        superfluous. Exits with 0 if the files agree, with 2 if they do not. With --rebuild, tiles that are missing,
        torn or wrong are written again, provided that the entries give the checkpoint; entries, checkpoint and
        superfluous files are never touched. Partial tiles whose full one is there (leftovers) are no fault.""",
        "secagg log fsck aggregator/record",
    )
    _add_record(fsck)
    fsck.add_argument("--rebuild", action="store_true", help="write tiles that are not right again, from the entries")
    fsck.set_defaults(run=_fsck)
    show = add_command(
        commands,
        "show",
        "list the entries of a log",
        """
        List every entry: its index, what it is, the session it belongs to and the beginning of its SHA-256. Entries
        at the end that no checkpoint covers yet are marked.""",
        "secagg log show aggregator/record",
    )
    _add_record(show)
    show.set_defaults(run=_show)


def _add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, metavar="RECORD", help="the log's directory, which holds `checkpoint`")


def _open(path: Path) -> RecordFiles:
    from secagg.store.log_files import RecordFiles

    if not path.is_dir():
        raise CommandError("RECORD", f"{path}: is no directory", "give the directory that holds `checkpoint`")
    return RecordFiles(path)


def _fsck(arguments: argparse.Namespace) -> ExitCode:
    from secagg.runtime.log_check import examine

    record = _open(arguments.record)
    examination = examine(record)
    rebuilt = examination.repairs() if arguments.rebuild else []
    if rebuilt:
        record.replace_tiles(rebuilt)
        examination = examine(record)
    _report(Reporter.of(arguments), arguments.record, examination, [path for path, _ in rebuilt])
    return ExitCode.OK if examination.is_sound else ExitCode.UNUSABLE_INPUT


def _report(reporter: Reporter, record: Path, examination: Examination, rebuilt: list[str]) -> None:
    from secagg.runtime.log_record import FaultKind

    checkpoint = examination.checkpoint
    faults = [fault for fault in examination.faults if fault.kind is not FaultKind.LEFTOVER]
    leftovers = len(examination.faults) - len(faults)
    rows = [("record", str(record))]
    if checkpoint is not None:
        rows += [("origin", checkpoint.origin), ("published", f"{checkpoint.size} entries")]
    rows.append(("entries", str(examination.tree.size)))
    if rebuilt:
        rows.append(("rebuilt", "\n".join(_shortened(rebuilt))))
    if leftovers:
        rows.append(("leftovers", f"{leftovers} partial tiles or bundles whose full one is there (no fault)"))
    rows.append(("faults", "\n".join(_shortened([str(fault) for fault in faults])) or "none"))
    if not examination.is_settled:
        rows.append(("tiles", "not checked: the entries do not give the checkpoint"))
    reporter.result(
        {
            "record": str(record),
            "origin": checkpoint.origin if checkpoint else None,
            "published": checkpoint.size if checkpoint else None,
            "entries": examination.tree.size,
            "root": checkpoint.root.hex() if checkpoint else None,
            "tiles_checked": examination.is_settled,
            "rebuilt": rebuilt,
            "leftovers": leftovers,
            "faults": [{"path": fault.path, "fault": fault.kind.value, "detail": fault.detail} for fault in faults],
        },
        table(rows),
    )


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= _SHOWN_FAULTS:
        return lines
    return [*lines[:_SHOWN_FAULTS], f"and {len(lines) - _SHOWN_FAULTS} more (--format json shows all)"]


def _show(arguments: argparse.Namespace) -> ExitCode:
    from secagg.runtime.log_check import published_size
    from secagg.runtime.log_record import iterate_entries, parse_names
    from secagg.transcript.tiles import TileError

    record = _open(arguments.record)
    size = published_size(record)
    shown: list[dict[str, Any]] = []
    try:
        for _, entries in iterate_entries(record, parse_names(record.names())):
            shown += [_described(len(shown) + number, entry, size) for number, entry in enumerate(entries)]
    except TileError as error:
        fix = f"`secagg log fsck {arguments.record}` says what is wrong"
        raise CommandError("ENTRIES", f"{arguments.record}: {error}", fix, kind="log") from None
    lines = [
        f"{entry['index']:>8}  {entry['type']:<22} {entry['session'] or '-':<32}  "
        f"{entry['sha256'][:_DIGEST_CHARACTERS]}{'' if entry['published'] else '  not published yet'}"
        for entry in shown
    ]
    Reporter.of(arguments).result(
        {"record": str(arguments.record), "published": size, "entries": shown}, "\n".join(lines) or "no entries"
    )
    return ExitCode.OK


def _described(index: int, entry: bytes, published: int) -> dict[str, Any]:
    """What to show of an entry, which may be anything."""
    import hashlib

    from secagg.transcript.canonical import CanonicalError, decode_object

    try:
        members = decode_object(entry)
    except CanonicalError:
        members = {}
    kind, session = members.get("type"), members.get("session")
    return {
        "index": index,
        "type": kind[:_TEXT_CHARACTERS] if isinstance(kind, str) else "unknown",
        "session": session[:_TEXT_CHARACTERS] if isinstance(session, str) else None,
        "sha256": hashlib.sha256(entry).hexdigest(),
        "published": index < published,
    }
