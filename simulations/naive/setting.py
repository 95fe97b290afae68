"""What the naive model runs with: its sizes, and the list of weaknesses it has.

This is a model of published weaknesses, written to show an attack succeed and, with one weakness taken away, fail.
It is no copy of any framework, and nothing is said here about a framework beyond the sources named below. What each
weakness rests on:

- `FOLDED_SEEDS`: Flower's SecAgg+ folds the seed of a mask by exclusive or to 32 bits and expands it with the
  Mersenne Twister (public: flwrlabs/flower issue 7522 and pull request 7570, both open when read). The seed of a
  pairwise mask there is base64 text, in which the top bit of every byte is zero: 28 bits remain. The prototype of
  Flamingo cuts the seed of a pairwise mask to 16 bits. The model keeps the low `fold_bits` bits; which bits remain
  makes no difference to the search.
- `BOTH_SHARES`: the client of SecAgg+ answers an unmask request for every name in both of its lists, and does not
  check that the lists are disjoint (public source). It answers one such request in a session, and so does the model:
  two requests to one client, one after the other, are not claimed of it.
- `NO_CONSISTENCY`: SecAgg+ has no round in which clients agree on the list of survivors (public source), and so the
  server can tell two groups of clients different lists. Flamingo's prototype collects signatures for this and does
  not check them.
- `UNSIGNED_KEYS`: in SecAgg+ the server passes on the keys of clients, and a client checks that they are distinct
  and that its own is among them (public source). The model's client checks the same.
- `NO_MINIMUM`: in SecAgg+ the one size a client checks is the threshold, which the server chooses, from two up
  (public source).
- `WRAPPING_SUM`: in SecAgg+ a sum that outgrows the modulus wraps and the session reports success (seen when this
  project ran it); too large a weight is a warning in the client's log (public source).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, unique

MODULUS_BITS = 32
"""Masked values are uint32: the modulus is 2^32."""

PUBLISHED_FOLD_BITS = 28
"""Bits that remain of the seed of a pairwise mask in SecAgg+."""

LEAST_THRESHOLD = 2
"""The smallest threshold that a client accepts."""


@unique
class Weakness(Enum):
    """What the naive model leaves out; each attack needs exactly one of them."""

    FOLDED_SEEDS = "mask seeds are folded to few bits"
    BOTH_SHARES = "a client may be named alive and dropped in one request"
    NO_CONSISTENCY = "clients do not compare the lists they are told"
    UNSIGNED_KEYS = "keys come from the server and carry no signature"
    NO_MINIMUM = "a sum over any number of clients is opened"
    WRAPPING_SUM = "a sum too large for the modulus wraps, with no more than a warning"


ALL_WEAKNESSES = frozenset(Weakness)


class SettingError(ValueError):
    """A value of a setting that the model is not defined for.

    Attributes:
        field: which value.
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        """Builds the error; the message is `field: reason`."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Setting:
    """Sizes and weaknesses of one session of the naive model; everybody masks with everybody.

    Attributes:
        clients: how many, 3 to 2000.
        threshold: shares that reconstruct a secret, 2 to `clients`; chosen by the server.
        dimension: length of a vector, at least 2.
        value_bits: a value is in `[0, 2^value_bits)`, 1 to 32; 22 as published.
        fold_bits: bits that a folded seed keeps, 1 to 32.
        minimum: fewest survivors that a client without `NO_MINIMUM` helps to open, at least 2.
        weaknesses: what the model leaves out.

    Raises:
        SettingError: a value out of range; `value_bits` also when the sum could outgrow the modulus and the model
            does not have `WRAPPING_SUM`.
    """

    clients: int = 5
    threshold: int = 3
    dimension: int = 32
    value_bits: int = 22
    fold_bits: int = 20
    minimum: int = 3
    weaknesses: frozenset[Weakness] = field(default=ALL_WEAKNESSES)

    def __post_init__(self) -> None:
        _check_range("clients", self.clients, 3, 2000)
        _check_range("threshold", self.threshold, LEAST_THRESHOLD, self.clients)
        _check_range("dimension", self.dimension, 2, 1 << 24)
        _check_range("value_bits", self.value_bits, 1, MODULUS_BITS)
        _check_range("fold_bits", self.fold_bits, 1, MODULUS_BITS)
        _check_range("minimum", self.minimum, 2, self.clients)
        if self.may_wrap and Weakness.WRAPPING_SUM not in self.weaknesses:
            raise SettingError("value_bits", f"{self.clients} values of {self.value_bits} bits can outgrow the modulus")

    @property
    def may_wrap(self) -> bool:
        """Whether the sum of the largest values is at or above the modulus."""
        return self.clients * ((1 << self.value_bits) - 1) >= 1 << MODULUS_BITS

    def has(self, weakness: Weakness) -> bool:
        """Whether the model leaves this out."""
        return weakness in self.weaknesses


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise SettingError(name, f"must be {least} to {most}, got {value}")
