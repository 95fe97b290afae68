"""The command: ``python -m tests.drills [NAME ...] [--rounds N] [--seed S] [--json OUT]``."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.drills import kill_client, kill_coordinator, kill_member, kill_witness, uploaders, watchers
from tests.drills.killing import Rounds
from tests.drills.report import DrillReport, verdict

_KILLS = 6
_Drill = Callable[[argparse.Namespace], Coroutine[Any, Any, DrillReport]]


def _rounds(options: argparse.Namespace) -> Rounds:
    return Rounds(options.rounds, options.kills, options.seed)


DRILLS: dict[str, _Drill] = {
    kill_coordinator.NAME: lambda options: kill_coordinator.run(_rounds(options)),
    kill_member.NAME: lambda options: kill_member.run(_rounds(options)),
    kill_witness.NAME: lambda options: kill_witness.run(_rounds(options)),
    kill_client.NAME: lambda options: kill_client.run(_rounds(options)),
    uploaders.NAME: lambda options: uploaders.run(uploaders.Crowd(people=options.uploaders, seed=options.seed)),
    watchers.NAME: lambda options: watchers.run(options.watchers),
}


def main() -> int:
    """Run drills and print their reports; 1 if a promise was broken."""
    parser = _parser()
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(DRILLS))
    if unknown:
        parser.error(f"no drill is named {unknown[0]}; there are {', '.join(DRILLS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended first
    # Of a thousand connections this process holds the other ends.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reports: list[DrillReport] = []
    for name in options.names or DRILLS:
        reports.append(asyncio.run(DRILLS[name](options)))
        print(reports[-1].text(), end="\n\n", flush=True)
    print(verdict(reports))
    if options.json:
        value = {"seed": options.seed, "drills": [report.value() for report in reports]}
        options.json.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return 0 if all(report.holds for report in reports) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.drills",
        description="Failure drills over real processes: the installed commands, gRPC with TLS, SQLite on disk.",
        epilog=f"Drills: {', '.join(DRILLS)}; without a name, all of them. The exit code is 1 if a promise was broken.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a drill; several are run one after the other")
    parser.add_argument("--rounds", type=_positive, default=4, metavar="N", help="sessions of a drill that kills (4)")
    parser.add_argument("--kills", type=_positive, default=_KILLS, metavar="N", help=f"kills in each ({_KILLS})")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the moments of the kills follow from it (1)")
    parser.add_argument("--uploaders", type=_positive, default=200, metavar="N", help="at least 10 (200)")
    parser.add_argument("--watchers", type=_positive, default=1000, metavar="N", help="at least 2 (1000)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where the reports go as JSON as well")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("expected a positive number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
