"""What a step of any machine gives: the next state, the rows it changed, the effects it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

StateT = TypeVar("StateT")
EffectT = TypeVar("EffectT")


@dataclass(frozen=True, slots=True)
class Transition(Generic[StateT, EffectT]):
    """State and rows are stored with the effects in one transaction, then the effects are carried out."""

    state: StateT
    effects: tuple[EffectT, ...] = ()
    rows: Mapping[int, object] = field(default_factory=dict)
