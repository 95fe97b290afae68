"""Generates the vectors of the arithmetic floor: `python -m tests.vectors.generate_arith`.

Every operation in a file has `op`, its inputs, `success`, and `expected` or `error` (the field that the refusal
names). Bytes, lanes (uint64), fp32 and fp64 arrays are lowercase hex, little-endian; field elements and
quantised coordinates are JSON integers; rationals are "numerator/denominator". `sha256` stands for long outputs.
"""

import hashlib
import inspect
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from secagg.arith import shamir
from secagg.arith.errors import ArithmeticInputError, ReconstructionError
from secagg.arith.fields import FieldLayout
from secagg.arith.flatten import Flatten, FlattenBlocks, flattened_bound, plan_encoding
from secagg.arith.keystream import Keystream, add_masks
from secagg.arith.quantiser import Quantiser, clip

DIRECTORY = Path(__file__).parent
OPERATIONS: dict[str, Callable[..., Any]] = {}
KEY, OTHER = bytes(range(32)).hex(), bytes(range(100, 132)).hex()


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def lanes_of(text):
    return np.frombuffer(bytes.fromhex(text), dtype="<u8").astype(np.uint64)


def hex_of(array):
    return array.astype(array.dtype.newbyteorder("<")).tobytes().hex()


def floats_of(text):
    return np.frombuffer(bytes.fromhex(text), dtype="<f4").astype(np.float32)


def elements_of(rows):
    return np.array(rows, dtype=np.uint64)


def stream_bytes(key, length):
    out = np.empty(length, dtype=np.uint8)
    Keystream(bytes.fromhex(key)).read_into(out)
    return out


@operation
def keystream_read(key, lengths):
    stream, pieces = Keystream(bytes.fromhex(key)), []
    for length in lengths:
        out = np.empty(length, dtype=np.uint8)
        stream.read_into(out)
        pieces.append(out.tobytes().hex())
    return pieces


@operation
def keystream_sha256(key, length):
    return hashlib.sha256(stream_bytes(key, length).tobytes()).hexdigest()


@operation
def masks_added(lanes, add, subtract):
    out = lanes_of(lanes)
    add_masks(out, [bytes.fromhex(k) for k in add], [bytes.fromhex(k) for k in subtract])
    return hex_of(out)


@operation
def secret_to_limbs(secret):
    return shamir.secret_to_limbs(bytes.fromhex(secret)).tolist()


@operation
def limbs_to_secret(limbs):
    return shamir.limbs_to_secret(elements_of(limbs)).hex()


@operation
def share_to_bytes(limbs):
    return shamir.share_to_bytes(elements_of(limbs)).hex()


@operation
def share_from_bytes(share):
    return shamir.share_from_bytes(bytes.fromhex(share)).tolist()


@operation
def uniform_elements(stream, count):
    raw, position = bytes.fromhex(stream), 0

    def read(length):
        nonlocal position
        position += length
        return raw[position - length : position]

    return shamir.uniform_elements(read, count).tolist()


@operation
def share(secrets, coefficients, points):
    rows = elements_of(coefficients).reshape(-1, len(secrets))
    return shamir.share(elements_of(secrets), rows, elements_of(points)).tolist()


@operation
def lagrange_at_zero(points):
    return shamir.lagrange_at_zero(elements_of(points)).tolist()


@operation
def reconstruct(points, shares):
    return shamir.reconstruct(elements_of(points), elements_of(shares)).tolist()


@operation
def reconstruct_with_errors(points, shares, threshold, accepted):
    secret, disagreed = shamir.reconstruct_with_errors(
        elements_of(points), elements_of(shares), threshold, lambda limbs: limbs.tolist() == accepted
    )
    return {"secret": secret.tolist(), "disagreed": disagreed}


@operation
def layout(value_bits, max_contributors, dimension, usable_bits):
    made = FieldLayout(value_bits, max_contributors, dimension, usable_bits)
    return {"field_bits": made.field_bits, "fields_per_lane": made.fields_per_lane, "lanes": made.lanes}


@operation
def pack(layout, values):
    return hex_of(FieldLayout(**layout).pack(np.array(values, dtype=np.int64)))


@operation
def unpack_sum(layout, lanes, contributors):
    return FieldLayout(**layout).unpack_sum(lanes_of(lanes), contributors).tolist()


@operation
def clip_vector(vector, clip_norm):
    clipped, norm = clip(floats_of(vector), Fraction(clip_norm))
    return {"vector": hex_of(clipped), "norm": hex_of(np.array([norm]))}


