"""What a contributor has afterwards: the receipt on disk, and a report of what became of the contribution."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from secagg.cli.describe_noise import spending_value, spent_words
from secagg.cli.output import Reporter, Rows, table
from secagg.lora.merge_report import MergeReport
from secagg.protocol.second import first_merge

if TYPE_CHECKING:
    from secagg.client import Milestone, Participation, Result
    from secagg.crypto.signing import SigningKey
    from secagg.runtime.vectors import EncodingReport
    from secagg.spending import Spending

RECEIPTS = "receipts"


class ReceiptKeeper:
    """Hears of milestones and saves the receipt, the very bytes that were signed, as soon as it is there."""

    def __init__(self, state: Path, identity: SigningKey, session: bytes, reporter: Reporter) -> None:
        public = identity.public_bytes.hex()
        self.file = state / public / RECEIPTS / f"{session.hex()}.json"
        self.participation: Participation | None = None
        self._fields = {"identity": public, "session": session.hex()}
        self._reporter = reporter
        self._saved = False

    @property
    def encoding(self) -> EncodingReport | None:
        """What encoding did to the adapter, if this process encoded it."""
        return None if self.participation is None else self.participation.encoding

    def reached(self, milestone: Milestone) -> None:
        """Tell the contributor; save the receipt if it has come."""
        self._reporter.progress(str(milestone))
        self.save()

    def save(self) -> None:
        """Write the receipt once."""
        receipt = None if self.participation is None else self.participation.receipt
        if receipt is None or self._saved:
            return
        content = {**self._fields, "receipt": receipt.receipt.hex(), "signature": receipt.signature.hex()}
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, sort_keys=True, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.file)
        self._saved = True


@dataclass(frozen=True)
class Reported:
    """A contribution that is done.

    Attributes:
        arguments: of the command.
        keeper: has the receipt.
        session: that it was made to.
        spending: what it cost of the contributor's budget, if there is one.
    """

    arguments: argparse.Namespace
    keeper: ReceiptKeeper
    session: bytes
    spending: Spending | None

    def delivered(self, reporter: Reporter) -> None:
        """The contribution is held: what was done, and how to fetch the sum once it is there."""
        config = self.arguments.config
        connection = f" --config {config}" if config is not None else ""
        following = f"secagg session result {self.session.hex()} --out DIR{connection}"
        rows = [
            ("session", self.session.hex()),
            ("delivered", "the coordinator holds your masked adapter: nothing more is asked of you"),
            *self._encoded(),
            ("receipt", str(self.keeper.file)),
            ("once it has ended", following),
        ]
        reporter.result({**self._value(), "contributors": None, "merged": None, "next": following}, table(rows))

    def merged(self, reporter: Reporter, result: Result, out: Path | None, quality: MergeReport | None) -> None:
        """The sum is published: who is in it, and where the adapter is."""
        rows = [
            ("session", self.session.hex()),
            ("contributors", f"{result.contributors}, you among them"),
            *self._encoded(),
        ]
        if self.keeper.file.exists():
            rows.append(("receipt", str(self.keeper.file)))
        if self.spending is not None:
            rows.append(("your budget", spent_words(self.spending)))
        rows += [("merged adapter", _place_words(result, out)), *quality_rows(quality)]
        value = {
            **self._value(),
            "contributors": result.contributors,
            "merged": None if out is None else str(out),
            "quality": quality_value(quality),
        }
        reporter.result(value, table(rows))

    def _encoded(self) -> Rows:
        encoding = self.keeper.encoding
        if encoding is None:
            # Whoever masked an adapter for a session cannot change it: another one that is given later goes nowhere.
            words = "what an earlier run of this identity masked for this session counts, and cannot be changed; "
            return [("NOT sent now", f"{words}{self.arguments.adapter} was not used")]
        if encoding.clamped:
            return [("clamped", f"{encoding.clamped} coordinates were too large for the session's bound")]
        return []

    def _value(self) -> dict[str, object]:
        encoding = self.keeper.encoding
        return {
            "session": self.session.hex(),
            "norm": None if encoding is None else encoding.norm,
            "clamped": None if encoding is None else encoding.clamped,
            "receipt": str(self.keeper.file) if self.keeper.file.exists() else None,
            "budget": spending_value(self.spending),
        }


def _place_words(result: Result, out: Path | None) -> str:
    if out is not None:
        return str(out)
    if first_merge(result.details.session.parameters) is not None:
        return "in the session that follows"
    return "not written (--out DIR, or later `secagg session result`)"


def quality_rows(quality: MergeReport | None) -> Rows:
    """How good a merged adapter is, as far as anybody knows."""
    if quality is None:
        return []
    words = f"{quality.error_ppm / 10**6:.2g} of the mean update, from the sums alone (`secagg merge inspect` has more)"
    rows = [("estimated error", words)]
    if quality.is_degraded:
        part = quality.degraded_ppm / 10**6
        rows.append(
            ("DEGRADED", f"{part:.0%} of the update is in modules that came out poorly: look before you use it")
        )
    return rows


def quality_value(quality: MergeReport | None) -> dict[str, object] | None:
    """The same for programs."""
    if quality is None:
        return None
    return {"estimated_error": quality.error_ppm / 10**6, "degraded": quality.is_degraded}
