"""The bytes of ciphertexts, contexts and keys; what is refused; what works where TenSEAL is not installed."""

from __future__ import annotations

import copy
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tenseal

from secagg.he.bfv import DECRYPTION_KEY_BYTES, DecryptionKey, EncryptionContext
from secagg.he.ciphertext_sum import CiphertextSum, check_ciphertext
from secagg.he.errors import CiphertextError, HeUnavailableError
from secagg.he.parameters import DEGREE, MODULUS, PLAIN_MODULUS
from secagg.he.residues import (
    CIPHERTEXT_BYTES,
    CONTEXT_BYTES,
    decode_ciphertext,
    decode_context,
    encode_ciphertext,
    encode_context,
)
from tests.support.rng import CountingRng

KEY = DecryptionKey.generate(CountingRng(b"key"))
CONTEXT = EncryptionContext.from_bytes(KEY.public_context())
CIPHERTEXT = CONTEXT.encrypt(np.arange(DEGREE) % 5 - 2, CountingRng(b"encryption"))
NAME_BYTES = 16


def test_lengths_are_fixed() -> None:
    assert len(KEY.public_context()) == CONTEXT_BYTES == 65552
    assert len(CIPHERTEXT) == CIPHERTEXT_BYTES == 65552
    assert len(KEY.to_bytes()) == DECRYPTION_KEY_BYTES == 176


def test_decoding_and_encoding_are_inverse() -> None:
    assert encode_ciphertext(decode_ciphertext(CIPHERTEXT)) == CIPHERTEXT
    assert encode_context(decode_context(KEY.public_context())) == KEY.public_context()
    random = np.random.default_rng(0)
    for encode, decode in ((encode_ciphertext, decode_ciphertext), (encode_context, decode_context)):
        residues = random.integers(0, MODULUS, (2, DEGREE)).astype(np.uint64)
        residues[:, 0] = MODULUS - 1
        residues[:, 1] = 0
        assert np.array_equal(decode(encode(residues)), residues)


def test_the_uniform_polynomials_use_the_whole_range_of_the_modulus() -> None:
    uniform = decode_context(KEY.public_context()) / float(MODULUS)
    assert np.abs(uniform.mean(axis=1) - 0.5).max() < 0.03
    ciphertext = decode_ciphertext(CIPHERTEXT) / float(MODULUS)
    assert np.abs(ciphertext.mean(axis=1) - 0.5).max() < 0.03


def with_residue(polynomial: int, value: int) -> bytes:
    residues = decode_ciphertext(CIPHERTEXT)
    residues[polynomial, 77] = value
    return encode_ciphertext(residues)


def in_the_clear() -> bytes:
    residues = decode_ciphertext(CIPHERTEXT)
    residues[1] = 0
    return encode_ciphertext(residues)


MALFORMED = {
    "empty": b"",
    "name only": CIPHERTEXT[:NAME_BYTES],
    "truncated": CIPHERTEXT[:-1],
    "extended": CIPHERTEXT + b"\0",
    "two": CIPHERTEXT * 2,
    "three polynomials": CIPHERTEXT + CIPHERTEXT[NAME_BYTES:][: (CIPHERTEXT_BYTES - NAME_BYTES) // 2],
    "another name": b"secagg/he/ct/v2\n" + CIPHERTEXT[NAME_BYTES:],
    "zero": bytes(CIPHERTEXT_BYTES),
    "all ones": CIPHERTEXT[:NAME_BYTES] + b"\xff" * (CIPHERTEXT_BYTES - NAME_BYTES),
    "the modulus in the first polynomial": with_residue(0, MODULUS),
    "the modulus in the second polynomial": with_residue(1, MODULUS),
    "largest residue": with_residue(1, 2**64 - 1),
    "in the clear": in_the_clear(),
    "public context": KEY.public_context(),
    "decryption key": KEY.to_bytes().expose(),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_ciphertext_is_refused_by_all_who_read_one(data: bytes) -> None:
    for read in (check_ciphertext, CiphertextSum().add, KEY.decrypt):
        with pytest.raises(CiphertextError):
            read(data)


def test_the_largest_residues_are_accepted() -> None:
    for polynomial in range(2):
        check_ciphertext(with_residue(polynomial, MODULUS - 1))


def foreign() -> dict[str, bytes]:
    own = tenseal.context(tenseal.SCHEME_TYPE.BFV, DEGREE, PLAIN_MODULUS)
    smaller = tenseal.context(tenseal.SCHEME_TYPE.BFV, DEGREE, 40961)
    ckks = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 60])
    ckks.global_scale = 2.0**40
    return {
        "TenSEAL context with its secret key": own.serialize(save_secret_key=True),
        "TenSEAL public context": own.serialize(save_galois_keys=False, save_relin_keys=False),
        "TenSEAL context of another plain modulus": smaller.serialize(),
        "CKKS context": ckks.serialize(),
        "TenSEAL ciphertext": tenseal.bfv_vector(own, [1, 2, 3]).serialize(),
        "CKKS ciphertext": tenseal.ckks_vector(ckks, [1.0]).serialize(),
    }


