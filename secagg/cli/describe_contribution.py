"""What a contributor is about to send: in words, before anything is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from secagg.arith.quantiser import l2_norm
from secagg.cli.describe import number, size
from secagg.cli.output import Rows
from secagg.lora.adapter import Adapter
from secagg.lora.merging import Merging
from secagg.lora.messages import Message
from secagg.protocol.sessions import AnySession
from secagg.transcript.entries import SessionOpen
from secagg.transcript.merge import FactorMerge, FrozenMerge, PilotMerge, RangeMerge, strategy_of
from secagg.transcript.noise import NoDifferentialPrivacy

_ROUNDING_VARIANCE = 1 / 6
"""Of unbiased rounding to integers, in squared steps, where fractions are spread evenly."""
_SHOWN_COHORT = 100


@dataclass(frozen=True, slots=True)
class Contribution:
    """An adapter and the message it becomes in a session."""

    directory: Path
    adapter: Adapter = field(repr=False)
    session: AnySession = field(repr=False)
    merging: Merging = field(repr=False)
    message: Message = field(repr=False)

    def rows(self, besides: str) -> Rows:
        """Adapter, norm, bytes, precision; ``besides`` is what else is sent."""
        parameters = self.session.parameters
        return [
            ("adapter", self._adapter_words()),
            ("norm", self._norm_words(parameters)),
            ("you send", f"{size(self.session.upload_bytes)}, masked; {besides}"),
            *self._clamped(),
            ("rounding", self._rounding_words(parameters)),
            ("merging", _estimate_words(parameters)),
        ]

    def _adapter_words(self) -> str:
        parameters, layout = self.session.parameters, self.merging.layout
        if isinstance(parameters.merge, FactorMerge):
            return f"{self.directory}: {layout.dimension:,} parameters for {parameters.base_model}"
        ranks = sorted({module.rank for module in self.adapter.modules})
        shown = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        return (
            f"{self.directory}: {len(self.adapter.modules)} modules of {shown} for {parameters.base_model}, sent as "
            f"{layout.dimension:,} numbers ({strategy_of(parameters.merge)})"
        )

    def _norm_words(self, parameters: SessionOpen) -> str:
        if isinstance(parameters.merge, FactorMerge):
            clip_norm = float(parameters.encoding.clip_norm)
            fate = _fate(self.message.norm, clip_norm)
            return f"{self.message.norm:.4g}, the session's clip norm is {number(clip_norm)}: {fate}"
        bound = float(parameters.merge.update_norm)
        words = f"{self.message.norm:.4g} for all updates together, the session's clip norm is {number(bound)}: "
        words += _fate(self.message.norm, bound)
        if isinstance(parameters.noise, NoDifferentialPrivacy):
            return words
        sent, clip_norm = l2_norm(self.message.vector), float(parameters.encoding.clip_norm)
        return f"{words}; what is sent has norm {sent:.4g} of at most {number(clip_norm)}: {_fate(sent, clip_norm)}"

    def _clamped(self) -> Rows:
        if not self.message.clamped:
            return []
        part = self.message.clamped / self.message.vector.size
        return [("clamped", f"{self.message.clamped:,} numbers ({part:.2g} of all) are beyond the session's range")]

    def _rounding_words(self, parameters: SessionOpen) -> str:
        """What rounding does to this contribution, and what of it stays in a mean."""
        quantiser = parameters.encoding.quantiser(parameters.noise)
        clip_norm = float(parameters.encoding.clip_norm)
        norm = min(l2_norm(self.message.vector), clip_norm)
        error = math.sqrt(_ROUNDING_VARIANCE * self.message.vector.size) / float(quantiser.scale)
        if not norm:
            return "everything is zero"
        own = error / norm
        return (
            f"off by about {own:.2g} of what you send, unbiased: {own / math.sqrt(_SHOWN_COHORT):.2g} in a mean of 100"
        )


def _estimate_words(parameters: SessionOpen) -> str:
    merge = parameters.merge
    if isinstance(merge, FactorMerge):
        return "the mean of factors; how far it is from the mean of updates is not estimated"
    if isinstance(merge, FrozenMerge):
        return "exact, but for rounding"
    if isinstance(merge, RangeMerge):
        return "a second session follows, with the same people: this command takes part in both"
    if isinstance(merge, PilotMerge):
        return "a second session follows, without you: it projects on what this one finds"
    return "an approximation of the mean update; its error is estimated from the sum and published with it"


def _fate(norm: float, bound: float) -> str:
    return "it counts as it is" if norm <= bound else f"it is scaled by {bound / norm:.3g}"
