"""What an annotation file draws on a few images: outlines and keypoints, read for these alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from simgan_aug import coco
from simgan_aug.errors import DataError
from simgan_aug.geometry import mask_of

Array = np.ndarray[Any, Any]
Point = tuple[float, float]


class Shape(msgspec.Struct, frozen=True):
    """One annotation."""

    image_id: coco.Id
    id: coco.Id | None = None
    category_id: coco.Id | None = None
    bbox: list[float] | None = None
    segmentation: Any = None
    keypoints: Any = None
    """x, y, visibility, and so on."""

    @property
    def points(self) -> list[Point]:
        """The keypoints that are labelled, hidden ones too."""
        flat = self.keypoints if isinstance(self.keypoints, list) else []
        threes = zip(flat[::3], flat[1::3], flat[2::3], strict=False)
        return [(x, y) for x, y, visible in threes if _are_numbers(x, y, visible) and visible > 0]


class _Whole(msgspec.Struct):
    categories: list[coco.Category] = []
    annotations: list[Shape] = []


class _Raw(msgspec.Struct):
    categories: list[coco.Category] = []
    annotations: list[msgspec.Raw] = []
    """Bytes of the file: the shapes of a whole data set as objects would fill the memory."""


class _Owner(msgspec.Struct):
    image_id: coco.Id


def shapes_of(path: Path, names: Collection[str]) -> tuple[dict[str, list[Shape]], dict[Any, str]]:
    """The annotations of some images by `file_name`, and category names by id.

    Raises:
        DataError: the file is missing, is no JSON, or is no COCO file.
    """
    wanted = {
        image.id: image.file_name for image in coco.read_images(path) if image.file_name in names
    }
    found: dict[str, list[Shape]] = {name: [] for name in wanted.values()}
    try:
        with coco.opened(path) as text:
            categories = _kept(text, wanted, found)
    except (msgspec.DecodeError, UnicodeDecodeError):  # what Python's reader may still take
        whole = coco.read(path, _Whole)
        categories = whole.categories
        for shape in whole.annotations:
            if shape.image_id in wanted:
                found[wanted[shape.image_id]].append(shape)
    return found, {category.id: category.name for category in categories}


def outlines(shape: Shape, height: int, width: int) -> list[list[Point]]:
    """The outline of an annotation as polygons in px; none where it has no mask that makes sense.

    Args:
        shape: an annotation.
        height, width: of the image, in px.
    """
    parts = shape.segmentation
    if isinstance(parts, list):
        return [_pairs(part) for part in parts if isinstance(part, list) and _are_numbers(*part)]
    if not isinstance(parts, dict):
        return []
    annotation = coco.Annotation(image_id=shape.image_id, segmentation=parts)
    with contextlib.suppress(DataError):
        mask = mask_of(annotation, height, width).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        return [[(x + 0.5, y + 0.5) for x, y in each[:, 0].tolist()] for each in contours]
    return []


def _kept(
    text: Any, wanted: Mapping[Any, str], found: dict[str, list[Shape]]
) -> list[coco.Category]:
    """Sort the annotations of the wanted images into `found`; returns the categories."""
    raw = msgspec.json.decode(text, type=_Raw)
    owner, whole = msgspec.json.Decoder(_Owner), msgspec.json.Decoder(Shape)
    for each in raw.annotations:
        image = owner.decode(each).image_id
        if image in wanted:
            found[wanted[image]].append(whole.decode(each))
    return raw.categories


def _pairs(flat: list[float]) -> list[Point]:
    return list(zip(flat[::2], flat[1::2], strict=False))


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
