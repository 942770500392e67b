"""The images of one side as a probe sees them: small, in memory, with their labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import xxhash

from simgan_aug import coco
from simgan_aug.coco import Annotation
from simgan_aug.errors import DataError, ImageError
from simgan_aug.folders import list_images
from simgan_aug.geometry import box_around, mask_of, outline_of
from simgan_aug.imagefile import read_image, upright
from simgan_aug.study import canvas
from simgan_aug.study.canvas import Region, Size, View
from simgan_aug.study.labelled import LEAST, Labelled, Looks, drawn

Array = np.ndarray[Any, Any]

CROWD = 255
"""Of a map: a crowd, whose pixels do not count."""


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
    """(N, H, W) uint8: 0 outside of labels, `CROWD`, else 1 + category."""
    crowds: tuple[tuple[Label, ...], ...] = ()
    """Labels of many objects at once: not learnt, and in a test neither hit nor miss."""

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
        for label in (label for each in (*self.labels, *self.crowds) for label in each):
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
            crowds=tuple(self.crowds[row] for row in kept) if self.crowds else (),
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
    images, views, drawings = [], [], []
    labels: list[tuple[Label, ...]] = []
    crowds: list[tuple[Label, ...]] = []
    for entry in source.entries:
        path = coco.inside(source.folder, entry.file_name)
        pixels = read_image(path).pixels
        coco.check_size(entry, *pixels.shape[:2])
        height, width = pixels.shape[:2]
        known = [
            _boxed(each, height, width)
            for each in source.by_image.get(entry.id, [])
            if source.category(each) in place
        ]
        single = [each for each in known if each.iscrowd != 1]
        many = [each for each in known if each.iscrowd == 1]
        for region, kept in looks.views(single, (width, height)):
            numbers, others = (
                [place[source.category(each)] for each in part] for part in (kept, many)
            )
            images.append(canvas.put(pixels, region, size))
            views.append(View(entry.file_name, region, (width, height)))
            for part, each, found in ((kept, numbers, labels), (many, others, crowds)):
                pairs = zip(part, each, strict=True)
                found.append(tuple(_label(one, number, region, size) for one, number in pairs))
            if maps:
                drawing = _drawing(kept, numbers, many, height, width)
                drawings.append(canvas.put_map(drawing, region, size))
    if len(images) < LEAST:
        raise DataError(
            f"{source.path}: {len(images)} of {len(source.entries)} images have labels that this "
            f"task can use (categories: {', '.join(categories)}); expected at least {LEAST}"
        )
    return Split(
        np.stack(images),
        tuple(views),
        tuple(labels),
        np.stack(drawings) if maps else None,
        tuple(crowds),
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


def _boxed(annotation: Annotation, height: int, width: int) -> Annotation:
    """With a box around the mask where there is no box."""
    if annotation.bbox and len(annotation.bbox) == 4:
        return annotation
    outline = outline_of(annotation, height, width)
    if outline is None:
        return annotation
    return msgspec.structs.replace(annotation, bbox=box_around(outline))


def _drawing(
    annotations: list[Annotation],
    numbers: list[int],
    crowds: list[Annotation],
    height: int,
    width: int,
) -> Array:
    """A map of categories, small labels over large ones, crowds below, (height, width) uint8."""
    found = np.zeros((height, width), np.uint8)
    masks = [mask_of(each, height, width) for each in annotations]
    for row in sorted(range(len(masks)), key=lambda row: -int(masks[row].sum())):
        found[masks[row]] = min(numbers[row] + 1, CROWD - 1)  # segment takes no more categories
    for each in crowds:
        found[mask_of(each, height, width) & (found == 0)] = CROWD
    return found
