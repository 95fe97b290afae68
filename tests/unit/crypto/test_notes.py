from __future__ import annotations

import base64
import contextlib
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from secagg.crypto.labels import Label, encode_fields
from secagg.crypto.notes import (
    Cosigned,
    Witnessed,
    cosign,
    log_key,
    open_checkpoint,
    sign_checkpoint,
    witness_key,
)
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.cosignature import cosignature_message, encode_cosignature
from secagg.transcript.note import Note, NoteError, NoteSignature, SignatureType, VerifierKey

ORIGIN = "log.example/record"
ROOT = bytes(range(1, 33))
ROOT_TEXT = base64.b64encode(ROOT).decode()
CHECKPOINT = Checkpoint(ORIGIN, 5, ROOT)
TEXT = CHECKPOINT.to_text()
TIME_S = 1_679_315_147


def key_of(number: int) -> SigningKey:
    return SigningKey(Secret(bytes([number] * 32)))


LOG, W1, W2, STRANGER = (key_of(number) for number in range(1, 5))
LOG_KEY = log_key(ORIGIN, LOG.public_bytes)
W1_KEY, W2_KEY = witness_key("w1", W1.public_bytes), witness_key("w2", W2.public_bytes)
SIGNED = sign_checkpoint(LOG, CHECKPOINT)
COSIGNED = SIGNED.with_signatures([cosign(W1, "w1", TEXT, TIME_S), cosign(W2, "w2", TEXT, TIME_S + 1)])


def log_line(text: str, name: str = ORIGIN, key: SigningKey = LOG) -> str:
    """The line of a log over any text at all, also one that no checkpoint has."""
    return NoteSignature(name, log_key(name, key.public_bytes).key_id, key.sign_note_text(text.encode())).to_line()


def signed(text: str) -> bytes:
    return f"{text}\n{log_line(text)}".encode()


def witness_line(signature: bytes, key: VerifierKey = W1_KEY) -> NoteSignature:
    return NoteSignature(key.name, key.key_id, signature)


def opened(data: bytes, witnesses: Sequence[VerifierKey] = (W1_KEY, W2_KEY)) -> Witnessed:
    return open_checkpoint(data, LOG_KEY, witnesses)


def refused(data: bytes, witnesses: Sequence[VerifierKey] = (W1_KEY, W2_KEY), log: VerifierKey = LOG_KEY) -> NoteError:
    with pytest.raises(NoteError) as caught:
        open_checkpoint(data, log, witnesses)
    return caught.value


def test_a_checkpoint_opens_with_its_cosignatures():
    assert opened(SIGNED.to_bytes()) == Witnessed(CHECKPOINT, ())
    assert opened(COSIGNED.to_bytes()) == Witnessed(
        CHECKPOINT, (Cosigned(W1.public_bytes, TIME_S), Cosigned(W2.public_bytes, TIME_S + 1))
    )
    assert opened(COSIGNED.to_bytes()).public_keys == {W1.public_bytes, W2.public_bytes}
    assert opened(COSIGNED.to_bytes(), [W2_KEY]).public_keys == {W2.public_bytes}
    assert opened(COSIGNED.to_bytes(), []).cosigned == ()


def test_the_signatures_are_over_the_published_messages():
    """By another implementation of Ed25519."""
    log, first, _ = COSIGNED.signatures
    assert (log.name, log.key_id) == (ORIGIN, LOG_KEY.key_id)
    Ed25519PublicKey.from_public_bytes(LOG.public_bytes).verify(log.signature, TEXT.encode())
    message = f"cosignature/v1\ntime {TIME_S}\n{TEXT}".encode()
    assert first.signature[:8] == TIME_S.to_bytes(8, "big")
    Ed25519PublicKey.from_public_bytes(W1.public_bytes).verify(first.signature[8:], message)


def test_a_signature_equals_that_of_the_reference_implementation():
    """Key, text and signature of the documentation of golang.org/x/mod/sumdb/note."""
    material = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
    key = SigningKey(Secret(material[1:]))
    verifier = log_key("PeterNeumann", key.public_bytes)
    assert verifier.to_text() == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    assert log_line(text, "PeterNeumann", key) == (
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )


def unknown_lines(count: int) -> str:
    """Lines that name the log's key and another key id."""
    return "".join(NoteSignature(ORIGIN, bytes([255, 255, 0, n]), bytes(64)).to_line() for n in range(count))


