from __future__ import annotations

import base64
import dataclasses
import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secagg.transcript import note
from secagg.transcript.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Note,
    NoteError,
    NoteSignature,
    SignatureType,
    VerifierKey,
)
from tests.unit.transcript.note_strategies import keys, near_misses, notes, signatures

SIGNATURE = NoteSignature("w", b"\x01\x02\x03\x04", b"\x05" * 9)
LINE = SIGNATURE.to_line()
# Everything that Unicode calls White_Space (PropList.txt).
UNICODE_SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
CONTROLS = [chr(code) for code in (*range(10), *range(11, 32), *range(0x7F, 0xA0))]

# Keys of the documentation of golang.org/x/mod/sumdb/note and of the Go checksum database.
FOREIGN_KEYS = (
    "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
)


def refused(call, *arguments) -> NoteError:
    with pytest.raises(NoteError) as caught:
        call(*arguments)
    assert caught.value.reason
    assert str(caught.value) == f"{caught.value.field}: {caught.value.reason}"
    return caught.value


@given(notes)
def test_a_note_is_read_back_as_it_was_written(written):
    assert Note.parse(written.to_bytes()) == written


@settings(max_examples=400)
@given(near_misses(notes.map(Note.to_bytes)))
@example(b"a\n\n\xe2\x80\x94 w AQIDBAU=\n")
@example(b"a\n\n\xe2\x80\x94 w AQIDBAV=\n")
def test_whatever_is_read_as_a_note_is_written_as_it_was(data):
    try:
        read = Note.parse(data)
    except NoteError:
        return
    assert read.to_bytes() == data


@given(keys)
def test_a_key_is_read_back_as_it_was_written(key):
    assert VerifierKey.parse(key.to_text()) == key


@given(near_misses(keys.map(lambda key: key.to_text().encode())))
def test_whatever_is_read_as_a_key_is_written_as_it_was(data):
    try:
        text = data.decode()
        read = VerifierKey.parse(text)
    except ValueError:
        return
    assert read.to_text() == text


@given(st.text(st.sampled_from("AQZaz09+/= \n_-é"), max_size=12))
@example("AB==")
@example("AAB=")
@example("AAA")
@example("A===")
@example("AAA=\n")
@example("AA-_")
@example("=AAA")
@example("AAAA====")
def test_whatever_is_read_as_base64_is_its_one_form(text):
    try:
        data = note.decode_base64(text, "field")
    except NoteError:
        return
    assert base64.standard_b64encode(data).decode() == text


@pytest.mark.parametrize(
    "text", ["AB==", "AAB=", "AAA", "A===", "AAA=\n", "AA-_", "AA A", "=AAA", "AAAA=", "é", "\ud800"]
)
def test_base64_has_one_form(text):
    assert refused(note.decode_base64, text, "hash").field == "hash"


@given(st.integers(0, 2**63 - 1))
def test_a_decimal_is_read_back(value):
    assert note.parse_decimal(str(value), "size") == value


@pytest.mark.parametrize(
    "text",
    [
        "", "00", "01", "+1", "-1", "-0", " 1", "1 ", "1\n", "1_0", "0x1", "1.0", "1e3", "\u0661",
        "1\u0661", "1\uff10", "\uff11", "\u00b2",
        str(2**63), str(2**64), "9" * 19, "9" * 5000, "9" * 20,
    ],
)  # fmt: skip
def test_a_decimal_has_one_form_and_is_below_2_to_the_63(text):
    assert refused(note.parse_decimal, text, "size").field == "size"


def test_the_largest_decimal_is_accepted():
    assert note.parse_decimal("9223372036854775807", "size") == 2**63 - 1


@pytest.mark.parametrize("value", [-1, 2**63, True, 1.0, "1", None])
def test_an_integer_without_a_decimal_is_refused(value):
    assert refused(note.check_integer, value, "size").field == "size"


@pytest.mark.parametrize("space", UNICODE_SPACES)
def test_a_name_has_no_unicode_space(space):
    for name in (space, f"a{space}b", f"{space}b", f"a{space}"):
        assert refused(note.check_name, name, "name").field == "name"


@pytest.mark.parametrize("char", ["+", "\ud800", *CONTROLS])
def test_a_name_has_no_plus_sign_no_control_character_and_no_surrogate(char):
    for make in (
        lambda name: NoteSignature(name, bytes(4), b"s"),
        lambda name: VerifierKey(name, SignatureType(1), bytes(32)),
    ):
        assert refused(make, f"a{char}b").field.endswith(".name")


