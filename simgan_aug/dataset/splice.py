"""Annotation files for the result: the very bytes, or with other file_name endings spliced in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from simgan_aug import coco, spans
from simgan_aug.errors import DataError
from simgan_aug.files import CHUNK

Rename = Callable[[str], str]


def spliced(path: Path, rename: Rename | None) -> Iterator[bytes]:
    """A COCO file in parts, every byte as it was but for the `file_name` tokens of its `images`.

    Args:
        path: of the file.
        rename: the new name for a name; None: no token is touched.

    Raises:
        DataError: it cannot be read, or, with `rename`, is no UTF-8 JSON object.
    """
    with coco.opened(path) as text:
        try:
            yield from spliced_text(text, rename)
        except spans.ScanError as error:
            raise DataError(
                f"{path}: cannot change its file_name endings: {error}; keep the format instead"
            ) from None


def spliced_text(text: spans.Text, rename: Rename | None) -> Iterator[bytes]:
    """The same of a text; a `ScanError` if it is none."""
    at = 0
    for start, stop in _names(text) if rename is not None else ():
        assert rename is not None
        yield from _parts(text, at, start)
        yield renamed(bytes(text[start:stop]), rename)
        at = stop
    yield from _parts(text, at, len(text))


def renamed(token: bytes, rename: Rename) -> bytes:
    """A string's token with the string renamed; if only its ending changes, nothing else does."""
    old = str(json.loads(token.decode("utf-8", "surrogatepass")))
    new = rename(old)
    if new == old:
        return token
    if new.startswith(old):
        return token[:-1] + json.dumps(new[len(old) :])[1:].encode()
    stem, dot, ending = old.rpartition(".")
    raw_ending = ending.encode("utf-8", "surrogatepass") + b'"'
    if dot and new.startswith(stem + dot) and token.endswith(b"." + raw_ending):
        return token[: -len(raw_ending)] + json.dumps(new[len(stem) + 1 :])[1:].encode()
    return json.dumps(new).encode()


def _names(text: spans.Text) -> Iterator[spans.Span]:
    spans.check_encoding(text)
    for key, place in spans.members(text, spans.whole(text)):
        if key == "images":  # twice, if the key is: readers differ in which they take
            for item in spans.items(text, place):
                yield from spans.strings(text, item, "file_name")


def _parts(text: spans.Text, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, CHUNK):
        yield bytes(text[at : min(at + CHUNK, stop)])