def text_with(size="5", root=ROOT_TEXT, rest="") -> str:
    return f"{ORIGIN}\n{size}\n{root}\n{rest}"


BAD_LINE = NoteSignature(ORIGIN, LOG_KEY.key_id, bytes(64)).to_line()
GOOD_LINE = log_line(TEXT)
# What implementations disagree on; each is validly signed by the log, and refused for the field that is named.
PROFILE = {
    "size 01": (signed(text_with(size="01")), "checkpoint.size"),
    "size 2^63": (signed(text_with(size="9223372036854775808")), "checkpoint.size"),
    "size 2^64": (signed(text_with(size="18446744073709551616")), "checkpoint.size"),
    "size +5": (signed(text_with(size="+5")), "checkpoint.size"),
    "size 1_0": (signed(text_with(size="1_0")), "checkpoint.size"),
    "size with a space": (signed(text_with(size=" 5")), "checkpoint.size"),
    "root in non-canonical base64": (
        signed(text_with(root=ROOT_TEXT[:-2] + "B=")),
        "checkpoint.root",
    ),
    "root of 31 bytes": (signed(text_with(root=base64.b64encode(bytes(31)).decode())), "checkpoint.root"),
    "root of 33 bytes": (signed(text_with(root=base64.b64encode(bytes(33)).decode())), "checkpoint.root"),
    "an extension line": (signed(text_with(rest="extension\n")), "checkpoint"),
    "an empty extension line": (signed(text_with(rest="\n")), "checkpoint"),
    "no final newline": (SIGNED.to_bytes()[:-1], "note"),
    "no final newline of the text": (f"{TEXT[:-1]}\n{log_line(TEXT[:-1])}".encode(), "note"),
    "a good line then a bad one of the log": (f"{TEXT}\n{GOOD_LINE}{BAD_LINE}".encode(), "signature"),
    "a bad line then a good one of the log": (f"{TEXT}\n{BAD_LINE}{GOOD_LINE}".encode(), "signature"),
    "the same line twice": (f"{TEXT}\n{GOOD_LINE}{GOOD_LINE}".encode(), "signatures"),
    "a signature in non-canonical base64": (
        # 68 bytes: the last digit before the padding has four unused bits.
        SIGNED.to_bytes().replace(
            GOOD_LINE[-4:].encode(), GOOD_LINE[-4:].replace(GOOD_LINE[-3], chr(ord(GOOD_LINE[-3]) + 1)).encode()
        ),
        "signature.signature",
    ),
    "120 unknown lines": (SIGNED.to_bytes() + unknown_lines(120).encode(), "signatures"),
    "64 unknown lines": (SIGNED.to_bytes() + unknown_lines(64).encode(), "signatures"),
    "64 KiB of unknown lines": (
        SIGNED.to_bytes() + NoteSignature("x", bytes(4), bytes(49_152)).to_line().encode(),
        "note",
    ),
    "an origin with a space": (signed(TEXT.replace(ORIGIN, "go.sum database tree")), "checkpoint.origin"),
}


@pytest.mark.parametrize("name", PROFILE)
def test_what_implementations_disagree_on_is_refused(name):
    data, field = PROFILE[name]
    assert data != SIGNED.to_bytes()
    assert refused(data).field == field


def test_the_non_canonical_forms_of_the_profile_decode_leniently():
    """Otherwise the cases would show that garbage is refused, and nothing about strictness."""
    lenient = base64.b64decode(ROOT_TEXT[:-2] + "B=", validate=True)
    assert lenient == ROOT
    line = PROFILE["a signature in non-canonical base64"][0].decode().split("\n")[-2]
    assert base64.b64decode(line.split(" ")[2], validate=True) == LOG_KEY.key_id + SIGNED.signatures[0].signature
    assert int("01") == int("+5") - 4 == int(" 5") - 4 == int("1_0") - 9


def test_lines_of_unknown_keys_are_ignored_up_to_64_lines():
    for count in (1, 17, 63):
        assert opened(SIGNED.to_bytes() + unknown_lines(count).encode()) == Witnessed(CHECKPOINT, ())
        before = f"{TEXT}\n{unknown_lines(count)}{GOOD_LINE}".encode()
        assert opened(before) == Witnessed(CHECKPOINT, ())