@operation
def quantise(vector, value_bits, bound, key):
    values, clamped = Quantiser(value_bits, Fraction(bound)).quantise(floats_of(vector), Keystream(bytes.fromhex(key)))
    return {"values": values.tolist(), "clamped": clamped}


@operation
def dequantise(total, value_bits, bound, contributors):
    quantiser = Quantiser(value_bits, Fraction(bound))
    return hex_of(quantiser.dequantise(np.array(total, dtype=np.int64), contributors))


@operation
def flatten_forward(permutation_key, sign_key, vector):
    values = floats_of(vector)
    return hex_of(Flatten(bytes.fromhex(permutation_key), bytes.fromhex(sign_key), values.size).forward(values))


@operation
def flatten_forward_ramp_sha256(permutation_key, sign_key, dimension):
    """The input is the ramp 0, 1, .., dimension - 1 divided by 2^20, in fp32."""
    ramp = (np.arange(dimension) / 2**20).astype(np.float32)
    mapped = Flatten(bytes.fromhex(permutation_key), bytes.fromhex(sign_key), dimension).forward(ramp)
    return hashlib.sha256(bytes.fromhex(hex_of(mapped))).hexdigest()


@operation
def decode_flattened(*, permutation_key, sign_key, dimension, total, value_bits, bound, contributors):
    mapped = Flatten(bytes.fromhex(permutation_key), bytes.fromhex(sign_key), dimension)
    inverse = mapped.inverse(np.array(total, dtype=np.float64))
    return hex_of(Quantiser(value_bits, Fraction(bound)).dequantise(inverse, contributors))


@operation
def bound_when_flattened(clip_norm, dimension):
    bound = flattened_bound(Fraction(clip_norm), dimension)
    return f"{bound.numerator}/{bound.denominator}"


@operation
def plan(dimension, clip_norm, value_bits, max_contributors, usable_bits):
    made = plan_encoding(dimension, Fraction(clip_norm), value_bits, max_contributors, usable_bits)
    return {
        "value_bits": made.layout.value_bits,
        "dimension": made.layout.dimension,
        "lanes": made.layout.lanes,
        "bound": f"{made.bound.numerator}/{made.bound.denominator}",
        "flatten": {"block": made.flatten.block} if isinstance(made.flatten, FlattenBlocks) else "none",
    }


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
    except ReconstructionError:
        return {"success": False, "error": "shares"}


def hex_floats(*values):
    return hex_of(np.array(values, dtype=np.float32))


