from __future__ import annotations

import base64
import dataclasses

import pytest
from hypothesis import example, given, settings

from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import MAX_NOTE_BYTES, Note, NoteError, NoteSignature
from secagg.transcript.witness_request import MAX_REQUEST_BYTES, AddCheckpoint
from tests.unit.transcript.note_strategies import near_misses, requests

NODE = bytes(range(32))
NODE_TEXT = base64.b64encode(NODE).decode()
NOTE = Note(Checkpoint("o", 5, NODE).to_text(), (NoteSignature("w", bytes(4), b"s"),)).to_bytes()
SOUND = AddCheckpoint(3, (NODE, NODE), NOTE)


def body(old="old 3\n", proof=(NODE_TEXT + "\n") * 2, rest=b"\n" + NOTE) -> bytes:
    return (old + proof).encode() + rest


def test_a_request_has_the_form_of_the_specification():
    assert SOUND.to_bytes() == body()
    assert AddCheckpoint(0, (), NOTE).to_bytes() == b"old 0\n\n" + NOTE


@given(requests)
def test_a_request_is_read_back_as_it_was_written(written):
    assert AddCheckpoint.parse(written.to_bytes()) == written


@settings(max_examples=400)
@given(near_misses(requests.map(AddCheckpoint.to_bytes)))
@example(body(old="old 03\n"))
def test_whatever_is_read_as_a_request_is_written_as_it_was(data):
    try:
        read = AddCheckpoint.parse(data)
    except NoteError:
        return
    assert read.to_bytes() == data


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "request"),
        (body(rest=b""), "request"),
        (body(rest=NOTE), "request.proof"),
        (body(old="\u00e9"), "request"),
        (b"\n" + body(), "request.old_size"),
        (body(old=""), "request.old_size"),
        (body(old="old3\n"), "request.old_size"),
        (body(old="Old 3\n"), "request.old_size"),
        (body(old=" old 3\n"), "request.old_size"),
        (body(old="old  3\n"), "request.old_size"),
        (body(old="old 3 \n"), "request.old_size"),
        (body(old="old 3\r\n"), "request.old_size"),
        (body(old="old 03\n"), "request.old_size"),
        (body(old="old -0\n"), "request.old_size"),
        (body(old="old \n"), "request.old_size"),
        (body(old="old 9223372036854775808\n"), "request.old_size"),
        (body(old="old 3\nold 3\n"), "request.proof"),
        (body(proof=NODE_TEXT[:-2] + "9=\n"), "request.proof"),
        (body(proof=base64.b64encode(bytes(31)).decode() + "\n"), "request.proof"),
        (body(proof=base64.b64encode(bytes(33)).decode() + "\n"), "request.proof"),
        (body(proof=(NODE_TEXT + "\n") * 64), "request.proof"),
        (body(rest=b"\n"), "note"),
        (body(rest=b"\n\n" + NOTE), "checkpoint"),
        (body(rest=b"\n" + NOTE[:-1]), "note"),
        (body(rest=b"\n" + NOTE.replace(b"\n5\n", b"\n05\n")), "checkpoint.size"),
        (body(proof=(NODE_TEXT + "\n") * (MAX_REQUEST_BYTES // 45)), "request"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_what_is_no_request_is_refused_and_the_field_is_named(data, field):
    with pytest.raises(NoteError) as caught:
        AddCheckpoint.parse(data)
    assert caught.value.field == field


def test_the_largest_request_has_63_hashes_and_the_largest_note():
    text = Checkpoint("o", 2**63 - 1, NODE).to_text()
    bare = len(Note(text, (NoteSignature("w", bytes(4), b"s" * 5),)).to_bytes())
    # Base64 grows by four characters for three bytes; the name takes what is left.
    left = MAX_NOTE_BYTES - bare
    largest = Note(text, (NoteSignature("w" * (1 + left % 4), bytes(4), b"s" * (5 + left // 4 * 3)),)).to_bytes()
    assert len(largest) == MAX_NOTE_BYTES
    request = AddCheckpoint(2**63 - 1, (NODE,) * 63, largest)
    assert AddCheckpoint.parse(request.to_bytes()) == request


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"old_size": -1}, "request.old_size"),
        ({"old_size": 2**63}, "request.old_size"),
        ({"old_size": True}, "request.old_size"),
        ({"proof": [NODE]}, "request.proof"),
        ({"proof": (NODE[:31],)}, "request.proof"),
        ({"proof": (NODE,) * 64}, "request.proof"),
        ({"note": b""}, "note"),
        ({"note": bytearray(NOTE)}, "request.note"),
        ({"note": b"a\n\n" + NOTE.split(b"\n\n")[1]}, "checkpoint"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_what_is_no_request_cannot_be_constructed(changes, field):
    with pytest.raises(NoteError) as caught:
        dataclasses.replace(SOUND, **changes)
    assert caught.value.field == field
