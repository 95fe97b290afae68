"""The parameters of the encryption. There is one set of them, and no message carries parameters.

BFV (Fan and Vercauteren, IACR ePrint 2012/144) over ``Z_q[X]/(X^4096+1)`` with one prime ``q = 2^60 - 2^14 + 1``, a
ternary secret and errors from SEAL's centred binomial distribution (deviation 3.24, at most 21). The tables of
HomomorphicEncryption.org (security standard 1.1, 2018) allow this degree 75 bits of modulus at 192 bits of classical
security, and against a quantum computer 101 bits at 128 bits of security and 70 bits at 192 (the figures as in SEAL's
hestdparms.h): 60 bits are within all three. SEAL enforces the first: it makes no key for a larger modulus. Nothing is
multiplied or rotated here, so that the public key needs no further prime and ciphertexts live under its own modulus.

Noise. With the secret ``s`` a ciphertext is ``c0 + c1 s = q m / t + v`` modulo ``q``; it decrypts to
``round(t (c0 + c1 s) / q) = m`` modulo ``t`` while every ``|v_i| < q / (2 t)``, which is 558,481,555,584: above
``2^39``.

1. A fresh one, never more, whatever is drawn. The public key is ``(-(a s + e), a)``; an encryption is its multiple by a
   ternary ``u`` plus ``(e0, e1)`` plus the scaled plaintext, so ``v = -e u + e0 + e1 s + r``, where ``r`` rounds
   ``q m / t`` to integers. A coefficient of a product is a sum of 4096 terms of at most ``21 * 1``, and
   ``|r_i| <= 1/2``: together ``FRESH_NOISE = 21 (2 * 4096 + 1) + 1 = 172,054``.
2. A sum of ``n <= 258,048`` has at most ``n`` times that, because noises add up:
   ``258,048 * 172,054 = 44,398,190,592 < 2^36``. That plaintexts add up past ``t`` costs nothing: it adds a multiple of
   ``q``.
3. So a full sum keeps more than three bits: 12.5 times its noise would still decrypt. SEAL does not round exactly but
   through an auxiliary prime of 61 bits (Bajard, Eynard, Hasan and Zucca 2016), which is right while
   ``t |v_i| / q + 2^-60 < 1/2``: the left side is below 0.04.

Honest noise is far smaller: errors of variance 10.5 and ternaries of variance 2/3 give a deviation of about 240.
"""

from __future__ import annotations

DEGREE = 4096
PLAIN_MODULUS = 1032193
MODULUS = 0xFFFFFFFFFFFC001

# Slots are decoded to the symmetric range around zero.
MAX_MAGNITUDE = (PLAIN_MODULUS - 1) // 2
_MASK_SECRET_BOUND = 2
MAX_CONTRIBUTORS = MAX_MAGNITUDE // _MASK_SECRET_BOUND

_ERROR_BOUND = 21
FRESH_NOISE = _ERROR_BOUND * (2 * DEGREE + 1) + 1
"""What no coefficient of a fresh ciphertext's noise exceeds."""
