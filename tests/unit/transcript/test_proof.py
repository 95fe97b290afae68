from __future__ import annotations

import base64
import dataclasses

import pytest
from hypothesis import example, given, settings

from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.merkle import ProofError
from secagg.transcript.note import Note, NoteSignature
from secagg.transcript.proof import MAX_EXTRA_BYTES, LogProof, LogProofError
from tests.unit.transcript.note_strategies import log_proofs, near_misses

NODE = bytes(range(32))
NODE_TEXT = base64.b64encode(NODE).decode()
NOTE = Note(Checkpoint("o", 5, NODE).to_text(), (NoteSignature("w", bytes(4), b"s"),)).to_bytes()
SOUND = LogProof(b"", 3, (NODE, NODE), NOTE)


def file(
    first="c2sp.org/tlog-proof@v1\n", extra="", index="index 3\n", path=(NODE_TEXT + "\n") * 2, rest=b"\n" + NOTE
) -> bytes:
    return (first + extra + index + path).encode() + rest


def refused(data: bytes) -> LogProofError:
    with pytest.raises(ProofError) as caught:
        LogProof.parse(data)
    assert type(caught.value) is LogProofError
    assert str(caught.value) == f"{caught.value.field}: {caught.value.reason}"
    return caught.value


def test_a_proof_has_the_form_of_the_specification():
    assert SOUND.to_bytes() == file()
    assert dataclasses.replace(SOUND, extra=b"\x00\xff").to_bytes() == file(extra="extra AP8=\n")
    assert LogProof(b"", 0, (), NOTE).to_bytes() == b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + NOTE


@given(log_proofs)
def test_a_proof_is_read_back_as_it_was_written(written):
    assert LogProof.parse(written.to_bytes()) == written


@settings(max_examples=400)
@given(near_misses(log_proofs.map(LogProof.to_bytes)))
@example(file(extra="extra \n"))
@example(file(index="index 03\n"))
def test_whatever_is_read_as_a_proof_is_written_as_it_was(data):
    try:
        read = LogProof.parse(data)
    except ProofError:
        return
    assert read.to_bytes() == data


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "proof"),
        (file(rest=b""), "proof"),
        (file(rest=NOTE), "proof.path"),
        (file(first=""), "proof"),
        (file(first="c2sp.org/tlog-proof@v2\n"), "proof"),
        (file(first="C2SP.org/tlog-proof@v1\n"), "proof"),
        (file(first=" c2sp.org/tlog-proof@v1\n"), "proof"),
        (file(first="\ufeffc2sp.org/tlog-proof@v1\n"), "proof"),
        (file(first="c2sp.org/tlog-proof@v1\r\n"), "proof"),
        (file(extra="extra \n"), "proof.extra"),
        (file(extra="extra AP9=\n"), "proof.extra"),
        (file(extra="extra AP8\n"), "proof.extra"),
        (file(extra="extra AP8= \n"), "proof.extra"),
        (file(extra="extra AP8=\nextra AP8=\n"), "proof.index"),
        (file(extra="extraAP8=\n"), "proof.index"),
        (file(index=""), "proof.index"),
        (file(index="index3\n"), "proof.index"),
        (file(index="index 03\n"), "proof.index"),
        (file(index="index +3\n"), "proof.index"),
        (file(index="index  3\n"), "proof.index"),
        (file(index="index 3 \n"), "proof.index"),
        (file(index="index 9223372036854775808\n"), "proof.index"),
        (file(index="index 3\nindex 3\n"), "proof.path"),
        (file(index="index 3\nextra AP8=\n"), "proof.path"),
        (file(path=NODE_TEXT[:-2] + "9=\n"), "proof.path"),
        (file(path=base64.b64encode(bytes(31)).decode() + "\n"), "proof.path"),
        (file(path=base64.b64encode(bytes(33)).decode() + "\n"), "proof.path"),
        (file(path=NODE_TEXT + " \n"), "proof.path"),
        (file(path=(NODE_TEXT + "\n") * 64), "proof.path"),
        (file(rest=b"\n"), "note"),
        (file(rest=b"\n\n" + NOTE), "checkpoint"),
        (file(rest=b"\n" + NOTE[:-1]), "note"),
        (file(rest=b"\n" + NOTE.replace(b"\n5\n", b"\n05\n")), "checkpoint.size"),
        (file(rest=b"\n" + NOTE.replace(b"\n5\n", b"\n5\nx\n")), "checkpoint"),
        (b"\n" + file(), "proof"),
    ],
)
def test_what_is_no_proof_is_refused_and_the_field_is_named(data, field):
    assert refused(data).field == field


def test_a_path_of_63_hashes_is_accepted():
    longest = dataclasses.replace(SOUND, path=(NODE,) * 63)
    assert LogProof.parse(longest.to_bytes()) == longest


def test_extra_data_are_limited_and_so_is_the_file():
    largest = dataclasses.replace(SOUND, extra=bytes(MAX_EXTRA_BYTES))
    assert LogProof.parse(largest.to_bytes()) == largest
    assert (
        refused(file(extra=f"extra {base64.b64encode(bytes(MAX_EXTRA_BYTES + 1)).decode()}\n")).field == "proof.extra"
    )
    assert refused(file(extra=f"extra {'A' * 200_000}\n")).field == "proof"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"extra": None}, "proof.extra"),
        ({"extra": bytes(MAX_EXTRA_BYTES + 1)}, "proof.extra"),
        ({"index": -1}, "proof.index"),
        ({"index": 2**63}, "proof.index"),
        ({"index": True}, "proof.index"),
        ({"path": [NODE]}, "proof.path"),
        ({"path": (NODE[:31],)}, "proof.path"),
        ({"path": (NODE,) * 64}, "proof.path"),
        ({"checkpoint": b""}, "note"),
        ({"checkpoint": bytearray(NOTE)}, "proof.checkpoint"),
        ({"checkpoint": b"a\n\n" + NOTE.split(b"\n\n")[1]}, "checkpoint"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_what_is_no_proof_cannot_be_constructed(changes, field):
    with pytest.raises(LogProofError) as caught:
        dataclasses.replace(SOUND, **changes)
    assert caught.value.field == field
