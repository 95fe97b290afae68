"""What the demo does: how many clients, who drops out when, with which adapters; impossible wishes are refused."""

from __future__ import annotations

import enum
import itertools
import math
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

import secagg
from secagg.arith.fields import FieldLayout
from secagg.arith.quantiser import clip
from secagg.arith.ring_mask import usable_bits_for
from secagg.derive.graph import GraphParameterError
from secagg.derive.result import FloatVector
from secagg.derive.threshold import graph_parameters
from secagg.lora.config import CONFIG_FILE
from secagg.lora.factor_merging import adapter_to_vector
from secagg.lora.reader import TENSOR_FILE, read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.writer import write_adapter
from secagg.protocol.phases import Phase
from secagg.runtime.participant import Milestone

MAX_CLIENTS = 200
MIN_CONTRIBUTORS = 3
DEFAULT_DROP = 2
_MARKER = ".secagg-demo"
_FINEST_BITS = 24
"""Finer steps than this are lost in the float32 of the merged adapter."""


class DemoError(ValueError):
    """The demo cannot be run like this; the text says why and what can be."""


class DemoFailedError(DemoError):
    """A party of the demo failed, or its sum is not exact."""


@enum.unique
class Departure(enum.Enum):
    """When a contributor is killed: once it says so, in this phase of the session."""

    BEFORE_UPLOAD = (Milestone.MASKING, Phase.MASKED_INPUT)
    AFTER_UPLOAD = (Milestone.CONFIRMED, Phase.CONSISTENCY_CHECK)
    BEFORE_COMMITMENT = (Milestone.MASKING, Phase.COMMIT)
    AFTER_COMMITMENT = (Milestone.CONTRIBUTED, Phase.MASKED_INPUT)

    @property
    def milestone(self) -> Milestone:
        """What the contributor has said last."""
        return self.value[0]

    @property
    def phase(self) -> str:
        """The phase in which the session loses it."""
        return self.value[1].value


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Numbers of a demo session. Client k (from 1) leaves at ``leaving[k]``."""

    clients: int
    leaving: dict[int, Departure]
    min_contributors: int
    max_corrupt: int

    @property
    def numbers(self) -> range:
        """The clients."""
        return range(1, self.clients + 1)

    @property
    def contributors(self) -> list[int]:
        """The clients whose contributions are in the sum: those that upload."""
        stayed = {k for k in self.numbers if k not in self.leaving}
        return sorted(stayed | {k for k, at in self.leaving.items() if at is Departure.AFTER_UPLOAD})

    @property
    def survivors(self) -> int:
        """How many are never killed."""
        return self.clients - len(self.leaving)

    def gone_at(self, *departures: Departure) -> int:
        """How many leave then."""
        return sum(at in departures for at in self.leaving.values())


def plan_pairwise(clients: int, drop: int | None) -> DemoPlan:
    """A pairwise session of so many clients of which so many drop out, half before and half after uploading.

    Args:
        clients: how many there are.
        drop: how many of them drop out; None for two, or as many as can.

    Raises:
        DemoError: no safe session can lose so many.
    """
    drop = min(DEFAULT_DROP, max_drop(clients)) if drop is None else drop
    _check_numbers(clients, drop)
    before = math.ceil(drop / 2)
    minimum = clients - before
    for corrupt in range(_most_corrupt(clients, minimum), -1, -1):
        try:
            graph_parameters(clients, corrupt, minimum, Fraction(drop, clients))
        except GraphParameterError:
            continue
        leaving = _leaving(clients, drop, (Departure.BEFORE_UPLOAD, Departure.AFTER_UPLOAD))
        return DemoPlan(clients, leaving, minimum, corrupt)
    raise DemoError(
        f"--drop: of {clients} clients {drop} cannot drop out: a secret is opened by more than half of its owner's "
        f"neighbours, and too few would be left; try {max_drop(clients)}"
    )


def plan_one_shot(clients: int, drop: int | None, *departures: Departure) -> DemoPlan:
    """A one-shot session of so many clients of which so many drop out before they upload, at ``departures`` in turn.

    Args:
        clients: how many there are.
        drop: how many of them drop out; None for two, or as many as can.
        departures: when they do.

    Raises:
        DemoError: too few would be left.
    """
    most = max(0, clients - MIN_CONTRIBUTORS)
    drop = min(DEFAULT_DROP, most) if drop is None else drop
    _check_numbers(clients, drop)
    minimum = clients - drop
    if minimum < MIN_CONTRIBUTORS:
        raise DemoError(
            f"--drop: of {clients} clients {drop} cannot drop out: {MIN_CONTRIBUTORS} contributions are needed; "
            f"try {most}"
        )
    return DemoPlan(clients, _leaving(clients, drop, departures), minimum, _most_corrupt(clients, minimum))


def _check_numbers(clients: int, drop: int) -> None:
    if not 3 <= clients <= MAX_CLIENTS:
        raise DemoError(f"--clients: expected 3 to {MAX_CLIENTS} (each is a process), found {clients}")
    if not 0 <= drop < clients:
        raise DemoError(f"--drop: expected 0 to {clients - 1}, found {drop}")


def _most_corrupt(clients: int, minimum: int) -> int:
    return min(max(1, clients // 10), minimum - 2)


def _leaving(clients: int, drop: int, departures: tuple[Departure, ...]) -> dict[int, Departure]:
    """The last ones leave."""
    at = itertools.cycle(departures)
    return {clients - i: next(at) for i in range(drop)}


def max_drop(clients: int) -> int:
    """The most clients that a pairwise demo with so many can lose."""
    for drop in range(clients - 1, -1, -1):
        try:
            graph_parameters(clients, 0, max(3, clients - math.ceil(drop / 2)), Fraction(drop, clients))
        except GraphParameterError:
            continue
        return drop
    return 0


def prepare_directory(directory: Path) -> None:
    """Make ``directory`` new; only what an earlier demo wrote is replaced.

    Raises:
        DemoError: it holds something else.
    """
    if directory.exists() and not directory.is_dir():
        raise DemoError(f"--out: {directory} is not a directory")
    if directory.exists() and any(directory.iterdir()):
        if not (directory / _MARKER).is_file():
            raise DemoError(f"--out: {directory} is not empty and not of an earlier demo; choose another")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _MARKER).write_text("written by secagg demo; replaced by the next one\n", encoding="utf-8")


def shipped_adapters(examples: str) -> list[Path]:
    """The example adapters of a directory, in order: beside the package in a checkout, inside it when installed."""
    package = Path(secagg.__file__).parent
    for root in (package.parent / "examples" / examples, package / f"example_{examples}"):
        found = sorted((path for path in root.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
        if found:
            return found
    raise DemoError("the example adapters are not installed")


def write_contributors(plan: DemoPlan, directory: Path, examples: str) -> None:
    """Write ``directory/<k>/`` for every client, of the shipped adapters in ``examples``.

    There are fewer shipped adapters than there may be clients. The first round of using them copies the files; round
    j of using them again multiplies all values by 1 + j/100.
    """
    shipped = shipped_adapters(examples)
    for k in plan.numbers:
        again, place = divmod(k - 1, len(shipped))
        own = directory / str(k)
        if again == 0:
            own.mkdir(parents=True)
            for name in (CONFIG_FILE, TENSOR_FILE):
                shutil.copyfile(shipped[place] / name, own / name)
            continue
        adapter, factor = read_adapter(shipped[place], None), np.float32(1 + again / 100)
        values = {name: factor * value for name, value in adapter.tensors.items()}
        write_adapter(own, AdapterTemplate.from_adapter(adapter), values)


def read_vectors(plan: DemoPlan, directory: Path) -> dict[int, FloatVector]:
    """The inputs by client number, as vectors."""
    vectors = {}
    for k in plan.numbers:
        adapter = read_adapter(directory / str(k), None)
        vectors[k] = adapter_to_vector(adapter, adapter.layout)
    return vectors


def clip_norm_for(vectors: dict[int, FloatVector]) -> Fraction:
    """A public bound that clips nobody here: the largest norm, rounded up to a hundredth."""
    largest = max(float(np.linalg.norm(vector.astype(np.float64))) for vector in vectors.values())
    return Fraction(math.floor(100 * largest) + 1, 100)


def max_contributors(plan: DemoPlan) -> int:
    """The most that fit into one sum of the demo's session."""
    return max(8, 1 << (plan.clients - 1).bit_length())


def value_bits_for(max_contributors: int) -> int:
    """The finest quantisation with two fields in a lane."""
    return min(_FINEST_BITS, 32 - (max_contributors - 1).bit_length())


def masked_value_bits_for(max_contributors: int, dimension: int) -> int:
    """The same in the lanes of a one-shot session, which ring masks leave narrower."""
    for bits in range(_FINEST_BITS, 1, -1):
        usable = usable_bits_for(bits, max_contributors, dimension)
        if FieldLayout(bits, max_contributors, dimension, usable).fields_per_lane > 1:
            return bits
    raise DemoError(f"--clients: no two values of {max_contributors} clients fit a lane")


def largest_difference(
    mean: FloatVector, vectors: dict[int, FloatVector], clip_norm: Fraction, scale: Fraction
) -> float:
    """The largest distance of ``mean`` from the plain mean of the clipped vectors, in quantisation steps."""
    total = np.zeros(mean.shape, dtype=np.float64)
    for vector in vectors.values():
        total += clip(vector, clip_norm)[0]
    return float(np.abs(mean - total / len(vectors)).max() * float(scale))
