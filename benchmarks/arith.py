"""Measures the arithmetic floor: `python -m benchmarks.arith --json OUT` (`-`: standard output)."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import scipy

from secagg.arith import linear_hash, seeded_shamir
from secagg.arith.binomial import add_centred_binomial, centred_binomial
from secagg.arith.fields import FieldLayout
from secagg.arith.flatten import Flatten
from secagg.arith.keystream import Keystream, add_masks
from secagg.arith.quantiser import Quantiser, clip
from secagg.arith.ring_mask import RING_DEGREE, RingMask, draw_secret, padded_lanes, usable_bits_for
from secagg.arith.ring_product import RingMultiplier
from secagg.arith.shamir import ReconstructionPlan, reconstruct_with_errors, share, uniform_elements

Figure = dict[str, float]


def measure(action: Callable[[], object], repeats: int) -> Figure:
    """Best wall-clock milliseconds of `repeats` runs, and CPU milliseconds of the run with least."""
    wall, cpu = [], []
    for _ in range(repeats):
        started, started_cpu = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - started_cpu)
    return {"wall_ms": round(1e3 * min(wall), 3), "cpu_ms": round(1e3 * min(cpu), 3)}


def encoding(dimension: int, repeats: int) -> dict[str, Figure]:
    """Clip, quantise, pack, decode and flatten one vector."""
    vector = np.random.default_rng(1).standard_normal(dimension).astype(np.float32)
    norm = Fraction(10)
    layout = FieldLayout(value_bits=15, max_contributors=1024, dimension=dimension)
    quantiser = Quantiser(15, norm)
    out = np.empty(layout.lanes, dtype=np.uint64)

    def encode() -> None:
        clipped, _ = clip(vector, norm)
        values, _ = quantiser.quantise(clipped, Keystream(bytes(32)))
        layout.pack_into(values, out)

    clipped, _ = clip(vector, norm)
    values, _ = quantiser.quantise(clipped, Keystream(bytes(32)))
    flatten = Flatten(bytes(32), bytes(31) + b"\1", dimension)
    rotated = flatten.forward(vector)
    wide = rotated.astype(np.float64)
    encode()
    return {
        "clip": measure(lambda: clip(vector, norm), repeats),
        "quantise": measure(lambda: quantiser.quantise(clipped, Keystream(bytes(32))), repeats),
        "pack": measure(lambda: layout.pack_into(values, out), repeats),
        "clip_quantise_pack": measure(encode, repeats),
        "decode": measure(lambda: quantiser.dequantise(layout.unpack_sum(out, 1), 1), repeats),
        "flatten_setup": measure(lambda: Flatten(bytes(32), bytes(31) + b"\1", dimension), repeats),
        "flatten_forward": measure(lambda: flatten.forward(vector), repeats),
        "flatten_setup_and_forward": measure(
            lambda: Flatten(bytes(32), bytes(31) + b"\1", dimension).forward(vector), repeats
        ),
        "flatten_inverse_fp64": measure(lambda: flatten.inverse(wide), repeats),
    }


def masks(lanes_count: int, keys_count: int, repeats: int) -> dict[str, Figure]:
    """Masks added to lanes, in gigabytes of keystream a second, on one thread and on two."""
    keys = [index.to_bytes(32, "little") for index in range(keys_count)]
    lanes = np.zeros(lanes_count, dtype=np.uint64)
    out = {}
    for threads in (1, 2):
        figure = measure(partial(add_masks, lanes, keys[::2], keys[1::2], threads), repeats)
        rate = keys_count * lanes.nbytes / 1e6
        figure["gb_per_s"] = round(rate / figure["wall_ms"], 2)
        figure["gb_per_cpu_s"] = round(rate / figure["cpu_ms"], 2)
        out[f"add_masks_{threads}_threads"] = figure
    return out


def shamir(clients: int, threshold: int, repeats: int) -> dict[str, Figure]:
    """Sharing of two secrets, reconstruction of everybody's secret, and decoding with errors."""
    stream = Keystream(bytes(32))

    def read(length: int) -> bytes:
        raw = np.empty(length, dtype=np.uint8)
        stream.read_into(raw)
        return raw.tobytes()

    points = np.arange(1, clients + 1, dtype=np.uint64)
    both, high = uniform_elements(read, 18), uniform_elements(read, (threshold - 1, 18))
    everybody = uniform_elements(read, clients * 9)
    shares = share(everybody, uniform_elements(read, (threshold - 1, clients * 9)), points)
    wrong = shares[:, :9].copy()
    wrong[: (clients - threshold) // 2] ^= np.uint64(1)

    def batch() -> None:
        plan = ReconstructionPlan(points, threshold)
        plan.reconstruct(shares)
        plan.disagreements(shares)

    def batch_with_own_plans() -> None:
        for client in range(clients):
            plan = ReconstructionPlan(points, threshold)
            columns = shares[:, 9 * client : 9 * client + 9]
            plan.reconstruct(columns)
            plan.disagreements(columns)

    def accept(limbs: np.ndarray) -> bool:
        return bool((limbs == everybody[:9]).all())

    return {
        "share_two_secrets": measure(lambda: share(both, high, points), repeats),
        "reconstruct_all_clients_and_check": measure(batch, repeats),
        "reconstruct_all_clients_a_plan_each": measure(batch_with_own_plans, repeats),
        "reconstruct_one_with_most_errors": measure(
            lambda: reconstruct_with_errors(points, wrong, threshold, accept), repeats
        ),
    }


def back_and_forth(total: linear_hash.LimbSum, lanes: np.ndarray) -> None:
    """One contribution in and out again."""
    total.add_lanes(lanes)
    total.subtract_lanes(lanes)


def hashing(lanes_count: int, contributors: int, repeats: int) -> dict[str, Figure]:
    """The linear hash: of a contribution, of a limb sum, and what adding one contribution to that costs."""
    lanes = np.random.default_rng(1).integers(0, 2**64, lanes_count, dtype=np.uint64)
    total = linear_hash.LimbSum(lanes_count)
    # The first hash of a process also makes the table of public polynomials.
    first = measure(lambda: linear_hash.hash_lanes(lanes), 1)
    hashes = [linear_hash.hash_lanes(lanes)] * contributors
    report = {
        "first_hash_in_the_process": first,
        "hash_lanes": measure(lambda: linear_hash.hash_lanes(lanes), repeats),
        "add_lanes_to_limb_sum": measure(lambda: total.add_lanes(lanes), 5 * repeats),
    }
    report["add_and_subtract_lanes"] = measure(lambda: back_and_forth(total, lanes), repeats)
    published = linear_hash.LimbSum.from_entries(total.entries, contributors)
    return report | {
        "check_and_copy_limb_sum": measure(
            lambda: linear_hash.LimbSum.from_entries(published.entries, contributors), repeats
        ),
        "hash_limb_sum": measure(lambda: linear_hash.hash_limb_sum(published), repeats),
        "lanes_of_limb_sum": measure(lambda: linear_hash.lanes_of_limb_sum(published), repeats),
        "sum_of_hashes": measure(lambda: linear_hash.sum_of_hashes(hashes), repeats),
    }


def sum_of_secrets(contributors: int) -> np.ndarray:
    """As large as honest secrets of so many contributors are: int64[4096]."""
    return np.random.default_rng(2).binomial(4 * contributors, 0.5, RING_DEGREE) - 2 * contributors


def ring_masks(dimension: int, contributors: int, repeats: int) -> dict[str, object]:
    """Products, draws, masking and unmasking of one vector, with the numbers that `contributors` give."""
    usable = usable_bits_for(15, contributors, dimension)
    lanes_count = padded_lanes(FieldLayout(15, contributors, dimension, usable).lanes)
    mask = RingMask(contributors, lanes_count)
    lanes, public = np.zeros(lanes_count, dtype=np.uint64), np.empty(lanes_count, dtype=np.uint64)
    Keystream(bytes(32)).read_into(public)
    secret, total = draw_secret(Keystream(bytes(31) + b"\1")), sum_of_secrets(contributors)
    own, summed = RingMultiplier(secret, 2), RingMultiplier(total, mask.secret_bound(contributors))
    masked_sum = np.zeros(lanes_count, dtype=np.uint64)
    summed.add_products(public, masked_sum)

    def apply() -> None:
        lanes.fill(1)
        mask.apply_mask(lanes, bytes(32), secret, bytes(31) + b"\2")

    def unmask() -> None:
        np.copyto(lanes, masked_sum)
        mask.certify_and_unmask(lanes, total, contributors, bytes(32))

    return {
        "contributors": contributors,
        "lanes": lanes_count,
        "usable_bits": usable,
        "limb_bits": {"own_secret": own.limb_bits, "sum_of_secrets": summed.limb_bits},
        "products_with_own_secret": measure(lambda: own.add_products(public, lanes), repeats),
        "products_with_sum_of_secrets": measure(lambda: summed.subtract_products(public, lanes), repeats),
        "draw_errors": measure(lambda: centred_binomial(Keystream(bytes(32)), 21, lanes_count), repeats),
        "add_errors": measure(lambda: add_centred_binomial(Keystream(bytes(32)), 21, lanes), repeats),
        "draw_secret": measure(lambda: draw_secret(Keystream(bytes(32))), repeats),
        "apply_mask": measure(apply, repeats),
        "certify_and_unmask": measure(unmask, repeats),
    }


def ring_shares(needed: int, members: int, repeats: int) -> dict[str, Figure]:
    """What a contributor deals, what a member does for each, and what opens the sum."""
    seeds = [bytes([index]) * 32 for index in range(needed - 1)]
    seeded = np.array([seeded_shamir.share_of_seed(seed) for seed in seeds])
    secret = draw_secret(Keystream(bytes(32)))
    shares = np.concatenate([seeded, seeded_shamir.dealt_shares(secret, seeded, members)])
    points = np.arange(1, members + 1, dtype=np.uint64)
    encoded, total = seeded_shamir.shares_to_bytes(shares[-1]), np.zeros(RING_DEGREE, dtype=np.uint64)

    def deal() -> None:
        rows = np.array([seeded_shamir.share_of_seed(seed) for seed in seeds])
        for dealt in seeded_shamir.dealt_shares(secret, rows, members):
            seeded_shamir.shares_to_bytes(dealt)

    return {
        "deal": measure(deal, 10 * repeats),
        "member_adds_a_seed": measure(
            lambda: seeded_shamir.add_share(total, seeded_shamir.share_of_seed(seeds[0])), 10 * repeats
        ),
        "member_adds_a_share": measure(
            lambda: seeded_shamir.add_share(total, seeded_shamir.shares_from_bytes(encoded)), 10 * repeats
        ),
        "reconstruct_sum": measure(
            lambda: seeded_shamir.reconstruct_sum(points[-needed:], shares[-needed:], 2), 10 * repeats
        ),
        "agree": measure(lambda: seeded_shamir.agree(points, shares, needed), 10 * repeats),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs everything and writes one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="-", metavar="OUT", help="file to write, or - for standard output")
    parser.add_argument("--dimension", type=int, default=1_000_000, help="coordinates of a vector")
    parser.add_argument("--keys", type=int, default=100, help="masks of one contribution")
    parser.add_argument("--clients", type=int, default=100, help="clients, and neighbours of each")
    parser.add_argument("--threshold", type=int, default=67, help="shares needed")
    parser.add_argument("--contributors", type=int, default=1024, help="most contributions to a sum of ring masks")
    parser.add_argument("--needed", type=int, default=5, help="committee members that open a sum of ring masks")
    parser.add_argument("--members", type=int, default=7, help="members of the committee")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the best counts")
    options = parser.parse_args(arguments)
    started = time.process_time()
    report: dict[str, object] = {
        "machine": {
            "processor": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "parameters": {k: v for k, v in vars(options).items() if k != "json"},
        "encoding": encoding(options.dimension, options.repeats),
        "masks": masks(-(-(options.dimension + 1) // 2), options.keys, options.repeats),
        "shamir": shamir(options.clients, options.threshold, options.repeats),
        "linear_hash": hashing(-(-(options.dimension + 1) // 2), 5 * options.repeats + 65, options.repeats),
    }
    report["ring_masks"] = ring_masks(options.dimension, options.contributors, options.repeats)
    report["ring_shares"] = ring_shares(options.needed, options.members, options.repeats)
    report["cpu_s"] = round(time.process_time() - started, 3)
    text = json.dumps(report, indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        Path(options.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
