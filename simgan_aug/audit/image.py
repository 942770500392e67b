"""One image before and after: what became of each of its labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from simgan_aug.audit import measures
from simgan_aug.audit.appeared import appeared
from simgan_aug.audit.growth import growths
from simgan_aug.audit.limits import Limits, fails
from simgan_aug.audit.pair import Pair, View
from simgan_aug.coco import Annotation, Id
from simgan_aug.displacement import Displacement, locate
from simgan_aug.errors import DataError
from simgan_aug.geometry import box_around, lies_somewhere, outline_of

Array = np.ndarray[Any, Any]

AROUND = 10
"""Px around a keypoint that are located."""

SURE = 0.5
"""Match that a keypoint, of which there are many, must have for anything to be said of it."""

FURTHEST = 1e9
"""Px at which no box lies."""

MARGIN = 6
"""Px around labels where something new is taken for theirs."""


class LabelAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a label; None: it cannot be told."""

    id: Any
    """Of the annotation."""
    category: str
    bbox: list[float]
    """x, y, width, height in px."""
    displacement: tuple[float, float] | None = None
    """Px to the right and down that the picture under the box has moved on the whole."""
    match: float | None = None
    """How sure that is, or that it is lost: correlation of structure, 1 for the same picture."""
    local: float | None = None
    """Px that a quarter of its parts have moved."""
    keypoints: list[float | None] = []
    """Px that the picture around each visible keypoint has moved."""
    contour: float | None = None
    """F1 of the edges along the mask's outline, before and after."""
    content: float | None = None
    """Similarity of what is under it after its best tone curve, up to 1."""
    contrast: float | None = None
    """Contrast left, as a share of what became of the image's."""
    colour: float | None = None
    """8-bit levels that its chroma is off the image's best colour map."""
    growth: float | None = None
    """Px that it looks to reach beyond its box. No label fails by it: only of many labels is it
    sure enough (`simgan_aug.audit.growth`)."""
    failures: list[str] = []
    """Measures beyond their limits; "displacement" also where the picture was there, and is not to
    be found any more."""

    @property
    def is_unmeasurable(self) -> bool:
        """Whether it had too little structure for anything to be said of its place."""
        return self.displacement is None and not self.failures


class ImageAudit(msgspec.Struct, frozen=True):
    """What became of the labels of an image, and what is new beside them."""

    labels: list[LabelAudit]
    appeared: list[dict[str, Any]] = []
    """{"bbox": [x, y, width, height], "score": strength} of new structure outside of labels."""
    gates: list[str] = []
    """Why gates refuse the image; see `simgan_aug.audit.gates`."""

    @property
    def passes(self) -> bool:
        """Whether nothing is beyond a limit, and no gate refuses it."""
        return not self.appeared and not self.gates and not self.moved

    @property
    def moved(self) -> list[int]:
        """The places of those labels that are beyond a limit."""
        return [place for place, label in enumerate(self.labels) if label.failures]


def audit(
    old: Array | View,
    new: Array,
    annotations: Sequence[Annotation] = (),
    categories: Mapping[Id, str] | None = None,
    limits: Limits | None = None,
    reach: bool = True,
) -> ImageAudit:
    """Hold an image against what it was.

    Args:
        old, new: (H, W) or (H, W, C) before and after; uint8, uint16, or floats in [0, 1]. The
            former may be a `View`, which is worth it where it is compared several times.
        annotations: of this image, as COCO has them; see `placed`.
        categories: names by id.
        limits: see `Limits`.
        reach: whether to look how far labels reach beyond their boxes, by which none fails.

    Raises:
        ImageError: the images are of two sizes, or none.
        DataError: an annotation that makes no sense.
    """
    pair = Pair.of(old, new)
    limits = limits or Limits()
    taken = np.zeros(pair.size, dtype=bool)
    labels = []
    for annotation in placed(annotations):
        outline = outline_of(annotation, *pair.size)
        box = _box(annotation, outline)
        taken[measures.window(box, pair.size, MARGIN)] = True
        name = _name(annotation, categories or {})
        labels.append(_label(pair, annotation, outline, box, name, limits))
    if reach:
        found = growths(pair, [label.bbox for label in labels])
        labels = [replace(label, growth=px) for label, px in zip(labels, found, strict=True)]
    places = [
        {"bbox": list(place.bbox), "score": place.score}
        for place in appeared(pair, taken, limits.appeared)
    ]
    return ImageAudit(labels, places)


