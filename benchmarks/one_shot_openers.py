"""Those who open one-shot sums by themselves: a committee member, the opening, a key authority; and CKKS to compare."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.arith import Figure, measure, sum_of_secrets
from benchmarks.one_shot_parts import each_of
from benchmarks.one_shot_session import Plan, member_ports, member_state
from benchmarks.pairwise import Pipe, Report, memory_mib
from secagg.arith import seeded_shamir
from secagg.arith.keystream import Keystream
from secagg.arith.ring_mask import draw_secret
from secagg.arith.ring_product import RingMultiplier
from secagg.crypto.rng import SystemRng
from secagg.derive.result import decode
from secagg.derive.ring_opening import MaskedSum, open_with_shares, without_padding
from secagg.he.bfv import DecryptionKey, EncryptionContext
from secagg.he.ciphertext_sum import CiphertextSum
from secagg.protocol.one_shot.session import OneShotSession
from secagg.runtime.committee_member import CommitteeMemberHost
from secagg.services.server import keep_freed_memory
from secagg.transcript.merkle import leaf_hash
from secagg.v1 import opening_pb2 as opb
from secagg.wire import convert_opening
from tests.support import one_shot

BATCH = 64
CKKS_DEGREE = 8192
CKKS_BITS = (60, 40, 60)
"""TenSEAL's usual parameters for sums: 4096 slots, two primes in a ciphertext, scale 2^40."""


# A member.


class _StillClock:
    def now_s(self) -> int:
        return one_shot.NOW_S


async def holding(plan: Plan, count: int, pipe: Pipe) -> None:
    """What a member does for each contributor: hold a box, and add its share at the opening; every flush included."""
    committee = one_shot.committee_of(plan.members, plan.needed, max(0, 2 * plan.needed - plan.members - 1))
    keys = one_shot.contributor_keys(count)
    session = one_shot.session_of(keys, opening=committee, max_contributors=max(1024, count))
    contributions = [one_shot.contribute(session, key) for key in keys]
    report = {}
    for kind, place in (("seeded", 0), ("whole_share", plan.members - 1)):
        with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name:
            report[kind] = await _member(session, place, contributions, Path(name))
    pipe.send({"contributions": count, **report, "rss_peak_mib": memory_mib("VmHWM")})


async def _member(
    session: OneShotSession, place: int, contributions: Sequence[one_shot.Contribution], directory: Path
) -> Report:
    name, count = session.parameters.session, len(contributions)
    async with member_state(directory / "state") as state:
        ports = member_ports(
            state, one_shot.member_key(place), clock=_StillClock(), rules=one_shot.rules_of(), policy=one_shot.WITNESSED
        )
        host = CommitteeMemberHost(ports)
        await host.join(name, one_shot.shown_files(session, one_shot.evidence_of(session)), session.roster)
        member = await host.find(name)
        batches = [contributions[first : first + BATCH] for first in range(0, count, BATCH)]
        requests = [
            convert_opening.hold_shares_to_pb(name, [each.item(place) for each in batch]).SerializeToString()
            for batch in batches
        ]

        async def hold() -> None:
            for data in requests:
                items = convert_opening.hold_shares_from_pb(opb.HoldSharesRequest.FromString(data))
                if any(await member.hold([item for item in items if item is not None])):
                    raise SystemExit("a member refused a box")

        request = one_shot.open_request(session, contributions)
        leaves = b"".join(map(leaf_hash, request.contributions))

        async def open_sum() -> None:
            await member.open(request.evidence, leaves)

        held, opened = await _spent(hold, count), await _spent(open_sum, count)
        await host.close()
    return {"box_bytes": member.context.box_bytes, "hold": held, "sum_and_answer": opened}


async def _spent(action: Callable[[], Awaitable[None]], count: int) -> Figure:
    started, cpu = time.perf_counter(), time.process_time()
    await action()
    return each_of(
        {"wall_ms": 1e3 * (time.perf_counter() - started), "cpu_ms": 1e3 * (time.process_time() - cpu)}, count
    )


# The opening.


def opened_sum_of(session: OneShotSession, contributors: int) -> tuple[MaskedSum, np.ndarray]:
    """The masked sum of so many vectors of zeros, with the largest of secrets; and the sum of the secrets."""
    encoding, lanes = session.parameters.encoding, np.zeros(session.upload_lanes, dtype=np.uint64)
    layout = session.field_layout
    zeros = np.zeros(encoding.dimension, dtype=np.int32)
    layout.pack_into(zeros, lanes[: layout.lanes])
    lanes *= np.uint64(contributors)
    lanes <<= np.uint64(session.ring_mask.shift)
    total = sum_of_secrets(contributors)
    bound = session.ring_mask.secret_bound(contributors)
    public = np.empty_like(lanes)
    Keystream(session.public_key).read_into(public)
    RingMultiplier(total, bound).add_products(public, lanes)
    return MaskedSum(session.ring_mask, session.public_key, lanes, contributors), total


