from __future__ import annotations

import ast
import copy
import hashlib
import itertools
import pickle
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto import sealing, signing
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label, encode_fields, index_field
from secagg.crypto.rng import SystemRng
from secagg.crypto.sealing import SealingError, SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SignatureError, SigningKey, verify_statement
from tests.support.syntax import syntax_tree

SOURCE = Path(__file__).resolve().parents[3] / "secagg"
# Labels whose place in the code does not exist yet. A label that is used must leave this list.
NOT_USED_YET: set[Label] = set()

inputs = st.tuples(st.sampled_from(list(Label)), st.lists(st.binary(max_size=9), max_size=4))


# Labels.


@given(inputs, inputs)
def test_different_inputs_have_different_encodings(first, second):
    assert (first == second) == (encode_fields(first[0], *first[1]) == encode_fields(second[0], *second[1]))


@given(st.sampled_from(list(Label)), st.binary(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_fields_cannot_be_cut_at_another_place(label, data, first, second):
    cuts = [[data], [data[:first], data[first:]], [data[:second], data[second:]], [data, b""], [b"", data]]
    encodings = {encode_fields(label, *fields) for fields in cuts}
    assert len(encodings) == len({tuple(fields) for fields in cuts})


def test_no_encoding_is_the_beginning_of_another():
    some = [
        encode_fields(label, *fields)
        for label in Label
        for fields in ((), (b"",), (b"a",), (b"a", b""), (b"ab",), (b"a", b"b"))
    ]
    for first, second in itertools.permutations(some, 2):
        assert not second.startswith(first)


def test_the_encoding_is_the_documented_one():
    assert encode_fields(Label.STATEMENT, b"xy", b"") == (
        bytes(7) + b"\x02" + bytes(7) + b"\x13" + b"secagg/v1/statement" + bytes(7) + b"\x02xy" + bytes(8)
    )
    assert index_field(258) == b"\x00\x00\x01\x02"


def test_each_label_is_used_at_one_place():
    """A label serves one purpose: exactly one mention in the code (docstrings are not code)."""
    names = {label.name for label in Label}
    used: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "labels.py" or "v1" in path.relative_to(SOURCE).parts:
            continue
        for node in ast.walk(syntax_tree(path)):
            is_label = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Label"
            if is_label and node.attr in names:
                used[node.attr] += 1
                places.setdefault(node.attr, []).append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    repeated = {name: places[name] for name, count in used.items() if count > 1}
    assert not repeated, "one label, several purposes"
    unused = names - set(used)
    assert unused == {label.name for label in NOT_USED_YET}, "keep NOT_USED_YET in step with the code"


def test_labels_are_versioned_and_no_text_in_the_code_repeats_one():
    values = [label.value for label in Label]
    assert all(value.startswith("secagg/v1/") and value.isascii() for value in values)
    for path in SOURCE.rglob("*.py"):
        if path.name != "labels.py" and "v1" not in path.relative_to(SOURCE).parts:
            text = path.read_text()
            assert not [value for value in values if f'"{value}"' in text], path


# Secrets.


def test_a_secret_does_not_show():
    secret = Secret(b"hunter2-hunter2-hunter2-hunter2-")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", f"{[secret]}", "%s" % secret):  # noqa: UP031
        assert "hunter" not in shown
        assert b"hunter2".hex() not in shown
        assert "32 bytes" in shown
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        bytes(secret)
    with pytest.raises(TypeError):
        iter(secret)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_secret_is_not_pickled(protocol):
    seed = Secret(bytes(range(32)))
    for value in (seed, [seed], SigningKey(seed), SealingKey(seed)):
        with pytest.raises(TypeError):
            pickle.dumps(value, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_what_is_secret_is_not_copied_by_accident(duplicate):
    for value in (Secret(bytes(32)), SigningKey(Secret(bytes(32)))):
        with pytest.raises(TypeError):
            duplicate(value)


def test_a_secret_has_no_hash():
    for use in (hash, lambda secret: {secret}, lambda secret: {secret: 1}):
        with pytest.raises(TypeError):
            use(Secret(b"x"))


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_secrets_are_equal_when_their_bytes_are(first, second):
    assert (Secret(first) == Secret(second)) == (first == second)
    assert Secret(first) != first


def test_a_secret_keeps_its_own_bytes():
    source = bytearray(b"abcd")
    secret = Secret(source)
    source[0] = 0
    assert secret.expose() == b"abcd"
    assert len(secret) == 4


def test_keys_show_no_secret():
    seed = Secret(bytes(range(32)))
    for key in (SigningKey(seed), SealingKey(seed)):
        assert seed.expose().hex() not in repr(key)


# Key derivation and randomness.


def test_derivation_is_hkdf_with_an_injective_context():
    secret = Secret(bytes(32))
    derived = [
        derive(secret, Label.MASK_KEY, b"ab"),
        derive(secret, Label.MASK_KEY, b"a", b"b"),
        derive(secret, Label.MASK_KEY),
        derive(secret, Label.PAIR_SEED, b"ab"),
        derive(Secret(bytes(31) + b"\x01"), Label.MASK_KEY, b"ab"),
    ]
    assert len({each.expose() for each in derived}) == len(derived)
    assert derive(secret, Label.MASK_KEY, b"ab") == derived[0]
    assert len(derive(secret, Label.MASK_KEY, length_bytes=96)) == 96


def test_the_system_gives_fresh_bytes():
    rng = SystemRng()
    assert len(rng.bytes(32)) == 32
    assert rng.bytes(32) != rng.bytes(32)
    assert rng.bytes(0) == b""


# Sealing.

SEED = Secret(bytes(range(32)))
EXPECTED_PUBLIC_SHA256 = "a896ae681902e7d9a5440ff4fc23d58307a5e87e298bc5d6f1f68b2e44734459"
MLKEM_BYTES = 1184
FIELD_PRIME = 2**255 - 19
# The u-coordinates of small order and their encodings that are not reduced: RFC 7748, section 7, and
# https://cr.yp.to/ecdh.html#validate.
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    FIELD_PRIME - 1,
    FIELD_PRIME,
    FIELD_PRIME + 1,
]


@pytest.fixture(scope="module")
def key() -> SealingKey:
    return SealingKey(SEED)


@pytest.fixture(scope="module")
def box(key) -> bytes:
    return seal(key.public_bytes, b"info", Secret(b"a seed of a mask"))


def test_the_key_pair_follows_from_the_seed(key):
    assert SealingKey(SEED).public_bytes == key.public_bytes
    assert SealingKey(Secret(bytes(32))).public_bytes != key.public_bytes
    assert len(key.public_bytes) == sealing.PUBLIC_KEY_BYTES == 1216
    assert hashlib.sha256(key.public_bytes).hexdigest() == EXPECTED_PUBLIC_SHA256


def test_a_key_from_the_same_seed_opens_the_box(key, box):
    assert key.open(box, b"info") == Secret(b"a seed of a mask")
    assert SealingKey(SEED).open(box, b"info") == Secret(b"a seed of a mask")


@pytest.mark.parametrize("length", [0, 1, 32, 72, 5000])
def test_a_box_is_longer_than_its_content_by_the_overhead(key, length):
    sealed = seal(key.public_bytes, b"", Secret(bytes(length)))
    assert len(sealed) == length + sealing.OVERHEAD_BYTES == length + 1136
    assert key.open(sealed, b"") == Secret(bytes(length))


def test_sealing_twice_gives_different_boxes(key, box):
    assert seal(key.public_bytes, b"info", Secret(b"a seed of a mask")) != box


def test_another_key_does_not_open_it(box):
    with pytest.raises(SealingError):
        SealingKey(Secret(bytes(32))).open(box, b"info")


@pytest.mark.parametrize("info", [b"", b"infO", b"info\x00", b"inf"])
def test_another_context_does_not_open_it(key, box, info):
    with pytest.raises(SealingError):
        key.open(box, info)


@pytest.mark.parametrize("length", [0, 1, 15, 32, 1087, 1088, 1119, 1120, 1121, 1135, 1136, -1])
def test_a_truncated_box_does_not_open(key, box, length):
    with pytest.raises(SealingError):
        key.open(box[:length], b"info")


def test_a_longer_box_does_not_open(key, box):
    for longer in (box + b"\x00", b"\x00" + box, box + box):
        with pytest.raises(SealingError):
            key.open(longer, b"info")


def test_a_box_with_any_byte_flipped_does_not_open(key, box):
    for position in range(len(box)):
        flipped = bytearray(box)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(SealingError):
            key.open(bytes(flipped), b"info")


@pytest.mark.parametrize("u", SMALL_ORDER)
@pytest.mark.parametrize("top_bit", [0, 1])
def test_a_public_key_with_a_point_of_small_order_is_refused(key, u, top_bit):
    point = (u | top_bit << 255).to_bytes(32, "little")
    public = key.public_bytes[:MLKEM_BYTES] + point
    for use in (sealing.check_public_key, lambda each: seal(each, b"", Secret(b"x"))):
        with pytest.raises(SealingError):
            use(public)


def test_a_malformed_public_key_is_refused(key):
    good = key.public_bytes
    sealing.check_public_key(good)
    # A coefficient of 4095 is not reduced modulo 3329: FIPS 203, section 7.2, the modulus check.
    for public in (b"", good[:-1], good + b"\x00", b"\xff" * 3 + good[3:], bytes(1184) + bytes(32)):
        for use in (sealing.check_public_key, lambda each: seal(each, b"", Secret(b"x"))):
            with pytest.raises(SealingError):
                use(public)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length):
    with pytest.raises(SealingError):
        SealingKey(Secret(bytes(length)))


# Signing.


def test_a_signature_verifies_and_is_deterministic():
    first = SigningKey(SEED)
    signature = first.sign_statement(b"statement")
    assert len(signature) == signing.SIGNATURE_BYTES
    assert signature == SigningKey(SEED).sign_statement(b"statement")
    verify_statement(first.public_bytes, b"statement", signature)


def test_a_signature_is_over_the_labelled_statement():
    """Ed25519 over the bare bytes is not a statement: another use of the key cannot be passed off as one."""
    import nacl.signing

    bare = nacl.signing.SigningKey(SEED.expose())
    public = bytes(bare.verify_key)
    with pytest.raises(SignatureError):
        verify_statement(public, b"statement", bare.sign(b"statement").signature)
    verify_statement(public, b"statement", bare.sign(encode_fields(Label.STATEMENT, b"statement")).signature)


def test_no_flipped_bit_verifies():
    signer = SigningKey(SEED)
    body = b"statement"
    signature = signer.sign_statement(body)
    for index, original in enumerate((signer.public_bytes, body, signature)):
        for bit in range(8 * len(original)):
            parts = [signer.public_bytes, body, signature]
            flipped = bytearray(original)
            flipped[bit // 8] ^= 1 << bit % 8
            parts[index] = bytes(flipped)
            with pytest.raises(SignatureError):
                verify_statement(*parts)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 63, 65, 128])
