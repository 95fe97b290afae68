from __future__ import annotations

import base64
import dataclasses

import pytest
from hypothesis import example, given, settings

from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import NoteError
from tests.unit.transcript.note_strategies import checkpoints, near_misses

# The example of c2sp.org/tlog-checkpoint.
PUBLISHED = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
ROOT = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
SOUND = Checkpoint("example.com/behind-the-sofa", 20_852_163, ROOT)


def text(origin="o", size="5", root=None, rest="") -> str:
    return f"{origin}\n{size}\n{root or base64.b64encode(ROOT).decode()}\n{rest}"


def test_the_published_example_is_read_and_written():
    assert Checkpoint.parse(PUBLISHED) == SOUND
    assert SOUND.to_text() == PUBLISHED


@given(checkpoints)
def test_a_checkpoint_is_read_back_as_it_was_written(written):
    assert Checkpoint.parse(written.to_text()) == written


@settings(max_examples=400)
@given(near_misses(checkpoints.map(lambda checkpoint: checkpoint.to_text().encode())))
@example(text(size="01").encode())
@example(text(rest="x\n").encode())
def test_whatever_is_read_as_a_checkpoint_is_written_as_it_was(data):
    try:
        given_text = data.decode()
        read = Checkpoint.parse(given_text)
    except ValueError:
        return
    assert read.to_text() == given_text


@pytest.mark.parametrize(
    ("given_text", "field"),
    [
        ("", "checkpoint"),
        ("o\n5\n", "checkpoint"),
        (text()[:-1], "checkpoint"),
        (text(rest="\n"), "checkpoint"),
        (text(rest="extension\n"), "checkpoint"),
        (text(rest="extension"), "checkpoint"),
        (text(rest="a\nb\n"), "checkpoint"),
        ("\n" + text(), "checkpoint"),
        (text().replace("\n", "\r\n"), "checkpoint.size"),
        (text().replace("\n", "\u2028"), "checkpoint"),
        (text(origin=""), "checkpoint.origin"),
        (text(origin="go.sum database tree"), "checkpoint.origin"),
        (text(origin="a+b"), "checkpoint.origin"),
        (text(origin="a\u2028b"), "checkpoint.origin"),
        (text(origin="a\x9bb"), "checkpoint.origin"),
        *[
            (text(size=size), "checkpoint.size")
            for size in ("", "01", "00", "-1", "+5", "5 ", " 5", "5\r", "1_0", "\u0665", "0x5", "5.0", "9" * 30)
        ],
        *[
            (text(size=str(size)), "checkpoint.size") for size in (2**63, 2**64, 2**64 + 5)
        ],
        (text(root="CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J="), "checkpoint.root"),
        (text(root="CsUYapGGPo4dkMgIAUqom_Xajj7h2fB2MPA3j2jxq2I="), "checkpoint.root"),
        (text(root="CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I"), "checkpoint.root"),
        (text(root="CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I= "), "checkpoint.root"),
        (text(root=base64.b64encode(bytes(31)).decode()), "checkpoint.root"),
        (text(root=base64.b64encode(bytes(33)).decode()), "checkpoint.root"),
        (text(root=ROOT.hex()), "checkpoint.root"),
        ("o\n5\n\n", "checkpoint.root"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused_and_the_field_is_named(given_text, field):
    with pytest.raises(NoteError) as caught:
        Checkpoint.parse(given_text)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"origin": ""}, "checkpoint.origin"),
        ({"origin": "a b"}, "checkpoint.origin"),
        ({"origin": "a\n5"}, "checkpoint.origin"),
        ({"size": -1}, "checkpoint.size"),
        ({"size": 2**63}, "checkpoint.size"),
        ({"size": True}, "checkpoint.size"),
        ({"size": "5"}, "checkpoint.size"),
        ({"root": bytes(31)}, "checkpoint.root"),
        ({"root": bytes(33)}, "checkpoint.root"),
        ({"root": bytearray(32)}, "checkpoint.root"),
    ],
    ids=repr,
)
def test_what_is_no_checkpoint_cannot_be_constructed(changes, field):
    with pytest.raises(NoteError) as caught:
        dataclasses.replace(SOUND, **changes)
    assert caught.value.field == field


def test_the_smallest_and_the_largest_size_are_accepted():
    for size in (0, 2**63 - 1):
        assert Checkpoint.parse(text(size=str(size))).size == size