@pytest.mark.parametrize("name", ["", None, b"w"])
def test_a_name_is_text_and_not_empty(name):
    assert refused(note.check_name, name, "name").field == "name"


def test_other_characters_are_of_no_concern_to_a_name():
    for name in ("w", "a/b.example", "é", "e\u0301", "\u200b", "\ufeff", "—", "😀", "-", "="):
        written = Note("a\n", (NoteSignature(name, bytes(4), b"s"),))
        assert Note.parse(written.to_bytes()).signatures[0].name == name


# One line per rule of the profile: the bytes, and the field that is named.
MALFORMED = {
    "nothing": (b"", "note"),
    "no final newline": (f"a\n\n{LINE}".encode()[:-1], "note"),
    "no empty line": (f"a\n{LINE}".encode(), "note"),
    "no signatures": (b"a\n\n", "signatures"),
    "only a text": (b"a\n", "note"),
    "two newlines only": (b"\n\n", "signatures"),
    "not UTF-8": (f"a\n\n{LINE}".encode().replace(b"a", b"\xff", 1), "note"),
    "an overlong form": (f"a\n\n{LINE}".encode().replace(b"a", b"\xc1\x81", 1), "note"),
    "a surrogate": (f"a\n\n{LINE}".encode().replace(b"a", b"\xed\xa0\x80", 1), "note"),
    "a carriage return": (f"a\r\n\n{LINE}".encode(), "note"),
    "a tab": (f"a\tb\n\n{LINE}".encode(), "note"),
    "a zero byte": (f"a\x00\n\n{LINE}".encode(), "note"),
    "a hyphen for a dash": (f"a\n\n{LINE}".replace("\u2014", "-").encode(), "signature"),
    "an en dash": (f"a\n\n{LINE}".replace("\u2014", "\u2013").encode(), "signature"),
    "no space after the dash": (f"a\n\n{LINE}".replace("\u2014 ", "\u2014").encode(), "signature"),
    "no name": (f"a\n\n{LINE}".replace(" w ", "  ").encode(), "signature.name"),
    "two spaces": (f"a\n\n{LINE}".replace("w ", "w  ").encode(), "signature.signature"),
    "a space at the end": (f"a\n\n{LINE[:-1]} \n".encode(), "signature.signature"),
    "a name with a no-break space": (f"a\n\n{LINE}".replace("w", "w\u00a0").encode(), "signature.name"),
    "a name with a plus sign": (f"a\n\n{LINE}".replace("w", "w+").encode(), "signature.name"),
    "no base64": ("a\n\n\u2014 w\n".encode(), "signature"),
    "empty base64": ("a\n\n\u2014 w \n".encode(), "signature.key_id"),
    "url-safe base64": ("a\n\n\u2014 w AQIDBAU-\n".encode(), "signature.signature"),
    "non-canonical base64": ("a\n\n\u2014 w AQIDBAV=\n".encode(), "signature.signature"),
    "unpadded base64": ("a\n\n\u2014 w AQIDBAU\n".encode(), "signature.signature"),
    "a key id only": ("a\n\n\u2014 w AQIDBA==\n".encode(), "signature.signature"),
    "three bytes": ("a\n\n\u2014 w AQID\n".encode(), "signature.key_id"),
    "a line twice": (f"a\n\n{LINE}{LINE}".encode(), "signatures"),
    "a line twice, apart": (f"a\n\n{LINE}{LINE.replace('w', 'v')}{LINE}".encode(), "signatures"),
    "text below the signatures": (f"a\n\n{LINE}b\n".encode(), "signature"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_note_is_refused_and_the_field_is_named(name):
    data, field = MALFORMED[name]
    assert refused(Note.parse, data).field == field


def test_an_empty_line_between_signatures_makes_the_first_part_of_the_text():
    read = Note.parse(f"a\n\n{LINE}\n{LINE}".encode())
    assert read.text == f"a\n\n{LINE}"
    assert read.signatures == (SIGNATURE,)


def test_the_last_empty_line_divides_text_and_signatures():
    read = Note.parse(f"a\n\nb\n\n\n{LINE}".encode())
    assert read == Note("a\n\nb\n\n", (SIGNATURE,))


def test_lines_end_at_newlines_and_nowhere_else():
    for separator in ("\u2028", "\u2029"):
        assert Note.parse(f"a{separator}b\n\n{LINE}".encode()).text == f"a{separator}b\n"
        other = LINE.replace("w", "v")
        for block in (f"{LINE[:-1]}{separator}{other}", f"{LINE}{separator}\n", f"{LINE}{other[:-1]}{separator}\n"):
            refused(Note.parse, f"a\n\n{block}".encode())


@pytest.mark.parametrize("char", CONTROLS)
def test_a_text_has_no_control_character_but_the_newline(char):
    assert refused(Note, f"a{char}b\n", (SIGNATURE,)).field == "note.text"
    refused(Note.parse, f"a{char}b\n\n{LINE}".encode())


def lines(count: int) -> tuple[NoteSignature, ...]:
    return tuple(NoteSignature(f"w{number}", bytes(4), b"s") for number in range(count))


def test_a_note_has_at_most_64_signatures():
    full = Note("a\n", lines(MAX_SIGNATURES))
    assert len(Note.parse(full.to_bytes()).signatures) == 64
    one_more = lines(MAX_SIGNATURES + 1)
    assert refused(Note, "a\n", one_more).field == "signatures"
    assert refused(full.with_signatures, one_more[-1:]).field == "signatures"
    assert refused(Note.parse, full.to_bytes() + one_more[-1].to_line().encode()).field == "signatures"
    assert refused(Note.parse, full.to_bytes() + b"x\n" * 56).field == "signatures"


def test_a_note_has_at_most_64_kibibytes():
    room = MAX_NOTE_BYTES - len(f"\n\n{LINE}".encode())
    largest = Note("x" * room + "\n", (SIGNATURE,))
    assert len(largest.to_bytes()) == 65_536
    assert Note.parse(largest.to_bytes()) == largest
    assert refused(Note.parse, b"x" + largest.to_bytes()).field == "note"
    assert refused(Note, "x" * (room + 1) + "\n", (SIGNATURE,)).field == "note"
    # Two bytes of UTF-8 for one character: it is the bytes that count.
    assert refused(Note, "é" * (room // 2 + 1) + "\n", (SIGNATURE,)).field == "note"


@pytest.mark.parametrize(
    ("text", "lines_", "field"),
    [
        ("", (SIGNATURE,), "note.text"),
        ("a", (SIGNATURE,), "note.text"),
        (b"a\n", (SIGNATURE,), "note.text"),
        ("\ud800\n", (SIGNATURE,), "note.text"),
        ("a\n", (), "signatures"),
        ("a\n", [SIGNATURE], "signatures"),
        ("a\n", (LINE,), "signatures"),
        ("a\n", (SIGNATURE, SIGNATURE), "signatures"),
    ],
)
def test_what_is_no_note_cannot_be_constructed(text, lines_, field):
    assert refused(Note, text, lines_).field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"key_id": bytes(3)}, "signature.key_id"),
        ({"key_id": bytearray(4)}, "signature.key_id"),
        ({"signature": b""}, "signature.signature"),
        ({"signature": bytearray(64)}, "signature.signature"),
        ({"name": "a b"}, "signature.name"),
    ],
)
def test_what_is_no_signature_line_cannot_be_constructed(changes, field):
    assert refused(lambda: dataclasses.replace(SIGNATURE, **changes)).field == field


