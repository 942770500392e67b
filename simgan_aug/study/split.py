"""The images of one side as a probe sees them: small, in memory, with their labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from simgan_aug import coco
from simgan_aug.coco import Annotation
from simgan_aug.errors import DataError, ImageError
from simgan_aug.folders import list_images
from simgan_aug.geometry import mask_of
from simgan_aug.imagefile import read_image, upright
from simgan_aug.study import canvas
from simgan_aug.study.canvas import Region, Size, View
from simgan_aug.study.labelled import LEAST, Labelled, Looks, drawn

Array = np.ndarray[Any, Any]


class Label(NamedTuple):
    """One object on a canvas."""

    category: int
    box: tuple[float, float, float, float] | None
    """x, y, width, height in px of the canvas."""
    points: Array
    """(K, 3): x and y in px of the canvas, and visibility (0: not labelled)."""


@dataclass(frozen=True)
class Split:
    """One side: canvases, and the labels on them if there are any."""

    images: Array
    """(N, H, W, 3) uint8."""
    views: tuple[View, ...]
    labels: tuple[tuple[Label, ...], ...] = ()
    maps: Array | None = None
    """(N, H, W) uint8: 0 outside of labels, else 1 + category."""

    def __len__(self) -> int:
        """Canvases."""
        return len(self.images)

    @property
    def size(self) -> Size:
        """Of a canvas."""
        return self.images.shape[2], self.images.shape[1]

    @property
    def fingerprint(self) -> str:
        """Of all pixels and labels."""
        digest = xxhash.xxh3_128(self.images.tobytes())
        digest.update(repr((self.images.shape, self.views)).encode())
        for label in (label for labels in self.labels for label in labels):
            digest.update(repr((label.category, label.box, label.points.tolist())).encode())
        digest.update(b"" if self.maps is None else self.maps.tobytes())
        return str(digest.hexdigest())

    def pictures(self, images: Array) -> list[Array]:
        """What of its canvases, or of others made from them, is picture; bars are none."""
        pairs = zip(images, self.views, strict=True)
        return [np.ascontiguousarray(canvas.content(image, view.region)) for image, view in pairs]

    def rows(self, kept: Array) -> Split:
        """Some of the canvases, in the order given."""
        return dataclasses.replace(
            self,
            images=self.images[kept],
            views=tuple(self.views[row] for row in kept),
            labels=tuple(self.labels[row] for row in kept) if self.labels else (),
            maps=None if self.maps is None else self.maps[kept],
        )


def read_split(
    source: Labelled, looks: Looks, size: Size, categories: Sequence[str], maps: bool
) -> Split:
    """The canvases of a COCO file and the labels on them.

    Args:
        source: see `open_labelled`.
        looks: the task.
        size: of a canvas.
        categories: by name; labels of others do not count.
        maps: whether to decode masks.

    Raises:
        DataError: an image or a label cannot be read, or too few images are of use.
    """
    place = {name: number for number, name in enumerate(categories)}
    images, views, labels, drawings = [], [], [], []
    for entry in source.entries:
        path = coco.inside(source.folder, entry.file_name)
        pixels = read_image(path).pixels
        coco.check_size(entry, *pixels.shape[:2])
        known = [a for a in source.by_image.get(entry.id, []) if source.category(a) in place]
        for region, kept in looks.views(known, (pixels.shape[1], pixels.shape[0])):
            numbers = [place[source.category(each)] for each in kept]
            images.append(canvas.put(pixels, region, size))
            views.append(View(entry.file_name, region, (pixels.shape[1], pixels.shape[0])))
            labels.append(
                tuple(map(_label, kept, numbers, [region] * len(kept), [size] * len(kept)))
            )
            if maps:
                drawing = _drawing(kept, numbers, *pixels.shape[:2])
                drawings.append(canvas.put_map(drawing, region, size))
    if len(images) < LEAST:
        raise DataError(
            f"{source.path}: {len(images)} of {len(source.entries)} images have labels that this "
            f"task can use (categories: {', '.join(categories)}); expected at least {LEAST}"
        )
    return Split(
        np.stack(images), tuple(views), tuple(labels), np.stack(drawings) if maps else None
    )


def read_photos(folder: Path, size: Size, limit: int) -> Split:
    """Real photos without labels.

    Raises:
        DataError: the folder has too few images, or one cannot be read.
    """
    names = list_images(folder)
    if len(names) < LEAST:
        raise DataError(f"{folder}: expected at least {LEAST} photos, got {len(names)}")
    images, views = [], []
    for name in drawn(names, limit):
        pixels = upright(read_image(folder / name))
        region = (0, 0, pixels.shape[1], pixels.shape[0])
        images.append(canvas.put(pixels, region, size))
        views.append(View(name, region, region[2:]))
    return Split(np.stack(images), tuple(views))


def canvases(
    views: Iterable[View], size: Size, pixels_of: Callable[[str], Array]
) -> Iterator[Array]:
    """The canvases of views when their images are other ones; each image is asked for once.

    Raises:
        ImageError: an image has not the size of the one that was labelled.
    """
    for name, group in groupby(views, key=lambda view: view.name):
        pixels = pixels_of(name)
        for view in group:
            if (pixels.shape[1], pixels.shape[0]) != view.whole:
                raise ImageError(
                    f"{name}: expected {view.whole[0]}x{view.whole[1]} px as the synthetic image "
                    f"has, got {pixels.shape[1]}x{pixels.shape[0]}"
                )
            yield canvas.put(pixels, view.region, size)


def _label(annotation: Annotation, category: int, region: Region, size: Size) -> Label:
    box, keypoints = annotation.bbox, annotation.keypoints
    found = None
    if box is not None and len(box) == 4 and np.isfinite(box).all():
        corners = np.array([box[:2], [box[0] + box[2], box[1] + box[3]]], float)
        (left, top), (right, bottom) = canvas.points_on(corners, region, size).tolist()
        found = left, top, right - left, bottom - top
    points = np.zeros((0, 3))
    if isinstance(keypoints, list) and keypoints:
        points = _points(annotation).copy()
        points[:, :2] = canvas.points_on(points[:, :2], region, size)
    return Label(category, found, points)


def _points(annotation: Annotation) -> Array:
    """(K, 3)."""
    try:
        points = np.array(annotation.keypoints, float).reshape(-1, 3)
    except (TypeError, ValueError):
        points = np.full((1, 3), np.nan)
    if not np.isfinite(points).all():
        raise DataError(
            f"image {annotation.image_id}: expected keypoints as a list of x, y, visibility, and "
            f"so on, got {str(annotation.keypoints)[:80]} (annotation {annotation.id})"
        )
    return points


def _drawing(annotations: list[Annotation], numbers: list[int], height: int, width: int) -> Array:
    """A map of categories, small labels over large ones, (height, width) uint8."""
    found = np.zeros((height, width), np.uint8)
    masks = [mask_of(each, height, width) for each in annotations]
    for row in sorted(range(len(masks)), key=lambda row: -int(masks[row].sum())):
        found[masks[row]] = numbers[row] + 1
    return found
