"""SUM: the published limb sum is the sum of what each contributor signed, shown by linear hashes or by the uploads.

Every contributor signed the digest of the linear hash of its upload. The hashes add up to the hash of the limb sum,
and two limb sums within the norm bound that have one hash would break ring-SIS: so one vector is read, however many
there were. scipy, behind the hash, is imported by the checks that compute one.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError
from verifier.checks import Check, CheckFailedError, Derived, Finding, Findings, InputMissingError, Level, Stage
from verifier.record_files import RecordFiles
from verifier.session_record import SessionRecord
from verifier.session_values import CONTRIBUTORS, AnyHeader

if TYPE_CHECKING:
    from secagg.arith.linear_hash import LimbSum

HASHES = "linear-hashes.bin"
LIMB_SUM = "masked-limb-sum.bin"

_LANE_BYTES = 8
_LIMBS_PER_LANE = 4
_HASH_WORDS = 2048
_HASH_BYTES = 8 * _HASH_WORDS
# Each worker holds a limb sum and an upload: 40 bytes a lane.
_MOST_WORKERS = 4

Words = npt.NDArray[np.uint64]


def worker_threads() -> int:
    """Threads for work on vectors: one for each core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What the record has


def _shards(session: SessionRecord) -> tuple[int, ...]:
    from secagg.arith import linear_hash

    try:
        step = linear_hash.max_contributors(session.lanes)
    except ArithmeticInputError as error:
        raise CheckFailedError.at(session.entry_place("session-open", "encoding"), str(error)) from None
    count = session.close.count
    return tuple(min(step, count - start) for start in range(0, count, step))


SHARDS: Derived[SessionRecord, tuple[int, ...]] = Derived("SUM-3", _shards)
"""How many contributions each limb sum holds, in set order: as many as the hash is binding for. Needs CLOSED."""


def _limb_sum_bytes(session: SessionRecord) -> int:
    return _LANE_BYTES * _LIMBS_PER_LANE * session.lanes * len(session.get(SHARDS))


def _sized_limb_sum(session: SessionRecord) -> int:
    expected, found = _limb_sum_bytes(session), session.files.size(LIMB_SUM)
    if found != expected:
        raise CheckFailedError.at(session.files.place(LIMB_SUM), f"{found} bytes, expected {expected}")
    return expected


SIZED_LIMB_SUM: Derived[SessionRecord, int] = Derived("SUM-3", _sized_limb_sum)
"""Length of the limb sum's file: one limb sum for each shard and no more. Needs CLOSED."""


def _bound_limb_sum(session: SessionRecord) -> bytes:
    found = session.files.digest(LIMB_SUM, session.get(SIZED_LIMB_SUM))
    if found != session.close.limb_sum:
        raise CheckFailedError.at(session.files.place(LIMB_SUM), "another digest than the close entry's")
    return found


BOUND_LIMB_SUM: Derived[SessionRecord, bytes] = Derived("SUM-4", _bound_limb_sum)
"""SHA-256 of the limb sum's file, which the close entry names. Needs CLOSED."""


@dataclass(frozen=True, slots=True)
class MaskedSum:
    """What the limb sum holds: the hash of each shard, and the lanes of all together, still masked."""

    hashes: tuple[Words, ...]
    lanes: Words


def _masked_sum(session: SessionRecord) -> MaskedSum:
    """Rules: no entry beyond what so many 16-bit limbs add up to; what is read here is what was bound."""
    from secagg.arith import linear_hash

    bound = session.get(BOUND_LIMB_SUM)
    sizes, lanes = session.get(SHARDS), session.lanes
    total = np.zeros(lanes, dtype=np.uint64)
    hashes = []
    for number, limb_sum in enumerate(_read_shards(session.files, lanes, sizes, bound), start=1):
        session.audit.progress(f"hash of the limb sum, {number} of {len(sizes)}")
        hashes.append(linear_hash.hash_limb_sum(limb_sum))
        np.add(total, linear_hash.lanes_of_limb_sum(limb_sum), out=total)
    return MaskedSum(tuple(hashes), total)


