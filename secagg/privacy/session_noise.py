"""From the parameters of a session to the mechanism that its contributors run, checked.

Everything follows from the open entry, so contributors, operators and verifiers come to the same epsilon.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from dp.alias import NoiseTable, noise_table
from dp.calibration import CLAMP_DISTANCE
from dp.demand import MechanismKind
from dp.errors import ParameterError
from dp.ledger_events import reservation_digest
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, NoNoise
from dp.sensitivity import Sensitivity, rounded_squared_norm
from dp.tails import noise_reach
from dp.weights import draw_distance
from secagg.transcript.encoding import Encoding
from secagg.transcript.entries import SessionOpen
from secagg.transcript.noise import DistributedNoise, NoDifferentialPrivacy, SkellamNoise

SessionMechanism: TypeAlias = DistributedSkellam | DistributedDiscreteGaussian | NoNoise


class NoiseError(Exception):
    """The noise that a session declares is not what it has to be.

    Attributes:
        field: the member of the open entry.
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def kind_of(noise: DistributedNoise) -> MechanismKind:
    """Which distribution it is."""
    return MechanismKind.SKELLAM if isinstance(noise, SkellamNoise) else MechanismKind.DISCRETE_GAUSSIAN


def signal_limit(encoding: Encoding, noise: DistributedNoise) -> int:
    """The largest magnitude of a rounded coordinate before noise is added."""
    return math.ceil(noise.scale * encoding.bound())


def mechanism_of(parameters: SessionOpen, survivors: int | None = None) -> SessionMechanism:
    """What a session runs, as accounting understands it, for this many contributions in the sum.

    Only the noise of those counts who are honest: all but ``max_corrupt``. ``survivors`` is at least
    ``min_contributors``, which it is where it is not given: nobody opens a sum over fewer.

    Raises:
        ParameterError: fewer survivors than that.
    """
    noise = parameters.noise
    if isinstance(noise, NoDifferentialPrivacy):
        return NoNoise()
    dimension = parameters.encoding.field_layout().dimension
    draws = parameters.encoding.max_contributors * dimension
    distance = CLAMP_DISTANCE + draws * draw_distance(kind_of(noise), noise.local_variance)
    mechanism = DistributedSkellam if isinstance(noise, SkellamNoise) else DistributedDiscreteGaussian
    worst = mechanism(
        noise.local_variance,
        parameters.min_contributors,
        parameters.max_corrupt,
        Sensitivity.of_squared_norm(noise.squared_norm, dimension),
        distance,
    )
    return worst if survivors is None else worst.with_survivors(survivors)


def check_noise(parameters: SessionOpen) -> None:
    """Raise NoiseError unless everything that is declared about noise fits together.

    Rules, in order: (1) the bound on squares is the one that follows from scale, clip norm and dimension; (2) the field
    has room for the noise; (3) the table is that of the variance; (4) the noise is not larger, against the largest
    possible signal, than was accepted; (5) the reservation is for this session and this noise.
    """
    noise = parameters.noise
    if isinstance(noise, NoDifferentialPrivacy):
        return
    try:
        _check_bound(parameters, noise)
        _check_room(parameters.encoding, noise)
        if noise.table != table_of(noise).digest:
            raise NoiseError("noise.table", "is not the table of this variance")
        _check_ratio(parameters, noise)
        _check_reservation(parameters, noise)
    except ParameterError as error:
        # A number that accounting has no use for: no ledger would have taken it.
        raise NoiseError("noise", f"{error}") from None


def _check_bound(parameters: SessionOpen, noise: DistributedNoise) -> None:
    encoding = parameters.encoding
    expected = rounded_squared_norm(noise.scale, encoding.clip_norm, encoding.field_layout().dimension)
    if noise.squared_norm != expected:
        raise NoiseError("noise.squared_norm", f"is {noise.squared_norm}, scale and clip norm give {expected}")


def _check_room(encoding: Encoding, noise: DistributedNoise) -> None:
    layout = encoding.field_layout()
    room, draws = layout.largest - signal_limit(encoding, noise), encoding.max_contributors * layout.dimension
    reach = noise_reach(kind_of(noise), noise.local_variance, CLAMP_DISTANCE / draws)
    if room < reach:
        raise NoiseError(
            "encoding.value_bits", f"leave {room} for the noise of a coordinate beside the signal, it needs {reach}"
        )


def _check_ratio(parameters: SessionOpen, noise: DistributedNoise) -> None:
    ratio = signal_ratio(parameters)
    if ratio > noise.accepted_ratio:
        raise NoiseError(
            "noise.accepted_ratio", f"is {float(noise.accepted_ratio):.4g}, noise to signal will be {ratio:.4g}"
        )


def _check_reservation(parameters: SessionOpen, noise: DistributedNoise) -> None:
    budget, mechanism = noise.budget, mechanism_of(parameters)
    reserved = reservation_digest(budget.previous, budget.sequence, budget.population, parameters.session, mechanism)
    if reserved != budget.reserved:
        raise NoiseError("noise.budget.reserved", "is not the ledger's head after a reservation for this session")


def table_of(noise: DistributedNoise) -> NoiseTable:
    """The table that contributors draw from; takes up to a second the first time."""
    return noise_table(kind_of(noise), noise.local_variance)


def signal_ratio(parameters: SessionOpen) -> float:
    """The norm of all noise over that of the largest possible signal, with as few contributors as may be; 0 without."""
    noise = parameters.noise
    if isinstance(noise, NoDifferentialPrivacy):
        return 0.0
    survivors, dimension = parameters.min_contributors, parameters.encoding.field_layout().dimension
    reach = float(noise.scale * parameters.encoding.clip_norm)
    return math.sqrt(survivors * noise.local_variance * dimension) / (survivors * reach)
