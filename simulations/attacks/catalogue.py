"""All attacks by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from simulations.attacks import (
    ciphertexts,
    log,
    one_shot_coordinator,
    one_shot_parties,
    pairwise_attacks,
    poisoning,
    record,
)
from simulations.attacks.attack import Attack, AttackResult

ATTACKS: tuple[Attack, ...] = (
    *pairwise_attacks.ATTACKS,
    *log.ATTACKS,
    *one_shot_coordinator.ATTACKS,
    *one_shot_parties.ATTACKS,
    *ciphertexts.ATTACKS,
    *record.ATTACKS,
    *poisoning.ATTACKS,
)

BEYOND_THEIR_ASSUMPTION = frozenset({"log-split-view-beyond-quorum", "log-split-view-unwitnessed"})
"""Attacks that break what everything rests on, on purpose, and so have to succeed; all others have to fail."""


def ends_as_it_should(attack: Attack, result: AttackResult) -> bool:
    """Whether an attack failed, or, if it goes beyond its assumption, succeeded."""
    return result.succeeded == (attack.name in BEYOND_THEIR_ASSUMPTION)


def record_of(attack: Attack, result: AttackResult) -> dict[str, Any]:
    """An attack and what came of it, for programs."""
    texts = {name: getattr(attack, name) for name in ("name", "goal", "adversary", "why")}
    return texts | dataclasses.asdict(result) | {"as_it_should": ends_as_it_should(attack, result)}


def attack_named(name: str) -> Attack:
    """The attack of this name. Raises KeyError."""
    return {each.name: each for each in ATTACKS}[name]
