"""Where an image's labels lie: masks of boxes, polygons and run lengths, and weights by label."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from simgan_aug.coco import Annotation, Id
from simgan_aug.errors import ConfigError, DataError, did_you_mean

MAX_OUTLINE = 2**22
"""Px around a polygon; a longer one is a mistake."""

Array = np.ndarray[Any, Any]


def mask_of(annotation: Annotation, height: int, width: int) -> Array:
    """Where an annotation lies, (height, width) bool: its mask, else, or if that is empty, its box.

    Raises:
        DataError: a segmentation or a box that makes no sense, or neither of them.
    """
    outline = outline_of(annotation, height, width)
    if outline is not None:
        return outline
    if annotation.segmentation and not annotation.bbox:
        return np.zeros((height, width), dtype=bool)
    with _named(annotation):
        return _box(annotation.bbox, height, width)


def outline_of(annotation: Annotation, height: int, width: int) -> Array | None:
    """The mask of an annotation, (height, width) bool; None where it has none, or an empty one, as
    some exporters write beside a box ([[]]).

    Raises:
        DataError: a segmentation that makes no sense.
    """
    shape = annotation.segmentation
    if not shape:
        return None
    with _named(annotation):
        is_packed = isinstance(shape, Mapping)
        mask = (_runs if is_packed else _polygons)(shape, height, width)
    return mask if mask.any() else None


def box_around(mask: Array) -> list[float]:
    """x, y, width and height of what a mask, which is not empty, covers."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [
        float(columns[0]),
        float(rows[0]),
        float(columns[-1] - columns[0] + 1),
        float(rows[-1] - rows[0] + 1),
    ]


@contextlib.contextmanager
def _named(annotation: Annotation) -> Iterator[None]:
    """What cannot be decoded is an error that says which annotation it is of."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        named = "" if annotation.id is None else f" (annotation {annotation.id})"
        raise DataError(
            f"image {annotation.image_id}: an annotation cannot be decoded: {reason}{named}"
        ) from None


def lies_somewhere(annotation: Annotation) -> bool:
    """Whether an annotation has a box or a mask; a caption has neither."""
    return bool(annotation.bbox) or bool(annotation.segmentation)


def labelled_area(annotations: Iterable[Annotation], height: int, width: int) -> Array:
    """Where any of these lies, (height, width) bool: see `mask_of`.

    Raises:
        DataError: as `mask_of`, but that those with neither lie nowhere.
    """
    found = np.zeros((height, width), dtype=bool)
    for annotation in filter(lies_somewhere, annotations):
        found |= mask_of(annotation, height, width)
    return found


def weight_map(
    annotations: list[Annotation],
    categories: Mapping[Id, str],
    weights: Mapping[str, float],
    height: int,
    width: int,
) -> Array:
    """How much the change of each pixel counts, by label: (height, width) float32.

    Args:
        annotations: of one image; where they overlap, the larger weight holds, and those that lie
            nowhere, as captions do, have none.
        categories: names by id.
        weights: by category name; "background" is outside of all labels, "labels" any category not
            named; both are 1 if absent.
        height, width: in px.
    """
    outside, others = weights.get("background", 1.0), weights.get("labels", 1.0)
    heaviest = np.full((height, width), -1.0, dtype=np.float32)
    for annotation in filter(lies_somewhere, annotations):
        name = (
            categories.get(annotation.category_id) if annotation.category_id is not None else None
        )
        weight = weights.get(name, others) if name is not None else others
        np.maximum(heaviest, weight, out=heaviest, where=mask_of(annotation, height, width))
    return np.where(heaviest < 0, np.float32(outside), heaviest)


def check_weights(weights: Mapping[str, float], categories: Mapping[Id, str]) -> None:
    """Reject weights of categories that a file does not have.

    Raises:
        ConfigError: an unknown name; names the nearest.
    """
    known = {"background", "labels", *categories.values()}
    for name in weights:
        if name not in known:
            raise ConfigError(
                f"regularization.labels: no category {name!r}{did_you_mean(name, known)}"
            )


def _runs(shape: Mapping[str, Any], height: int, width: int) -> Array:
    """An RLE, checked, which pycocotools does not: it reads past its memory or dies."""
    counts = shape["counts"]
    runs = _counts(counts) if isinstance(counts, str) else list(counts)
    if list(shape["size"]) != [height, width]:
        raise ValueError(f"expected a mask of {[height, width]}, got size {shape['size']}")
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"counts must be whole numbers that add up to {height * width}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def _counts(packed: str) -> list[int]:
    """Counts from COCO's string: 5 bits a character, low first; from the 4th on, differences."""
    counts: list[int] = []
    value = shift = 0
    for character in packed:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"counts have an impossible character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last character of this count
            value -= (bits & 16) << (shift - 4)  # its sign
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("counts end in the middle of a number")
    return counts


def _polygons(parts: Any, height: int, width: int) -> Array:
    """The union of polygons; one of less than three points has no area."""
    from pycocotools import mask as rle

    if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts):
        raise TypeError("expected an RLE or a list of polygons, each a list of numbers")
    corners = [np.asarray(part, dtype=np.float64) for part in parts if len(part) >= 6]
    if not corners:
        return np.zeros((height, width), dtype=bool)
    for part in corners:
        x, y = part[: len(part) // 2 * 2].reshape(-1, 2).T
        with np.errstate(all="ignore"):
            around = np.maximum(abs(x - np.roll(x, 1)), abs(y - np.roll(y, 1))).sum()
        if not around < MAX_OUTLINE:  # nor NaN: pycocotools allocates by it and dies
            raise ValueError(f"a polygon has an outline of {around:g} px")
    union = rle.merge(rle.frPyObjects(corners, height, width))
    return _runs({**union, "counts": union["counts"].decode()}, height, width)


def _box(bbox: list[float] | None, height: int, width: int) -> Array:
    if bbox is None or len(bbox) != 4:
        raise ValueError("it has neither a segmentation nor a bbox of four numbers")
    x, y, w, h = bbox
    mask = np.zeros((height, width), dtype=bool)
    left, top = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
    mask[top : max(0, int(np.ceil(y + h))), left : max(0, int(np.ceil(x + w)))] = True
    return mask