def _read_shards(files: RecordFiles, lanes: int, sizes: Sequence[int], bound: bytes) -> Iterator[LimbSum]:
    from secagg.arith.linear_hash import LimbSum

    state = hashlib.sha256()
    with files.open(LIMB_SUM) as file:
        for number, size in enumerate(sizes, start=1):
            entries = np.fromfile(file, dtype="<u8", count=_LIMBS_PER_LANE * lanes)
            if entries.size != _LIMBS_PER_LANE * lanes:
                raise InputMissingError(files.place(LIMB_SUM), "cut short while it was read")
            state.update(entries.data)
            try:
                yield LimbSum.from_entries(entries.astype(np.uint64, copy=False), size)
            except ArithmeticInputError as error:
                raise CheckFailedError.at(files.place(LIMB_SUM), f"shard {number}: {error}") from None
    # Its digest was taken from another reading: somebody may have exchanged it in between.
    if state.digest() != bound:
        raise InputMissingError(files.place(LIMB_SUM), "changed while it was read")


MASKED_SUM: Derived[SessionRecord, MaskedSum] = Derived("SUM-3", _masked_sum)
"""Hashes and lanes of the limb sum, within its bound. Needs CLOSED."""


def _sums_of_hashes(session: SessionRecord) -> tuple[Words, ...]:
    """Rules: a hash for each contribution in set order and no more, each of the digest that its header signs."""
    headers, sizes = session.get(CONTRIBUTORS).headers, session.get(SHARDS)
    place = session.files.place(HASHES)
    expected, found = _HASH_BYTES * len(headers), session.files.size(HASHES)
    if found != expected:
        raise CheckFailedError.at(place, f"{found} bytes, expected {expected}")
    sums = [np.zeros(_HASH_WORDS, dtype=np.uint64) for _ in sizes]
    ends = np.cumsum(sizes)
    wrong: list[Finding] = []
    position = -1
    pairs = zip(headers, session.files.chunks(HASHES, _HASH_BYTES), strict=False)
    for position, (header, data) in enumerate(pairs):
        if hashlib.sha256(data).digest() != header.linear_hash:
            wrong.append(Finding(place, f"number {position + 1}: another digest than the header's"))
            continue
        shard = int(np.searchsorted(ends, position, side="right"))
        np.add(sums[shard], np.frombuffer(data, dtype="<u8"), out=sums[shard])
    if wrong:
        raise CheckFailedError(wrong, len(wrong))
    if position + 1 != len(headers):
        # Its length was asked for before: what is not there now would not be in the sum either.
        raise InputMissingError(place, "cut short while it was read")
    return tuple(sums)


SUMS_OF_HASHES: Derived[SessionRecord, tuple[Words, ...]] = Derived("SUM-1", _sums_of_hashes)
"""The sum of the signed linear hashes of each shard. Needs CLOSED."""


# What the auditor has besides


@dataclass(frozen=True, slots=True)
class Uploads:
    """What follows from the masked inputs: how many there are, and the SHA-256 of their limb sums, shard by shard."""

    count: int
    limb_sum: bytes


def _uploads(session: SessionRecord) -> Uploads:
    """Rules: a file for each contribution, of the signed digest and length."""
    files = session.audit.brought.masked_inputs
    headers = session.get(CONTRIBUTORS).headers
    if files is None:
        raise InputMissingError(session.files.place("masked inputs"), "no directory was given")
    state = hashlib.sha256()
    start = 0
    for size in session.get(SHARDS):
        session.audit.progress(f"masked inputs, {start} of {len(headers)}")
        limb_sum = _add_uploads(files, headers[start : start + size], session.lanes)
        state.update(limb_sum.entries.astype("<u8", copy=False).data)
        start += size
    return Uploads(len(headers), state.digest())


def _add_uploads(files: RecordFiles, headers: Sequence[AnyHeader], lanes: int) -> LimbSum:
    """The limb sum of some uploads; workers take turns at them."""
    workers = min(worker_threads(), _MOST_WORKERS, len(headers))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda first: _add_part(files, headers[first::workers], lanes), range(workers)))
    failures = [finding for part in parts for finding in part.wrong]
    if failures:
        raise CheckFailedError(failures, len(failures))
    total = parts[0].limb_sum
    for part in parts[1:]:
        total.merge(part.limb_sum)
    return total


@dataclass(slots=True)
class _Part:
    limb_sum: LimbSum
    wrong: list[Finding]


def _add_part(files: RecordFiles, headers: Sequence[AnyHeader], lanes: int) -> _Part:
    from secagg.arith import linear_hash

    part = _Part(linear_hash.LimbSum(lanes), [])
    for header in headers:
        name = f"{header.upload.hex()}.bin"
        try:
            data = files.read_exactly(name, _LANE_BYTES * lanes)
        except CheckFailedError as error:
            part.wrong.extend(error.findings)
            continue
        if hashlib.sha256(data).digest() != header.upload:
            part.wrong.append(Finding(files.place(name), "another digest than the header's"))
            continue
        part.limb_sum.add_lanes(np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False))
    return part