def test_a_line_shares_both_name_and_key_id_with_a_known_key_or_is_unknown():
    """A forged line under the name or the key id alone neither counts nor spoils the note."""
    forged = [
        NoteSignature("w1", W2_KEY.key_id, bytes(72)),
        NoteSignature("w3", W1_KEY.key_id, bytes(72)),
        NoteSignature(ORIGIN, W1_KEY.key_id, bytes(72)),
        NoteSignature("w1", LOG_KEY.key_id, bytes(64)),
    ]
    assert opened(COSIGNED.with_signatures(forged).to_bytes()) == opened(COSIGNED.to_bytes())


def test_a_note_without_the_log_is_refused():
    note = Note(TEXT, (cosign(W1, "w1", TEXT, TIME_S),))
    assert refused(note.to_bytes()).field == "log"
    other = f"{TEXT}\n{log_line(TEXT, ORIGIN, STRANGER)}".encode()
    assert refused(other).field == "log"


def test_a_checkpoint_of_another_origin_is_refused_also_where_the_log_signed_it():
    other = Checkpoint("other.example", 5, ROOT)
    note = sign_checkpoint(LOG, other)
    assert refused(note.to_bytes()).field == "checkpoint.origin"
    both = f"{other.to_text()}\n{log_line(other.to_text())}".encode()
    assert refused(both).field == "checkpoint.origin"
    assert refused(SIGNED.to_bytes(), log=log_key("log.example/Record", LOG.public_bytes)).field == "checkpoint.origin"


@pytest.mark.parametrize(
    ("signature", "field"),
    [
        (encode_cosignature(TIME_S, bytes(64)), "signature"),
        (encode_cosignature(TIME_S + 1, cosign(W1, "w1", TEXT, TIME_S).signature[8:]), "signature"),
        (encode_cosignature(TIME_S, W1.sign_note_text(TEXT.encode())), "signature"),
        (encode_cosignature(TIME_S, W2.sign_note_text(cosignature_message(TEXT, TIME_S))), "signature"),
        (cosign(W1, "w1", TEXT.replace("\n5\n", "\n6\n"), TIME_S).signature, "signature"),
        (W1.sign_note_text(TEXT.encode()), "cosignature"),
        (cosign(W1, "w1", TEXT, TIME_S).signature + b"\x00", "cosignature"),
        (cosign(W1, "w1", TEXT, TIME_S).signature[:-1], "cosignature"),
        ((2**63).to_bytes(8, "big") + bytes(64), "cosignature.timestamp_s"),
    ],
    ids=range(9),
)
def test_one_bad_line_of_a_known_witness_spoils_the_note(signature, field):
    for witnesses in ([W1_KEY], [W1_KEY, W2_KEY]):
        for note in (
            SIGNED.with_signatures([witness_line(signature)]),
            COSIGNED.with_signatures([witness_line(signature)]),
            Note(TEXT, (witness_line(signature), *COSIGNED.signatures)),
        ):
            assert refused(note.to_bytes(), witnesses).field == field
    # To whom w1 is not known, the line is one of many.
    assert opened(COSIGNED.with_signatures([witness_line(signature)]).to_bytes(), [W2_KEY]).public_keys == {
        W2.public_bytes
    }


@pytest.mark.parametrize("length", [1, 63, 65, 72])
def test_a_log_signature_of_another_length_spoils_the_note(length):
    note = SIGNED.with_signatures([NoteSignature(ORIGIN, LOG_KEY.key_id, bytes(length))])
    assert refused(note.to_bytes()).field == "signature"


