"""Generates the vectors of ring masks: `python -m tests.vectors.generate_ring`.

As in `generate_arith`: lanes are lowercase hex, little-endian. Long outputs are given as their first four words (int64
or uint64) and the SHA-256 of all, little-endian. Inputs are made from keys: `stream` lanes are the first of the
AES-256-CTR stream of `keystream.json`, each shifted right by `drop` bits; a secret is drawn as `draw_secret` draws it.
A refusal names the field, or for a certification that fails, its condition and how many coefficients or lanes fail.
"""

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from secagg.arith import binomial, ring_mask, seeded_shamir
from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.keystream import Keystream
from secagg.arith.ring_mask import RING_DEGREE, RingMask
from secagg.arith.ring_product import MAX_BOUND, RingMultiplier
from tests.vectors.generate_arith import hex_of

PATH = Path(__file__).parent / "ring.json"
OPERATIONS: dict[str, Callable[..., Any]] = {}
PUBLIC, KEY = bytes(range(32)).hex(), bytes(range(100, 132)).hex()


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def summary(words):
    return {"head": hex_of(words[:4]), "sha256": hashlib.sha256(bytes.fromhex(hex_of(words))).hexdigest()}


def stream_lanes(key, lanes, drop):
    out = np.empty(lanes, dtype=np.uint64)
    Keystream(bytes.fromhex(key)).read_into(out)
    return out >> np.uint64(drop)


def secret_of(key):
    return ring_mask.draw_secret(Keystream(bytes.fromhex(key)))


def changed(secret, changes):
    """Adds to single coefficients: `[[coefficient, difference], ..]`."""
    out = secret.copy()
    for place, difference in changes:
        out[place] += difference
    return out


@operation
def draws(key, eta, count):
    return binomial.centred_binomial(Keystream(bytes.fromhex(key)), eta, count).tolist()


@operation
def draws_sha256(key, eta, count):
    """Draws as signed bytes."""
    drawn = binomial.centred_binomial(Keystream(bytes.fromhex(key)), eta, count)
    return hashlib.sha256(drawn.tobytes()).hexdigest()


@operation
def draw_secret(key):
    return summary(secret_of(key))


@operation
def product(public_key, polynomials, secret_key, factor, bound):
    """The polynomials of a stream times `factor` times a drawn secret."""
    public = stream_lanes(public_key, polynomials * RING_DEGREE, 0)
    lanes = np.zeros(public.size, dtype=np.uint64)
    RingMultiplier(secret_of(secret_key) * factor, bound).add_products(public, lanes)
    return summary(lanes)


@operation
def product_of_constants(word, coefficient, bound):
    """A polynomial of equal words times a secret of equal coefficients."""
    lanes = np.zeros(RING_DEGREE, dtype=np.uint64)
    secret = np.full(RING_DEGREE, coefficient, dtype=np.int64)
    RingMultiplier(secret, bound).add_products(np.full(RING_DEGREE, word, dtype=np.uint64), lanes)
    return summary(lanes)


@operation
def numbers(max_contributors, lanes, contributors):
    mask = RingMask(max_contributors, lanes)
    return {
        "error_bound": mask.error_bound,
        "shift": mask.shift,
        "usable_bits": mask.usable_bits,
        "secret_bound": mask.secret_bound(contributors),
    }


@operation
def padded_lanes(lanes):
    return ring_mask.padded_lanes(lanes)


@operation
def usable_bits_for(value_bits, max_contributors, dimension):
    return ring_mask.usable_bits_for(value_bits, max_contributors, dimension)


def masked(mask, drop, public_key, keys):
    """`keys` of one contribution: of its lanes, of its secret, of its errors."""
    lanes = stream_lanes(keys[0], mask.lanes, drop)
    mask.apply_mask(lanes, bytes.fromhex(public_key), secret_of(keys[1]), bytes.fromhex(keys[2]))
    return lanes


@operation
def mask(max_contributors, lanes, drop, public_key, keys):
    return summary(masked(RingMask(max_contributors, lanes), drop, public_key, keys))


@operation
def open_sum(*, max_contributors, lanes, drop, public_key, contributions, opening_key, changes, contributors):
    """The sum of masked streams under `public_key`, opened under `opening_key` with the changed sum of secrets."""
    made = RingMask(max_contributors, lanes)
    total = sum((masked(made, drop, public_key, keys) for keys in contributions), np.zeros(lanes, dtype=np.uint64))
    secrets = changed(sum((secret_of(keys[1]) for keys in contributions), np.zeros(RING_DEGREE, np.int64)), changes)
    made.certify_and_unmask(total, secrets, contributors, bytes.fromhex(opening_key))
    return summary(total)


