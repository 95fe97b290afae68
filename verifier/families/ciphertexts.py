"""SUM of sessions with a key authority: the one ciphertext that was opened is the sum of what was contributed.

Adding ciphertexts takes no key and no library of the encryption: residues modulo one prime (``secagg.he``).
"""

from __future__ import annotations

import hashlib

from secagg.he.ciphertext_sum import CiphertextSum
from secagg.he.errors import CiphertextError
from secagg.he.residues import CIPHERTEXT_BYTES
from secagg.transcript.openers import SummedCiphertext
from verifier.checks import AUTHORITY, Check, CheckFailedError, Derived, Finding, Findings, Level, Stage
from verifier.one_shot_values import CONTRIBUTORS
from verifier.session_lists import fail_at
from verifier.session_record import SessionRecord

CIPHERTEXTS = "ciphertexts"
CIPHERTEXT_SUM = "ciphertext-sum.bin"

_SHOWN_EVERY = 1024


def _added(session: SessionRecord) -> bytes:
    """Rules: a file for each contribution, of the signed digest, that is a ciphertext of the one set of parameters."""
    headers = session.get(CONTRIBUTORS).headers
    total = CiphertextSum()
    wrong: list[Finding] = []
    for number, header in enumerate(headers):
        if number % _SHOWN_EVERY == 0:
            session.audit.progress(f"ciphertexts, {number:,} of {len(headers):,}")
        for part in header.parts:
            name = f"{CIPHERTEXTS}/{part.hex()}.bin"
            try:
                data = session.files.read_exactly(name, CIPHERTEXT_BYTES)
                if hashlib.sha256(data).digest() != part:
                    fail_at(session.files.place(name), "another digest than its name and the header's")
                total.add(data)
            except CheckFailedError as error:
                wrong.extend(error.findings)
            except CiphertextError as error:
                wrong.append(Finding(session.files.place(name), str(error)))
    if wrong:
        raise CheckFailedError(wrong, len(wrong))
    try:
        return total.result()
    except CiphertextError as error:
        fail_at(session.files.place(CIPHERTEXTS), f"their sum: {error}")


ADDED: Derived[SessionRecord, bytes] = Derived("SUM-7", _added)
"""The sum of the contributors' ciphertexts, computed. Needs CLOSED."""


def _ciphertext_sum(session: SessionRecord) -> bytes:
    """Rules: the published sum is the one that the ciphertexts give, and its digest was in the close entry."""
    computed, place = session.get(ADDED), session.files.place(CIPHERTEXT_SUM)
    if session.files.read_exactly(CIPHERTEXT_SUM, CIPHERTEXT_BYTES) != computed:
        fail_at(place, "not the sum of the ciphertexts")
    digest = hashlib.sha256(computed).digest()
    opener = session.one_shot_close.opener
    if not isinstance(opener, SummedCiphertext) or opener.digest != digest:
        fail_at(place, "another digest than the close entry's")
    return digest


BOUND_SUM: Derived[SessionRecord, bytes] = Derived("SUM-8", _ciphertext_sum)
"""SHA-256 of the sum of the ciphertexts, which the close entry names. Needs CLOSED."""


def _check_ciphertexts(session: SessionRecord, findings: Findings) -> None:
    session.get(ADDED)
    findings.count(session.close.count)


def _check_sum(session: SessionRecord, findings: Findings) -> None:
    session.get(BOUND_SUM)
    findings.count()


CHECKS: tuple[Check[SessionRecord], ...] = (
    Check(
        "SUM-7",
        "Every ciphertext is there, of the signed digest and length",
        Level.PREOPEN,
        "The ciphertexts in the record are those that the contributors signed. What is in them, nobody without the key "
        "can see.",
        "a coordinator that has something else decrypted than what was contributed",
        (f"{CIPHERTEXTS}/*", "contributions.jsonl (parts)"),
        _check_ciphertexts,
        Stage.CLOSED,
        AUTHORITY,
    ),
    Check(
        "SUM-8",
        "The ciphertexts add up to the sum that was fixed in the close entry",
        Level.PREOPEN,
        "The one ciphertext that the close entry names for the authority to decrypt is the sum of the contributors' "
        "ciphertexts, each once: not a part of them, and nothing besides.",
        "a coordinator that asks for the decryption of one contribution, or of a sum that isolates one",
        (CIPHERTEXT_SUM, f"{CIPHERTEXTS}/*", "one-shot-close (opener.digest)"),
        _check_sum,
        Stage.CLOSED,
        AUTHORITY,
    ),
)
"""All checks of the module."""
