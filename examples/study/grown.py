"""How often a label that has grown is told, and one that has not.

    python examples/study/grown.py --annotations instances.json --images DIR [--labels 140]

Labels of a COCO file are painted on beyond their outlines, by so many px, in the colours that they
have along them; or nothing is. On top comes a change of appearance that adds nothing. Printed: of
how many `simgan_aug.audit.growth` can tell, and how many of these look to reach beyond their boxes
by 2 px or more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from audit import Planted, blended, changes, labels

from simgan_aug.audit.growth import Grown, growth
from simgan_aug.audit.pair import Pair, View
from simgan_aug.imagefile import read_image

Array = np.ndarray[Any, Any]


def painted_on(image: Array, at: Planted, px: int) -> Array:
    """What is under a mask, so many px beyond it."""
    outside = (~at.mask).astype(np.uint8)
    distance, nearest = cv2.distanceTransformWithLabels(
        outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((nearest.max() + 1, 3), np.uint8)
    colours[nearest[at.mask]] = cv2.GaussianBlur(image, (0, 0), 1.5)[at.mask]
    return blended(image, colours[nearest], distance <= px)


def main() -> None:
    """Paint, look, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="folder of references [the images]")
    parser.add_argument("--labels", type=int, default=140)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    files = sorted((options.photos or options.images).glob("*.jpg"))[:60]
    photos = [pixels for file in files if (pixels := read_image(file).pixels).ndim == 3]
    looks = changes(photos, draw)
    found: dict[str, list[float | None]] = {}
    for image, at in labels(options.annotations, options.images, options.labels):
        if not at.mask.any():
            continue
        for look, change in looks.items():
            pair = Pair(View(image), View(change(image)))
            found.setdefault(f"not grown, {look}", []).append(growth(pair, at.box))
        for px in (4, 8, 12):
            look = draw.choice(list(looks))
            pair = Pair(View(image), View(looks[look](painted_on(image, at, px))))
            found.setdefault(f"grown by {px} px", []).append(growth(pair, at.box))
    print("| what was done | labels | can be told | of these, grown |\n|---|---|---|---|")
    for name, every in found.items():
        grown = Grown.of(every)
        print(f"| {name} | {len(every)} | {grown.told} | {grown.share:.1%} |")


if __name__ == "__main__":
    main()