def placed(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Those that lie somewhere: that have a mask, a box, or else visible keypoints, around which
    they get one.

    Raises:
        DataError: as `visible`.
    """
    found = []
    for annotation in annotations:
        has_area = annotation.segmentation or (annotation.bbox and 0 not in annotation.bbox[2:])
        points = [] if has_area else visible(annotation.keypoints)
        if points:
            (left, top), (right, bottom) = np.min(points, 0) - AROUND, np.max(points, 0) + AROUND
            box = [float(side) for side in (left, top, right - left, bottom - top)]
            annotation = replace(annotation, bbox=box)
        if lies_somewhere(annotation):
            found.append(annotation)
    return found


def _label(
    pair: Pair,
    annotation: Annotation,
    outlined: Array | None,
    box: list[float],
    name: str,
    limits: Limits,
) -> LabelAudit:
    whole = locate(*pair.structures, box)
    points = [locate(*pair.structures, _around(*at)) for at in visible(annotation.keypoints)]
    distances = [_distance(place) if place and place.match >= SURE else None for place in points]
    values = {
        "displacement": _distance(whole),
        "local": measures.local(pair, box, outlined),
        "keypoints": max((each for each in distances if each is not None), default=None),
        "contour": None if outlined is None else measures.contour(pair, box, outlined),
        "content": measures.content(pair, box, outlined),
        "contrast": measures.contrast(pair, box),
        "colour": measures.colour(pair, box, outlined),
    }
    return LabelAudit(
        id=annotation.id,
        category=name,
        bbox=box,
        displacement=_place(whole),
        match=None if whole is None else _rounded(whole.match),
        keypoints=[_rounded(each) for each in distances],
        **{key: _rounded(values[key]) for key in ("local", "contour", "content")},
        **{key: _rounded(values[key]) for key in ("contrast", "colour")},
        failures=[
            measure
            for measure, value in values.items()
            if fails(measure, value, limits) or (measure == "displacement" and _is_lost(whole))
        ],
    )


def visible(keypoints: Any) -> list[tuple[float, float]]:
    """x and y of the keypoints that can be seen: of x, y, v those with v = 2, as COCO has them.

    Raises:
        DataError: they are no list of numbers.
    """
    try:
        triples = zip(*[iter(keypoints or ())] * 3, strict=False)
        points = [(float(x), float(y)) for x, y, v in triples if v == 2]
        if not np.isfinite(points).all():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"expected keypoints as x, y, v, x, y, v, ...; got {keypoints!r}") from None
    return points


def _name(annotation: Annotation, categories: Mapping[Id, str]) -> str:
    id = annotation.category_id
    return "" if id is None else categories.get(id, "")


def _around(x: float, y: float) -> tuple[float, float, float, float]:
    return x - AROUND, y - AROUND, 2 * AROUND, 2 * AROUND


def _distance(place: Displacement | None) -> float | None:
    return place.distance if place is not None and place.is_found else None


def _place(place: Displacement | None) -> tuple[float, float] | None:
    if place is None or not place.is_found:
        return None
    return round(place.x, 3), round(place.y, 3)


def _is_lost(place: Displacement | None) -> bool:
    """Whether there was something to find again, and it was not found."""
    return place is not None and not place.is_found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _box(annotation: Annotation, outline: Array | None) -> list[float]:
    box = annotation.bbox or [0.0] * 4
    if outline is not None and 0 in box[2:]:
        box = box_around(outline)
    if len(box) != 4 or not all(abs(side) < FURTHEST for side in box):
        raise DataError(
            f"image {annotation.image_id}: expected a bbox of x, y, width and height, got {box}"
        )
    return box
