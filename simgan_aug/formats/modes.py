"""What becomes of an image of each of Pillow's modes, and what is refused rather than reduced."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from simgan_aug.errors import ImageError

Array = np.ndarray[Any, Any]

_GREY_16 = ("I;16", "I;16L", "I;16B")


def as_pixels(image: Image.Image, deep: bool) -> tuple[Array, tuple[str, ...]]:
    """An opened image's pixels, and notes for the user about what became of them.

    Args:
        image: not decoded yet.
        deep: whether it is a PNG with 16 bits a channel in colour, of which this is the upper 8.

    Raises:
        ImageError: values would be lost.
    """
    mode, clear = image.mode, "transparency" in image.info
    grey_16 = mode in _GREY_16 or (mode == "I" and image.format == "PNG")  # "I" in older Pillows
    _refuse_reduction(image, clear and (deep or grey_16))
    notes = ["1 bit became 8-bit grey"] if mode == "1" else []
    if grey_16:
        return np.array(image).astype(np.uint16), ()
    if mode in ("1", "L", "RGB") and clear:
        target = "RGBA" if mode == "RGB" else "LA"
        notes.append("a colour declared clear became alpha")
    elif mode in ("P", "PA"):
        target = "RGBA" if mode == "PA" or clear else "RGB"
        notes.append(f"palette became {target}")
    elif mode == "CMYK":
        target, profile = "RGB", image.info.get("icc_profile")
        notes.append("CMYK became RGB" + ("; its colour profile was dropped" if profile else ""))
    elif mode in _KEPT:
        target = _KEPT[mode]
    else:
        raise ImageError(
            f"images of mode {mode} are not supported; "
            "convert it to 8-bit grey or RGB, or 16-bit grey"
        )
    return np.array(image if target == mode else image.convert(target)), tuple(notes)


_KEPT = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "YCbCr": "RGB"}


def _refuse_reduction(image: Image.Image, deep_and_clear: bool) -> None:
    if deep_and_clear:
        raise ImageError(
            "a colour declared clear is not supported in 16 bits; convert it to an alpha channel"
        )
    if image.format != "TIFF":
        return
    tags, channels = image.tag_v2, len(image.getbands())  # type: ignore[attr-defined]
    if (present := tags.get(277, channels)) > channels:
        raise ImageError(
            f"of {present} channels only {channels} would be read; save it as a PNG, whose fourth "
            "channel may be anything, or without those that are no colours"
        )
    if image.mode in _GREY_16 and tags.get(262) == 0:
        raise ImageError("16-bit grey of which 0 is white is not supported; invert it")
    if image.mode in ("RGB", "RGBA", "LA") and max(tags.get(258, (8,))) > 8:
        raise ImageError(
            "16-bit colour would lose its lower 8 bits; convert it to 8 bits or to a 16-bit PNG"
        )
