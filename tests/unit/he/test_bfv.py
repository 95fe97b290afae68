"""One BFV ciphertext for each contributor, their sum, and one decryption."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from tenseal import sealapi

from secagg.arith.errors import ArithmeticInputError
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.he import seal
from secagg.he.bfv import DecryptionKey, EncryptionContext
from secagg.he.ciphertext_sum import CiphertextSum, check_ciphertext
from secagg.he.errors import CiphertextError
from secagg.he.parameters import (
    DEGREE,
    FRESH_NOISE,
    MAX_CONTRIBUTORS,
    MAX_MAGNITUDE,
    MODULUS,
    PLAIN_MODULUS,
)
from secagg.he.residues import (
    decode_ciphertext,
    decode_context,
    encode_ciphertext,
)
from tests.support.he_attacks import decrypt_with, key_probe, leaked_secret_key
from tests.support.rng import CountingRng

KEY = DecryptionKey.generate(CountingRng(b"key"))
CONTEXT = EncryptionContext.from_bytes(KEY.public_context())
NAME_BYTES = 16


def secret(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2, 3, DEGREE)


def encrypt(values: np.ndarray, seed: bytes = b"encryption") -> bytes:
    return CONTEXT.encrypt(values, CountingRng(seed))


def total(*ciphertexts: bytes) -> bytes:
    running = CiphertextSum()
    for ciphertext in ciphertexts:
        running.add(ciphertext)
    return running.result()


CIPHERTEXT = encrypt(secret(0))


def noise_budget(ciphertext: bytes) -> int:
    decryptor = sealapi.Decryptor(KEY._context, KEY._secret_key)
    return decryptor.invariant_noise_budget(seal.load_ciphertext(KEY._context, decode_ciphertext(ciphertext)))


def with_noise(ciphertext: bytes, noise: int) -> bytes:
    """The ciphertext with ``noise`` added to that of every coefficient."""
    residues = decode_ciphertext(ciphertext)
    residues[0] = (residues[0] + np.uint64(noise % MODULUS)) % np.uint64(MODULUS)
    return encode_ciphertext(residues)


def largest_noise(ciphertext: bytes, values: np.ndarray) -> int:
    """How far the ciphertext's phase is from ``q m / t`` at most, by the key in the clear and Python's integers."""
    key = leaked_secret_key(KEY.decrypt(key_probe(CONTEXT, values, 1, CountingRng(b"probe"))), values)
    first, second = decode_ciphertext(ciphertext).astype(np.object_)
    phase = first.copy()
    for shift in np.flatnonzero(key):
        phase += int(key[shift]) * np.concatenate((-second[DEGREE - shift :], second[: DEGREE - shift]))
    scaled = phase % MODULUS * PLAIN_MODULUS % MODULUS
    # t (q m / t + v) = t v modulo q: the plaintext is gone, to half a unit of rounding.
    return max(int(min(value, MODULUS - value)) for value in scaled) // PLAIN_MODULUS


# Encryption, addition, decryption


@pytest.mark.parametrize("magnitude", [0, 1, 2, MAX_MAGNITUDE])
def test_what_is_encrypted_is_what_is_decrypted(magnitude: int) -> None:
    values = np.random.default_rng(magnitude).integers(-magnitude, magnitude, DEGREE, endpoint=True)
    values[:2] = -magnitude, magnitude
    decrypted = KEY.decrypt(encrypt(values))
    assert decrypted.dtype == np.int64
    assert np.array_equal(decrypted, values)


def test_a_slot_holds_its_own_value_and_no_other() -> None:
    for slot in (0, 1, 2047, 2048, 4095):
        values = np.zeros(DEGREE, np.int64)
        values[slot] = -2
        assert np.array_equal(KEY.decrypt(encrypt(values)), values)


def test_the_sum_decrypts_to_the_sum() -> None:
    secrets = [secret(seed) for seed in range(20)]
    running = CiphertextSum()
    for index, values in enumerate(secrets):
        running.add(encrypt(values, bytes([index])))
    assert running.count == 20
    assert np.array_equal(KEY.decrypt(running.result()), np.sum(secrets, axis=0))


def test_the_order_of_addition_does_not_show() -> None:
    ciphertexts = [encrypt(secret(seed), bytes([seed])) for seed in range(4)]
    assert len({total(*order) for order in itertools.permutations(ciphertexts)}) == 1


def test_sums_of_sums_are_the_sum() -> None:
    first, second, third = (encrypt(secret(seed), bytes([seed])) for seed in range(3))
    assert total(total(first, second), third) == total(first, total(second, third)) == total(first, second, third)


def test_the_sum_is_the_one_that_seal_computes() -> None:
    ciphertexts = [encrypt(secret(seed), bytes([seed])) for seed in range(5)]
    context = seal.plain_context()
    running = seal.load_ciphertext(context, decode_ciphertext(ciphertexts[0]))
    for ciphertext in ciphertexts[1:]:
        sealapi.Evaluator(context).add_inplace(running, seal.load_ciphertext(context, decode_ciphertext(ciphertext)))
    assert encode_ciphertext(seal.ciphertext_residues(running)) == total(*ciphertexts)


def test_as_many_additions_as_there_may_be_contributors_leave_the_noise_below_its_bound() -> None:
    # 258048 = 63 * 2^12. Adding a ciphertext to itself adds up its noise without any cancellation, so that no sum of
    # as many honest ciphertexts with this noise can be worse.
    values = np.where(secret(1) < 0, -2, 2)
    ciphertext = encrypt(values)
    running = total(*[ciphertext] * 63)
    for _ in range(12):
        running = total(running, running)
    assert MAX_CONTRIBUTORS == 63 * 2**12
    assert np.array_equal(KEY.decrypt(running), values * MAX_CONTRIBUTORS)
    assert np.abs(KEY.decrypt(running)).max() == MAX_MAGNITUDE
    # The proven bound of 2^36 leaves 39 - 36 = 3 bits.
    assert noise_budget(running) >= 3


def test_fresh_noise_is_below_the_derived_bound_and_not_far_below_what_is_expected() -> None:
    noises = [largest_noise(encrypt(secret(seed), bytes([seed])), secret(seed)) for seed in range(5)]
    assert max(noises) <= FRESH_NOISE == 172_054
    # Deviation 240: the largest of 4096 is about four times that.
    assert min(noises) > 600
    assert max(noises) < 1600


def test_the_largest_sum_of_the_worst_noise_is_decrypted_with_room_to_spare() -> None:
    # The proof's figures, and noise of exactly the proven bound put into every coefficient, in both directions.
    worst = MAX_CONTRIBUTORS * FRESH_NOISE
    assert worst < 2**36 < 2**39 < MODULUS // (2 * PLAIN_MODULUS)
    assert PLAIN_MODULUS * worst / MODULUS + 2**-60 < 0.04
    values = np.where(secret(1) < 0, -MAX_MAGNITUDE, MAX_MAGNITUDE)
    for sign in (1, -1):
        assert np.array_equal(KEY.decrypt(with_noise(encrypt(values), sign * (worst + 2**35))), values)
    # And that this is noise at all: past q / 2t it is not.
    assert not np.array_equal(KEY.decrypt(with_noise(encrypt(values), MODULUS // PLAIN_MODULUS)), values)


def test_beyond_the_largest_magnitude_the_sum_wraps() -> None:
    values = np.full(DEGREE, MAX_MAGNITUDE)
    ones = np.ones(DEGREE, np.int64)
    wrapped = KEY.decrypt(total(encrypt(values), encrypt(ones, b"another")))
    assert np.array_equal(wrapped, -values)


def test_a_sum_takes_no_more_ciphertexts_than_the_plaintexts_have_room_for() -> None:
    running = CiphertextSum()
    running.add(CIPHERTEXT)
    running._count = MAX_CONTRIBUTORS
    before = running.result()
    with pytest.raises(CiphertextError, match="room for 258048"):
        running.add(CIPHERTEXT)
    assert running.result() == before


def test_sums_are_reduced_after_every_addition_whatever_the_residues() -> None:
    edges = np.array([0, 1, MODULUS // 2, MODULUS // 2 + 1, MODULUS - 1], np.uint64)
    pairs = np.array(list(itertools.product(edges, edges)), np.uint64)
    first, second = (np.resize(column, (2, DEGREE)) for column in pairs.T)
    added = decode_ciphertext(total(encode_ciphertext(first), encode_ciphertext(second)))
    assert np.array_equal(added, (first.astype(object) + second.astype(object)) % MODULUS)


def test_an_empty_sum_has_no_ciphertext() -> None:
    with pytest.raises(CiphertextError, match="nothing is hidden"):
        CiphertextSum().result()


def test_a_malformed_ciphertext_leaves_the_sum_as_it_was() -> None:
    running = CiphertextSum()
    running.add(CIPHERTEXT)
    with pytest.raises(CiphertextError):
        running.add(CIPHERTEXT[:-1])
    assert running.count == 1
    assert running.result() == CIPHERTEXT


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(DEGREE - 1, np.int64),
        np.zeros((DEGREE, 1), np.int64),
        np.zeros(DEGREE, np.int32),
        np.zeros(DEGREE),
        np.full(DEGREE, MAX_MAGNITUDE + 1),
        np.full(DEGREE, -MAX_MAGNITUDE - 1),
        np.full(DEGREE, np.iinfo(np.int64).min),
    ],
    ids=["short", "shape", "int32", "float", "too large", "too small", "smallest"],
)
def test_values_of_another_shape_type_or_size_are_not_encrypted(values: np.ndarray) -> None:
    with pytest.raises(ArithmeticInputError, match="values"):
        encrypt(values)


# Randomness


def test_two_encryptions_of_the_same_values_have_nothing_in_common() -> None:
    first, second = (decode_ciphertext(CONTEXT.encrypt(secret(0), SystemRng())) for _ in range(2))
    assert (first == second).mean() < 0.001


def test_an_encryption_depends_on_64_bytes_of_the_rng_and_on_nothing_else() -> None:
    drawn = []

    class Recorder(CountingRng):
        def bytes(self, count: int) -> bytes:
            drawn.append(count)
            return super().bytes(count)

    again = EncryptionContext.from_bytes(KEY.public_context()).encrypt(secret(0), Recorder(b"encryption"))
    assert again == CIPHERTEXT
    assert drawn == [64]


def test_the_secret_key_comes_from_the_first_seed_alone_and_the_public_key_from_both() -> None:
    first, second, third = (bytes([value]) * 64 for value in (1, 2, 3))
    key = DecryptionKey(Secret(first + second))
    sibling = DecryptionKey(Secret(first + third))
    stranger = DecryptionKey(Secret(third + second))
    assert len({key.public_context(), sibling.public_context(), stranger.public_context()}) == 3
    # Same secret: either decrypts what was encrypted to the other.
    ciphertext = EncryptionContext.from_bytes(sibling.public_context()).encrypt(secret(0), CountingRng(b"x"))
    assert np.array_equal(key.decrypt(ciphertext), secret(0))
    assert not np.array_equal(stranger.decrypt(ciphertext), secret(0))
    # The uniform polynomial is a matter of the second seed alone.
    uniform = [decode_context(each.public_context())[1] for each in (key, sibling, stranger)]
    assert np.array_equal(uniform[0], uniform[2])
    assert not np.array_equal(uniform[0], uniform[1])


PINNED = """
import hashlib
import numpy as np
from secagg.he.bfv import DecryptionKey, EncryptionContext
from secagg.he.ciphertext_sum import CiphertextSum
from tests.support.rng import CountingRng
key = DecryptionKey.generate(CountingRng(b"pinned"))
context = EncryptionContext.from_bytes(key.public_context())
values = np.arange(4096) % 5 - 2
ciphertexts = [context.encrypt(values, CountingRng(bytes([index]))) for index in range(3)]
running = CiphertextSum()
for ciphertext in ciphertexts:
    running.add(ciphertext)
