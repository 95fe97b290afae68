"""Notes signed and verified: checkpoints of a log and cosignatures of its witnesses.

The formats fix the signed bytes, so no label goes in front of them. A note text never starts with a zero byte and
a labelled message always does, so one key can sign both.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import nacl.exceptions
import nacl.signing

from secagg.crypto.signing import SigningKey
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.cosignature import cosignature_message, decode_cosignature, encode_cosignature
from secagg.transcript.note import Note, NoteError, NoteSignature, SignatureType, VerifierKey


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The witness with this public key cosigned at this time, in seconds since 1970 by its own clock."""

    public_key: bytes
    timestamp_s: int


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that its log signed, and the known witnesses that cosigned it: each public key once."""

    checkpoint: Checkpoint
    cosigned: tuple[Cosigned, ...]

    def __post_init__(self) -> None:
        if len(self.public_keys) != len(self.cosigned):
            raise NoteError("cosigned", "a public key counted twice")

    @property
    def public_keys(self) -> frozenset[bytes]:
        """What a policy's quorum is counted by."""
        return frozenset(each.public_key for each in self.cosigned)


def log_key(name: str, public_key: bytes) -> VerifierKey:
    """The key of the log with origin ``name``. Raises NoteError."""
    return VerifierKey(name, SignatureType.ED25519, public_key)


def witness_key(name: str, public_key: bytes) -> VerifierKey:
    """The key of a witness. Raises NoteError."""
    return VerifierKey(name, SignatureType.COSIGNATURE_V1, public_key)


def sign_checkpoint(key: SigningKey, checkpoint: Checkpoint) -> Note:
    """The checkpoint as a note with the signature of its log, whose key is named as the origin."""
    text = checkpoint.to_text()
    verifier = log_key(checkpoint.origin, key.public_bytes)
    signature = NoteSignature(verifier.name, verifier.key_id, key.sign_note_text(text.encode("utf-8")))
    return Note(text, (signature,))


def cosign(key: SigningKey, name: str, checkpoint_text: str, timestamp_s: int) -> NoteSignature:
    """The line by which the witness ``name`` vouches that it saw this checkpoint and none that contradicts it.

    Raises:
        NoteError: the text is no checkpoint, or name or time are out of range.
    """
    verifier = witness_key(name, key.public_bytes)
    signature = key.sign_note_text(cosignature_message(checkpoint_text, timestamp_s))
    return NoteSignature(name, verifier.key_id, encode_cosignature(timestamp_s, signature))


def open_checkpoint(data: bytes, log: VerifierKey, witnesses: Collection[VerifierKey]) -> Witnessed:
    """The checkpoint in a note that ``log`` signed, with those of ``witnesses`` that cosigned it.

    Lines of other keys are ignored. A public key counts once, whatever its names, with its latest time. Whether
    these witnesses are enough is for a policy to say.

    Raises:
        NoteError: ``data`` is no checkpoint of the profile (fields as the parsers name them); its origin is not the
            log's name ("checkpoint.origin"); the log's signature is missing ("log"); the signature of any known key
            does not verify ("signature") or has not the form of its kind ("cosignature").
    """
    known = _known_keys(log, witnesses)
    note = Note.parse(data)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != log.name:
        raise NoteError("checkpoint.origin", "not the origin of this log")
    signed = False
    times: dict[bytes, int] = {}
    for line in note.signatures:
        key = known.get((line.name, line.key_id))
        if key is None:
            continue
        if key.kind is SignatureType.ED25519:
            _verify(key, note.text.encode("utf-8"), line.signature)
            signed = True
        else:
            timestamp_s, signature = decode_cosignature(line.signature)
            _verify(key, cosignature_message(note.text, timestamp_s), signature)
            times[key.public_key] = max(timestamp_s, times.get(key.public_key, 0))
    if not signed:
        raise NoteError("log", "no signature of the log")
    return Witnessed(checkpoint, tuple(Cosigned(public_key, time_s) for public_key, time_s in times.items()))


def _known_keys(log: VerifierKey, witnesses: Collection[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    """The keys by what names them on a line."""
    if log.kind is not SignatureType.ED25519:
        raise NoteError("log", "not the key of a log")
    known = {(log.name, log.key_id): log}
    for key in witnesses:
        if key.kind is not SignatureType.COSIGNATURE_V1:
            raise NoteError("witnesses", "not the key of a witness")
        if known.setdefault((key.name, key.key_id), key) != key:
            raise NoteError("witnesses", "two keys with one name and key id")
    return known


def _verify(key: VerifierKey, message: bytes, signature: bytes) -> None:
    try:
        nacl.signing.VerifyKey(key.public_key).verify(message, signature)
    except (nacl.exceptions.CryptoError, ValueError, TypeError):
        raise NoteError("signature", "of a known key does not verify") from None