UPLOADS: Derived[SessionRecord, Uploads] = Derived("SUM-5", _uploads)
"""What the masked inputs add up to. Needs CLOSED and the masked inputs."""


# The checks


def _check_hashes(session: SessionRecord, findings: Findings) -> None:
    session.get(SUMS_OF_HASHES)
    findings.count(session.close.count)


def _check_equation(session: SessionRecord, findings: Findings) -> None:
    sums, masked = session.get(SUMS_OF_HASHES), session.get(MASKED_SUM)
    for number, (signed, published) in enumerate(zip(sums, masked.hashes, strict=True), start=1):
        findings.count()
        if not np.array_equal(signed, published):
            reason = f"shard {number}: its hash is not the sum of the hashes that the contributors signed"
            findings.fail(session.files.place(LIMB_SUM), reason)


def _check_bounds(session: SessionRecord, findings: Findings) -> None:
    findings.count(_LIMBS_PER_LANE * session.get(MASKED_SUM).lanes.size * len(session.get(SHARDS)))


def _check_close(session: SessionRecord, findings: Findings) -> None:
    session.get(BOUND_LIMB_SUM)
    findings.count()


def _check_uploads(session: SessionRecord, findings: Findings) -> None:
    findings.count(session.get(UPLOADS).count)


def _check_upload_sums(session: SessionRecord, findings: Findings) -> None:
    # Whether each signed hash is that of its input does not matter here: this is exact addition, without hashes.
    uploads = session.get(UPLOADS)
    findings.count()
    if uploads.limb_sum != session.close.limb_sum:
        reason = "the masked inputs add up to another limb sum than the close entry's"
        findings.fail(session.entry_place(session.close.TYPE, "limb_sum"), reason)


_COORDINATOR = "a coordinator that publishes another sum than that of the contributions"

CHECKS: tuple[Check[SessionRecord], ...] = (
    Check(
        "SUM-1",
        "The linear hashes are those that the contributors signed",
        Level.PREOPEN,
        "Each hash in the record is of the digest in the signed header of its place; there is none besides.",
        "a coordinator that makes hashes fit a sum of its own",
        (HASHES, "contributions.jsonl (linear_hash)"),
        _check_hashes,
        Stage.CLOSED,
    ),
    Check(
        "SUM-2",
        "The hash of the masked sum is the sum of the signed hashes",
        Level.PREOPEN,
        "The limb sum is the sum of what each contributor signed, as far as those are hashes of what was uploaded, or "
        "somebody broke ring-SIS.",
        _COORDINATOR,
        (HASHES, LIMB_SUM),
        _check_equation,
        Stage.CLOSED,
    ),
    Check(
        "SUM-3",
        "The masked sum has the right length and no entry is out of range",
        Level.PREOPEN,
        "The limb sum is short enough a vector for its hash to be binding.",
        "a coordinator that looks for another limb sum with the same hash among long vectors",
        (LIMB_SUM, "session-close (count)", "session-open (encoding)"),
        _check_bounds,
        Stage.CLOSED,
    ),
    Check(
        "SUM-4",
        "The masked sum was fixed in the close entry",
        Level.PREOPEN,
        "The masked sum was in the log before any answer could name the close entry that holds its digest.",
        "a coordinator that chooses the masked sum after it has seen what the answers open",
        (LIMB_SUM, "session-close (limb_sum)"),
        _check_close,
        Stage.CLOSED,
    ),
    Check(
        "SUM-5",
        "Every masked input is there, of the signed digest and length",
        Level.FULL,
        "The masked inputs at hand are those that the contributors signed.",
        "whoever altered, cut or exchanged masked inputs on their way to the auditor",
        ("masked inputs (--masked-inputs)", "contributions.jsonl (upload, lanes)"),
        _check_uploads,
        Stage.CLOSED,
    ),
    Check(
        "SUM-6",
        "The masked inputs add up to the masked sum, exactly",
        Level.FULL,
        "The limb sum is the sum of the masked inputs, by addition and not by any assumption.",
        "contributors that sign hashes of something else together with a coordinator that fits the sum to them",
        ("masked inputs (--masked-inputs)", "contributions.jsonl (upload)", "session-close (limb_sum)"),
        _check_upload_sums,
        Stage.CLOSED,
    ),
)
"""All checks of the family."""