@pytest.mark.parametrize(("name", "data"), foreign().items(), ids=foreign().keys())
def test_what_tenseal_serialises_is_refused_as_it_stands_and_at_our_lengths(name: str, data: bytes) -> None:
    for forced in (data, data.ljust(CIPHERTEXT_BYTES, b"\0")[:CIPHERTEXT_BYTES]):
        with pytest.raises(CiphertextError):
            KEY.decrypt(forced)
    for forced in (data, data.ljust(CONTEXT_BYTES, b"\0")[:CONTEXT_BYTES]):
        with pytest.raises(CiphertextError):
            EncryptionContext.from_bytes(forced)


def malformed_contexts() -> dict[str, bytes]:
    good = KEY.public_context()
    large = decode_context(good)
    large[0, 5] = MODULUS
    clear = decode_context(good)
    clear[1] = 0
    return {
        "empty": b"",
        "truncated": good[:-1],
        "extended": good + b"\0",
        "ciphertext": CIPHERTEXT,
        "another name": b"secagg/he/pk/v2\n" + good[NAME_BYTES:],
        "with the key behind it": good + KEY.to_bytes().expose(),
        "the modulus": encode_context(large),
        "more than 60 bits": good[:-1] + b"\xff",
        "in the clear": encode_context(clear),
    }


@pytest.mark.parametrize("data", malformed_contexts().values(), ids=malformed_contexts().keys())
def test_what_is_no_public_context_is_refused(data: bytes) -> None:
    with pytest.raises(CiphertextError):
        EncryptionContext.from_bytes(data)


FUZZ = """
import numpy as np
from secagg.he.bfv import DecryptionKey, EncryptionContext
from secagg.he.errors import CiphertextError
from secagg.he.residues import decode_ciphertext, decode_context, encode_ciphertext, encode_context
from tests.support.rng import CountingRng
key = DecryptionKey.generate(CountingRng(b"fuzz"))
context = EncryptionContext.from_bytes(key.public_context())
values = np.zeros(4096, np.int64)
ciphertext = context.encrypt(values, CountingRng(b"fuzz"))
random = np.random.default_rng(0)
def damage(data):
    out = bytearray(data)
    match random.integers(4):
        case 0:
            place = random.integers(0, 64)
            out[place] ^= 1 << random.integers(8)
        case 1:
            for place in random.integers(16, len(out), random.integers(1, 50)):
                out[place] ^= 1 << random.integers(8)
        case 2:
            start = random.integers(16, len(out) - 4000)
            out[start:start + 4000] = random.bytes(4000)
        case 3:
            del out[random.integers(len(out)):]
    return bytes(out)
accepted = 0
for _ in range(150):
    bad = damage(ciphertext)
    try:
        assert key.decrypt(bad).shape == (4096,)
        assert encode_ciphertext(decode_ciphertext(bad)) == bad
        accepted += 1
    except CiphertextError:
        pass
    bad = damage(key.public_context())
    try:
        EncryptionContext.from_bytes(bad).encrypt(values, CountingRng(b"x"))
        assert encode_context(decode_context(bad)) == bad
        accepted += 1
    except CiphertextError:
        pass
print(accepted)
"""


def test_damaged_bytes_are_refused_or_decrypt_to_something_and_never_end_the_process() -> None:
    run = subprocess.run([sys.executable, "-c", FUZZ], check=False, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert 50 < int(run.stdout) < 250


# Without TenSEAL

WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tenseal":
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import numpy as np
from secagg.he import bfv, ciphertext_sum, errors, parameters, residues, seal
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
public, ciphertext = sys.stdin.buffer.read(residues.CONTEXT_BYTES), sys.stdin.buffer.read()
context = bfv.EncryptionContext.from_bytes(public)
running = ciphertext_sum.CiphertextSum()
running.add(ciphertext)
running.add(ciphertext)
running.result()
for action in (
    lambda: context.encrypt(np.zeros(4096, np.int64), SystemRng()),
    lambda: bfv.DecryptionKey.generate(SystemRng()),
    lambda: bfv.DecryptionKey(Secret(bytes(128))),
):
    try:
        action()
    except errors.HeUnavailableError as error:
        print(error)
"""


def test_without_tenseal_only_keys_and_encryption_are_missing_and_the_error_says_what_to_install() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], input=KEY.public_context() + CIPHERTEXT, check=True, capture_output=True
    )
    text = b'the key authority mode needs TenSEAL: pip install "secagg-lora[he]"'
    assert run.stdout.splitlines() == [text] * 3


def test_the_error_survives_copying() -> None:
    assert str(copy.copy(HeUnavailableError())) == str(HeUnavailableError())


def test_importing_the_package_does_not_import_tenseal() -> None:
    script = (
        "import sys, secagg.he.bfv, secagg.he.ciphertext_sum, secagg.he.seal\n"
        "assert not [name for name in sys.modules if 'tenseal' in name]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_tests_run_with_the_tenseal_of_the_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert set(project["project"]["optional-dependencies"]["he"]) <= set(project["dependency-groups"]["dev"])