@operation
def share_of_seed(seed):
    return summary(seeded_shamir.share_of_seed(bytes.fromhex(seed)))


def shares_of(secret, seeds, members):
    seeded = [seeded_shamir.share_of_seed(bytes.fromhex(seed)) for seed in seeds]
    rows = np.array(seeded, dtype=np.uint64).reshape(len(seeds), RING_DEGREE)
    return np.concatenate([rows, seeded_shamir.dealt_shares(secret, rows, members)])


@operation
def deal(secret_key, factor, seeds, members):
    """Every dealt share as it is encoded."""
    shares = shares_of(secret_of(secret_key) * factor, seeds, members)[len(seeds) :]
    return [hashlib.sha256(seeded_shamir.shares_to_bytes(share)).hexdigest() for share in shares]


@operation
def add_and_reconstruct(dealings, members, answering, bound):
    """Each dealing has the key of its secret and its seeds; `answering` are members, from 0."""
    totals = np.zeros((members, RING_DEGREE), dtype=np.uint64)
    for secret_key, seeds in dealings:
        for total, share in zip(totals, shares_of(secret_of(secret_key), seeds, members), strict=True):
            seeded_shamir.add_share(total, share)
    points = np.array(answering, dtype=np.uint64) + np.uint64(1)
    needed = len(dealings[0][1]) + 1
    found = seeded_shamir.reconstruct_sum(points[:needed], totals[answering[:needed]], bound)
    return {"secret": summary(found), "agree": seeded_shamir.agree(points, totals[answering], needed)}


