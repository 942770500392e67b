"""Where in a JSON text its values lie, found without building them: memory stays flat.

The grammar is that of Python's `json` (with its NaN and Infinity); only depth and length of numbers
are not bounded. `check_encoding` and `whole` check a text; the others expect spans of such a one.
A text is UTF-8, with a byte order mark or not, as bytes or as a file mapped into memory.
"""

from __future__ import annotations

import codecs
import functools
import json
import mmap
import re
from collections.abc import Iterator

Text = bytes | mmap.mmap
Span = tuple[int, int]

_BOM = codecs.BOM_UTF8
_WS = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+"
_SCALAR = rb"(?:%b|%b|true|false|null|NaN|-?Infinity)" % (_STRING, _NUMBER)


def _listed(item: bytes, opening: bytes, closing: bytes) -> bytes:
    """A container of items, as a pattern that never backtracks."""
    parts = {b"o": opening, b"c": closing, b"i": item, b"w": _WS}
    return rb"%(o)b%(w)b(?:%(i)b%(w)b(?:,%(w)b%(i)b%(w)b)*+)?+%(c)b" % parts


def _nested(inner: bytes) -> bytes:
    """A value whose containers hold values that `inner` matches."""
    member = rb"%b%b:%b%b" % (_STRING, _WS, _WS, inner)
    array, thing = _listed(inner, rb"\[", rb"\]"), _listed(member, rb"\{", rb"\}")
    return rb"(?:%b|%b|%b)" % (_SCALAR, array, thing)


# Three levels at once is what an annotation is made of; deeper ones are walked.
_VALUE = re.compile(_nested(_nested(_nested(_SCALAR))))
_SPACE = re.compile(_WS)
_KEY = re.compile(rb"(%b)%b:%b" % (_STRING, _WS, _WS))
_TOKEN = re.compile(_STRING)


class ScanError(ValueError):
    """A text is no JSON; says what was expected at which byte."""


def whole(text: Text) -> Span:
    """Where the one value of a text lies, past a byte order mark and blanks.

    Raises:
        ScanError: the text is not one JSON value.
    """
    start = _space(text, len(_BOM) if text[: len(_BOM)] == _BOM else 0)
    end = skip(text, start)
    if _space(text, end) != len(text):
        raise ScanError(f"expected the end of the text at byte {end}")
    return start, end


def members(text: Text, span: Span) -> Iterator[tuple[str, Span]]:
    """The members of an object, in order: key, and where its value lies.

    Raises:
        ScanError: the span is no object.
    """
    if text[span[0] : span[0] + 1] != b"{":
        raise ScanError(f"expected an object at byte {span[0]}")
    at = _space(text, span[0] + 1)
    while text[at : at + 1] != b"}":
        key = _key(text, at)
        end = skip(text, key.end())
        yield decoded(text, key.span(1)), (key.end(), end)
        at = _next(text, end, b"}")


def items(text: Text, span: Span) -> Iterator[Span]:
    """Where the items of an array lie, in order.

    Raises:
        ScanError: the span is no array.
    """
    if text[span[0] : span[0] + 1] != b"[":
        raise ScanError(f"expected an array at byte {span[0]}")
    at = _space(text, span[0] + 1)
    while text[at : at + 1] != b"]":
        end = skip(text, at)
        yield at, end
        at = _next(text, end, b"]")


def strings(text: Text, span: Span, key: str) -> Iterator[Span]:
    """Where the strings lie that an object holds under a key; there may be several, or none.

    Raises:
        ScanError: the span is no object.
    """
    plain = _plain(key).match(text, span[0])
    if plain is not None and plain.end() == span[1]:
        yield plain.span(1)
        return
    for name, value in members(text, span):
        if name == key and is_string(text, value):
            yield value


def skip(text: Text, at: int) -> int:
    """Where the value that begins at a byte ends.

    Raises:
        ScanError: there is no value, or none that ends.
    """
    opened = bytearray()  # closing brackets awaited
    while True:
        value = _VALUE.match(text, at)
        if value is not None:
            at = value.end()
        else:  # deeper than the pattern: enter it
            bracket = text[at : at + 1]
            if bracket not in (b"[", b"{"):
                raise ScanError(f"expected a value at byte {at}")
            opened += b"]" if bracket == b"[" else b"}"
            at = _enter(text, _space(text, at + 1), opened[-1:])
            continue
        while opened:
            at = _next(text, at, bytes(opened[-1:]))
            if text[at : at + 1] != bytes(opened[-1:]):
                at = _enter(text, at, opened[-1:])
                break
            opened.pop()
            at += 1
        else:
            return at


def decoded(text: Text, span: Span) -> str:
    """The string whose token lies there."""
    return str(json.loads(bytes(text[span[0] : span[1]]).decode("utf-8", "surrogatepass")))


def is_string(text: Text, span: Span) -> bool:
    """Whether a value is a string."""
    return text[span[0] : span[0] + 1] == b'"'


def check_encoding(text: Text) -> None:
    """Reject what is not UTF-8 (lone surrogates are let pass, as Python's `json` does).

    Raises:
        ScanError: says where, or which encoding it is.
    """
    encoding = json.detect_encoding(text[:4])
    if encoding not in ("utf-8", "utf-8-sig"):
        raise ScanError(f"expected UTF-8, got {encoding}")
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    for start in range(0, len(text), 2**22):
        try:
            decoder.decode(text[start : start + 2**22], final=start + 2**22 >= len(text))
        except UnicodeDecodeError as error:
            raise ScanError(f"not UTF-8 near byte {start + error.start}: {error.reason}") from None


@functools.cache
def _plain(key: str) -> re.Pattern[bytes]:
    """An object of flat values, keys without escapes, that has a string under this key once."""
    name = rb'"%b"' % re.escape(key).encode()
    other = rb'(?!%b)"[^"\\\x00-\x1f]*+"%b:%b%b%b' % (name, _WS, _WS, _nested(_SCALAR), _WS)
    before, after = rb"(?:%b,%b)*+" % (other, _WS), rb"(?:,%b%b)*+" % (_WS, other)
    value = rb"%b%b:%b(%b)%b" % (name, _WS, _WS, _STRING, _WS)
    return re.compile(rb"\{%b%b%b%b\}" % (_WS, before, value, after))


def _space(text: Text, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _enter(text: Text, at: int, closing: bytes | bytearray) -> int:
    """Where the next value of an open container begins: behind its key, in an object."""
    return at if closing == b"]" else _key(text, at).end()


def _key(text: Text, at: int) -> re.Match[bytes]:
    key = _KEY.match(text, at)
    if key is None:
        raise ScanError(f"expected a key and a colon at byte {at}")
    return key


def _next(text: Text, at: int, closing: bytes) -> int:
    """From the end of an item to the next item, or to the bracket that closes."""
    at = _space(text, at)
    if text[at : at + 1] == closing:
        return at
    if text[at : at + 1] != b",":
        raise ScanError(f"expected a comma or {closing.decode()!r} at byte {at}")
    at = _space(text, at + 1)
    if text[at : at + 1] == closing:
        raise ScanError(f"expected another item after the comma, got {closing.decode()!r} at {at}")
    return at