def test_wrong_lengths_do_not_verify(length):
    signer = SigningKey(SEED)
    signature = signer.sign_statement(b"statement")
    with pytest.raises(SignatureError):
        verify_statement(signer.public_bytes, b"statement", (signature * 3)[:length])
    if length != 32:
        with pytest.raises(SignatureError):
            verify_statement((signer.public_bytes * 5)[:length], b"statement", signature)


@given(st.binary(max_size=70), st.binary(max_size=10), st.binary(max_size=70))
def test_nothing_but_a_signature_error_escapes(public, body, signature):
    with pytest.raises(SignatureError):
        verify_statement(public, body, signature)


@pytest.mark.parametrize("point", ["01" + "00" * 31, "00" * 32, "ec" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f"])
def test_a_public_key_of_small_order_verifies_nothing(point):
    """Under the neutral element the signature (R = neutral, S = 0) satisfies the equation for every body."""
    neutral = b"\x01" + bytes(31)
    for r in (neutral, bytes.fromhex(point)):
        with pytest.raises(SignatureError):
            verify_statement(bytes.fromhex(point), b"any body", r + bytes(32))


def test_a_signature_has_one_form():
    """Adding the group order to S keeps the equation and must not keep the signature valid."""
    order = 2**252 + 27742317777372353535851937790883648493
    signer = SigningKey(SEED)
    signature = signer.sign_statement(b"statement")
    larger = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(SignatureError):
        verify_statement(signer.public_bytes, b"statement", signature[:32] + larger)


def test_seeds_derived_from_an_identity_differ_by_label():
    signer = SigningKey(SEED)
    seeds = {signer.derive_seed(label).expose() for label in Label}
    assert len(seeds) == len(Label)
    assert SEED.expose() not in seeds
