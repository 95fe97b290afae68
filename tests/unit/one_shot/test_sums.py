"""Encode, mask, add up, open: what one-shot clients upload, and what the sum of it is."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.linear_hash import hash_lanes
from secagg.arith.ring_mask import usable_bits_for
from secagg.arith.seeded_shamir import add_share
from secagg.derive import member_boxes, result
from secagg.derive.ring_opening import MaskedSum, RingOpeningError, open_with_shares
from secagg.he.bfv import DecryptionKey, EncryptionContext
from secagg.he.ciphertext_sum import CiphertextSum
from secagg.protocol.one_shot.client_states import MaskInput
from secagg.protocol.one_shot.session import OneShotSession
from secagg.runtime import vectors
from secagg.runtime.committee_member import member_sealing_key
from secagg.transcript.encoding import Encoding, Flattening, NoFlattening
from tests.support.cohort import one_hot
from tests.support.one_shot_client import KEYS, Speaker, authority_of, one_shot_session
from tests.support.one_shot_cohort import committee_of, member_key
from tests.support.rng import CountingRng

DIMENSION = 20
LARGEST = 2**14 - 1


@dataclass(frozen=True)
class Upload:
    """What one client masked, and its plan."""

    plan: MaskInput
    masked: vectors.RingMaskedInput


def upload_of(session: OneShotSession, number: int, vector: np.ndarray) -> Upload:
    """The upload of a client whose seeds are those that its machine drew."""
    (plan,) = Speaker(session, number).effects
    assert isinstance(plan, MaskInput)
    return Upload(plan, vectors.ring_masked_input(session, vector, plan))


def uploads_of(session: OneShotSession, numbers: Sequence[int]) -> list[Upload]:
    dimension = session.parameters.encoding.dimension
    return [upload_of(session, number, one_hot(dimension, number)) for number in numbers]


def masked_sum(session: OneShotSession, uploads: Sequence[Upload]) -> MaskedSum:
    lanes = np.zeros(session.upload_lanes, dtype=np.uint64)
    for each in uploads:
        lanes += each.masked.lanes
    return MaskedSum(session.ring_mask, session.public_key, lanes, len(uploads))


def share_sums(session: OneShotSession, uploads: Sequence[Upload], numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """What each member adds up, out of the boxes that it alone can open."""
    committee = session.opening
    sums = {place: np.zeros(4096, dtype=np.uint64) for place in range(len(committee.members))}
    for number, each in zip(numbers, uploads, strict=True):
        identity = KEYS[number].public_bytes
        boxes = member_boxes.deal(committee, each.masked.secret, each.plan.shares, session.digest, identity)
        for place, box in enumerate(boxes):
            info = member_boxes.member_box_info(session.digest, identity, place)
            key = member_sealing_key(member_key(place))
            add_share(sums[place], member_boxes.open_box(key, info, box, committee, place))
    return sums


def integers(session: OneShotSession, lanes: np.ndarray, contributors: int) -> np.ndarray:
    """The exact sum; the padding has to be empty."""
    own = session.field_layout.lanes
    assert not lanes[own:].any()
    return result.decode(session.parameters.encoding, session.parameters.noise, lanes[:own], contributors).integer_sum


def ones_at(numbers: Sequence[int]) -> np.ndarray:
    expected = np.zeros(DIMENSION, dtype=np.int64)
    expected[list(numbers)] = LARGEST
    return expected


@pytest.mark.parametrize("numbers", [(0, 1, 2), (4, 1, 3), (0, 1, 2, 3, 4)])
def test_the_uploads_of_whoever_came_add_up_to_zeros_and_ones(numbers):
    session = one_shot_session()
    uploads = uploads_of(session, numbers)
    sums, masked = share_sums(session, uploads, numbers), masked_sum(session, uploads)
    for named in itertools.combinations(range(4), 3):
        opening, lanes = open_with_shares(session.opening, {place: sums[place] for place in named}, masked)
        assert opening.used == named
        assert np.array_equal(integers(session, lanes, len(numbers)), ones_at(numbers))


def test_fewer_members_than_needed_open_nothing():
    session = one_shot_session()
    uploads = uploads_of(session, (0, 1, 2))
    sums = share_sums(session, uploads, (0, 1, 2))
    with pytest.raises(RingOpeningError):
        open_with_shares(session.opening, {0: sums[0], 1: sums[1]}, masked_sum(session, uploads))


def test_the_shares_of_one_set_do_not_open_the_sum_of_another():
    session = one_shot_session()
    uploads = uploads_of(session, (0, 1, 2, 3))
    sums = share_sums(session, uploads[:3], (0, 1, 2))
    with pytest.raises(RingOpeningError):
        open_with_shares(session.opening, sums, masked_sum(session, uploads))
    with pytest.raises(RingOpeningError):
        open_with_shares(session.opening, sums, masked_sum(session, uploads[1:]))


def test_an_authority_opens_the_same_sum_with_one_decryption():
    key = DecryptionKey.generate(CountingRng(b"authority"))
    digest = hashlib.sha256(key.public_context()).digest()
    session = one_shot_session(opening=authority_of(digest))
    encryption = EncryptionContext.from_bytes(key.public_context())
    uploads, ciphertexts = uploads_of(session, (0, 2, 4)), CiphertextSum()
    for number, each in enumerate(uploads):
        ciphertexts.add(encryption.encrypt(each.masked.secret, CountingRng(b"encryption %d" % number)))
    lanes = masked_sum(session, uploads).certified(key.decrypt(ciphertexts.result()))
    assert np.array_equal(integers(session, lanes, 3), ones_at((0, 2, 4)))


@pytest.mark.parametrize("flatten", [NoFlattening(), Flattening(b"f" * 32)], ids=["plain", "flattened"])
def test_values_come_back_within_a_quantisation_step(flatten):
    dimension = 300
    encoding = Encoding(dimension, 20, 16, usable_bits_for(20, 16, dimension), Fraction(2), flatten)
    session = one_shot_session(dimension=dimension, encoding=encoding)
    rng = np.random.default_rng(1)
    inputs = [rng.normal(0, 0.05, dimension).astype(np.float32) for _ in range(3)]
    uploads = [upload_of(session, number, vector) for number, vector in enumerate(inputs)]
    secret_sum = sum(each.masked.secret for each in uploads)
    lanes = masked_sum(session, uploads).certified(secret_sum)
    mean = result.decode(encoding, session.parameters.noise, lanes[: session.field_layout.lanes], 3).mean
    step = float(encoding.bound()) / (2**19 - 1)
    assert np.linalg.norm(mean - np.mean(inputs, axis=0)) < step * np.sqrt(session.field_layout.dimension)


def test_the_linear_hashes_of_uploads_add_up_to_the_hash_of_their_limb_sum():
    session = one_shot_session()
    one, two = (each.masked.lanes for each in uploads_of(session, (0, 1)))
    hashed = [np.frombuffer(vectors.linear_hash_of(lanes), dtype="<u8") for lanes in (one, two)]
    assert np.array_equal(hashed[0], hash_lanes(one))
    assert not np.array_equal(hashed[0], hashed[1])


def test_the_same_plan_gives_the_same_upload_and_another_seed_another():
    session, vector = one_shot_session(), np.linspace(-0.2, 0.2, DIMENSION, dtype=np.float32)
    first = upload_of(session, 0, vector)
    again = vectors.ring_masked_input(session, vector, first.plan)
    assert np.array_equal(first.masked.lanes, again.lanes)
    assert np.array_equal(first.masked.secret, again.secret)
    for name in ("rounding", "mask"):
        other = dataclasses.replace(first.plan, **{name: first.plan.shares[0]})
        assert not np.array_equal(first.masked.lanes, vectors.ring_masked_input(session, vector, other).lanes)


def test_an_upload_says_nothing_without_its_secret():
    """Every lane is masked, padding too: what is left under another's secret is no encoding of anything."""
    session = one_shot_session()
    one, two = uploads_of(session, (0, 1))
    alone = masked_sum(session, [one])
    with pytest.raises(CertificationError):
        alone.certified(two.masked.secret)
    assert np.array_equal(integers(session, alone.certified(one.masked.secret), 1), ones_at((0,)))
    words = one.masked.lanes >> np.uint64(32)
    assert len(np.unique(words)) > 0.99 * words.size
    assert abs(float(words.mean()) / 2**32 - 0.5) < 0.05


def test_a_secret_is_not_in_the_repr_of_what_was_masked():
    masked = upload_of(one_shot_session(), 0, one_hot(DIMENSION, 0)).masked
    assert "secret" not in repr(masked)


@pytest.mark.parametrize("length", [DIMENSION - 1, DIMENSION + 1])
def test_a_vector_of_another_length_is_not_encoded(length):
    session = one_shot_session()
    with pytest.raises(ArithmeticInputError, match="vector"):
        upload_of(session, 0, np.zeros(length, dtype=np.float32))


def test_a_committee_of_another_size_deals_as_many_boxes_as_it_has_members():
    session = one_shot_session(opening=committee_of(7, 5, 2))
    uploads = uploads_of(session, (0, 1, 2))
    sums = share_sums(session, uploads, (0, 1, 2))
    named = {place: sums[place] for place in (0, 2, 3, 5, 6)}
    opening, lanes = open_with_shares(session.opening, named, masked_sum(session, uploads))
    assert opening.used == (0, 2, 3, 5, 6)
    assert np.array_equal(integers(session, lanes, 3), ones_at((0, 1, 2)))
