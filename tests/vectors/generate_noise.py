"""Generates the vectors of exact noise: `python -m tests.vectors.generate_noise`.

As in `generate_arith`: an operation has `op`, its inputs, `success`, and `expected` or `error` (the field that the
refusal names); bytes are lowercase hex, rationals "numerator/denominator". Words of 64 bits and weights and edges of
128 are hex of their 8 or 16 bytes, little-endian. `sha256` stands for long outputs: of weights as 16 bytes each, of
draws as int32, all little-endian. In `draws_of_words` both streams are given instead of keys, so that words meet edges:
`ties` are the words of the second stream by number of the draw, and `asked` says which of them were used.
"""

import hashlib
import inspect
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dp.alias import noise_table
from dp.central import CentralNoise
from dp.errors import ParameterError
from dp.sampler import NoiseSampler, TableDraws, derive_key
from dp.weights import DISCRETE_GAUSSIAN, SKELLAM, noise_weights

PATH = Path(__file__).parent / "noise.json"
OPERATIONS: dict[str, Callable[..., Any]] = {}
SECRET, OTHER = bytes(range(32)).hex(), bytes(range(100, 148)).hex()
CONTEXT = b"client 1".hex()
SHOWN = 4


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def table_of(kind, variance):
    return noise_table(kind, Fraction(variance))


def sampler_of(kind, variance, secret, context):
    return NoiseSampler(table_of(kind, variance), bytes.fromhex(secret), bytes.fromhex(context))


def hex_of(number, length):
    return number.to_bytes(length, "little").hex()


class GivenWords:
    """A stream of given words."""

    def __init__(self, words):
        self.left = np.array([int.from_bytes(bytes.fromhex(word), "little") for word in words], dtype=np.uint64)

    def read(self, count):
        taken, self.left = self.left[:count], self.left[count:]
        return taken


class GivenTies:
    """Given words by number of the draw; remembers which were asked for."""

    def __init__(self, words):
        self.words, self.asked = words, []

    def word(self, index):
        self.asked.append(index)
        return int.from_bytes(bytes.fromhex(self.words[index]), "little")


@operation
def weights(kind, variance):
    """`first` are those of 0, 1, ..; `last` is that of the largest integer that can be drawn."""
    made = noise_weights(kind, Fraction(variance))
    encoded = [weight.to_bytes(16, "little") for weight in made.half]
    return {
        "half_support": made.half_support,
        "first": [weight.hex() for weight in encoded[:SHOWN]],
        "last": encoded[-1].hex(),
        "sha256": hashlib.sha256(b"".join(encoded)).hexdigest(),
        "distance": str(made.distance),
    }


@operation
def table(kind, variance):
    """`columns` are the first, each with edge, alias and own value."""
    made = table_of(kind, variance)
    edges = [(int(high) << 64) + int(low) for high, low in zip(made.edges[:SHOWN], made.low_edges, strict=False)]
    pairs = made.values.reshape(-1, 2)[:SHOWN].tolist()
    return {
        "column_bits": made.column_bits,
        "columns": [[hex_of(edge, 16), *pair] for edge, pair in zip(edges, pairs, strict=True)],
        "digest": made.digest.hex(),
    }


@operation
def key(secret, context, stream, table_digest):
    return derive_key(*(bytes.fromhex(part) for part in (secret, context, stream, table_digest))).hex()


@operation
def draws(kind, variance, secret, context, count):
    return sampler_of(kind, variance, secret, context).draw(count).tolist()


@operation
def draws_sha256(kind, variance, secret, context, count):
    drawn = sampler_of(kind, variance, secret, context).draw(count)
    return hashlib.sha256(drawn.astype("<i4").tobytes()).hexdigest()


@operation
def add(*, kind, variance, secret, context, dtype, values):
    """Noise added to `values`."""
    array = np.array(values, dtype=dtype)
    sampler_of(kind, variance, secret, context).add_into(array)
    return array.tolist()


@operation
def add_central(*, kind, variance, secret, context, total):
    array = np.array(total, dtype=np.int64)
    CentralNoise(kind, Fraction(variance)).add_into(array, bytes.fromhex(secret), bytes.fromhex(context))
    return array.tolist()


@operation
def draws_of_words(kind, variance, words, ties):
    second = GivenTies(ties)
    drawn = TableDraws(table_of(kind, variance), GivenWords(words), second).read(len(words))
    return {"draws": drawn.tolist(), "asked": second.asked}


def replay(entry: dict[str, Any]) -> dict[str, Any]:
    """Runs one operation and returns what its outcome keys should be; unknown names raise KeyError."""
    function = OPERATIONS[entry["op"]]
    inputs = {name: value for name, value in entry.items() if name not in ("op", "success", "expected", "error")}
    unknown = inputs.keys() ^ inspect.signature(function).parameters.keys()
    if unknown:
        raise KeyError(f"{entry['op']}: missing or unknown inputs {sorted(unknown)}")
    try:
        return {"success": True, "expected": function(**inputs)}
    except ParameterError as refused:
        return {"success": False, "error": refused.field}


