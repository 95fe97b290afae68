"""The layout: order, digest, strict JSON form, differences in words."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.layout import Layout

PLAIN = Layout.from_shapes({"b": (2, 3), "a": (4,), "c": (1, 1)})


def refusal(value: object) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        Layout.from_json_value(value)
    assert caught.value.reason is AdapterRejectReason.BAD_LAYOUT
    return caught.value


def one(name: object = "a", shape: object = (1,)) -> dict[str, object]:
    return {"tensors": [{"name": name, "shape": list(shape) if isinstance(shape, tuple) else shape}]}


def test_names_are_sorted_and_offsets_follow():
    assert [name for name, _ in PLAIN.tensors] == ["a", "b", "c"]
    assert PLAIN.offsets == (0, 4, 10, 11)
    assert PLAIN.dimension == 11


def test_names_are_sorted_by_utf_8_bytes_and_not_by_utf_16():
    # U+FFFD sorts above a surrogate pair in UTF-16 and below it in UTF-8.
    layout = Layout.from_shapes({"\U00010000": (1,), "\ufffd": (1,)})
    assert [name for name, _ in layout.tensors] == ["\ufffd", "\U00010000"]


def test_the_digest_is_sha_256_over_the_canonical_json():
    text = b'{"tensors":[{"name":"a","shape":[4]},{"name":"b","shape":[2,3]},{"name":"c","shape":[1,1]}]}'
    assert PLAIN.digest == hashlib.sha256(text).digest()


def test_the_digest_never_changes():
    layout = Layout.from_shapes({"base_model.model.ä.lora_A.weight": (8, 64)})
    assert layout.digest.hex() == "0c05845c539e320bd3cf64bf1db994c698202c86f823ff82e486e49054672827"


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6),
        st.lists(st.integers(1, 50), min_size=1, max_size=3).map(tuple),
        min_size=1,
        max_size=6,
    )
)
def test_json_form_and_back_is_the_identity(shapes):
    layout = Layout.from_shapes(shapes)
    again = Layout.from_json_value(layout.to_json_value())
    assert again == layout
    assert again.digest == layout.digest
    assert layout.first_difference(again) is None


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, "layout"),
        ([], "layout"),
        ({}, "layout"),
        ({"tensors": [], "more": 1}, "layout"),
        ({"tensors": []}, "tensors"),
        ({"tensors": {}}, "tensors"),
        ({"tensors": ["a"]}, "tensors[0]"),
        ({"tensors": [{"name": "a"}]}, "tensors[0]"),
        ({"tensors": [{"name": "a", "shape": [1], "dtype": "F32"}]}, "tensors[0]"),
        (one(name=1), "tensors[0].name"),
        (one(name=""), "tensors[0].name"),
        (one(name="\ud800"), "tensors[0].name"),
        (one(name="n" * 1025), "tensors[0].name"),
        (one(shape="12"), "tensors[0].shape"),
        (one(shape=()), "tensors[0].shape"),
        (one(shape=(1,) * 9), "tensors[0].shape"),
        (one(shape=(1, 0)), "tensors[0].shape[1]"),
        (one(shape=(-1,)), "tensors[0].shape[0]"),
        (one(shape=(True,)), "tensors[0].shape[0]"),
        (one(shape=(1.0,)), "tensors[0].shape[0]"),
        (one(shape=(2**31 + 1,)), "tensors[0].shape[0]"),
        (one(shape=(2**16, 2**16)), "tensors[0].shape"),
        ({"tensors": [*one("a")["tensors"], *one("a")["tensors"]]}, "tensors[1].name"),
        ({"tensors": [*one("b")["tensors"], *one("a")["tensors"]]}, "tensors[1].name"),
        ({"tensors": [*one("a", (2**31,))["tensors"], *one("b")["tensors"]]}, "tensors[1].shape"),
    ],
)
def test_a_refusal_names_the_field(value, field):
    error = refusal(value)
    assert error.field == field
    assert field in str(error)


def test_duplicates_and_disorder_are_told_apart():
    assert "given twice" in str(refusal({"tensors": [*one("a")["tensors"], *one("a")["tensors"]]}))
    assert "out of order" in str(refusal({"tensors": [*one("b")["tensors"], *one("a")["tensors"]]}))


def test_the_largest_layout_can_be_constructed():
    assert Layout.from_shapes({"a": (2**15, 2**16)}).dimension == 2**31


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"a": (4,), "c": (1, 1)}, "tensor 'b' of shape (2, 3) is missing"),
        ({"a": (4,), "aa": (9,), "b": (2, 3), "c": (1, 1)}, "tensor 'aa' of shape (9,) is not in the layout"),
        ({"a": (4,), "b": (3, 2), "c": (1, 2)}, "tensor 'b' has shape (3, 2), the layout says (2, 3)"),
    ],
)
def test_the_first_difference_is_said_in_words(shapes, words):
    assert PLAIN.first_difference(Layout.from_shapes(shapes)) == words


def test_split_gives_views_in_c_order():
    vector = np.arange(11, dtype=np.float32)
    pieces = PLAIN.split(vector)
    assert pieces["b"].tolist() == [[4, 5, 6], [7, 8, 9]]
    pieces["c"][0, 0] = 99
    assert vector[10] == 99


@pytest.mark.parametrize(
    "vector",
    [np.zeros(10, np.float32), np.zeros(11), np.zeros((11, 1), np.float32), np.zeros(22, np.float32)[::2]],
)
def test_a_vector_that_does_not_fit_is_not_split(vector):
    with pytest.raises(AdapterError) as caught:
        PLAIN.split(vector)
    assert caught.value.reason is AdapterRejectReason.BAD_VECTOR
