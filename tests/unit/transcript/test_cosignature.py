from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.transcript.cosignature import cosignature_message, decode_cosignature, encode_cosignature
from secagg.transcript.note import NoteError
from tests.unit.transcript.note_strategies import checkpoints, integers

# The example of c2sp.org/tlog-cosignature.
TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
MESSAGE = b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
SIGNATURE = bytes(range(64))


def test_the_message_is_header_time_and_the_whole_text():
    assert cosignature_message(TEXT, 1_679_315_147) == MESSAGE
    assert cosignature_message(TEXT, 0).startswith(b"cosignature/v1\ntime 0\nexample.com")


@pytest.mark.parametrize(
    "text", ["", "a\n", TEXT[:-1], TEXT + "\n", TEXT + "extension\n", "time 5\n" + TEXT, TEXT.replace("2085", "02085")]
)
def test_nothing_but_a_checkpoint_is_made_into_a_message(text):
    with pytest.raises(NoteError):
        cosignature_message(text, 5)


@pytest.mark.parametrize("timestamp_s", [-1, 2**63, True, 5.0, "5"])
def test_a_time_that_has_no_decimal_is_refused(timestamp_s):
    for call in (lambda: cosignature_message(TEXT, timestamp_s), lambda: encode_cosignature(timestamp_s, SIGNATURE)):
        with pytest.raises(NoteError) as caught:
            call()
        assert caught.value.field == "cosignature.timestamp_s"


@given(checkpoints, integers, checkpoints, integers)
def test_two_messages_are_equal_only_for_the_same_checkpoint_and_time(one, one_s, other, other_s):
    equal = cosignature_message(one.to_text(), one_s) == cosignature_message(other.to_text(), other_s)
    assert equal == ((one, one_s) == (other, other_s))


@given(checkpoints, integers, checkpoints)
def test_no_cosignature_message_is_a_text_that_a_log_signs(cosigned, timestamp_s, signed):
    assert cosignature_message(cosigned.to_text(), timestamp_s) != signed.to_text().encode()


@given(integers, st.binary(min_size=64, max_size=64))
def test_a_cosignature_is_72_bytes_and_is_read_back(timestamp_s, signature):
    data = encode_cosignature(timestamp_s, signature)
    assert data == timestamp_s.to_bytes(8, "big") + signature
    assert decode_cosignature(data) == (timestamp_s, signature)


def test_the_published_cosignature_has_the_published_time():
    # The 76 bytes of the witness's line in c2sp.org/tlog-cosignature begin with key id and time.
    assert decode_cosignature(bytes.fromhex("00000000641850cb") + SIGNATURE) == (1_679_315_147, SIGNATURE)


@pytest.mark.parametrize("length", [0, 8, 64, 71, 73, 76])
def test_a_cosignature_of_another_length_is_refused(length):
    with pytest.raises(NoteError) as caught:
        decode_cosignature(bytes(length))
    assert caught.value.field == "cosignature"


def test_a_time_of_2_to_the_63_is_refused():
    with pytest.raises(NoteError) as caught:
        decode_cosignature((2**63).to_bytes(8, "big") + SIGNATURE)
    assert caught.value.field == "cosignature.timestamp_s"
    assert decode_cosignature((2**63 - 1).to_bytes(8, "big") + SIGNATURE)[0] == 2**63 - 1


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65), bytearray(64)])
def test_a_signature_of_another_length_is_not_encoded(signature):
    with pytest.raises(NoteError) as caught:
        encode_cosignature(5, signature)
    assert caught.value.field == "cosignature.signature"
