"""Decode and encode one image file: strictly, with its metadata kept."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from simgan_aug.errors import ImageError
from simgan_aug.formats import png
from simgan_aug.formats.holds import ENDINGS, carried, check_holds, kept_tags
from simgan_aug.formats.modes import as_pixels

FORMATS = tuple(ENDINGS)
"""Formats read and written; all other parsers of Pillow stay shut."""

TARGETS = ("PNG", "JPEG", "WEBP")
"""Formats that an image of any other can be written in."""

SUFFIXES = tuple(itertools.chain(*ENDINGS.values()))
"""File names taken for images when a folder is searched."""

MAX_PIXELS = 178_956_970
"""Default cap on width x height, checked before anything is decoded; Pillow's own, above which it
refuses whatever a caller says."""

LOSSLESS = "lossless"
"""Key in the metadata of a WebP that keeps every level."""

MAX_BYTES = 2**31
"""Cap on the length of a file, checked before it is read."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ImageFile:
    """One decoded image and what its file said beside the pixels."""

    pixels: Array
    """(H, W) or (H, W, C), uint8 or uint16; raw, never rotated by its EXIF orientation."""
    format: str
    """One of `FORMATS`: what the file is, whatever its name says."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for Pillow's `save`: exif (bytes), icc_profile, dpi, pnginfo, tiffinfo,
    lossless (of a WebP), when present."""
    notes: tuple[str, ...] = ()
    """What a user would like to know about how the file was read, without its name."""


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Decode one file, as `decode_image` does.

    Raises:
        ImageError: the file is missing, longer than `MAX_BYTES`, or refused by `decode_image`.
    """
    return decode_image(content_of(path), str(path), max_pixels)


def content_of(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: the file is missing, unreadable, longer than `MAX_BYTES`, or no regular file.
    """
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
            return Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file") from None
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        raise ImageError(f"{path}: {_UNREADABLE}: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path}: is a directory, not an image file")
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, for ever
        raise ImageError(f"{path}: is no regular file")
    raise ImageError(
        f"{path}: expected a file of at most {MAX_BYTES:,} bytes, got {status.st_size:,}; "
        "convert it to a smaller image"
    )


def decode_image(
    content: bytes, name: str, max_pixels: int = MAX_PIXELS, quiet: bool = True
) -> ImageFile:
    """Decode the bytes of one file.

    Grey, grey with alpha, RGB and RGBA come as they are, in uint16 where a PNG has 16 bits (a TIFF:
    of grey only); palettes become RGB or RGBA, CMYK becomes RGB, a colour that a PNG declares clear
    becomes alpha.

    Args:
        content: the whole file.
        name: of the file, for notes and errors.
        max_pixels: the most that width x height may be.
        quiet: keep to ourselves what Pillow warns of, damage to what is not pixels. Not in a
            thread beside others: which warnings show is a setting of the whole process.

    Raises:
        ImageError: the file is damaged, of another format, larger than `max_pixels`, of several
            frames, or of a kind that would be reduced (16-bit colour in a TIFF, 32-bit).
    """
    try:
        with _silence() if quiet else contextlib.nullcontext():
            return _decoded(content, name, max_pixels)
    except (ImageError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_UNREADABLE}") from None
    except Exception as error:  # of a damaged TIFF Pillow makes KeyError, TypeError, SystemError
        raise ImageError(f"{name}: {_UNREADABLE}: {error}") from None


