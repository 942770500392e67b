"""What each format can hold: file endings, kinds of pixels, sides and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from simgan_aug.errors import ImageError

ENDINGS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
"""The endings that denote a format; the first is the one given to new names."""

_METADATA = {
    "JPEG": ("exif", "icc_profile", "dpi"),
    "PNG": ("exif", "icc_profile", "dpi", "pnginfo"),
    "WEBP": ("exif", "icc_profile"),
    "BMP": ("dpi",),
    "TIFF": ("exif", "icc_profile", "dpi", "tiffinfo"),
}

_SIDES = {"JPEG": 65_500, "WEBP": 16_383}  # JPEG itself allows 35 more, libjpeg does not

_EXIF_IN_A_JPEG = 65_533  # bytes, with its prefix: one segment

_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION = 274

_TEXTS = (269, 270, 271, 272, 305, 306, 315, 316, 33432)
"""Tags of a TIFF that EXIF has too: description, camera, software, time, author and so on."""
_GEO_TEXTS, _GEO_NUMBERS, _XMP = (34737, 42112, 42113), (33550, 33922, 34264, 34735, 34736), 700


def kept_tags(tags: Mapping[int, Any]) -> dict[int, Any]:
    """Of a TIFF's tags those that say something of the picture, and not how the file holds it: what
    it shows, who made it when and by what, and where it lies (OGC GeoTIFF, GDAL)."""
    kinds = {_XMP: bytes, **dict.fromkeys((*_TEXTS, *_GEO_TEXTS), str)}
    found = {tag: tags[tag] for tag, kind in kinds.items() if isinstance(tags.get(tag), kind)}
    for tag in _GEO_NUMBERS:
        values = tags.get(tag)
        if isinstance(values, tuple) and all(isinstance(each, (int, float)) for each in values):
            found[tag] = values
    return found


def check_holds(pixels: np.ndarray[Any, Any], format: str) -> None:
    """Refuse pixels that a format would have to change beyond its own compression.

    Args:
        pixels: (H, W) or (H, W, C), uint8 or uint16.
        format: a key of `ENDINGS`.

    Raises:
        ImageError: without the file's name, which the caller knows.
    """
    height, width = pixels.shape[:2]
    if pixels.dtype == np.uint16 and format in ("JPEG", "WEBP"):
        raise ImageError(f"{format} cannot hold 16 bits; take png")
    if format == "JPEG" and pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        raise ImageError("JPEG has no alpha; take png or webp")
    if format == "BMP" and pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        raise ImageError("BMP has no alpha that every reader sees; take png")
    if max(height, width) > _SIDES.get(format, max(height, width)):
        raise ImageError(
            f"{format} holds sides of at most {_SIDES[format]:,} pixels, "
            f"the image is {width}x{height}; take png"
        )


def carried(metadata: Mapping[str, Any], format: str) -> dict[str, Any]:
    """What of an image's metadata a format can hold, as keyword arguments for Pillow's `save`.

    The orientation and the texts that a TIFF has as tags of its own become EXIF's.

    Raises:
        ImageError: the EXIF is longer than a JPEG can hold.
    """
    kept = {key: metadata[key] for key in _METADATA[format] if metadata.get(key)}
    of_tiff = metadata.get("tiffinfo", {})
    said = {tag: of_tiff[tag] for tag in (_ORIENTATION, *_TEXTS) if tag in of_tiff}
    if said and "exif" in _METADATA[format] and "tiffinfo" not in kept:
        tags = Image.Exif()
        tags.load(kept.get("exif", b""))
        tags.update(said)
        kept["exif"] = tags.tobytes()
    if "exif" in kept:  # a WebP may come without the prefix, which a JPEG must have
        kept["exif"] = _EXIF_PREFIX + kept["exif"].removeprefix(_EXIF_PREFIX)
    if format == "JPEG" and len(kept.get("exif", b"")) > _EXIF_IN_A_JPEG:
        raise ImageError(
            f"JPEG holds at most {_EXIF_IN_A_JPEG:,} bytes of EXIF, "
            f"the image has {len(kept['exif']):,}; take png or webp"
        )
    return kept
