"""How well a displacement is measured: planted shifts, on top of changes that move nothing.

    python examples/study/displacement.py --annotations instances.json --images DIR [--boxes 300]

Each box of the COCO file is shifted by a smooth warp that ends 12 px outside of it, and then
changed in appearance, or not; boxes with a side under 16 px are left out.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np

from simgan_aug import coco
from simgan_aug.displacement import displacement, structure
from simgan_aug.imagefile import read_image

Array = np.ndarray[Any, Any]
LIMIT = 0.5
"""Px from which a label counts as moved."""

SHIFTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def changes(photos: list[Array], draw: np.random.Generator) -> dict[str, Callable[[Array], Array]]:
    """Changes of appearance that move nothing."""

    def matched(transform: type, image: Array, **options: object) -> Array:
        reference = photos[draw.integers(len(photos))]
        made = transform(metadata_key="photos", p=1, **options)
        return np.asarray(made(image=image, photos=[reference])["image"])

    def clipped(image: Array) -> Array:
        return np.clip(image, 0, 255).astype(np.uint8)

    def jpeg(image: Array) -> Array:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
        return np.asarray(cv2.imdecode(encoded, 1))

    return {
        "none": lambda image: image,
        "tone curve": lambda image: clipped(255 * (image / 255) ** draw.uniform(0.5, 2)),
        "colour cast": lambda i: clipped(i * draw.uniform(0.6, 1.4, 3) + draw.uniform(-30, 30, 3)),
        "noise, sigma 10": lambda image: clipped(image + draw.normal(0, 10, image.shape)),
        "blur, sigma 1.5": lambda image: cv2.GaussianBlur(image, (0, 0), 1.5),
        "JPEG, quality 50": jpeg,
        "HistogramMatching": lambda i: matched(A.HistogramMatching, i, blend_ratio=(1, 1)),
        "FDA, beta 0.05": lambda i: matched(A.FDA, i, beta_limit=(0.05, 0.05)),
    }


def shifted(image: Array, box: list[float], x: float, y: float) -> Array:
    """The picture under a box moved, and warped smoothly around it."""
    height, width = image.shape[:2]
    inside = np.zeros((height, width), np.float32)
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    inside[max(0, int(top) - 12) : int(bottom) + 12, max(0, int(left) - 12) : int(right) + 12] = 1
    share = cv2.GaussianBlur(inside, (0, 0), 3)
    rows, columns = np.indices((height, width), dtype=np.float32)
    return cv2.remap(
        image, columns - x * share, rows - y * share, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def main() -> None:
    """Measure every change with every shift; print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=int, default=300)
    options = parser.parse_args()
    names = {image.id: image.file_name for image in coco.read_images(options.annotations)}
    labels = coco.read_labels(options.annotations).by_image
    boxes = [(i, a.bbox) for i, some in labels.items() if i in names for a in some if a.bbox]
    boxes = [(image, box) for image, box in boxes if min(box[2:]) >= 16]
    random.Random(0).shuffle(boxes)
    boxes = boxes[: options.boxes]
    pictures = {i: read_image(options.images / names[i]).pixels for i in {i for i, _ in boxes}}
    pictures = {i: p if p.ndim == 3 else np.repeat(p[..., None], 3, 2) for i, p in pictures.items()}
    fields = {image: structure(picture) for image, picture in pictures.items()}
    draw = np.random.default_rng(0)
    print(f"{len(boxes)} boxes; moved means more than {LIMIT} px")
    print(
        "| change | untold | error, median | p95 | not moved: p99 px | "
        + " | ".join(f"{shift:g} px: moved" for shift in SHIFTS)
        + " |\n|"
        + "---|" * (5 + len(SHIFTS))
    )
    began, count = time.perf_counter(), 0
    for name, change in changes(list(pictures.values()), draw).items():
        errors, found, untold = [], {shift: [] for shift in SHIFTS}, 0
        for shift in SHIFTS:
            for image, box in boxes:
                angle = draw.uniform(0, 2 * math.pi)
                x, y = shift * math.cos(angle), shift * math.sin(angle)
                new = change(shifted(pictures[image], box, x, y) if shift else pictures[image])
                got = displacement(fields[image], structure(new), box)
                count += 1
                if got is None:
                    untold += 1
                    continue
                errors.append(math.hypot(got.x - x, got.y - y))
                found[shift].append(got.distance)
        shares = " | ".join(f"{np.mean(np.array(d) > LIMIT):.1%}" for d in found.values())
        print(
            f"| {name} | {untold / len(boxes) / len(SHIFTS):.1%} | {np.median(errors):.3f} | "
            f"{np.percentile(errors, 95):.2f} | {np.percentile(found[0.0], 99):.2f} | {shares} |",
            flush=True,
        )
    print(f"{1000 * (time.perf_counter() - began) / count:.0f} ms a measurement, all included")


if __name__ == "__main__":
    main()