def test_lines_are_added_and_none_stands_twice():
    other = dataclasses.replace(SIGNATURE, name="v")
    first = Note("a\n", (SIGNATURE,))
    both = first.with_signatures([other])
    assert both.signatures == (SIGNATURE, other)
    assert both.with_signatures([SIGNATURE, other, other]) == both
    assert first.signatures == (SIGNATURE,)


@given(st.lists(signatures, min_size=1, max_size=4, unique=True))
def test_the_lines_of_a_witness_are_read_as_in_a_note(answered):
    body = "".join(line.to_line() for line in answered).encode()
    assert note.parse_signatures(body) == tuple(answered)
    assert Note.parse(b"a\n\n" + body).signatures == tuple(answered)


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", LINE.encode()[:-1], (LINE + "\n").encode(), ("\n" + LINE).encode(), (LINE * 2).encode(), b"\xff\n"],
)
def test_what_is_no_answer_of_a_witness_is_refused(body):
    refused(note.parse_signatures, body)


def test_the_answer_of_a_witness_has_at_most_64_lines_and_64_kibibytes():
    assert len(note.parse_signatures("".join(line.to_line() for line in lines(64)).encode())) == 64
    assert refused(note.parse_signatures, "".join(line.to_line() for line in lines(65)).encode()).field == "signatures"
    longest = NoteSignature("w", bytes(4), bytes(49_140)).to_line().encode()
    assert len(note.parse_signatures(longest)) == 1
    longer = NoteSignature("w", bytes(4), bytes(49_150)).to_line().encode()
    assert "longer" in refused(note.parse_signatures, longer).reason


