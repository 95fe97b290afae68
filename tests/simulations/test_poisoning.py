"""Poisoned inputs move the mean by no more than clipping allows; what is no number is refused by name."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from secagg.arith import quantiser
from secagg.arith.quantiser import Clip
from simulations.attacks import poisoning
from simulations.attacks.poisoning import ATTACKS, BOUNDED, CLIENTS, DIMENSION, REFUSED, Influence, Poison, influence
from simulations.world.plan import Protocol

SEED = 5


@functools.cache
def measured(protocol: Protocol, poison: Poison, liars: int) -> Influence:
    return influence(protocol, poison, liars, SEED)


@pytest.mark.parametrize(
    ("protocol", "poison"), [*((Protocol.PAIRWISE, each) for each in BOUNDED), (Protocol.ONE_SHOT, Poison.SCALED)]
)
def test_the_mean_moves_no_further_than_two_clip_norms_each(protocol: Protocol, poison: Poison) -> None:
    found = measured(protocol, poison, 2)
    assert found.bound == 2 * 2 / CLIENTS
    assert found.distance is not None
    assert 0 < found.distance <= found.bound + found.rounding
    assert found.rounding < found.bound / 1000
    assert found.is_harmless


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize(("poison", "value"), [(Poison.NAN, "nan"), (Poison.INFINITE, "inf")])
def test_what_is_no_number_is_refused_by_the_name_of_its_coordinate(
    protocol: Protocol, poison: Poison, value: str
) -> None:
    found = measured(protocol, poison, 1)
    assert found.refused == f"vector: coordinate 0 is {value}, not a finite number"
    assert found.distance is None
    assert found.without_clipping == math.inf
    assert found.is_harmless


def test_what_is_measured_is_what_numpy_says() -> None:
    """Sign-flipped vectors of norm up to 1 are not clipped: the distance is that of the unclipped means."""
    found = influence(Protocol.PAIRWISE, Poison.SIGN_FLIPPED, 1, SEED)
    assert found.distance == pytest.approx(found.without_clipping, abs=2 * found.rounding)
    first = poisoning._honest(SEED)[0]
    assert found.without_clipping == pytest.approx(2 * float(np.linalg.norm(first)) / CLIENTS, rel=1e-6)


def test_without_clipping_a_thousandfold_input_would_move_the_mean_a_thousand_times_as_far() -> None:
    found = influence(Protocol.PAIRWISE, Poison.SCALED, 1, SEED)
    first = float(np.linalg.norm(poisoning._honest(SEED)[0]))
    assert found.without_clipping == pytest.approx(999 * first / CLIENTS, rel=1e-4)
    assert found.distance is not None
    assert found.without_clipping > 100 * found.distance


def test_both_protocols_publish_the_same_mean() -> None:
    one, other = (measured(protocol, Poison.SCALED, 2) for protocol in Protocol)
    assert one.distance == pytest.approx(other.distance, abs=one.rounding)


@pytest.mark.parametrize("protocol", Protocol)
def test_who_skips_clipping_is_bounded_by_the_fields_alone(protocol: Protocol) -> None:
    """What is not promised is measured too: the sum decodes, and the mean is where the liar wanted it."""
    found = influence(protocol, Poison.SKIPS_CLIPPING, 1, SEED)
    assert found.bound is None
    assert found.distance == pytest.approx(found.without_clipping, abs=2 * found.rounding)
    assert found.distance > 2 / CLIENTS
    assert found.distance < (math.sqrt(DIMENSION) + 1) / CLIENTS


@pytest.mark.parametrize("liars", [0, CLIENTS + 1])
def test_more_liars_than_clients_are_refused(liars: int) -> None:
    with pytest.raises(ValueError, match="liars: expected 1 to 8"):
        influence(Protocol.PAIRWISE, Poison.SCALED, liars, SEED)


def test_a_client_library_that_does_not_clip_lets_the_mean_go_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clip, "of", classmethod(lambda cls, *_: cls(None)))
    found = influence(Protocol.PAIRWISE, Poison.SCALED_AND_FLIPPED, 1, SEED)
    assert found.bound is not None
    assert found.distance is not None
    assert found.distance > found.bound + found.rounding
    assert not found.is_harmless


def test_without_the_check_for_numbers_nothing_names_the_coordinate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantiser, "_refuse_non_finite", lambda *_: None)
    with np.errstate(all="ignore"):
        found = influence(Protocol.PAIRWISE, Poison.INFINITE, 1, SEED)
    assert found.refused.startswith("values: must be within")
    assert not found.is_harmless


def test_an_attack_tells_of_every_kind_and_of_what_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(
        Influence("pairwise", poison.value, 1, CLIENTS, 0.1, 0.001, 0.25, 7.5, "") for poison in BOUNDED
    ) + tuple(
        Influence("pairwise", poison.value, 1, CLIENTS, None, 0.001, 0.25, math.inf, "vector: coordinate 0 is nan")
        for poison in REFUSED
    )
    monkeypatch.setattr(poisoning, "influences", lambda *_: rows)
    found = ATTACKS[0].run(SEED)
    assert not found.succeeded
    assert len(found.steps) == len(rows)
    assert "Without clipping: 7.500." in found.steps[0]
    assert all("vector: coordinate 0 is nan" in each for each in found.refusals)


def test_an_attack_that_moves_the_mean_too_far_has_succeeded(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = Influence("pairwise", Poison.SCALED.value, 1, CLIENTS, 0.26, 0.001, 0.25, 7.5, "")
    monkeypatch.setattr(poisoning, "influences", lambda *_: (beyond,))
    assert ATTACKS[0].run(SEED).succeeded
