"""RES: the published sum, mean and adapter are what the masked sum and the openings give, to the last bit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import add_masks
from secagg.derive.result import FloatVector, mean_of
from secagg.lora.errors import AdapterError
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.merge_report import REPORT_FILE, MergeReport
from secagg.lora.reader import TENSOR_FILE
from secagg.transcript.merge import MAX_COLUMNS
from verifier.checks import Check, CheckFailedError, Derived, Findings, Level, Mode, Stage
from verifier.families.one_shot_openings import CERTIFIED
from verifier.families.openings import OPENED
from verifier.families.sums import MASKED_SUM, worker_threads
from verifier.session_record import SessionRecord
from verifier.session_values import MERGING, AnyMerging

INTEGER_SUM = "integer-sum.bin"
AGGREGATE = "aggregate"
_ROOM_BYTES = 1 << 27
"""For what is in a file of the aggregate besides values: names, mostly, of which a layout of 2^26 bytes has fewer."""

Integers = npt.NDArray[np.int64]
Lanes = npt.NDArray[np.uint64]


def _unmasked(session: SessionRecord) -> Integers:
    """Rules: the counter shows the contributors, padding is zero, no coordinate is beyond what they can add up to."""
    lanes = _without_masks(session) if session.mode is Mode.PAIRWISE else _without_padding(session)
    try:
        return session.parameters.encoding.field_layout().unpack_sum(lanes, session.close.count)
    except ArithmeticInputError as error:
        raise CheckFailedError.at(session.files.place("masked-limb-sum.bin", field=error.field), str(error)) from None


def _without_masks(session: SessionRecord) -> Lanes:
    masked, removal = session.get(MASKED_SUM), session.get(OPENED)
    lanes = masked.lanes.copy()
    streams = len(removal.add) + len(removal.subtract)
    session.audit.progress(f"keystreams of {streams} masks")
    add, subtract = ([key.expose() for key in keys] for keys in (removal.add, removal.subtract))
    add_masks(lanes, add, subtract, worker_threads())
    return lanes


def _without_padding(session: SessionRecord) -> Lanes:
    lanes, own = session.get(CERTIFIED), session.parameters.encoding.field_layout().lanes
    if lanes[own:].any():
        place = session.files.place("masked-limb-sum.bin", field="padding")
        raise CheckFailedError.at(place, "lanes after the last of the vector must be zero")
    return lanes[:own]


UNMASKED: Derived[SessionRecord, Integers] = Derived("RES-2", _unmasked)
"""The exact sum, computed. Needs FINISHED."""


def _integer_sum(session: SessionRecord) -> Integers:
    """Rules: the published sum has the digest in the result entry, and the computed one has it, too."""
    computed, expected = session.get(UNMASKED), session.result.integer_sum
    place = session.files.place(INTEGER_SUM)
    if session.files.digest(INTEGER_SUM, 8 * computed.size) != expected:
        raise CheckFailedError.at(place, "another digest than the result entry's")
    if _digest(computed.astype("<i8", copy=False)) != expected:
        raise CheckFailedError.at(place, "not what the limb sum gives without the masks")
    return computed


INTEGERS: Derived[SessionRecord, Integers] = Derived("RES-1", _integer_sum)
"""The exact sum, as published. Needs FINISHED."""


def _mean(session: SessionRecord) -> FloatVector:
    """Rules: the mean has the digest in the result entry."""
    try:
        parameters = session.parameters
        mean = mean_of(parameters.encoding, parameters.noise, session.get(INTEGERS), session.close.count)
    except ArithmeticInputError as error:
        raise CheckFailedError.at(session.entry_place("session-open", "encoding"), str(error)) from None
    if _digest(mean.astype("<f4", copy=False)) != session.result.mean:
        reason = "not the digest of the mean that the integer sum gives"
        raise CheckFailedError.at(session.entry_place(session.result.TYPE, "mean"), reason)
    return mean


MEAN: Derived[SessionRecord, FloatVector] = Derived("RES-3", _mean)
"""The float32 mean. Needs FINISHED."""


def _digest(array: npt.NDArray[np.generic]) -> bytes:
    return hashlib.sha256(array.data).digest()


# The checks


def _check_integers(session: SessionRecord, findings: Findings) -> None:
    findings.count(session.get(INTEGERS).size)


def _check_counter(session: SessionRecord, findings: Findings) -> None:
    findings.count(session.get(UNMASKED).size + 1)


def _check_mean(session: SessionRecord, findings: Findings) -> None:
    findings.count(session.get(MEAN).size)


@dataclass(frozen=True, slots=True)
class Published:
    """The files of the aggregate, all as the mean gives them.

    Attributes:
        files: how many they are.
        report: what is said of the merged adapter's quality; None where the merge says nothing.
    """

    files: int
    report: MergeReport | None


def _published(session: SessionRecord) -> Published:
    """Rules: those that the merge makes and no others, of the logged digests, as the mean gives them."""
    merging, mean, count, findings = session.get(MERGING), session.get(MEAN), session.close.count, Findings()
    named = {file.name: file.digest for file in session.result.aggregate}
    if named.keys() != set(merging.files):
        place = session.entry_place(session.result.TYPE, "aggregate")
        raise CheckFailedError.at(place, f"names {', '.join(named)}, the merge makes {', '.join(merging.files)}")
    _check_length(session, merging)
    published: dict[str, bytes] = {}
    for name, digest in named.items():
        data = session.files.read(f"{AGGREGATE}/{name}", _longest(merging))
        if hashlib.sha256(data).digest() == digest:
            published[name] = data
        else:
            findings.fail(session.files.place(f"{AGGREGATE}/{name}"), "another digest than the result entry's")
    findings.raise_failures()
    try:
        for name, reason in merging.faults(mean, count, published, session.audit.progress):
            findings.fail(session.files.place(f"{AGGREGATE}/{name}"), reason)
    except AdapterError as error:
        raise CheckFailedError.at(session.files.place(AGGREGATE), f"the mean makes no adapter: {error}") from None
    findings.raise_failures()
    report = MergeReport.from_bytes(published[REPORT_FILE]) if REPORT_FILE in published else None
    return Published(len(published), report)


PUBLISHED = Derived("RES-4", _published)
"""What the merge published. Needs FINISHED."""


def _check_published(session: SessionRecord, findings: Findings) -> None:
    findings.count(session.get(PUBLISHED).files)


def _check_length(session: SessionRecord, merging: AnyMerging) -> None:
    """The tensors take memory only where there is a file as long as they are."""
    if isinstance(merging, FactorMerging) or TENSOR_FILE not in merging.files:
        return
    least_bytes = 4 * merging.rank * sum(module.outputs + module.columns for module in merging.manifest)
    found_bytes = session.files.size(f"{AGGREGATE}/{TENSOR_FILE}")
    if found_bytes < least_bytes:
        place = session.files.place(f"{AGGREGATE}/{TENSOR_FILE}")
        raise CheckFailedError.at(place, f"{found_bytes} bytes, the tensors of rank {merging.rank} have {least_bytes}")


def _longest(merging: AnyMerging) -> int:
    """No file of the aggregate is longer: a file can claim more than anybody could read."""
    if isinstance(merging, FactorMerging):
        return _ROOM_BYTES + 4 * merging.layout.dimension
    most_columns = max(merging.rank, MAX_COLUMNS)
    return _ROOM_BYTES + 4 * most_columns * sum(module.outputs + module.columns for module in merging.manifest)


_SUM_READS = ("masked-limb-sum.bin", "openings.jsonl", "pair-boxes.jsonl or secret-sum.bin")

CHECKS: tuple[Check[SessionRecord], ...] = (
    Check(
        "RES-1",
        "The integer sum is the masked sum without its masks",
        Level.SUM,
        "The published integers are the exact sum of what the contributors uploaded.",
        "a coordinator that publishes another sum than the one that was opened",
        (INTEGER_SUM, "session-result (integer_sum)", *_SUM_READS),
        _check_integers,
        Stage.FINISHED,
    ),
    Check(
        "RES-2",
        "The counter shows the number of contributions and padding is zero",
        Level.SUM,
        "No mask is left in the sum, and as many vectors were added as there are contributions.",
        "a coordinator that counts a contribution twice or not at all, and contributors that upload what is no vector",
        ("session-close (count)", *_SUM_READS),
        _check_counter,
        Stage.FINISHED,
    ),
    Check(
        "RES-3",
        "The mean is that of the integer sum, bit for bit",
        Level.SUM,
        "The float32 mean in the log is the one rounding of the exact sum that everybody computes.",
        "a coordinator that alters the mean by as little as one unit in the last place",
        ("session-result (mean)", INTEGER_SUM),
        _check_mean,
        Stage.FINISHED,
    ),
    Check(
        "RES-4",
        "What the merge published follows from the mean",
        Level.SUM,
        "Whoever loads the adapter loads what was added up and nothing else, and what is said of its quality follows "
        "from the sums.",
        "a coordinator that publishes another adapter than the one that was added up",
        ("aggregate/*", "layout.json", "adapter.json", "fixed.safetensors", "session-result (aggregate)"),
        _check_published,
        Stage.FINISHED,
    ),
)
"""All checks of the family."""