def upright(image: ImageFile) -> Array:
    """The pixels as a viewer shows them, turned by their orientation tag; not for labelled ones."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # a damaged tag turns nothing
        exif.load(image.metadata.get("exif", b""))
    orientation = image.metadata.get("tiffinfo", {}).get(274, exif.get(274, 1))
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return np.ascontiguousarray(_UNTURNED.get(inverse, _UNTURNED[1])(image.pixels))


def encode_image(image: ImageFile, quality: int = 95, format: str | None = None) -> bytes:
    """The image in its own format or another, with what metadata that can hold.

    Args:
        image: what to encode.
        quality: 1 to 100, for JPEG (always 4:4:4: 4:2:0 removes the texture that refining adds) and
            for WebP.
        format: one of `TARGETS`; None keeps the image's own.

    Raises:
        ImageError: the format cannot hold the pixels or the EXIF; the message lacks the file's
            name, which the caller knows.
    """
    if format not in (None, *TARGETS):
        raise ImageError(f"expected a format of {', '.join(TARGETS)}, or None; got {format!r}")
    target = format or image.format
    check_holds(image.pixels, target)
    try:
        options = carried(image.metadata, target)
        if target == "PNG" and image.pixels.dtype == np.uint16 and image.pixels.ndim == 3:
            return png.write_deep(image.pixels, options)
        exact = target == "WEBP" and bool(image.metadata.get(LOSSLESS))
        return _saved(image.pixels, target, options | _compression(target, quality, exact))
    except ImageError:
        raise
    except Exception as error:  # what Pillow makes of pixels or metadata that it cannot write
        kind = f"{image.pixels.dtype} pixels of shape {image.pixels.shape}"
        raise ImageError(f"{kind} cannot be written as {target}: {error}; take png") from None


def suffixed(name: str, format: str) -> str:
    """A file's name with the ending of a format, in place of another image's ending if it has one.

    "a.bmp" becomes "a.png", "a.0001" becomes "a.0001.png"; a name that already denotes the format,
    such as "a.JPEG", stays.
    """
    stem, ending = os.path.splitext(name)
    if ending.lower() in ENDINGS[format]:
        return name
    return (stem if ending.lower() in SUFFIXES else name) + ENDINGS[format][0]


_UNREADABLE = f"not a readable image ({', '.join(FORMATS)})"


def _decoded(content: bytes, name: str, max_pixels: int) -> ImageFile:
    parts = png.chunks(content) if content.startswith(png.SIGNATURE) else []
    # Never by its name, which Pillow would map into memory, where it garbles a turned TIFF.
    readable = io.BytesIO(png.without_texts(parts) if parts else content)
    with Image.open(readable, formats=FORMATS) as image:
        _check(image, max_pixels)
        kind, orientation = str(image.format), _orientation(image)
        deep = png.is_deep_colour(parts)
        pixels, notes = as_pixels(image, deep)
        if deep:
            pixels = png.read_deep(parts, pixels)
        metadata = _metadata(image, orientation)
    if said := png.said(parts):
        metadata["pnginfo"] = said
    if kind == "WEBP" and _is_lossless(content):
        metadata[LOSSLESS] = True
    ending = os.path.splitext(name)[1].lower()
    if ending in SUFFIXES and ending not in ENDINGS[kind]:
        notes = (f"is a {kind} by its content, whatever its name says", *notes)
    return ImageFile(_UNTURNED[orientation](pixels).copy(), kind, metadata, notes)


def _is_lossless(content: bytes) -> bool:
    """Whether a WebP keeps every level: a chunk of it says so (RFC 9649, section 2.6)."""
    place = 12  # after "RIFF", the size and "WEBP"
    while place + 8 <= len(content):
        if content[place : place + 4] == b"VP8L":
            return True
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return False


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        for kind in (Image.DecompressionBombWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield


def _check(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{width}x{height} is more than {max_pixels:,} pixels; raise the limit if you trust it"
        )
    if getattr(image, "n_frames", 1) != 1:
        raise ImageError(f"expected one image, the file holds {image.n_frames} frames")  # type: ignore[attr-defined]


_UNTURNED: dict[int, Callable[[Array], Array]] = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: np.rot90,
    7: lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    8: lambda pixels: np.rot90(pixels, -1),
}  # by TIFF orientation, which Pillow applies while it decodes; for no other format does it so


def _orientation(image: Image.Image) -> int:
    """The orientation that Pillow will apply to the pixels."""
    found = image.tag_v2.get(274) if image.format == "TIFF" else 1  # type: ignore[attr-defined]
    return found if found in _UNTURNED else 1


def _metadata(image: Image.Image, orientation: int) -> dict[str, Any]:
    """What the file said beside its pixels; after they are decoded, for a PNG may say it last."""
    found = {key: image.info[key] for key in ("exif", "icc_profile") if image.info.get(key)}
    dpi = [float(value) for value in image.info.get("dpi", ())]
    if image.format == "TIFF" and 282 not in image.tag_v2:  # type: ignore[attr-defined]
        dpi = []  # Pillow's invention: 1 dpi
    if len(dpi) == 2 and all(0 < value < 2**16 for value in dpi):  # what every format can hold
        found["dpi"] = tuple(dpi)
    tags = kept_tags(image.tag_v2) if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    if orientation != 1:
        tags[274] = orientation
    if tags:
        found["tiffinfo"] = tags
    if image.mode == "CMYK":  # its colour profile does not fit the RGB that comes out
        found.pop("icc_profile", None)
    if image.format == "BMP":
        found = {key: value for key, value in found.items() if key == "dpi"}
    return found


def _saved(pixels: Array, format: str, options: dict[str, Any]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, format=format, **options)
    return target.getvalue()


def _compression(format: str, quality: int, exact: bool) -> dict[str, Any]:
    if format == "JPEG":
        return {"quality": quality, "subsampling": 0}
    if format == "WEBP" and exact:
        return {"lossless": True, "exact": True}
    if format == "WEBP":
        return {"quality": quality, "exact": True}
    return {"compression": "tiff_deflate"} if format == "TIFF" else {}
