"""A session as both sides see it: the open entry, the roster, and what follows from them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from secagg.arith.fields import FieldLayout
from secagg.derive.openers import is_bound, is_prepared
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.transcript.entries import OneShotOpen, SessionOpen
from secagg.transcript.merge import BasisMerge, PilotMerge, ProjectionMerge, RangeMerge, admits, contributors_digest
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.openers import Committee, KeyAuthority
from secagg.transcript.roster import Roster

_T = TypeVar("_T")
_MOST_REMEMBERED = 1 << 16
_UNKNOWN = object()


@dataclass(frozen=True)
class Session:
    """Parameters and roster of one session; the roster is checked against the parameters.

    ``digest`` is the SHA-256 of the open entry: the name of the session in everything signed or derived.
    ``contributors`` are the identities that alone may take part, where the session follows another and whoever holds
    this knows them: its coordinator does.
    """

    parameters: SessionOpen
    roster: Roster
    contributors: frozenset[bytes] | None = None

    def __post_init__(self) -> None:
        """Raise RemoteProtocolError unless roster and contributors are those that the open entry froze."""
        if self.contributors is not None:
            self.check_contributors(self.contributors)
        if len(self.roster.members) != self.parameters.roster_size:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "roster size differs from the open entry")
        if self.roster.root() != self.parameters.roster:
            raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "roster root differs from the open entry")

    @functools.cached_property
    def entry(self) -> bytes:
        """The canonical bytes of the open entry."""
        return self.parameters.to_bytes()

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the open entry, 32 bytes."""
        return hashlib.sha256(self.entry).digest()

    def check_contributors(self, identities: Iterable[bytes]) -> None:
        """Raise RemoteProtocolError(OTHER_CONTRIBUTORS) if a sum over these would stand beside one over others.

        Called before anything is released over a set that is fixed. In the second session of ``two-session`` the set
        has to be that of the first: otherwise the two sums together show the projections of whoever is in one only.
        """
        merge = self.parameters.merge
        if isinstance(merge, ProjectionMerge) and contributors_digest(identities) != merge.contributors:
            raise RemoteProtocolError(RejectReason.OTHER_CONTRIBUTORS)

    def is_whole(self, positions: Iterable[int]) -> bool:
        """Whether ``check_contributors`` passes for the identities at these roster positions."""
        try:
            self.check_contributors(self.roster.members[position].identity for position in positions)
        except RemoteProtocolError:
            return False
        return True

    def admits(self, identity: bytes) -> bool:
        """Whether the merge lets an identity of the roster take part, as far as is known here who may."""
        if self.contributors is not None and identity not in self.contributors:
            return False
        return admits(self.parameters.merge, identity)

    @functools.cached_property
    def most_contributors(self) -> int:
        """No more can take part: when so many came, nobody is waited for."""
        eligible = len(self.positions)
        if self.contributors is not None:
            eligible = len(self.contributors)
        elif isinstance(self.parameters.merge, PilotMerge | BasisMerge):
            eligible = sum(map(self.admits, self.positions))
        return min(self.parameters.encoding.max_contributors, eligible)

    @property
    def spared(self) -> int:
        """Of how many contributors a sum can do without at most, for the sake of who opens it."""
        return 0 if isinstance(self.parameters.merge, ProjectionMerge) else self.parameters.max_corrupt

    def once(self, check: Callable[..., _T], *arguments: Hashable) -> _T:
        """The result of ``check(*arguments)``, computed once for all clients of this session in a process.

        For pure checks of what is public and large: in a simulation a thousand clients are shown the same thousand
        signatures. What a check refuses is refused again each time.
        """
        key = (check, *arguments)
        remembered = self._remembered
        # One look each way: in another thread everything may be forgotten between two.
        found = remembered.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            found = check(*arguments)
            if len(remembered) >= _MOST_REMEMBERED:
                remembered.clear()
            remembered[key] = found
        result: _T = found
        return result

    @functools.cached_property
    def _remembered(self) -> dict[tuple[Hashable, ...], Any]:
        return {}

    @functools.cached_property
    def positions(self) -> dict[bytes, int]:
        """Position in the roster by identity key."""
        return {identity: position for position, identity in enumerate(self.roster.identities())}

    @functools.cached_property
    def field_layout(self) -> FieldLayout:
        """Fields and lanes of an upload."""
        return self.parameters.encoding.field_layout()

    @property
    def upload_lanes(self) -> int:
        """Lanes of every masked input."""
        return self.field_layout.lanes

    @property
    def upload_bytes(self) -> int:
        """Length of every masked input."""
        return 8 * self.upload_lanes


