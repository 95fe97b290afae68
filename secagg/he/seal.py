"""TenSEAL's binding of SEAL (``tenseal.sealapi``), the only place that imports it, and only when it is called.

Randomness. SEAL seeds its generator, BLAKE2xb, with 64 bytes of ``std::random_device`` unless it is given a seed.
Here it is given one, 64 fresh bytes of the caller's ``Rng`` for each key half and each encryption; what is relied on
is then the system's generator and BLAKE2xb, and tests repeat. A factory with a seed begins the *same* stream each time
SEAL asks it for a generator, so that one seeded context must serve one call: a secret key and a public key
made under one context would draw the secret and the error from overlapping bytes.

Objects enter SEAL through a file, because the binding loads from nothing else; what is written there is public, and its
residues were checked by ``secagg.he.residues``. They leave it number by number.
"""

from __future__ import annotations

import struct
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.he.errors import HeUnavailableError
from secagg.he.parameters import DEGREE, MODULUS, PLAIN_MODULUS
from secagg.he.residues import POLYNOMIALS

SEED_BYTES = 64
_HEADER = struct.Struct("<HBBBBHQ")  # magic, header size, major, minor, compression, reserved, total size
_PRIMES = 1
_MEMBERS = struct.Struct("<4QB3QdQ")  # parms_id, is_ntt_form, polynomials, degree, primes, scale, correction factor
_COUNT = struct.Struct("<Q")


def load_api() -> Any:
    """The module ``tenseal.sealapi``.

    Raises:
        HeUnavailableError: it cannot be imported.
    """
    try:
        from tenseal import sealapi
    except ImportError:
        raise HeUnavailableError from None
    return sealapi


def seeded_context(seed: bytes) -> Any:
    """A SEALContext whose next random draw is the stream of ``seed``; for one call of SEAL, see above."""
    api = load_api()
    words = list(struct.unpack("<8Q", seed))
    parameters = _parameters(api)
    parameters.set_random_generator(api.Blake2xbPRNGFactory(words))
    return _context(api, parameters)


def plain_context() -> Any:
    """A SEALContext for what draws no randomness: loading, encoding, decrypting."""
    api = load_api()
    return _context(api, _parameters(api))


def load_public_key(context: Any, residues: NDArray[np.uint64]) -> Any:
    """The PublicKey of uint64[2, 4096], every residue below the modulus."""
    api = load_api()
    key = api.PublicKey()
    _load(key, context, _serialise(api, context.key_parms_id(), residues, is_ntt_form=1))
    return key


def load_ciphertext(context: Any, residues: NDArray[np.uint64]) -> Any:
    """The Ciphertext of uint64[2, 4096], every residue below the modulus."""
    api = load_api()
    ciphertext = api.Ciphertext(context)
    _load(ciphertext, context, _serialise(api, context.first_parms_id(), residues, is_ntt_form=0))
    return ciphertext


def public_key_residues(key: Any) -> NDArray[np.uint64]:
    """uint64[2, 4096] of a PublicKey; 1.2 ms."""
    # The ciphertext is a reference into the key, which the caller keeps alive.
    return _read(key.data())


def ciphertext_residues(ciphertext: Any) -> NDArray[np.uint64]:
    """uint64[2, 4096] of a Ciphertext; 1.2 ms."""
    return _read(ciphertext)


def _parameters(api: Any) -> Any:
    parameters = api.EncryptionParameters(api.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus([api.Modulus(MODULUS)])
    parameters.set_plain_modulus(PLAIN_MODULUS)
    return parameters


def _context(api: Any, parameters: Any) -> Any:
    # The second argument asks for levels of smaller moduli: there are none below one prime. SEAL marks parameters
    # beyond its 192-bit table as unset, and its generators, encryptors and decryptors refuse those.
    return api.SEALContext(parameters, False, api.SEC_LEVEL_TYPE.TC192)  # noqa: FBT003


def _serialise(api: Any, parms_id: list[int], residues: NDArray[np.uint64], *, is_ntt_form: int) -> bytes:
    numbers = residues.astype("<u8").tobytes()
    array = _header(api, _COUNT.size + len(numbers)) + _COUNT.pack(residues.size) + numbers
    members = _MEMBERS.pack(*parms_id, is_ntt_form, POLYNOMIALS, DEGREE, _PRIMES, 1.0, 1)
    return _header(api, len(members) + len(array)) + members + array


def _header(api: Any, body_bytes: int) -> bytes:
    own = api.Serialization.SEALHeader()
    uncompressed = 0
    return _HEADER.pack(
        own.magic, _HEADER.size, own.version_major, own.version_minor, uncompressed, 0, _HEADER.size + body_bytes
    )


def _load(target: Any, context: Any, serialised: bytes) -> None:
    with tempfile.NamedTemporaryFile(prefix="secagg-he-") as file:
        file.write(serialised)
        file.flush()
        target.load(context, file.name)


def _read(ciphertext: Any) -> NDArray[np.uint64]:
    count = POLYNOMIALS * DEGREE
    numbers = np.fromiter(map(ciphertext.__getitem__, range(count)), np.uint64, count)
    return numbers.reshape(POLYNOMIALS, DEGREE)
