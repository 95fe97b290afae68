"""Generates the vectors of the linear hash: `python -m tests.vectors.generate_linear_hash`.

As in `generate_arith`: lanes are lowercase hex, little-endian; limb sums are JSON integers in the order of limbs.
A hash is given as its first four words and the SHA-256 of all 2048, little-endian. `stream` inputs are the first
lanes of the AES-256-CTR stream of `keystream.json` under `key`.
"""

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from secagg.arith import linear_hash
from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import Keystream
from secagg.arith.linear_hash import LimbSum
from tests.vectors.generate_arith import hex_of, lanes_of

PATH = Path(__file__).parent / "linear_hash.json"
OPERATIONS: dict[str, Callable[..., Any]] = {}
KEY, OTHER = bytes(range(32)).hex(), bytes(range(100, 132)).hex()
ONES = "ff" * 8


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def summary(words):
    return {"head": hex_of(words[:4]), "sha256": hashlib.sha256(bytes.fromhex(hex_of(words))).hexdigest()}


def stream(key, lanes):
    out = np.empty(lanes, dtype=np.uint64)
    Keystream(bytes.fromhex(key)).read_into(out)
    return out


def summed(contributions):
    total = LimbSum(contributions[0].size)
    for lanes in contributions:
        total.add_lanes(lanes)
    return total


@operation
def public_polynomial(label, number):
    """`b_number`, counted from 1."""
    words = np.empty(2048, dtype=np.uint64)
    source = Keystream(hashlib.sha256(label.encode()).digest())
    for _ in range(number):
        source.read_into(words)
    return summary(words)


@operation
def limbs(lanes):
    return linear_hash.limbs(lanes_of(lanes)).tolist()


@operation
def hash_lanes(lanes):
    return summary(linear_hash.hash_lanes(lanes_of(lanes)))


@operation
def hash_stream(key, lanes):
    return summary(linear_hash.hash_lanes(stream(key, lanes)))


@operation
def hash_stream_in_pieces(key, pieces):
    lanes, hasher, start = stream(key, sum(pieces)), linear_hash.LinearHasher(), 0
    for piece in pieces:
        hasher.update(lanes[start : start + piece])
        start += piece
    return summary(hasher.digest())


@operation
def add_contributions(contributions):
    parts = [lanes_of(text) for text in contributions]
    total = summed(parts)
    return {
        "entries": total.entries.tolist(),
        "lanes": hex_of(linear_hash.lanes_of_limb_sum(total)),
        "hash_of_sum": summary(linear_hash.hash_limb_sum(total)),
        "sum_of_hashes": summary(linear_hash.sum_of_hashes(linear_hash.hash_lanes(lanes) for lanes in parts)),
    }


@operation
def add_streams(keys, lanes):
    parts = [stream(key, lanes) for key in keys]
    return {
        "hash_of_sum": summary(linear_hash.hash_limb_sum(summed(parts))),
        "sum_of_hashes": summary(linear_hash.sum_of_hashes(linear_hash.hash_lanes(part) for part in parts)),
    }


@operation
def check_limb_sum(entries, contributors):
    total = LimbSum.from_entries(np.array(entries, dtype=np.uint64), contributors)
    return {
        "lanes": hex_of(linear_hash.lanes_of_limb_sum(total)),
        "hash": summary(linear_hash.hash_limb_sum(total)),
    }


@operation
def max_contributors(lanes):
    return linear_hash.max_contributors(lanes)


@operation
def shards_needed(contributors, lanes):
    return linear_hash.shards_needed(contributors, lanes)


def replay(entry: dict[str, Any]) -> dict[str, Any]:
    """Runs one operation and returns what its outcome keys should be; unknown names raise KeyError."""
    function = OPERATIONS[entry["op"]]
    inputs = {name: value for name, value in entry.items() if name not in ("op", "success", "expected", "error")}
    unknown = inputs.keys() ^ inspect.signature(function).parameters.keys()
    if unknown:
        raise KeyError(f"{entry['op']}: missing or unknown inputs {sorted(unknown)}")
    try:
        return {"success": True, "expected": function(**inputs)}
    except ArithmeticInputError as refused:
        return {"success": False, "error": refused.field}


def hash_operations():
    for number in (1, 2, 1000, 1025):
        yield {"op": "public_polynomial", "label": linear_hash.SEED_LABEL.decode(), "number": number}
    yield {"op": "limbs", "lanes": hex_of(np.array([0x0123456789ABCDEF, 2**64 - 1, 1], dtype=np.uint64))}
    one = hex_of(np.array([1], dtype=np.uint64))
    for lanes in (
        "",
        "00" * 8,
        one,
        one + "00" * 8,
        "00" * 8 + one,
        "000001" + "00" * 5,
        "00" * 4096 + one,
        ONES * 512,
    ):
        yield {"op": "hash_lanes", "lanes": lanes}
    for lanes in (1, 511, 512, 513, 4095, 4096, 4097, 10_000, 530_000):
        yield {"op": "hash_stream", "key": KEY, "lanes": lanes}
    for pieces in ([10_000], [1, 4094, 1, 4097, 0, 1807], [512] * 3, [0]):
        yield {"op": "hash_stream_in_pieces", "key": KEY, "pieces": pieces}


def sum_operations():
    small = hex_of(np.array([0x0001_0002_0003_0004, 5], dtype=np.uint64))
    yield {"op": "add_contributions", "contributions": [small]}
    yield {"op": "add_contributions", "contributions": [small, ONES * 2, ONES + "00" * 8]}
    yield {"op": "add_contributions", "contributions": [ONES] * 40}
    yield {"op": "add_contributions", "contributions": [small, ONES]}
    yield {"op": "add_contributions", "contributions": [""]}
    yield {"op": "add_streams", "keys": [KEY, OTHER, "ab" * 32], "lanes": 9000}
    full = 65_535
    for entries, contributors in (
        *(([full] * 4, 1), ([full + 1, 0, 0, 0], 1), ([0] * 4, 0), ([1, 0, 0, 0], 0), ([0] * 3, 1), ([], 1)),
        # A carry moved up one limb: the same lanes, another limb sum, another hash.
        *(([2 * full, 7, 0, 0], 2), ([full - 1, 8, 0, 0], 2)),
        *(([65_537 * full] * 4, 65_537), ([65_538 * full] * 4, 65_538), ([2**33 * full, 1, 2, 3], 2**33)),
        *(([0] * 4, 2**33 + 1), ([0] * 8, 2**33), ([0] * 4, -1)),
    ):
        yield {"op": "check_limb_sum", "entries": entries, "contributors": contributors}


def bound_operations():
    for lanes in (1, 2, 3, 1000, 500_001, 2**30, 0, -1, 2**30 + 1):
        yield {"op": "max_contributors", "lanes": lanes}
    most = linear_hash.max_contributors(500_001)
    for contributors in (0, 1, most, most + 1, 2**33):
        yield {"op": "shards_needed", "contributors": contributors, "lanes": 500_001}
    yield {"op": "shards_needed", "contributors": 1, "lanes": 0}


def render() -> str:
    """The text of the file; the same on every run."""
    entries = [*hash_operations(), *sum_operations(), *bound_operations()]
    lines = ",\n".join("  " + json.dumps(entry | replay(entry)) for entry in entries)
    description = "The linear hash of lanes, limb sums, and how many contributions one limb sum may hold."
    return f'{{"description": {json.dumps(description)}, "operations": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes the file next to this one."""
    PATH.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
