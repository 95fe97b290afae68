"""What a run shows of differential privacy, in words. That noise was added it never says: nothing shows that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from verifier.outcome import counted
from verifier.report import SessionSummary

NOISE_ASSUMPTION = (
    "All but max_corrupt contributors of each session with noise added the noise that it declares. Without that, its "
    "epsilon is a number about nothing."
)
_FIXED = (
    "which noise each contributor was to add was in the log before anybody came, with the digest of a reservation in "
    "the operator's ledger. If that noise was added, no population of this log spent more than the budget that its "
    "sessions name."
)
_UNSEEN = "That a client added noise, clipped, or trained on anything in particular."
_NONE = "The declared mechanism is none: no noise was added."
_LEFT_OUT = (
    "Of noise, a record shows what was declared and reserved, how many contributed, and, where a sum has coordinates "
    "enough, that it is not smaller than so much noise alone. A client that left its noise out looks like one that "
    "added it."
)


def noise_shown(sessions: Sequence[SessionSummary]) -> Iterator[str]:
    """What is shown of sessions that declare noise, if there are any."""
    noisy = sum(session.noise is not None for session in sessions)
    if not noisy:
        return
    which = "each session"
    if noisy < len(sessions):
        which = f"the {counted(noisy, 'session')} that {'declares' if noisy == 1 else 'declare'} noise"
    yield f"In {which}, {_FIXED}"


def noise_unseen(sessions: Sequence[SessionSummary]) -> str:
    """What no record shows of noise, given what the sessions declare."""
    noisy = sum(session.noise is not None for session in sessions)
    parts = [_UNSEEN]
    if sessions and not noisy:
        parts.append(_NONE)
    elif noisy < len(sessions):
        without = counted(len(sessions) - noisy, "session")
        parts.append(f"{without} declared mechanism none: no noise was added there.")
    if noisy:
        parts.append(_LEFT_OUT)
    return " ".join(parts)
