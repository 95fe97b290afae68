"""The command: ``secagg-verify check | list-checks | explain``, or ``python -m verifier``.

It opens no connection. Its exit code is 0 only for a run in which every check of the level passed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from secagg.transcript.note import MAX_NOTE_BYTES
from secagg.transcript.proof import MAX_EXTRA_BYTES
from verifier.audit import Audit, Brought
from verifier.catalogue import ALL_CHECKS, FAMILIES, SESSION_CHECKS
from verifier.checks import Level, Mode
from verifier.html_report import to_html
from verifier.json_report import to_json
from verifier.log_view import HEAD
from verifier.policy import AuditPolicyError, load_policy
from verifier.progress import Progress
from verifier.record_files import RecordFiles
from verifier.report import Report
from verifier.run import installed_version, run_audit
from verifier.saved import save_checkpoint
from verifier.statement import LEVEL_NAMES
from verifier.text_report import printable, to_text

UNUSABLE = 2

_SESSION_ID = re.compile(r"[0-9a-f]{32}")
_SECONDS = re.compile(r"0|[1-9][0-9]{0,17}")
_RECEIPT_HEADER = b"c2sp.org/tlog-proof@v1\n"
_MAX_RECEIPT_BYTES = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES
_LEVELS = {name: level for level, name in LEVEL_NAMES.items()}

_DESCRIPTION = """\
Check the published record of secure-aggregation sessions. Whom to trust comes from your policy, never from the
record; nothing is fetched from anywhere."""
_EXIT_CODES = """\
exit codes:
  0  every check of the level passed
  1  a check failed
  2  unusable arguments, or an internal error
  3  incomplete: a file is missing, a version is unknown, a session has not ended; no check failed"""
_POLICY_HELP = """\
the policy, such as policy.toml:
  log_policy = "policy"           # a C2SP tlog-policy file, relative to this one
  max_age_s = 86400               # optional: a quorum of cosignatures is not older
  [registrar]
  keys = ["<64 hex digits>"]      # who may sign a roster
  [session]
  min_contributors = 3            # also: tolerated_corrupt = "1/10", base_models = ["<64 hex digits>"]
  [noise]
  mechanism = "none"              # or skellam, discrete-gaussian: what the sessions must declare; with noise
                                  # also: epsilon = 8 and delta = 1e-5 for all sessions together
  [openers]                       # for one-shot sessions: members of committees, key authorities
  keys = []                       # also: attestors = ["<64 hex digits>"]

