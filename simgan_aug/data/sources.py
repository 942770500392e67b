"""The two sides of a run, read: every image that there is, decoded when it is drawn.

A side that fits into `data.memory_mb` is decoded and checked at once. Of a larger one `SAMPLE`
images are, the others when they are drawn; what memory there is holds those drawn last.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simgan_aug.config import Data
from simgan_aug.data.decoded import Column, Kept
from simgan_aug.data.listings import Listing, Origin, list_origin
from simgan_aug.data.reading import Reader, look
from simgan_aug.data.source import Box, Source
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.geometry import check_weights
from simgan_aug.labels import Labels, decoded
from simgan_aug.sheet import spaced

Array = np.ndarray[Any, Any]

SAMPLE = 256
"""Images, evenly spaced, by which a side is judged before training."""


def read_synthetic(
    origins: Sequence[Origin],
    config: Data,
    label_weights: Mapping[str, float],
    weights: Sequence[float] = (),
) -> Source:
    """The synthetic images of some places, with the weight of each pixel where weights are given.

    Args:
        origins: where they are.
        config: how they are read.
        label_weights: how much a label's pixels count, by category.
        weights: how often each place is drawn from; (): each image alike.

    Raises:
        DataError: no images, one that is missing or unreadable, mixed channels, a segmentation that
            cannot be decoded.
        ConfigError: a weight for a category that no file has, or without labels.
    """
    listings = [list_origin(origin) for origin in origins]
    labels = _labels(listings, label_weights)
    reader = Reader(listings, config, labels=labels, label_weights=label_weights)
    return _source(reader, weights, lambda indices: _boxes(reader, indices))


def read_real(
    origins: Sequence[Origin], config: Data, synthetic: Source, weights: Sequence[float] = ()
) -> Source:
    """The real photos of some places, upright; labels, if there are any, are never read.

    Raises:
        DataError: no images, one that is unreadable, mixed channels, or others than the
            synthetic ones.
    """
    listings = [list_origin(origin) for origin in origins]
    shorter = synthetic.shorter
    if shorter is None:
        shorter = int(np.median(synthetic.known_sizes().min(axis=1)))
    reader = Reader(listings, config, upright=True, shorter=shorter if config.match_size else None)
    source = _source(reader, weights, lambda indices: [[] for _ in indices])
    if source.channels != synthetic.channels:
        raise DataError(
            f"the synthetic images have {synthetic.channels} channel(s), those in "
            f"{listings[0].place} {source.channels}: set data.channels to 1 or 3"
        )
    return source


def read_boxes(annotations: Path, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """The boxes in some images of a COCO file, x, y, width, height in px; none that are odd."""
    with contextlib.suppress(DataError):  # training needs no labels; odd ones do not stop it
        return _boxes_in(Labels([annotations], only=set(names)), names)
    return {name: [] for name in names}


def _boxes_in(labels: Labels, names: Sequence[str]) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for name in found:
        with contextlib.suppress(DataError):
            boxes = [label.bbox for label in decoded(labels.of(name))]
            found[name] = [box for box in boxes if box is not None and _is_box(box)]
    return found


def _is_box(bbox: Sequence[float]) -> bool:
    return len(bbox) == 4 and all(abs(side) < math.inf for side in bbox)


def _boxes(reader: Reader, indices: Sequence[int]) -> list[list[Box]]:
    """The boxes of images by number; each COCO file is gone through once."""
    wanted = [reader.find(index) for index in indices]
    found: dict[int, dict[str, list[list[float]]]] = {}
    for place, listing in enumerate(reader.listings):
        names = [listing.names[number] for each, number in wanted if each == place]
        if names and reader.labels:
            found[place] = _boxes_in(reader.labels[place], names)
        elif names and listing.annotations is not None:
            found[place] = read_boxes(listing.annotations, names)
    return [
        list(found.get(place, {}).get(reader.listings[place].names[number], ()))
        for place, number in wanted
    ]


def _labels(listings: Sequence[Listing], label_weights: Mapping[str, float]) -> list[Labels]:
    """Of each listing, where weights by label are wanted."""
    if not label_weights:
        return []
    found = []
    for listing in listings:
        if listing.annotations is None:
            raise ConfigError(
                f"regularization.labels weighs labels, and {listing.place} has none: give its COCO "
                "file, or leave regularization.labels out"
            )
        found.append(Labels([listing.annotations]))
    names = [name for labels in found for name in labels.categories.values()]
    check_weights(label_weights, dict(enumerate(names)))
    return found


def _source(
    reader: Reader,
    weights: Sequence[float],
    boxes: Callable[[Sequence[int]], list[list[Box]]],
) -> Source:
    """A side, looked at: a sample of it, and all of it if by the sample it fits into memory."""
    total, kept = len(reader), Kept(reader.config.memory_mb * 2**20)
    images = Column(kept, total, reader.image)
    weighed = Column(kept, total, lambda index: reader.weight(index, images))
    labels = weighed if reader.is_weighted else None
    sample = sorted({*spaced(total, SAMPLE), *reader.starts[:-1]})
    sizes, mean, highest = look(reader, images, labels, sample)
    stated = reader.stated()
    shorter = int(np.median((sizes if stated is None else stated).min(axis=1)))
    fits = mean * total <= kept.room
    if fits and len(sample) < total:
        others = look(reader, images, labels, sorted(set(range(total)).difference(sample)))
        sizes, highest = np.concatenate([sizes, others.sizes]), max(highest, others.highest)
    return Source(
        images=images,
        names=[name for listing in reader.listings for name in listing.names],
        weights=labels,
        fingerprint=_fingerprint(reader.listings, weights, sizes=fits),
        shares=_shares(reader.listings, weights),
        sizes=sizes if fits or stated is None else stated,
        shorter=shorter,
        boxes=boxes,
        highest=highest,
        is_held=fits and not kept.has_dropped,
    )


def _shares(listings: Sequence[Listing], weights: Sequence[float]) -> list[tuple[int, float]]:
    if not weights:
        return []
    return [(len(each.names), weight) for each, weight in zip(listings, weights, strict=True)]


def _fingerprint(listings: Sequence[Listing], weights: Sequence[float], sizes: bool) -> str:
    """Of one place its own, of several all of theirs with how often they are drawn from.

    Without sizes where files are decoded as they are drawn: a damaged one can be mended midway.
    """
    told = [each.fingerprint(sizes) for each in listings]
    if len(told) == 1:
        return told[0]
    told += [repr(float(weight)) for weight in weights]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
