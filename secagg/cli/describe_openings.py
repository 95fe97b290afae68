"""What an institution opened and refused, for its operator."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.runtime.member_ports import OpeningLine


def show_openings(lines: Sequence[OpeningLine], reporter: Reporter) -> None:
    """Print the lines of a journal, oldest first."""
    shown = [
        {
            "at_s": line.at_s,
            "session": line.session.hex(),
            "close": line.close.hex(),
            "count": line.count,
            "outcome": line.outcome,
            "words": line.words,
        }
        for line in lines
    ]
    text = "\n\n".join(
        table(
            [
                ("time", datetime.datetime.fromtimestamp(line.at_s, datetime.UTC).isoformat()),
                ("session", line.session.hex()),
                ("close", line.close.hex() or "none that holds"),
                ("contributions", str(line.count)),
                ("outcome", line.words),
            ]
        )
        for line in lines
    )
    reporter.result({"opened": shown}, text or "nothing was opened, and nothing refused")