@pytest.mark.parametrize("text", FOREIGN_KEYS)
def test_keys_of_other_programs_have_the_key_id_they_state(text):
    key = VerifierKey.parse(text)
    assert key.kind is SignatureType.ED25519
    assert key.key_id.hex() == text.split("+")[1]
    assert key.to_text() == text


@pytest.mark.parametrize("text", FOREIGN_KEYS)
def test_no_part_of_a_key_and_no_key_with_one_character_changed_is_a_key(text):
    for start in range(len(text)):
        for end in range(start, len(text) + (start > 0)):
            refused(VerifierKey.parse, text[start:end])
    for at, char in enumerate(text):
        for other in {chr(ord(char) ^ 1), chr(ord(char) + 1), char.swapcase(), "+", " "} - {char}:
            refused(VerifierKey.parse, text[:at] + other + text[at + 1 :])


def key_text(name: str, material: bytes, separator: str = "+") -> str:
    key_id = hashlib.sha256(name.encode() + b"\n" + material).hexdigest()[:8]
    return separator.join((name, key_id, base64.b64encode(material).decode()))


def test_a_key_is_named_by_a_digest_over_name_type_and_key():
    for kind in SignatureType:
        assert VerifierKey("w", kind, bytes(32)).to_text() == key_text("w", bytes([kind]) + bytes(32))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "key"),
        ("w+00000000", "key"),
        (key_text("w", b"\x01" + bytes(32), "-"), "key"),
        (key_text("", b"\x01" + bytes(32)), "key.name"),
        (key_text("a b", b"\x01" + bytes(32)), "key.name"),
        (key_text("w", b""), "key.kind"),
        (key_text("w", b"\x00" + bytes(32)), "key.kind"),
        (key_text("w", b"\x02" + bytes(32)), "key.kind"),
        (key_text("w", b"\x06" + bytes(1312)), "key.kind"),
        (key_text("w", b"\xff" + bytes(32)), "key.kind"),
        (key_text("w", b"\x01" + bytes(31)), "key.public_key"),
        (key_text("w", b"\x01" + bytes(33)), "key.public_key"),
        (key_text("w", b"\x04"), "key.public_key"),
        (key_text("w", b"\x01" + bytes(32)) + "=", "key.public_key"),
        # 34 bytes have a last digit with unused bits.
        (key_text("w", b"\x01" + bytes(33))[:-3] + "B==", "key.public_key"),
        (key_text("w", b"\x01" + bytes(32)) + "\n", "key.public_key"),
        (key_text("w", b"\x01" + bytes(32)).replace("w", "v"), "key.key_id"),
    ],
)
def test_what_is_no_key_is_refused_and_the_field_is_named(text, field):
    assert refused(VerifierKey.parse, text).field == field


def test_the_key_id_is_lowercase_hex_of_four_bytes():
    name, key_id, material = FOREIGN_KEYS[0].split("+")
    assert VerifierKey.parse(f"{name}+{key_id}+{material}")
    for other in (key_id.upper(), key_id[:-1], "0" + key_id, f" {key_id}", f"0x{key_id}"):
        assert refused(VerifierKey.parse, f"{name}+{other}+{material}").field == "key.key_id"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("w", 1, bytes(32)), "key.kind"),
        (("w", None, bytes(32)), "key.kind"),
        (("w", SignatureType.ED25519, bytes(31)), "key.public_key"),
        (("w", SignatureType.ED25519, bytearray(32)), "key.public_key"),
    ],
)
def test_what_is_no_key_cannot_be_constructed(arguments, field):
    assert refused(VerifierKey, *arguments).field == field