LAWS = (
    (SKELLAM, f"1/{2**64}"),
    (SKELLAM, "1/100"),
    (SKELLAM, "1"),
    (SKELLAM, "70756"),
    (SKELLAM, "3469766/45"),
    (SKELLAM, "16000000"),
    (DISCRETE_GAUSSIAN, "1/100"),
    (DISCRETE_GAUSSIAN, "4"),
    (DISCRETE_GAUSSIAN, "70756"),
    (DISCRETE_GAUSSIAN, "12345678901/1000"),
)
REFUSED_LAWS = (
    (SKELLAM, "0"),
    (SKELLAM, "-1"),
    (DISCRETE_GAUSSIAN, f"{2**26 + 1}"),
    (SKELLAM, f"1/{2**64 + 1}"),
    ("gaussian", "1"),
)


def law_operations():
    for kind, variance in LAWS + REFUSED_LAWS:
        yield {"op": "weights", "kind": kind, "variance": variance}
        yield {"op": "table", "kind": kind, "variance": variance}


def draw_operations():
    digest = table_of(SKELLAM, "1").digest.hex()
    for secret, context, stream in ((SECRET, CONTEXT, b"words"), (SECRET, CONTEXT, b"ties"), (OTHER, "", b"words")):
        yield {"op": "key", "secret": secret, "context": context, "stream": stream.hex(), "table_digest": digest}
    for kind, variance in LAWS:
        shared = {"kind": kind, "variance": variance, "secret": SECRET, "context": CONTEXT}
        yield {"op": "draws"} | shared | {"count": 12}
        yield {"op": "draws_sha256"} | shared | {"count": 40_000}
    shared = {"op": "draws", "kind": SKELLAM, "variance": "9"}
    for secret, context, count in (
        *((SECRET, "", 8), (SECRET, b"client 2".hex(), 8), (OTHER, CONTEXT, 8), (SECRET, CONTEXT, 0)),
        *((SECRET[2:], CONTEXT, 8), ("", CONTEXT, 8), (SECRET, CONTEXT, -1)),
    ):
        yield shared | {"secret": secret, "context": context, "count": count}


def addition_operations():
    reach = table_of(SKELLAM, "9").half_support
    shared = {"op": "add", "kind": SKELLAM, "variance": "9", "secret": SECRET, "context": CONTEXT}
    for dtype, values in (
        *(("int32", [5, 0, -7]), ("int64", [5, 0, -7]), ("int32", [2**31 - 1 - reach, reach - 2**31])),
        *(("int64", [2**63 - 1 - reach, reach - 2**63]), ("int32", []), ("int32", [0, 2**31 - reach])),
        *(("int32", [reach - 1 - 2**31]), ("int64", [2**63 - reach]), ("int64", [reach - 1 - 2**63])),
        *(("uint32", [1]), ("float64", [1]), ("int32", [[1]])),
    ):
        yield shared | {"dtype": dtype, "values": values}
    shared = {"op": "add_central", "secret": SECRET, "context": CONTEXT}
    for kind, variance, total in (
        *((SKELLAM, "6939532", [0, 10**12, -1]), (SKELLAM, "693953200", [0, 0, 0]), (DISCRETE_GAUSSIAN, "9", [1, 2])),
        *((DISCRETE_GAUSSIAN, "693953200", [0]), (SKELLAM, "693953200", [2**63 - 1]), (SKELLAM, "0", [0])),
    ):
        yield shared | {"kind": kind, "variance": variance, "total": total}


def tie_operations():
    """Words at, next to and between the edges of columns, with second words at and next to their low halves."""
    for kind, variance in ((SKELLAM, "1"), (DISCRETE_GAUSSIAN, "4"), (SKELLAM, "70756")):
        made = table_of(kind, variance)
        last = len(made.edges) - 1
        words, ties = [], []
        for column in (0, made.half_support - 1, made.half_support, last):
            edge, low = int(made.edges[column]), int(made.low_edges[column])
            cases = ((edge - 1, 0), (edge, low - 1), (edge, low), (edge, low + 1), (edge, 0), (edge + 1, 0))
            for word, tie in cases:
                if 0 <= word < 2**64:
                    words.append(hex_of(word, 8))
                    ties.append(hex_of(min(max(tie, 0), 2**64 - 1), 8))
        yield {"op": "draws_of_words", "kind": kind, "variance": variance, "words": words, "ties": ties}
    ends = [hex_of(word, 8) for word in (0, 1, 2**63 - 1, 2**63, 2**64 - 1)]
    yield {"op": "draws_of_words", "kind": SKELLAM, "variance": LAWS[0][1], "words": ends, "ties": ends}


def render() -> str:
    """The text of the file; the same on every run."""
    entries = [*law_operations(), *draw_operations(), *addition_operations(), *tie_operations()]
    lines = ",\n".join("  " + json.dumps(entry | replay(entry)) for entry in entries)
    description = "Exact noise: weights, alias tables, keys, draws, additions, and draws from given words with ties."
    return f'{{"description": {json.dumps(description)}, "operations": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes the file next to this one."""
    PATH.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
