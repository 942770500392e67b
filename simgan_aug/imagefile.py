"""Decode and encode one image file: strictly, with its metadata kept."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from simgan_aug.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Formats read and written; all other parsers of Pillow stay shut."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File names taken for images when a folder is searched."""

MAX_PIXELS = 178_956_970
"""Default cap on width x height, checked before anything is decoded; Pillow's own, above which it
refuses whatever a caller says."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ImageFile:
    """One decoded image and what its file said beside the pixels."""

    pixels: Array
    """(H, W) or (H, W, C), uint8 or uint16; raw, never rotated by its EXIF orientation."""
    format: str
    """One of `FORMATS`: what the file is, whatever its name says."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for Pillow's `save`: exif, icc_profile, dpi, pnginfo, tiffinfo, when
    present."""


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Decode one file.

    Grey, grey with alpha, RGB and RGBA come as they are, 16-bit grey as uint16; palettes become
    RGB or RGBA, CMYK becomes RGB, a colour that a PNG declares clear becomes alpha.

    Raises:
        ImageError: the file is missing, damaged, of another format, larger than `max_pixels`, of
            several frames, or of a kind that Pillow would silently reduce (16-bit colour, 32-bit).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Not by its name, which Pillow would map into memory, where it garbles a turned TIFF.
            with Path(path).open("rb") as file, Image.open(file, formats=FORMATS) as image:
                _check(image, path, max_pixels)
                kind, orientation = str(image.format), _orientation(image)
                pixels = _UNTURNED[orientation](_pixels(image, path)).copy()
                return ImageFile(pixels, kind, _metadata(image, orientation))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a readable image ({', '.join(FORMATS)})") from None
    except Exception as error:  # of a damaged TIFF Pillow makes KeyError, TypeError, SystemError
        raise ImageError(f"{path}: not a readable image ({', '.join(FORMATS)}): {error}") from None


def upright(image: ImageFile) -> Array:
    """The pixels as a viewer shows them, turned by their orientation tag; not for labelled ones."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # a damaged tag turns nothing
        exif.load(image.metadata.get("exif", b""))
    orientation = image.metadata.get("tiffinfo", {}).get(274, exif.get(274, 1))
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return np.ascontiguousarray(_UNTURNED.get(inverse, _UNTURNED[1])(image.pixels))


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
    if len(dpi) == 2 and all(0 < value < 2**16 for value in dpi):  # what every format can hold
        found["dpi"] = tuple(dpi)
    if orientation != 1:
        found["tiffinfo"] = {274: orientation}
    if image.mode == "CMYK":  # its colour profile does not fit the RGB that comes out
        found.pop("icc_profile", None)
    if image.format == "BMP":
        found = {key: value for key, value in found.items() if key == "dpi"}
    texts = getattr(image, "text", None) if image.format == "PNG" else None
    if texts:
        info = PngImagePlugin.PngInfo()
        for key, value in texts.items():
            info.add_text(key, value)
        found["pnginfo"] = info
    return found


def _pixels(image: Image.Image, path: str | os.PathLike[str]) -> Array:
    mode = image.mode
    if mode in ("I;16", "I;16L", "I;16B"):
        return np.array(image).astype(np.uint16)
    if mode == "I" and image.format == "PNG":  # Pillow's older name for 16-bit grey
        return np.array(image).astype(np.uint16)
    if mode in ("1", "L", "RGB") and "transparency" in image.info:  # one colour that is clear
        return np.array(image.convert("RGBA" if mode == "RGB" else "LA"))
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
