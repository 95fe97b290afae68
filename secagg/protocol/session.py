"""A session as both sides see it: the open entry, the roster, and what follows from them."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction

from secagg.arith.fields import FieldLayout
from secagg.derive.graph import GraphParameterError, MaskingGraph, graph_seed, masking_graph
from secagg.derive.threshold import GraphParameters, graph_parameters, quorum
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.transcript.entries import SessionOpen
from secagg.transcript.roster import Roster


@dataclass(frozen=True)
class Session:
    """Parameters and roster of one session; the roster is checked against the parameters.

    ``digest`` is the SHA-256 of the open entry: the name of the session in everything signed or derived.
    """

    parameters: SessionOpen
    roster: Roster

    def __post_init__(self) -> None:
        """Raise RemoteProtocolError unless the roster is the one the open entry froze."""
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

    @functools.cached_property
    def positions(self) -> dict[bytes, int]:
        """Position in the roster by identity key."""
        return {identity: position for position, identity in enumerate(self.roster.identities())}

    @functools.cached_property
    def field_layout(self) -> FieldLayout:
        """Fields and lanes of an upload."""
        return self.parameters.encoding.field_layout()

    @property
    def upload_bytes(self) -> int:
        """Length of every masked input."""
        return 8 * self.field_layout.lanes

    def graph_parameters(self, cohort: int) -> GraphParameters:
        """Degree and threshold for a cohort (|U1|) of this size.

        Raises:
            LocalProtocolError: there are no safe ones.
        """
        parameters = self.parameters
        staying = cohort - math.floor(parameters.expected_dropout * cohort)
        if staying < self.quorum(cohort):
            raise LocalProtocolError(
                RejectReason.UNSAFE_PARAMETERS,
                f"expected_dropout: {staying} of {cohort} clients stay, {self.quorum(cohort)} have to confirm",
            )
        try:
            return graph_parameters(
                cohort, parameters.max_corrupt, parameters.min_contributors, parameters.expected_dropout
            )
        except GraphParameterError as error:
            raise LocalProtocolError(RejectReason.UNSAFE_PARAMETERS, str(error)) from None

    def quorum(self, cohort: int) -> int:
        """How many of a cohort must have confirmed one close entry before anybody answers it.

        See ``secagg.derive.threshold.quorum``.
        """
        return quorum(cohort, self.parameters.max_corrupt)

    def graph(self, cohort: int, advertised_root: bytes) -> MaskingGraph:
        """Who masks with whom, once U1 is in the log under ``advertised_root``."""
        return masking_graph(graph_seed(self.digest, advertised_root), cohort, self.graph_parameters(cohort).degree)


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """What a client insists on, whatever the session says.

    ``tolerated_corrupt`` is the fraction of the cohort that may collude with the coordinator without harm; a
    session planned for fewer is refused. ``base_models`` are the allowed digests; empty allows any.
    """

    min_contributors: int = 3
    tolerated_corrupt: Fraction = Fraction(1, 10)
    base_models: frozenset[bytes] = frozenset()
    registrars: frozenset[bytes] = frozenset()

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

    def check_cohort(self, parameters: SessionOpen, cohort: int) -> None:
        """Raise LocalProtocolError(BELOW_POLICY) if too many of ``cohort`` clients would have to be honest."""
        if parameters.max_corrupt < self.tolerated_corrupt * cohort:
            raise LocalProtocolError(
                RejectReason.BELOW_POLICY,
                f"max_corrupt is {parameters.max_corrupt} of {cohort}, this client asks for a fraction of "
                f"{self.tolerated_corrupt}",
            )
