"""Average precision at an IoU of 0.5 as COCO defines it, and what each image contributes."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

RECALLS = np.linspace(0, 1, 101)
"""Places at which COCO reads precision."""


def jackknife(
    predictions: list[Array], truth: list[Array], crowds: list[Array] | None = None
) -> Array:
    """AP50 as a value for each image, (n,): their mean is the AP50, their spread its uncertainty.

    An AP is no mean over images. Its jackknife pseudo-values (Tukey 1958), n times the AP less
    n - 1 times that without the image, can be treated as if it were; they are shifted by their
    small bias.

    Args:
        predictions: of each image, (M, 6): category, score, x, y, width, height; any order.
        truth: of each image, (G, 5): category, x, y, width, height.
        crowds: likewise, of boxes around many objects; what lies in them and hits no label is no
            miss.
    """
    count = len(truth)
    categories = np.unique(np.concatenate([each[:, 0] for each in truth]))
    if not len(categories):
        return np.zeros(count)
    crowds = crowds or [np.zeros((0, 5))] * count
    parts = [_category(predictions, truth, crowds, number) for number in categories]
    whole = np.array([_precision(hits, total) for hits, _, total, _ in parts])
    without = np.tile(whole, (count, 1))  # (n, categories); nan: no label of it is left
    for column, (hits, owners, total, labels) in enumerate(parts):
        for image in np.union1d(owners, np.flatnonzero(labels)):
            left = total - labels[image]
            kept = hits[owners != image]
            without[image, column] = _precision(kept, left) if left else np.nan
    known = np.isfinite(without)
    means = np.where(known, without, 0).sum(1) / np.maximum(known.sum(1), 1)
    values = count * whole.mean() - (count - 1) * means
    shifted: Array = values - values.mean() + whole.mean()
    return shifted


def average_precision(
    predictions: list[Array], truth: list[Array], crowds: list[Array] | None = None
) -> float:
    """AP50, mean over the categories that have labels; arguments as in `jackknife`."""
    return float(jackknife(predictions, truth, crowds).mean())


def _category(
    predictions: list[Array], truth: list[Array], crowds: list[Array], category: float
) -> tuple[Array, Array, int, Array]:
    """Of one category: hits by falling score, their images, labels in all and of each image."""
    scores, hits, owners = [], [], []
    labels = np.zeros(len(truth), dtype=np.int64)
    for image, parts in enumerate(zip(predictions, truth, crowds, strict=True)):
        said, known, crowd = (part[part[:, 0] == category] for part in parts)
        said = said[np.argsort(-said[:, 1], kind="stable")]
        labels[image] = len(known)
        found = _hits(said[:, 2:], known[:, 1:])
        counted = found | ~_within(said[:, 2:], crowd[:, 1:])
        said = said[counted]
        scores.append(said[:, 1])
        hits.append(found[counted])
        owners.append(np.full(len(said), image))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.concatenate(hits)[order], np.concatenate(owners)[order], int(labels.sum()), labels


def _hits(said: Array, known: Array) -> Array:
    """Which boxes, best first, find a label that no better one has found, (M,) bool."""
    hits = np.zeros(len(said), dtype=bool)
    free = np.ones(len(known), dtype=bool)
    if not len(known):
        return hits
    overlaps = _overlaps(said, known)
    for row, overlap in enumerate(overlaps):
        open_to = np.where(free & (overlap >= 0.5), overlap, -1)
        best = len(open_to) - 1 - int(open_to[::-1].argmax())  # of equal ones the last, as COCO
        if open_to[best] > 0:
            hits[row], free[best] = True, False
    return hits


def _within(said: Array, crowds: Array) -> Array:
    """Which boxes lie by half or more of themselves in one of some crowds, (M,) bool."""
    shares = _shared(said, crowds) / np.maximum(said[:, 2:].prod(1)[:, None], 1e-12)
    inside: Array = (shares >= 0.5).any(1)
    return inside


def _shared(first: Array, second: Array) -> Array:
    """Areas of the intersections of boxes, (M, G)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    areas: Array = np.clip(high - low, 0, None).prod(2)
    return areas


def _overlaps(first: Array, second: Array) -> Array:
    """Intersection over union of boxes, (M, G)."""
    shared = _shared(first, second)
    areas = first[:, 2:].prod(1)[:, None] + second[:, 2:].prod(1)[None]
    overlaps: Array = shared / np.maximum(areas - shared, 1e-12)
    return overlaps


def _precision(hits: Array, total: int) -> float:
    """Precision at `RECALLS`, each the best at that recall or a higher one, on average."""
    found = np.cumsum(hits)
    recall = found / total
    precision = found / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.where(places < len(hits), np.append(precision, 0)[places], 0).mean())