def keystream_operations():
    lanes = hex_of(np.arange(5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    yield {"op": "keystream_read", "key": KEY, "lengths": [64]}
    yield {"op": "keystream_read", "key": KEY, "lengths": [0, 1, 7, 8, 15, 16, 17, 33]}
    yield {"op": "keystream_read", "key": "ff" * 32, "lengths": [24, 8]}
    for length in (0, 1, 16, 4096, 262_144, 262_145, 1_000_003):
        yield {"op": "keystream_sha256", "key": OTHER, "length": length}
    for bad in (0, 16, 31, 33):
        yield {"op": "keystream_read", "key": "00" * bad, "lengths": [8]}
    yield {"op": "masks_added", "lanes": lanes, "add": [KEY], "subtract": []}
    yield {"op": "masks_added", "lanes": lanes, "add": [], "subtract": [KEY, OTHER]}
    yield {"op": "masks_added", "lanes": lanes, "add": [KEY, OTHER], "subtract": ["ab" * 32]}
    yield {"op": "masks_added", "lanes": lanes, "add": [KEY], "subtract": [KEY]}
    yield {"op": "masks_added", "lanes": "", "add": [KEY], "subtract": []}
    yield {"op": "masks_added", "lanes": lanes, "add": [KEY], "subtract": ["00" * 31]}


def shamir_codec_operations():
    p = shamir.PRIME
    for secret in ("00" * 32, "ff" * 32, KEY, "00" * 31, "00" * 33):
        yield {"op": "secret_to_limbs", "secret": secret}
    full = 2**30 - 1
    tops = ([full] * 8 + [2**16 - 1], [full] * 8 + [2**16], [2**30] + [0] * 8, [0] * 8, [0] * 10)
    for limbs in tops:
        yield {"op": "limbs_to_secret", "limbs": limbs}
    for limbs in (list(range(9)), [p - 1] * 9, [p] + [0] * 8, [0] * 8):
        yield {"op": "share_to_bytes", "limbs": limbs}
    for encoded in ("00" * 36, "feffff7f" * 9, "ffffff7f" * 9, "00" * 32 + "ffffffff", "00" * 35, "00" * 37, ""):
        yield {"op": "share_from_bytes", "share": encoded}
    skipped = "ffffff7f" + "05000080" + "ffffffff" + "feffff7f" + "01020304"
    for count in (1, 2, 3, 4):
        yield {"op": "uniform_elements", "stream": skipped, "count": count}


def shamir_operations():
    yield from shamir_codec_operations()
    p = shamir.PRIME
    drawn = (stream_bytes(KEY, 4 * 400).view("<u4").astype(np.uint64) % np.uint64(p)).tolist()
    for threshold, width, points in ((1, 1, [1]), (2, 1, [1, 2, 3]), (3, 9, [7, 1, p - 1, 4]), (5, 4, [*range(1, 10)])):
        secrets = drawn[:width]
        rows = [drawn[width * (k + 1) : width * (k + 2)] for k in range(threshold - 1)]
        shares = shamir.share(
            elements_of(secrets), elements_of(rows).reshape(threshold - 1, width), elements_of(points)
        ).tolist()
        yield {"op": "share", "secrets": secrets, "coefficients": rows, "points": points}
        yield {"op": "lagrange_at_zero", "points": points[:threshold]}
        yield {"op": "reconstruct", "points": points[-threshold:], "shares": shares[-threshold:]}
        errors = {"op": "reconstruct_with_errors", "points": points, "threshold": threshold, "accepted": secrets}
        yield errors | {"shares": shares}
        bent = [[(v + 1) % p for v in row] if i in (0, 3) else row for i, row in enumerate(shares)]
        yield errors | {"shares": bent}
        yield errors | {"shares": shares, "accepted": [(v + 1) % p for v in secrets]}
    yield {"op": "share", "secrets": [1], "coefficients": [[2]], "points": [1, 0]}
    yield {"op": "share", "secrets": [1], "coefficients": [[2]], "points": [3, 3]}
    yield {"op": "share", "secrets": [p], "coefficients": [[2]], "points": [1, 2]}
    yield {"op": "share", "secrets": [1], "coefficients": [[p]], "points": [1, 2]}
    yield {"op": "share", "secrets": [1], "coefficients": [[2], [3]], "points": [1, 2]}
    yield {"op": "lagrange_at_zero", "points": [1, 2, p]}
    yield {"op": "reconstruct", "points": [1, 2], "shares": [[1], [p]]}
    yield {"op": "reconstruct", "points": [1, 2], "shares": [[1]]}
    short = {"op": "reconstruct_with_errors", "points": [1, 2], "shares": [[1], [2]], "accepted": [0]}
    for threshold in (0, 2, 3):
        yield short | {"threshold": threshold}


def layout_operations():
    names = ("value_bits", "max_contributors", "dimension", "usable_bits")
    for numbers in (
        *((15, 1024, 10, 64), (15, 1025, 1, 64), (2, 2, 100, 3), (32, 2**32, 5, 64), (11, 1024, 3, 51)),
        *((1, 2, 1, 64), (33, 2, 1, 64), (15, 1, 1, 64), (15, 2, 0, 64), (15, 2, 1, 65), (15, 2, 1, 15)),
        (32, 2**32 + 1, 1, 64),
    ):
        yield {"op": "layout"} | dict(zip(names, numbers, strict=True))
    small = {"value_bits": 4, "max_contributors": 4, "dimension": 3, "usable_bits": 12}
    odd = small | {"dimension": 2}
    wide = {"value_bits": 32, "max_contributors": 2**32, "dimension": 2, "usable_bits": 64}
    for made, values in (
        *((small, [7, -7, 0]), (odd, [-1, 3]), (wide, [2**31 - 1, 1 - 2**31]), (small, [8, 0, 0])),
        *((small, [0, 0, -8]), (small, [0, 0]), (small, [0] * 4)),
    ):
        yield {"op": "pack", "layout": made, "values": values}
    two = FieldLayout(**small).pack(np.array([7, -7, 0])) * np.uint64(2)
    steps = ((0, 0), (1 << 12, 0), (1 << 63, 0), (1 << 6, 0), (0, 2**64 - 1))
    for delta in steps:
        lanes = hex_of(two + np.array(delta, dtype=np.uint64))
        yield {"op": "unpack_sum", "layout": small, "lanes": lanes, "contributors": 2}
    for contributors in (0, 1, 3, 5):
        yield {"op": "unpack_sum", "layout": small, "lanes": hex_of(two), "contributors": contributors}
    yield {"op": "unpack_sum", "layout": small, "lanes": hex_of(two[:1]), "contributors": 2}
    padded = FieldLayout(**odd).pack(np.array([1, 1])) | np.array([0, 1 << 6], dtype=np.uint64)
    yield {"op": "unpack_sum", "layout": odd, "lanes": hex_of(padded), "contributors": 1}
    full = [2**32, 2**32 * (2**32 - 1), 2**32]
    lanes = hex_of(np.array(full, dtype=np.uint64))
    yield {"op": "unpack_sum", "layout": wide, "lanes": lanes, "contributors": 2**32}


def quantiser_operations():
    for vector, norm in (
        *((hex_floats(3, 4), "5/1"), (hex_floats(3, -4), "1/1"), (hex_floats(0, 0, 0), "1/3"), ("", "1/1")),
        *(
            (hex_floats(1, np.nan), "1/1"),
            (hex_floats(1), "0/1"),
            (hex_floats(-np.inf), "1/1"),
            (hex_floats(1), "-1/1"),
        ),
    ):
        yield {"op": "clip_vector", "vector": vector, "clip_norm": norm}
    ramp = hex_floats(*(np.arange(-20, 21) / 16))
    for bits, bound in ((2, "1/1"), (15, "1/1"), (15, "3/10"), (32, "5/4"), (1, "1/1"), (15, "0/1")):
        yield {"op": "quantise", "vector": ramp, "value_bits": bits, "bound": bound, "key": KEY}
    yield {"op": "quantise", "vector": hex_floats(0, np.inf), "value_bits": 15, "bound": "1/1", "key": KEY}
    totals = [0, 1, -1, 16383, -3 * 16383, 2**53 + 1, -(2**62)]
    for bits, bound, contributors in ((15, "1/1", 1), (15, "3/10", 3), (32, "7/3", 2**32), (15, "1/1", 0)):
        yield {"op": "dequantise", "total": totals, "value_bits": bits, "bound": bound, "contributors": contributors}


def flatten_operations():
    keys = {"permutation_key": KEY, "sign_key": OTHER}
    for dimension in (1, 2, 3, 5, 16, 33):
        yield {"op": "flatten_forward"} | keys | {"vector": hex_floats(*(np.arange(1, dimension + 1) / 8))}
    yield {"op": "flatten_forward", "permutation_key": KEY, "sign_key": KEY, "vector": hex_floats(1)}
    yield {"op": "flatten_forward", "permutation_key": KEY, "sign_key": "00", "vector": hex_floats(1)}
    for dimension in (65_536, 70_000):
        yield {"op": "flatten_forward_ramp_sha256"} | keys | {"dimension": dimension}
    coding = {"value_bits": 15, "bound": "3/10", "contributors": 3}
    for dimension, total in ((3, [5, -7, 11, 2]), (5, [*range(-30, 34, 8)]), (5, [1, 2, 3, 4])):
        yield {"op": "decode_flattened"} | keys | {"dimension": dimension, "total": total} | coding
    for norm, dimension in (("1/1", 1), ("3/10", 1000), ("1/1", 65_536), ("7/3", 10**6), ("1/1", 2**33), ("1/1", 0)):
        yield {"op": "bound_when_flattened", "clip_norm": norm, "dimension": dimension}
    for dimension, usable in ((10, 64), (65_537, 64), (131_072, 64), (10**6, 64), (10**6, 51), (10**6, 24)):
        shared = {"clip_norm": "3/10", "value_bits": 15, "max_contributors": 1024}
        yield {"op": "plan", "dimension": dimension, "usable_bits": usable} | shared


def encoding_operations():
    yield from layout_operations()
    yield from quantiser_operations()
    yield from flatten_operations()


FILES = {
    "keystream.json": ("AES-256-CTR keystreams and masks added to lanes.", keystream_operations),
    "shamir.json": ("Secret sharing over 2^31 - 1.", shamir_operations),
    "encoding.json": ("Fields, quantising, flattening and decoding.", encoding_operations),
}


def render(name: str) -> str:
    """The text of one file; the same on every run."""
    description, operations = FILES[name]
    lines = ",\n".join("  " + json.dumps(entry | replay(entry)) for entry in operations())
    return f'{{"description": {json.dumps(description)}, "operations": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes every file next to this one."""
    for name in FILES:
        (DIRECTORY / name).write_text(render(name), encoding="utf-8")


if __name__ == "__main__":
    main()