"""
_LEVEL_HELP = """\
meta: log, signatures, sets, parameters. preopen: and the masked sum, for whoever decides whether to release
anything. sum (default): and the openings, the sum and the adapter. full: and every masked input"""


class UnusableError(Exception):
    """The arguments, or a file that they name, cannot be used."""


def main() -> None:
    """Run the command in ``sys.argv`` and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run a command; returns its exit code. Wrong usage and ``--help`` raise SystemExit, with 2 and 0."""
    # Texts of the record may hold letters that this terminal has not.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except UnusableError as error:
        return _complain(str(error))
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python flushes once more at exit: give it somewhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNUSABLE
    except KeyboardInterrupt:
        return _complain("interrupted")
    except Exception as error:  # noqa: BLE001 - a mistake in a check must never look like a verdict on the record
        return _complain(f"internal error: {type(error).__name__}: {error}")


def _complain(text: str) -> int:
    sys.stderr.write(f"secagg-verify: {printable(text)}\n")
    return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "secagg-verify", description=_DESCRIPTION, epilog=_EXIT_CODES, formatter_class=layout
    )
    parser.add_argument("--version", action="version", version=f"secagg-verify {installed_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_check(
        commands.add_parser("check", help="check a record", epilog=_POLICY_HELP + _EXIT_CODES, formatter_class=layout)
    )
    listing = commands.add_parser("list-checks", help="all checks, with their levels")
    listing.set_defaults(run=_list_checks)
    explaining = commands.add_parser("explain", help="what one check reads and proves, and against whom")
    explaining.add_argument("identifier", metavar="ID", help="such as LOG-4")
    explaining.set_defaults(run=_explain)
    return parser


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", metavar="RECORD", type=Path, help="directory of the record")
    parser.add_argument("--policy", metavar="FILE", type=Path, required=True, help="whom you trust and what you demand")
    parser.add_argument("--level", choices=list(_LEVELS), default="sum", help=_LEVEL_HELP)
    parser.add_argument(
        "--session",
        metavar="ID",
        type=_session_id,
        action="append",
        default=[],
        help="check this session only (may be repeated); the log is always checked whole",
    )
    parser.add_argument(
        "--masked-inputs",
        metavar="DIR",
        type=Path,
        help="masked inputs as DIGEST.bin, for level full, which needs them",
    )
    parser.add_argument(
        "--receipt", metavar="FILE", type=Path, help="your receipt: check that your contribution is there"
    )
    parser.add_argument(
        "--since", metavar="CKPT", type=Path, help="checkpoint saved earlier, which the log must continue"
    )
    parser.add_argument("--save", metavar="CKPT", type=Path, help="where to keep the checkpoint if the log is in order")
    parser.add_argument(
        "--now", metavar="EPOCH_S", type=_seconds, help="the time to count ages from (default: the clock)"
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the report as JSON")
    parser.add_argument("--html", metavar="OUT", type=Path, help="also write the report as one page for people")
    parser.set_defaults(run=_check)


def _session_id(text: str) -> bytes:
    if _SESSION_ID.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("expected 32 lowercase hex digits")
    return bytes.fromhex(text)


def _seconds(text: str) -> int:
    if _SECONDS.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("expected seconds since 1970")
    return int(text)


def _check(arguments: argparse.Namespace) -> int:
    level = _LEVELS[arguments.level]
    _check_arguments(arguments, level)
    try:
        policy = load_policy(arguments.policy)
    except AuditPolicyError as error:
        raise UnusableError(f"--policy {arguments.policy}: {error}") from None
    with Progress(sys.stderr) as progress:
        audit = Audit(
            RecordFiles(arguments.record),
            policy,
            level,
            int(datetime.now(UTC).timestamp()) if arguments.now is None else arguments.now,
            _brought(arguments),
            progress.show,
        )
        report = run_audit(audit, frozenset(arguments.session))
    if arguments.json is not None:
        _write("--json", arguments.json, to_json(report))
    if arguments.html is not None:
        _write("--html", arguments.html, to_html(report))
    sys.stdout.write(to_text(report))
    if arguments.save is not None:
        _save(arguments.save, audit, report)
    return report.verdict.exit_code


def _check_arguments(arguments: argparse.Namespace, level: Level) -> None:
    if not arguments.record.is_dir():
        raise UnusableError(f"RECORD {arguments.record}: {_no_directory(arguments.record)}")
    if (arguments.masked_inputs is None) != (level is not Level.FULL):
        has, lacks = "--level full", "--masked-inputs DIR"
        if level is not Level.FULL:
            has, lacks = "--masked-inputs", "--level full"
        raise UnusableError(f"{has} needs {lacks} as well")
    if arguments.masked_inputs is not None and not arguments.masked_inputs.is_dir():
        raise UnusableError(f"--masked-inputs {arguments.masked_inputs}: {_no_directory(arguments.masked_inputs)}")
    save, since = arguments.save, arguments.since
    # Overwriting it unread would forget the only thing that shows a rewritten history.
    if save is not None and save.exists() and (since is None or not since.exists() or not save.samefile(since)):
        raise UnusableError(f"--save {save}: it exists; give it as --since too, so that the log is compared with it")


def _brought(arguments: argparse.Namespace) -> Brought:
    inputs = arguments.masked_inputs
    return Brought(
        None if inputs is None else RecordFiles(inputs, "masked-inputs/"),
        None if arguments.receipt is None else _read_receipt(arguments.receipt),
        None if arguments.since is None else _read("--since", arguments.since, MAX_NOTE_BYTES),
    )


def _read_receipt(path: Path) -> bytes:
    """A receipt; what is none at all is a mistake in the arguments, and no word against the record."""
    data = _read("--receipt", path, _MAX_RECEIPT_BYTES)
    if not data.startswith(_RECEIPT_HEADER):
        raise UnusableError(
            f"--receipt {path} is not a receipt as `secagg receipt` writes it; "
            "the JSON file that `secagg contribute` keeps is another thing"
        )
    return data


def _no_directory(path: Path) -> str:
    return "not a directory" if path.exists() else "there is no such directory"


def _read(option: str, path: Path, most_bytes: int) -> bytes:
    """A file of the auditor; of one that is too long, too much, which no parser takes."""
    try:
        with path.open("rb") as file:
            return file.read(most_bytes + 1)
    except OSError as error:
        raise UnusableError(f"{option} {path}: {error.strerror}") from None


def _write(option: str, path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="ascii")
    except OSError as error:
        raise UnusableError(f"{option} {path}: {error.strerror}") from None


def _save(path: Path, audit: Audit, report: Report) -> None:
    if not report.log_is_sound:
        sys.stdout.write("\nThe checkpoint was not saved: the log is not in order.\n")
        return
    try:
        save_checkpoint(path, audit.get(HEAD).data)
    except OSError as error:
        raise UnusableError(f"--save {path}: {error.strerror}") from None
    sys.stdout.write("\nThe checkpoint was saved: give it as --since next time.\n")


def _list_checks(_arguments: argparse.Namespace) -> int:
    for check in ALL_CHECKS:
        sys.stdout.write(f"{check.identifier:<7} {LEVEL_NAMES[check.level]:<8} {check.title}\n")
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    check = next((each for each in ALL_CHECKS if each.identifier == arguments.identifier.upper()), None)
    if check is None:
        raise UnusableError(f"no check {arguments.identifier}; list-checks names all")
    lines = [
        f"{check.identifier}  {check.title}",
        "",
        f"family   {check.family}, {FAMILIES[check.family]}",
        f"level    {LEVEL_NAMES[check.level]} and above",
        *([f"modes    {', '.join(mode for mode in Mode if mode in check.modes)}"] if check in SESSION_CHECKS else []),
        *textwrap.wrap(check.proves, 100, initial_indent="proves   ", subsequent_indent=" " * 9),
        *textwrap.wrap(check.against, 100, initial_indent="against  ", subsequent_indent=" " * 9),
        *(f"{'reads' if not number else '':<9}{read}" for number, read in enumerate(check.reads)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
