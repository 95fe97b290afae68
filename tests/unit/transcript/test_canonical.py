from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secagg.transcript import canonical
from secagg.transcript.canonical import MAX_DEPTH, MAX_INTEGER, CanonicalError

keys = st.text(st.characters(max_codepoint=127), max_size=8)
values = st.recursive(
    st.one_of(st.integers(-MAX_INTEGER, MAX_INTEGER), st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)
# JSON that is often one step away from canonical: spaces, order, escapes, other number forms.
near_misses = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda value, indent, sort, escape: json.dumps(
            value, indent=indent, sort_keys=sort, ensure_ascii=escape
        ).encode("utf-8", "surrogatepass"),
        values,
        st.sampled_from((None, 0, 1)),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        lambda value, at, byte: (
            (data := canonical.encode(value))[: at % len(data)] + bytes([byte]) + data[at % len(data) :]
        ),
        values,
        st.integers(0, 60),
        st.sampled_from(b' \t\n\r0123456789.eE+-"\\{}[],:\x00\x7f\xc0\xef'),
    ),
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@given(values)
def test_what_is_encoded_decodes_to_the_same_value(value):
    data = canonical.encode(value)
    assert canonical.decode(data) == value
    assert canonical.encode(canonical.decode(data)) == data


@settings(max_examples=400)
@given(near_misses)
@example(b"-0")
@example(b"[1, 2]")
@example(b'{"b":1,"a":1}')
@example(b'"\\/"')
@example(b'"\\u0041"')
def test_whatever_decodes_is_exactly_what_encode_gives_and_nothing_but_a_canonical_error_escapes(data):
    try:
        value = canonical.decode(data)
    except CanonicalError:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"1.0", "not JSON"),
        (b"1e3", "not JSON"),
        (b"[0.5]", "not JSON"),
        (b"NaN", "not JSON"),
        (b"Infinity", "not JSON"),
        (b"-Infinity", "not JSON"),
        (b"true", "bool"),
        (b'{"a":false}', "bool"),
        (b"null", "NoneType"),
        (b"[null]", "NoneType"),
        (b'{"a":1,"a":1}', "not in canonical form"),
        (b'{"a":1,"a":2}', "not in canonical form"),
        (b'{"b":1,"a":2}', "not in canonical form"),
        (b'{"a": 1}', "not in canonical form"),
        (b" 1", "not in canonical form"),
        (b"1\n", "not in canonical form"),
        (b"[1,\t2]", "not in canonical form"),
        (b"-0", "not in canonical form"),
        (b"01", "not JSON"),
        (b"+1", "not JSON"),
        (b'"\\u00e9"', "not in canonical form"),
        (b'"\\u0041"', "not in canonical form"),
        (b'"\\/"', "not in canonical form"),
        (b'"\x00"', "not JSON"),
        (b'"\\ud800"', "lone surrogate"),
        (b'"\\udfff\\ud800"', "lone surrogate"),
        (b'"\xed\xa0\x80"', "not JSON"),
        (b'"\xc1\x81"', "not JSON"),
        (b'"\xff"', "not JSON"),
        (b"\xef\xbb\xbf1", "not JSON"),
        (b"", "not JSON"),
        (b"1 1", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"'a'", "not JSON"),
        (str(2**53).encode(), r"2\^53"),
        (str(-(2**53)).encode(), r"2\^53"),
        (b"9" * 4000, r"2\^53"),
        (b"9" * 5000, "not JSON"),
        ('{"\u00e9":1}'.encode(), "not ASCII"),
        (nested(MAX_DEPTH + 2), "nested deeper"),
        (nested(100_000), "not JSON|nested deeper"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not JSON|nested deeper"),
    ],
    ids=lambda part: part[:16] if isinstance(part, bytes) else None,
)
def test_what_has_no_canonical_form_is_refused_with_a_reason(data, why):
    with pytest.raises(CanonicalError, match=why):
        canonical.decode(data)


@pytest.mark.parametrize(
    "value",
    [1.0, float("nan"), True, None, b"bytes", (1, 2), {1, 2}, 2**53, -(2**53), "\ud800", {"\u00e9": 1}, {1: 1}],
    ids=repr,
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"a": v}], ids=["bare", "list", "object"])
def test_a_value_that_the_format_does_not_have_is_not_encoded(value, wrap):
    with pytest.raises(CanonicalError):
        canonical.encode(wrap(value))


def test_the_largest_integers_and_the_deepest_nesting_are_accepted():
    for value in (MAX_INTEGER, -MAX_INTEGER):
        assert canonical.decode(str(value).encode()) == value
    assert canonical.encode(canonical.decode(nested(MAX_DEPTH + 1))) == nested(MAX_DEPTH + 1)


def test_text_is_escaped_only_where_json_demands_it():
    assert canonical.encode('\u00e9\u20ac\U0001f600"\\\n\x00\x7f/') == (
        '"\u00e9\u20ac\U0001f600\\"\\\\\\n\\u0000\x7f/"'.encode()
    )


def test_keys_are_in_order_of_their_code_points():
    assert canonical.encode({"b": 1, "B": 2, "a": 3, "": 4, "_": 5}) == b'{"":4,"B":2,"_":5,"a":3,"b":1}'


@pytest.mark.parametrize("data", [b"[]", b"1", b'"a"'])
def test_decode_object_accepts_objects_only(data):
    assert canonical.decode_object(b"{}") == {}
    with pytest.raises(CanonicalError, match="not an object"):
        canonical.decode_object(data)


def test_a_long_key_costs_no_copy_for_each_item_below_it_and_is_not_quoted_whole():
    data = b'{"' + b"a" * 1_500_000 + b'":[' + b",".join([b"1"] * 100_000) + b"]}"
    started = time.process_time()
    canonical.decode(data)
    # Copying such a key for each of 250 000 items took 8 s; without it, 0.07 s.
    assert time.process_time() - started < 1
    with pytest.raises(CanonicalError) as caught:
        canonical.decode(data.replace(b"1]", b"null]"))
    assert len(str(caught.value)) < 200
