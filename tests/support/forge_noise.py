"""Whole forged records whose sessions carry noise, of one population, one reservation after the other (see ``forge``).

Contributors round and add what their session declares, so everything about sums verifies as it does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from dp.ledger_events import GENESIS
from dp.planner import MechanismKind
from secagg.transcript.encoding import NoFlattening
from secagg.transcript.entries import SessionOpen
from secagg.transcript.noise import DistributedNoise, PrivacyBudget
from simulations.world.noise import reserved, with_noise
from tests.support.forge import MAIN, POLICY, Forge
from tests.support.forge_one_shot_record import OneShotRecord
from tests.support.forge_session import Edit, Plan, flattened

POPULATION = "people"
BUDGET = (Fraction(40), Fraction(1, 100_000))
SESSION_EPSILON = Fraction(8)
WIDE_SHAPES = {"base_model.model.layer.0.lora_A.weight": (2, 300), "base_model.model.layer.0.lora_B.weight": (212, 2)}
WIDE = replace(MAIN, encoding=flattened(1024), shapes=WIDE_SHAPES)
"""A session with enough coordinates for a noise floor."""

_SESSIONS = ("main", "second", "aborted")


def noise_policy(mechanism: str, epsilon: str = "40/1", delta: str = "1/100000") -> str:
    """The policy of the forge, in which sessions must declare noise and all together cost no more than this."""
    asked = f'mechanism = "{mechanism}"\nepsilon = "{epsilon}"\ndelta = "{delta}"'
    return POLICY.replace('mechanism = "none"', asked)


def noise_of(parameters: SessionOpen) -> DistributedNoise:
    """What a noisy session declares."""
    assert isinstance(parameters.noise, DistributedNoise)
    return parameters.noise


def _fit_to_plan(parameters: Any) -> Any:
    """The planner takes no encoding of so few coordinates that flattening would not make them smaller."""
    encoding = parameters.encoding
    if encoding.bound() <= encoding.clip_norm:
        return parameters
    return replace(parameters, encoding=replace(encoding, flatten=NoFlattening()))


class _Reservations:
    """Puts noise into each session as it opens, and keeps the chain of reservations.

    The edit ``open`` of a test sees the session with its noise.
    """

    def __init__(self, edits: Mapping[str, Edit], mechanism: MechanismKind) -> None:
        self._edits, self._mechanism = dict(edits), mechanism
        self._head, self._sequence = GENESIS, 1

    def edits(self) -> dict[str, Edit]:
        """All edits, with those of the opening in front."""
        return self._edits | {f"{name}.open": self._opening(name) for name in _SESSIONS}

    def _opening(self, name: str) -> Edit:
        own = self._edits.pop(f"{name}.open", None) or (self._edits.pop("open", None) if name == "main" else None)

        def apply(parameters: Any, session: Any) -> Any:
            planned = with_noise(
                _fit_to_plan(parameters),
                SESSION_EPSILON,
                delta=BUDGET[1],
                mechanism=self._mechanism,
                population=POPULATION,
            )
            budget = PrivacyBudget(POPULATION, *BUDGET, self._sequence + 1, self._head, bytes(32))
            made = reserved(replace(planned, noise=replace(planned.noise, budget=budget)))
            if own is not None:
                made = own(made, session)
            if isinstance(made.noise, DistributedNoise):
                self._head, self._sequence = made.noise.budget.reserved, made.noise.budget.sequence
            return made

        return apply


class NoisyForge(Forge):
    """The three sessions of ``Forge``, with noise."""

    def __init__(
        self,
        edits: Mapping[str, Edit] | None = None,
        main: Plan = WIDE,
        mechanism: MechanismKind = MechanismKind.SKELLAM,
    ) -> None:
        self.policy_text = noise_policy(mechanism.value)
        super().__init__(_Reservations(edits or {}, mechanism).edits(), main)


class NoisyOneShotRecord(OneShotRecord):
    """The three sessions of ``OneShotRecord``, with noise."""

    def __init__(self, edits: Mapping[str, Edit] | None = None) -> None:
        super().__init__(_Reservations(edits or {}, MechanismKind.SKELLAM).edits())
        self.policy_text = self.policy_text.replace(POLICY, noise_policy("skellam"))
