"""What the sessions of a log cost those who took part, as far as the log shows it.

A session counts with the number of contributions that it was closed over; as long as it is not closed, with the fewest
that it can be closed over. One that ended before it was closed opened nothing and costs nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from dp.charge import NO_CHARGE, Charge, delta_of, epsilon_of
from dp.ledger_book import composed
from dp.mechanisms import Mechanism
from dp.rdp import MAX_CLIENTS
from secagg.privacy.session_noise import NoiseError, check_noise, mechanism_of
from secagg.transcript.noise import DistributedNoise, PrivacyBudget
from verifier.audit import Audit
from verifier.checks import Derived
from verifier.entry_order import Kind
from verifier.log_view import INDEX, SESSIONS, session_entries
from verifier.session_record import SessionEntries

MAX_TABLES = 1000
"""Tables of noise that are made for one log at most: each takes up to a second, and sessions tend to share one."""

_CLOSES = frozenset({Kind.CLOSE, Kind.ONE_SHOT_CLOSE})
_ROUNDING = 1 + 1e-9
"""The same charges added in another order may differ in their last digits."""


@dataclass(frozen=True, slots=True)
class NoiseFault:
    """What does not fit in what a session declares of its noise; ``field`` is a member of the open entry."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoisySession:
    """A session whose declared noise fits together, and what it costs.

    Attributes:
        budget: what it draws on.
        opened_at: where in the log it was opened.
        worst: what it costs with the fewest contributions that it can be closed over.
        settled_at: where in the log it was closed, or ended without; None if neither is in the log.
        settled: what it costs from there on; None for nothing.
    """

    session: bytes
    budget: PrivacyBudget
    opened_at: int
    worst: Mechanism
    settled_at: int | None = None
    settled: Mechanism | None = None

    @property
    def final(self) -> Mechanism | None:
        """What it costs by the end of the log; None for nothing."""
        return self.worst if self.settled_at is None else self.settled


@dataclass(frozen=True, slots=True)
class NoiseOfLog:
    """The sessions of a log that declare noise.

    Attributes:
        sessions: by identifier, those whose noise fits together, in the order of their open entries.
        faults: what does not fit in others.
        untried: sessions that would have needed more than ``MAX_TABLES`` tables.
        short: of ``sessions`` those closed over fewer contributions than they could be, which are counted with more.
    """

    sessions: dict[bytes, NoisySession] = field(default_factory=dict)
    faults: dict[bytes, NoiseFault] = field(default_factory=dict)
    untried: set[bytes] = field(default_factory=set)
    short: list[bytes] = field(default_factory=list)


def _noise_of_log(audit: Audit) -> NoiseOfLog:
    places = audit.get(SESSIONS).places
    noisy, found = audit.get(INDEX).noisy, NoiseOfLog()
    tables: set[tuple[str, Fraction]] = set()
    for number, session in enumerate(noisy, start=1):
        entries = session_entries(audit, session)
        noise = entries.open.noise
        if not isinstance(noise, DistributedNoise):
            continue
        audit.progress(f"noise of session {number:,} of {len(noisy):,}")
        tables.add((noise.TYPE, noise.local_variance))
        if len(tables) > MAX_TABLES:
            found.untried.add(session)
            continue
        fault = fault_of(entries)
        if fault is not None:
            found.faults[session] = fault
            continue
        found.sessions[session] = _settled(entries, noise.budget, places[session])
        if entries.close is not None and entries.close.count < entries.open.min_contributors:
            found.short.append(session)
    return found


NOISE = Derived("DPN-3", _noise_of_log)
"""The sessions of the log that declare noise; nothing of them is refused here."""


def fault_of(entries: SessionEntries) -> NoiseFault | None:
    """What does not fit in the noise that a session declares; None if all does."""
    try:
        check_noise(entries.open)
    except NoiseError as error:
        return NoiseFault(error.field, error.reason)
    return None


def _settled(entries: SessionEntries, budget: PrivacyBudget, places: Sequence[tuple[Kind, int]]) -> NoisySession:
    parameters, close = entries.open, entries.close
    opened_at, worst = places[0][1], mechanism_of(parameters)
    if close is not None:
        closed_at = next(index for kind, index in places if kind in _CLOSES)
        # More contributors never cost more, so what accounting has no numbers for counts as the most that it has.
        most = min(parameters.roster_size, parameters.encoding.max_contributors, MAX_CLIENTS)
        count = min(max(close.count, parameters.min_contributors), most)
        return NoisySession(parameters.session, budget, opened_at, worst, closed_at, mechanism_of(parameters, count))
    if entries.abort is not None:
        return NoisySession(parameters.session, budget, opened_at, worst, places[-1][1])
    return NoisySession(parameters.session, budget, opened_at, worst)


def at_worst(sessions: Sequence[NoisySession], checked: frozenset[bytes]) -> list[NoisySession]:
    """The same, but those that are not checked count with the fewest contributions: a close entry is a mere word."""
    return [
        session
        if session.session in checked or session.settled is None
        else replace(session, settled_at=None, settled=None)
        for session in sessions
    ]


def charge_of_final(sessions: Iterable[NoisySession]) -> Charge:
    """What these cost together by the end of the log."""
    return composed(session.final for session in sessions if session.final is not None)


def beyond(charge: Charge, epsilon: Fraction, delta: Fraction) -> float | None:
    """The epsilon of a charge, rounded up, if it is more than this one; None otherwise."""
    most = float(epsilon) * _ROUNDING
    # Whether it fits is a tenth of the work of saying how much it is.
    with np.errstate(all="ignore"):
        if delta_of(charge, most) <= delta:
            return None
    spent = epsilon_at(charge, delta)
    return None if spent <= most else spent


def epsilon_at(charge: Charge, delta: Fraction) -> float:
    """The epsilon of a charge, rounded up; infinite where this delta is never reached."""
    # Hostile parameters may reach infinity on the way, and have no epsilon then.
    with np.errstate(all="ignore"):
        epsilon = epsilon_of(charge, delta).epsilon
    return math.inf if math.isnan(epsilon) else epsilon


@dataclass(frozen=True, slots=True)
class _Span:
    """A cost that counts from one opening on and before another."""

    first: int
    end: int
    cost: Mechanism


def charges_of(sessions: Sequence[NoisySession]) -> Iterator[Charge]:
    """What these may have cost together as each of them was opened, itself included, and then by the end of the log.

    Each cost is added once for each power of two of openings that it counts throughout, so that it is n log n
    additions, and none has to be taken back.

    Args:
        sessions: in the order of their open entries.
    """
    opened, end = [session.opened_at for session in sessions], len(sessions) + 1
    spans = []
    for number, session in enumerate(sessions):
        settled = end if session.settled_at is None else bisect_right(opened, session.settled_at)
        spans.append(_Span(number, settled, session.worst))
        if session.settled is not None:
            spans.append(_Span(settled, end, session.settled))
    return _charges(spans, 0, end, NO_CHARGE)


def _charges(spans: Sequence[_Span], first: int, end: int, before: Charge) -> Iterator[Charge]:
    """The charges at the openings from ``first`` to before ``end``: of ``before`` and of spans that reach into them."""
    throughout = [span.cost for span in spans if span.first <= first and end <= span.end]
    total = before + composed(throughout)
    if end - first == 1:
        yield total
        return
    rest = [span for span in spans if not (span.first <= first and end <= span.end)]
    middle = (first + end) // 2
    yield from _charges([span for span in rest if span.first < middle], first, middle, total)
    yield from _charges([span for span in rest if span.end > middle], middle, end, total)
