"""Spans: where the values of a JSON text lie, by Python's own grammar."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simgan_aug.spans import ScanError, check_encoding, items, members, skip, strings, whole

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
)  # NaN and infinity with them
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=25,
)
DAMAGE = b',:"[]{}\\01.eE-+nN \x00\xff'
BLANKS = st.text(" \t\r\n", max_size=3)


@st.composite
def texts(draw, value=VALUES):
    """A value and a way to write it: blanks, escapes, order, doubled keys."""
    return _written(draw, draw(value))


def _written(draw, value):
    gap = lambda: draw(BLANKS)  # noqa: E731
    if isinstance(value, list):
        parts = [f"{gap()}{_written(draw, item)}{gap()}" for item in value]
        return f"[{','.join(parts) or gap()}]"
    if isinstance(value, dict):
        pairs = [*value.items()]
        pairs += draw(st.lists(st.sampled_from(pairs), max_size=1)) if pairs else []
        parts = [
            f"{gap()}{_written(draw, key)}{gap()}:{gap()}{_written(draw, item)}{gap()}"
            for key, item in pairs
        ]
        return f"{{{','.join(parts) or gap()}}}"
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


def raw(text):
    return text.encode("utf-8", "surrogatepass")


def value_at(text, span):
    return json.loads(text[slice(*span)])


def accepts(text):
    try:
        check_encoding(text)
        whole(text)
    except ScanError:
        return False
    return True


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@given(texts(), BLANKS, st.booleans())
def test_a_value_is_found_whole_whatever_surrounds_it(written, blanks, bom):
    text = (b"\xef\xbb\xbf" if bom else b"") + raw(blanks + written + blanks)

    start, stop = whole(text)

    assert text[start:stop] == raw(written)
    assert skip(text, start) == stop


@given(texts(st.dictionaries(st.text(max_size=5), VALUES)))
def test_the_members_of_an_object_are_those_that_python_reads(written):
    text = raw(written)

    found = {key: value_at(text, span) for key, span in members(text, whole(text))}

    assert repr(found) == repr(json.loads(text))  # by repr, for NaN is not equal to itself


@given(texts(st.lists(VALUES)))
def test_the_items_of_an_array_are_those_that_python_reads(written):
    text = raw(written)

    assert repr([value_at(text, span) for span in items(text, whole(text))]) == repr(
        json.loads(text)
    )


@given(texts(st.dictionaries(st.sampled_from(["file_name", "a", "ü"]), VALUES)))
@example('{"file\\u005fname": "a.png"}')
@example('{"a": 1, "file_name": "a.png", "b": [[{}]]}')
@example('{"file_name": {"file_name": "a.png"}, "file_name": "b.png"}')
def test_the_strings_of_a_key_are_found_however_it_is_written(written):
    text = raw(written)
    pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)

    found = [value_at(text, span) for span in strings(text, whole(text), "file_name")]

    assert found == [v for k, v in pairs if k == "file_name" and isinstance(v, str)]


@settings(max_examples=400)
@given(texts(), st.data())
def test_damaged_text_is_accepted_exactly_if_python_reads_it(written, data):
    text = bytearray(raw(written))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        put = data.draw(
            st.sampled_from([b"", *(bytes([b]) for b in b',:"[]{}\\01.eE-+nN \x00\xff')])
        )
        text[at : at + data.draw(st.integers(0, 1))] = put

    text = bytes(text)
    if b"\x00" not in text[:4]:  # which Python takes for UTF-16 or 32
        assert accepts(text) == is_json(text)


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"[1,]", b'{"a":1,}', b"[,1]", b"[1 2]", b'{"a" 1}', b'{1:2}', b"01", b"1.", b"+1",
     b"'a'", b'"\n"', b'"\\x"', b'"\\u12"', b"nul", b"[[[[1]]]", b"[[[[1,]]]]", b"1 1", b"\xff",
     b'"\xff"', b"-NaN", b"NaN1", b'{"a":[[[[{"b"}]]]]}'],
)  # fmt: skip
def test_what_is_no_json_is_refused(text):
    assert not accepts(text)
    assert not is_json(text)


def test_depth_is_not_bounded():
    text = b"[" * 50_000 + b"]" * 50_000

    assert whole(text) == (0, 100_000)


def test_another_encoding_is_named():
    with pytest.raises(ScanError, match="expected UTF-8, got utf-16"):
        check_encoding('{"images": []}'.encode("utf-16"))
