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
    points: Mapping[str, list[Any]]
    """Names of keypoints by category, where the file has them."""

    def names(self) -> list[str]:
        """Categories that labels have, sorted."""
        used = {self.category(each) for labels in self.by_image.values() for each in labels}
        return sorted(used)

    def keypoints(self) -> dict[str, int]:
        """By category, the most that a label has."""
        found: dict[str, int] = {}
        for each in (label for labels in self.by_image.values() for label in labels):
            if isinstance(each.keypoints, list) and each.keypoints:
                name = self.category(each)
                found[name] = max(found.get(name, 0), len(each.keypoints) // 3)
        return found

    def category(self, annotation: Annotation) -> str:
        """The name of a label's category."""
        number = annotation.category_id
        return self.categories.get(number, str(number)) if number is not None else "(none)"


def open_labelled(
    path: Path, folder: Path | None, limit: int, option: str = "--images"
) -> Labelled:
    """Open a COCO file; of more images than `limit` a random part is taken, always the same.

    Args:
        path: the file.
        folder: of its images; None: as `coco.image_folder` finds it.
        limit: images.
        option: what a user says the folder with.

    Raises:
        DataError: it cannot be read, lists too few images, or images are missing.
    """
    entries, labels = coco.read_images(path), coco.read_labels(path)
    if len(entries) < LEAST:
        raise DataError(f"{path}: expected at least {LEAST} images, got {len(entries)}")
    folder = folder or coco.image_folder(path)
    coco.check_present(entries, folder, option)
    entries = drawn(entries, limit)
    return Labelled(path, folder, entries, labels.by_image, labels.categories, labels.points)


def check_same_keypoints(first: Labelled, second: Labelled) -> None:
    """Reject files whose keypoints of a category are not the same ones, in the same order.

    Raises:
        DataError: they differ in number, or in name where both files have names.
    """
    counts, others = first.keypoints(), second.keypoints()
    for name in sorted(counts.keys() & others.keys()):
        if counts[name] != others[name]:
            raise DataError(
                f"{second.path}: labels of {name} have {others[name]} keypoints, those of the "
                f"synthetic images {counts[name]}; expected the same ones in the same order"
            )
        names = first.points.get(name), second.points.get(name)
        if None not in names and names[0] != names[1]:
            raise DataError(
                f"{second.path}: the keypoints of {name} are {_some(names[1])}, those of the "
                f"synthetic images {_some(names[0])}; expected the same ones in the same order"
            )


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
    """How large a label is, in px, by its box; 0 without one."""
    box = annotation.bbox
    return float(box[2] * box[3]) if box is not None and len(box) == 4 else 0.0


def _some(names: Sequence[Any] | None) -> str:
    text = ", ".join(map(str, names or ()))
    return text if len(text) <= 80 else text[:77] + "..."
