"""Where in a batch the images are, and what tells them apart: the shapes that trainers use."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from simgan_aug.errors import DataError
from simgan_aug.variety import identity_of

KEYS = ("image", "images", "img", "inputs", "pixel_values")
"""Where trainers keep the images of a batch that is a mapping; the first that is there."""

ID_KEYS = ("image_id", "image_ids", "im_file", "file_name")
"""Where they keep what tells the images apart."""

Put = Callable[[Any], Any]


def find_images(batch: Any, key: str | int | None) -> tuple[Any, Put]:
    """The images of a batch, and what puts others in their place, in a shallow copy.

    Args:
        batch: a mapping, a list of mappings, a tuple or list that begins with the images, or these
            themselves, as a tensor.
        key: where they are; None: under the first of `KEYS`, or first.

    Raises:
        DataError: they are not there, or it cannot be told where.
    """
    if key is None and isinstance(batch, (Tensor, np.ndarray)):
        return batch, lambda images: images
    if key is None and isinstance(batch, list) and batch and _are_arrays(batch, 3):
        raise DataError(
            f"a list of {len(batch)} arrays of three dimensions may be so many images, or one and "
            "its mask (torch's own collating makes lists of tuples): if all are images, set "
            "key=lambda batch, refine: refine(batch); if only some are, let it refine these"
        )
    if isinstance(batch, Mapping):
        found = next((k for k in KEYS if k in batch), None) if key is None else key
        if found is not None and found in batch:
            return batch[found], lambda images: _replaced(batch, found, images)
    elif isinstance(batch, (list, tuple)) and batch:
        if isinstance(batch[0], Mapping):
            parts = [find_images(sample, key) for sample in batch]
            return (
                [image for image, _ in parts],
                lambda images: type(batch)(
                    put(image) for (_, put), image in zip(parts, images, strict=True)
                ),
            )
        if key is None or (isinstance(key, int) and -len(batch) <= key < len(batch)):
            place = key or 0
            return batch[place], lambda images: _replaced(batch, place, images)
    looked = f"under {key!r}" if key is not None else f"under any of {', '.join(KEYS)}"
    raise DataError(
        f"no images {looked} in the batch ({contents(batch)}); say with key= where they are"
    )


def _replaced(batch: Any, key: Any, images: Any) -> Any:
    """A shallow copy of a mapping, tuple or list with another value at one place."""
    if isinstance(batch, tuple):
        parts = [*batch]
        parts[key] = images
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    changed = copy.copy(batch)
    changed[key] = images
    return changed


def _are_arrays(values: Any, *dimensions: int) -> bool:
    """Whether all are tensors or arrays of so many dimensions."""
    return all(
        isinstance(each, (Tensor, np.ndarray)) and each.ndim in dimensions for each in values
    )


def check_images(images: Any, is_certain: bool = True) -> None:
    """Reject what is no batch of images.

    Args:
        images: as they were found.
        is_certain: whether it was said where they are; else a list of images and what is none, a
            sample that was not collated, is rejected too.

    Raises:
        DataError: says what came.
    """
    batch = _are_arrays([images], 4)
    several = isinstance(images, (list, tuple)) and _are_arrays(images, 2, 3)
    if not (batch or several):
        raise DataError(
            "expected images as one tensor (B, C, H, W) or as a list of (C, H, W), got "
            f"{contents(images)}; say with key= where they are"
        )
    if several and not is_certain and len({_channels(image) for image in images}) > 1:
        raise DataError(
            "expected images of as many channels each, got shapes "
            f"{', '.join(str(tuple(image.shape)) for image in images[:4])}: samples are to be "
            "collated first; if all are images, say with key= where they are"
        )


def _channels(image: Any) -> int:
    """Of an array, (H, W, C), or a tensor, (C, H, W); one without them has 0."""
    if image.ndim == 2:
        return 0
    return int(image.shape[-1 if isinstance(image, np.ndarray) else 0])


def find_ids(batch: Any, key: str) -> list[Any] | None:
    """One value an image under a key: of the batch itself, or of the targets in it, or None."""
    if isinstance(batch, Mapping):
        if key in batch:
            return _listed(batch[key])
        parts = [batch[name] for name in ("labels", "targets", "target") if name in batch]
    elif isinstance(batch, (list, tuple)):
        parts = [batch, *batch[1:]]
    else:
        return None
    for part in parts:
        if isinstance(part, Mapping) and key in part:
            return _listed(part[key])
        samples = list(part) if isinstance(part, (list, tuple)) else []
        if samples and all(isinstance(each, Mapping) and key in each for each in samples):
            return [each[key] for each in samples]
    return None


def _listed(values: Any) -> list[Any]:
    if isinstance(values, (Tensor, np.ndarray)):
        return list(values.reshape(-1).tolist())
    return list(values) if isinstance(values, (list, tuple)) else [values]


def identity(value: Any) -> int:
    """The number that stands for an id: itself, or a hash of a name.

    Raises:
        DataError: it is neither an int nor a str.
    """
    if isinstance(value, (Tensor, np.ndarray)) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (str, os.PathLike)):
        return identity_of([os.fspath(value).encode("utf-8", "surrogatepass")])
    raise DataError(f"an image's id must be an int or a str, got {value!r}")


def contents(batch: Any) -> str:
    """What a batch is, for a message."""
    if isinstance(batch, Mapping):
        return f"{type(batch).__name__} with {', '.join(map(repr, batch.keys()))}"
    if isinstance(batch, (list, tuple)):
        kinds = ", ".join(type(part).__name__ for part in batch[:4])
        return f"{type(batch).__name__} of {len(batch)}: {kinds}"
    return f"{type(batch).__name__} {tuple(getattr(batch, 'shape', ()))}".removesuffix(" ()")
