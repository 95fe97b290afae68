"""``secagg session export-masked-inputs``: hand the masked inputs of a session to an auditor."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.coordinator import load_config
from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, session_id
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.transcript.statements import ContributionHeader

MANIFEST = "export.json"
_PIECE_BYTES = 1 << 20


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``session export-masked-inputs``."""
    parser = add_command(
        commands,
        "export-masked-inputs",
        "hand the masked inputs to an auditor (operator)",
        """
        Copy the masked inputs of a closed session to DIR, one file each, named by the SHA-256 that its contributor
        signed; `secagg-verify check --level full --masked-inputs DIR` checks them. They are not part of the published
        record: together with it they are all that the coordinator saw, and would wait there for whoever breaks the
        encryption later. So they go to auditors by name, and are deleted here after the session's retention. Who got
        them is written to export.json beside them. Runs while the coordinator serves, too.""",
        """
        secagg session export-masked-inputs 6f1c...09 --config aggregator/coordinator.toml \\
            --auditor "Ada Example, example.org" --out masked-inputs""",
    )
    parser.add_argument("session", type=session_id, metavar="SESSION", help="the session: 32 hex characters")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the coordinator.toml")
    parser.add_argument("--auditor", required=True, metavar="NAME", help="who gets them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to; new or empty")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> ExitCode:
    import json

    from secagg.runtime.clock import SystemClock

    config, session, out = load_config(arguments.config), arguments.session.hex(), arguments.out
    if not arguments.auditor.strip():
        raise CommandError("AUDITOR", "--auditor is empty", "name who gets the masked inputs")
    headers = _headers(config.record_directory / "sessions" / session)
    if out.exists() and any(out.iterdir()):
        raise CommandError("OUT", f"{out} is not empty", "choose another directory")
    length_bytes = _copy(config.state_directory, headers, out)
    exported_at_s = SystemClock().now_s()
    about = {"session": session, "auditor": arguments.auditor, "exported_at_s": exported_at_s, "files": len(headers)}
    (out / MANIFEST).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    following = f"secagg-verify check RECORD --policy FILE --level full --masked-inputs {out}"
    Reporter.of(arguments).result(
        {**about, "bytes": length_bytes, "directory": str(out), "next": following},
        table(
            [
                ("session", session),
                ("masked inputs", f"{len(headers)}, {length_bytes:,} bytes, in {out}"),
                ("for", arguments.auditor),
                ("the auditor runs", following),
            ]
        ),
    )
    return ExitCode.OK


def _headers(files: Path) -> list[ContributionHeader]:
    """The headers of the contributions in the published set."""
    from secagg.transcript.record import RecordError
    from secagg.transcript.statements import ContributionHeader, Signed

    published = files / "contributions.jsonl"
    try:
        lines = published.read_bytes().splitlines()
    except FileNotFoundError:
        raise CommandError("NOT_CLOSED", f"{published} is not there", "the session is unknown, or not closed") from None
    headers = []
    for number, line in enumerate(lines, start=1):
        try:
            statement = Signed.from_bytes(line).statement
        except RecordError as error:
            raise CommandError("RECORD", f"{published}, line {number}: {error}") from None
        if not isinstance(statement, ContributionHeader):
            raise CommandError("RECORD", f"{published}, line {number}: not a contribution header")
        headers.append(statement)
    return headers


def _copy(state: Path, headers: list[ContributionHeader], out: Path) -> int:
    """Copy the uploads, if all of them are there; returns how many bytes they have."""
    from secagg.store.blobs import DirectoryBlobStore

    blobs, total = DirectoryBlobStore(state), 0
    for header in headers:
        if not blobs.has(header.upload):
            raise CommandError(
                "DELETED",
                f"the masked input of {header.identity.hex()} is not there any more",
                "the session's retention is over",
                kind="store",
            )
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    for header in headers:
        length_bytes = 8 * header.lanes
        with open(out / f"{header.upload.hex()}.bin", "xb", opener=_private) as file:
            for offset in range(0, length_bytes, _PIECE_BYTES):
                file.write(blobs.read(header.upload, offset, min(_PIECE_BYTES, length_bytes - offset)))
        total += length_bytes
    return total


def _private(path: str, flags: int) -> int:
    """An ``opener`` for files that nobody else may read, also in a directory that others may look into."""
    return os.open(path, flags, 0o600)