for data in (key.public_context(), ciphertexts[0], running.result()):
    print(hashlib.sha256(data).hexdigest())
"""


def test_key_ciphertext_and_sum_are_the_same_bytes_in_every_process() -> None:
    runs = [subprocess.run([sys.executable, "-c", PINNED], check=True, capture_output=True, text=True) for _ in "ab"]
    pinned = [
        "2d661d9258fe7fa6d5f307dfe1091841f321f575109727c0d6962959e55700cc",
        "03e5cc52fbe079ea73f85323a7ec3884c44fdb3979ff17a18ede81d96215784e",
        "abde3f2adba3dded74de7177a0b684edcd56ad1fd53e7b7ffd073c9392812939",
    ]
    assert [run.stdout.split() for run in runs] == [pinned, pinned]


# Parameters


def test_the_modulus_is_within_the_tables_for_192_bits_and_for_128_against_a_quantum_computer() -> None:
    assert MODULUS == 2**60 - 2**14 + 1
    assert MODULUS % (2 * DEGREE) == PLAIN_MODULUS % (2 * DEGREE) == 1
    # The quantum rows are in SEAL's source only: hestdparms.h allows this degree 101 bits at 128 bits of security.
    assert MODULUS.bit_length() == 60
    assert sealapi.CoeffModulus.MaxBitCount(DEGREE, sealapi.SEC_LEVEL_TYPE.TC192) == 75


def test_the_context_is_batching_at_192_bits_with_ciphertexts_under_the_keys_own_modulus() -> None:
    context = seal.plain_context()
    first = context.first_context_data()
    assert context.parameters_set()
    assert context.first_parms_id() == context.key_parms_id()
    assert first.qualifiers().using_batching
    assert first.qualifiers().sec_level == sealapi.SEC_LEVEL_TYPE.TC192
    assert tuple(prime.value() for prime in first.parms().coeff_modulus()) == (MODULUS,)
    assert first.parms().plain_modulus().value() == PLAIN_MODULUS


def test_seal_makes_no_key_for_a_larger_modulus() -> None:
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, [38, 38]))
    parameters.set_plain_modulus(PLAIN_MODULUS)
    with pytest.raises(ValueError, match="not set correctly"):
        sealapi.KeyGenerator(seal._context(sealapi, parameters))


# The decryption key


def test_a_stored_key_decrypts_as_before() -> None:
    restored = DecryptionKey.from_bytes(KEY.to_bytes())
    assert restored.public_context() == KEY.public_context()
    assert np.array_equal(restored.decrypt(CIPHERTEXT), secret(0))


@pytest.mark.parametrize("place", [0, 15, 16, 79, 80, 143, 144, 175])
def test_a_damaged_key_is_refused(place: int) -> None:
    damaged = bytearray(KEY.to_bytes().expose())
    damaged[place] ^= 1
    with pytest.raises(CiphertextError, match="decryption key"):
        DecryptionKey.from_bytes(Secret(bytes(damaged)))


@pytest.mark.parametrize("length", [0, 16, 175, 177])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(CiphertextError, match="expected 176 bytes"):
        DecryptionKey.from_bytes(Secret(KEY.to_bytes().expose().ljust(length, b"\0")[:length]))


def test_a_key_shows_nothing_and_is_not_pickled() -> None:
    seeds = KEY.to_bytes().expose()[NAME_BYTES:-32]
    assert seeds[:8].hex() not in repr(KEY)
    assert seeds not in KEY.public_context()
    with pytest.raises(TypeError):
        pickle.dumps(KEY)


# What a contributor can do with malice (the protocol's rules answer it, not the encryption)


def test_a_malformed_ciphertext_makes_the_decryption_reveal_the_secret_key() -> None:
    honest = [secret(1), secret(2)]
    probe = key_probe(CONTEXT, np.zeros(DEGREE, np.int64), 1, CountingRng(b"probe"))
    check_ciphertext(probe)
    victims = [encrypt(values, bytes([index])) for index, values in enumerate(honest)]
    decrypted = KEY.decrypt(total(probe, *victims))
    leaked = leaked_secret_key(decrypted, honest[0] + honest[1])
    assert set(leaked.tolist()) == {-1, 0, 1}
    assert np.array_equal(decrypt_with(leaked, victims[0]), honest[0])
    # In slots the secret key is as large as any value: certification sees it at once.
    assert np.abs(decrypted).max() > MAX_MAGNITUDE // 2


def test_a_multiple_of_the_secret_key_leaks_it_as_well() -> None:
    values = secret(3)
    leaked = leaked_secret_key(KEY.decrypt(key_probe(CONTEXT, values, 1000, CountingRng(b"probe"))), values, 1000)
    assert np.array_equal(decrypt_with(leaked, CIPHERTEXT), secret(0))


def test_the_key_is_made_of_what_the_rng_gave() -> None:
    seeds = CountingRng(b"key").bytes(128)
    stored = KEY.to_bytes().expose()
    assert stored[NAME_BYTES:-32] == seeds
    assert stored[-32:] == hashlib.sha256(KEY.public_context()).digest()
