"""Images of a list or a batch: some of them picked, replaced, or put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simgan_aug.devices import uploaded
from simgan_aug.pixels import Image


def rows_of(images: Image, rows: list[int]) -> Image:
    """Some images of a list, or of a batch; a batch of which all are wanted is not copied."""
    if isinstance(images, (list, tuple)):
        return [images[row] for row in rows]
    if len(rows) == len(images):
        return images
    return images[_index(rows, images)]


def with_rows(images: Image, rows: list[int], changed: Image) -> Image:
    """The images of a list, or of a batch, with some of them replaced."""
    if isinstance(images, (list, tuple)):
        listed = list(images)
        for row, image in zip(rows, changed, strict=True):
            listed[row] = image
        return type(images)(listed)
    if len(rows) == len(images):
        return changed
    whole = images.clone() if isinstance(images, Tensor) else images.copy()
    _writable(whole)[_index(rows, images)] = _writable(changed)
    return whole


def in_batches(images: Sequence[Image], refine: Callable[[Image, list[int]], Image]) -> list[Image]:
    """What `refine` makes of images, those together that are alike.

    A GPU takes as long for the calls of a small image as for those of ten.

    Args:
        images: of any kinds and sizes.
        refine: from one image, or a batch of some, and their rows to the same, refined.
    """
    groups: dict[Any, list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault(_likeness(image) or row, []).append(row)
    refined: list[Image] = [None] * len(images)
    for rows in groups.values():
        if len(rows) == 1:
            refined[rows[0]] = refine(images[rows[0]], rows)
            continue
        some = [images[row] for row in rows]
        stack = torch.stack if isinstance(some[0], Tensor) else np.stack
        for row, image in zip(rows, refine(stack(some), rows), strict=True):
            refined[row] = _typed(image, images[row])
    return refined


def _index(rows: list[int], images: Image) -> Any:
    """What picks rows; a list would wait for a GPU."""
    if not isinstance(images, Tensor):
        return rows
    return uploaded(torch.tensor(rows, dtype=torch.long, device="cpu"), images.device)


def _writable(images: Image) -> Image:
    """The same memory, in a dtype of which torch can write rows."""
    is_short = isinstance(images, Tensor) and images.dtype == torch.uint16
    return images.view(torch.int16) if is_short else images


def _likeness(image: Image) -> Any:
    """What images of one batch share; None: it goes alone, (H, W) being no row of a batch."""
    if not isinstance(image, (Tensor, np.ndarray)) or image.ndim != 3:
        return None
    device = image.device if isinstance(image, Tensor) else None
    return type(image), image.dtype, tuple(image.shape), device


def _typed(image: Image, like: Image) -> Image:
    """A row of a stack, which forgets the subclass of a tensor."""
    if not isinstance(image, Tensor) or type(like) is Tensor:
        return image
    return image.as_subclass(type(like))