@dataclass(frozen=True, slots=True)
class PrivacyAllowance:
    """What a client is willing to spend in all its sessions together: ``epsilon`` at ``delta``."""

    epsilon: Fraction
    delta: Fraction


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """What a client insists on, whatever the session says.

    ``tolerated_corrupt`` is the fraction of the cohort that may collude with the coordinator without harm; a
    session planned for fewer is refused. Who will come to a one-shot session is not known when a client speaks, and
    the coordinator chooses among them, so there the largest cohort counts. ``base_models`` are the allowed digests;
    empty allows any.
    ``openers`` are the identities of committee members and key authorities that the client takes for honest: who
    opens a one-shot sum is chosen by the coordinator, so whoever is not among them counts as corrupt.
    ``allowance`` is what the client's own ledger holds it to; with one it takes part in no session without noise,
    without one in no ``two-session`` with noise.
    """

    min_contributors: int = 3
    tolerated_corrupt: Fraction = Fraction(1, 10)
    base_models: frozenset[bytes] = frozenset()
    registrars: frozenset[bytes] = frozenset()
    openers: frozenset[bytes] = frozenset()
    allowance: PrivacyAllowance | None = None

    def check_parameters(self, parameters: SessionOpen) -> None:
        """Raise LocalProtocolError(BELOW_POLICY) unless the session as opened is acceptable."""
        if parameters.min_contributors < self.min_contributors:
            raise LocalProtocolError(
                RejectReason.BELOW_POLICY,
                f"min_contributors is {parameters.min_contributors}, this client asks for {self.min_contributors}",
            )
        if self.base_models and parameters.base_model_digest not in self.base_models:
            raise LocalProtocolError(RejectReason.BELOW_POLICY, "base_model_digest is not an allowed one")
        if self.registrars and parameters.registrar not in self.registrars:
            raise LocalProtocolError(RejectReason.BELOW_POLICY, "registrar is not a pinned one")
        if self.allowance is not None and isinstance(parameters.noise, NoDifferentialPrivacy):
            raise LocalProtocolError(
                RejectReason.BELOW_POLICY,
                f"noise is none: no epsilon bounds what the sum shows, and this client's budget is "
                f"{float(self.allowance.epsilon):.6g}",
            )
        is_noisy = not isinstance(parameters.noise, NoDifferentialPrivacy)
        if self.allowance is None and is_noisy and isinstance(parameters.merge, RangeMerge | ProjectionMerge):
            # With noise each of the two sums has a clip norm of its own: the difference is whoever lies between.
            raise LocalProtocolError(
                RejectReason.BELOW_POLICY,
                "noise: nothing else hides what two sums over the same people clip, and this client has no budget that "
                "says how much it has to be",
            )
        if isinstance(parameters, OneShotOpen):
            # The coordinator chooses the closed set: whoever is corrupt may be in it.
            self.check_cohort(parameters, min(parameters.roster_size, parameters.encoding.max_contributors))
            self._check_opening(parameters, parameters.opening)

    def _check_opening(self, parameters: OneShotOpen, opening: Committee | KeyAuthority) -> None:
        """Members who are not pinned may all be the coordinator's: no more of them than the session may have corrupt.

        So may those whose sealing key is not the one that they signed, and a key that the authority did not make.

        One at least may always be, pinned or not: nobody should have to believe a single institution. An authority
        opens alone, so it has to be pinned.
        """
        if isinstance(opening, KeyAuthority):
            if opening.identity not in self.openers:
                raise LocalProtocolError(
                    RejectReason.BELOW_POLICY, f"openers: key authority {opening.identity.hex()} is not a pinned one"
                )
            if not is_prepared(parameters, opening):
                raise LocalProtocolError(
                    RejectReason.BELOW_POLICY, "opening.prepared: the authority did not sign this context"
                )
            return
        if not opening.max_corrupt:
            raise LocalProtocolError(
                RejectReason.BELOW_POLICY,
                "opening.max_corrupt is 0: every committee member would have to be honest",
            )
        strangers = [
            member for member in opening.members if member.identity not in self.openers or not is_bound(member)
        ]
        if len(strangers) > opening.max_corrupt:
            raise LocalProtocolError(
                RejectReason.BELOW_POLICY,
                f"openers: {len(strangers)} of {len(opening.members)} committee members are not pinned, or have not "
                f"signed their sealing key, and only {opening.max_corrupt} may be corrupt; the first is "
                f"{strangers[0].identity.hex()}",
            )

    def check_cohort(self, parameters: SessionOpen, cohort: int) -> None:
        """Raise LocalProtocolError(BELOW_POLICY) if too many of ``cohort`` clients would have to be honest."""
        if parameters.max_corrupt < self.tolerated_corrupt * cohort:
            raise LocalProtocolError(
                RejectReason.BELOW_POLICY,
                f"max_corrupt is {parameters.max_corrupt} of {cohort}, this client asks for a fraction of "
                f"{self.tolerated_corrupt}",
            )