@operation
def decode_share(head, repeated):
    """A share of `head` and then one word over and over."""
    encoded = bytes.fromhex(head + repeated * ((seeded_shamir.SHARE_BYTES - len(head) // 2) // 4))
    return summary(seeded_shamir.shares_from_bytes(encoded))


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
    except CertificationError as refused:
        return {"success": False, "error": {"condition": refused.condition, "failing": refused.failing}}


def key_of(*names):
    return hashlib.sha256(repr(names).encode()).hexdigest()


def draw_operations():
    for eta in (1, 2, 4, 5, 8, 9, 16, 17, 21, 32):
        yield {"op": "draws", "key": KEY, "eta": eta, "count": 12}
    for eta, count in ((2, 4096), (21, 40_000), (0, 1), (33, 1), (21, -1)):
        yield {"op": "draws_sha256", "key": KEY, "eta": eta, "count": count}
    yield {"op": "draw_secret", "key": KEY}
    yield {"op": "draw_secret", "key": KEY[2:]}


def product_operations():
    for polynomials, factor, bound in (
        *((1, 1, 2), (17, 1, 2), (3, 100, 331), (2, 50_000, 100_000), (2, MAX_BOUND // 2, MAX_BOUND)),
        *((1, 2, 3), (1, 1, MAX_BOUND + 1), (0, 1, 2)),
    ):
        shared = {"public_key": PUBLIC, "polynomials": polynomials, "secret_key": KEY}
        yield {"op": "product"} | shared | {"factor": factor, "bound": bound}
    for word, coefficient, bound in (
        *((2**64 - 1, 2, 2), (2**63, -2, 2), (2**63 - 1, 331, 331), (2**64 - 1, -MAX_BOUND, MAX_BOUND), (1, 3, 2)),
        (2**63 + 2**31, 2, 2),
    ):
        yield {"op": "product_of_constants", "word": word, "coefficient": coefficient, "bound": bound}


def number_operations():
    for most, lanes, contributors in (
        *((2, 4096, 2), (3, 503_808, 3), (10, 4096, 1), (1024, 503_808, 1024), (65_536, 503_808, 3)),
        *((2**20, 2**30, 2**20), (2**28, 4096, 2**28), (2**33, 2**30, 2**33)),
        *(
            (1, 4096, 1),
            (2**33 + 1, 4096, 1),
            (2, 4095, 1),
            (2, 0, 1),
            (2, 2**30 + 4096, 1),
            (2, 4096, 0),
            (2, 4096, 3),
        ),
    ):
        yield {"op": "numbers", "max_contributors": most, "lanes": lanes, "contributors": contributors}
    for lanes in (1, 4096, 4097, 500_001, 2**30, 0, 2**30 + 1):
        yield {"op": "padded_lanes", "lanes": lanes}
    for bits, most, dimension in (
        *((15, 1024, 10**6), (16, 2**27, 10**6), (8, 2**33, 10**6), (2, 3, 10**8), (15, 2, 1)),
        *((9, 2**33, 10**6), (15, 1024, 2**32), (1, 2, 1)),
    ):
        shared = {"op": "usable_bits_for", "value_bits": bits}
        yield shared | {"max_contributors": most, "dimension": dimension}


def mask_operations():
    def keys(contributor):
        return [key_of(name, contributor) for name in ("lanes", "secret", "error")]

    for most, lanes, drop in ((2, 4096, 7), (1024, 12_288, 12), (1024, 69_632, 40), (1024, 4096, 11), (1024, 4096, 64)):
        shared = {"max_contributors": most, "lanes": lanes, "drop": min(drop, 63)}
        yield {"op": "mask"} | shared | {"public_key": PUBLIC, "keys": keys(0)}
    yield {"op": "mask", "max_contributors": 2, "lanes": 4096, "drop": 8, "public_key": KEY, "keys": ["00", KEY, KEY]}
    yield {"op": "mask", "max_contributors": 2, "lanes": 4096, "drop": 8, "public_key": KEY, "keys": [KEY, PUBLIC, KEY]}
    opening = {"max_contributors": 1024, "lanes": 12_288, "drop": 14, "public_key": PUBLIC}
    opening |= {"contributions": [keys(number) for number in range(3)], "opening_key": PUBLIC}
    for changes, contributors in (
        *(([], 3), ([], 1024), ([[0, 1]], 1024), ([[4095, -2], [7, 3]], 1024), ([], 0), ([], 1025)),
        *(([[5, 4096]], 1024), ([[5, 4096]], 3), ([[9, -(2**40)], [10, 2**62]], 1024), ([[0, 7], [1, -7]], 3)),
    ):
        yield {"op": "open_sum"} | opening | {"changes": changes, "contributors": contributors}
    yield {"op": "open_sum"} | opening | {"opening_key": KEY, "changes": [], "contributors": 3}


def shamir_operations():
    seeds = [key_of("seed", number) for number in range(4)]
    for seed in (*seeds[:2], "00" * 32, "00" * 31):
        yield {"op": "share_of_seed", "seed": seed}
    for factor, count, members in (
        (1, 4, 7),
        (-1, 1, 3),
        (2**28, 2, 3),
        (1, 0, 2),
        (1, 4, 4),
        (2**29, 2, 3),
        (1, 1, 2049),
    ):
        dealing = {"secret_key": KEY, "factor": factor, "seeds": seeds[:count], "members": members}
        yield {"op": "deal"} | dealing
    dealings = [[key_of("secret", n), [key_of("seed", n, row) for row in range(4)]] for n in range(3)]
    for answering, bound in (
        *(([0, 1, 2, 3, 4], 6), ([6, 2, 5, 4, 3, 0], 6), ([0, 1, 2, 3, 4, 5, 6], 2**30 - 1)),
        *(([0, 1, 2, 3], 6), ([0, 1, 2, 2, 3], 6), ([0, 1, 2, 3, 4], 2), ([2, 3, 4, 5, 6], 2**30)),
    ):
        shared = {"op": "add_and_reconstruct", "dealings": dealings, "members": 7}
        yield shared | {"answering": answering, "bound": bound}
    for head, repeated in (("", "feffff7f"), ("01000000", "00000000"), ("ffffff7f", "00000000"), ("", "00000080")):
        yield {"op": "decode_share", "head": head, "repeated": repeated}
    yield {"op": "decode_share", "head": "0000", "repeated": "00000000"}


def render() -> str:
    """The text of the file; the same on every run."""
    entries = [
        *draw_operations(),
        *product_operations(),
        *number_operations(),
        *mask_operations(),
        *shamir_operations(),
    ]
    lines = ",\n".join("  " + json.dumps(entry | replay(entry)) for entry in entries)
    description = "Ring masks: draws, products, numbers, masking, certification, and shares of their secrets."
    return f'{{"description": {json.dumps(description)}, "operations": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes the file next to this one."""
    PATH.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
