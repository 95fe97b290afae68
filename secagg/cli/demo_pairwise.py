"""A pairwise demo session: contributors stay to the end, the coordinator alone serves them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from secagg.cli.demo_course import Course
from secagg.cli.demo_plan import DemoPlan, Departure, max_contributors, plan_pairwise, value_bits_for
from secagg.cli.demo_site import deadlines
from secagg.protocol.phases import Phase


class PairwiseCourse(Course):
    """Contributors are killed on the way, before and after they upload."""

    @staticmethod
    def planned(clients: int, drop: int | None) -> DemoPlan:
        """See ``Course``."""
        return plan_pairwise(clients, drop)

    def _value_bits(self, _dimension: int) -> int:
        return value_bits_for(max_contributors(self.plan))

    def _own_options(self) -> dict[str, object]:
        return {
            "--expected-dropout": Fraction(len(self.plan.leaving), self.plan.clients),
            "--deadlines": deadlines("advertise", "share", "upload", "confirm", "unmask"),
        }

    def awaited(self) -> Mapping[Phase, int]:
        """See ``Course``."""
        plan = self.plan
        if not plan.leaving:
            return {}
        return {
            Phase.MASKED_INPUT: plan.clients - plan.gone_at(Departure.BEFORE_UPLOAD),
            Phase.CONSISTENCY_CHECK: plan.survivors,
            Phase.UNMASK: plan.survivors,
        }