def test_a_flipped_bit_is_refused_or_makes_one_witness_unknown():
    """Every bit of a cosigned checkpoint: what opens has the same content and one cosignature less."""
    sound = opened(COSIGNED.to_bytes())
    less = [Witnessed(CHECKPOINT, (each,)) for each in sound.cosigned]
    opened_in_spite = 0
    for bit in range(8 * len(COSIGNED.to_bytes())):
        data = bytearray(COSIGNED.to_bytes())
        data[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(NoteError):
            assert opened(bytes(data)) in less
            opened_in_spite += 1
    # Bits of the name and of the key id of either witness; most others make no base64 or no name.
    assert 0 < opened_in_spite < 150


def test_two_names_of_one_key_count_once():
    """The message does not bind the name, so one signature stands under any name that its key is known by."""
    line = cosign(W1, "w1", TEXT, TIME_S)
    names = [witness_key(name, W1.public_bytes) for name in ("w1", "alias", "another")]
    copies = [NoteSignature(key.name, key.key_id, line.signature) for key in names]
    found = opened(SIGNED.with_signatures(copies).to_bytes(), names)
    assert found.cosigned == (Cosigned(W1.public_bytes, TIME_S),)
    assert len(found.public_keys) == 1


def test_a_witness_that_cosigned_again_counts_once_with_its_latest_time():
    for times in ((5, 9, 7), (9, 5, 7), (5, 7, 9)):
        note = SIGNED.with_signatures([cosign(W1, "w1", TEXT, time_s) for time_s in times])
        assert opened(note.to_bytes()).cosigned == (Cosigned(W1.public_bytes, 9),)
    # And every one of its lines is verified, the first and the last alike.
    for place in (1, 2):
        lines = [cosign(W1, "w1", TEXT, 5)]
        lines.insert(place - 1, witness_line(encode_cosignature(6, bytes(64))))
        assert refused(SIGNED.with_signatures(lines).to_bytes()).field == "signature"


def test_the_time_0_and_the_largest_time_are_times():
    for time_s in (0, 2**63 - 1):
        note = SIGNED.with_signatures([cosign(W1, "w1", TEXT, time_s)])
        assert opened(note.to_bytes()).cosigned == (Cosigned(W1.public_bytes, time_s),)


def test_a_result_that_counts_a_key_twice_cannot_be_constructed():
    with pytest.raises(NoteError):
        Witnessed(CHECKPOINT, (Cosigned(W1.public_bytes, 1), Cosigned(W1.public_bytes, 2)))


def test_keys_of_the_wrong_kind_are_refused():
    data = COSIGNED.to_bytes()
    refusal = refused(data, log=witness_key(ORIGIN, LOG.public_bytes))
    assert (refusal.field, refusal.reason) == ("log", "not the key of a log")
    assert refused(data, witnesses=[log_key("w1", W1.public_bytes)]).field == "witnesses"
    assert (LOG_KEY.kind, W1_KEY.kind) == (SignatureType.ED25519, SignatureType.COSIGNATURE_V1)
    assert LOG_KEY.key_id != witness_key(ORIGIN, LOG.public_bytes).key_id


def test_the_same_witness_may_be_given_twice():
    assert opened(COSIGNED.to_bytes(), [W1_KEY, W1_KEY, W2_KEY]) == opened(COSIGNED.to_bytes())


def test_two_keys_that_share_name_and_key_id_are_refused(monkeypatch):
    """Four bytes can be made to collide on purpose; which of the two keys signed would then be anybody's guess."""
    monkeypatch.setattr(VerifierKey, "key_id", bytes(4))
    other = witness_key("w1", W2.public_bytes)
    assert refused(COSIGNED.to_bytes(), [W1_KEY, other]).field == "witnesses"


def test_a_public_key_of_small_order_signs_nothing():
    """The neutral element and a point of order 2: without a check, R = A and S = 0 would verify over any text."""
    neutral, order_2 = (1).to_bytes(32, "little"), bytes.fromhex("ec" + "ff" * 30 + "7f")
    for point in (neutral, order_2, bytes(32)):
        log = log_key(ORIGIN, point)
        for encoded in (point, neutral):
            note = Note(TEXT, (NoteSignature(ORIGIN, log.key_id, encoded + bytes(32)),))
            assert refused(note.to_bytes(), log=log).field == "signature"


def test_a_witness_signs_nothing_but_a_checkpoint():
    with pytest.raises(NoteError):
        cosign(W1, "w1", "not a checkpoint\n", TIME_S)
    with pytest.raises(NoteError):
        cosign(W1, "w 1", TEXT, TIME_S)
    with pytest.raises(NoteError):
        cosign(W1, "w1", TEXT, -1)


def test_a_note_text_and_a_labelled_message_are_never_the_same_bytes():
    """One key signs both, so a signature over one must not be a signature over the other."""
    for fields in ((), (TEXT.encode(),), (b"",) * 300):
        labelled = encode_fields(Label.STATEMENT, *fields)
        assert labelled[0] == 0
        with pytest.raises(ValueError, match="zero byte"):
            LOG.sign_note_text(labelled)
    with pytest.raises(ValueError, match="empty"):
        LOG.sign_note_text(b"")
    assert LOG.sign_statement(TEXT.encode()) != LOG.sign_note_text(TEXT.encode())
