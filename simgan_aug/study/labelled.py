"""Labelled images as they lie on the disk: a COCO file, opened, and the part of it that is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from simgan_aug import coco
from simgan_aug.coco import Annotation
from simgan_aug.errors import DataError
from simgan_aug.imagefile import read_image
from simgan_aug.study.canvas import Region, Size

LEAST = 8
"""Images that a side must have."""


class Looks(Protocol):
    """What of an image a task looks at."""

    def views(
        self, annotations: list[Annotation], size: Size
    ) -> list[tuple[Region, list[Annotation]]]:
        """Parts of an image and the labels that count in each; none: the image is of no use."""
        ...


@dataclass(frozen=True)
class Labelled:
    """A COCO file, opened: which images it lists, where they lie, what is labelled in them."""

    path: Path
    folder: Path
    entries: list[coco.CocoImage]
    by_image: Mapping[coco.Id, list[Annotation]]
    categories: Mapping[coco.Id, str]

    def names(self) -> list[str]:
        """Categories that labels have, sorted."""
        used = {self.category(each) for labels in self.by_image.values() for each in labels}
        return sorted(used)

    def keypoints(self) -> int:
        """The most that a label has."""
        known = (each.keypoints for labels in self.by_image.values() for each in labels)
        return max((len(each) // 3 for each in known if isinstance(each, list)), default=0)

    def category(self, annotation: Annotation) -> str:
        """The name of a label's category."""
        number = annotation.category_id
        return self.categories.get(number, str(number)) if number is not None else "(none)"


def open_labelled(path: Path, folder: Path | None, limit: int) -> Labelled:
    """Open a COCO file; of more images than `limit` a random part is taken, always the same.

    Raises:
        DataError: it cannot be read, lists too few images, or images are missing.
    """
    entries, labels = coco.read_images(path), coco.read_labels(path)
    if len(entries) < LEAST:
        raise DataError(f"{path}: expected at least {LEAST} images, got {len(entries)}")
    folder = folder or coco.image_folder(path)
    coco.check_present(entries, folder)
    return Labelled(path, folder, drawn(entries, limit), labels.by_image, labels.categories)


def drawn(items: Sequence[Any], limit: int) -> list[Any]:
    """At most so many of the items, in their order, always the same ones."""
    if len(items) <= limit:
        return list(items)
    picked = np.random.default_rng(0).choice(len(items), limit, replace=False)
    return [items[row] for row in np.sort(picked)]


def sizes_of(source: Labelled, looks: Looks) -> list[Size]:
    """Sizes of the views of some images, to choose a canvas by."""
    found = []
    for entry in drawn(source.entries, 64):
        size = entry.width, entry.height
        if not size[0] or not size[1]:
            size = read_image(coco.inside(source.folder, entry.file_name)).pixels.shape[1::-1]
        whole = int(size[0]), int(size[1])
        views = looks.views(source.by_image.get(entry.id, []), whole)
        found += [region[2:] for region, _ in views] or [whole]
    return found


def area(annotation: Annotation) -> float:
    """How large a label is, in px, by its box, else its mask; 0 if it has neither."""
    box = annotation.bbox
    return float(box[2] * box[3]) if box is not None and len(box) == 4 else 0.0
