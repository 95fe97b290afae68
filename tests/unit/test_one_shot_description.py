"""What docs/protocol-one-shot.md describes, written down once more from its words, is what the code does."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secagg.arith.seeded_shamir import shares_to_bytes
from secagg.crypto.sealing import SealingError
from secagg.crypto.secret import Secret
from secagg.derive import member_boxes
from secagg.derive.ring_opening import MaskedSum, open_with_shares
from secagg.protocol.one_shot.client_states import MaskInput
from secagg.protocol.one_shot.session import OneShotSession
from secagg.runtime import vectors
from secagg.runtime.committee_member import member_sealing_key
from tests.support.cohort import key_of
from tests.support.one_shot_cohort import MAX_CONTRIBUTORS, member_key, one_shot_parameters

P = 2**31 - 1
IDENTITIES = [key_of(f"id{i}") for i in range(3)]


@pytest.fixture(scope="module")
def session() -> OneShotSession:
    return OneShotSession(*one_shot_parameters(IDENTITIES))


# By the words of the description


def encode_fields(label: bytes, *fields: bytes) -> bytes:
    counted = b"".join(len(each).to_bytes(8, "big") + each for each in (label, *fields))
    return len(fields).to_bytes(8, "big") + counted


def hkdf(secret: bytes, label: bytes, *fields: bytes) -> bytes:
    pseudorandom = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(pseudorandom, encode_fields(label, *fields) + b"\x01", "sha256")


def keystream(key: bytes, length: int) -> bytes:
    counter = bytes(12) + (2).to_bytes(4, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(length))


def numbers(lanes: int) -> tuple[int, int]:
    """beta and D, as docs/parameters.md computes them."""
    getcontext().prec = 50
    logarithm = Decimal(2 * lanes * 2**64).ln().next_plus()
    root = math.isqrt(math.ceil(21 * MAX_CONTRIBUTORS * logarithm) - 1) + 1
    beta = min(21 * MAX_CONTRIBUTORS, root)
    return beta, next(d for d in range(64) if 100 * (2 * beta + 1) <= 97 * 2**d)


def public_polynomial(digest: bytes) -> np.ndarray:
    return np.frombuffer(keystream(hkdf(digest, b"secagg/v1/public-polynomials"), 8 * 4096), "<u8")


def product(a: np.ndarray, s: np.ndarray) -> np.ndarray:
    """a s mod X^4096 + 1 and 2^64."""
    total = np.zeros(4096, np.uint64)
    for k, factor in enumerate(int(each) for each in s):
        if factor:
            shifted = np.concatenate((np.uint64(0) - a[4096 - k :], a[: 4096 - k]))
            total += shifted * np.uint64(factor % 2**64)
    return total


def secret_of(mask_seed: bytes, digest: bytes) -> np.ndarray:
    stream = keystream(hkdf(mask_seed, b"secagg/v1/mask-secret-stream", digest), 4096)
    return np.array([(byte & 0b1111).bit_count() - 2 for byte in stream])


def errors_of(mask_seed: bytes, digest: bytes) -> np.ndarray:
    stream = keystream(hkdf(mask_seed, b"secagg/v1/lattice-error-stream", digest), 8 * 4096)
    words = np.frombuffer(stream, "<u8")
    return np.array([(int(word) % 2**42).bit_count() - 21 for word in words])


def share_of(seed: bytes) -> list[int]:
    stream = np.frombuffer(keystream(hkdf(seed, b"secagg/v1/seeded-share-stream"), 4 * 5000), "<u4")
    return [int(word) % 2**31 for word in stream if int(word) % 2**31 != P][:4096]


def value_at(x: int, points: list[int], values: list[list[int]]) -> list[int]:
    """The polynomials through `values` at `points`, at x."""
    weights = []
    for i in points:
        others = [j for j in points if j != i]
        top, bottom = math.prod(x - j for j in others), math.prod(i - j for j in others)
        weights.append(top * pow(bottom, -1, P) % P)
    return [sum(w * v for w, v in zip(weights, column, strict=True)) % P for column in zip(*values, strict=True)]


# And by the code


def plan(number: int) -> MaskInput:
    seeds = [hashlib.sha256(f"{number} {name}".encode()).digest() for name in ("rounding", "mask", "first", "second")]
    return MaskInput(Secret(seeds[0]), Secret(seeds[1]), (Secret(seeds[2]), Secret(seeds[3])))


def test_an_upload_is_what_section_2_describes(session):
    vector = np.linspace(-0.1, 0.1, 20, dtype=np.float32)
    encoded, _ = vectors.encode(session.parameters.encoding, session.parameters.noise, vector, plan(0).rounding)
    beta, shift = numbers(4096)
    padded = np.concatenate((encoded, np.zeros(4096 - encoded.size, np.uint64)))
    mask_seed = plan(0).mask.expose()
    expected = product(public_polynomial(session.digest), secret_of(mask_seed, session.digest))
    expected += errors_of(mask_seed, session.digest).astype(np.int64).view(np.uint64) + (padded << np.uint64(shift))
    masked = vectors.ring_masked_input(session, vector, plan(0))
    assert np.array_equal(masked.secret, secret_of(mask_seed, session.digest))
    assert np.array_equal(masked.lanes, expected)
    assert session.ring_mask.error_bound == beta


def test_boxes_are_what_section_3_describes(session):
    committee, identity, seeds = session.opening, IDENTITIES[0].public_bytes, plan(0).shares
    secret = secret_of(plan(0).mask.expose(), session.digest)
    boxes = member_boxes.deal(committee, secret.astype(np.int64), seeds, session.digest, identity)
    seeded = [share_of(seed.expose()) for seed in seeds]
    known = [[int(each) % P for each in secret], *seeded]
    for place, box in enumerate(boxes):
        info = encode_fields(b"secagg/v1/member-box", session.digest, identity, place.to_bytes(4, "big"))
        plaintext = member_sealing_key(member_key(place)).open(box, info).expose()
        if place < committee.needed - 1:
            assert plaintext == seeds[place].expose()
        else:
            assert plaintext == np.array(value_at(place + 1, [0, 1, 2], known), "<u4").tobytes()
        share = member_boxes.share_from_plaintext(committee, place, Secret(plaintext))
        assert shares_to_bytes(share) == np.array(value_at(place + 1, [0, 1, 2], known), "<u4").tobytes()


def test_a_box_opens_at_no_other_place(session):
    committee, identity = session.opening, IDENTITIES[0].public_bytes
    boxes = member_boxes.deal(committee, np.zeros(4096, np.int64), plan(0).shares, session.digest, identity)
    for place, box in enumerate(boxes):
        key = member_sealing_key(member_key(place))
        key.open(box, member_boxes.member_box_info(session.digest, identity, place))
        for moved in (
            (bytes(32), identity, place),
            (session.digest, IDENTITIES[1].public_bytes, place),
            (session.digest, identity, (place + 1) % 4),
        ):
            with pytest.raises(SealingError):
                key.open(box, member_boxes.member_box_info(*moved))
        with pytest.raises(SealingError):
            member_sealing_key(member_key((place + 1) % 4)).open(
                box, member_boxes.member_box_info(session.digest, identity, place)
            )


@pytest.mark.parametrize("wrong", [None, 0, 1, 3])
def test_a_sum_is_opened_as_section_5_describes(session, wrong):
    committee, digest, count = session.opening, session.digest, len(IDENTITIES)
    masked = [vectors.ring_masked_input(session, np.full(20, 0.01 * i, np.float32), plan(i)) for i in range(count)]
    masked_sum = sum((each.lanes for each in masked), np.zeros(4096, np.uint64))
    answers = {}
    for place in range(4):
        columns = []
        for i in range(count):
            known = [[int(each) % P for each in masked[i].secret], *(share_of(s.expose()) for s in plan(i).shares)]
            columns.append(value_at(place + 1, [0, 1, 2], known))
        total = np.array([sum(column) % P for column in zip(*columns, strict=True)], np.uint64)
        answers[place] = total if place != wrong else (total + np.uint64(1)) % np.uint64(P)

    beta, shift = numbers(4096)
    bound = min(2 * count, math.isqrt(math.ceil(2 * count * Decimal(2 * 4096 * 2**64).ln().next_plus()) - 1) + 1)
    opened = None
    for used in itertools.combinations(range(4), 3):
        values = value_at(0, [place + 1 for place in used], [[int(v) for v in answers[place]] for place in used])
        lifted = np.array([v - P if v > P // 2 else v for v in values])
        raised = masked_sum - product(public_polynomial(digest), lifted) + np.uint64(beta)
        if max(abs(lifted)) <= bound and (raised % np.uint64(2**shift) <= np.uint64(2 * beta)).all():
            opened = used, lifted, raised >> np.uint64(shift)
            break

    found, lanes = open_with_shares(
        committee, answers, MaskedSum(session.ring_mask, session.public_key, masked_sum, count)
    )
    assert opened is not None
    assert found.used == opened[0]
    assert np.array_equal(found.secret_sum, opened[1])
    assert np.array_equal(lanes, opened[2])
    assert found.dissenting == tuple({wrong} - {None})
    assert np.array_equal(found.secret_sum, sum(each.secret for each in masked))
