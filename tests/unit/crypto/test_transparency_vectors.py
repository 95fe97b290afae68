from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.vectors import generate_transparency
from tests.vectors.transparency_inputs import BODIES

OPERATIONS = json.loads(generate_transparency.PATH.read_text(encoding="utf-8"))["operations"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: f"{each['given']['op']}: {each['given']['name']}")
def test_every_vector_replays_to_its_outcome(operation):
    assert generate_transparency.replay(operation["given"]) == operation["outcome"]


def test_the_generator_reproduces_the_file():
    assert generate_transparency.PATH.read_text(encoding="utf-8") == generate_transparency.text()


def test_what_is_read_has_one_form_but_for_policies_which_people_write():
    for operation in OPERATIONS:
        assert "encoded" not in operation["outcome"] or operation["given"]["op"] == "policy"


def test_every_operation_has_vectors_that_succeed_and_vectors_that_are_refused():
    kinds = Counter((each["given"]["op"], each["outcome"]["success"]) for each in OPERATIONS)
    always = {"sign", "tiles_of", "prove_inclusion", "prove_consistency", "bundle_path"}
    for name in generate_transparency.OPERATIONS:
        assert kinds[name, True]
        assert (kinds[name, False] == 0) == (name in always)


def test_a_vector_succeeds_because_it_is_sound_and_for_no_other_reason():
    """What is called sound succeeds, and what has a fault in its name does not."""
    for operation in OPERATIONS:
        given, outcome = operation["given"], operation["outcome"]
        if given["name"] == "sound":
            assert outcome["success"], given
        elif given["op"] in {"verify_inclusion", "verify_consistency"} or given["name"] in BODIES:
            assert not outcome["success"], given


def test_the_vectors_name_every_field():
    named = {each["outcome"]["error"] for each in OPERATIONS if not each["outcome"]["success"]}
    assert named >= {
        "note", "signature", "signatures", "signature.name", "signature.signature", "checkpoint", "checkpoint.origin",
        "checkpoint.size", "checkpoint.root", "key", "key.key_id", "key.kind", "key.public_key", "cosignature",
        "cosignature.timestamp_s", "log", "path", "level", "index", "width", "bundle", "entry", "proof", "proof.extra",
        "proof.index", "proof.path", "request.old_size", "request.proof", "0", "1",
    }  # fmt: skip
