"""PNG where Pillow is lax or reduces: checksums, 16 bits in colour, texts and colour space.

Pillow ignores the checksums of pixels, halves 16-bit colour without a word, and lets a text named
"transparency" stand for transparency.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from simgan_aug.errors import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_TEXT = 2**20
"""Most bytes that a compressed text may inflate to; Pillow's limit too."""

Array = np.ndarray[Any, Any]
Chunk = tuple[bytes, memoryview]
"""Kind and content."""

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_COLOUR_SPACE = (b"cHRM", b"cICP", b"gAMA", b"sRGB")
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_GREY_ALPHA, _RGBA = 4, 6  # colour types
_RED_FIRST = {3: [2, 1, 0], 4: [2, 1, 0, 3]}  # OpenCV has blue first; its own inverse
_HEADER_END = 33  # bytes: signature, and the header's 13 in their frame of 12


def chunks(content: bytes) -> list[Chunk]:
    """The chunks of a PNG up to its end; what follows it is ignored, as everywhere.

    Raises:
        ImageError: a chunk is cut off or has a wrong checksum, or the header is not alone and
            first.
    """
    found: list[Chunk] = []
    view, at = memoryview(content), len(SIGNATURE)
    while not found or found[-1][0] != b"IEND":
        length = int.from_bytes(view[at : at + 4])
        kind, end = bytes(view[at + 4 : at + 8]), at + 8 + length
        if end + 4 > len(view):
            raise ImageError("not a readable image: the PNG is cut off before its end")
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise ImageError(
                f"not a readable image: the PNG is damaged, its chunk {kind!r} has a wrong checksum"
            )
        found.append((kind, view[at + 8 : end]))
        at = end + 4
    headers = [place for place, (kind, _) in enumerate(found) if kind == b"IHDR"]
    if headers != [0] or len(found[0][1]) != 13:
        raise ImageError("not a readable image: a PNG begins with its one header of 13 bytes")
    return found


def without_texts(parts: Iterable[Chunk]) -> bytes:
    """The file without its texts, which Pillow takes for properties of the same name."""
    return _assembled(part for part in parts if part[0] not in _TEXTS)


def said(parts: Iterable[Chunk]) -> PngImagePlugin.PngInfo | None:
    """The texts and the colour space, byte for byte, for Pillow to write.

    Raises:
        ImageError: a text inflates to more than `MAX_TEXT`.
    """
    info = PngImagePlugin.PngInfo()
    for kind, content in parts:
        if kind in _TEXTS:
            _check_text(kind, bytes(content))
        if kind in _TEXTS + _COLOUR_SPACE:
            info.add(kind, bytes(content))
    return info if info.chunks else None


def is_deep_colour(parts: Iterable[Chunk]) -> bool:
    """Whether the file has 16 bits a channel in more channels than grey."""
    return any(kind == b"IHDR" and body[8] == 16 and body[9] != 0 for kind, body in parts)


def read_deep(parts: Sequence[Chunk], upper: Array) -> Array:
    """The exact pixels of a PNG with 16 bits a channel in colour, or in grey with alpha.

    Args:
        parts: of the file.
        upper: (H, W, 3 or 4), uint8: their upper bytes as Pillow, which is strict, reads them, grey
            with alpha as RGBA.

    Raises:
        ImageError: the upper bytes differ from those.
    """
    # Nothing but pixels, so that no gamma, orientation or animation can change them.
    bare = _assembled(part for part in parts if part[0] in _PIXELS)
    if parts[0][1][9] == _GREY_ALPHA:
        found, upper = _read_grey_alpha(bare), upper[..., [0, -1]]
    else:
        found = _read_colour(bare)
    if found.dtype != np.uint16 or not np.array_equal(found >> 8, upper):
        raise ImageError("not a readable image: two readers disagree about this 16-bit PNG")
    return found


def write_deep(pixels: Array, options: dict[str, Any]) -> bytes:
    """A PNG of (H, W, 2 to 4) uint16 pixels, with the metadata of Pillow's `save` options."""
    if pixels.shape[2] == 2:
        halves = np.ascontiguousarray(pixels, ">u2").view(np.uint8)  # (H, W, 4)
        return _relabelled(_saved(halves, options), 16, _GREY_ALPHA)
    blue_first = np.ascontiguousarray(pixels[..., _RED_FIRST[pixels.shape[2]]])
    done, encoded = cv2.imencode(".png", blue_first)
    if not done:
        raise ImageError("OpenCV could not write this 16-bit PNG")
    beside = chunks(_saved(np.zeros((1, 1), np.uint8), options))
    written = chunks(encoded.tobytes())
    return _assembled(
        [written[0], *(part for part in beside if part[0] not in _PIXELS), *written[1:]]
    )


def _read_grey_alpha(content: bytes) -> Array:
    """(H, W, 2), by a file of 8-bit RGBA: to PNG's filters and interlacing, four bytes a pixel."""
    with Image.open(io.BytesIO(_relabelled(content, 8, _RGBA)), formats=("PNG",)) as image:
        return np.array(image).view(">u2").astype(np.uint16)


def _read_colour(content: bytes) -> Array:
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise ImageError("not a readable image: OpenCV cannot read this 16-bit PNG")
    return np.ascontiguousarray(found[..., _RED_FIRST[found.shape[2]]])


def _assembled(parts: Iterable[Chunk]) -> bytes:
    framed: list[bytes | memoryview] = [SIGNATURE]
    for kind, content in parts:
        checksum = zlib.crc32(content, zlib.crc32(kind))
        framed += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)]
    return b"".join(framed)


def _relabelled(content: bytes, depth: int, colour: int) -> bytes:
    """The same file, said to be of another depth and colour type with as many bytes a pixel."""
    header = content[12:24] + bytes((depth, colour)) + content[26:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[_HEADER_END:]


def _saved(pixels: Array, options: dict[str, Any]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, format="PNG", **options)
    return target.getvalue()


def _check_text(kind: bytes, content: bytes) -> None:
    packed = b""
    _, _, rest = content.partition(b"\0")  # the key; then zTXt: method, text
    if kind == b"zTXt":
        packed = rest[1:]
    elif kind == b"iTXt" and rest[:1] == b"\1":  # flag, method, language, key again, text
        packed = rest[2:].split(b"\0", 2)[-1]
    inflating = zlib.decompressobj()
    try:
        inflating.decompress(packed, MAX_TEXT)
    except zlib.error:
        return  # a damaged text harms nobody
    if inflating.unconsumed_tail:
        raise ImageError(
            f"a text in the PNG inflates to more than {MAX_TEXT:,} bytes; remove it from the file"
        )