async def unmasking(plan: Plan, repeats: int, pipe: Pipe) -> None:
    """Certify, unmask and decode one sum of as many as a session takes."""
    keep_freed_memory()
    session, committee = plan.session(), plan.committee()
    contributors = session.parameters.encoding.max_contributors
    masked, total = opened_sum_of(session, contributors)
    seeds = [bytes([place]) * 32 for place in range(plan.needed - 1)]
    seeded = np.array([seeded_shamir.share_of_seed(seed) for seed in seeds])
    shares = np.concatenate([seeded, seeded_shamir.dealt_shares(total, seeded, plan.members)])
    answers = dict(enumerate(shares))
    _, lanes = open_with_shares(committee, answers, masked)
    encoded = without_padding(lanes, session.field_layout.lanes)
    encoding = session.parameters.encoding
    pipe.send(
        {
            "contributors": contributors,
            "certify_and_unmask": measure(lambda: masked.certified(total), repeats),
            "with_reconstruction": measure(lambda: open_with_shares(committee, answers, masked), repeats),
            "decode": measure(lambda: decode(encoding, session.parameters.noise, encoded, contributors), repeats),
        }
    )


# A key authority, and encryption of whole vectors.


async def encrypting(plan: Plan, repeats: int, pipe: Pipe) -> None:
    """What the key authority mode costs: its key, a contributor's ciphertext, the sum of ciphertexts, the opening."""
    rng = SystemRng()
    key = DecryptionKey.generate(rng)
    context = EncryptionContext.from_bytes(key.public_context())
    secret = draw_secret(Keystream(bytes(32)))
    first = measure(lambda: context.encrypt(secret, rng), 1)
    ciphertext, total = context.encrypt(secret, rng), CiphertextSum()
    session = plan.session()
    contributors = session.parameters.encoding.max_contributors
    masked, secret_sum = opened_sum_of(session, contributors)
    summed = context.encrypt(secret_sum, rng)
    if not np.array_equal(key.decrypt(summed), secret_sum):
        raise SystemExit("the decryption is another sum")
    pipe.send(
        {
            "ciphertext_bytes": len(ciphertext),
            "ciphertext_bytes_a_parameter": round(len(ciphertext) / plan.dimension, 5),
            "make_key": measure(lambda: DecryptionKey.generate(rng), repeats),
            "first_encryption_in_the_process": first,
            "encrypt": measure(lambda: context.encrypt(secret, rng), repeats),
            "add": measure(lambda: total.add(ciphertext), repeats),
            "decrypt": measure(lambda: key.decrypt(summed), repeats),
            "decrypt_certify_and_unmask": measure(lambda: masked.certified(key.decrypt(summed)), repeats),
        }
    )


async def whole_vectors(plan: Plan, repeats: int, pipe: Pipe) -> None:
    """The vector itself under CKKS with TenSEAL, 4096 coordinates a ciphertext: two contributions, added, decrypted."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, CKKS_DEGREE, coeff_mod_bit_sizes=list(CKKS_BITS))
    context.global_scale = 2**40
    slots = CKKS_DEGREE // 2
    values = np.random.default_rng(1).random(plan.dimension) - 0.5
    pieces = [values[start : start + slots].tolist() for start in range(0, plan.dimension, slots)]

    def encrypt() -> list[bytes]:
        return [tenseal.ckks_vector(context, piece).serialize() for piece in pieces]

    sent = encrypt()

    def add() -> None:
        for total, each in zip(totals, sent, strict=True):
            total.add_(tenseal.ckks_vector_from(context, each))

    totals = [tenseal.ckks_vector_from(context, each) for each in sent]
    size = sum(map(len, sent))
    fast = min(repeats, 3)
    report = {
        "degree": CKKS_DEGREE,
        "prime_bits": CKKS_BITS,
        "ciphertexts": len(sent),
        "bytes": size,
        "bytes_a_parameter": round(size / plan.dimension, 5),
        "encrypt_and_serialise": measure(encrypt, fast),
        "parse_and_add": measure(add, fast),
        "decrypt": measure(lambda: [each.decrypt() for each in totals], fast),
    }
    pipe.send(report)
