"""A pairwise session: its masking graph, and how many have to stay and to confirm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secagg.derive.graph import GraphParameterError, MaskingGraph, graph_seed, masking_graph
from secagg.derive.threshold import GraphParameters, graph_parameters, quorum
from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.session import Session
from secagg.transcript.entries import PairwiseOpen


@dataclass(frozen=True)
class PairwiseSession(Session):
    """Parameters and roster of one pairwise session."""

    parameters: PairwiseOpen

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
