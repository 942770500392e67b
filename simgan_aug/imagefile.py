"""Decode and encode one image file: strictly, atomically, with its metadata kept."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from simgan_aug.errors import ImageError, OutputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Formats read and written; all other parsers of Pillow stay shut."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File names taken for images when a folder is searched."""

MAX_PIXELS = 200_000_000
"""Default cap on width x height, checked before anything is decoded."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ImageFile:
    """One decoded image and what its file said beside the pixels."""

    pixels: Array
    """(H, W) or (H, W, C), uint8 or uint16; raw, never rotated by its EXIF orientation."""
    format: str
    """One of `FORMATS`: what the file is, whatever its name says."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for Pillow's `save`: exif, icc_profile, dpi, pnginfo, when present."""


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Decode one file.

    Grey, grey with alpha, RGB and RGBA come as they are, 16-bit grey as uint16; palettes become
    RGB or RGBA, CMYK becomes RGB.

    Raises:
        ImageError: the file is missing, damaged, of another format, larger than `max_pixels`, of
            several frames, or of a kind that Pillow would silently reduce (16-bit colour, 32-bit).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                _check(image, path, max_pixels)
                kind, metadata = str(image.format), _metadata(image)
                return ImageFile(_pixels(image, path), kind, metadata)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: not a readable image ({', '.join(FORMATS)}): {error}") from None


def encode_image(image: ImageFile, quality: int = 95) -> bytes:
    """The image in its own format, metadata included.

    Args:
        image: what to encode.
        quality: 1 to 100, for JPEG (always 4:4:4: 4:2:0 removes the texture that refining adds) and
            for WebP.
    """
    options: dict[str, Any] = dict(image.metadata)
    if image.format == "JPEG":
        options |= {"quality": quality, "subsampling": 0}
    elif image.format == "WEBP":
        options |= {"quality": quality, "exact": True}
    elif image.format == "TIFF":
        options |= {"compression": "tiff_deflate"}
    target = io.BytesIO()
    Image.fromarray(image.pixels).save(target, format=image.format, **options)
    return target.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path) as (handle, name):
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[int, str]]:
    handle, name = tempfile.mkstemp(prefix=".simgan-", suffix=".tmp", dir=path.parent)
    try:
        yield handle, name
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check(image: Image.Image, path: str | os.PathLike[str], max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{path}: {width}x{height} is more than {max_pixels:,} pixels; "
            "raise the limit if you trust it"
        )
    if getattr(image, "n_frames", 1) != 1:
        raise ImageError(f"{path}: expected one image, the file holds {image.n_frames} frames")  # type: ignore[attr-defined]
    if _is_deep_colour(image):
        raise ImageError(
            f"{path}: 16-bit colour would lose its lower 8 bits; convert it to 8 bits first"
        )


def _is_deep_colour(image: Image.Image) -> bool:
    """16 bits a channel with more than one channel: Pillow reads these as 8 bits without a word."""
    if image.format == "PNG":
        return any("16" in str(tile[3]) for tile in _tiles(image)) and image.mode in (
            "RGB",
            "RGBA",
            "LA",
        )
    if image.format == "TIFF":
        return image.mode in ("RGB", "RGBA", "LA") and max(image.tag_v2.get(258, (8,))) > 8  # type: ignore[attr-defined]
    return False


def _tiles(image: Image.Image) -> list[Any]:
    return list(getattr(image, "tile", []))


def _metadata(image: Image.Image) -> dict[str, Any]:
    found = {key: image.info[key] for key in ("exif", "icc_profile", "dpi") if image.info.get(key)}
    if image.format == "BMP":
        found = {key: value for key, value in found.items() if key == "dpi"}
    texts = getattr(image, "text", None) if image.format == "PNG" else None
    if texts:
        info = PngImagePlugin.PngInfo()
        for key, value in texts.items():
            info.add_itxt(key, value) if isinstance(value, PngImagePlugin.iTXt) else info.add_text(
                key, value
            )
        found["pnginfo"] = info
    return found


def _pixels(image: Image.Image, path: str | os.PathLike[str]) -> Array:
    mode = image.mode
    if mode in ("I;16", "I;16L", "I;16B"):
        return np.array(image).astype(np.uint16)
    if mode == "I" and image.format == "PNG":  # Pillow's older name for 16-bit grey
        return np.array(image).astype(np.uint16)
    if mode == "1":
        return np.array(image.convert("L"))
    if mode in ("P", "PA"):
        return np.array(
            image.convert("RGBA" if mode == "PA" or "transparency" in image.info else "RGB")
        )
    if mode in ("CMYK", "YCbCr"):
        return np.array(image.convert("RGB"))
    if mode in ("L", "LA", "RGB", "RGBA"):
        return np.array(image)
    raise ImageError(
        f"{path}: images of mode {mode} are not supported; "
        "convert it to 8-bit grey or RGB, or 16-bit grey"
    )
